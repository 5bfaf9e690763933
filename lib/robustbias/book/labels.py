"""Labels of a chapter, made unique per study, so that a chapter can appear once for each."""

import re
from collections.abc import Iterable

from nbformat import NotebookNode

# (fig-eps)=   :name: fig-eps   :label: eq-madry   $$ (eq-madry)
_LABEL = r"(?:ch|sec|fig|tab|eq)-[a-z0-9-]+"
_DEFINITION = re.compile(
    rf"\(({_LABEL})\)=|^:(?:name|label):\s*({_LABEL})|\$\$\s*\(({_LABEL})\)", re.M
)


def labels(notebooks: Iterable[NotebookNode]) -> set[str]:
    """Every label that some notebook defines, in its prose or on a cell's figure."""
    found = set()
    for notebook in notebooks:
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                found.update(filter(None, sum(_DEFINITION.findall(cell.source), ())))
            if name := cell.metadata.get("mystnb", {}).get("figure", {}).get("name"):
                found.add(name)
    return found


def relabelled(notebook: NotebookNode, defined: set[str], study: str) -> NotebookNode:
    """The notebook with `label` turned into `label-study` where it is defined or referred to."""
    if not defined:
        return notebook
    longest_first = "|".join(sorted(map(re.escape, defined), key=len, reverse=True))
    pattern = re.compile(rf"(?<![\w-])({longest_first})(?![\w-])")

    def renamed(text: str) -> str:
        return pattern.sub(rf"\1-{study}", text)

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = renamed(cell.source)
        figure = cell.metadata.get("mystnb", {}).get("figure", {})
        figure.update({key: renamed(text) for key, text in figure.items() if isinstance(text, str)})
        for output in cell.get("outputs", []):
            if "text/markdown" in output.get("data", {}):
                output.data["text/markdown"] = renamed(output.data["text/markdown"])
    return notebook
