"""C5: R units are activated by fewer types of inputs."""

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from robustbias.claims import Claim, claim
from robustbias.concepts.report import table_by_network
from robustbias.utils import REGIMES, Prose, architecture

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


@claim("C5")
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


# -- --------------------------------------------------------------------------------------------
# Tables and sentences of the chapters on what units detect and respond to.


TYPES = {
    "concepts": "concepts",
    "effective_classes": "effective classes",
    "distance": "distance by",
    "distance_robust": "distance by",
}


def input_types_table(table: pd.DataFrame) -> pd.DataFrame:
    """Means over all units of the probed layers, with intervals; by network.

    Args:
        table: From `measures.input_types`.
    """
    own = table[(table["unit"] == -1) & (table["layer"] == "all")]
    own = own[own["regime"].isin(list(REGIMES))]
    words = own["metric"].map(TYPES) + " " + own["judge"]
    return table_by_network(own.assign(column=words.str.strip()))


def judges(table: pd.DataFrame) -> Prose:
    """Whose features say how alike images are, in a sentence."""
    named = table[table["features"] != ""]
    named = named.drop_duplicates(["architecture", "metric"])[["architecture", "features"]]
    lines = [
        f"{architecture(name)}: {' and '.join(own['features'])}"
        for name, own in named.groupby("architecture", sort=False)
    ]
    chance = table[table["regime"] == "chance"].iloc[0]
    return Prose(
        f"Judges of likeness: {'; '.join(lines)}. {chance['n']} images drawn at random show "
        f"{chance['value']:.1f} effective classes (middle 95 %: {chance['low']:.1f} to "
        f"{chance['high']:.1f})."
    )
