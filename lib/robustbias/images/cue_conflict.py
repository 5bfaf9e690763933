"""Real stimuli in category folders: cue conflicts, silhouettes and edge drawings.

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
from jaxtyping import Float, UInt8
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


def known(categories: tuple[str, ...]) -> tuple[str, ...]:
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
    members = [(category, *entry_level()[category]) for category in known(categories)]
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
    found = (f for f in folder.glob("*/*") if f.suffix.lower() in SUFFIXES)
    return sorted(found, key=lambda file: file.relative_to(folder).as_posix())


def _listed(folder: Path, categories: tuple[str, ...]) -> dict[Path, Cues]:
    """The stimuli whose shape is among the categories; each lies in the folder of its shape."""
    known(categories)
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
