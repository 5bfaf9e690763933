"""Encoded images of one split, as a reader of some layout found them."""

import dataclasses
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Int64


@dataclasses.dataclass(frozen=True)
class Encoded:
    """JPEG images that have not been decoded yet.

    `labels` index a data set's classes; `key` names the content (files, sizes, times), so that
    decoded pixels can be kept under it; `content` hands out the bytes in the order of the names.
    """

    labels: Int64[np.ndarray, " n"]
    names: tuple[str, ...]
    key: tuple[str, ...]
    content: Callable[[], Iterable[bytes]]

    def ordered(self) -> "Encoded":
        """By class, then by the number in the name: the same order in every layout."""
        order = sorted(
            range(len(self.names)), key=lambda i: (self.labels[i], _number(self.names[i]))
        )

        def content() -> list[bytes]:
            unordered = list(self.content())
            return [unordered[i] for i in order]

        return Encoded(self.labels[order], tuple(self.names[i] for i in order), self.key, content)


def stamp(path: Path) -> str:
    """Name, size and time of a file: changes when the file does."""
    status = path.stat()
    return f"{path.name} {status.st_size} {status.st_mtime_ns}"


def _number(name: str) -> int:
    """478 of n04254777_478.JPEG."""
    digits = re.findall(r"\d+", Path(name).stem)
    return int(digits[-1]) if digits else 0
