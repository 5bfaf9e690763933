"""What the front page shows besides the verdicts: stimuli with the decisions of S and R."""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from robustbias.images import floats
from robustbias.shape_bias.measure import entry_level, responses
from robustbias.studies import Study, pair_of


@dataclasses.dataclass(frozen=True)
class Conflicts:
    """Cue conflicts in [0, 1] with the categories of their cues, and decisions by regime."""

    pixels: Float[Tensor, "n 3 h w"]
    shapes: list[str]
    textures: list[str]
    decisions: dict[str, list[str]]


@torch.no_grad()
def conflicts(study: Study, *, architecture: str, n: int = 5) -> Conflicts:
    """n cue conflicts at equal steps through the set, and what S and R of an architecture decide.

    Raises:
        UserError: The study has no networks of this architecture.
    """
    stimuli = study.source.cue_conflict(min(study.entry.sizes))
    conflict = (stimuli.shape != stimuli.texture).cpu().nonzero()[:, 0]
    index = conflict[torch.linspace(0, len(conflict) - 1, n + 2).long()[1:-1]]
    pixels = stimuli.pixels.cpu()[index].to(study.device)
    decisions = {}
    for regime, entry in pair_of(study, architecture).items():
        network = study.network_named(entry.name)
        membership = study.membership(network).to(study.device)
        chosen = entry_level(responses(network, pixels).softmax(1), membership)
        decisions[regime] = [stimuli.categories[i] for i in chosen.tolist()]
    shapes, textures = (
        [stimuli.categories[i] for i in cue.cpu()[index].tolist()]
        for cue in (stimuli.shape, stimuli.texture)
    )
    return Conflicts(floats(pixels), shapes, textures, decisions)
