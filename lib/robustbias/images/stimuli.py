"""Real stimuli in category folders: cue conflicts, silhouettes and edge drawings.

Files are CATEGORY/NAME.png or .jpg, NAME as in images.names. A drawing kept in the alpha channel
is laid on white, so that it stays visible. Other sides than the stored one are made by one
antialiased bilinear resize; at the stored side (224) the pixels are untouched.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from robustbias.categories import CATEGORIES, known
from robustbias.errors import MissingData, UserError
from robustbias.files import sha256
from robustbias.images import CueConflict, Images
from robustbias.images.cache import cached_pixels
from robustbias.images.names import Cues, cues

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
    with ThreadPoolExecutor() as pool:  # by content, as `digest`: times and sizes may be kept
        key = [str(size), *pool.map(sha256, files)]
    return cached_pixels("stimuli", key, lambda: _resized(files, size))


def _resized(files: tuple[Path, ...], size: int) -> UInt8[np.ndarray, "n 3 h w"]:
    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(lambda file: _image(file, size), files)))


def _image(file: Path, size: int) -> UInt8[np.ndarray, "3 h w"]:
    """One stimulus as RGB on white, `size` pixels a side."""
    try:
        with Image.open(file) as stored:
            opaque = stored.mode in ("RGB", "L") and "transparency" not in stored.info
            image = stored.convert("RGB" if opaque else "RGBA")
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise UserError(f"{file} is not a readable image ({error}); fetch it again.") from error
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
