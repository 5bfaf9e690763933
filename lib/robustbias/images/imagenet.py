"""Folders of photographs by WNID: ImageNet-A, -R and -Sketch, and ImageNet-C's folders of folders.

    ROOT/WNID/*.JPEG                         ImageNet-A, -R, -Sketch and the validation split
    ROOT/CORRUPTION/SEVERITY/WNID/*.JPEG     ImageNet-C and Tiny-ImageNet-C

Only the classes a study knows are read, and of them only the images that are asked for. Photographs
are resized once so that the centre crop holds 0.875 of the shorter side; images of ImageNet-C are
crops already and are at most resized, never cropped again.
"""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from robustbias.images import Images, opened
from robustbias.images.corruptions.constants import NAMES, SEVERITIES
from robustbias.utils import MissingData, UserError, fingerprints

SUFFIXES = (".jpeg", ".jpg", ".png")


CROP = 0.875  # of the shorter side: 224 of 256


def labelled(
    folder: Path, classes: tuple[str, ...], size: int, *, n: int | None = None, seed: int = 0
) -> Images:
    """Photographs of the classes that the folder has; labels index `classes` of the result.

    Args:
        folder: Holds WNID/*.JPEG (also .jpg, .png); other folders are left out.
        classes: WNIDs in the order of a network's outputs.
        size: Side in pixels.
        n: How many images, drawn without replacement by the seed; all of them when None.

    Raises:
        MissingData: The folder is not there.
        UserError: It holds no folder of a class, a class without images, or an unreadable image.
    """
    return _read(folder, classes, size, n, seed, _cropped)


def corrupted(
    folder: Path,
    corruption: str,
    severity: int,
    classes: tuple[str, ...],
    size: int,
    *,
    n: int | None = None,
    seed: int = 0,
) -> Images:
    """One cell of ImageNet-C. The same n and seed give the same photographs in every cell.

    Args and Raises as for `labelled`; also UserError for an unknown corruption or severity.
    """
    if corruption not in NAMES:
        raise UserError(f"unknown corruption {corruption!r}; known: {', '.join(NAMES)}.")
    if severity not in SEVERITIES:
        raise UserError(f"severity {severity!r}; expected 1, 2, 3, 4 or 5.")
    _present(folder)
    return _read(folder / corruption / str(severity), classes, size, n, seed, _resized)


def contents(folder: Path, classes: tuple[str, ...], n: int | None = None, seed: int = 0) -> str:
    """Hash of the names and contents of the images that `labelled` would read."""
    chosen, _ = _chosen(folder, classes, n, seed)
    folders = (path.parent.name for path in chosen)
    text = "\n".join(map(" ".join, zip(folders, fingerprints(chosen), strict=True)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def count(folder: Path) -> int:
    """Number of image files in folders of WNIDs."""
    return sum(1 for path in folder.glob("n[0-9]*/*") if path.suffix.lower() in SUFFIXES)


def _present(folder: Path) -> None:
    if not folder.is_dir():
        raise MissingData(
            f"no folder {folder}; run `robustbias doctor` to see the data sets and how to get them."
        )


def _chosen(
    folder: Path, classes: tuple[str, ...], n: int | None, seed: int
) -> tuple[list[Path], tuple[str, ...]]:
    """Files in the order of class and name, or n of them, and the classes that the folder has."""
    _present(folder)
    if n is not None and n < 1:
        raise UserError(f"n = {n} images asked for; expected at least 1.")
    here = sorted(path.name for path in folder.iterdir() if path.is_dir())
    found = tuple(wnid for wnid in classes if wnid in here)
    if not found:
        first = ", ".join(here[:3]) or "nothing"
        raise UserError(
            f"{folder} has no folder named after a class of the study (as {classes[0]}); it holds "
            f"{first}. Expected WNID/*.JPEG."
        )
    files = {
        wnid: sorted(p for p in (folder / wnid).iterdir() if p.suffix.lower() in SUFFIXES)
        for wnid in found
    }
    if empty := [wnid for wnid in found if not files[wnid]]:
        raise UserError(
            f"{folder} has no image in {', '.join(empty[:3])} ({len(empty)} of {len(found)} "
            "folders are empty); unpack the data again."
        )
    paths = [path for wnid in found for path in files[wnid]]
    if n is not None:
        order = torch.randperm(len(paths), generator=torch.Generator().manual_seed(seed))
        paths = [paths[i] for i in order[:n].sort().values.tolist()]
    return paths, found


def _read(
    folder: Path,
    classes: tuple[str, ...],
    size: int,
    n: int | None,
    seed: int,
    fitted: Callable[[Tensor, int], Tensor],
) -> Images:
    """The chosen files, decoded on all cores."""
    if size < 1:
        raise UserError(f"image size {size}; expected a side of 1 pixel or more.")
    paths, found = _chosen(folder, classes, n, seed)

    def image(path: Path) -> UInt8[Tensor, "3 size size"]:
        with opened(path) as stored:
            pixels = torch.from_numpy(np.array(stored.convert("RGB"))).permute(2, 0, 1)
        return fitted(pixels, size)

    with ThreadPoolExecutor() as pool:
        pixels = torch.stack(list(pool.map(image, paths)))
    return Images(
        pixels=pixels,
        labels=torch.tensor([found.index(path.parent.name) for path in paths]),
        classes=found,
        names=tuple(f"{path.parent.name}/{path.name}" for path in paths),
    )


def _cropped(pixels: UInt8[Tensor, "3 h w"], size: int) -> UInt8[Tensor, "3 size size"]:
    """The shorter side resized to size / 0.875, the centre cut out; of that size, untouched."""
    if pixels.shape[1:] == (size, size):
        return pixels
    pixels = F.resize(pixels, [round(size / CROP)], antialias=True)
    return F.center_crop(pixels, [size, size])


def _resized(pixels: UInt8[Tensor, "3 h w"], size: int) -> UInt8[Tensor, "3 size size"]:
    """The whole image at that size; of that size, untouched."""
    if pixels.shape[1:] == (size, size):
        return pixels
    return F.resize(pixels, [size, size], antialias=True)
