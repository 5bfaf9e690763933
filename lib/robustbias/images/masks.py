"""Where the object is, and drawings made of that alone: silhouettes and contours.

Both are black on white, as the silhouettes and edge drawings of Geirhos et al. 2019
(openreview.net/forum?id=Bygh9j09KX); a network that never saw a white ground sees one here.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from robustbias.errors import UserError

LUMA = (0.299, 0.587, 0.114)  # of red, green, blue (ITU-R BT.601)


def object_masks(drawings: Float[Tensor, "n c h w"]) -> Bool[Tensor, "n h w"]:
    """The object of each drawing, whichever of object and ground is the dark one.

    Where an alpha channel varies, it is the drawing. Else the luminance is split in two by Otsu's
    threshold, and the ground is what most of the image's border shows.

    Args:
        drawings: One channel (grey), three (RGB) or four (RGB and alpha), in [0, 1].

    Raises:
        UserError: Another number of channels.
    """
    channels = drawings.shape[1]
    if channels not in (1, 3, 4):
        raise UserError(f"drawings of {channels} channels; expected 1 (grey), 3 (RGB) or 4 (RGBA).")
    grey = luminance(drawings[:, :3]) if channels > 1 else drawings
    dark = grey <= otsu(grey)[:, None, None, None]
    border = torch.cat([dark[..., 0, :], dark[..., -1, :], dark[..., 0], dark[..., -1]], -1)
    ground_is_dark = border.float().mean((1, 2)) > 0.5
    inside = dark ^ ground_is_dark[:, None, None, None]
    if channels == 4:
        alpha = drawings[:, 3:]
        drawn = (alpha.amax((1, 2, 3)) - alpha.amin((1, 2, 3))) > 0.5
        inside = torch.where(drawn[:, None, None, None], alpha > 0.5, inside)
    return inside[:, 0]


def silhouettes(inside: Bool[Tensor, "n h w"]) -> UInt8[Tensor, "n 3 h w"]:
    """Black objects on white."""
    return _black_on_white(inside)


def contours(inside: Bool[Tensor, "n h w"]) -> UInt8[Tensor, "n 3 h w"]:
    """Black outlines on white: the object's pixels that touch the ground, one pixel wide."""
    outside = (~inside).float()[:, None]
    return _black_on_white(inside & (F.max_pool2d(outside, 3, 1, 1)[:, 0] > 0))


def luminance(pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1 h w"]:
    """Weighted mean of the channels."""
    weights = torch.tensor(LUMA, device=pixels.device, dtype=pixels.dtype)
    return (pixels * weights[:, None, None]).sum(1, keepdim=True)


def otsu(grey: Float[Tensor, "n 1 h w"], bins: int = 256) -> Float[Tensor, " n"]:
    """For each image the grey level that parts its pixels into the two most distant classes.

        argmax over t of (m(1) w(t) - m(t))² / (w(t) (1 - w(t)))

    with w(t) the share of pixels up to t and m(t) the sum of their levels. Levels are counted in
    `bins` steps; the threshold is the upper end of a step. An image of one level gets that level.

    Source: Otsu 1979, doi:10.1109/TSMC.1979.4310076.
    """
    level = (grey.flatten(1) * bins).long().clamp(0, bins - 1)
    ones = torch.ones_like(level, dtype=grey.dtype)
    counts = torch.zeros(len(grey), bins, device=grey.device, dtype=grey.dtype)
    share = counts.scatter_add(1, level, ones) / level.shape[1]
    middle = (torch.arange(bins, device=grey.device, dtype=grey.dtype) + 0.5) / bins
    weight, mean = share.cumsum(1), (share * middle).cumsum(1)
    apart = (mean[:, -1:] * weight - mean) ** 2 / (weight * (1 - weight)).clamp_min(1e-12)
    apart = apart.masked_fill((weight < 1e-6) | (weight > 1 - 1e-6), -1.0)
    # every step between two classes with nothing in between is as good: take the middle one
    best = apart >= apart.amax(1, keepdim=True) - 1e-9
    at = (best * torch.arange(1, bins + 1, device=grey.device)).sum(1) / best.sum(1)
    return torch.where(apart.amax(1) < 0, grey.flatten(1).amax(1), at / bins)


def _black_on_white(drawn: Bool[Tensor, "n h w"]) -> UInt8[Tensor, "n 3 h w"]:
    return torch.where(drawn, 0, 255).to(torch.uint8)[:, None].expand(-1, 3, -1, -1).contiguous()
