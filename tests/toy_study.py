"""A study small enough to know every answer: linear networks that look at one half of an image.

A category is a channel (dog red, cat green, car blue). The left half carries the shape's channel,
the right half the texture's. The standard network looks right, the robust one left, so the shape
bias of S is 0 and that of R is 1.
"""

import torch
from torch import nn

from robustbias import studies
from robustbias.images import CueConflict, Images, source
from robustbias.manifest import NetworkEntry, StudyEntry, Threat

CATEGORIES = ("dog", "cat", "car")
SIDE = 8


class HalfLooker(nn.Module):
    """Logits = gain * channel means of one half; weights_hash names it."""

    def __init__(self, side: str, gain: float = 40.0):
        super().__init__()
        self.columns = slice(0, SIDE // 2) if side == "left" else slice(SIDE // 2, SIDE)
        self.gain, self.weights_hash = gain, f"{side}-{gain}"

    def forward(self, pixels):
        return self.gain * pixels[..., self.columns].mean((2, 3))


def entry(name: str, regime: str, eps: float, cue: str = "both") -> NetworkEntry:
    """The study's S and R have eps 0 and 0.5; another radius belongs to the series alone."""
    pair = "alexnet" if cue == "both" and eps in (0.0, 0.5) else ""
    return NetworkEntry(
        name=name, title=name, architecture="alexnet", regime=regime, classes=3, size=SIDE,
        layers=(), dataset="toy", weights="checkpoints/toy.safetensors", licence="MIT",
        source="made here", study="toy", cue=cue, pair=pair, norm="l2" if eps else "none", eps=eps,
    )  # fmt: skip


def halves(left: torch.Tensor, right: torch.Tensor, contrast: torch.Tensor) -> torch.Tensor:
    """uint8 images whose halves exceed mid-grey in one channel each, by `contrast` levels."""
    pixels = torch.full((len(left), 3, SIDE, SIDE), 100.0)
    for i in range(len(left)):
        pixels[i, left[i], :, : SIDE // 2] += contrast[i]
        pixels[i, right[i], :, SIDE // 2 :] += contrast[i]
        # One rival channel is far, so that the boundary to the other is the nearest.
        pixels[i, (left[i] + 2) % 3, :, : SIDE // 2] -= 80
        pixels[i, (right[i] + 2) % 3, :, SIDE // 2 :] -= 80
    return pixels.round().to(torch.uint8)


class Source(source.Source):
    """Held-out images with both halves alike, and every conflict of 2 shape designs a category."""

    digest = "toy-images"

    def __init__(self, n: int = 60):
        self.labels = torch.arange(n) % 3
        self.contrast = torch.linspace(10, 100, n)

    def val(self) -> Images:
        pixels = halves(self.labels, self.labels, self.contrast)
        return Images(pixels, self.labels, CATEGORIES)

    def single_cue(self, cue: str, n: int) -> Images:
        """The cue's half tells the label, the other half another category."""
        labels, other = self.labels[:n], (self.labels[:n] + 1) % 3
        shape, texture = (labels, other) if cue == "shape" else (other, labels)
        return Images(halves(shape, texture, self.contrast[:n]), labels, CATEGORIES)

    def cue_conflict(self, size: int) -> CueConflict:
        cues = [(s, k, t) for s in range(3) for k in (1, 2) for t in range(3)]
        shape, texture = (torch.tensor([cue[i] for cue in cues]) for i in (0, 2))
        names = tuple(f"{CATEGORIES[s]}{k}-{CATEGORIES[t]}{k}" for s, k, t in cues)
        pixels = halves(shape, texture, torch.full((len(cues),), 90.0))
        return CueConflict(pixels, shape, texture, CATEGORIES, names)


class Study(studies.Study):
    """What measures ask of a study, from the facts it is given."""

    def __init__(self, **facts):
        self.__dict__.update(facts)

    def network_named(self, name: str) -> nn.Module:
        return self.networks[name]

    def membership(self, network: nn.Module) -> torch.Tensor:
        return torch.eye(3)


def study(**changes) -> Study:
    facts = StudyEntry(
        name="toy", title="Toy", summary="", dataset="toy", stimuli="toy", sizes=(SIDE,),
        categories=CATEGORIES, architectures=("alexnet",),
        threat=Threat("l2", 0.5, 3, 10), attack_grid=(0.25, 0.5, 4.0),
    )  # fmt: skip
    entries = [entry("toy-s", "standard", 0.0), entry("toy-r", "robust", 0.5)]
    return Study(**{
        "seed": 0, "device": "cpu", "entry": facts,
        "source": Source(), "entries": entries,
        "networks": {"toy-s": HalfLooker("right"), "toy-r": HalfLooker("left")},
        "tables": {},
        **changes,
    })  # fmt: skip
