"""Images on a device: pixels with one label each, or with a shape and a texture label."""

import contextlib
import dataclasses
import hashlib
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from torch import Tensor

from robustbias import manifest
from robustbias.utils import UserError, atomic, parsed

MAX_PIXELS = 64_000_000  # of a stored image; a file of some kilobytes can unpack to far more


@dataclasses.dataclass(frozen=True)
class Images:
    """Labelled images, stored as uint8 0..255 and handed out as float in [0, 1].

    `made_of` says what each was made of (its drawing): images of one are not independent. None
    where each image is its own.
    """

    pixels: UInt8[Tensor, "n 3 h w"]
    labels: Int64[Tensor, " n"]
    classes: tuple[str, ...]
    names: tuple[str, ...] = ()
    made_of: Int64[Tensor, " n"] | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def to(self, device: torch.device | str) -> "Images":
        """The same images on another device."""
        return dataclasses.replace(
            self, pixels=self.pixels.to(device), labels=self.labels.to(device)
        )

    def take(self, index: Int64[Tensor, " m"]) -> "Images":
        """The images at `index`, in that order."""
        return dataclasses.replace(
            self,
            pixels=self.pixels[index],
            labels=self.labels[index],
            names=tuple(self.names[i] for i in index.tolist()) if self.names else (),
            made_of=None if self.made_of is None else self.made_of[index.cpu()],
        )

    @property
    def clusters(self) -> Int64[Tensor, " n"]:
        """What each image was made of, for the bootstrap; its own position if of nothing shared."""
        return torch.arange(len(self)) if self.made_of is None else self.made_of

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(float pixels in [0, 1], labels) in order, the last batch possibly smaller."""
        for pixels, labels in zip(self.pixels.split(size), self.labels.split(size), strict=True):
            yield floats(pixels), labels


@dataclasses.dataclass(frozen=True)
class CueConflict:
    """Images whose shape and texture belong to different categories.

    `shape` and `texture` index `categories`; names are `shapeK-textureJ` (Geirhos et al. 2019).
    """

    pixels: UInt8[Tensor, "n 3 h w"]
    shape: Int64[Tensor, " n"]
    texture: Int64[Tensor, " n"]
    categories: tuple[str, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pixels)


def floats(pixels: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """uint8 0..255 as float in [0, 1], channels last (the layout convolutions are fast in)."""
    return pixels.to(memory_format=torch.channels_last).float().div_(255)


@contextlib.contextmanager
def opened(file: Path | io.BytesIO, name: Path | str = "") -> Iterator[Image.Image]:
    """A stored image, for a block that decodes it.

    Args:
        name: Its name in messages; the file's when empty.

    Raises:
        UserError: No image, a damaged one, or one of more than MAX_PIXELS, which is not decoded.
    """
    try:
        with Image.open(file) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UserError(
                    f"{name or file} has {image.width} x {image.height} pixels; expected at most "
                    f"{MAX_PIXELS // 10**6} million. Fetch it again, or scale it down."
                )
            yield image
    except UserError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{name or file} is not a readable image ({error}); fetch it again."
        ) from error


# Decoded images on disk: one memory-mapped uint8 array per set, named by the hash of its inputs


def cache_folder() -> Path:
    """Where decoded images are kept: $ROBUSTBIAS_CACHE, else `_build/cache`. Safe to delete."""
    return manifest.place("CACHE", "_build/cache")


def cached_pixels(
    kind: str, key: Iterable[str], pixels: Callable[[], UInt8[np.ndarray, "n 3 h w"]]
) -> UInt8[Tensor, "n 3 h w"]:
    """The array `pixels` makes, made once for each key and mapped from disk afterwards.

    Args:
        kind: Sub-folder of the cache.
        key: Everything the array depends on, other than the file that defines `pixels`, whose code
            is part of the key by itself.

    Raises:
        UserError: The disk refused the write; nothing is left behind.
    """
    _, code = parsed(Path(pixels.__code__.co_filename))
    name = hashlib.sha256("\n".join([*key, code]).encode()).hexdigest()[:24]
    path = cache_folder() / kind / f"{name}.npy"
    if not path.exists() or (mapped := _mapped(path)) is None:
        array = pixels()
        with atomic(path) as partial, open(partial, "wb") as file:
            np.save(file, array)  # a plain write: a full disk is an error here, not a lost map
        mapped = np.load(path, mmap_mode="c")
    return torch.from_numpy(mapped)  # changed in memory, never in the file


def _mapped(path: Path) -> UInt8[np.ndarray, "n 3 h w"] | None:
    """The stored array, None when the file is cut off or no array of pixels."""
    try:
        array = np.load(path, mmap_mode="c")
    except (OSError, ValueError, EOFError):
        return None
    whole = array.dtype == np.uint8 and array.nbytes + array.offset == path.stat().st_size
    return array if whole else None
