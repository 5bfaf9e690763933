"""Figures of chapter 1: accuracy under attack, training records, what attacks look like."""

import numpy as np
import pandas as pd
from jaxtyping import Int64
from torch import Tensor

from robustbias import plotting
from robustbias.adversarial_training.measure import AdversarialExamples
from robustbias.plotting import PAIR, PALETTE, REFERENCE, Described
from robustbias.utils import REGIMES, architecture


def training_records(records: pd.DataFrame) -> Described:
    """Held-out accuracy by epoch, clean (solid) and under attack (dashed), a line per training.

    One panel per architecture.

    Args:
        records: Columns network, architecture, regime, epoch, clean, adversarial (fractions; may
            be NaN).
    """
    figure, panels = plotting.architecture_panels(records, ["held-out accuracy"], sharey=True)
    styles = (("clean", "-", "clean"), ("adversarial", "--", "under attack"))
    words = []
    for group, (ax,) in panels:
        for regime in PAIR:
            mine, last = group[group["regime"] == regime], []
            for _, training in mine.groupby("network", sort=False):
                for column, style, condition in styles:
                    tested = training.dropna(subset=[column])
                    look = {"color": PALETTE[regime], "label": f"{REGIMES[regime]}, {condition}"}
                    ax.plot(tested["epoch"], tested[column], style, lw=1.2, **look)
                if not tested.empty:
                    last.append(f"{tested['adversarial'].iloc[-1]:.2f}")
            if last:
                name = architecture(group["architecture"].iloc[0])
                words.append(f"{name}, {REGIMES[regime]}: {', '.join(last)}")
        ax.set(xlabel="epoch", ylim=(-0.02, 1.02))
    plotting.legend_below(figure, 2)
    return figure.described(
        "Held-out accuracy against training epoch, clean and under attack, one panel per "
        f"architecture. Under attack after the last epoch: {'; '.join(words)}."
    )


def accuracy_curve(table: pd.DataFrame) -> Described:
    """Accuracy against the attack's radius, S and R of each architecture, 95 % intervals.

    Args:
        table: From `measure.accuracy`; the dotted line marks the radius R was trained at.
    """
    attacked = set(table.loc[table["steps"] > 0, "network"])
    table = table[(table["metric"] == "top1") & table["network"].isin(attacked)]
    rows = plotting.per_architecture(table)
    labels = ["top-1 accuracy\n(higher is more robust)"]
    figure, panels = plotting.architecture_panels(rows, labels, panel=(2.3, 2.4), sharey=True)
    words = []
    for group, (ax,) in panels:
        for regime in PAIR:
            curve = group[group["regime"] == regime].sort_values("attack_eps")
            if curve.empty:
                continue
            look = {"kind": regime, "label": REGIMES[regime], "ls": "-"}
            plotting.interval_points(ax, curve["attack_eps"], curve, **look)
            mine = table[table["architecture"] == curve["architecture"].iloc[0]]
            plotting.trainings(ax, mine, mine["attack_eps"] + 0.08, regime)
            ends = f"{curve['value'].iloc[0]:.2f} to {curve['value'].iloc[-1]:.2f}"
            words.append(f"{architecture(group['architecture'].iloc[0])} {REGIMES[regime]} {ends}")
            if regime == "robust":
                ax.axvline(curve["eps"].iloc[0], color=REFERENCE, ls=":", label="training radius")
        ax.set(xlabel="attack radius (L2)", ylim=(-0.02, 1.02))
    plotting.legend_below(figure)
    return figure.described(
        "Top-1 accuracy against the radius of the attack. From clean images to the largest radius: "
        + "; ".join(words)
        + "."
    )


def adversarial_examples(
    examples: AdversarialExamples, *, show_images: bool = True
) -> Described | None:
    """Held-out images, each network's adversarial perturbation of them, and the attacked image.

    Perturbations are drawn on mid-grey, stretched so that their largest change fills the range.
    None without an image that both networks classify correctly.

    Args:
        show_images: False leaves out the images themselves (for photographs whose licence does
            not allow showing them) and shows the perturbations alone.
    """
    if not len(examples.clean):
        return None
    regimes = [regime for regime in PAIR if regime in examples.attacked]
    n_rows = 1 + 2 * len(regimes) if show_images else len(regimes)
    figure, axes = plotting.canvas(n_rows, len(examples.clean), panel=(1.14, 1.35))
    clean = plotting.channels_last(examples.clean)
    words = _names(examples, examples.labels)
    lines, alt = iter(axes), []
    if show_images:
        line = next(lines)
        line[0].set_ylabel("image")
        for ax, pixels, word in zip(line, clean, words, strict=True):
            plotting.picture(ax, pixels, word)
    for regime in regimes:
        attacked = plotting.channels_last(examples.attacked[regime])
        named = [
            plotting.class_name(examples.classes[label])
            for label in examples.predictions[regime].tolist()
        ]
        changed = (examples.predictions[regime] != examples.labels).tolist()
        alt.append(f"{REGIMES[regime]}: {sum(changed)} of {len(changed)}")
        answers = ["→ " * moved + name for moved, name in zip(changed, named, strict=True)]
        line = next(lines)
        line[0].set_ylabel(f"attack on {REGIMES[regime][0]}", color=PALETTE[regime])
        for ax, before, after, word, answer in zip(
            line, clean, attacked, words, answers, strict=True
        ):
            change = after - before
            gain = 0.5 / max(np.abs(change).max(), 1e-8)
            title = f"× {gain:.0f}" if show_images else f"{word}\n{answer}"
            plotting.picture(
                ax, 0.5 + gain * change, title, "#555555" if show_images else PALETTE[regime]
            )
        if show_images:
            line = next(lines)
            line[0].set_ylabel(f"attacked ({REGIMES[regime][0]})", color=PALETTE[regime])
            for ax, pixels, answer in zip(line, attacked, answers, strict=True):
                plotting.picture(ax, pixels, answer, PALETTE[regime])
    return figure.described(
        "Perturbations of the same images for S and for R. Attacks that changed the class: "
        + "; ".join(alt)
        + "."
    )


def _names(examples: AdversarialExamples, labels: Int64[Tensor, " n"]) -> list[str]:
    return [plotting.class_name(examples.classes[label]) for label in labels.tolist()]


def targeted_images(examples: AdversarialExamples) -> Described:
    """Start images, and what S and R turn them into under targeted attacks of a large radius.

    Args:
        examples: From `measure.targeted_images`; `labels` are the targets.
    """
    regimes = [regime for regime in PAIR if regime in examples.attacked]
    figure, axes = plotting.canvas(1 + len(regimes), len(examples.clean), panel=(1.14, 1.3))
    titles = [
        "→ " + plotting.class_name(examples.classes[label]).replace(" ", "\n")
        for label in examples.labels.tolist()
    ]
    for ax, pixels, title in zip(
        axes[0], plotting.channels_last(examples.clean), titles, strict=True
    ):
        plotting.picture(ax, pixels, title)
    axes[0, 0].set_ylabel("start")
    alt = []
    for line, regime in zip(axes[1:], regimes, strict=True):
        line[0].set_ylabel(REGIMES[regime], color=PALETTE[regime])
        for ax, pixels in zip(line, plotting.channels_last(examples.attacked[regime]), strict=True):
            plotting.picture(ax, pixels)
        reached = (examples.predictions[regime] == examples.labels).sum()
        alt.append(f"{REGIMES[regime]}: {int(reached)} of {len(titles)}")
    return figure.described(
        "Images changed towards another class by large attacks on S and on R. Attacks that reach "
        "their target class: " + "; ".join(alt) + "."
    )
