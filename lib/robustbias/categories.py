"""Entry-level categories and the classes each of them gathers.

Geirhos et al. (2019) compare networks and people on 16 everyday words; a network's own classes
(WNIDs of ImageNet, or the words themselves) belong to at most one of them.
"""

import functools
import tomllib

import torch
from jaxtyping import Float
from torch import Tensor

from robustbias.errors import UserError
from robustbias.manifest import ROOT

CATEGORIES = (
    "airplane", "bear", "bicycle", "bird", "boat", "bottle", "car", "cat",
    "chair", "clock", "dog", "elephant", "keyboard", "knife", "oven", "truck",
)  # fmt: skip


@functools.cache
def entry_level() -> dict[str, tuple[str, ...]]:
    """The WNIDs of every category, sorted: 207 of the 1,000 ImageNet classes.

    Source: data_manifest/entry_level.toml, which names its own.
    """
    path = ROOT / "data_manifest" / "entry_level.toml"
    return {category: tuple(wnids) for category, wnids in tomllib.loads(path.read_text()).items()}


@functools.cache
def class_names(class_file: str) -> tuple[str, ...]:
    """WNIDs in the order of a network's outputs: sorted, one a line of `data_manifest/FILE`."""
    return tuple((ROOT / "data_manifest" / class_file).read_text().split())


def known(categories: tuple[str, ...]) -> tuple[str, ...]:
    """The categories themselves. Raises UserError for a word that is none of the 16."""
    if unknown := [c for c in categories if c not in CATEGORIES]:
        raise UserError(f"unknown categories {unknown}; expected some of {', '.join(CATEGORIES)}.")
    return categories


def membership(classes: tuple[str, ...], categories: tuple[str, ...]) -> Float[Tensor, "k q"]:
    """1 where class k belongs to category q; a column sums to the category's number of classes.

    Args:
        classes: WNIDs or category words, in the order of the network's outputs.
        categories: Some of the 16, in the order wanted.

    Raises:
        UserError: A category none of the classes belongs to; the network cannot choose it.
    """
    members = [(category, *entry_level()[category]) for category in known(categories)]
    table = torch.tensor([[float(k in words) for words in members] for k in classes])
    if empty := [c for c, n in zip(categories, table.sum(0).tolist(), strict=True) if n == 0]:
        raise UserError(
            f"none of the {len(classes)} classes belongs to {', '.join(empty)}; "
            "leave these categories out of the study."
        )
    return table
