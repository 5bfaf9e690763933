"""C6: texture detectors serve recognition by shape, and R units are generalists."""

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from robustbias.claims.registry import claim
from robustbias.claims.verdicts import Claim

# Halfway between units that serve texture alone (0) and units that serve both cues alike (0.5).
SERVES = 0.25
SOURCE = "Chen, Agarwal and Nguyen 2020, arXiv 2006.09373, abstract"


class Part(NamedTuple):
    """One part of the claim and the rows of `measures.cue_units` it is read from."""

    id: str
    regime: str
    detects: str
    metric: str
    statistic: str
    threshold: float
    statement: str


PARTS = (
    Part(
        "C6.serve", "robust", "texture", "shape_part",
        "shape's part in the scores of R's texture detectors", SERVES,
        "Texture-detecting units of R also serve recognition by shape.",
    ),
    Part(
        "C6.generalists", "robust - standard", "all", "relative_generality",
        "relative generality of units, R minus S", 0.0,
        "R units are generalists: they serve both cues more evenly than S units.",
    ),
)  # fmt: skip


@claim("C6", "texture detectors serve shape too, and R's units are generalists")
def cue_units(table: pd.DataFrame) -> Iterator[Claim]:
    """Means over units of `measures.cue_units`; a part without such units is left out."""
    for part in PARTS:
        about = (
            (table["regime"] == part.regime)
            & (table["detects"] == part.detects)
            & (table["metric"] == part.metric)
        )
        for row in table[about].itertuples():
            yield Claim.of(
                row,
                id=part.id,
                statement=part.statement,
                source=SOURCE,
                statistic=part.statistic,
                threshold=part.threshold,
            )
