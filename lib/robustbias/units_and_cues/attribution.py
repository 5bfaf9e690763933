"""Where in an image a decision comes from: inside the object, on its contour, outside."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from robustbias import stats
from robustbias.images import floats
from robustbias.images.cue_conflict import cues
from robustbias.manifest import NetworkEntry
from robustbias.networks import zoo
from robustbias.studies import Study, described, pair_of, paired, pairs
from robustbias.tables import measure, tidy
from robustbias.units_and_cues.ablation import spread_sample
from robustbias.utils import MissingData, UserError

# Maps are captum's (Kokhlikyan et al. 2020, arXiv 2009.07896). What they explain is the score of a
# category,
#
#     score(q) = log mean over the classes of q of exp(logit)
#
# whose largest is the decision by which shape bias is measured.

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
    """From pixels to the score of each category (see above)."""
    logs = membership.log()  # minus infinity for classes of other categories

    def scores(pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n q"]:
        joint = network(pixels)[:, :, None] + logs
        return joint.logsumexp(1) - membership.sum(0).log()

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
        baseline: Grey level that integrated gradients start from and occlusion fills in, in [0, 1].
        steps: Points of the integral (Gauss-Legendre).
        patch: Side of the occluding square in pixels; it moves by half its side.
        batch: Images per forward pass, whatever the method multiplies them by.

    Raises:
        UserError: An unknown method.
    """
    from captum import attr  # not one of the core's packages

    if method not in METHODS:
        raise UserError(f"unknown attribution method {method!r}: give one of {', '.join(METHODS)}.")
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


@dataclasses.dataclass(frozen=True)
class Explained:
    """A few stimuli and |attribution| of S's and R's decisions; keys of the dicts are regimes."""

    pixels: Float[Tensor, "n 3 h w"]
    masks: Bool[Tensor, "n h w"]
    titles: list[str]
    maps: dict[str, Tensor]
    answers: dict[str, list[str]]


COLUMNS = ["study", "network", "architecture", "regime", "method", "region", "metric"]


@measure(of=paired)
def attribution(
    study: Study,
    *,
    n_images: int = 48,
    methods: tuple[str, ...] | list[str] = METHODS[:3],
    baseline: float = 0.5,
    steps: int = 50,
    width: int = 2,
    draws: int = 2000,
) -> pd.DataFrame:
    """Shares of attribution by region, for S and R on the same cue conflicts.

    Metrics: `share` (mean over images of the region's part of Σ |attribution|), `concentration`
    (the same over the region's part of the area: 1 is what an even map has), and, of integrated
    gradients, `completeness_error` (Σ gap / Σ score change, region `all`). Regime
    `robust - standard` holds paired differences. Intervals resample shape images, n images in all.

    What is explained is the category each network chose, whichever cue it follows. Absolute values
    are summed over colour channels.

    A study whose source has no `conflict_masks` gives a table without rows.

    Args:
        n_images: Cue conflicts, spread over shape images; at most all.
        methods: Some of METHODS; occlusion costs 50 times as much as the others.
        baseline: Grey level that counts as no image, in [0, 1].
        steps: Points of integrated gradients.
        width: Half the width of the contour, in pixels.

    Raises:
        UserError: n_images below 1, an unknown method, or masks of another size than the stimuli.
    """
    if n_images < 1:
        raise UserError(f"n_images is {n_images}: give at least 1 image")
    size = min(study.entry.sizes)
    try:
        masks = study.source.conflict_masks(size)
    except MissingData:
        return pd.DataFrame(columns=[*COLUMNS, "value", "low", "high", "n"])
    stimuli = study.source.cue_conflict(size)
    if masks.shape != (len(stimuli), *stimuli.pixels.shape[2:]):
        raise UserError(
            f"masks are {tuple(masks.shape)} for stimuli {tuple(stimuli.pixels.shape)}: expected "
            "one mask of the same height and width for every stimulus."
        )
    conflict = (stimuli.shape != stimuli.texture).cpu().nonzero()[:, 0]
    generator = torch.Generator().manual_seed(study.seed)
    index = spread_sample(stimuli.names, conflict, min(n_images, len(conflict)), generator)
    pixels = floats(stimuli.pixels[index.to(stimuli.pixels.device)].to(study.device))
    parts = regions(masks[index.to(masks.device)].to(study.device), width).float()
    explained = {
        (entry.name, method): _explained(study, entry, pixels, method, baseline, steps)
        for pair in pairs(study).values()
        for entry in pair.values()
        for method in methods
    }
    shapes = [cues(stimuli.names[i]) for i in index.tolist()]
    clusters = torch.tensor(pd.factorize(pd.Series([s[:2] for s in shapes]))[0])
    return tidy(_rows(study, explained, parts, clusters, generator, draws))


def attribution_examples(
    study: Study, *, architecture: str, n: int = 5, method: str = METHODS[2], steps: int = 50
) -> Explained | None:
    """Stimuli at equal steps through the set, explained for S and R; None without masks.

    Raises:
        UserError: The study has no networks of this architecture, or an unknown method.
    """
    pair = pair_of(study, architecture)
    size = min(study.entry.sizes)
    try:
        masks = study.source.conflict_masks(size)
    except MissingData:
        return None
    stimuli = study.source.cue_conflict(size)
    conflict = (stimuli.shape != stimuli.texture).cpu().nonzero()[:, 0]
    index = conflict[torch.linspace(0, len(conflict) - 1, n).long()]
    at = index.to(stimuli.pixels.device)
    pixels = floats(stimuli.pixels[at].to(study.device))
    maps, answers = {}, {}
    for regime, entry in pair.items():
        map_, chosen, _ = _explained(study, entry, pixels, method, 0.5, steps)
        maps[regime] = map_.cpu()
        answers[regime] = [stimuli.categories[i] for i in chosen.tolist()]
    words = stimuli.categories
    cue_pairs = zip(stimuli.shape[at].tolist(), stimuli.texture[at].tolist(), strict=True)
    titles = [f"{words[shape]} shape\n{words[texture]} texture" for shape, texture in cue_pairs]
    return Explained(pixels.cpu(), masks[at].cpu(), titles, maps, answers)


def _explained(
    study: Study, entry: NetworkEntry, pixels: Tensor, method: str, baseline: float, steps: int
) -> tuple[Float[Tensor, "n h w"], Int64[Tensor, " n"], tuple[Tensor, Tensor] | None]:
    """|attribution| by pixel, of which category, and the gap where the method promises none."""
    network = study.network_named(entry.name)
    scores = category_scores(network, study.membership(network).to(study.device))
    with torch.no_grad():
        chosen = scores(pixels).argmax(1)
    map_ = attributions(scores, pixels, chosen, method, baseline=baseline, steps=steps)
    complete = method == "integrated gradients"
    gap = completeness_gap(scores, pixels, chosen, map_, baseline) if complete else None
    return map_.abs().sum(1), chosen, gap


def _rows(
    study: Study,
    explained: dict[tuple[str, str], tuple[Tensor, Tensor, Any]],
    parts: Float[Tensor, "r n h w"],
    clusters: Int64[Tensor, " n"],
    generator: torch.Generator,
    draws: int,
) -> pd.DataFrame:
    """All columns share the resampled shape images, so that differences of S and R are paired."""
    area = parts.mean((2, 3)).cpu()  # r n
    rows, over, under = [], [], []
    for (name, method), (map_, _, gap) in explained.items():
        entry = next(entry for entry in study.entries if entry.name == name)
        shared = described(study, entry) | {"method": method}
        shares = (parts * map_).sum((2, 3)).div(map_.sum((1, 2))).nan_to_num().cpu()
        for i, region in enumerate(REGIONS):
            row = shared | {"scope": "region", "region": region}
            rows += [row | {"metric": "share"}, row | {"metric": "concentration"}]
            over += [shares[i], shares[i]]
            under += [torch.ones_like(area[i]), area[i]]
        if gap is not None:
            rows.append(shared | {"scope": "method", "metric": "completeness_error"})
            over.append(gap[0].cpu())
            under.append(gap[1].cpu())
    anything = math.nan, math.nan  # what a ratio may be
    options = {"generator": generator, "draws": draws, "bounds": anything}
    boot = stats.ratios(torch.stack(over, 1), torch.stack(under, 1), clusters, **options)
    about = pd.DataFrame(rows).assign(n=len(clusters))
    return stats.aggregate(study, about, boot, paired=True)
