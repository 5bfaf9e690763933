"""Cue conflicts: published stimuli in category folders, and collages that no network makes.

Files are CATEGORY/NAME.png or .jpg, NAME as in images.names. A drawing kept in the alpha channel
is laid on white, so that it stays visible. Other sides than the stored one are made by one
antialiased bilinear resize; at the stored side (224) the pixels are untouched.
"""

import functools
import hashlib
import re
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from robustbias.images import CueConflict, Images, cached_pixels, opened
from robustbias.manifest import ROOT
from robustbias.utils import MissingData, UserError, fingerprints, sha256

# -- --------------------------------------------------------------------------------------------
# Entry-level categories and the classes each of them gathers.
#
# Geirhos et al. (2019) compare networks and people on 16 everyday words; a network's own classes
# (WNIDs of ImageNet, or the words themselves) belong to at most one of them.


CATEGORIES = (
    "airplane", "bear", "bicycle", "bird", "boat", "bottle", "car", "cat",
    "chair", "clock", "dog", "elephant", "keyboard", "knife", "oven", "truck",
)  # fmt: skip


@functools.cache
def entry_level() -> dict[str, tuple[str, ...]]:
    """The WNIDs of every category, sorted: 207 of the 1,000 ImageNet classes.

    Source: data_manifest/entry_level.toml, which names its own.
    """
    path = ROOT / "data_manifest" / "entry_level.toml"
    return {category: tuple(wnids) for category, wnids in tomllib.loads(path.read_text()).items()}


@functools.cache
def class_names(class_file: str) -> tuple[str, ...]:
    """WNIDs in the order of a network's outputs: sorted, one a line of `data_manifest/FILE`."""
    return tuple((ROOT / "data_manifest" / class_file).read_text().split())


def checked(categories: tuple[str, ...]) -> tuple[str, ...]:
    """The categories themselves. Raises UserError for a word that is none of the 16."""
    if unknown := [c for c in categories if c not in CATEGORIES]:
        raise UserError(f"unknown categories {unknown}; expected some of {', '.join(CATEGORIES)}.")
    return categories


def membership(classes: tuple[str, ...], categories: tuple[str, ...]) -> Float[Tensor, "k q"]:
    """1 where class k belongs to category q; a column sums to the category's number of classes.

    Args:
        classes: WNIDs or category words, in the order of the network's outputs.
        categories: Some of the 16, in the order wanted.

    Raises:
        UserError: A category none of the classes belongs to; the network cannot choose it.
    """
    members = [(category, *entry_level()[category]) for category in checked(categories)]
    table = torch.tensor([[float(k in words) for words in members] for k in classes])
    if empty := [c for c, n in zip(categories, table.sum(0).tolist(), strict=True) if n == 0]:
        raise UserError(
            f"none of the {len(classes)} classes belongs to {', '.join(empty)}; "
            "leave these categories out of the study."
        )
    return table


# -- --------------------------------------------------------------------------------------------
# What the name of a stimulus says: `dog10-bird2` is the shape of dog 10 with texture bird 2.


NAME = re.compile(r"(?:^|[_/])([a-z]+)(\d+)(?:-([a-z]+)(\d+))?(?:\.[A-Za-z]+)?$")


class Cues(NamedTuple):
    """The cues of one stimulus; a silhouette or an edge drawing has no texture (None)."""

    shape: str
    shape_design: int
    texture: str | None = None
    texture_design: int | None = None

    @property
    def stem(self) -> str:
        """The name without its folder, trial prefix and extension."""
        texture = "" if self.texture is None else f"-{self.texture}{self.texture_design}"
        return f"{self.shape}{self.shape_design}{texture}"


def cues(name: str) -> Cues:
    """The cues named by a stimulus, a file or a trial.

    The last `_` ends a trial prefix: `0003_s5n_s01_0_dog_00_dog10-bicycle1.png`.

    Raises:
        UserError: The name has another form.

    Source: stimuli of rgeirhos/texture-vs-shape; trials of bethgelab/model-vs-human.
    """
    if (match := NAME.search(name)) is None:
        raise UserError(
            f"{name!r} does not name a stimulus; "
            "expected shapeK-textureJ as in dog10-bird2, or categoryK as in dog10."
        )
    shape, shape_design, texture, texture_design = match.groups()
    return Cues(shape, int(shape_design), texture, texture and int(texture_design))


SUFFIXES = (".png", ".jpg", ".jpeg")


def cue_conflict(folder: Path, size: int, categories: tuple[str, ...] = CATEGORIES) -> CueConflict:
    """Stimuli whose shape and texture are two different ones of `categories`.

    Of the 1,280 published stimuli 1,200 are left for the 16 categories (80 have two cues of one
    category), and 550 for the 11 that Tiny-ImageNet holds.

    Args:
        folder: Holds CATEGORY/shapeK-textureJ.png, CATEGORY being the shape's.
        size: Side in pixels.

    Raises:
        MissingData: The folder is not there or holds no stimulus.
        UserError: A size below 1, an unknown category, a file with another name or no image.

    Source: Geirhos et al. 2019, openreview.net/forum?id=Bygh9j09KX.
    """
    stimuli = {
        file: cue
        for file, cue in _listed(folder, categories).items()
        if cue.texture in categories and cue.texture != cue.shape
    }
    if not stimuli:
        raise MissingData(f"{folder} holds no cue conflict between {', '.join(categories)}.")
    return CueConflict(
        pixels=_pixels(tuple(stimuli), size),
        shape=torch.tensor([categories.index(cue.shape) for cue in stimuli.values()]),
        texture=torch.tensor([categories.index(cue.texture) for cue in stimuli.values()]),
        categories=categories,
        names=tuple(cue.stem for cue in stimuli.values()),
    )


def labelled(folder: Path, size: int, categories: tuple[str, ...] = CATEGORIES) -> Images:
    """Silhouettes or edge drawings of the categories; labels index `categories`.

    Args and Raises as for `cue_conflict`.
    """
    stimuli = _listed(folder, categories)
    if not stimuli:
        raise MissingData(f"{folder} holds no stimulus of {', '.join(categories)}.")
    return Images(
        pixels=_pixels(tuple(stimuli), size),
        labels=torch.tensor([categories.index(cue.shape) for cue in stimuli.values()]),
        classes=categories,
        names=tuple(cue.stem for cue in stimuli.values()),
    )


TRIAL = re.compile(r"\d+_[^_]+_[^_]+_[^_]+_([a-z]+)_\d+_")  # 0350_sty_dnn_0_car_00_car-0149.png


def trials(folder: Path, size: int, categories: tuple[str, ...] = CATEGORIES) -> Images:
    """Stimuli named after their trials, as those of model-vs-human; labels index `categories`.

    Args:
        folder: Holds SESSION/TRIAL_EXPERIMENT_OBSERVER_CONDITION_CATEGORY_00_NAME.png.

    Raises:
        MissingData: The folder is not there or holds no such stimulus.

    Source: Geirhos et al. 2021, arXiv 2106.07411; code of bethgelab/model-vs-human.
    """
    checked(categories)
    named = {file: TRIAL.match(file.name) for file in _files(folder)}
    chosen = {file: m[1] for file, m in named.items() if m and m[1] in categories}
    if not chosen:
        raise MissingData(f"{folder} holds no stimulus of {', '.join(categories)}.")
    return Images(
        pixels=_pixels(tuple(chosen), size),
        labels=torch.tensor([categories.index(category) for category in chosen.values()]),
        classes=categories,
        names=tuple(file.stem for file in chosen),
    )


def digest(folder: Path) -> str:
    """Hash of every stimulus' name and content below the folder, 16 hex digits."""
    total = hashlib.sha256()
    for file in _files(folder):
        total.update(f"{file.relative_to(folder).as_posix()} {sha256(file)}\n".encode())
    return total.hexdigest()[:16]


def _files(folder: Path) -> list[Path]:
    """Image files below the category folders, by name."""
    if not folder.is_dir():
        raise MissingData(
            f"no folder {folder}; run `robustbias doctor` to see the data sets and how to get them."
        )
    files = (f for f in folder.glob("*/*") if f.suffix.lower() in SUFFIXES)
    return sorted(files, key=lambda file: file.relative_to(folder).as_posix())


def _listed(folder: Path, categories: tuple[str, ...]) -> dict[Path, Cues]:
    """The stimuli whose shape is among the categories; each lies in the folder of its shape."""
    checked(categories)
    named = {file: cues(file.name) for file in _files(folder)}
    for file, cue in named.items():
        if cue.shape != file.parent.name or cue.shape not in CATEGORIES:
            raise UserError(
                f"{file} lies in {file.parent.name}/ but its shape is {cue.shape!r}; "
                "expected CATEGORY/CATEGORYk... with one of the 16 categories."
            )
    return {file: cue for file, cue in named.items() if cue.shape in categories}


def _pixels(files: tuple[Path, ...], size: int) -> UInt8[Tensor, "n 3 h w"]:
    """The files' pixels at one side, from the cache when they were read before."""
    if size < 1:
        raise UserError(f"stimulus size {size}; expected a side of 1 pixel or more.")
    key = [str(size), *fingerprints(files)]
    return cached_pixels("stimuli", key, lambda: _resized(files, size))


def _resized(files: tuple[Path, ...], size: int) -> UInt8[np.ndarray, "n 3 h w"]:
    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(lambda file: _image(file, size), files)))


def _image(file: Path, size: int) -> UInt8[np.ndarray, "3 h w"]:
    """One stimulus as RGB on white, `size` pixels a side."""
    with opened(file) as stored:
        opaque = stored.mode in ("RGB", "L") and "transparency" not in stored.info
        image = stored.convert("RGB" if opaque else "RGBA")
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if image.width != image.height:
        raise UserError(
            f"{file} is {image.width} x {image.height} pixels; expected a square image."
        )
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    if pixels.shape[1:] != (size, size):
        pixels = F.resize(pixels, [size, size], antialias=True)
    return pixels.numpy()


# -- --------------------------------------------------------------------------------------------
# Collages: an object's silhouette filled with the texture of another category's object. No network
# takes part in making them.

FILLED = 0.4  # least share of an image that the box of a large object takes
GROUND = 127  # grey level around a collage's object


class Crossed(NamedTuple):
    """Which shape image (index, category) meets which texture image (category, number in it)."""

    image: Int64[Tensor, " n"]
    shape: Int64[Tensor, " n"]
    texture: Int64[Tensor, " n"]
    design: Int64[Tensor, " n"]

    def stimuli(
        self, pixels: UInt8[Tensor, "n 3 h w"], shapes: tuple[str, ...], categories: tuple[str, ...]
    ) -> CueConflict:
        """The stimuli with these pixels, named as in dog10-bird2 after the shape images' names."""
        cells = torch.stack([self.image, self.texture, self.design], 1).tolist()
        names = tuple(f"{shapes[i]}-{categories[t]}{j + 1}" for i, t, j in cells)
        return CueConflict(pixels, self.shape, self.texture, categories, names)


def crossed(shapes: Int64[Tensor, " m"], k: int) -> Crossed:
    """Every shape image with one of k texture images of each other category.

    With k shape images of each category, every texture image meets one shape image of each other
    category, so that images of both kinds can be resampled.

    Args:
        shapes: Category of each shape image, numbered from 0 without gaps.
    """
    q = int(shapes.max()) + 1
    rank = torch.stack([(shapes[:i] == c).sum() for i, c in enumerate(shapes)])
    image, texture = torch.cartesian_prod(torch.arange(len(shapes)), torch.arange(q)).T
    differ = shapes[image] != texture
    image, texture = image[differ], texture[differ]
    return Crossed(image, shapes[image], texture, (rank[image] + shapes[image] + texture) % k)


def large(
    photographs: Images,
    boxes: Int64[Tensor, "n 4"],
    belongs: Bool[Tensor, "q c"],
    k: int,
) -> Int64[Tensor, "q k"]:
    """k random photographs (seed 0) of each category, of those whose object is large.

    The object's box must take FILLED of the image and half of each side. No network has a part in
    the choice.

    Args:
        boxes: Left, top, right, bottom of each object.
        belongs: Which classes a category has.

    Raises:
        UserError: A category with fewer such photographs.
    """
    side = photographs.pixels.shape[-1]
    width, height = (boxes[:, 2:] - boxes[:, :2] + 1).T
    fit = (width * height >= FILLED * side**2) & (torch.minimum(width, height) >= side / 2)
    order = torch.randperm(len(photographs), generator=torch.Generator().manual_seed(0))
    rows = [order[(fit & classes[photographs.labels])[order]][:k] for classes in belongs]
    if (fewest := min(map(len, rows))) < k:
        raise UserError(
            f"a category has just {fewest} photographs with a large object, not {k}; ask for fewer "
            "images per category in the study's entry."
        )
    return torch.stack(rows)


def tiled(
    photograph: UInt8[Tensor, "3 h w"], box: Int64[Tensor, " 4"], scale: float, side: int
) -> UInt8[Tensor, "3 side side"]:
    """The middle half of a box, scaled and repeated as mirrored tiles until it fills a square."""
    left, top, right, bottom = box.tolist()
    x, y = (right - left + 1) // 4, (bottom - top + 1) // 4
    patch = photograph[:, top + y : bottom + 1 - y, left + x : right + 1 - x]
    size = [max(2, round(scale * length)) for length in patch.shape[1:]]
    if size != list(patch.shape[1:]):
        patch = F.resize(patch, size, antialias=True)
    for axis, length in enumerate(patch.shape[1:], 1):
        place = torch.arange(side) % (2 * length)
        patch = patch.index_select(axis, torch.minimum(place, 2 * length - 1 - place))
    return patch


def collage(
    silhouettes: Images,
    photographs: Images,
    boxes: Int64[Tensor, "n 4"],
    textures: Int64[Tensor, "q k"],
    scale: float,
) -> CueConflict:
    """Every silhouette, filled with mirrored tiles from one photograph of each other category.

    Args:
        silhouettes: Black on white; labels index the categories.
        boxes: Left, top, right, bottom of each photograph's object.
        textures: Photographs of each category, as from `large`.
        scale: Size of the tiles; 1 is the size that the photographs have.
    """
    side = silhouettes.pixels.shape[-1]
    cells = crossed(silhouettes.labels, textures.shape[1])
    foreground = silhouettes.pixels.float().mean(1, keepdim=True) < 128
    fillings = [
        tiled(photographs.pixels[i], boxes[i], scale, side) for i in textures.flatten().tolist()
    ]
    filling = torch.stack(fillings)[cells.texture * textures.shape[1] + cells.design]
    pixels = torch.where(foreground[cells.image], filling, GROUND).to(torch.uint8)
    return cells.stimuli(pixels, silhouettes.names, silhouettes.classes)
