"""Strict papermill: a chapter is executed whole, with parameters it has, or not at all."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterable
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from robustbias import manifest
from robustbias.book import edition
from robustbias.manifest import checked
from robustbias.utils import UserError, atomic, reading


def defaults(chapter: Path) -> dict[str, Any]:
    """A chapter's parameters and their default values, in the order of its parameter cell.

    Raises:
        UserError: The file is no notebook, or a default is not a literal.
    """
    values = {}
    with reading(chapter, "a Jupyter notebook"):
        declared = papermill.inspect_notebook(str(chapter))
    for name, parameter in declared.items():
        try:
            values[name] = ast.literal_eval(parameter["default"])
        except (ValueError, SyntaxError) as error:
            raise UserError(
                f"{chapter.name}: parameter {name} = {parameter['default']} is not a literal; "
                "write a number, a string, a list or None."
            ) from error
    return values


def execute(chapter: Path, study: str, parameters: dict[str, Any], out: Path) -> Path:
    """Run a chapter on a study and write it, with outputs, to `out`.

    When a cell fails, what was run is kept as NAME.failed.ipynb, and `out` stays what it was.

    Raises:
        UserError: Wrong parameters, an output that would replace what is read, or a failing cell;
            the message names the cell and its error.
    """
    failed = out.with_suffix(".failed.ipynb")
    for written in (out, failed):
        manifest.check_output(written, chapter)
    if failed.exists() and not _of_a_failed_run(failed):
        raise UserError(
            f"{failed} is not the record of a failed run, and would be replaced by one; "
            "rename it, or choose another output."
        )
    declared = defaults(chapter)
    if "study" in declared:  # a closing chapter is of none
        parameters = {**parameters, "study": manifest.study(study).name}
    given = checked(chapter.stem, declared, parameters)
    os.environ.setdefault("TQDM_DISABLE", "1")  # in a page a progress bar is a hundred lines
    with atomic(out) as partial:
        try:
            _run(chapter, partial, given)
        except (PapermillExecutionError, DeadKernelError) as error:
            os.replace(partial, failed)
            raise UserError(
                f"{chapter.stem} on {study}: {_failure(error)}. The partial notebook is {failed}."
            ) from error
        _anonymise(partial, chapter)
    failed.unlink(missing_ok=True)
    return out


def _run(chapter: Path, out: Path, parameters: dict[str, Any]) -> None:
    """papermill's run, with a kernel that did not start started again, twice at most.

    Jupyter picks free ports for a kernel before the kernel binds them, so of several that start
    at once one can find its port taken. It dies before any cell ran: to start again loses nothing.
    """
    for last in (False, False, True):
        try:
            papermill.execute_notebook(
                str(chapter),
                str(out),
                parameters=parameters,
                kernel_name="python3",
                cwd=str(chapter.parent),
                progress_bar=sys.stderr.isatty(),
                # no warning per run about local ports, no traceback of a kernel that Ctrl-C ended
                extra_arguments=["--log-level=CRITICAL"],
                coalesce_streams=True,  # what a progress bar wrote last, instead of a hundred lines
            )
            return
        except DeadKernelError:  # while a cell ran
            raise
        except RuntimeError as error:
            if "before replying" not in str(error):
                raise
            if last:
                raise UserError(
                    f"{chapter.stem}: its kernel died three times before its first cell; "
                    "`python -m ipykernel_launcher` in a terminal shows why."
                ) from error


def _of_a_failed_run(path: Path) -> bool:
    try:
        notebook = nbformat.read(path, as_version=4)
    except (OSError, ValueError, nbformat.ValidationError):
        return False
    record = notebook.metadata.get("papermill", {})
    return record.get("exception", False) is not False  # None: its kernel died


def execute_study(
    study: str, chapters: Iterable[str], out: Path, *, jobs: int = 1, tables: Path | None = None
) -> None:
    """Run chapters of a study into the folder `out`, with the edition's parameters, as `make book`.

    Args:
        jobs: How many run at a time, each in a process and on one thread.
        tables: The table store, if it is not the usual one.

    Raises:
        UserError: A chapter is unknown, or some failed; the message quotes them all.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment |= {"ROBUSTBIAS_TABLES": str(tables)} if tables else {}

    def failure(source: Path) -> str:
        print(f"executing {source.stem} on {study}", file=sys.stderr, flush=True)
        program = Path(sys.executable).with_name("robustbias")
        command = [program, "run", source.stem, "--study", study, "--out", out / source.name]
        given = edition.parameters(study, source.stem).items()
        command += [f"--set={name}={value!r}" for name, value in given]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if not run.returncode:
            return ""
        said = run.stderr.strip().removeprefix("error: ")
        return said or f"{source.stem} on {study} ended with status {run.returncode}."  # killed

    sources = [edition.chapter(name) for name in chapters]
    with ThreadPool(jobs) as pool:
        if failures := list(filter(None, pool.imap(failure, sources))):
            raise UserError("\n".join(failures))


def _failure(error: PapermillExecutionError | DeadKernelError) -> str:
    if isinstance(error, DeadKernelError):
        return "its kernel died (out of memory?)"
    return f"cell [{error.exec_count}] failed with {error.ename}: {error.evalue}".rstrip(". ")


def _anonymise(path: Path, chapter: Path) -> None:
    """Take this machine's paths, and the minute of every cell, out of an executed notebook."""
    notebook = nbformat.read(path, as_version=4)
    record = notebook.metadata.get("papermill", {})
    record["input_path"], record["output_path"] = f"chapters/{chapter.name}", chapter.name
    for cell in notebook.cells:
        for noise in ("papermill", "execution"):
            cell.metadata.pop(noise, None)
    nbformat.write(notebook, path)
