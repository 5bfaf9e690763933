"""Published numbers to compare ours with: every row names its source.

`data_manifest/published.csv` quotes accuracies and shape biases of ImageNet networks;
`data_manifest/published_cue_conflict.csv` counts the responses of people and networks for every
pair of categories, so that they can be restricted to the categories a study has.
"""

import functools

import pandas as pd

from robustbias.claims import matching
from robustbias.manifest import ROOT


@functools.cache
def _csv(name: str) -> pd.DataFrame:
    return pd.read_csv(ROOT / "data_manifest" / name)


def results(metric: str, **conditions: object) -> pd.DataFrame:
    """Rows of published.csv with this metric (`shape_bias`, `top1`) and these column values.

    Values are fractions; eps is in pixel units of 224 x 224 images.
    """
    return matching(_csv("published.csv"), metric=metric, **conditions).reset_index(drop=True)


def cue_conflict(categories: tuple[str, ...]) -> pd.DataFrame:
    """Shape bias and coverage of people and ImageNet networks on the stimuli of some categories.

    Columns: model, architecture, regime, scope (model, or category, that of the shape), category,
    metric, value, n.
    Everyone chose among all 16 categories, also where only some are counted here.

    Source: Geirhos et al. 2019, raw data of rgeirhos/texture-vs-shape.
    """
    counts = _csv("published_cue_conflict.csv")
    counts = matching(counts, shape=categories, texture=categories)
    by_category = counts.assign(scope="category", category=counts["shape"])
    both = pd.concat([counts.assign(scope="model"), by_category])
    names = ["model", "architecture", "regime", "scope", "category"]
    sums = (
        both.groupby(names, sort=False, dropna=False)[["n_shape", "n_texture", "n"]]
        .sum()
        .reset_index()
    )
    decided = sums["n_shape"] + sums["n_texture"]
    bias = sums[names].assign(metric="shape_bias", value=sums["n_shape"] / decided, n=decided)
    coverage = sums[names].assign(metric="coverage", value=decided / sums["n"], n=sums["n"])
    return pd.concat([bias, coverage], ignore_index=True)


def corruptions() -> pd.DataFrame:
    """Top-1 of ImageNet's ResNet-50, S and R (L2, eps 3), under every corruption and severity.

    Columns model, architecture, regime, corruption, severity, value, source.
    """
    rows = results("top1")
    names = rows["condition"].str.extract(r"^imagenet-c/(?P<corruption>\w+)/(?P<severity>\d)$")
    rows = rows.join(names).dropna(subset=["corruption"])
    columns = ["model", "architecture", "regime", "corruption", "severity", "value", "source"]
    return rows.astype({"severity": int})[columns].reset_index(drop=True)


def mean_corruption_errors() -> pd.Series:
    """mCE of the networks in `corruptions`, in per cent of the published errors of AlexNet.

    Source: Hendrycks and Dietterich 2019, arXiv 1903.12261.
    """
    errors = 1 - corruptions().groupby(["corruption", "model"])["value"].mean().unstack()
    alexnet = results("error", architecture="alexnet")
    alexnet.index = alexnet["condition"].str.removeprefix("imagenet-c/")
    return (100 * errors.div(alexnet["value"], axis=0)).mean().rename("mce")


_SERIES = ("ResNet-50, L2 eps 3", "ResNet-50 (torchvision)")
_MADRY = ("ResNet-50, L2 eps 3 (robustness)", "ResNet-50 (torchvision)")
# claim -> (metric, condition, the models: R and S, or the one the claim is about) on ImageNet
_EFFECTS = {
    "C0.cost": ("top1", "clean", _MADRY),
    "C0.gain": ("top1", "pgd-l2-3", _MADRY),
    "C1.difference": ("shape_bias", "cue-conflict", _SERIES),
    "C1.robust": ("shape_bias", "cue-conflict", _SERIES[:1]),
    "C1.standard": ("shape_bias", "cue-conflict", _SERIES[1:]),
    "C2.stylized": ("top1", "stylized", _SERIES),
    "C2.silhouettes": ("top1", "silhouette", _SERIES),
    "C2.black": ("top1", "silhouette", _SERIES),
}


def effects() -> pd.DataFrame:
    """The statistics of our claims for ImageNet's ResNet-50: columns id, value, source, model.

    Differences are R minus S (R: L2, eps 3), both from one source; no interval was published.
    """
    rows = []
    for id, (metric, condition, models) in _EFFECTS.items():
        values = results(metric, condition=condition).set_index(["source", "model"])["value"]
        values = values[~values.index.duplicated()].unstack()[list(models)].dropna()
        source = min(values.index)
        value = values.loc[source, models[0]]
        if len(models) == 2:
            value -= values.loc[source, models[1]]
        rows.append((id, value, source, " - ".join(models)))
    errors, source = mean_corruption_errors(), corruptions()["source"].iloc[0]
    rows.append(("C2c", errors[_SERIES[0]] - errors[_SERIES[1]], source, " - ".join(_SERIES)))
    return pd.DataFrame(rows, columns=["id", "value", "source", "model"])
