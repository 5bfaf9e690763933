"""Pixels on which units stand out, and the concepts they meet there.

Bilinear interpolation never exceeds its four neighbours. So a pixel above a threshold lies in a
cell, the square between four neighbouring activations, with a corner above it. Half a percent of
the activations are above, and only their cells are interpolated.
"""

import functools

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from robustbias.measures.quantiles import places


def above(
    maps: Float[Tensor, "n u a b"],
    thresholds: Float[Tensor, " u"],
    among: Int64[Tensor, " j"] | None = None,
) -> Int64[Tensor, " k"]:
    """Activations above their unit's threshold, by their place in n a b u, flattened.

    Args:
        among: Places that hold all of them, where that is known already.
    """
    rows = maps.permute(0, 2, 3, 1)
    if among is None:
        return places(rows > thresholds)
    values = rows.reshape(-1).index_select(0, among)
    return among[values > thresholds.index_select(0, among % len(thresholds))]


def standing_out(
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
        For every such pixel its place in n x h x w, flattened, and its unit.
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
    on = places(enlarged > thresholds.index_select(0, unit))
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
