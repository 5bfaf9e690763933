"""Intervals are checked against scipy, against loops, and by how often they cover the truth."""

import dataclasses
import importlib.util
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

import toy_study
from robustbias import stats, studies
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


def test_a_share_of_copies_tells_no_more_than_the_share_of_what_was_copied():
    hits = torch.rand(60, generator=torch.Generator().manual_seed(0)) > 0.4
    alone = stats.share(hits, torch.arange(60))
    assert alone == stats.wilson(int(hits.sum()), 60)
    copied = stats.share(hits.repeat(9), torch.arange(60).repeat(9))
    assert (copied.value, copied.n) == (pytest.approx(alone.value), 540)
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low, rel=0.05)
    mixed = stats.share(hits.repeat(9), torch.arange(540) % 54)  # clusters that say nothing
    assert mixed.high - mixed.low < 0.5 * (alone.high - alone.low)


def test_trials_that_all_failed_count_as_often_as_there_are_clusters():
    none = stats.share(torch.zeros(200).bool(), torch.arange(200) % 50)
    assert (none.value, none.low) == (0, pytest.approx(0))
    assert stats.wilson(0, 50).high < none.high < 1.1 * stats.wilson(0, 50).high


def test_intervals_of_clustered_shares_cover_the_truth():
    """200 trials of 50 drawings whose own chances vary; the mean chance is 0.3."""
    generator, covered = torch.Generator().manual_seed(0), 0
    drawings = torch.arange(200) % 50
    for _ in range(400):
        chance = 0.6 * torch.rand(50, generator=generator)
        hits = torch.rand(200, generator=generator) < chance[drawings]
        made = stats.share(hits, drawings)
        covered += made.low <= 0.3 <= made.high
    assert 0.92 <= covered / 400 <= 0.98


def test_replicates_equal_a_loop_that_concatenates_the_drawn_clusters():
    numerators = torch.tensor([[1.0], [0.0], [1.0], [1.0], [0.0]])
    denominators = torch.ones(5, 1)
    clusters = torch.tensor([7, 7, 2, 9, 9])
    boot = stats.ratios(numerators, denominators, clusters, generator=seeded(3), draws=50)
    counts = stats.resampled_counts(3, 50, seeded(3))
    members = [clusters == label for label in (2, 7, 9)]
    for replicate, count in zip(boot.resamples, counts, strict=True):
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


def test_the_interval_of_a_ratio_or_a_difference_of_percentages_is_not_cut_to_that_of_a_share():
    resamples = torch.randn(2000, 3, generator=seeded()) * torch.tensor([0.2, 0.2, 2.0])
    boot = stats.Bootstrap(torch.tensor([0.9, 0.3, 0.8]), resamples + torch.tensor([0.9, 0.3, 0.8]))
    low, high = boot.interval()
    assert float(high[0]) == pytest.approx(0.9 + 0.2 * 1.96, abs=0.05)
    assert float(low[1]) == pytest.approx(0.3 - 0.2 * 1.96, abs=0.05)
    assert float(low[2]) < -2.5


def test_a_wide_interval_of_a_share_over_trainings_ends_at_its_bounds():
    resamples = torch.tensor([0.9, 0.99]) + torch.zeros(50, 2)
    boot = stats.Bootstrap(resamples[0], resamples).mean([[0, 1]], trainings=True)
    assert float(boot.interval()[1]) == 1.0


def test_percentile_agrees_with_torch_quantile():
    replicates = torch.randn(101, 3, generator=seeded())
    torch.testing.assert_close(
        stats.percentile(replicates, 0.31), torch.quantile(replicates, 0.31, dim=0)
    )


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
    assert str(Interval(1.008, 1.0044, 1.0114, 9)) == "1.008 [1.004, 1.011]"
    assert str(Interval(3.58, -1.77, 9.05, 9)) == "3.6 [-1.8, 9.1]"
    assert str(Interval(34.5, 12.7, 68.4, 9)) == "34 [13, 68]"
    assert str(Interval(0.0, 0.0, 0.0, 9)) == "0.00 [0.00, 0.00]"


def test_crossed_resamples_equal_a_literal_loop():
    generator = seeded(2)
    a, b = torch.cartesian_prod(torch.arange(5), torch.arange(3)).T
    values, weights = torch.rand(15, 2, generator=generator), torch.rand(15, 2, generator=generator)
    boot = stats.crossed_ratios(values, weights, a, b, generator=seeded(4), draws=30)
    fixed = seeded(4)
    by_row = stats.resampled_counts(5, 30, fixed)
    by_column = stats.resampled_counts(3, 30, fixed)
    for resample, rows, columns in zip(boot.resamples, by_row, by_column, strict=True):
        over, under = torch.zeros(2), torch.zeros(2)
        for i in range(15):
            count = rows[a[i]] * columns[b[i]]
            over += count * values[i]
            under += count * weights[i]
        torch.testing.assert_close(resample, over / under)
    torch.testing.assert_close(boot.value, values.sum(0) / weights.sum(0))


def simulated(name: str, studies: int = 300) -> float:
    """Share of simulated studies whose interval covers the truth (benchmarks/coverage.py)."""
    place = Path(__file__).parents[1] / "benchmarks" / "coverage.py"
    spec = importlib.util.spec_from_file_location("coverage_simulation", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    simulate, *arguments = module.kinds()[name]
    return module.covered(simulate, tuple(arguments), studies)[0]


@pytest.mark.parametrize(
    "name",
    [
        "5 shape images",
        "10 x 10 shapes and textures",
        "110 x 33 shapes and textures",
        "3 trainings, 1 architecture(s), sd 0.02",
        "5 trainings, 1 architecture(s), sd 0.1",
        "3 trainings, 3 architecture(s), sd 0.1",
        "20 units",
        "R minus S, 20 units each",
        "R minus S of shape bias, 110 x 33",
    ],
)
def test_intervals_cover_the_truth_as_often_as_they_say(name):
    assert simulated(name) == pytest.approx(0.95, abs=0.055)  # three standard errors, and .017


def test_images_alone_make_an_interval_of_trainings_too_narrow():
    """What single trainings look like: 3 whose spread is left out cover far less than 95 %."""
    generator, covered = seeded(), 0
    for _ in range(200):
        values = 0.1 * torch.randn(3, generator=generator) + 0.4 * torch.randn(
            200, 3, generator=generator
        )
        boot = stats.ratios(
            values, torch.ones(200, 3), torch.arange(200), generator=generator, draws=300
        )
        low, high = boot.mean([[0, 1, 2]], trainings=False).interval()
        covered += int(low[0] <= 0 <= high[0])
    assert covered < 160


def test_one_training_per_architecture_leaves_the_interval_of_the_images():
    values = torch.rand(50, 2, generator=seeded(1))
    boot = stats.ratios(values, torch.ones(50, 2), torch.arange(50), generator=seeded(2))
    mean = boot.mean([[0], [1]], trainings=True)
    for ours, theirs in zip(mean.interval(), boot.interval(), strict=True):
        torch.testing.assert_close(ours, theirs)


def trained_study(replicates: dict[str, int]):
    """S and R of architectures, each trained a number of times."""
    entries = [
        dataclasses.replace(
            toy_study.entry(f"{architecture}-{regime}-{k}", regime, eps),
            architecture=architecture,
            replicate=k,
        )
        for architecture, count in replicates.items()
        for regime, eps in (("standard", 0.0), ("robust", 0.5))
        for k in range(1, count + 1)
    ]
    toy = toy_study.study(entries=entries)
    entry = dataclasses.replace(toy.entry, architectures=tuple(replicates))
    return toy_study.study(entries=entries, entry=entry)


def accuracies(study, generator):
    """Of 40 shared images, right more often by R."""
    about = pd.DataFrame([studies.described(study, e) for e in study.entries])
    chance = torch.tensor([0.5 if e.regime == "standard" else 0.8 for e in study.entries])
    hits = (torch.rand(40, len(chance), generator=generator) < chance).float()
    boot = stats.ratios(
        hits, torch.ones_like(hits), torch.arange(40), generator=generator, draws=500
    )
    return stats.aggregate(study, about.assign(metric="top1", n=40), boot, paired=True)


def test_pairs_are_averaged_over_trainings_and_these_over_architectures_of_equal_weight():
    study = trained_study({"alexnet": 3, "resnet50": 2})
    table = accuracies(study, seeded(3))
    difference = table[table["regime"] == "robust - standard"]
    pairs = difference[difference["mean_over"].isna()]
    over = difference[difference["mean_over"] == "replicates"].set_index("architecture")["value"]
    assert len(pairs) == 5
    assert pairs["network"].iloc[0] == "alexnet-robust-1 - alexnet-standard-1"
    means = pairs.groupby("architecture")["value"].mean()
    assert over.to_dict() == pytest.approx(means.to_dict(), abs=1e-6)
    pooled = difference[difference["mean_over"] == "architectures"]
    assert pooled["value"].tolist() == pytest.approx([over.mean()], abs=1e-6)
    assert pooled[["network", "architecture"]].isna().all(axis=None)
    assert pooled["low"].iloc[0] < pooled["value"].iloc[0] < pooled["high"].iloc[0]
    assert set(difference.loc[difference["mean_over"] == "replicates", "network"]) == {
        "alexnet-robust - alexnet-standard", "resnet50-robust - resnet50-standard",
    }  # fmt: skip


def test_one_training_and_one_architecture_have_no_means():
    table = accuracies(trained_study({"alexnet": 1}), seeded(3))
    assert table["mean_over"].isna().all()


def test_the_first_replicate_stands_where_one_network_is_looked_at():
    study = trained_study({"alexnet": 2})
    assert studies.pair_of(study, "alexnet")["robust"].name == "alexnet-robust-1"
    assert list(studies.pairs(study)) == [("alexnet", 1), ("alexnet", 2)]
