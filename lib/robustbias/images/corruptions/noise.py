"""Corruptions of single values: Gaussian, shot and impulse noise."""

import torch
from jaxtyping import Float
from torch import Generator, Tensor


def gaussian_noise(
    pixels: Float[Tensor, "n c h w"], sigma: float, generator: Generator
) -> Float[Tensor, "n c h w"]:
    """Independent normal noise.

        x + sigma z

    Args:
        sigma: Standard deviation, in pixel values.
    """
    noise = torch.randn(pixels.shape, generator=generator, device=pixels.device)
    return noise.mul_(sigma).add_(pixels).clamp_(0, 1)


def shot_noise(
    pixels: Float[Tensor, "n c h w"], photons: float, generator: Generator
) -> Float[Tensor, "n c h w"]:
    """Light counted in photons.

        Poisson(x photons) / photons

    Args:
        photons: Mean count of a white pixel.
    """
    return torch.poisson(pixels * photons, generator=generator).div_(photons).clamp_(max=1)


def impulse_noise(
    pixels: Float[Tensor, "n c h w"], amount: float, generator: Generator
) -> Float[Tensor, "n c h w"]:
    """Salt and pepper, each channel on its own.

    Args:
        amount: Share of values that become 0 or 1, half of them each.
    """
    draw = torch.rand(pixels.shape, generator=generator, device=pixels.device)
    # Pushed out of [0, 1] by more than its width, a value is cut to the end it was pushed to.
    return pixels.where(draw >= amount, (draw < amount / 2).to(pixels.dtype))
