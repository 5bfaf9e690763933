"""C1: R networks decide by shape, S networks by texture."""

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from robustbias.claims.registry import claim
from robustbias.claims.verdicts import Claim

SOURCE = "Chen, Agarwal and Nguyen 2020, arXiv 2006.09373, abstract"


class Part(NamedTuple):
    """One part of the claim and the rows of `measures.shape_bias` it is read from."""

    id: str
    regime: str
    metric: str
    statistic: str
    threshold: float
    above: bool
    statement: str


PARTS = (
    Part(
        "C1.difference", "robust - standard", "shape_bias_difference", "shape bias, R minus S",
        0.0, True, "R networks decide by shape more often than S networks.",
    ),
    Part(
        "C1.robust", "robust", "shape_bias", "shape bias of R",
        0.5, True, "R networks decide mostly by shape (67 % in the paper).",
    ),
    Part(
        "C1.standard", "standard", "shape_bias", "shape bias of S",
        0.5, False, "S networks decide mostly by texture (25 % by shape in the paper).",
    ),
)  # fmt: skip


@claim("C1", "R decides by shape, S by texture")
def shape(table: pd.DataFrame) -> Iterator[Claim]:
    """Decisions by mean probability, of the networks that form a pair, on every display."""
    rows = table[
        (table["aggregation"] == "mean")
        & (table["category"] == "all")
        & (table["condition"] != "shuffled")
        & table["pair"]
    ]
    several = rows["display"].nunique() > 1
    for part in PARTS:
        about = (rows["regime"] == part.regime) & (rows["metric"] == part.metric)
        for row in rows[about].itertuples():
            yield Claim.of(
                row,
                id=part.id,
                statement=part.statement,
                source=SOURCE,
                statistic=part.statistic,
                threshold=part.threshold,
                above=part.above,
                condition=row.display if several else "",
                beside=not row.decides,
            )
