"""Corruptions that blur: defocus, frosted glass, motion and zoom."""

import functools

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Generator, Tensor

from robustbias.images.corruptions.resampling import (
    gaussian_blurred,
    motion_blurred,
    transform_length,
    zoomed,
)


def defocus_blur(
    pixels: Float[Tensor, "n c h w"], lens: tuple[float, float], generator: Generator
) -> Float[Tensor, "n c h w"]:
    """A disk with softened rim in place of each point; borders mirrored about the edge pixels.

    Args:
        lens: Radius of the disk and sigma of its rim, in pixels.
    """
    kernel = torch.from_numpy(disk(*lens)).to(pixels.device)
    side, r = pixels.shape[-1], len(kernel) // 2
    padded = F.pad(pixels, [r] * 4, mode="reflect")
    size = [transform_length(side + 2 * r)] * 2
    # A disk is symmetric: convolution and correlation are the same.
    spectrum = torch.fft.rfft2(padded, s=size).mul_(torch.fft.rfft2(kernel, s=size))
    blurred = torch.fft.irfft2(spectrum, s=size)
    return blurred[..., 2 * r : 2 * r + side, 2 * r : 2 * r + side].clamp(0, 1)


@functools.lru_cache(maxsize=32)
def disk(radius: float, rim: float) -> np.ndarray:
    """The kernel of `defocus_blur`: a disk of sum 1 under a Gaussian of 3 or (wide) 5 taps."""
    reach = max(8, int(radius))
    line = np.arange(-reach, reach + 1)
    kernel = (line[:, None] ** 2 + line**2 <= radius**2).astype(np.float64)
    taps = np.arange(-1, 2) if radius <= 8 else np.arange(-2, 3)
    weights = np.exp(-0.5 * (taps / rim) ** 2)
    weights /= weights.sum()
    kernel /= kernel.sum()
    edge = len(taps) // 2
    for axis in (0, 1):
        widths = [(edge, edge) if axis == a else (0, 0) for a in (0, 1)]
        wide = np.pad(kernel, widths, mode="reflect")
        kernel = sum(
            weight * np.take(wide, np.arange(len(line)) + k, axis)
            for k, weight in enumerate(weights)
        )
    columns = np.flatnonzero(kernel.any(0))
    extent = slice(columns[0], columns[-1] + 1)
    return kernel[extent, extent].astype(np.float32)


def glass_blur(
    pixels: Float[Tensor, "n c h w"], glass: tuple[float, int, int], generator: Generator
) -> Float[Tensor, "n c h w"]:
    """Seen through frosted glass: blurred, pixels displaced, blurred again.

    Args:
        glass: Sigma of both blurs, largest displacement (pixels), and how often pixels move.
    """
    sigma, reach, times = glass
    n, c, h, w = pixels.shape
    # Eight bits in between, as published: the brightness lost (half a level) is part of it.
    soft = gaussian_blurred(pixels, sigma).mul_(255).floor_().div_(255)
    source = None
    for _ in range(times):
        offsets = torch.randint(
            -reach, reach, (2, n, h, w), generator=generator, device=pixels.device
        )
        step = displaced(offsets, reach)
        source = step if source is None else source.gather(1, step)
    moved = soft.flatten(2).gather(2, source[:, None].expand(n, c, h * w)).view_as(soft)
    return gaussian_blurred(moved, sigma).clamp_(0, 1)


def displaced(offsets: Int64[Tensor, "two n h w"], reach: int) -> Int64[Tensor, "n hw"]:
    """Where each pixel's value comes from after one round of displacements.

    The published code walks over the pixels from the bottom right and copies into each the value
    at its offset, which is an already replaced one below and to the right. (It reads like a swap;
    of numpy's views only the copy remains.) A source is thus the end of a chain of such steps.
    Here all chains are followed at once, twice as far in each turn: 64 steps, while the chance to
    go on is at most 0.42 per step.

    Args:
        offsets: Rows, then columns, in [-reach, reach).
    """
    _, n, h, w = offsets.shape
    y = torch.arange(h, device=offsets.device)[:, None]
    x = torch.arange(w, device=offsets.device)
    place = (y * w + x).flatten()
    moving = (y > reach) & (y <= h - reach) & (x > reach) & (x <= w - reach)
    target = place + ((offsets[0] * w + offsets[1]) * moving).flatten(1)
    if reach == 1:  # offsets are -1 and 0: nothing replaced is ever copied
        return target
    goes_on = (target > place) & moving.flatten()[target]
    # Ends of chains point behind the image, where every place points to itself.
    target = torch.where(goes_on, target, target + h * w)
    ends = (place + h * w).expand(n, -1)
    for _ in range(6):
        target = torch.cat([target, ends], 1).gather(1, target)
    return target - h * w


def motion_blur(
    pixels: Float[Tensor, "n c h w"], motion: tuple[int, float], generator: Generator
) -> Float[Tensor, "n c h w"]:
    """A camera moved along a line within 45 degrees of the horizontal.

    Args:
        motion: Radius (the streak is 2 radius + 1 long) and sigma of its decay, in pixels.
    """
    return motion_blurred(pixels, *motion, (-45.0, 45.0), generator).clamp_(0, 1)


def zoom_blur(
    pixels: Float[Tensor, "n c h w"], zoom: tuple[float, float], generator: Generator
) -> Float[Tensor, "n c h w"]:
    """Mean of the image and of its enlargements by 1, 1 + step, ... below stop.

    Args:
        zoom: Stop and step.
    """
    factors = np.arange(1, *zoom)  # numpy's rounding decides whether the stop is still in
    total = pixels.clone()
    for factor in factors:
        total += zoomed(pixels, float(factor))
    return total.div_(len(factors) + 1).clamp_(0, 1)
