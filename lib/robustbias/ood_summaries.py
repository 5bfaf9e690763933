"""Tables and sentences of chapter 3, from `measures.ood` and from published numbers."""

import pandas as pd

from robustbias import published
from robustbias.images.distortions import STIMULI
from robustbias.names import REGIMES, architecture
from robustbias.summaries import _wide
from robustbias.text import Prose

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
    return _wide(shown.assign(column=shown["condition"]), ["clean", *names])


def corruptions(table: pd.DataFrame) -> pd.DataFrame:
    """mCE of S and R, and their accuracy over all corruptions in the three readings."""
    words = {
        "mce": "mCE",
        "top1": "top-1",
        "top1_relative": "relative to clean",
        "top1_conditional": "both right when clean",
    }
    shown = table[(table["condition"] == "all corruptions") & table["metric"].isin(words)]
    return _wide(shown.assign(column=shown["metric"].map(words)), list(words.values()))


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
