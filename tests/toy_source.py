"""Images of 4 classes for training tests: a bright quarter on noise."""

import torch

from robustbias.images import Images
from robustbias.images.source import Source


class Dots(Source):
    """`n` images of 64 x 64 pixels an epoch; label k has quarter k brighter."""

    digest = "dots"

    def __init__(self, n: int = 128):
        self.n = n

    def train(self, epoch: int = 0, seed: int = 0) -> Images:
        return self._images(self.n, 1000 * seed + epoch)

    def val(self) -> Images:
        return self._images(64, 999)

    @staticmethod
    def _images(n: int, seed: int) -> Images:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(n) % 4
        pixels = torch.randint(0, 120, (n, 3, 64, 64), generator=generator)
        for k in range(4):
            row, column = 32 * (k // 2), 32 * (k % 2)
            pixels[labels == k, :, row : row + 32, column : column + 32] += 100
        return Images(pixels.to(torch.uint8), labels, ("a", "b", "c", "d"))
