"""Figures of chapters 5 and 6: what units detect, and to how many types of inputs they respond."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from robustbias.concepts.figures import OFFSETS, layer_panels, paired_architectures
from robustbias.plotting import PALETTE, canvas, legend_below
from robustbias.utils import REGIMES, architecture

METRICS = {
    "effective_classes": "effective classes\namong top images",
    "distance": "distance of\ntop images",
    "distance_robust": "distance of\ntop images",
}


def input_types_by_layer(table: pd.DataFrame) -> Figure:
    """Classes among a unit's top images and how unlike they are, by layer: S, R and untrained.

    Grey line: images drawn at random.

    Args:
        table: From `measures.input_types`.
    """
    rows = {metric: table[table["metric"] == metric] for metric in METRICS}
    rows = {metric: own for metric, own in rows.items() if len(own)}
    figure, axes = layer_panels(rows, None)
    chance = table.loc[table["regime"] == "chance", "value"].iloc[0]
    for line, (metric, own) in zip(axes, rows.items(), strict=True):
        judge = own["judge"].iloc[0].removeprefix("an ").removesuffix(" network")
        label = METRICS[metric] + (f"\n(by {judge})" if judge else "")
        line[0].set_ylabel(label, size="small")
        for ax in line:
            level = chance if metric == "effective_classes" else 1.0
            ax.axhline(level, color="#999999", ls="--", lw=1, label="random images")
            ax.set_ylim(bottom=0)
    legend_below(figure, axes)
    return figure


def input_types_by_unit(table: pd.DataFrame) -> Figure:
    """How many units have top images of how many classes; all probed layers together.

    A panel an architecture; steps of one class.

    Args:
        table: From `measures.input_types`.
    """
    units = table[(table["unit"] >= 0) & (table["metric"] == "effective_classes")]
    names = paired_architectures(table)
    figure, axes = canvas(1, len(names), panel=(2.6, 2.5), sharex=True, sharey=True)
    edges = np.arange(1, np.ceil(units["value"].max()) + 2) - 0.5
    for ax, name in zip(axes.flat, names, strict=True):
        for regime in OFFSETS:
            own = units[(units["architecture"] == name) & (units["regime"] == regime)]["value"]
            share = np.histogram(own, edges)[0] / max(len(own), 1)
            ax.stairs(share, edges, color=PALETTE[regime], lw=1.6, label=REGIMES[regime])
        ax.set_title(architecture(name))
        ax.set_xlabel("effective classes")
    axes[0, 0].set_ylabel("share of units")
    legend_below(figure, axes)
    return figure
