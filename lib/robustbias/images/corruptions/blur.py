"""Corruptions that blur: defocus, frosted glass, motion and zoom."""

import functools
import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Generator, Tensor


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


# Gaussian blur as matrices, zoom, and motion by FFT: shared with other corruptions


@functools.lru_cache(maxsize=64)
def gaussian_weights(side: int, sigma: float, truncate: float, border: str) -> np.ndarray:
    """The matrix (side side) that blurs a line; blurring an image is G x G^T.

    Args:
        sigma: Pixels; 0 leaves the line as it is.
        truncate: The kernel ends after so many sigmas.
        border: "nearest" repeats the edge, "reflect" mirrors the line as often as needed.

    Source: the conventions of scipy.ndimage.gaussian_filter1d.
    """
    if sigma == 0:
        return np.eye(side, dtype=np.float32)
    radius = int(truncate * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    at = np.arange(side)[:, None] + offsets
    if border == "nearest":
        at = at.clip(0, side - 1)
    else:
        at = at % (2 * side)
        at = np.minimum(at, 2 * side - 1 - at)
    matrix = np.zeros((side, side))
    np.add.at(matrix, (np.arange(side)[:, None], at), kernel / kernel.sum())
    return matrix.astype(np.float32)


def gaussian_blurred(
    images: Float[Tensor, "n c h h"], sigma: float, truncate: float = 4.0, border: str = "nearest"
) -> Float[Tensor, "n c h h"]:
    """Gaussian blur of square images, exact at the borders however wide the kernel."""
    weights = gaussian_weights(images.shape[-1], sigma, truncate, border)
    matrix = torch.from_numpy(weights).to(images.device)
    return matrix @ (images @ matrix.T)


def crop_side(side: int, factor: float) -> int:
    """Side of the central crop that a zoom enlarges."""
    return math.ceil(side / factor)


def enlarged(crop: Float[Tensor, "n c k k"], factor: float, side: int) -> Tensor:
    """A crop enlarged bilinearly, corners kept, and cut to side x side about the middle."""
    size = round(crop.shape[-1] * factor)
    large = F.interpolate(crop, size=(size, size), mode="bilinear", align_corners=True)
    start = (size - side) // 2
    return large[..., start : start + side, start : start + side]


def zoomed(images: Float[Tensor, "n c h h"], factor: float) -> Float[Tensor, "n c h h"]:
    """The middle of the images, `factor` times as large."""
    side = images.shape[-1]
    crop = crop_side(side, factor)
    start = (side - crop) // 2
    return enlarged(images[..., start : start + crop, start : start + crop], factor, side)


def motion_blurred(
    images: Float[Tensor, "n c h h"],
    radius: int,
    sigma: float,
    degrees: tuple[float, float],
    generator: Generator,
) -> Float[Tensor, "n c h h"]:
    """A blur to one side along a line, its angle drawn for each image.

    Args:
        radius: See `streaked`.
        sigma: See `streaked`.
        degrees: Range of the angle; 0 is along x, 90 along y (down).
    """
    low, high = degrees
    turn = torch.rand(len(images), generator=generator, device=images.device)
    angle = torch.deg2rad(low + (high - low) * turn)
    widest = torch.deg2rad(torch.linspace(low, high, 181))
    ahead = [torch.cos(widest), torch.sin(widest)]
    room = [math.ceil(2 * radius * float(way.max())) for step in ahead for way in (-step, step)]
    return streaked(images, radius, sigma, angle, [max(0, r) for r in room])


def streaked(
    images: Float[Tensor, "n c h h"],
    radius: int,
    sigma: float,
    angle: Float[Tensor, " n"],
    room: list[int],
) -> Float[Tensor, "n c h h"]:
    """Images blurred along lines at given angles (radians), all in one product of spectra.

        y(p) = sum_i k_i x(p + d_i),  k_i ~ exp(-i^2 / 2 sigma^2),  i = 0 .. 2 radius,

    with d_i the whole pixel nearest to i steps along the line, and edges repeated.

    Args:
        room: How far the lines reach to the left, right, top and bottom, in pixels.

    Source: ImageMagick's MotionBlurImage, which the published code calls.
    """
    side, device = images.shape[-1], images.device
    left, _, top, _ = room
    steps = torch.arange(2 * radius + 1, device=device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
    kernel = kernel / kernel.sum()
    dx = torch.ceil(steps * torch.cos(angle)[:, None] - 0.5)
    dy = torch.ceil(steps * torch.sin(angle)[:, None] - 0.5)
    padded = F.pad(images, room, mode="replicate")
    rows, columns = size = [transform_length(length) for length in padded.shape[-2:]]
    # The kernels' spectra, tap by tap: no scattered sums, whose order would vary on a GPU.
    fy = 2 * math.pi * torch.fft.fftfreq(rows, device=device)[:, None]
    fx = 2 * math.pi * torch.fft.rfftfreq(columns, device=device)
    down, across = fy * dy[:, None], dx[..., None] * fx
    down = torch.polar(kernel.expand_as(down).contiguous(), down)
    spectra = (down @ torch.polar(torch.ones_like(across), across))[:, None]
    blurred = torch.fft.irfft2(torch.fft.rfft2(padded, s=size).mul_(spectra), s=size)
    return blurred[..., top : top + side, left : left + side]


def transform_length(length: int) -> int:
    """The next length whose Fourier transform is fast: no prime factor above 5."""
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 1
