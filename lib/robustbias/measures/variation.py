"""Total variation, spectra and noise gains: the arithmetic behind `measures.smoothness`.

    TV(a) = Σ |a[i+1, j] - a[i, j]| + Σ |a[i, j+1] - a[i, j]|          (anisotropic)
    noise gain(u) = Σ_images |a_u(x + n) - a_u(x)| / Σ_images |a_u(x)|    (L2 norms of maps)

TV grows with a map's size and magnitude. So it is given raw, per pixel, and per pixel divided by
the mean absolute value; only the last compares networks whose activations differ in scale.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robustbias.errors import UserError
from robustbias.images import Images
from robustbias.networks import hooks
from robustbias.networks.zoo import Network

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
        cutoff: In cycles a pixel; 0.5 is the highest that a row of pixels carries, 0.25 half it.
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
        for pixels, _ in images.batches(batch):
            network(pixels)
            clean = dict(maps)
            for layer, a in clean.items():
                _add(sums[layer], "tv", total_variation(a))
                _add(sums[layer], "magnitude", a.abs().sum((2, 3)))
                _add(sums[layer], "pixels", torch.full(a.shape[:2], a[0, 0].numel()).to(a))
                _add(sums[layer], "norm", a.flatten(2).norm(dim=2))
            noise = torch.randn(pixels.shape, generator=generator, device=pixels.device)
            for sigma in sigmas:
                network(pixels + sigma * noise)
                for layer, a in maps.items():
                    change = (a - clean[layer]).flatten(2).norm(dim=2)
                    _add(sums[layer], f"noise_gain {sigma:g}", change)
    return {layer: _map_ratios(found, sigmas, len(images)) for layer, found in sums.items()}


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
