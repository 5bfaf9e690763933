"""Figures of chapter 5: what units detect."""

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from robustbias import plotting
from robustbias.concepts.measure import UnitExamples
from robustbias.plotting import PAIR, PALETTE, REFERENCE
from robustbias.utils import REGIMES

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


def detectors_by_layer(
    table: pd.DataFrame, categories: Sequence[str] = ("texture or color", "object")
) -> Figure:
    """Share of a layer's units that detect a concept of each category, S, R and untrained.

    One column of panels per architecture; intervals over units. The dashed line is the share that
    would pass the test with the masks of other images.

    Args:
        table: From `measure.dissection`.
    """
    by_category = [table[table["category"] == category] for category in categories]
    means = [plotting.layer_means(rows, "detectors") for rows in by_category]
    labels = [f"units that detect\n{category}" for category in categories]
    figure, axes = plotting.layer_panels(means, labels, **BY_LAYER)
    names = list(dict.fromkeys(pd.concat(means)["architecture"]))
    for line, rows in zip(axes, by_category, strict=True):
        null = plotting.layer_means(rows, "null_detectors")
        null = null[null["regime"].isin(PAIR)]
        for ax, name in zip(line, names, strict=True):
            by_layer = null[null["architecture"] == name].groupby("layer", sort=False)["value"]
            highest = by_layer.max().to_numpy()
            ax.plot(range(len(highest)), highest, color=REFERENCE, ls="--", lw=1, label="null")
    plotting.legend_below(figure)
    return figure


def best_iou(table: pd.DataFrame, threshold: float = 0.04) -> Figure:
    """Share of units whose best IoU exceeds a value; dotted, the same by null IoU.

    Args:
        table: From `measure.dissection`.
        threshold: Where a unit counts as a detector.
    """
    units = table[table["metric"].isin(["iou", "null_iou"])]
    keys = ["architecture", "regime", "metric", "layer", "unit"]
    best = units.groupby(keys, sort=False)["value"].max().reset_index()
    figure, panels = plotting.architecture_panels(
        best, ["share of units above"], panel=(2.6, 2.8), sharex=True, sharey=True
    )
    grid = np.geomspace(0.002, 0.5, 200)
    styles = {"iou": ("-", 1.6), "null_iou": (":", 1.2)}
    for rows, (ax,) in panels:
        for regime, metric in itertools.product(BY_LAYER["positions"], styles):
            values = rows.loc[(rows["regime"] == regime) & (rows["metric"] == metric), "value"]
            if values.empty:
                continue
            share = (values.to_numpy()[:, None] > grid).mean(0)
            name = REGIMES[regime]
            label = name if metric == "iou" else f"null of {name.split()[0]}"
            style, width = styles[metric]
            ax.plot(grid, share, color=PALETTE[regime], ls=style, lw=width, label=label)
        ax.axvline(threshold, color="#444444", lw=0.8)
        ax.set(xscale="log", ylim=(-0.02, 1.02), xlabel="best IoU of a unit")
        ax.set_xticks((0.005, 0.02, 0.1, 0.4), ["0.005", "0.02", "0.1", "0.4"])
        ax.minorticks_off()
    plotting.legend_below(figure)
    return figure


def unit_examples(examples: UnitExamples, *, show_images: bool = True) -> Figure:
    """Top images of units, one row each, the region above the unit's threshold outlined.

    Args:
        examples: From `measure.unit_examples`.
        show_images: False leaves the regions alone.
    """
    m, k = examples.regions.shape[:2]
    figure, axes = plotting.canvas(m, k, panel=(1.15, 1.45))
    figure.get_layout_engine().set(rect=(0, 0, 1, 0.97))
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
        words = f"{REGIMES[unit.regime][0]}: {unit.layer}, unit {unit.unit}: {unit.concept} "
        words += f"({unit.category}), IoU {unit.iou:.2f}"
        plotting.row_title(line[0], words, unit.regime, 1.06)
    return figure
