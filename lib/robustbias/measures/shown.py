"""Which network is right about which image, under which condition."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from robustbias.images import Images
from robustbias.manifest import NetworkEntry
from robustbias.measures.conflict import entry_level
from robustbias.measures.registry import pairs

Condition = tuple[str, str, int]  # group, condition, severity (0 where there are none)
Hits = dict[str, Tensor]  # decision -> one row an image, one column a network


@dataclasses.dataclass(frozen=True)
class Shown:
    """Images shown under c conditions to m networks.

    `hits[decision]` is n x c x m, 1 where the network was right (or the share of times it was);
    `clean[decision]` is n x m for the same images without any change if `paired`, else k x m for
    k other, clean images.
    """

    conditions: list[Condition]
    hits: dict[str, Float[Tensor, "n c m"]]
    clean: dict[str, Bool[Tensor, "k m"]]
    paired: bool = True


def networks(study: Any) -> list[NetworkEntry]:
    """S and R of every architecture, in this order."""
    return [entry for pair in pairs(study).values() for _, entry in sorted(pair.items())[::-1]]


def partners(entries: list[NetworkEntry]) -> Int64[Tensor, " m"]:
    """For each network the index of the other one of its architecture; its own if it has none."""
    return torch.tensor(
        [
            next(
                (j for j, b in enumerate(entries) if b.architecture == a.architecture and b != a), i
            )
            for i, a in enumerate(entries)
        ]
    )


def decisions(
    membership: Float[Tensor, "k q"], labels: Int64[Tensor, " n"], by_category: bool
) -> tuple[str, ...]:
    """What a network can be right about: its own class (top1), the entry-level category, or both.

    Where every class is a category of its own the two are one, and it is called top1.
    """
    if torch.equal(membership, torch.eye(*membership.shape, device=membership.device)):
        return ("top1",)
    if by_category:
        return ("entry_level",)
    inside = bool((membership.sum(1)[labels] > 0).all())
    return ("top1", "entry_level") if inside else ("top1",)


@torch.no_grad()
def answered(
    network: nn.Module,
    pixels: Float[Tensor, "n 3 h w"],
    labels: Int64[Tensor, " n"],
    membership: Float[Tensor, "k q"],
    by_category: bool = False,
) -> dict[str, Bool[Tensor, " n"]]:
    """Whether the network is right about each image, by every decision that applies.

    Args:
        labels: Classes of the network, or categories if `by_category`.
        membership: 1 where class k belongs to category q; the category with the highest mean
            probability is the entry-level answer, as in `measures.shape_bias`.
    """
    logits = network(pixels)
    hits = {}
    for decision in decisions(membership, labels, by_category):
        if decision == "top1":
            hits[decision] = logits.argmax(1) == labels
        else:
            wanted = labels if by_category else membership[labels].argmax(1)
            hits[decision] = entry_level(logits.softmax(1), membership) == wanted
    return hits


def seen(
    study: Any,
    images: Images,
    change: Callable[[Tensor], Tensor] | None = None,
    *,
    by_category: bool = False,
    batch: int = 100,
) -> Hits:
    """Whether S and R of every architecture are right about the images, changed once for all.

    Args:
        change: From a batch of float pixels to what is shown instead.
        by_category: The labels are the study's categories, not the networks' classes.
    """
    shown = [study.network_named(entry.name) for entry in networks(study)]
    belongs = [study.membership(network).to(images.pixels.device) for network in shown]
    parts: dict[str, list[Tensor]] = {}
    for pixels, labels in images.batches(batch):
        pixels = pixels if change is None else change(pixels)
        hits = [
            answered(network, pixels, labels, membership, by_category)
            for network, membership in zip(shown, belongs, strict=True)
        ]
        for decision in hits[0]:
            parts.setdefault(decision, []).append(torch.stack([h[decision] for h in hits], 1).cpu())
    return {decision: torch.cat(part) for decision, part in parts.items()}
