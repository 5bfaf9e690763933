"""Three readings, the mean corruption error and the measure, against counts done by hand."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import toy_study
from robustbias import claims
from robustbias.images import Images
from robustbias.images.corruptions import constants
from robustbias.images.distortions import DISTORTIONS, SUPPRESSIONS
from robustbias.ood_generalization import corruption_error
from robustbias.ood_generalization import figures as ood_generalization_figures
from robustbias.ood_generalization import measure as ood_generalization_measure
from robustbias.ood_generalization import report as ood_generalization_report
from robustbias.ood_generalization.measure import (
    NOISES,
    channel,
    explained,
    noise_channels,
    ood,
    suppression,
)
from robustbias.shape_bias import published
from robustbias.stats import Bootstrap
from robustbias.utils import MissingData, UserError

FEW = {"n_images": 24, "n_corrupted": 24, "n_attacked": 6, "attack_steps": 2, "draws": 200}
MEANINGS = ("top1", "top1_relative", "top1_conditional")


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class Looker(nn.Module):
    """A linear network that looks at one half of an image of any side."""

    def __init__(self, side: str):
        super().__init__()
        self.side, self.weights_hash = side, f"looker-{side}"

    def forward(self, pixels):
        half = pixels.shape[-1] // 2
        seen = pixels[..., :half] if self.side == "left" else pixels[..., half:]
        return 40 * seen.mean((2, 3))


class Source(toy_study.Source):
    """The toy's images at 64 pixels; stylized ones carry another category in their right half.

    So does every sixth image as it is: S has to err somewhere, or nothing can be measured by it.
    """

    def _images(self, left, right, **options) -> Images:
        pixels = toy_study.halves(left, right, self.contrast)
        pixels = pixels.repeat_interleave(8, 2).repeat_interleave(8, 3)
        names = tuple(f"val{i}" for i in range(len(left)))
        return Images(pixels, self.labels, toy_study.CATEGORIES, names, **options)

    def val(self) -> Images:
        misled = torch.arange(len(self.labels)) % 6 == 0
        return self._images(self.labels, (self.labels + misled) % 3)

    def stylized(self) -> Images:
        return self._images(self.labels, (self.labels + 1) % 3)

    def silhouettes(self) -> Images:
        """Not the validation images: 30 others, all of whose right halves mislead."""
        images = self.stylized().take(torch.arange(30))
        return dataclasses.replace(images, names=tuple(f"drawing{i}" for i in range(30)))

    def edges(self) -> Images:
        raise MissingData("no folder of edges")


def study(**changes) -> toy_study.Study:
    return toy_study.study(**{
        "device": torch.device("cpu"),
        "source": Source(60),
        "networks": {"toy-s": Looker("right"), "toy-r": Looker("left")},
        **changes,
    })  # fmt: skip


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROBUSTBIAS_TABLES", str(tmp_path_factory.mktemp("tables")))
        return ood(study(), **FEW)


def rows(table: pd.DataFrame, **values) -> pd.DataFrame:
    for column, wanted in values.items():
        table = table[table[column] == wanted]
    return table


def test_the_three_readings_by_hand():
    """4 images, S then R. Clean: S right on 0, 1, 2 and R on 1, 2, 3, so both on 1 and 2."""
    clean = torch.tensor([[1, 0], [1, 1], [1, 1], [0, 1]]).bool()
    changed = torch.tensor([[1, 0], [0, 1], [1, 1], [1, 0]]).float()[:, None]
    found = corruption_error.paired(
        changed, clean, torch.tensor([1, 0]), torch.arange(4), generator=seeded(), draws=50
    )
    assert found[""].value.tolist() == [0.75, 0.5]
    assert found["_relative"].value.tolist() == [1.0, pytest.approx(2 / 3)]
    assert found["_conditional"].value.tolist() == [0.5, 1.0]
    assert set(found) == set(corruption_error.READINGS)


def test_stimuli_of_their_own_are_relative_to_clean_images_and_never_conditional():
    clean = torch.tensor([[1, 1], [1, 0]]).bool()
    changed = torch.tensor([[1.0, 0.0], [0, 1], [0, 1]])[:, None]
    found = corruption_error.unpaired(changed, clean, torch.arange(3), generator=seeded(), draws=50)
    assert found[""].value.tolist() == pytest.approx([1 / 3, 2 / 3])
    assert found["_relative"].value.tolist() == pytest.approx([1 / 3, 4 / 3])
    assert "_conditional" not in found


def test_a_difference_of_equal_networks_is_zero_in_every_resample():
    """Trap: an unpaired difference would have the interval of two samples."""
    hits = (torch.rand(50, 3, 1, generator=seeded()) > 0.4).float().expand(-1, -1, 2)
    clean = (torch.rand(50, 1, generator=seeded()) > 0.1).expand(-1, 2)
    for boot in corruption_error.paired(
        hits, clean, torch.tensor([1, 0]), torch.arange(50), generator=seeded(), draws=100
    ).values():
        assert boot.difference([0, 2, 4], [1, 3, 5]).resamples.abs().max() == 0


def test_images_of_one_drawing_are_resampled_together():
    """Ten copies of each of 20 images tell no more than the 20."""
    once = (torch.rand(20, 1, 2, generator=seeded()) > 0.4).float()
    clean = torch.ones(20, 2).bool()
    widths = []
    for copies in (1, 10):
        hits, base = once.repeat(copies, 1, 1), clean.repeat(copies, 1)
        drawings = torch.arange(20).repeat(copies)
        data = (hits, base, torch.tensor([1, 0]), drawings)
        low, high = corruption_error.paired(*data, generator=seeded())[""].interval()
        widths.append(high - low)
    torch.testing.assert_close(*widths)


def test_the_mean_corruption_error_is_a_mean_of_ratios():
    """Trap: the ratio of mean errors. Errors of the reference: .8 and .1; of the other .4, .2."""
    accuracy = torch.tensor([[0.2, 0.6], [0.9, 0.8]])[:, None].expand(2, 5, 2).contiguous()
    errors = corruption_error.corruption_errors(accuracy, [0])
    assert errors[:, 1].tolist() == [pytest.approx(50), pytest.approx(200)]
    assert errors[:, 0].tolist() == [100, 100]
    assert errors.mean(0)[1] == pytest.approx(125)  # and not 100 * .3 / .45


def test_replicates_of_the_reference_have_a_mean_corruption_error_of_100_together():
    accuracy = torch.tensor([[0.2, 0.6, 0.6]])[:, None].expand(1, 5, 3).contiguous()
    errors = corruption_error.corruption_errors(accuracy, [0, 1])[0]
    assert errors[:2].tolist() == [pytest.approx(100 * 0.8 / 0.6), pytest.approx(100 * 0.4 / 0.6)]
    assert errors[:2].mean() == pytest.approx(100)
    assert errors[2] == pytest.approx(100 * 0.4 / 0.6)


def test_severities_are_summed_before_the_ratio():
    accuracy = np.random.default_rng(0).uniform(size=(15, 5, 3))
    expected = np.zeros((15, 3))
    for c in range(15):
        for m in range(3):
            expected[c, m] = 100 * np.sum(1 - accuracy[c, :, m]) / np.sum(1 - accuracy[c, :, 1])
    found = corruption_error.corruption_errors(torch.from_numpy(accuracy).float(), [1])
    torch.testing.assert_close(found, torch.from_numpy(expected).float())


def test_a_resample_without_errors_of_the_reference_leaves_a_finite_interval():
    value = torch.tensor([0.9, 0.5])
    replicates = torch.tensor([[1.0, 0.5], [0.8, 0.5], [0.9, 1.0]])
    each, mean = corruption_error.mean_corruption_error(
        Bootstrap(value, replicates), [0], ("fog",), 1, 10
    )
    assert mean.value.tolist() == pytest.approx([100, 500])
    assert mean.resamples[:, 0].tolist() == [100] * 3
    assert mean.resamples[:, 1].tolist() == pytest.approx([1000, 250, 0])  # half an error in 10
    assert torch.equal(each.resamples, mean.resamples)


def test_a_reference_that_makes_no_error_is_refused():
    boot = Bootstrap(torch.tensor([1.0, 0.5]), torch.ones(4, 2))
    with pytest.raises(UserError, match="no error under fog.*larger n_corrupted"):
        corruption_error.mean_corruption_error(boot, [0], ("fog",), 1, 10)


def test_the_reference_is_alexnet_or_else_the_first_standard_network():
    alexnet = toy_study.entry("a", "standard", 0.0)
    other = dataclasses.replace(toy_study.entry("g", "standard", 0.0), architecture="googlenet")
    robust = toy_study.entry("r", "robust", 0.5)
    assert ood_generalization_measure.standard([robust, other, alexnet]) == [alexnet]
    assert ood_generalization_measure.standard([robust, other]) == [other]
    again = dataclasses.replace(alexnet, name="a-2", replicate=2)
    assert ood_generalization_measure.standard([alexnet, robust, again]) == [alexnet, again]
    with pytest.raises(UserError, match="no standard network"):
        ood_generalization_measure.standard([robust])


def test_a_difference_of_mean_corruption_errors_may_be_many_points():
    """They are per cent: a difference of 1 is small, and no bound."""
    resamples = (0.5 + 0.02 * torch.randn(2000, 2, generator=seeded())).clamp(0, 1)
    boot = Bootstrap(torch.tensor([0.5, 0.497]), resamples)
    _, mean = corruption_error.mean_corruption_error(boot, [0], ("fog",), 1, 100)
    low, high = mean.difference([1], [0]).interval()
    assert float(low) < -5
    assert float(high) > 5


def test_alexnet_s_has_a_mean_corruption_error_of_100_with_certainty(table):
    own = rows(table, metric="mce", regime="standard").iloc[0]
    assert own[["value", "low", "high"]].tolist() == [100, 100, 100]
    assert set(table.loc[table["metric"].isin(["ce", "mce"]), "reference"]) == {"toy-s"}
    each = rows(table, metric="ce", regime="standard")
    assert len(each) == 15
    assert (each["value"] == 100).all()


def test_the_mce_follows_from_the_cells_of_the_table(table):
    cells = rows(table, metric="top1", group="corruption")
    cells = cells[cells["scope"] == "severity"]
    assert len(cells) == 15 * 5 * 2
    error = 1 - cells.pivot(index=["condition", "severity"], columns="regime", values="value")
    sums = error.groupby("condition").sum()
    expected = (100 * sums["robust"] / sums["standard"]).mean()
    found = rows(table, metric="mce", regime="robust")["value"].item()
    assert found == pytest.approx(expected, rel=1e-4)
    difference = rows(table, metric="mce_difference")["value"].item()
    assert difference == pytest.approx(found - 100, rel=1e-4)


def test_each_reading_has_a_name_of_its_own_and_every_number_an_interval(table):
    """Trap: three readings in one column."""
    accuracies = {name + end for name in MEANINGS for end in ("", "_difference")}
    errors = {"ce", "mce", "ce_difference", "mce_difference"}
    assert set(table["metric"]) == accuracies | errors
    assert set(rows(table, condition="clean")["metric"]) == {"top1", "top1_difference"}
    assert (table["low"] <= table["value"] + 1e-4).all()
    assert (table["value"] <= table["high"] + 1e-4).all()
    assert np.isfinite(table[["value", "low", "high"]]).all(axis=None)


def test_texture_that_misleads_costs_s_everything_and_r_nothing(table):
    stylized = rows(table, condition="stylized").set_index(["metric", "regime"])["value"]
    for metric in MEANINGS:
        assert stylized[metric, "robust"] == 1
        assert stylized[metric, "standard"] == 0
        assert stylized[f"{metric}_difference", "robust - standard"] == 1
    assert set(rows(table, condition="silhouettes")["metric"]) == {
        "top1", "top1_relative", "top1_difference", "top1_relative_difference",
    }  # fmt: skip
    assert rows(table, condition="silhouettes", metric="top1")["n"].tolist() == [30, 30]


def test_what_a_source_does_not_have_is_left_out_and_named(table):
    assert not {"edges", "texture only", "black silhouettes"} & set(table["condition"])
    assert {"adversarial", *DISTORTIONS} <= set(table["condition"])
    sentence = ood_generalization_report.absent(table)
    assert "black silhouettes, edges, texture only" in sentence


def test_a_mean_over_severities_is_the_mean_of_its_cells(table):
    for metric in ("top1", "top1_relative"):
        own = rows(table, metric=metric, condition="contrast", regime="robust")
        cells = own[own["scope"] == "severity"]
        assert sorted(cells["severity"]) == [1, 2, 3, 4, 5]
        mean = rows(own, scope="condition")["value"].item()
        assert mean == pytest.approx(cells["value"].mean(), abs=1e-5)
    own = rows(table, metric="top1", group="corruption", regime="robust")
    every = rows(own, scope="group")["value"].item()
    assert every == pytest.approx(rows(own, scope="condition")["value"].mean(), abs=1e-5)


def test_entry_level_decisions_use_the_mean_and_top1_the_class():
    """Classes 0 to 2 are category 0, class 3 is category 1."""
    membership = torch.tensor([[1.0, 0], [1.0, 0], [1.0, 0], [0, 1.0]])
    probabilities = torch.tensor([[0.2, 0.2, 0.2, 0.4], [0.1, 0.6, 0.2, 0.1]])

    class Fixed(nn.Module):
        def forward(self, pixels):
            return probabilities.log()

    pixels, labels = torch.zeros(2, 3, 4, 4), torch.tensor([3, 0])
    hits = ood_generalization_measure.correct_by_decision(Fixed(), pixels, labels, membership)
    assert hits["top1"].tolist() == [True, False]
    assert hits["entry_level"].tolist() == [True, True]
    by_category = ood_generalization_measure.correct_by_decision(
        Fixed(), pixels, torch.tensor([1, 0]), membership, True
    )
    assert set(by_category) == {"entry_level"}
    assert by_category["entry_level"].tolist() == [True, True]
    assert ood_generalization_measure.decisions(torch.eye(3), torch.tensor([0]), False) == ("top1",)


def test_the_same_call_gives_the_same_table_and_all_networks_see_the_same_images(
    table, tmp_path, monkeypatch
):
    monkeypatch.setenv("ROBUSTBIAS_TABLES", str(tmp_path))
    twins = {"toy-s": Looker("right"), "toy-r": Looker("right")}
    again = ood(study(networks=twins), **FEW)
    noisy = again[(again["metric"] == "top1_difference") & (again["condition"] != "adversarial")]
    assert (noisy["value"] == 0).all()
    standard = [
        rows(t, metric="top1", regime="standard").set_index(["condition", "severity"])["value"]
        for t in (table, again)
    ]
    pd.testing.assert_series_equal(*standard)


def test_the_claims_read_the_absolute_differences(table):
    found = {claim.id: claim for claim in claims.tested(table, "C2").claims}
    assert set(found) == {"C2.stylized", "C2.silhouettes", "C2.saturated", "C2.scrambled"}
    assert found["C2.stylized"].verdict == found["C2.silhouettes"].verdict == "supported"
    kept = rows(table, metric="top1_conditional_difference", condition="scrambled 4 x 4")
    assert found["C2.scrambled"].interval.value == kept["value"].item()
    assert not found["C2.scrambled"].above
    assert found["C2.silhouettes"].interval.n == 30
    (general,) = claims.tested(table, "C2c").claims
    assert general.interval.value == rows(table, metric="mce_difference")["value"].item()
    n = int(rows(table, metric="mce", network="toy-s")["n"].item())
    assert general.statistic == f"mCE on {n} images, R minus S"


def test_where_stimuli_carry_a_category_alone_c2_is_judged_at_that_level(table):
    own = table[table["condition"] == "silhouettes"].copy()
    own["metric"] = own["metric"].str.replace("top1", "entry_level")
    (claim,) = claims.tested(own, "C2")
    assert claim.statistic.startswith("entry-level accuracy")
    own = pd.concat([own, table[table["condition"] == "silhouettes"]])
    assert [claim.primary for claim in claims.tested(own, "C2")] == [True, False]


def test_stylized_images_of_some_photographs_are_compared_with_those(tmp_path, monkeypatch):
    """A source may stylize a part of its images: the conditional reading is over that part."""
    monkeypatch.setenv("ROBUSTBIAS_TABLES", str(tmp_path))
    source = Source(60)
    whole = source.stylized()
    source.stylized = lambda: whole.take(torch.tensor([40, 3, 20, 11]))
    source.silhouettes = source.edges  # has none
    table = ood(study(source=source), **FEW | {"n_images": 60})
    stylized = rows(table, condition="stylized").set_index(["metric", "regime"])["n"]
    assert stylized["top1", "robust"] == 4
    assert stylized["top1_conditional", "robust"] == 4  # S errs on every sixth: on none of these


def test_what_is_kept_is_accuracy_relative_to_clean_images(tmp_path, monkeypatch):
    """Both halves of a toy's image are of one colour: shuffled colours fool both networks."""
    monkeypatch.setenv("ROBUSTBIAS_TABLES", str(tmp_path))
    table = suppression(study(), n_images=40, draws=100)
    assert set(table["condition"]) == set(SUPPRESSIONS)
    kept = rows(table, metric="retained").set_index(["condition", "regime"])["value"]
    assert kept["channel shuffle", "robust"] == 0
    assert kept["patch rotation 2", "robust"] == 1  # colours stay where they were
    assert kept["Gaussian blur 0.5", "standard"] == 1
    assert kept["grey", "robust"] < 1
    assert set(table["metric"]) == {"retained", "retained_difference"}
    figure = ood_generalization_figures.suppression_profile(table)
    assert len(figure.axes) == 5
    assert set(ood_generalization_report.suppression_table(table).columns) == {"AlexNet"}


def test_the_channel_is_where_noise_halves_accuracy():
    """Three bands; noise of the middle one halves accuracy at .04, of the last one at .16."""
    clean = torch.tensor([0.8])
    accuracy = torch.tensor([[0.8] * 5, [0.8, 0.4, 0.2, 0.1, 0.1], [0.8, 0.8, 0.8, 0.4, 0.3]])
    sensitivity, found = channel(accuracy[None], clean, torch.tensor([0.5, 1.5, 2.5]))
    expected = torch.tensor([0, 1 / 0.04 - 1 / 0.32, 1 / 0.16 - 1 / 0.32])
    torch.testing.assert_close(sensitivity[0], expected, atol=1e-4, rtol=1e-4)
    weight = expected / expected.sum()
    centre = float((weight * torch.tensor([0.5, 1.5, 2.5])).sum())
    spread = float((weight * (torch.tensor([0.5, 1.5, 2.5]) - centre) ** 2).sum())
    assert found[0].tolist() == pytest.approx(
        [centre, 2.3548 * spread**0.5, np.log2(1 / 0.04 - 1 / 0.32)], rel=1e-3
    )
    between = torch.tensor([[[0.8, 0.6, 0.2, 0.1, 0.1]]])  # half of the way from .04 to .08
    assert channel(between, clean, torch.tensor([0.5]))[0].item() == pytest.approx(
        1 / (0.04 * 2**0.5) - 1 / NOISES[-1], rel=1e-3
    )
    assert channel(torch.full((1, 3, 5), 0.8), clean, torch.arange(3.0))[1].isnan().any()


def test_every_network_has_a_channel_and_its_shape_bias(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTBIAS_TABLES", str(tmp_path))
    table = noise_channels(study(), n_images=30, draws=50)
    assert rows(table, metric="sensitivity")["octave"].nunique() == 5
    bias = rows(table, metric="shape_bias").set_index("regime")["value"]
    assert bias.to_dict() == {"standard": 0.0, "robust": 1.0}
    assert {"centre", "width", "peak"} < set(table["metric"])
    assert "too few" in ood_generalization_report.explained(explained(table))
    assert len(ood_generalization_figures.noise_channels(table).axes) == 2


def test_a_bias_that_follows_the_centre_is_explained_by_the_channel_and_not_by_chance():
    generator = np.random.default_rng(0)
    made = []
    for i in range(20):
        centre, width, peak = generator.normal(size=3)
        values = {"centre": centre, "width": width, "peak": peak, "shape_bias": 0.1 * centre}
        regime = ("standard", "robust")[i % 2]
        about = {"network": f"n{i}", "architecture": f"a{i}", "regime": regime, "eps": 0.0}
        about |= {"octave": np.nan, "mean_over": None}
        made += [about | {"metric": m, "value": v} for m, v in values.items()]
    table = explained(pd.DataFrame(made), draws=500).set_index("predictors")
    assert table.loc["channel", "value"] == pytest.approx(1.0)
    assert table.loc["channel", "p"] == pytest.approx(1 / 501)
    assert table.loc["training (S or R)", "value"] < table.loc["training (S or R)", "null"]
    assert (table["n"] == 20).all()
    assert "R² = 1.00" in ood_generalization_report.explained(table.reset_index())


def test_published_cells_give_the_known_mean_corruption_errors():
    errors = published.mean_corruption_errors()
    assert errors["ResNet-50 (torchvision)"] == pytest.approx(76.4, abs=0.05)
    assert errors["ResNet-50, L2 eps 3"] == pytest.approx(83.6, abs=0.05)
    cells = published.corruptions()
    assert len(cells) == 2 * 75
    assert set(cells["corruption"]) == set(constants.NAMES)
    mean = cells.groupby(["corruption", "regime"])["value"].mean().unstack()
    ahead = mean.index[mean["robust"] > mean["standard"]]
    assert set(ahead) == {
        "glass_blur", "zoom_blur", "elastic_transform", "pixelate", "jpeg_compression"
    }  # fmt: skip


def test_the_figures_and_tables_take_the_measures_table(table):
    assert len(ood_generalization_figures.accuracy_by_distortion(table).axes) == 1
    assert len(ood_generalization_figures.distortion_readings(table).axes) == 3
    heat = ood_generalization_figures.corruption_heat(table)
    assert [ax.get_title() for ax in heat.axes[:2]] == ["AlexNet", "ResNet-50, ImageNet"]
    errors = ood_generalization_report.corruption_table(table)["mCE"]
    assert errors["AlexNet", "S (standard)"] == "100"
    assert set(ood_generalization_figures.judged(table)["metric"]) == {"top1"}
    entry = table[table["condition"].isin(["clean", "silhouettes"]) & (table["metric"] == "top1")]
    both = pd.concat([table, entry.assign(metric="entry_level", value=0.123)])
    read = ood_generalization_figures.judged(both).set_index("condition")["metric"]
    assert set(read[["clean", "silhouettes"]]) == {"entry_level"}
    assert set(read.drop(["clean", "silhouettes"])) == {"top1"}
    ax = ood_generalization_figures.accuracy_by_distortion(both).axes[0]
    clean = [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == ":"]
    assert clean == [0.123, 0.123]
    assert "toy" not in ood_generalization_report.reference(table)
    assert list(ood_generalization_report.texture_less(table).columns) == [
        "clean",
        "stylized",
        "silhouettes",
    ]
    assert ood_generalization_report.imagenet().loc["ResNet-50, L2 eps 3", "mCE"] == "83.6"
    assert "of 15" in ood_generalization_report.wins(table)


def test_the_answer_is_drawn_from_the_statements_and_the_mce_says_on_how_many_images(table):
    judged = claims.tested(table, "C2", "C2c")
    figure = ood_generalization_figures.effects(judged)
    accuracy, mce = figure.axes
    labels = [label.get_text() for label in accuracy.get_yticklabels()]
    assert labels[0] == "better on stylized images"
    assert [label.get_text() for label in mce.get_yticklabels()] == ["not better under corruptions"]
    centres = [line.get_xdata()[0] for line in accuracy.lines if line.get_marker() == "D"]
    assert centres == [c.interval.value for c in judged if c.primary and c.superiority]
    words = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert words == [claim.verdict for claim in judged if claim.primary]
    clean = rows(table, condition="clean", metric="top1")["n"].max()
    corrupted = rows(table, metric="mce")["n"].max()
    assert f"on {corrupted} of the {clean} held-out" in ood_generalization_report.reference(table)


def test_what_a_study_lacks_is_named_and_drawn_images_have_no_painter(table):
    assert ood_generalization_report.absent(table).endswith("edges, texture only.")
    assert "stylized" not in ood_generalization_report.absent(table)
    entry = toy_study.study().entry
    how = dataclasses.replace(entry, painting={"painters": ["tiny-imagenet-painter"]})
    assert "with a robust painter" in ood_generalization_report.stylized(toy_study.study(entry=how))
    assert "published" in ood_generalization_report.stylized(toy_study.study(entry=entry))
    drawn = dataclasses.replace(entry, world={"side": 8})
    assert ood_generalization_report.stylized(toy_study.study(entry=drawn)) is None


def test_wrong_requests_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTBIAS_TABLES", str(tmp_path))
    with pytest.raises(UserError, match="n_images 0"):
        ood(study(), n_images=0)
    small = toy_study.study(device=torch.device("cpu"))
    with pytest.raises(UserError, match="8 x 8"):
        ood(small, **FEW)


def test_an_attack_is_read_as_top1_alone_also_where_classes_are_grouped(tmp_path, monkeypatch):
    """Trap: an attack that leaves the class and not the category would look like robustness."""
    monkeypatch.setenv("ROBUSTBIAS_TABLES", str(tmp_path))
    grouped = torch.tensor([[1.0, 0], [1.0, 0], [0, 1.0]])
    monkeypatch.setattr(toy_study.Study, "membership", lambda study, network: grouped)
    table = ood(study(categories=("dog", "car")), **FEW)
    metrics = set(rows(table, condition="adversarial")["metric"])
    assert "top1_conditional" in metrics
    assert not any(metric.startswith("entry_level") for metric in metrics)
    assert "entry_level_relative" in set(rows(table, condition="greyscale")["metric"])
    by_class = table["metric"].str.startswith("top1")
    table = table[
        ~(by_class & (table["condition"] == "silhouettes"))
    ]  # they carry a category alone
    readings = ood_generalization_figures.judged(table).groupby("condition")["metric"].unique()
    assert list(readings["silhouettes"]) == ["entry_level"]
    assert list(readings["adversarial"]) == ["top1"]
    assert list(readings["greyscale"]) == ["entry_level"]


def test_images_of_no_category_leave_stimuli_a_clean_accuracy_by_category(tmp_path, monkeypatch):
    """Trap: held-out images are then scored by class alone, silhouettes by category alone."""
    monkeypatch.setenv("ROBUSTBIAS_TABLES", str(tmp_path))
    partial = torch.tensor([[1.0, 0], [0, 1.0], [0, 0]])  # no category has cars
    monkeypatch.setattr(toy_study.Study, "membership", lambda study, network: partial)

    class Drawings(Source):
        def silhouettes(self) -> Images:
            images = super().silhouettes()
            images = images.take((images.labels < 2).nonzero()[:, 0])
            return dataclasses.replace(images, classes=("dog", "cat"))

    table = ood(study(categories=("dog", "cat"), source=Drawings(60)), **FEW)
    metrics = {
        name: set(rows(table, condition=name)["metric"].str.removesuffix("_difference"))
        for name in ("silhouettes", "greyscale")
    }
    assert metrics["silhouettes"] == {"entry_level", "entry_level_relative"}
    assert metrics["greyscale"] == set(MEANINGS)
