"""Claims of the paper: one sentence, one statistic with its interval, one verdict.

A verdict is read off the interval and nothing else:

    supported      the whole interval lies on the claimed side of the threshold
    contradicted   the whole interval lies on the other side
    undetermined   the interval holds the threshold

A claim that comes in parts holds if every part does, and fails if one part fails.
"""

import functools
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from robustbias import utils
from robustbias.manifest import ROOT
from robustbias.stats import Interval
from robustbias.utils import CLAIMS, HEADLINES, Prose, UserError, architecture


@dataclass(frozen=True)
class Claim:
    """One testable part of a claim on one study and architecture.

    `above` says on which side of the threshold the claim puts the statistic; `condition` tells
    apart several measurements of it, for instance stimulus sizes ("" when there is but one).
    What is measured `beside` is shown with its own verdict and decides nothing.
    """

    id: str
    statement: str
    source: str
    study: str
    architecture: str
    statistic: str
    interval: Interval
    threshold: float
    above: bool = True
    condition: str = ""
    beside: bool = False

    @classmethod
    def of(cls, row: Any, **facts: Any) -> "Claim":
        """The claim that a table's row measures: study, architecture and interval are the row's."""
        interval = Interval(row.value, row.low, row.high, int(row.n))
        return cls(study=row.study, architecture=row.architecture, interval=interval, **facts)

    @property
    def verdict(self) -> str:
        low, high = self.interval.low, self.interval.high
        if low <= self.threshold <= high:
            return "undetermined"
        return "supported" if (low > self.threshold) == self.above else "contradicted"

    @property
    def measured(self) -> str:
        """Value and interval, with decimals enough to see on which side of the threshold."""
        return self.interval.text(self.threshold)

    @property
    def sentence(self) -> str:
        """The finding in words that follow from the interval."""
        side = {
            (True, "supported"): "above",
            (True, "contradicted"): "below",
            (False, "supported"): "below",
            (False, "contradicted"): "above",
        }.get((self.above, self.verdict))
        where = ", ".join(filter(None, [architecture(self.architecture), self.condition]))
        place = f"lies {side}" if side else "includes"
        return (
            f"{where}: {self.statistic} is {self.measured}, n = {self.interval.n:,}; "
            f"the interval {place} {self.threshold:g}: **{self.verdict}**."
        )

    @property
    def key(self) -> str:
        """Name under which the chapter glues the value: c1_difference_alexnet_128px."""
        words = [self.id.replace(".", "_").lower(), self.architecture]
        return "_".join([*words, self.condition.replace(" ", "")] if self.condition else words)

    def record(self) -> dict[str, Any]:
        """Plain values for JSON and tables."""
        judged = {"measured": self.measured, "verdict": self.verdict}
        fields = vars(self) | vars(self.interval) | judged
        return {name: value for name, value in fields.items() if name != "interval"}


def joint(verdicts: Iterable[str]) -> str:
    """Verdict of a claim from the verdicts of its parts."""
    verdicts = set(verdicts)
    if "contradicted" in verdicts:
        return "contradicted"
    return "supported" if verdicts == {"supported"} else "undetermined"


@dataclass(frozen=True)
class Verdicts:
    """The parts of one claim, as a notebook shows them and the findings table reads them."""

    claims: tuple[Claim, ...]

    def table(self) -> pd.DataFrame:
        """One row a part."""
        return pd.DataFrame([claim.record() for claim in self.claims])

    def finding(self) -> Prose:
        """Statement by statement, the joint verdict first and every measurement under it."""
        lines = []
        for statement in dict.fromkeys(claim.statement for claim in self.claims):
            parts = [claim for claim in self.claims if claim.statement == statement]
            deciding = [claim for claim in parts if not claim.beside]
            verdict = joint(claim.verdict for claim in deciding)
            lines += [f"**{statement}** Verdict: **{verdict}**.", ""]
            lines += [f"- {claim.sentence}" for claim in deciding] + [""]
            if aside := [claim for claim in parts if claim.beside]:
                lines += ["Shown beside, deciding nothing:", ""]
                lines += [f"- {claim.sentence}" for claim in aside] + [""]
        return Prose("\n".join(lines))

    def glue(self) -> None:
        """Values and verdicts for other pages to quote, under each claim's key."""
        from myst_nb import glue  # the book's, not the core's

        for claim in self.claims:
            glue(claim.key, claim.measured, display=False)
            glue(f"{claim.key}_verdict", claim.verdict, display=False)

    def register(self, folder: Path | None = None) -> "Verdicts":
        """Write each part below `_build/claims/STUDY`, one JSON file a claim, whole or not."""
        folder = folder or Path(os.environ.get("ROBUSTBIAS_CLAIMS", ROOT / "_build" / "claims"))
        for study, claim in dict.fromkeys((c.study, c.id.split(".")[0]) for c in self.claims):
            parts = [
                part.record()
                for part in self.claims
                if part.study == study and part.id.split(".")[0] == claim
            ]
            with utils.atomic(folder / study / f"{claim}.json") as partial:
                partial.write_text(json.dumps(parts, indent=1, default=float) + "\n")
        return self

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        shown = self.table()[["id", "architecture", "condition", "statistic"]]
        shown = shown.assign(
            measured=[claim.measured for claim in self.claims],
            verdict=[claim.verdict + " (beside)" * claim.beside for claim in self.claims],
        )
        records = json.loads(json.dumps([c.record() for c in self.claims], default=float))
        return {
            "text/plain": shown.to_string(index=False),
            "text/html": shown.to_html(index=False, border=0),
            CLAIMS: records,
        }


# -- --------------------------------------------------------------------------------------------
# Which claims there are: one decorated function each, from a measure's table to its parts.


TITLES = {
    "C0": "R pays with clean accuracy and withstands attacks",
    "C1": "R decides by shape, S by texture",
    "C2": "R does better without texture, S without shape",
    "C2c": "R does not withstand corruptions better as a whole",
    "C3": "R is smoother and blocks pixel noise",
    "C4": "R's units detect textures and colours rather than objects",
    "C5": "R's units respond to fewer types of inputs",
    "C6": "texture detectors serve shape too, and R's units are generalists",
}


def claim(id: str) -> Callable:
    """Decorator: a function from a measure's table to the parts of claim `id` returns them judged.

    The decorated function raises UserError for a table without any row the claim is about.
    """

    def decorated(function: Callable[[pd.DataFrame], Iterable[Claim]]) -> Callable:
        @functools.wraps(function)
        def judged(table: pd.DataFrame) -> Verdicts:
            parts = tuple(function(table))
            if not parts:
                raise UserError(
                    f"the table has no rows to test {id} with: measure an S and an R network of "
                    "one architecture first"
                )
            return Verdicts(parts)

        return judged

    return decorated


# -- --------------------------------------------------------------------------------------------
# The few numbers of every network that the closing chapter sets side by side.
#
# A chapter's notebook carries them for programs, as it carries its claims, so that the closing
# chapter needs nothing but the notebooks.


FIELDS = ["study", "architecture", "regime", "number", "value", "low", "high", "n"]


class Headlines(list):
    """Records with the keys of FIELDS; a notebook carries them and shows nothing."""

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        text = f"{len(self)} numbers for the closing chapter"
        return {"text/plain": text, HEADLINES: json.loads(json.dumps(self, default=float))}


def of_metric(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    return rows[rows["metric"] == metric]


def gathered(parts: dict[str, pd.DataFrame]) -> Headlines:
    rows = [part.assign(number=number)[FIELDS] for number, part in parts.items()]
    return Headlines(pd.concat(rows).to_dict("records"))
