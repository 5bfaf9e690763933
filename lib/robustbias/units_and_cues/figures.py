"""Figures of chapter 7: what units are needed for, by layer and by what they detect."""

import itertools

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from robustbias.plotting import PALETTE, canvas, interval_points, legend_below, picture
from robustbias.units_and_cues.attribution import REGIONS, Explained
from robustbias.units_and_cues.measure import NONE
from robustbias.utils import REGIMES, architecture

# what a unit detects; the colours of cues are those of chapter 2
DETECTS = {"texture": "#0072B2", "object": "#D55E00", "color": "#009E73", "scene": "#CC79A7"}


MARKS = {"texture": "v", "object": "^", "color": "D", "scene": "s"}


OFFSETS = {"standard": -0.1, "robust": 0.1}


def unit_scores(units: pd.DataFrame) -> Figure:
    """Each unit by its shape and texture score, coloured by what it detects; a row a regime.

    Shares of the decisions by each cue. Many units share a score, so points are spread by up to
    0.4 decisions around it. Grey units detect no concept; the diagonal is generality 1.

    Args:
        units: From `cue_units.labelled`: rows of units with the column `detects`.
    """
    index = ["architecture", "regime", "detects", "network", "layer", "unit"]
    wide = units.pivot(index=index, columns="metric", values="value").reset_index()
    n = units[units["metric"] == "shape_share"].groupby("architecture")["n"].max()
    names, regimes = list(dict.fromkeys(units["architecture"])), list(OFFSETS)
    figure, axes = canvas(2, len(names), panel=(3.0, 2.9), sharex="col", sharey="col")
    spread = np.random.default_rng(0)
    for (row, regime), (column, name) in itertools.product(enumerate(regimes), enumerate(names)):
        ax = axes[row, column]
        own = wide[(wide["architecture"] == name) & (wide["regime"] == regime)]
        top = 1.1 * wide.loc[wide["architecture"] == name, ["shape_share", "texture_share"]].max(
            axis=None
        )
        ax.plot([0, top], [0, top], color="#bbbbbb", lw=1, zorder=0)
        for detects in [NONE, *DETECTS]:
            mine = own[own["detects"] == detects]
            x, y = (mine[f"{cue}_share"].to_numpy(float) for cue in ("texture", "shape"))
            x, y = (v + spread.uniform(-0.4, 0.4, len(v)) / n[name] for v in (x, y))
            ax.scatter(
                x,
                y,
                marker=MARKS.get(detects, "o"),
                color=DETECTS.get(detects, "#999999"),
                s=22 if detects in DETECTS else 8,
                alpha=0.75 if detects in DETECTS else 0.4,
                linewidth=0,
                label=f"detects {detects}" if len(mine) else None,
            )
        ax.set_title(f"{architecture(name)}, {REGIMES[regime]}", color=PALETTE[regime])
        if column == 0:
            ax.set_ylabel("shape score / n")
    for ax in axes[-1]:
        ax.set_xlabel("texture score / n")
    legend_below(figure, axes)
    return figure


def scores_by_layer(table: pd.DataFrame) -> Figure:
    """Shape score, texture score and relative generality of units by layer, S and R.

    Means over the units of a layer with 95 % intervals over units.

    Args:
        table: From `measures.ablation`.
    """
    words = {
        "shape_share": "shape score / n",
        "texture_share": "texture score / n",
        "relative_generality": "relative\ngenerality",
    }
    names = list(dict.fromkeys(table["architecture"]))
    figure, axes = canvas(3, len(names), panel=(3.2, 1.9), sharex="col")
    for (row, metric), (column, name) in itertools.product(enumerate(words), enumerate(names)):
        ax = axes[row, column]
        own = table[
            (table["architecture"] == name)
            & (table["metric"] == metric)
            & (table["unit"] == -1)
            & (table["layer"] != "all")
        ]
        layers = list(dict.fromkeys(table.loc[(table["architecture"] == name)
                                              & (table["unit"] >= 0), "layer"]))  # fmt: skip
        for regime, offset in OFFSETS.items():
            mine = own[own["regime"] == regime].set_index("layer").reindex(layers)
            at = np.arange(len(layers)) + offset
            interval_points(ax, at, mine, kind=regime, label=REGIMES[regime], ls="-", ms=4)
        if metric == "relative_generality":
            ax.axhline(1, color="#999999", ls=":", lw=1.2, label="units blind to the cue")
        ax.set_xticks(range(len(layers)), layers)
        ax.tick_params(axis="x", rotation=40, labelsize="x-small")
        if row == 0:
            ax.set_title(architecture(name))
        if column == 0:
            ax.set_ylabel(words[metric])
    legend_below(figure, axes)
    return figure


def serving_units(table: pd.DataFrame) -> Figure:
    """Share of units that some decision needs, by what they detect, for S and R.

    Above: decisions by shape; below: by texture. Numbers are units; 95 % intervals over units.

    Args:
        table: From `measures.cue_units`.
    """
    names = list(dict.fromkeys(table["architecture"]))
    shown = [d for d in (*DETECTS, NONE) if d in set(table["detects"])]
    figure, axes = canvas(2, len(names), panel=(3.0, 2.2), sharex=True, sharey=True)
    for (row, cue), (column, name) in itertools.product(
        enumerate(("shape", "texture")), enumerate(names)
    ):
        ax = axes[row, column]
        own = table[(table["architecture"] == name) & (table["metric"] == f"serves_{cue}")]
        for regime, offset in OFFSETS.items():
            mine = own[own["regime"] == regime].set_index("detects").reindex(shown)
            at = np.arange(len(shown)) + 1.5 * offset
            interval_points(ax, at, mine, kind=regime, label=REGIMES[regime])
            for x, (_, unit) in zip(at, mine.iterrows(), strict=True):
                if not np.isnan(unit["value"]):
                    ax.annotate(f"{int(unit['n'])}", (x, 1.06), ha="center", size="xx-small",
                                color=PALETTE[regime])  # fmt: skip
        ax.set(ylim=(-0.03, 1.15), xlim=(-0.5, len(shown) - 0.5))
        ax.set_xticks(range(len(shown)), shown, rotation=20, size="small")
        if row == 0:
            ax.set_title(architecture(name))
        if column == 0:
            ax.set_ylabel(f"units serving {cue}")
    legend_below(figure, axes)
    return figure


# -- --------------------------------------------------------------------------------------------
# Figures of chapter 7: where in the image S and R take a decision from.


METHOD_OFFSETS = {"standard": -0.1, "robust": 0.1}


def attribution_regions(table: pd.DataFrame) -> Figure:
    """Concentration of attribution inside the object, on its contour and outside; a row a method.

    1 is what an even map has. Means with 95 % intervals over shape images.

    Args:
        table: From `measures.attribution`; without rows, a note takes the place of the panels.
    """
    if table.empty:
        return _note("no masks of the objects, so no regions")
    names, methods = (list(dict.fromkeys(table[column])) for column in ("architecture", "method"))
    figure, axes = canvas(len(methods), len(names), panel=(2.8, 1.9), sharex=True, sharey=True)
    for (row, method), (column, name) in itertools.product(enumerate(methods), enumerate(names)):
        ax = axes[row, column]
        own = table[
            (table["architecture"] == name)
            & (table["method"] == method)
            & (table["metric"] == "concentration")
        ]
        for regime, offset in METHOD_OFFSETS.items():
            mine = own[own["regime"] == regime].set_index("region").reindex(REGIONS)
            interval_points(ax, np.arange(3) + offset, mine, kind=regime, label=REGIMES[regime])
        ax.axhline(1, color="#999999", ls=":", lw=1.2, label="even over the image")
        ax.set_xticks(range(3), REGIONS)
        ax.set_xlim(-0.5, 2.5)
        if row == 0:
            ax.set_title(architecture(name))
        if column == 0:
            ax.set_ylabel(method.replace(" ", "\n", 1))
    legend_below(figure, axes)
    return figure


def attribution_maps(explained: Explained | None) -> Figure:
    """Stimuli with the outline of their object, and where S and R take their decision from.

    Black is no attribution; white is what the strongest hundredth of a map's pixels have, so that
    each map has its own scale.

    Args:
        explained: From `measures.attribution_examples`; None leaves a note.
    """
    if explained is None:
        return _note("no masks of the objects, so no outlines")
    rows = ["stimulus", *explained.maps]
    figure, axes = canvas(len(rows), len(explained.pixels), panel=(1.3, 1.45))
    for line, kind in zip(axes, rows, strict=True):
        for i, ax in enumerate(line):
            if kind == "stimulus":
                picture(ax, np.moveaxis(explained.pixels[i].numpy(), 0, -1), explained.titles[i])
            else:
                strong = explained.maps[kind][i].numpy()
                strong = strong / max(np.quantile(strong, 0.99), 1e-12)
                answer = explained.answers[kind][i]
                picture(ax, strong[..., None].repeat(3, 2), f"→ {answer}", PALETTE[kind])
            ax.contour(explained.masks[i].numpy(), levels=[0.5], colors="#E69F00", linewidths=0.7)
        line[0].set_ylabel(REGIMES.get(kind, kind), color=PALETTE.get(kind, "black"), size="small")
    return figure


def _note(words: str) -> Figure:
    """An empty figure that says why."""
    figure, axes = canvas(1, 1, panel=(4.6, 1.2))
    picture(axes[0, 0], None)
    axes[0, 0].texts[0].set_text(words)
    axes[0, 0].set_aspect("auto")
    return figure
