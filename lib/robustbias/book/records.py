"""What an executed chapter says of itself, for programs: its claims, its headline numbers and
its provenance.

They travel inside the notebook, beside what a reader sees, so that a published chapter needs
nothing but its own file.
"""

from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from robustbias.mimes import CLAIMS, HEADLINES, PROVENANCE


def without_records(notebook: NotebookNode) -> NotebookNode:
    """The notebook without what is for programs alone: a page cannot show it."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            for mime in (CLAIMS, HEADLINES, PROVENANCE):
                output.get("data", {}).pop(mime, None)
    return notebook


def records(notebook: Path, mime: str) -> list[Any]:
    """Values of one kind that a notebook's cells put out, in order; lists are joined."""
    found = []
    for cell in nbformat.read(notebook, as_version=4).cells:
        for output in cell.get("outputs", []):
            value = output.get("data", {}).get(mime, [])
            found.extend(value if isinstance(value, list) else [value])
    return found
