"""The small-image networks are torchvision's, with another stem and other widths."""

import pytest
import torch
import torchvision

from robustbias.networks import architectures
from robustbias.utils import UserError


@pytest.mark.parametrize("architecture", architectures.BUILDERS)
@pytest.mark.parametrize("stem", [2, 4])
@pytest.mark.parametrize("side", [64, 96, 160])
def test_any_image_size_gives_one_logit_a_class(architecture, stem, side):
    network = architectures.build(architecture, classes=7, width=0.1, stem=stem).eval()
    assert network(torch.rand(2, 3, side, side)).shape == (2, 7)


def kernels(network) -> list[tuple[int, ...]]:
    """Shapes of all convolution kernels but the first, in order."""
    found = [m.weight.shape for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    return [tuple(shape) for shape in found][1:]


@pytest.mark.parametrize("architecture", architectures.BUILDERS)
def test_at_full_width_the_convolutions_are_those_of_torchvision(architecture):
    options = {"aux_logits": False, "init_weights": False} if architecture == "googlenet" else {}
    original = getattr(torchvision.models, architecture)(weights=None, **options)
    ours = architectures.build(architecture, classes=1000, width=1.0, stem=4)
    assert sorted(kernels(ours)) == sorted(kernels(original))


@pytest.mark.parametrize("architecture", ["googlenet", "resnet50"])
def test_layers_are_named_as_in_torchvision(architecture):
    options = {"aux_logits": False, "init_weights": False} if architecture == "googlenet" else {}
    original = getattr(torchvision.models, architecture)(weights=None, **options)
    ours = architectures.build(architecture, classes=1000, width=0.25, stem=4)
    names = {n for n, _ in original.named_parameters()}
    assert {n for n, _ in ours.named_parameters()} == names


def test_the_original_networks_load_the_same_way():
    network = architectures.build("alexnet", classes=1000)
    assert isinstance(network, torchvision.models.AlexNet)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"architecture": "vgg", "classes": 2}, "unknown architecture 'vgg'; expected a name of"),
        ({"architecture": "vgg16", "classes": 2, "stem": 2}, "vgg16 has no small version"),
        ({"architecture": "keras:vgg16", "classes": 2}, "unknown library 'keras'"),
        (
            {"architecture": "resnet18", "classes": 2, "arguments": {"depth": 3}},
            r"resnet18 cannot be built with \{'depth': 3\}",
        ),
        ({"architecture": "alexnet", "classes": 2, "stem": 3}, "expected stem 2 or 4"),
        ({"architecture": "alexnet", "classes": 2, "stem": 2, "width": 0.0}, "width 0.0"),
    ],
)
def test_wrong_requests_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        architectures.build(**arguments)
