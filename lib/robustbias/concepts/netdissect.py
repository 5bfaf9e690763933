"""Network Dissection of all probed layers in one pass over the images.

    T[u]       P(a > T) = 0.005 over all positions of all images, of the raw maps (not enlarged)
    M[u]       the maps, enlarged bilinearly to the masks, above T[u]
    IoU[u, q]  |M[u] & L[q]| / |M[u] | L[q]|, both counted over the whole set of images; the union
               on those alone that carry the category of q

Source: Bau et al. 2017, arXiv 1704.05796.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from robustbias.images import floats
from robustbias.images.concepts import Concepts
from robustbias.networks import hooks
from robustbias.networks.zoo import Network
from robustbias.utils import UserError

SAMPLE = 8_192  # values per unit from which the search is narrowed


def upper_quantiles(
    chunks: Sequence[Float[Tensor, "_ u"]], share: float = 0.005
) -> tuple[Float[Tensor, " u"], list[Int64[Tensor, " _"]] | None]:
    """The smallest observed T with P(a > T) <= share, unit by unit: exact.

        T[u] = the (1 + floor(share * N))-th largest of the N values of unit u

    A sample finds a bound L that little more than the share exceeds; only values above L are
    sorted. Where fewer exceed L than are needed, all values of that unit are.

    Args:
        chunks: Values, one row per position; together N rows.

    Returns:
        The thresholds, and for each chunk indices (into the flattened chunk) among which are all
        those above them; None where these were not determined.

    Raises:
        UserError: no values, or a share outside (0, 1).
    """
    n = sum(len(chunk) for chunk in chunks)
    if not n or not 0 < share < 1:
        raise UserError(
            f"thresholds need values and a share between 0 and 1, not {n} values and {share}."
        )
    rank = int(share * n + 1e-9)  # how many values lie above T; 0.005 * 1000 is 5, not 4.999...
    step = max(1, n // SAMPLE)
    if step == 1:
        return _ranked(torch.cat(list(chunks)), rank), None
    # an odd step that shares no factor with rows of a map, else one column of it is the sample
    sample = torch.cat([chunk[:: step | 1] for chunk in chunks])
    expected = share * len(sample)
    low = _ranked(sample, min(len(sample) - 1, int(expected + 4 * expected**0.5 + 4)))
    among = [true_indices(chunk > low) for chunk in chunks]
    candidates = [
        chunk.reshape(-1).index_select(0, at) for chunk, at in zip(chunks, among, strict=True)
    ]
    value, unit = torch.cat(candidates), torch.cat(among) % len(low)
    n_above = torch.bincount(unit, minlength=len(low))
    value, order = value.sort(descending=True)
    value = value[unit[order].sort(stable=True).indices]
    at = (n_above.cumsum(0) - n_above + rank).clamp_max(max(len(value) - 1, 0))
    result = torch.where(n_above > rank, value[at] if len(value) else low, low)
    for u in (n_above <= rank).nonzero()[:, 0].tolist():
        column = torch.cat([chunk[:, u] for chunk in chunks])
        if int((column >= low[u]).sum()) <= rank:
            result[u] = column.sort(descending=True).values[rank]
    return result, among if bool((result >= low).all()) else None


class Largest:
    """Thresholds as from `upper_quantiles`, of chunks that need not be in memory together.

    Of each unit the rank + 1 largest values so far are kept, and at most as many again.

    Args:
        rank: How many values lie above the threshold.
    """

    def __init__(self, rank: int):
        self.rank, self.low = rank, None
        self.values: list[Tensor] = []
        self.units: list[Tensor] = []

    def add(self, chunk: Float[Tensor, "_ u"]) -> None:
        """Takes the values of more positions, one row each."""
        units = chunk.shape[1]
        if self.low is None:
            enough = len(chunk) > self.rank
            self.low = _ranked(chunk, self.rank) if enough else chunk.new_full((units,), -torch.inf)
        at = true_indices(chunk > self.low)
        self.values.append(chunk.reshape(-1).index_select(0, at))
        self.units.append(at % units)
        if sum(map(len, self.values)) > 2 * (self.rank + 1) * units:
            self._prune()

    def thresholds(self) -> Float[Tensor, " u"]:
        """The (rank + 1)-th largest value of each unit."""
        self._prune()
        return self.low

    def _prune(self) -> None:
        value, order = torch.cat(self.values).sort(descending=True)
        unit, grouped = torch.cat(self.units)[order].sort(stable=True)
        value, counts = value[grouped], torch.bincount(unit, minlength=len(self.low))
        place = torch.arange(len(unit), device=unit.device) - (counts.cumsum(0) - counts)[unit]
        last, kept = place == self.rank, place <= self.rank
        self.low[unit[last]] = value[last]
        self.values, self.units = [value[kept]], [unit[kept]]


def _ranked(values: Float[Tensor, "n u"], rank: int) -> Float[Tensor, " u"]:
    """The value of each column that `rank` others exceed or equal."""
    return values.T.contiguous().topk(rank + 1, dim=1).values[:, -1]


def true_indices(mask: Bool[Tensor, "..."]) -> Int64[Tensor, " k"]:
    """Where a mask that is mostly false is true, in the flattened mask.

    Eight entries are read at a time, as one integer that is 0 where all of them are false: five
    times faster on a CPU than `mask.flatten().nonzero()` where one entry in a hundred is true.
    """
    flat = mask.reshape(-1)
    if len(flat) % 8:
        return flat.nonzero()[:, 0]
    words = flat.view(torch.int64).nonzero()[:, 0]
    inside = flat.view(-1, 8).index_select(0, words)
    at = inside.view(-1).nonzero()[:, 0]
    return words.index_select(0, at // 8) * 8 + at % 8


# Bilinear interpolation never exceeds its four neighbours. So a pixel above a threshold lies in a
# cell, the square between four neighbouring activations, with a corner above it. Half a percent of
# the activations are above, and only their cells are interpolated.


def activations_above(
    maps: Float[Tensor, "n u a b"],
    thresholds: Float[Tensor, " u"],
    among: Int64[Tensor, " j"] | None = None,
) -> Int64[Tensor, " k"]:
    """Activations above their unit's threshold, as indices into n a b u, flattened.

    Args:
        among: Indices that include all of them; every activation when None.
    """
    rows = maps.permute(0, 2, 3, 1)
    if among is None:
        return true_indices(rows > thresholds)
    values = rows.reshape(-1).index_select(0, among)
    return among[values > thresholds.index_select(0, among % len(thresholds))]


def pixels_above(
    maps: Float[Tensor, "n u a b"],
    thresholds: Float[Tensor, " u"],
    at: Int64[Tensor, " k"],
    side: tuple[int, int],
) -> tuple[Int64[Tensor, " s"], Int64[Tensor, " s"]]:
    """Pixels of the bilinearly enlarged maps that exceed their unit's threshold.

    The enlargement is `F.interpolate(maps, side, mode="bilinear")`: pixel centres are aligned,
    and half a cell at the border repeats the outermost activation.

    Args:
        at: From `above`.
        side: Height and width of the masks.

    Returns:
        For every such pixel its index into n x h x w, flattened, and its unit.
    """
    _, units, a, b = maps.shape
    h, w = side
    if (a, b) == side:  # nothing to enlarge
        return at // units, at % units
    rows = maps.permute(0, 2, 3, 1)  # the layout that channels-last maps have in memory
    at, unit = at // units, at % units
    at, column = at // b, at % b
    image, row = at // a, at % a
    # each activation above is a corner of four cells, which lie between r - 1 and r for r = 0 .. a
    below = ((image * (a + 1) + row) * (b + 1) + column) * units + unit
    down, right = (b + 1) * units, units
    cells = torch.cat([below, below + right, below + down, below + down + right]).unique()
    at, unit = cells // units, cells % units
    at, column = at // (b + 1), at % (b + 1)
    image, row = at // (a + 1), at % (a + 1)

    values = rows.reshape(-1)
    upper, lower = ((image * a + r) * b for r in ((row - 1).clamp_min(0), row.clamp_max(a - 1)))
    left, right = (column - 1).clamp_min(0), column.clamp_max(b - 1)
    corners = [
        values.index_select(0, (r + c) * units + unit)
        for r in (upper, lower)
        for c in (left, right)
    ]
    y, down = (table.index_select(1, row) for table in spans(a, h, maps.device))
    x, along = (table.index_select(1, column) for table in spans(b, w, maps.device))
    first = torch.lerp(corners[0], corners[2], down.to(maps.dtype))
    second = torch.lerp(corners[1], corners[3], down.to(maps.dtype))
    enlarged = torch.lerp(first[:, None], second[:, None], along[None].to(maps.dtype))
    # NaN where a cell has fewer pixels: never above
    on = true_indices(enlarged > thresholds.index_select(0, unit))
    pixel = ((image * h + y) * w)[:, None] + x[None]
    return pixel.view(-1).index_select(0, on), unit.index_select(0, on % max(len(unit), 1))


@functools.lru_cache(maxsize=256)
def spans(
    cells: int, pixels: int, device: torch.device
) -> tuple[Int64[Tensor, "k r"], Float[Tensor, "k r"]]:
    """Which pixels of an enlarged line lie in each of its cells + 1 cells, and how far in.

        position = (pixel + 1/2) * cells / pixels - 1/2

    Cell r lies between activations r - 1 and r. Cells with fewer than k pixels are filled up with
    pixel 0 at NaN.
    """
    place = torch.arange(pixels, dtype=torch.float64)
    position = (place + 0.5) * cells / pixels - 0.5
    cell = position.floor().long() + 1
    first = torch.searchsorted(cell, torch.arange(cells + 1))
    rank = torch.arange(pixels) - first[cell]
    index = torch.zeros(int(rank.max()) + 1, cells + 1, dtype=torch.long)
    share = torch.full(index.shape, torch.nan, dtype=torch.float64)
    index[rank, cell] = torch.arange(pixels)
    share[rank, cell] = position - position.floor()
    return index.to(device), share.float().to(device)


def counts(
    pixel: Int64[Tensor, " s"],
    unit: Int64[Tensor, " s"],
    units: int,
    regions: Tensor,
    members: Float[Tensor, "g q"],
) -> Float[Tensor, "u q"]:
    """How many of each unit's pixels belong to each column of `members`.

    counts = histogram of regions by unit (u g) @ members (g q)

    Args:
        regions: The region of every pixel, flattened.
        members: 1 where region g belongs to column q.
    """
    size = len(members)
    histogram = torch.bincount(unit * size + regions.index_select(0, pixel), minlength=units * size)
    # whole numbers below 2^24 of one batch: exact in single precision
    return histogram.view(units, size).to(members.dtype) @ members


SHARE = 0.005  # of a unit's activations lie above its threshold
MEMORY = 1 << 30  # bytes of maps kept until the thresholds are computed


@dataclasses.dataclass
class Dissected:
    """Counts of one layer: u units, q concepts, c categories. All add up over images."""

    thresholds: Float[Tensor, " u"]
    above: Float[Tensor, " u"]  # activations above the threshold, of `positions`
    positions: int
    intersection: Float[Tensor, "s u q"]  # pixels of the unit's mask that carry the concept
    area: Float[Tensor, "s u c"]  # pixels of the unit's mask on images that carry the category
    concepts: Float[Tensor, " q"]  # pixels that carry the concept
    carried: Float[Tensor, " c"]  # pixels of images that carry the category
    category: Int64[Tensor, " q"]  # the category of each concept

    @property
    def iou(self) -> Float[Tensor, "u q"]:
        """Intersection over union with each concept; 0 for a unit never above its threshold."""
        return self._iou(0)

    @property
    def null_iou(self) -> Float[Tensor, "u q"]:
        """The same with every image's masks taken from another image."""
        return self._iou(1)

    @property
    def ceiling(self) -> Float[Tensor, "u q"]:
        """The largest IoU that areas of these sizes can have: smaller over larger."""
        area = self.area[0][:, self.category]
        return torch.minimum(area, self.concepts) / torch.maximum(area, self.concepts)

    def _iou(self, side: int) -> Tensor:
        union = self.area[side][:, self.category] + self.concepts - self.intersection[side]
        return (self.intersection[side] / union).nan_to_num(nan=0.0)


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
    """Every unit of the layers against every concept, from one forward pass per image.

    Images come in random order. While their maps fit into `memory` bytes (1 GiB holds 7,800 images
    of the icon world's GoogLeNet), they are kept until the thresholds are known. Else a first pass
    over the images finds the thresholds, for which it keeps the largest activations of each unit
    (twice `share` of all at most), and a second one counts. Thresholds are exact either way. Peak
    memory is `memory`, or those activations, with one batch and the counts (units x concepts).

    Args:
        layers: Names inside `network.body`; the probed ones when None.
        share: Of the activations, above the threshold.
        batch: Images at once, fewer where memory is short.
        generator: Orders the images, on the CPU.

    Raises:
        UserError: An unknown layer, fewer than 2 images, or a share outside (0, 1).
    """
    layers = tuple(layers or network.layers)
    n = len(concepts)
    if n < 2:
        raise UserError(f"{n} image(s) with concepts: dissection needs at least 2.")
    if not 0 < share < 1:
        raise UserError(f"{share} of the activations above; expected a share between 0 and 1.")
    order = torch.randperm(n, generator=generator).to(concepts.pixels.device)
    size = hooks.fitting(network, concepts.pixels[:1], batch, held=True)
    # the null takes the masks of the image before in this random order
    batches = list(zip(order.split(size), order.roll(1).split(size), strict=True))
    kept: list[tuple[Tensor, Tensor, dict[str, Tensor]]] = []
    largest: dict[str, Largest] = {}
    for index, other, maps in _passed(network, concepts, layers, batches):
        kept.append((index, other, maps))
        held = sum(m.numel() * m.element_size() for *_, maps in kept for m in maps.values())
        if not largest and (held < memory or len(kept) == len(batches)):
            continue
        for _, _, each in kept:
            for layer, map in each.items():
                rank = int(share * n * map[0, 0].numel() + 1e-9)
                largest.setdefault(layer, Largest(rank)).add(_rows(map))
        kept.clear()
    by_layer: dict[str, Dissected] = {}
    among: dict[str, list[Tensor] | None] = {}
    for layer in layers:
        if largest:
            limits = largest.pop(layer).thresholds()
        else:
            chunks = [_rows(maps[layer]) for *_, maps in kept]
            limits, among[layer] = upper_quantiles(chunks, share)
        by_layer[layer] = _empty(limits, concepts)
    passed = iter(kept) if kept else _passed(network, concepts, layers, batches)
    for i, (index, other, maps) in enumerate(passed):
        candidates = {layer: indices[i] for layer, indices in among.items() if indices}
        regions, members = concepts.regions_of(torch.cat([other[:1], index]))
        sides = [regions[1:].flatten(), regions[:-1].flatten()]
        _add(by_layer, maps, candidates, sides, members, concepts.side)
    return by_layer


def _passed(
    network: Network,
    concepts: Concepts,
    layers: tuple[str, ...],
    batches: list[tuple[Tensor, Tensor]],
) -> Iterator[tuple[Tensor, Tensor, dict[str, Tensor]]]:
    """Each batch (indices of images, and of those before them) with the maps of its images."""
    for index, other in batches:
        with hooks.captured(network, layers) as maps:
            network(floats(concepts.pixels[index]))
        yield index, other, dict(maps)


def _rows(maps: Float[Tensor, "n u a b"]) -> Float[Tensor, "_ u"]:
    """One row per position; a view of maps whose channels come last in memory."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _empty(thresholds: Float[Tensor, " u"], concepts: Concepts) -> Dissected:
    device, units, c = thresholds.device, len(thresholds), len(concepts.categories)
    category = [i for i, names in enumerate(concepts.names.values()) for _ in names]
    zeros = functools.partial(torch.zeros, device=device, dtype=torch.double)
    return Dissected(
        thresholds=thresholds,
        above=zeros(units),
        positions=0,
        intersection=zeros(2, units, len(category)),
        area=zeros(2, units, c),
        concepts=zeros(len(category)),
        carried=zeros(c),
        category=torch.tensor(category, device=device),
    )


def _add(
    by_layer: dict[str, Dissected],
    maps: dict[str, Tensor],
    candidates: dict[str, Tensor],
    sides: list[Tensor],
    members: Float[Tensor, "g m"],
    side: tuple[int, int],
) -> None:
    """Adds the counts of one batch; `candidates` as from `upper_quantiles`."""
    areas = torch.bincount(sides[0], minlength=len(members)).double() @ members.double()
    for layer, layer_counts in by_layer.items():
        units, q = maps[layer].shape[1], len(layer_counts.concepts)
        layer_counts.concepts += areas[:q]
        layer_counts.carried += areas[q:]
        at = activations_above(maps[layer], layer_counts.thresholds, candidates.get(layer))
        layer_counts.positions += maps[layer].numel() // units
        layer_counts.above += torch.bincount(at % units, minlength=units)
        pixel, unit = pixels_above(maps[layer], layer_counts.thresholds, at, side)
        for which, regions in enumerate(sides):
            total = counts(pixel, unit, units, regions, members)
            layer_counts.intersection[which] += total[:, :q]
            layer_counts.area[which] += total[:, q:]
