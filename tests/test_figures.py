"""Figures show their tables' numbers, on white ground, and no image that must not be shown."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch

import toy_study
from robustbias import plotting
from robustbias.adversarial_training import figures as adversarial_training_figures
from robustbias.adversarial_training.measure import accuracy, adversarial_examples
from robustbias.ood_generalization import figures as ood_generalization_figures
from robustbias.shape_bias import figures as shape_bias_figures
from robustbias.shape_bias import published, trials
from robustbias.shape_bias.measure import shape_bias
from robustbias.shape_bias.trials import conflict_trials, displays

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _toy(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTBIAS_TABLES", str(tmp_path))
    monkeypatch.setattr(
        trials.zoo, "untrained", lambda entry, seed: toy_study.HalfLooker("left", 0.0)
    )


@pytest.fixture
def bias() -> pd.DataFrame:
    return shape_bias(toy_study.study(), draws=50)


def drawn(ax) -> dict[str, list[float]]:
    """Values of each labelled errorbar or line of an axes."""
    lines = {c.get_label(): c.lines[0] for c in ax.containers}
    lines |= {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}
    return {label: np.asarray(line.get_ydata()).tolist() for label, line in lines.items()}


def test_the_accuracy_curve_draws_the_measured_values():
    table = accuracy(toy_study.study(), n_images=20, steps=3)
    figure = adversarial_training_figures.accuracy_curve(table)
    (ax,) = figure.axes
    own = table[(table["metric"] == "top1") & (table["network"] == "toy-r")]
    expected = own[own["steps"] != 6].sort_values("attack_eps")["value"].tolist()
    assert drawn(ax)["R (robust)"] == expected
    assert ax.get_title() == "AlexNet"


def test_shape_bias_figures_draw_s_and_r(bias):
    for figure in (
        shape_bias_figures.shape_bias_by_category(bias),
        shape_bias_figures.shape_bias_summary(bias),
    ):
        assert {"S (standard)", "R (robust)"} <= set(drawn(figure.axes[0]))
    assert drawn(shape_bias_figures.shape_bias_summary(bias).axes[0])["R (robust)"] == [1.0]


def test_the_dose_response_is_scaled_to_the_side_of_imagenet(bias):
    figure = shape_bias_figures.dose_response(bias, architecture="alexnet", side=64)
    line = figure.axes[0].containers[0].lines[0]
    assert line.get_xdata().tolist() == [0.0, 0.5 * 224 / 64]
    (reference,) = [ln for ln in figure.axes[0].lines if "published" in str(ln.get_label())]
    known = published.results("shape_bias", norm="l2", architecture="resnet50")
    assert max(reference.get_ydata()) == known["value"].max() == pytest.approx(0.694981)


@pytest.mark.parametrize("show", [True, False])
def test_hidden_images_are_not_in_the_figure(show):
    study = toy_study.study()
    examples = adversarial_examples(study, architecture="alexnet", n=3, steps=3)
    figure = adversarial_training_figures.adversarial_examples(examples, show_images=show)
    drawn_images = [image.get_array() for ax in figure.axes for image in ax.images]
    assert len(drawn_images) == (15 if show else 6)
    clean = np.moveaxis(examples.clean.numpy(), 1, -1)
    is_photo = [np.abs(image - clean).max((1, 2, 3)).min() < 0.2 for image in drawn_images]
    assert any(is_photo) == show
    stimuli = displays(study)
    shown = shape_bias_figures.stimuli_with_decisions(
        stimuli, conflict_trials(study), architecture="alexnet", n=4, show_images=show
    )
    assert sum(len(ax.images) for ax in shown.axes) == 4 * show
    assert any("R: dog" in text.get_text() for ax in shown.axes for text in ax.texts)


def test_examples_are_images_both_networks_get_right_and_change_within_the_radius():
    study = toy_study.study()
    examples = adversarial_examples(study, architecture="alexnet", n=3, eps=0.4, steps=5)
    assert sorted(examples.labels.tolist()) == [0, 1, 2]
    for pixels in examples.attacked.values():
        assert (pixels - examples.clean).flatten(1).norm(dim=1).max() <= 0.4 + 1e-4
    with pytest.raises(ValueError, match="no 'vgg' networks in this study; here are: alexnet"):
        adversarial_examples(study, architecture="vgg")


def test_training_records_draw_a_panel_a_pair():
    records = pd.DataFrame(
        {
            "architecture": "alexnet",
            "regime": ["standard", "standard", "robust", "robust"],
            "epoch": [1, 2, 1, 2],
            "clean": [0.5, 0.9, 0.4, 0.7],
            "adversarial": [np.nan, 0.0, 0.2, 0.5],
        }
    )
    values = drawn(adversarial_training_figures.training_records(records).axes[0])
    assert values["R (robust), under attack"] == [0.2, 0.5]
    assert values["S (standard), under attack"] == [0.0]


def test_every_figure_has_its_own_white_ground_whatever_the_page(bias):
    with mpl.rc_context({"figure.facecolor": "black", "axes.facecolor": "black"}):
        figure = shape_bias_figures.shape_bias_summary(bias)
    assert figure.get_facecolor() == (1, 1, 1, 1)
    assert all(ax.get_facecolor() == (1, 1, 1, 1) for ax in figure.axes)


def test_s_and_r_differ_in_luminance_and_in_marker():
    """Told apart in greyscale print: relative luminances at least 0.05 apart."""

    def luminance(colour: str) -> float:
        channels = torch.tensor(mpl.colors.to_rgb(colour)) ** 2.2
        return float(channels @ torch.tensor([0.2126, 0.7152, 0.0722]))

    assert plotting.MARKERS["standard"] != plotting.MARKERS["robust"]
    apart = luminance(plotting.PALETTE["robust"]) - luminance(plotting.PALETTE["standard"])
    assert abs(apart) > 0.05


@pytest.mark.parametrize("show", [True, False])
def test_the_corruption_sheet_has_a_picture_for_every_cell_or_none_at_all(show):
    pixels = np.random.default_rng(0).random((2, 6, 8, 8, 3), dtype=np.float32)
    figure = ood_generalization_figures.corruption_sheet(
        pixels, ["fog", "jpeg_compression"], show_images=show
    )
    shown = [ax.images[0].get_array() for ax in figure.axes if ax.images]
    assert len(shown) == (12 if show else 0)
    if show:
        np.testing.assert_array_equal(shown[7], pixels[1, 1])
    assert figure.axes[0].get_title() == "clean"
    assert figure.axes[6].get_ylabel() == "jpeg\ncompression"
