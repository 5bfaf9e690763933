"""Photographs in another texture: neural style transfer, many images at once.

    stylized = argmin over x of |F(x) - F(shape)|^2 / |F(shape)|^2
                                + style * mean over layers of |G(x) - G(texture)|^2 / |G(texture)|^2
                                + smooth * (r(x) / r(texture) - 1)^2

F is the response of the deepest layer used of a network, the painter, and G the Gram matrix of a
layer (which units respond together, wherever they do): the first term holds the shape, the second
the texture. The third keeps x as rough as the texture (r: mean squared difference of neighbours),
since the painter's responses do not penalise all noise. Each term is relative to its target, so one
weight serves all images. Adam on the pixels, started at the shape's image, kept in [0, 1].

Source: Gatys, Ecker and Bethge 2016, doi 10.1109/CVPR.2016.265; as a source of cue conflicts,
Geirhos et al. 2019, arXiv 1811.12231.
"""

import dataclasses
from collections.abc import Callable

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torchvision.ops import roi_align

from robustbias.images import CueConflict, Images, floats
from robustbias.images.cue_conflict import crossed
from robustbias.networks import hooks
from robustbias.networks.zoo import Network
from robustbias.utils import UserError


@dataclasses.dataclass(frozen=True)
class StyleTransfer:
    """How to transfer styles; `painters` are networks of the manifest that no comparison uses.

    Cue conflicts are made by every painter at each of the weights `styles` (texture against
    shape), from `per_category` shape images and as many texture images of each category.
    Validation photographs, `photographs` of them at most, are stylized by the first painter at
    `style`. The `depth` first of a painter's probed layers are used; `smooth` holds noise back.
    """

    painters: tuple[str, ...]
    styles: tuple[float, ...] = (3.0,)
    per_category: int = 4
    photographs: int = 1300
    style: float = 3.0
    depth: int = 3
    smooth: float = 1.0
    steps: int = 100
    rate: float = 0.01

    def __post_init__(self):
        counts = (self.per_category, self.photographs, self.depth, self.steps, len(self.painters))
        weights = (self.rate, self.style, *self.styles, len(self.styles))
        if min(counts) < 1 or min(weights) <= 0 or self.smooth < 0:
            raise UserError(
                f"painting with {self}; expected at least one painter and style, per_category, "
                "photographs, depth and steps of at least 1, styles and rate above 0, and smooth "
                "of at least 0."
            )


def stylized(
    painter: Network,
    shapes: UInt8[Tensor, "n 3 h w"],
    textures: UInt8[Tensor, "n 3 h w"],
    how: StyleTransfer,
    style: float,
    batch: int = 100,
) -> UInt8[Tensor, "n 3 h w"]:
    """Each image of `shapes` in the texture of the one in `textures`, which `style` weighs.

    Raises:
        UserError: Fewer probed layers than `how.depth`.
    """
    if how.depth > len(painter.layers):
        raise UserError(
            f"depth {how.depth}, but {painter.entry.name} has {len(painter.layers)} probed layers: "
            f"{', '.join(painter.layers)}."
        )
    parts = zip(shapes.split(batch), textures.split(batch), strict=True)
    return torch.cat([_stylized(painter, floats(a), floats(b), how, style) for a, b in parts])


def conflicts(
    photographs: Images,
    boxes: Int64[Tensor, "n 4"],
    chosen: Int64[Tensor, "q k"],
    categories: tuple[str, ...],
    stylize: Callable[[Tensor, Tensor], Tensor],
) -> CueConflict:
    """Every chosen shape in one texture of each other category, as paired by `crossed`.

    Args:
        boxes: Left, top, right, bottom of each object; a texture is what lies inside.
        chosen: An even number of photographs of each category, as from `cue_conflict.large`: the
            first half are shapes, the second half textures.
        stylize: (shapes, textures) -> pixels.
    """
    (q, k), (shapes, textures) = chosen[:, ::2].shape, chosen.chunk(2, 1)
    cells = crossed(torch.arange(q).repeat_interleave(k), k)
    pixels = stylize(
        photographs.pixels[shapes.flatten()[cells.image]],
        cropped(photographs.pixels, boxes)[textures[cells.texture, cells.design]],
    )
    names = tuple(f"{category}{i + 1}" for category in categories for i in range(k))
    return cells.stimuli(pixels, names, categories)


def cropped(
    pixels: UInt8[Tensor, "n 3 h w"], boxes: Int64[Tensor, "n 4"]
) -> UInt8[Tensor, "n 3 h w"]:
    """What lies inside each box, enlarged to the whole image."""
    corners = torch.cat([boxes[:, :2], boxes[:, 2:] + 1], 1).float()
    order = torch.arange(len(corners)).float()[:, None]
    regions = torch.cat([order, corners], 1)
    inside = roi_align(pixels.float(), regions, pixels.shape[-2:], aligned=True)
    return inside.add(0.5).clamp(0, 255).to(torch.uint8)


def _stylized(
    painter: Network,
    shapes: Float[Tensor, "n 3 h w"],
    textures: Float[Tensor, "n 3 h w"],
    how: StyleTransfer,
    style: float,
) -> UInt8[Tensor, "n 3 h w"]:
    layers = painter.layers[: how.depth]
    with torch.no_grad():
        content = _responses(painter, layers, shapes)[-1]
        grams = [gram(maps) for maps in _responses(painter, layers, textures)]
        limits = roughness(textures).clamp_min(1e-12)
    pixels = shapes.clone().requires_grad_()
    optimizer = torch.optim.Adam([pixels], how.rate)
    for _ in range(how.steps):
        responses = _responses(painter, layers, pixels)
        pairs = zip(map(gram, responses), grams, strict=True)
        texture = torch.stack([_distance(g, target) for g, target in pairs]).mean(0)
        rough = (roughness(pixels) / limits - 1).square()
        loss = (_distance(responses[-1], content) + style * texture + how.smooth * rough).sum()
        (pixels.grad,) = torch.autograd.grad(loss, pixels)
        optimizer.step()
        with torch.no_grad():
            pixels.clamp_(0, 1)
    return pixels.detach().mul(255).add(0.5).to(torch.uint8).contiguous()


def roughness(pixels: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """Mean squared difference of neighbours, along rows plus along columns."""
    along = (pixels.diff(dim=axis).square().mean((1, 2, 3)) for axis in (2, 3))
    return sum(along)


def gram(maps: Float[Tensor, "n u h w"]) -> Float[Tensor, "n u u"]:
    """Mean product of every two units over all places."""
    flat = maps.flatten(2)
    return flat @ flat.mT / flat.shape[-1]


def _responses(painter: Network, layers: tuple[str, ...], pixels: Tensor) -> list[Tensor]:
    with (
        hooks.captured(painter, layers) as maps,
        torch.autocast(pixels.device.type, torch.bfloat16),
    ):
        hooks.prefix(painter, layers[-1], pixels)
    return [maps[layer].float() for layer in layers]


def _distance(maps: Tensor, target: Tensor) -> Float[Tensor, " n"]:
    """Squared distance, relative to the target's square."""
    size = target.flatten(1).square().sum(1).clamp_min(1e-12)
    return (maps - target).flatten(1).square().sum(1) / size
