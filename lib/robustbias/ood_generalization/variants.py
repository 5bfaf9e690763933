"""Accuracy of S and R on folders of photographs: ImageNet-A, -R, -Sketch and ImageNet-C."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from robustbias import manifest
from robustbias.images import Images, imagenet
from robustbias.images.corruptions import constants
from robustbias.networks.hooks import fitting
from robustbias.ood_generalization.measure import (
    CELLS,
    Correctness,
    Evaluation,
    correctness,
    error_rows,
    networks,
    rows,
)
from robustbias.studies import Study, held_out_sample, paired
from robustbias.tables import stored, tidy
from robustbias.utils import UserError

MOST = 5000  # held-out images


def folder_accuracy(
    study: Study, *, names: tuple[str, ...] | list[str], n_images: int = 500
) -> pd.DataFrame:
    """Accuracy of S and R on data sets that lie in folders, for a study whose classes are WNIDs.

    Rows as those of `ood`, with the data set's name as `group`: one condition each for
    sets in folders of WNIDs, in which a network chooses among the classes that the set has; all
    cells, their means, `ce` and `mce` for ImageNet-C. There is no clean version of these images,
    so the relative reading divides by the accuracy on the study's held-out images (MOST of them
    at most), and there is no conditional one.

    Args:
        names: Data sets of the manifest, of kind `wnid-folders` or `imagenet-c`.
        n_images: Images of each set (of each cell of ImageNet-C, the same ones), drawn by the
            study's seed.

    Raises:
        MissingData: A set's folder is not there.
        UserError: A set of another kind, or whose folders are not classes of the study.
    """
    classes = study.source.classes
    contents = {}
    for name in names:
        entry = manifest.dataset(name)
        if entry.kind not in READERS:
            raise UserError(
                f"data set {name} is of kind {entry.kind!r}; expected one in folders: "
                f"{', '.join(READERS)}."
            )
        place = manifest.data_directory() / entry.path
        cells = [place / corruption / str(severity) for corruption, severity in CELLS]
        read = cells if entry.kind == "imagenet-c" else [place]
        # what is read is part of the table's key
        parts = [imagenet.contents(folder, classes, n_images, study.seed) for folder in read]
        contents[name] = hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]
    return _folder_accuracy(study, contents=contents, n_images=n_images)


@stored(of=paired)
def _folder_accuracy(study: Study, *, contents: dict[str, str], n_images: int) -> pd.DataFrame:
    generator = torch.Generator().manual_seed(study.seed)
    sample = held_out_sample(study, MOST, torch.Generator().manual_seed(study.seed))
    clean = {"top1": correctness(study, sample)["top1"]}
    tables = []
    for name in contents:
        entry = manifest.dataset(name)
        place = manifest.data_directory() / entry.path
        tables.append(READERS[entry.kind](study, name, place, n_images, clean, generator))
    return tidy(pd.concat(tables, ignore_index=True))


def _one(
    study: Study, name: str, place: Path, n: int, clean: Correctness, generator: torch.Generator
) -> pd.DataFrame:
    """Rows of a set in folders of WNIDs."""
    size = study.entries[0].size
    images = imagenet.labelled(place, study.source.classes, size, n=n, seed=study.seed)
    hits = _top1(study, images)[:, None].float()
    shown = {"top1": hits}
    evaluation = Evaluation([(name, name, None)], shown, clean, images.clusters, paired=False)
    return rows(study, evaluation, generator)[0]


def _cells(
    study: Study, name: str, place: Path, n: int, clean: Correctness, generator: torch.Generator
) -> pd.DataFrame:
    """Rows of a set laid out as ImageNet-C."""
    size, per_cell, same = study.entries[0].size, [], None
    for corruption, severity in CELLS:
        images = imagenet.corrupted(
            place, corruption, severity, study.source.classes, size, n=n, seed=study.seed
        )
        if images.names != (same or images.names):
            raise UserError(
                f"{place}/{corruption}/{severity} holds other photographs than the cells before "
                "it; unpack the data again."
            )
        same = images.names
        per_cell.append(_top1(study, images).float())
    cells = torch.stack(per_cell, 1)
    levels = cells.unflatten(1, (len(constants.NAMES), -1)).mean(2)
    hits = torch.cat([cells, levels, levels.mean(1, keepdim=True)], 1)
    conditions = [(name, corruption, severity) for corruption, severity in CELLS]
    conditions += [(name, corruption, None) for corruption in (*constants.NAMES, None)]
    evaluation = Evaluation(conditions, {"top1": hits}, clean, images.clusters, paired=False)
    table, accuracies = rows(study, evaluation, generator)
    part = slice(len(CELLS) * len(networks(study)))
    top1 = accuracies["top1"]
    top1 = top1.columns(part)
    levels = len(constants.SEVERITIES)
    errors = error_rows(study, top1, name, constants.NAMES, levels, len(hits))
    return pd.concat([table, errors], ignore_index=True)


@torch.no_grad()
def _top1(study: Study, images: Images, batch: int = 100) -> Tensor:
    """n x m: whether each network's best class, among those the images have, is the label."""
    classes = study.source.classes
    columns = torch.tensor([classes.index(wnid) for wnid in images.classes], device=study.device)
    images = images.to(study.device)
    hits = []
    models = [study.network_named(entry.name) for entry in networks(study)]
    size = min([fitting(network, images.pixels, batch) for network in models], default=batch)
    for pixels, labels in images.batches(size):
        answers = [network(pixels)[:, columns] for network in models]
        hits.append(torch.stack([a.argmax(1) == labels for a in answers], 1).cpu())
    return torch.cat(hits)


# kind of data set -> how its rows are made
READERS: dict[str, Callable[..., pd.DataFrame]] = {"wnid-folders": _one, "imagenet-c": _cells}
