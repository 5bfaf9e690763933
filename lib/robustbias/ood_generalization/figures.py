"""Figures of chapter 3: what distortions look like, accuracy under them, corruptions in a map."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Tensor

from robustbias import plotting
from robustbias.claims import SHORT, Verdicts
from robustbias.images.corruptions.constants import NAMES, SEVERITIES
from robustbias.images.distortions import removed
from robustbias.ood_generalization.corruption_error import READINGS
from robustbias.plotting import PAIR, PALETTE
from robustbias.shape_bias import published
from robustbias.utils import architecture

WORDS = {
    "": "absolute",
    "_relative": "relative to clean",
    "_conditional": "both correct when clean",
}
# orange where R is ahead, blue where S is, as in every figure
AHEAD = LinearSegmentedColormap.from_list(
    "ahead", [PALETTE["standard"], "#ffffff", PALETTE["robust"]]
)


def distortion_examples(examples: dict[str, Float[Tensor, "n 3 h w"]]) -> Figure:
    """The same images clean and under every distortion, with what each takes away.

    Args:
        examples: From `images.distortions.examples`.
    """
    columns = 3
    figure, axes = plotting.canvas(-(-len(examples) // columns), columns, panel=(2.3, 1.0))
    for ax in axes.flat:
        ax.axis("off")
    for ax, (name, images) in zip(axes.flat, examples.items(), strict=False):
        lost = removed(name)
        words = "" if lost.startswith("nothing") or not lost else f"\n– {lost}"
        plotting.picture(
            ax, np.concatenate(list(plotting.channels_last(images)), axis=1), name + words
        )
    return figure


def effects(judged: Verdicts) -> Figure:
    """R minus S of every statement: over architectures with the 95 % interval, and per pair.

    Accuracy above, mCE below. The grey band holds effects below the smallest effect of interest.

    Args:
        judged: Statements C2 and C2c, from `claims.tested`.
    """
    tested = [claim for claim in judged if claim.primary and not claim.untestable]
    parts = [[c for c in tested if c.superiority == side] for side in (True, False)]
    parts = [part for part in parts if part]
    heights = [len(part) + 0.6 for part in parts]
    figure, axes = plotting.canvas(
        len(parts), 1, panel=(plotting.WIDTH, 0.6 + 0.26 * sum(heights) / len(parts)),
        height_ratios=heights,
    )  # fmt: skip
    names = list(dict.fromkeys(c.architecture for c in judged if c.architecture))
    for ax, part in zip(axes[:, 0], parts, strict=True):
        ax.axvspan(-part[0].smallest, part[0].smallest, color="#e9e9e9", zorder=0)
        ax.axvline(0, color="#777777", lw=1, zorder=0)
        for y, claim in enumerate(part):
            interval = claim.interval
            ax.plot([interval.low, interval.high], [y, y], color="black", lw=1.5)
            ax.plot(interval.value, y, "D", color="black", ms=5, label="all architectures")
            pairs = [c for c in judged if c.id == claim.id and c.condition == claim.condition]
            for other in pairs:
                if other.architecture and not (other.primary or other.replicate):
                    mark = "os^vP"[names.index(other.architecture) % 5]
                    look = {"color": "#888888", "ms": 5, "mfc": "white", "ls": ""}
                    look["label"] = architecture(other.architecture)
                    ax.plot(other.interval.value, y, mark, **look)
            place = {"transform": ax.get_yaxis_transform(), "va": "center", "size": "small"}
            ax.text(1.02, y, claim.verdict, **place)
        ax.set_yticks(range(len(part)), [SHORT[claim.id] for claim in part])
        ax.set(ylim=(len(part) - 0.5, -0.5))
        superior = part[0].superiority
        ax.set_xlabel(
            "← S better    accuracy, R minus S    R better →" if superior else
            "← R better    mCE, R minus S    S better →"
        )  # fmt: skip
        ax.grid(axis="y", visible=False)
    plotting.legend_below(figure)
    return figure


def accuracy_by_distortion(table: pd.DataFrame) -> Figure:
    """Accuracy of S and R under every distortion (absolute), one panel per architecture.

    Each condition in the reading that its statement uses (`judged`). Dotted lines: the same
    networks on clean images, in that reading.

    Args:
        table: From `measure.ood`.
    """
    rows = judged(plotting.per_architecture(table[table["group"].isin(["clean", "distortion"])]))
    order = conditions(rows)[::-1]
    panel = (2.5, 0.24 * len(order) + 0.9)
    figure, panels = plotting.architecture_panels(rows, panel=panel, sharey=True)
    for group, (ax,) in panels:
        clean = group[group["condition"] == "clean"].groupby("regime")["value"].mean()
        for regime, offset in plotting.offsets(PAIR, -0.3).items():
            if regime in clean:
                ax.axvline(clean[regime], color=PALETTE[regime], ls=":", lw=1)
            plotting.regime_points(ax, group, "condition", order, {regime: offset}, sideways=True)
        ax.set(xlim=(-0.03, 1.03), xticks=(0, 0.5, 1), xlabel="accuracy")
        _condition_axis(ax, order)
    plotting.legend_below(figure)
    distorted = rows[rows["condition"].isin(order)]
    return figure.described(
        "Accuracy of S and R under each distortion, one panel per architecture. Distortions under "
        f"which R is more accurate: {plotting.higher_in(distorted, 'condition')}."
    )


def distortion_readings(table: pd.DataFrame) -> Figure:
    """R minus S under every distortion, one panel per measure, one mark per architecture.

    Each condition in the reading that its statement uses (`judged`).

    Args:
        table: From `measure.ood`.
    """
    group = table[(table["regime"] == "robust - standard") & (table["group"] == "distortion")]
    group = plotting.per_architecture(group)
    order = conditions(group)[::-1]
    positions = plotting.offsets(list(dict.fromkeys(group["architecture"])), -0.22)
    figure, axes = plotting.canvas(
        1, 3, panel=(2.3, 0.24 * len(order) + 0.9), sharex=True, sharey=True
    )
    for ax, reading in zip(axes[0], READINGS, strict=True):
        differences = judged(group, f"{reading}_difference")
        for i, (name, offset) in enumerate(positions.items()):
            rows = differences[differences["architecture"] == name].set_index("condition")
            look = {"fmt": "osD^"[i % 4], "color": plotting.SEVERAL[i % 4], "ms": 4}
            look |= {"kind": "robust", "label": architecture(name), "sideways": True}
            plotting.interval_points(
                ax, np.arange(len(order)) + offset, rows.reindex(order), **look
            )
        ax.axvline(0, color="#777777", lw=1)
        ax.set_xlabel("← S   R minus S   R →")
        ax.set_title(WORDS[reading], size="small")
        _condition_axis(ax, order)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def suppression_profile(table: pd.DataFrame) -> Figure:
    """Accuracy of S and R that is kept when a cue is suppressed, one row of panels per sweep.

    One column per architecture; the last row has what has no strength, and pairs.

    Args:
        table: From `measure.suppression`.
    """
    rows = plotting.per_architecture(table[table["metric"] == "retained"])
    sweeps = list(dict.fromkeys(rows.loc[rows["level"] > 0, "method"]))
    single = list(dict.fromkeys(rows.loc[rows["level"] == 0, "method"]))
    figure, panels = plotting.architecture_panels(
        rows, [f"{name}\naccuracy kept" for name in (*sweeps, "other")],
        panel=(2.5, 1.8), sharex="row", sharey=True, label_size="small",
    )  # fmt: skip
    for group, axes in panels:
        for ax, method in zip(axes, sweeps, strict=False):
            curve = group[group["method"] == method]
            levels = sorted(curve["level"].unique())
            positions = plotting.offsets(PAIR, 0.1)
            plotting.regime_points(ax, curve, "level", levels, positions, ls="-")
            ax.set_xticks(range(len(levels)), [f"{level:g}" for level in levels])
        rest = group[group["level"] == 0]
        plotting.regime_points(axes[-1], rest, "method", single, plotting.offsets(PAIR, 0.2))
        axes[-1].set_xticks(range(len(single)), single, rotation=40, ha="right", size="x-small")
        axes[-1].set_ylim(bottom=0)
    plotting.legend_below(figure)
    return figure


def noise_channels(table: pd.DataFrame) -> Figure:
    """Sensitivity to noise by octave, S and R; last panel, shape bias against channel centre.

    Args:
        table: From `measure.noise_channels`.
    """
    rows = table[table["regime"].isin(PAIR)]
    bands = rows[(rows["metric"] == "sensitivity") & rows["pair"]]
    bands, rows = plotting.per_architecture(bands), rows[rows["mean_over"].isna()]
    names = list(dict.fromkeys(bands["architecture"]))
    figure, axes = plotting.canvas(1, len(names) + 1, panel=(2.5, 2.6))
    octaves = sorted(bands["octave"].unique())
    for ax, name in zip(axes[0], names, strict=False):
        group = bands[bands["architecture"] == name]
        plotting.regime_points(ax, group, "octave", octaves, plotting.offsets(PAIR, 0.1), ls="-")
        plotting.near_values(ax, group)
        ax.set_xticks(range(len(octaves)), [f"{2**octave:.2g}" for octave in octaves])
        ax.set(title=architecture(name), xlabel="cycles per image")
    axes[0, 0].set_ylabel("sensitivity to noise")
    wide = rows[rows["octave"].isna()].pivot(
        index=["network", "regime"], columns="metric", values="value"
    )
    for regime, group in wide.groupby("regime"):
        look = {"marker": plotting.MARKERS[regime], "color": PALETTE[regime], "s": 22}
        axes[0, -1].scatter(2 ** group["centre"], group["shape_bias"], **look)
    axes[0, -1].set(xlabel="centre, cycles\nper image", ylabel="shape bias", ylim=(-0.02, 1.02))
    plotting.legend_below(figure)
    return figure


def corruption_heat(table: pd.DataFrame) -> Figure:
    """R minus S of top-1 by corruption and severity: ours, and ImageNet's ResNet-50 (L2, eps 3).

    Args:
        table: From `measure.ood`.
    """
    cells = table[
        (table["metric"] == "top1_difference")
        & (table["group"] == "corruption")
        & (table["scope"] == "severity")
    ]
    cells = plotting.per_architecture(cells)
    panels = {
        architecture(name): group.pivot(index="condition", columns="severity", values="value")
        for name, group in cells.groupby("architecture", sort=False)
    }
    imagenet = published.corruptions().pivot(
        index=["corruption", "severity"], columns="regime", values="value"
    )
    panels["ResNet-50, ImageNet"] = (imagenet["robust"] - imagenet["standard"]).unstack()
    figure, axes = plotting.canvas(1, len(panels), panel=(1.9, 4.4), sharey=True)
    for ax, (title, values) in zip(axes[0], panels.items(), strict=True):
        grid = values.reindex(index=NAMES, columns=SEVERITIES).to_numpy(float)
        image = ax.imshow(grid, cmap=AHEAD, vmin=-0.7, vmax=0.7, aspect="auto")
        for (y, x), value in np.ndenumerate(grid):
            ink = "white" if abs(value) > 0.45 else "black"
            text = f"{100 * value:+.0f}".replace("-", "−")
            ax.text(x, y, text, ha="center", va="center", size="x-small", color=ink)
        ax.set(xticks=range(len(SEVERITIES)), xticklabels=SEVERITIES, xlabel="severity")
        ax.set(yticks=range(len(NAMES)))
        ax.set_yticklabels([name.replace("_", " ") for name in NAMES])
        ax.set_title(title, size="small")
        ax.grid(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.5, ticks=(-0.6, 0, 0.6), location="bottom")
    bar.set_label("top-1, R minus S (numbers: percentage points)")
    return figure


def judged(table: pd.DataFrame, reading: str = "") -> pd.DataFrame:
    """Rows in the reading that statements use: entry-level accuracy where there is one, else top-1.

    Where every class is its category there is top-1 alone; an attack leaves the class, and is read
    as top-1 too.
    """
    top1, entry_level = (table[table["metric"] == f"{m}{reading}"] for m in ("top1", "entry_level"))
    return pd.concat([entry_level, top1[~top1["condition"].isin(entry_level["condition"])]])


def conditions(table: pd.DataFrame) -> list[str]:
    """Distortions in the order of what they take away."""
    kinds = ["texture", "shape", "colour", "colour, grey levels", "grey levels"]
    kinds += ["high frequencies", "low frequencies", "nothing (noise)"]
    names = dict.fromkeys(table.loc[table["group"] == "distortion", "condition"])
    return sorted(names, key=lambda name: kinds.index(removed(name)))


def _condition_axis(ax: Axes, order: list[str]) -> None:
    """Conditions along y, with thin lines between groups that lose different things."""
    ax.set_yticks(range(len(order)), order)
    for i in range(1, len(order)):
        if removed(order[i]) != removed(order[i - 1]):
            ax.axhline(i - 0.5, color="#bbbbbb", lw=0.8)


def corruption_sheet(
    pixels: Float[np.ndarray, "c s h w 3"], names: Sequence[str], *, show_images: bool = True
) -> Figure:
    """One row per corruption: the clean image, then severities 1 to 5.

    Args:
        pixels: In [0, 1], column 0 clean: `images.corruptions.sheet(...).movedim(2, -1).numpy()`.
        names: Of the rows.
        show_images: False leaves grey panels (for photographs that must not be published).
    """
    rows, columns = pixels.shape[:2]
    figure, axes = plotting.canvas(rows, columns, panel=(0.95, 0.8))
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    for column, ax in enumerate(axes[0]):
        ax.set_title(f"severity {column}" if column else "clean", size="small", color="black")
    for name, line, images in zip(names, axes, pixels, strict=True):
        for ax, image in zip(line, images, strict=True):
            if show_images:
                plotting.picture(ax, image, ax.get_title())
            else:
                plotting.placeholder(ax, "")
        words = name.replace("_", "\n")
        line[0].set_ylabel(words, rotation=0, ha="right", va="center", size="small")
    return figure
