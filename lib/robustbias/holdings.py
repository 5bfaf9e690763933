"""What is here of a data set: images, stimuli or trials counted, split by split."""

import itertools
from collections.abc import Callable
from pathlib import Path

from robustbias import manifest
from robustbias.errors import UserError
from robustbias.images import folders, stimuli, tiny_imagenet_files
from robustbias.images.corruptions.constants import GROUPS, SEVERITIES
from robustbias.manifest import DatasetEntry


def folder(entry: DatasetEntry) -> Path:
    """Where the data set lies or would lie."""
    return manifest.data_directory() / entry.path


def holdings(entry: DatasetEntry, place: Path | None = None) -> dict[str, int]:
    """Number of items of every split that the manifest names; 0 where nothing is.

    Args:
        place: Another folder than the data set's own.

    Raises:
        UserError: What is there cannot be read (a broken shard, a missing one).
    """
    if entry.kind not in COUNTS:
        raise UserError(
            f"data set {entry.name}: unknown kind {entry.kind!r}; "
            f"expected one of {', '.join(sorted(COUNTS))}."
        )
    place = place or folder(entry)
    return {
        split: COUNTS[entry.kind](place, split) if place.is_dir() else 0 for split in entry.images
    }


def complete(entry: DatasetEntry, place: Path | None = None) -> bool:
    """Whether every split has as many items as the manifest says; always for an embedded set."""
    return holdings(entry, place) == entry.images


def _stimuli(place: Path, split: str) -> int:
    return sum(file.suffix.lower() in stimuli.SUFFIXES for file in place.glob("*/*"))


def _trials(place: Path, split: str) -> int:
    return sum(
        max(len(file.read_text().splitlines()) - 1, 0) for file in (place / split).glob("*.csv")
    )


def _photographs(place: Path, split: str) -> int:
    return folders.count(place)


def _corrupted(place: Path, split: str) -> int:
    """Images of all corruptions of a group (noise, blur, weather, digital) at all severities."""
    cells = itertools.product(GROUPS[split], SEVERITIES)
    return sum(folders.count(place / name / str(severity)) for name, severity in cells)


def _index_rows(place: Path, split: str) -> int:
    index = place / "index.csv"
    return len(index.read_text().splitlines()) - 1 if index.is_file() else 0


def _drawn(place: Path, split: str) -> int:
    return 0  # made when needed: nothing lies on disk


COUNTS: dict[str, Callable[[Path, str], int]] = {
    "embedded": _drawn,
    "tiny-imagenet": tiny_imagenet_files.count,
    "cue-conflict": _stimuli,
    "category-folders": _stimuli,
    "decisions": _trials,
    "wnid-folders": _photographs,
    "imagenet-c": _corrupted,
    "broden": _index_rows,
}
