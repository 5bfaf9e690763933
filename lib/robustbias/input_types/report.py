"""Tables and sentences of chapter 6, from `measure.input_types`."""

import pandas as pd

from robustbias import manifest
from robustbias.claims import matching
from robustbias.plotting import reader_table
from robustbias.utils import REGIMES, Prose, UserError, architecture

TYPES = {
    "concepts": "concepts",
    "concepts_of_detectors": "concepts of detectors",
    "effective_classes": "effective classes",
    "effective_shapes": "effective shapes",
    "effective_textures": "effective textures",
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
    counted = table["metric"].isin(["effective_classes", "effective_shapes", "effective_textures"])
    named = table[table["features"].notna() & ~counted]
    named = named.drop_duplicates(["architecture", "metric"])
    lines = [
        f"of {architecture(name)}, {' and '.join(map(_in_words, features))}"
        for name, features in named.groupby("architecture", sort=False)["features"]
    ]
    chance = matching(table, metric="effective_classes_chance").iloc[0]
    groups = next(iter(table.loc[counted, "features"].dropna()), "classes")
    return Prose(
        f"Feature extractors for the top images {'; '.join(lines)}. {chance['n']} images drawn at "
        f"random are of {chance['value']:.1f} effective {groups} (middle 95 %: {chance['low']:.1f} "
        f"to {chance['high']:.1f})."
    )


def _in_words(network: str) -> str:
    """R of AlexNet, for a network of the manifest, the id itself for another."""
    try:
        entry = manifest.network(network)
    except UserError:
        return network
    return f"{REGIMES[entry.regime][0]} of {architecture(entry.architecture)}"
