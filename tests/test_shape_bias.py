"""Shape bias against hand counts, published decisions, and the traps others fell into."""

import pandas as pd
import pytest
import torch
from torch import nn

import toy_study
from robustbias.networks import zoo
from robustbias.shape_bias import published
from robustbias.shape_bias.measure import (
    bias_and_coverage,
    conflict_trials,
    entry_level,
    shape_bias,
)
from robustbias.tables import REGISTRY, measure, tidy


@pytest.fixture(autouse=True)
def _toy(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTBIAS_TABLES", str(tmp_path))
    monkeypatch.setattr(zoo, "untrained", lambda entry, seed: toy_study.HalfLooker("left", 0.0))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def rows(table: pd.DataFrame, **values) -> pd.DataFrame:
    for column, wanted in values.items():
        table = table[table[column] == wanted]
    return table


def trials(*answers: tuple[str, str]) -> pd.DataFrame:
    table = pd.DataFrame(answers, columns=["stimulus", "decision"])
    return table.assign(subj="someone")


def test_a_network_that_sees_only_the_shape_has_bias_one_and_full_coverage():
    table = rows(shape_bias(toy_study.study(), draws=200), condition="cue-conflict")
    table = rows(table, scope="network", aggregation="mean")
    for regime, bias in (("standard", 0.0), ("robust", 1.0)):
        own = rows(table, regime=regime)
        assert rows(own, metric="shape_bias")["value"].tolist() == [bias]
        assert rows(own, metric="coverage")["value"].tolist() == [1.0]


def test_stimuli_whose_cues_agree_are_dropped():
    """Trap: dividing by 1,280. The toy has 18 stimuli, 6 of them without a conflict."""
    shown = rows(conflict_trials(toy_study.study()), network="toy-s", aggregation="mean")
    assert len(shown) == 12
    assert (shown["shape"] != shown["texture"]).all()


def test_the_mean_and_the_sum_over_classes_decide_differently():
    """Trap: under a sum, the category with most classes wins."""
    membership = torch.tensor([[1.0, 0], [1.0, 0], [1.0, 0], [0, 1.0]])
    probabilities = torch.tensor([[0.2, 0.2, 0.2, 0.4]])
    assert entry_level(probabilities, membership, "sum").tolist() == [0]
    assert entry_level(probabilities, membership, "mean").tolist() == [1]


def test_the_cluster_of_a_stimulus_is_its_shape_image():
    """Trap: parsing dog10-bird2. Resampling shape images, dog1 and dog10 are two."""
    table, boot = bias_and_coverage(
        trials(
            ("dog10-bird2", "shape"),
            ("dog10-cat1", "shape"),
            ("dog1-bird2", "texture"),
            ("dog1-cat3", "texture"),
        ),
        ["subj"],
        generator=seeded(),
    )
    assert rows(table, metric="shape_bias")["value"].tolist() == [0.5]
    replicates = boot.resamples[:, 0]
    assert set(replicates.tolist()) == {0.0, 0.5, 1.0}
    assert (replicates == 0.5).float().mean() == pytest.approx(0.5, abs=0.02)


def test_answers_of_neither_cue_are_in_the_coverage_and_not_in_the_ratio():
    table, _ = bias_and_coverage(
        trials(
            ("dog1-cat1", "shape"),
            ("dog2-cat1", "neither"),
            ("dog3-cat1", "texture"),
            ("dog4-cat1", "shape"),
        ),
        ["subj"],
        generator=seeded(),
    )
    found = table.set_index("metric")
    assert found.loc["shape_bias", "value"] == pytest.approx(2 / 3)
    assert found.loc["shape_bias", "n"] == 3
    assert found.loc["coverage", "value"] == 0.75
    assert found.loc["neither", "value"] == 0.25
    assert found.loc["coverage", "n"] == 4


@pytest.mark.parametrize(
    ("model", "bias"),
    [
        ("AlexNet (Caffe)", 0.4294),
        ("GoogLeNet (Caffe)", 0.3119),
        ("VGG-16 (Caffe)", 0.1722),
        ("ResNet-50 (torchvision)", 0.2207),
        ("humans (10, pooled)", 0.9587),
    ],
)
def test_the_quoted_counts_give_the_published_shape_biases(model, bias):
    categories = tuple(published._csv("published_cue_conflict.csv")["shape"].unique())
    table = rows(published.cue_conflict(categories), model=model, scope="model")
    assert len(categories) == 16
    assert rows(table, metric="shape_bias")["value"].item() == pytest.approx(bias, abs=5e-5)
    assert rows(table, metric="coverage")["n"].item() % 1200 == 0


def test_the_difference_of_opposite_networks_is_one_and_no_exchange_explains_it():
    table = rows(shape_bias(toy_study.study(), draws=200), condition="paired", aggregation="mean")
    found = table.set_index("metric")
    assert found.loc["shape_bias_difference", ["value", "low", "high"]].tolist() == [1, 1, 1]
    assert found.loc["coverage_difference", "value"] == 0
    assert found.loc["exchange_null", "low"] < -0.3
    assert found.loc["exchange_null", "high"] > 0.3
    assert found.loc["exchange_p", "value"] < 0.1


def test_shuffled_answers_follow_neither_cue_more_than_the_other():
    table = rows(shape_bias(toy_study.study(), draws=200), condition="shuffled", regime="robust")
    null = rows(table, aggregation="mean").set_index("metric")
    assert null.loc["shape_bias", "value"] == pytest.approx(0.5, abs=0.03)
    assert null.loc["coverage", "value"] == pytest.approx(2 / 3, abs=0.03)


def test_an_untrained_network_that_always_says_the_same_is_reported_with_its_coverage():
    table = rows(shape_bias(toy_study.study(), draws=200), regime="untrained", aggregation="mean")
    found = rows(table, scope="network").set_index("metric")
    assert found.loc["shape_bias", "value"] == 0.5
    assert found.loc["coverage", "value"] == pytest.approx(2 / 3)
    assert found.loc["coverage", "n"] == 3 * 12


def test_per_category_counts_sum_to_the_whole():
    table = rows(shape_bias(toy_study.study(), draws=50), aggregation="mean", metric="shape_bias")
    own = rows(table, condition="cue-conflict", network="toy-r")
    assert (
        own.loc[own["scope"] == "category", "n"].sum()
        == own.loc[own["scope"] == "network", "n"].item()
    )


def test_calibration_sets_batchnorm_to_the_statistics_of_the_images():
    norm = nn.BatchNorm2d(3)
    pixels = torch.randint(0, 256, (64, 3, 4, 4), dtype=torch.uint8)
    network = zoo.calibrated(nn.Sequential(norm), pixels, batch=64)
    assert not network.training
    torch.testing.assert_close(norm.running_mean, (pixels / 255).mean((0, 2, 3)))
    out = network(pixels / 255)
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(out.std((0, 2, 3)), torch.ones(3), atol=1e-2, rtol=0)


def test_a_measures_table_is_tidy_and_its_values_lie_in_their_intervals():
    table = shape_bias(toy_study.study(), draws=100)
    inside = table.dropna(subset=["value", "low", "high"])
    assert (inside["low"] <= inside["value"] + 1e-6).all()
    assert (inside["value"] <= inside["high"] + 1e-6).all()
    assert {"study", "network", "architecture", "regime", "eps", "metric", "n"} <= set(table)


def test_two_rows_for_one_condition_are_refused():
    with pytest.raises(ValueError, match="two rows for one condition"):
        tidy([{"condition": "clean", "value": 0.1}, {"condition": "clean", "value": 0.2}])


def test_a_reused_measure_name_raises():
    assert {"accuracy", "shape_bias"} <= set(REGISTRY)
    with pytest.raises(ValueError, match="exists already"):

        @measure
        def shape_bias(study):
            return pd.DataFrame()
