"""Answers of a network whose units are silenced one at a time, or kept one at a time.

    silenced:  a'[v] = 0 for v = u, else a[v]         kept alone:  a'[v] = a[v] for v = u, else 0

The activations a are those after the nonlinearity (a unit that is silenced before BatchNorm still
sends a constant on). Everything before the layer is computed once, and units and images share
forward passes of the rest. Where a unit is silent on an image already, nothing has to be computed.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from robustbias.images import CueConflict, Images, floats
from robustbias.images.cue_conflict import cues
from robustbias.networks import hooks, zoo
from robustbias.networks.zoo import Network
from robustbias.shape_bias.measure import entry_level
from robustbias.studies import Study
from robustbias.utils import UserError

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


# -- --------------------------------------------------------------------------------------------
# Images by how a network decides them: by shape, by texture, or rightly when clean.


KINDS = ("shape", "texture", "clean")


def rule(
    study: Study, network: zoo.Network
) -> Callable[[Float[Tensor, "m k"]], Int64[Tensor, " m"]]:
    """From logits to entry-level categories: the rule that shape bias is measured by."""
    membership = study.membership(network).to(study.device)
    return lambda logits: entry_level(logits.softmax(1), membership)


class Kind(NamedTuple):
    """The images a network decided in one way."""

    pixels: UInt8[Tensor, "n 3 h w"]
    index: Int64[Tensor, " m"]  # which of them
    lead: Float[Tensor, " m"]  # by how much the chosen category led the next


def decided(
    study: Study, network: zoo.Network, stimuli: CueConflict, held_out: Images
) -> dict[str, Kind]:
    """The images of each kind, by what the network makes of them."""
    membership = study.membership(network)
    labels = torch.where(membership.any(1), membership.argmax(1), -1)[held_out.labels.cpu()]
    conflict = (stimuli.shape != stimuli.texture).cpu()
    chosen, lead = _answers(study, network, stimuli.pixels)
    named, led = _answers(study, network, held_out.pixels)
    kinds = {
        "shape": (stimuli.pixels, conflict & (chosen == stimuli.shape.cpu()), lead),
        "texture": (stimuli.pixels, conflict & (chosen == stimuli.texture.cpu()), lead),
        "clean": (held_out.pixels, named == labels, led),
    }
    return {
        kind: Kind(pixels, hit.nonzero()[:, 0], lead[hit])
        for kind, (pixels, hit, lead) in kinds.items()
    }


@torch.no_grad()
def _answers(
    study: Study, network: zoo.Network, pixels: UInt8[Tensor, "n 3 h w"]
) -> tuple[Int64[Tensor, " n"], Float[Tensor, " n"]]:
    """The category of each image, and by how much mean probability it led the next."""
    membership = study.membership(network).to(study.device)
    found = []
    for part in pixels.split(200):
        probabilities = network(floats(part.to(study.device))).softmax(1)
        first = (probabilities @ membership / membership.sum(0)).topk(2, dim=1)
        lead = first.values[:, 0] - first.values[:, 1]
        found.append((entry_level(probabilities, membership).cpu(), lead.cpu()))
    answers, leads = zip(*found, strict=True)
    return torch.cat(answers), torch.cat(leads)


def spread_sample(
    names: tuple[str, ...],
    among: Int64[Tensor, " m"],
    size: int,
    generator: torch.Generator,
) -> Int64[Tensor, " size"]:
    """`size` of the stimuli `among`, drawn so that as many shape images as possible take part.

    One stimulus of every shape image first, in random order, then a second one of each, and so on.

    Args:
        names: Of all stimuli, as in `images.CueConflict`.

    Raises:
        UserError: More stimuli asked for than there are.
    """
    if size > len(among):
        raise UserError(f"{size} stimuli asked for, but only {len(among)} are of this kind.")
    shuffled = among[torch.randperm(len(among), generator=generator)]
    seen: dict[tuple[str, int], int] = {}
    turns = []
    for name in (cues(names[i]) for i in shuffled.tolist()):
        key = name.shape, name.shape_design
        turns.append(seen.setdefault(key, 0))
        seen[key] += 1
    return shuffled[torch.tensor(turns).argsort(stable=True)[:size]]


def matched_sample(
    wanted: Float[Tensor, " m"],
    values: Float[Tensor, " n"],
    among: Int64[Tensor, " n"],
) -> Int64[Tensor, " m"]:
    """For each wanted value the member of `among` whose value is nearest, each taken once.

    The largest wanted values choose first.

    Args:
        values: Of the members of `among`, in their order.

    Raises:
        UserError: More wanted than there are.
    """
    if len(wanted) > len(among):
        raise UserError(f"{len(wanted)} matches asked for, but only {len(among)} are there.")
    apart = (wanted[:, None] - values).abs()
    taken = torch.empty(len(wanted), dtype=torch.long)
    for i in wanted.argsort(descending=True).tolist():
        taken[i] = apart[i].argmin()
        apart[:, taken[i]] = torch.inf
    return among[taken]


def sample(
    study: Study, stimuli: CueConflict, kinds: dict[str, Kind], n: int, matched: bool
) -> dict[str, Kind]:
    """n images of each kind; the commoner cue's are as narrowly kinds as the rarer one's."""
    generator = torch.Generator().manual_seed(study.seed)
    rarer, commoner = sorted(("shape", "texture"), key=lambda cue: len(kinds[cue].index))
    chosen = {
        cue: spread_sample(stimuli.names, kinds[cue].index, n, generator)
        for cue in (rarer, commoner)
    }
    clean = kinds["clean"].index
    chosen["clean"] = clean[torch.randperm(len(clean), generator=generator)[:n]]
    leads = {
        kind: dict(zip(own.index.tolist(), own.lead.tolist(), strict=True))
        for kind, own in kinds.items()
    }
    if matched:
        wanted = torch.tensor([leads[rarer][i] for i in chosen[rarer].tolist()])
        other = kinds[commoner]
        chosen[commoner] = matched_sample(wanted, other.lead, other.index)
    return {
        kind: Kind(
            kinds[kind].pixels,
            chosen[kind],
            torch.tensor([leads[kind][i] for i in chosen[kind].tolist()]),
        )
        for kind in KINDS
    }
