"""Projected gradient descent in an L2 or Linf ball around an image.

    x <- project(x + step * direction(gradient of the loss at x))

The norms differ only in `random_start`, `_direction` and `_project`, each batched over images.
Pixels are in [0, 1] and eps is in pixel units. Source: Madry et al. 2018 (arXiv 1706.06083).
`perturbed` is what training runs. `worst_case` is the evaluation: several losses, step-size
schedules and targets, after Croce and Hein 2020 (arXiv 2003.01690). `random_search` sees logits
alone, and tells whether gradients hid something from the others.
"""

import contextlib
import dataclasses
import functools
import math
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
        raise UserError(f"unknown loss {loss!r}; valid: {', '.join(LOSSES)}.")
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


# Evaluation: the worst case over losses, step-size schedules, targets and restarts


def _difference(
    logits: Float[Tensor, "n k"], labels: Int64[Tensor, " n"], targets: Int64[Tensor, " n"] | None
) -> Float[Tensor, " n"]:
    """Difference of logits ratio: (target, or largest other, - label) / spread of the largest.

    It does not change when all logits are scaled, so that its gradient never vanishes.
    """
    top = logits.topk(min(4, logits.shape[1]), 1).values
    third, fourth = top[:, min(2, top.shape[1] - 1)], top[:, -1]
    if targets is None:
        return -_margin(logits, labels) / (top[:, 0] - third).clamp_min(1e-12)
    gap = (logits.gather(1, targets[:, None]) - logits.gather(1, labels[:, None]))[:, 0]
    return gap / (top[:, 0] - (third + fourth) / 2).clamp_min(1e-12)


def _entropy(logits: Tensor, labels: Tensor, _: Tensor | None) -> Float[Tensor, " n"]:
    return F.cross_entropy(logits, labels, reduction="none")


def apgd(
    network: nn.Module,
    pixels: Float[Tensor, "n 3 h w"],
    labels: Int64[Tensor, " n"],
    *,
    norm: str,
    eps: float,
    steps: int,
    loss: Callable[[Tensor, Tensor, Tensor | None], Tensor] = _difference,
    targets: Int64[Tensor, " n"] | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "n 3 h w"]:
    """The image of the smallest margin on each path of PGD with momentum and halved steps.

        z     = project(x_k + size * direction(gradient))
        x_k+1 = project(x_k + 0.75 (z - x_k) + 0.25 (x_k - x_k-1))

    `size`, one an image, starts at 2 eps. At checkpoints that come ever closer it is halved, and
    the path goes on from its best point, where fewer than 3 of 4 steps raised the loss or nothing
    better was found with an unhalved size. Fooled images leave the batch at checkpoints.

    Args:
        loss: Of logits, labels and targets, one value an image; it grows along the path.

    Source: Croce and Hein 2020, arXiv 2003.01690, algorithm 1.
    """
    strongest, worst = pixels.clone(), pixels.new_full((len(pixels),), torch.inf)
    delta = _inside(pixels, random_start(norm, pixels.shape, eps, generator, pixels.device))
    low = pixels.new_full((len(pixels),), -torch.inf)
    live = torch.arange(len(pixels), device=pixels.device)
    x, y, before, best, ascent = pixels, labels, delta, delta, torch.zeros_like(delta)
    size, top, marked, value = torch.full_like(low, 2 * eps), low, low, -low
    rises, halved = torch.zeros_like(low), torch.zeros_like(low, dtype=torch.bool)
    marks, last = _checkpoints(steps), 0
    with _attacked(network, pixels.device):
        for step in range(steps + 1):
            images = (x + delta).requires_grad_()
            logits = network(images).float()
            values = loss(logits, y, targets)
            (gradient,) = torch.autograd.grad(values.sum(), images)
            values, margin = values.detach(), _margin(logits.detach(), y)
            stronger = margin < worst[live]
            worst[live[stronger]] = margin[stronger]
            strongest[live[stronger]] = images.detach()[stronger]
            rises, value = rises + (values > value), values
            up = (values > top)[:, None, None, None]
            best, ascent = torch.where(up, delta, best), torch.where(up, gradient, ascent)
            top = top.maximum(values)
            if step in marks:
                halve = (rises < 0.75 * (step - last)) | (~halved & (top <= marked))
                back = halve[:, None, None, None]
                size = torch.where(halve, size / 2, size)
                delta, gradient = (
                    torch.where(back, best, delta),
                    torch.where(back, ascent, gradient),
                )
                before = torch.where(back, best, before)
                marked, halved, last, rises = top, halve, step, torch.zeros_like(rises)
                keep = worst[live] >= 0
                if not keep.any():
                    break
                live, x, y, delta, gradient = (
                    live[keep],
                    x[keep],
                    y[keep],
                    delta[keep],
                    gradient[keep],
                )
                before, best, ascent = before[keep], best[keep], ascent[keep]
                size, top, marked, value = size[keep], top[keep], marked[keep], value[keep]
                rises, halved = rises[keep], halved[keep]
                targets = None if targets is None else targets[keep]
            ahead = delta + size[:, None, None, None] * _direction[norm](gradient)
            ahead = _inside(x, _project[norm](ahead, eps))
            if step:
                ahead = delta + 0.75 * (ahead - delta) + 0.25 * (delta - before)
                ahead = _inside(x, _project[norm](ahead, eps))
            before, delta = delta, ahead
    return strongest


def _checkpoints(steps: int) -> set[int]:
    """Steps after which step sizes are looked at: at .22, .41, .57, .70, ... of the path."""
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    return {math.ceil(round(share * steps, 6)) for share in shares[1:] if share < 1}


TARGETS = 9  # the likeliest other classes, each of which is tried as the target


def worst_case(
    network: nn.Module,
    pixels: Float[Tensor, "n 3 h w"],
    labels: Int64[Tensor, " n"],
    *,
    norm: str,
    eps: float,
    steps: int,
    restarts: int = 1,
    generator: torch.Generator | None = None,
) -> Attack:
    """Images that any of several attacks fooled the network with; the originals where none did.

    In turn, each on the images that still stand: PGD of steps / 4 steps on the margin, `apgd` on
    the cross-entropy and on the difference of logits, then targeted at the TARGETS likeliest
    other classes in turn. No loss, schedule or target is the strongest for every network, so each
    has its turn; more targets of fewer steps each leave more images standing. All in full
    precision: gradients in bfloat16 save a sixth of the time and leave up to a point more.

    Cost: at most restarts * steps * (2.25 + TARGETS) forward and backward passes an image.

    Args:
        eps, restarts: As for `pgd`.

    Raises:
        UserError: As `pgd`.
    """
    check(norm, eps, steps)
    if len(pixels) == 0 or restarts < 1:
        raise UserError(
            f"{len(pixels)} images and {restarts} restarts; expected at least 1 of each."
        )
    adversarial = pixels.clone()
    with _attacked(network, pixels.device), torch.no_grad():
        clean = network(pixels).float()
    standing = clean.argmax(1) == labels
    ranked = clean.scatter(1, labels[:, None], -torch.inf).argsort(1, descending=True)
    ranked = ranked[:, : min(TARGETS, ranked.shape[1] - 1)]
    how = {"norm": norm, "eps": eps, "generator": generator}
    plan = [(pgd, math.ceil(steps / 4), {}), (apgd, steps, {"loss": _entropy}), (apgd, steps, {})]
    plan += [(apgd, steps, {"targets": target}) for target in ranked.T]
    for attack, count, more in plan * restarts if eps > 0 else ():
        index = standing.nonzero()[:, 0]
        if not len(index):
            break
        more = {name: v[index] if name == "targets" else v for name, v in more.items()}
        images = attack(network, pixels[index], labels[index], steps=count, **how, **more)
        images = images.pixels if isinstance(images, Attack) else images
        with _attacked(network, pixels.device), torch.no_grad():
            fooled = network(images).argmax(1) != labels[index]
        adversarial[index[fooled]] = images[fooled]
        standing[index[fooled]] = False
    distance = (adversarial - pixels).flatten(1).norm(p=2 if norm == "l2" else torch.inf, dim=1)
    return Attack(adversarial, distance, ~standing)


@torch.no_grad()
def random_search(
    network: nn.Module,
    pixels: Float[Tensor, "n 3 h w"],
    labels: Int64[Tensor, " n"],
    *,
    norm: str,
    eps: float,
    queries: int,
    generator: torch.Generator | None = None,
) -> Attack:
    """An attack without gradients: squares of random place and colour, kept if the margin falls.

    The side of a square falls from about half the image's to a tenth. Where this fools a network
    that `worst_case` does not, the network's gradients are masked. A plain form of Square.

    Source: Andriushchenko et al. 2020, arXiv 1912.00049.
    """
    check(norm, eps, queries)
    n, _, height, width = pixels.shape
    rows = torch.arange(height, device=pixels.device)[None, :, None]
    columns = torch.arange(width, device=pixels.device)[None, None, :]

    def drawn(*size: int) -> Tensor:
        return torch.rand(size, generator=generator, device=pixels.device)

    def colours() -> Tensor:
        return torch.where(drawn(n, 3) < 0.5, -1.0, 1.0)[:, :, None, None]

    stripes = torch.where(drawn(n, 3, 1, width) < 0.5, -1.0, 1.0).expand_as(pixels)
    delta = _inside(pixels, _project[norm](stripes * eps, eps))
    with _attacked(network, pixels.device):
        margin = _margin(network(pixels + delta).float(), labels)
        for query in range(queries):
            standing = margin >= 0
            if not standing.any():
                break
            side = max(1, round(min(height, width) * 0.5 * 0.2 ** (query / queries)))
            top = (drawn(n) * (height - side + 1)).long()[:, None, None]
            left = (drawn(n) * (width - side + 1)).long()[:, None, None]
            square = (
                (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
            )
            square = square[:, None]
            if norm == "l2":  # as long as the rest is when the square takes its share of the ball
                bright = eps / side * (0.2 + 0.8 * drawn(n))[:, None, None, None] / 3**0.5
                trial = torch.where(square, delta + bright * colours(), delta)
            else:
                trial = torch.where(square, eps * colours(), delta)
            trial = _inside(pixels, _project[norm](trial, eps))
            index = standing.nonzero()[:, 0]
            now = _margin(network(pixels[index] + trial[index]).float(), labels[index])
            better = index[now < margin[index]]
            delta[better] = trial[better]
            margin[index] = torch.minimum(margin[index], now)
    distance = delta.flatten(1).norm(p=2 if norm == "l2" else torch.inf, dim=1)
    return Attack(pixels + delta, distance, margin < 0)


def check(norm: str, eps: float, steps: int) -> None:
    """Raises UserError unless the three describe an attack."""
    if norm not in NORMS:
        raise UserError(f"unknown norm {norm!r}; valid: {', '.join(NORMS)}.")
    if eps < 0:
        raise UserError(f"eps = {eps}; expected a radius of at least 0 in [0, 1] pixel units.")
    if steps < 1:
        raise UserError(f"steps = {steps}; expected at least 1.")


@contextlib.contextmanager
def _attacked(network: nn.Module, device: torch.device, bfloat16: bool = False) -> Iterator[None]:
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
