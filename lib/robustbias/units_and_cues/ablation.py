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
from robustbias.manifest import NetworkEntry
from robustbias.networks import hooks, zoo
from robustbias.networks.zoo import Network
from robustbias.shape_bias.measure import entry_level
from robustbias.studies import Study
from robustbias.utils import UserError

CHUNK = 256  # pairs of a unit and an image in one forward pass
LINEAR_CHUNK = 16_384  # the same where only logits are computed


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
        answer: From logits to one integer per image.
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
    active = activations.ne(0).flatten(2).any(2).T[units]
    if linear := hooks.linear_head(network, layer):
        # logits = bias + Σ_u weight[u] mean(a[u]): no pass through the network
        chunk, means = LINEAR_CHUNK, activations.mean((2, 3))
        logits = linear.bias.expand(n, -1) if alone else linear(means)
        answers = answer(logits).repeat(len(units), 1)
        for pairs in active.nonzero().split(chunk):
            row, image = pairs.T
            change = linear.weight.T[units[row]] * means[image, units[row], None]
            answers[row, image] = answer(logits[image] + (change if alone else -change))
        return answers
    chunk = hooks.fitting(network, activations[:1], chunk, layer=layer)
    plain = [answer(hooks.resumed(network, layer, part)) for part in start.split(chunk)]
    answers = torch.cat(plain).expand(n).repeat(len(units), 1)
    for pairs in active.nonzero().split(chunk):
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
    """How evenly a unit serves both cues, and the mean of this under the permutation null.

        generality = 1 - |s - t| / (s + t)      1: both alike, 0: one cue alone, NaN: neither

    A unit whose loss changes one decision can only score 0, so the plain number grows with the
    number of changes. The permutation null assigns a unit's k = s + t changes to the 2 size images
    at random: s is then hypergeometric, and its mean generality is exact.

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


KINDS = ("shape", "texture", "clean")  # decided by shape, by texture; clean and correct


def decision_rule(
    study: Study, network: zoo.Network
) -> Callable[[Float[Tensor, "m k"]], Int64[Tensor, " m"]]:
    """From logits to entry-level categories: the rule that shape bias is measured by."""
    membership = study.membership(network).to(study.device)
    return lambda logits: entry_level(logits.softmax(1), membership)


class Kind(NamedTuple):
    """The images a network decided in one way."""

    pixels: UInt8[Tensor, "n 3 h w"]
    index: Int64[Tensor, " m"]  # which of them
    margin: Float[Tensor, " m"]  # of the chosen category over the next, mean probability


def decisions(
    study: Study, entry: NetworkEntry, stimuli: CueConflict, held_out: Images
) -> dict[str, Tensor]:
    """What `images_by_decision` needs of a network: its answers and their margins."""
    network = study.network_named(entry.name)
    chosen, margin = _answers(study, network, stimuli.pixels)
    clean, clean_margin = _answers(study, network, held_out.pixels)
    return {"chosen": chosen, "margin": margin, "clean": clean, "clean_margin": clean_margin}


def images_by_decision(
    study: Study,
    network: zoo.Network,
    stimuli: CueConflict,
    held_out: Images,
    answers: dict[str, Tensor],
) -> dict[str, Kind]:
    """The images of each kind: decided by shape, by texture, or clean and correct.

    Args:
        answers: From `decisions`.
    """
    membership = study.membership(network).cpu()
    labels = torch.where(membership.any(1), membership.argmax(1), -1)[held_out.labels.cpu()]
    conflict = (stimuli.shape != stimuli.texture).cpu()
    chosen, margin, clean_answers, clean_margin = answers.values()
    kinds = {
        "shape": (stimuli.pixels, conflict & (chosen == stimuli.shape.cpu()), margin),
        "texture": (stimuli.pixels, conflict & (chosen == stimuli.texture.cpu()), margin),
        "clean": (held_out.pixels, clean_answers == labels, clean_margin),
    }
    return {
        kind: Kind(pixels, selected.nonzero()[:, 0], margin[selected])
        for kind, (pixels, selected, margin) in kinds.items()
    }


@torch.no_grad()
def _answers(
    study: Study, network: zoo.Network, pixels: UInt8[Tensor, "n 3 h w"]
) -> tuple[Int64[Tensor, " n"], Float[Tensor, " n"]]:
    """The category of each image, and its margin over the next in mean probability."""
    membership = study.membership(network).to(study.device)
    batches = []
    for part in pixels.split(hooks.fitting(network, pixels, 200)):
        probabilities = network(floats(part.to(study.device))).softmax(1)
        first = (probabilities @ membership / membership.sum(0)).topk(2, dim=1)
        margin = first.values[:, 0] - first.values[:, 1]
        batches.append((entry_level(probabilities, membership).cpu(), margin.cpu()))
    answers, margins = zip(*batches, strict=True)
    return torch.cat(answers), torch.cat(margins)


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
    distance = (wanted[:, None] - values).abs()
    taken = torch.empty(len(wanted), dtype=torch.long)
    for i in wanted.argsort(descending=True).tolist():
        taken[i] = distance[i].argmin()
        distance[:, taken[i]] = torch.inf
    return among[taken]


def sample(
    study: Study, stimuli: CueConflict, kinds: dict[str, Kind], n: int, matched: bool
) -> dict[str, Kind]:
    """n images of each kind; if matched, the commoner cue's have margins like the rarer one's."""
    generator = torch.Generator().manual_seed(study.seed)
    rarer, commoner = sorted(("shape", "texture"), key=lambda cue: len(kinds[cue].index))
    chosen = {
        cue: spread_sample(stimuli.names, kinds[cue].index, n, generator)
        for cue in (rarer, commoner)
    }
    clean = kinds["clean"].index
    chosen["clean"] = clean[torch.randperm(len(clean), generator=generator)[:n]]
    margins = {
        kind: dict(zip(images.index.tolist(), images.margin.tolist(), strict=True))
        for kind, images in kinds.items()
    }
    if matched:
        wanted = torch.tensor([margins[rarer][i] for i in chosen[rarer].tolist()])
        other = kinds[commoner]
        chosen[commoner] = matched_sample(wanted, other.margin, other.index)
    return {
        kind: Kind(
            kinds[kind].pixels,
            chosen[kind],
            torch.tensor([margins[kind][i] for i in chosen[kind].tolist()]),
        )
        for kind in KINDS
    }
