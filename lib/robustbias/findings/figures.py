"""The figure of chapter 9: all effects in smallest effects of interest."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robustbias import plotting
from robustbias.claims import UNTESTABLE, Claim

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # one per study
MARKERS = {"supported": "o", "contradicted": "X", "no relevant effect": "s", "undetermined": "o"}
REACH = 60  # the axis ends here; what lies beyond is drawn at its edge
SIZE = 9  # of all text, in points


def forest(claims: pd.DataFrame) -> Figure:
    """Pooled effects with 95 % intervals per statement and study, and pairs as small dots.

    One unit is a statement's smallest effect of interest; to the right lies what it says. Beyond 2
    the axis is logarithmic.

    Args:
        claims: From `measure.registered`.
    """
    ids, titles = (list(dict.fromkeys(claims[column])) for column in ("id", "title"))
    figure, axes = plotting.canvas(panel=(6.9, 1.6 + 0.14 * len(ids) * (1 + len(titles))))
    ax = axes[0, 0]
    ax.axvspan(-1, 1, color="#e9e9e9", zorder=0)
    ax.axvline(0, color="#777777", lw=1, zorder=0)
    offsets = plotting.offsets(titles, 0.7 / len(titles))
    for record in claims.to_dict("records"):
        y = ids.index(record["id"]) + offsets[record["title"]]
        _effect(ax, y, record, COLOURS[titles.index(record["title"]) % len(COLOURS)])
    shorts = claims.drop_duplicates("id")
    labels = [
        f"{short} ({claim})" for short, claim in zip(shorts["short"], shorts["claim"], strict=True)
    ]
    ax.set_yticks(range(len(ids)), labels)
    ax.set_xscale("symlog", linthresh=2, linscale=1.0)
    ticks = (-50, -10, -2, -1, 0, 1, 2, 10, 50)
    ax.set_xticks(ticks, [f"{tick}".replace("-", "\N{MINUS SIGN}") for tick in ticks])
    ax.minorticks_off()
    ax.set(xlim=(-REACH, REACH), ylim=(len(ids) - 0.4, -0.6))
    words = "effect / smallest effect of interest\n← against the statement, as it says →"
    ax.set_xlabel(words, size=SIZE)
    ax.tick_params(labelsize=SIZE)
    ax.grid(axis="y", visible=False)
    handles = [
        Line2D([], [], color=COLOURS[i % len(COLOURS)], marker="o", label=title)
        for i, title in enumerate(titles)
    ]
    handles += [
        Line2D([], [], color="#444444", ls="", marker=marker, label=verdict,
               markerfacecolor=_fill(verdict, "#444444"))
        for verdict, marker in MARKERS.items()
    ]  # fmt: skip
    figure.legend(
        handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=SIZE
    )
    return figure


def _effect(ax, y: float, record: dict, colour: str) -> None:
    """One measurement: an interval where it has a verdict, else a small dot."""
    if record["verdict"] == UNTESTABLE:
        if record["primary"]:
            ax.text(0, y, "not testable", color=colour, size=SIZE, ha="center", va="center")
        return
    effect = Claim.of(record).scaled
    value, low, high = np.clip([effect.value, effect.low, effect.high], -REACH, REACH)
    if not record["primary"]:
        ax.plot(value, y, ".", color=colour, ms=4, alpha=0.5, zorder=1)
        return
    verdict = record["verdict"]
    ax.plot([low, high], [y, y], color=colour, lw=1.5, zorder=2)
    ax.plot(value, y, MARKERS[verdict], color=colour, ms=6, mfc=_fill(verdict, colour), zorder=3)


def _fill(verdict: str, colour: str) -> str:
    return "white" if verdict == "undetermined" else colour
