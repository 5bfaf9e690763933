"""What the book is made of: chapters, the studies they are executed on, and with what parameters.

`book/edition.yml` says which studies `make book` executes and which parameters differ from the
defaults, on any machine or on the one that $ROBUSTBIAS_MACHINE names. `book/STUDY/` holds chapters
published with outputs. A closing chapter (its metadata say `"robustbias": {"closing": true}`) reads
the claims of the others, so it is executed once, last.
"""

import contextlib
import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import yaml

from robustbias import manifest
from robustbias.utils import UserError, reading

BUILD = manifest.ROOT / "_build"
PUBLISHED = manifest.ROOT / "book"
Contents = dict[str, list[Path]]


def chapters(*, closing: bool = False) -> list[Path]:
    """Sources of the chapters that every study has, in reading order, or of the closing ones."""
    paths = sorted((manifest.ROOT / "chapters").glob("[0-9]*.ipynb"))
    facts = {
        path: nbformat.read(path, as_version=4).metadata.get("robustbias", {}) for path in paths
    }
    return [path for path in paths if bool(facts[path].get("closing")) == closing]


def chapter(name: str) -> Path:
    """The chapter of that name (`02_shape_bias`), or the notebook at that path.

    Raises:
        UserError: No such chapter; the message lists those there are.
    """
    if name.endswith(".ipynb") and Path(name).is_file():
        return Path(name)
    paths = {path.stem: path for path in [*chapters(), *chapters(closing=True)]}
    if name not in paths:
        raise UserError(f"unknown chapter {name!r}; valid: {', '.join(paths)}.")
    return paths[name]


def parameters(study: str, chapter: str) -> dict[str, Any]:
    """Parameters that the edition sets for a chapter on a study."""
    return _chapters(study).get(chapter) or {}


def omitted(study: str, chapter: str) -> bool:
    """Whether the edition leaves the chapter out of a study (null in place of parameters)."""
    return _chapters(study).get(chapter, {}) is None


def _chapters(study: str) -> dict[str, Any]:
    """Chapter -> parameters of a study; those for this machine replace those for any.

    Raises:
        UserError: $ROBUSTBIAS_MACHINE is not in the edition.
    """
    table = _edition()
    machines = table.get("machines", {})
    if (machine := os.environ.get("ROBUSTBIAS_MACHINE", "")) not in ("", *machines):
        raise UserError(
            f"unknown machine {machine!r}; book/edition.yml has: {', '.join(machines) or 'none'}."
        )
    return table["parameters"].get(study, {}) | machines.get(machine, {}).get(study, {})


def studies(added: str = "") -> list[str]:
    """Studies to execute: those of the edition, then those in `added` (separated by commas)."""
    names = list(_edition()["execute"])
    for name in filter(None, added.split(",")):
        if manifest.study(name).name not in names:
            names.append(name)
    return names


def notebooks(study: str, *, executed: bool) -> list[Path]:
    """A study's chapters with outputs: of this build (there or still to come), or published."""
    if executed:
        names = [path.name for path in chapters() if not omitted(study, path.stem)]
        return [BUILD / "notebooks" / study / name for name in names]
    return sorted((PUBLISHED / study).glob("[0-9]*.ipynb"))


def verified(study: str) -> Path:
    """Where the outcome of the last re-computation of a study's published chapters is kept."""
    return PUBLISHED / study / "verified.json"


def conclusions() -> list[Path]:
    """The closing chapters with outputs, of this build."""
    return [BUILD / "notebooks" / path.name for path in chapters(closing=True)]


def front_page() -> Path:
    """The closing chapter that is the book's first page, with outputs, of this build."""
    return BUILD / "notebooks" / "00_front_page.ipynb"


def contents(executed: list[str]) -> Contents:
    """Notebooks of the book by study: executed ones first, then other published studies."""
    paths = {study: notebooks(study, executed=True) for study in executed}
    for study in manifest.studies():
        if study not in paths and (published := notebooks(study, executed=False)):
            paths[study] = published
    return paths


def _edition() -> dict[str, Any]:
    """`book/edition.yml`, checked: every study and chapter it names exists."""
    path = manifest.ROOT / "book" / "edition.yml"
    with reading(path, "valid YAML", "correct the file"):
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
    keys = {"execute", "parameters"}
    if not isinstance(table, dict) or set(table) | {"machines"} != keys | {"machines"}:
        raise UserError(f"{path}: expected the keys execute and parameters; got {table!r:.200}.")
    machines = table.get("machines", {})
    tables = [table["parameters"], *(machines.values() if isinstance(machines, dict) else [None])]
    if not isinstance(table["execute"], list) or not all(
        isinstance(by_study, dict) and all(isinstance(value, dict) for value in by_study.values())
        for by_study in tables
    ):
        raise UserError(
            f"{path}: expected execute to be a list of studies, and parameters a table of chapters "
            f"for each study; got {table!r:.200}."
        )
    for study in {*table["execute"], *(study for by_study in tables for study in by_study)}:
        manifest.study(study)
    for name in {name for by_study in tables for names in by_study.values() for name in names}:
        chapter(str(name))
    return table


def data_here(study: str) -> list[str]:
    """The data sets of a study that are here, with the times at which their folders changed.

    The Snakefile executes a chapter again when this changes: it may have gone without a set before.
    """
    paths = {manifest.dataset(name).path for name in manifest.study(study).sets}
    folders = [manifest.data_directory() / path for path in sorted(paths) if path]
    return [f"{f.name} {f.stat().st_mtime_ns}" for f in folders if f.is_dir()]


def build(rule: str, study: str = "", cores: int = 1) -> None:
    """Make what a rule of the Snakefile asks for, as far as it is missing or out of date.

    A job prints one line, and its log when it fails; Snakemake itself prints nothing.

    Args:
        study: Executed in addition to the edition's studies; several are separated by commas.

    Raises:
        UserError: An unknown study, another build that is still running, a job that failed, or
            anything else that stops Snakemake.
    """
    # Here, since the Snakefile and the chapters import this module too.
    from snakemake.api import SnakemakeApi
    from snakemake.exceptions import RuleException, WorkflowError
    from snakemake.settings.enums import Quietness
    from snakemake.settings.types import (
        ConfigSettings,
        DAGSettings,
        ExecutionSettings,
        OutputSettings,
        ResourceSettings,
    )

    contents(studies(study))  # the Snakefile reads it too, but reports it badly
    programs = Path(sys.executable).parent  # jobs call `robustbias`
    os.environ["PATH"] = f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    silent = OutputSettings(quiet={Quietness.ALL})
    try:
        with alone(BUILD / "build.lock", "build"), SnakemakeApi(silent) as snakemake:
            workflow = snakemake.workflow(
                ResourceSettings(cores=cores, resources={"heavy": 1}),
                ConfigSettings(config={"study": study}),
                snakefile=manifest.ROOT / "Snakefile",
                workdir=manifest.ROOT,
            )
            graph = workflow.dag(DAGSettings(targets=[rule], force_incomplete=True))
            # The lock of Snakemake is a file that outlives a killed process.
            graph.execute_workflow(execution_settings=ExecutionSettings(lock=False))
    except (RuleException, WorkflowError) as error:
        raise UserError(f"the build stopped: {' '.join(str(error).split())}") from error


@contextlib.contextmanager
def alone(path: Path, what: str) -> Iterator[None]:
    """Holds the file's lock, which the operating system releases however this process ends.

    Args:
        what: What runs meanwhile, in the message to who comes second.

    Raises:
        UserError: Another process holds it; the message has its number.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UserError(
                f"another {what} is running here (process {file.read() or 'just started'}); "
                "wait until it has finished, or stop it."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
