"""Figure of chapter 2: shape bias against the training radius."""

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from robustbias import published
from robustbias.figures.theme import MARKERS, PALETTE, canvas, interval_points, legend_below
from robustbias.names import ARCHITECTURES


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
