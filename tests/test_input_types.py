"""Types of inputs per unit on activations made by hand, and what claims and figures show of it."""

import math

import matplotlib as mpl
import pandas as pd
import pytest
import torch
from torch import nn

import test_dissection
import toy_networks
import toy_study
from robustbias import claims
from robustbias.concepts import figures as concepts_figures
from robustbias.concepts import report as concepts_report
from robustbias.concepts.measure import concept_set, dissection, unit_examples
from robustbias.concepts.measure import labels as unit_labels
from robustbias.images import CueConflict, Images, floats
from robustbias.input_types import figures as input_types_figures
from robustbias.input_types import measure
from robustbias.input_types import report as input_types_report
from robustbias.input_types.measure import (
    effective_classes,
    features,
    input_types,
    mean_distance,
    top_images,
)
from robustbias.networks.hooks import peaks
from robustbias.utils import MissingData, UserError

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _tables(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTBIAS_TABLES", str(tmp_path))


# six images; unit 0 likes the first four, 1 the last two, 2 nothing, 3 a single one
PEAKS = torch.tensor(
    [
        [9.0, 0.0, 0.0, 0.0],
        [8.0, 0.0, 0.0, 0.0],
        [7.0, 0.0, 0.0, 5.0],
        [6.0, 0.0, 0.0, 0.0],
        [1.0, 3.0, 0.0, 0.0],
        [0.0, 2.0, 0.0, 0.0],
    ]
)
LABELS = torch.tensor([0, 0, 1, 2, 3, 3])


def test_top_images_are_the_largest_and_units_respond_only_above_their_least():
    index, active = top_images(PEAKS, 4)
    assert index[0].tolist() == [0, 1, 2, 3]
    assert active.sum(1).tolist() == [4, 2, 0, 1]
    assert set(index[1, :2].tolist()) == {4, 5}


def test_the_effective_number_of_classes_is_the_exponential_of_the_entropy():
    found = effective_classes(LABELS, *top_images(PEAKS, 4))
    entropy = -(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25))
    assert found[0] == pytest.approx(math.exp(entropy))
    assert found[1] == pytest.approx(1.0)
    assert found[2:].isnan().all()


def test_one_class_gives_one_and_as_many_as_images_give_as_many():
    index, active = torch.arange(5)[None], torch.ones(1, 5, dtype=torch.bool)
    assert effective_classes(torch.zeros(5).long(), index, active).item() == pytest.approx(1)
    assert effective_classes(torch.arange(5), index, active).item() == pytest.approx(5)


def test_the_distance_is_that_of_all_pairs_written_out():
    seen = nn.functional.normalize(torch.randn(6, 3, generator=torch.Generator().manual_seed(0)))
    index, active = top_images(PEAKS, 4)
    found = mean_distance(seen, index, active)

    def mean(images):
        pairs = [(i, j) for i in images for j in images if i != j]
        return sum(1 - float(seen[i] @ seen[j]) for i, j in pairs) / len(pairs)

    assert found[0] == pytest.approx(mean([0, 1, 2, 3]) / mean(range(6)), rel=1e-5)
    assert found[1] == pytest.approx(mean([4, 5]) / mean(range(6)), rel=1e-5)
    assert found[2:].isnan().all()
    everything = torch.arange(6)[None], torch.ones(1, 6, dtype=torch.bool)
    assert mean_distance(seen, *everything).item() == pytest.approx(1.0)


def test_peaks_are_the_largest_activation_anywhere_and_features_have_length_one():
    net = toy_networks.network(layers=("features.1", "features.4"))
    pixels = torch.randint(0, 256, (9, 3, 64, 64), dtype=torch.uint8)
    found = peaks(net, pixels, ["features.1"], batch=4)["features.1"]
    with torch.no_grad():
        maps = net.body.features[:2]((floats(pixels) - net.mean) / net.std)
    torch.testing.assert_close(found, maps.amax((2, 3)))
    seen = features(net, pixels, batch=4)
    torch.testing.assert_close(seen.norm(dim=1), torch.ones(9))


def test_classes_are_those_of_the_cue_that_a_unit_follows(monkeypatch):
    """In cue conflicts the label of one cue does not tell that of the other."""
    made = study(monkeypatch)
    val = made.source.val()
    texture = torch.arange(len(val)) % 3

    def cue_conflict(size):
        return CueConflict(val.pixels, val.labels, texture, ("dog", "cat", "car"), val.names)

    made.source.cue_conflict = cue_conflict
    table = input_types(made, k=8, n_images=64, draws=50)
    units = table[(table["scope"] == "unit") & (table["network"] == "toy-r")]
    wide = units.pivot(index=["layer", "unit"], columns="metric", values="value").dropna()
    smaller = wide[["effective_shapes", "effective_textures"]].min(axis=1)
    assert len(wide) > 2
    assert wide["effective_classes"].to_list() == pytest.approx(smaller.to_list())
    chance = table[table["metric"] == "effective_classes_chance"].iloc[0]
    assert chance["value"] <= 3


@pytest.mark.parametrize("k", [0, 1, 7])
def test_k_out_of_range_is_refused(k):
    with pytest.raises(UserError, match=f"k = {k} top images of 6"):
        top_images(PEAKS, k)


class Source(test_dissection.Source):
    """Validation images are those of the concept set, labelled by the colour of their square."""

    def val(self):
        return Images(self.images.pixels, torch.arange(64) % 4, ("a", "b", "c", "d"))

    def cue_conflict(self, size):
        raise MissingData("no cue conflicts: classes are counted on validation images")


def study(monkeypatch) -> toy_study.Study:
    made = test_dissection.planted_study(monkeypatch)
    made.source = Source()
    return made


@pytest.fixture
def table(monkeypatch) -> pd.DataFrame:
    return input_types(study(monkeypatch), k=8, draws=50)


def test_the_planted_unit_responds_to_images_of_one_class(table):
    own = table[(table["network"] == "toy-r") & (table["layer"] == "relu") & (table["unit"] == 0)]
    values = own.set_index("metric")["value"]
    assert values["effective_classes"] == pytest.approx(1.0)


def test_the_table_is_tidy_and_names_the_judge(table):
    means = table[table["scope"].isin(["layer", "network"])]
    assert (means["low"] <= means["value"] + 1e-6).all()
    assert (means["value"] <= means["high"] + 1e-6).all()
    assert set(table["judge"].dropna()) == {"an untrained network"}  # no other architecture here
    assert "distance_robust" not in set(table["metric"])
    dead = table[(table["network"] == "toy-s") & (table["unit"] == 5) & (table["layer"] == "relu")]
    assert set(dead["metric"]) == {"concepts"}
    assert dead["value"].tolist() == [0.0]
    chance = table[table["scope"] == "study"]
    assert 2.5 < chance["value"].item() < 4


def test_concepts_of_detectors_leave_out_units_without_any(table):
    own = table[(table["network"] == "toy-r") & (table["scope"] == "unit")]
    concepts = own[own["metric"] == "concepts"]["value"]
    means = table[(table["network"] == "toy-r") & (table["scope"] == "network")]
    mean = means.set_index("metric").loc["concepts_of_detectors"]
    assert 0 < mean["n"] == (concepts > 0).sum() < len(concepts)
    net = own[own["metric"] == "concepts_of_detectors"]["value"]
    assert mean["value"] == pytest.approx(net.mean())
    assert (net.to_numpy() <= concepts[concepts > 0].to_numpy()).all()


def test_concepts_that_masks_of_other_images_give_as_well_do_not_count(monkeypatch):
    made = study(monkeypatch)
    low = 1e-3  # at the usual threshold no other mask matches here
    table = input_types(made, k=8, draws=50, threshold=low)
    found = dissection(made, threshold=low)
    keys = ["network", "layer", "unit"]
    met = found[(found["metric"] == "iou") & (found["value"] > low)].groupby(keys).size()
    null = found[found["metric"] == "null_concepts"].set_index(keys)["value"]
    net = table[(table["scope"] == "unit") & (table["metric"] == "concepts_of_detectors")]
    expected = (met - null).dropna()
    actual = net.set_index(keys)["value"]
    assert null.max() > 0  # else nothing is tested
    assert actual.sort_index().to_dict() == expected.sort_index().to_dict()


def test_conflicts_in_a_pose_of_their_own_come_before_those_that_decide(monkeypatch):
    made = study(monkeypatch)
    val = made.source.val()
    names = ("dog", "cat", "car", "bear")
    own = CueConflict(val.pixels, val.labels, (val.labels + 1) % 4, names, ())
    made.source.separate_cues = lambda: own
    pixels, labels, kind = measure._counted(made, val, 8)
    assert torch.equal(pixels, own.pixels)
    assert torch.equal(labels[1], own.texture)
    assert kind == "categories"


def test_wrong_requests_are_refused(monkeypatch):
    with pytest.raises(UserError, match="k = 100 top images of 64"):
        input_types(study(monkeypatch), k=100)
    with pytest.raises(UserError, match="n_images is 0"):
        input_types(study(monkeypatch), n_images=0)


def test_c5_is_judged_by_what_the_table_says_of_all_layers(table):
    found = {claim.id: claim for claim in claims.tested(table, "C5").claims}
    assert set(found) == {"C5.classes", "C5.distance"}  # no unit of toy-s detects a concept
    assert found["C5.distance"].condition == "judged by an untrained network"
    difference = table[(table["regime"] == "robust - standard") & (table["scope"] == "network")]
    row = difference[difference["metric"] == "effective_classes"].iloc[0]
    assert found["C5.classes"].interval.value == row["value"]
    assert not found["C5.classes"].above


def test_figures_and_summaries_show_the_tables_numbers(monkeypatch, table):
    made = study(monkeypatch)
    dissected = dissection(made, draws=50)
    labels, images = unit_labels(dissected), concept_set(made)
    figure = concepts_figures.detectors(dissected, ["color"])
    own = dissected[(dissected["metric"] == "detectors") & (dissected["category"] == "color")]
    own = own[(own["network"] == "toy-r") & (own["scope"] == "layer")]
    lines = {c.get_label(): c.lines[0].get_ydata().tolist() for c in figure.axes[0].containers}
    assert lines["R (robust)"] == own["value"].tolist()
    assert figure.axes[1].get_xlabel() == "best IoU of a unit"
    (ax,) = input_types_figures.classes_by_layer(table).axes
    assert ax.get_ylabel().startswith("effective classes")
    chosen = {"architecture": "alexnet", "categories": ["color"], "k": 3}
    examples = unit_examples(made, dissected, labels, images, **chosen)
    assert examples.pixels.shape == (2, 3, 3, 16, 16)
    shown = concepts_figures.unit_examples(examples)
    hidden = concepts_figures.unit_examples(examples, show_images=False)
    for figure, grey in ((shown, False), (hidden, True)):
        picture = figure.axes[0].images[0].get_array()
        assert bool((picture == picture[..., :1]).all()) == grey
    assert "red" not in concepts_report.ceilings(dissected)
    assert "1 concepts" not in concepts_report.ceilings(dissected)
    assert "concepts" in concepts_report.detectors(dissected)
    assert next(iter(concepts_report.null_labels(dissected))) == "color"
    assert "distance by an untrained network" in input_types_report.input_types_table(table)
    assert "8 images drawn at random" in input_types_report.feature_extractors(table)
    with pytest.raises(UserError, match="no 'vgg' networks"):
        unit_examples(made, dissected, labels, images, architecture="vgg")
    with pytest.raises(UserError, match="k = 65 top images of 64"):
        unit_examples(made, dissected, labels, images, architecture="alexnet", k=65)
