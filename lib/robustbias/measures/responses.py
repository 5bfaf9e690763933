"""First-layer filters, and a layer's maps of one image clean and noisy, to be looked at."""

import dataclasses
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from robustbias.errors import UserError
from robustbias.images import floats
from robustbias.measures.registry import pairs
from robustbias.measures.variation import spatial_filters
from robustbias.networks import hooks


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


def first_filters(study: Any) -> dict[tuple[str, str], Float[Tensor, "u 3 h w"]]:
    """Weights of the first convolution by (architecture, regime), standard before robust."""
    return {
        (architecture, regime): next(
            iter(spatial_filters(study.network_named(pair[regime].name)).values())
        ).cpu()
        for architecture, pair in pairs(study).items()
        for regime in ("standard", "robust")
        if regime in pair
    }


@torch.no_grad()
def responses(
    study: Any,
    *,
    architecture: str,
    layer: str | None = None,
    image: int = 0,
    n_units: int = 5,
    sigma: float = 0.08,
) -> Responses:
    """Maps of a layer of S and R for one held-out image, and for it with Gaussian noise.

    Args:
        layer: A probed layer; the network's first when None.
        image: Index into the held-out images.
        sigma: Standard deviation of the noise in [0, 1] pixel units; it is not clipped.

    Raises:
        UserError: An architecture, layer or image that is not there.
    """
    found = pairs(study)
    if architecture not in found:
        raise UserError(
            f"no {architecture!r} networks in this study; here are: {', '.join(found)}."
        )
    held_out = study.source.val()
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
    for regime, entry in found[architecture].items():
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
