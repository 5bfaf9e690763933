"""Images by how a network decides them: by shape, by texture, or rightly when clean."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from robustbias.errors import UserError
from robustbias.images import CueConflict, Images, floats
from robustbias.images.names import cues
from robustbias.measures.conflict import entry_level
from robustbias.networks import zoo

KINDS = ("shape", "texture", "clean")


def rule(study: Any, network: zoo.Network) -> Callable[[Float[Tensor, "m k"]], Int64[Tensor, " m"]]:
    """From logits to entry-level categories: the rule that shape bias is measured by."""
    membership = study.membership(network).to(study.device)
    return lambda logits: entry_level(logits.softmax(1), membership)


class Kind(NamedTuple):
    """The images a network decided in one way."""

    pixels: UInt8[Tensor, "n 3 h w"]
    index: Int64[Tensor, " m"]  # which of them
    lead: Float[Tensor, " m"]  # by how much the chosen category led the next


def decided(
    study: Any, network: zoo.Network, stimuli: CueConflict, held_out: Images
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
    study: Any, network: zoo.Network, pixels: UInt8[Tensor, "n 3 h w"]
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
    study: Any, stimuli: CueConflict, kinds: dict[str, Kind], n: int, matched: bool
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
