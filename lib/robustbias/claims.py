"""Claims of the paper: one sentence, one statistic with its interval, one verdict.

A verdict follows from the interval and nothing else:

    supported      the whole interval lies on the claimed side of the threshold
    contradicted   the whole interval lies on the other side
    undetermined   the interval includes the threshold

A claim of several statements is supported if all are, and contradicted if one is.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from robustbias.stats import Interval
from robustbias.utils import CLAIMS, HEADLINES, Prose, UserError, architecture


@dataclass(frozen=True)
class Claim:
    """One statement judged on one study and architecture.

    `above` says on which side of the threshold the claim puts the statistic; `condition`
    distinguishes several measurements of it, for instance stimulus sizes ("" if there is one).
    A measurement that is `beside` is secondary: it has a verdict, which the joint one ignores.
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
        where = ", ".join(filter(None, [architecture(self.architecture), self.condition]))
        place = f"lies {'above' if self.interval.low > self.threshold else 'below'}"
        if self.verdict == "undetermined":
            place = "includes"
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
    """Verdict of a claim from the verdicts of its statements."""
    verdicts = set(verdicts)
    if "contradicted" in verdicts:
        return "contradicted"
    return "supported" if verdicts == {"supported"} else "undetermined"


@dataclass(frozen=True)
class Verdicts:
    """Judged statements, as a notebook shows them and the findings table reads them."""

    claims: tuple[Claim, ...]

    def finding(self) -> Prose:
        """Statement by statement, the joint verdict first and every measurement under it."""
        lines = []
        for statement in dict.fromkeys(claim.statement for claim in self.claims):
            parts = [claim for claim in self.claims if claim.statement == statement]
            primary = [claim for claim in parts if not claim.beside]
            verdict = joint(claim.verdict for claim in primary)
            lines += [f"**{statement}** Verdict: **{verdict}**.", ""]
            lines += [f"- {claim.sentence}" for claim in primary] + [""]
            if secondary := [claim for claim in parts if claim.beside]:
                lines += ["Secondary measurements, which the verdict does not use:", ""]
                lines += [f"- {claim.sentence}" for claim in secondary] + [""]
        return Prose("\n".join(lines))

    def glue(self) -> None:
        """Values and verdicts for other pages to quote, under each claim's key."""
        from myst_nb import glue  # the book's, not the core's

        for claim in self.claims:
            glue(claim.key, claim.measured, display=False)
            glue(f"{claim.key}_verdict", claim.verdict, display=False)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        records = [claim.record() for claim in self.claims]
        table = pd.DataFrame(records)[["id", "architecture", "condition", "statistic", "measured"]]
        table["verdict"] = [claim.verdict + " (secondary)" * claim.beside for claim in self.claims]
        return {
            "text/plain": table.to_string(index=False),
            "text/html": table.to_html(index=False, border=0),
            CLAIMS: json.loads(json.dumps(records, default=float)),
        }


def matching(table: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """Rows whose columns have these values; a tuple allows each of its values."""
    for column, value in values.items():
        table = table[table[column].isin(value if isinstance(value, tuple) else (value,))]
    return table


# The statements that are tested, and where a measure's table holds what was measured of them.


@dataclass(frozen=True)
class Statement:
    """One testable statement of a claim.

    Args:
        id: The claim's id, and a name of the statement.
        statistic: What is measured; may name columns of a row in braces, as may `condition`.
        where: Column -> value, or tuple of values, of the rows that measure it.
        above: Whether the statement puts the statistic above the threshold, or below.
        rows: What else is done to these rows: choosing some, adding columns. A column `beside`
            is True for secondary measurements.
    """

    id: str
    statement: str
    source: str
    statistic: str
    where: dict[str, Any]
    threshold: float = 0.0
    above: bool = True
    condition: str = ""
    rows: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows

    def judged(self, table: pd.DataFrame) -> list[Claim]:
        """One judged claim per row of the table that measures the statement."""
        return [
            Claim(
                self.id,
                self.statement,
                self.source,
                row["study"],
                row["architecture"],
                self.statistic.format(**row),
                Interval(row["value"], row["low"], row["high"], int(row["n"])),
                self.threshold,
                self.above,
                self.condition.format(**row),
                row.get("beside", False),
            )
            for row in self.rows(matching(table, **self.where)).to_dict("records")
        ]


def _at_training_radius(rows: pd.DataFrame) -> pd.DataFrame:
    """Per architecture the attack with the radius of R's training and the fewest steps."""
    rows = rows[(rows["attack_eps"] == rows["eps"]) & (rows["steps"] > 0)]
    return rows.sort_values("steps").drop_duplicates("architecture")


def _by_display(rows: pd.DataFrame) -> pd.DataFrame:
    """Every display, named if there are several; those the study does not rest on are secondary."""
    named = rows["display"] if rows["display"].nunique() > 1 else ""
    return rows.assign(named=named, beside=~rows["decides"].astype(bool))


_ACCURACY = {"top1_difference": "top-1", "entry_level_difference": "entry-level accuracy"}


def _finest_labels(rows: pd.DataFrame) -> pd.DataFrame:
    """Per architecture top-1, or entry-level accuracy where images have no finer labels."""
    rows = rows.sort_values("metric", key=lambda metric: metric.map(list(_ACCURACY).index))
    rows = rows.drop_duplicates("architecture").sort_index()
    return rows.assign(accuracy=rows["metric"].map(_ACCURACY))


def _first_layer(rows: pd.DataFrame) -> pd.DataFrame:
    """Layers come in the order of the network."""
    return rows[rows["scope"] == "layer"].drop_duplicates("architecture")


_CHEN = "Chen, Agarwal and Nguyen 2020, arXiv 2006.09373"
_ABSTRACT = f"{_CHEN}, abstract"
_MADRY = f"{_CHEN}; Madry et al. 2018, arXiv 1706.06083"
_ZHANG = "Zhang and Zhu 2019, arXiv 1905.09797"
# For ImageNet's ResNet-50 R is not better on ImageNet-C (data_manifest/published.csv).
_GAVRIKOV = (
    "ResNet-50, L2 eps 3, in paulgavrikov/biases_vs_generalization (CC BY-SA 4.0); not a claim of "
    "the paper"
)
_COST = {"metric": "top1_difference"}
_BIAS = {"aggregation": "mean", "scope": "network", "pair": True}
_PAIR = {"regime": "robust - standard", "scope": "network"}
_RATIO = {"regime": "robust / standard"}
_KEPT = {"metric": "top1_conditional_difference"}  # both correct on the undistorted image
SIGMA = 0.08  # of the noise the verdict is about: ImageNet-C's mildest
SERVES = 0.25  # halfway between units that serve texture alone (0) and both cues alike (0.5)

STATEMENTS = (
    Statement(
        "C0.cost", "R networks pay with clean accuracy.", _MADRY,
        "clean top-1, R minus S", _COST | {"condition": "clean"}, above=False,
    ),
    Statement(
        "C0.gain", "R networks gain accuracy under attack.", _MADRY,
        "top-1 under attack at the training radius, R minus S", _COST, rows=_at_training_radius,
    ),
    Statement(
        "C1.difference", "R networks decide by shape more often than S networks.", _ABSTRACT,
        "shape bias, R minus S", _BIAS | {"metric": "shape_bias_difference"},
        condition="{named}", rows=_by_display,
    ),
    Statement(
        "C1.robust", "R networks decide mostly by shape (67 % in the paper).", _ABSTRACT,
        "shape bias of R",
        _BIAS | {"condition": "cue-conflict", "metric": "shape_bias", "regime": "robust"},
        threshold=0.5, condition="{named}", rows=_by_display,
    ),
    Statement(
        "C1.standard", "S networks decide mostly by texture (25 % by shape in the paper).",
        _ABSTRACT, "shape bias of S",
        _BIAS | {"condition": "cue-conflict", "metric": "shape_bias", "regime": "standard"},
        threshold=0.5, above=False, condition="{named}", rows=_by_display,
    ),
    *(
        Statement(
            f"C2.{name}", f"R networks beat S networks on {images}.", _ABSTRACT,
            f"{{accuracy}} on {images}, R minus S",
            {"condition": condition, "metric": tuple(_ACCURACY)}, rows=_finest_labels,
        )
        for name, condition, images in (
            ("stylized", "stylized", "stylized images"),
            ("silhouettes", "silhouettes", "silhouettes"),
            ("black", "black silhouettes", "black silhouettes on white"),
        )
    ),
    Statement(
        "C2.saturated",
        "R networks keep more of their right answers than S networks on saturated images.", _ZHANG,
        "top-1 ({condition}; both right when clean), R minus S",
        _KEPT | {"condition": "saturated, p = inf"},
    ),
    Statement(
        "C2.scrambled",
        "R networks lose more of their right answers than S networks when patches are scrambled.",
        _ZHANG, "top-1 ({condition}; both right when clean), R minus S",
        _KEPT | {"condition": "scrambled 4 x 4"}, above=False,
    ),
    Statement(
        "C2c", "R networks do not generalise better to ImageNet-C's corruptions as a whole.",
        _GAVRIKOV, "mCE (in per cent of {reference}), R minus S", {"metric": "mce_difference"},
    ),
    Statement(
        "C3.first", "R networks have smoother filters in the first layer.", _ABSTRACT,
        "total variation of first-layer filters, R over S",
        _RATIO | {"condition": "filters", "metric": "tv_normalised"},
        threshold=1.0, above=False, rows=_first_layer,
    ),
    Statement(
        "C3.filters", "R networks have smoother filters over all layers.", _ABSTRACT,
        "total variation of filters, all layers, R over S",
        _RATIO | {"scope": "network", "condition": "filters", "metric": "tv_normalised"},
        threshold=1.0, above=False,
    ),
    Statement(
        "C3.maps", "R networks have smoother activation maps than S networks.", _ABSTRACT,
        "total variation of activation maps, R over S",
        _RATIO | {"scope": "network", "condition": "maps", "metric": "tv_normalised"},
        threshold=1.0, above=False,
    ),
    Statement(
        "C3.noise", "R networks let less pixel-wise noise through than S networks.", _ABSTRACT,
        f"noise gain at sigma {SIGMA:g}, R over S",
        _RATIO | {"scope": "network", "sigma": SIGMA, "metric": "noise_gain"},
        threshold=1.0, above=False,
    ),
    Statement(
        "C4.low", "More units of R networks than of S networks detect textures and colours.",
        _ABSTRACT, "share of units that detect a texture or colour, R minus S",
        _PAIR | {"metric": "detectors", "category": "texture or color"},
    ),
    Statement(
        "C4.object", "Fewer units of R networks than of S networks detect objects.", _ABSTRACT,
        "share of units that detect an object, R minus S",
        _PAIR | {"metric": "detectors", "category": "object"}, above=False,
    ),
    Statement(
        "C5.concepts", "Units of R networks detect fewer concepts each.", _ABSTRACT,
        "concepts a unit detects, R minus S", _PAIR | {"metric": "concepts"}, above=False,
    ),
    Statement(
        "C5.classes", "The images that activate a unit of an R network most are of fewer classes.",
        _ABSTRACT, "classes among a unit's top images, R minus S",
        _PAIR | {"metric": "effective_classes"}, above=False,
    ),
    *(
        Statement(
            "C5.distance", "The images that activate a unit of an R network most are more alike.",
            _ABSTRACT, "distance between a unit's top images, R minus S",
            _PAIR | {"metric": metric}, above=False, condition="judged by {judge}",
        )
        for metric in ("distance", "distance_robust")
    ),
    Statement(
        "C6.serve", "Texture-detecting units of R also serve recognition by shape.", _ABSTRACT,
        "shape's part in the scores of R's texture detectors",
        {"regime": "robust", "detects": "texture", "metric": "shape_part"}, threshold=SERVES,
    ),
    Statement(
        "C6.generalists",
        "R units are generalists: they serve both cues more evenly than S units.", _ABSTRACT,
        "relative generality of units, R minus S",
        {"regime": "robust - standard", "scope": "network", "metric": "relative_generality"},
    ),
)  # fmt: skip


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


def tested(table: pd.DataFrame, *ids: str) -> Verdicts:
    """The statements of claims (`"C1"`), judged by the table of the measure they are about.

    Raises:
        UserError: An unknown claim, or a table without any row that a claim is about.
    """
    judged: list[Claim] = []
    for id in ids:
        if id not in TITLES:
            raise UserError(f"unknown claim {id!r}; the claims are {', '.join(TITLES)}.")
        statements = [part for part in STATEMENTS if part.id.partition(".")[0] == id]
        parts = [claim for statement in statements for claim in statement.judged(table)]
        if not parts:
            raise UserError(
                f"the table has no rows to test {id} with: measure an S and an R network of "
                "one architecture first"
            )
        judged += parts
    return Verdicts(tuple(judged))


# The few numbers of every network that the closing chapter compares. A notebook carries them as
# it carries its claims, so that the closing chapter reads notebooks alone.

FIELDS = ["study", "architecture", "regime", "number", "value", "low", "high", "n"]


class Headlines(list):
    """Records with the keys of FIELDS, for programs: a notebook shows only how many there are."""

    @classmethod
    def of(cls, numbers: dict[str, pd.DataFrame]) -> "Headlines":
        """One record per row of each number's table."""
        rows = [part.assign(number=number)[FIELDS] for number, part in numbers.items()]
        return cls(pd.concat(rows).to_dict("records"))

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        text = f"{len(self)} numbers for the closing chapter"
        return {"text/plain": text, HEADLINES: json.loads(json.dumps(self, default=float))}
