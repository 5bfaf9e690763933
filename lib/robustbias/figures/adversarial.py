"""Figures of chapter 1: training records, accuracy under attack, what an attack looks like."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from robustbias.figures.theme import PALETTE, canvas, interval_points, legend_below, picture
from robustbias.measures.examples import AdversarialExamples
from robustbias.names import REGIMES, architecture

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
    legend_below(figure, axes, 2 if len(names) < 3 else 4)
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
    n = len(examples.clean)
    figure, axes = canvas(1 + 2 * len(regimes), n, panel=(1.5, 1.62))
    shown = np.moveaxis(examples.clean.cpu().numpy(), 1, -1)
    for column in range(n):
        picture(
            axes[0, column],
            shown[column] if show_images else None,
            examples.classes[examples.labels[column]],
        )
        for row, regime in enumerate(regimes):
            attacked = np.moveaxis(examples.attacked[regime].cpu().numpy(), 1, -1)[column]
            change = attacked - shown[column]
            gain = 0.5 / max(np.abs(change).max(), 1e-8)
            perturbed, result = axes[1 + 2 * row, column], axes[2 + 2 * row, column]
            picture(perturbed, 0.5 + gain * change, f"change × {gain:.0f}", "#555555")
            chosen = int(examples.predictions[regime][column])
            fooled = chosen != int(examples.labels[column])
            picture(
                result,
                attacked if show_images else None,
                f"{'→ ' if fooled else '= '}{examples.classes[chosen]}",
                PALETTE[regime],
            )
    for row, regime in enumerate(regimes):
        for offset, words in ((1, "perturbation\nof"), (2, "attacked\n")):
            axes[offset + 2 * row, 0].set_ylabel(f"{words} {LETTERS[regime]}")
    axes[0, 0].set_ylabel("image")
    return figure
