"""Per-unit results of the chapters before, joined to one row per unit, and orders of units."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd

from robustbias.claims import matching
from robustbias.concepts.measure import labels
from robustbias.utils import UserError

KEYS = ["network", "layer", "unit"]
NO_CONCEPT = "no concept"
N_BEST = 5  # concepts per unit


@dataclasses.dataclass(frozen=True)
class Result:
    """A number of a unit: where the tables have it and how a card shows it.

    Args:
        column: Its name in the joined table.
        measure: The table that has it.
        where: Values of that table's other columns.
        title: Its title in a card's list of numbers; empty when it is not in that list.
        form: The number as text.
    """

    column: str
    measure: str
    where: dict[str, Any]
    title: str = ""
    form: Callable[[float], str] = "{:.2f}".format

    def rows(self, tables: dict[str, pd.DataFrame], name: str, column: str) -> pd.DataFrame:
        """One row per unit: `KEYS`, and `column` of its table as `name`."""
        table = tables[self.measure]
        for key, value in self.where.items():
            table = table[table[key] == value]
        return table[[*KEYS, column]].rename(columns={column: name})


def _score(cue: str) -> Result:
    where = {"metric": f"{cue}_score"}
    return Result(f"{cue}_score", "ablation", where, f"{cue} score", "{:.0f}".format)


def _tv(column: str, condition: str, title: str) -> Result:
    where = {"condition": condition, "metric": "tv_normalised"}
    return Result(column, "smoothness", where, title)


RESULTS = (
    Result("threshold", "dissection", {"metric": "activation_threshold"}),
    _tv("tv", "maps", "TV of maps"),
    _tv("filter_tv", "filters", "TV of filter"),
    Result("concepts_met", "input_types", {"metric": "concepts"}, "concepts met", "{:.0f}".format),
    Result("effective_classes", "input_types", {"metric": "effective_classes"}, "eff. classes"),
    Result("distance", "input_types", {"metric": "distance"}, "distance"),
    Result("noise_gain", "smoothness", {"condition": "noise", "sigma": 0.08}, "noise gain"),
    _score("shape"),
    _score("texture"),
    _score("clean"),
)


def joined(tables: dict[str, pd.DataFrame], networks: Iterable[str]) -> pd.DataFrame:
    """One row per dissected unit of the networks.

    Columns: network, layer, unit, concept, category, iou, null, detector, `detects` (the category,
    or "no concept"), a column per result (NaN where the table has no row), `n_decisions` behind
    the scores, `shape_minus_texture`.

    Args:
        tables: Tables by the name of their measure; `dissection` at least.

    Raises:
        UserError: A table has two values of one result for one unit.
    """
    tables = {name: _units(table, networks) for name, table in tables.items()}
    if "smoothness" in tables:
        tables["smoothness"] = _first_filters(tables["smoothness"])
    units = labels(tables["dissection"])
    units["detects"] = units["category"].where(units["detector"], NO_CONCEPT)
    for result in RESULTS:
        if result.measure in tables:
            units = _merged(units, result.rows(tables, result.column, "value"))
    if "ablation" in tables:
        units = _merged(units, RESULTS[-1].rows(tables, "n_decisions", "n"))
        units["shape_minus_texture"] = units["shape_score"] - units["texture_score"]
    return units.sort_values(KEYS).reset_index(drop=True)


def _units(table: pd.DataFrame, networks: Iterable[str]) -> pd.DataFrame:
    """The rows about units of these networks; all of them have a number."""
    rows = matching(table, scope="unit", network=tuple(networks))
    return rows.astype({"unit": int})


def _first_filters(table: pd.DataFrame) -> pd.DataFrame:
    """Only the filters of the first convolution, as results of the first probed layer.

    Filters are named by their convolution. Those of the first one apply to colours and define the
    units of the first probed layer; a unit of a later layer may join several convolutions.
    """
    kept = [table[table["condition"] != "filters"]]
    for _, rows in table.groupby("network", sort=False):
        filters, maps = (rows[rows["condition"] == kind] for kind in ("filters", "maps"))
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


def best_concepts(dissection: pd.DataFrame, networks: Iterable[str]) -> pd.DataFrame:
    """The N_BEST concepts with the highest IoU of each unit, best first.

    Columns: network, layer, unit, category, concept, iou, null (null IoU of that concept).
    """
    units = _units(dissection, networks)
    keys = [*KEYS, "category", "concept"]
    iou, null = (
        units.loc[units["metric"] == metric, [*keys, "value"]].rename(columns={"value": name})
        for metric, name in (("iou", "iou"), ("null_iou", "null"))
    )
    both = iou.merge(null, on=keys, validate="one_to_one")
    both = both.sort_values("iou", ascending=False, kind="stable")
    return both.groupby(KEYS, sort=False).head(N_BEST)


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
        chosen = units[units["detects"] == self.detects] if self.detects else units
        chosen = chosen.dropna(subset=[self.by]).sort_values("unit")
        key = -chosen[self.by] if self.descending else chosen[self.by]
        return chosen["unit"].iloc[key.argsort(kind="stable")].tolist()


ORDERS = (
    View("IoU, highest first", "iou"),
    View("shape minus texture score, highest first", "shape_minus_texture"),
    View("shape minus texture score, lowest first", "shape_minus_texture", descending=False),
    View("TV of maps, smoothest first", "tv", descending=False),
    View("TV of maps, roughest first", "tv"),
)


def orders(units: pd.DataFrame) -> list[View]:
    """The ORDERS whose column the table has."""
    return [order for order in ORDERS if order.by in units]


def views(units: pd.DataFrame, categories: Iterable[str]) -> list[View]:
    """All orders of all units, then the detectors of each category by IoU."""
    detectors = [
        View(f"{category} detectors, by IoU", "iou", detects=category) for category in categories
    ]
    first, *others = orders(units)
    return [first, *detectors, *others]
