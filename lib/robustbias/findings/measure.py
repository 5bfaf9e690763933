"""All claims of the book in one table, read from the notebooks that tested them."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
from nbformat import NotebookNode

from robustbias import manifest, studies, utils
from robustbias.book import edition
from robustbias.claims import SHORT, Claim, corrected
from robustbias.tables import VALUES
from robustbias.utils import (
    CLAIMS,
    EXPLORER,
    HEADLINES,
    PROVENANCE,
    TABLES,
    Footer,
    UserError,
)

# An executed chapter carries its claims, headline numbers, provenance and summaries of its tables
# as outputs of MIME types that only programs read, so that a published chapter needs nothing but
# its file.


_NUMBER = re.compile(  # not inside a name: L2, 128px, ResNet-50, a hash, 1.2.3
    r"(?<![\w.])(?<![A-Za-z]-)[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[-+]?\d{1,3})?(?!\.?\w)"
)


_CELL = re.compile(r"<td[^>]*>(.*?)</td>", re.S)


def without_records(notebook: NotebookNode) -> NotebookNode:
    """The notebook without what is for programs alone: a page cannot show it."""
    for output in _outputs(notebook):
        for mime in (CLAIMS, EXPLORER, HEADLINES, PROVENANCE, TABLES):
            output.get("data", {}).pop(mime, None)
    return notebook


def records(notebook: Path, mime: str) -> list[Any]:
    """Values of one kind that a notebook's cells put out, in order; lists are joined."""
    values = []
    for output in _outputs(nbformat.read(notebook, as_version=4)):
        value = output.get("data", {}).get(mime, [])
        values.extend(value if isinstance(value, list) else [value])
    return values


def results(notebook: Path) -> dict[tuple[str, str], float | str]:
    """Every number, verdict and table digest in a notebook, by (kind, name).

    Kinds: claim, headline, glue, output (printed tables and sentences, by their position), table
    (summaries of the results in measured tables, without the columns that identify rows, whose
    layout may change) and digest. The provenance record is left out: its commit,
    seconds and versions are no results. So are pictures and widgets: they draw the tables.
    """
    values: dict[tuple[str, str], float | str] = {}
    printed = 0

    def add(kind: str, name: str, fields: dict[str, Any]) -> None:
        values.update({(kind, f"{name} {field}".strip()): fields[field] for field in fields})

    for output in _outputs(nbformat.read(notebook, as_version=4)):
        data = output.get("data", {})
        if name := output.get("metadata", {}).get("scrapbook", {}).get("name"):
            text = next(iter(data.values())).strip("'\"")
            add("glue", name, _numbers(text) or {"": text})
        elif PROVENANCE in data:
            for table in data.get(TABLES, []):
                name = call(table)
                add("digest", name, {"": table["digest"]})
                add("table", name, {"rows": table["rows"]})
                for column in set(VALUES) & set(table["columns"]):
                    add("table", f"{name}: {column}", table["columns"][column])
        elif CLAIMS in data:
            for claim in data[CLAIMS]:
                parts = ("id", "architecture", "replicate", "condition")
                name = " ".join(filter(None, (claim.get(part) for part in parts)))
                add("claim", name, _numeric(claim) | {"verdict": claim["verdict"]})
        elif HEADLINES in data:
            for row in data[HEADLINES]:
                network = row.get("network") or f"{row['architecture']} {row['regime']}"
                name = f"{row['number']}, {network}"
                add("headline", name, _numeric(row))
        elif lines := _lines(data):
            printed += 1
            for i, line in enumerate(lines, start=1):
                add("output", f"{printed}, line {i}, number", _numbers(line))
    return values


def call(record: dict[str, Any]) -> str:
    """What made a table, from its provenance: `accuracy(n_images=200, steps=0)`."""
    arguments = ", ".join(f"{k}={v!r}" for k, v in sorted(record["arguments"].items()))
    return f"{record['measure']}({arguments})"


def _outputs(notebook: NotebookNode) -> list[NotebookNode]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def _numeric(record: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in record.items() if type(value) in (int, float)}


def _numbers(text: str) -> dict[str, float]:
    """The numbers in a text: {"1": 0.36, "2": 0.31, "3": 0.41} for "0.36 [0.31, 0.41]"."""
    parts = enumerate(_NUMBER.findall(text.replace("\N{MINUS SIGN}", "-")), start=1)
    return {str(i): float(part.replace(",", "")) for i, part in parts}


def _lines(data: dict[str, Any]) -> list[str]:
    """Lines of a sentence, or the cells of each row of a table; [] for pictures and widgets."""
    if "text/markdown" in data:
        return data["text/markdown"].splitlines()
    if "text/html" in data:
        rows = (_CELL.findall(row) for row in data["text/html"].split("</tr>"))
        return [" ".join(cells) for cells in rows if cells]
    return data["text/plain"].splitlines() if set(data) == {"text/plain"} else []


def registered(executed: list[str]) -> pd.DataFrame:
    """One row per measured statement, study, network and condition.

    Columns: those of `Claim.record`, claim (C2 of C2.stylized), short (`Statement.short`), title
    (the study's), notebook (where it was tested). Verdicts hold under Holm's correction for the
    statements of a study.

    Args:
        executed: Studies whose chapters of this build are read; of others the published ones.

    Raises:
        UserError: No chapter of any study has tested a claim.
    """
    table = read(edition.contents(executed))
    if table.empty:
        raise UserError("no chapter has tested a claim yet; run `make book` first.")
    return table


def numbers(executed: list[str]) -> list[dict]:
    """The headline numbers of all chapters (`claims.FIELDS`), read like the claims."""
    return [row for path in _notebooks(executed) for row in records(path, HEADLINES)]


def footer(executed: list[str]) -> Footer:
    """Which notebooks the findings were read from, by the start of their hashes."""
    paths = _notebooks(executed)
    rows = {f"{path.parent.name}/{path.name}": utils.sha256(path)[:12] for path in paths}
    return Footer({"commit": studies.commit(), **rows})


def _notebooks(executed: list[str]) -> list[Path]:
    return [path for paths in edition.contents(executed).values() for path in paths]


def judged(contents: edition.Contents) -> dict[str, list[Claim]]:
    """The claims that these notebooks tested, by notebook (STUDY/NAME), corrected by Holm."""
    claims = [
        (f"{study}/{path.name}", Claim.of(record))
        for study, notebooks in contents.items()
        for path in notebooks
        for record in records(path, CLAIMS)
        if "smallest" in record  # editions before had other verdicts
    ]
    by_notebook: dict[str, list[Claim]] = {}
    all_claims = corrected(claim for _, claim in claims)
    for (notebook, _), claim in zip(claims, all_claims, strict=True):
        by_notebook.setdefault(notebook, []).append(claim)
    return by_notebook


def read(contents: edition.Contents) -> pd.DataFrame:
    """The claims that these notebooks tested, as `registered`, in the order of the statements."""
    order = list(SHORT)
    rows = [
        {
            **claim.record(),
            "claim": claim.id.partition(".")[0],
            "short": SHORT.get(claim.id, claim.id),
            "title": manifest.study(claim.study).title,
            "notebook": notebook,
        }
        for notebook, claims in judged(contents).items()
        for claim in claims
    ]
    rows.sort(key=lambda row: order.index(row["id"]) if row["id"] in order else len(order))
    return pd.DataFrame(rows)


def primary(claims: pd.DataFrame) -> pd.DataFrame:
    """The rows of `registered` with a verdict: one per statement and study."""
    return claims[claims["primary"].astype(bool)]
