"""Families of procedural texture, drawn once as an atlas and sampled anywhere: one per category
(`FAMILIES`) and a few that belong to none (`FOREIGN`).

Each family is a function of position on a square that tiles; every field is scaled to zero mean
and unit standard deviation, so that no family is told from another by brightness or contrast.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

Family = Callable[[Tensor, Tensor, torch.Generator], Tensor]
SIDE = 512  # atlas pixels; one image pixel is ZOOM atlas pixels, so that sampling does not alias
ZOOM = 2.0
_TURN = 2 * math.pi / SIDE


def texture_atlas(
    generator: torch.Generator, families: dict[str, Family] | None = None
) -> Float[Tensor, "f 1 512 512"]:
    """The families on the generator's device, in their order; those of `FAMILIES` when None."""
    device = generator.device
    line = torch.arange(SIDE, device=device, dtype=torch.float32)
    y, x = torch.meshgrid(line, line, indexing="ij")
    fields = torch.stack([family(x, y, generator) for family in (families or FAMILIES).values()])
    fields = fields - fields.mean((1, 2), keepdim=True)
    fields = fields / fields.std((1, 2), keepdim=True)
    return fields.clamp(-2.5, 2.5)[:, None]


def _wave(position: Tensor, cycles: int) -> Tensor:
    """A sine with a whole number of cycles across the atlas, so that the edges meet."""
    return torch.sin(_TURN * cycles * position)


def _band(low: float, high: float, generator: torch.Generator) -> Tensor:
    """Gaussian noise with frequencies between two bounds (cycles per atlas pixel)."""
    noise = torch.randn(SIDE, SIDE, generator=generator, device=generator.device)
    fy = torch.fft.fftfreq(SIDE, device=noise.device)[:, None]
    fx = torch.fft.rfftfreq(SIDE, device=noise.device)[None]
    radius = (fx**2 + fy**2).sqrt()
    return torch.fft.irfft2(
        torch.fft.rfft2(noise) * ((radius > low) & (radius < high)), s=(SIDE,) * 2
    )


def _bricks(x: Tensor, y: Tensor) -> Tensor:
    row = torch.div(y, 16, rounding_mode="floor")
    mortar = ((x + 16 * (row % 2)) % 32 < 5) | (y % 16 < 5)
    return mortar.float()


def _hexagons(x: Tensor, y: Tensor) -> Tensor:
    return (
        torch.cos(_TURN * 32 * x)
        + torch.cos(_TURN * (16 * x + 28 * y))
        + torch.cos(_TURN * (16 * x - 28 * y))
    )


def _rings(x: Tensor, y: Tensor) -> Tensor:
    u, v = x % 32 - 16, y % 32 - 16
    return torch.cos((u**2 + v**2).sqrt() * (2 * math.pi / 9))


def _scales(x: Tensor, y: Tensor) -> Tensor:
    """Rows of overlapping half discs, every other row shifted by half a disc."""
    row = torch.div(y, 16, rounding_mode="floor")
    u, v = (x + 16 * (row % 2)) % 32 - 16, y % 16
    return ((u**2 + v**2).sqrt() - 16).clamp(-8, 8)


def _weave(x: Tensor, y: Tensor) -> Tensor:
    """Strands of four lines, across and along in turn."""
    across = (torch.div(x, 32, rounding_mode="floor") + torch.div(y, 32, rounding_mode="floor")) % 2
    return torch.where(across > 0, _wave(x, 64), _wave(y, 64))


def _crosses(x: Tensor, y: Tensor) -> Tensor:
    u, v = (x % 32 - 15.5).abs(), (y % 32 - 15.5).abs()
    return (((u < 3) & (v < 11)) | ((v < 3) & (u < 11))).float()


FAMILIES: dict[str, Family] = {
    "vertical stripes": lambda x, y, g: _wave(x, 48),
    "horizontal stripes": lambda x, y, g: _wave(y, 48),
    "rising stripes": lambda x, y, g: _wave(x + y, 32),
    "falling stripes": lambda x, y, g: _wave(x - y, 32),
    "checks": lambda x, y, g: torch.sign(_wave(x, 32) * _wave(y, 32)),
    "dots": lambda x, y, g: ((_wave(x, 36) * _wave(y, 36)) > 0.45).float(),
    "grid": lambda x, y, g: torch.maximum(_wave(x, 36), _wave(y, 36)),
    "zigzag": lambda x, y, g: _wave(y + 16 * (2 * ((x / 32) % 1) - 1).abs(), 32),
    "waves": lambda x, y, g: _wave(x + 9 * _wave(y, 16), 32),
    "fine grain": lambda x, y, g: _band(0.15, 0.25, g),
    "coarse grain": lambda x, y, g: _band(0.06, 0.09, g),
    "blobs": lambda x, y, g: torch.sign(_band(0.03, 0.05, g)),
    "bricks": lambda x, y, g: _bricks(x, y),
    "hexagons": lambda x, y, g: _hexagons(x, y),
    "rings": lambda x, y, g: _rings(x, y),
    "wood": lambda x, y, g: _wave(y + 14 * _wave(x, 3) + 5 * _wave(x, 7), 64),
}

# Of no category: for objects whose texture must carry no information.
FOREIGN: dict[str, Family] = {
    "scales": lambda x, y, g: _scales(x, y),
    "weave": lambda x, y, g: _weave(x, y),
    "crosses": lambda x, y, g: _crosses(x, y),
    "cracks": lambda x, y, g: _band(0.03, 0.08, g).abs().neg(),
}


def texture_patches(
    n: int,
    side: int,
    generator: torch.Generator,
    families: dict[str, Family] | None = None,
) -> tuple[UInt8[Tensor, "n 3 side side"], Int64[Tensor, " n"]]:
    """Images that one texture fills, in random size, turn and colour, and the index of its family.

    A pixel is brightness + tint + contrast * texture: the texture itself has no colour. Every
    family comes about equally often.

    Args:
        families: `textures.FAMILIES` when None.
    """
    atlas, device = texture_atlas(generator, families), generator.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=generator, device=device)

    family = torch.arange(n, device=device) % len(atlas)
    turn = uniform(-0.2, 0.2)
    zoom = uniform(0.8, 1.25) * ZOOM * side / SIDE
    turned = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()], 1).view(n, 2, 2)
    # as far from the middle as the turned square stays inside the atlas
    offset = (0.98 - zoom * math.sqrt(2)).clamp_min(0)[:, None, None] * uniform(-1.0, 1.0, 2, 1)
    affine = torch.cat([turned * zoom[:, None, None], offset], 2)
    grid = F.affine_grid(affine, (n, 1, side, side), align_corners=False)
    pattern = torch.empty(n, 1, side, side, device=device)
    for page in range(len(atlas)):
        members = family == page
        tall = grid[members].reshape(1, -1, side, 2)
        drawn = F.grid_sample(atlas[page : page + 1], tall, align_corners=False)
        pattern[members] = drawn.view(-1, 1, side, side)
    contrast = uniform(0.05, 0.2, 1, 1, 1)
    colour = uniform(0.3, 0.7, 1, 1, 1) + uniform(-0.15, 0.15, 3, 1, 1)
    pixels = (colour + contrast * pattern).mul(255).add(0.5).clamp(0, 255).to(torch.uint8)
    return pixels, family
