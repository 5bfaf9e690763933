"""C1: R networks decide by shape, S networks by texture."""

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from robustbias.claims import Claim, Headlines, claim, gathered, of_metric
from robustbias.plotting import interval_text, reader_table
from robustbias.utils import Prose

SOURCE = "Chen, Agarwal and Nguyen 2020, arXiv 2006.09373, abstract"


class Part(NamedTuple):
    """One part of the claim and the rows of `measures.shape_bias` it is read from."""

    id: str
    regime: str
    metric: str
    statistic: str
    threshold: float
    above: bool
    statement: str


PARTS = (
    Part(
        "C1.difference", "robust - standard", "shape_bias_difference", "shape bias, R minus S",
        0.0, True, "R networks decide by shape more often than S networks.",
    ),
    Part(
        "C1.robust", "robust", "shape_bias", "shape bias of R",
        0.5, True, "R networks decide mostly by shape (67 % in the paper).",
    ),
    Part(
        "C1.standard", "standard", "shape_bias", "shape bias of S",
        0.5, False, "S networks decide mostly by texture (25 % by shape in the paper).",
    ),
)  # fmt: skip


@claim("C1")
def shape(table: pd.DataFrame) -> Iterator[Claim]:
    """Decisions by mean probability, of the networks that form a pair, on every display."""
    rows = table[
        (table["aggregation"] == "mean")
        & (table["category"] == "all")
        & (table["condition"] != "shuffled")
        & table["pair"]
    ]
    several = rows["display"].nunique() > 1
    for part in PARTS:
        about = (rows["regime"] == part.regime) & (rows["metric"] == part.metric)
        for row in rows[about].itertuples():
            yield Claim.of(
                row,
                id=part.id,
                statement=part.statement,
                source=SOURCE,
                statistic=part.statistic,
                threshold=part.threshold,
                above=part.above,
                condition=row.display if several else "",
                beside=not row.decides,
            )


# -- --------------------------------------------------------------------------------------------
# The few numbers of every network that the closing chapter sets side by side.
#
# A chapter's notebook carries them for programs, as it carries its claims, so that the closing
# chapter needs nothing but the notebooks.


def headlines(table: pd.DataFrame) -> Headlines:
    """Shape bias on every display, with coverage and nulls where claims rest on it.

    Args:
        table: From `measures.shape_bias`.
    """
    rows = table[(table["category"] == "all") & (table["aggregation"] == "mean")]
    shown = list(dict.fromkeys(rows["display"]))
    decides = set(rows.loc[rows["decides"], "display"])
    parts = {}
    for display in sorted(shown, key=lambda name: name not in decides):
        own = rows[rows["display"] == display]
        answers = own[own["condition"] == "cue-conflict"]
        dealt = own[(own["condition"] == "shuffled") & own["pair"]]
        untrained, answers = answers[answers["regime"] == "untrained"], answers[answers["pair"]]
        where = f", {display}" if len(shown) > 1 else ""
        parts[f"shape bias{where}"] = of_metric(answers, "shape_bias")
        parts[f"coverage{where}"] = of_metric(answers, "coverage")
        if display in decides:
            parts[f"shape bias, shuffled{where}"] = of_metric(dealt, "shape_bias")
            parts[f"coverage, shuffled{where}"] = of_metric(dealt, "coverage")
            null = of_metric(untrained, "shape_bias")
            parts[f"shape bias, untrained{where}"] = null.assign(regime="standard")
    return gathered(parts)


# -- --------------------------------------------------------------------------------------------
# Tables as a reader wants them: one line a network, values with their intervals as text.


def shape_bias(table: pd.DataFrame) -> pd.DataFrame:
    """Shape bias and coverage of S, R and the untrained, with what random answers would give.

    `bias (sum)` decides by the summed instead of the mean probability of a category's classes.
    """
    shown = table[(table["category"] == "all") & (table["pair"] | (table["regime"] == "untrained"))]
    words = {
        ("cue-conflict", "mean", "shape_bias"): "shape bias",
        ("cue-conflict", "mean", "coverage"): "coverage",
        ("cue-conflict", "sum", "shape_bias"): "bias (sum)",
        ("shuffled", "mean", "shape_bias"): "bias, shuffled",
        ("shuffled", "mean", "coverage"): "coverage, shuffled",
    }
    keys = zip(shown["condition"], shown["aggregation"], shown["metric"], strict=True)
    shown = shown.assign(column=[words.get(key) for key in keys]).dropna(subset=["column"])
    return reader_table(shown, list(words.values()), "display")


def cue_parity(table: pd.DataFrame) -> Prose:
    """Whether both cues are learned to 0.85 and within 0.1 of each other, in one sentence."""
    if set(table["cue"]) != {"shape", "texture"}:
        return Prose(
            "No networks of this study were trained on one cue alone, so how easy each cue is to "
            "learn is not known here: a shape bias of 0.5 need not mean indifference."
        )
    found = table.set_index("cue")
    known = {row.cue: interval_text(row) for row in table.itertuples()}
    fair = found["value"].min() >= 0.85 and found["value"].max() - found["value"].min() <= 0.1
    verdict = (
        "Both cues can be learned about equally well, so what a network follows is its choice."
        if fair
        else "The cues are not on a par (at least 0.85 each, within 0.1): read biases with care."
    )
    return Prose(
        f"A network trained on shape alone reaches {known['shape']} on held-out designs, one "
        f"trained on texture alone {known['texture']}. {verdict}"
    )


def training_lengths(records: pd.DataFrame) -> Prose:
    """How long each network of a series over radii was trained, and whether that is a confound."""
    epochs = records.groupby("eps")["epoch"].max()
    if epochs.nunique() <= 1:
        return Prose(f"All networks of the series were trained for {epochs.max()} epochs.")
    lengths = ", ".join(f"{n} (eps {eps:g})" for eps, n in epochs.items())
    return Prose(
        f"The networks of the series were not trained equally long, but for {lengths} epochs. "
        "Shape bias depends on that too, so this curve is not of the radius alone."
    )
