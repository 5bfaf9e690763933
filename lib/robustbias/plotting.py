"""The theme of all figures, colours and markers, and the panels that several chapters share."""

import functools
import io
import re
import tomllib
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from robustbias import manifest
from robustbias.claims import per_architecture
from robustbias.stats import Interval
from robustbias.utils import REGIMES, architecture

# Okabe and Ito's colours, distinct for every kind of colour vision; markers repeat the distinction.
PALETTE = {
    "standard": "#0072B2",
    "robust": "#D55E00",
    "untrained": "#7F7F7F",
    "human": "#222222",
    "published": "#666666",
}
MARKERS = {"standard": "o", "robust": "s", "untrained": "X", "human": "D", "published": "^"}
# Cues have colours that no network has, dark enough for text on white.
CUES = {"shape": "#762A83", "texture": "#1B7837", "neither": "#666666"}
CATEGORIES = {
    "texture": CUES["texture"], "object": CUES["shape"], "color": "#E69F00", "scene": "#56B4E9",
    "pattern": "#999999",
}  # fmt: skip
SEVERAL = ("#222222", "#CC79A7", "#E69F00", "#009E73")  # architectures or displays in one panel
REFERENCE = "#999999"  # lines at a null, at chance or at a training radius
WIDTH = 6.85  # inches of the book's column; a figure of that width is displayed at its size

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
    "axes.labelsize": "small",
    "xtick.labelsize": "small",
    "ytick.labelsize": "small",
    "legend.fontsize": "small",
    "svg.hashsalt": "robustbias",  # the same figure is the same file
}


class Described(Figure):
    """A figure with an alternative text, displayed by notebooks as SVG at its size in inches.

    The text is what the output holds as text/plain; the book makes it the image's `alt`.
    """

    alt = ""

    def described(self, words: str) -> "Described":
        """The figure, with these words as its alternative text."""
        self.alt = words
        return self

    def __repr__(self) -> str:
        return self.alt or super().__repr__()

    def svg(self) -> str:
        """The figure as SVG, the same text for the same figure."""
        buffer = io.StringIO()
        with plt.rc_context(RC):
            self.savefig(buffer, format="svg", metadata={"Date": None}, dpi=200)
        return buffer.getvalue()

    def _ipython_display_(self) -> None:
        from IPython.display import display  # the notebook's, not the core's

        display({"image/svg+xml": self.svg(), "text/plain": repr(self)}, raw=True)


# AlexNet's modules are numbered with its pooling layers.
_ALEXNET = {0: 1, 1: 1, 3: 2, 4: 2, 6: 3, 7: 3, 8: 4, 9: 4, 10: 5, 11: 5}


def layer_name(id: str) -> str:
    """A layer as written in figures: "conv 4" for features.9, "stage 2" for layer2."""
    if id == "relu":
        return "conv 1"
    kind, number = re.fullmatch(r"([A-Za-z_]*)[. ]?(.*)", id).groups()
    if kind == "features" and number.isdigit():
        return f"conv {_ALEXNET[int(number)]}"
    return f"{ {'layer': 'stage'}.get(kind, kind) } {number}".strip()


@functools.cache
def _class_words() -> dict[str, str]:
    path = manifest.ROOT / "data_manifest" / "class_words.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


def class_name(id: str) -> str:
    """A class or an object concept in words: "lifeboat" for n03662601 and for boat n03662601."""
    return _class_words().get(id.rpartition(" ")[2], id)


def offsets(names: Sequence[str], step: float) -> dict[str, float]:
    """Positions around 0 at which several values of one tick are drawn, `step` between them."""
    return {name: step * (i - (len(names) - 1) / 2) for i, name in enumerate(names)}


def canvas(
    rows: int = 1, columns: int = 1, *, panel: tuple[float, float] = (3.0, 2.6), **options
) -> tuple[Described, np.ndarray]:
    """A figure and its rows x columns of axes, `panel` inches each, laid out without overlaps.

    It is as wide as the book's column at most, and at least 4.6 inches, so that its legend has
    room.
    """
    width = min(max(panel[0] * columns, 4.6), WIDTH)
    with sns.axes_style("ticks", RC), plt.rc_context(RC):
        figure, axes = plt.subplots(
            rows,
            columns,
            figsize=(width, panel[1] * rows),
            squeeze=False,
            layout="constrained",
            FigureClass=Described,
            **options,
        )
    plt.close(figure)  # a notebook displays what a cell returns; an open figure would appear twice
    return figure, axes


def architecture_panels(
    table: pd.DataFrame, labels: Sequence[str] = ("",), *, label_size: str = "small", **options
) -> tuple[Described, list[tuple[pd.DataFrame, np.ndarray]]]:
    """A figure with one column of panels per architecture of `table` and one row per label.

    Returns the figure and, per architecture, its rows of `table` and its axes from top to bottom.
    An empty table gives a figure that says so. `options` are those of `canvas`.
    """
    names = list(dict.fromkeys(table["architecture"]))
    if not names:
        figure, axes = canvas(panel=(4.6, 0.5))
        axes[0, 0].axis("off")
        axes[0, 0].text(0.5, 0.5, "no data of these networks", ha="center", va="center")
        return figure, []
    figure, axes = canvas(len(labels), len(names), **options)
    for ax, name in zip(axes[0], names, strict=True):
        ax.set_title(architecture(name))
    for ax, label in zip(axes[:, 0], labels, strict=True):
        ax.set_ylabel(label, size=label_size)
    tables = [table[table["architecture"] == name] for name in names]
    return figure, list(zip(tables, axes.T, strict=True))


def layer_means(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Rows of a metric's means over the units of each layer, of S, R and untrained networks."""
    table = per_architecture(table[table["metric"] == metric])
    return table[(table["scope"] == "layer") & table["regime"].isin(list(REGIMES))]


def layer_panels(
    tables: Sequence[pd.DataFrame],
    labels: Sequence[str],
    positions: dict[str, float],
    *,
    label_size: str = "small",
    align: str = "center",
    style: dict[str, Any] | None = None,
    **options,
) -> tuple[Described, np.ndarray]:
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
    for row, table in zip(axes, tables, strict=True):  # after all that shares an axis is drawn
        for ax, (rows, _) in zip(row, columns, strict=True):
            mine = table[table["architecture"] == rows["architecture"].iloc[0]]
            near_values(ax, table if options.get("sharey") else mine)
    return figure, axes


def near_values(ax: Axes, rows: pd.DataFrame) -> None:
    """Ends the vertical axis at most once the values' range above and below them.

    Means of few trainings may have intervals many times as long, which would flatten all else;
    such an interval leaves the panel. To be called when every panel that shares the axis is drawn.
    """
    if not (values := rows["value"].dropna()).empty:
        low, high = values.min(), values.max()
        reach = max(high - low, 0.1 * abs(high))
        bottom, top = ax.get_ylim()
        if reach:
            ax.set_ylim(max(bottom, low - reach), min(top, high + reach))


def layer_lines(
    ax: Axes, rows: pd.DataFrame, positions: dict[str, float], *, align: str = "center", **style
) -> None:
    """One line per regime over the layers in the order of `rows`; more than 8 are numbered."""
    layers = list(dict.fromkeys(rows["layer"]))
    regime_points(ax, rows, "layer", layers, positions, **{"ls": "-"} | style)
    if len(layers) > 8:
        step = 4 if len(layers) < 32 else 8
        ax.set_xticks(range(0, len(layers), step), range(1, len(layers) + 1, step))
        ax.set_xlabel("convolution, from the first")
    else:
        names = [layer_name(layer) for layer in layers]
        ax.set_xticks(range(len(layers)), names, rotation=40, ha=align, size="x-small")


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


def trainings(ax: Axes, table: pd.DataFrame, at: pd.Series, regime: str) -> None:
    """A small dot per training of an architecture that has replicates, next to their mean.

    Args:
        table: Rows of single networks and of their means.
        at: Position of each row of the table along x.
    """
    if "mean_over" not in table or not (table["mean_over"] == "replicates").any():
        return
    rows = table[table["mean_over"].isna() & (table["regime"] == regime)]
    look = {"color": PALETTE[regime], "s": 9, "alpha": 0.7, "lw": 0}
    ax.scatter(at[rows.index], rows["value"], label="single trainings", **look)


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
        ax.imshow(np.clip(pixels, 0, 1), interpolation="none")  # every pixel a square
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


def row_title(ax: Axes, words: str, regime: str, **style) -> None:
    """Words in a regime's colour above a row's first panel, running over the panels after it."""
    ax.set_title(" ", size="small")  # keeps the line free, and no more than the panel's width
    style |= {"size": "small", "color": PALETTE[regime], "va": "bottom"}
    place = {"xycoords": "axes fraction", "xytext": (0, 3), "textcoords": "offset points"}
    ax.annotate(words, (0, 1), **place, **style).set_in_layout(False)


def legend_below(figure: Figure, columns: int | None = None) -> None:
    """One legend for all panels under the figure, each label once, S and R first.

    Args:
        columns: Of the legend, filled one after the other; as many as fit when None.
    """
    handles = {}
    for ax in figure.axes:
        handles |= dict(zip(*ax.get_legend_handles_labels()[::-1], strict=True))
    order = sorted(handles, key=lambda label: [*REGIMES.values(), label].index(label))
    figure.legend(
        [handles[label] for label in order],
        order,
        loc="outside lower center",
        ncols=columns or max(2, int(figure.get_figwidth() / 2.2)),  # inches per label
        frameon=False,
        fontsize="small",
    )


# Tables for readers.


def higher_in(rows: pd.DataFrame, by: str) -> str:
    """For how many values of the column `by` R lies above S: "AlexNet 3 of 13, GoogLeNet ..."."""
    wide = rows.pivot_table(index=["architecture", by], columns="regime", values="value")
    higher = (wide.get("robust", np.nan) > wide.get("standard", np.nan)).groupby(level=0)
    return ", ".join(f"{architecture(name)} {up.sum()} of {len(up)}" for name, up in higher)


def interval_text(row) -> str:
    """Value [95 % interval] of a table's row; the value alone where no resample differs from it."""
    if not row.n:
        return "none decided"
    if row.low == row.value == row.high:
        return f"{row.value:g}"
    return str(Interval(row.value, row.low, row.high, int(row.n)))


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
    rows = per_architecture(rows)
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
