"""Figures of chapter 5: what units detect."""

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from robustbias import plotting
from robustbias.concepts.measure import UnitExamples
from robustbias.plotting import PAIR, PALETTE, REFERENCE, Described, class_name, layer_name
from robustbias.utils import REGIMES, architecture

# positions and style of S, R and untrained networks in the panels by layer
BY_LAYER = {
    "positions": plotting.offsets((*PAIR, "untrained"), 0.15),
    "panel": (2.7, 1.8),
    "sharex": "col",
    "sharey": "row",
    "label_size": "small",
    "align": "right",
    "style": {"lw": 1.1},
}


def detectors(
    table: pd.DataFrame,
    categories: Sequence[str] = ("texture", "color", "object"),
    threshold: float = 0.04,
) -> Described:
    """Units that detect a concept of each category, by layer; below, units above any threshold.

    One column of panels per architecture. Shares of a layer's units with intervals over units; the
    dashed line is the share that would pass with the masks of other images. Below: the share of all
    units whose best IoU exceeds a value; dotted, the same by null IoU.

    Args:
        table: From `measure.dissection`.
        threshold: Where a unit counts as a detector.
    """
    by_category = [table[table["category"] == category] for category in categories]
    means = pd.concat([plotting.layer_means(rows, "detectors") for rows in by_category])
    labels = [f"detect {category}" for category in categories] + ["share of units above"]
    look = {k: v for k, v in BY_LAYER.items() if k in ("panel", "label_size")}
    figure, panels = plotting.architecture_panels(means, labels, sharey="row", **look)
    nulls = [plotting.layer_means(rows, "null_detectors") for rows in by_category]
    alt = []
    for rows, column in panels:
        name = rows["architecture"].iloc[0]
        for ax, category, null in zip(column, categories, nulls, strict=False):
            mine = rows[rows["category"] == category]
            plotting.layer_lines(ax, mine, BY_LAYER["positions"], align="right", lw=1.1)
            null = null[(null["architecture"] == name) & null["regime"].isin(PAIR)]
            highest = null.groupby("layer", sort=False)["value"].max().to_numpy()
            label = "null, detectors"
            ax.plot(range(len(highest)), highest, color=REFERENCE, ls="--", lw=1, label=label)
            by_regime = mine[mine["regime"].isin(PAIR)].groupby("regime")["value"].max()
            here = [regime for regime in PAIR if regime in by_regime]
            ends = ", ".join(f"{REGIMES[regime][0]} {by_regime[regime]:.2f}" for regime in here)
            alt.append(f"{architecture(name)}, {category}: {ends}")
        column[0].tick_params(labelbottom=False)  # the row below has the same layers
        _best_iou(column[-1], table[table["architecture"] == name], threshold)
    plotting.legend_below(figure)
    return figure.described(
        "Share of units that detect a concept, by layer, and the share of units above every IoU. "
        f"Largest share in a layer: {'; '.join(alt)}."
    )


def _best_iou(ax: Axes, table: pd.DataFrame, threshold: float) -> None:
    """Shares of one architecture's units whose best IoU, or best null IoU, exceeds a value."""
    units = table[table["metric"].isin(["iou", "null_iou"])]
    keys = ["network", "regime", "metric", "layer", "unit"]
    best = units.groupby(keys, sort=False)["value"].max().reset_index()
    grid = np.geomspace(0.002, 0.5, 200)
    styles = {"iou": ("-", 1.6), "null_iou": (":", 1.2)}
    for regime, metric in itertools.product(BY_LAYER["positions"], styles):
        values = best.loc[(best["regime"] == regime) & (best["metric"] == metric), "value"]
        if values.empty:
            continue
        share = (values.to_numpy()[:, None] > grid).mean(0)
        style, width = styles[metric]
        label = None if metric == "iou" else f"null IoU of {REGIMES[regime].split()[0]}"
        ax.plot(grid, share, color=PALETTE[regime], ls=style, lw=width, label=label)
    ax.axvline(threshold, color="#444444", lw=0.8)
    ax.set(xscale="log", ylim=(-0.02, 1.02), xlabel="best IoU of a unit")
    ax.set_xticks((0.005, 0.02, 0.1, 0.4), ["0.005", "0.02", "0.1", "0.4"])
    ax.minorticks_off()


def unit_examples(examples: UnitExamples, *, show_images: bool = True) -> Described:
    """Top images of units, one row each, the region above the unit's threshold outlined.

    Args:
        examples: From `measure.unit_examples`.
        show_images: False leaves the regions alone.
    """
    (m, k), alt = examples.regions.shape[:2], []
    figure, axes = plotting.canvas(m, k, panel=(1.15, 1.42))
    for i, (line, unit) in enumerate(zip(axes, examples.units.itertuples(), strict=True)):
        for j, ax in enumerate(line):
            region = examples.regions[i, j].cpu().numpy()
            if show_images:
                plotting.picture(ax, plotting.channels_last(examples.pixels[i, j]) / 255)
            else:
                plotting.picture(ax, np.repeat(0.93 - 0.35 * region[..., None], 3, -1))
            padded = np.pad(region, 1).astype(float)  # a region may reach the image's edge
            at = np.arange(len(padded)) - 1
            for colour, width in (("black", 2.6), (PALETTE[unit.regime], 1.4)):
                if region.any():
                    ax.contour(at, at, padded, levels=[0.5], colors=[colour], linewidths=width)
            ax.set(xlim=(-1, len(region)), ylim=(len(region), -1))
        words = f"{REGIMES[unit.regime][0]}, {layer_name(unit.layer)}, unit {unit.unit}: "
        words += f"{class_name(unit.concept)} ({unit.category}), IoU {unit.iou:.2f}"
        plotting.row_title(line[0], words, unit.regime)
        alt.append(words)
    return figure.described("Top images of units, one row per unit. " + "; ".join(alt) + ".")
