"""Intervals and nulls: every number in the book comes with one.

Proportions of independent images use Wilson's interval. Ratios over stimuli that share a source
image use the percentile bootstrap over those clusters. All columns of one bootstrap see the same
resampled clusters, so a difference between two of its columns is a paired difference.
"""

from dataclasses import dataclass
from statistics import NormalDist

import pandas as pd
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from robustbias.studies import Study, described, pairs
from robustbias.utils import UserError

LEVEL = 0.95


DRAWS = 10_000


@dataclass(frozen=True)
class Interval:
    """A value with the ends of its 95 % interval and the number of observations behind it."""

    value: float
    low: float
    high: float
    n: int

    def text(self, threshold: float | None = None) -> str:
        """Value and ends to two decimals, or to up to four that keep an end off the threshold."""
        ends = [end for end in (self.low, self.high) if threshold is not None and end != threshold]
        digits = 2
        while digits < 4 and any(round(end, digits) == round(threshold, digits) for end in ends):
            digits += 1
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"

    def __str__(self) -> str:
        return self.text()


def wilson(successes: int, n: int, level: float = LEVEL) -> Interval:
    """Proportion of n independent trials with Wilson's score interval.

        (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n)

    Raises:
        UserError: no trials, or more successes than trials.

    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953.
    """
    if n < 1 or not 0 <= successes <= n:
        raise UserError(
            f"a proportion needs at least one trial and 0 to n successes, not {successes} of {n}: "
            "choose a larger n"
        )
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / n
    centre = share + z**2 / (2 * n)
    spread = z * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    scale = 1 + z**2 / n
    return Interval(
        share, max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale), n
    )


@dataclass(frozen=True)
class Bootstrap:
    """Ratios and their replicates under one shared resampling of clusters.

    Replicates are NaN where a resample left nothing to divide by. Such a replicate could be
    anything between `floor` and `ceiling`, so it widens the interval on both sides.
    """

    value: Float[Tensor, " m"]
    replicates: Float[Tensor, "r m"]
    floor: float = 0.0
    ceiling: float = 1.0

    def difference(self, minuend: list[int], subtrahend: list[int]) -> "Bootstrap":
        """Columns minus columns, paired: both sides of a replicate saw the same clusters."""
        reach = self.ceiling - self.floor
        return Bootstrap(
            self.value[minuend] - self.value[subtrahend],
            self.replicates[:, minuend] - self.replicates[:, subtrahend],
            floor=-reach,
            ceiling=reach,
        )

    def interval(self, level: float = LEVEL) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
        """Ends of the percentile interval of each column."""
        tail = (1 - level) / 2
        low = percentile(self.replicates.nan_to_num(nan=self.floor), tail)
        high = percentile(self.replicates.nan_to_num(nan=self.ceiling), 1 - tail)
        return low, high


def percentile(replicates: Float[Tensor, "r m"], share: float) -> Float[Tensor, " m"]:
    """Linearly interpolated quantile of each column; torch.quantile refuses large tensors."""
    ordered = replicates.T.contiguous().sort(dim=1).values.T  # sorting rows is faster
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return torch.lerp(ordered[below], ordered[above], position - below)


def cluster_sums(
    values: Float[Tensor, "n m"], clusters: Int64[Tensor, " n"]
) -> Float[Tensor, "g m"]:
    """Sum of the rows of each cluster, clusters in sorted order, on the CPU."""
    if len(clusters) == 0:
        raise UserError("no observations to resample: choose a larger n")
    _, index = clusters.cpu().unique(return_inverse=True)
    sums = torch.zeros(int(index.max()) + 1, values.shape[1])
    return sums.index_add_(0, index, values.float().cpu())


def resampled_counts(clusters: int, draws: int, generator: torch.Generator) -> Float[Tensor, "r g"]:
    """How often each cluster is drawn when as many are drawn with replacement as there are."""
    chosen = torch.randint(clusters, (draws, clusters), generator=generator)
    counts = torch.zeros(draws, clusters)
    return counts.scatter_add_(1, chosen, torch.ones(draws, clusters))


def ratios(
    numerators: Float[Tensor, "n m"],
    denominators: Float[Tensor, "n m"],
    clusters: Int64[Tensor, " n"],
    *,
    generator: torch.Generator,
    draws: int = DRAWS,
) -> Bootstrap:
    """Ratios of sums, one a column, bootstrapped over clusters.

        ratio_r = Σ_g count[r, g] numerator[g] / Σ_g count[r, g] denominator[g]

    10,000 resamples are two matrix products. A mean is a ratio whose denominators are ones.

    Args:
        numerators: One row an observation, finite.
        denominators: Same rows and columns, at least 0.
        clusters: Index of the group each observation belongs to.

    Source: Efron and Tibshirani 1993, chapters 8 and 13.
    """
    over, under = cluster_sums(numerators, clusters), cluster_sums(denominators, clusters)
    counts = resampled_counts(len(over), draws, generator)
    return Bootstrap(over.sum(0) / under.sum(0), (counts @ over) / (counts @ under))


@dataclass(frozen=True)
class Null:
    """An observed value beside the middle 95 % of its null distribution, and a two-sided p."""

    value: float
    low: float
    high: float
    p: float


def exchange_null(
    numerators: Float[Tensor, "n 2"],
    denominators: Float[Tensor, "n 2"],
    clusters: Int64[Tensor, " n"],
    *,
    generator: torch.Generator,
    draws: int = DRAWS,
) -> Null:
    """Difference of two ratios when the two labels are exchanged at random, cluster by cluster.

    If the two networks were alike, which of them gave which answers would not matter.
    p = (1 + #{|null| >= |observed|}) / (1 + draws).

    Args:
        numerators: The two networks' numerators on the same observations.
        denominators: Likewise.
    """
    over, under = cluster_sums(numerators, clusters), cluster_sums(denominators, clusters)
    kept = torch.randint(2, (draws, len(over)), generator=generator).float()

    def exchanged(side: Tensor, column: int) -> Tensor:
        return kept @ side[:, column] + (1 - kept) @ side[:, 1 - column]

    null = exchanged(over, 0) / exchanged(under, 0) - exchanged(over, 1) / exchanged(under, 1)
    null = null.nan_to_num(nan=0.0)
    observed = float(over[:, 0].sum() / under[:, 0].sum() - over[:, 1].sum() / under[:, 1].sum())
    extreme = int((null.abs() >= abs(observed) - 1e-6).sum())
    low, high = (float(percentile(null[:, None], share)) for share in (0.025, 0.975))
    return Null(observed, low, high, (1 + extreme) / (1 + draws))


# -- --------------------------------------------------------------------------------------------
# Means over units, and their differences between R and S, with a bootstrap over units.
#
# Units are the population here: which ones training happened to make is what another training run
# would change. S and R have no units in common, so theirs are resampled independently.


SHARES = ("shape_share", "texture_share", "clean_share", "serves_shape", "serves_texture")


MEANS = (*SHARES, "generality", "relative_generality", "shape_part")


def unit_means(study: Study, units: pd.DataFrame, by: str, draws: int = 2000) -> pd.DataFrame:
    """Rows of every network and of R minus S (regime `robust - standard`), one a metric and group.

    Metrics: the means of SHARES (`serves_...`: whether the score is above 0) and of generality
    over the n units that have one; `relative_generality` = Σ generality / Σ generality_null; and
    `shape_part` = Σ shape_share / Σ (shape_share + texture_share), over the n units with either: 0
    for units that decisions by texture alone need, 0.5 for units that both cues need alike.

    Shares of units that serve a cue have Wilson's interval, all others the bootstrap's.

    Args:
        units: Rows of `measures.ablation` of unit 0 and up, and a column `by`.
        by: The column whose values are the groups; "all" is added. A group of one unit has no
            interval to speak of and is left out.
    """
    generator = torch.Generator().manual_seed(study.seed)
    keys = ["network", by, "at", "unit"]
    units = units.assign(at=units["layer"])  # `by` may be the layer itself
    own = pd.concat([units, units.assign(**{by: "all"})])
    wide = own.pivot(index=keys, columns="metric", values="value")
    boots = {
        key: _bootstrap(group, generator, draws)
        for key, group in wide.groupby(level=["network", by], sort=False)
        if len(group) > 1
    }
    rows = []
    for pair in pairs(study).values():
        for regime, entry in pair.items():
            mine = {group: boot for (name, group), boot in boots.items() if name == entry.name}
            rows += [
                _rows(boot, n).assign(**described(study, entry), **{by: group})
                for group, (boot, n) in mine.items()
            ]
            if regime == "robust" and "standard" in pair:
                rows += _differences(study, pair, mine, boots, by)
    return pd.concat(rows, ignore_index=True)


def _differences(study: Study, pair: dict, mine: dict, boots: dict, by: str) -> list[pd.DataFrame]:
    robust, standard = pair["robust"], pair["standard"]
    shared = described(study, robust) | {
        "network": f"{robust.name} - {standard.name}",
        "regime": "robust - standard",
    }
    rows = []
    for group, (boot, n) in mine.items():
        if (standard.name, group) in boots:
            other, count = boots[standard.name, group]
            apart = Bootstrap(
                boot.value - other.value, boot.replicates - other.replicates, -1.0, 1.0
            )
            rows.append(_rows(apart, n + count).assign(**shared, **{by: group}))
    return rows


def _bootstrap(
    wide: pd.DataFrame, generator: torch.Generator, draws: int
) -> tuple[Bootstrap, Int64[Tensor, " m"]]:
    """Means of MEANS over units, and the number of units in each."""
    serves = {f"serves_{cue}": (wide[f"{cue}_score"] > 0) * 1.0 for cue in ("shape", "texture")}
    needed = wide["shape_share"] + wide["texture_share"]
    wide = wide.assign(
        **serves,
        relative_generality=wide["generality"],
        shape_part=wide["shape_share"].where(needed > 0),
    )
    over = torch.tensor(wide[list(MEANS)].values)
    under = over.isfinite().double()
    under[:, -2] = torch.tensor(wide["generality_null"].fillna(0.0).values)
    under[:, -1] = torch.tensor(needed.values)
    boot = ratios(
        over.nan_to_num(), under, torch.arange(len(over)), generator=generator, draws=draws
    )
    return boot, over.isfinite().sum(0)


def _rows(boot: Bootstrap, n: Int64[Tensor, " m"]) -> pd.DataFrame:
    """A row a metric with its interval; no row where no unit has a value."""
    low, high = boot.interval()
    ends = {"value": boot.value.numpy(), "low": low.numpy(), "high": high.numpy()}
    rows = pd.DataFrame({"metric": MEANS, **ends, "n": n.numpy()}).dropna(subset=["value"])
    if boot.floor == 0:  # not a difference: few units, all alike, would have no width at all
        for at in rows.index[rows["metric"].str.startswith("serves_")]:
            count = int(rows.loc[at, "n"])
            exact = wilson(round(rows.loc[at, "value"] * count), count)
            rows.loc[at, ["low", "high"]] = exact.low, exact.high
    return rows
