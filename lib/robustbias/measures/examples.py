"""A few attacked images, to be looked at."""

import dataclasses
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from robustbias import attacks
from robustbias.errors import UserError
from robustbias.images import floats
from robustbias.measures.registry import pairs


@dataclasses.dataclass(frozen=True)
class AdversarialExamples:
    """Images in [0, 1], each attacked once a network; keys of the dicts are regimes."""

    clean: Float[Tensor, "n 3 h w"]
    labels: Int64[Tensor, " n"]
    classes: tuple[str, ...]  # the entry-level word where there is one
    attacked: dict[str, Tensor]
    predictions: dict[str, Tensor]


def adversarial_examples(
    study: Any, *, architecture: str, n: int = 6, eps: float | None = None, steps: int = 0
) -> AdversarialExamples:
    """S and R of one architecture, attacked on the same images that both classify correctly.

    The first such image of each of n classes, so that no one picks the pretty ones.

    Args:
        eps: Attack radius; the study's training radius when None.
        steps: PGD steps; the study's when 0.

    Raises:
        UserError: the study has no networks of this architecture.
    """
    threat, found = study.entry.threat, pairs(study)
    if architecture not in found:
        known = ", ".join(found) or "none; train some first"
        raise UserError(f"no {architecture!r} networks in this study; here are: {known}.")
    networks = {
        regime: study.network_named(entry.name) for regime, entry in found[architecture].items()
    }
    held_out = study.source.val()
    order = torch.randperm(len(held_out), generator=torch.Generator().manual_seed(study.seed))
    held_out = held_out.take(order[: 40 * n]).to(study.device)
    pixels, labels = floats(held_out.pixels), held_out.labels
    with torch.no_grad():
        right = torch.stack([net(pixels).argmax(1) == labels for net in networks.values()]).all(0)
    first = {int(labels[i]): i for i in reversed(right.nonzero()[:, 0].tolist())}
    index = torch.tensor(sorted(first.values())[:n], device=pixels.device)
    pixels, labels = pixels[index], labels[index]
    attacked, predictions = {}, {}
    for regime, network in networks.items():
        generator = torch.Generator(pixels.device).manual_seed(study.seed)
        attacked[regime] = attacks.pgd(
            network,
            pixels,
            labels,
            norm=threat.norm,
            eps=eps or threat.eps,
            steps=steps or threat.test_steps,
            generator=generator,
        ).pixels
        with torch.no_grad():
            predictions[regime] = network(attacked[regime]).argmax(1)
    membership = study.membership(next(iter(networks.values())))
    words = tuple(
        study.categories[int(row.argmax())] if row.any() else name
        for row, name in zip(membership, held_out.classes, strict=True)
    )
    return AdversarialExamples(pixels, labels, words, attacked, predictions)
