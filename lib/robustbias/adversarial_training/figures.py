"""Figures of chapter 1: training records, accuracy under attack, what an attack looks like."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from robustbias.adversarial_training.measure import AdversarialExamples
from robustbias.plotting import PALETTE, canvas, interval_points, legend_below, picture
from robustbias.utils import REGIMES, architecture

LETTERS = {"standard": "S", "robust": "R"}


def training_records(records: pd.DataFrame) -> Figure:
    """Held-out accuracy by epoch, clean (solid) and under attack (dashed), a panel a pair.

    Args:
        records: Columns architecture, regime, epoch, clean, adversarial (fractions; may be NaN).
    """
    names = list(dict.fromkeys(records["architecture"]))
    figure, axes = canvas(1, len(names), sharey=True)
    for ax, name in zip(axes[0], names, strict=True):
        for regime in LETTERS:
            own = records[(records["architecture"] == name) & (records["regime"] == regime)]
            for column, style, words in (
                ("clean", "-", "clean"),
                ("adversarial", "--", "under attack"),
            ):
                known = own.dropna(subset=[column])
                ax.plot(
                    known["epoch"],
                    known[column],
                    style,
                    color=PALETTE[regime],
                    label=f"{REGIMES[regime]}, {words}",
                )
        ax.set(title=architecture(name), xlabel="epoch", ylim=(-0.02, 1.02))
    axes[0, 0].set_ylabel("held-out accuracy")
    legend_below(figure, axes)
    return figure


def accuracy_curve(table: pd.DataFrame) -> Figure:
    """Accuracy against the attack's radius, S and R of each architecture, 95 % intervals.

    Args:
        table: From `measures.accuracy`; the dotted line marks the radius R was trained at.
    """
    attacked = set(table.loc[table["steps"] > 0, "network"])
    steps = table.loc[table["steps"] > 0, "steps"].min()
    shown = table[
        (table["metric"] == "top1")
        & table["network"].isin(attacked)
        & table["steps"].isin([0, steps])
    ].sort_values("attack_eps")
    names = list(dict.fromkeys(table.loc[table["network"].isin(attacked), "architecture"]))
    figure, axes = canvas(1, len(names), sharey=True)
    for ax, name in zip(axes[0], names, strict=True):
        for regime in LETTERS:
            own = shown[(shown["architecture"] == name) & (shown["regime"] == regime)]
            if own.empty:
                continue
            interval_points(ax, own["attack_eps"], own, kind=regime, label=REGIMES[regime], ls="-")
            if regime == "robust":
                ax.axvline(own["eps"].iloc[0], color="#999999", ls=":", label="training radius")
        ax.set(title=architecture(name), xlabel="attack radius eps", ylim=(-0.02, 1.02))
    axes[0, 0].set_ylabel("top-1 accuracy")
    legend_below(figure, axes)
    return figure


def adversarial_examples(examples: AdversarialExamples, *, show_images: bool = True) -> Figure:
    """Held-out images, the perturbation each network's attack found, and the attacked image.

    Perturbations are drawn on mid-grey, stretched so that their largest change fills the range.

    Args:
        show_images: False leaves out the images themselves (for photographs whose licence does
            not allow showing them) and shows the perturbations alone.
    """
    regimes = [regime for regime in LETTERS if regime in examples.attacked]
    kinds = ["image", "change", "result"] if show_images else ["change"]
    rows = [(None, "image")] * show_images
    rows += [(regime, kind) for regime in regimes for kind in kinds if kind != "image"]
    figure, axes = canvas(len(rows), len(examples.clean), panel=(1.5, 1.7))
    clean = np.moveaxis(examples.clean.cpu().numpy(), 1, -1)
    words = [examples.classes[label] for label in examples.labels.tolist()]
    for row, (regime, kind) in enumerate(rows):
        if kind == "image":
            axes[row, 0].set_ylabel("image")
            for ax, pixels, word in zip(axes[row], clean, words, strict=True):
                picture(ax, pixels, word)
            continue
        attacked = np.moveaxis(examples.attacked[regime].cpu().numpy(), 1, -1)
        answers = [examples.classes[label] for label in examples.predictions[regime].tolist()]
        signs = [
            "=" if answer == word else "→" for answer, word in zip(answers, words, strict=True)
        ]
        axes[row, 0].set_ylabel(
            f"{'change against' if kind == 'change' else 'what is shown to'}\n{LETTERS[regime]}"
        )
        for column, ax in enumerate(axes[row]):
            answer = f"{signs[column]} {answers[column]}"
            if kind == "result":
                picture(ax, attacked[column], answer, PALETTE[regime])
                continue
            change = attacked[column] - clean[column]
            gain = 0.5 / max(np.abs(change).max(), 1e-8)
            title = f"× {gain:.0f}" if show_images else f"{words[column]} {answer} (× {gain:.0f})"
            picture(ax, 0.5 + gain * change, title, "#555555" if show_images else PALETTE[regime])
    return figure
