"""Corruptions of single values: Gaussian, shot and impulse noise."""

import functools

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

_COUNTS = 512  # more photons than this are never counted: 250 in white, and a sd of 16


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
    if pixels.device.type == "cpu":
        counts = _counted(pixels * 255, photons, generator)
    else:
        counts = torch.poisson(pixels * photons, generator=generator)
    return counts.div_(photons).clamp_(max=1)


def _counted(levels: Tensor, photons: float, generator: Generator) -> Tensor:
    """Poisson counts by Walker's alias method, faster than torch.poisson on a CPU.

    Counts of the whole 8-bit level are looked up; what a pixel has above its level, if any has, is
    counted by torch.poisson and added: sums of Poisson counts are Poisson counts.
    """
    whole = (levels + 1e-3).floor_()
    stay, alias = (torch.from_numpy(table) for table in _alias_tables(photons))
    draw = torch.rand(levels.shape, generator=generator).mul_(_COUNTS)
    place = draw.floor()
    index = torch.add(place, whole, alpha=_COUNTS).int().flatten()
    stays = draw.sub_(place).flatten() < stay.index_select(0, index)
    counts = torch.where(stays, place.flatten(), alias.index_select(0, index)).view_as(levels)
    rest = (levels - whole).clamp_(min=0)
    if bool((rest > 2e-3).any()):
        counts += torch.poisson(rest * (photons / 255), generator=generator)
    return counts


@functools.lru_cache(maxsize=16)
def _alias_tables(photons: float) -> tuple[np.ndarray, np.ndarray]:
    """For each of 256 levels and each count: the chance to stay, and the count to go to if not."""
    rate = np.arange(256)[:, None] * photons / 255
    count = np.arange(_COUNTS)
    factorials = np.cumsum(np.log(np.maximum(count, 1)))
    logs = count * np.log(np.maximum(rate, 1e-300)) - rate - factorials
    mass = np.exp(logs)
    mass *= _COUNTS / mass.sum(1, keepdims=True)
    stay, alias = np.ones_like(mass), np.tile(count, (256, 1))
    rows, low = np.arange(256), mass.copy()
    for _ in range(_COUNTS):  # the poorest count is filled up by the richest and closed
        poor, rich = low.argmin(1), mass.argmax(1)
        short = 1 - mass[rows, poor]
        stay[rows, poor], alias[rows, poor] = mass[rows, poor], rich
        for table in (mass, low):
            table[rows, rich] -= short
        mass[rows, poor], low[rows, poor] = -np.inf, np.inf
    return stay.astype(np.float32).flatten(), alias.astype(np.float32).flatten()


def impulse_noise(
    pixels: Float[Tensor, "n c h w"], amount: float, generator: Generator
) -> Float[Tensor, "n c h w"]:
    """Salt and pepper, independently in each channel.

    Args:
        amount: Share of values that become 0 or 1, half of them each.
    """
    draw = torch.rand(pixels.shape, generator=generator, device=pixels.device)
    # Pushed out of [0, 1] by more than its width, a value is cut to the end it was pushed to.
    return pixels.where(draw >= amount, (draw < amount / 2).to(pixels.dtype))
