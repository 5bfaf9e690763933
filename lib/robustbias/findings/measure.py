"""All claims of the book in one table, read from the notebooks that tested them."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
from nbformat import NotebookNode

from robustbias import manifest, studies, utils
from robustbias.book import edition
from robustbias.claims import joint
from robustbias.utils import CLAIMS, HEADLINES, PROVENANCE, Footer, UserError

# -- --------------------------------------------------------------------------------------------
# What an executed chapter says of itself, for programs: its claims, its headline numbers and
# its provenance.
#
# They travel inside the notebook, beside what a reader sees, so that a published chapter needs
# nothing but its own file.


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


VERDICTS = ("supported", "undetermined", "contradicted")


def registered(executed: list[str]) -> pd.DataFrame:
    """One row a tested part of a claim, study and architecture.

    Columns: those of `Claim.record`, title (the study's), notebook (where it was tested).

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
    """The headline numbers of all chapters (`headlines.FIELDS`), read like the claims."""
    notebooks = [path for paths in edition.contents(executed).values() for path in paths]
    return [row for path in notebooks for row in records(path, HEADLINES)]


def footer(executed: list[str]) -> Footer:
    """Which notebooks the findings were read from, by the start of their hashes."""
    notebooks = [path for paths in edition.contents(executed).values() for path in paths]
    rows = {f"{path.parent.name}/{path.name}": utils.sha256(path)[:12] for path in notebooks}
    return Footer({"commit": studies.commit(), **rows})


def read(contents: edition.Contents) -> pd.DataFrame:
    """The claims that these notebooks tested, in order of their ids."""
    rows = [
        {**claim, "title": manifest.study(study).title, "notebook": f"{study}/{path.name}"}
        for study, notebooks in contents.items()
        for path in notebooks
        for claim in records(path, CLAIMS)
    ]
    # "C10" after "C2"; the parts of a claim as it lists them, whichever study tested them first
    parts = list(dict.fromkeys(row["id"] for row in rows))
    rows.sort(key=lambda row: (int(re.search(r"\d+", row["id"])[0]), parts.index(row["id"])))
    return pd.DataFrame(rows)


def verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """One row a statement, study and architecture: the joint verdict of the conditions that decide.

    Columns: id, statement, study, title, architecture, claim (C2 of C2.stylized), verdict, text
    (what a cell of a table says: the measurement, or how many conditions gave which verdict).
    """
    names = ["id", "statement", "study", "title", "architecture"]
    rows = []
    for key, parts in table[~table["beside"]].groupby(names, sort=False):
        found = list(parts["verdict"])
        text = parts["measured"].iloc[0]
        if len(found) > 1:
            counts = [f"{found.count(verdict)} {verdict}" for verdict in VERDICTS]
            there = [count for count in counts if not count.startswith("0 ")]
            text = ", ".join(there) if len(there) > 1 else f"all {len(found)}"
        about = dict(zip(names, key, strict=True)) | {"claim": key[0].partition(".")[0]}
        rows.append({**about, "verdict": joint(found), "text": text})
    return pd.DataFrame(rows, columns=[*names, "claim", "verdict", "text"])
