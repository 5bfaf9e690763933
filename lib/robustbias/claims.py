"""Claims of the paper: statements, one effect each with its interval, one verdict per study.

The verdict is about the effect pooled over architectures and replicates; pairs and replicates are
reported with it and not judged. Every statement has a smallest effect of interest, fixed in the
table of statements before results are read. In units of it (0: no effect; positive: the side that
the statement names) the 95 % interval gives the verdict:

    no relevant effect   it lies inside [-1, 1]
    supported            it lies above 0
    contradicted         it lies below 0
    undetermined         otherwise

A statement of non-superiority ("R is not better") is supported above -1, contradicted below -1.
`corrected` keeps the verdicts that hold under Holm's correction for all of a study's statements.
"""

import collections
import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import scipy.stats

from robustbias import manifest
from robustbias.stats import LEVEL, Interval
from robustbias.utils import CLAIMS, HEADLINES, Prose, UserError, architecture

VERDICTS = ("supported", "contradicted", "no relevant effect", "undetermined")
UNTESTABLE = "not testable here"
FEW = 4  # other conditions of a statement that a finding names; beyond, they are counted


@dataclass(frozen=True)
class Claim:
    """One measurement of a statement on a study. The `primary` one, pooled, has the verdict.

    Args:
        architecture: "" for the pooled effect.
        replicate: Number of the training; "" for all.
        condition: Distinguishes several measurements, for instance displays ("" if there is one).
        null: The statistic's value without any effect.
        smallest: Smallest effect of interest, a difference from `null`, or a factor if `ratio`.
        above: Whether the statement puts the statistic above `null`, or below.
        superiority: False for a statement that R is not better by more than `smallest`.
        freedom: Degrees of freedom of the interval; None for a normal one.
        untestable: Why the study cannot test the statement; "" if it can.
        adjusted: p under Holm's correction; None before it.
    """

    id: str
    statement: str
    source: str
    study: str
    architecture: str
    statistic: str
    interval: Interval
    smallest: float
    null: float = 0.0
    above: bool = True
    ratio: bool = False
    superiority: bool = True
    condition: str = ""
    replicate: str = ""
    primary: bool = True
    freedom: float | None = None
    untestable: str = ""
    adjusted: float | None = None

    def multiples(self, value: float) -> float:
        """A value of the statistic in smallest effects of interest; positive as the statement says.

        log(value) / log(smallest) for ratios.
        """
        effect = (value - self.null) / self.smallest
        if self.ratio and not math.isnan(value):
            effect = math.log(value / self.null) if value > 0 else -math.inf
            effect /= math.log(self.smallest)
        return effect if self.above else -effect

    @property
    def scaled(self) -> Interval:
        """The interval in smallest effects of interest."""
        ends = sorted(map(self.multiples, (self.interval.low, self.interval.high)))
        return Interval(self.multiples(self.interval.value), *ends, self.interval.n)

    @property
    def uncorrected(self) -> str:
        """The verdict of this interval alone."""
        if self.untestable:
            return UNTESTABLE
        low, high = self.scaled.low, self.scaled.high
        if math.isnan(low) or math.isnan(high):
            return "undetermined"
        edge = 0 if self.superiority else -1
        if self.superiority and low > -1 and high < 1:
            return "no relevant effect"
        if low > edge:
            return "supported"
        return "contradicted" if high < edge else "undetermined"

    @property
    def verdict(self) -> str:
        """The verdict, undetermined where Holm's correction takes it away."""
        if self.adjusted is not None and self.adjusted >= 1 - LEVEL and not self.untestable:
            return "undetermined"
        return self.uncorrected

    @property
    def p(self) -> float:
        """Two-sided p of the hypothesis that the verdict rejects, by inverting the interval.

        The interval is read as value ± t(.975) standard errors on each side, with its degrees of
        freedom (normal where there are none), so p < .05 exactly if the 95 % interval excludes the
        hypothesis: no effect; for *no relevant effect* an effect of 1 and one of -1 (the larger p);
        for non-superiority an effect of -1.
        """
        if self.uncorrected == "no relevant effect":
            return max(self._p(-1.0), self._p(1.0))
        return self._p(0.0 if self.superiority else -1.0)

    def _p(self, at: float) -> float:
        effect = self.scaled
        distance = abs(effect.value - at)
        reach = effect.value - effect.low if at < effect.value else effect.high - effect.value
        if not math.isfinite(distance) or not math.isfinite(reach):
            return 1.0
        if reach <= 0:
            return float(distance == 0)
        t = scipy.stats.t(self.freedom or math.inf)
        return float(2 * t.sf(distance / reach * t.ppf((1 + LEVEL) / 2)))

    @property
    def measured(self) -> str:
        """Value and interval."""
        return str(self.interval)

    @property
    def network(self) -> str:
        """Whose effect it is, in words."""
        name = architecture(self.architecture) if self.architecture else "all architectures"
        return f"{name}, training {self.replicate}" if self.replicate else name

    @property
    def sentence(self) -> str:
        """The pooled effect, what it excludes, and the verdict; or why there is none."""
        if self.untestable:
            return f"**{UNTESTABLE}** ({self.untestable})."
        text = f"**{self.verdict}**: {self.statistic} is {self.measured}"
        condition = self.condition if self.condition not in self.statistic else ""
        text += f" ({', '.join(filter(None, [condition, self._smallest, self._p_text]))})."
        if self.verdict in ("undetermined", "no relevant effect"):
            text += f" {'Ratios' if self.ratio else 'Effects'} beyond {self.ends} are excluded."
        if self.verdict != self.uncorrected:
            text += f" Without the correction for many statements it would be {self.uncorrected}."
        return text

    @property
    def ends(self) -> str:
        """The ends of the interval, between which the effect lies."""
        return self.measured.partition(" ")[2]  # as many decimals as there

    @property
    def _smallest(self) -> str:
        return f"smallest effect of interest {'a factor of ' * self.ratio}{self.smallest:g}"

    @property
    def _p_text(self) -> str:
        return f"p {p_text(self.p)}" if self.adjusted is None else f"Holm p {p_text(self.adjusted)}"

    @property
    def key(self) -> str:
        """Name under which the chapter glues the value: c1_difference, c1_difference_alexnet."""
        condition = "" if self.primary else self.condition.replace(" ", "")
        words = (self.id.replace(".", "_").lower(), self.architecture, self.replicate, condition)
        return "_".join(filter(None, words))

    def record(self) -> dict[str, Any]:
        """Plain values for JSON and tables; `of` reads them."""
        judged = {"measured": self.measured, "verdict": self.verdict, "p": self.p}
        judged |= {"uncorrected": self.uncorrected}
        fields = {**vars(self), **vars(self.interval), **judged}
        del fields["interval"]
        missing = {name: None for name, value in fields.items() if value != value}
        return fields | missing

    @classmethod
    def of(cls, record: dict[str, Any]) -> "Claim":
        """The claim with this record."""
        ends = (math.nan if record[k] is None else record[k] for k in ("value", "low", "high"))
        interval = Interval(*ends, record["n"])
        names = {field.name for field in dataclasses.fields(cls)} & set(record)
        return cls(interval=interval, **{name: record[name] for name in names})


def p_text(p: float) -> str:
    """A p as papers print it: = 0.021, < 0.001."""
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p of each test, for all of them together.

        max over the tests j with p_j <= p_i of min(1, (m - rank_j) p_j),  ranks from 0

    Source: Holm 1979, Scandinavian Journal of Statistics 6, 65-70.
    """
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = largest
    return adjusted


def corrected(claims: Iterable[Claim]) -> list[Claim]:
    """The claims, the primary ones with p adjusted for all testable statements of their study."""
    claims = list(claims)
    for study in {claim.study for claim in claims}:
        family = [
            i
            for i, claim in enumerate(claims)
            if claim.study == study and claim.primary and not claim.untestable
        ]
        for i, adjusted in zip(family, holm([claims[i].p for i in family]), strict=True):
            claims[i] = dataclasses.replace(claims[i], adjusted=adjusted)
    return claims


def answer(claims: Iterable[Claim], *ids: str) -> Prose:
    """One sentence per statement: the statement, its verdict, the pooled effect and its interval.

    For the top of a chapter: `claims.answer(claims.tested(table, "C1"), "C1.difference")`; with the
    verdicts of the whole book, corrected for many statements, `claims.answer(measure.judged(...))`.

    Args:
        claims: From `tested` or `corrected`; of one study.
        ids: Statements in the order to be named; all when empty.

    Raises:
        UserError: A statement that was not tested.
    """
    primary = {claim.id: claim for claim in claims if claim.primary}
    if unknown := [id for id in ids if id not in primary]:
        raise UserError(f"no statement {unknown[0]!r} here; there are: {', '.join(primary)}.")
    chosen = [primary[id] for id in ids or primary]
    return Prose("\n".join(f"- {claim.statement} {_capital(claim.sentence)}" for claim in chosen))


def _capital(text: str) -> str:
    return text[:2] + text[2].upper() + text[3:]  # after the two asterisks


@dataclass(frozen=True)
class Verdicts:
    """Judged statements, as a notebook shows them and the findings table reads them."""

    claims: tuple[Claim, ...]

    def __iter__(self):
        return iter(self.claims)

    def finding(self) -> Prose:
        """Statement by statement: the verdict with the pooled effect, the others in one line."""
        lines = []
        for claim in self.claims:
            if claim.primary:
                lines += [f"**{claim.statement}** Verdict: {claim.sentence}", ""]
                lines += self._not_judged(claim)
        lines += [
            "These verdicts are not corrected for multiple tests; those of the chapter on what "
            "replicates are."
        ]
        return Prose("\n".join(lines))

    def _not_judged(self, primary: Claim) -> list[str]:
        """The pairs under the condition of the verdict; pooled, the other conditions if few."""
        others = [c for c in self.claims if c.id == primary.id and not (c.primary or c.replicate)]
        pairs = [c for c in others if c.condition == primary.condition]
        rest = [c for c in others if c.condition != primary.condition]
        pooled = [c for c in rest if c.architecture == primary.architecture]
        named = pooled if len(pooled) <= FEW else []
        words = [f"{c.network} {c.measured}" for c in pairs]
        words += [f"{c.network}, {c.condition} {c.measured}" for c in named]
        if len(pooled) > len(named):
            words.append(f"{len(pooled)} other conditions, in the table of every statement")
        return [f"- Not judged: {'; '.join(words)}.", ""] if words else []

    def glue(self) -> None:
        """Values and verdicts for other pages to quote, under each claim's key."""
        from myst_nb import glue  # the book's, not the core's

        for claim in self.claims:
            glue(claim.key, claim.measured, display=False)
            if claim.primary:
                glue(f"{claim.key}_verdict", claim.uncorrected, display=False)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        records = [claim.record() for claim in self.claims]
        table = pd.DataFrame(records)[["id", "condition", "statistic", "measured"]]
        table.insert(1, "networks", [claim.network for claim in self.claims])
        table["verdict"] = [claim.verdict if claim.primary else "" for claim in self.claims]
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


def per_architecture(table: pd.DataFrame) -> pd.DataFrame:
    """Aggregate rows of single architectures: means over replicates where there are several."""
    if "mean_over" not in table:
        return table
    rows = table[table["mean_over"] != "architectures"]
    averaged = rows["mean_over"] == "replicates"
    networks = [rows[c] for c in ("architecture", "regime", "eps") if c in rows]
    return rows[averaged | ~averaged.groupby(networks, dropna=False).transform("any")]


# The statements that are tested, and where a measure's table holds what was measured of them.


_SHARED = ("id", "statement", "source", "smallest", "null", "above", "ratio", "superiority")


@dataclass(frozen=True)
class Statement:
    """One testable statement of a claim.

    Args:
        id: The claim's id, and a name of the statement.
        short: The statement in a few words, for figures and the conclusion.
        statistic: What is measured; may name columns of a row in braces, as may `condition`.
        where: Column -> value, or tuple of values, of the rows that measure it.
        smallest, null, above, ratio, superiority: As in `Claim`.
        least: Units that S and R of every architecture need for a verdict.
        untestable: Kind of a study's data set -> why such a study cannot test the statement.
        rows: What else is done to these rows: choosing some, adding columns. A column `primary`
            is False for measurements without a verdict.
    """

    id: str
    short: str
    statement: str
    source: str
    statistic: str
    where: dict[str, Any]
    smallest: float
    null: float = 0.0
    above: bool = True
    ratio: bool = False
    superiority: bool = True
    condition: str = ""
    least: int = 0
    untestable: dict[str, str] = dataclasses.field(default_factory=dict)
    rows: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows

    def judged(self, table: pd.DataFrame) -> list[Claim]:
        """One claim per row of the table that measures the statement, the primary one first."""
        rows = self.rows(matching(table.reset_index(drop=True), **self.where))
        if rows.empty:
            return []
        means = rows[rows["mean_over"] == "replicates"] if "mean_over" in rows else rows.head(0)
        rows = rows.assign(
            primary=_primary(rows), several=rows["architecture"].isin(means["architecture"])
        )
        rows = rows.sort_values("primary", ascending=False, kind="stable")
        claims = [self._claim(row, self._untestable(row, table)) for row in rows.to_dict("records")]
        if claims[0].primary:
            return claims
        row = rows.iloc[0].to_dict() | _NOTHING
        return [self._claim(row, "no effect is pooled over the architectures"), *claims]

    def unmeasured(self, table: pd.DataFrame) -> Claim:
        """The statement of a study whose table has no row that measures it: without a verdict."""
        study = {"study": table["study"].iloc[0]}
        row = collections.defaultdict(str, study | _NOTHING)  # words that name columns say nothing
        return self._claim(row, "nothing that was measured bears on it; more images may")

    def _claim(self, row: dict[str, Any], untestable: str) -> Claim:
        mean, freedom = row.get("mean_over"), row.get("freedom", math.inf)
        one_of_many = "mean_over" in row and mean not in ("architectures", "replicates")
        return Claim(
            **{name: getattr(self, name) for name in _SHARED},
            study=row["study"],
            architecture="" if mean == "architectures" else row["architecture"],
            statistic=self.statistic.format_map(row),
            interval=Interval(row["value"], row["low"], row["high"], int(row["n"])),
            condition=self.condition.format_map(row),
            replicate=str(int(row["replicate"])) if one_of_many and row["several"] else "",
            primary=bool(row["primary"]),
            freedom=freedom if math.isfinite(freedom) else None,
            untestable=untestable,
        )

    def _untestable(self, row: dict[str, Any], table: pd.DataFrame) -> str:
        """Why there can be no verdict, or ""."""
        if row["study"] in manifest.studies():
            kind = manifest.dataset(manifest.study(row["study"]).dataset).kind
            if kind in self.untestable:
                return self.untestable[kind]
        if self.least:
            sides = matching(table, **self.where | {"regime": ("standard", "robust")})
            fewest = int(sides["n"].min()) if len(sides) else 0
            if fewest < self.least:
                return f"{fewest} units of S or R of an architecture, fewer than {self.least}"
        return ""


_NOTHING = {"value": math.nan, "low": math.nan, "high": math.nan, "n": 0}
_NOTHING |= {"primary": True, "mean_over": "architectures", "several": False}


def _primary(rows: pd.DataFrame) -> list[bool]:
    """True for the one row that has the verdict: the mean over architectures.

    Where there is one architecture, the mean over its replicates, or the row of its only pair.
    """
    chosen = rows[rows["primary"]] if "primary" in rows else rows
    for mean in ("architectures", "replicates") if "mean_over" in rows else ():
        if rows["mean_over"].eq(mean).any():
            chosen = chosen[chosen["mean_over"] == mean]
            break
    if chosen["architecture"].nunique() > 1:
        chosen = chosen.head(0)
    return [label in chosen.index[:1] for label in rows.index]


def _at_training_radius(rows: pd.DataFrame) -> pd.DataFrame:
    """The attack with the radius of R's training and the fewest steps."""
    rows = rows[(rows["attack_eps"] == rows["eps"]) & (rows["steps"] > 0)]
    return rows[rows["steps"] == rows["steps"].min()]


def _by_display(rows: pd.DataFrame) -> pd.DataFrame:
    """Every display, named if there are several; those the study does not rest on are secondary."""
    named = rows["display"] if rows["display"].nunique() > 1 else ""
    return rows.assign(named=named, primary=rows["decides"].astype(bool))


_READINGS = {
    "entry_level_difference": "entry-level accuracy",
    "top1_difference": "top-1",
    "entry_level_conditional_difference": "entry-level accuracy",
    "top1_conditional_difference": "top-1",
}


def _by_reading(rows: pd.DataFrame) -> pd.DataFrame:
    """Entry-level accuracy, as in the figures, has the verdict; top-1 where it is the only one."""
    readings = rows["metric"].map(_READINGS)
    first = next((word for word in _READINGS.values() if word in set(readings)), "")
    return rows.assign(accuracy=readings, primary=readings == first)


_CHEN = "Chen, Agarwal and Nguyen 2020, arXiv 2006.09373"
_ABSTRACT = f"{_CHEN}, abstract"
_MADRY = f"{_CHEN}; Madry et al. 2018, arXiv 1706.06083"
_ZHANG = "Zhang and Zhu 2019, arXiv 1905.09797"
_ENGSTROM = "Engstrom et al. 2019, arXiv 1906.00945; not a claim of the paper"
# For ImageNet's ResNet-50 R is not better on ImageNet-C (data_manifest/published.csv).
_GAVRIKOV = (
    "ResNet-50, L2 eps 3, in paulgavrikov/biases_vs_generalization (CC BY-SA 4.0); not a claim of "
    "the paper"
)
# smallest effects of interest
ACCURACY, SHARE, BIAS, SCORE, RATIO, CLASSES, ERROR = 0.03, 0.03, 0.05, 0.05, 1.05, 0.5, 5.0
UNITS = 20  # S and R need as many for a verdict about units
_COST = {"metric": "top1_difference"}
_BIAS = {"aggregation": "mean", "scope": "network", "pair": True}
_PAIR = {"regime": "robust - standard", "scope": "network"}
_RATIO = {"regime": "robust / standard"}
_ABSOLUTE = ("entry_level_difference", "top1_difference")
# both correct on the undistorted image
_KEPT = ("entry_level_conditional_difference", "top1_conditional_difference")
_VISUALISED = {"scope": "network", "condition": "visualisations"}
SIGMA = 0.08  # of the noise the verdict is about: ImageNet-C's mildest
_DISPLAY = "how conflicts are made from photographs sets the share of decisions by shape"
_LABEL = "texture is the category's label in this study"
_COLOUR = "its colours cover too many pixels to reach the IoU of a detector"

STATEMENTS = (
    Statement(
        "C0.cost", "lower clean accuracy", "R networks pay with clean accuracy.", _MADRY,
        "clean top-1, R minus S", _COST | {"condition": "clean"}, ACCURACY, above=False,
    ),
    Statement(
        "C0.gain", "accuracy under attack", "R networks gain accuracy under attack.", _MADRY,
        "top-1 under attack at the training radius, R minus S", _COST, ACCURACY,
        rows=_at_training_radius,
    ),
    Statement(
        "C1.difference", "larger shape bias",
        "R networks decide by shape more often than S networks.", _ABSTRACT,
        "shape bias, R minus S", _BIAS | {"metric": "shape_bias_difference"}, BIAS,
        condition="{named}", rows=_by_display,
    ),
    Statement(
        "C1.robust", "R mostly by shape",
        "R networks decide mostly by shape (67 % in the paper).", _ABSTRACT, "shape bias of R",
        _BIAS | {"condition": "cue-conflict", "metric": "shape_bias", "regime": "robust"}, BIAS,
        null=0.5, condition="{named}", untestable={"tiny-imagenet": _DISPLAY}, rows=_by_display,
    ),
    Statement(
        "C1.standard", "S mostly by texture",
        "S networks decide mostly by texture (25 % by shape in the paper).", _ABSTRACT,
        "shape bias of S",
        _BIAS | {"condition": "cue-conflict", "metric": "shape_bias", "regime": "standard"}, BIAS,
        null=0.5, above=False, condition="{named}", untestable={"tiny-imagenet": _DISPLAY},
        rows=_by_display,
    ),
    *(
        Statement(
            f"C2.{name}", f"better on {images}", f"R networks beat S networks on {images}.",
            _ABSTRACT, f"{{accuracy}} on {images}, R minus S",
            {"condition": condition, "metric": _ABSOLUTE}, ACCURACY,
            condition="{accuracy}", rows=_by_reading,
        )
        for name, condition, images in (
            ("stylized", "stylized", "stylized images"),
            ("silhouettes", "silhouettes", "silhouettes"),
            ("black", "black silhouettes", "black silhouettes"),
        )
    ),
    Statement(
        "C2.saturated", "robust to saturation",
        "R networks keep more of their correct answers than S networks on saturated images.",
        _ZHANG, "{accuracy} ({condition}; both correct when clean), R minus S",
        {"condition": "saturated, p = inf", "metric": _KEPT}, ACCURACY,
        condition="{accuracy}", rows=_by_reading,
    ),
    Statement(
        "C2.scrambled", "worse on scrambled patches",
        "R networks lose more of their correct answers than S networks when patches are scrambled.",
        _ZHANG, "{accuracy} ({condition}; both correct when clean), R minus S",
        {"condition": "scrambled 4 x 4", "metric": _KEPT}, ACCURACY, above=False,
        condition="{accuracy}", rows=_by_reading,
    ),
    Statement(
        "C2c", "not better under corruptions",
        "R networks are not better than S networks by more than 5 points of mCE under ImageNet-C's "
        "corruptions (non-superiority).",
        _GAVRIKOV, "mCE on {n:.0f} images, R minus S", {"metric": "mce_difference"},
        ERROR, superiority=False,
    ),
    Statement(
        "C3.first", "smoother first filters",
        "R networks have smoother filters in the first layer.", _ABSTRACT,
        "total variation of first-layer filters, R over S",
        _RATIO | {"scope": "first layer", "condition": "filters", "metric": "tv_normalised"},
        RATIO, null=1.0, above=False, ratio=True,
    ),
    Statement(
        "C3.filters", "smoother filters", "R networks have smoother filters over all layers.",
        _ABSTRACT, "total variation of filters, all layers, R over S",
        _RATIO | {"scope": "network", "condition": "filters", "metric": "tv_normalised"}, RATIO,
        null=1.0, above=False, ratio=True,
    ),
    Statement(
        "C3.maps", "smoother maps", "R networks have smoother activation maps than S networks.",
        _ABSTRACT, "total variation of activation maps, R over S",
        _RATIO | {"scope": "network", "condition": "maps", "metric": "tv_normalised"}, RATIO,
        null=1.0, above=False, ratio=True,
    ),
    Statement(
        "C3.noise", "less noise transmitted",
        "R networks let less pixel-wise noise through than S networks.", _ABSTRACT,
        f"noise gain at sigma {SIGMA:g}, R over S",
        _RATIO | {"scope": "network", "sigma": SIGMA, "metric": "noise_gain"}, RATIO,
        null=1.0, above=False, ratio=True,
    ),
    Statement(
        "C3v.smooth", "smoother visualisations",
        "What R's units respond to most is smoother than what S's units respond to most.",
        _ENGSTROM, "total variation of visualisations, all layers, R over S",
        _RATIO | _VISUALISED | {"metric": "tv_normalised"}, RATIO,
        null=1.0, above=False, ratio=True,
    ),
    Statement(
        "C3v.spectrum", "lower frequencies in visualisations",
        "What R's units respond to most has less energy at high frequencies than S's.",
        _ENGSTROM, "high-frequency share of visualisations, all layers, R over S",
        _RATIO | _VISUALISED | {"metric": "high_frequency_share"}, RATIO,
        null=1.0, above=False, ratio=True,
    ),
    Statement(
        "C3v.likeness", "visualisations processed like images",
        "R processes what its units respond to most more like natural images than S does.",
        _ENGSTROM, "likeness of visualisations to natural images, all layers, R minus S",
        _PAIR | _VISUALISED | {"metric": "likeness"}, SCORE,
    ),
    *(
        Statement(
            f"C4.{name}", f"{'more' if above else 'fewer'} {name} detectors",
            f"{'More' if above else 'Fewer'} units of R networks than of S networks detect {what}.",
            _ABSTRACT,
            f"share of units that detect {what}, without false positives, R minus S",
            _PAIR | {"metric": "net_detectors", "category": category}, SHARE, above=above,
            least=UNITS, untestable=untestable,
        )
        for name, category, what, above, untestable in (
            ("texture", "texture", "textures", True, {"embedded": _LABEL}),
            ("colour", "color", "colours", True, {"embedded": _COLOUR}),
            ("object", "object", "objects", False, {}),
        )
    ),
    Statement(
        "C5.concepts", "fewer concepts per detector",
        "Units of R networks that detect concepts detect fewer each.", _ABSTRACT,
        "concepts of a unit that detects any, less chance, R minus S",
        _PAIR | {"metric": "concepts_of_detectors"}, SCORE, above=False, least=UNITS,
    ),
    Statement(
        "C5.classes", "top images of fewer classes",
        "The images that activate a unit of an R network most are of fewer classes.", _ABSTRACT,
        "classes among a unit's top images, R minus S", _PAIR | {"metric": "effective_classes"},
        CLASSES, above=False, least=UNITS,
    ),
    Statement(
        "C5.distance", "top images more alike",
        "The images that activate a unit of an R network most are more alike.", _ABSTRACT,
        "distance between a unit's top images, R minus S",
        _PAIR | {"metric": ("distance", "distance_robust")}, SCORE, above=False, least=UNITS,
        condition="judged by {judge}",
        # features of an S network favour S, if any: the harder test; means name no network, but
        # are judged as their pairs are
        rows=lambda rows: rows.assign(
            primary=rows["metric"] == "distance",
            judge=rows.groupby("metric")["judge"].transform("first"),
        ),
    ),
    Statement(
        "C6.serve", "texture detectors serve shape",
        "Texture-detecting units of R serve recognition by shape more than those of S.", _ABSTRACT,
        "shape's part in the scores of texture detectors, R minus S",
        {"regime": "robust - standard", "detects": "texture", "metric": "shape_part"}, SCORE,
        least=UNITS,
    ),
    Statement(
        "C6.generalists", "units more general",
        "R units are generalists: they serve both cues more evenly than S units.", _ABSTRACT,
        "relative generality of units, R minus S", _PAIR | {"metric": "relative_generality"}, SCORE,
        least=UNITS,
    ),
)  # fmt: skip


TITLES = {
    "C0": "R pays with clean accuracy and withstands attacks",
    "C1": "R decides by shape, S by texture",
    "C2": "R does better without texture, S without shape",
    "C2c": "R does not withstand corruptions better as a whole",
    "C3": "R is smoother and blocks pixel noise",
    "C3v": "what R's units respond to most is smooth and natural",
    "C4": "R's units detect textures and colours rather than objects",
    "C5": "R's units respond to fewer types of inputs",
    "C6": "texture detectors serve shape too, and R's units are generalists",
}
SHORT = {statement.id: statement.short for statement in STATEMENTS}


def tested(table: pd.DataFrame, *ids: str) -> Verdicts:
    """The statements of claims (`"C1"`), judged by the table of the measure they are about.

    Raises:
        UserError: An unknown claim, or a table without rows about both S and R.
    """
    judged: list[Claim] = []
    for id in ids:
        if id not in TITLES:
            raise UserError(f"unknown claim {id!r}; the claims are {', '.join(TITLES)}.")
        statements = [part for part in STATEMENTS if part.id.partition(".")[0] == id]
        parts = [claim for statement in statements for claim in statement.judged(table)]
        if not parts and {"standard", "robust"} <= set(table["regime"]):
            parts = [statement.unmeasured(table) for statement in statements]
        if not parts:
            raise UserError(
                f"the table has no rows to test {id} with: measure an S and an R network of "
                "one architecture first"
            )
        judged += parts
    return Verdicts(tuple(judged))


# The few numbers of every network that the closing chapter and a study's page compare. A notebook
# carries them as it carries its claims, so that those pages read notebooks alone.

FIELDS = ["study", "architecture", "regime", "network", "replicate", "mean_over"]
FIELDS += ["number", "value", "low", "high", "n"]


class Headlines(list):
    """Records with the keys of FIELDS, for programs: a notebook shows only how many there are."""

    @classmethod
    def of(cls, numbers: dict[str, pd.DataFrame]) -> "Headlines":
        """One record per network and number, and per mean over replicates."""
        rows = pd.concat(part.assign(number=number) for number, part in numbers.items())
        rows = rows.reindex(columns=FIELDS).astype(object)
        rows = rows[rows["mean_over"] != "architectures"]
        return cls(rows.where(rows.notna(), None).to_dict("records"))

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        text = f"{len(self)} numbers for other pages"
        return {"text/plain": text, HEADLINES: json.loads(json.dumps(self, default=float))}


def headline_means(records: pd.DataFrame) -> pd.DataFrame:
    """Of each headline number the mean over replicates, or its row where there is one training."""
    parts = [per_architecture(part) for _, part in records.groupby("number", sort=False)]
    return pd.concat(parts) if parts else records
