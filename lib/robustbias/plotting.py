"""The theme of all figures, colours and markers, and the panels that several chapters share."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from robustbias.stats import Interval
from robustbias.utils import REGIMES, architecture

# Okabe and Ito's colours, distinct for every kind of colour vision; markers repeat the distinction.
PALETTE = {
    "standard": "#0072B2",
    "robust": "#D55E00",
    "untrained": "#7F7F7F",
    "human": "#009E73",
    "published": "#444444",
}
MARKERS = {"standard": "o", "robust": "s", "untrained": "X", "human": "D", "published": "^"}
CUES = {"shape": "#D55E00", "texture": "#0072B2", "neither": "#777777"}
CATEGORIES = {"texture": "#0072B2", "object": "#D55E00", "color": "#009E73", "scene": "#CC79A7"}
REFERENCE = "#999999"  # lines at a null, at chance or at a training radius

PAIR = ("standard", "robust")

# A page may be dark; figures stay white, so their ground is set here.
RC = {
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "axes.facecolor": "white",
    "figure.dpi": 110,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.titlesize": "medium",
}


def offsets(names: Sequence[str], step: float) -> dict[str, float]:
    """Positions around 0 at which several values of one tick are drawn, `step` between them."""
    return {name: step * (i - (len(names) - 1) / 2) for i, name in enumerate(names)}


def canvas(
    rows: int = 1, columns: int = 1, *, panel: tuple[float, float] = (3.0, 2.6), **options
) -> tuple[Figure, np.ndarray]:
    """A figure and its rows x columns of axes, `panel` inches each, laid out without overlaps.

    A figure of one column is at least 4.6 inches wide, so that its legend has room.
    """
    width = max(panel[0] * columns, 4.6)
    with sns.axes_style("ticks", RC), plt.rc_context(RC):
        figure, axes = plt.subplots(
            rows,
            columns,
            figsize=(width, panel[1] * rows),
            squeeze=False,
            layout="constrained",
            **options,
        )
    plt.close(figure)  # a notebook displays what a cell returns; an open figure would appear twice
    return figure, axes


def per_architecture(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of one architecture each: means over its trainings where there are several."""
    if "mean_over" not in table:
        return table
    rows = table[table["architecture"].notna()]
    kinds = pd.MultiIndex.from_frame(rows[["architecture", "regime", "eps"]])
    means = rows["mean_over"] == "replicates"
    return rows[means | ~kinds.isin(kinds[means])]


def architecture_panels(
    table: pd.DataFrame, labels: Sequence[str] = ("",), *, label_size: str = "medium", **options
) -> tuple[Figure, list[tuple[pd.DataFrame, np.ndarray]]]:
    """A figure with one column of panels per architecture of `table` and one row per label.

    Returns the figure and, per architecture, its rows of `table` and its axes from top to bottom.
    `options` are those of `canvas`.
    """
    names = list(dict.fromkeys(table["architecture"]))
    figure, axes = canvas(len(labels), len(names), **options)
    for ax, name in zip(axes[0], names, strict=True):
        ax.set_title(architecture(name))
    for ax, label in zip(axes[:, 0], labels, strict=True):
        ax.set_ylabel(label, size=label_size)
    tables = [table[table["architecture"] == name] for name in names]
    return figure, list(zip(tables, axes.T, strict=True))


def layer_means(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Rows of a metric's means over the units of each layer, of S, R and untrained networks."""
    return table[
        (table["metric"] == metric)
        & (table["scope"] == "layer")
        & table["regime"].isin(list(REGIMES))
    ]


def layer_panels(
    tables: Sequence[pd.DataFrame],
    labels: Sequence[str],
    positions: dict[str, float],
    *,
    label_size: str = "medium",
    align: str = "center",
    style: dict[str, Any] | None = None,
    **options,
) -> tuple[Figure, np.ndarray]:
    """Means by layer with intervals: one row of panels per table, one column per architecture.

    Args:
        tables: Rows as from `layer_means`.
        labels: Of the vertical axis of each row.
        positions: Offset of each regime from the layer's tick.
        align: Horizontal alignment of layer names at their ticks.
        style: As in `interval_points`.
        options: As in `canvas`.
    """
    figure, columns = architecture_panels(
        pd.concat(tables), labels, label_size=label_size, **options
    )
    axes = np.stack([column for _, column in columns], axis=1)
    for row, table in zip(axes, tables, strict=True):
        for ax, (rows, _) in zip(row, columns, strict=True):
            mine = table[table["architecture"] == rows["architecture"].iloc[0]]
            layer_lines(ax, mine, positions, align=align, **(style or {}))
    return figure, axes


def layer_lines(
    ax: Axes, rows: pd.DataFrame, positions: dict[str, float], *, align: str = "center", **style
) -> None:
    """One line per regime over the layers in the order of `rows`; more than 8 are numbered."""
    layers = list(dict.fromkeys(rows["layer"]))
    regime_points(ax, rows, "layer", layers, positions, **{"ls": "-"} | style)
    if len(layers) > 8:
        ax.set_xticks(range(0, len(layers), 4), range(1, len(layers) + 1, 4))
        ax.set_xlabel("convolution, from the first")
    else:
        ax.set_xticks(range(len(layers)), layers, rotation=40, ha=align, size="x-small")


def regime_points(
    ax: Axes,
    rows: pd.DataFrame,
    column: str,
    order: Sequence[Any],
    positions: dict[str, float],
    *,
    suffix: str = "",
    **style,
) -> None:
    """Values with intervals of each regime at ticks 0, 1, ... for the values of `column`.

    Args:
        order: Values of `column`, one per tick; those without a row stay empty.
        positions: Offset of each regime from the tick.
        suffix: Added to the regime's name in the legend.
        style: As in `interval_points`.
    """
    for regime, offset in positions.items():
        mine = rows[rows["regime"] == regime].set_index(column).reindex(order)
        if mine["value"].notna().any():
            at = np.arange(len(order)) + offset
            interval_points(ax, at, mine, kind=regime, label=REGIMES[regime] + suffix, **style)


def interval_points(
    ax: Axes, at, table: pd.DataFrame, *, kind: str, label: str, sideways: bool = False, **style
) -> None:
    """Values with their intervals, in the colour and marker of a kind.

    Args:
        at: Positions on the other axis.
        table: Columns value, low, high; missing rows are left out.
        sideways: Values along x.
        style: Of matplotlib's errorbar.
    """
    value = table["value"].to_numpy(float)
    reach = np.stack([value - table["low"], table["high"] - value]).clip(min=0)
    look = {"fmt": MARKERS[kind], "color": PALETTE[kind], "ms": 5, "capsize": 2, "lw": 1.4}
    look |= {"ls": "", "label": label} | style
    if sideways:
        ax.errorbar(value, at, xerr=reach, **look)
    else:
        ax.errorbar(at, value, yerr=reach, **look)


def channels_last(images: Tensor) -> np.ndarray:
    """Images (... c h w) as arrays (... h w c) for matplotlib."""
    return np.moveaxis(images.cpu().numpy(), -3, -1)


def grey(values: Tensor, top: float) -> np.ndarray:
    """A map (h w) as a grey image (h w 3): black at 0, white at `top`."""
    return (values.numpy() / top)[..., None].repeat(3, 2)


def picture(ax: Axes, pixels: np.ndarray | None, title: str = "", colour: str = "black") -> None:
    """An image (h w 3 in [0, 1]) without axes; None leaves a grey placeholder."""
    if pixels is None:
        placeholder(ax, "not shown")
    else:
        ax.imshow(np.clip(pixels, 0, 1), interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    without_frame(ax)
    ax.set_title(title, color=colour, size="small", weight="normal")


def placeholder(ax: Axes, words: str) -> None:
    """Words on a grey ground where an image or a plot is missing."""
    ax.set_facecolor("#eeeeee")
    ax.text(0.5, 0.5, words, ha="center", va="center", color="#777777", size="small")
    ax.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[], aspect="equal")
    without_frame(ax)


def without_frame(ax: Axes) -> None:
    """Removes the grid and the spines."""
    ax.grid(False)
    ax.spines[:].set_visible(False)


def row_title(ax: Axes, words: str, regime: str, height: float, **style) -> None:
    """Words in a regime's colour above a row's first panel, running over the panels after it."""
    style |= {"size": "small", "color": PALETTE[regime], "transform": ax.transAxes}
    ax.text(0, height, words, in_layout=False, **style)


def legend_below(figure: Figure) -> None:
    """One legend for all panels under the figure, each label once, S and R first."""
    handles = {}
    for ax in figure.axes:
        handles |= dict(zip(*ax.get_legend_handles_labels()[::-1], strict=True))
    order = sorted(handles, key=lambda label: [*REGIMES.values(), label].index(label))
    figure.legend(
        [handles[label] for label in order],
        order,
        loc="outside lower center",
        ncols=max(2, int(figure.get_figwidth() / 2.2)),  # inches per label
        frameon=False,
        fontsize="small",
    )


# Tables for readers.


def interval_text(row, threshold: float | None = None) -> str:
    """Value [95 % interval] of a table's row; as `Interval.text`."""
    if not row.n:
        return "none decided"
    return Interval(row.value, row.low, row.high, int(row.n)).text(threshold)


def pivoted(rows: pd.DataFrame, by: list[str], order: list[str] | None = None) -> pd.DataFrame:
    """The column `text`: a line per combination of `by`, a column per value of `column`.

    Lines are in the order of first appearance, and so are columns unless `order` lists them.
    """
    lines, columns = rows.set_index(by).index.unique(), list(rows["column"].unique())
    wide = rows.pivot(index=by, columns="column", values="text")
    wide = wide.reindex(index=lines, columns=[name for name in order or columns if name in columns])
    return wide.fillna("").rename_axis(columns=None)


def reader_table(rows: pd.DataFrame, order: list[str] | None = None, *by: str) -> pd.DataFrame:
    """Value [95 % interval] of each row: a line per architecture, regime and `by`, as `pivoted`.

    Architectures are in alphabetical order, regimes in that of REGIMES. A column `text` replaces
    the intervals.
    """
    if "text" not in rows:
        rows = rows.assign(text=[interval_text(row) for row in rows.itertuples()])
    rows = rows.assign(
        network=rows["architecture"].map(architecture), training=rows["regime"].map(REGIMES)
    )
    ranks = rows[["network"]].assign(regime=rows["regime"].map(list(REGIMES).index))
    for name in by:
        ranks[name] = pd.factorize(rows[name])[0]
    lines = ranks.reset_index(drop=True).sort_values(list(ranks), kind="stable").index
    order = order or list(rows["column"].unique())
    return pivoted(rows.iloc[lines], ["network", "training", *by], order)
