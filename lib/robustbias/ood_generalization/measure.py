"""Accuracy of S and R on distorted and corrupted images, in three readings, and the mCE.

Source: Chen, Agarwal and Nguyen 2020, arXiv 2006.09373 (distortions); Hendrycks and Dietterich
2019, arXiv 1903.12261 (corruptions and mCE).
"""

import dataclasses
import hashlib
import math
from collections.abc import Callable
from functools import partial

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from robustbias import attacks, stats
from robustbias.images import Images, floats
from robustbias.images import corruptions as images_corruptions
from robustbias.images.corruptions import constants
from robustbias.images.distortions import (
    ADVERSARIAL,
    DISTORTIONS,
    SUPPRESSIONS,
    distorted,
    noisy,
    removed,
    stimuli,
    suppressed,
)
from robustbias.manifest import NetworkEntry
from robustbias.networks.hooks import fitting
from robustbias.ood_generalization import corruption_error
from robustbias.shape_bias.measure import deciding_bias, entry_level
from robustbias.stats import Bootstrap
from robustbias.studies import (
    Study,
    described,
    held_out_sample,
    networks_with_controls,
    paired,
    pairs,
)
from robustbias.tables import Part, measure, parts, tidy
from robustbias.utils import UserError

# group, condition (None for all of a group), severity (None where there is none)
Condition = tuple[str, str | None, int | None]
Correctness = dict[str, Tensor]  # decision -> n x m, images by networks


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Correctness of m networks under c conditions.

    `correct[decision]` is n x c x m, 1 where correct (or the share of times it was);
    `clean[decision]` is n x m for the same images without any change if `paired`, else k x m for
    k other, clean images. `clusters` says what each of the n was made of.
    """

    conditions: list[Condition]
    correct: dict[str, Float[Tensor, "n c m"]]
    clean: dict[str, Bool[Tensor, "k m"]]
    clusters: Int64[Tensor, " n"]
    paired: bool = True


def networks(study: Study) -> list[NetworkEntry]:
    """S and R of every architecture, in this order."""
    return [entry for pair in pairs(study).values() for _, entry in sorted(pair.items())[::-1]]


def partners(entries: list[NetworkEntry]) -> Int64[Tensor, " m"]:
    """For each network the index of the other one of its pair; itself if it has none."""
    pair = [(entry.architecture, entry.replicate) for entry in entries]
    return torch.tensor(
        [
            next((j for j in range(len(pair)) if pair[j] == pair[i] and j != i), i)
            for i in range(len(pair))
        ]
    )


def decisions(
    membership: Float[Tensor, "k q"], labels: Int64[Tensor, " n"], by_category: bool
) -> tuple[str, ...]:
    """Decisions that can be correct: class (top1), entry-level category, or both.

    Where every class is its category the two coincide, and only top1 is returned.
    """
    if torch.equal(membership, torch.eye(len(membership), device=membership.device)):
        return ("top1",)
    if by_category:
        return ("entry_level",)
    inside = bool((membership.sum(1)[labels] > 0).all())
    return ("top1", "entry_level") if inside else ("top1",)


@torch.no_grad()
def correct_by_decision(
    network: nn.Module,
    pixels: Float[Tensor, "n 3 h w"],
    labels: Int64[Tensor, " n"],
    membership: Float[Tensor, "k q"],
    by_category: bool = False,
) -> dict[str, Bool[Tensor, " n"]]:
    """Per-image correctness of a network by every decision that applies.

    Args:
        labels: Classes of the network, or categories if `by_category`.
        membership: 1 where class k belongs to category q; the category with the highest mean
            probability is the entry-level answer.
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


def correctness(
    study: Study,
    images: Images,
    change: Callable[[Tensor], Tensor] | None = None,
    *,
    by_category: bool = False,
    batch: int = 100,
) -> Correctness:
    """Per-image correctness of S and R of every architecture on the images, changed once for all.

    Args:
        change: From a batch of float pixels to the distorted batch.
        by_category: The labels are the study's categories, not the networks' classes.
    """
    models = [study.network_named(entry.name) for entry in networks(study)]
    belongs = [study.membership(network).to(images.pixels.device) for network in models]
    parts: dict[str, list[Tensor]] = {}
    size = min([fitting(network, images.pixels, batch) for network in models], default=batch)
    for block, targets in images.batches(batch):  # changes are drawn alike whatever the memory
        block = block if change is None else change(block)
        for pixels, labels in zip(block.split(size), targets.split(size), strict=True):
            hits = [
                correct_by_decision(network, pixels, labels, membership, by_category)
                for network, membership in zip(models, belongs, strict=True)
            ]
            for decision in hits[0]:
                of_all = torch.stack([h[decision] for h in hits], 1)
                parts.setdefault(decision, []).append(of_all.cpu())
    return {decision: torch.cat(part) for decision, part in parts.items()}


REFERENCE = "alexnet"  # the architecture whose standard network's errors are 100 in a mCE


def rows(
    study: Study, evaluation: Evaluation, generator: torch.Generator, draws: int = stats.DRAWS
) -> tuple[pd.DataFrame, dict[str, Bootstrap]]:
    """Rows of every reading, network and condition with R minus S; and the absolute accuracies.

    Metrics: DECISION, DECISION_relative, DECISION_conditional (top1 or entry_level), and each with
    _difference. `n` counts the images behind the reading. Where no image is left to condition on,
    or a network has no partner, there is no conditional row.
    """
    partner = partners(networks(study))
    alone = partner == torch.arange(len(partner))
    tables, accuracies = [], {}
    for decision, hits in evaluation.correct.items():
        clean = evaluation.clean[decision]
        options = {"clusters": evaluation.clusters, "generator": generator, "draws": draws}
        if evaluation.paired:
            boots = corruption_error.paired(hits, clean, partner, **options)
        else:
            boots = corruption_error.unpaired(hits, clean, **options)
        accuracies[decision] = boots[""]
        for reading, boot in boots.items():
            counts = torch.full((len(partner),), len(hits))
            if reading == "_conditional":
                counts = (clean & clean[:, partner]).sum(0).masked_fill(alone, 0)
            tables.append(tabled(study, boot, evaluation.conditions, decision + reading, counts))
    return pd.concat(tables, ignore_index=True), accuracies


def error_rows(
    study: Study,
    accuracy: Bootstrap,
    group: str,
    corruptions: tuple[str, ...],
    severities: int,
    n: int,
) -> pd.DataFrame:
    """Rows `ce` of every corruption and `mce`, in per cent of a reference network's errors.

    The reference is AlexNet-S, the mean error of its replicates; where a study has none, its first
    standard network. The column `reference` names it: numbers with different references cannot be
    compared.

    Args:
        accuracy: Columns corruption, severity, network, the last fastest.
        n: Images behind each accuracy.

    Raises:
        UserError: there is no standard network, or the reference makes no error somewhere.
    """
    entries = networks(study)
    reference = standard(entries)
    name = stats.common_name([entry.name for entry in reference])
    one_by_one, mean = corruption_error.mean_corruption_error(
        accuracy, [entries.index(entry) for entry in reference], corruptions, severities, n
    )
    counts = torch.full((len(entries),), n)
    each = [(group, corruption, None) for corruption in corruptions]
    tables = [
        tabled(study, one_by_one, each, "ce", counts, name),
        tabled(study, mean, [(group, None, None)], "mce", counts, name),
    ]
    table = pd.concat(tables, ignore_index=True)
    reference = table["network"] == name  # 100 by definition, whatever its replicates do
    table.loc[reference, "low"] = table.loc[reference, "high"] = table.loc[reference, "value"]
    return table


def standard(entries: list[NetworkEntry]) -> list[NetworkEntry]:
    """The network that corruption errors are relative to, all its replicates.

    Raises UserError without any S.
    """
    candidates = [entry for entry in entries if entry.regime == "standard"]
    if not candidates:
        raise UserError(
            "no standard network is here to measure corruption errors by; expected AlexNet-S, or "
            "the S of another architecture. Get its weights first."
        )
    chosen = next((e for e in candidates if e.architecture == REFERENCE), candidates[0])
    return [e for e in candidates if e.architecture == chosen.architecture]


def tabled(
    study: Study,
    boot: Bootstrap,
    conditions: list[Condition],
    metric: str,
    counts: Tensor,
    reference: str | None = None,
) -> pd.DataFrame:
    """One row per network and condition, and one per pair and condition for R minus S.

    Args:
        boot: Columns condition, network, the last fastest.
        counts: Images behind each network's values; networks with none get no row.
    """
    about = pd.DataFrame(
        described(study, entry)
        | {
            "group": group,
            "condition": condition,
            "severity": severity,
            "scope": "severity" if severity else "condition" if condition else "group",
            "removes": (condition and removed(condition)) or None,
            "reference": reference,
            "metric": metric,
            "n": n,
        }
        for group, condition, severity in conditions
        for entry, n in zip(networks(study), counts.tolist(), strict=True)
    )
    with_images = about["n"].to_numpy().nonzero()[0].tolist()
    boot = boot.columns(with_images)
    about = about.iloc[with_images].reset_index(drop=True)
    return stats.aggregate(study, about, boot, paired=True, suffix="_difference")


RESAMPLED = 20_000_000  # image indices in a bootstrap, at most: their memory is bounded
CELLS = [(name, severity) for name in constants.NAMES for severity in constants.SEVERITIES]


@measure(of=paired)
def ood(
    study: Study,
    *,
    n_images: int = 10_000,
    n_corrupted: int = 400,
    n_attacked: int = 100,
    attack_steps: int = 10,
    draws: int = stats.DRAWS,
) -> pd.DataFrame:
    """Accuracy of S and R of every architecture under every distortion and corruption.

    Additional columns: `group`, `condition`, `severity` (1 to 5), `scope` (the finest of these
    three that is one and not a mean over several), `removes` (what a distortion takes away),
    `reference`.

    - `clean`, `distortion`: held-out images as they are, under `images.distortions` and, where the
      source has them, as silhouettes, edges, stylized or texture alone (`STIMULI` there); under an
      attack at the training radius on each network (`attacks.pgd`, top-1 alone).
    - `corruption`: the 15 of ImageNet-C at 5 severities, the mean over severities of each, and of
      all (scope `group`).

    Metrics, for `top1` and, where classes are grouped, `entry_level`: DECISION, DECISION_relative
    and DECISION_conditional (`corruption_error`), each also as R minus S (_difference). `ce` and
    `mce` are in per cent of the network named in `reference`. All intervals are 95 % percentile
    bootstraps over images, or over the drawings that they were made of. Decisions are in full
    precision.

    Cost: (n_images * 14 + n_corrupted * 75 + n_attacked * 3 * attack_steps) forward passes per
    network; every changed image is made once for all networks.

    Args:
        n_images: Held-out images for the distortions, at most, drawn with the study's seed.
        n_corrupted: How many of them are corrupted.
        n_attacked: How many of them are attacked, 0 for none.
        attack_steps: PGD steps, on the margin, one random start.
        draws: Bootstrap resamples; fewer where there are more than 2,000 images.

    Raises:
        UserError: a number out of range, or images of a side without a table of corruptions.
    """
    if n_images < 1 or n_corrupted < 1 or n_attacked < 0:
        raise UserError(
            f"n_images {n_images}, n_corrupted {n_corrupted}, n_attacked {n_attacked}: expected "
            "at least 1 image of each (0 attacked)."
        )
    generator = torch.Generator().manual_seed(study.seed)
    images = held_out_sample(study, n_images, generator)
    draws = min(draws, RESAMPLED // len(images))
    clean = correctness(study, images)
    shown = {decision: hit[:, None].float() for decision, hit in clean.items()}
    as_is = Evaluation([("clean", "clean", None)], shown, clean, images.clusters)
    plain = {metric for decision in clean for metric in (decision, f"{decision}_difference")}
    table, _ = rows(study, as_is, generator, draws)
    tables = [table[table["metric"].isin(plain)]]
    for evaluation in [
        *_distorted(study, images, clean),
        *_attacked(study, images, clean, n_attacked, attack_steps),
    ]:
        tables.append(rows(study, evaluation, generator, draws)[0])
    few = torch.arange(min(n_corrupted, len(images)), device=images.labels.device)
    evaluation = _corrupted(
        study, images.take(few), {d: hit[: len(few)] for d, hit in clean.items()}
    )
    table, accuracies = rows(study, evaluation, generator, draws)
    top1 = accuracies["top1"]
    cells = slice(len(CELLS) * len(networks(study)))
    top1 = top1.columns(cells)
    levels = len(constants.SEVERITIES)
    errors = error_rows(study, top1, "corruption", constants.NAMES, levels, len(few))
    return tidy(pd.concat([*tables, table, errors], ignore_index=True))


def _distorted(study: Study, images: Images, clean: Correctness) -> list[Evaluation]:
    """The images under every distortion, and the stimuli that the source has."""
    changes = {
        name: partial(distorted, name=name, generator=_generator(study, name))
        for name in DISTORTIONS
    }
    tasks = {name: partial(correctness, study, images, change) for name, change in changes.items()}
    hits = list(parts(tasks).values())
    stacked = {d: torch.stack([hit[d] for hit in hits], 1).float() for d in clean}
    conditions = [("distortion", name, None) for name in DISTORTIONS]
    evaluations = [Evaluation(conditions, stacked, clean, images.clusters)]
    for name, displayed, index in stimuli(study.source, images):
        by_category = displayed.classes != images.classes
        correct = correctness(study, displayed.to(study.device), by_category=by_category)
        correct = {decision: hit[:, None].float() for decision, hit in correct.items()}
        if index is not None:
            base = {decision: hit[index] for decision, hit in clean.items()}
        else:
            base = clean if set(correct) <= set(clean) else _by_category(study, images)
        same = index is not None
        condition = [("distortion", name, None)]
        evaluations.append(Evaluation(condition, correct, base, displayed.clusters, paired=same))
    return evaluations


def _by_category(study: Study, images: Images) -> Correctness:
    """Entry-level correctness on those of the images that belong to a category."""
    network = study.network_named(networks(study)[0].name)
    belongs = study.membership(network).to(images.labels.device)[images.labels]
    inside = belongs.any(1).nonzero()[:, 0]
    categories = dataclasses.replace(images.take(inside), labels=belongs[inside].argmax(1))
    return correctness(study, categories, by_category=True)


def _attacked(
    study: Study, images: Images, clean: Correctness, n: int, steps: int
) -> list[Evaluation]:
    """The first n images under an attack on each network itself, at the radius R trained with.

    Read as top-1 alone: the attack leaves the class, and may stay in the category.
    """
    few = images.take(torch.arange(min(n, len(images)), device=images.labels.device))
    if not len(few):
        return []
    threat = study.entry.threat
    pixels, labels = next(few.batches(len(few)))
    attack = {"norm": threat.norm, "eps": threat.eps, "steps": steps}

    def standing(entry: NetworkEntry) -> Part:
        network = study.network_named(entry.name)
        generator = _generator(study, ADVERSARIAL, entry.name)
        attacked = attacks.pgd(network, pixels, labels, generator=generator, **attack)
        with torch.no_grad():
            return {"top1": network(attacked.pixels).argmax(1) == labels}

    hits = parts({f"{ADVERSARIAL} {e.name}": partial(standing, e) for e in networks(study)})
    stacked = {"top1": torch.stack([hit["top1"] for hit in hits.values()], 1)[:, None].float()}
    base = {"top1": clean["top1"][: len(few)]}
    return [Evaluation([("distortion", ADVERSARIAL, None)], stacked, base, few.clusters)]


def _corrupted(study: Study, images: Images, clean: Correctness) -> Evaluation:
    """The images under every corruption and severity, then the means over severities and of all."""
    tasks = {}
    for name, severity in CELLS:
        generator = _generator(study, name, severity)
        change = partial(
            images_corruptions.corrupted, name=name, severity=severity, generator=generator
        )
        tasks[f"{name} {severity}"] = partial(correctness, study, images, change)
    per_cell = parts(tasks).values()
    hits = {}
    for decision in clean:
        cells = torch.stack([hit[decision] for hit in per_cell], 1).float()
        levels = cells.unflatten(1, (len(constants.NAMES), -1)).mean(2)
        hits[decision] = torch.cat([cells, levels, levels.mean(1, keepdim=True)], 1)
    conditions = [("corruption", name, severity) for name, severity in CELLS]
    conditions += [("corruption", name, None) for name in (*constants.NAMES, None)]
    return Evaluation(conditions, hits, clean, images.clusters)


def _generator(study: Study, *key: object) -> torch.Generator:
    """A separate generator per condition, so that none shifts another."""
    digest = hashlib.sha256(repr((study.seed, *key)).encode()).digest()
    return torch.Generator(study.device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@measure(of=paired)
def suppression(study: Study, *, n_images: int = 1300, draws: int = stats.DRAWS) -> pd.DataFrame:
    """Accuracy that S and R keep when a cue is suppressed, and R minus S.

    Metrics `retained` and `retained_difference`: correct on the suppressed images over correct on
    the clean ones (top-1), with bootstraps over images or drawings. Columns as those of `ood`,
    group `suppression`, and `method` and `level` of `images.distortions.SUPPRESSIONS`.

    Args:
        n_images: Held-out images, at most, drawn with the study's seed.

    Source: Burgert et al. 2025, arXiv 2509.20234.
    """
    generator = torch.Generator().manual_seed(study.seed)
    images = held_out_sample(study, n_images, generator)
    clean = correctness(study, images)["top1"].float()
    changes = {
        name: partial(suppressed, name=name, generator=_generator(study, name))
        for name in SUPPRESSIONS
    }
    tasks = {name: partial(correctness, study, images, change) for name, change in changes.items()}
    hits = [hit["top1"].float() for hit in parts(tasks).values()]
    over, under = torch.cat(hits, 1), clean.repeat(1, len(hits))
    options = {"generator": generator, "draws": draws, "bounds": stats.UNBOUNDED}
    boot = stats.ratios(over, under, images.clusters, **options)
    conditions = [("suppression", name, None) for name in SUPPRESSIONS]
    counts = torch.full((clean.shape[1],), len(images))
    table = tabled(study, boot, conditions, "retained", counts)
    named = [SUPPRESSIONS[name] for name in table["condition"]]
    return tidy(table.assign(method=[s.method for s in named], level=[s.level for s in named]))


NOISES = (0.02, 0.04, 0.08, 0.16, 0.32)  # standard deviations, in [0, 1] pixel units
CHANNEL = ("centre", "width", "peak")


def channel(
    accuracy: Float[Tensor, "r b s"], clean: Float[Tensor, " r"], octaves: Float[Tensor, " b"]
) -> tuple[Float[Tensor, "r b"], Float[Tensor, "r 3"]]:
    """Sensitivity to noise in each band, and the channel: centre, width and peak, in octaves.

        threshold = standard deviation of the noise at which accuracy is half of the clean one
        sensitivity = 1 / threshold - 1 / the largest deviation tested

    Thresholds are interpolated over the logarithm of the deviation. Centre: mean octave, weighted
    by sensitivity. Width: the full width at half maximum of a Gaussian of the same variance. Peak:
    log2 of the largest sensitivity. NaN for a network that no noise halves.

    Args:
        accuracy: Under noise of each band and of each of `NOISES`.
        octaves: log2 of the bands' centres.
    """
    half, step = clean[:, None, None] / 2, torch.tensor(NOISES).log2()
    before = torch.cat([clean[:, None, None].expand_as(accuracy[..., :1]), accuracy[..., :-1]], 2)
    below = accuracy <= half
    first = below.float().argmax(2, keepdim=True)
    high, low = (part.gather(2, first)[..., 0] for part in (before, accuracy))
    share = ((high - half[..., 0]) / (high - low).clamp_min(1e-6)).clamp(0, 1)
    # the first deviation is one doubling above the last at which accuracy is as on clean images
    threshold = (step[first[..., 0]] - 1 + share).where(below.any(2), step[-1])
    sensitivity = 2**-threshold - 1 / NOISES[-1]
    weight = sensitivity / sensitivity.sum(1, keepdim=True)
    centre = (weight * octaves).sum(1)
    variance = (weight * (octaves - centre[:, None]) ** 2).sum(1)
    width = 2 * (2 * math.log(2) * variance).sqrt()
    return sensitivity, torch.stack([centre, width, sensitivity.amax(1).log2()], 1)


@measure
def noise_channels(study: Study, *, n_images: int = 300, draws: int = 2000) -> pd.DataFrame:
    """Frequency channel of every network trained on both cues, and its shape bias.

    Accuracy (top-1) under noise of one octave, in bands from 1 to half the side cycles per image,
    gives rows `sensitivity` (column `octave`: log2 of the band's centre in cycles per image) and
    `centre`, `width` and `peak` (`channel`), with bootstraps over images and R minus S
    (_difference). `shape_bias` is on the first display that decides, with crossed clusters.

    Args:
        n_images: Held-out images, at most, drawn with the study's seed.

    Source: Subramanian et al. 2023, arXiv 2309.13190, whose images are grey and of low contrast.
    """
    generator = torch.Generator().manual_seed(study.seed)
    images = held_out_sample(study, n_images, generator)
    side = images.pixels.shape[-1]
    lows = [2.0**k for k in range(int(math.log2(side)) - 1)]  # cycles per image
    octaves = torch.tensor(lows).log2() + 0.5
    models = [(n, load()) for n, load, _ in networks_with_controls(study, images.pixels, 0)]
    hits = torch.zeros(len(models), len(images), 1 + len(lows) * len(NOISES))
    noises = [(low / side, sigma) for low in lows for sigma in NOISES]
    for at, noise in enumerate([None, *noises]):
        for start in range(0, len(images), 100):
            part = images.take(torch.arange(start, min(start + 100, len(images)))).to(study.device)
            pixels = floats(part.pixels)
            if noise is not None:
                band = {"low": noise[0], "high": 2 * noise[0] - 1e-6, "sigma": noise[1]}
                pixels = noisy(pixels, _generator(study, *noise, start), **band)
            with torch.no_grad():
                for m, (_, network) in enumerate(models):
                    correct = network(pixels).argmax(1) == part.labels
                    hits[m, start : start + 100, at] = correct.float().cpu()
    sizes = stats.cluster_sums(torch.ones(len(images), 1), images.clusters)
    counts = stats.resampled_counts(len(sizes), draws, generator)
    metrics = [*((f"octave {o:g}", "sensitivity", float(o)) for o in octaves)]
    metrics += [(name, name, math.nan) for name in CHANNEL]
    abouts, values, resamples = [], [], []
    for (named, _), hit in zip(models, hits, strict=True):
        resampled = counts @ stats.cluster_sums(hit, images.clusters) / (counts @ sizes)
        for accuracy, kept in ((hit.mean(0)[None], values), (resampled, resamples)):
            bands = accuracy[:, 1:].unflatten(1, (len(lows), len(NOISES)))
            kept.append(torch.cat(channel(bands, accuracy[:, 0], octaves), 1))
        abouts += [named | {"metric": m, "octave": o, "n": len(images)} for _, m, o in metrics]
    boot = Bootstrap(torch.cat(values, 1)[0], torch.cat(resamples, 1), None)
    table = stats.aggregate(study, pd.DataFrame(abouts), boot, paired=True, suffix="_difference")
    return tidy(pd.concat([table, deciding_bias(study, draws=draws)], ignore_index=True))


def explained(table: pd.DataFrame, *, draws: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """How much of the variance of shape bias over networks is explained, with a permutation null.

    One row per set of predictors: the channel (centre, width, peak), the training (S or R), both.
    Replicates of a network count once, as their mean, since they are not independent evidence.
    Columns: predictors, value (R squared of least squares), null (95th percentile of R squared
    when shape biases are permuted over networks), p, n (networks). No rows with fewer than 8.

    Args:
        table: From `noise_channels`.
    """
    wide = table[table["regime"].isin(["standard", "robust"]) & table["octave"].isna()]
    wide = wide[wide["mean_over"].isna()]
    recipe = ["architecture", "regime", "eps"]
    wide = wide.pivot_table(index=recipe, columns="metric", values="value", aggfunc="mean")
    # a column without any value is gone from the pivot: too little was measured
    wide = wide.reindex(columns=[*CHANNEL, "shape_bias"]).dropna().reset_index()
    bias = torch.tensor(wide["shape_bias"].to_numpy(float))
    sets = {
        "channel": torch.tensor(wide[list(CHANNEL)].to_numpy(float)),
        "training (S or R)": torch.tensor((wide["regime"] == "robust").to_numpy(float))[:, None],
    }
    sets["channel and training"] = torch.cat(list(sets.values()), 1)
    columns = ["predictors", "value", "null", "p", "n"]
    if len(wide) < 8:
        return pd.DataFrame(columns=columns)
    generator = torch.Generator().manual_seed(seed)
    orders = torch.rand(draws, len(bias), generator=generator).argsort(1)
    targets = torch.cat([bias[None], bias[orders]])
    targets = targets - targets.mean(1, keepdim=True)
    rows = []
    for name, predictors in sets.items():
        basis, scale, _ = torch.linalg.svd(predictors - predictors.mean(0), full_matrices=False)
        basis = basis[:, scale > 1e-9]
        r2 = (targets @ basis).square().sum(1) / targets.square().sum(1)
        p = (1 + int((r2[1:] >= r2[0] - 1e-9).sum())) / (1 + draws)
        rows.append((name, float(r2[0]), float(r2[1:].quantile(0.95)), p, len(bias)))
    return pd.DataFrame(rows, columns=columns)
