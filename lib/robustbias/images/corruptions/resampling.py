"""What several corruptions share: Gaussian blur as matrices, zoom, and motion by FFT."""

import functools
import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor


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
