"""Figures of chapter 4: filters, maps of clean and noisy images, smoothness and gain by layer."""

import itertools

import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from robustbias import plotting
from robustbias.plotting import PAIR, PALETTE
from robustbias.smooth_filters.measure import Responses
from robustbias.utils import REGIMES, architecture

POSITIONS = plotting.offsets(PAIR, 0.24)


def first_filters(
    filters: dict[tuple[str, str], Float[Tensor, "u 3 h w"]], *, columns: int = 16
) -> Figure:
    """Filters of the first convolution as colour images, one block of rows per network.

    Each filter is stretched by its largest weight around mid-grey, so that shapes compare and
    magnitudes do not.

    Args:
        filters: By (architecture, regime), as from `measure.first_filters`.
        columns: Filters in a row.
    """
    rows = [
        (name, regime, start, weights[start : start + columns])
        for (name, regime), weights in filters.items()
        for start in range(0, len(weights), columns)
    ]
    figure, axes = plotting.canvas(len(rows), max(len(row[-1]) for row in rows), panel=(0.48, 0.66))
    for line, (name, regime, start, weights) in zip(axes, rows, strict=True):
        for ax, weight in itertools.zip_longest(line, plotting.channels_last(weights)):
            if weight is None:
                ax.axis("off")
            else:
                plotting.picture(ax, 0.5 + 0.5 * weight / abs(weight).max())
        if start == 0:
            line[0].set_title(" ")  # keeps room for the words
            words = f"{architecture(name)}, {REGIMES[regime]}"
            plotting.row_title(line[0], words, regime, 1.15, weight="bold")
    return figure


def responses(examples: Responses) -> Figure:
    """One image, clean and noisy, and the maps of the units that respond to it most.

    A unit's two maps share one grey scale, from 0 to the larger of both maxima.
    """
    regimes = [regime for regime in REGIMES if regime in examples.units]
    n = max(len(units) for units in examples.units.values())
    figure, axes = plotting.canvas(2 * len(regimes), n + 1, panel=(1.05, 1.12))
    noise = f"noise {examples.sigma:g}"
    for regime, (clean_row, noisy_row) in zip(regimes, axes.reshape(-1, 2, n + 1), strict=True):
        clean_maps, noisy_maps = examples.clean_maps[regime], examples.noisy_maps[regime]
        for line, kind, image, maps in (
            (clean_row, "clean", examples.clean, clean_maps),
            (noisy_row, noise, examples.noisy, noisy_maps),
        ):
            plotting.picture(line[0], plotting.channels_last(image))
            line[0].set_ylabel(f"{REGIMES[regime][0]}, {kind}", color=PALETTE[regime], size="small")
            for i, ax in enumerate(line[1:]):
                if i < len(maps):
                    top = float(max(clean_maps[i].max(), noisy_maps[i].max(), 1e-8))
                    plotting.picture(ax, plotting.grey(maps[i], top))
                else:
                    ax.axis("off")
        for ax, unit in zip(clean_row[1:], examples.units[regime].tolist(), strict=False):
            ax.set_title(f"unit {unit}", size="x-small")
    return figure


def smoothness_by_layer(table: pd.DataFrame) -> Figure:
    """Normalised total variation of filters (above) and activation maps (below), by layer.

    Means over units with 95 % intervals, from the first layer on the left to the last.

    Args:
        table: From `measure.smoothness`.
    """
    means = plotting.layer_means(table, "tv_normalised")
    figure, axes = plotting.layer_panels(
        [means[means["condition"] == condition] for condition in ("filters", "maps")],
        ["TV / magnitude,\nfilters", "TV / magnitude,\nactivation maps"],
        POSITIONS | {"untrained": 0.0},
        panel=(3.4, 2.7),
        style={"ms": 4},
    )
    for container in itertools.chain.from_iterable(ax.containers for ax in axes.flat):
        if container.get_label() == REGIMES["untrained"]:
            for artist in container.get_children():
                artist.set_alpha(0.6)
    plotting.legend_below(figure)
    return figure


def noise_gain(table: pd.DataFrame) -> Figure:
    """Noise gain by layer for S and R, one line style per noise level, 95 % intervals over units.

    Args:
        table: From `measure.smoothness`.
    """
    figure, panels = plotting.architecture_panels(
        plotting.layer_means(table, "noise_gain"), ["noise gain"], panel=(3.2, 3.0), sharey=True
    )
    sigmas = sorted(table["sigma"].dropna().unique(), reverse=True)
    for by_sigma, (ax,) in panels:
        for style, sigma in zip(itertools.cycle(("-", "--", ":", "-.")), sigmas, strict=False):
            rows, suffix = by_sigma[by_sigma["sigma"] == sigma], f", sigma {sigma:g}"
            plotting.layer_lines(ax, rows, POSITIONS, suffix=suffix, ls=style, ms=4)
        ax.set_yscale("log")
    plotting.legend_below(figure)
    return figure
