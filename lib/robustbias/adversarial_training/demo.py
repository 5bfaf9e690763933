"""A small S and R pair trained while the reader waits."""

import dataclasses
from typing import Any

import pandas as pd

from robustbias import studies, training
from robustbias.images import Images
from robustbias.images.source import Source
from robustbias.networks import zoo
from robustbias.studies import Study, pairs


@dataclasses.dataclass(frozen=True)
class Excerpt(Source):
    """A few images that are the same in every epoch, as a source for training."""

    images: Images
    held_out: Images

    def train(self, epoch: int, seed: int) -> Images:
        return self.images

    def val(self) -> Images:
        return self.held_out


def excerpt(study: Study, n_images: int, n_classes: int) -> Excerpt:
    """Training images of the first classes; an embedded world draws no more than it must."""
    entry, source = study.entry, study.source
    if entry.world:
        share = n_classes / len(study.categories)
        world = entry.world | {"train_images": round(n_images / share)}
        source = studies.source(dataclasses.replace(entry, world=world), study.device)

    def chosen(images: Images) -> Images:
        return images.take((images.labels < n_classes).nonzero()[:n_images, 0])

    return Excerpt(chosen(source.train(0, study.seed)), chosen(study.source.val()))


def live_pair(
    study: Study,
    *,
    architecture: str,
    epochs: int,
    n_images: int,
    n_classes: int = 4,
    **recipe: Any,
) -> pd.DataFrame:
    """Records of an S and an R trained from random weights on an easy excerpt, a row an epoch.

    Columns as in `measures.training_records`. Few classes, small batches and half the study's
    radius let training show itself within a minute; how well it can go it does not show.

    Args:
        n_images: Training images, the same in every epoch.
        n_classes: Classes they are of, the first ones.
        recipe: Fields of `training.Recipe` to change.
    """
    source = excerpt(study, n_images, n_classes)
    radius = study.entry.threat.eps / 2
    quick = {"epochs": epochs, "seed": study.seed, "test_every": 1, "test_images": 100}
    quick |= {"batch": 32, "rate": 0.1, "steps": 2, "test_eps": radius} | recipe
    tables = []
    for regime, entry in pairs(study)[architecture].items():
        eps = radius if regime == "robust" else 0.0
        how = training.recipe(entry, study.entry, **quick | {"eps": eps})
        network = zoo.untrained(entry, study.seed).to(study.device)
        rows = training.train(network, source, how, progress=False)
        tables.append(rows.assign(architecture=architecture, regime=regime, network=entry.name))
    return pd.concat(tables, ignore_index=True)
