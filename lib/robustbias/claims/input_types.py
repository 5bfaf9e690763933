"""C5: R units are activated by fewer types of inputs."""

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from robustbias.claims.registry import claim
from robustbias.claims.verdicts import Claim

SOURCE = "Chen, Agarwal and Nguyen 2020, arXiv 2006.09373, abstract"


class Part(NamedTuple):
    """One reading of the claim and the metric of `measures.input_types` it is read from."""

    id: str
    metric: str
    statistic: str
    statement: str


PARTS = (
    Part(
        "C5.concepts", "concepts", "concepts a unit detects, R minus S",
        "Units of R networks detect fewer concepts each.",
    ),
    Part(
        "C5.classes", "effective_classes", "classes among a unit's top images, R minus S",
        "The images that activate a unit of an R network most are of fewer classes.",
    ),
    *(
        Part(
            "C5.distance", metric, "distance between a unit's top images, R minus S",
            "The images that activate a unit of an R network most are more alike.",
        )
        for metric in ("distance", "distance_robust")
    ),
)  # fmt: skip


@claim("C5", "R's units respond to fewer types of inputs")
def input_types(table: pd.DataFrame) -> Iterator[Claim]:
    """Differences of the means over all units of all probed layers; below 0 is the claim."""
    rows = table[(table["regime"] == "robust - standard") & (table["layer"] == "all")]
    for part in PARTS:
        for row in rows[rows["metric"] == part.metric].itertuples():
            yield Claim.of(
                row,
                id=part.id,
                statement=part.statement,
                source=SOURCE,
                statistic=part.statistic,
                threshold=0.0,
                above=False,
                condition=f"judged by {row.judge}" if row.judge else "",
            )
