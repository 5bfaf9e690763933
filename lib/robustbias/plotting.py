"""One look for all figures: colours and markers of S and R, white ground, blank axes."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robustbias.stats import Interval
from robustbias.utils import REGIMES, architecture

# Okabe and Ito's colours, told apart by every kind of colour vision; markers say the same twice.
PALETTE = {
    "standard": "#0072B2",
    "robust": "#D55E00",
    "untrained": "#7F7F7F",
    "human": "#009E73",
    "published": "#444444",
}


MARKERS = {
    "standard": "o",
    "robust": "s",
    "untrained": "X",
    "human": "D",
    "published": "^",
}


# The page may be dark, the figure never is: its ground is set here, not left to the page.
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
    plt.close(figure)  # a notebook shows what a cell returns; left open it would be shown twice
    return figure, axes


def picture(ax: Axes, pixels: np.ndarray | None, title: str = "", colour: str = "black") -> None:
    """An image (h w 3 in [0, 1]) without axes; None leaves a grey placeholder."""
    if pixels is None:
        ax.set_facecolor("#eeeeee")
        ax.text(0.5, 0.5, "not shown", ha="center", va="center", color="#777777", size="small")
        ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    else:
        ax.imshow(np.clip(pixels, 0, 1), interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_title(title, color=colour, size="small", weight="normal")


def interval_points(
    ax: Axes, at, table: pd.DataFrame, *, kind: str, label: str, sideways: bool = False, **style
) -> None:
    """Values with their intervals, in the colour and marker of a kind.

    Args:
        at: Positions on the other axis.
        table: Columns value, low, high; missing rows are left out.
        sideways: Values along x.
    """
    value = table["value"].to_numpy(float)
    reach = np.stack([value - table["low"], table["high"] - value]).clip(min=0)
    look = {"fmt": MARKERS[kind], "color": PALETTE[kind], "ms": 5, "capsize": 2, "lw": 1.4}
    look |= {"ls": ""} | style
    if sideways:
        ax.errorbar(value, at, xerr=reach, label=label, **look)
    else:
        ax.errorbar(at, value, yerr=reach, label=label, **look)


def legend_below(figure: Figure, axes: np.ndarray) -> None:
    """One legend for all panels under the figure, each label once, S and R first."""
    found = {}
    for ax in axes.flat:
        handles, labels = ax.get_legend_handles_labels()
        found |= {label: handle for handle, label in zip(handles, labels, strict=True)}
    order = sorted(found, key=lambda label: [*REGIMES.values(), label].index(label))
    figure.legend(
        [found[label] for label in order],
        order,
        loc="outside lower center",
        ncols=max(2, int(figure.get_figwidth() / 2.2)),  # inches that a label takes
        frameon=False,
        fontsize="small",
    )


# -- --------------------------------------------------------------------------------------------
# Tables as a reader wants them: one line a network, values with their intervals as text.


def reader_table(rows: pd.DataFrame, order: list[str] | None = None, *by: str) -> pd.DataFrame:
    """One line an architecture, regime and `by`; the column `column` spread out."""
    text = [interval_text(row) for row in rows.itertuples()]
    named = rows.assign(
        text=text,
        network=[architecture(id) for id in rows["architecture"]],
        training=[REGIMES[id] for id in rows["regime"]],
    )
    order = order or list(dict.fromkeys(named["column"]))
    index = ["network", "training", *by]
    wide = named.pivot(index=index, columns="column", values="text")
    ranks = [list(REGIMES.values()), *(list(dict.fromkeys(named[column])) for column in by)]
    lines = sorted(
        dict.fromkeys(named[index].itertuples(index=False, name=None)),
        key=lambda line: (line[0], *(r.index(v) for r, v in zip(ranks, line[1:], strict=True))),
    )
    wide = wide.reindex(lines)[[column for column in order if column in wide]].fillna("")
    return wide.rename_axis(columns=None)


def interval_text(row) -> str:
    return str(Interval(row.value, row.low, row.high, row.n)) if row.n else "none decided"
