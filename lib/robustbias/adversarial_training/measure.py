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

TOLERANCE = 0.01  # accuracy may rise by this much by chance of the random starts


@torch.no_grad()
def correct(network: nn.Module, images: Images, batch: int) -> Bool[Tensor, " n"]:
    """Whether the network's top class is the label, in full precision."""
    size = fitting(network, images.pixels, batch)
    parts = [network(pixels).argmax(1) == labels for pixels, labels in images.batches(size)]
    return torch.cat(parts)


def survived(
    network: nn.Module,
    images: Images,
    clean: Bool[Tensor, " n"],
    *,
    steps: int,
    batch: int,
    **attack: Any,
) -> tuple[Bool[Tensor, " n"], Float[Tensor, " m"]]:
    """Images classified correctly both clean and under attack, and the m norms the attack reached.

    The zero perturbation lies in every ball, so a misclassified image needs no attack. The others
    are attacked with a quarter of the steps and, if still correct, with all steps on the margin,
    then on cross-entropy, since neither loss is the stronger for every network. Gradients may be
    in bfloat16; attacked images are classified in full precision.

    Args:
        clean: Which images are correct without attack; only these m are attacked.
        attack: Further arguments of `attacks.pgd`.
    """
    standing = clean.clone()
    norms = torch.full(clean.shape, torch.nan)
    stages = [(-(-steps // 4), "margin"), (steps, "margin"), (steps, "cross-entropy")]
    for count, loss in stages:
        for index in standing.nonzero()[:, 0].split(batch) if standing.any() else ():
            pixels, labels = next(images.take(index).batches(batch))
            result = attacks.pgd(network, pixels, labels, steps=count, loss=loss, **attack)
            with torch.no_grad():
                standing[index] = network(result.pixels).argmax(1) == labels
            norms[index.cpu()] = result.norm.float().cpu()
    return standing, norms[clean.cpu()]


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
    """Top-1 on held-out images, clean and under PGD over a grid of radii.

    Metrics: `top1` (Wilson interval; condition `clean` or `pgd-NORM-EPS`), `achieved_norm` (mean,
    with its smallest and largest value as low and high), `top1_difference` (robust minus standard
    of one architecture on the same images, paired bootstrap). At the study's training radius the
    attack is repeated with twice the steps. Networks outside the pairs are only tested clean.

    Cost: at most 2.25 * n_images * restarts * steps * (radii + 2) forward and backward passes
    per network; a fifth of it where the attack succeeds at once.

    Args:
        n_images: Held-out images, drawn with the study's seed; at most all of them.
        eps_grid: Attack radii in pixel units (0 is `clean`); the study's grid when None.
        steps: PGD steps; the study's when 0.
        restarts: Random starts; the worst result of each image counts.

    Raises:
        UserError: n_images or a radius is out of range.

    Source: Madry et al. 2018, arXiv 1706.06083.
    """
    threat = study.entry.threat
    grid = sorted(set(study.entry.attack_grid if eps_grid is None else eps_grid) - {0.0})
    if not grid or grid[0] <= 0:
        raise UserError(f"attack radii must be positive, got {grid}: 0 alone is `clean`")
    steps = steps or threat.test_steps
    generator = torch.Generator().manual_seed(study.seed)
    images = held_out_sample(study, n_images, generator)
    plans = [(eps, steps) for eps in grid]
    plans += [(threat.eps, 2 * steps)] if threat.eps in grid else []

    attacked = {entry.name for pair in pairs(study).values() for entry in pair.values()}
    rows, columns, per_condition = [], [], []

    def tested(entry: NetworkEntry, eps: float, count: int) -> Part:
        network = study.network_named(entry.name)
        clean = correct(network, images, batch)
        if not eps:
            return {"standing": clean, "norms": torch.empty(0)}
        standing, norms = survived(
            network,
            images,
            clean,
            batch=batch,
            norm=threat.norm,
            eps=eps,
            steps=count,
            restarts=restarts,
            bfloat16=fast_bfloat16(images.pixels.device),
            generator=torch.Generator(images.pixels.device).manual_seed(study.seed),
        )
        return {"standing": standing, "norms": norms}

    conditions = [
        (entry, *plan)
        for entry in study.entries
        if entry.cue == "both"
        for plan in [(0.0, 0), *(plans if entry.name in attacked else ())]
    ]
    tasks = {
        f"{entry.name} eps {eps:g} steps {count}": partial(tested, entry, eps, count)
        for entry, eps, count in conditions
    }
    for (entry, eps, count), part in zip(conditions, parts(tasks).values(), strict=True):
        name = f"pgd-{threat.norm}-{eps:g}" if eps else "clean"
        condition = {"condition": name, "attack_eps": eps, "steps": count}
        columns.append(described(study, entry) | condition)
        per_condition.append(part["standing"])
        rows.append(columns[-1] | _top1(part["standing"]))
        if len(part["norms"]):
            rows.append(columns[-1] | _spread(part["norms"]))
    correctness = torch.stack(per_condition, 1).float()
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

    Columns: network, architecture, regime, check, worst (the largest violation seen), allowed,
    holds.

    Source: Carlini et al. 2019, arXiv 1902.06705, section 5.
    """
    top1 = table[table["metric"] == "top1"]
    norms = table[table["metric"] == "achieved_norm"]
    rows = []
    for name, rates in top1.groupby("network", sort=False):
        attack = rates[rates["steps"] > 0].sort_values("attack_eps")
        if attack.empty:
            continue
        about = rates[["network", "architecture", "regime"]].iloc[0].to_dict()
        clean = float(rates.loc[rates["steps"] == 0, "value"].iloc[0])
        curve = attack[attack["steps"] == attack["steps"].min()]
        doubled = attack[attack["steps"] > attack["steps"].min()].set_index("attack_eps")["value"]
        base = curve.set_index("attack_eps")["value"]
        reached = norms[norms["network"] == name]
        worst = {
            "accuracy falls as eps grows": (curve["value"].diff().max(), TOLERANCE),
            "attacked accuracy stays below clean": (attack["value"].max() - clean, 0.0),
            "twice the steps do not help the defender": (
                (doubled - base.reindex(doubled.index)).max(),
                TOLERANCE,
            ),
            "perturbations stay in the ball": (
                (reached["high"] / reached["attack_eps"] - 1).max(),
                1e-3,
            ),
        }
        if rates["regime"].iloc[0] == "standard":
            worst["the standard network falls to zero"] = (curve["value"].iloc[-1], 0.05)
        rows += [
            {**about, "check": check, "worst": value, "allowed": allowed}
            for check, (value, allowed) in worst.items()
            if not pd.isna(value)
        ]
    columns = ["network", "architecture", "regime", "check", "worst", "allowed"]
    checks = pd.DataFrame(rows, columns=columns)
    checks["holds"] = checks["worst"] <= checks["allowed"] + 1e-9  # rates differ by rounding
    return checks


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
    labels = held_out.labels
    both = torch.stack([correct(net, held_out, 40 * n) for net in networks.values()]).all(0)
    first = {int(labels[i]): i for i in reversed(both.nonzero()[:, 0].tolist())}
    index = torch.tensor(sorted(first.values())[:n], device=labels.device)
    pixels, labels = floats(held_out.pixels[index]), labels[index]
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
    first = [int((held_out.labels == label).nonzero()[0]) for label in range(n)]
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
