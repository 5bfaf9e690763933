"""Intervals and nulls: every number in the book comes with one.

Proportions of images use Wilson's interval, with an effective number of them where several are of
one drawing. Ratios over stimuli that share a source image or a drawing use the percentile bootstrap
over those clusters. All columns of one bootstrap see the same resampled clusters, so a difference
between two of its columns is a paired difference.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import pandas as pd
import scipy.stats
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from robustbias.studies import Study, pairs
from robustbias.utils import UserError

LEVEL = 0.95
DRAWS = 10_000
UNBOUNDED = (0.0, torch.inf)  # of ratios that may exceed 1


@dataclass(frozen=True)
class Interval:
    """A value with the ends of its 95 % interval and the number of observations behind it."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        """Value and ends to two decimals: three if the interval is shorter than 0.01, one from a
        length of 2 and none from 20."""
        length = self.high - self.low
        digits = 3 if 0 < length < 0.01 else 2 if not length >= 2 else 1 if length < 20 else 0
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def wilson(successes: int | float, n: int | float, level: float = LEVEL) -> Interval:
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
        share, max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale), round(n)
    )


def share(correct: Bool[Tensor, " n"], clusters: Int64[Tensor, " n"]) -> Interval:
    """Share of trials that are correct, in g clusters; Wilson's interval where each is its own.

    Else Wilson's interval of as many independent trials as tell as much (Korn and Graubard 1998):

        n p (1 - p) / (n variance of the mean over clusters) · (z / t of g - 1 degrees)²

    n at most; g where all trials came out alike, since nothing then tells how alike clusters are.
    """
    n, sums = len(correct), cluster_sums(correct[:, None].float(), clusters)[:, 0]
    g, successes = len(sums), int(correct.sum())
    if g == n:
        return wilson(successes, n)
    sizes = cluster_sums(torch.ones(n, 1), clusters)[:, 0]
    p = successes / n
    variance = float(((sums - p * sizes) ** 2).sum()) / n**2 * g / max(1, g - 1)
    effective = p * (1 - p) / variance if 0 < p < 1 and variance else float(g)
    effective = max(1.0, min(n, effective / float(_t_over_z(torch.tensor([g - 1.0])) ** 2)))
    about = wilson(p * effective, effective)
    return Interval(p, about.low, about.high, n)


@dataclass(frozen=True)
class Bootstrap:
    """Estimates, one per column, and their values under resampling of images or units.

    Resamples are NaN where one left nothing to divide by. Such a resample could be anything
    between the `bounds`, so it widens the interval on both sides. Bounds of NaN make the interval
    NaN where such resamples reach its ends; without bounds (None) the resample counts as the value.
    No interval ends outside the bounds, except of a column that has values there: it is no share.

    `stretch` widens a column's interval for what the resamples of few clusters lack: they vary
    too little, by (g - 1) / g, and a t quantile belongs to g - 1 degrees of freedom. With crossed
    clusters `cells` holds what each pair of clusters adds to a column's error, to first order:
    differences and means of columns then get the stretch of their combined parts.

    `training` is the variance of a column over new trainings, with its degrees of freedom: 0 for
    single networks, set by `mean` where replicates are averaged. The part `shared` of it is in the
    resamples' variance as well.
    """

    value: Float[Tensor, " m"]
    resamples: Float[Tensor, "r m"]
    bounds: tuple[float, float] | None = (0.0, 1.0)
    stretch: Float[Tensor, " m"] | None = None
    cells: Float[Tensor, "rows columns m"] | None = None
    training: Float[Tensor, " m"] | None = None
    freedom: Float[Tensor, " m"] | None = None
    shared: Float[Tensor, " m"] | None = None

    def difference(self, minuend: list[int], subtrahend: list[int]) -> "Bootstrap":
        """Columns minus columns; paired where both sides of a resample saw the same clusters."""
        reach = None if self.bounds is None else self.bounds[1] - self.bounds[0]
        difference = Bootstrap(
            self.value[minuend] - self.value[subtrahend],
            self.resamples[:, minuend] - self.resamples[:, subtrahend],
            None if reach is None else (-reach, reach),
            self._wider(minuend, subtrahend),
        )
        if self.cells is None:
            return difference
        return difference.crossed(self.cells[..., minuend] - self.cells[..., subtrahend])

    def ratio(self, numerators: list[int], denominators: list[int]) -> "Bootstrap":
        """Columns over columns."""
        return Bootstrap(
            self.value[numerators] / self.value[denominators],
            self.resamples[:, numerators] / self.resamples[:, denominators],
            self.bounds,
            self._wider(numerators, denominators),
        )

    def _wider(self, one: list[int], other: list[int]) -> Tensor | None:
        return None if self.stretch is None else self.stretch[one].maximum(self.stretch[other])

    def columns(self, chosen: list[int] | slice | Tensor) -> "Bootstrap":
        """Some of the columns, in that order."""
        extra = {name: getattr(self, name) for name in _EXTRA}
        extra = {name: None if each is None else each[chosen] for name, each in extra.items()}
        cells = None if self.cells is None else self.cells[..., chosen]
        resamples = self.resamples[:, chosen]
        return Bootstrap(self.value[chosen], resamples, self.bounds, cells=cells, **extra)

    @staticmethod
    def joined(parts: list["Bootstrap"]) -> "Bootstrap":
        """The columns of all parts, whose bounds are those of the first; without `cells`."""
        extra = {}
        for name, plain in _EXTRA.items():
            given = [getattr(part, name) for part in parts]
            if any(each is not None for each in given):
                extra[name] = torch.cat(
                    [
                        torch.full_like(part.value, plain) if each is None else each
                        for part, each in zip(parts, given, strict=True)
                    ]
                )
        return Bootstrap(
            torch.cat([part.value for part in parts]),
            torch.cat([part.resamples for part in parts], 1),
            parts[0].bounds,
            **extra,
        )

    def mean(self, groups: list[list[int]], *, trainings: bool) -> "Bootstrap":
        """The mean of each group of columns.

        Where the columns of a group are replicates (`trainings`), the variance of their mean over
        new trainings is s² / k with k - 1 degrees of freedom; a part of s² is only that images
        are few, which the resamples hold already. Else the groups' variances from training add
        up, with Satterthwaite's degrees of freedom.
        """
        if not groups:
            return self.columns([])
        value = torch.stack([self.value[group].mean() for group in groups])
        resamples = torch.stack([self.resamples[:, group].mean(1) for group in groups], 1)
        variance, shared = torch.zeros(len(groups)), torch.zeros(len(groups))
        freedom = torch.full((len(groups),), torch.inf)
        for at, group in enumerate(groups):
            k = len(group)
            if trainings and k > 1:
                spread = self.resamples[:, group] - resamples[:, [at]]
                variance[at], freedom[at] = self.value[group].var() / k, k - 1
                shared[at] = (_variance(spread).mean() / (k - 1)).minimum(variance[at])
            elif not trainings and self.training is not None:
                parts, free = self.training[group] / k**2, self.freedom[group]
                variance[at], shared[at] = parts.sum(), self.shared[group].sum() / k**2
                freedom[at] = variance[at] ** 2 / (parts**2 / free).sum()
        stretch = None
        if self.stretch is not None:
            stretch = torch.stack([self.stretch[group].max() for group in groups])
        freedom = freedom.nan_to_num(nan=torch.inf)
        extra = {"training": variance, "freedom": freedom, "shared": shared}
        mean = Bootstrap(value, resamples, self.bounds, stretch, **extra)
        if self.cells is None:
            return mean
        return mean.crossed(torch.stack([self.cells[..., group].mean(-1) for group in groups], -1))

    def crossed(self, cells: Float[Tensor, "rows columns m"]) -> "Bootstrap":
        """The same with these `cells` and the stretch that they give.

        The resamples count what belongs to neither grouping three times (Owen 2007,
        doi:10.1214/07-AOAS122, theorem 4). The variance of two-way clusters (Cameron, Gelbach and
        Miller 2011, doi:10.1198/jbes.2010.07136) and its degrees of freedom give the width, the
        resamples the form.
        """
        rows, columns, _ = cells.shape
        by_row, by_column = cells.sum(1).square().sum(0), cells.sum(0).square().sum(0)
        single = cells.square().sum((0, 1))
        by_row, by_column = by_row * rows / (rows - 1), by_column * columns / (columns - 1)
        variance = (by_row + by_column - single).maximum(by_row).maximum(by_column)
        of_rows, of_columns = (by_row - single).clamp_min(0), (by_column - single).clamp_min(0)
        freedom = of_rows**2 / (rows - 1) + of_columns**2 / (columns - 1)
        freedom = variance**2 / (freedom + single**2 / (rows * columns))
        stretch = (variance / _variance(self.resamples)).sqrt() * _t_over_z(freedom)
        return replace(self, stretch=stretch.nan_to_num(nan=1.0, posinf=1.0), cells=cells)

    def interval(self, level: float = LEVEL) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
        """Ends of the interval of each column.

        The percentile interval of the resamples; where trainings vary, at least
        value ± t √(training + variance of the resamples), with Satterthwaite's degrees of freedom
        (1946, doi:10.2307/3002019). Where trainings differ by more than their images' chance, each
        part has its own quantile (Cochran and Cox 1957, section 4.14).
        """
        tail = (1 - level) / 2
        if self.bounds is None:
            drawn = self.resamples.where(self.resamples.isfinite(), self.value)
            low, high = percentile(drawn, tail), percentile(drawn, 1 - tail)
        else:
            floor, ceiling = self.bounds
            low = percentile(self.resamples.nan_to_num(nan=floor), tail)
            high = percentile(self.resamples.nan_to_num(nan=ceiling), 1 - tail)
        stretch = 1 if self.stretch is None else self.stretch
        low, high = (self.value + stretch * (end - self.value) for end in (low, high))
        if self.training is not None:
            reach = self._reach(tail)
            low, high = low.minimum(self.value - reach), high.maximum(self.value + reach)
        floor, ceiling = (-torch.inf, torch.inf) if self.bounds is None else self.bounds
        room = 1e-4  # for rounding
        within = (self.resamples >= floor - room) & (self.resamples <= ceiling + room)
        inside = (self.value >= floor) & (self.value <= ceiling)
        inside &= (within | self.resamples.isnan()).all(0)
        return (
            torch.where(inside, low.clamp_min(floor), low),
            torch.where(inside, high.clamp_max(ceiling), high),
        )

    def _reach(self, tail: float) -> Float[Tensor, " m"]:
        """Half the width of the t interval over trainings, 0 where there is one."""
        error, freedom = self.error()
        reach = _t(1 - tail, freedom) * error
        images = error**2 - self.training
        parts = _t(1 - tail, self.freedom) ** 2 * self.training
        parts += NormalDist().inv_cdf(1 - tail) ** 2 * images
        seen = self.training > self.shared  # simulated: Satterthwaite's degrees are too many here
        return torch.where(seen, parts.sqrt(), reach).where(self.training > 0, 0)

    def error(self) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
        """Standard error of each column and its degrees of freedom."""
        images = _variance(self.resamples)
        if self.training is None:
            return images.sqrt(), torch.full_like(images, torch.inf)
        total = (images - self.shared).clamp_min(0) + self.training
        freedom = (total**2 / (self.training**2 / self.freedom)).nan_to_num(nan=torch.inf)
        return total.sqrt(), freedom


# fields of a bootstrap with a value per column, and what stands for None
_EXTRA = {"stretch": 1.0, "training": 0.0, "freedom": torch.inf, "shared": 0.0}


def _variance(resamples: Float[Tensor, "r m"]) -> Float[Tensor, " m"]:
    """Of each column, over the resamples that are finite."""
    finite = resamples.isfinite()
    count = finite.sum(0)
    centred = (resamples - resamples.nanmean(0)).where(finite, 0)
    return (centred**2).sum(0) / (count - 1).clamp_min(1)


def percentile(replicates: Float[Tensor, "r m"], share: float) -> Float[Tensor, " m"]:
    """Linearly interpolated quantile of each column; torch.quantile refuses large tensors."""
    ordered = replicates.T.contiguous().sort(dim=1).values.T  # sorting rows is faster
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    between = torch.lerp(ordered[below], ordered[above], position - below)
    return between.where(ordered[below] != ordered[above], ordered[below])  # both may be infinite


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
    bounds: tuple[float, float] | None = (0.0, 1.0),
) -> Bootstrap:
    """Ratios of sums, one a column, bootstrapped over clusters.

        ratio_r = Σ_g count[r, g] numerator[g] / Σ_g count[r, g] denominator[g]

    10,000 resamples are two matrix products. A mean is a ratio whose denominators are ones.

    Args:
        numerators: One row an observation, finite.
        denominators: Same rows and columns, at least 0.
        clusters: Index of the group each observation belongs to.
        bounds: Of the ratios; the usual ones are those of a share.

    Source: Efron and Tibshirani 1993, chapters 8 and 13.
    """
    over, under = cluster_sums(numerators, clusters), cluster_sums(denominators, clusters)
    g = len(over)
    counts = resampled_counts(g, draws, generator)
    stretch = torch.ones(over.shape[1])
    if g > 1:  # a single cluster tells nothing of its spread
        stretch *= (g / (g - 1)) ** 0.5 * _t_over_z(torch.tensor([g - 1.0]))
    resamples = (counts @ over) / (counts @ under)
    return Bootstrap(over.sum(0) / under.sum(0), resamples, bounds, stretch)


def crossed_ratios(
    numerators: Float[Tensor, "n m"],
    denominators: Float[Tensor, "n m"],
    first: Int64[Tensor, " n"],
    second: Int64[Tensor, " n"],
    *,
    generator: torch.Generator,
    draws: int = DRAWS,
) -> Bootstrap:
    """Ratios of sums as in `ratios`, for observations in two crossed groupings.

    Both groupings are resampled, independently, and an observation counts as often as its first
    cluster was drawn times its second: stimuli made of a shape image and a texture image vary
    with both. Source: Owen 2007, doi:10.1214/07-AOAS122 (the pigeonhole bootstrap).

    Args:
        first, second: Indices of the two groups each observation belongs to.
    """
    if len(first) == 0:
        raise UserError("no observations to resample: choose a larger n")
    (_, a), (_, b) = (side.cpu().unique(return_inverse=True) for side in (first, second))
    rows, columns, m = int(a.max()) + 1, int(b.max()) + 1, numerators.shape[1]
    if rows < columns:  # the longer side goes through the matrix product
        a, b, rows, columns = b, a, columns, rows
    both = torch.cat([numerators, denominators], 1).float().cpu()
    cells = torch.zeros(rows * columns, 2 * m).index_add_(0, a * columns + b, both)
    flat = cells.reshape(rows, columns * 2 * m)
    sums = []
    for part in torch.arange(draws).split(1000):  # 1,000 at a time bound the memory
        by_row = resampled_counts(rows, len(part), generator) @ flat
        by_column = resampled_counts(columns, len(part), generator)
        sums.append(torch.einsum("rc,rcm->rm", by_column, by_row.view(len(part), columns, 2 * m)))
    over, under = torch.cat(sums).split(m, 1)
    value = torch.divide(*cells.sum(0).split(m))
    part = (cells[:, :m] - value * cells[:, m:]) / cells[:, m:].sum(0)
    part = part.view(rows, columns, m)
    return Bootstrap(value, over / under).crossed(part)


def _t(share: float, freedom: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
    """Quantiles of Student's t."""
    return torch.from_numpy(scipy.stats.t.ppf(share, freedom.double().numpy())).float()


def _t_over_z(freedom: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
    return _t((1 + LEVEL) / 2, freedom) / NormalDist().inv_cdf((1 + LEVEL) / 2)


# Tables of estimates. `mean_over` says what a row averages: missing for one network or one pair,
# "replicates" for all trainings of an architecture (where there are several), "architectures".

NETWORK = ("study", "network", "architecture", "replicate", "regime", "eps", "pair")


def over_units(
    groups: Iterable[tuple[dict[str, Any], Iterable[str | tuple[str, str]], Tensor, Tensor | None]],
    *,
    generator: torch.Generator,
    draws: int,
    bounds: tuple[float, float] | None = (0.0, 1.0),
) -> tuple[pd.DataFrame, Bootstrap]:
    """Means over the units of each group, units resampled separately per group.

    The interval is about units like those of these networks, not about other trainings, which
    replicates show. S and R have no units in common.

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
                bounds=bounds,
            )
        )
        columns = {"metric": list(metrics), "n": finite.sum(0).numpy()}
        tables.append(pd.DataFrame(columns).assign(**about))
    return pd.concat(tables, ignore_index=True), Bootstrap.joined(boots)


def intervals(about: pd.DataFrame, boot: Bootstrap) -> pd.DataFrame:
    """`about` with `value`, `low` and `high` of the bootstrap's columns, which are its rows.

    Also `freedom`, the degrees of freedom of the interval, missing where no trainings vary.
    """
    low, high = boot.interval()
    ends = {"value": boot.value, "low": low, "high": high}
    if boot.training is not None:
        freedom = boot.error()[1]
        ends["freedom"] = freedom.masked_fill(freedom > 1e6, torch.nan)
    return about.assign(**{name: end.double().numpy() for name, end in ends.items()})


def compared(
    study: Study, about: pd.DataFrame, boot: Bootstrap, *, paired: bool, by: str = "-"
) -> tuple[pd.DataFrame, Bootstrap]:
    """R minus S of every pair, of every architecture and of the study, for each group both have.

    Args:
        about: One row per column of `boot`: `network`, `n` and what distinguishes the groups.
        paired: Whether both were measured on the same n observations; else n adds up.
        by: "-" for the difference, "/" for the ratio.

    Returns:
        The rows of R with `network` and `regime` as "R - S", and their bootstrap; then the means
        as from `averaged`.
    """
    groups = _groups(about)
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
    return averaged(study, table.reset_index(drop=True), relation(robust, standard), paired=paired)


def averaged(
    study: Study, about: pd.DataFrame, boot: Bootstrap, *, paired: bool
) -> tuple[pd.DataFrame, Bootstrap]:
    """The rows and columns with the means over replicates, and of these over architectures.

    Means over architectures, which count alike, are of the pairs, where all of the study's
    architectures have the group. Those rows have no `architecture` and no `network`.

    Args:
        paired: Whether all were measured on the same n observations; else n adds up.
    """
    about = about.reset_index(drop=True).assign(mean_over=None)
    if about.empty:  # no pair
        return about, boot
    total = "min" if paired else "sum"
    members = _trainings(about, _groups(about))
    means = boot.mean(members, trainings=True)
    rows = _rows_of_means(about, members, total)
    several = [i for i, group in enumerate(members) if len(group) > 1]
    wanted = {architecture for architecture, _ in pairs(study)}
    of_pairs = rows["pair"].astype(bool).to_numpy().nonzero()[0]
    keys = list(zip(rows["regime"], _groups(rows), strict=True))
    whole = [
        [int(of_pairs[i]) for i in group]
        for group in _rows_by(keys[i] for i in of_pairs)
        if len(group) == len(wanted) == rows["architecture"].iloc[of_pairs[group]].nunique() > 1
    ]
    pooled = rows.iloc[[group[0] for group in whole]].assign(
        mean_over="architectures",
        network=None,
        architecture=None,
        n=[rows["n"].iloc[group].agg(total) for group in whole],
    )
    boots = [means.columns(several), means.mean(whole, trainings=False)]
    return (
        pd.concat([t for t in (about, rows.iloc[several], pooled) if len(t)], ignore_index=True),
        Bootstrap.joined([boot, *(each for each in boots if len(each.value))]),
    )


def plain_means(table: pd.DataFrame) -> pd.DataFrame:
    """The rows and, where an architecture has replicates, their means, which have no interval.

    Args:
        table: One row per network and group: the columns of NETWORK, `value`, `n` and what
            distinguishes the groups.
    """
    about = table.reset_index(drop=True)
    trained = about[about["replicate"].notna()].reset_index(drop=True)
    groups = _groups(trained.drop(columns=["value", "low", "high"], errors="ignore"))
    members = [group for group in _trainings(trained, groups) if len(group) > 1]
    values = [trained["value"].iloc[group].mean() for group in members]
    means = _rows_of_means(trained, members, "sum").assign(value=values)
    return pd.concat([part for part in (about, means) if len(part)], ignore_index=True)


def _trainings(rows: pd.DataFrame, groups: Iterable[tuple]) -> list[list[int]]:
    """Positions of the rows about the trainings of one network, per group."""
    network = [rows[c] for c in ("study", "architecture", "regime", "eps", "pair")]
    return _rows_by(zip(*network, groups, strict=True))


def _rows_of_means(rows: pd.DataFrame, members: list[list[int]], total: str) -> pd.DataFrame:
    """One row per list of members, the first one's, for their mean over replicates.

    Args:
        total: How n is aggregated, "min" or "sum".
    """
    return rows.iloc[[group[0] for group in members]].assign(
        mean_over="replicates",
        replicate=None,
        network=[common_name(rows["network"].iloc[group]) for group in members],
        n=[rows["n"].iloc[group].agg(total) for group in members],
    )


def _rows_by(keys: Iterable[tuple]) -> list[list[int]]:
    """Positions of equal keys, in the order of their first."""
    at: dict[tuple, list[int]] = {}
    for position, key in enumerate(keys):
        at.setdefault(key, []).append(position)
    return list(at.values())


def _groups(about: pd.DataFrame) -> list[tuple]:
    """What distinguishes the rows of one network, a tuple per row; None stands for NaN."""
    keys = about.drop(columns=[c for c in (*NETWORK, "mean_over", "n") if c in about])
    keys = keys.astype(object).where(keys.notna(), None)
    return list(keys.itertuples(index=False, name=None))


def common_name(networks: Iterable[str]) -> str:
    """The name of several replicates without a number: iconworld-alexnet-r of ...-r-1, ...-r-2.

    One network keeps its name.
    """
    first, *others = networks
    return re.sub(r"-\d+(?= |$)", "", first) if others else first


def over_layers(
    study: Study, about: pd.DataFrame, boot: Bootstrap, *, geometric: bool
) -> tuple[pd.DataFrame, Bootstrap]:
    """Means over the layers of every pair (scope `network`) and the `first layer`, as `averaged`.

    Args:
        about, boot: R against S by layer, from `compared`, of unpaired groups.
        geometric: Whether values are ratios, of which the geometric mean is taken.
    """
    log, exp = (torch.log, torch.exp) if geometric else (torch.clone, torch.clone)
    wholes, means = [], []
    single = about[about["mean_over"].isna()]
    others = [c for c in single if c not in (*NETWORK[1:], "layer", "n")]
    for _, layers in single.groupby(["network", *others], sort=False, dropna=False):
        chosen = boot.columns(layers.index.tolist())
        means.append(
            Bootstrap(
                exp(log(chosen.value).mean(0, keepdim=True)),
                exp(log(chosen.resamples).mean(1, keepdim=True)),
                boot.bounds,
            )
        )
        means.append(chosen.columns([0]))
        first = layers.iloc[:1].assign(layer=None)
        wholes.append(first.assign(scope="network", n=layers["n"].sum()))
        wholes.append(first.assign(scope="first layer"))
    if not wholes:
        return about.iloc[:0], boot.columns([])
    whole = pd.concat(wholes, ignore_index=True)
    return averaged(study, whole, Bootstrap.joined(means), paired=False)


def aggregate(
    study: Study, about: pd.DataFrame, boot: Bootstrap, *, paired: bool, suffix: str = ""
) -> pd.DataFrame:
    """Value, interval and n of every group, then R minus S of each group that both have.

    Each with the means over replicates and architectures (`averaged`).

    Args:
        about, boot, paired: As in `compared`.
        suffix: Follows the metric's name in the rows of differences.
    """
    difference, differences = compared(study, about, boot, paired=paired)
    difference["metric"] += suffix
    tables = [averaged(study, about, boot, paired=paired), (difference, differences)]
    parts = [intervals(*each) for each in tables]
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
