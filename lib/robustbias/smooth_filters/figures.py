"""Figures of chapter 4: filters, maps of clean and noisy images, smoothness and gain by layer."""

import itertools

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from robustbias.plotting import PALETTE, canvas, interval_points, legend_below, picture
from robustbias.smooth_filters.measure import Responses
from robustbias.utils import REGIMES, architecture

OFFSETS = {"standard": -0.12, "robust": 0.12, "untrained": 0.0}


STYLES = ("-", "--", ":", "-.")


def first_filters(
    filters: dict[tuple[str, str], Float[Tensor, "u 3 h w"]], *, columns: int = 16
) -> Figure:
    """Filters of the first convolution as colour images, a block of rows a network.

    Each filter is stretched by its own largest weight around mid-grey, so that shapes compare and
    magnitudes do not.

    Args:
        filters: By (architecture, regime), as from `measures.first_filters`.
        columns: Filters in a row.
    """
    blocks = [
        (name, regime, weights, start)
        for (name, regime), weights in filters.items()
        for start in range(0, len(weights), columns)
    ]
    widest = min(columns, max(len(weights) for weights in filters.values()))
    figure, axes = canvas(len(blocks), widest, panel=(0.48, 0.66))
    for line, (name, regime, weights, start) in zip(axes, blocks, strict=True):
        for ax, unit in itertools.zip_longest(
            line, range(start, min(start + widest, len(weights)))
        ):
            if unit is None:
                ax.axis("off")
                continue
            shown = np.moveaxis(weights[unit].numpy(), 0, -1)
            picture(ax, 0.5 + 0.5 * shown / np.abs(shown).max())
        if start == 0:
            line[0].set_title(" ")  # keeps room for the words, which run over the next filters
            words = f"{architecture(name)}, {REGIMES[regime]}"
            look = {"size": "small", "color": PALETTE[regime], "weight": "bold"}
            line[0].text(0, 1.15, words, transform=line[0].transAxes, **look).set_in_layout(False)
    return figure


def responses(shown: Responses, *, show_images: bool = True) -> Figure:
    """One image, clean and noisy, and the maps of the units that respond to it most.

    A unit's two maps share one grey scale, from 0 to the larger of both maxima.

    Args:
        show_images: False leaves the image itself out, for photographs that may not be shown.
    """
    regimes = [regime for regime in REGIMES if regime in shown.units]
    n = max(len(units) for units in shown.units.values())
    figure, axes = canvas(2 * len(regimes), n + 1, panel=(1.05, 1.12))
    for block, regime in enumerate(regimes):
        for row, (kind, image, maps) in enumerate(
            (
                ("clean", shown.clean, shown.clean_maps[regime]),
                (f"noise {shown.sigma:g}", shown.noisy, shown.noisy_maps[regime]),
            )
        ):
            line = axes[2 * block + row]
            pixels = np.moveaxis(image.numpy(), 0, -1)
            picture(line[0], pixels if show_images else None)
            line[0].set_ylabel(f"{REGIMES[regime][0]}, {kind}", color=PALETTE[regime], size="small")
            for ax, index in itertools.zip_longest(line[1:], range(len(maps))):
                if index is None:
                    ax.axis("off")
                    continue
                top = float(max(shown.clean_maps[regime][index].max(),
                                shown.noisy_maps[regime][index].max(), 1e-8))  # fmt: skip
                picture(ax, (maps[index].numpy() / top)[..., None].repeat(3, 2))
                if row == 0:
                    ax.set_title(f"unit {int(shown.units[regime][index])}", size="x-small")
    return figure


def smoothness_by_layer(table: pd.DataFrame) -> Figure:
    """Normalised total variation of filters (above) and activation maps (below), by layer.

    Means over units with 95 % intervals, from the first layer on the left to the last.

    Args:
        table: From `measures.smoothness`.
    """
    rows = (("filters", "filters"), ("maps", "activation maps"))
    names = list(dict.fromkeys(table["architecture"]))
    figure, axes = canvas(len(rows), len(names), panel=(3.4, 2.7))
    for (line, (condition, words)), (column, name) in itertools.product(
        enumerate(rows), enumerate(names)
    ):
        ax = axes[line, column]
        own = _means(table, name, condition, "tv_normalised")
        layers = _draw(ax, own)
        many = len(layers) > 8  # convolutions are numbered, probed layers are named
        ticks = range(0, len(layers), 4) if many else range(len(layers))
        ax.set_xticks(ticks, [str(i + 1) if many else layers[i] for i in ticks])
        if many:
            ax.set_xlabel("convolution, from the first")
        else:
            ax.tick_params(axis="x", rotation=40, labelsize="x-small")
        if line == 0:
            ax.set_title(architecture(name))
        if column == 0:
            ax.set_ylabel(f"TV / magnitude,\n{words}")
    legend_below(figure, axes)
    return figure


def noise_gain(table: pd.DataFrame) -> Figure:
    """Noise gain by layer for S and R, one line a noise level, 95 % intervals over units.

    Args:
        table: From `measures.smoothness`.
    """
    names = list(dict.fromkeys(table["architecture"]))
    figure, axes = canvas(1, len(names), panel=(3.2, 3.0), sharey=True)
    sigmas = sorted(table.loc[table["condition"] == "noise", "sigma"].unique(), reverse=True)
    for ax, name in zip(axes[0], names, strict=True):
        for style, sigma in zip(itertools.cycle(STYLES), sigmas):
            own = _means(table, name, "noise", "noise_gain")
            own = own[(own["sigma"] == sigma) & (own["regime"] != "untrained")]
            layers = _draw(ax, own, ls=style, suffix=f", sigma {sigma:g}")
        ax.set_xticks(range(len(layers)), layers)
        ax.tick_params(axis="x", rotation=40, labelsize="x-small")
        ax.set(title=architecture(name), yscale="log")
    axes[0, 0].set_ylabel("noise gain")
    legend_below(figure, axes)
    return figure


def _means(table: pd.DataFrame, name: str, condition: str, metric: str) -> pd.DataFrame:
    """Means over a layer's units of the networks of one architecture, layers in order."""
    return table[
        (table["architecture"] == name)
        & (table["condition"] == condition)
        & (table["metric"] == metric)
        & (table["unit"] == -1)
        & table["regime"].isin(list(OFFSETS))
    ]


def _draw(ax, rows: pd.DataFrame, ls: str = "-", suffix: str = "") -> list[str]:
    """Lines of each regime over the layers; returns their names."""
    layers = list(dict.fromkeys(rows["layer"]))
    for regime, offset in OFFSETS.items():
        own = rows[rows["regime"] == regime].set_index("layer").reindex(layers)
        if not own["value"].isna().all():
            at = np.arange(len(layers)) + offset
            look = {"ls": ls, "alpha": 0.6 if regime == "untrained" else 1.0, "ms": 4}
            interval_points(ax, at, own, kind=regime, label=REGIMES[regime] + suffix, **look)
    return layers
