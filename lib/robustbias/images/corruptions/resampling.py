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
    images: Float[Tensor, "n c h w"],
    radius: int,
    sigma: float,
    degrees: tuple[float, float],
    generator: Generator,
) -> Float[Tensor, "n c h w"]:
    """A blur to one side along a line, its angle drawn for each image.

        y(p) = sum_i k_i x(p + d_i),  k_i ~ exp(-i^2 / 2 sigma^2),  i = 0 .. 2 radius,

    with d_i the whole pixel nearest to i steps along the line, and edges repeated: ImageMagick's
    motion blur. All images are blurred in one product of spectra.

    Args:
        degrees: Range of the angle; 0 is along x, 90 along y (down).
    """
    low, high = degrees
    angle = torch.rand(len(images), generator=generator, device=images.device)
    return streaked(images, radius, sigma, torch.deg2rad(low + (high - low) * angle))


def streaked(
    images: Float[Tensor, "n c h w"], radius: int, sigma: float, angle: Float[Tensor, " n"]
) -> Float[Tensor, "n c h w"]:
    """`motion_blurred` at given angles (radians)."""
    h, w = images.shape[-2:]
    reach = 2 * radius
    steps = torch.arange(reach + 1, device=images.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
    kernel = kernel / kernel.sum()
    dx = torch.ceil(steps * torch.cos(angle)[:, None] - 0.5)
    dy = torch.ceil(steps * torch.sin(angle)[:, None] - 0.5)
    padded = F.pad(images, [reach] * 4, mode="replicate")
    rows, columns = padded.shape[-2:]
    # The kernel's spectrum, tap by tap: no scattered sums, whose order would vary on a GPU.
    fy = torch.fft.fftfreq(rows, device=images.device)[:, None]
    fx = torch.fft.rfftfreq(columns, device=images.device)
    turn = 2 * math.pi
    down = torch.polar(kernel.expand(len(dy), rows, -1).contiguous(), turn * fy * dy[:, None])
    along = turn * dx[..., None] * fx
    across = torch.polar(torch.ones_like(along), along)
    spectrum = (down @ across)[:, None]
    blurred = torch.fft.irfft2(torch.fft.rfft2(padded) * spectrum, s=(rows, columns))
    return blurred[..., reach : reach + h, reach : reach + w]
