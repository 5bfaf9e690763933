"""Network Dissection of all probed layers in one pass over the images.

    T[u]       P(a > T) = 0.005 over all positions of all images, of the raw maps (not enlarged)
    M[u]       the maps, enlarged bilinearly to the masks, above T[u]
    IoU[u, q]  |M[u] & L[q]| / |M[u] | L[q]|, both counted over the whole set of images; the union
               on those alone that carry the category of q

Source: Bau et al. 2017, arXiv 1704.05796.
"""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from robustbias.errors import UserError
from robustbias.images import floats
from robustbias.images.concepts import Concepts
from robustbias.measures.overlap import above, counts, standing_out
from robustbias.measures.quantiles import upper_quantiles
from robustbias.networks import hooks
from robustbias.networks.zoo import Network

SHARE = 0.005  # of a unit's activations lie above its threshold
FEW = 2048  # regions that need no new numbers
MEMORY = 1 << 30  # bytes of maps kept until the thresholds are known


@dataclasses.dataclass
class Dissected:
    """Counts of one layer: u units, q concepts, c categories. All add up over images."""

    thresholds: Float[Tensor, " u"]
    above: Float[Tensor, " u"]  # activations above the threshold, of `positions`
    positions: int
    met: Float[Tensor, "s u q"]  # pixels of the unit's mask that carry the concept
    seen: Float[Tensor, "s u c"]  # pixels of the unit's mask on images that carry the category
    concepts: Float[Tensor, " q"]  # pixels that carry the concept
    category: Int64[Tensor, " q"]  # the category of each concept

    @property
    def iou(self) -> Float[Tensor, "u q"]:
        """Intersection over union with each concept; 0 for a unit that never stands out."""
        return self._iou(0)

    @property
    def null_iou(self) -> Float[Tensor, "u q"]:
        """The same with every image's masks taken from another image."""
        return self._iou(1)

    @property
    def ceiling(self) -> Float[Tensor, "u q"]:
        """The largest IoU that areas of these sizes can have: smaller over larger."""
        area = self.seen[0][:, self.category]
        return torch.minimum(area, self.concepts) / torch.maximum(area, self.concepts)

    def _iou(self, side: int) -> Tensor:
        union = self.seen[side][:, self.category] + self.concepts - self.met[side]
        return (self.met[side] / union).nan_to_num(nan=0.0)


@torch.no_grad()
def dissected(
    network: Network,
    concepts: Concepts,
    layers: Sequence[str] | None = None,
    *,
    share: float = SHARE,
    batch: int = 200,
    memory: int = MEMORY,
    generator: torch.Generator,
) -> dict[str, Dissected]:
    """Every unit of the layers against every concept, from one forward pass an image.

    Images come in random order. Their maps are kept until they fill `memory` bytes or no image is
    left; then thresholds are taken from what is kept, and maps that come later are compared with
    them at once. So thresholds are exact for sets whose maps fit (1 GiB holds 7,800 images of the
    icon world's GoogLeNet), and else those of a random sample: `above` / `positions` says what
    share of all activations they turned out to leave above. Peak memory is `memory`, one batch,
    and the counts (units x concepts), whatever the number of images.

    Args:
        layers: Names inside `network.body`; the probed ones when None.
        share: Of the activations, above the threshold.
        generator: Orders the images, on the CPU.

    Raises:
        UserError: An unknown layer, fewer than 2 images, or a share outside (0, 1).
    """
    layers = tuple(layers or network.layers)
    n = len(concepts)
    if n < 2:
        raise UserError(f"{n} image(s) with concepts: dissection needs at least 2.")
    order = torch.randperm(n, generator=generator).to(concepts.pixels.device)
    kept: list[tuple[Tensor, Tensor, dict[str, Tensor]]] = []
    found: dict[str, Dissected] = {}
    # the null takes the masks of the image before in this random order
    for index, other in zip(order.split(batch), order.roll(1).split(batch), strict=True):
        with hooks.captured(network, layers) as maps:
            network(floats(concepts.pixels[index]))
            kept.append((index, other, dict(maps)))
        held = sum(m.numel() * m.element_size() for *_, maps in kept for m in maps.values())
        if not found and held < memory and sum(len(index) for index, *_ in kept) < n:
            continue
        among: dict[str, list[Tensor] | None] = {}
        if not found:
            for layer in layers:
                chunks = [_rows(maps[layer]) for *_, maps in kept]
                limits, among[layer] = upper_quantiles(chunks, share)
                found[layer] = _empty(limits, concepts)
        for i, (index, other, maps) in enumerate(kept):
            known = {layer: places[i] for layer, places in among.items() if places}
            sides = [_pixels(concepts, images) for images in (index, other)]
            _add(found, maps, known, sides, concepts.side)
        kept.clear()
    return found


def _rows(maps: Float[Tensor, "n u a b"]) -> Float[Tensor, "_ u"]:
    """One row a position; a view of maps whose channels come last in memory."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _empty(thresholds: Float[Tensor, " u"], concepts: Concepts) -> Dissected:
    regions, device = concepts.regions, thresholds.device
    size = torch.bincount(regions.index.flatten(), minlength=len(regions.concepts)).double()
    units, q, c = len(thresholds), regions.concepts.shape[1], regions.carried.shape[1]
    category = [i for i, own in enumerate(concepts.names.values()) for _ in own]
    return Dissected(
        thresholds=thresholds,
        above=torch.zeros(units, device=device, dtype=torch.double),
        positions=0,
        met=torch.zeros(2, units, q, device=device, dtype=torch.double),
        seen=torch.zeros(2, units, c, device=device, dtype=torch.double),
        concepts=size @ regions.concepts.double(),
        category=torch.tensor(category, device=device),
    )


def _pixels(concepts: Concepts, index: Int64[Tensor, " n"]) -> tuple[Tensor, Tensor]:
    """Regions of the images' pixels, and what concepts and categories each has.

    Where the set has many regions, those of these images are numbered anew, which bounds the size
    of the histograms.
    """
    regions = concepts.regions
    own = regions.index[index].flatten()
    if len(regions.concepts) <= FEW:
        return own, torch.cat([regions.concepts, regions.carried], 1).float()
    present = torch.bincount(own, minlength=len(regions.concepts)) > 0
    renumbered = (present.cumsum(0) - 1)[own]
    members = torch.cat([regions.concepts[present], regions.carried[present]], 1)
    return renumbered, members.float()


def _add(
    found: dict[str, Dissected],
    maps: dict[str, Tensor],
    known: dict[str, Tensor],
    sides: list[tuple[Tensor, Tensor]],
    side: tuple[int, int],
) -> None:
    """Adds the counts of one batch; `known` holds places among which are all those above."""
    for layer, own in found.items():
        units = maps[layer].shape[1]
        at = above(maps[layer], own.thresholds, known.get(layer))
        own.positions += maps[layer].numel() // units
        own.above += torch.bincount(at % units, minlength=units)
        pixel, unit = standing_out(maps[layer], own.thresholds, at, side)
        q = own.met.shape[2]
        for which, (regions, members) in enumerate(sides):
            total = counts(pixel, unit, units, regions, members)
            own.met[which] += total[:, :q]
            own.seen[which] += total[:, q:]
