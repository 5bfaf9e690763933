"""Tables and sentences of chapter 2, from `measure.shape_bias` and the training records."""

import pandas as pd

from robustbias.claims import Headlines, matching
from robustbias.plotting import interval_text, per_architecture, pivoted, reader_table
from robustbias.utils import Prose, architecture


def headlines(table: pd.DataFrame) -> Headlines:
    """Both cues' shares of all answers, shape bias and nulls on the displays that decide.

    Of S, R and R - S; the untrained network's in place of S's where the number says so.
    """
    rows = matching(table, scope="network", aggregation="mean", decides=True)
    displays, numbers = list(rows["display"].unique()), {}
    for display in displays:
        where = f", {display}" if len(displays) > 1 else ""
        answers = matching(rows, display=display, condition="cue-conflict")
        shuffled = matching(rows, display=display, condition="shuffled", pair=True)
        untrained = matching(answers, regime="untrained", metric="shape_bias")
        for metric in ("shape_bias", "coverage", "shape", "texture"):
            parts = (
                matching(answers, pair=True, metric=metric),
                matching(rows, display=display, condition="paired", metric=f"{metric}_difference"),
            )
            numbers[f"{COLUMNS[metric]}{where}"] = pd.concat(parts)
        numbers[f"shape bias, shuffled{where}"] = matching(shuffled, metric="shape_bias")
        numbers[f"coverage, shuffled{where}"] = matching(shuffled, metric="coverage")
        numbers[f"shape bias, untrained{where}"] = untrained.assign(regime="standard")
    return Headlines.of(numbers)


COLUMNS = {
    "shape": "by shape",
    "texture": "by texture",
    "coverage": "coverage",
    "shape_bias": "shape bias",
    "shape_mrr": "shape score",
    "texture_mrr": "texture score",
}


def shape_bias(table: pd.DataFrame) -> pd.DataFrame:
    """Both cues' shares of all answers, coverage, shape bias and cue scores, with nulls.

    Of S, R and the untrained, on the displays that decide. `bias (sum)`: decisions by the summed
    instead of the mean probability of a category's classes; `shuffled`: answers permuted.
    """
    rows = per_architecture(table[(table["scope"] == "network") & table["decides"]])
    rows = rows[rows["pair"] | (rows["regime"] == "untrained")]
    words = {("cue-conflict", "mean", metric): word for metric, word in COLUMNS.items()} | {
        ("cue-conflict", "sum", "shape_bias"): "bias (sum)",
        ("shuffled", "mean", "shape_bias"): "bias, shuffled",
        ("shuffled", "mean", "coverage"): "coverage, shuffled",
    }
    keys = zip(rows["condition"], rows["aggregation"], rows["metric"], strict=True)
    rows = rows.assign(column=[words.get(key) for key in keys]).dropna(subset=["column"])
    return reader_table(rows, list(words.values()), "display")


def differences(table: pd.DataFrame) -> pd.DataFrame:
    """R minus S of each metric, on every display."""
    rows = per_architecture(matching(table, condition="paired", aggregation="mean"))
    words = {f"{metric}_difference": word for metric, word in COLUMNS.items()}
    rows = matching(rows, metric=tuple(words))
    rows = rows.assign(column=rows["metric"].map(words))
    rows["text"] = [interval_text(row) for row in rows.itertuples()]
    rows["network"] = rows["architecture"].map(architecture)
    return pivoted(rows, ["display", "network"], list(words.values()))


def style_shifts(table: pd.DataFrame) -> Prose:
    """How far R's curve of shape bias over the style weight lies from S's, per painter."""
    rows = per_architecture(matching(table, metric="style_shift"))
    if rows.empty:
        return Prose("This study has no stylized conflicts at several style weights.")
    lines = [
        f"- {architecture(row.architecture)}, {row.painter} painter: {interval_text(row)}."
        for row in rows.itertuples()
    ]
    return Prose(
        "Horizontal shift of R's curve against S's, in doublings of the style weight (above 0: R "
        "holds on to the shape up to a larger weight; a wide interval means that the biases hardly "
        "depend on the weight, so that a shift is not defined):\n\n" + "\n".join(lines)
    )


def cue_parity(table: pd.DataFrame) -> Prose:
    """Whether both cues are learned to 0.85 and within 0.1, with and without an adversary."""
    sentences = []
    for regime, words in (("standard", "without"), ("robust", "with")):
        rows = matching(table, regime=regime)
        if set(rows["cue"]) != {"shape", "texture"}:
            continue
        text = {row.cue: interval_text(row) for row in rows.itertuples()}
        low, high = rows["value"].min(), rows["value"].max()
        verdict = (
            "Both cues can be learned about equally well, so what a network follows is its choice."
            if low >= 0.85 and high - low <= 0.1
            else "The cues are not on a par (at least 0.85 each, within 0.1): read biases with "
            "care."
        )
        sentences.append(
            f"Trained {words} an adversary, a network that learns from shape alone reaches "
            f"{text['shape']} on held-out designs, one that learns from texture alone "
            f"{text['texture']}. {verdict}"
        )
    return Prose(
        " ".join(sentences)
        or "No networks of this study were trained on one cue alone, so how easy each cue is to "
        "learn is unknown: a shape bias of 0.5 need not mean indifference."
    )


def contrast_sweep(table: pd.DataFrame) -> Prose:
    """At which ratio of texture to shape contrast, if any, R's shape bias crosses one half."""
    curve = matching(table, regime="robust", metric="shape_bias").sort_values("ratio")
    if curve["ratio"].nunique() < 2:
        return Prose(
            "No networks trained at other contrasts are here, so whether R follows shape because "
            "shape has more contrast is not tested."
        )
    below = curve.loc[curve["high"] < 0.5, "ratio"].unique()
    curve = curve.groupby("ratio", as_index=False)["value"].mean()
    ratio, above = curve["ratio"].to_numpy(), curve["value"].to_numpy() - 0.5
    ends = f"{ratio[0]:.2f} to {ratio[-1]:.2f}"
    values = f"from {above[0] + 0.5:.2f} to {above[-1] + 0.5:.2f}"
    text = (
        f"As the ratio of texture to shape contrast goes from {ends}, R's shape bias goes {values}"
    )
    crossings = [i for i in range(len(ratio) - 1) if above[i] * above[i + 1] < 0]
    if not crossings:
        side = "above" if above.min() > 0 else "below"
        return Prose(f"{text}; it lies {side} 0.5 at every ratio tested.")
    at = [
        ratio[i] + (ratio[i + 1] - ratio[i]) * above[i] / (above[i] - above[i + 1])
        for i in crossings
    ]
    places = ", ".join(f"{place:.2f}" for place in at)
    sure = ", ".join(f"{place:.2f}" for place in below) or "none"
    return Prose(
        f"{text}; it crosses 0.5 at a ratio of {places} (interpolated; ratios at which its whole "
        f"interval lies below 0.5: {sure}). Which cue R follows then depends on how much contrast "
        "each cue has, not on its being shape or texture."
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
