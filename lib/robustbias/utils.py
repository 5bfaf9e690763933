"""Errors a user can act on: the command line prints them as one line, without a traceback."""

import contextlib
import hashlib
import html
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import safetensors


class UserError(ValueError):
    """Something the caller gave is wrong; the message says what, what was expected, what to do."""


class MissingData(UserError):  # noqa: N818 - it names a state, as FileNotFound would
    """A data set or a network's weights are not on this machine; the message says how to get it."""


# -- --------------------------------------------------------------------------------------------
# Files that are either whole or absent, and their hashes.


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


# -- --------------------------------------------------------------------------------------------
# Encoded images of one split, as a reader of some layout found them.


def stamp(path: Path) -> str:
    """Name, size and time of a file: changes when the file does."""
    status = path.stat()
    return f"{path.name} {status.st_size} {status.st_mtime_ns}"


# -- --------------------------------------------------------------------------------------------
# What a notebook carries for programs, beside what a reader sees.


CLAIMS = "application/vnd.robustbias.claims+json"


HEADLINES = "application/vnd.robustbias.headlines+json"


PROVENANCE = "application/vnd.robustbias.provenance+json"


class Footer(dict):
    """Facts by name: a notebook shows them as a table and keeps them as a provenance record."""

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        rows = [(html.escape(str(name)), html.escape(str(value))) for name, value in self.items()]
        body = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows)
        return {
            "text/plain": "\n".join(f"{name}: {value}" for name, value in self.items()),
            "text/html": f'<table class="dataframe"><tbody>{body}</tbody></table>',
            PROVENANCE: {name: str(value) for name, value in self.items()},
        }


# -- --------------------------------------------------------------------------------------------
# Words the book shows for the ids that tables hold.


ARCHITECTURES = {"alexnet": "AlexNet", "googlenet": "GoogLeNet", "resnet50": "ResNet-50"}


REGIMES = {
    "standard": "S (standard)",
    "robust": "R (robust)",
    "untrained": "untrained",
    "human": "humans",
}


def architecture(id: str) -> str:
    """The architecture as written in prose; an id without a display name as it is."""
    return ARCHITECTURES.get(id, id)


# -- --------------------------------------------------------------------------------------------
# Text that a notebook shows as prose.


class Prose(str):
    """A string in markdown; a notebook renders it."""

    def _repr_markdown_(self) -> str:
        return str(self)
