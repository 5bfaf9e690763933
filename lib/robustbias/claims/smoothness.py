"""C3: R networks have smoother filters and activations, and block pixel-wise noise."""

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from robustbias.claims.registry import claim
from robustbias.claims.verdicts import Claim

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


@claim("C3", "R is smoother and blocks pixel noise")
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
