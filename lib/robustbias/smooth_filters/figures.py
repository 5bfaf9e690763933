"""Figures of chapter 4: filters, maps of clean and noisy images, smoothness and gain by layer."""

import itertools

import pandas as pd
from jaxtyping import Float, Int64
from torch import Tensor

from robustbias import plotting
from robustbias.plotting import PAIR, PALETTE, Described
from robustbias.smooth_filters.measure import Responses
from robustbias.utils import REGIMES, architecture

Visualisations = dict[
    str, tuple[Int64[Tensor, " n"], Float[Tensor, "n 3 h w"], Float[Tensor, " n"]]
]

POSITIONS = plotting.offsets(PAIR, 0.24)


def first_filters(
    filters: dict[tuple[str, str], Float[Tensor, "u 3 h w"]], *, columns: int = 16
) -> Described:
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
    figure, axes = plotting.canvas(len(rows), max(len(row[-1]) for row in rows), panel=(0.48, 0.5))
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
    for line, (name, regime, start, weights) in zip(axes, rows, strict=True):
        for ax, weight in itertools.zip_longest(line, plotting.channels_last(weights)):
            if weight is None:
                ax.axis("off")
            else:
                plotting.picture(ax, 0.5 + 0.5 * weight / abs(weight).max())
        if start == 0:
            words = f"{architecture(name)}, {REGIMES[regime]}"
            plotting.row_title(line[0], words, regime, weight="bold")
    counts = ", ".join(f"{len(w)} of {architecture(n)} {r}" for (n, r), w in filters.items())
    return figure.described(f"First-layer filters as small colour squares: {counts}.")


def responses(examples: Responses) -> Described:
    """One image, clean and noisy, and the maps of the units that respond to it most.

    A unit's two maps share one grey scale, from 0 to the larger of both maxima.
    """
    regimes = [regime for regime in REGIMES if regime in examples.units]
    n = max(len(units) for units in examples.units.values())
    figure, axes = plotting.canvas(2 * len(regimes), n + 1, panel=(1.0, 1.1))
    noise = f"noise {examples.sigma:g}"
    for regime, (clean_row, noisy_row) in zip(regimes, axes.reshape(-1, 2, n + 1), strict=True):
        clean_maps, noisy_maps = examples.clean_maps[regime], examples.noisy_maps[regime]
        for line, kind, image, maps in (
            (clean_row, "clean", examples.clean, clean_maps),
            (noisy_row, noise, examples.noisy, noisy_maps),
        ):
            plotting.picture(line[0], plotting.channels_last(image))
            line[0].set_ylabel(f"{REGIMES[regime][0]}, {kind}", color=PALETTE[regime])
            for i, ax in enumerate(line[1:]):
                if i < len(maps):
                    top = float(max(clean_maps[i].max(), noisy_maps[i].max(), 1e-8))
                    plotting.picture(ax, plotting.grey(maps[i], top))
                else:
                    ax.axis("off")
        for ax, unit in zip(clean_row[1:], examples.units[regime].tolist(), strict=False):
            ax.set_title(f"unit {unit}", size="small")
    return figure.described(
        f"Grey activation maps of {n} units of S and of R, for a clean image and for the same "
        f"image with noise of standard deviation {examples.sigma:g}."
    )


def smoothness_by_layer(table: pd.DataFrame) -> Described:
    """Normalised total variation of filters (above) and activation maps (below), by layer.

    Means over units with 95 % intervals, from the first layer on the left to the last.

    Args:
        table: From `measure.smoothness`.
    """
    means = plotting.layer_means(table, "tv_normalised")
    figure, axes = plotting.layer_panels(
        [means[means["condition"] == condition] for condition in ("filters", "maps")],
        [
            f"TV / magnitude,\n{kind}\n(lower is smoother)"
            for kind in ("filters", "activation maps")
        ],
        POSITIONS | {"untrained": 0.0},
        panel=(3.4, 2.7),
        style={"ms": 4},
    )
    for container in itertools.chain.from_iterable(ax.containers for ax in axes.flat):
        if container.get_label() == REGIMES["untrained"]:
            for artist in container.get_children():
                artist.set_alpha(0.6)
    plotting.legend_below(figure)
    return figure.described(
        "Total variation over magnitude by layer, filters above and activation maps below. "
        + _smoother(means[means["condition"] == "filters"], "filters")
        + _smoother(means[means["condition"] == "maps"], "maps")
    )


def _smoother(means: pd.DataFrame, words: str) -> str:
    """In how many layers of each architecture R has the smaller value."""
    keys = ["architecture", "layer"]
    wide = means[means["regime"].isin(PAIR)].pivot(index=keys, columns="regime", values="value")
    lower = (wide["robust"] < wide["standard"]).groupby(level="architecture").agg(["sum", "count"])
    counts = [f"{architecture(n)} {row['sum']} of {row['count']}" for n, row in lower.iterrows()]
    return f"Layers in which R is lower, {words}: {', '.join(counts)}. "


def noise_gain(table: pd.DataFrame) -> Described:
    """Noise gain by layer for S and R, one line style per noise level, 95 % intervals over units.

    Args:
        table: From `measure.smoothness`.
    """
    gains, labels = plotting.layer_means(table, "noise_gain"), ["noise gain\n(lower blocks more)"]
    figure, panels = plotting.architecture_panels(gains, labels, panel=(2.3, 2.8), sharey=True)
    sigmas = sorted(table["sigma"].dropna().unique(), reverse=True)
    styles = list(zip(itertools.cycle(("-", "--", ":", "-.")), sigmas, strict=False))
    for rows, (ax,) in panels:
        for regime, (style, sigma) in itertools.product(PAIR, styles):
            one, look = {regime: POSITIONS[regime]}, {"ls": style, "ms": 4}
            mine = rows[rows["sigma"] == sigma]
            plotting.layer_lines(ax, mine, one, suffix=f", noise {sigma:g}", **look)
        ax.set_yscale("log")
        ax.set_ylim(bottom=gains["value"].min() / 2)  # intervals of few trainings may reach 0
    plotting.legend_below(figure, len(PAIR))
    return figure.described(
        "Noise gain by layer on a logarithmic axis, S and R at each noise level. "
        + _smoother(gains[gains["sigma"] == sigmas[-1]], f"noise {sigmas[-1]:g}")
    )


def visualisations(examples: Visualisations) -> Described:
    """What units respond to most, S above R, with the likeness of each picture to natural images.

    Args:
        examples: From `visualisation.examples`.
    """
    columns = max(len(units) for units, _, _ in examples.values())
    figure, axes = plotting.canvas(len(examples), columns, panel=(0.66, 1.0))
    for line, (regime, (units, pixels, likeness)) in zip(axes, examples.items(), strict=True):
        for ax in line[len(units) :]:
            ax.axis("off")
        for ax, unit, picture, like in zip(
            line, units.tolist(), plotting.channels_last(pixels), likeness.tolist(), strict=False
        ):
            plotting.picture(ax, picture)
            ax.set_title(f"{unit}: {like:.2f}", size="x-small")
        line[0].set_ylabel(REGIMES[regime], color=PALETTE[regime], size="small")
    means = ", ".join(f"{float(like.mean()):.2f} for {r}" for r, (*_, like) in examples.items())
    return figure.described(
        "Images that units respond to most, the standard network above the robust one; mean "
        f"likeness to natural images {means}."
    )


def strip(pictures: dict[str, Float[Tensor, "n 3 h w"]]) -> Described:
    """What units respond to most, S above R.

    Args:
        pictures: From `visualisation.first_units`.
    """
    columns = max(len(each) for each in pictures.values())
    figure, axes = plotting.canvas(len(pictures), columns, panel=(0.58, 0.62))
    for line, (regime, pixels) in zip(axes, pictures.items(), strict=True):
        for ax, picture in zip(line, plotting.channels_last(pixels), strict=True):
            plotting.picture(ax, picture)
        line[0].set_ylabel(REGIMES[regime][0], color=PALETTE[regime])
    return figure.described(
        "Two rows of small images: what units respond to most, the standard network above, the "
        "robust one below."
    )


def visualisations_by_layer(table: pd.DataFrame) -> Described:
    """Smoothness of visualisations and their likeness to natural images, by layer.

    Args:
        table: From `visualisation.visualised`.
    """
    figure, axes = plotting.layer_panels(
        means := [plotting.layer_means(table, name) for name in ("tv_normalised", "likeness")],
        ["TV / contrast\n(lower is smoother)", "likeness to\nnatural images"],
        POSITIONS | {"untrained": 0.0},
        panel=(3.4, 2.4),
        style={"ms": 4},
    )
    for ax in axes[1]:
        ax.axhline(0, color=plotting.REFERENCE, lw=0.8, ls="--")
    plotting.legend_below(figure)
    return figure.described(
        "Visualisations by layer, their total variation above and their likeness to natural images "
        "below. " + _smoother(means[0], "total variation")
    )
