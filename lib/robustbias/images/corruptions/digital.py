"""Corruptions of processing: contrast, elastic transform, pixelation and JPEG."""

import functools

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from robustbias.images.corruptions.blur import gaussian_blurred


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
    """Pixels along a line that a box filter averages (taps small), and their weights.

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


# JPEG's loss is in rounding colours to 8 bits, halving the resolution of two of them, and rounding
# cosine coefficients to multiples of a table: done here on all blocks of all images at once.
#
# Source: ITU-T T.81 (1992), Annex A and tables K.1 and K.2; the quality scale, 4:2:0 and the
# interpolation of colours are libjpeg's defaults.
# fmt: off
_LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)

_CHROMA = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99,
    24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
)

# fmt: on
# Halves are common, since everything is made of whole numbers. libjpeg rounds samples up and
# coefficients away from zero, in integers: a nudge greater than the error of a float sum does it.
_HALF = 0.5 + 1e-4
_AWAY = 1 + 1e-5


def jpeg_compression(
    pixels: Float[Tensor, "n 3 h w"], quality: int, generator: Generator
) -> Float[Tensor, "n 3 h w"]:
    """Images as they come back from a JPEG file. Sides are multiples of 16.

    Where many coefficients lie halfway between two steps, as in images that were JPEG files before,
    they may round to the other one than in libjpeg's integers. On 200 images of Tiny-ImageNet the
    mean difference from Pillow was 0.2, 2.7 and 1.2 levels of 255 at qualities 65, 50 and 25; on
    drawn images it is below 0.4.

    Args:
        quality: 1 to 100, libjpeg's scale.
    """
    red, green, blue = (pixels * 255).round_().unbind(1)
    luma = (red * 0.299).add_(green, alpha=0.587).add_(blue, alpha=0.114)
    # Colours about 0 instead of 128; a full-resolution byte first, then the mean of 4.
    colours = torch.stack([(blue - luma).mul_(1 / 1.772), (red - luma).mul_(1 / 1.402)], 1)
    colours = _halved(colours.round_())
    # libjpeg rounds halves of these means down and up in turn along a row.
    colours[..., ::2].add_(0.25)
    colours[..., 1::2].add_(0.5)
    colours.floor_()
    luma = _quantised(luma.round_().sub_(128)[:, None], quality, _LUMA)[:, 0].add_(128)
    colours = _quantised(colours, quality, _CHROMA)
    colours = _doubled(_doubled(colours).mT).mT.add(_HALF).floor_()
    out = torch.empty_like(pixels)
    torch.add(luma, colours[:, 1], alpha=1.402, out=out[:, 0])
    torch.add(luma, colours[:, 0], alpha=-0.114 * 1.772 / 0.587, out=out[:, 1])
    out[:, 1].add_(colours[:, 1], alpha=-0.299 * 1.402 / 0.587)
    torch.add(luma, colours[:, 0], alpha=1.772, out=out[:, 2])
    return out.round_().clamp_(0, 255).div_(255)


def _halved(planes: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
    """Means of 2 x 2 pixels: rows first, which lie together in memory."""
    rows = (planes[:, :, ::2] + planes[:, :, 1::2]).mul_(0.25)
    return rows[..., ::2] + rows[..., 1::2]


def _doubled(planes: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w"]:
    """Twice as many rows, each 3/4 of the nearest and 1/4 of the next nearest."""
    above = torch.cat([planes[:, :, :1], planes[:, :, :-1]], 2)
    below = torch.cat([planes[:, :, 1:], planes[:, :, -1:]], 2)
    pairs = [torch.lerp(planes, other, 0.25) for other in (above, below)]
    return torch.stack(pairs, 3).flatten(2, 3)


def _quantised(
    planes: Float[Tensor, "n c h w"], quality: int, table: tuple[int, ...]
) -> Float[Tensor, "n c h w"]:
    """Planes whose 8 x 8 blocks have cosine coefficients in whole multiples of the table."""
    n, c, h, w = planes.shape
    there, back = (m.to(planes.device) for m in _transforms(quality, table))
    blocks = planes.view(n, c, h // 8, 8, w // 8, 8).transpose(3, 4).reshape(-1, 64)
    blocks = torch.mm(torch.mm(blocks, there).round_(), back)
    blocks = blocks.add_(_HALF).floor_().clamp_(-128, 127).view(n, c, h // 8, w // 8, 8, 8)
    return blocks.transpose(3, 4).reshape(n, c, h, w)


@functools.lru_cache(maxsize=64)
def _transforms(quality: int, table: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The cosine transform of flattened blocks over the table, and its inverse."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps = np.clip((np.array(table) * scale + 50) // 100, 1, 255)
    k = np.arange(8)
    cosine = np.cos(np.pi * (2 * k + 1) * k[:, None] / 16) / 2
    cosine[0] /= np.sqrt(2)
    transform = np.kron(cosine, cosine)  # orthonormal: its transpose is its inverse
    there, back = transform.T / steps * _AWAY, transform * steps[:, None]
    return torch.from_numpy(there).float(), torch.from_numpy(back).float()
