"""Intervals and nulls: every number in the book comes with one.

Proportions of independent images use Wilson's interval. Ratios over stimuli that share a source
image use the percentile bootstrap over those clusters. All columns of one bootstrap see the same
resampled clusters, so a difference between two of its columns is a paired difference.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from robustbias.studies import Study, pairs
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
    """Estimates, one per column, and their replicates under resampling.

    Replicates are NaN where a resample left nothing to divide by. Such a replicate could be
    anything between the `bounds`, so it widens the interval on both sides. Bounds of NaN make
    the interval NaN where such replicates reach its ends; without bounds (None) the replicate
    counts as the value.
    """

    value: Float[Tensor, " m"]
    replicates: Float[Tensor, "r m"]
    bounds: tuple[float, float] | None = (0.0, 1.0)

    def difference(self, minuend: list[int], subtrahend: list[int]) -> "Bootstrap":
        """Columns minus columns; paired where both sides of a replicate saw the same clusters."""
        reach = None if self.bounds is None else self.bounds[1] - self.bounds[0]
        return Bootstrap(
            self.value[minuend] - self.value[subtrahend],
            self.replicates[:, minuend] - self.replicates[:, subtrahend],
            None if reach is None else (-reach, reach),
        )

    def ratio(self, numerators: list[int], denominators: list[int]) -> "Bootstrap":
        """Columns over columns."""
        return Bootstrap(
            self.value[numerators] / self.value[denominators],
            self.replicates[:, numerators] / self.replicates[:, denominators],
            self.bounds,
        )

    def interval(self, level: float = LEVEL) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
        """Ends of the percentile interval of each column."""
        tail = (1 - level) / 2
        if self.bounds is None:
            drawn = self.replicates.where(self.replicates.isfinite(), self.value)
            return percentile(drawn, tail), percentile(drawn, 1 - tail)
        floor, ceiling = self.bounds
        low = percentile(self.replicates.nan_to_num(nan=floor), tail)
        high = percentile(self.replicates.nan_to_num(nan=ceiling), 1 - tail)
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


def crossed_ratios(
    numerators: Float[Tensor, "n m"],
    denominators: Float[Tensor, "n m"],
    first: Int64[Tensor, " n"],
    second: Int64[Tensor, " n"],
    *,
    generator: torch.Generator,
    draws: int = DRAWS,
) -> Bootstrap:
    """Ratios of sums, one a column, bootstrapped over two kinds of clusters that cross.

        ratio_r = sum_i a[r, first_i] b[r, second_i] numerator_i / (the same of denominator_i)

    a and b are how often clusters of each kind are drawn. Both kinds vary at once, so intervals
    are somewhat wide where the rest of the variance dominates. Where every cluster of one kind
    lies within one of the other, resampling the larger ones resamples both.

    Args:
        numerators: One row an observation, finite.
        denominators: Same rows and columns, at least 0.
        first: Index of the first kind's cluster that each observation belongs to.
        second: Likewise.

    Source: Owen 2007, doi:10.1214/07-AOAS122 (the pigeonhole bootstrap).
    """
    kinds = [clusters.cpu().unique(return_inverse=True)[1] for clusters in (first, second)]
    sizes = [len(index.unique()) for index in kinds]
    cells = len(torch.stack(kinds, 1).unique(dim=0))
    if cells in sizes:
        outer = kinds[0] if cells == sizes[1] else kinds[1]
        return ratios(numerators, denominators, outer, generator=generator, draws=draws)
    counts = torch.ones(draws, len(first))
    for index, size in zip(kinds, sizes, strict=True):
        counts *= resampled_counts(size, draws, generator)[:, index]
    over, under = numerators.float().cpu(), denominators.float().cpu()
    return Bootstrap(over.sum(0) / under.sum(0), (counts @ over) / (counts @ under))


# Tables of estimates: one row per column of a bootstrap, then R minus S.

NETWORK = ("study", "network", "architecture", "regime", "eps", "pair")


def over_units(
    groups: Iterable[tuple[dict[str, Any], Iterable[str | tuple[str, str]], Tensor, Tensor | None]],
    *,
    generator: torch.Generator,
    draws: int,
    bounds: tuple[float, float] | None = (0.0, 1.0),
) -> tuple[pd.DataFrame, Bootstrap]:
    """Means over the units of each group, units resampled separately per group.

    Units are the population here: which ones training happened to make is what another training
    run would change. S and R have no units in common.

    Args:
        groups: Per group the columns that describe it, the m metrics, their values (u x m, NaN
            where a unit has none) and their weights (u x m; None for one per value).

    Returns:
        One row per group and metric (`n`: units with a value), and the bootstrap whose columns
        are these rows.
    """
    tables, boots = [], []
    for about, metrics, values, weights in groups:
        finite = values.isfinite()
        boots.append(
            ratios(
                values.nan_to_num(),
                finite.float() if weights is None else weights,
                torch.arange(len(values)),
                generator=generator,
                draws=draws,
            )
        )
        columns = {"metric": list(metrics), "n": finite.sum(0).numpy()}
        tables.append(pd.DataFrame(columns).assign(**about))
    boot = Bootstrap(
        torch.cat([boot.value for boot in boots]),
        torch.cat([boot.replicates for boot in boots], 1),
        bounds,
    )
    return pd.concat(tables, ignore_index=True), boot


def intervals(about: pd.DataFrame, boot: Bootstrap) -> pd.DataFrame:
    """`about` with `value`, `low` and `high` of the bootstrap's columns, which are its rows."""
    low, high = boot.interval()
    ends = {"value": boot.value, "low": low, "high": high}
    return about.assign(**{name: end.double().numpy() for name, end in ends.items()})


def compared(
    study: Study, about: pd.DataFrame, boot: Bootstrap, *, paired: bool, by: str = "-"
) -> tuple[pd.DataFrame, Bootstrap]:
    """R minus S of every architecture, for each group that both have.

    Args:
        about: One row per column of `boot`: `network`, `n` and what distinguishes the groups.
        paired: Whether both were measured on the same n observations; else n adds up.
        by: "-" for the difference, "/" for the ratio.

    Returns:
        The rows of R with `network` and `regime` as "R - S", and their bootstrap.
    """
    keys = [column for column in about if column not in (*NETWORK, "n")]
    groups = list(about[keys].itertuples(index=False, name=None))
    at = {key: i for i, key in enumerate(zip(about["network"], groups, strict=True))}
    robust, standard, names = [], [], []
    for pair in pairs(study).values():
        if len(pair) == 2:
            one, other = pair["robust"].name, pair["standard"].name
            for i in (about["network"] == one).to_numpy().nonzero()[0].tolist():
                if (other, groups[i]) in at:
                    robust.append(i)
                    standard.append(at[other, groups[i]])
                    names.append(f"{one} {by} {other}")
    table = about.iloc[robust].assign(network=names, regime=f"robust {by} standard")
    if not paired:
        table["n"] += about["n"].to_numpy()[standard]
    relation = boot.difference if by == "-" else boot.ratio
    return table.reset_index(drop=True), relation(robust, standard)


def aggregate(
    study: Study, about: pd.DataFrame, boot: Bootstrap, *, paired: bool, suffix: str = ""
) -> pd.DataFrame:
    """Value, interval and n of every group, then R minus S of each group that both have.

    Args:
        about, boot, paired: As in `compared`.
        suffix: Follows the metric's name in the rows of differences.
    """
    difference, differences = compared(study, about, boot, paired=paired)
    difference["metric"] += suffix
    return pd.concat(
        [intervals(about, boot), intervals(difference, differences)], ignore_index=True
    )
