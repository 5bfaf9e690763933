"""Figures of chapters 5 and 6: what units detect, and to how many types of inputs they respond."""

import itertools

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from robustbias.concepts.measure import UnitExamples
from robustbias.plotting import PALETTE, canvas, interval_points, legend_below, picture
from robustbias.utils import REGIMES, architecture

KINDS = ["architecture", "regime", "metric"]


OFFSETS = {"standard": -0.15, "robust": 0.0, "untrained": 0.15}


def detectors_by_layer(
    table: pd.DataFrame,
    categories: tuple[str, ...] | list[str] = ("texture or color", "object"),
) -> Figure:
    """Share of a layer's units that detect a concept of each category, S, R and untrained.

    A column of panels an architecture; intervals over units. The dashed line is the share that
    would pass the test with the masks of other images.

    Args:
        table: From `measures.dissection`.
    """
    shown = table[table["metric"].isin(["detectors", "null_detectors"])]
    rows = {category: shown[shown["category"] == category] for category in categories}
    figure, axes = layer_panels(rows, "detectors")
    for line, category in zip(axes, categories, strict=True):
        line[0].set_ylabel(f"units that detect\n{category}", size="small")
        for ax, name in zip(line, paired_architectures(table), strict=True):
            own = rows[category]
            null = own[(own["metric"] == "null_detectors") & (own["architecture"] == name)]
            null = null[null["regime"].isin(["standard", "robust"]) & (null["layer"] != "all")]
            highest = null.groupby("layer", sort=False)["value"].max().to_numpy()
            ax.plot(range(len(highest)), highest, color="#999999", ls="--", lw=1, label="null")
    legend_below(figure, axes)
    return figure


def best_iou(table: pd.DataFrame, threshold: float = 0.04) -> Figure:
    """Share of units whose best IoU exceeds a value; dashed, the same by null IoU.

    A panel an architecture.

    Args:
        table: From `measures.dissection`.
        threshold: Where a unit counts as a detector.
    """
    units = table[table["metric"].isin(["iou", "null_iou"])]
    best = units.groupby([*KINDS, "layer", "unit"], sort=False)["value"].max()
    best = {key: own.to_numpy() for key, own in best.groupby(KINDS)}
    names = paired_architectures(table)
    figure, axes = canvas(1, len(names), panel=(2.6, 2.8), sharex=True, sharey=True)
    grid = np.geomspace(0.002, 0.5, 200)
    for ax, name in zip(axes.flat, names, strict=True):
        for regime, metric in itertools.product(OFFSETS, ("iou", "null_iou")):
            values = best.get((name, regime, metric), np.zeros(0))
            if not len(values):
                continue
            ax.plot(
                grid,
                (values[:, None] > grid).mean(0),
                color=PALETTE[regime],
                ls="-" if metric == "iou" else ":",
                lw=1.6 if metric == "iou" else 1.2,
                label=REGIMES[regime]
                if metric == "iou"
                else f"null of {REGIMES[regime].split()[0]}",
            )
        ax.axvline(threshold, color="#444444", lw=0.8)
        ax.set(xscale="log", xticks=(0.005, 0.02, 0.1, 0.4), ylim=(-0.02, 1.02))
        ax.set_xticklabels(["0.005", "0.02", "0.1", "0.4"])
        ax.minorticks_off()
        ax.set_title(architecture(name))
        ax.set_xlabel("best IoU of a unit")
    axes[0, 0].set_ylabel("share of units above")
    legend_below(figure, axes)
    return figure


def unit_examples(examples: UnitExamples, *, show_images: bool = True) -> Figure:
    """Top images of units, a row each, the region above the unit's threshold outlined.

    Args:
        examples: From `measures.unit_examples`.
        show_images: False leaves the regions alone.
    """
    m, k = examples.regions.shape[:2]
    figure, axes = canvas(m, k, panel=(1.15, 1.45))
    figure.get_layout_engine().set(rect=(0, 0, 1, 0.97))
    for i, (line, unit) in enumerate(zip(axes, examples.units.itertuples(), strict=True)):
        for j, ax in enumerate(line):
            region = examples.regions[i, j].cpu().numpy()
            pixels = np.moveaxis(examples.pixels[i, j].cpu().numpy(), 0, -1) / 255
            shown = pixels if show_images else np.repeat(0.93 - 0.35 * region[..., None], 3, -1)
            picture(ax, shown)
            framed = np.pad(region, 1).astype(float)  # a region may reach the image's edge
            at = np.arange(len(framed)) - 1
            for colour, width in (("black", 2.6), (PALETTE[unit.regime], 1.4)):
                if region.any():
                    ax.contour(at, at, framed, levels=[0.5], colors=[colour], linewidths=width)
            ax.set(xlim=(-1, len(region)), ylim=(len(region), -1))
        line[0].text(
            0,
            1.06,
            f"{REGIMES[unit.regime][0]}: {unit.layer}, unit {unit.unit}: {unit.concept} "
            f"({unit.category}), IoU {unit.iou:.2f}",
            transform=line[0].transAxes,
            size="small",
            color=PALETTE[unit.regime],
            in_layout=False,  # it runs over the whole row, not the first panel
        )
    return figure


def paired_architectures(table: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(table.loc[table["pair"], "architecture"]))


def layer_panels(rows: dict[str, pd.DataFrame], metric: str | None) -> tuple[Figure, np.ndarray]:
    """Panels of means by layer: a row an item of `rows`, a column an architecture."""
    names = paired_architectures(pd.concat(rows.values()))
    figure, axes = canvas(len(rows), len(names), panel=(2.7, 1.8), sharex="col", sharey="row")
    for line, own in zip(axes, rows.values(), strict=True):
        means = own[(own["unit"] == -1) & (own["layer"] != "all")]
        means = means if metric is None else means[means["metric"] == metric]
        for ax, name in zip(line, names, strict=True):
            mine = means[means["architecture"] == name]
            layers = list(dict.fromkeys(mine.loc[mine["regime"] == "standard", "layer"]))
            for regime, offset in OFFSETS.items():
                values = mine[mine["regime"] == regime].set_index("layer").reindex(layers)
                x = np.arange(len(layers)) + offset
                interval_points(ax, x, values, kind=regime, label=REGIMES[regime], ls="-", lw=1.1)
            ax.set_xticks(range(len(layers)))
            ax.set_xticklabels(layers, rotation=40, ha="right", size="x-small")
    for ax, name in zip(axes[0], names, strict=True):
        ax.set_title(architecture(name))
    return figure, axes
