"""Tables and sentences of chapter 6, from `measure.input_types`."""

import pandas as pd

from robustbias.claims import matching
from robustbias.plotting import reader_table
from robustbias.utils import REGIMES, Prose, architecture

TYPES = {
    "concepts": "concepts",
    "effective_classes": "effective classes",
    "distance": "distance by",
    "distance_robust": "distance by",
}


def input_types_table(table: pd.DataFrame) -> pd.DataFrame:
    """Means over all units of the probed layers, with intervals; by network."""
    rows = matching(table, scope="network", regime=tuple(REGIMES))
    words = rows["metric"].map(TYPES) + " " + rows["judge"].fillna("")
    return reader_table(rows.assign(column=words.str.strip()))


def feature_extractors(table: pd.DataFrame) -> Prose:
    """The networks whose features give the distances, in a sentence."""
    named = table[table["features"].notna()].drop_duplicates(["architecture", "metric"])
    lines = [
        f"{architecture(name)}: {' and '.join(features)}"
        for name, features in named.groupby("architecture", sort=False)["features"]
    ]
    chance = matching(table, metric="effective_classes_chance").iloc[0]
    return Prose(
        f"Judges of likeness: {'; '.join(lines)}. {chance['n']} images drawn at random show "
        f"{chance['value']:.1f} effective classes (middle 95 %: {chance['low']:.1f} to "
        f"{chance['high']:.1f})."
    )
