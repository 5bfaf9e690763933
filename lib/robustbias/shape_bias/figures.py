"""Figures of chapter 2: stimuli with decisions, shape bias by category and network."""

import itertools

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robustbias.images import CueConflict
from robustbias.plotting import MARKERS, PALETTE, canvas, interval_points, legend_below, picture
from robustbias.shape_bias import published
from robustbias.shape_bias.trials import PAINTED
from robustbias.utils import ARCHITECTURES, REGIMES, architecture

CUE_COLOURS = {"shape": "#D55E00", "texture": "#0072B2", "neither": "#777777"}


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
        displays: From `measures.displays`, or some of them; n stimuli of each.
        trials: From `measures.conflict_trials`.
        show_images: False shows the cues' names in place of the images.
    """
    own = trials[(trials["architecture"] == architecture) & (trials["aggregation"] == "mean")]
    own = own[own["pair"] & own["regime"].isin(["standard", "robust"])]
    columns = min(n, 8)
    rows = -(-n // columns)
    figure, axes = canvas(rows * len(displays), columns, panel=(1.3, 2.05))
    for ax in axes.flat:
        ax.axis("off")
    for (label, stimuli), block in zip(
        displays.items(), np.split(axes, len(displays)), strict=True
    ):
        shown = own[own["display"] == label]
        answers = {regime: rows.set_index("stimulus") for regime, rows in shown.groupby("regime")}
        names = list(dict.fromkeys(shown["stimulus"]))
        chosen = [names[i] for i in np.linspace(0, len(names) - 1, n).astype(int)]
        for ax, name in zip(block.flat, chosen, strict=False):
            ax.axis("on")
            pixels = stimuli.pixels[stimuli.names.index(name)].cpu().numpy()
            picture(ax, np.moveaxis(pixels, 0, -1) / 255 if show_images else None)
            _called(ax, {regime: rows.loc[name] for regime, rows in answers.items()})
        if len(displays) > 1:
            block.flat[0].set_ylabel(label)
    return figure


def _called(ax: Axes, answers: dict[str, pd.Series]) -> None:
    """The two cues above a stimulus, the answers of S and R below it."""
    cues = next(iter(answers.values()))
    ax.set_title(f"{cues['shape']} shape\n{cues['texture']} texture", size="x-small")
    for line, (letter, regime) in enumerate((("S", "standard"), ("R", "robust"))):
        if regime in answers:
            ax.text(
                0.5,
                -0.06 - 0.14 * line,
                f"{letter}: {answers[regime]['object_response']}",
                color=CUE_COLOURS[answers[regime]["decision"]],
                transform=ax.transAxes,
                ha="center",
                va="top",
                size="small",
                weight="bold",
            )


def shape_bias_by_category(table: pd.DataFrame) -> Figure:
    """Shape bias by category of the shape: S and R, people, and the same network on ImageNet.

    A panel an architecture and display, of the last two; 95 % intervals over shape images.

    Args:
        table: From `measures.shape_bias`.
    """
    shown = _pairs(table, metric="shape_bias")
    shown = shown[shown["category"] != "all"]
    categories = sorted(shown["category"].unique(), reverse=True)
    others = _published(categories, "shape_bias")
    displays, names = (list(dict.fromkeys(shown[c])) for c in ("display", "architecture"))
    cells = list(itertools.product(displays[-2:], names))
    panel = (2.9, 0.24 * len(categories) + 0.7)
    grid = (len(cells) // len(names), len(names)) if len(names) > 1 else (1, len(cells))
    figure, axes = canvas(*grid, panel=panel, sharex=True, sharey=True)
    for ax, (display, name) in zip(axes.flat, cells, strict=True):
        own = shown[(shown["display"] == display) & (shown["architecture"] == name)]
        for offset, regime in ((0.14, "standard"), (-0.14, "robust")):
            values = own[own["regime"] == regime].set_index("category").reindex(categories)
            y = np.arange(len(categories)) + offset
            interval_points(ax, y, values, kind=regime, label=REGIMES[regime], sideways=True)
        elsewhere = (("human", "humans"), ("published", "same network, ImageNet"))
        for kind, label in elsewhere if display != PAINTED else ():
            wanted = "human" if kind == "human" else name
            values = others[others["architecture"] == wanted].set_index("category")["value"]
            ax.scatter(
                values.reindex(categories),
                np.arange(len(categories)),
                marker=MARKERS[kind],
                color=PALETTE[kind],
                s=18,
                alpha=0.8,
                label=label,
            )
        ax.set(
            xlim=(-0.03, 1.03),
            xticks=(0, 0.5, 1),
            yticks=range(len(categories)),
            yticklabels=categories,
        )
        ax.set_title(architecture(name) + (f", {display}" if len(displays) > 1 else ""))
    for ax in axes[-1]:
        ax.set_xlabel("← texture    shape bias    shape →")
    legend_below(figure, axes)
    return figure


def shape_bias_summary(table: pd.DataFrame) -> Figure:
    """Shape bias with intervals and, below it, the coverage without which it means little.

    A column of panels a display. Grey bars are the nulls: the same answers dealt to random
    stimuli (middle 95 %). Triangles and the green line are published results.

    Args:
        table: From `measures.shape_bias`.
    """
    displays = list(dict.fromkeys(table["display"]))
    names = list(dict.fromkeys(table.loc[table["pair"], "architecture"]))
    categories = table.loc[table["category"] != "all", "category"].unique()
    panel = (max(2.2, 5.6 / len(displays)), 2.3)
    figure, axes = canvas(2, len(displays), panel=panel, sharex=True, sharey="row")
    for (row, metric), (column, display) in itertools.product(
        enumerate(("shape_bias", "coverage")), enumerate(displays)
    ):
        ax = axes[row, column]
        own = table[
            (table["display"] == display)
            & (table["metric"] == metric)
            & (table["category"] == "all")
            & (table["aggregation"] == "mean")
        ]
        measured = own[own["condition"] == "cue-conflict"]
        dealt = own[(own["condition"] == "shuffled") & own["pair"]]
        for offset, regime in ((-0.22, "standard"), (0.0, "robust"), (0.22, "untrained")):
            mine = measured[measured["regime"] == regime]
            mine = mine[mine["pair"] | (regime == "untrained")].set_index("architecture")
            null = dealt[dealt["regime"] == regime].set_index("architecture").reindex(names)
            x = np.arange(len(names)) + offset
            interval_points(ax, x, mine.reindex(names), kind=regime, label=REGIMES[regime], ls="")
            ax.vlines(
                x, null["low"], null["high"], color="#cccccc", lw=9, zorder=0, label="shuffled"
            )
        if display != PAINTED:  # nobody else has seen those
            others = _published(categories, metric, "all").set_index("architecture")["value"]
            ax.scatter(
                np.arange(len(names)) - 0.36,
                others.reindex(names),
                marker=MARKERS["published"],
                color=PALETTE["published"],
                s=22,
                label="same network, ImageNet",
            )
            ax.axhline(others["human"], color=PALETTE["human"], ls="--", lw=1.2, label="humans")
        ax.set(ylim=(-0.02, 1.02), xticks=range(len(names)), xlim=(-0.6, len(names) - 0.4))
        turned = {"rotation": 30, "ha": "right"} if len(displays) > 3 else {}
        ax.set_xticklabels([architecture(name) for name in names], size="small", **turned)
        if row == 0:
            for paper in published.results("shape_bias", architecture="all").itertuples():
                label = f"{paper.regime[0].upper()}, paper"
                ax.axhline(paper.value, color=PALETTE[paper.regime], ls=":", lw=1.2, label=label)
            ax.set_title(display if len(displays) > 1 else "")
    axes[0, 0].set_ylabel("shape bias")
    axes[1, 0].set_ylabel("coverage")
    legend_below(figure, axes)
    return figure


def _pairs(table: pd.DataFrame, **values: object) -> pd.DataFrame:
    """Measured rows, by mean probability, of the networks that form pairs."""
    wanted = {"condition": "cue-conflict", "aggregation": "mean", "pair": True, **values}
    for column, value in wanted.items():
        table = table[table[column] == value]
    return table


def _published(categories, metric: str, category: str | None = None) -> pd.DataFrame:
    """Published shape bias or coverage on these categories, over all or one by one."""
    table = published.cue_conflict(tuple(categories))
    one_by_one = table["category"] != "all"
    return table[(table["metric"] == metric) & (one_by_one if category is None else ~one_by_one)]


# -- --------------------------------------------------------------------------------------------
# Figure of chapter 2: shape bias against the training radius.


def dose_response(table: pd.DataFrame, *, architecture: str, side: int) -> Figure:
    """Shape bias and coverage against the training radius, beside ResNet-50 on ImageNet.

    Radii are scaled to 224 x 224 images (eps * 224 / side), so that the mean change per pixel is
    the same; the axis is linear up to 0.5 and logarithmic beyond.

    Args:
        table: From `measures.shape_bias`.
        architecture: The one trained at several radii.
        side: Side of its training images, in pixels.
    """
    own = table[
        (table["architecture"] == architecture)
        & table["regime"].isin(["standard", "robust"])
        & (table["condition"] == "cue-conflict")
        & (table["aggregation"] == "mean")
        & (table["category"] == "all")
    ].sort_values("eps")
    displays = list(dict.fromkeys(own["display"]))
    several = len(displays) > 1
    colours = sns.color_palette("flare", len(displays)) if several else [PALETTE["robust"]]
    figure, axes = canvas(1, 2, panel=(3.8, 3.1), sharex=True)
    for ax, metric in zip(axes[0], ("shape_bias", "coverage"), strict=True):
        for display, colour in zip(displays, colours, strict=True):
            series = own[(own["display"] == display) & (own["metric"] == metric)]
            label = f"{ARCHITECTURES.get(architecture, architecture)}, ours"
            label += f", {display}" if several else ""
            x = series["eps"] * 224 / side
            style = {"ls": "-", "color": colour, "label": label}
            interval_points(ax, x, series, kind="robust", **style)
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
    legend_below(figure, axes)
    return figure
