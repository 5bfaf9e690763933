"""Tiny-ImageNet in the folders of the official zip.

train/WNID/images/*.JPEG, val/images/*.JPEG with val/val_annotations.txt, and wnids.txt.
"""

from pathlib import Path

import numpy as np

from robustbias.errors import UserError
from robustbias.images.encoded import Encoded, stamp
from robustbias.images.tiny_imagenet_shards import AGAIN


def unpacked(folder: Path) -> Path | None:
    """The folder of wnids.txt: this one or tiny-imagenet-200/ below it."""
    roots = (folder, folder / "tiny-imagenet-200")
    return next((root for root in roots if (root / "wnids.txt").is_file()), None)


def count(root: Path, split: str) -> int:
    """Image files of a split."""
    pattern = "train/*/images/*.JPEG" if split == "train" else "val/images/*.JPEG"
    return sum(1 for _ in root.glob(pattern))


def encoded(root: Path, split: str, wnids: tuple[str, ...], wanted: tuple[str, ...]) -> Encoded:
    """Files of the wanted classes; labels are ranks among `wnids`."""
    if set((root / "wnids.txt").read_text().split()) != set(wnids):
        raise UserError(f"{root / 'wnids.txt'} does not list the {len(wnids)} WNIDs. {AGAIN}")
    if split == "train":
        labelled = [
            (wnid, path)
            for wnid in wanted
            for path in sorted((root / "train" / wnid / "images").glob("*.JPEG"))
        ]
    else:
        labelled = _validation(root / "val", frozenset(wanted))
    files = [path for _, path in labelled]
    return Encoded(
        labels=np.array([wnids.index(wnid) for wnid, _ in labelled], dtype=np.int64),
        names=tuple(path.name for path in files),
        key=tuple(stamp(path) for path in files),
        content=lambda: (path.read_bytes() for path in files),
    )


def _validation(folder: Path, wanted: frozenset[str]) -> list[tuple[str, Path]]:
    """(WNID, file) of the validation images, from the annotation file."""
    annotations = folder / "val_annotations.txt"
    if not annotations.is_file():
        raise UserError(f"no {annotations}; expected a line `file WNID box` an image. {AGAIN}")
    pairs = [line.split("\t")[:2] for line in annotations.read_text().splitlines() if line]
    labelled = [(wnid, folder / "images" / name) for name, wnid in pairs if wnid in wanted]
    if absent := [path for _, path in labelled if not path.is_file()]:
        raise UserError(
            f"{annotations} names {len(absent)} missing images, first {absent[0]}. {AGAIN}"
        )
    return labelled
