"""Tables and sentences of the chapters that look inside: smoothness, ablation, attribution."""

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from robustbias.claims import Claim, claim
from robustbias.stats import Interval
from robustbias.units_and_cues.measure import NONE
from robustbias.utils import REGIMES, Prose, architecture


def margins(table: pd.DataFrame) -> pd.DataFrame:
    """How narrowly each network decided the images of each kind; n is their number.

    Args:
        table: From `measures.ablation`.
    """
    rows = table[table["metric"].isin(["shape_margin", "texture_margin", "clean_margin"])]
    words = {"shape": "by shape", "texture": "by texture", "clean": "clean, correct"}
    shown = rows.assign(
        network=[architecture(id) for id in rows["architecture"]],
        training=[REGIMES[id] for id in rows["regime"]],
        column=[words[metric.removesuffix("_margin")] for metric in rows["metric"]],
        text=[_interval(row) for row in rows.itertuples()],
    )
    index = ["network", "training", "n"]
    wide = shown.pivot(index=index, columns="column", values="text")
    lines = dict.fromkeys(shown[index].itertuples(index=False, name=None))
    return wide.reindex(list(lines))[list(words.values())].rename_axis(columns=None)


def kept_alone(table: pd.DataFrame) -> pd.DataFrame:
    """Share of decisions that a single unit keeps when the rest of its layer is silenced.

    By layer, as percentages: the best unit, the mean unit, and with all units silenced.

    Args:
        table: From `measures.ablation`.
    """
    rows = table[table["metric"].isin(["shape_alone", "texture_alone"])]
    rows = rows.assign(cue=rows["metric"].str.removesuffix("_alone"), value=100 * rows["value"])
    rows = rows.assign(kind=(rows["unit"] < 0).map({True: "none", False: "unit"}))
    index = ["architecture", "layer", "regime", "cue"]
    units = rows[rows["kind"] == "unit"].groupby(index, sort=False)["value"]
    none = rows[rows["kind"] == "none"].set_index(index)["value"]
    text = [
        f"{best:.0f} / {mean:.0f} / {none[key]:.0f}"
        for key, best, mean in zip(units.max().index, units.max(), units.mean(), strict=True)
    ]
    wide = units.max().index.to_frame(index=False).assign(text=text)
    lines = dict.fromkeys(zip(wide["architecture"], wide["layer"], strict=True))
    wide["column"] = [
        f"{REGIMES[regime][0]}, by {cue}"
        for regime, cue in zip(wide["regime"], wide["cue"], strict=True)
    ]
    order = list(dict.fromkeys(wide["column"]))
    wide = wide.pivot(index=["architecture", "layer"], columns="column", values="text")
    wide = wide.reindex(list(lines))[order].rename_axis(columns=None)
    return wide.rename(index=architecture, level=0)


def cue_unit_table(table: pd.DataFrame) -> pd.DataFrame:
    """Units by what they detect: how many, how many serve each cue, and their generality.

    Args:
        table: From `measures.cue_units`.
    """
    shown = table[table["regime"].isin(["standard", "robust"])]
    words = {
        "serves_shape": "serve shape",
        "serves_texture": "serve texture",
        "shape_share": "shape score / n",
        "texture_share": "texture score / n",
        "shape_part": "shape's part",
        "relative_generality": "relative generality",
    }
    shown = shown[shown["metric"].isin(list(words))]
    index = ["architecture", "regime", "detects"]
    counts = shown[shown["metric"] == "serves_shape"].set_index(index)["n"]
    text = shown.assign(text=[_interval(row) for row in shown.itertuples()])
    wide = text.pivot(index=index, columns="metric", values="text").fillna("")
    regimes, last = list(REGIMES), ["all", NONE]
    lines = sorted(
        wide.index,
        key=lambda line: (line[0], regimes.index(line[1]), line[2] in last, line[2] == "all", line),
    )
    wide = wide.reindex(lines)[[word for word in words if word in wide]].rename(columns=words)
    wide.insert(0, "units", counts.reindex(lines).astype(int))
    wide.index = pd.MultiIndex.from_tuples(
        [(architecture(name), REGIMES[regime], detects) for name, regime, detects in lines],
        names=["network", "training", "detects"],
    )
    return wide.rename_axis(columns=None)


def attribution(table: pd.DataFrame) -> Prose:
    """Whether the integral adds up, in one sentence; or why nothing was measured."""
    if table.empty:
        return Prose(
            "The stimuli of this study come without masks of their objects, so where their "
            "contours run is not known, and attribution is not divided into regions here."
        )
    gap = table[(table["metric"] == "completeness_error") & table["regime"].isin(list(REGIMES))]
    if gap.empty:
        return Prose("No method whose attributions must add up was asked for.")
    worst = gap.loc[gap["value"].idxmax()]
    return Prose(
        "Attributions of integrated gradients should add up to the change of the score from the "
        f"baseline to the image. They miss it by {100 * worst['value']:.1f} % at most "
        f"({architecture(worst['architecture'])}, {REGIMES[worst['regime']]}; sum of gaps over "
        f"sum of changes, {int(worst['n'])} images)."
    )


def _interval(row, threshold: float | None = None) -> str:
    return Interval(row.value, row.low, row.high, int(row.n)).text(threshold)


# -- --------------------------------------------------------------------------------------------
# C6: texture detectors serve recognition by shape, and R units are generalists.


# Halfway between units that serve texture alone (0) and units that serve both cues alike (0.5).
SERVES = 0.25


SOURCE = "Chen, Agarwal and Nguyen 2020, arXiv 2006.09373, abstract"


class Part(NamedTuple):
    """One part of the claim and the rows of `measures.cue_units` it is read from."""

    id: str
    regime: str
    detects: str
    metric: str
    statistic: str
    threshold: float
    statement: str


PARTS = (
    Part(
        "C6.serve", "robust", "texture", "shape_part",
        "shape's part in the scores of R's texture detectors", SERVES,
        "Texture-detecting units of R also serve recognition by shape.",
    ),
    Part(
        "C6.generalists", "robust - standard", "all", "relative_generality",
        "relative generality of units, R minus S", 0.0,
        "R units are generalists: they serve both cues more evenly than S units.",
    ),
)  # fmt: skip


@claim("C6")
def cue_units(table: pd.DataFrame) -> Iterator[Claim]:
    """Means over units of `measures.cue_units`; a part without such units is left out."""
    for part in PARTS:
        about = (
            (table["regime"] == part.regime)
            & (table["detects"] == part.detects)
            & (table["metric"] == part.metric)
        )
        for row in table[about].itertuples():
            yield Claim.of(
                row,
                id=part.id,
                statement=part.statement,
                source=SOURCE,
                statistic=part.statistic,
                threshold=part.threshold,
            )
