"""Answers to cue-conflict stimuli: from class probabilities to entry-level categories to trials.

Source: Geirhos et al. 2019, arXiv 1811.12231.
"""

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from robustbias.images import CueConflict, floats
from robustbias.studies import Study, networks_with_controls
from robustbias.tables import stored
from robustbias.utils import UserError

AGGREGATIONS = ("mean", "sum")


PAINTED = "painted"


def entry_level(
    probabilities: Float[Tensor, "n k"], membership: Float[Tensor, "k q"], aggregation: str = "mean"
) -> Int64[Tensor, " n"]:
    """Category of the largest mean (or summed) probability over that category's classes.

    Under a sum a category with many classes wins by number: 109 breeds of dog against one knife.

    Args:
        probabilities: Softmax over the network's own classes.
        membership: 1 where class k belongs to category q.
        aggregation: "mean" is the protocol's; "sum" is shown beside it.
    """
    scores = probabilities @ membership
    if aggregation == "mean":
        scores = scores / membership.sum(0)
    return scores.argmax(1)


@torch.no_grad()
def softmax(
    network: nn.Module, pixels: UInt8[Tensor, "n 3 h w"], batch: int = 100
) -> Float[Tensor, "n k"]:
    """Class probabilities of uint8 images, in full precision."""
    return torch.cat([network(floats(part)).softmax(1) for part in pixels.split(batch)])


def displays(
    study: Study, sizes: tuple[int, ...] | list[int] | None = None
) -> dict[str, CueConflict]:
    """The study's cue conflicts as they are shown: "64 px" for each size, and "painted".

    Painted are those that a source makes of its own photographs, where the study says how.

    Raises:
        UserError: The study is decided by a display it does not have.
    """
    found = {f"{size} px": study.source.cue_conflict(size) for size in sizes or study.entry.sizes}
    if study.entry.painting:
        found[PAINTED] = study.source.stylized_conflict()
    if study.entry.decides not in ("", *found):
        raise UserError(
            f"study {study.name} is decided by {study.entry.decides!r}; expected one of the "
            f"displays of its stimuli: {', '.join(found)}."
        )
    return found


@stored
def conflict_trials(
    study: Study, *, sizes: tuple[int, ...] | list[int] | None = None, null_seeds: int = 3
) -> pd.DataFrame:
    """Every network's answer to every cue-conflict stimulus, one row a trial.

    Columns: study, network, architecture, regime (also `untrained`), eps, repeat, display,
    decides (whether claims rest on this display), aggregation, stimulus, shape, texture,
    object_response, decision (shape | texture | neither).

    Args:
        sizes: Sides the stimuli are shown at, in pixels; the study's when None.
        null_seeds: Untrained networks of each architecture, told apart by `repeat`.

    Raises:
        UserError: As `displays`.
    """
    trials = []
    for display, stimuli in displays(study, sizes).items():
        conflict = (stimuli.shape != stimuli.texture).nonzero()[:, 0]
        pixels = stimuli.pixels[conflict].to(study.device)
        categories = np.array(stimuli.categories)
        shown = pd.DataFrame(
            {
                "display": display,
                "decides": study.entry.decides in ("", display),
                "stimulus": [stimuli.names[i] for i in conflict.tolist()],
                "shape": categories[stimuli.shape[conflict].cpu()],
                "texture": categories[stimuli.texture[conflict].cpu()],
            }
        )
        for named, network, repeat in networks_with_controls(study, pixels[::3], null_seeds):
            membership = study.membership(network).to(study.device)
            probabilities = softmax(network, pixels)
            for aggregation in AGGREGATIONS:
                chosen = entry_level(probabilities, membership, aggregation).cpu()
                columns = {**named, "repeat": repeat, "aggregation": aggregation}
                trials.append(shown.assign(**columns, object_response=categories[chosen]))
    table = pd.concat(trials, ignore_index=True)
    answer = table["object_response"]
    table["decision"] = np.select(
        [answer == table["shape"], answer == table["texture"]], ["shape", "texture"], "neither"
    )
    return table
