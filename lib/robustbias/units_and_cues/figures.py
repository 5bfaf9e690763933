"""Figures of chapter 7: what units are needed for, and which pixels decisions depend on."""

import pandas as pd

from robustbias import plotting
from robustbias.plotting import CATEGORIES, PAIR, PALETTE, REFERENCE, Described
from robustbias.units_and_cues.attribution import REGIONS, Explained
from robustbias.units_and_cues.measure import NONE
from robustbias.utils import REGIMES, architecture

POSITIONS = plotting.offsets(PAIR, 0.2)
SCORES = {
    "shape_share": "shape score / n",
    "texture_share": "texture score / n",
    "relative_generality": "relative generality\n(higher: both cues)",
}


def scores(table: pd.DataFrame, crossed: pd.DataFrame) -> Described:
    """Scores and relative generality of units by layer; below, shape's part by what units detect.

    Means over the units of a layer, and of the units that detect a kind of concept, with 95 %
    intervals over units, for S and R. One column of panels per architecture.

    Args:
        table: From `measure.ablation`.
        crossed: From `measure.cue_units`.
    """
    # unit rows are in the order of the layers, means are not
    order = table.loc[table["scope"] == "unit", ["architecture", "layer"]].drop_duplicates()
    means = pd.concat(order.merge(plotting.layer_means(table, metric)) for metric in SCORES)
    labels = [*SCORES.values(), "shape's part\n(higher: shape)"]
    figure, panels = plotting.architecture_panels(means, labels, panel=(2.3, 1.5), sharey="row")
    kinds = [kind for kind in (*CATEGORIES, NONE) if kind in set(crossed["detects"])]
    crossed = plotting.per_architecture(crossed)
    parts = crossed[(crossed["metric"] == "shape_part") & crossed["detects"].isin(kinds)]
    alt = []
    for rows, column in panels:
        name = rows["architecture"].iloc[0]
        for ax, metric in zip(column, SCORES, strict=False):
            plotting.layer_lines(ax, rows[rows["metric"] == metric], POSITIONS, align="right", ms=4)
        for ax in column[:2]:
            ax.tick_params(labelbottom=False)  # the row below has the same layers
        column[2].axhline(1, color=REFERENCE, ls=":", lw=1.2, label="units blind to the cue")
        mine = parts[parts["architecture"] == name]
        plotting.regime_points(column[3], mine, "detects", kinds, POSITIONS)
        column[3].axhline(0.5, color=REFERENCE, ls="--", lw=1, label="both cues alike")
        column[3].set(ylim=(-0.03, 1.03), xlim=(-0.5, len(kinds) - 0.5))
        column[3].set_xticks(range(len(kinds)), kinds, rotation=25, ha="right", size="x-small")
        values = mine[mine["detects"] == "texture"].set_index("regime")["value"].dropna()
        ends = [f"{REGIMES[r]} {values[r]:.2f}" for r in PAIR if r in values]
        alt.append(f"{architecture(name)}: {', '.join(ends) or 'no texture detectors'}")
    for _, column in panels[:1]:  # a row of panels shares its axis
        for ax, metric in zip(column, SCORES, strict=False):
            plotting.near_values(ax, means[means["metric"] == metric])
    plotting.legend_below(figure)
    return figure.described(
        "Shape score, texture score and relative generality of units by layer, and shape's part of "
        f"the scores by what units detect. Shape's part of texture detectors: {'; '.join(alt)}."
    )


def attribution_regions(table: pd.DataFrame) -> Described:
    """Concentration of attribution inside the object, on its contour and outside it.

    One row per method; 1 is what an even map has. Means with 95 % intervals over shape images.

    Args:
        table: From `attribution.attribution`.
    """
    table = plotting.per_architecture(table)
    methods = list(dict.fromkeys(table["method"]))
    labels = [method.replace(" ", "\n", 1) for method in methods]
    concentration = table[table["metric"] == "concentration"]
    concentration = concentration[concentration["regime"].isin(PAIR)]
    figure, panels = plotting.architecture_panels(
        concentration, labels, panel=(2.3, 1.5), sharex=True, sharey=True
    )
    for of_architecture, column in panels:
        for ax, method in zip(column, methods, strict=True):
            rows = of_architecture[of_architecture["method"] == method]
            plotting.regime_points(ax, rows, "region", REGIONS, POSITIONS)
            ax.axhline(1, color=REFERENCE, ls=":", lw=1.2, label="even over the image")
            ax.set_xticks(range(3), REGIONS)
            ax.set_xlim(-0.5, 2.5)
    for _, column in panels[:1]:  # all panels share one axis
        plotting.near_values(column[0], concentration)
    plotting.legend_below(figure)
    means = concentration.groupby(["regime", "region"])["value"].mean()
    ends = [f"{REGIMES[r]} {region} {means[r, region]:.1f}" for r in PAIR for region in REGIONS]
    return figure.described(
        "Concentration of attribution by region of the image, one row per method. Mean over "
        f"methods and architectures: {', '.join(ends)}."
    )


def attribution_maps(explained: Explained) -> Described:
    """Stimuli with the outline of their object, and attribution maps of the decisions of S and R.

    Black is no attribution; white is the strongest hundredth of a map's pixels, separately
    for each map.

    Args:
        explained: From `attribution.attribution_examples`.
    """
    rows = ["stimulus", *explained.maps]
    figure, axes = plotting.canvas(len(rows), len(explained.pixels), panel=(1.14, 1.4))
    for line, kind in zip(axes, rows, strict=True):
        for i, ax in enumerate(line):
            if kind == "stimulus":
                plotting.picture(
                    ax, plotting.channels_last(explained.pixels[i]), explained.titles[i]
                )
            else:
                strength = explained.maps[kind][i]
                pixels = plotting.grey(strength, max(strength.quantile(0.99).item(), 1e-12))
                plotting.picture(ax, pixels, f"→ {explained.answers[kind][i]}", PALETTE[kind])
            ax.contour(explained.masks[i].numpy(), levels=[0.5], colors="#E69F00", linewidths=0.7)
        line[0].set_ylabel(REGIMES.get(kind, kind), color=PALETTE.get(kind, "black"))
    return figure.described(
        "Cue-conflict stimuli with the outline of their object; attribution maps of the "
        "decisions of S and of R below."
    )
