"""Figures of chapter 2: stimuli with decisions, shape bias by category and network."""

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robustbias import plotting
from robustbias.claims import matching
from robustbias.images import CueConflict
from robustbias.plotting import CUES, MARKERS, PAIR, PALETTE
from robustbias.shape_bias import published
from robustbias.shape_bias.measure import PAINTED
from robustbias.utils import REGIMES
from robustbias.utils import architecture as architecture_name


def stimuli_with_decisions(
    displays: dict[str, CueConflict],
    trials: pd.DataFrame,
    *,
    architecture: str,
    n: int = 8,
    show_images: bool = True,
) -> Figure:
    """Cue-conflict stimuli, evenly spaced in their set, and what S and R said they are.

    Args:
        displays: From `measure.displays`, or some of them; n stimuli of each.
        trials: From `measure.conflict_trials`.
        show_images: False shows the cues' names in place of the images.
    """
    responses = trials[(trials["architecture"] == architecture) & (trials["aggregation"] == "mean")]
    responses = responses[responses["pair"] & responses["regime"].isin(PAIR)]
    columns = min(n, 8)
    rows = -(-n // columns)
    figure, axes = plotting.canvas(rows * len(displays), columns, panel=(1.3, 2.05))
    for ax in axes.flat:
        ax.axis("off")
    blocks = np.split(axes, len(displays))
    for (label, stimuli), block in zip(displays.items(), blocks, strict=True):
        decisions = responses[responses["display"] == label]
        names = list(dict.fromkeys(decisions["stimulus"]))
        chosen = [names[i] for i in np.linspace(0, len(names) - 1, n).astype(int)]
        for ax, name in zip(block.flat, chosen, strict=False):
            ax.axis("on")
            pixels = plotting.channels_last(stimuli.pixels[stimuli.names.index(name)]) / 255
            plotting.picture(ax, pixels if show_images else None)
            _cues_and_answers(ax, decisions[decisions["stimulus"] == name])
        if len(displays) > 1:
            block.flat[0].set_ylabel(label)
    return figure


def _cues_and_answers(ax: Axes, decisions: pd.DataFrame) -> None:
    """The two cues above a stimulus, the answers of S and R below it."""
    cues = decisions.iloc[0]
    ax.set_title(f"{cues['shape']} shape\n{cues['texture']} texture", size="x-small")
    for row in decisions.itertuples():
        text = f"{REGIMES[row.regime][0]}: {row.object_response}"
        look = {"ha": "center", "va": "top", "size": "small", "weight": "bold"}
        look |= {"color": CUES[row.decision], "transform": ax.transAxes}
        ax.text(0.5, -0.06 - 0.14 * PAIR.index(row.regime), text, **look)


def shape_bias_by_category(table: pd.DataFrame) -> Figure:
    """Shape bias by category of the shape: S and R, people, and the same network on ImageNet.

    One panel per architecture and display, of the last two; 95 % intervals over shape images.

    Args:
        table: From `measure.shape_bias`.
    """
    rows = table[
        (table["condition"] == "cue-conflict")
        & (table["aggregation"] == "mean")
        & (table["metric"] == "shape_bias")
        & (table["scope"] == "category")
        & table["pair"]
    ]
    categories = sorted(rows["category"].unique(), reverse=True)
    others = _published(categories, "shape_bias")
    displays, names = (list(dict.fromkeys(rows[c])) for c in ("display", "architecture"))
    cells = list(itertools.product(displays[-2:], names))
    panel = (2.9, 0.24 * len(categories) + 0.7)
    grid = (len(cells) // len(names), len(names)) if len(names) > 1 else (1, len(cells))
    figure, axes = plotting.canvas(*grid, panel=panel, sharex=True, sharey=True)
    for ax, (display, name) in zip(axes.flat, cells, strict=True):
        group = rows[(rows["display"] == display) & (rows["architecture"] == name)]
        plotting.regime_points(
            ax, group, "category", categories, plotting.offsets(PAIR, -0.28), sideways=True
        )
        if display != PAINTED:  # people and ImageNet networks have not seen those
            for kind, observer, label in (
                ("human", "human", "humans"),
                ("published", name, "same network, ImageNet"),
            ):
                values = others[others["architecture"] == observer].set_index("category")["value"]
                look = {"marker": MARKERS[kind], "color": PALETTE[kind], "s": 18, "alpha": 0.8}
                at = np.arange(len(categories))
                ax.scatter(values.reindex(categories), at, label=label, **look)
        ax.set(xlim=(-0.03, 1.03), xticks=(0, 0.5, 1))
        ax.set_yticks(range(len(categories)), categories)
        ax.set_title(architecture_name(name) + (f", {display}" if len(displays) > 1 else ""))
    for ax in axes[-1]:
        ax.set_xlabel("← texture    shape bias    shape →")
    plotting.legend_below(figure)
    return figure


def shape_bias_summary(table: pd.DataFrame) -> Figure:
    """Shape bias with intervals and, below it, the coverage without which it means little.

    One column of panels per display. Grey bars are the nulls: the same answers permuted over
    stimuli (middle 95 %). Triangles and the green line are published results.

    Args:
        table: From `measure.shape_bias`.
    """
    displays = list(dict.fromkeys(table["display"]))
    names = list(dict.fromkeys(table.loc[table["pair"], "architecture"]))
    ticks = np.arange(len(names))
    categories = table.loc[table["scope"] == "category", "category"].unique()
    panel = (max(2.2, 5.6 / len(displays)), 2.3)
    figure, axes = plotting.canvas(2, len(displays), panel=panel, sharex=True, sharey="row")
    positions = plotting.offsets((*PAIR, "untrained"), 0.22)
    for (row, metric), (column, display) in itertools.product(
        enumerate(("shape_bias", "coverage")), enumerate(displays)
    ):
        ax = axes[row, column]
        group = table[
            (table["display"] == display)
            & (table["metric"] == metric)
            & (table["scope"] == "network")
            & (table["aggregation"] == "mean")
            & (table["pair"] | (table["regime"] == "untrained"))
        ]
        measured = group[group["condition"] == "cue-conflict"]
        plotting.regime_points(ax, measured, "architecture", names, positions)
        for null in group[(group["condition"] == "shuffled") & group["pair"]].itertuples():
            x = names.index(null.architecture) + positions[null.regime]
            look = {"color": "#cccccc", "lw": 9, "zorder": 0, "label": "shuffled"}
            ax.vlines(x, null.low, null.high, **look)
        if display != PAINTED:  # people and ImageNet networks have not seen those
            others = _published(categories, metric, "model").set_index("architecture")["value"]
            look = {"marker": MARKERS["published"], "color": PALETTE["published"], "s": 22}
            values = others.reindex(names)
            ax.scatter(ticks - 0.36, values, label="same network, ImageNet", **look)
            ax.axhline(others["human"], color=PALETTE["human"], ls="--", lw=1.2, label="humans")
        ax.set(ylim=(-0.02, 1.02), xlim=(-0.6, len(names) - 0.4))
        turned = {"rotation": 30, "ha": "right"} if len(displays) > 3 else {}
        ax.set_xticks(ticks, [architecture_name(name) for name in names], size="small", **turned)
        if row == 0:
            for paper in published.results("shape_bias", architecture="all").itertuples():
                label = f"{paper.regime[0].upper()}, paper"
                ax.axhline(paper.value, color=PALETTE[paper.regime], ls=":", lw=1.2, label=label)
            ax.set_title(display if len(displays) > 1 else "")
    axes[0, 0].set_ylabel("shape bias")
    axes[1, 0].set_ylabel("coverage")
    plotting.legend_below(figure)
    return figure


def _published(categories, metric: str, scope: str = "category") -> pd.DataFrame:
    """Published shape bias or coverage on these categories, one by one or over all ("model")."""
    return matching(published.cue_conflict(tuple(categories)), metric=metric, scope=scope)


def dose_response(
    table: pd.DataFrame, *, architecture: str, networks: Sequence[str], side: int
) -> Figure:
    """Shape bias and coverage against the training radius, with ResNet-50 on ImageNet.

    Radii are scaled to 224 x 224 images (eps * 224 / side), so that the mean change per pixel is
    the same; the axis is linear up to 0.5 and logarithmic beyond.

    Args:
        table: From `measure.shape_bias`.
        architecture: The one trained at several radii.
        networks: Those that differ in the radius alone.
        side: Side of its training images, in pixels.
    """
    group = table[
        table["network"].isin(networks)
        & (table["condition"] == "cue-conflict")
        & (table["aggregation"] == "mean")
        & (table["scope"] == "network")
    ].sort_values("eps")
    displays = list(dict.fromkeys(group["display"]))
    several = len(displays) > 1
    colours = sns.color_palette("flare", len(displays)) if several else [PALETTE["robust"]]
    figure, axes = plotting.canvas(1, 2, panel=(3.8, 3.1), sharex=True)
    for ax, metric in zip(axes[0], ("shape_bias", "coverage"), strict=True):
        for display, colour in zip(displays, colours, strict=True):
            series = group[(group["display"] == display) & (group["metric"] == metric)]
            label = f"{architecture_name(architecture)}, ours"
            label += f", {display}" if several else ""
            look = {"kind": "robust", "label": label, "ls": "-", "color": colour}
            plotting.interval_points(ax, series["eps"] * 224 / side, series, **look)
        ax.set(xlabel="training radius, scaled to 224 px", ylim=(-0.02, 1.02))
        ax.set_ylabel(metric.replace("_", " "))
        ax.set_xscale("symlog", linthresh=0.5)
        ax.set_xticks([0, 0.25, 0.5, 1, 2, 4, 8], ["0", ".25", ".5", "1", "2", "4", "8"])
        ax.minorticks_off()
    reference = published.results("shape_bias", norm="l2", architecture="resnet50")
    reference = reference.sort_values("eps")
    axes[0, 0].plot(
        reference["eps"],
        reference["value"],
        "--",
        marker=MARKERS["published"],
        ms=5,
        color=PALETTE["published"],
        label="ResNet-50, ImageNet (published)",
    )
    plotting.legend_below(figure)
    return figure
