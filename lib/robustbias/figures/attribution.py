"""Figures of chapter 7: where in the image S and R take a decision from."""

import itertools

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from robustbias.figures.theme import PALETTE, canvas, interval_points, legend_below, picture
from robustbias.measures.attribution import Explained
from robustbias.measures.attribution_maps import REGIONS
from robustbias.names import REGIMES, architecture

OFFSETS = {"standard": -0.1, "robust": 0.1}


def attribution_regions(table: pd.DataFrame) -> Figure:
    """Concentration of attribution inside the object, on its contour and outside; a row a method.

    1 is what an even map has. Means with 95 % intervals over shape images.

    Args:
        table: From `measures.attribution`; without rows, a note takes the place of the panels.
    """
    if table.empty:
        return _note("no masks of the objects, so no regions")
    names, methods = (list(dict.fromkeys(table[column])) for column in ("architecture", "method"))
    figure, axes = canvas(len(methods), len(names), panel=(2.8, 1.9), sharex=True, sharey=True)
    for (row, method), (column, name) in itertools.product(enumerate(methods), enumerate(names)):
        ax = axes[row, column]
        own = table[
            (table["architecture"] == name)
            & (table["method"] == method)
            & (table["metric"] == "concentration")
        ]
        for regime, offset in OFFSETS.items():
            mine = own[own["regime"] == regime].set_index("region").reindex(REGIONS)
            interval_points(ax, np.arange(3) + offset, mine, kind=regime, label=REGIMES[regime])
        ax.axhline(1, color="#999999", ls=":", lw=1.2, label="even over the image")
        ax.set_xticks(range(3), REGIONS)
        ax.set_xlim(-0.5, 2.5)
        if row == 0:
            ax.set_title(architecture(name))
        if column == 0:
            ax.set_ylabel(method.replace(" ", "\n", 1))
    legend_below(figure, axes)
    return figure


def attribution_maps(explained: Explained | None) -> Figure:
    """Stimuli with the outline of their object, and where S and R take their decision from.

    Black is no attribution; white is what the strongest hundredth of a map's pixels have, so that
    each map has its own scale.

    Args:
        explained: From `measures.attribution_examples`; None leaves a note.
    """
    if explained is None:
        return _note("no masks of the objects, so no outlines")
    rows = ["stimulus", *explained.maps]
    figure, axes = canvas(len(rows), len(explained.pixels), panel=(1.3, 1.45))
    for line, kind in zip(axes, rows, strict=True):
        for i, ax in enumerate(line):
            if kind == "stimulus":
                picture(ax, np.moveaxis(explained.pixels[i].numpy(), 0, -1), explained.titles[i])
            else:
                strong = explained.maps[kind][i].numpy()
                strong = strong / max(np.quantile(strong, 0.99), 1e-12)
                answer = explained.answers[kind][i]
                picture(ax, strong[..., None].repeat(3, 2), f"→ {answer}", PALETTE[kind])
            ax.contour(explained.masks[i].numpy(), levels=[0.5], colors="#E69F00", linewidths=0.7)
        line[0].set_ylabel(REGIMES.get(kind, kind), color=PALETTE.get(kind, "black"), size="small")
    return figure


def _note(words: str) -> Figure:
    """An empty figure that says why."""
    figure, axes = canvas(1, 1, panel=(4.6, 1.2))
    picture(axes[0, 0], None)
    axes[0, 0].texts[0].set_text(words)
    axes[0, 0].set_aspect("auto")
    return figure
