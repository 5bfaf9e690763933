"""JPEG, batched: everything a codec loses, without the file in between.

What is written to a file and read back is the same integers; the loss is in rounding colours to
8 bits, halving the resolution of two of them, and rounding cosine coefficients to multiples of a
table. These steps are done on all blocks of all images at once.

Source: ITU-T T.81 (1992), Annex A and tables K.1 and K.2; the quality scale, 4:2:0 and the
interpolation of colours are libjpeg's defaults.
"""

import functools

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

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
