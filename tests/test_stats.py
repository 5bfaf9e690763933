"""Intervals are checked against scipy, against loops, and by how often they cover the truth."""

import time

import pytest
import torch

from robustbias import stats
from robustbias.stats import Interval
from robustbias.utils import UserError


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 10), (10, 10), (162, 734)])
def test_wilson_agrees_with_scipy(successes, n):
    binomial = pytest.importorskip("scipy.stats")
    expected = binomial.binomtest(successes, n).proportion_ci(method="wilson")
    interval = stats.wilson(successes, n)
    assert interval.low == pytest.approx(expected.low, abs=1e-9)
    assert interval.high == pytest.approx(expected.high, abs=1e-9)
    assert interval.value == successes / n


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 4)])
def test_a_proportion_of_nothing_is_refused(successes, n):
    with pytest.raises(UserError, match="larger n"):
        stats.wilson(successes, n)


def test_replicates_equal_a_loop_that_concatenates_the_drawn_clusters():
    numerators = torch.tensor([[1.0], [0.0], [1.0], [1.0], [0.0]])
    denominators = torch.ones(5, 1)
    clusters = torch.tensor([7, 7, 2, 9, 9])
    boot = stats.ratios(numerators, denominators, clusters, generator=seeded(3), draws=50)
    counts = stats.resampled_counts(3, 50, seeded(3))
    members = [clusters == label for label in (2, 7, 9)]
    for replicate, count in zip(boot.replicates, counts, strict=True):
        drawn = torch.cat(
            [numerators[m].repeat(int(c), 1) for m, c in zip(members, count, strict=True)]
        )
        torch.testing.assert_close(replicate, drawn.mean(0))


def test_every_resample_draws_as_many_clusters_as_there_are():
    counts = stats.resampled_counts(17, 200, seeded())
    assert (counts.sum(1) == 17).all()
    assert counts.mean() == pytest.approx(1.0)


def test_the_interval_of_a_mean_agrees_with_scipys_bootstrap():
    bootstrap = pytest.importorskip("scipy.stats").bootstrap
    values = torch.randn(80, 1, generator=seeded(1)) + 2
    ours = stats.ratios(values, torch.ones(80, 1), torch.arange(80), generator=seeded())
    low, high = ours.interval()
    theirs = bootstrap((values[:, 0].numpy(),), lambda x, axis: x.mean(axis), method="percentile")
    assert float(low) == pytest.approx(theirs.confidence_interval.low, abs=0.02)
    assert float(high) == pytest.approx(theirs.confidence_interval.high, abs=0.02)


def test_clustered_intervals_cover_the_truth_and_naive_ones_do_not():
    """40 clusters of 8 equal observations: ignoring clusters pretends there are 8 x as many."""
    covered = {"clustered": 0, "naive": 0}
    generator = seeded(5)
    for _ in range(200):
        observed = torch.randn(40, 1, generator=generator).repeat_interleave(8, 0)
        groups = torch.arange(40).repeat_interleave(8)
        for name, clusters in (("clustered", groups), ("naive", torch.arange(320))):
            boot = stats.ratios(
                observed, torch.ones(320, 1), clusters, generator=generator, draws=300
            )
            low, high = boot.interval()
            covered[name] += bool(low <= 0 <= high)
    assert covered["clustered"] >= 0.88 * 200
    assert covered["naive"] <= 0.70 * 200


def test_a_paired_difference_of_equal_columns_is_exactly_zero():
    column = torch.rand(60, 1, generator=seeded(2)).round()
    boot = stats.ratios(
        column.repeat(1, 2), torch.ones(60, 2), torch.arange(60) // 3, generator=seeded()
    )
    low, high = boot.difference([1], [0]).interval()
    assert float(low) == float(high) == 0.0
    assert float(boot.interval()[1][0] - boot.interval()[0][0]) > 0.1


def test_resamples_with_nothing_to_divide_by_widen_the_interval_to_the_bounds():
    numerators = torch.tensor([[1.0], [0.0]])
    denominators = torch.tensor([[1.0], [0.0]])
    boot = stats.ratios(numerators, denominators, torch.arange(2), generator=seeded(), draws=400)
    low, high = boot.interval()
    assert (float(low), float(high)) == (0.0, 1.0)
    assert float(boot.value) == 1.0


def test_percentile_agrees_with_torch_quantile():
    replicates = torch.randn(101, 3, generator=seeded())
    torch.testing.assert_close(
        stats.percentile(replicates, 0.31), torch.quantile(replicates, 0.31, dim=0)
    )


def test_the_exchange_null_is_wide_for_alike_networks_and_far_from_unlike_ones():
    generator = seeded(4)
    clusters = torch.arange(50)
    alike = torch.rand(50, 2, generator=generator).round()
    null = stats.exchange_null(alike, torch.ones(50, 2), clusters, generator=generator)
    assert null.low <= null.value <= null.high
    assert null.p > 0.05
    unlike = torch.stack([torch.ones(50), torch.zeros(50)], 1)
    null = stats.exchange_null(unlike, torch.ones(50, 2), clusters, generator=generator)
    assert null.value == 1.0
    assert null.p == pytest.approx(1 / 10_001)


def test_ten_thousand_resamples_of_a_study_cost_well_under_a_second():
    generator = seeded()
    decided = torch.rand(1200, 40, generator=generator).round()
    clusters = torch.arange(1200) // 8
    started = time.perf_counter()
    stats.ratios(decided, torch.ones_like(decided), clusters, generator=generator).interval()
    assert time.perf_counter() - started < 2.0


def test_an_interval_prints_its_value_and_ends():
    assert str(Interval(0.6521, 0.61, 0.694, 734)) == "0.65 [0.61, 0.69]"


def test_an_interval_has_the_decimals_that_its_length_justifies():
    interval = Interval(0.09, 0.003, 0.17, 550)
    assert str(interval) == "0.09 [0.00, 0.17]"
    assert str(Interval(1.008, 1.0004, 1.0154, 9)) == "1.008 [1.000, 1.015]"
    assert str(Interval(3.58, -1.77, 9.05, 9)) == "3.6 [-1.8, 9.1]"
    assert str(Interval(34.5, 12.7, 68.4, 9)) == "34 [13, 68]"
    assert str(Interval(0.0, 0.0, 0.0, 9)) == "0.00 [0.00, 0.00]"
