"""The table store: a measured table is kept under everything its values depend on.

key = sha256(measure, arguments, study entry, seed, image digest, weights hashes, core source)

A changed argument, image, weight or line of the core package is another key, so a stored table is
never stale. Provenance travels inside the parquet file, in its schema metadata.
"""

import ast
import dataclasses
import functools
import hashlib
import importlib.util
import json
import os
import pkgutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from robustbias import utils
from robustbias.manifest import ROOT
from robustbias.studies import Study
from robustbias.utils import UserError

# -- --------------------------------------------------------------------------------------------
# Which source files a function's values depend on, read from the import statements.
#
#     files(m) = m and files(everything m imports from this package)
#
# A name imported from a package counts as the module of that name where there is one, else as the
# package's own file: importing one measure does not make it depend on all the others.


PACKAGE = Path(__file__).parent


def digest(modules: Iterable[str], package: Path = PACKAGE) -> str:
    """Hash of the code that the modules run, comments and docstrings aside.

    Args:
        modules: Dotted names; those outside the package are left out.
    """
    total = hashlib.sha256()
    for path in sorted(reached(modules, package)):
        name = path.relative_to(package).as_posix()
        total.update(f"{name}\0{_code(path, path.stat().st_mtime_ns)}\0".encode())
    return total.hexdigest()


def reached(modules: Iterable[str], package: Path = PACKAGE) -> frozenset[Path]:
    """The package's files that the modules import, directly or through others."""
    found: set[Path] = set()
    waiting = [path for name in modules for path in _files(name, package)]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += [
                file
                for name in _imports(path, path.stat().st_mtime_ns)
                for file in _files(name, package)
            ]
    return frozenset(found)


def _files(name: str, package: Path) -> Iterator[Path]:
    """The file of `package.a.b`, or of `package.a` when `b` is a name inside it."""
    first, *parts = name.split(".")
    if first != package.name:
        return
    for place in (package.joinpath(*parts), package.joinpath(*parts[:-1])):
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if path.is_file():
                yield path
                return


@functools.lru_cache(maxsize=512)
def _imports(path: Path, _modified: int) -> tuple[str, ...]:
    """Dotted names that a file imports, at its top or inside functions."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(names)


@functools.lru_cache(maxsize=512)
def _code(path: Path, _modified: int) -> str:
    """The file's syntax tree without docstrings, which no value depends on."""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
            and isinstance(body[0].value.value, str)
        ):
            body.pop(0)
    return ast.dump(tree)


METADATA = b"robustbias"


PROSE = ("title", "summary", "training")  # what training did is in the weights


STUDY = "robustbias.studies"  # what hands a measure its images and networks


def folder() -> Path:
    """Where tables are kept: $ROBUSTBIAS_TABLES, else `_build/tables`."""
    return Path(os.environ.get("ROBUSTBIAS_TABLES", ROOT / "_build" / "tables")).expanduser()


def dependencies(
    function: Callable, study: Study, entries: Iterable[Any], arguments: dict[str, Any]
) -> dict[str, Any]:
    """Everything a table's values depend on, as plain JSON values; its hash is the key."""
    return {
        "measure": function.__name__,
        "arguments": arguments,
        "study": {k: v for k, v in dataclasses.asdict(study.entry).items() if k not in PROSE},
        "seed": study.seed,
        "images": study.source.digest,
        "weights": {entry.name: study.network_named(entry.name).weights_hash for entry in entries},
        "categories": utils.sha256(ROOT / "data_manifest" / "entry_level.toml"),
        "source": digest([function.__module__, STUDY]),
    }


def key(dependencies: dict[str, Any]) -> str:
    """Short hash of the dependencies, independent of the order they are written in."""
    text = json.dumps(dependencies, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write(table: pd.DataFrame, path: Path, provenance: dict[str, Any]) -> None:
    """The table with its provenance, whole or not at all.

    Raises:
        UserError: the disk refused the write; nothing is left behind.
    """
    arrow = pa.Table.from_pandas(pd.DataFrame(table), preserve_index=False)
    note = json.dumps(provenance, sort_keys=True, default=str).encode()
    arrow = arrow.replace_schema_metadata({**arrow.schema.metadata, METADATA: note})
    with utils.atomic(path) as partial:
        pq.write_table(arrow, partial, write_page_checksum=True)


def read(path: Path) -> pd.DataFrame:
    """A stored table; its provenance is in `table.attrs["provenance"]`."""
    arrow = pq.read_table(path, page_checksum_verification=True)
    table = arrow.to_pandas()
    table.attrs = {"provenance": json.loads(arrow.schema.metadata[METADATA])}
    return table


def provenance(table: pd.DataFrame) -> dict[str, Any]:
    """What a table was made from, by which code, where and in how many seconds."""
    return table.attrs.get("provenance", {})


def cached(
    function: Callable[..., pd.DataFrame], study: Study, entries: Iterable[Any], **arguments: Any
) -> pd.DataFrame:
    """`function(study, **arguments)`, from the store when nothing it depends on has changed.

    Args:
        entries: The networks the function looks at; their weights are part of the key.
        arguments: Plain values; the study's own facts are in the key already.
    """
    name = function.__name__
    depends = dependencies(function, study, entries, arguments)
    path = folder() / study.name / f"{name}-{key(depends)}.parquet"
    try:
        return read(path)
    except FileNotFoundError:
        pass
    except (
        pa.ArrowException,
        KeyError,
        OSError,
        TypeError,
        ValueError,
    ):  # damaged from outside: measure again
        path.unlink(missing_ok=True)
    started = time.perf_counter()
    table = function(study, **arguments)
    made = {
        **depends,
        "seconds": round(time.perf_counter() - started, 2),
        "device": str(study.device),
        "versions": {"torch": torch.__version__, "pandas": pd.__version__},
    }
    write(table, path, made)
    return read(path)


def stored(
    function: Callable[..., pd.DataFrame] | None = None,
    *,
    of: Callable[[Any], Any] = lambda study: study,
) -> Callable[..., Any]:
    """Decorator: `function(study, **arguments)` goes through the store, with all its networks.

    Args:
        of: study -> the part of it that the function gets to see. The table does not depend on
            networks outside that part.
    """
    if function is None:
        return functools.partial(stored, of=of)

    @functools.wraps(function)
    def from_store(study: Study, **arguments: Any) -> pd.DataFrame:
        study = of(study)
        defaults = function.__kwdefaults__ or {}
        return cached(function, study, study.entries, **{**defaults, **arguments})

    return from_store


# -- --------------------------------------------------------------------------------------------
# What makes a function a measure: its name, the table store, and a tidy table.


REGISTRY: dict[str, Callable[..., pd.DataFrame]] = {}


VALUES = ("value", "low", "high", "n")


def measure(
    function: Callable[..., pd.DataFrame] | None = None,
    *,
    of: Callable[[Any], Any] = lambda study: study,
) -> Callable[..., Any]:
    """Decorator: register `function(study, *, ...) -> table` and keep its tables.

    Args:
        of: `paired` for a measure of S and R alone, whose tables then outlive a new network of the
            series over radii.

    Raises:
        ValueError: the name is taken.
    """
    if function is None:
        return functools.partial(measure, of=of)
    name = function.__name__
    if name in REGISTRY:
        raise ValueError(f"measure {name!r} exists already: rename the new one")
    REGISTRY[name] = stored(function, of=of)
    return REGISTRY[name]


def measures() -> dict[str, Callable[..., pd.DataFrame]]:
    """Every measure by name: those of the packages that chapters are named after."""
    for notebook in sorted((ROOT / "chapters").glob("[0-9]*.ipynb")):
        package = f"robustbias.{notebook.stem.partition('_')[2]}"
        if importlib.util.find_spec(package) is not None:
            for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
                importlib.import_module(f"{package}.{module.name}")
    return REGISTRY


def measure_named(name: str) -> Callable[..., pd.DataFrame]:
    """The measure of that name. Raises UserError listing the names there are."""
    if name not in measures():
        raise UserError(f"unknown measure {name!r}; known: {', '.join(sorted(REGISTRY))}.")
    return REGISTRY[name]


def tidy(rows: list[dict] | pd.DataFrame) -> pd.DataFrame:
    """The rows as a long table.

    Raises:
        ValueError: two rows describe the same condition.
    """
    table = pd.DataFrame(rows)
    names = [column for column in table.columns if column not in VALUES]
    repeated = table.duplicated(names)
    if repeated.any():
        first = table.loc[repeated, names].iloc[0].to_dict()
        raise ValueError(f"two rows for one condition: {first}")
    return table
