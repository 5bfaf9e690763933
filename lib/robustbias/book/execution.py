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
from robustbias.errors import UserError
from robustbias.files import atomic


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


def checked(chapter: Path, given: dict[str, Any]) -> dict[str, Any]:
    """The given parameters, if the chapter has them all and they are of its defaults' types.

    Raises:
        UserError: Unknown or mistyped parameters; the message lists the valid ones.
    """
    known = defaults(chapter)
    valid = ", ".join(f"{name}: {_kind(default)} = {default!r}" for name, default in known.items())
    wrong = [
        f"{name} = {value!r} is not {_kind(known[name])}" if name in known else f"no {name!r}"
        for name, value in given.items()
        if name not in known or not _fits(known[name], value)
    ]
    if wrong:
        raise UserError(f"parameters of {chapter.stem}: {'; '.join(wrong)}. Valid: {valid}.")
    return given


def value(text: str) -> Any:
    """A parameter's value as typed on a command line: a Python literal, else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def execute(chapter: Path, study: str, parameters: dict[str, Any], out: Path) -> Path:
    """Run a chapter on a study and write it, with outputs, to `out`.

    When a cell fails, what was run is kept as NAME.failed.ipynb and nothing is left at `out`.

    Raises:
        UserError: Wrong parameters, or a failing cell; the message names the cell and its error.
    """
    manifest.study(study)  # an unknown study lists the known ones
    given = checked(chapter, {**parameters, "study": study})
    failed = out.with_suffix(".failed.ipynb")
    out.unlink(missing_ok=True)
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


def _kind(default: Any) -> str:
    """What a parameter takes, in words: `a list of int`."""
    if isinstance(default, list | tuple) and default:
        return f"list of {type(default[0]).__name__}"
    return "any" if default is None else type(default).__name__


def _fits(default: Any, value: Any) -> bool:
    """Whether a value can stand where the default stands; an int may stand for a float."""
    if default is None:
        return True
    if isinstance(default, list | tuple):
        fits_all = not default or (
            isinstance(value, list | tuple) and all(_fits(default[0], item) for item in value)
        )
        return isinstance(value, list | tuple) and fits_all
    return type(value) is type(default) or (type(default) is float and type(value) is int)


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
