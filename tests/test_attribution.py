"""Attribution of a linear network is known; regions part the image; the integral adds up."""

import pytest
import torch
from torch import nn

import toy_networks
import toy_study
from robustbias.networks import hooks, zoo
from robustbias.units_and_cues.attribution import (
    METHODS,
    attribution,
    attributions,
    category_scores,
    completeness_gap,
    regions,
)
from robustbias.utils import UserError

PIXELS = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
TARGET = torch.tensor([0, 1, 1, 0])


@pytest.fixture(autouse=True)
def _tables(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTBIAS_TABLES", str(tmp_path))


def linear(seed: int = 0, classes: int = 3) -> tuple[zoo.Network, torch.Tensor]:
    """Logits = weight · pixels; the weight is returned as classes x 3 x 8 x 8."""
    entry = toy_networks.entry(classes=classes, mean=(0.0,) * 3, std=(1.0,) * 3)
    read = nn.Linear(192, classes, bias=False)
    read.weight.data = torch.randn(classes, 192, generator=torch.Generator().manual_seed(seed))
    network = zoo.Network(entry, nn.Sequential(nn.Flatten(), read)).eval().requires_grad_(False)
    return network, read.weight.data.view(classes, 3, 8, 8)


def test_the_score_orders_categories_as_the_mean_probability_does():
    membership = torch.tensor([[1.0, 0], [1.0, 0], [0, 1.0]])
    network, _ = linear()
    probability = network(PIXELS).softmax(1)
    scores = category_scores(network, membership)(PIXELS)
    mean = probability @ membership / membership.sum(0)
    torch.testing.assert_close(scores.diff(dim=1), mean.log().diff(dim=1))


@pytest.mark.parametrize("method", METHODS)
def test_of_a_linear_network_every_method_gives_the_weights(method):
    network, weight = linear()
    scores = category_scores(network, torch.eye(3))
    found = attributions(scores, PIXELS, TARGET, method, batch=3, patch=2)
    own = weight[TARGET]
    if method == "saliency":
        expected = own.abs()
    elif method in ("input x gradient", "integrated gradients"):
        expected = own * (PIXELS - 0.5)
    else:  # a pixel's value is the mean change over the squares that cover it
        change = (own * (PIXELS - 0.5)).sum(1, keepdim=True)
        squares = nn.functional.avg_pool2d(change, 2, 1) * 4
        ones = torch.ones(1, 1, 2, 2)
        covered = nn.functional.conv_transpose2d(torch.ones_like(squares), ones)
        expected = (nn.functional.conv_transpose2d(squares, ones) / covered).expand(-1, 3, -1, -1)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_integrated_gradients_add_up_to_the_change_of_the_score():
    network = toy_networks.network().requires_grad_(False)
    scores = category_scores(network, torch.eye(16))
    pixels = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    target = scores(pixels).argmax(1)
    gaps = []
    for steps in (2, 64):
        method = "integrated gradients"
        found = attributions(scores, pixels, target, method, steps=steps)
        gap, change = completeness_gap(scores, pixels, target, found)
        gaps.append(float(gap.sum() / change.sum()))
    assert gaps[1] < 0.02
    assert gaps[1] <= gaps[0] + 1e-3


def test_regions_part_every_image_into_inside_contour_and_outside():
    mask = torch.zeros(1, 12, 12, dtype=torch.bool)
    mask[0, 3:9, 3:9] = True
    inside, contour, outside = regions(mask, width=2)[:, 0]
    assert (inside.int() + contour.int() + outside.int() == 1).all()
    assert inside.sum() == 2 * 2
    assert contour.sum() == 10 * 10 - 2 * 2
    assert outside.sum() == 12 * 12 - 10 * 10
    with pytest.raises(UserError, match="contour width 0"):
        regions(mask, width=0)


class Source(toy_study.Source):
    def conflict_masks(self, size: int) -> torch.Tensor:
        """The object of the toy's stimuli is their left half."""
        masks = torch.zeros(len(self.cue_conflict(size)), size, size, dtype=torch.bool)
        masks[:, :, : size // 2] = True
        return masks


def halves() -> dict[str, zoo.Network]:
    """S reads the right half, R the left one."""
    made = {}
    for name, regime, columns in (("s", "standard", slice(4, 8)), ("r", "robust", slice(0, 4))):
        network, weight = linear()
        weight.zero_()
        for channel in range(3):
            weight[channel, channel, :, columns] = 1
        robust = {"norm": "l2", "eps": 0.5} if regime == "robust" else {}
        entry = toy_networks.entry(name=name, regime=regime, classes=3, **robust)
        made[name] = zoo.Network(entry, network.body, name).eval()
    return made


def study(source: toy_study.Source) -> toy_study.Study:
    networks = halves()
    entries = [network.entry for network in networks.values()]
    return toy_study.study(source=source, networks=networks, entries=entries)


def test_attribution_lies_where_the_network_looks():
    table = attribution(study(Source()), n_images=8, width=1, draws=100)
    own = table[(table["metric"] == "share") & (table["method"] == "saliency")]
    share = own.set_index(["network", "region"])["value"]
    # eight columns: three inside, two on the contour, three outside
    expected = {"s": (0, 0.25, 0.75), "r": (0.75, 0.25, 0)}
    for name, values in expected.items():
        found = [share[name, region] for region in ("inside", "contour", "outside")]
        assert found == pytest.approx(values, abs=1e-5)
    assert share["r - s", "inside"] == pytest.approx(0.75, abs=1e-5)
    dense = table[(table["metric"] == "concentration") & (table["network"] == "r")]
    dense = dense[dense["method"] == "saliency"].set_index("region")["value"]
    assert dense["inside"] == pytest.approx(0.75 / (3 / 8), abs=1e-5)
    gap = table[table["metric"] == "completeness_error"]
    assert gap["value"].abs().max() < 1e-3
    assert set(gap["method"]) == {"integrated gradients"}


def test_a_source_without_masks_gives_a_table_without_rows():
    table = attribution(study(toy_study.Source()))
    assert len(table) == 0
    assert {"method", "region", "value"} <= set(table)


class Crooked(Source):
    def conflict_masks(self, size: int) -> torch.Tensor:
        return super().conflict_masks(size)[:, :-1]


def test_wrong_requests_are_refused():
    with pytest.raises(UserError, match=r"masks are \(18, 7, 8\) for stimuli"):
        attribution(study(Crooked()))
    with pytest.raises(UserError, match="unknown attribution method 'lime'"):
        attribution(study(Source()), methods=["lime"])
    with pytest.raises(UserError, match="n_images is 0"):
        attribution(study(Source()), n_images=0)


def test_no_hook_is_left_behind():
    network, _ = linear()
    attributions(category_scores(network, torch.eye(3)), PIXELS, TARGET, "integrated gradients")
    assert not any(module._forward_hooks for module in network.modules())
    assert hooks.module(network, "1") is network.body[1]
