"""Answers of a network whose units are silenced one at a time, or kept one at a time.

    silenced:  a'[v] = 0 for v = u, else a[v]         kept alone:  a'[v] = a[v] for v = u, else 0

The activations a are those after the nonlinearity (a unit that is silenced before BatchNorm still
sends a constant on). Everything before the layer is computed once, and units and images share
forward passes of the rest. Where a unit is silent on an image already, nothing has to be computed.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from robustbias.errors import UserError
from robustbias.networks import hooks
from robustbias.networks.zoo import Network

CHUNK = 256  # pairs of a unit and an image in one forward pass


@torch.no_grad()
def unit_answers(
    network: Network,
    layer: str,
    activations: Float[Tensor, "n u a b"],
    answer: Callable[[Float[Tensor, "m k"]], Int64[Tensor, " m"]],
    *,
    alone: bool = False,
    units: Int64[Tensor, " v"] | None = None,
    chunk: int = CHUNK,
) -> Int64[Tensor, "v n"]:
    """The answer to each image with each unit silenced, or kept alone.

    Cost: the layers behind `layer` once for every unit and image on which it is not silent.

    Args:
        activations: The layer's output, from `hooks.prefix`.
        answer: From logits to one integer an image.
        units: Which units; all of them when None.

    Raises:
        UserError: An unknown or bypassed layer, or a unit that the layer does not have.
    """
    n, count = activations.shape[:2]
    units = torch.arange(count) if units is None else units
    if len(units) and not 0 <= int(units.min()) <= int(units.max()) < count:
        raise UserError(
            f"layer {layer} has units 0 to {count - 1}; asked for {units.min()} to {units.max()}."
        )
    units = units.to(activations.device)
    start = torch.zeros_like(activations[:1]) if alone else activations
    plain = [answer(hooks.resumed(network, layer, part)) for part in start.split(chunk)]
    answers = torch.cat(plain).expand(n).repeat(len(units), 1)
    heard = activations.ne(0).flatten(2).any(2).T[units]
    for pairs in heard.nonzero().split(chunk):
        row, image = pairs.T
        a, line, unit = activations[image], torch.arange(len(row), device=row.device), units[row]
        if alone:
            kept = torch.zeros_like(a)
            kept[line, unit] = a[line, unit]
            a = kept
        else:
            a[line, unit] = 0
        answers[row, image] = answer(hooks.resumed(network, layer, a))
    return answers


def generality(
    shape: Int64[Tensor, " u"], texture: Int64[Tensor, " u"], size: int
) -> tuple[Float[Tensor, " u"], Float[Tensor, " u"]]:
    """How evenly a unit serves both cues, and what chance makes of as many changed decisions.

        generality = 1 - |s - t| / (s + t)      1: both alike, 0: one cue alone, NaN: neither

    A unit whose loss changes one decision can only score 0, so the plain number grows with the
    number of changes. The null deals a unit's k = s + t changes to the 2 size images at random:
    s is then hypergeometric, and its mean generality is exact.

    Args:
        shape: Changed decisions among `size` images decided by shape.
        texture: Changed decisions among `size` images decided by texture.

    Raises:
        UserError: More changes than images.
    """
    if max(int(shape.max()), int(texture.max())) > size:
        raise UserError(f"more changed decisions than the {size} images decided by a cue.")
    total = (shape + texture).tolist()
    null = {k: _chance(k, size) for k in set(total)}
    s, t = shape.float(), texture.float()
    return 1 - (s - t).abs() / (s + t), torch.tensor([null[k] for k in total]).to(s)


def _chance(changes: int, size: int) -> float:
    """Mean generality when that many changes fall on 2 size images at random."""
    if changes == 0:
        return math.nan
    ways = {
        s: math.comb(size, s) * math.comb(size, changes - s)
        for s in range(max(0, changes - size), min(changes, size) + 1)
    }
    even = sum(way * (changes - abs(2 * s - changes)) for s, way in ways.items())
    return even / changes / math.comb(2 * size, changes)
