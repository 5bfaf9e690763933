"""The tables of chapter 4, from `measure.smoothness` and `visualisation.visualised`."""

import pandas as pd

from robustbias.claims import SIGMA, matching
from robustbias.plotting import interval_text, per_architecture, pivoted
from robustbias.utils import architecture

_COLUMNS = {
    ("filters", "tv_normalised"): "TV of filters",
    ("filters", "high_frequency_share"): "high frequencies of filters",
    ("maps", "tv_per_pixel"): "TV of maps, per pixel",
    ("maps", "tv_normalised"): "TV of maps, per magnitude",
    ("noise", "noise_gain"): f"noise gain, sigma {SIGMA:g}",
}


def smoothness_table(table: pd.DataFrame) -> pd.DataFrame:
    """R over S, value [95 % interval]: per architecture, the first layer and the mean of all."""
    ratios = per_architecture(matching(table, regime="robust / standard"))
    ratios = ratios[ratios["sigma"].isna() | (ratios["sigma"] == SIGMA)]
    keys = zip(ratios["condition"], ratios["metric"], strict=True)
    ratios = ratios.assign(column=[_COLUMNS.get(key) for key in keys]).dropna(subset=["column"])
    first = ratios.groupby(["architecture", "condition"])["layer"].transform("first")
    parts = [
        ratios[ratios["layer"] == first].assign(layers="first"),
        matching(ratios, scope="network").assign(layers="all (geometric mean)"),
    ]
    rows = pd.concat(parts).sort_values("architecture", kind="stable")
    rows = rows.assign(
        network=rows["architecture"].map(architecture),
        text=[interval_text(row) for row in rows.itertuples()],
    )
    return pivoted(rows, ["network", "layers"], list(_COLUMNS.values()))


def visualisation_table(table: pd.DataFrame) -> pd.DataFrame:
    """Of all layers, value [95 % interval]: R over S, and likeness R minus S."""
    names = {
        "tv_normalised": "TV, R over S",
        "high_frequency_share": "high frequencies, R over S",
        "likeness": "likeness, R minus S",
        "likeness_of_image": "likeness of the strongest image, R minus S",
    }
    rows = matching(table, scope="network")
    rows = pd.concat([per_architecture(rows), matching(rows, mean_over="architectures")])
    rows = rows.assign(
        network=rows["architecture"].map(architecture).fillna("mean of all"),
        column=rows["metric"].map(names),
        text=[interval_text(row) for row in rows.itertuples()],
    )
    return pivoted(rows, ["network"], list(names.values()))
