"""C3: R networks have smoother filters and activations, and block pixel-wise noise."""

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from robustbias.claims import Claim, claim
from robustbias.units_and_cues.report import _interval
from robustbias.utils import architecture

SOURCE = "Chen, Agarwal and Nguyen 2020, arXiv 2006.09373, abstract"


SIGMA = 0.08  # of the noise the verdict is about: ImageNet-C's mildest


class Part(NamedTuple):
    """One part of the claim and the rows of `measures.smoothness` it is read from."""

    id: str
    layers: str  # first or all
    condition: str
    metric: str
    statistic: str
    statement: str


PARTS = (
    Part(
        "C3.first", "first", "filters", "tv_normalised",
        "total variation of first-layer filters, R over S",
        "R networks have smoother filters in the first layer.",
    ),
    Part(
        "C3.filters", "all", "filters", "tv_normalised",
        "total variation of filters, all layers, R over S",
        "R networks have smoother filters over all layers.",
    ),
    Part(
        "C3.maps", "all", "maps", "tv_normalised", "total variation of activation maps, R over S",
        "R networks have smoother activation maps than S networks.",
    ),
    Part(
        "C3.noise", "all", "noise", "noise_gain", f"noise gain at sigma {SIGMA:g}, R over S",
        "R networks let less pixel-wise noise through than S networks.",
    ),
)  # fmt: skip


@claim("C3")
def smoothness(table: pd.DataFrame) -> Iterator[Claim]:
    """R over S, of the first layer or as the geometric mean of all; the paper says below 1."""
    rows = table[(table["regime"] == "robust / standard") & table["sigma"].isin([0.0, SIGMA])]
    for part in PARTS:
        own = rows[(rows["condition"] == part.condition) & (rows["metric"] == part.metric)]
        if part.layers == "first":  # layers come in the order of the network
            own = own[own["layer"] != "all"].drop_duplicates("architecture")
        else:
            own = own[own["layer"] == "all"]
        for row in own.itertuples():
            yield Claim.of(
                row,
                id=part.id,
                statement=part.statement,
                source=SOURCE,
                statistic=part.statistic,
                threshold=1.0,
                above=False,
            )


# -- --------------------------------------------------------------------------------------------
# Tables and sentences of the chapters that look inside: smoothness, ablation, attribution.


def smoothness_table(table: pd.DataFrame, *, sigma: float = 0.08) -> pd.DataFrame:
    """R over S, value [95 % interval]: a line an architecture, first layer and mean of all layers.

    Args:
        table: From `measures.smoothness`.
        sigma: Noise level of the noise gain.
    """
    ratios = table[(table["regime"] == "robust / standard") & table["sigma"].isin([0.0, sigma])]
    words = {
        ("filters", "tv_normalised"): "TV of filters",
        ("filters", "high_frequency_share"): "high frequencies of filters",
        ("maps", "tv_per_pixel"): "TV of maps, per pixel",
        ("maps", "tv_normalised"): "TV of maps, per magnitude",
        ("noise", "noise_gain"): f"noise gain, sigma {sigma:g}",
    }
    rows = []
    for (name, condition), own in ratios.groupby(["architecture", "condition"], sort=False):
        first = own["layer"].iloc[0]
        for layer, label in ((first, "first"), ("all", "all (geometric mean)")):
            for row in own[own["layer"] == layer].itertuples():
                if (condition, row.metric) in words:
                    rows.append(
                        {
                            "network": architecture(name),
                            "layers": label,
                            "column": words[condition, row.metric],
                            "text": _interval(row, 1.0),
                        }
                    )
    wide = pd.DataFrame(rows).pivot(index=["network", "layers"], columns="column", values="text")
    lines = sorted(wide.index, key=lambda line: (line[0], line[1] != "first"))
    return wide.reindex(lines)[list(words.values())].rename_axis(columns=None)
