"""Images that one procedural texture fills from edge to edge, in random size, turn and colour."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Int64, UInt8
from torch import Tensor

from robustbias.images import textures


def swatches(
    n: int,
    side: int,
    generator: torch.Generator,
    families: dict[str, textures.Family] | None = None,
) -> tuple[UInt8[Tensor, "n 3 side side"], Int64[Tensor, " n"]]:
    """Pixels, and which of the families fills them; every family about equally often.

    A pixel is brightness + tint + contrast * texture: the texture itself has no colour.

    Args:
        families: `textures.FAMILIES` when None.
    """
    atlas, device = textures.atlas(generator, families), generator.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=generator, device=device)

    family = torch.arange(n, device=device) % len(atlas)
    turn = uniform(-0.2, 0.2)
    zoom = uniform(0.8, 1.25) * textures.ZOOM * side / textures.SIDE
    turned = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()], 1).view(n, 2, 2)
    # as far from the middle as the turned square stays inside the atlas
    room = (0.98 - zoom * math.sqrt(2)).clamp_min(0)[:, None, None] * uniform(-1.0, 1.0, 2, 1)
    affine = torch.cat([turned * zoom[:, None, None], room], 2)
    grid = F.affine_grid(affine, (n, 1, side, side), align_corners=False)
    pattern = torch.empty(n, 1, side, side, device=device)
    for page in range(len(atlas)):
        own = family == page
        tall = grid[own].reshape(1, -1, side, 2)
        drawn = F.grid_sample(atlas[page : page + 1], tall, align_corners=False)
        pattern[own] = drawn.view(-1, 1, side, side)
    contrast = uniform(0.05, 0.2, 1, 1, 1)
    colour = uniform(0.3, 0.7, 1, 1, 1) + uniform(-0.15, 0.15, 3, 1, 1)
    pixels = (colour + contrast * pattern).mul(255).add(0.5).clamp(0, 255).to(torch.uint8)
    return pixels, family
