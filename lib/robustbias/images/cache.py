"""Decoded images kept on disk, each set as one memory-mapped uint8 array.

An array is named by the hash of what it was made from, and written whole or not at all.
"""

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from robustbias.files import atomic
from robustbias.manifest import ROOT


def folder() -> Path:
    """Where decoded images are kept: $ROBUSTBIAS_CACHE, else `_build/cache`. Safe to delete."""
    return Path(os.environ.get("ROBUSTBIAS_CACHE", ROOT / "_build" / "cache")).expanduser()


def cached_pixels(
    kind: str, key: Iterable[str], pixels: Callable[[], UInt8[np.ndarray, "n 3 h w"]]
) -> UInt8[Tensor, "n 3 h w"]:
    """The array `pixels` makes, made once for each key and mapped from disk afterwards.

    Args:
        kind: Sub-folder of the cache.
        key: Everything the array depends on.

    Raises:
        UserError: The disk refused the write; nothing is left behind.
    """
    name = hashlib.sha256("\n".join(key).encode()).hexdigest()[:24]
    path = folder() / kind / f"{name}.npy"
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
