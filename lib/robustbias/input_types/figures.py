"""The figure of chapter 6: to how many types of inputs units respond."""

import pandas as pd

from robustbias import plotting
from robustbias.concepts.figures import BY_LAYER
from robustbias.plotting import PAIR, REFERENCE, Described
from robustbias.utils import REGIMES, architecture


def classes_by_layer(table: pd.DataFrame) -> Described:
    """Effective number of classes among a unit's top images, by layer: S, R and untrained.

    Dashed line: random images.

    Args:
        table: From `measure.input_types`.
    """
    rows = plotting.layer_means(table, "effective_classes")
    labels = ["effective classes\n(lower is more selective)"]
    options = BY_LAYER | {"panel": (2.3, 2.3)}
    figure, axes = plotting.layer_panels([rows], labels, **options)
    chance = table.loc[table["metric"] == "effective_classes_chance", "value"].iloc[0]
    for ax in axes[0]:
        ax.axhline(chance, color=REFERENCE, ls="--", lw=1, label="random images")
        ax.set_ylim(0, max(ax.get_ylim()[1], 1.1 * chance))
    plotting.legend_below(figure)
    last = rows[rows["regime"].isin(PAIR)].groupby(["architecture", "regime"], sort=False).last()
    ends = [f"{architecture(n)} {REGIMES[r]} {v:.1f}" for (n, r), v in last["value"].items()]
    return figure.described(
        f"Effective number of classes among top images, by layer; {chance:.1f} for random images. "
        f"In the last layer: {', '.join(ends)}."
    )
