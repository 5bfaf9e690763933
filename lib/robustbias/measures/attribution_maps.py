"""Attribution maps, the regions they are summed over, and whether they add up.

Maps are captum's (Kokhlikyan et al. 2020, arXiv 2009.07896). What they explain is the score of a
category,

    score(q) = log mean over the classes of q of exp(logit)

whose largest is the decision by which shape bias is measured.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from robustbias.errors import UserError
from robustbias.networks import zoo

REGIONS = ("inside", "contour", "outside")
METHODS = ("saliency", "input x gradient", "integrated gradients", "occlusion")


def regions(masks: Bool[Tensor, "n h w"], width: int = 2) -> Bool[Tensor, "r n h w"]:
    """REGIONS of each image: no pixel in two of them, every pixel in one.

    Args:
        width: The contour reaches this many pixels to both sides of the outline.

    Raises:
        UserError: A width below 1.
    """
    if width < 1:
        raise UserError(f"contour width {width}; expected at least 1 pixel to each side.")
    side = 2 * width + 1
    grown, grown_outside = (
        F.max_pool2d(part[:, None].float(), side, 1, width)[:, 0] > 0 for part in (masks, ~masks)
    )
    contour = grown & grown_outside
    return torch.stack([masks & ~contour, contour, ~masks & ~contour])


def category_scores(
    network: zoo.Network, membership: Float[Tensor, "k q"]
) -> Callable[[Float[Tensor, "n 3 h w"]], Float[Tensor, "n q"]]:
    """From pixels to the score of each category (see the module's text)."""
    logs = membership.log()  # minus infinity for classes of other categories

    def scores(pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n q"]:
        own = network(pixels)[:, :, None] + logs
        return own.logsumexp(1) - membership.sum(0).log()

    return scores


def attributions(
    scores: Callable,
    pixels: Float[Tensor, "n 3 h w"],
    target: Int64[Tensor, " n"],
    method: str,
    *,
    baseline: float = 0.5,
    steps: int = 50,
    patch: int = 8,
    batch: int = 64,
) -> Float[Tensor, "n 3 h w"]:
    """captum's attribution of each image's target score to its pixels.

    Args:
        method: One of METHODS.
        baseline: Grey level that integrated gradients start from and occlusion paints, in [0, 1].
        steps: Points of the integral (Gauss-Legendre).
        patch: Side of the occluding square in pixels; it moves by half its side.
        batch: Images a forward pass, whatever the method multiplies them by.

    Raises:
        UserError: An unknown method.
    """
    from captum import attr  # not one of the core's packages

    if method not in METHODS:
        raise UserError(f"unknown attribution method {method!r}; known: {', '.join(METHODS)}.")
    parts = []
    for x, goal in zip(pixels.split(batch), target.split(batch), strict=True):
        x = x.detach().requires_grad_()
        if method == "saliency":
            part = attr.Saliency(scores).attribute(x, goal)
        elif method == "input x gradient":  # of the input as seen from the baseline
            part = attr.InputXGradient(lambda z: scores(z + baseline)).attribute(
                (x - baseline).detach().requires_grad_(), goal
            )
        elif method == "integrated gradients":
            part = attr.IntegratedGradients(scores).attribute(
                x, torch.full_like(x, baseline), goal, n_steps=steps, internal_batch_size=batch
            )
        else:
            with torch.no_grad():
                part = attr.Occlusion(scores).attribute(
                    x.detach(),
                    (3, patch, patch),
                    (3, patch // 2, patch // 2),
                    baselines=baseline,
                    target=goal,
                    perturbations_per_eval=max(1, 4 * batch // len(x)),
                )
        parts.append(part.detach())
    return torch.cat(parts)


@torch.no_grad()
def completeness_gap(
    scores: Callable,
    pixels: Float[Tensor, "n 3 h w"],
    target: Int64[Tensor, " n"],
    attribution: Float[Tensor, "n 3 h w"],
    baseline: float = 0.5,
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """|Σ attribution - (score(x) - score(baseline))|, and |score(x) - score(baseline)|.

    Integrated gradients are complete: their exact integral has no gap. What is left is the error
    of the sum over steps.
    """
    at = target[:, None]
    change = scores(pixels).gather(1, at) - scores(torch.full_like(pixels, baseline)).gather(1, at)
    return (attribution.sum((1, 2, 3)) - change[:, 0]).abs(), change[:, 0].abs()
