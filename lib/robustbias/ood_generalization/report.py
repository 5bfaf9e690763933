"""Tables and sentences of chapter 3, from `measure.ood` and from published numbers."""

import pandas as pd

from robustbias import manifest
from robustbias.claims import Headlines, matching
from robustbias.images.distortions import STIMULI
from robustbias.plotting import interval_text, per_architecture, pivoted, reader_table
from robustbias.shape_bias import published
from robustbias.studies import Study
from robustbias.utils import REGIMES, Prose, architecture

SETS = {
    "clean": "clean",
    "stylized": "stylized",
    "silhouette": "silhouettes",
    "edge": "edges",
    "imagenet-a": "ImageNet-A",
    "imagenet-r": "ImageNet-R",
    "imagenet-sketch": "ImageNet-Sketch",
}


def headlines(table: pd.DataFrame) -> Headlines:
    """Accuracy on stimuli without texture, and the mCE.

    In the reading of the verdicts, which is named: entry-level accuracy where there is one.
    """
    numbers = {}
    for name in ("stylized", "silhouettes", "edges"):
        rows = matching(table, condition=name)
        for metric, words in (("entry_level", "entry-level"), ("top1", "top-1")):
            if metric in set(rows["metric"]):
                numbers[f"{words}, {name}"] = matching(rows, metric=metric)
                break
    numbers["mCE"] = matching(table, metric="mce")
    return Headlines.of(numbers)


def texture_less(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of S and R on clean images and on every texture-less set, in both readings.

    Statements use entry-level accuracy where there is one, else top-1.
    """
    names = ["clean", *(name for name, (_, lost) in STIMULI.items() if lost == "texture")]
    words = {"top1": "top-1", "entry_level": "entry-level"}
    rows = per_architecture(matching(table, metric=tuple(words), condition=tuple(names)))
    if set(rows["metric"]) == {"top1"}:
        return reader_table(rows.assign(column=rows["condition"]), names)
    columns = [f"{name}, {word}" for name in names for word in words.values()]
    return reader_table(
        rows.assign(column=rows["condition"] + ", " + rows["metric"].map(words)), columns
    )


def suppression_table(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy kept, R minus S, under every suppression: one column per architecture."""
    rows = per_architecture(matching(table, metric="retained_difference"))
    rows = rows.assign(column=rows["architecture"].map(architecture))
    rows["text"] = [interval_text(row) for row in rows.itertuples()]
    return pivoted(rows, ["removes", "condition"])


def channel_table(table: pd.DataFrame) -> pd.DataFrame:
    """Centre, width and peak of each network's frequency channel, in octaves, and shape bias."""
    words = {
        "centre": "centre (log2 cycles/image)",
        "width": "width (octaves)",
        "peak": "peak (log2)",
        "shape_bias": "shape bias",
    }
    rows = table[table["pair"] & table["regime"].isin(["standard", "robust"])]
    rows = per_architecture(matching(rows, metric=tuple(words)))
    return reader_table(rows.assign(column=rows["metric"].map(words)), list(words.values()))


def explained(table: pd.DataFrame) -> Prose:
    """How much of the variance of shape bias the channel explains, next to S or R."""
    if table.empty:
        return Prose(
            "Fewer than eight networks of this study are here: too few to ask what explains their "
            "shape bias."
        )
    lines = [
        f"- {row.predictors}: R² = {row.value:.2f}, p = {row.p:.3f} (95 % of permutations stay "
        f"below {row.null:.2f})."
        for row in table.itertuples()
    ]
    return Prose(
        f"Variance of the shape bias over {table['n'].iloc[0]} networks that is explained, by "
        "least squares, against shape biases permuted over networks:\n\n" + "\n".join(lines)
    )


def folders(table: pd.DataFrame) -> pd.DataFrame:
    """Top-1 of S and R on each folder of photographs; means over corruptions where it has some."""
    rows = per_architecture(matching(table, metric=("top1", "mce")))
    rows = rows[(rows["condition"] == rows["group"]) | (rows["scope"] == "group")]
    words = {"top1": "", "mce": ", mCE"}
    return reader_table(rows.assign(column=rows["group"] + rows["metric"].map(words)))


def corruption_table(table: pd.DataFrame) -> pd.DataFrame:
    """mCE of S and R, and their accuracy over all corruptions in the three readings."""
    words = {
        "mce": "mCE",
        "top1": "top-1",
        "top1_relative": "relative to clean",
        "top1_conditional": "both correct when clean",
    }
    rows = per_architecture(matching(table, scope="group", metric=tuple(words)))
    return reader_table(rows.assign(column=rows["metric"].map(words)), list(words.values()))


def reference(table: pd.DataFrame) -> Prose:
    """How many images the mCE is measured on, and which network's errors it is in per cent of."""
    errors = matching(table, metric="mce").dropna(subset="architecture")
    id = matching(errors, network=errors["reference"].iloc[0])["architecture"].iloc[0]
    clean = matching(table, condition="clean", metric="top1")["n"].max()
    note = " This study has no AlexNet here, so its mCE cannot be compared with those of others."
    return Prose(
        f"The mCE and accuracies under corruptions are measured on {errors['n'].max():,} of the "
        f"{clean:,} held-out images tested here, each under 15 corruptions at 5 severities. "
        f"Errors are in per cent of those of this study's {architecture(id)}-S, whose mCE is 100."
        + note
        * (id != "alexnet")
    )


def stylized(study: Study) -> Prose | None:
    """How the stylized images of a study of photographs were made; None for drawn images."""
    if study.entry.world:
        return None
    painters = study.entry.painting.get("painters", ())
    if not painters:
        return Prose("The stylized photographs are published ones (Geirhos et al. 2019).")
    return Prose(
        "Stylized photographs are made by style transfer (Gatys et al. 2016) with a "
        f"{manifest.network(painters[0]).regime} painter, a network in no comparison: each "
        "photograph is rendered in one of four textures that belong to no category, background "
        "included."
    )


def absent(table: pd.DataFrame) -> Prose | None:
    """Which kinds of stimuli a study lacks, if any, so that nothing was tested on them."""
    missing = [name for name in STIMULI if name not in set(table["condition"])]
    if not missing:
        return None
    return Prose(f"Not tested, since this study has no such images: {', '.join(missing)}.")


def wins(table: pd.DataFrame) -> Prose:
    """How many corruptions R or S resists better, by the intervals of the corruption error."""
    lines = []
    differences = per_architecture(matching(table, metric="ce_difference"))
    for name, rows in differences.groupby("architecture", sort=False):
        better = list(rows.loc[rows["high"] < 0, "condition"].str.replace("_", " "))
        worse = list(rows.loc[rows["low"] > 0, "condition"].str.replace("_", " "))
        undetermined = len(rows) - len(better) - len(worse)
        lines.append(
            f"- {architecture(name)}: R makes fewer errors under {len(better)} of {len(rows)} "
            f"({', '.join(better) or 'none'}), more under {len(worse)} "
            f"({', '.join(worse) or 'none'}); {undetermined} undetermined."
        )
    return Prose("\n".join(lines))


def imagenet() -> pd.DataFrame:
    """Published top-1 of ImageNet's ResNet-50, S and R (L2, eps 3), and the mCE from it."""
    errors = published.mean_corruption_errors()
    rows = published.results("top1", architecture="resnet50")
    rows = matching(rows, model=tuple(errors.index), condition=tuple(SETS))
    rows = rows[rows["source"].str.startswith("paulgavrikov")]
    wide = rows.pivot(index="model", columns="condition", values="value")[list(SETS)]
    wide = wide.rename(columns=SETS).map("{:.3f}".format)
    wide["mCE"] = errors.map("{:.1f}".format)
    regimes = rows.drop_duplicates("model").set_index("model")["regime"].map(REGIMES)
    wide.insert(0, "training", regimes)
    return wide.sort_values("training", ascending=False).rename_axis(columns=None)
