"""Images whose pixels are labelled with concepts: what Network Dissection compares units with.

Categories and the side of the masks, half that of the images, follow Broden (Bau et al. 2017).
"""

import dataclasses
import functools
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Int64, UInt8
from torch import Tensor

from robustbias import utils
from robustbias.images import Images, floats, textures
from robustbias.utils import MissingData, UserError

FEW = 2048  # regions that need no new numbers


@dataclasses.dataclass(frozen=True)
class Regions:
    """Pixels that carry the same labels in all maps, and whose images the same categories.

    Counting pixels by region once replaces counting them by concept, category by category.
    """

    index: Tensor  # n a b, which region a pixel belongs to
    concepts: Bool[Tensor, "g q"]  # which concepts a region carries
    carried: Bool[Tensor, "g c"]  # which categories its images carry


@dataclasses.dataclass(frozen=True)
class Concepts:
    """Images with label maps by category.

    Args:
        maps: Category -> integer maps, n m a b: m maps where a pixel carries up to m labels of
            the category, 0 for none, else 1 + the concept's place in `names`. A label of the
            whole image may be a map of one pixel.
        names: Category -> its concepts.
        carried: Category -> images that have labels of that category. Elsewhere a missing
            label means nothing, and the union of an IoU is not counted there.

    Raises:
        UserError: No map, a map of another size, images without masks, or a label without a name.
    """

    pixels: UInt8[Tensor, "n 3 h w"]
    maps: dict[str, Tensor]
    names: dict[str, tuple[str, ...]]
    carried: dict[str, Bool[Tensor, " n"]]

    def __post_init__(self):
        if (
            not self.maps
            or set(self.maps) != set(self.names)
            or set(self.maps) != set(self.carried)
        ):
            raise UserError(
                "a concept set needs masks: expected the same categories, at least one, in maps, "
                f"names and carried; got {list(self.maps)}, {list(self.names)}, "
                f"{list(self.carried)}."
            )
        n, sides = len(self.pixels), {tuple(m.shape[2:]) for m in self.maps.values()}
        if len(sides - {(1, 1)}) > 1:
            raise UserError(
                f"masks of several sizes: {sorted(sides)}; expected one (or 1 x 1 for labels of "
                "whole images). Bring them to the size of one category first."
            )
        for category, labels in self.maps.items():
            if labels.ndim != 4 or len(labels) != n or len(self.carried[category]) != n:
                raise UserError(
                    f"masks of {category} have the shape {tuple(labels.shape)}; expected n m a b "
                    f"with n = {n} images."
                )
            if labels.numel() and not 0 <= labels.amin() <= labels.amax() <= len(
                self.names[category]
            ):
                raise UserError(
                    f"masks of {category} hold labels {int(labels.amin())}..{int(labels.amax())}; "
                    f"expected 0 for none and 1..{len(self.names[category])}."
                )

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def categories(self) -> tuple[str, ...]:
        """Categories, in the order of `names`."""
        return tuple(self.names)

    @property
    def concepts(self) -> tuple[tuple[str, str], ...]:
        """(category, concept) of all of them, category by category."""
        return tuple((category, name) for category, names in self.names.items() for name in names)

    @property
    def side(self) -> tuple[int, int]:
        """Height and width of the masks."""
        return max(tuple(m.shape[2:]) for m in self.maps.values())

    def take(self, index: Int64[Tensor, " k"]) -> "Concepts":
        """The images at `index`, in that order."""
        return Concepts(
            self.pixels[index],
            {category: labels[index] for category, labels in self.maps.items()},
            self.names,
            {category: carried[index] for category, carried in self.carried.items()},
        )

    def to(self, device: torch.device | str) -> "Concepts":
        """The same set on another device."""
        return Concepts(
            self.pixels.to(device),
            {category: labels.to(device) for category, labels in self.maps.items()},
            self.names,
            {category: carried.to(device) for category, carried in self.carried.items()},
        )

    def regions_of(
        self, index: Int64[Tensor, " k"]
    ) -> tuple[Int[Tensor, "k s"], Float[Tensor, "g m"]]:
        """For each of the images at `index` the region of every pixel, and what regions carry.

        The second is 1 where a region carries a concept, then where it carries a category. Where
        the set has many regions, those of these images are numbered anew.
        """
        pixels = self.regions.index[index].flatten(1)
        members = torch.cat([self.regions.concepts, self.regions.carried], 1)
        if len(members) <= FEW:
            return pixels, members.float()
        present = torch.bincount(pixels.flatten(), minlength=len(members)) > 0
        return (present.cumsum(0) - 1)[pixels], members[present].float()

    @functools.cached_property
    def regions(self) -> Regions:
        """The set's regions."""
        n, (a, b) = len(self), self.side
        device = self.pixels.device
        index = torch.zeros(n, a, b, dtype=torch.long, device=device)
        seen = torch.zeros(1, 0, dtype=torch.long, device=device)
        layers, bases = [], []
        for category in self.categories:
            layers += [*self.maps[category].unbind(1), self.carried[category][:, None, None]]
            bases += [len(self.names[category]) + 1] * self.maps[category].shape[1] + [2]
        for layer, base in zip(layers, bases, strict=True):
            code, index = torch.unique(index * base + layer, return_inverse=True)
            seen = torch.cat([seen[code // base], (code % base)[:, None]], 1)
        concepts, carried, at = [], [], 0
        for category in self.categories:
            count = self.maps[category].shape[1]
            codes = torch.arange(1, len(self.names[category]) + 1, device=device)
            concepts.append((seen[:, at : at + count, None] == codes).any(1))
            carried.append(seen[:, at + count] == 1)
            at += count + 1
        # a label on an image that does not carry the category counts no more than a missing one
        labelled = [c & k[:, None] for c, k in zip(concepts, carried, strict=True)]
        return Regions(index.to(torch.int32), torch.cat(labelled, 1), torch.stack(carried, 1))


# The eleven basic colour names (Berlin and Kay 1969), each with shades among the colour keywords of
# CSS (W3C, CSS Color Module Level 4, section 6.1). A pixel gets the name of the nearest shade in
# CIELAB (white D65), where distances are roughly perceptual.


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
    codes = [code for shades in SHADES.values() for code in shades]
    rgb = torch.tensor([[code >> 16, code >> 8 & 255, code & 255] for code in codes]) / 255
    shades = lab(rgb[:, :, None, None].to(pixels))[:, :, 0, 0]
    label = torch.tensor([1 + i for i, codes in enumerate(SHADES.values()) for _ in codes])
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


# The boxes are not in the digest of the images that tables are kept under, hence pinned here.
BOXES_SHA256 = "c37765a8b40fce4f28962bf1847a2537e2781753974cbb2447eeb50ff31130a2"


def concepts(
    photographs: Images,
    boxes: Int64[Tensor, "n 4"],
    names: tuple[str, ...],
    tiles: Images,
    n_patches: int,
    generator: torch.Generator,
) -> Concepts:
    """Photographs, images of one texture each, and patterns; masks have half the images' side.

    Object labels are carried by the photographs, textures by the tiles (those of the photographs
    have no labels), colours by all. Patterns are the procedural textures of the icon world, which
    no photograph has: a control. An object is its whole box, some background included.

    Args:
        boxes: Left, top, right, bottom in pixels, all of them inside the object.
        names: The word for each class of the photographs.
        tiles: Textures of photographs from edge to edge, labelled by category.
    """
    n, side = len(photographs), photographs.pixels.shape[-1]
    patches, family = textures.texture_patches(n_patches, side, generator)
    pixels = torch.cat([photographs.pixels, tiles.pixels, patches])
    total, before = len(pixels), n + len(tiles)
    half = F.avg_pool2d(floats(pixels), 2)
    centre = torch.arange(0, side, 2) + 0.5  # of a mask's pixel
    left, top, right, bottom = boxes.T[:, :, None]
    columns = (centre >= left) & (centre <= right + 1)
    rows = (centre >= top) & (centre <= bottom + 1)
    inside = rows[:, :, None] & columns[:, None]
    objects = torch.zeros(total, 1, side // 2, side // 2, dtype=torch.uint8)
    objects[:n, 0] = inside * (photographs.labels + 1)[:, None, None]
    texture, pattern = torch.zeros(2, total, 1, 1, 1, dtype=torch.uint8)
    texture[n:before, 0, 0, 0] = (tiles.labels + 1).to(torch.uint8)
    pattern[before:, 0, 0, 0] = (family + 1).to(torch.uint8)
    place = torch.arange(total)
    photo, tile = place < n, (place >= n) & (place < before)
    return Concepts(
        pixels,
        {
            "object": objects,
            "texture": texture,
            "pattern": pattern,
            "color": named(half)[:, None],
        },
        {
            "object": names,
            "texture": tiles.classes,
            "pattern": tuple(textures.FAMILIES),
            "color": tuple(SHADES),
        },
        {
            "object": photo,
            "texture": tile,
            "pattern": place >= before,
            "color": torch.ones_like(photo),
        },
    )


def annotations(folder: Path) -> Path | None:
    """The file of object boxes among those of Tiny-ImageNet; None where a copy leaves it out."""
    places = (folder / sub / "val_annotations.txt" for sub in ("", "val", "tiny-imagenet-200/val"))
    return next((place for place in places if place.is_file()), None)


def boxes(folder: Path, images: Images) -> Int64[Tensor, "n 4"]:
    """Box of each validation image of Tiny-ImageNet, from val_annotations.txt in its folder.

    Raises:
        MissingData: No such file; parquet copies of the data set leave it out.
        UserError: Another file than the published one.
    """
    path = annotations(folder)
    if path is None:
        raise MissingData(
            f"no val_annotations.txt in {folder}, which holds the object boxes; copy it there from "
            "val/ of tiny-imagenet-200.zip, or move the folder away and run `robustbias fetch "
            "tiny-imagenet`, which gets the zip."
        )
    if utils.sha256(path) != BOXES_SHA256:
        raise UserError(
            f"{path} is not the published annotation file (sha256 {BOXES_SHA256[:12]}...); take "
            "the one of tiny-imagenet-200.zip."
        )
    rows = (line.split("\t") for line in path.read_text().splitlines())
    edges = {name: [int(edge) for edge in box] for name, _, *box in rows}
    if absent := [name for name in images.names if name not in edges]:
        raise UserError(f"{path} has no box of {absent[0]} ({len(absent)} images without one).")
    return torch.tensor([edges[name] for name in images.names])
