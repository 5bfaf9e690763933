"""Figures of chapter 3: what distortions look like, accuracy under them, corruptions in a map."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Tensor

from robustbias.images.corruptions.constants import NAMES, SEVERITIES
from robustbias.images.distortions import removed
from robustbias.ood_generalization.corruption_error import READINGS
from robustbias.plotting import PALETTE, canvas, interval_points, legend_below, picture
from robustbias.shape_bias import published
from robustbias.utils import REGIMES, architecture

WORDS = {"": "absolute", "_relative": "relative to clean", "_conditional": "both right when clean"}


AXES = {"top1": "top-1 accuracy", "entry_level": "entry-level accuracy"}


# orange where R is ahead, blue where S is, as in every figure
AHEAD = LinearSegmentedColormap.from_list(
    "ahead", [PALETTE["standard"], "#ffffff", PALETTE["robust"]]
)


def distortion_examples(shown: dict[str, Float[Tensor, "n 3 h w"]]) -> Figure:
    """The same images clean and under every distortion, with what each takes away.

    Args:
        shown: From `images.distortions.examples`.
    """
    columns = 3
    figure, axes = canvas(-(-len(shown) // columns), columns, panel=(2.3, 1.0))
    for ax in axes.flat:
        ax.axis("off")
    for ax, (name, pixels) in zip(axes.flat, shown.items(), strict=False):
        strip = np.concatenate(list(np.moveaxis(pixels.cpu().numpy(), 1, -1)), axis=1)
        lost = removed(name)
        words = "" if lost.startswith("nothing") or not lost else f"\n– {lost}"
        picture(ax, strip, name + words)
    return figure


def accuracy_by_distortion(table: pd.DataFrame) -> Figure:
    """Accuracy of S and R under every distortion, absolute reading, a panel an architecture.

    Dotted lines: the same networks on clean images. Top-1, or entry-level accuracy where some
    stimuli are labelled by category alone; the axis says which.

    Args:
        table: From `measures.ood`.
    """
    metric = decision(table)
    own = table[(table["metric"] == metric) & table["group"].isin(["clean", "distortion"])]
    order = conditions(own)[::-1]
    names = list(dict.fromkeys(own["architecture"]))
    figure, axes = canvas(1, len(names), panel=(2.5, 0.24 * len(order) + 0.9), sharey=True)
    for ax, name in zip(axes[0], names, strict=True):
        mine = own[own["architecture"] == name]
        for offset, regime in ((0.15, "standard"), (-0.15, "robust")):
            rows = mine[mine["regime"] == regime].set_index("condition")
            if rows.empty:
                continue
            ax.axvline(rows.loc["clean", "value"], color=PALETTE[regime], ls=":", lw=1)
            y = np.arange(len(order)) + offset
            label = REGIMES[regime]
            interval_points(ax, y, rows.reindex(order), kind=regime, label=label, sideways=True)
        ax.set(xlim=(-0.03, 1.03), xticks=(0, 0.5, 1), yticks=range(len(order)))
        ax.set(yticklabels=order, title=architecture(name), xlabel=AXES[metric])
        _separate(ax, order)
    legend_below(figure, axes)
    return figure


def distortion_readings(table: pd.DataFrame) -> Figure:
    """R minus S under every distortion, a panel a reading, a mark an architecture.

    Args:
        table: From `measures.ood`.
    """
    metric = decision(table)
    own = table[(table["regime"] == "robust - standard") & (table["group"] == "distortion")]
    order = conditions(own[own["metric"] == f"{metric}_difference"])[::-1]
    names = list(dict.fromkeys(own["architecture"]))
    figure, axes = canvas(1, 3, panel=(2.3, 0.24 * len(order) + 0.9), sharey=True)
    for ax, reading in zip(axes[0], READINGS, strict=True):
        shown = own[own["metric"] == f"{metric}{reading}_difference"]
        for i, name in enumerate(names):
            rows = shown[shown["architecture"] == name].set_index("condition").reindex(order)
            y = np.arange(len(order)) + 0.22 * ((len(names) - 1) / 2 - i)
            interval_points(
                ax, y, rows, kind="robust", label=architecture(name), sideways=True,
                fmt="sD^"[i % 3], color=("#D55E00", "#E69F00", "#8a3d00")[i % 3], ms=4,
            )  # fmt: skip
        ax.axvline(0, color="#777777", lw=1)
        ax.set(yticks=range(len(order)), xlabel="← S   R minus S   R →")
        ax.set_title(WORDS[reading], size="small")
        ax.set_yticklabels(order)
        _separate(ax, order)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def corruption_heat(table: pd.DataFrame) -> Figure:
    """R minus S of top-1 by corruption and severity: ours, and ImageNet's ResNet-50 (L2, eps 3).

    Args:
        table: From `measures.ood`.
    """
    cells = table[
        (table["metric"] == "top1_difference")
        & (table["group"] == "corruption")
        & (table["severity"] > 0)
    ]
    panels = {
        architecture(name): own.pivot(index="condition", columns="severity", values="value")
        for name, own in cells.groupby("architecture", sort=False)
    }
    known = published.corruptions().pivot(
        index=["corruption", "severity"], columns="regime", values="value"
    )
    panels["ResNet-50, ImageNet"] = (known["robust"] - known["standard"]).unstack()
    figure, axes = canvas(1, len(panels), panel=(1.9, 4.4), sharey=True)
    for ax, (title, values) in zip(axes[0], panels.items(), strict=True):
        grid = values.reindex(index=NAMES, columns=SEVERITIES).to_numpy(float)
        image = ax.imshow(grid, cmap=AHEAD, vmin=-0.7, vmax=0.7, aspect="auto")
        for (y, x), value in np.ndenumerate(grid):
            ink = "white" if abs(value) > 0.45 else "black"
            text = f"{100 * value:+.0f}".replace("-", "−")
            ax.text(x, y, text, ha="center", va="center", size="x-small", color=ink)
        ax.set(xticks=range(len(SEVERITIES)), xticklabels=SEVERITIES, xlabel="severity")
        ax.set(yticks=range(len(NAMES)))
        ax.set_yticklabels([name.replace("_", " ") for name in NAMES])
        ax.set_title(title, size="small")
        ax.grid(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.5, ticks=(-0.6, 0, 0.6), location="bottom")
    bar.set_label("top-1, R minus S (numbers: percentage points)")
    return figure


def decision(table: pd.DataFrame) -> str:
    """The finest decision that every condition has: top1, or entry_level."""
    top1 = set(table.loc[table["metric"] == "top1", "condition"])
    return "top1" if top1 >= set(table["condition"]) else "entry_level"


def conditions(table: pd.DataFrame) -> list[str]:
    """Distortions in the order of what they take away."""
    kinds = ["texture", "shape", "colour", "colour, grey levels", "grey levels"]
    kinds += ["high frequencies", "low frequencies", "nothing (noise)"]
    found = dict.fromkeys(table.loc[table["group"] == "distortion", "condition"])
    return sorted(found, key=lambda name: kinds.index(removed(name)))


def _separate(ax, order: list[str]) -> None:
    """Thin lines between groups that lose different things."""
    for i in range(1, len(order)):
        if removed(order[i]) != removed(order[i - 1]):
            ax.axhline(i - 0.5, color="#bbbbbb", lw=0.8)


# -- --------------------------------------------------------------------------------------------
# Figure of chapter 3: one image under every corruption and severity.


def corruption_sheet(
    pixels: Float[np.ndarray, "c s h w 3"], names: Sequence[str], *, show_images: bool = True
) -> Figure:
    """A row a corruption: the clean image, then severities 1 to 5.

    Args:
        pixels: In [0, 1], column 0 clean: `images.corruptions.sheet(...).movedim(2, -1).numpy()`.
        names: Of the rows.
        show_images: False leaves grey places (for photographs that must not be shown).
    """
    rows, columns = pixels.shape[:2]
    figure, axes = canvas(rows, columns, panel=(0.95, 0.8))
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    for row, (name, line) in enumerate(zip(names, axes, strict=True)):
        for column, ax in enumerate(line):
            title = ("clean" if column == 0 else f"severity {column}") if row == 0 else ""
            if show_images:
                picture(ax, pixels[row, column], title)
            else:
                picture(ax, None, title)
                ax.texts[0].set_visible(False)  # "not shown" ninety times over is noise
        line[0].set_ylabel(
            name.replace("_", "\n"), rotation=0, ha="right", va="center", size="small"
        )
    return figure
