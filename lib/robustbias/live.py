"""A small S and R pair trained while the reader waits."""

import dataclasses
from typing import Any

import pandas as pd
import torch

from robustbias import studies, training
from robustbias.images import Images
from robustbias.measures.registry import pairs
from robustbias.networks import zoo


@dataclasses.dataclass(frozen=True)
class Excerpt:
    """A few images that are the same in every epoch, as a source for training."""

    images: Images
    held_out: Images

    def train(self, epoch: int, seed: int) -> Images:
        return self.images

    def val(self) -> Images:
        return self.held_out


def excerpt(study: Any, n_images: int) -> Excerpt:
    """The study's first n training images; an embedded world draws no more than these."""
    entry, source = study.entry, study.source
    if entry.world:
        world = entry.world | {"train_images": n_images}
        source = studies.source(dataclasses.replace(entry, world=world), study.device)
    images = source.train(0, study.seed)
    return Excerpt(images.take(torch.arange(min(n_images, len(images)))), study.source.val())


def live_pair(
    study: Any, *, architecture: str, epochs: int, n_images: int, **recipe: Any
) -> pd.DataFrame:
    """Records of an S and an R trained from random weights on few images, a row an epoch.

    Columns as in `measures.training_records`. The pair shows how training goes, not how well it can go.

    Args:
        n_images: Training images, the same in every epoch.
        recipe: Fields of `training.Recipe` to change.
    """
    source = excerpt(study, n_images)
    quick = {"epochs": epochs, "seed": study.seed, "test_every": 1, "test_images": 128} | recipe
    tables = []
    for regime, entry in pairs(study)[architecture].items():
        how = training.recipe(entry, study.entry, **quick)
        network = zoo.untrained(entry, study.seed).to(study.device)
        rows = training.train(network, source, how, progress=False)
        tables.append(rows.assign(architecture=architecture, regime=regime, network=entry.name))
    return pd.concat(tables, ignore_index=True)
