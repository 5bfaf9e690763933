"""What a page shows of an executed chapter: code folded, parameters as a table, figures described.

The notebooks themselves stay as they are: who executes one sees its parameters and its records.
"""

import ast
import re
from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from robustbias.manifest import StudyEntry
from robustbias.utils import PROVENANCE

_INTERVAL = re.compile(r"(>[^<>]*?\d) (\[-?[\d.,]+, -?[\d.,]+\])(?=[^<>]*<)")


def for_readers(notebook: NotebookNode, study: StudyEntry | None, name: str) -> NotebookNode:
    """The notebook as its page shows it.

    Cells whose metadata say `"robustbias": {"only": "drawn"}` (or `"photographs"`) are left out
    on studies of the other kind; `"folded": "words"` hides a cell's output too, under these words.
    Provenance is on a page of its own.

    Args:
        study: None for a closing chapter.
        name: The chapter's, for the command that changes its parameters.
    """
    kind = study and ("drawn" if study.world else "photographs")
    cells = []
    for cell in notebook.cells:
        only = cell.metadata.get("robustbias", {}).get("only", kind)
        tags = cell.metadata.get("tags", [])
        outputs = cell.get("outputs", [])
        if only != kind or {"install", "parameters", "injected-parameters"} & set(tags):
            continue
        if any(PROVENANCE in output.get("data", {}) for output in outputs):
            continue
        if cell.cell_type == "code":
            _fold(cell, tags)
            for output in outputs:
                _show(cell, output.get("data", {}))
            if "figure" in cell.metadata.get("mystnb", {}) and not outputs:
                continue  # a figure that this study has no data for
        cells.append(cell)
    notebook.cells = [*cells, *_re_run(notebook, study, name)]
    return notebook


def _fold(cell: NotebookNode, tags: list[str]) -> None:
    """Code is hidden until the reader asks for it; so is the table of all claims."""
    words = "Every statement with its verdict" if "claims" in tags else ""
    words = cell.metadata.get("robustbias", {}).get("folded", words)
    folded = "hide-cell" if words else "hide-input"
    words = words or "Code"
    kept = [tag for tag in tags if tag not in ("hide-input", "hide-cell")]
    cell.metadata["tags"] = [*kept, *([] if "remove-input" in kept else [folded])]
    options = cell.metadata.setdefault("mystnb", {})
    options |= {"code_prompt_show": words, "code_prompt_hide": words}


def _show(cell: NotebookNode, data: dict[str, Any]) -> None:
    """A figure's text becomes the alternative text; intervals in tables get a line of their own."""
    described = str(data.get("text/plain", ""))
    if "image/svg+xml" in data and not described.startswith("<"):
        cell.metadata.setdefault("mystnb", {}).setdefault("image", {})["alt"] = described
    if "text/html" in data and "<td" in data["text/html"]:
        spans = r'\1 <span class="interval">\2</span>'
        data["text/html"] = _INTERVAL.sub(spans, data["text/html"])


def _re_run(notebook: NotebookNode, study: StudyEntry | None, name: str) -> list[NotebookNode]:
    """The parameters with their values here, and the command that changes one; folded."""
    declared, given = (_source(notebook, tag) for tag in ("parameters", "injected-parameters"))
    values = {
        node.targets[0].id: ast.unparse(node.value)
        for node in ast.parse(given).body
        if isinstance(node, ast.Assign)
    }
    rows = []
    for line in declared.splitlines():
        if match := re.match(r"(\w+)\s*(?::[^=]+)?=\s*(.*?)(?:\s+#\s*(.*))?$", line):
            parameter, value, meaning = match.groups()
            rows.append(f"| {parameter} | `{values.get(parameter, value)}` | {meaning or ''} |")
    if not rows:
        return []
    option = f" --study {study.name}" if study else ""
    text = [
        ":::{dropdown} Parameters of this chapter, and how to change them",
        "| parameter | value here | meaning |\n| --- | --- | --- |\n" + "\n".join(rows),
        f"```bash\nrobustbias run {name}{option} --set NAME=VALUE\n```",
        ":::",
    ]
    return [new_markdown_cell("\n\n".join(text))]


def _source(notebook: NotebookNode, tag: str) -> str:
    cells = [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]
    return "\n".join(cell.source for cell in cells)
