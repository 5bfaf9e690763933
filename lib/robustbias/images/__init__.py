"""Images on a device: pixels with one label each, or with a shape and a texture label."""

import dataclasses
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Images:
    """Labelled images. `masks` holds per-pixel concept labels where the source knows them.

    Pixels are stored as uint8 0..255 and handed out as float in [0, 1].
    """

    pixels: UInt8[Tensor, "n 3 h w"]
    labels: Int64[Tensor, " n"]
    classes: tuple[str, ...]
    names: tuple[str, ...] = ()
    masks: dict[str, Tensor] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pixels)

    def to(self, device: torch.device | str) -> "Images":
        """The same images on another device."""
        masks = {name: mask.to(device) for name, mask in self.masks.items()}
        return dataclasses.replace(
            self, pixels=self.pixels.to(device), labels=self.labels.to(device), masks=masks
        )

    def take(self, index: Int64[Tensor, " m"]) -> "Images":
        """The images at `index`, in that order."""
        return dataclasses.replace(
            self,
            pixels=self.pixels[index],
            labels=self.labels[index],
            names=tuple(self.names[i] for i in index.tolist()) if self.names else (),
            masks={name: mask[index] for name, mask in self.masks.items()},
        )

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(float pixels in [0, 1], labels) in order, the last batch possibly smaller."""
        for pixels, labels in zip(self.pixels.split(size), self.labels.split(size), strict=True):
            yield floats(pixels), labels


@dataclasses.dataclass(frozen=True)
class CueConflict:
    """Images whose shape and texture belong to different categories.

    `shape` and `texture` index `categories`; names are `shapeK-textureJ` (Geirhos et al. 2019).
    """

    pixels: UInt8[Tensor, "n 3 h w"]
    shape: Int64[Tensor, " n"]
    texture: Int64[Tensor, " n"]
    categories: tuple[str, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pixels)


def floats(pixels: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """uint8 0..255 as float in [0, 1], channels last (the layout convolutions are fast in)."""
    return pixels.to(memory_format=torch.channels_last).float().div_(255)
