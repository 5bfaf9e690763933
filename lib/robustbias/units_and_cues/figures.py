"""Figures of chapter 7: what units are needed for, and which pixels decisions depend on."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from robustbias import plotting
from robustbias.plotting import CATEGORIES, PAIR, PALETTE, REFERENCE
from robustbias.units_and_cues.attribution import REGIONS, Explained
from robustbias.units_and_cues.measure import NONE
from robustbias.utils import REGIMES, architecture

MARKS = {"texture": "v", "object": "^", "color": "D", "scene": "s"}
POSITIONS = plotting.offsets(PAIR, 0.2)


def unit_scores(units: pd.DataFrame) -> Figure:
    """Each unit by its shape and texture score, coloured by what it detects; one row per regime.

    Shares of the decisions by each cue. Many units share a score, so points are spread by up to
    0.4 decisions around it. Grey units detect no concept; the diagonal is generality 1.

    Args:
        units: From `measure.labelled`.
    """
    index = ["architecture", "regime", "detects", "network", "layer", "unit"]
    wide = units.pivot(index=index, columns="metric", values="value").reset_index()
    n = units[units["metric"] == "shape_share"].groupby("architecture")["n"].max()
    figure, panels = plotting.architecture_panels(
        units, ["shape score / n"] * 2, panel=(3.0, 2.9), sharex="col", sharey="col"
    )
    names = list(dict.fromkeys(units["architecture"]))
    spread = np.random.default_rng(0)
    for row, regime in enumerate(PAIR):
        for name, (_, column) in zip(names, panels, strict=True):
            ax, scores = column[row], wide[wide["architecture"] == name]
            top = 1.1 * scores[["shape_share", "texture_share"]].max(axis=None)
            ax.plot([0, top], [0, top], color="#bbbbbb", lw=1, zorder=0)
            for detects in [NONE, *CATEGORIES]:
                mine = scores[(scores["regime"] == regime) & (scores["detects"] == detects)]
                x, y = (mine[f"{cue}_share"].to_numpy(float) for cue in ("texture", "shape"))
                x, y = (v + spread.uniform(-0.4, 0.4, len(v)) / n[name] for v in (x, y))
                ax.scatter(
                    x,
                    y,
                    marker=MARKS.get(detects, "o"),
                    color=CATEGORIES.get(detects, REFERENCE),
                    s=22 if detects in CATEGORIES else 8,
                    alpha=0.75 if detects in CATEGORIES else 0.4,
                    linewidth=0,
                    label=f"detects {detects}" if len(mine) else None,
                )
            title = f"{architecture(name)}, {REGIMES[regime]}"
            ax.set_title(title, color=PALETTE[regime])
            if row == 1:
                ax.set_xlabel("texture score / n")
    plotting.legend_below(figure)
    return figure


def scores_by_layer(table: pd.DataFrame) -> Figure:
    """Shape score, texture score and relative generality of units by layer, S and R.

    Means over the units of a layer with 95 % intervals over units.

    Args:
        table: From `measure.ablation`.
    """
    metrics = {
        "shape_share": "shape score / n",
        "texture_share": "texture score / n",
        "relative_generality": "relative\ngenerality",
    }
    # unit rows are in the order of the layers, means are not
    order = table.loc[table["scope"] == "unit", ["architecture", "layer"]].drop_duplicates()
    figure, axes = plotting.layer_panels(
        [order.merge(plotting.layer_means(table, metric)) for metric in metrics],
        list(metrics.values()),
        POSITIONS,
        panel=(3.2, 1.9),
        sharex="col",
        style={"ms": 4},
    )
    for ax in axes[-1]:
        ax.axhline(1, color=REFERENCE, ls=":", lw=1.2, label="units blind to the cue")
    plotting.legend_below(figure)
    return figure


def serving_units(table: pd.DataFrame) -> Figure:
    """Share of units that some decision needs, by what they detect, for S and R.

    Above: decisions by shape; below: by texture. Numbers are units; 95 % intervals over units.

    Args:
        table: From `measure.cue_units`.
    """
    kinds = [kind for kind in (*CATEGORIES, NONE) if kind in set(table["detects"])]
    cues = ("shape", "texture")
    labels = [f"units serving {cue}" for cue in cues]
    figure, panels = plotting.architecture_panels(
        table, labels, panel=(3.0, 2.2), sharex=True, sharey=True
    )
    positions = plotting.offsets(PAIR, 0.3)
    for of_architecture, column in panels:
        for ax, cue in zip(column, cues, strict=True):
            rows = of_architecture[of_architecture["metric"] == f"serves_{cue}"]
            plotting.regime_points(ax, rows, "detects", kinds, positions)
            for unit in rows[rows["detects"].isin(kinds)].dropna(subset="value").itertuples():
                if unit.regime in positions:
                    x = kinds.index(unit.detects) + positions[unit.regime]
                    look = {"ha": "center", "size": "xx-small", "color": PALETTE[unit.regime]}
                    ax.annotate(f"{int(unit.n)}", (x, 1.06), **look)
            ax.set(ylim=(-0.03, 1.15), xlim=(-0.5, len(kinds) - 0.5))
            ax.set_xticks(range(len(kinds)), kinds, rotation=20, size="small")
    plotting.legend_below(figure)
    return figure


def attribution_regions(table: pd.DataFrame) -> Figure:
    """Concentration of attribution inside the object, on its contour and outside it.

    One row per method; 1 is what an even map has. Means with 95 % intervals over shape images.

    Args:
        table: From `attribution.attribution`; without rows, a note takes the place of the panels.
    """
    if table.empty:
        return _note("no masks of the objects, so no regions")
    methods = list(dict.fromkeys(table["method"]))
    labels = [method.replace(" ", "\n", 1) for method in methods]
    figure, panels = plotting.architecture_panels(
        table[table["metric"] == "concentration"],
        labels,
        panel=(2.8, 1.9),
        sharex=True,
        sharey=True,
    )
    for of_architecture, column in panels:
        for ax, method in zip(column, methods, strict=True):
            rows = of_architecture[of_architecture["method"] == method]
            plotting.regime_points(ax, rows, "region", REGIONS, POSITIONS)
            ax.axhline(1, color=REFERENCE, ls=":", lw=1.2, label="even over the image")
            ax.set_xticks(range(3), REGIONS)
            ax.set_xlim(-0.5, 2.5)
    plotting.legend_below(figure)
    return figure


def attribution_maps(explained: Explained | None) -> Figure:
    """Stimuli with the outline of their object, and attribution maps of the decisions of S and R.

    Black is no attribution; white is the strongest hundredth of a map's pixels, separately
    for each map.

    Args:
        explained: From `attribution.attribution_examples`; None leaves a note.
    """
    if explained is None:
        return _note("no masks of the objects, so no outlines")
    rows = ["stimulus", *explained.maps]
    figure, axes = plotting.canvas(len(rows), len(explained.pixels), panel=(1.3, 1.45))
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
        line[0].set_ylabel(REGIMES.get(kind, kind), color=PALETTE.get(kind, "black"), size="small")
    return figure


def _note(words: str) -> Figure:
    """An empty figure that says why."""
    figure, axes = plotting.canvas(panel=(4.6, 1.2))
    plotting.placeholder(axes[0, 0], words)
    axes[0, 0].set_aspect("auto")
    return figure
