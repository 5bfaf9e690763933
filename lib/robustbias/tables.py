"""The table store: a measured table is kept under everything its values depend on.

key = sha256(measure, arguments, study entry, seed, image digest, concept masks, networks' entries,
             weights hashes, source)

A changed argument, image, mask, weight, fact of a network or line of the code that is run is
another key, so a stored table is never stale. Provenance travels inside the parquet file, in its
schema metadata. Processes that need the same table wait for the one that measures it; with `worker`
they share its `parts`.

Tables are long: one row per thing measured. Columns that do not apply to a row are missing (None,
NaN) in it. Where rows differ in what they are about, `scope` names the finest column that
identifies the row: `unit` (layer and unit are given), `layer` (all units of that layer; the unit is
missing), `network` (the layer is missing too), and so on.
"""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.util
import json
import math
import os
import pkgutil
import shutil
import time
import urllib.parse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors
import safetensors.torch
import torch
from torch import Tensor
from tqdm import tqdm

from robustbias import manifest, utils
from robustbias.images import broden
from robustbias.manifest import ROOT, NetworkEntry
from robustbias.studies import Study
from robustbias.utils import UserError

PACKAGE = Path(__file__).parent
METADATA = b"robustbias"
PROSE = ("title", "summary", "training")  # of a study; what training did is in the weights
# what of a network's entry changes no value: prose, and where the weights are, whose hash counts
ORIGIN = {"title", "licence", "source", "citation", "expected", "training"}
ORIGIN |= {"weights", "by_hand", "file", "archive", "bytes", "md5", "sha256"}
STUDY = "robustbias.studies"  # what hands a measure its images and networks
VALUES = ("value", "low", "high", "freedom", "n")
WHOLE = (
    "unit",
    "severity",
    "replicate",
)  # columns of whole numbers, even where some rows have none


# The source files that a function's values depend on, read from the import statements:
#
#     files(m) = m and files(everything m imports from this package)


def digest(modules: Iterable[str], package: Path = PACKAGE) -> str:
    """Hash of the code that the modules run, without comments and docstrings.

    Args:
        modules: Dotted names; those outside the package are left out.
    """
    total = hashlib.sha256()
    for path in sorted(reached(modules, package)):
        _, code = utils.parsed(path)
        total.update(f"{path.relative_to(package).as_posix()}\0{code}\0".encode())
    return total.hexdigest()


def reached(modules: Iterable[str], package: Path = PACKAGE) -> frozenset[Path]:
    """The package's files that the modules import, directly or through others."""
    files: set[Path] = set()
    names = list(modules)
    while names:
        path = _file(names.pop(), package)
        if path and path not in files:
            files.add(path)
            names += utils.parsed(path)[0]
    return frozenset(files)


def _file(name: str, package: Path) -> Path | None:
    """The file of `package.a.b`: that module, else the one of `package.a`, which defines b.

    Importing one module of a package thus does not depend on all that its `__init__` imports.
    """
    first, *parts = name.split(".")
    if first != package.name:
        return None
    stems = (package.joinpath(*parts), package.joinpath(*parts[:-1]))
    files = (file for stem in stems for file in (stem.with_suffix(".py"), stem / "__init__.py"))
    return next((file for file in files if file.is_file()), None)


def folder() -> Path:
    """Where tables are kept: $ROBUSTBIAS_TABLES, else `_build/tables`."""
    return manifest.place("TABLES", "_build/tables")


def dependencies(
    function: Callable, study: Study, entries: Iterable[NetworkEntry], arguments: dict[str, Any]
) -> dict[str, Any]:
    """Everything a table's values depend on, as plain JSON values; its hash is the key."""
    entries = list(entries)
    masks = arguments.get("concepts", "")  # a data set; the study's own are part of its images
    if masks:
        masks = broden.digest(manifest.data_directory() / manifest.dataset(masks).path)
    return {
        "measure": function.__name__,
        "arguments": arguments,
        "study": {k: v for k, v in dataclasses.asdict(study.entry).items() if k not in PROSE},
        "seed": study.seed,
        "images": study.source.digest,
        "masks": masks,
        "networks": {
            entry.name: {k: v for k, v in dataclasses.asdict(entry).items() if k not in ORIGIN}
            for entry in entries
        },
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


def summary(table: pd.DataFrame) -> dict[str, Any]:
    """A stored table in a few numbers, by which another run of it can be judged.

    Keys: measure, arguments, rows, columns ({numeric column: count, mean, std, min, quartiles and
    max of its finite cells}), digest (of all cells, text too, in any order of the rows: it finds
    the one changed cell in a million that a mean does not show).
    """
    made, numbers = provenance(table), table.select_dtypes("number").astype(float)
    columns = numbers.replace([math.inf, -math.inf], math.nan).items()
    digest = int(pd.util.hash_pandas_object(table, index=False).sum())
    return {
        "measure": made["measure"],
        "arguments": made["arguments"],
        "rows": len(table),
        "columns": {name: column.describe().dropna().to_dict() for name, column in columns},
        "digest": f"{digest:016x}",
    }


def cached(
    function: Callable[..., pd.DataFrame],
    study: Study,
    entries: Iterable[NetworkEntry],
    **arguments: Any,
) -> pd.DataFrame:
    """`function(study, **arguments)`, from the store when nothing it depends on has changed.

    Args:
        entries: The networks the function looks at; their weights are part of the key.
        arguments: Plain values; the facts of the study are in the key already.
    """
    name = function.__name__
    depends = dependencies(function, study, entries, arguments)
    path = folder() / study.name / f"{name}-{key(depends)}.parquet"
    used = dict(study.tables)
    if (table := _stored(path)) is None:
        kept = path.with_name(f".parts-{path.stem}")
        lock = path.with_name(f".{name}.lock")
        with utils.locked(lock) if worker()[1] == 1 else contextlib.nullcontext():
            if (table := _stored(path)) is None:
                table = _measured(function, study, arguments, depends, path, kept)
    # Without what was read on the way: a second time, when this table is here, it is not read.
    study.tables.clear()
    study.tables.update({**used, path.stem: summary(table)})
    return table


def _stored(path: Path) -> pd.DataFrame | None:
    """The table at `path`; None where there is none, or one damaged from outside."""
    try:
        return read(path)
    except FileNotFoundError:
        return None
    except (pa.ArrowException, KeyError, OSError, TypeError, ValueError) as error:
        if isinstance(error, MemoryError) or getattr(error, "errno", None):  # the table is whole
            raise
        path.unlink(missing_ok=True)
        return None


def _measured(
    function: Callable[..., pd.DataFrame],
    study: Study,
    arguments: dict[str, Any],
    depends: dict[str, Any],
    path: Path,
    kept: Path,
) -> pd.DataFrame:
    """A table measured now and kept at `path`, as read back from there.

    Args:
        kept: Folder of the `parts` that are already there; removed with the last of them.
    """
    started = time.perf_counter()
    _KEPT.append(kept)
    try:
        table = function(study, **arguments)
    finally:
        _KEPT.pop()
        if not any(kept.glob("*.safetensors")):  # nothing to go on from
            shutil.rmtree(kept, ignore_errors=True)
    origin = {
        **depends,
        "seconds": round(time.perf_counter() - started, 2),
        "device": str(study.device),
        "versions": {"torch": torch.__version__, "pandas": pd.__version__},
    }
    write(table, path, origin)
    if worker()[1] == 1:  # others may still be reading them
        shutil.rmtree(kept, ignore_errors=True)
    return read(path)


Part = dict[str, Tensor]
_KEPT: list[Path] = []  # folders of the tables that are being measured, the innermost last


def parts(tasks: dict[str, Callable[[], Part]]) -> dict[str, Part]:
    """What a measure's tasks return, by name, in the order of the tasks, on the CPU.

    Within a stored measure each result is kept in a file until the table is written, so that a
    killed process loses the task under way and no other. Workers that measure the same table share
    the tasks: each takes those that are neither done nor under way elsewhere.

    Args:
        tasks: None of them depends on another, or draws from a generator that others use.
    """
    if not _KEPT:
        return {name: _plain(task()) for name, task in tasks.items()}
    index, count = worker()
    paths = {
        name: _KEPT[-1] / f"{urllib.parse.quote(name, safe=' ,=()')}.safetensors" for name in tasks
    }
    names = list(tasks)
    first = index * len(names) // count
    results: dict[str, Part] = {}
    with tqdm(total=len(names), desc=_KEPT[-1].name[7:], unit="part", disable=None) as bar:
        for wait in (False, True):
            for name in [*names[first:], *names[:first]]:
                if name in results:
                    continue
                lock = paths[name].with_suffix(".lock")
                with utils.locked(lock, wait=wait) as held:
                    if held:
                        results[name] = _kept(paths[name], tasks[name])
                        bar.update()
    return {name: results[name] for name in names}


def _kept(path: Path, task: Callable[[], Part]) -> Part:
    """The result that is kept at `path`, or what the task returns now, then kept there."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in json.loads(file.metadata()["names"])}
    except (OSError, TypeError, safetensors.SafetensorError):  # none, or a damaged one
        result = _plain(task())
    with utils.atomic(path) as partial:  # the file's own order is another
        safetensors.torch.save_file(result, partial, {"names": json.dumps(list(result))})
    return result


def _plain(part: Part) -> Part:
    """The tensors on the CPU, in the one layout that files have, without shared memory."""
    return {
        name: value.detach().cpu().contiguous().clone(memory_format=torch.contiguous_format)
        for name, value in part.items()
    }


def worker() -> tuple[int, int]:
    """(index, count) of the processes that share a measure: (0, 1) unless there are several.

    From $ROBUSTBIAS_WORKER, such as 3/8 for the third of eight, else from torchrun's variables.

    Raises:
        UserError: The variable says something else.
    """
    text = os.environ.get("ROBUSTBIAS_WORKER", "")
    if not text:
        return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    number, _, count = text.partition("/")
    if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise UserError(f"ROBUSTBIAS_WORKER is {text!r}; expected for instance 3/8.")
    return int(number) - 1, int(count)


def stored(
    function: Callable[..., pd.DataFrame] | None = None,
    *,
    of: Callable[[Study], Study] = lambda study: study,
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


REGISTRY: dict[str, Callable[..., pd.DataFrame]] = {}


def measure(
    function: Callable[..., pd.DataFrame] | None = None,
    *,
    of: Callable[[Study], Study] = lambda study: study,
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
        raise UserError(f"unknown measure {name!r}; valid: {', '.join(sorted(REGISTRY))}.")
    return REGISTRY[name]


def tidy(rows: list[dict] | pd.DataFrame) -> pd.DataFrame:
    """The rows as a long table.

    Raises:
        ValueError: two rows describe the same condition.
    """
    table = pd.DataFrame(rows)
    table = table.astype({name: "Int64" for name in WHOLE if name in table})
    names = [column for column in table.columns if column not in VALUES]
    repeated = table.duplicated(names)
    if repeated.any():
        first = table.loc[repeated, names].iloc[0].to_dict()
        raise ValueError(f"two rows for one condition: {first}")
    return table
