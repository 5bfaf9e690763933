"""Figures of chapter 6: to how many types of inputs units respond."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from robustbias import plotting
from robustbias.concepts.figures import BY_LAYER
from robustbias.plotting import PALETTE, REFERENCE
from robustbias.utils import REGIMES

METRICS = {
    "effective_classes": "effective classes\namong top images",
    "distance": "distance of\ntop images",
    "distance_robust": "distance of\ntop images",
}


def input_types_by_layer(table: pd.DataFrame) -> Figure:
    """Classes among a unit's top images and their distances, by layer: S, R and untrained.

    Grey line: random images.

    Args:
        table: From `measure.input_types`.
    """
    metrics = [metric for metric in METRICS if metric in set(table["metric"])]
    labels = []
    for metric in metrics:
        judges = table.loc[table["metric"] == metric, "judge"].dropna()
        judges = judges.str.removeprefix("an ").str.removesuffix(" network")
        labels.append("\n".join([METRICS[metric], *(f"(by {judge})" for judge in judges[:1])]))
    figure, axes = plotting.layer_panels(
        [plotting.layer_means(table, m) for m in metrics], labels, **BY_LAYER
    )
    chance = table.loc[table["metric"] == "effective_classes_chance", "value"].iloc[0]
    for line, metric in zip(axes, metrics, strict=True):
        level = chance if metric == "effective_classes" else 1.0
        for ax in line:
            ax.axhline(level, color=REFERENCE, ls="--", lw=1, label="random images")
            ax.set_ylim(bottom=0)
    plotting.legend_below(figure)
    return figure


def input_types_by_unit(table: pd.DataFrame) -> Figure:
    """Share of units by the classes among their top images, in steps of one; all layers together.

    Args:
        table: From `measure.input_types`.
    """
    units = table[(table["scope"] == "unit") & (table["metric"] == "effective_classes")]
    figure, panels = plotting.architecture_panels(
        units, ["share of units"], panel=(2.6, 2.5), sharex=True, sharey=True
    )
    edges = np.arange(1, np.ceil(units["value"].max()) + 2) - 0.5
    for rows, (ax,) in panels:
        for regime in BY_LAYER["positions"]:
            values = rows.loc[rows["regime"] == regime, "value"]
            share = np.histogram(values, edges)[0] / max(len(values), 1)
            ax.stairs(share, edges, color=PALETTE[regime], lw=1.6, label=REGIMES[regime])
        ax.set_xlabel("effective classes")
    plotting.legend_below(figure)
    return figure
