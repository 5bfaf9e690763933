"""Files that are either whole or absent, and their hashes."""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import filelock
import safetensors

from robustbias.errors import UserError


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path near `path` that takes its name only when the block ends well.

    It has the same file name (writers choose a format by the suffix) and lies in a hidden folder
    beside the target, so that no pattern like *.toml meets it, not even when it is left behind by
    a process that was killed.

    Raises:
        UserError: The disk refused the write (full, read-only); nothing is left behind.
    """
    path, folder = Path(path), None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=".partial-"))
        partial = folder / path.name
        yield partial
        partial.chmod(0o644)  # readable to others, whatever wrote it
        os.replace(partial, path)
    except (OSError, safetensors.SafetensorError) as error:
        # safetensors reports a full disk as an error of its own kind
        raise UserError(
            f"could not write {path}: {getattr(error, 'strerror', None) or error}. "
            "Nothing was left half-written; free some space or choose another folder and try again."
        ) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Only one process at a time is in a block with the lock file `path`; the others wait.

    Raises:
        UserError: The lock file cannot be written.
    """
    lock = filelock.FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise UserError(
            f"could not lock {path}: {error.strerror or error}; make its folder writable."
        ) from error
    try:
        yield
    finally:
        lock.release()


def sha256(path: Path) -> str:
    """Hex digest of a file's content, read in one-MiB blocks."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
