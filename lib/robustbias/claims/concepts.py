"""C4: R units detect lower-level concepts and fewer objects."""

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from robustbias.claims.registry import claim
from robustbias.claims.verdicts import Claim

SOURCE = "Chen, Agarwal and Nguyen 2020, arXiv 2006.09373, abstract"


class Part(NamedTuple):
    """One part of the claim and the category of `measures.dissection` it is read from."""

    id: str
    category: str
    statistic: str
    above: bool
    statement: str


PARTS = (
    Part(
        "C4.low", "texture or color", "share of units that detect a texture or colour, R minus S",
        True, "More units of R networks than of S networks detect textures and colours.",
    ),
    Part(
        "C4.object", "object", "share of units that detect an object, R minus S",
        False, "Fewer units of R networks than of S networks detect objects.",
    ),
)  # fmt: skip


@claim("C4", "R's units detect textures and colours rather than objects")
def concepts(table: pd.DataFrame) -> Iterator[Claim]:
    """Differences of the shares of detectors among all units of all probed layers."""
    rows = table[
        (table["regime"] == "robust - standard")
        & (table["layer"] == "all")
        & (table["metric"] == "detectors")
    ]
    for part in PARTS:
        for row in rows[rows["category"] == part.category].itertuples():
            yield Claim.of(
                row,
                id=part.id,
                statement=part.statement,
                source=SOURCE,
                statistic=part.statistic,
                threshold=0.0,
                above=part.above,
            )
