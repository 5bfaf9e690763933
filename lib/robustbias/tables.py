"""The table store: a measured table is kept under everything its values depend on.

key = sha256(measure, arguments, study entry, seed, image digest, weights hashes, core source)

A changed argument, image, weight or line of the core package is another key, so a stored table is
never stale. Provenance travels inside the parquet file, in its schema metadata.
"""

import dataclasses
import functools
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from robustbias import files, sources
from robustbias.manifest import ROOT

METADATA = b"robustbias"
PROSE = ("title", "summary", "training")  # what training did is in the weights
STUDY = "robustbias.studies"  # what hands a measure its images and networks


def folder() -> Path:
    """Where tables are kept: $ROBUSTBIAS_TABLES, else `_build/tables`."""
    return Path(os.environ.get("ROBUSTBIAS_TABLES", ROOT / "_build" / "tables")).expanduser()


def dependencies(
    function: Callable, study: Any, entries: Iterable[Any], arguments: dict[str, Any]
) -> dict[str, Any]:
    """Everything a table's values depend on, as plain JSON values; its hash is the key."""
    return {
        "measure": function.__name__,
        "arguments": arguments,
        "study": {k: v for k, v in dataclasses.asdict(study.entry).items() if k not in PROSE},
        "seed": study.seed,
        "images": study.source.digest,
        "weights": {entry.name: study.network_named(entry.name).weights_hash for entry in entries},
        "categories": files.sha256(ROOT / "data_manifest" / "entry_level.toml"),
        "source": sources.digest([function.__module__, STUDY]),
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
    with files.atomic(path) as partial:
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
    function: Callable[..., pd.DataFrame], study: Any, entries: Iterable[Any], **arguments: Any
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
    def from_store(study: Any, **arguments: Any) -> pd.DataFrame:
        study = of(study)
        defaults = function.__kwdefaults__ or {}
        return cached(function, study, study.entries, **{**defaults, **arguments})

    return from_store
