"""The threshold of each unit: the value that a given share of its activations exceeds."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from robustbias.errors import UserError

SAMPLE = 8_192  # values a unit from which the search is narrowed


def upper_quantiles(
    chunks: Sequence[Float[Tensor, "_ u"]], share: float = 0.005
) -> tuple[Float[Tensor, " u"], list[Int64[Tensor, " _"]] | None]:
    """The smallest observed T with P(a > T) <= share, unit by unit: exact.

        T[u] = the (1 + floor(share * N))-th largest of the N values of unit u

    A sample finds a bound L that little more than the share exceeds; only values above L are
    sorted. Where fewer exceed L than are needed, all values of that unit are.

    Args:
        chunks: Values, one row a position; together N rows.

    Returns:
        The thresholds, and for each chunk places (in the flattened chunk) among which are all
        those above them; None where that is not known.

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
    among = [places(chunk > low) for chunk in chunks]
    found = [chunk.reshape(-1).index_select(0, at) for chunk, at in zip(chunks, among, strict=True)]
    value, unit = torch.cat(found), torch.cat(among) % len(low)
    found = torch.bincount(unit, minlength=len(low))
    value, order = value.sort(descending=True)
    value = value[unit[order].sort(stable=True).indices]
    at = (found.cumsum(0) - found + rank).clamp_max(max(len(value) - 1, 0))
    result = torch.where(found > rank, value[at] if len(value) else low, low)
    for u in (found <= rank).nonzero()[:, 0].tolist():
        column = torch.cat([chunk[:, u] for chunk in chunks])
        if int((column >= low[u]).sum()) <= rank:
            result[u] = column.sort(descending=True).values[rank]
    return result, among if bool((result >= low).all()) else None


def _ranked(values: Float[Tensor, "n u"], rank: int) -> Float[Tensor, " u"]:
    """The value of each column that `rank` others exceed or equal."""
    return values.T.contiguous().topk(rank + 1, dim=1).values[:, -1]


def places(mask: Bool[Tensor, "..."]) -> Int64[Tensor, " k"]:
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
