"""Accuracy of S and R on distorted and corrupted images, in three readings, and the mCE.

Source: Chen, Agarwal and Nguyen 2020, arXiv 2006.09373 (distortions); Hendrycks and Dietterich
2019, arXiv 1903.12261 (corruptions and mCE).
"""

import hashlib
from functools import partial
from typing import Any

import pandas as pd
import torch

from robustbias import stats
from robustbias.errors import UserError
from robustbias.images import Images, corruptions
from robustbias.images.distortions import (
    ADVERSARIAL,
    DISTORTIONS,
    adversarial,
    distorted,
    stimuli,
)
from robustbias.measures.registry import measure, paired, tidy
from robustbias.measures.shown import Hits, Shown, networks, seen
from robustbias.measures.tally import ALL, error_rows, rows

CELLS = [(name, severity) for name in corruptions.NAMES for severity in corruptions.SEVERITIES]


@measure(of=paired)
def ood(
    study: Any,
    *,
    n_images: int = 400,
    n_corrupted: int = 200,
    n_attacked: int = 100,
    attack_steps: int = 10,
    draws: int = stats.DRAWS,
) -> pd.DataFrame:
    """Accuracy of S and R of every architecture under every distortion and corruption.

    Columns beside the usual: `group`, `condition`, `severity` (1 to 5; 0 for a mean over
    severities, and where there are none), `removes` (what a distortion takes away), `reference`.

    - `clean`, `distortion`: held-out images as they are, under `images.distortions` and, where the
      source has them, as silhouettes, edges, stylized or texture alone (`STIMULI` there); under an
      attack at the training radius on each network itself (`adversarial`, top-1 alone).
    - `corruption`: the 15 of ImageNet-C at 5 severities, the mean over severities of each, and of
      all (`all corruptions`).

    Metrics, for `top1` and, where classes are grouped, `entry_level`: DECISION, DECISION_relative
    and DECISION_conditional (`measures.readings`), each also as R minus S (_difference). `ce` and
    `mce` are in per cent of the network named in `reference`. All intervals are 95 % percentile
    bootstraps over images. Decisions are in full precision.

    Cost: (n_images * 20 + n_corrupted * 75 + n_attacked * 3 * attack_steps) forward passes a
    network; every changed image is made once for all networks.

    Args:
        n_images: Held-out images for the distortions, drawn with the study's seed.
        n_corrupted: How many of them are corrupted.
        n_attacked: How many of them are attacked, 0 for none.
        attack_steps: PGD steps, on the margin, one random start.

    Raises:
        UserError: a number out of range, or images of a side without a table of corruptions.
    """
    if n_images < 1 or n_corrupted < 1 or n_attacked < 0:
        raise UserError(
            f"n_images {n_images}, n_corrupted {n_corrupted}, n_attacked {n_attacked}: expected "
            "at least 1 image of each (0 attacked)."
        )
    generator = torch.Generator().manual_seed(study.seed)
    val = study.source.val()
    images = val.take(torch.randperm(len(val), generator=generator)[:n_images]).to(study.device)
    clean = seen(study, images)
    as_is = Shown([("clean", "clean", 0)], {d: h[:, None].float() for d, h in clean.items()}, clean)
    plain = {metric for decision in clean for metric in (decision, f"{decision}_difference")}
    table = [row for row in rows(study, as_is, generator, draws)[0] if row["metric"] in plain]
    for shown in [
        *_distorted(study, images, clean),
        *_attacked(study, images, clean, n_attacked, attack_steps),
    ]:
        table += rows(study, shown, generator, draws)[0]
    few = torch.arange(min(n_corrupted, len(images)), device=images.labels.device)
    shown = _corrupted(study, images.take(few), {d: hit[: len(few)] for d, hit in clean.items()})
    found, accuracies = rows(study, shown, generator, draws)
    top1 = accuracies["top1"]
    cells = slice(len(CELLS) * len(networks(study)))
    top1 = stats.Bootstrap(top1.value[cells], top1.replicates[:, cells])
    levels = len(corruptions.SEVERITIES)
    errors = error_rows(study, top1, "corruption", corruptions.NAMES, levels, len(few))
    return tidy(table + found + errors)


def _distorted(study: Any, images: Images, clean: Hits) -> list[Shown]:
    """The images under every distortion, and the stimuli that the source has."""
    conditions, found, apart = [], [], []
    for name in DISTORTIONS:
        change = partial(distorted, name=name, generator=_generator(study, name))
        found.append(seen(study, images, change))
        conditions.append(("distortion", name, 0))
    for name, shown, same in stimuli(study.source, images):
        hits = seen(study, shown.to(study.device), by_category=shown.classes != images.classes)
        if same:
            found.append(hits)
            conditions.append(("distortion", name, 0))
        else:
            hits = {decision: hit[:, None].float() for decision, hit in hits.items()}
            apart.append(Shown([("distortion", name, 0)], hits, clean, paired=False))
    stacked = {d: torch.stack([hits[d] for hits in found], 1).float() for d in clean}
    return [Shown(conditions, stacked, clean), *apart]


def _attacked(study: Any, images: Images, clean: Hits, n: int, steps: int) -> list[Shown]:
    """The first n images under an attack on each network itself, at the radius R trained with.

    Read as top-1 alone: the attack leaves the class, and may stay in the category.
    """
    few = images.take(torch.arange(min(n, len(images)), device=images.labels.device))
    if not len(few):
        return []
    threat, hits = study.entry.threat, []
    pixels, labels = next(few.batches(len(few)))
    attack = {"norm": threat.norm, "eps": threat.eps, "steps": steps}
    for entry in networks(study):
        network = study.network_named(entry.name)
        generator = _generator(study, ADVERSARIAL, entry.name)
        attacked = adversarial(network, pixels, labels, generator=generator, **attack)
        with torch.no_grad():
            hits.append((network(attacked).argmax(1) == labels).cpu())
    stacked = {"top1": torch.stack(hits, 1)[:, None].float()}
    return [Shown([("distortion", ADVERSARIAL, 0)], stacked, {"top1": clean["top1"][: len(few)]})]


def _corrupted(study: Any, images: Images, clean: Hits) -> Shown:
    """The images under every corruption and severity, then the means over severities and of all."""
    found = []
    for name, severity in CELLS:
        generator = _generator(study, name, severity)
        change = partial(corruptions.corrupted, name=name, severity=severity, generator=generator)
        found.append(seen(study, images, change))
    hits = {}
    for decision in clean:
        cells = torch.stack([hit[decision] for hit in found], 1).float()
        levels = cells.unflatten(1, (len(corruptions.NAMES), -1)).mean(2)
        hits[decision] = torch.cat([cells, levels, levels.mean(1, keepdim=True)], 1)
    conditions = [("corruption", name, severity) for name, severity in CELLS]
    conditions += [("corruption", name, 0) for name in (*corruptions.NAMES, ALL)]
    return Shown(conditions, hits, clean)


def _generator(study: Any, *key: object) -> torch.Generator:
    """A generator of its own for every condition, so that none shifts another."""
    digest = hashlib.sha256(repr((study.seed, *key)).encode()).digest()
    return torch.Generator(study.device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)
