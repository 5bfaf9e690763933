"""One row a unit: what the measures of the chapters before say about it, joined and ranked.

Nothing is measured here; every number is a row of a stored table.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd

from robustbias.concepts.measure import labels
from robustbias.utils import UserError

KEYS = ["network", "layer", "unit"]


NONE = "no concept"


@dataclasses.dataclass(frozen=True)
class Fact:
    """A number of a unit: where it is in the tables and how a card words it.

    Args:
        column: Its name in the joined table.
        measure: The table that holds it.
        where: Values of that table's other columns.
        title: What the card calls it; empty for what it shows otherwise.
        form: The number as text.
    """

    column: str
    measure: str
    where: dict[str, Any]
    title: str = ""
    form: Callable[[float], str] = "{:.2f}".format


FACTS = (
    Fact("threshold", "dissection", {"metric": "activation_threshold"}),
    Fact("tv", "smoothness", {"condition": "maps", "metric": "tv_normalised"}, "TV of maps"),
    Fact(
        "filter_tv",
        "smoothness",
        {"condition": "filters", "metric": "tv_normalised"},
        "TV of filter",
    ),
    Fact("concepts_met", "input_types", {"metric": "concepts"}, "concepts met", "{:.0f}".format),
    Fact("effective_classes", "input_types", {"metric": "effective_classes"}, "eff. classes"),
    Fact("distance", "input_types", {"metric": "distance"}, "distance"),
    Fact("noise_gain", "smoothness", {"condition": "noise", "sigma": 0.08}, "noise gain"),
    Fact("shape_score", "ablation", {"metric": "shape_score"}, "shape score", "{:.0f}".format),
    Fact(
        "texture_score", "ablation", {"metric": "texture_score"}, "texture score", "{:.0f}".format
    ),
    Fact("clean_score", "ablation", {"metric": "clean_score"}, "clean score", "{:.0f}".format),
)


def joined(tables: dict[str, pd.DataFrame], networks: Iterable[str]) -> pd.DataFrame:
    """A row for every dissected unit of the networks.

    Columns: network, layer, unit, concept, category, iou, null, detector, `detects` (the category,
    or "no concept"), a column a fact (NaN where the table has no row), `n_decisions` behind the
    scores, `shape_minus_texture`.

    Args:
        tables: Tables by the name of their measure; `dissection` at least.

    Raises:
        UserError: A table holds two values of one fact for one unit.
    """
    own = {
        name: table[table["network"].isin(list(networks)) & (table["unit"] >= 0)]
        for name, table in tables.items()
    }
    if "smoothness" in own:
        own["smoothness"] = _filters_placed(own["smoothness"])
    units = labels(own["dissection"])
    units["detects"] = units["category"].where(units["detector"], NONE)
    for fact in FACTS:
        if fact.measure in own:
            rows = facts(own[fact.measure], fact).rename(columns={"value": fact.column})
            units = _merged(units, rows[[*KEYS, fact.column]])
    if "ablation" in own:
        rows = facts(own["ablation"], FACTS[-1]).rename(columns={"n": "n_decisions"})
        units = _merged(units, rows[[*KEYS, "n_decisions"]])
        units["shape_minus_texture"] = units["shape_score"] - units["texture_score"]
    return units.sort_values(KEYS).reset_index(drop=True)


def facts(table: pd.DataFrame, fact: Fact) -> pd.DataFrame:
    """The rows of a measure's table that hold a fact, one a unit."""
    for column, value in fact.where.items():
        table = table[table[column] == value]
    return table


def concepts(dissection: pd.DataFrame, networks: Iterable[str], most: int = 5) -> pd.DataFrame:
    """Each unit's concepts with the highest IoU, best first.

    Columns: network, layer, unit, category, concept, iou, null (that concept's own null IoU).
    """
    own = dissection[dissection["network"].isin(list(networks)) & (dissection["unit"] >= 0)]
    keys = [*KEYS, "category", "concept"]
    iou, null = (
        own.loc[own["metric"] == metric, [*keys, "value"]].rename(columns={"value": name})
        for metric, name in (("iou", "iou"), ("null_iou", "null"))
    )
    both = iou.merge(null, on=keys, validate="one_to_one")
    both = both.sort_values("iou", ascending=False, kind="stable")
    return both.groupby(KEYS, sort=False).head(most)


def _filters_placed(table: pd.DataFrame) -> pd.DataFrame:
    """The first convolution's filters as facts of the first probed layer, the others left out.

    Filters are named by their convolution. The first one's look at colours and are what the units
    of the first layer are known by; further in a unit may join several convolutions.
    """
    kept = [table[table["condition"] != "filters"]]
    for _, own in table.groupby("network", sort=False):
        filters, maps = (own[own["condition"] == kind] for kind in ("filters", "maps"))
        if len(filters) and len(maps):
            first = filters[filters["layer"] == filters["layer"].iloc[0]]
            kept.append(first.assign(layer=maps["layer"].iloc[0]))
    return pd.concat(kept)


def _merged(units: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    try:
        return units.merge(rows, on=KEYS, how="left", validate="one_to_one")
    except pd.errors.MergeError:
        raise UserError(
            f"{rows.columns[-1]} of a unit is in its table twice; give tables of one study, each "
            "measured once."
        ) from None


@dataclasses.dataclass(frozen=True)
class View:
    """Some units of a layer in some order.

    Args:
        title: What a reader chooses.
        by: Column whose largest (`descending`) or smallest values come first.
        detects: Only units that detect concepts of this category; "" for all.
    """

    title: str
    by: str
    descending: bool = True
    detects: str = ""

    def ranked(self, units: pd.DataFrame) -> list[int]:
        """The numbers of a layer's units in this order; equal ones by number.

        A unit without a value (one that is never active has no TV) is left out.
        """
        own = units[units["detects"] == self.detects] if self.detects else units
        own = own.dropna(subset=[self.by]).sort_values("unit")
        key = -own[self.by] if self.descending else own[self.by]
        return own["unit"].iloc[key.argsort(kind="stable")].tolist()


ORDERS = (
    View("IoU, highest first", "iou"),
    View("shape minus texture score, highest first", "shape_minus_texture"),
    View("shape minus texture score, lowest first", "shape_minus_texture", descending=False),
    View("TV of maps, smoothest first", "tv", descending=False),
    View("TV of maps, roughest first", "tv"),
)


def orders(units: pd.DataFrame) -> list[View]:
    """Those of ORDERS whose column is there."""
    return [order for order in ORDERS if order.by in units]


def views(units: pd.DataFrame, categories: Iterable[str]) -> list[View]:
    """All orders of all units, then the detectors of each category by IoU."""
    detectors = [
        View(f"{category} detectors, by IoU", "iou", detects=category) for category in categories
    ]
    first, *others = orders(units)
    return [first, *detectors, *others]
