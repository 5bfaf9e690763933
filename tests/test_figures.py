"""Figures have their tables' numbers, on white ground, and no image that must not be published."""

import itertools

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch

import toy_networks
import toy_study
from robustbias import plotting, training
from robustbias.adversarial_training import figures as adversarial_training_figures
from robustbias.adversarial_training.measure import (
    AdversarialExamples,
    accuracy,
    adversarial_examples,
    targeted_images,
)
from robustbias.ood_generalization import figures as ood_generalization_figures
from robustbias.shape_bias import figures as shape_bias_figures
from robustbias.shape_bias import published
from robustbias.shape_bias import report as shape_bias_report
from robustbias.shape_bias.measure import conflict_trials, displays, shape_bias
from robustbias.smooth_filters import figures as smooth_filters_figures
from robustbias.smooth_filters import report as smooth_filters_report
from robustbias.smooth_filters.measure import Responses
from robustbias.units_and_cues import figures as units_and_cues_figures
from robustbias.units_and_cues import report as units_and_cues_report
from robustbias.units_and_cues.attribution import Explained

pytestmark = pytest.mark.usefixtures("toy_networks_only")
mpl.use("Agg")
NETWORK = {"study": "toy", "architecture": "alexnet", "pair": True}
REGIMES = {"standard": "s", "robust": "r"}


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
    rows = table[(table["metric"] == "top1") & (table["network"] == "toy-r")]
    expected = rows.sort_values("attack_eps")["value"].tolist()
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
    series = [toy_networks.entry(name=name, size=64) for name in ("toy-s", "toy-r")]
    figure = shape_bias_figures.dose_response(bias, series)
    line = figure.axes[0].containers[0].lines[0]
    assert line.get_xdata().tolist() == [0.0, 0.5 * 224 / 64]
    (reference,) = [ln for ln in figure.axes[0].lines if "published" in str(ln.get_label())]
    expected = published.results("shape_bias", norm="l2", architecture="resnet50")["value"].max()
    assert max(reference.get_ydata()) == expected == pytest.approx(0.694981)
    alone = shape_bias_figures.dose_response(bias, [])
    assert [ln.get_label() for ln in alone.axes[0].lines] == [reference.get_label()]


@pytest.mark.parametrize("show", [True, False])
def test_hidden_images_are_not_in_the_figure(show):
    study = toy_study.study()
    examples = adversarial_examples(study, architecture="alexnet", n=3, steps=3)
    figure = adversarial_training_figures.adversarial_examples(examples, show_images=show)
    drawn_images = [image.get_array() for ax in figure.axes for image in ax.images]
    assert len(drawn_images) == (15 if show else 6)
    changed = {name: (labels != examples.labels).sum() for name, labels in
               examples.predictions.items()}  # fmt: skip
    assert f"S (standard): {changed['standard']} of 3" in repr(figure)
    clean = np.moveaxis(examples.clean.numpy(), 1, -1)
    is_photo = [np.abs(image - clean).max((1, 2, 3)).min() < 0.2 for image in drawn_images]
    assert any(is_photo) == show
    stimuli = displays(study)
    figure = shape_bias_figures.stimuli_with_decisions(
        stimuli, conflict_trials(study), architecture="alexnet", n=4, show_images=show
    )
    assert (figure is not None) == show
    if show:
        assert sum(len(ax.images) for ax in figure.axes) == 4
        assert any("R: dog" in text.get_text() for ax in figure.axes for text in ax.texts)


def test_every_mean_is_inside_its_panel_also_where_panels_share_an_axis():
    values = {"alexnet": (1.0, 1.1), "googlenet": (5.0, 5.5), "resnet50": (0.1, 0.2)}
    rows = pd.DataFrame(
        [
            {"architecture": name, "regime": "standard", "layer": f"stage {i}", "value": value,
             "low": value - 40, "high": value + 40}
            for name, both in values.items() for i, value in enumerate(both)
        ]
    )  # fmt: skip
    _, axes = plotting.layer_panels([rows], ["y"], {"standard": 0.0}, sharey="row")
    low, high = axes[0, 0].get_ylim()
    assert low < 0.1
    assert 5.5 < high < 40


def test_examples_are_images_both_networks_get_right_and_change_within_the_radius():
    study = toy_study.study()
    examples = adversarial_examples(study, architecture="alexnet", n=3, eps=0.4, steps=5)
    assert sorted(examples.labels.tolist()) == [0, 1, 2]
    for pixels in examples.attacked.values():
        assert (pixels - examples.clean).flatten(1).norm(dim=1).max() <= 0.4 + 1e-4
    with pytest.raises(ValueError, match="no 'vgg' networks in this study; here are: alexnet"):
        adversarial_examples(study, architecture="vgg")


def test_without_an_image_that_both_networks_classify_correctly_there_is_no_figure(monkeypatch):
    def nothing(network, images, batch):
        return torch.zeros(len(images), dtype=torch.bool)

    monkeypatch.setattr("robustbias.adversarial_training.measure.correct", nothing)
    examples = adversarial_examples(toy_study.study(), architecture="alexnet", n=3, steps=2)
    assert (len(examples.clean), examples.attacked) == (0, {})
    assert adversarial_training_figures.adversarial_examples(examples) is None


def test_an_attack_is_labelled_by_the_class_that_it_changed():
    pixels, label = torch.zeros(1, 3, 4, 4), torch.tensor([0])
    classes = ("n03977966", "n03796401")  # both are trucks
    other = {"standard": pixels}, {"standard": torch.tensor([1])}
    figure = adversarial_training_figures.adversarial_examples(
        AdversarialExamples(pixels, label, classes, *other), show_images=False
    )
    assert figure.axes[0].get_title() == "police van\n→ moving van"


def test_large_targeted_attacks_stay_in_their_radius_and_reach_their_class():
    study = toy_study.study()
    images = targeted_images(study, architecture="alexnet", n=3, radius=4.0, steps=20)
    assert images.labels.tolist() == [1, 2, 0]
    for regime, pixels in images.attacked.items():
        assert (pixels - images.clean).flatten(1).norm(dim=1).max() <= 2 + 1e-4
        assert pixels.min() >= 0
        assert pixels.max() <= 1
        assert (images.predictions[regime] == images.labels).float().mean() > 0.5
    grey = targeted_images(study, architecture="alexnet", n=3, steps=1, from_grey=True)
    assert (grey.clean - 0.5).abs().max() < 0.2
    figure = adversarial_training_figures.targeted_images(images)
    assert [ax.get_title() for ax in figure.axes[:3]] == ["→ cat", "→ car", "→ dog"]


def test_a_figure_is_svg_of_its_size_with_its_description_and_always_the_same(capsys):
    figures = []
    for _ in range(2):
        figure, axes = plotting.canvas(1, 3, panel=(3.4, 2.0))
        axes[0, 0].plot([1, 2])
        figures.append(figure.described("a rising line").svg())
    assert figures[0] == figures[1]
    assert f'width="{72 * plotting.WIDTH:g}pt" height="144pt"' in figures[0]
    figure._ipython_display_()
    assert "a rising line" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("id", "words"),
    [("features.9", "conv 4"), ("relu", "conv 1"), ("layer2", "stage 2"), ("conv3", "conv 3"),
     ("inception4c", "inception 4c")],
)  # fmt: skip
def test_layers_have_names_in_words(id, words):
    assert plotting.layer_name(id) == words


def test_training_records_draw_one_panel_per_pair():
    records = pd.DataFrame(
        {
            "network": ["s", "s", "r", "r"],
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


def test_networks_without_training_records_get_a_figure_and_a_sentence_that_say_so():
    records = training.records([])
    assert records.empty
    (ax,) = adversarial_training_figures.training_records(records).axes
    assert ax.texts[0].get_text() == "no data of these networks"
    assert "not recorded here" in shape_bias_report.training_lengths(records)


def test_figures_are_white_whatever_the_page(bias):
    with mpl.rc_context({"figure.facecolor": "black", "axes.facecolor": "black"}):
        figure = shape_bias_figures.shape_bias_summary(bias)
    assert figure.get_facecolor() == (1, 1, 1, 1)
    assert all(ax.get_facecolor() == (1, 1, 1, 1) for ax in figure.axes)


def test_s_and_r_differ_in_luminance_and_in_marker():
    """Relative luminances differ by at least 0.05, so that greyscale print distinguishes them."""

    def luminance(colour: str) -> float:
        channels = torch.tensor(mpl.colors.to_rgb(colour)) ** 2.2
        return float(channels @ torch.tensor([0.2126, 0.7152, 0.0722]))

    assert plotting.MARKERS["standard"] != plotting.MARKERS["robust"]
    difference = luminance(plotting.PALETTE["robust"]) - luminance(plotting.PALETTE["standard"])
    assert abs(difference) > 0.05


@pytest.mark.parametrize("show", [True, False])
def test_the_corruption_sheet_has_a_picture_for_every_cell_or_none_at_all(show):
    pixels = np.random.default_rng(0).random((2, 6, 8, 8, 3), dtype=np.float32)
    figure = ood_generalization_figures.corruption_sheet(
        pixels, ["fog", "jpeg_compression"], show_images=show
    )
    images = [ax.images[0].get_array() for ax in figure.axes if ax.images]
    assert len(images) == (12 if show else 0)
    if show:
        np.testing.assert_array_equal(images[7], pixels[1, 1])
    assert figure.axes[0].get_title() == "clean"
    assert figure.axes[6].get_ylabel() == "jpeg\ncompression"


def rows(regime: str, **columns) -> dict:
    network = {"network": REGIMES.get(regime, regime), "regime": regime}
    return {**NETWORK, **network, "scope": "layer", "sigma": None, "n": 5, **columns}


@pytest.fixture
def smooth() -> pd.DataFrame:
    kinds = [("filters", "tv_normalised", None), ("filters", "high_frequency_share", None),
             ("maps", "tv_normalised", None), ("maps", "tv_per_pixel", None),
             ("noise", "noise_gain", 0.08)]  # fmt: skip
    made = []
    for (condition, metric, sigma), layer in itertools.product(kinds, ("conv1", "conv2", None)):
        shared = {"condition": condition, "metric": metric, "sigma": sigma, "layer": layer}
        shared["scope"] = "layer" if layer else "network"
        value = {"conv1": 1.0, "conv2": 3.0}.get(layer)
        ratio = {"value": 0.5, "low": 0.4, "high": 0.9}
        made.append(rows("robust / standard", **shared, **ratio))
        if value:
            for regime, factor in (("standard", 2.0), ("robust", 1.0)):
                ends = {"value": factor * value, "low": 0.5 * value, "high": 3 * value}
                made.append(rows(regime, **shared, **ends))
    return pd.DataFrame(made)


def test_smoothness_is_drawn_by_layer(smooth):
    figure = smooth_filters_figures.smoothness_by_layer(smooth)
    assert drawn(figure.axes[0]) == {"S (standard)": [2.0, 6.0], "R (robust)": [1.0, 3.0]}
    gain = drawn(smooth_filters_figures.noise_gain(smooth).axes[0])
    assert gain["R (robust), noise 0.08"] == [1.0, 3.0]


def test_the_smoothness_table_shows_the_first_layer_and_the_mean_of_all(smooth):
    table = smooth_filters_report.smoothness_table(smooth)
    assert list(table.index) == [("AlexNet", "first"), ("AlexNet", "all (geometric mean)")]
    assert (table == "0.50 [0.40, 0.90]").all(axis=None)


def test_first_filters_are_stretched_around_grey():
    weights = torch.zeros(3, 3, 5, 5)
    weights[0, 0, 2, 2], weights[1, :, 0, 0] = -2.0, 0.1
    weights[2] = 1.0
    figure = smooth_filters_figures.first_filters({("alexnet", "standard"): weights}, columns=2)
    pictures = [ax.images[0].get_array() for ax in figure.axes if ax.images]
    assert len(pictures) == 3
    assert pictures[0][2, 2].tolist() == [0.0, 0.5, 0.5]
    assert pictures[1][0, 0].tolist() == [1.0, 1.0, 1.0]


def test_responses_show_the_image_and_the_maps_of_both_networks():
    maps = {regime: torch.rand(2, 4, 4) for regime in REGIMES}
    units = {regime: torch.tensor([3, 1]) for regime in REGIMES}
    pixels = torch.rand(3, 8, 8)
    examples = Responses("conv1", 0.08, pixels, pixels, maps, maps, units)
    figure = smooth_filters_figures.responses(examples)
    sides = [ax.images[0].get_array().shape[0] for ax in figure.axes if ax.images]
    assert sides.count(8) == 4
    assert sides.count(4) == 8


@pytest.fixture
def scores() -> pd.DataFrame:
    metrics = {"shape_share": 0.5, "texture_share": 0.25, "relative_generality": 0.9}
    made = []
    for regime, scope in itertools.product(REGIMES, ("layer", "network")):
        layer = "conv1" if scope == "layer" else None
        made += [
            rows(regime, scope=scope, layer=layer, metric=metric, value=value, low=0.1, high=1.0)
            for metric, value in metrics.items()
        ]
    for regime, kind in itertools.product(REGIMES, ("shape", "texture", "clean")):
        value = {"metric": f"{kind}_margin", "value": 0.3, "low": 0.2, "high": 0.4}
        made.append(rows(regime, scope="network", **value))
    for regime, cue in itertools.product(REGIMES, ("shape", "texture")):
        made.append(rows(regime, layer="conv1", metric=f"{cue}_all_silenced", value=0.0))
        for unit in (0, 1):
            one = {"scope": "unit", "layer": "conv1", "unit": unit}
            made.append(rows(regime, **one, metric=f"{cue}_alone", value=0.2 + 0.2 * unit))
            made.append(rows(regime, **one, metric=f"{cue}_share", value=0.5 * unit))
    return pd.DataFrame(made)


@pytest.fixture
def crossed() -> pd.DataFrame:
    return pd.DataFrame(
        [
            rows(regime, detects=detects, metric=metric, value=value, low=0.0, high=1.0)
            for regime in REGIMES
            for detects, value in (("texture", 0.8), ("no concept", 0.5), (None, 0.6))
            for metric in ("serves_shape", "serves_texture", "shape_share", "shape_part")
        ]
    )


def test_scores_are_drawn_by_layer_and_shapes_part_by_what_units_detect(scores, crossed):
    figure = units_and_cues_figures.scores(scores, crossed)
    values = [drawn(ax)["R (robust)"] for ax in figure.axes]
    assert values == [[0.5], [0.25], [0.9], [0.8, 0.5]]
    assert "AlexNet: S (standard) 0.80, R (robust) 0.80" in repr(figure)


def test_scores_by_layer_follow_the_order_of_the_network(crossed):
    values = {"stem": 0.3, "middle": 0.2, "end": 0.1}  # from the first layer to the last
    metrics = ("shape_share", "texture_share", "relative_generality")
    units = [
        rows(regime, scope="unit", layer=layer, unit=0, metric="shape_share", value=0.0)
        for regime, layer in itertools.product(REGIMES, values)
    ]
    means = [
        rows(regime, layer=layer, metric=metric, value=values[layer], low=0.0, high=1.0)
        for regime, layer, metric in itertools.product(REGIMES, sorted(values), metrics)
    ]
    figure = units_and_cues_figures.scores(pd.DataFrame(means + units), crossed)
    for ax in figure.axes[:3]:
        assert drawn(ax)["S (standard)"] == [0.3, 0.2, 0.1]


def test_margins_and_units_by_what_they_detect_are_tabulated(scores, crossed):
    margins = units_and_cues_report.margins(scores)
    assert margins.index[0] == ("AlexNet", "S (standard)", 5)
    summary = units_and_cues_report.cue_unit_table(crossed)
    order = ["texture", "no concept", "all"]
    assert list(summary.index.get_level_values("detects")) == 2 * order
    assert (summary["units"] == 5).all()


def test_attribution_is_drawn_by_region_and_says_when_it_is_not_there():
    made = [
        rows(regime, method="saliency", region=region, metric="concentration",
             value=value, low=0.0, high=3.0)
        for regime in REGIMES
        for region, value in (("inside", 2.0), ("contour", 1.5), ("outside", 0.5))
    ]  # fmt: skip
    gap = {"metric": "completeness_error", "method": "integrated gradients"}
    made.append(rows("standard", **gap, value=0.031, low=0.0, high=0.1))
    table = pd.DataFrame(made)
    (ax,) = units_and_cues_figures.attribution_regions(table[table["region"].notna()]).axes
    assert drawn(ax)["S (standard)"] == [2.0, 1.5, 0.5]
    assert "3.1 % at most (AlexNet, S (standard)" in units_and_cues_report.attribution(table)
    empty = table.iloc[:0]
    assert "without masks" in units_and_cues_report.attribution(empty)


def test_attribution_maps_have_the_stimulus_and_one_map_per_regime():
    masks = torch.zeros(2, 6, 6, dtype=torch.bool)
    masks[:, 2:4, 2:4] = True
    explained = Explained(
        torch.rand(2, 3, 6, 6),
        masks,
        ["dog shape", "cat shape"],
        {regime: torch.rand(2, 6, 6) for regime in REGIMES},
        {regime: ["dog", "cat"] for regime in REGIMES},
    )
    figure = units_and_cues_figures.attribution_maps(explained)
    assert [len(ax.images) for ax in figure.axes] == [1] * 6
    assert figure.axes[2].get_title() == "→ dog"
