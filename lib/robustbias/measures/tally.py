"""Rows of a table from what networks got right: three readings, corruption errors, R minus S.

Every row comes with its bootstrap interval over images; a difference is paired, since both of its
networks saw the same resampled images.
"""

from typing import Any

import torch
from torch import Tensor

from robustbias import stats
from robustbias.errors import UserError
from robustbias.images.distortions import removed
from robustbias.manifest import NetworkEntry
from robustbias.measures import readings
from robustbias.measures.registry import described
from robustbias.measures.shown import Condition, Shown, networks, partners
from robustbias.stats import Bootstrap

ALL = "all corruptions"
REFERENCE = "alexnet"  # the architecture whose standard network's errors are 100 in a mCE


def rows(
    study: Any, shown: Shown, generator: torch.Generator, draws: int = stats.DRAWS
) -> tuple[list[dict[str, Any]], dict[str, Bootstrap]]:
    """Rows of every reading, network and condition with R minus S; and the absolute accuracies.

    Metrics: DECISION, DECISION_relative, DECISION_conditional (top1 or entry_level), and each with
    _difference. `n` counts the images behind the reading. Where no image is left to condition on,
    or a network has no partner, there is no conditional row.
    """
    partner = partners(networks(study))
    alone = partner == torch.arange(len(partner))
    found, accuracies = [], {}
    for decision, hits in shown.hits.items():
        clean = shown.clean[decision]
        if shown.paired:
            boots = readings.paired(hits, clean, partner, generator=generator, draws=draws)
        else:
            boots = readings.unpaired(hits, clean, generator=generator, draws=draws)
        accuracies[decision] = boots[""]
        for reading, boot in boots.items():
            counts = torch.full((len(partner),), len(hits))
            if reading == "_conditional":
                counts = (clean & clean[:, partner]).sum(0).masked_fill(alone, 0)
            found += tabled(study, boot, shown.conditions, decision + reading, counts)
    return found, accuracies


def error_rows(
    study: Any,
    accuracy: Bootstrap,
    group: str,
    corruptions: tuple[str, ...],
    severities: int,
    n: int,
) -> list[dict[str, Any]]:
    """Rows `ce` of every corruption and `mce`, in per cent of a reference network's errors.

    The reference is AlexNet-S; where a study has none, its first standard network. The column
    `reference` names it: numbers with different references cannot be compared.

    Args:
        accuracy: Columns corruption, severity, network, the last fastest.
        n: Images behind each accuracy.

    Raises:
        UserError: there is no standard network, or the reference makes no error somewhere.
    """
    entries = networks(study)
    reference = standard(entries)
    one_by_one, mean = readings.mean_corruption_error(
        accuracy, entries.index(reference), corruptions, severities, n
    )
    counts = torch.full((len(entries),), n)
    each = [(group, name, 0) for name in corruptions]
    named = {"reference": reference.name}
    found = tabled(study, one_by_one, each, "ce", counts, **named)
    return found + tabled(study, mean, [(group, ALL, 0)], "mce", counts, **named)


def standard(entries: list[NetworkEntry]) -> NetworkEntry:
    """The network that corruption errors are relative to. Raises UserError without any S."""
    candidates = [entry for entry in entries if entry.regime == "standard"]
    if not candidates:
        raise UserError(
            "no standard network is here to measure corruption errors by; expected AlexNet-S, or "
            "the S of another architecture. Get its weights first."
        )
    return next((e for e in candidates if e.architecture == REFERENCE), candidates[0])


def tabled(
    study: Any,
    boot: Bootstrap,
    conditions: list[Condition],
    metric: str,
    counts: Tensor,
    reference: str = "",
) -> list[dict[str, Any]]:
    """One row a network and condition, and one a pair and condition for R minus S.

    Args:
        boot: Columns condition, network, the last fastest.
        counts: Images behind each network's values; networks with none get no row.
    """
    entries = networks(study)
    partner = partners(entries).tolist()
    robust = [i for i, e in enumerate(entries) if e.regime == "robust" and partner[i] != i]
    cells = range(len(conditions))
    each = [(c, i) for c in cells for i in range(len(entries)) if counts[i]]
    pair = [(c, i) for c in cells for i in robust if counts[i]]
    at = [c * len(entries) + i for c, i in each]
    alone = Bootstrap(boot.value[at], boot.replicates[:, at], boot.floor, boot.ceiling)
    minus = boot.difference(
        [c * len(entries) + i for c, i in pair], [c * len(entries) + partner[i] for c, i in pair]
    )
    found = []
    for name, cells, part in ((metric, each, alone), (f"{metric}_difference", pair, minus)):
        ends = zip(part.value.tolist(), *(end.tolist() for end in part.interval()), strict=True)
        for (c, i), (value, low, high) in zip(cells, ends, strict=True):
            entry, (group, condition, severity) = entries[i], conditions[c]
            who = described(study, entry)
            if part is minus:
                who["network"] = f"{entry.name} - {entries[partner[i]].name}"
                who["regime"] = "robust - standard"
            found.append(
                who
                | {
                    "group": group,
                    "condition": condition,
                    "severity": severity,
                    "removes": removed(condition),
                    "reference": reference,
                    "metric": name,
                    "value": value,
                    "low": low,
                    "high": high,
                    "n": int(counts[i]),
                }
            )
    return found
