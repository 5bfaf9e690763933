"""A repository small enough to build a whole book from it in seconds: two studies, few chapters."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from robustbias.manifest import ROOT

STUDY = """
title = "{title}"
summary = "A study of nothing."
dataset = "drawn"
stimuli = "drawn"
sizes = [64]
categories = ["cat", "dog"]
architectures = ["alexnet"]
attack_grid = [0.5]
threat = {{norm = "l2", eps = 1.0, steps = 3}}
"""
DATASET = """
title = "Drawn images"
kind = "embedded"
source = "made here"
licence = "MIT"
citation = "none"
"""
PARAMETERS = 'study: str = "first"  # a study\nn: int = 3\nscale: float = 1.0\ngrid: list = [1, 2]'
FIGURE = "from matplotlib import pyplot\npyplot.plot([0, n])\npyplot.show()"
RECORDS = """
from IPython.display import display
claim = {"id": "C9.LABEL", "statement": "R is R in LABEL.", "source": "drawn", "study": study,
         "architecture": "", "statistic": "length", "smallest": 0.05, "condition": "",
         "value": 0.3, "low": 0.1, "high": 0.5, "n": 9, "measured": "0.30 [0.10, 0.50]",
         "verdict": "supported"}
mime = "application/vnd.robustbias."
display({"text/plain": "claims", mime + "claims+json": [claim]}, raw=True)
table = {"measure": "length", "arguments": {"n": n}, "rows": 2, "digest": "f00d",
         "columns": {"value": {"count": 2.0, "mean": 0.5}}}
facts = {"commit": "a" * 40, "device": "abacus", "threads": "1"}
display({"text/plain": "made", mime + "provenance+json": facts, mime + "tables+json": [table]},
        raw=True)
"""
FRONT = {
    "book/intro.md": "# Toy book\n\n```{include} made/verdicts.md\n```\n",
    "book/provenance.md": "# Provenance\n\n```{include} made/provenance.md\n```\n",
    "book/_toc.yml": "format: jb-book\nroot: intro\nparts:\n- caption: Record\n"
    "  chapters: [{file: provenance}]\n",
    "book/edition.yml": "execute: [first]\nparameters: {}\n",
    "book/references.bib": "",
    "README.md": "# Toy\n<!-- findings -->\nnone\n<!-- end of findings -->\n",
}


def chapter(title: str, label: str, *cells: str) -> nbformat.NotebookNode:
    """A chapter with a label, a numbered figure, an equation, code cells, and its records."""
    prose = f"(ch-{label})=\n# {title}\n\nSee {{numref}}`fig-{label}` and {{eq}}`eq-{label}`."
    figure = {"figure": {"name": f"fig-{label}", "caption": "A line."}, "image": {"alt": "line"}}
    return new_notebook(
        metadata={"kernelspec": {"name": "python3", "language": "python", "display_name": "P"}},
        cells=[
            new_markdown_cell(prose),
            new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
            new_markdown_cell(f"$$ e^{{i\\pi}} = -1 $$ (eq-{label})"),
            new_code_cell(FIGURE, metadata={"mystnb": figure}),
            *map(new_code_cell, cells),
            new_code_cell(RECORDS.replace("LABEL", label)),
        ],
    )


def closing() -> nbformat.NotebookNode:
    """A chapter that is executed once, after all others, and reads what they claim."""
    read = (
        "from robustbias.findings import measure\nmeasure.registered(executed)[['id', 'notebook']]"
    )
    return new_notebook(
        metadata={
            "kernelspec": {"name": "python3", "language": "python", "display_name": "P"},
            "robustbias": {"closing": True},
        },
        cells=[
            new_markdown_cell("(ch-end)=\n# The end\n\nAfter {ref}`ch-more-first`."),
            new_code_cell("executed: list = []  # studies", metadata={"tags": ["parameters"]}),
            new_code_cell(read),
        ],
    )


def repository(root: Path) -> Path:
    """The toy's sources below `root`; the library and the workflow are this project's own."""
    for name in ("first", "second"):
        _write(root / f"data_manifest/studies/{name}.toml", STUDY.format(title=name.title()))
    _write(root / "data_manifest/datasets/drawn.toml", DATASET)
    for name, text in FRONT.items():
        _write(root / name, text)
    (root / "book/static").mkdir()
    (root / "chapters").mkdir()
    widget = "import ipywidgets\nipywidgets.Label('a widget')"
    nbformat.write(chapter("Lines", "lines"), root / "chapters/01_lines.ipynb")
    nbformat.write(chapter("More", "more", widget), root / "chapters/02_more.ipynb")
    nbformat.write(closing(), root / "chapters/09_end.ipynb")
    for name in ("Snakefile", "_config.yml"):
        shutil.copy(ROOT / name, root / name)
    for name in ("custom.css", "page.js", "favicon.svg"):
        shutil.copy(ROOT / "book/static" / name, root / "book/static" / name)
    (root / "lib/robustbias").mkdir(parents=True)
    return root


def command(root: Path, *words: str, **settings) -> subprocess.CompletedProcess:
    """A program of this environment, run on the repository at `root`."""
    with started(root, *words, **settings) as process:
        out, error = process.communicate(timeout=300)
    return subprocess.CompletedProcess(words, process.returncode, out, error)


def started(root: Path, *words: str, **settings) -> subprocess.Popen:
    """The same, not waited for, in a process group that a test can signal."""
    bin = Path(sys.executable).parent
    environment = {
        **os.environ,
        "ROBUSTBIAS_ROOT": str(root),
        "PATH": f"{bin}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        **settings,
    }
    return subprocess.Popen(
        [bin / words[0], *words[1:]],
        cwd=root, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
