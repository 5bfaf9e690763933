"""Silenced units against cut weights, scores against hand counts."""

import itertools

import pandas as pd
import pytest
import torch
from torch import nn

import toy_networks
import toy_study
from robustbias import claims
from robustbias.images import CueConflict, Images
from robustbias.networks import hooks, zoo
from robustbias.units_and_cues.ablation import (
    generality,
    matched_sample,
    spread_sample,
    unit_answers,
)
from robustbias.units_and_cues.measure import ablation, cue_units
from robustbias.utils import UserError

PIXELS = torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))
LAYERS = {"alexnet": "features.4", "googlenet": "inception4e", "resnet50": "layer3"}


@pytest.fixture(autouse=True)
def _tables(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTBIAS_TABLES", str(tmp_path))


def code(logits: torch.Tensor) -> torch.Tensor:
    """An integer that tells logits apart, so that equal answers mean equal logits."""
    return (logits * 1e3 * torch.arange(1, logits.shape[1] + 1)).sum(1).round().long()


def network_of(architecture: str) -> zoo.Network:
    network = toy_networks.network(architecture=architecture, layers=(LAYERS[architecture],))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for module in network.modules():  # statistics and a classifier that make answers differ
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.2, 0.2)
            if isinstance(module, nn.Linear):
                module.weight.data.normal_()
    return network


def near(answers: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool(((answers - expected).abs() <= 20 + 1e-4 * expected.abs()).all())


@pytest.mark.parametrize("architecture", LAYERS)
@torch.no_grad()
def test_a_silenced_unit_is_an_edit_of_the_whole_network(architecture):
    network, layer = network_of(architecture), LAYERS[architecture]
    activations = hooks.prefix(network, layer, PIXELS)
    for alone in (False, True):
        answers = unit_answers(network, layer, activations, code, alone=alone, chunk=7)
        assert answers.shape == (activations.shape[1], 5)
        for unit in range(0, len(answers), 3):
            keep = torch.full((activations.shape[1],), float(not alone))
            keep[unit] = float(alone)
            with hooks.edited(network, layer, lambda a, keep=keep: a * keep[:, None, None]):
                assert near(answers[unit], code(network(PIXELS)))


@pytest.mark.parametrize(
    ("architecture", "layer", "linear"),
    [("googlenet", "inception5b", True), ("resnet50", "layer4", True),
     ("resnet50", "layer3", False), ("alexnet", "features.11", False)],
)  # fmt: skip
@torch.no_grad()
def test_the_last_layers_answers_follow_from_its_means_without_the_network(
    architecture, layer, linear, monkeypatch
):
    network = network_of(architecture)
    assert (hooks.linear_head(network, layer) is not None) == linear
    activations = hooks.prefix(network, layer, PIXELS)
    closed = [unit_answers(network, layer, activations, code, alone=a) for a in (False, True)]
    monkeypatch.setattr(hooks, "linear_head", lambda *_: None)
    for alone, answers in zip((False, True), closed, strict=True):
        assert near(answers, unit_answers(network, layer, activations, code, alone=alone))


def cut(network: zoo.Network, layer: str, unit: int) -> None:
    """Sets the weights that lead out of a unit to zero, in the modules that read the layer."""
    following = {
        "features.4": ["features.6"],
        "conv3": ["inception3a.branch1.conv", "inception3a.branch2.0.conv",
                  "inception3a.branch3.0.conv", "inception3a.branch4.1.conv"],
        "layer2": ["layer3.0.conv1", "layer3.0.downsample.0"],
    }  # fmt: skip
    for name in following[layer]:
        network.body.get_submodule(name).weight[:, unit] = 0


@pytest.mark.parametrize(
    ("architecture", "layer"),
    [("alexnet", "features.4"), ("googlenet", "conv3"), ("resnet50", "layer2")],
)
@torch.no_grad()
def test_silencing_a_unit_equals_cutting_its_outgoing_weights(architecture, layer):
    """Also through a max pool, since all activations are at least 0."""
    network = network_of(architecture)
    activations = hooks.prefix(network, layer, PIXELS)
    answers = unit_answers(network, layer, activations, code)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    for unit in range(0, len(answers), 2):
        cut(network, layer, unit)
        assert near(answers[unit], code(network(PIXELS)))
        network.load_state_dict(state)


@torch.no_grad()
def test_a_unit_that_is_silent_already_changes_nothing():
    network, layer = network_of("alexnet"), "features.4"
    activations = hooks.prefix(network, layer, PIXELS)
    activations[:, 1] = 0
    answers = unit_answers(network, layer, activations, code)
    assert torch.equal(answers[1], code(hooks.resumed(network, layer, activations)))
    left = unit_answers(network, layer, activations, code, alone=True)
    nothing = code(hooks.resumed(network, layer, torch.zeros_like(activations[:1])))
    assert torch.equal(left[1], nothing.expand(5))


def test_a_unit_or_layer_that_does_not_exist_is_refused():
    network = network_of("alexnet")
    activations = hooks.prefix(network, "features.4", PIXELS).detach()
    with pytest.raises(UserError, match="has units 0 to 9; asked for 3 to 10"):
        unit_answers(network, "features.4", activations, code, units=torch.tensor([3, 10]))
    with pytest.raises(UserError, match="no layer 'conv99'"):
        unit_answers(network, "conv99", activations, code)


def test_a_sample_is_spread_over_shape_images():
    names = tuple(f"dog{k}-cat{t}" for k in (1, 2, 3) for t in range(1, 6))
    among = torch.arange(15)
    drawn = spread_sample(names, among, 6, torch.Generator().manual_seed(0))
    assert sorted(names[i].split("-")[0] for i in drawn.tolist()) == sorted(
        ["dog1", "dog2", "dog3"] * 2
    )
    assert len(set(drawn.tolist())) == 6
    with pytest.raises(UserError, match="16 stimuli asked for, but only 15"):
        spread_sample(names, among, 16, torch.Generator())


def test_a_matched_sample_takes_the_nearest_value_once():
    among = torch.tensor([10, 11, 12, 13])
    values = torch.tensor([0.1, 0.5, 0.52, 0.9])
    assert matched_sample(torch.tensor([0.51, 0.53]), values, among).tolist() == [11, 12]
    assert set(matched_sample(torch.tensor([0.95, 0.95]), values, among).tolist()) == {12, 13}
    with pytest.raises(UserError, match="5 matches asked for, but only 4"):
        matched_sample(torch.rand(5), values, among)


def test_generality_is_one_for_both_cues_alike_and_zero_for_one_alone():
    value, _ = generality(torch.tensor([4, 4, 0, 3, 0]), torch.tensor([4, 0, 2, 1, 0]), 4)
    assert value[:4].tolist() == [1.0, 0.0, 0.0, 0.5]
    assert value[4].isnan()
    with pytest.raises(UserError, match="more changed decisions than the 3 images"):
        generality(torch.tensor([4]), torch.tensor([0]), 3)


@pytest.mark.parametrize("changes", [1, 2, 3, 5])
def test_the_null_of_generality_is_the_mean_over_all_ways_to_deal_the_changes(changes):
    size, total = 3, []
    for images in itertools.combinations(range(2 * size), changes):
        s = sum(image < size for image in images)
        total.append(1 - abs(2 * s - changes) / changes)
    shape = torch.tensor([changes // 2])
    _, null = generality(shape, changes - shape, size)
    assert null.item() == pytest.approx(sum(total) / len(total), abs=1e-6)


class TwoCues(nn.Module):
    """Eight units: of each of three channels the left and the right half, then two silent ones."""

    def forward(self, pixels):
        left, right = pixels[..., :4], pixels[..., 4:]
        return torch.cat([left.relu(), right.relu(), 0 * left[:, :2]], 1)


def looker(name: str, regime: str, share: float) -> zoo.Network:
    """Logits = share * left + (1 - share) * right channel means, through the layer `cues`."""
    entry = toy_networks.entry(
        name=name, classes=3, layers=("cues",), mean=(0.0,) * 3, std=(1.0,) * 3, regime=regime,
        norm="l2" if regime == "robust" else "none", eps=0.5 if regime == "robust" else 0.0,
    )  # fmt: skip
    read = nn.Linear(8, 3, bias=False)
    read.weight.data = 40 * torch.cat(
        [share * torch.eye(3), (1 - share) * torch.eye(3), torch.zeros(3, 2)], 1
    )
    body = nn.Sequential()
    body.add_module("cues", TwoCues())
    body.add_module("pool", nn.AdaptiveAvgPool2d(1))
    body.add_module("flatten", nn.Flatten())
    body.add_module("read", read)
    return zoo.Network(entry, body, f"{name} {share}").eval()


class Source(toy_study.Source):
    """Stimuli whose cues differ in strength, so that a mixed reader follows now one, now both."""

    def cue_conflict(self, size: int) -> CueConflict:
        cues = [(s, k, t) for s in range(3) for k in (1, 2) for t in range(3)]
        shape, texture = (torch.tensor([cue[i] for cue in cues]) for i in (0, 2))
        names = tuple(
            f"{toy_study.CATEGORIES[s]}{k}-{toy_study.CATEGORIES[t]}{k}" for s, k, t in cues
        )
        strong = torch.tensor([150.0 if cue[1] == 1 else 30.0 for cue in cues])
        left = toy_study.halves(shape, shape, strong)
        right = toy_study.halves(texture, texture, 180 - strong)
        pixels = torch.cat([left[..., :4], right[..., 4:]], 3)
        return CueConflict(pixels, shape, texture, toy_study.CATEGORIES, names)


@pytest.fixture
def study():
    networks = {"s": looker("s", "standard", 0.45), "r": looker("r", "robust", 0.55)}
    return toy_study.study(
        source=Source(), networks=networks, entries=[net.entry for net in networks.values()]
    )


def test_scores_are_counts_of_changed_decisions(study):
    table = ablation(study, n_each=4, draws=100)
    own = table[(table["network"] == "r") & (table["scope"] == "unit")]
    wide = own.pivot(index="unit", columns="metric", values="value")
    assert set(own["n"]) == {4}
    # silencing the left half's channel c can only change decisions for c by shape, and so on
    network, stimuli = study.networks["r"], study.source.cue_conflict(8)
    plain = network(stimuli.pixels / 255).argmax(1)
    by_shape = (plain == stimuli.shape) & (stimuli.shape != stimuli.texture)
    assert by_shape.sum() >= 4
    assert wide.loc[:2, "shape_score"].sum() > 0
    assert (wide.loc[3:5, "shape_score"] == 0).all()
    assert (wide.loc[6:, ["shape_score", "texture_score", "clean_score"]] == 0).all(axis=None)
    assert wide.loc[6:, "generality"].isna().all()
    assert (wide["shape_share"] == wide["shape_score"] / 4).all()
    of_network = table[(table["network"] == "r") & (table["scope"] == "network")]
    everywhere = of_network.set_index("metric")
    assert everywhere.loc["shape_share", "value"] == pytest.approx(wide["shape_share"].mean())
    assert everywhere.loc["shape_share", "n"] == 8
    assert {"shape_margin", "texture_margin", "clean_margin"} <= set(everywhere.index)
    assert {"robust - standard"} <= set(table["regime"])


def labels(study, detectors: dict[int, str]) -> pd.DataFrame:
    return pd.DataFrame(
        {"network": name, "layer": "cues", "unit": unit, "concept": "c", "iou": 0.1, "null": 0.02,
         "category": detectors.get(unit, "object"), "detector": unit in detectors}
        for name, unit in itertools.product(study.networks, range(8))
    )  # fmt: skip


def test_scores_are_crossed_with_what_units_detect(study):
    scores = ablation(study, n_each=4, draws=100)
    crossed = cue_units(study, scores, labels(study, {0: "texture", 1: "texture", 7: "color"}))
    found = crossed[crossed["network"] == "r"].set_index(["detects", "metric"])
    units = scores[(scores["network"] == "r") & (scores["scope"] == "unit")]
    units = units.pivot(index="unit", columns="metric", values="value").loc[[0, 1]]
    serving = (units["shape_score"] > 0).mean()
    shape, texture = units["shape_score"].sum(), units["texture_score"].sum()
    assert found.loc[("texture", "serves_shape"), "value"] == serving
    assert found.loc[("texture", "serves_shape"), "n"] == 2
    assert found.loc[("no concept", "shape_share"), "n"] == 5
    assert "color" not in found.index.get_level_values(0)  # one unit is no group
    part = crossed[(crossed["detects"] == "texture") & (crossed["metric"] == "shape_part")]
    part = part.set_index("regime")["value"]
    assert part["robust"] == pytest.approx(shape / (shape + texture))
    serve, _ = claims.tested(crossed, "C6")
    assert serve.interval.value == pytest.approx(part["robust"] - part["standard"])
    assert serve.untestable == "2 units of S or R of an architecture, fewer than 20"
    with pytest.raises(UserError, match="unit 0 of cues in s has no label"):
        cue_units(study, scores, labels(study, {}).iloc[8:])


def test_wrong_requests_are_refused(study):
    with pytest.raises(UserError, match="n_each is 0"):
        ablation(study, n_each=0)
    with pytest.raises(UserError, match="no layer 'conv99'"):
        ablation(study, layers=["conv99"])
    blind = looker("s", "standard", 1.0)
    one = toy_study.study(networks={"s": blind}, entries=[blind.entry])
    with pytest.raises(UserError, match="decides no image by one of shape, texture, clean"):
        ablation(one)


def test_images_of_the_kinds_reach_s_and_r_in_equal_number(study):
    table = ablation(study, n_each=50, draws=50)
    counts = table[table["metric"].isin(["shape_score", "texture_score", "clean_score"])]
    assert counts["n"].nunique() == 1
    assert isinstance(study.source.val(), Images)
