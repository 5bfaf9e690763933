"""The toy study with WNIDs as classes, and images in folders for it."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

import toy_study

WNIDS = ("n01440764", "n01443537", "n01484850")
SIDE = toy_study.SIDE


class Source(toy_study.Source):
    """The toy's held-out images under WNIDs."""

    classes = WNIDS


def study(**changes) -> toy_study.Study:
    """S looks at the right half of an image, R at the left; every class is a category."""
    return toy_study.study(**{"device": torch.device("cpu"), "source": Source(), **changes})


def painted(path: Path, label: int, right: bool) -> None:
    """An image whose left half shows the label's channel, the right half too or another's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((SIDE, SIDE, 3), 60, np.uint8)
    pixels[:, : SIDE // 2, label] = 200
    pixels[:, SIDE // 2 :, label if right else (label + 1) % 2] = 200
    Image.fromarray(pixels).save(path)
