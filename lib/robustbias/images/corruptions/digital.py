"""Corruptions of processing: contrast, elastic transform and pixelation (JPEG is in jpeg.py)."""

import functools

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from robustbias.images.corruptions.resampling import gaussian_blurred


def contrast(
    pixels: Float[Tensor, "n c h w"], share: float, generator: Generator
) -> Float[Tensor, "n c h w"]:
    """Each channel drawn towards its mean.

    mean + share (x - mean)
    """
    means = pixels.mean((2, 3), keepdim=True)
    return (pixels * share).add_(means * (1 - share)).clamp_(0, 1)


def elastic_transform(
    pixels: Float[Tensor, "n c h w"], stretch: tuple[float, ...], generator: Generator
) -> Float[Tensor, "n c h w"]:
    """A random affine map of a triangle, then a smooth random displacement of every pixel.

    Args:
        stretch: Displacement times this number of pixels (before smoothing), sigma of the
            smoothing, and how far each corner of the triangle may move, in pixels.
    """
    amount, sigma, corner = stretch
    n, _, side, _ = pixels.shape
    device = pixels.device
    middle, arm = side // 2, side // 3
    triangle = torch.tensor([[arm, arm], [arm, -arm], [-arm, -arm]], device=device) + middle
    moves = torch.rand(n, 3, 2, generator=generator, device=device) * 2 - 1
    back = affine_back(triangle.float(), corner * moves)
    grid = _grid(side, device)
    bent = sampled(pixels, grid @ back[:, None, :2] + back[:, None, None, 2], align_corners=True)
    if amount == 0:
        return bent.clamp_(0, 1)
    fields = torch.rand(n, 2, side, side, generator=generator, device=device) * 2 - 1
    fields = gaussian_blurred(fields, sigma, truncate=3.0, border="reflect") * amount
    return sampled(bent, grid + fields.movedim(1, -1), align_corners=False).clamp_(0, 1)


def affine_back(
    triangle: Float[Tensor, "3 2"], moves: Float[Tensor, "n 3 2"]
) -> Float[Tensor, "n 3 2"]:
    """Affine maps B with (x, y, 1) B the place in the image that the new place (x, y) shows."""
    ones = torch.ones(len(moves), 3, 1, device=moves.device)
    return torch.linalg.solve(
        torch.cat([triangle + moves, ones], -1), triangle.expand(len(moves), 3, 2)
    )


def sampled(
    images: Float[Tensor, "n c h h"], places: Float[Tensor, "n h h 2"], *, align_corners: bool
) -> Float[Tensor, "n c h h"]:
    """Images read bilinearly at (x, y) in pixels, mirrored outside.

    Args:
        align_corners: Mirrored about the middle of the edge pixels (OpenCV's reflect 101), or about
            their outer edge (SciPy's reflect).
    """
    side = images.shape[-1]
    scaled = places * (2 / (side - 1)) - 1 if align_corners else (places * 2 + 1) / side - 1
    return F.grid_sample(
        images, scaled, mode="bilinear", padding_mode="reflection", align_corners=align_corners
    )


def _grid(side: int, device: torch.device) -> Float[Tensor, "h h 2"]:
    line = torch.arange(side, device=device, dtype=torch.float32)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], -1)


def pixelate(
    pixels: Float[Tensor, "n c h w"], share: float, generator: Generator
) -> Float[Tensor, "n c h w"]:
    """Shrunk by averaging whole pixels, enlarged by repeating them.

    Args:
        share: Side of the shrunk image over that of the image.
    """
    n, c, side, _ = pixels.shape
    small = int(side * share)
    taken, weights = (torch.from_numpy(a).to(pixels.device) for a in box_taps(side, small))
    rows = pixels.new_zeros(n, c, small, side)
    for index, weight in zip(taken, weights, strict=True):
        rows.addcmul_(pixels.index_select(2, index), weight[:, None])
    shrunk = pixels.new_zeros(n, c, small, small)
    for index, weight in zip(taken, weights, strict=True):
        shrunk.addcmul_(rows.gather(3, index.expand_as(shrunk)), weight)
    nearest = (torch.arange(side, device=pixels.device) + 0.5).mul_(small / side).long()
    wide = shrunk.gather(3, nearest.expand(n, c, small, side))
    return wide.index_select(2, nearest)


@functools.lru_cache(maxsize=32)
def box_taps(side: int, small: int) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels of a line a box filter averages (taps small), and their weights.

    Source: Pillow's Image.Resampling.BOX, which counts a pixel whose middle is inside.
    """
    scale = side / small
    middles = (np.arange(small) + 0.5) * scale
    first = (middles - scale / 2 + 0.5).astype(np.int64).clip(0)
    last = (middles + scale / 2 + 0.5).astype(np.int64).clip(max=side)
    index = first + np.arange((last - first).max())[:, None]
    index = np.minimum(index, last - 1)
    weights = (first + np.arange(len(index))[:, None] < last) / (last - first)
    return index, weights.astype(np.float32)
