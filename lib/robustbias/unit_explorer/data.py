"""What units see: the images that excite each most, and how strongly all others do."""

import dataclasses
from collections.abc import Iterable

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from robustbias.images import floats
from robustbias.networks import hooks
from robustbias.networks.zoo import Network
from robustbias.utils import UserError

BINS = 24


@dataclasses.dataclass(frozen=True)
class Sights:
    """What excites the units of one layer, over n images.

    Args:
        images: For each unit the m images with the highest peaks, strongest first.
        maps: The unit's activations on them.
        peaks: The largest activation in each image.
    """

    images: Int64[Tensor, "u m"]
    maps: Float[Tensor, "u m a b"]
    peaks: Float[Tensor, "u n"]

    def histogram(self, unit: int) -> tuple[Int64[Tensor, " bins"], float, float]:
        """Images by their peak, in equal bins, with the ends of the first and the last bin."""
        own = self.peaks[unit]
        low, high = min(0.0, float(own.min())), float(own.max())
        return torch.histc(own, BINS, low, high).long(), low, high


@torch.no_grad()
def sights(
    network: Network,
    pixels: UInt8[Tensor, "n 3 h w"],
    *,
    layers: Iterable[str] | None = None,
    m: int = 5,
    batch: int = 200,
) -> dict[str, Sights]:
    """Sights of every unit of the layers, from one pass over the images.

    Memory: one batch, and m maps a unit.

    Args:
        layers: Probed layers; the manifest's when None.
        m: Images a unit; at most all.

    Raises:
        UserError: No images, or an unknown layer.
    """
    if not len(pixels):
        raise UserError("there are no images that could excite a unit; give at least 1.")
    layers, m = list(layers or network.layers), min(m, len(pixels))
    found: dict[str, Sights] = {}
    device = next(network.parameters()).device
    place = torch.arange(len(pixels))
    with hooks.captured(network, layers) as maps:
        for part, index in zip(pixels.split(batch), place.split(batch), strict=True):
            network(floats(part.to(device)))
            for layer in layers:
                new = _best(maps[layer].cpu(), index, m)
                found[layer] = _merged(found[layer], new, m) if layer in found else new
    return found


def _best(maps: Float[Tensor, "n u a b"], index: Int64[Tensor, " n"], m: int) -> Sights:
    """The same of one batch."""
    peaks = maps.amax((2, 3)).T
    best = peaks.topk(min(m, len(index)), dim=1).indices
    unit = torch.arange(len(peaks))[:, None]
    return Sights(index[best], maps[best, unit], peaks)


def _merged(one: Sights, other: Sights, m: int) -> Sights:
    """The m best of both; of equal peaks the earlier image."""
    images = torch.cat([one.images, other.images], 1)
    maps = torch.cat([one.maps, other.maps], 1)
    order = maps.amax((2, 3)).argsort(dim=1, descending=True, stable=True)[:, :m]
    unit = torch.arange(len(images))[:, None]
    return Sights(images[unit, order], maps[unit, order], torch.cat([one.peaks, other.peaks], 1))
