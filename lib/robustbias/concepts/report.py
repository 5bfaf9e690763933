"""Tables and sentences of the chapters on what units detect and respond to."""

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from robustbias.claims import Claim, claim
from robustbias.stats import Interval
from robustbias.utils import REGIMES, Prose, architecture


def detectors(table: pd.DataFrame) -> pd.DataFrame:
    """Share of all units that detect a category, and how many concepts they detect; by network.

    Args:
        table: From `measures.dissection`.
    """
    own = table[(table["unit"] == -1) & (table["layer"] == "all")]
    own = own[own["regime"].isin(list(REGIMES))]
    shares = own[own["metric"] == "detectors"].assign(column=lambda t: t["category"])
    above = own[(own["metric"] == "above_null") & (own["category"] == "any")]
    null = own[(own["metric"] == "null_detectors") & (own["category"] == "any")]
    parts = [
        shares,
        null.assign(column="any, masks of other images"),
        above.assign(column="above every null IoU"),
    ]
    wide = table_by_network(pd.concat(parts))
    unique = own[(own["metric"] == "unique") & (own["category"] == "any")]
    wide["different concepts"] = _column(unique, wide.index)
    return wide


def null_labels(table: pd.DataFrame) -> pd.DataFrame:
    """Share of all units whose best IoU lies above every null IoU of their layer, by category.

    Args:
        table: From `measures.dissection`.
    """
    own = table[(table["unit"] == -1) & (table["layer"] == "all")]
    own = own[(own["metric"] == "above_null") & own["regime"].isin(list(REGIMES))]
    return table_by_network(own.assign(column=own["category"]))


def ceilings(table: pd.DataFrame, *, share: float = 0.005, threshold: float = 0.04) -> Prose:
    """Which concepts cover so many pixels that no unit can reach the threshold, in a sentence.

    A unit that stands out on a share s of the pixels meets a concept that covers p of them with
    an IoU of at most s / p.

    Args:
        table: From `measures.dissection`.
    """
    covered = table[table["metric"] == "pixel_share"]
    lines = []
    for category, own in covered.groupby("category", sort=False):
        out = int((share / own["value"] <= threshold).sum())
        low, high = own["value"].min(), own["value"].max()
        least, most = share / high, min(1.0, share / low) if low else 1.0
        lines.append(
            f"- {category}: {len(own)} concepts, each on {low:.1%} to {high:.1%} of the pixels, "
            f"so with an IoU of at most {least:.3f} to {most:.3f}; "
            f"{out} of them cannot reach {threshold:g}."
        )
    return Prose(
        f"A unit that stands out on {share:.1%} of the pixels cannot overlap well with a concept "
        "that covers many times as many:\n\n" + "\n".join(lines)
    )


def table_by_network(rows: pd.DataFrame) -> pd.DataFrame:
    """A line an architecture and regime, a column a `column`, value [95 % interval]."""
    text = [str(Interval(r.value, r.low, r.high, int(r.n))) for r in rows.itertuples()]
    named = _named(rows).assign(text=text)
    order = list(dict.fromkeys(named["column"]))
    wide = named.pivot(index=["network", "training"], columns="column", values="text")
    words = list(REGIMES.values())
    lines = sorted(wide.index, key=lambda line: (line[0], words.index(line[1])))
    return wide.reindex(lines)[order].rename_axis(columns=None)


def _column(rows: pd.DataFrame, index: pd.MultiIndex) -> list[int]:
    values = _named(rows).set_index(["network", "training"])["value"]
    return [int(values[line]) for line in index]


def _named(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(
        network=[architecture(name) for name in rows["architecture"]],
        training=[REGIMES[regime] for regime in rows["regime"]],
    )


# -- --------------------------------------------------------------------------------------------
# C4: R units detect lower-level concepts and fewer objects.


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


@claim("C4")
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
