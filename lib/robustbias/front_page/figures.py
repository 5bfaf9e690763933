"""The key figure: decisions, first filters, effects of all pairs, accuracy under attack."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from robustbias import plotting
from robustbias.claims import matching
from robustbias.findings.measure import primary
from robustbias.front_page.measure import Conflicts
from robustbias.plotting import CUES, PAIR, PALETTE, REFERENCE, Described
from robustbias.utils import REGIMES, architecture

# statements in the figure: id, words, value without an effect
EFFECTS = (
    ("C1.difference", "shape bias,\nR − S", 0.0),
    ("C2.stylized", "accuracy in other\ntextures, R − S", 0.0),
    ("C3.first", "total variation\nof filters, R / S", 1.0),
)


def key_figure(
    conflicts: Conflicts,
    filters: dict[str, Float[Tensor, "u 3 h w"]],
    claims: pd.DataFrame,
    accuracy: pd.DataFrame,
) -> Described:
    """Four panels: what S and R decide, their first filters, all pairs' effects, attacks.

    Args:
        conflicts: From `measure.conflicts`.
        filters: First-layer filters by regime.
        claims: From `findings.measure.registered`.
        accuracy: From `adversarial_training.measure.accuracy`, of one architecture.
    """
    n = len(conflicts.pixels)
    figure, ((spare,),) = plotting.canvas(panel=(plotting.WIDTH, 4.1))
    spare.remove()
    upper, lower = figure.subfigures(2, 1, height_ratios=(1, 1.35))
    left, right = upper.subfigures(1, 2, width_ratios=(1.3, 1))
    with plt.rc_context(plotting.RC):
        decisions, weights = left.subplots(1, n), right.subplots(2, 6)
        axes = lower.subplots(1, 4, width_ratios=(1, 1, 1, 1.25))
    look = {"x": 0.01, "ha": "left", "size": "small", "weight": "bold"}
    left.suptitle("a  Decisions: shape or texture?", **look)
    right.suptitle("b  Filters of the first layer", **look)
    lower.suptitle("c  R compared with S, every pair of networks", **look)
    _decisions(decisions, conflicts)
    _filters(weights, filters)
    studies = list(dict.fromkeys(claims["title"]))
    places = dict.fromkeys(zip(claims["title"], claims["architecture"], strict=True))
    places = sorted(places, key=lambda place: (studies.index(place[0]), not place[1], place[1]))
    for ax, (id, words, none) in zip(axes, EFFECTS, strict=False):
        _effects(ax, _measured(claims, id), places, none)
        ax.set_xlabel(words, size="x-small")
    names = [f"{architecture(name) or 'all'}, {title}" for title, name in places]
    axes[0].set_yticks(range(len(places)), names, size="x-small")
    _attack(axes[3], accuracy)
    axes[3].set_title("d  Under attack", loc="left", size="small", weight="bold")
    follows = {
        regime: sum(map(str.__eq__, decisions, conflicts.shapes))
        for regime, decisions in conflicts.decisions.items()
    }
    words = ", ".join(f"{REGIMES[r]} follows shape in {k} of {n}" for r, k in follows.items())
    return figure.described(
        f"Four panels. Decisions on cue conflicts: {words}. First-layer filters of S and of R. "
        + " ".join(_in_words(claims, *effect) for effect in EFFECTS)
        + " Accuracy of S and R against the radius of an attack."
    )


def _decisions(axes: np.ndarray, conflicts: Conflicts) -> None:
    rows = zip(
        axes,
        plotting.channels_last(conflicts.pixels),
        conflicts.shapes,
        conflicts.textures,
        strict=True,
    )
    for i, (ax, pixels, shape, texture) in enumerate(rows):
        plotting.picture(ax, pixels)
        ax.set_title(f"{shape} in\n{texture} texture", size="x-small")
        words = []
        for regime in PAIR:
            decision = conflicts.decisions[regime][i]
            cue = {shape: "shape", texture: "texture"}.get(decision, "neither")
            words.append((f"{REGIMES[regime][0]}: {decision}", CUES[cue]))
        ax.set_xlabel(" \n ", size="small")  # room for the two lines
        for line, (text, colour) in enumerate(words):
            look = {"ha": "center", "va": "top", "size": "x-small", "weight": "bold"}
            place = {"xytext": (0, -3 - 10 * line), "textcoords": "offset points"}
            ax.annotate(text, (0.5, 0), xycoords="axes fraction", color=colour, **place, **look)


def _filters(axes: np.ndarray, filters: dict[str, Tensor]) -> None:
    for line, regime in zip(axes, PAIR, strict=True):
        line[0].set_ylabel(REGIMES[regime][0], color=PALETTE[regime], weight="bold")
        for ax, weight in zip(line, plotting.channels_last(filters[regime]), strict=False):
            plotting.picture(ax, 0.5 + 0.5 * weight / abs(weight).max())


def _measured(claims: pd.DataFrame, id: str) -> pd.DataFrame:
    """The rows of a statement under the condition of its verdict, with a finite value."""
    rows = matching(claims, id=id)
    judged = primary(rows).set_index("title")["condition"]
    same = rows["condition"] == rows["title"].map(judged)
    return rows[same & rows["value"].notna()]


def _effects(ax: Axes, rows: pd.DataFrame, places: list[tuple[str, str]], none: float) -> None:
    """An interval per pair and per study's pooled effect (diamonds); small dots are trainings."""
    for (title, name), parts in rows.groupby(["title", "architecture"]):
        at = places.index((title, name))
        whole = parts[parts["replicate"] == ""]
        row = (whole if len(whole) else parts).iloc[0]
        ax.plot([row["low"], row["high"]], [at, at], color="black", lw=1.2)
        ax.plot(row["value"], at, "D" if name == "" else "o", color="black", ms=4)
        if len(parts) > 1:
            trainings = parts.loc[parts["replicate"] != "", "value"]
            ax.plot(trainings, [at] * len(trainings), ".", color=REFERENCE, ms=3)
    ax.axvline(none, color=REFERENCE, ls=":")
    ax.set(ylim=(len(places) - 0.5, -0.5), yticks=[])
    ax.tick_params(labelsize="x-small")


def _attack(ax: Axes, table: pd.DataFrame) -> None:
    steps = table.loc[table["steps"] > 0, "steps"].min()
    rows = plotting.per_architecture(matching(table, metric="top1", pair=True, steps=(0, steps)))
    for regime in PAIR:
        curve = matching(rows, regime=regime).sort_values("attack_eps")
        look = {"kind": regime, "label": REGIMES[regime], "ls": "-", "ms": 4}
        plotting.interval_points(ax, curve["attack_eps"], curve, **look)
    ax.set(
        xlabel="attack radius (L2)\n ", ylabel="accuracy", ylim=(-0.02, 1.45), yticks=(0, 0.5, 1)
    )
    ax.tick_params(labelsize="x-small")
    ax.legend(frameon=False, fontsize="x-small", loc="upper right")


def _in_words(claims: pd.DataFrame, id: str, words: str, none: float) -> str:
    """The verdicts of one panel, by study."""
    judged = primary(matching(claims, id=id))
    verdicts = [f"{row.title} {row.verdict}" for row in judged.itertuples()]
    return f"{words.replace(chr(10), ' ')}: {', '.join(verdicts)}."
