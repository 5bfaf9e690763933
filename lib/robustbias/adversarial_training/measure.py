"""Clean and adversarial accuracy, with the checks that tell a real defence from a weak attack."""

import dataclasses
from functools import partial
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from robustbias import attacks, stats, training
from robustbias.images import Images, floats
from robustbias.manifest import NetworkEntry
from robustbias.networks.hooks import fitting
from robustbias.studies import Study, described, held_out_sample, pair_of, pairs
from robustbias.tables import Part, measure, parts, tidy
from robustbias.utils import UserError

MASKING = ("black_box", "zero_gradient")
QUERIES = 200  # of the attack without gradients
TOLERANCE = 0.01  # share of images on which an attack of another kind may do better


@torch.no_grad()
def correct(network: nn.Module, images: Images, batch: int) -> Bool[Tensor, " n"]:
    """Whether the network's top class is the label, in full precision."""
    size = fitting(network, images.pixels, batch)
    parts = [network(pixels).argmax(1) == labels for pixels, labels in images.batches(size)]
    return torch.cat(parts)


def survived(
    network: nn.Module, images: Images, standing: Bool[Tensor, " n"], *, batch: int, **attack: Any
) -> tuple[Bool[Tensor, " n"], Float[Tensor, " m"]]:
    """Which of the standing images stay classified correctly, and how far the m fooled ones moved.

    Args:
        standing: Which images are attacked; the others are wrong already, in every larger ball too.
        attack: Further arguments of `attacks.worst_case`.
    """
    left, norms = standing.clone(), []
    batch = fitting(network, images.pixels, batch, held=True)
    for index in standing.nonzero()[:, 0].split(batch) if standing.any() else ():
        pixels, labels = next(images.take(index).batches(batch))
        result = attacks.worst_case(network, pixels, labels, **attack)
        left[index] = ~result.fooled
        norms.append(result.norm[result.fooled].float().cpu())
    return left, torch.cat(norms) if norms else torch.empty(0)


def masking(
    network: nn.Module,
    images: Images,
    clean: Bool[Tensor, " n"],
    left: Bool[Tensor, " n"],
    *,
    batch: int,
    norm: str,
    eps: float,
    generator: torch.Generator,
) -> Float[Tensor, " 2"]:
    """Signs that gradients hide how weak a network is, as shares of all images, named in MASKING.

    `black_box`: still right after `left`, the attack with gradients, but not after QUERIES of
    `attacks.random_search`. `zero_gradient`: right without attack, with a gradient of exactly zero.
    """
    fooled = zero = 0
    batch = fitting(network, images.pixels, batch, held=True)
    for index in left.nonzero()[:, 0].split(batch) if left.any() else ():
        pixels, labels = next(images.take(index).batches(batch))
        how = {"norm": norm, "eps": eps, "queries": QUERIES, "generator": generator}
        fooled += int(attacks.random_search(network, pixels, labels, **how).fooled.sum())
    for index in clean.nonzero()[:, 0].split(batch) if clean.any() else ():
        pixels, labels = next(images.take(index).batches(batch))
        loss = attacks.LOSSES["cross-entropy"](network(pixels.requires_grad_()), labels)
        (gradient,) = torch.autograd.grad(loss, pixels)
        zero += int((gradient.flatten(1) == 0).all(1).sum())
    return torch.tensor([fooled, zero], dtype=torch.float64) / len(images)


@measure
def accuracy(
    study: Study,
    *,
    n_images: int = 200,
    eps_grid: tuple[float, ...] | list[float] | None = None,
    steps: int = 0,
    restarts: int = 1,
    batch: int = 128,
) -> pd.DataFrame:
    """Top-1 on held-out images, clean and under the worst of several attacks over a grid of radii.

    An image that a smaller radius fools is fooled at every larger one, which includes it. The
    study's training radius is attacked first, then larger ones, then smaller ones, each on the
    images that the others leave open: what stands at a radius stands at every smaller one.

    Metrics: `top1` (Wilson interval, which the interval of a mean over replicates contains;
    condition `clean` or `pgd-NORM-EPS`), `achieved_norm` (of the images fooled: the mean, with the
    smallest and largest value as low and high),
    `top1_difference` (robust minus standard of one architecture on the same images, paired
    bootstrap), and at the study's training radius `black_box` and `zero_gradient` (`masking`).
    Networks outside the pairs are only tested clean.

    Cost: restarts * steps * (2.25 + targets) forward and backward passes (`attacks.worst_case`)
    for each image that is correct within the training radius, and again at each radius next to
    the largest that it withstands; little for images that are easily fooled.

    Args:
        n_images: Held-out images, drawn with the study's seed; at most all of them.
        eps_grid: Attack radii in pixel units (0 is `clean`); the study's grid when None.
        steps: Steps of each attack; the study's when 0.
        restarts: Random starts; the worst result of each image counts.

    Raises:
        UserError: n_images or a radius is out of range.

    Source: Madry et al. 2018, arXiv 1706.06083; Croce and Hein 2020, arXiv 2003.01690.
    """
    threat = study.entry.threat
    grid = sorted(set(study.entry.attack_grid if eps_grid is None else eps_grid) - {0.0})
    if not grid or grid[0] <= 0:
        raise UserError(f"attack radii must be positive, got {grid}: 0 alone is `clean`")
    outwards = [eps for eps in grid if eps >= threat.eps]
    outwards += [eps for eps in reversed(grid) if eps < threat.eps]
    steps = steps or threat.test_steps
    generator = torch.Generator().manual_seed(study.seed)
    images = held_out_sample(study, n_images, generator)
    attacked = {entry.name for pair in pairs(study).values() for entry in pair.values()}
    rows, columns, per_condition = [], [], []

    def tested(entry: NetworkEntry) -> Part:
        """Which images stand, per radius; how far the fooled ones moved; signs of masking."""
        network, on = study.network_named(entry.name), images.pixels.device
        clean = correct(network, images, batch)
        tested_at = {"standing 0": clean}
        how = {"batch": batch, "norm": threat.norm}
        how["generator"] = torch.Generator(on).manual_seed(study.seed)
        strong = {"steps": steps, "restarts": restarts}
        standing = {0.0: clean}
        for eps in outwards if entry.name in attacked else ():
            certain = standing.get(min((e for e in standing if e > eps), default=None), ~clean)
            below = standing[max(e for e in standing if e < eps)]
            left, norms = survived(network, images, below & ~certain, eps=eps, **how, **strong)
            standing[eps] = left | (below & certain)
            tested_at |= {f"standing {eps:g}": standing[eps], f"norms {eps:g}": norms}
            if eps == threat.eps:
                tested_at["masking"] = masking(
                    network, images, clean, standing[eps], eps=eps, **how
                )
        return tested_at

    entries = [entry for entry in study.entries if entry.cue == "both"]
    tasks = {entry.name: partial(tested, entry) for entry in entries}
    for entry, part in zip(entries, parts(tasks).values(), strict=True):
        for eps in [0.0, *(grid if entry.name in attacked else ())]:
            name = f"pgd-{threat.norm}-{eps:g}" if eps else "clean"
            condition = {"condition": name, "attack_eps": eps, "steps": steps if eps else 0}
            columns.append(described(study, entry) | condition)
            per_condition.append(part[f"standing {eps:g}"])
            top1 = vars(stats.share(per_condition[-1].cpu(), images.clusters))
            rows.append(columns[-1] | {"metric": "top1", **top1})
            if eps and len(part[f"norms {eps:g}"]):
                rows.append(columns[-1] | _spread(part[f"norms {eps:g}"]))
            if eps and eps == threat.eps:
                for metric, share in zip(MASKING, part["masking"].tolist(), strict=True):
                    rows.append(columns[-1] | {"metric": metric, "value": share, "n": len(images)})
    correctness = torch.stack(per_condition, 1).float()
    boot = stats.ratios(
        correctness,
        torch.ones_like(correctness),
        images.clusters,
        generator=generator,
    )
    about = pd.DataFrame(columns).assign(metric="top1", n=len(correctness))
    means = stats.intervals(*stats.averaged(study, about, boot, paired=True))
    means = means[means["mean_over"].notna()]  # single networks have Wilson's interval
    for at, row in means.iterrows():  # resampling cannot widen images that are all wrong
        n = row["n"] if 0 < row["value"] < 1 else len(images.clusters.unique())
        exact = stats.wilson(row["value"] * n, n)
        means.loc[at, ["low", "high"]] = min(row["low"], exact.low), max(row["high"], exact.high)
    about = about.assign(metric="top1_difference")
    differences = stats.intervals(*stats.compared(study, about, boot, paired=True))
    return tidy(pd.concat([pd.DataFrame(rows), means, differences], ignore_index=True))


def _spread(norms: Float[Tensor, " m"]) -> dict[str, Any]:
    return {
        "metric": "achieved_norm",
        "value": float(norms.mean()),
        "low": float(norms.min()),
        "high": float(norms.max()),
        "n": len(norms),
    }


def accuracy_checks(table: pd.DataFrame) -> pd.DataFrame:
    """Checks that a table of `accuracy` is not from a weak attack, one row per network and check.

    Columns: network, architecture, replicate, regime, check, worst (the largest violation seen),
    allowed, holds.

    Source: Carlini et al. 2019, arXiv 1902.06705, section 5; Croce and Hein 2020.
    """
    rows = []
    attacked = table[(table["steps"] > 0) & (table["metric"] != "top1_difference")]
    attacked = attacked[attacked["mean_over"].isna()]
    for _, of_network in attacked.groupby("network", sort=False):
        by_metric = dict(list(of_network.groupby("metric")))
        reached = by_metric.get("achieved_norm", of_network.head(0))
        strongest = by_metric["top1"].nlargest(1, "attack_eps")["value"]
        about = of_network[["network", "architecture", "replicate", "regime"]].iloc[0].to_dict()
        worst = {
            "an attack without gradients fools no more images": ("black_box", TOLERANCE),
            "no gradient is zero": ("zero_gradient", TOLERANCE),
        }
        worst = {
            check: (by_metric[metric]["value"].iloc[0], allowed)
            for check, (metric, allowed) in worst.items()
            if metric in by_metric
        }
        worst["perturbations stay in the ball"] = (
            (reached["high"] / reached["attack_eps"] - 1).max(),
            1e-3,
        )
        if of_network["regime"].iloc[0] == "standard":
            worst["the standard network falls to zero"] = (strongest.iloc[0], 0.05)
        rows += [
            {**about, "check": check, "worst": value, "allowed": allowed}
            for check, (value, allowed) in worst.items()
            if not pd.isna(value)
        ]
    columns = ["network", "architecture", "replicate", "regime", "check", "worst", "allowed"]
    checks = pd.DataFrame(rows, columns=columns)
    # shares of images are compared as such: two images of 200 are one in a hundred, not more
    checks["holds"] = checks["worst"] <= checks["allowed"] + 1e-9
    return checks


def robustness(table: pd.DataFrame) -> pd.DataFrame:
    """One row a network of a table of `accuracy`: accuracies at its training radius, and warnings.

    Columns: network, eps, n, clean, robust (worst case), warnings (checks that fail, "" if none).
    """
    top1 = table[(table["metric"] == "top1") & table["mean_over"].isna()].set_index("network")
    checks = accuracy_checks(table)
    failed = checks[~checks["holds"]].groupby("network")["check"].agg("; ".join)
    radius = top1.loc[top1["pair"].astype(bool), "eps"].max()
    robust = top1[(top1["attack_eps"] == radius) & (top1["steps"] > 0)]
    clean = top1.loc[top1["steps"] == 0, "value"].reindex(robust.index)
    summary = robust[["n"]].assign(eps=radius, clean=clean, robust=robust["value"])
    summary["warnings"] = failed.reindex(summary.index).fillna("")
    return summary.reset_index()[["network", "eps", "n", "clean", "robust", "warnings"]]


@dataclasses.dataclass(frozen=True)
class AdversarialExamples:
    """Images in [0, 1], attacked once per network; keys of the dicts are regimes."""

    clean: Float[Tensor, "n 3 h w"]
    labels: Int64[Tensor, " n"]
    classes: tuple[str, ...]
    attacked: dict[str, Tensor]
    predictions: dict[str, Tensor]


def adversarial_examples(
    study: Study, *, architecture: str, n: int = 6, eps: float | None = None, steps: int = 0
) -> AdversarialExamples:
    """S and R of one architecture, attacked on the same images that both classify correctly.

    The first such image of each of n classes, at most; no selection by us.

    Args:
        eps: Attack radius; the study's training radius when None.
        steps: PGD steps; the study's when 0.

    Raises:
        UserError: the study has no networks of this architecture.
    """
    threat, pair = study.entry.threat, pair_of(study, architecture)
    networks = {regime: study.network_named(entry.name) for regime, entry in pair.items()}
    held_out = study.source.val()
    order = torch.randperm(len(held_out), generator=torch.Generator().manual_seed(study.seed))
    held_out = held_out.take(order[: 40 * n]).to(study.device)
    labels = held_out.labels
    both = torch.stack([correct(net, held_out, 40 * n) for net in networks.values()]).all(0)
    first = {int(labels[i]): i for i in reversed(both.nonzero()[:, 0].tolist())}
    index = torch.tensor(sorted(first.values())[:n], dtype=torch.long, device=labels.device)
    pixels, labels = floats(held_out.pixels[index]), labels[index]
    attacked, predictions = {}, {}
    for regime, network in networks.items() if len(pixels) else ():
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
    return AdversarialExamples(pixels, labels, held_out.classes, attacked, predictions)


def targeted_images(
    study: Study,
    *,
    architecture: str,
    n: int = 6,
    radius: float = 10.0,
    steps: int = 100,
    from_grey: bool = False,
) -> AdversarialExamples:
    """Images that S and R of one architecture assign to other classes, by large targeted attacks.

    Start images are the first held-out images of n classes; the target of each is the class of the
    next. `labels` of the result are the targets.

    Args:
        radius: In multiples of the study's training radius, in L2.
        from_grey: Start from mid-grey with weak noise, where held-out images cannot be shown.

    Raises:
        UserError: The study has no networks of this architecture.

    Source: Santurkar et al. 2019, arXiv 1906.09453.
    """
    held_out, pair = study.source.val(), pair_of(study, architecture)
    classes = held_out.labels.unique()[:n]
    first = [int((held_out.labels == label).nonzero()[0]) for label in classes]
    images = held_out.take(torch.tensor(first)).to(study.device)
    pixels, targets = floats(images.pixels), images.labels.roll(-1)
    if from_grey:
        noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(study.seed))
        pixels = (0.5 + 0.02 * noise).clamp(0, 1).to(study.device)
    eps = radius * study.entry.threat.eps
    changed, predictions = {}, {}
    for regime, entry in pair.items():
        network, images = study.network_named(entry.name), pixels.clone()
        for _ in range(steps):
            images.requires_grad_()
            loss = F.cross_entropy(network(images), targets, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, images)
            change = images.detach() - pixels - 2.5 * eps / steps * _of_length(gradient, 1.0)
            longer = change.flatten(1).norm(dim=1) > eps
            change[longer] = _of_length(change[longer], eps)
            images = (pixels + change).clamp(0, 1).detach()
        changed[regime] = images
        with torch.no_grad():
            predictions[regime] = network(changed[regime]).argmax(1)
    return AdversarialExamples(pixels, targets, held_out.classes, changed, predictions)


def _of_length(x: Float[Tensor, "n c h w"], length: float) -> Float[Tensor, "n c h w"]:
    norms = x.flatten(1).norm(dim=1)[:, None, None, None]
    return x * (length / norms.clamp(min=1e-12))


def training_records(study: Study, *, series: bool = False) -> pd.DataFrame:
    """One row per epoch of every S and R, as recorded in training.

    Args:
        series: Those of the series over training radii, instead of the pairs.

    Columns: network, architecture, regime, eps, epoch, loss, clean and adversarial (held-out
    accuracies, NaN in epochs without a test), seconds, rate.
    """
    entries = [entry for pair in pairs(study).values() for entry in pair.values()]
    if series:
        entries = [entry for entry in study.entries if entry.series == "radius"]
    return training.records(entry.name for entry in entries)
