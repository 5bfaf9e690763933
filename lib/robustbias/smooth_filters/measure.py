"""How smooth the filters and activations of S and R are, and what pixel noise does to them."""

import dataclasses
import math
from collections.abc import Callable, Iterable
from functools import partial

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from robustbias import stats
from robustbias.images import Images, floats
from robustbias.images.source import Source
from robustbias.networks import hooks
from robustbias.networks.zoo import Network
from robustbias.studies import (
    Study,
    first_pairs,
    held_out_sample,
    networks_with_controls,
    pair_of,
    paired,
)
from robustbias.tables import Part, measure, parts, tidy
from robustbias.utils import UserError

#     TV(a) = Σ |a[i+1, j] - a[i, j]| + Σ |a[i, j+1] - a[i, j]|          (anisotropic)
#     noise gain(u) = Σ_images |a_u(x + n) - a_u(x)| / Σ_images |a_u(x)|    (L2 norms of maps)
#
# TV grows with a map's size and magnitude. So it is given raw, per pixel, and per pixel divided by
# the mean absolute value; only the last compares networks whose activations differ in scale.

SPECTRUM = 64  # frequencies along each axis that a filter's energy is spread over


def total_variation(maps: Float[Tensor, "*lead h w"]) -> Float[Tensor, "*lead"]:
    """Sum of absolute differences between neighbours, down the rows and along the columns."""
    down, along = (maps.diff(dim=axis).abs().sum((-2, -1)) for axis in (-2, -1))
    return down + along


def high_frequency_share(
    filters: Float[Tensor, "u c h w"], cutoff: float = 0.25
) -> Float[Tensor, " u"]:
    """Share of a filter's energy at spatial frequencies above `cutoff`, over all its channels.

        Σ_{|f| > cutoff} |ŵ(f)|² / Σ_f |ŵ(f)|²  =  Σ_channels wᵀ G w / Σ_channels wᵀ w

    where G[p, q] is the mean of cos 2π f (p - q) over the frequencies kept, so that no transform is
    needed. All kernel sizes meet the same grid of frequencies, as if padded with zeros. A single
    pixel scores 1 - π cutoff² (0.80 at 0.25): its energy is spread evenly.

    Args:
        cutoff: In cycles per pixel; 0.5 is the highest that a row of pixels carries, 0.25 half it.
    """
    place = torch.cartesian_prod(*(torch.arange(side).double() for side in filters.shape[-2:]))
    along = torch.fft.fftfreq(SPECTRUM, dtype=torch.float64)
    frequency = torch.cartesian_prod(along, along)
    phase = 2 * torch.pi * place @ frequency[frequency.norm(dim=1) > cutoff].T
    gram = (phase.cos() @ phase.cos().T + phase.sin() @ phase.sin().T) / SPECTRUM**2
    w = filters.flatten(2)
    return ((w @ gram.to(w)) * w).sum((1, 2)) / w.square().sum((1, 2))


def spatial_filters(network: nn.Module) -> dict[str, Float[Tensor, "u c h w"]]:
    """Weights of every convolution of more than one pixel, by the name of its module."""
    return {
        name: module.weight.detach()
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and module.weight[0, 0].numel() > 1
    }


def filter_smoothness(
    filters: Float[Tensor, "u c h w"], cutoff: float = 0.25
) -> dict[str, Float[Tensor, " u"]]:
    """TV (summed over input channels) and high-frequency share of each unit's filter."""
    tv = total_variation(filters).sum(1)
    return {
        "tv": tv,
        "tv_per_pixel": tv / filters[0].numel(),
        "tv_normalised": tv / filters.abs().sum((1, 2, 3)),
        "high_frequency_share": high_frequency_share(filters, cutoff),
    }


@torch.no_grad()
def map_smoothness(
    network: Network,
    layers: Iterable[str],
    images: Images,
    sigmas: Iterable[float],
    *,
    generator: torch.Generator,
    batch: int = 64,
) -> dict[str, dict[str, Float[Tensor, " u"]]]:
    """For each layer, TV and noise gain of every unit, NaN where a unit is silent on all images.

    Gaussian noise is added to pixels in [0, 1] and not clipped. The ratios are of sums over
    images, so that an image on which the unit is silent does not divide by zero.

    Args:
        sigmas: Standard deviations of the noise, in pixel units.
        generator: On the images' device; equal seeds give all networks the same noise.

    Raises:
        UserError: An unknown layer, or a sigma that is not positive.
    """
    layers, sigmas = list(layers), list(sigmas)
    if any(sigma <= 0 for sigma in sigmas):
        raise UserError(f"noise levels {sigmas}; expected positive standard deviations.")
    sums: dict[str, dict[str, Tensor]] = {layer: {} for layer in layers}
    with hooks.captured(network, layers) as maps:
        size = hooks.fitting(network, images.pixels, batch, held=True)
        for block, _ in images.batches(batch):  # noise is drawn alike whatever the memory
            noises = torch.randn(block.shape, generator=generator, device=block.device)
            for pixels, noise in zip(block.split(size), noises.split(size), strict=True):
                network(pixels)
                clean = dict(maps)
                for layer, a in clean.items():
                    _add(sums[layer], "tv", total_variation(a))
                    _add(sums[layer], "magnitude", a.abs().sum((2, 3)))
                    _add(sums[layer], "pixels", torch.full(a.shape[:2], a[0, 0].numel()).to(a))
                    _add(sums[layer], "norm", a.flatten(2).norm(dim=2))
                for sigma in sigmas:
                    network(pixels + sigma * noise)
                    for layer, a in maps.items():
                        change = (a - clean[layer]).flatten(2).norm(dim=2)
                        _add(sums[layer], f"noise_gain {sigma:g}", change)
    return {layer: _map_ratios(totals, sigmas, len(images)) for layer, totals in sums.items()}


def _add(sums: dict[str, Tensor], name: str, values: Float[Tensor, "n u"]) -> None:
    sums[name] = sums.get(name, 0) + values.sum(0)


def _map_ratios(sums: dict[str, Tensor], sigmas: list[float], n: int) -> dict[str, Tensor]:
    live = sums["magnitude"] > 0
    ratios = {
        "tv": sums["tv"] / n,
        "tv_per_pixel": sums["tv"] / sums["pixels"],
        "tv_normalised": sums["tv"] / sums["magnitude"],
    } | {f"noise_gain {sigma:g}": sums[f"noise_gain {sigma:g}"] / sums["norm"] for sigma in sigmas}
    return {name: torch.where(live, value, torch.nan) for name, value in ratios.items()}


GROUP = ["layer", "condition"]
NO_BOUNDS = (math.nan, math.nan)  # a ratio may be anything


@measure(of=paired)
def smoothness(
    study: Study,
    *,
    n_images: int = 128,
    sigmas: tuple[float, ...] | list[float] = (0.04, 0.08, 0.16),
    cutoff: float = 0.25,
    layers: tuple[str, ...] | list[str] | None = None,
    draws: int = 2000,
) -> pd.DataFrame:
    """Smoothness of every filter and unit of S, R and an untrained network, and R over S.

    `condition` says of what: `filters` (layers are convolutions), `maps` or `noise` (layers are
    the probed ones). Metrics: `tv`, `tv_per_pixel`, `tv_normalised`, `high_frequency_share` (of
    filters), `noise_gain` (with a `sigma`).

    Rows of scope `unit` have no interval. Scope `layer`: the mean over a layer's n live units,
    with a bootstrap over units; regime `robust / standard` the ratio of two such means, and at
    scope `network` the geometric mean of that ratio over layers; scope `first layer` repeats that
    of the first, whatever its name, so that architectures can be averaged. Units, not images, are
    resampled: both networks see the same images and the same noise, and which units training
    happened to make is the larger uncertainty.

    Args:
        n_images: Held-out images, drawn with the study's seed; at most all of them.
        cutoff: Where high frequencies begin, in cycles per pixel (at most 0.5 along a row).
        layers: Probed layers; the manifest's when None.

    Raises:
        UserError: n_images below 1, an unknown layer, a sigma that is not positive.

    Source: Rudin, Osher and Fatemi 1992, doi:10.1016/0167-2789(92)90242-F, for total variation.
    """
    generator = torch.Generator().manual_seed(study.seed)
    images = held_out_sample(study, n_images, generator)

    def measured(load: Callable[[], Network]) -> Part:
        network = load()
        values = {
            f"filters\t{layer}\t{metric}": value
            for layer, filters in spatial_filters(network.body).items()
            for metric, value in filter_smoothness(filters, cutoff).items()
        }
        noise = torch.Generator(images.pixels.device).manual_seed(study.seed)
        probed = map_smoothness(network, layers or network.layers, images, sigmas, generator=noise)
        for layer, metrics in probed.items():
            for condition, gains in (("noise", True), ("maps", False)):
                values |= {
                    f"{condition}\t{layer}\t{metric}": value
                    for metric, value in metrics.items()
                    if metric.startswith("noise_gain") == gains
                }
        return values

    networks = list(networks_with_controls(study, images.pixels))
    tasks = {named["network"]: partial(measured, load) for named, load, _ in networks}
    units = []
    for (named, *_), part in zip(networks, parts(tasks).values(), strict=True):
        for place, value in part.items():
            condition, layer, metric = place.split("\t")
            rows = {"unit": range(len(value)), "value": value.double().numpy()}
            about = {"layer": layer, "condition": condition, "metric": metric}
            units.append(pd.DataFrame(rows).assign(**named, **about))
    units = pd.concat(units)
    means = aggregates(study, units, generator, draws)
    table = pd.concat([units.assign(scope="unit"), means])
    split = table["metric"].str.split(" ")  # noise_gain 0.08 -> metric and sigma
    sigma = pd.to_numeric(split.str[1])
    return tidy(table.assign(metric=split.str[0], sigma=sigma).reset_index(drop=True))


def aggregates(
    study: Study, units: pd.DataFrame, generator: torch.Generator, draws: int, by: str = "/"
) -> pd.DataFrame:
    """Means over the units of each layer, R over S by layer, and geometric means over layers.

    Each with the means over replicates and architectures.

    Args:
        units: One row per unit, layer, condition and metric of each network.
        by: "-" for R minus S, and arithmetic means over layers.
    """
    groups = []
    for _, layer in units.groupby(["network", *GROUP], sort=False):
        wide = layer.pivot(index="unit", columns="metric", values="value")
        shared = layer.iloc[0].drop(["unit", "metric", "value"]).to_dict()
        groups.append((shared, wide.columns, torch.tensor(wide.values), None))
    about, boot = stats.over_units(groups, generator=generator, draws=draws, bounds=NO_BOUNDS)
    about = about.assign(scope="layer")
    by_layer, ratio = stats.compared(study, about, boot, paired=False, by=by)
    each = stats.averaged(study, about, boot, paired=False)
    tables = [stats.intervals(*each), stats.intervals(by_layer, ratio)]
    whole = stats.over_layers(study, by_layer, ratio, geometric=by == "/")
    tables.append(stats.intervals(*whole))
    return pd.concat(tables, ignore_index=True)


@dataclasses.dataclass(frozen=True)
class Responses:
    """What one image does to a layer of S and R; keys of the dicts are regimes.

    Maps are n units, those with the largest mean response to the clean image, in that order.
    """

    layer: str
    sigma: float
    clean: Float[Tensor, "3 h w"]
    noisy: Float[Tensor, "3 h w"]
    clean_maps: dict[str, Tensor]
    noisy_maps: dict[str, Tensor]
    units: dict[str, Tensor]


def first_filters(study: Study) -> dict[tuple[str, str], Float[Tensor, "u 3 h w"]]:
    """Weights of the first convolution by (architecture, regime), standard before robust."""
    return {
        (architecture, regime): next(
            iter(spatial_filters(study.network_named(pair[regime].name)).values())
        ).cpu()
        for architecture, pair in first_pairs(study).items()
        for regime in ("standard", "robust")
        if regime in pair
    }


@torch.no_grad()
def responses(
    study: Study,
    *,
    architecture: str,
    source: Source | None = None,
    layer: str | None = None,
    image: int = 0,
    n_units: int = 5,
    sigma: float = 0.08,
) -> Responses:
    """Maps of a layer of S and R for one held-out image, and for it with Gaussian noise.

    Args:
        source: Where the image comes from; the study's own when None. Maps of a first layer show
            an image nearly as it is, so a photograph that may not be shown needs another source.
        layer: A probed layer; the network's first when None.
        image: Index into the held-out images.
        sigma: Standard deviation of the noise in [0, 1] pixel units; it is not clipped.

    Raises:
        UserError: An architecture, layer or image that is not there.
    """
    pair = pair_of(study, architecture)
    held_out = (source or study.source).val()
    if not 0 <= image < len(held_out):
        raise UserError(
            f"image {image} asked for; there are held-out images 0 to {len(held_out) - 1}."
        )
    clean = floats(held_out.pixels[image : image + 1].to(study.device))
    generator = torch.Generator(clean.device).manual_seed(study.seed)
    noise = torch.randn(clean.shape, generator=generator, device=clean.device)
    noisy = clean + sigma * noise
    maps: dict[str, list[Tensor]] = {}
    units = {}
    for regime, entry in pair.items():
        network = study.network_named(entry.name)
        name = layer or network.layers[0]
        both = hooks.prefix(network, name, torch.cat([clean, noisy]))
        units[regime] = both[0].abs().mean((1, 2)).argsort(descending=True)[:n_units].cpu()
        maps[regime] = both[:, units[regime].to(both.device)].cpu()
    return Responses(
        layer=name,
        sigma=sigma,
        clean=clean[0].cpu(),
        noisy=noisy[0].cpu(),
        clean_maps={regime: both[0] for regime, both in maps.items()},
        noisy_maps={regime: both[1] for regime, both in maps.items()},
        units=units,
    )
