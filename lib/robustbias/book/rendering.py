"""Jupyter Book over the staged folder; a warning is an error, and the log is kept."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from robustbias.book.edition import BUILD, Contents
from robustbias.book.staging import stage
from robustbias.errors import UserError


def render(contents: Contents, conclusions: list[Path], build: Path = BUILD) -> Path:
    """The first page of the book made from executed notebooks: by study, and closing ones.

    The pages of an earlier build stay in place until all new ones are there.

    Raises:
        UserError: A warning or an error of Jupyter Book, quoted, and where its log is.
    """
    source = stage(contents, conclusions, build / "book")
    work, html, log = build / "render", build / "html", build / "logs" / "render.log"
    shutil.rmtree(work, ignore_errors=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [Path(sys.executable).with_name("jupyter-book"), "build", source]
    with open(log, "w", encoding="utf-8") as file:
        built = subprocess.run(
            [*command, "--path-output", work, "-W", "--keep-going"],
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if built.returncode:
        raise UserError(f"the book did not render: {_complaints(log)}The whole log is {log}.")
    shutil.rmtree(html, ignore_errors=True)
    os.replace(work / "_build" / "html", html)
    shutil.rmtree(work)
    return html / "index.html"


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def _complaints(log: Path, most: int = 5) -> str:
    """The first warnings and errors in Jupyter Book's log, else its last line."""
    lines = _COLOUR.sub("", log.read_text(encoding="utf-8")).splitlines()
    found = [line for line in lines if "WARNING" in line or "ERROR" in line] or lines[-1:]
    return "\n".join(["", *found[:most], ""])
