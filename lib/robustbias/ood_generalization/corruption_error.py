"""Absolute, relative and conditional accuracy on changed images, and the mean corruption error.

    absolute       Σ correct on the changed image / n
    relative       Σ correct on the changed image / Σ correct on the clean image
    conditional    Σ correct on the changed image / n, over the images that S and R of the
                   architecture both classify correctly when clean

The relative reading corrects for accuracy on clean images and may exceed 1; the conditional one
compares S and R on the same images. The three are never averaged or put in one column.
"""

from functools import partial

import torch
from jaxtyping import Bool, Float, Int64
from torch import Generator, Tensor

from robustbias import stats
from robustbias.stats import Bootstrap
from robustbias.utils import UserError

READINGS = ("", "_relative", "_conditional")  # what follows the metric's name


def paired(
    correct: Float[Tensor, "n c m"],
    clean: Bool[Tensor, "n m"],
    partner: Int64[Tensor, " m"],
    clusters: Int64[Tensor, " n"],
    *,
    generator: Generator,
    draws: int = stats.DRAWS,
) -> dict[str, Bootstrap]:
    """All three readings of c conditions and m networks, bootstrapped over clusters of images.

    Columns of every bootstrap are the c * m combinations, networks fastest.

    Args:
        correct: Whether (or how often, as a share) an image was classified correctly.
        clean: Whether the same image was, unchanged.
        partner: For each network the other one of its architecture, itself where there is none.
        clusters: What each image was made of (`Images.clusters`).
    """
    c, over = correct.shape[1], correct.flatten(1)
    both = (clean & clean[:, partner]).float()

    def conditions(weights: Tensor) -> Tensor:
        return weights[:, None].expand(-1, c, -1).flatten(1)

    ratio = partial(stats.ratios, clusters=clusters, generator=generator, draws=draws)
    kept = conditions(both)
    return {
        "": ratio(over, torch.ones_like(over)),
        "_relative": ratio(over, conditions(clean.float()), bounds=stats.UNBOUNDED),
        "_conditional": ratio(over * kept, kept),
    }


def unpaired(
    correct: Float[Tensor, "n c m"],
    clean: Bool[Tensor, "k m"],
    clusters: Int64[Tensor, " n"],
    *,
    generator: Generator,
    draws: int = stats.DRAWS,
) -> dict[str, Bootstrap]:
    """Absolute and relative readings of stimuli that are no changed version of the clean images.

    Stimuli (by their clusters) and clean images are resampled independently; there is nothing to
    condition on.
    """
    over = correct.flatten(1)
    absolute = stats.ratios(over, torch.ones_like(over), clusters, generator=generator, draws=draws)
    undistorted = clean.float()
    base = stats.ratios(
        undistorted,
        torch.ones_like(undistorted),
        torch.arange(len(undistorted)),
        generator=generator,
        draws=draws,
    )
    c = correct.shape[1]
    relative = Bootstrap(
        absolute.value / base.value.repeat(c),
        absolute.resamples / base.resamples.repeat(1, c),
        stats.UNBOUNDED,
    )
    return {"": absolute, "_relative": relative}


def corruption_errors(
    accuracy: Float[Tensor, "*r c s m"], reference: list[int], least: float = 0.0
) -> Float[Tensor, "*r c m"]:
    """Error under each corruption, summed over severities, in per cent of the reference's.

        CE_c = 100 Σ_s error[c, s] / Σ_s reference error[c, s]

    The mean over corruptions is the mCE: a mean of ratios, 100 for the reference itself.

    Args:
        reference: One network, or its replicates, whose mean error is the reference's.
        least: The reference's summed error counts as at least this much.

    Source: Hendrycks and Dietterich 2019, arXiv 1903.12261, section 4.
    """
    error = (1 - accuracy).sum(-2)
    made = error[..., reference].mean(-1, keepdim=True)
    base = made.clamp_min(least)
    error[..., reference] += base - made
    return 100 * (error / base)


def mean_corruption_error(
    accuracy: Bootstrap, reference: list[int], corruptions: tuple[str, ...], severities: int, n: int
) -> tuple[Bootstrap, Bootstrap]:
    """(CE of every corruption and network, mCE of every network), with the accuracies' replicates.

    A resample in which the reference makes no error under a corruption could give any ratio; half
    an error is counted there, so that the interval is wide and still finite.

    Args:
        accuracy: Columns corruption, severity, network, the last fastest.
        reference: Indices of the network, or of its replicates, whose mean errors are 100.
        n: Images behind each accuracy.

    Raises:
        UserError: the reference makes no error under a corruption, so that nothing can be
            measured by it.
    """
    shape = (len(corruptions), severities, -1)
    value = accuracy.value.unflatten(0, shape)
    made = (1 - value[..., reference]).mean(-1).sum(1)
    if (made < 0.5 / n).any():
        name = corruptions[int(made.argmin())]
        raise UserError(
            f"the reference network makes no error under {name}, so no error can be given in per "
            "cent of it: choose a larger n_corrupted."
        )
    one_by_one = corruption_errors(value, reference)
    replicates = accuracy.resamples.unflatten(1, shape)
    replicates = corruption_errors(replicates, reference, 0.5 / n)
    return (
        Bootstrap(one_by_one.flatten(), replicates.flatten(1), stats.UNBOUNDED),
        Bootstrap(one_by_one.mean(0), replicates.mean(1), stats.UNBOUNDED),
    )
