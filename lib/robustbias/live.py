"""A small S and R pair trained while the reader waits."""

import pandas as pd

from robustbias import training
from robustbias.images import Images
from robustbias.measures.registry import pairs
from robustbias.networks import zoo
from robustbias.studies import Study


class Excerpt:
    """The first images of a study, the same in every epoch: a source that costs no drawing."""

    def __init__(self, source, n_images: int, seed: int):
        self._images = source.train(0, seed)
        order = range(min(n_images, len(self._images)))
        index = self._images.labels.new_tensor(list(order))
        self._images, self._val = self._images.take(index), source.val()

    def train(self, epoch: int, seed: int) -> Images:
        return self._images

    def val(self) -> Images:
        return self._val


def live_pair(
    study: Study, *, architecture: str, epochs: int, n_images: int, steps: int = 2
) -> pd.DataFrame:
    """Records of an S and an R trained from random weights on few images, a row an epoch.

    Columns as in `campaign.records`. The pair shows how training goes, not how well it can go.

    Args:
        n_images: Training images, the same in every epoch.
        steps: PGD steps of the training attack.
    """
    source = Excerpt(study.source, n_images, study.seed)
    tables = []
    for regime, entry in pairs(study)[architecture].items():
        how = training.recipe(
            entry, study.entry, epochs=epochs, steps=steps, seed=study.seed, test_every=1
        )
        network = zoo.untrained(entry, study.seed).to(study.device)
        rows = training.train(network, source, how, progress=False)
        tables.append(rows.assign(architecture=architecture, regime=regime, network=entry.name))
    return pd.concat(tables, ignore_index=True)
