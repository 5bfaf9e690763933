"""Errors a user can act on, atomic files, hashes, display names, and what notebooks show."""

import ast
import contextlib
import functools
import hashlib
import html
import os
import platform
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import filelock
import safetensors


class UserError(ValueError):
    """Something the caller gave is wrong; the message says what, what was expected, what to do.

    The command line prints it as one line, without a traceback.
    """


class MissingData(UserError):  # noqa: N818 - it names a state, as FileNotFound would
    """A data set or a network's weights are not on this machine; the message says how to get it."""


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path near `path` that takes its name only when the block ends well.

    It has the same file name (writers choose a format by the suffix) and lies in a hidden folder
    next to the target, so that no pattern like *.toml matches it, even when a killed process has
    left it behind. What a process of this machine left that no longer runs is removed.

    Raises:
        UserError: The disk refused the write (full, read-only); nothing is left behind.
    """
    path = Path(path)
    try:
        with scratch(path.parent) as folder:
            partial = folder / path.name
            yield partial
            partial.chmod(0o644)  # readable to others, whatever wrote it
            os.replace(partial, path)
    except (OSError, safetensors.SafetensorError) as error:
        # safetensors reports a full disk as a different error
        raise UserError(
            f"could not write {path}: {getattr(error, 'strerror', None) or error}. "
            "Nothing was left half-written; free some space or choose another folder and try again."
        ) from error


@contextlib.contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A hidden folder below `parent`, made and removed; what killed processes left there goes."""
    parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(parent)
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=f"{_PARTIAL}{os.getpid()}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


_PARTIAL = f".partial-{platform.node()}-"


def _remove_abandoned(parent: Path) -> None:
    """Deletes temporary folders of processes that were killed on this machine."""
    for folder in parent.glob(f"{_PARTIAL}*"):
        process = folder.name.removeprefix(_PARTIAL).partition("-")[0]
        try:
            os.kill(int(process), 0)  # sends nothing; fails if there is no such process
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except (ValueError, OSError):
            continue


@contextlib.contextmanager
def reading(path: Path, kind: str, advice: str = "correct it or get it again") -> Iterator[None]:
    """Any error in the block means that `path` is no readable file of that kind.

    What a damaged or hostile file raises depends on the place of the damage and on the library, so
    every exception counts; a UserError passes as it is.

    Args:
        kind: With its article, for instance "a readable image".

    Raises:
        UserError: The error in one line, with the advice.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; expected {kind}.") from error
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        line = " ".join(reason.split())[:200]
        raise UserError(f"{path} is not {kind} ({line}); {advice}.") from error


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Only one process at a time is in a block with the lock file `path`; the others wait.

    The operating system releases the lock of a process that was killed.

    Args:
        wait: False enters the block at once; it is told whether it holds the lock.

    Raises:
        UserError: The lock file cannot be written.
    """
    lock = filelock.FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=-1 if wait else 0)
    except filelock.Timeout:
        yield False
        return
    except OSError as error:
        raise UserError(
            f"could not lock {path}: {error.strerror or error}; make its folder writable."
        ) from error
    try:
        yield True
    finally:
        lock.release()


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    return digest(path, "sha256")


def digest(path: Path, kind: str) -> str:
    """Hex digest of a file's content; `kind` is a name of hashlib, as md5."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def stamp(path: Path) -> str:
    """Name, size and time of a file, for what is too large to be read: shards for training."""
    status = path.stat()
    return f"{path.name} {status.st_size} {status.st_mtime_ns}"


def fingerprints(paths: Iterable[Path]) -> list[str]:
    """Name and SHA-256 of each file: content tells, since size and time may be kept."""
    with ThreadPoolExecutor() as pool:  # hashing releases the interpreter's lock
        return list(pool.map(lambda path: f"{path.name} {sha256(path)}", paths))


def parsed(path: Path) -> tuple[tuple[str, ...], str]:
    """Dotted names that a source file imports, at its top or inside functions, and its syntax tree.

    The tree is text that comments, docstrings and layout do not change.
    """
    return _parsed(path, path.stat().st_mtime_ns)


_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)


@functools.lru_cache(maxsize=512)
def _parsed(path: Path, _modified: int) -> tuple[tuple[str, ...], str]:
    tree, names = ast.parse(path.read_bytes()), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body.pop(0)
    return tuple(names), ast.dump(tree)


# MIME types of what a notebook carries for programs
CLAIMS = "application/vnd.robustbias.claims+json"
HEADLINES = "application/vnd.robustbias.headlines+json"
PROVENANCE = "application/vnd.robustbias.provenance+json"
TABLES = "application/vnd.robustbias.tables+json"
EXPLORER = "application/vnd.robustbias.explorer+json"


class Footer(dict):
    """Facts by name: a notebook shows them as a table and keeps them as a provenance record.

    It also keeps, without showing them, summaries of the measured tables that it used
    (`tables.summary`): with those another run can be compared table by table.
    """

    def __init__(self, facts: dict[str, Any], tables: Iterable[dict[str, Any]] = ()):
        super().__init__(facts)
        self.tables = list(tables)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        rows = [(html.escape(str(name)), html.escape(str(value))) for name, value in self.items()]
        body = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows)
        return {
            "text/plain": "\n".join(f"{name}: {value}" for name, value in self.items()),
            "text/html": f'<table class="dataframe"><tbody>{body}</tbody></table>',
            PROVENANCE: {name: str(value) for name, value in self.items()},
            TABLES: self.tables,
        }


# Display names of the ids in tables
ARCHITECTURES = {"alexnet": "AlexNet", "googlenet": "GoogLeNet", "resnet50": "ResNet-50"}

REGIMES = {
    "standard": "S (standard)",
    "robust": "R (robust)",
    "untrained": "untrained",
    "human": "humans",
}


def architecture(id: str) -> str:
    """The architecture as written in prose; an id without a display name is returned as it is."""
    return ARCHITECTURES.get(id, id)


class Prose(str):
    """A string in markdown; a notebook renders it."""

    def _repr_markdown_(self) -> str:
        return str(self)


class Html(str):
    """A string of HTML; a notebook displays it."""

    def _repr_html_(self) -> str:
        return str(self)


def unit_links(units: Iterable[tuple[str, str, str, int]]) -> Html:
    """Links from a chapter to units in the explorer of the same study.

    Args:
        units: (architecture, regime, layer, number) of each.
    """
    links = []
    for architecture, regime, layer, unit in units:
        letter, place = REGIMES[regime][0], f"{layer}-{int(unit)}"
        address = f"08_unit_explorer.html#unit-{architecture}-{letter.lower()}-{place}"
        links.append(f"<a href='{address}'>{letter} {layer} {int(unit)}</a>")
    return Html(f"<p>These units in the unit explorer: {', '.join(links)}.</p>")
