"""Tables and sentences of chapter 3, from `measures.ood` and from published numbers."""

from collections.abc import Iterator

import pandas as pd

from robustbias.claims import Claim, Headlines, claim, gathered, of_metric
from robustbias.images.distortions import STIMULI
from robustbias.plotting import reader_table
from robustbias.shape_bias import published
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


def texture_less(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of S and R on clean images and on every texture-less set of the study."""
    names = [name for name, (_, lost) in STIMULI.items() if lost == "texture"]
    metric = "top1" if set(names[1:2]) <= _conditions(table, "top1") else "entry_level"
    shown = table[(table["metric"] == metric) & table["condition"].isin(["clean", *names])]
    return reader_table(shown.assign(column=shown["condition"]), ["clean", *names])


def corruption_table(table: pd.DataFrame) -> pd.DataFrame:
    """mCE of S and R, and their accuracy over all corruptions in the three readings."""
    words = {
        "mce": "mCE",
        "top1": "top-1",
        "top1_relative": "relative to clean",
        "top1_conditional": "both right when clean",
    }
    shown = table[(table["condition"] == "all corruptions") & table["metric"].isin(words)]
    return reader_table(shown.assign(column=shown["metric"].map(words)), list(words.values()))


def reference(table: pd.DataFrame) -> Prose:
    """Which network's errors the mCE is in per cent of."""
    row = table[table["metric"] == "mce"].iloc[0]
    own = table[(table["network"] == row["reference"]) & (table["metric"] == "mce")].iloc[0]
    name = architecture(own["architecture"])
    note = "" if own["architecture"] == "alexnet" else (
        " This study has no AlexNet here, so its mCE cannot be compared with those of others."
    )  # fmt: skip
    return Prose(
        f"Errors are in per cent of those of this study's {name}-S, whose mCE is 100.{note}"
    )


def absent(table: pd.DataFrame) -> Prose:
    """Which stimuli this study has not."""
    missing = [name for name in STIMULI if name not in set(table["condition"])]
    if not missing:
        return Prose(f"This study has all of them: {', '.join(STIMULI)}.")
    return Prose(
        f"This study has no images of these kinds, so nothing is said about them here: "
        f"{', '.join(missing)}. Where the object of a photograph is, and what lies under its "
        "texture, is not known."
    )


def wins(table: pd.DataFrame) -> Prose:
    """How many corruptions R or S resists better, by the intervals of the corruption error."""
    shown = table[table["metric"] == "ce_difference"]
    lines = []
    for name, own in shown.groupby("architecture", sort=False):
        better = list(own.loc[own["high"] < 0, "condition"].str.replace("_", " "))
        worse = list(own.loc[own["low"] > 0, "condition"].str.replace("_", " "))
        open_ = len(own) - len(better) - len(worse)
        lines.append(
            f"- {architecture(name)}: R makes fewer errors under {len(better)} of {len(own)} "
            f"({', '.join(better) or 'none'}), more under {len(worse)} "
            f"({', '.join(worse) or 'none'}); {open_} undetermined."
        )
    return Prose("\n".join(lines))


def imagenet() -> pd.DataFrame:
    """Published top-1 of ImageNet's ResNet-50, S and R (L2, eps 3), and the mCE from it."""
    rows = published.results("top1", architecture="resnet50")
    models = list(published.mean_corruption_errors().index)
    rows = rows[rows["model"].isin(models) & rows["condition"].isin(SETS)]
    rows = rows[rows["source"].str.startswith("paulgavrikov")]
    wide = rows.pivot(index="model", columns="condition", values="value")[list(SETS)]
    wide = wide.rename(columns=SETS).map("{:.3f}".format)
    wide["mCE"] = published.mean_corruption_errors().map("{:.1f}".format)
    regimes = rows.drop_duplicates("model").set_index("model")["regime"].map(REGIMES)
    wide.insert(0, "training", regimes)
    return wide.sort_values("training", ascending=False).rename_axis(columns=None)


def _conditions(table: pd.DataFrame, metric: str) -> set[str]:
    return set(table.loc[table["metric"] == metric, "condition"])


# -- --------------------------------------------------------------------------------------------
# C2: R networks do better without texture; C2c: that they resist corruption was never claimed.
#
# The paper does not say that R generalises better to ImageNet-C as a whole, and for ImageNet's
# ResNet-50 it does not (data_manifest/published.csv); C2c states this, to be seen beside C2.


SOURCE = "Chen, Agarwal and Nguyen 2020, arXiv 2006.09373, abstract"


PUBLISHED = (
    "ResNet-50, L2 eps 3, in paulgavrikov/biases_vs_generalization (CC BY-SA 4.0); not a claim of "
    "the paper"
)


# condition of `measures.ood` -> the part's id and the images in words
PARTS = {
    "stylized": ("C2.stylized", "stylized images"),
    "silhouettes": ("C2.silhouettes", "silhouettes"),
    "black silhouettes": ("C2.black", "black silhouettes on white"),
}


ZHANG = "Zhang and Zhu 2019, arXiv 1905.09797"


# condition -> the part's id, whether R is claimed above S, and the claim; among images that both
# name rightly as they are, since S starts from the higher accuracy
KEPT = {
    "saturated, p = inf": (
        "C2.saturated", True,
        "R networks keep more of their right answers than S networks on saturated images.",
    ),
    "scrambled 4 x 4": (
        "C2.scrambled", False,
        "R networks lose more of their right answers than S networks when patches are scrambled.",
    ),
}  # fmt: skip


# in this order: where a set of images has labels for both, the finer one decides
DECISIONS = {"top1_difference": "top-1", "entry_level_difference": "entry-level accuracy"}


@claim("C2")
def distortions(table: pd.DataFrame) -> Iterator[Claim]:
    """Paired differences of accuracy from `measures.ood`, with texture or shape taken away."""
    for condition, (id, images) in PARTS.items():
        shown = table[(table["condition"] == condition) & table["metric"].isin(DECISIONS)]
        shown = shown.sort_values("metric", key=lambda m: m.map(list(DECISIONS).index))
        for row in shown.drop_duplicates("architecture").sort_index().itertuples():
            yield Claim.of(
                row,
                id=id,
                statement=f"R networks beat S networks on {images}.",
                source=SOURCE,
                statistic=f"{DECISIONS[row.metric]} on {images}, R minus S",
                threshold=0.0,
            )
    for condition, (id, above, statement) in KEPT.items():
        shown = (table["condition"] == condition) & (
            table["metric"] == "top1_conditional_difference"
        )
        for row in table[shown].itertuples():
            yield Claim.of(
                row,
                id=id,
                statement=statement,
                source=ZHANG,
                statistic=f"top-1 ({condition}; both right when clean), R minus S",
                threshold=0.0,
                above=above,
            )


@claim("C2c")
def corruptions(table: pd.DataFrame) -> Iterator[Claim]:
    """Difference of the mean corruption error; above 0 the robust network is the worse one."""
    for row in table[table["metric"] == "mce_difference"].itertuples():
        yield Claim.of(
            row,
            id="C2c",
            statement="R networks do not generalise better to ImageNet-C's corruptions as a whole.",
            source=PUBLISHED,
            statistic=f"mCE (in per cent of {row.reference}), R minus S",
            threshold=0.0,
        )


# -- --------------------------------------------------------------------------------------------
# The few numbers of every network that the closing chapter sets side by side.
#
# A chapter's notebook carries them for programs, as it carries its claims, so that the closing
# chapter needs nothing but the notebooks.


TEXTURE_LESS = ("stylized", "silhouettes", "edges")


def headlines(table: pd.DataFrame) -> Headlines:
    """Accuracy on stimuli without texture, and the mCE: `measures.ood`.

    Where stimuli have no labels finer than categories, it is entry-level accuracy, and so named.
    """
    parts = {}
    for name in TEXTURE_LESS:
        own = table[table["condition"] == name]
        for metric, words in (("top1", "top-1"), ("entry_level", "entry-level")):
            if metric in set(own["metric"]):
                parts[f"{words}, {name}"] = of_metric(own, metric)
                break
    parts["mCE"] = of_metric(table, "mce")
    return gathered(parts)
