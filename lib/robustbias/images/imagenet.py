"""Folders of photographs by class: ImageNet and its variants, and ImageNet-C's folders of folders.

    ROOT/WNID/*.JPEG                         ImageNet, ImageNet-A, -R, -Sketch, Imagenette
    ROOT/0..999/*.jpeg                       ImageNetV2; the number is the rank of the WNID
    ROOT/CORRUPTION/SEVERITY/WNID/*.JPEG     ImageNet-C and Tiny-ImageNet-C

Only the classes a study knows are read, and of them only the images that are asked for. Photographs
are resized once so that the centre crop holds 0.875 of the shorter side; images of ImageNet-C are
crops already and are at most resized, never cropped again.
"""

import functools
import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as F
from tqdm import tqdm

from robustbias import manifest
from robustbias.images import Images, cached_pixels, cue_conflict, opened, streams
from robustbias.images.corruptions.constants import NAMES, SEVERITIES
from robustbias.images.cue_conflict import CATEGORIES, checked, class_names, entry_level
from robustbias.images.source import StimulusFolders
from robustbias.images.streams import Stream
from robustbias.manifest import DatasetEntry
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
        raise UserError(f"unknown corruption {corruption!r}; valid: {', '.join(NAMES)}.")
    if severity not in SEVERITIES:
        raise UserError(f"severity {severity!r}; expected 1, 2, 3, 4 or 5.")
    _present(folder)
    return _read(folder / corruption / str(severity), classes, size, n, seed, _resized)


def contents(folder: Path, classes: tuple[str, ...], n: int | None = None, seed: int = 0) -> str:
    """Hash of the names and contents of the images that `labelled` would read."""
    return _hashed(_chosen(folder, classes, n, seed)[0])


def _hashed(paths: list[Path]) -> str:
    folders = (path.parent.name for path in paths)
    text = "\n".join(map(" ".join, zip(folders, fingerprints(paths), strict=True)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def count(folder: Path) -> int:
    """Number of image files in folders of WNIDs, or of numbers."""
    files = (file for name in ("n[0-9]*", "[0-9]*") for file in folder.glob(f"{name}/*"))
    return sum(1 for path in files if path.suffix.lower() in SUFFIXES)


def here(entry: DatasetEntry) -> bool:
    """Whether all images of a set in folders of classes are on this machine."""
    return count(manifest.data_directory() / entry.path) == sum(entry.images.values())


def batches(
    entry: DatasetEntry, size: int, n: int | None = None, seed: int = 0, batch: int = 200
) -> Iterator[tuple[UInt8[Tensor, "b 3 size size"], Int64[Tensor, " b"]]]:
    """n photographs (all when None) of a set of kind `imagenet`, with their ranks among the 1,000.

    Raises:
        MissingData, UserError: As `labelled`.
    """
    classes = class_names(entry.class_file)
    paths, wnids, _ = _chosen(manifest.data_directory() / entry.path, classes, n, seed)
    for start in range(0, len(paths), batch):
        part = slice(start, start + batch)
        labels = torch.tensor([classes.index(wnid) for wnid in wnids[part]])
        yield torch.from_numpy(decoded(paths[part], size, _cropped)), labels


def _present(folder: Path) -> None:
    if not folder.is_dir():
        raise MissingData(
            f"no folder {folder}; run `robustbias doctor` to see the data sets and how to get them."
        )


def _chosen(
    folder: Path, classes: tuple[str, ...], n: int | None, seed: int
) -> tuple[list[Path], list[str], tuple[str, ...]]:
    """Files by class and name, or n of them; the WNID of each; the classes that are here."""
    _present(folder)
    if n is not None and n < 1:
        raise UserError(f"n = {n} images asked for; expected at least 1.")
    here = sorted(path.name for path in folder.iterdir() if path.is_dir())
    every = class_names("imagenet_classes.txt")
    numbered = {every[int(name)]: name for name in here if name.isdecimal() and int(name) < 1000}
    places = {wnid: name for wnid in classes for name in (wnid, numbered.get(wnid)) if name in here}
    if not places:
        first = ", ".join(here[:3]) or "nothing"
        raise UserError(
            f"{folder} has no folder named after a class of the study (as {classes[0]}); it holds "
            f"{first}. Expected WNID/*.JPEG."
        )
    files = {
        wnid: sorted(p for p in (folder / name).iterdir() if p.suffix.lower() in SUFFIXES)
        for wnid, name in places.items()
    }
    if empty := [wnid for wnid, paths in files.items() if not paths]:
        raise UserError(
            f"{folder} has no image in {', '.join(empty[:3])} ({len(empty)} of {len(files)} "
            "folders are empty); unpack the data again."
        )
    chosen = [(path, wnid) for wnid, paths in files.items() for path in paths]
    if n is not None:
        order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(seed))
        chosen = [chosen[i] for i in order[:n].sort().values.tolist()]
    return [path for path, _ in chosen], [wnid for _, wnid in chosen], tuple(files)


def _read(
    folder: Path,
    classes: tuple[str, ...],
    size: int,
    n: int | None,
    seed: int,
    fitted: Callable[[Tensor, int], Tensor],
) -> Images:
    """The chosen files, decoded on all cores."""
    paths, wnids, present = _chosen(folder, classes, n, seed)
    return Images(
        pixels=torch.from_numpy(decoded(paths, size, fitted)),
        labels=torch.tensor([present.index(wnid) for wnid in wnids]),
        classes=present,
        names=tuple(f"{path.parent.name}/{path.name}" for path in paths),
    )


BAR_FROM = 1_000  # images; decoding fewer takes no time worth a progress bar


def decoded(
    paths: list[Path], size: int, fitted: Callable[[Tensor, int], Tensor]
) -> UInt8[np.ndarray, "n 3 size size"]:
    """The files' pixels, `fitted` to the size, decoded on all cores."""
    if size < 1:
        raise UserError(f"image size {size}; expected a side of 1 pixel or more.")
    pixels = np.empty((len(paths), 3, size, size), dtype=np.uint8)

    def decode(i: int) -> None:
        with opened(paths[i]) as stored:
            image = torch.from_numpy(np.array(_upright(stored).convert("RGB"))).permute(2, 0, 1)
        pixels[i] = fitted(image, size)

    bar = tqdm(total=len(paths), desc="decoding", unit="image", disable=len(paths) < BAR_FROM)
    with bar, ThreadPoolExecutor() as pool:  # the decoder releases the interpreter's lock
        for _ in pool.map(decode, range(len(paths))):
            bar.update()
    return pixels


def _upright(stored: Image.Image) -> Image.Image:
    """The image turned as its EXIF says."""
    try:
        return ImageOps.exif_transpose(stored)
    except Exception:  # damaged metadata of an image that may be whole
        return stored


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


class ImageNet(StimulusFolders):
    """ImageNet's validation split or a set in its classes, with the stimuli of Geirhos et al.

    `classes` are the 1,000 WNIDs, sorted; labels index them, whichever of them have images.

    Args:
        categories: The entry-level categories of stimuli, all 16 when empty.
        dataset: A set of the manifest of kind `imagenet`.
        subset: "entry-level" for the photographs of the categories' classes (207 for all 16),
            "all" for every photograph; by default the first, unless a category has none.
        size: Side of the crops in pixels.

    Raises:
        UserError: Another subset, or an unknown category.
    """

    def __init__(
        self,
        categories: tuple[str, ...] = (),
        *,
        dataset: str = "imagenetv2",
        subset: str = "",
        size: int = 224,
    ):
        if subset not in ("", "entry-level", "all"):
            raise UserError(f"unknown subset {subset!r}; expected entry-level or all.")
        super().__init__(checked(categories) or CATEGORIES, size)
        self.dataset, self.subset = manifest.dataset(dataset), subset
        self.classes = class_names(self.dataset.class_file)

    def train(self, epoch: int, seed: int) -> Stream:
        """The training photographs, in crops that differ from pass to pass, from disk."""
        return Stream(self._train, self.side, epoch, seed)

    @functools.cached_property
    def _train(self) -> streams.Index:
        return streams.index(self._folder("imagenet-train"), self.classes)

    def val(self) -> Images:
        """The photographs of the subset, resized and cropped; kept on disk after the first time."""
        return self._val

    @functools.cached_property
    def _val(self) -> Images:
        paths, wnids = self._files
        pixels = cached_pixels(
            "imagenet",
            (str(self.side), _hashed(paths)),
            lambda: decoded(paths, self.side, _cropped),
        )
        index = {wnid: label for label, wnid in enumerate(self.classes)}
        return Images(
            pixels=pixels,
            labels=torch.tensor([index[wnid] for wnid in wnids]),
            classes=self.classes,
            names=tuple(f"{path.parent.name}/{path.name}" for path in paths),
        )

    @functools.cached_property
    def _files(self) -> tuple[list[Path], list[str]]:
        folder = self._folder(self.dataset.name)
        if not folder.is_dir():
            raise MissingData(
                f"no folder {folder}; run `robustbias fetch {self.dataset.name}`, or set "
                "ROBUSTBIAS_DATA to the folder above one that has it."
            )
        paths, wnids, present = _chosen(folder, self.classes, None, 0)
        gathered = [set(entry_level()[category]) for category in self.categories]
        covered = all(wnids_of & set(present) for wnids_of in gathered)
        if self.subset == "all" or not (self.subset or covered):
            return paths, wnids
        chosen = set().union(*gathered)
        kept = [(path, wnid) for path, wnid in zip(paths, wnids, strict=True) if wnid in chosen]
        return [path for path, _ in kept], [wnid for _, wnid in kept]

    def stylized(self) -> Images:
        """Photographs in the styles of paintings; labels index the categories."""
        return cue_conflict.trials(self._folder("stylized"), self.side, self.categories)

    @functools.cached_property
    def digest(self) -> str:
        """Hash of the classes, of the photographs' names, sizes and times, and of the stimuli."""
        paths, _ = self._files
        parts = (*self.classes, *self.categories, str(self.side), _hashed(paths))
        total = hashlib.blake2b(" ".join(parts).encode(), digest_size=8)
        total.update(self.stimuli_digest(("stylized",)))
        return total.hexdigest()
