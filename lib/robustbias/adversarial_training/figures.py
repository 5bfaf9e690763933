"""Figures of chapter 1: training records, accuracy under attack, adversarial examples."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from robustbias import plotting
from robustbias.adversarial_training.measure import AdversarialExamples
from robustbias.plotting import PAIR, PALETTE, REFERENCE
from robustbias.utils import REGIMES


def training_records(records: pd.DataFrame) -> Figure:
    """Held-out accuracy by epoch, clean (solid) and under attack (dashed), one panel per pair.

    Args:
        records: Columns architecture, regime, epoch, clean, adversarial (fractions; may be NaN).
    """
    figure, panels = plotting.architecture_panels(records, ["held-out accuracy"], sharey=True)
    styles = (("clean", "-", "clean"), ("adversarial", "--", "under attack"))
    for group, (ax,) in panels:
        for regime in PAIR:
            for column, style, words in styles:
                tested = group[group["regime"] == regime].dropna(subset=[column])
                label = f"{REGIMES[regime]}, {words}"
                ax.plot(tested["epoch"], tested[column], style, color=PALETTE[regime], label=label)
        ax.set(xlabel="epoch", ylim=(-0.02, 1.02))
    plotting.legend_below(figure)
    return figure


def accuracy_curve(table: pd.DataFrame) -> Figure:
    """Accuracy against the attack's radius, S and R of each architecture, 95 % intervals.

    Args:
        table: From `measure.accuracy`; the dotted line marks the radius R was trained at.
    """
    attacked = set(table.loc[table["steps"] > 0, "network"])
    rows = table[(table["metric"] == "top1") & table["network"].isin(attacked)]
    figure, panels = plotting.architecture_panels(rows, ["top-1 accuracy"], sharey=True)
    for group, (ax,) in panels:
        for regime in PAIR:
            curve = group[group["regime"] == regime].sort_values("attack_eps")
            if curve.empty:
                continue
            look = {"kind": regime, "label": REGIMES[regime], "ls": "-"}
            plotting.interval_points(ax, curve["attack_eps"], curve, **look)
            if regime == "robust":
                ax.axvline(curve["eps"].iloc[0], color=REFERENCE, ls=":", label="training radius")
        ax.set(xlabel="attack radius eps", ylim=(-0.02, 1.02))
    plotting.legend_below(figure)
    return figure


def adversarial_examples(examples: AdversarialExamples, *, show_images: bool = True) -> Figure:
    """Held-out images, each network's adversarial perturbation of them, and the attacked image.

    Perturbations are drawn on mid-grey, stretched so that their largest change fills the range.

    Args:
        show_images: False leaves out the images themselves (for photographs whose licence does
            not allow showing them) and shows the perturbations alone.
    """
    regimes = [regime for regime in PAIR if regime in examples.attacked]
    n_rows = 1 + 2 * len(regimes) if show_images else len(regimes)
    figure, axes = plotting.canvas(n_rows, len(examples.clean), panel=(1.5, 1.7))
    clean = plotting.channels_last(examples.clean)
    words = [examples.classes[label] for label in examples.labels.tolist()]
    lines = iter(axes)
    if show_images:
        line = next(lines)
        line[0].set_ylabel("image")
        for ax, pixels, word in zip(line, clean, words, strict=True):
            plotting.picture(ax, pixels, word)
    for regime in regimes:
        attacked = plotting.channels_last(examples.attacked[regime])
        answers = [examples.classes[label] for label in examples.predictions[regime].tolist()]
        answers = [
            f"{'=' if answer == word else '→'} {answer}"
            for answer, word in zip(answers, words, strict=True)
        ]
        line = next(lines)
        line[0].set_ylabel(f"change against\n{REGIMES[regime][0]}")
        for ax, before, after, word, answer in zip(
            line, clean, attacked, words, answers, strict=True
        ):
            change = after - before
            gain = 0.5 / max(np.abs(change).max(), 1e-8)
            title = f"× {gain:.0f}" if show_images else f"{word} {answer} (× {gain:.0f})"
            plotting.picture(
                ax, 0.5 + gain * change, title, "#555555" if show_images else PALETTE[regime]
            )
        if show_images:
            line = next(lines)
            line[0].set_ylabel(f"attacked image,\n{REGIMES[regime][0]}")
            for ax, pixels, answer in zip(line, attacked, answers, strict=True):
                plotting.picture(ax, pixels, answer, PALETTE[regime])
    return figure
