"""Feature visualisation: images that single units respond to most, by gradient ascent on pixels.

No image prior: what looks smooth is smooth because of the network (Engstrom et al. 2019,
arXiv 1906.00945). A visualisation is not an explanation of what a unit does on natural images
(Geirhos et al. 2024, arXiv 2306.04719).
"""

import functools
from collections.abc import Callable

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from robustbias.images import floats
from robustbias.networks import hooks
from robustbias.networks.zoo import Network
from robustbias.utils import UserError

NOISE = 0.01  # standard deviation of a noise start around mid-grey; less than what ascent adds

Objective = Callable[[Float[Tensor, "n 3 h w"]], Float[Tensor, " n"]]


def visualisations(
    network: Network,
    layer: str,
    units: Int64[Tensor, " u"],
    *,
    generator: torch.Generator,
    images: UInt8[Tensor, "k 3 h w"] | None = None,
    starts: int = 2,
    steps: int = 64,
    length: float = 0.45,
    jitter: int = 4,
    batch: int = 64,
) -> Float[Tensor, "u 3 h w"]:
    """Per unit an image in [0, 1] with a high mean pre-activation: the best end of all starts.

    Every unit has the same noise starts and the same jitter, so a unit's image does not depend on
    the other units. Pre-activations have a gradient where the unit is silent.

    Args:
        units: Indices of channels of the layer.
        generator: On the CPU; draws the noise starts and the jitter.
        images: Natural images; the one with the highest mean pre-activation is a further start.
        starts: Noise starts.
        length: L2 length of each step, in pixel units.
        jitter: Largest shift of the image in a step, in pixels.
        batch: Images per forward and backward pass.

    Raises:
        UserError: No start or step, or an unknown layer or unit.
    """
    if starts + (images is not None) < 1 or steps < 1:
        raise UserError(f"{starts} starts and {steps} steps; expected at least 1 of each.")
    size, on = network.entry.size, network.mean.device
    draw = {"generator": generator}
    noise = (0.5 + NOISE * torch.randn(starts, 3, size, size, **draw)).clamp(0, 1)
    shifts = torch.randint(-jitter, jitter + 1, (steps, 2), **draw).tolist()
    with torch.no_grad():
        n = hooks.preactivation(network, layer, torch.zeros(1, 3, size, size, device=on)).shape[1]
        if len(units) and not 0 <= int(units.min()) <= int(units.max()) < n:
            raise UserError(f"layer {layer} has units 0 to {n - 1}; asked for {units.tolist()}.")
        natural = _strongest(network, layer, units, images, batch) if images is not None else None
    ends = []
    for index, part in zip(torch.arange(len(units)).split(batch), units.split(batch), strict=True):
        objective = functools.partial(_mean_preactivation, network, layer, part.to(on))
        first = [one.expand(len(part), -1, -1, -1) for one in noise]
        first += [] if natural is None else [floats(natural[index])]
        ends.append(
            _best([ascended(objective, x.to(on), shifts, length) for x in first], objective)
        )
    return torch.cat(ends) if ends else torch.empty(0, 3, size, size, device=on)


def _mean_preactivation(
    network: Network, layer: str, units: Int64[Tensor, " n"], pixels: Float[Tensor, "n 3 h w"]
) -> Float[Tensor, " n"]:
    """The mean over space of a unit per image."""
    maps = hooks.preactivation(network, layer, pixels)
    return maps[torch.arange(len(units), device=units.device), units].mean((1, 2))


def ascended(
    objective: Objective, pixels: Float[Tensor, "n 3 h w"], shifts: list[list[int]], length: float
) -> Float[Tensor, "n 3 h w"]:
    """The images after one normalised gradient step per shift, in [0, 1]."""
    for shift in shifts:
        pixels = pixels.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(
            objective(torch.roll(pixels, shift, (2, 3))).sum(), pixels
        )
        norm = torch.linalg.vector_norm(gradient, dim=(1, 2, 3), keepdim=True).clamp_min(1e-20)
        pixels = (pixels.detach() + length * gradient / norm).clamp(0, 1)
    return pixels.detach()


@torch.no_grad()
def _best(ends: list[Float[Tensor, "n 3 h w"]], objective: Objective) -> Float[Tensor, "n 3 h w"]:
    best = torch.stack([objective(end) for end in ends]).argmax(0)
    return torch.stack(ends)[best, torch.arange(len(best), device=best.device)]


def _strongest(
    network: Network,
    layer: str,
    units: Int64[Tensor, " u"],
    images: UInt8[Tensor, "k 3 h w"],
    batch: int,
) -> UInt8[Tensor, "u 3 h w"]:
    """Per unit the image with the highest mean pre-activation."""
    on = network.mean.device
    means = [
        hooks.preactivation(network, layer, floats(part.to(on))).mean((2, 3))
        for part in images.split(batch)
    ]
    return images[torch.cat(means)[:, units.to(on)].argmax(0).to(images.device)]
