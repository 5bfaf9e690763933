"""C3: R networks have smoother filters and activations, and block pixel-wise noise."""

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from robustbias.claims.registry import claim
from robustbias.claims.verdicts import Claim
from robustbias.stats import Interval

SOURCE = "Chen, Agarwal and Nguyen 2020, arXiv 2006.09373, abstract"
SIGMA = 0.08  # of the noise the verdict is about: ImageNet-C's mildest


class Part(NamedTuple):
    """One part of the claim and the rows of `measures.smoothness` it is read from."""

    id: str
    condition: str
    metric: str
    statistic: str
    statement: str


PARTS = (
    Part(
        "C3.filters", "filters", "tv_normalised", "total variation of filters, R over S",
        "R networks have smoother filters than S networks.",
    ),
    Part(
        "C3.maps", "maps", "tv_normalised", "total variation of activation maps, R over S",
        "R networks have smoother activation maps than S networks.",
    ),
    Part(
        "C3.noise", "noise", "noise_gain", f"noise gain at sigma {SIGMA:g}, R over S",
        "R networks let less pixel-wise noise through than S networks.",
    ),
)  # fmt: skip


@claim("C3")
def smoothness(table: pd.DataFrame) -> Iterator[Claim]:
    """Geometric means over layers of R over S; below 1 is what the paper says."""
    rows = table[
        (table["regime"] == "robust / standard")
        & (table["layer"] == "all")
        & table["sigma"].isin([0.0, SIGMA])
    ]
    for part in PARTS:
        about = (rows["condition"] == part.condition) & (rows["metric"] == part.metric)
        for row in rows[about].itertuples():
            yield Claim(
                id=part.id,
                statement=part.statement,
                source=SOURCE,
                study=row.study,
                architecture=row.architecture,
                statistic=part.statistic,
                interval=Interval(row.value, row.low, row.high, int(row.n)),
                threshold=1.0,
                above=False,
            )
