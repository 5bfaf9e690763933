"""Small networks for tests."""

import torch
from torch import nn

from robustbias.manifest import NetworkEntry
from robustbias.networks import zoo


def entry(**changes) -> NetworkEntry:
    """A manifest entry of a very small AlexNet on 64-pixel images."""
    table = {
        "name": "toy",
        "title": "Toy",
        "architecture": "alexnet",
        "regime": "standard",
        "classes": 16,
        "size": 64,
        "layers": ("features.1",),
        "dataset": "iconworld",
        "weights": "checkpoints/toy.safetensors",
        "licence": "MIT",
        "source": "a test",
        "pair": "alexnet",
        "width": 0.05,
        "stem": 4,
    }
    return NetworkEntry(**table | changes)


def small(classes: int = 4, seed: int = 0) -> nn.Sequential:
    """A convolution, BatchNorm and a linear layer on 8 x 8 images in [0, 1]."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, classes),
        ).eval()


def network(**changes) -> zoo.Network:
    """An untrained network of `entry`."""
    return zoo.untrained(entry(**changes))
