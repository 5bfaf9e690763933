"""Feature visualisation on networks whose best images are computable by hand."""

import pytest
import torch
from torch import nn

import toy_networks
from robustbias.networks import hooks, zoo
from robustbias.smooth_filters.visualisation import visualisations
from robustbias.utils import UserError


def drawn(network, layer, units, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    return visualisations(network, layer, torch.tensor(units), generator=generator, **options)


@pytest.fixture
def linear():
    """Two units that see the whole image, behind a ReLU that is silent on every noise start."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 2, 8), nn.ReLU())
    nn.init.constant_(body[0].bias, -1000.0)
    entry = toy_networks.entry(size=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), layers=("1",))
    return zoo.Network(entry, body)


@pytest.fixture
def alexnet():
    return toy_networks.network()


def test_a_step_of_a_linear_unit_goes_along_its_weights_though_it_is_silent(linear):
    grey = torch.full((1, 3, 8, 8), 128, dtype=torch.uint8)
    pixels = drawn(linear, "1", [0, 1], images=grey, starts=0, steps=3, length=0.1, jitter=0)
    moved = (pixels - 128 / 255).flatten(1)
    weights = linear.body[0].weight.detach().flatten(1)
    expected = 0.3 * weights / weights.norm(dim=1, keepdim=True)
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=1e-4)


def test_a_long_ascent_of_a_linear_unit_saturates_at_the_signs_of_its_weights(linear):
    pixels = drawn(linear, "1", [0, 1], steps=300, jitter=0)
    weights = linear.body[0].weight.detach()
    clear = weights.abs() > 0.2 * weights.abs().max()
    assert torch.equal(pixels[clear], (weights > 0)[clear].float())


def test_pixels_stay_in_range_and_the_generator_decides_them(alexnet):
    options = {"steps": 4, "length": 5.0}
    first, again, other = (drawn(alexnet, "features.1", [0, 1], s, **options) for s in (0, 0, 1))
    assert first.shape == (2, 3, 64, 64)
    assert 0.0 <= first.min() <= first.max() <= 1.0
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_unit_in_a_batch_is_the_unit_alone(alexnet):
    together = drawn(alexnet, "features.4", [0, 2, 1], steps=3, batch=2)
    for unit, pixels in zip([0, 2, 1], together, strict=True):
        alone = drawn(alexnet, "features.4", [unit], steps=3)[0]
        torch.testing.assert_close(pixels, alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "layer"),
    [("alexnet", "features.4"), ("googlenet", "inception3b"), ("resnet50", "layer2")],
)
def test_the_layer_is_the_relu_of_its_preactivation(architecture, layer):
    network = toy_networks.network(architecture=architecture, width=0.125)
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        output = hooks.prefix(network, layer, pixels)
        before = hooks.preactivation(network, layer, pixels)
        torch.testing.assert_close(before.relu(), output)
        torch.testing.assert_close(hooks.prefix(network, layer, pixels), output)
    assert before.min() < 0


def test_what_cannot_be_ascended_is_refused(alexnet):
    with pytest.raises(UserError, match="units 0 to"):
        drawn(alexnet, "features.1", [10_000])
    with pytest.raises(UserError, match="0 starts"):
        drawn(alexnet, "features.1", [0], starts=0)
