"""The matrix of verdicts: claims down, studies and architectures across."""

import textwrap

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from robustbias import plotting
from robustbias.utils import architecture

# Colour and sign say the same, so that the matrix reads without colour too.
LOOK = {
    "supported": ("#7fbf9f", "✓"),
    "undetermined": ("#e3e3e3", "?"),
    "contradicted": ("#e8a07a", "✗"),
}


def verdict_matrix(cells: pd.DataFrame) -> Figure:
    """One cell per statement, study and architecture: its verdict, and what was measured.

    Args:
        cells: From `measure.verdicts`.
    """
    statements = list(dict.fromkeys(zip(cells["id"], cells["statement"], strict=True)))
    places = list(dict.fromkeys(zip(cells["title"], cells["architecture"], strict=True)))
    studies = list(dict.fromkeys(cells["title"]))
    places.sort(key=lambda place: (studies.index(place[0]), place[1]))
    figure, axes = plotting.canvas(panel=(3.4 + 1.35 * len(places), 0.8 + 0.46 * len(statements)))
    ax = axes[0, 0]
    for row in cells.itertuples():
        x = places.index((row.title, row.architecture))
        y = statements.index((row.id, row.statement))
        colour, sign = LOOK[row.verdict]
        ax.add_patch(_cell(x, y, colour))
        text = textwrap.fill(row.text.replace(" [", "\n["), 24)
        ax.text(x, y - 0.2, sign, ha="center", va="center", fontsize=9)
        ax.text(x, y + 0.17, text, ha="center", va="center", fontsize=6.5, linespacing=1.0)
    labels = [
        textwrap.fill(f"{id.partition('.')[0]} {statement}", 48) for id, statement in statements
    ]
    ax.set_yticks(range(len(statements)), labels, fontsize=7.5)
    columns = [f"{title}\n{architecture(name)}" for title, name in places]
    ax.set_xticks(range(len(places)), columns, fontsize=7.5)
    ax.xaxis.tick_top()
    ax.set(xlim=(-0.5, len(places) - 0.5), ylim=(len(statements) - 0.5, -0.5))
    ax.tick_params(length=0)
    plotting.without_frame(ax)
    key = [_cell(0, 0, colour, label=f"{sign} {word}") for word, (colour, sign) in LOOK.items()]
    figure.legend(handles=key, loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    return figure


def _cell(x: int, y: int, colour: str, **options):
    return Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, color=colour, lw=0, **options)
