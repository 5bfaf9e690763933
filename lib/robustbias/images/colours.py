"""The eleven basic colour names, given to pixels by the nearest of several shades of each.

Names: Berlin and Kay 1969. Shades: colour keywords of CSS (W3C, CSS Color Module Level 4, section
6.1), each counted with the basic name that it is a shade of. Distances are taken in CIELAB (white
D65), where they are roughly what people see.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

SHADES = {
    "black": (0x000000,),
    "blue": (0x0000FF, 0x00008B, 0x4169E1, 0x4682B4, 0x87CEEB, 0xADD8E6),
    "brown": (0xA52A2A, 0x8B4513, 0xA0522D, 0xCD853F, 0xD2B48C, 0xBC8F8F),
    "grey": (0x808080, 0x696969, 0xA9A9A9),
    "green": (0x008000, 0x006400, 0x2E8B57, 0x556B2F, 0x6B8E23, 0x8FBC8F, 0x90EE90),
    "orange": (0xFFA500, 0xFF8C00),
    "pink": (0xFFC0CB, 0xFF69B4),
    "purple": (0x800080, 0x4B0082, 0x9370DB, 0xD8BFD8),
    "red": (0xFF0000, 0x8B0000, 0xB22222, 0xDC143C),
    "white": (0xFFFFFF, 0xF5F5F5),
    "yellow": (0xFFFF00, 0xFFD700, 0xF0E68C),
}
# linear sRGB to XYZ over the white point (IEC 61966-2-1)
_XYZ = (
    (0.4124 / 0.95047, 0.3576 / 0.95047, 0.1805 / 0.95047),
    (0.2126, 0.7152, 0.0722),
    (0.0193 / 1.08883, 0.1192 / 1.08883, 0.9505 / 1.08883),
)


def named(pixels: Float[Tensor, "n 3 h w"]) -> UInt8[Tensor, "n h w"]:
    """Label of each pixel: 1 + the place of its colour in `SHADES`.

    Args:
        pixels: sRGB in [0, 1].
    """
    codes = [code for own in SHADES.values() for code in own]
    rgb = torch.tensor([[code >> 16, code >> 8 & 255, code & 255] for code in codes]) / 255
    shades = lab(rgb[:, :, None, None].to(pixels))[:, :, 0, 0]
    label = torch.tensor([1 + i for i, own in enumerate(SHADES.values()) for _ in own])
    nearest = [
        torch.cdist(part.permute(0, 2, 3, 1), shades).argmin(-1) for part in lab(pixels).split(64)
    ]
    return label.to(torch.uint8).to(pixels.device)[torch.cat(nearest)]


def lab(pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """L* in [0, 100], a* and b* of sRGB pixels in [0, 1]. Source: CIE 15:2004."""
    linear = torch.where(pixels <= 0.04045, pixels / 12.92, ((pixels + 0.055) / 1.055) ** 2.4)
    xyz = torch.einsum("ij,njhw->nihw", torch.tensor(_XYZ).to(pixels), linear)
    f = torch.where(xyz > (6 / 29) ** 3, xyz ** (1 / 3), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)
