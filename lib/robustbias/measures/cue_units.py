"""What units do, crossed with what they detect: ablation scores by NetDissect's label."""

from typing import Any

import pandas as pd

from robustbias.errors import UserError
from robustbias.measures.registry import tidy
from robustbias.measures.unit_means import unit_means

KEYS = ["network", "layer", "unit"]
NONE = "no concept"


def cue_units(
    study: Any, scores: pd.DataFrame, labels: pd.DataFrame, *, draws: int = 2000
) -> pd.DataFrame:
    """Means of ablation scores over the units that detect a category of concepts.

    Rows as from `unit_means`, one a network and metric for every `detects`: "all", a category of
    concepts (object, texture, ...) or "no concept", with intervals over units and differences of R
    and S. `serves_shape` is the share of units without which a decision by shape changes.

    Args:
        scores: From `measures.ablation`.
        labels: One row a unit: network, layer, unit, category, detector (bool), as from
            `measures.unit_labels`.

    Raises:
        UserError: Units that were silenced but not dissected.
    """
    units = labelled(scores, labels)
    return tidy(unit_means(study, units, "detects", draws))


def labelled(scores: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """The unit rows of `scores` with the column `detects`.

    Raises:
        UserError: Units that were silenced but not dissected.
    """
    units = scores[scores["unit"] >= 0]
    known = labels.assign(detects=labels["category"].where(labels["detector"].astype(bool), NONE))
    units = units.merge(known[[*KEYS, "detects"]], on=KEYS, how="left", validate="many_to_one")
    if units["detects"].isna().any():
        first = units.loc[units["detects"].isna(), KEYS].iloc[0]
        raise UserError(
            f"unit {first['unit']} of {first['layer']} in {first['network']} has no label: dissect "
            "the same networks and layers that were ablated."
        )
    return units
