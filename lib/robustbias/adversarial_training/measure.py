"""Clean and adversarial accuracy, with the checks that tell a real defence from a weak attack."""

import dataclasses
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from robustbias import attacks, stats, studies, training
from robustbias.images import Images, floats
from robustbias.images.source import Source
from robustbias.networks import zoo
from robustbias.studies import Study, described, held_out_sample, pair_of, pairs
from robustbias.tables import measure, tidy
from robustbias.utils import UserError

CLEAN = {"condition": "clean", "attack_eps": 0.0, "steps": 0}
QUERIES = 200  # of the attack without gradients
TOLERANCE = 0.01  # share of images on which an attack of another kind may do better


@torch.no_grad()
def correct(network: nn.Module, images: Images, batch: int) -> Bool[Tensor, " n"]:
    """Whether the network's top class is the label, in full precision."""
    parts = [network(pixels).argmax(1) == labels for pixels, labels in images.batches(batch)]
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
) -> dict[str, float]:
    """Signs that gradients hide how weak a network is, as shares of all images.

    `black_box`: still right after `left`, the attack with gradients, but not after QUERIES of
    `attacks.random_search`. `zero_gradient`: right without attack, with a gradient of exactly zero.
    """
    fooled = zero = 0
    for index in left.nonzero()[:, 0].split(batch) if left.any() else ():
        pixels, labels = next(images.take(index).batches(batch))
        how = {"norm": norm, "eps": eps, "queries": QUERIES, "generator": generator}
        fooled += int(attacks.random_search(network, pixels, labels, **how).fooled.sum())
    for index in clean.nonzero()[:, 0].split(batch) if clean.any() else ():
        pixels, labels = next(images.take(index).batches(batch))
        loss = attacks.LOSSES["cross-entropy"](network(pixels.requires_grad_()), labels)
        (gradient,) = torch.autograd.grad(loss, pixels)
        zero += int((gradient.flatten(1) == 0).all(1).sum())
    return {"black_box": fooled / len(images), "zero_gradient": zero / len(images)}


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()


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

    An image that a smaller radius fools is fooled at every larger one, which includes it.

    Metrics: `top1` (Wilson interval; condition `clean` or `pgd-NORM-EPS`), `achieved_norm` (of the
    images fooled: the mean, with the smallest and largest value as low and high),
    `top1_difference` (robust minus standard of one architecture on the same images, paired
    bootstrap), and at the study's training radius `black_box` and `zero_gradient` (`masking`).
    Networks outside the pairs are only tested clean.

    Cost: at most n_images * restarts * steps * (2.25 + targets / 2) forward and backward passes a
    radius and network (`attacks.worst_case`); next to nothing for networks that are easily fooled.

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
    steps = steps or threat.test_steps
    generator = torch.Generator().manual_seed(study.seed)
    images = held_out_sample(study, n_images, generator)
    attacked = {entry.name for pair in pairs(study).values() for entry in pair.values()}
    rows, columns, per_condition = [], [], []
    for entry in [entry for entry in study.entries if entry.cue == "both"]:
        network = study.network_named(entry.name)
        standing = clean = correct(network, images, batch)
        columns.append(described(study, entry) | CLEAN)
        per_condition.append(clean)
        rows.append(columns[-1] | _top1(clean))
        on = images.pixels.device
        how = {"batch": batch, "norm": threat.norm}
        how["generator"] = torch.Generator(on).manual_seed(study.seed)
        strong = {"steps": steps, "restarts": restarts, "bfloat16": fast_bfloat16(on)}
        for eps in grid if entry.name in attacked else ():
            standing, norms = survived(network, images, standing, eps=eps, **how, **strong)
            condition = f"pgd-{threat.norm}-{eps:g}"
            facts = {"condition": condition, "attack_eps": eps, "steps": steps}
            columns.append(described(study, entry) | facts)
            per_condition.append(standing)
            rows.append(columns[-1] | _top1(standing))
            if len(norms):
                rows.append(columns[-1] | _spread(norms))
            if eps == threat.eps:
                signs = masking(network, images, clean, standing, eps=eps, **how)
                shares = {"n": len(images), "low": None, "high": None}
                rows += [columns[-1] | {"metric": k, "value": v} | shares for k, v in signs.items()]
    correctness = torch.stack(per_condition, 1).float().cpu()
    boot = stats.ratios(
        correctness,
        torch.ones_like(correctness),
        torch.arange(len(correctness)),
        generator=generator,
    )
    about = pd.DataFrame(columns).assign(metric="top1_difference", n=len(correctness))
    differences = stats.intervals(*stats.compared(study, about, boot, paired=True))
    return tidy(pd.concat([pd.DataFrame(rows), differences], ignore_index=True))


def _top1(correct: Bool[Tensor, " n"]) -> dict[str, Any]:
    return {"metric": "top1", **vars(stats.wilson(int(correct.sum()), len(correct)))}


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

    Columns: network, check, worst (the largest violation seen), allowed, holds.

    Source: Carlini et al. 2019, arXiv 1902.06705, section 5; Croce and Hein 2020.
    """
    rows = []
    attacked = table[(table["steps"] > 0) & (table["metric"] != "top1_difference")]
    for name, own in attacked.groupby("network", sort=False):
        by_metric = dict(list(own.groupby("metric")))
        reached = by_metric.get("achieved_norm", own.head(0))
        strongest = by_metric["top1"].nlargest(1, "attack_eps")["value"]
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
        if own["regime"].iloc[0] == "standard":
            worst["the standard network falls to zero"] = (strongest.iloc[0], 0.05)
        rows += [
            {"network": name, "check": check, "worst": value, "allowed": allowed}
            for check, (value, allowed) in worst.items()
            if not pd.isna(value)
        ]
    checks = pd.DataFrame(rows, columns=["network", "check", "worst", "allowed"])
    # shares of images are compared as such: two images of 200 are one in a hundred, not more
    checks["holds"] = checks["worst"] <= checks["allowed"] + 1e-9
    return checks


def robustness(table: pd.DataFrame) -> pd.DataFrame:
    """One row a network of a table of `accuracy`: accuracies at its training radius, and warnings.

    Columns: network, eps, n, clean, robust (worst case), warnings (checks that fail, "" if none).
    """
    top1 = table[table["metric"] == "top1"].set_index("network")
    checks = accuracy_checks(table)
    failed = checks[~checks["holds"]].groupby("network")["check"].agg("; ".join)
    radius = top1.loc[top1["pair"].astype(bool), "eps"].max()
    robust = top1[(top1["attack_eps"] == radius) & (top1["steps"] > 0)]
    clean = top1.loc[top1["steps"] == 0, "value"].reindex(robust.index)
    found = robust[["n"]].assign(eps=radius, clean=clean, robust=robust["value"])
    found["warnings"] = failed.reindex(found.index).fillna("")
    return found.reset_index()[["network", "eps", "n", "clean", "robust", "warnings"]]


@dataclasses.dataclass(frozen=True)
class AdversarialExamples:
    """Images in [0, 1], attacked once per network; keys of the dicts are regimes."""

    clean: Float[Tensor, "n 3 h w"]
    labels: Int64[Tensor, " n"]
    classes: tuple[str, ...]  # the entry-level word where there is one
    attacked: dict[str, Tensor]
    predictions: dict[str, Tensor]


def adversarial_examples(
    study: Study, *, architecture: str, n: int = 6, eps: float | None = None, steps: int = 0
) -> AdversarialExamples:
    """S and R of one architecture, attacked on the same images that both classify correctly.

    The first such image of each of n classes; no selection by us.

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
    pixels, labels = floats(held_out.pixels), held_out.labels
    with torch.no_grad():
        both = torch.stack([net(pixels).argmax(1) == labels for net in networks.values()]).all(0)
    first = {int(labels[i]): i for i in reversed(both.nonzero()[:, 0].tolist())}
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


def training_records(study: Study, *, series: bool = False) -> pd.DataFrame:
    """One row per epoch of every S and R, as recorded in training.

    Args:
        series: Those of the series over training radii, instead of the pairs.

    Columns: network, architecture, regime, eps, epoch, loss, clean and adversarial (held-out
    accuracies, NaN in epochs without a test), seconds, rate.
    """
    entries = [entry for pair in pairs(study).values() for entry in pair.values()]
    if series:
        dose = study.entry.dose_architecture
        entries = [e for e in study.entries if e.cue == "both" and e.architecture == dose]
    return training.records(entry.name for entry in entries)


@dataclasses.dataclass(frozen=True)
class Excerpt(Source):
    """A few images that are the same in every epoch, as a source for training."""

    images: Images
    held_out: Images

    def train(self, epoch: int, seed: int) -> Images:
        return self.images

    def val(self) -> Images:
        return self.held_out


def excerpt(study: Study, n_images: int, n_classes: int) -> Excerpt:
    """Training images of the first classes; a generated world draws only as many as needed."""
    entry, source = study.entry, study.source
    if entry.world:
        share = n_classes / len(study.categories)
        world = entry.world | {"train_images": round(n_images / share)}
        source = studies.source(dataclasses.replace(entry, world=world), study.device)

    def first(images: Images) -> Images:
        return images.take((images.labels < n_classes).nonzero()[:n_images, 0])

    return Excerpt(first(source.train(0, study.seed)), first(study.source.val()))


def live_pair(
    study: Study,
    *,
    architecture: str,
    epochs: int,
    n_images: int,
    n_classes: int = 4,
    **recipe: Any,
) -> pd.DataFrame:
    """Records of an S and an R trained from random weights, one row per epoch.

    Columns as in `training_records`. Few classes, small batches and half the study's radius
    make training visible within a minute; the accuracies are not those of the study.

    Args:
        n_images: Training images, the same in every epoch.
        n_classes: Classes they are of, the first ones.
        recipe: Fields of `training.Recipe` to change.
    """
    source = excerpt(study, n_images, n_classes)
    radius = study.entry.threat.eps / 2
    quick = {"epochs": epochs, "seed": study.seed, "test_every": 1, "test_images": 100}
    quick |= {"batch": 32, "rate": 0.1, "steps": 2, "test_eps": radius} | recipe
    tables = []
    for regime, entry in pairs(study)[architecture].items():
        eps = radius if regime == "robust" else 0.0
        how = training.recipe(entry, study.entry, **quick | {"eps": eps})
        network = zoo.untrained(entry, study.seed).to(study.device)
        rows = training.train(network, source, how, progress=False)
        tables.append(rows.assign(architecture=architecture, regime=regime, network=entry.name))
    return pd.concat(tables, ignore_index=True)
