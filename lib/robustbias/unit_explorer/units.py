"""Per-unit results of the chapters before, joined to one row per unit."""

import dataclasses
from collections.abc import Iterable
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
        title: Its title in a card's list of numbers.
        about: What it is, its unit, and what a low or high value means.
        digits: Decimals.
    """

    column: str
    measure: str
    where: dict[str, Any]
    title: str
    about: str
    digits: int = 2

    def rows(self, tables: dict[str, pd.DataFrame], name: str, column: str) -> pd.DataFrame:
        """One row per unit: `KEYS`, and `column` of its table as `name`."""
        table = tables[self.measure]
        for key, value in self.where.items():
            table = table[table[key] == value]
        return table[[*KEYS, column]].rename(columns={column: name})


def _score(cue: str, decisions: str) -> Result:
    about = f"{decisions} that change when the unit is silenced; higher: more is lost without it"
    return Result(f"{cue}_score", "ablation", {"metric": f"{cue}_score"}, f"{cue} score", about, 0)


def _tv(column: str, condition: str, title: str) -> Result:
    about = f"total variation over magnitude of its {condition}; lower is smoother"
    where = {"condition": condition, "metric": "tv_normalised"}
    return Result(column, "smoothness", where, title, about)


def _met(column: str, metric: str, title: str, about: str, digits: int = 2) -> Result:
    return Result(column, "input_types", {"metric": metric}, title, about, digits)


RESULTS = (
    Result(
        "threshold", "dissection", {"metric": "activation_threshold"}, "threshold",
        "activation that 0.5 % of its activations exceed; its region is where it is above",
    ),
    _tv("tv", "maps", "TV of maps"),
    _tv("filter_tv", "filters", "TV of filter"),
    _met("concepts_met", "concepts", "concepts met", "concepts it detects; lower is simpler", 0),
    _met(
        "effective_classes", "effective_classes", "effective classes",
        "classes among its maximally activating images; lower is simpler",
    ),
    _met(
        "distance", "distance", "distance",
        "mean distance between its maximally activating images; lower: they are more alike",
    ),
    Result(
        "noise_gain", "smoothness", {"condition": "noise", "sigma": 0.08}, "noise gain",
        "change of its maps by pixel noise of 0.08 over their size; lower: noise is blocked",
    ),
    _score("shape", "decisions by shape"),
    _score("texture", "decisions by texture"),
    _score("clean", "right answers on clean images"),
)  # fmt: skip


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
