"""Tables and sentences of chapter 2, from `measure.shape_bias` and the training records."""

import pandas as pd

from robustbias.claims import Headlines, matching
from robustbias.plotting import interval_text, reader_table
from robustbias.utils import Prose


def headlines(table: pd.DataFrame) -> Headlines:
    """Shape bias on every display, with coverage and nulls where claims rest on it."""
    rows = matching(table, scope="network", aggregation="mean")
    primary = set(rows.loc[rows["decides"], "display"])
    displays = sorted(rows["display"].unique(), key=lambda name: name not in primary)
    numbers = {}
    for display in displays:
        where = f", {display}" if len(displays) > 1 else ""
        responses = matching(rows, display=display, condition="cue-conflict")
        shuffled = matching(rows, display=display, condition="shuffled", pair=True)
        untrained = matching(responses, regime="untrained", metric="shape_bias")
        for metric, words in (("shape_bias", "shape bias"), ("coverage", "coverage")):
            numbers[f"{words}{where}"] = matching(responses, pair=True, metric=metric)
        if display in primary:
            numbers[f"shape bias, shuffled{where}"] = matching(shuffled, metric="shape_bias")
            numbers[f"coverage, shuffled{where}"] = matching(shuffled, metric="coverage")
            numbers[f"shape bias, untrained{where}"] = untrained.assign(regime="standard")
    return Headlines.of(numbers)


def shape_bias(table: pd.DataFrame) -> pd.DataFrame:
    """Shape bias and coverage of S, R and the untrained, with what random answers would give.

    `bias (sum)`: decisions by the summed instead of the mean probability of a category's classes.
    """
    rows = table[(table["scope"] == "network") & (table["pair"] | (table["regime"] == "untrained"))]
    words = {
        ("cue-conflict", "mean", "shape_bias"): "shape bias",
        ("cue-conflict", "mean", "coverage"): "coverage",
        ("cue-conflict", "sum", "shape_bias"): "bias (sum)",
        ("shuffled", "mean", "shape_bias"): "bias, shuffled",
        ("shuffled", "mean", "coverage"): "coverage, shuffled",
    }
    keys = zip(rows["condition"], rows["aggregation"], rows["metric"], strict=True)
    rows = rows.assign(column=[words.get(key) for key in keys]).dropna(subset=["column"])
    return reader_table(rows, list(words.values()), "display")


def cue_parity(table: pd.DataFrame) -> Prose:
    """Whether both cues are learned to 0.85 and within 0.1 of each other, in one sentence."""
    if set(table["cue"]) != {"shape", "texture"}:
        return Prose(
            "No networks of this study were trained on one cue alone, so how easy each cue is to "
            "learn is unknown: a shape bias of 0.5 need not mean indifference."
        )
    text = {row.cue: interval_text(row) for row in table.itertuples()}
    low, high = table["value"].min(), table["value"].max()
    verdict = (
        "Both cues can be learned about equally well, so what a network follows is its choice."
        if low >= 0.85 and high - low <= 0.1
        else "The cues are not on a par (at least 0.85 each, within 0.1): read biases with care."
    )
    return Prose(
        f"A network trained on shape alone reaches {text['shape']} on held-out designs, one "
        f"trained on texture alone {text['texture']}. {verdict}"
    )


def training_lengths(records: pd.DataFrame) -> Prose:
    """How long each network of a series over radii was trained, and whether that is a confound."""
    if records.empty:
        return Prose("How long the networks of the series were trained is not recorded here.")
    epochs = records.groupby("eps")["epoch"].max()
    if epochs.nunique() <= 1:
        return Prose(f"All networks of the series were trained for {epochs.max()} epochs.")
    lengths = ", ".join(f"{n} (eps {eps:g})" for eps, n in epochs.items())
    return Prose(
        f"The networks of the series were not trained equally long, but for {lengths} epochs. "
        "Shape bias depends on that too, so this curve is not of the radius alone."
    )
