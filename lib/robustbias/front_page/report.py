"""Sentences of the front page, computed from the verdicts of all chapters."""

import pandas as pd
import yaml

from robustbias import manifest
from robustbias.utils import Prose

# What the three sentences are about: words, and the statements by the start of their ids.
ANSWERS = (
    ("R decides by shape more often than S", ("C1.difference",)),
    ("R's first-layer filters are smoother, and R transmits less pixel noise",
     ("C3.first", "C3.noise")),
    ("R's hidden units are simpler or serve both cues", ("C4", "C5", "C6")),
)  # fmt: skip


def answer(cells: pd.DataFrame) -> Prose:
    """What was found, in one sentence per question: how many verdicts support it in each study.

    Args:
        cells: From `findings.measure.verdicts`.
    """
    lines = []
    for words, ids in ANSWERS:
        rows = cells[cells["id"].str.startswith(ids)]
        if rows.empty:
            continue
        counts = [
            f"{(part['verdict'] == 'supported').sum()} of {len(part)} "
            f"verdict{'s' * (len(part) > 1)} in the study *{title}*"
            for title, part in rows.groupby("title", sort=False)
        ]
        against = (rows["verdict"] == "contradicted").sum()
        rest = f"; {against} of {len(rows)} contradict it" if against else "; none contradicts it"
        lines.append(f"- **{words}**: supported by {' and '.join(counts)}{rest}.")
    return Prose("\n".join(lines))


def edition() -> Prose:
    """Version and date of this edition, and how to cite it, from CITATION.cff."""
    facts = yaml.safe_load((manifest.ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    names = " and ".join(author["name"] for author in facts["authors"])
    released = facts["date-released"]
    return Prose(
        f"**How to cite.** {names} ({released:%Y}). *{facts['title']}*, version "
        f"{facts['version']} ({released})."
    )
