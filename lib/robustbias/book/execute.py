"""Strict papermill: a chapter is executed whole, with parameters it has, or not at all."""

import ast
import os
import sys
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from robustbias import manifest
from robustbias.manifest import checked
from robustbias.utils import UserError, atomic


def defaults(chapter: Path) -> dict[str, Any]:
    """A chapter's parameters and their default values, in the order of its parameter cell."""
    found = {}
    for name, parameter in papermill.inspect_notebook(str(chapter)).items():
        try:
            found[name] = ast.literal_eval(parameter["default"])
        except (ValueError, SyntaxError) as error:
            raise UserError(
                f"{chapter.name}: parameter {name} = {parameter['default']} is not a literal; "
                "write a number, a string, a list or None."
            ) from error
    return found


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
    known = defaults(chapter)
    if "study" in known:  # a closing chapter is of none
        parameters = {**parameters, "study": manifest.study(study).name}
    given = checked(chapter.stem, known, parameters)
    os.environ.setdefault("TQDM_DISABLE", "1")  # in a page a progress bar is a hundred lines
    with atomic(out) as partial:
        try:
            papermill.execute_notebook(
                str(chapter),
                str(partial),
                parameters=given,
                kernel_name="python3",
                cwd=str(chapter.parent),
                progress_bar=sys.stderr.isatty(),
                extra_arguments=["--log-level=ERROR"],  # not a warning a run about local ports
            )
        except (PapermillExecutionError, DeadKernelError) as error:
            os.replace(partial, failed)
            raise UserError(
                f"{chapter.stem} on {study}: {_failure(error)}. The partial notebook is {failed}."
            ) from error
        _anonymise(partial, chapter)
    failed.unlink(missing_ok=True)
    return out


def _of_a_failed_run(path: Path) -> bool:
    try:
        notebook = nbformat.read(path, as_version=4)
    except (OSError, ValueError, nbformat.ValidationError):
        return False
    return notebook.metadata.get("papermill", {}).get("exception") is True


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
