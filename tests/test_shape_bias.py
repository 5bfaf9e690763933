"""Shape bias against hand counts, published decisions, and the traps others fell into."""

import dataclasses
import types

import pandas as pd
import pytest
import torch
from torch import nn

import toy_study
from robustbias import studies
from robustbias.networks import zoo
from robustbias.shape_bias import figures, published, report
from robustbias.shape_bias import measure as measured
from robustbias.shape_bias.measure import (
    bias_and_coverage,
    conflict_trials,
    contrast_sweep,
    displays,
    entry_level,
    ranks,
    shape_bias,
    style_shift,
)
from robustbias.tables import REGISTRY, measure, tidy
from robustbias.utils import UserError

pytestmark = pytest.mark.usefixtures("toy_networks_only")


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


def test_the_clusters_of_a_stimulus_are_its_shape_image_and_its_texture_image():
    """Trap: parsing dog10-bird2. Resampling shape images, dog1 and dog10 are two."""
    table, boot = bias_and_coverage(
        trials(
            ("dog10-bird2", "shape"),
            ("dog10-cat1", "shape"),
            ("dog1-bird2", "texture"),
            ("dog1-cat1", "texture"),
        ),
        ["subj"],
        generator=seeded(),
    )
    assert rows(table, metric="shape_bias")["value"].tolist() == [0.5]
    replicates = boot.resamples[:, 0]  # textures make no difference here
    assert set(replicates.tolist()) == {0.0, 0.5, 1.0}
    assert (replicates == 0.5).float().mean() == pytest.approx(0.5, abs=0.02)
    _, boot = bias_and_coverage(  # every texture image in one stimulus: within the shape image
        trials(("dog10-bird2", "shape"), ("dog10-cat1", "texture"), ("dog1-bird3", "texture")),
        ["subj"],
        generator=seeded(),
    )
    assert sorted(set(boot.resamples[:, 0].tolist())) == pytest.approx([0, 1 / 3, 1 / 2])


def test_ranks_are_those_of_a_literal_loop_and_tied_classes_share_theirs():
    logits = torch.randn(7, 9, generator=seeded())
    logits[0] = 1.0
    logits[1, :4] = 2.5
    membership = torch.zeros(9, 3)
    membership[[0, 1, 4, 5, 8], [0, 0, 1, 2, 2]] = 1.0
    expected = torch.zeros(7, 3)
    for i, row in enumerate(logits.tolist()):
        for q in range(3):
            best = max(value for k, value in enumerate(row) if membership[k, q])
            places = [1 + j for j, v in enumerate(sorted(row, reverse=True)) if v == best]
            expected[i, q] = sum(places) / len(places)
    torch.testing.assert_close(ranks(logits, membership), expected)
    assert expected[0].tolist() == [5, 5, 5]


def test_cue_scores_are_mean_reciprocal_ranks():
    table = rows(shape_bias(toy_study.study(), draws=50), condition="cue-conflict", scope="network")
    table = rows(table, aggregation="mean", network="toy-r").set_index("metric")["value"]
    assert table["shape_mrr"] == 1.0  # R looks at the shape's half alone
    shown = rows(conflict_trials(toy_study.study()), network="toy-r", aggregation="mean")
    assert table["texture_mrr"] == pytest.approx((1 / shown["texture_rank"]).mean())
    assert set(shown["texture_rank"]) == {2.0, 3.0}


def test_a_curve_moved_by_two_doublings_of_the_style_has_that_shift():
    styles = torch.tensor([0.5, 1.0, 2.0, 4.0, 8.0])
    standard = torch.sigmoid(0.4 - 0.5 * styles.log2())
    robust = torch.sigmoid(0.4 - 0.5 * (styles.log2() - 2))
    shift = style_shift(standard[None], robust[None], styles)
    assert shift.item() == pytest.approx(2.0, abs=1e-4)


class Displayed(toy_study.Source):
    """The toy's conflicts as stylized ones and as collages; texture fades with the level."""

    def stylized_conflict(self, painter, style):
        return self.cue_conflict(toy_study.SIDE)

    def collage_conflict(self, scale):
        return self.cue_conflict(toy_study.SIDE)


def test_every_display_of_the_entry_is_measured_and_one_decides():
    painting = {"painters": ["tiny-imagenet-painter"], "styles": [1.0, 4.0]}
    entry = dataclasses.replace(
        toy_study.study().entry, painting=painting, collage=(0.5, 1.0), decides="collage"
    )
    study = toy_study.study(source=Displayed(), entry=entry)
    table = shape_bias(study, draws=50)
    overall = rows(table, condition="cue-conflict", scope="network", metric="shape")
    levels = overall.groupby("kind")["level"].unique().map(list).to_dict()
    assert levels == {"stimuli": [8], "stylized": [1, 4], "collage": [0.5, 1]}
    assert set(rows(overall, decides=True)["display"]) == {"collage"}
    assert set(rows(overall, regime="untrained")["display"]) == {"collage"}
    assert set(rows(table, metric="style_shift")["painter"]) == {"robust"}
    assert "doublings" in report.style_shifts(table)
    assert "collage" in {name for name, _ in report.differences(table).index}
    figure = figures.display_curves(table)
    assert len(figure.axes) == 2  # stylized and collage have several levels
    shown = figures.one_of_each_kind(table)
    assert shown == ["collage", "8 px", "stylized, robust painter, weight 1"]
    text = report.displays(table)
    assert "The primary display is *collage*" in text
    assert "are 1 and 4, and they are by a robust painter." in text
    text = report.secondary(table)
    assert "on 4 secondary displays" in text
    assert "- Stylized by a robust painter, 2 levels: 1 (stylized, robust" in text
    escaped = report.critiques(table)
    assert list(escaped) == ["published stimuli", "stylized conflicts", "collages"]
    assert escaped.loc["Kim et al. 2026", "collages"].startswith("escapes")
    entry = dataclasses.replace(study.entry, decides="painted")
    with pytest.raises(UserError, match="decided by 'painted'"):
        displays(toy_study.study(source=Displayed(), entry=entry))


class TwoPainters(Displayed):
    """The standard painter puts each cue where the robust one puts the other."""

    def stylized_conflict(self, painter, style):
        stimuli = self.cue_conflict(toy_study.SIDE)
        flipped = stimuli.pixels.flip(-1) if painter == "standard" else stimuli.pixels
        return dataclasses.replace(stimuli, pixels=flipped)


def painted(monkeypatch, *painters: str, **changes):
    monkeypatch.setattr(
        measured.manifest, "network", lambda name: types.SimpleNamespace(regime=name.strip("2"))
    )
    painting = {"painters": list(painters), "styles": [1.0, 4.0]}
    entry = dataclasses.replace(toy_study.study().entry, painting=painting, **changes)
    return toy_study.study(source=TwoPainters(), entry=entry)


def test_two_painters_are_named_in_words_and_their_part_is_measured(monkeypatch):
    """R follows shape for one painter and texture for the other: R - S is 1 and -1."""
    study = painted(monkeypatch, "robust", "standard", decides="8 px")
    table = shape_bias(study, draws=50)
    assert rows(table, metric="painter_difference")["value"].tolist() == [2.0]
    assert rows(table, metric="painter_difference")["n"].tolist() == [12]
    assert set(rows(table, metric="style_shift")["painter"]) == {"robust", "standard"}
    text = report.displays(table)
    assert "by a robust painter and a standard painter." in text
    assert "those of each painter separately" in text
    text = report.secondary(table)
    assert "above 0 with the whole interval on 2, below 0 on 2" in text
    assert "- Stylized by a standard painter, 2 levels: -1 (" in text
    text = report.style_shifts(table)
    assert text.count("- Conflicts by a ") == 2
    assert "than on those by a standard painter by 2 (mean" in text
    assert figures.one_of_each_kind(table) == [
        "8 px", "stylized, robust painter, weight 1", "stylized, standard painter, weight 1"
    ]  # fmt: skip
    labels = {ax.get_ylabel() for ax in figures.display_curves(table).axes}
    assert labels == {"stylized by a\nrobust painter", "stylized by a\nstandard painter"}
    with pytest.raises(UserError, match="several painters of regime 'robust'"):
        displays(painted(monkeypatch, "robust", "robust2"))


def test_drawn_conflicts_have_no_painter_and_no_marks_of_people():
    entry = dataclasses.replace(toy_study.study().entry, world={"side": 8})
    table = shape_bias(toy_study.study(entry=entry), draws=50)
    assert set(table["kind"]) == {"drawn"}
    text = report.displays(table) + report.secondary(table)
    assert "drawn" in text
    assert not any(word in text for word in ("painter", "collage", "tylized", "primary"))
    assert report.style_shifts(table) is None
    assert figures.display_curves(table) is None
    assert list(report.critiques(table)) == ["drawn conflicts"]
    for figure in (figures.shape_bias_summary(table), figures.shape_bias_by_category(table)):
        words = {text.get_text() for legend in figure.legends for text in legend.get_texts()}
        assert not words & {"humans", "same network, ImageNet"}


def contrasts(*values: tuple[float, float, float]) -> pd.DataFrame:
    about = {"architecture": "alexnet", "regime": "robust", "metric": "shape_bias", "n": 90}
    about |= {"replicate": 1}
    return pd.DataFrame(
        [{**about, "ratio": r, "value": v, "low": v - 0.1, "high": v + h} for r, v, h in values]
    )


def test_the_ratio_at_which_r_changes_its_cue_is_interpolated():
    found = report.contrast_sweep(contrasts((2.0, 0.3, 0.1), (0.5, 0.9, 0.05), (1.0, 0.7, 0.1)))
    assert "from 0.90 to 0.30" in found
    assert "crosses 0.5 at a ratio of 1.50" in found
    assert "below 0.5: 2.00)" in found
    above = report.contrast_sweep(contrasts((0.5, 0.9, 0.05), (1.0, 0.7, 0.1)))
    assert "lies above 0.5 at every ratio tested" in above
    assert "is not tested" in report.contrast_sweep(contrasts((1.0, 0.7, 0.1)))
    assert len(figures.contrast_sweep(contrasts((0.5, 0.9, 0.05), (1.0, 0.7, 0.1))).axes) == 2
    assert figures.contrast_sweep(contrasts()) is None


def test_networks_of_other_contrasts_are_tested_on_conflicts_of_theirs(monkeypatch):
    """The toy's R follows shape in its own world; the network of the series looks at texture."""
    worlds = []

    def source(entry, device, cue="both"):
        worlds.append(entry.world["texture_contrast"])
        return toy_study.Source()

    monkeypatch.setattr(studies, "source", source)
    world = {"texture_contrast": 0.1, "shape_contrast_low": 0.2, "shape_contrast_high": 0.3}
    entry = dataclasses.replace(toy_study.study().entry, world=world)
    study = toy_study.study(entry=entry)
    other = dataclasses.replace(
        toy_study.entry("toy-contrast", "robust", 2.0),
        series="contrast", world={"texture_contrast": 0.5},
    )  # fmt: skip
    assert contrast_sweep(study, draws=20).empty
    again = dataclasses.replace(toy_study.entry("toy-s-2", "standard", 0.0), replicate=2)
    study.entries.extend([other, again])  # the series is of the first training alone
    study.networks["toy-contrast"] = study.networks["toy-s-2"] = toy_study.HalfLooker("right")
    table = rows(contrast_sweep(study, draws=20), metric="shape_bias").set_index("network")
    assert table["ratio"].to_dict() == {"toy-s": 0.4, "toy-r": 0.4, "toy-contrast": 2.0}
    assert table["value"].to_dict() == {"toy-s": 0.0, "toy-r": 1.0, "toy-contrast": 0.0}
    assert worlds == [0.1, 0.1, 0.5]
    shown = conflict_trials(study, null_seeds=0)  # not in the study's own comparison
    assert set(shown["network"]) == {"toy-s", "toy-r", "toy-s-2"}


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


def test_the_difference_of_opposite_networks_is_one():
    table = rows(shape_bias(toy_study.study(), draws=200), condition="paired", aggregation="mean")
    found = table.set_index("metric")
    assert found.loc["shape_bias_difference", ["value", "low", "high"]].tolist() == [1, 1, 1]
    assert found.loc["coverage_difference", "value"] == 0
    assert found.loc["shape_difference", "value"] == 1
    assert found.loc["texture_difference", "value"] == -1


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
