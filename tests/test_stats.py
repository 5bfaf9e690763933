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


def test_a_crossed_bootstrap_is_a_loop_over_observations_of_both_counts():
    generator = seeded(3)
    first, second = torch.arange(24) % 4, torch.arange(24) // 4
    over, under = torch.rand(24, 2, generator=generator), torch.ones(24, 2)
    found = stats.crossed_ratios(over, under, first, second, generator=seeded(5), draws=30)
    generator = seeded(5)
    a = stats.resampled_counts(4, 30, generator)
    b = stats.resampled_counts(6, 30, generator)
    for r in range(30):
        weights = [float(a[r, first[i]] * b[r, second[i]]) for i in range(24)]
        expected = sum(w * x for w, x in zip(weights, over, strict=True)) / sum(weights)
        torch.testing.assert_close(found.replicates[r], expected)
    torch.testing.assert_close(found.value, over.mean(0))


def test_clusters_within_clusters_are_resampled_by_the_larger_ones():
    outer, inner = torch.arange(20) // 4, torch.arange(20)
    over, under = torch.rand(20, 1, generator=seeded()), torch.ones(20, 1)
    expected = stats.ratios(over, under, outer, generator=seeded(), draws=20).replicates
    for order in ((outer, inner), (inner, outer)):
        found = stats.crossed_ratios(over, under, *order, generator=seeded(), draws=20)
        assert torch.equal(found.replicates, expected)


def test_a_crossed_interval_covers_effects_of_both_kinds_of_clusters():
    """Shape images and texture images as in the published set; the null value is 0.5."""
    generator, inside = seeded(9), 0
    first, second = torch.arange(330) % 110, torch.randint(33, (330,), generator=generator)
    for _ in range(120):
        a = 0.6 * torch.randn(110, generator=generator)
        b = 0.6 * torch.randn(33, generator=generator)
        odds = torch.rand(330, generator=generator).logit()
        hits = (odds < a[first] + b[second]).float()[:, None]
        boot = stats.crossed_ratios(
            hits, torch.ones_like(hits), first, second, generator=generator, draws=400
        )
        low, high = boot.interval()
        inside += int(low <= 0.5 <= high)
    assert 0.92 <= inside / 120 <= 1.0


def test_ten_thousand_resamples_of_a_study_cost_well_under_a_second():
    generator = seeded()
    decided = torch.rand(1200, 40, generator=generator).round()
    clusters = torch.arange(1200) // 8
    started = time.perf_counter()
    stats.ratios(decided, torch.ones_like(decided), clusters, generator=generator).interval()
    assert time.perf_counter() - started < 2.0


def test_an_interval_prints_its_value_and_ends():
    assert str(Interval(0.6521, 0.61, 0.694, 734)) == "0.65 [0.61, 0.69]"


def test_an_end_is_never_rounded_onto_the_threshold_it_is_compared_with():
    interval = Interval(0.09, 0.003, 0.17, 550)
    assert interval.text() == "0.09 [0.00, 0.17]"
    assert interval.text(threshold=0.0) == "0.090 [0.003, 0.170]"
    assert interval.text(threshold=0.5) == "0.09 [0.00, 0.17]"
    assert Interval(0.0, 0.0, 0.1, 9).text(threshold=0.0) == "0.00 [0.00, 0.10]"
