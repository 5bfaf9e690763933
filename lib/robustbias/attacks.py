"""Projected gradient descent in an L2 or Linf ball around an image.

    x <- project(x + step * direction(gradient of the loss at x))

The norms differ only in `random_start`, `_direction` and `_project`, each batched over images.
Pixels are in [0, 1] and eps is in pixel units. Source: Madry et al. 2018 (arXiv 1706.06083).
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from robustbias.networks.hooks import fitting
from robustbias.utils import UserError

NORMS = ("l2", "linf")


@dataclasses.dataclass(frozen=True)
class Attack:
    """The strongest images: `norm` is the distance reached, in pixel units."""

    pixels: Float[Tensor, "n 3 h w"]
    norm: Float[Tensor, " n"]
    fooled: Bool[Tensor, " n"]


def _margin(logits: Float[Tensor, "n k"], labels: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
    true = logits.gather(1, labels[:, None])
    other = logits.scatter(1, labels[:, None], -torch.inf)
    return true[:, 0] - other.amax(1)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "margin": lambda logits, labels: -_margin(logits, labels).sum(),
    "cross-entropy": functools.partial(F.cross_entropy, reduction="sum"),
}


def pgd(
    network: nn.Module,
    pixels: Float[Tensor, "n 3 h w"],
    labels: Int64[Tensor, " n"],
    *,
    norm: str = "l2",
    eps: float,
    steps: int,
    step_size: float | None = None,
    restarts: int = 1,
    loss: str = "margin",
    generator: torch.Generator | None = None,
    bfloat16: bool = False,
) -> Attack:
    """The worst image per original over all steps of all restarts.

    "Worst" is the smallest margin, margin = logit of the label - largest other logit, so that a
    fooled image is never given up for one that is not. The steps also descend the margin unless
    `loss` says otherwise: unlike cross-entropy its gradient does not vanish where a network is very
    sure, which would make that network look robust (Carlini and Wagner 2017, arXiv 1608.04644).
    Where several classes are near, cross-entropy finds more; a careful evaluation tries both.

    Args:
        eps: Radius in pixel units, at least 0; 0 returns the originals.
        step_size: In pixel units; 2.5 * eps / steps unless given.
        restarts: Independent runs from different random starts.
        loss: What grows along the way, a name in `LOSSES`.

    Raises:
        UserError: A negative eps, no steps, no images, or an unknown norm or loss.
    """
    check(norm, eps, steps)
    if loss not in LOSSES:
        raise UserError(f"unknown loss {loss!r}; known: {', '.join(LOSSES)}.")
    if len(pixels) == 0 or restarts < 1:
        raise UserError(
            f"{len(pixels)} images and {restarts} restarts; expected at least 1 of each."
        )
    worst = torch.full((len(pixels),), torch.inf, device=pixels.device)
    strongest = pixels.clone()

    def keep(images: Tensor, logits: Tensor) -> None:
        margin = _margin(logits.detach(), labels)
        better = margin < worst
        worst[better] = margin[better]
        strongest[better] = images.detach()[better]

    for _ in range(restarts if eps > 0 else 1):
        images = perturbed(
            network,
            pixels,
            labels,
            norm=norm,
            eps=eps,
            steps=steps,
            step_size=step_size,
            generator=generator,
            bfloat16=bfloat16,
            loss=LOSSES[loss],
            visit=keep,
        )
        with _attacked(network, pixels.device, bfloat16), torch.no_grad():
            keep(images, network(images).float())
    distance = (strongest - pixels).flatten(1).norm(p=2 if norm == "l2" else torch.inf, dim=1)
    return Attack(strongest, distance, worst < 0)


def perturbed(
    network: nn.Module,
    pixels: Float[Tensor, "n 3 h w"],
    labels: Int64[Tensor, " n"],
    *,
    norm: str,
    eps: float,
    steps: int,
    step_size: float | None = None,
    generator: torch.Generator | None = None,
    bfloat16: bool = False,
    start: Float[Tensor, "n 3 h w"] | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] = LOSSES["cross-entropy"],
    visit: Callable[[Tensor, Tensor], None] | None = None,
) -> Float[Tensor, "n 3 h w"]:
    """The images after the last step of one run: what adversarial training trains on.

    Costs one forward and one backward pass a step, without gradients of the weights, of as many
    images at once as fit into memory; the network is in evaluation mode meanwhile, so that
    BatchNorm's statistics stay as they are. `start` is the first perturbation, random in the ball
    when None; `loss` (of logits and labels, summed over images) is what grows; `visit` sees the
    images and logits before each step.
    """
    if eps == 0:
        return pixels
    step = step_size if step_size is not None else 2.5 * eps / steps
    if start is None:
        start = random_start(norm, pixels.shape, eps, generator, pixels.device)
    delta = _inside(pixels, start)
    size = fitting(network, pixels, len(pixels), held=True)
    with _attacked(network, pixels.device, bfloat16):
        for _ in range(steps):
            parts = []
            for images, their_labels in zip(
                (pixels + delta).split(size), labels.split(size), strict=True
            ):
                images = images.detach().requires_grad_()
                logits = network(images).float()
                (gradient,) = torch.autograd.grad(loss(logits, their_labels), images)
                parts.append((images.detach(), logits.detach(), gradient))
            whole = parts[0] if len(parts) == 1 else map(torch.cat, zip(*parts, strict=True))
            images, logits, gradient = whole
            if visit is not None:
                visit(images, logits)
            delta = delta + step * _direction[norm](gradient)
            delta = _inside(pixels, _project[norm](delta, eps))
    return pixels + delta


def check(norm: str, eps: float, steps: int) -> None:
    """Raises UserError unless the three describe an attack."""
    if norm not in NORMS:
        raise UserError(f"unknown norm {norm!r}; known: {', '.join(NORMS)}.")
    if eps < 0:
        raise UserError(f"eps = {eps}; expected a radius of at least 0 in [0, 1] pixel units.")
    if steps < 1:
        raise UserError(f"steps = {steps}; expected at least 1.")


@contextlib.contextmanager
def _attacked(network: nn.Module, device: torch.device, bfloat16: bool) -> Iterator[None]:
    """Evaluation mode and one autocast region, in which weights are cast once for all steps."""
    modes = [(module, module.training) for module in network.modules() if module.training]
    network.eval()
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def _inside(pixels: Tensor, delta: Tensor) -> Tensor:
    """The perturbation cut so that the image stays in [0, 1]; this only shortens it."""
    return (pixels + delta).clamp_(0, 1).sub_(pixels)


def _length(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1 1 1"]:
    return torch.linalg.vector_norm(x, dim=(1, 2, 3), keepdim=True)


def random_start(
    norm: str,
    shape: Sequence[int],
    eps: float,
    generator: torch.Generator | None,
    device: torch.device,
) -> Float[Tensor, "n c h w"]:
    """Perturbations of `shape` inside the ball, from which an attack begins."""
    n, channels, height, width = shape
    how = {"generator": generator, "device": device}
    # drawn channels last, the layout of the images, so that adding it copies nothing
    draw = torch.randn if norm == "l2" else torch.rand
    noise = draw((n, height, width, channels), **how).permute(0, 3, 1, 2)
    if norm == "linf":
        return (noise * 2 - 1) * eps
    # uniform in direction and in length: uniform in the ball would put nearly every start on its
    # surface, where a ball of thousands of dimensions has its volume, and waste the first steps
    return noise * (eps * torch.rand((n, 1, 1, 1), **how) / _length(noise))


_direction = {
    "l2": lambda gradient: gradient / _length(gradient).clamp_min(1e-20),
    "linf": torch.sign,
}

_project = {
    "l2": lambda delta, eps: delta * (eps / _length(delta).clamp_min(eps)),
    "linf": lambda delta, eps: delta.clamp(-eps, eps),
}
