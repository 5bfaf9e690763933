"""Sentences of the front page, computed from the verdicts of all chapters."""

import pandas as pd
import yaml

from robustbias import manifest
from robustbias.claims import UNTESTABLE, VERDICTS
from robustbias.findings.measure import primary
from robustbias.utils import Prose

# What the three sentences are about: words, and the statements by the start of their ids.
ANSWERS = (
    ("R decides by shape more often than S (R minus S of the shape bias)", ("C1.difference",)),
    ("R's first-layer filters are smoother, and R transmits less pixel noise",
     ("C3.first", "C3.noise")),
    ("R's hidden units detect simpler things and fewer of them, and serve both cues",
     ("C4", "C5", "C6")),
)  # fmt: skip


def answer(claims: pd.DataFrame) -> Prose:
    """What was found, in one sentence per question: the verdicts in each study.

    A question of one statement is answered with its pooled effect; of several statements, those
    decided either way are named and the others counted.

    Args:
        claims: From `findings.measure.registered`.
    """
    claims, lines = primary(claims), []
    for words, ids in ANSWERS:
        parts = []
        rows = claims[claims["id"].str.startswith(ids)]
        for title, judged in rows.groupby("title", sort=False):
            said = "; ".join(_counted(judged, v) for v in _ORDER if v in set(judged["verdict"]))
            if len(judged) == 1:
                row = judged.iloc[0]
                said = row["verdict"] + ("" if row["untestable"] else f" ({row['measured']})")
            elif (judged["verdict"] == "supported").all():
                said = "supported"
            parts.append(f"*{title}*: {said}")
        if parts:
            lines.append(f"- **{words}.** {'. '.join(parts)}.")
    return Prose("\n".join(lines))


_ORDER = (*VERDICTS, UNTESTABLE)
_NAMED = ("supported", "contradicted")


def _counted(judged: pd.DataFrame, verdict: str) -> str:
    names = judged.loc[judged["verdict"] == verdict, "short"]
    return f"{len(names)} {verdict}" + f" ({', '.join(names)})" * (verdict in _NAMED)


def edition() -> Prose:
    """Version and date of this edition, and how to cite it, from CITATION.cff."""
    facts = yaml.safe_load((manifest.ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    names = " and ".join(author["name"] for author in facts["authors"])
    released = facts["date-released"]
    return Prose(
        f"**How to cite.** {names} ({released:%Y}). *{facts['title']}*, version "
        f"{facts['version']} ({released})."
    )
