"""Figures of chapter 2: stimuli with decisions, shape bias by category and network."""

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robustbias import plotting
from robustbias.claims import matching
from robustbias.manifest import NetworkEntry
from robustbias.plotting import CUES, MARKERS, PAIR, PALETTE
from robustbias.shape_bias import published
from robustbias.shape_bias.measure import COLLAGE, DRAWN, STIMULI, STYLIZED, Display
from robustbias.stats import common_name
from robustbias.utils import REGIMES
from robustbias.utils import architecture as architecture_name


def one_of_each_kind(table: pd.DataFrame) -> list[str]:
    """Displays, one of each kind and painter, the primary one first, else that of middle level."""
    levels = table[["kind", "painter", "display", "level", "decides"]].dropna().drop_duplicates()
    chosen = []
    for _, group in levels.groupby(["kind", "painter"], sort=False):
        deciding, ordered = group[group["decides"]], group.sort_values("level")
        chosen.append(ordered.iloc[(len(group) - 1) // 2] if deciding.empty else deciding.iloc[0])
    return [row["display"] for row in sorted(chosen, key=lambda row: not row["decides"])]


def stimuli_with_decisions(
    displays: dict[str, Display],
    trials: pd.DataFrame,
    *,
    architecture: str,
    n: int = 8,
    show_images: bool = True,
) -> Figure | None:
    """Cue-conflict stimuli, evenly spaced in their set, and what the first S and R say they are.

    None where images must not be shown: without them a decision cannot be judged by eye.

    Args:
        displays: From `measure.displays`; n stimuli of one display of each kind.
        trials: From `measure.conflict_trials`.
        show_images: False where a licence forbids it.
    """
    if not show_images:
        return None
    answers = trials[(trials["architecture"] == architecture) & (trials["aggregation"] == "mean")]
    answers = answers[answers["pair"] & answers["regime"].isin(PAIR)]
    answers = answers[answers["replicate"] == answers["replicate"].min()]
    labels = one_of_each_kind(answers)
    columns = min(n, 8)
    rows = -(-n // columns)
    figure, axes = plotting.canvas(rows * len(labels), columns, panel=(1.3, 1.5))
    for ax in axes.flat:
        ax.axis("off")
    for label, block in zip(labels, np.split(axes, len(labels)), strict=True):
        stimuli, decisions = displays[label].stimuli, answers[answers["display"] == label]
        names = list(dict.fromkeys(decisions["stimulus"]))
        chosen = [names[i] for i in np.linspace(0, len(names) - 1, n).astype(int)]
        for ax, name in zip(block.flat, chosen, strict=False):
            ax.axis("on")
            pixels = plotting.channels_last(stimuli.pixels[stimuli.names.index(name)]) / 255
            plotting.picture(ax, pixels)
            _cues_and_answers(ax, decisions[decisions["stimulus"] == name])
        if len(labels) > 1:
            block.flat[0].set_ylabel(label.replace(", ", ",\n"))
    return figure


def _cues_and_answers(ax: Axes, decisions: pd.DataFrame) -> None:
    """The two cues above a stimulus, the answers of S and R below it."""
    cues = decisions.iloc[0]
    ax.set_title(f"{cues['shape']} shape\n{cues['texture']} texture", size="x-small")
    for row in decisions.itertuples():
        text = f"{REGIMES[row.regime][0]}: {row.object_response}"
        look = {"ha": "center", "va": "top", "size": "small", "weight": "bold"}
        look |= {"color": CUES[row.decision], "transform": ax.transAxes}
        ax.text(0.5, -0.06 - 0.2 * PAIR.index(row.regime), text, **look)


def shape_bias_by_category(table: pd.DataFrame) -> Figure:
    """Shape bias by category of the shape, S and R, without intervals; one panel per architecture.

    Where people and ImageNet networks have seen the primary display, theirs too.

    Args:
        table: From `measure.shape_bias`.
    """
    rows = table[(table["metric"] == "shape_bias") & (table["scope"] == "category")]
    rows = plotting.per_architecture(rows[rows["pair"]])
    rows = rows[rows["display"] == rows["display"].iloc[0]].assign(
        low=lambda rows: rows["value"], high=lambda rows: rows["value"]
    )
    categories = sorted(rows["category"].unique(), reverse=True)
    others = _published(categories, "shape_bias")
    panel = (2.9, 0.24 * len(categories) + 0.7)
    figure, panels = plotting.architecture_panels(rows, panel=panel, sharex=True, sharey=True)
    for group, (ax,) in panels:
        at = plotting.offsets(PAIR, -0.28)
        plotting.regime_points(ax, group, "category", categories, at, sideways=True, capsize=0)
        for kind, observer, label in (
            ("human", "human", "humans"),
            ("published", group["architecture"].iloc[0], "same network, ImageNet"),
        ):
            if group["kind"].iloc[0] == STIMULI:
                values = others[others["architecture"] == observer].set_index("category")["value"]
                look = {"marker": MARKERS[kind], "color": PALETTE[kind], "s": 18, "alpha": 0.8}
                places = np.arange(len(categories))
                ax.scatter(values.reindex(categories), places, label=label, **look)
        ax.set(xlim=(-0.03, 1.03), xticks=(0, 0.5, 1))
        ax.set_yticks(range(len(categories)), categories)
        ax.set_xlabel("← texture    shape bias    shape →")
    plotting.legend_below(figure)
    return figure.described(
        "Shape bias by category of the shape, one panel per architecture. Categories in which R is "
        f"higher than S: {plotting.higher_in(rows, 'category')}."
    )


LEVELS = {
    DRAWN: "side, pixels",
    STIMULI: "side, pixels",
    STYLIZED: "weight of style",
    COLLAGE: "scale of texture",
}


def display_curves(table: pd.DataFrame, metric: str = "shape_bias") -> Figure | None:
    """A metric of S and R against the level of each kind of display, with 95 % intervals.

    One column of panels per architecture, one row per kind and painter of several levels; None
    where no kind has several. The vertical line marks the primary display.

    Args:
        table: From `measure.shape_bias`.
        metric: shape_bias, or another one of `measure.METRICS`.
    """
    rows = table[(table["condition"] == "cue-conflict") & (table["scope"] == "network")]
    rows = rows[(rows["metric"] == metric) & (rows["aggregation"] == "mean") & rows["pair"]]
    rows = plotting.per_architecture(rows)
    kinds = rows.groupby(["kind", "painter"], sort=False)["level"].nunique()
    kinds = [kind for kind, levels in kinds.items() if levels > 1]
    if not kinds:
        return None
    labels = [f"{kind} by a\n{painter} painter" if painter else kind for kind, painter in kinds]
    figure, panels = plotting.architecture_panels(
        rows, labels, panel=(2.4, 2.0), sharex="row", sharey=True
    )
    for group, axes in panels:
        for (kind, painter), ax in zip(kinds, axes, strict=True):
            curves = group[(group["kind"] == kind) & (group["painter"] == painter)]
            for regime in PAIR:
                curve = curves[curves["regime"] == regime].sort_values("level")
                look = {"kind": regime, "label": REGIMES[regime], "ls": "-"}
                plotting.interval_points(ax, curve["level"], curve, **look)
            for level in curves.loc[curves["decides"], "level"].unique():
                ax.axvline(level, color="#bbbbbb", lw=0.8, zorder=0)
            levels = sorted(curves["level"].unique())
            ax.set_xscale("log")
            ax.set_xticks(levels, [f"{level:g}" for level in levels])
            ax.minorticks_off()
            ax.set(xlabel=LEVELS[kind], ylim=(-0.02, 1.02 if metric == "shape_bias" else None))
    plotting.legend_below(figure)
    return figure


def contrast_sweep(table: pd.DataFrame) -> Figure | None:
    """Shape bias of S and R (left), and both cues' shares of R's answers, against the contrasts.

    Args:
        table: From `measure.contrast_sweep`; an empty one gives no figure.
    """
    if table.empty:
        return None
    figure, axes = plotting.canvas(1, 2, panel=(3.4, 2.8), sharex=True, sharey=True)
    for _, series in table.sort_values("ratio").groupby("replicate"):  # a line per training
        for regime in PAIR:
            curve = series[(series["regime"] == regime) & (series["metric"] == "shape_bias")]
            look = {"kind": regime, "label": REGIMES[regime], "ls": "-"}
            plotting.interval_points(axes[0, 0], curve["ratio"], curve, **look)
        for cue in ("shape", "texture"):
            curve = series[(series["regime"] == "robust") & (series["metric"] == cue)]
            look = {"kind": "robust", "label": f"R, by {cue}", "ls": "-", "color": CUES[cue]}
            look |= {"fmt": MARKERS["human" if cue == "shape" else "published"]}
            plotting.interval_points(axes[0, 1], curve["ratio"], curve, **look)
    axes[0, 0].axhline(0.5, color="#bbbbbb", lw=0.8, zorder=0)
    for ax, label in zip(axes[0], ("shape bias", "share of R's answers"), strict=True):
        ax.set(xlabel="texture contrast / shape contrast", ylabel=label, ylim=(-0.02, 1.02))
    plotting.legend_below(figure)
    return figure


def shape_bias_summary(table: pd.DataFrame) -> Figure:
    """Shape bias with intervals and, below it, the coverage without which it means little.

    One column of panels per display. Grey bars are the nulls: the same answers permuted over
    stimuli (middle 95 %). Triangles and the green line are published results.

    Args:
        table: From `measure.shape_bias`.
    """
    displays = one_of_each_kind(table)
    names = [n for n in dict.fromkeys(table.loc[table["pair"], "architecture"]) if pd.notna(n)]
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
        answers = group[(group["condition"] == "cue-conflict") & group["architecture"].notna()]
        at = answers["architecture"].map(names.index) + answers["regime"].map(positions)
        for regime in PAIR:
            plotting.trainings(ax, answers, at + 0.07, regime)
        group = plotting.per_architecture(group)
        measured = group[group["condition"] == "cue-conflict"]
        plotting.regime_points(ax, measured, "architecture", names, positions)
        for null in group[(group["condition"] == "shuffled") & group["pair"]].itertuples():
            x = names.index(null.architecture) + positions[null.regime]
            look = {"color": "#cccccc", "lw": 9, "zorder": 0, "label": "shuffled"}
            ax.vlines(x, null.low, null.high, **look)
        if STIMULI in set(group["kind"]):  # all that people and ImageNet networks have seen
            others = _published(categories, metric, "model").set_index("architecture")["value"]
            look = {"marker": MARKERS["published"], "color": PALETTE["published"], "s": 22}
            values = others.reindex(names)
            ax.scatter(ticks - 0.36, values, label="same network, ImageNet", **look)
            ax.axhline(others["human"], color=PALETTE["human"], ls="--", lw=1.2, label="humans")
        ax.set(ylim=(-0.02, 1.02), xlim=(-0.6, len(names) - 0.4))
        turned = {"rotation": 30, "ha": "right"} if len(displays) > 1 else {}
        ax.set_xticks(ticks, [architecture_name(name) for name in names], size="small", **turned)
        if row == 0:
            for paper in published.results("shape_bias", architecture="all").itertuples():
                label = f"{paper.regime[0].upper()}, paper"
                ax.axhline(paper.value, color=PALETTE[paper.regime], ls=":", lw=1.2, label=label)
            primary = "\n(primary)" if group["decides"].any() else ""
            ax.set_title(display.replace(", ", ",\n") + primary if len(displays) > 1 else "")
    axes[0, 0].set_ylabel("shape bias")
    axes[1, 0].set_ylabel("coverage")
    plotting.legend_below(figure)
    first = table[(table["display"] == displays[0]) & (table["condition"] == "cue-conflict")]
    first = plotting.per_architecture(first[first["pair"] & (first["aggregation"] == "mean")])
    first = matching(first, metric="shape_bias", scope="network", regime=PAIR)
    words = [
        f"{architecture_name(row.architecture)} {REGIMES[row.regime][0]} {row.value:.2f}"
        for row in first.itertuples()
    ]
    return figure.described(
        "Shape bias and coverage of S, R and untrained networks of each architecture, with those "
        f"of nulls and published values. Shape bias ({displays[0]}): {', '.join(words)}."
    )


def _published(categories, metric: str, scope: str = "category") -> pd.DataFrame:
    """Published shape bias or coverage on these categories, one by one or over all ("model")."""
    return matching(published.cue_conflict(tuple(categories)), metric=metric, scope=scope)


def dose_response(table: pd.DataFrame, entries: Sequence[NetworkEntry]) -> Figure:
    """Shape bias and coverage against the training radius, with ResNet-50 on ImageNet.

    Radii are scaled to 224 x 224 images (eps * 224 / side), so that the mean change per pixel is
    the same; the axis is linear up to 0.5 and logarithmic beyond.

    Args:
        table: From `measure.shape_bias`.
        entries: The networks, of one architecture, that differ in the radius alone; means over
            replicates stand for those that have some.
    """
    names = {name for e in entries for name in (e.name, common_name([e.name, e.name]))}
    group = table[
        table["network"].isin(names)
        & (table["condition"] == "cue-conflict")
        & (table["aggregation"] == "mean")
        & (table["scope"] == "network")
    ]
    group = plotting.per_architecture(group).sort_values("eps")
    displays = one_of_each_kind(group)
    several = len(displays) > 1
    colours = itertools.cycle(plotting.SEVERAL if several else [PALETTE["robust"]])
    looks = list(zip(displays, colours, itertools.cycle("sDo^"), strict=False))
    figure, axes = plotting.canvas(1, 2, panel=(3.8, 3.1), sharex=True)
    for ax, metric in zip(axes[0], ("shape_bias", "coverage"), strict=True):
        for display, colour, mark in looks:
            series = group[(group["display"] == display) & (group["metric"] == metric)]
            label = f"{architecture_name(entries[0].architecture)}, ours"
            label += f", {display}" if several else ""
            look = {"kind": "robust", "label": label, "ls": "-", "color": colour, "fmt": mark}
            plotting.interval_points(ax, series["eps"] * 224 / entries[0].size, series, **look)
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
    plotting.legend_below(figure, 2)
    ends = [
        f"the published one {reference['value'].iloc[0]:.2f} to {reference['value'].iloc[-1]:.2f}"
    ]
    for display in displays:
        series = group[(group["display"] == display) & (group["metric"] == "shape_bias")]["value"]
        ends.append(f"ours, {display}, {series.iloc[0]:.2f} to {series.iloc[-1]:.2f}")
    return figure.described(
        "Shape bias and coverage against the training radius. Shape bias from the smallest radius "
        f"to the largest: {'; '.join(ends)}."
    )
