"""Capturing, editing and resuming, against the plain forward pass."""

import pytest
import torch
from torch import nn

import toy_networks
from robustbias.networks import architectures, hooks, zoo
from robustbias.utils import UserError

LAYERS = {
    "alexnet": ("features.1", "features.4", "features.11"),
    "googlenet": ("conv1", "inception3b", "inception5b"),
    "resnet50": ("relu", "layer1", "layer4"),
}
PIXELS = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=LAYERS)
def network(request) -> zoo.Network:
    made = toy_networks.network(architecture=request.param, layers=LAYERS[request.param])
    for module in made.modules():  # statistics that differ from a fresh network's
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
    return made


def number_of_hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in network.modules())


@torch.no_grad()
def test_the_two_halves_give_the_logits_of_the_whole(network):
    logits = network(PIXELS)
    for layer in network.layers:
        activations = hooks.prefix(network, layer, PIXELS)
        before = activations.clone()
        torch.testing.assert_close(hooks.resumed(network, layer, activations), logits)
        torch.testing.assert_close(activations, before, rtol=0, atol=0)


@torch.no_grad()
def test_a_captured_layer_is_what_the_prefix_gives(network):
    with hooks.captured(network, network.layers) as maps:
        logits = network(PIXELS)
    torch.testing.assert_close(logits, network(PIXELS))
    assert list(maps) == list(network.layers)
    for layer, activations in maps.items():
        expected = hooks.prefix(network, layer, PIXELS)
        torch.testing.assert_close(activations, expected, rtol=0, atol=0)


@torch.no_grad()
def test_an_edit_reaches_the_logits_and_ends_with_its_block(network):
    layer, logits = network.layers[1], network(PIXELS)
    with hooks.edited(network, layer, lambda activations: activations * 0):
        silenced = network(PIXELS)
    zeros = torch.zeros_like(hooks.prefix(network, layer, PIXELS))
    torch.testing.assert_close(silenced, hooks.resumed(network, layer, zeros))
    torch.testing.assert_close(network(PIXELS), logits, rtol=0, atol=0)


def test_no_hook_survives_its_block_or_an_error_in_it(network):
    layer = network.layers[0]
    with hooks.captured(network, network.layers), hooks.edited(network, layer, torch.relu):
        assert number_of_hooks(network) == len(network.layers) + 2
    assert number_of_hooks(network) == 0
    with pytest.raises(RuntimeError, match="mid-block"), hooks.captured(network, network.layers):
        raise RuntimeError("mid-block")
    with pytest.raises(UserError), hooks.captured(network, [layer, "nowhere"]):
        pass
    assert number_of_hooks(network) == 0


@torch.no_grad()
def test_weights_changed_after_the_first_use_are_the_ones_that_count(network):
    layer = network.layers[0]
    hooks.resumed(network, layer, hooks.prefix(network, layer, PIXELS))
    for parameter in network.parameters():
        parameter.mul_(0.9)
    torch.testing.assert_close(
        hooks.resumed(network, layer, hooks.prefix(network, layer, PIXELS)), network(PIXELS)
    )


@pytest.mark.parametrize("use", [hooks.prefix, hooks.resumed])
def test_an_unknown_layer_is_refused_with_the_known_ones(network, use):
    with pytest.raises(UserError, match=f"no layer 'conv99'.*{network.layers[0]}"):
        use(network, "conv99", PIXELS)


def test_a_bypassed_layer_cannot_be_resumed_from():
    network = toy_networks.network(architecture="googlenet", layers=("inception3b",))
    activations = hooks.prefix(network, "inception3b.branch1", PIXELS)
    with pytest.raises(UserError, match="depend on more than the output of inception3b.branch1"):
        hooks.resumed(network, "inception3b.branch1", activations)


@torch.no_grad()
def test_an_output_that_is_overwritten_in_place_is_refused():
    network = toy_networks.network()
    with (
        pytest.raises(UserError, match="features.0 is overwritten in place"),
        hooks.captured(network, ["features.0"]),
    ):
        network(PIXELS)


@pytest.mark.parametrize(
    ("name", "layer"),
    [("alexnet", "features.7"), ("googlenet", "inception4c"), ("resnet50", "layer2")],
)
@torch.no_grad()
def test_torchvisions_own_networks_are_cut_the_same_way(name, layer):
    entry = toy_networks.entry(architecture=name, stem=0, width=1.0, size=224, layers=(layer,))
    network = zoo.Network(entry, architectures.build(name, classes=16)).eval()
    pixels = torch.rand(1, 3, 224, 224)
    activations = hooks.prefix(network, layer, pixels)
    torch.testing.assert_close(hooks.resumed(network, layer, activations), network(pixels))


def test_fewer_images_pass_at_once_where_memory_is_short(monkeypatch):
    network, pixels = toy_networks.network(), PIXELS
    monkeypatch.setattr(hooks, "_free_bytes", lambda device: 1 << 40)
    assert hooks.fitting(network, pixels, 128) == 128
    monkeypatch.setattr(hooks, "_free_bytes", lambda device: 1 << 24)
    some, held = (hooks.fitting(network, pixels, 10_000, held=held) for held in (False, True))
    assert 1 <= held < some < 10_000
    larger = torch.zeros(1, 3, 128, 128)
    assert hooks.fitting(network, larger, 10_000) < some
    monkeypatch.setattr(hooks, "_free_bytes", lambda device: 0)
    assert hooks.fitting(network, pixels, 128) == 1
    assert not network.training
