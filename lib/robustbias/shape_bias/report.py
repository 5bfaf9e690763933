"""Tables and sentences of chapter 2, from `measure.shape_bias` and the training records."""

import pandas as pd

from robustbias.claims import Headlines, matching
from robustbias.plotting import interval_text, per_architecture, pivoted, reader_table
from robustbias.shape_bias.measure import COLLAGE, DRAWN, STIMULI, STYLIZED
from robustbias.utils import Prose, architecture

# kind of displays -> what such conflicts are
KINDS = {
    DRAWN: "The conflicts of this study are drawn: the shape of one category, filled with the "
    "texture of another.",
    STIMULI: "*Published stimuli* (Geirhos et al. 2019): photographs of objects in the texture of "
    "another object, made for 224 pixels. Shrinking them erases texture before it erases shape, "
    "and enlarging them shows objects larger than any in training.",
    STYLIZED: "*Stylized conflicts*: validation photographs in the texture of another category's "
    "object, by style transfer at several weights of the style. The network that transfers the "
    "style (the painter) belongs to no comparison, but may put into the image what networks like "
    "it respond to.",
    COLLAGE: "*Collages*: published silhouettes, filled with mirrored tiles from the inside of "
    "another category's object, at several scales of the tiles. No network takes part in making "
    "them, and photographs are chosen by the size of their object alone.",
}
# why a display of this kind is the primary one
PRIMARY = {
    COLLAGE: "no network and no weight of a style takes part in it, and its tiles have the scale "
    "at which the networks learned textures",
}
# in a table's head
NAMES = {
    DRAWN: "drawn conflicts",
    STIMULI: "published stimuli",
    STYLIZED: "stylized conflicts",
    COLLAGE: "collages",
}
# critique -> whether the kinds of displays, in the order of NAMES, escape it
CRITIQUES = {
    "Hermann et al. 2020": ("in part: same recipe; clean accuracy as in chapter 1",) * 4,
    "Geirhos et al. 2021": ("not addressed",) * 4,
    "Gavrikov et al. 2023": ("open: fine texture is lost first",) * 4,
    "Jarvers and Neumann 2024": (
        "escapes: cues learned alone, contrasts varied", "open", "open", "open",
    ),
    "Wen et al. 2023": ("open", "open", "open", "open: a silhouette has local contours too"),
    "Doshi et al. 2025": ("open",) * 4,
    "Kim et al. 2026": (
        "escapes", "in part: cues may be unrecognisable", "in part: cues may be unrecognisable",
        "escapes; people were not tested",
    ),
}  # fmt: skip


def _levels(table: pd.DataFrame) -> pd.DataFrame:
    """One row per display: kind, painter, display, level, decides."""
    columns = ["kind", "painter", "display", "level", "decides"]
    return table[columns].dropna().drop_duplicates()


def _words(kind: str, painter: str = "") -> str:
    """A kind of displays in words: "stylized by a robust painter"."""
    words = {STIMULI: "published stimuli", STYLIZED: f"stylized by a {painter} painter"}
    return words.get(kind, kind)


def displays(table: pd.DataFrame) -> Prose:
    """What cue conflicts this study has, and which of them are the primary display, and why."""
    levels = _levels(table)
    lines = []
    for kind, rows in levels.groupby("kind", sort=False):
        text = KINDS[kind]
        at = [f"{level:g}" for level in sorted(rows["level"].unique())]
        if kind == STIMULI:
            text += f" Here they have {_and(at)} pixels a side."
        if kind == STYLIZED:
            painters = [f"a {painter} painter" for painter in rows["painter"].unique()]
            text += f" Here the weights are {_and(at)}, and they are by {_and(painters)}."
            if len(painters) > 1:
                text += " S and R are compared on those of each painter separately."
        lines.append(text)
    if len(lines) > 1:
        lines = [f"- {line}" for line in lines]
    primary = levels.loc[levels["decides"], ["kind", "display"]].drop_duplicates()
    if len(levels) > 1 and len(primary) == 1:
        kind, display = primary.iloc[0]
        why = f": {PRIMARY[kind]}" if kind in PRIMARY else ""
        lines += [
            "",
            f"The primary display is *{display}*. It was fixed in the study's entry before the "
            f"networks were tested on it{why}. All others are secondary.",
        ]
    return Prose("\n".join(lines))


def _and(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def secondary(table: pd.DataFrame) -> Prose:
    """R minus S of shape bias on the secondary displays, pooled: its range per kind and painter."""
    rows = matching(table, metric="shape_bias_difference", aggregation="mean", condition="paired")
    pooled = _pooled(rows)
    others = pooled[~pooled["decides"].astype(bool)]
    if others.empty:
        return Prose("This study has no secondary display.")
    lines = []
    for (kind, painter), part in others.groupby(["kind", "painter"], sort=False):
        ends = [part.loc[part["value"].idxmin()], part.loc[part["value"].idxmax()]]
        text = " to ".join(f"{interval_text(row)} ({row.display})" for row in ends[: len(part)])
        name = _words(kind, painter)
        lines.append(f"- {name[0].upper()}{name[1:]}, {len(part)} levels: {text}.")
    above, below = (others["low"] > 0).sum(), (others["high"] < 0).sum()
    return Prose(
        f"R minus S of the shape bias on {len(others)} secondary displays, over architectures: "
        f"above 0 with the whole interval on {above}, below 0 on {below}. From the lowest to the "
        "highest value of each kind:\n\n" + "\n".join(lines)
    )


def critiques(table: pd.DataFrame) -> pd.DataFrame:
    """Which critique each kind of displays of this study escapes: one column per kind."""
    kinds = list(_levels(table)["kind"].unique())
    table = pd.DataFrame(CRITIQUES, index=list(NAMES)).T[kinds].rename(columns=NAMES)
    return table.rename_axis(index="critique", columns=None)


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
    }
    keys = zip(rows["condition"], rows["aggregation"], rows["metric"], strict=True)
    rows = rows.assign(column=[words.get(key) for key in keys]).dropna(subset=["column"])
    return reader_table(rows, list(words.values()), "display")


def differences(table: pd.DataFrame) -> pd.DataFrame:
    """R minus S of each metric on every display, of every pair and over architectures."""
    rows = matching(table, condition="paired", aggregation="mean")
    pooled = rows[rows["mean_over"] == "architectures"].assign(architecture="all")
    rows = pd.concat([per_architecture(rows), pooled])
    words = {f"{metric}_difference": word for metric, word in COLUMNS.items()}
    rows = matching(rows, metric=tuple(words))
    rows = rows.assign(column=rows["metric"].map(words))
    rows["text"] = [interval_text(row) for row in rows.itertuples()]
    rows["network"] = rows["architecture"].map(architecture)
    rows = rows.sort_values("decides", ascending=False, kind="stable")
    return pivoted(rows, ["display", "network"], list(words.values()))


def style_shifts(table: pd.DataFrame) -> Prose | None:
    """How far R's curve over the style weight lies from S's, per painter; and the painters' part.

    None where a study has no stylized conflicts at several weights.
    """
    rows = per_architecture(matching(table, metric="style_shift"))
    if rows.empty:
        return None
    lines = [
        "Horizontal shift of R's curve against S's, in doublings of the style weight (above 0: R "
        "holds on to the shape up to a larger weight; a wide interval means that the biases hardly "
        "depend on the weight, so that a shift is not defined):",
        "",
    ]
    for painter, part in rows.groupby("painter", sort=False):
        each = [
            f"{architecture(row.architecture)} {interval_text(row)}" for row in part.itertuples()
        ]
        lines.append(f"- Conflicts by a {painter} painter: {'; '.join(each)}.")
    part = matching(table, metric="painter_difference")
    for row in _pooled(part).itertuples():
        lines += [
            "",
            "The painter's part: R minus S of the shape bias is larger on conflicts by a robust "
            f"painter than on those by a standard painter by {interval_text(row)} (mean over the "
            "style weights; over architectures).",
        ]
    return Prose("\n".join(lines))


def _pooled(rows: pd.DataFrame) -> pd.DataFrame:
    """The means over architectures; where there is one architecture, its rows."""
    if rows["architecture"].nunique() > 1:
        return rows[rows["mean_over"] == "architectures"]
    return per_architecture(rows)


def cue_parity(table: pd.DataFrame) -> Prose:
    """Whether both cues are learned to 0.85 and within 0.1, with and without an adversary."""
    sentences = []
    for regime, words in (("standard", "without"), ("robust", "with")):
        rows = matching(table, regime=regime)
        if set(rows["cue"]) != {"shape", "texture"}:
            continue
        text = {row.cue: interval_text(row) for row in rows.itertuples()}
        low, high = (row for _, row in rows.sort_values("value").iterrows())
        verdict = (
            "The cues are not on a par (at least 0.85 each, within 0.1): read biases with care."
        )
        least, most = (round(row["value"], 2) for row in (low, high))  # as they are printed
        if least >= 0.85 and round(most - least, 2) <= 0.1:
            verdict = "Both cues can be learned about equally well (at least 0.85 each, within 0.1)"
            verdict += f", but {high['cue']} is easier." if low["high"] < high["low"] else "."
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
