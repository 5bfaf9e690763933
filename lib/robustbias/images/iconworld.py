"""Icon world: drawings of 16 categories, each filled in training with one texture.

A pixel is m * object + (1 - m) * background, where m is the drawing's mask, object = its mean
colour + amplitude * texture, and brightness, colours and scene are drawn independently of the
category. Shape and texture are therefore the only cues, and a conflict image sets one against the
other. Everything is batched on the device and a function of the seed (of the same device type).
"""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from robustbias.images import CueConflict, Images, distortions, icons, textures
from robustbias.images.concepts import Concepts
from robustbias.images.source import Source
from robustbias.utils import UserError

COLOURS = {
    "red": (1.0, -0.5, -0.5),
    "orange": (0.8, 0.0, -0.8),
    "yellow": (0.5, 0.5, -1.0),
    "green": (-0.5, 1.0, -0.5),
    "cyan": (-1.0, 0.5, 0.5),
    "blue": (-0.5, -0.5, 1.0),
    "purple": (0.4, -0.8, 0.4),
    "grey": (0.0, 0.0, 0.0),
}

SCENES = ("plain", "gradient", "horizon", "clouds")
_CHUNK = 256  # images rendered at once: the intermediate tensors stay in the cache


@dataclasses.dataclass(frozen=True)
class World:
    """Parameters of the world; the study's TOML sets them. Contrasts are in [0, 1] pixel units."""

    side: int = 64
    train_images: int = 8000
    val_images: int = 1600
    conflict_repeats: int = 4
    texture_contrast: float = 0.10
    shape_contrast_low: float = 0.10
    shape_contrast_high: float = 0.30
    colour_contrast: float = 0.08
    scene_contrast: float = 0.05
    pixel_noise: float = 0.02
    size_low: float = 0.80
    size_high: float = 1.12
    rotation_degrees: float = 20.0
    shear: float = 0.2
    stretch: float = 0.2
    shift: float = 0.12
    elastic: float = 0.05
    stroke: float = 0.4
    morph: float = 0.5

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if value < 0 or (name in ("side", "train_images", "val_images") and value == 0):
                raise UserError(f"world parameter {name} = {value}; expected a positive number.")


BYTES_PER_PIXEL = 24  # of an image, its masks and what drawing it takes


class IconWorld(Source):
    """Images of the icon world (see the module's text).

    `cue` is "both" in the study; "shape" draws textures at random and "texture" draws shapes at
    random, which gives the training sets of the cue-parity check.
    """

    def __init__(self, world: World, seed: int = 0, device: str = "cpu", cue: str = "both"):
        self.world, self.seed, self.device, self.cue = world, seed, torch.device(device), cue
        self.designs = icons.load()
        self.categories = self.designs.categories
        self._bank = icons.signed_distances(self.designs.masks).to(self.device)[:, None]
        families = textures.texture_atlas(self._generator("atlas"))
        foreign = textures.texture_atlas(self._generator("foreign atlas"), textures.FOREIGN)
        self._atlas = torch.cat([families, foreign])
        self._pool = {held: self._pools(held) for held in (False, True)}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels: the categories."""
        return self.categories

    @property
    def digest(self) -> str:
        """Hash of everything the images depend on."""
        parts = [dataclasses.asdict(self.world), self.designs.digest, self.seed, self.device.type]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def train(self, epoch: int = 0, seed: int = 0) -> Images:
        """Fresh training images of one epoch, of the training designs."""
        generator = self._generator("train", seed, epoch)
        labels = self._labels(self.world.train_images, generator)
        other = torch.randint(16, labels.shape, generator=generator, device=self.device)
        shape = other if self.cue == "texture" else labels
        texture = other if self.cue == "shape" else labels
        return self._images(shape, texture, generator, labels=labels, held_out=False)

    def val(self, n: int | None = None) -> Images:
        """Validation images of held-out designs, with shape and texture of the same category.

        `stylized`, `silhouettes`, `black_silhouettes`, `edges` and `texture_only` give the same
        drawings in the same poses, image by image, under the same names.
        """
        return self._validation(n)

    def single_cue(self, cue: str, n: int | None = None) -> Images:
        """Held-out designs where only one cue tells the category and the other is random."""
        generator = self._generator("single", cue)
        labels = self._balanced(self.world.val_images if n is None else n)
        other = torch.randint(16, labels.shape, generator=generator, device=self.device)
        shape, texture = (labels, other) if cue == "shape" else (other, labels)
        return self._images(shape, texture, generator, labels=labels, held_out=True)

    def cue_conflict(self, size: int | None = None) -> CueConflict:
        """All ordered pairs of different categories, `conflict_repeats` each, held-out designs.

        The k-th images of one shape share drawing, pose, colours and scene and differ in texture
        alone; a drawing may serve several k. `shapeD` names the drawing, and so a cluster. Raises
        UserError for another size than the world's.
        """
        self._check(size)
        pairs, draw = self._conflict()
        pixels, _ = self._render(draw, self._generator("conflict noise"))
        numbers = [s * self.world.conflict_repeats + k for s, _, k in pairs]
        return self._conflicting(pixels, draw, numbers)

    def separate_cues(self) -> CueConflict:
        """As many cue conflicts as validation images, each with a pose, colours and a scene.

        Of a shape image of `cue_conflict` there are 15 copies in other textures. Where images are
        ranked by a response, whatever responds to a pose would find all copies of it.
        """
        generator = self._generator("separate cues")
        shape = self._balanced(self.world.val_images)
        other = torch.randint(1, 16, shape.shape, generator=generator, device=self.device)
        draw = self._draw(shape, generator, held_out=True) | {"texture": (shape + other) % 16}
        pixels, _ = self._render(draw, generator)
        return self._conflicting(pixels, draw, list(range(len(shape))))

    def _conflicting(
        self, pixels: Tensor, draw: dict[str, Tensor], numbers: list[int]
    ) -> CueConflict:
        """Conflicts under names of their drawings, the textures numbered."""
        cues = (draw[name].tolist() for name in ("shape", "design", "texture"))
        names = tuple(
            f"{self.categories[s]}{d + 1}-{self.categories[t]}{k + 1}"
            for s, d, t, k in zip(*cues, numbers, strict=True)
        )
        return CueConflict(pixels, draw["shape"], draw["texture"], self.categories, names)

    def conflict_masks(self, size: int | None = None) -> Bool[Tensor, "n h w"]:
        """The pixels of the object in each `cue_conflict` stimulus."""
        self._check(size)
        _, draw = self._conflict()
        return self._foreground(draw)

    def stylized(self, n: int | None = None) -> Images:
        """The validation images, every object in a texture that belongs to no category."""
        generator = self._generator("stylized")
        count = len(self._balanced(self.world.val_images if n is None else n))
        other = torch.randint(
            len(textures.FOREIGN), (count,), generator=generator, device=self.device
        )
        return self._validation(n, texture=len(textures.FAMILIES) + other)

    def silhouettes(self, n: int | None = None) -> Images:
        """The validation images without texture and scene: one colour on another."""
        return self._validation(n, amplitude=0.0, plain=True)

    def black_silhouettes(self, n: int | None = None) -> Images:
        """The objects of the validation images, black on white."""
        return self._drawn(distortions.silhouettes, n)

    def edges(self, n: int | None = None) -> Images:
        """The outlines of the objects of the validation images, black on white."""
        return self._drawn(distortions.contours, n)

    def texture_only(self, n: int | None = None) -> Images:
        """The validation images with the object's texture from edge to edge."""
        return self._validation(n, fill=True)

    def concepts(self, n: int | None = None) -> Concepts:
        """Held-out designs with the truth about their pixels, for dissection.

        Shape and texture are drawn independently of each other: where they go together, a unit
        that detects one would pass for a detector of the other. Masks take every second pixel.
        """
        generator = self._generator("concepts")
        shape = self._balanced(self.world.val_images if n is None else n)
        texture = self._labels(len(shape), generator)
        draw = self._draw(shape, generator, held_out=True) | {"texture": texture}
        pixels, maps = self._render(draw, generator, concepts=True)
        names = {
            "object": self.categories,
            "texture": tuple(textures.FAMILIES),
            "color": tuple(COLOURS),
            "scene": SCENES,
        }
        everywhere = torch.ones(len(shape), dtype=torch.bool, device=self.device)
        return Concepts(
            pixels,
            {category: maps[category][:, None, ::2, ::2] for category in names},
            names,
            dict.fromkeys(names, everywhere),
        )

    # -- drawing at random -------------------------------------------------------------------

    def _generator(self, *key: object) -> torch.Generator:
        """A separate generator for every purpose, so that none shifts another."""
        digest = hashlib.sha256(repr((self.seed, *key)).encode()).digest()
        return torch.Generator(self.device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)

    def _check(self, size: int | None) -> None:
        if size not in (None, self.world.side):
            raise UserError(
                f"iconworld images are {self.world.side} pixels wide, not {size}; set `side` in "
                "the study's [world] table."
            )

    def _balanced(self, n: int) -> Int64[Tensor, " n"]:
        if n < 1:
            raise UserError(f"n = {n} images asked for; expected at least 1.")
        self._check_memory(n)
        return torch.arange(n, device=self.device) % 16

    def _check_memory(self, n: int) -> None:
        """Refuses more images than half of this machine's memory holds, before any is drawn."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        most = memory // 2 // (BYTES_PER_PIXEL * self.world.side**2)
        if n > most:
            raise UserError(
                f"{n} images of {self.world.side} pixels a side do not fit into this machine's "
                f"memory; ask for at most {most}."
            )

    def _labels(self, n: int, generator: torch.Generator) -> Int64[Tensor, " n"]:
        self._check_memory(n)
        return torch.randint(16, (n,), generator=generator, device=self.device)

    def _pools(self, held_out: bool) -> tuple[Tensor, Tensor]:
        """For each category the indices of its designs (padded) and how many there are."""
        index = self.designs.of_split(held_out)
        groups = [index[self.designs.category[index] == c] for c in range(16)]
        padded = torch.nn.utils.rnn.pad_sequence(groups, batch_first=True)
        return padded.to(self.device), torch.tensor([len(g) for g in groups], device=self.device)

    def _conflict(self) -> tuple[list[tuple[int, int, int]], dict[str, Tensor]]:
        """(shape, texture, repeat) of every conflict stimulus, and what is random about it."""
        repeats = range(self.world.conflict_repeats)
        pairs = [(s, t, k) for s in range(16) for k in repeats for t in range(16) if s != t]
        shape, texture, _ = torch.tensor(pairs, device=self.device).T
        draw = self._draw(shape, self._generator("conflict"), held_out=True)
        first = (torch.arange(len(pairs), device=self.device) // 15) * 15
        draw = {name: value[first] for name, value in draw.items()}
        return pairs, draw | {"texture": texture}

    def _draw(self, shape: Tensor, generator: torch.Generator, held_out: bool) -> dict[str, Tensor]:
        """Everything random about n images but the pixel noise; one row per image."""
        n, w = len(shape), self.world

        def uniform(low: float, high: float, *size: int) -> Tensor:
            u = torch.rand(n, *size, generator=generator, device=self.device)
            return low + (high - low) * u

        padded, counts = self._pool[held_out]
        design, other = (
            padded[shape, (uniform(0.0, 1.0) * counts[shape]).long()] for _ in range(2)
        )
        angle = uniform(-1.0, 1.0) * math.radians(w.rotation_degrees)
        # the affine map takes an output position to a position in the mask, hence 1 / size
        stretch = uniform(-w.stretch, w.stretch).exp()
        sx, sy = stretch / uniform(w.size_low, w.size_high), 1 / stretch
        sy = sy * sx / stretch
        flip = torch.sign(uniform(-1.0, 1.0))
        affine = torch.stack(
            [
                torch.stack([angle.cos() * sx * flip, -angle.sin() * sx], 1),
                torch.stack([angle.sin() * sy * flip, angle.cos() * sy], 1),
            ],
            1,
        )
        affine[:, 0, 1] += uniform(-w.shear, w.shear)
        affine = torch.cat([affine, uniform(-w.shift, w.shift, 2, 1)], 2)
        turn, zoom = (
            uniform(-0.12, 0.12),
            uniform(0.9, 1.15) * textures.ZOOM * w.side / textures.SIDE,
        )
        rotation = torch.stack(
            [torch.stack([turn.cos(), -turn.sin()], 1), torch.stack([turn.sin(), turn.cos()], 1)], 1
        )
        # how far the sampled square may move and stay inside the atlas
        reach = 0.98 - 1.15 * 1.12 * textures.ZOOM * w.side / textures.SIDE
        return {
            "shape": shape,
            "design": design,
            "other_design": other,
            "morph": uniform(0.0, 0.0 if held_out else w.morph),
            "affine": affine,
            "elastic": uniform(-w.elastic, w.elastic, 2, 5, 5),
            "stroke": uniform(-w.stroke, w.stroke),
            "texture_affine": torch.cat(
                [rotation * zoom[:, None, None], uniform(-reach, reach, 2, 1)], 2
            ),
            "amplitude": w.texture_contrast * uniform(0.7, 1.3),
            "brightness": uniform(0.35, 0.65),
            "gap": uniform(w.shape_contrast_low, w.shape_contrast_high)
            * torch.sign(uniform(-1.0, 1.0)),
            "object_colour": self._labels_of(uniform(0.0, 1.0), len(COLOURS)),
            "background_colour": self._labels_of(uniform(0.0, 1.0), len(COLOURS)),
            "scene": self._labels_of(uniform(0.0, 1.0), len(SCENES)),
            "scene_seed": uniform(-1.0, 1.0, 5, 5),
            "scene_angle": uniform(0.0, 2 * math.pi),
        }

    @staticmethod
    def _labels_of(u: Tensor, count: int) -> Int64[Tensor, " n"]:
        return (u * count).long().clamp_max(count - 1)

    # -- pixels ------------------------------------------------------------------------------

    def _validation(self, n: int | None, texture: Tensor | None = None, **options: Any) -> Images:
        """The drawings of `val`, as they are or rendered otherwise (options of `_images`)."""
        labels = self._balanced(self.world.val_images if n is None else n)
        texture = labels if texture is None else texture
        images = self._images(labels, texture, self._generator("val"), held_out=True, **options)
        return dataclasses.replace(images, names=_validation_names(len(labels)))

    def _drawn(self, drawing: Callable[[Tensor], Tensor], n: int | None) -> Images:
        """What `drawing` makes of the object masks of the validation images."""
        labels = self._balanced(self.world.val_images if n is None else n)
        draw = self._draw(labels, self._generator("val"), held_out=True)
        pixels = drawing(self._foreground(draw))
        names = _validation_names(len(labels))
        return Images(pixels, labels, self.categories, names, draw["design"].cpu())

    def _foreground(self, draw: dict[str, Tensor]) -> Bool[Tensor, "n h w"]:
        """The pixels of the object in each image."""
        parts = zip(*(value.split(_CHUNK) for value in draw.values()), strict=True)
        masks = [self._mask(dict(zip(draw, part, strict=True))) for part in parts]
        return torch.cat(masks)[:, 0] > 0.5

    def _images(
        self,
        shape: Tensor,
        texture: Tensor,
        generator: torch.Generator,
        *,
        held_out: bool,
        labels: Tensor | None = None,
        amplitude: float | None = None,
        plain: bool = False,
        fill: bool = False,
    ) -> Images:
        draw = self._draw(shape, generator, held_out) | {"texture": texture}
        if amplitude is not None:
            draw["amplitude"] = torch.full_like(draw["amplitude"], amplitude)
        if plain:
            draw["scene"] = torch.zeros_like(draw["scene"])
        pixels, _ = self._render(draw, generator, fill=fill)
        labels = shape if labels is None else labels
        return Images(pixels, labels, self.categories, made_of=draw["design"].cpu())

    def _render(
        self,
        draw: dict[str, Tensor],
        generator: torch.Generator,
        fill: bool = False,
        concepts: bool = False,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Pixels (uint8) and, with `concepts`, their maps (uint8, 0 = none, else 1 + index)."""
        n = len(draw["shape"])
        pixels = torch.empty(n, 3, *[self.world.side] * 2, dtype=torch.uint8, device=self.device)
        maps: list[dict[str, Tensor]] = []
        for start in range(0, n, _CHUNK):
            part = {name: value[start : start + _CHUNK] for name, value in draw.items()}
            mask = self._mask(part)
            if fill:
                mask = torch.ones_like(mask)
            pixels[start : start + _CHUNK] = self._pixels(part, mask, generator)
            if concepts:
                maps.append(_concepts(part, mask[:, 0] > 0.5))
        return pixels, {
            name: torch.cat([m[name] for m in maps]) for name in maps[0]
        } if maps else {}

    def _mask(self, draw: dict[str, Tensor]) -> Float[Tensor, "n 1 h w"]:
        """The drawing in its pose, bent, its strokes thinner or bolder; in training it leans
        towards another drawing of its category, so that no outline is seen twice."""
        side = self.world.side
        grid = _grid(draw["affine"], side, draw["elastic"])
        share = draw["morph"][:, None, None, None]
        bank = torch.lerp(self._bank[draw["design"]], self._bank[draw["other_design"]], share)
        distance = F.grid_sample(bank, grid, padding_mode="border", align_corners=False)
        # one image pixel is 96 / 64 mask pixels: the edge is about one image pixel wide
        edge = side / icons.SIDE
        return (distance * edge + draw["stroke"][:, None, None, None] + 0.5).clamp_(0, 1)

    def _texture(self, draw: dict[str, Tensor]) -> Float[Tensor, "n 1 h w"]:
        n, side = len(draw["texture"]), self.world.side
        grid = _grid(draw["texture_affine"], side)
        out = torch.empty(n, 1, side, side, device=self.device)
        for family in range(len(self._atlas)):  # one atlas page each: no copy of it per image
            index = (draw["texture"] == family).nonzero()[:, 0]
            if len(index):
                page = self._atlas[family : family + 1].expand(1, 1, -1, -1)
                tall = grid[index].reshape(1, -1, side, 2)
                out[index] = F.grid_sample(page, tall, align_corners=False).view(-1, 1, side, side)
        return out

    def _scene(self, draw: dict[str, Tensor]) -> Float[Tensor, "n 1 h w"]:
        """Slow brightness changes of the background, in [-1, 1]."""
        side = self.world.side
        line = torch.linspace(-1, 1, side, device=self.device)
        angle = draw["scene_angle"][:, None, None]
        ramp = line[None, None] * angle.cos() + line[None, :, None] * angle.sin()
        clouds = F.interpolate(
            draw["scene_seed"][:, None], (side, side), mode="bilinear", align_corners=True
        )[:, 0]
        level = 0.4 * draw["scene_seed"][:, 0, 0, None, None]
        horizon = torch.where(line[None, :, None] > level, 0.7, -0.7).expand_as(ramp)
        kind = draw["scene"][:, None, None]
        scene = (kind == 1) * ramp + (kind == 2) * horizon + (kind == 3) * clouds
        return scene[:, None]

    def _pixels(self, draw: dict[str, Tensor], mask: Tensor, generator: torch.Generator) -> Tensor:
        def column(name: str) -> Tensor:
            return draw[name][:, None, None, None]

        w = self.world
        palette = torch.tensor(list(COLOURS.values()), device=self.device) * w.colour_contrast
        inside = (
            column("brightness") + column("gap") / 2 + column("amplitude") * self._texture(draw)
        )
        outside = column("brightness") - column("gap") / 2 + w.scene_contrast * self._scene(draw)
        noise = torch.randn(mask.shape, generator=generator, device=self.device)
        grey = torch.lerp(outside, inside, mask) + w.pixel_noise * noise
        colour = palette[draw["object_colour"]][:, :, None, None]
        background = palette[draw["background_colour"]][:, :, None, None]
        pixels = grey + background + mask * (colour - background)
        return pixels.mul_(255).add_(0.5).clamp_(0, 255).to(torch.uint8)


def _validation_names(n: int) -> tuple[str, ...]:
    return tuple(f"val{i + 1}" for i in range(n))


def _grid(
    affine: Float[Tensor, "n 2 3"], side: int, bend: Float[Tensor, "n 2 k k"] | None = None
) -> Float[Tensor, "n side side 2"]:
    """Sampling positions of an affine map, plus a displacement given at k x k control points.

    An affine map is bilinear, so both are one bilinear interpolation of the control points, done
    as two matrix products (several times faster on a CPU than `affine_grid` and `interpolate`).
    """
    k = 2 if bend is None else bend.shape[-1]
    edge = 1 - 1 / side  # centre of the outermost pixel
    at = torch.linspace(-edge, edge, k, device=affine.device)
    points = (
        affine[:, :, :1, None] * at + affine[:, :, 1:2, None] * at[:, None] + affine[..., 2:, None]
    )
    if bend is not None:
        points = points + bend
    position = torch.linspace(0, k - 1, side, device=affine.device)
    weights = (1 - (position[:, None] - torch.arange(k, device=affine.device)).abs()).clamp_min(0)
    return (weights @ points @ weights.T).permute(0, 2, 3, 1)


def _concepts(draw: dict[str, Tensor], inside: Bool[Tensor, "n h w"]) -> dict[str, Tensor]:
    """Per-pixel concept maps: object and texture where the object is, colour and scene."""

    def labelled(index: Tensor, where: Tensor) -> Tensor:
        return torch.where(where, index[:, None, None] + 1, 0).to(torch.uint8)

    outside = ~inside
    return {
        "object": labelled(draw["shape"], inside),
        "texture": labelled(draw["texture"], inside & (draw["amplitude"] > 0)[:, None, None]),
        "color": labelled(draw["object_colour"], inside)
        + labelled(draw["background_colour"], outside),
        "scene": labelled(draw["scene"], outside),
    }
