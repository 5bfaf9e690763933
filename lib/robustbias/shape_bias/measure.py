"""Shape bias and coverage of responses to cue-conflict stimuli.

    shape bias = n_shape / (n_shape + n_texture)      coverage = (n_shape + n_texture) / n

A network that ignores the image also has a shape bias. It is therefore reported with coverage and
two nulls: untrained networks, and the same responses shuffled over the stimuli.

Source: Geirhos et al. 2019, arXiv 1811.12231.
"""

import itertools
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from robustbias import stats
from robustbias.adversarial_training.measure import correct
from robustbias.images import CueConflict, floats
from robustbias.images.cue_conflict import cues
from robustbias.networks.hooks import fitting
from robustbias.studies import Study, described, networks_with_controls, pairs
from robustbias.tables import Part, measure, parts, stored, tidy
from robustbias.utils import UserError

AGGREGATIONS = ("mean", "sum")
PAINTED = "painted"
METRICS = ("shape_bias", "coverage", "shape", "texture", "neither")
BY = ["study", "network", "architecture", "regime", "eps", "pair"]
BY += ["display", "decides", "aggregation"]


def entry_level(
    probabilities: Float[Tensor, "n k"], membership: Float[Tensor, "k q"], aggregation: str = "mean"
) -> Int64[Tensor, " n"]:
    """Category of the largest mean (or summed) probability over that category's classes.

    Under a sum a category with many classes wins by number: 109 breeds of dog against one knife.

    Args:
        probabilities: Softmax over the network's classes.
        membership: 1 where class k belongs to category q.
        aggregation: "mean" is the protocol's; "sum" is reported for comparison.
    """
    scores = probabilities @ membership
    if aggregation == "mean":
        scores = scores / membership.sum(0)
    return scores.argmax(1)


@torch.no_grad()
def softmax(
    network: nn.Module, pixels: UInt8[Tensor, "n 3 h w"], batch: int = 100
) -> Float[Tensor, "n k"]:
    """Class probabilities of uint8 images, in full precision."""
    parts = pixels.split(fitting(network, pixels, batch))
    return torch.cat([network(floats(part)).softmax(1) for part in parts])


def displays(
    study: Study, sizes: tuple[int, ...] | list[int] | None = None
) -> dict[str, CueConflict]:
    """The study's cue conflicts by display: "64 px" for each size, and `PAINTED`.

    The latter are stylized from the source's photographs, where the study says how.

    Raises:
        UserError: The study is decided by a display it does not have.
    """
    conflicts = {
        f"{size} px": study.source.cue_conflict(size) for size in sizes or study.entry.sizes
    }
    if study.entry.painting:
        conflicts[PAINTED] = study.source.stylized_conflict()
    if study.entry.decides not in ("", *conflicts):
        raise UserError(
            f"study {study.name} is decided by {study.entry.decides!r}; expected one of the "
            f"displays of its stimuli: {', '.join(conflicts)}."
        )
    return conflicts


@stored
def conflict_trials(
    study: Study, *, sizes: tuple[int, ...] | list[int] | None = None, null_seeds: int = 3
) -> pd.DataFrame:
    """Every network's response to every cue-conflict stimulus, one row per trial.

    Columns: study, network, architecture, regime (also `untrained`), eps, repeat, display,
    decides (whether claims rest on this display), aggregation, stimulus, shape, texture,
    object_response, decision (shape | texture | neither).

    Args:
        sizes: Sides of the displayed stimuli, in pixels; the study's when None.
        null_seeds: Untrained networks per architecture, numbered by `repeat`.

    Raises:
        UserError: As `displays`.
    """
    trials = []
    for display, stimuli in displays(study, sizes).items():
        conflict = (stimuli.shape != stimuli.texture).nonzero()[:, 0]
        pixels = stimuli.pixels[conflict].to(study.device)
        categories = np.array(stimuli.categories)
        conditions = pd.DataFrame(
            {
                "display": display,
                "decides": study.entry.decides in ("", display),
                "stimulus": [stimuli.names[i] for i in conflict.tolist()],
                "shape": categories[stimuli.shape[conflict].cpu()],
                "texture": categories[stimuli.texture[conflict].cpu()],
            }
        )
        networks = list(networks_with_controls(study, pixels[::3], null_seeds))
        tasks = {
            f"{display} {named['network']} {repeat}": partial(_responses, study, load, pixels)
            for named, load, repeat in networks
        }
        for (named, _, repeat), chosen in zip(networks, parts(tasks).values(), strict=True):
            for aggregation in AGGREGATIONS:
                columns = {**named, "repeat": repeat, "aggregation": aggregation}
                responses = categories[chosen[aggregation]]
                trials.append(conditions.assign(**columns, object_response=responses))
    table = pd.concat(trials, ignore_index=True)
    answer = table["object_response"]
    table["decision"] = np.select(
        [answer == table["shape"], answer == table["texture"]], ["shape", "texture"], "neither"
    )
    return table


def _responses(
    study: Study, load: Callable[[], nn.Module], pixels: UInt8[Tensor, "n 3 h w"]
) -> Part:
    """By aggregation, the category that a network gives each image."""
    network = load()
    membership = study.membership(network).to(study.device)
    probabilities = softmax(network, pixels)
    return {name: entry_level(probabilities, membership, name) for name in AGGREGATIONS}


def bias_and_coverage(
    trials: pd.DataFrame,
    by: list[str],
    *,
    generator: torch.Generator,
    metrics: tuple[str, ...] = METRICS,
    draws: int = stats.DRAWS,
) -> tuple[pd.DataFrame, stats.Bootstrap]:
    """Shape bias and coverage of each group of trials, with intervals over shape images.

    Metrics: `shape_bias` (n = trials decided by either cue), `coverage`, `shape`, `texture`,
    `neither` (n = all trials of the group). All groups share the resampled shape images.

    Args:
        trials: `stimulus` and `decision`, as from `conflict_trials` or `decisions.read`.
        by: Columns whose values define the groups, for instance ["subj"].

    Returns:
        The long table, and the bootstrap whose columns are its rows.
    """
    counts = trials.assign(cluster=[_shape_image(name) for name in trials["stimulus"]])
    counts = counts.groupby(["cluster", *by, "decision"]).size().unstack(by).fillna(0)
    groups = counts.columns.to_frame(index=False)

    def count(kind: str) -> Float[Tensor, "g m"]:
        clusters = counts.index.get_level_values("cluster").unique()
        kinds = counts.index.get_level_values("decision")
        return torch.tensor(
            counts[kinds == kind].droplevel("decision").reindex(clusters).fillna(0).values
        )

    shape, texture, neither = map(count, ("shape", "texture", "neither"))
    decided, total = shape + texture, shape + texture + neither
    parts = {
        "shape_bias": (shape, decided),
        "coverage": (decided, total),
        "shape": (shape, total),
        "texture": (texture, total),
        "neither": (neither, total),
    }
    over, under = (torch.cat([parts[name][side] for name in metrics], 1) for side in (0, 1))
    boot = stats.ratios(over, under, torch.arange(len(over)), generator=generator, draws=draws)
    about = pd.concat([groups.assign(metric=name) for name in metrics], ignore_index=True)
    return stats.intervals(about.assign(n=under.sum(0).long().numpy()), boot), boot


@measure
def shape_bias(
    study: Study,
    *,
    sizes: tuple[int, ...] | list[int] | None = None,
    null_seeds: int = 3,
    draws: int = stats.DRAWS,
) -> pd.DataFrame:
    """Shape bias of every network on every display, with its nulls and the S-R difference.

    Rows, by `condition`:
    - `cue-conflict`: metrics of `bias_and_coverage`, for every aggregation; scope `network`, or
      `category` (of the shape). Regime `untrained` is the null of a network that learned nothing.
    - `shuffled`: shape bias and coverage of the same responses shuffled over the stimuli (mean
      and middle 95 %), the null of a network that ignores the image.
    - `paired`: `shape_bias_difference` and `coverage_difference`, R minus S of one architecture
      under the same resampled shape images; `exchange_null` is the middle 95 % of the difference
      when S and R answers are exchanged at random, and `exchange_p` its two-sided p.

    Args:
        sizes: Sides of the displayed stimuli, in pixels; the study's when None.
        null_seeds: Untrained networks of each architecture.
        draws: Bootstrap resamples.
    """
    trials = conflict_trials(study, sizes=sizes, null_seeds=null_seeds)
    generator = torch.Generator().manual_seed(study.seed)
    rows = []
    for _, group in trials.groupby("display", sort=False):
        overall, boot = bias_and_coverage(group, BY, generator=generator, draws=draws)
        by_category, _ = bias_and_coverage(
            group[group["aggregation"] == "mean"].assign(category=group["shape"]),
            [*BY, "category"],
            generator=generator,
            metrics=("shape_bias", "coverage"),
            draws=draws,
        )
        for table, scope in ((overall, "network"), (by_category, "category")):
            rows.append(table.assign(condition="cue-conflict", scope=scope))
        rows.append(_shuffled(group, generator))
        rows.append(_paired(study, group, overall, boot, generator))
    return tidy(pd.concat(rows, ignore_index=True))


def _shuffled(trials: pd.DataFrame, generator: torch.Generator, draws: int = 500) -> pd.DataFrame:
    """Shape bias and coverage of each network's responses, shuffled over the stimuli."""
    rows = []
    for names, responses in trials[trials["regime"] != "untrained"].groupby(BY):
        codes = pd.concat([responses[c] for c in ("object_response", "shape", "texture")])
        answer, shape, texture = torch.tensor(pd.factorize(codes)[0]).chunk(3)
        shuffled = answer[torch.rand(draws, len(responses), generator=generator).argsort(1)]
        by_shape, by_texture = ((shuffled == cue).sum(1).float() for cue in (shape, texture))
        decided = by_shape + by_texture
        null = torch.stack([(by_shape / decided).nan_to_num(0.5), decided / len(responses)], 1)
        low, high = stats.percentile(null, 0.025), stats.percentile(null, 0.975)
        for column, metric in enumerate(("shape_bias", "coverage")):
            rows.append(
                {
                    **dict(zip(BY, names, strict=True)),
                    "condition": "shuffled",
                    "scope": "network",
                    "metric": metric,
                    "value": float(null[:, column].mean()),
                    "low": float(low[column]),
                    "high": float(high[column]),
                    "n": len(responses),
                }
            )
    return pd.DataFrame(rows)


def _paired(
    study: Study,
    trials: pd.DataFrame,
    overall: pd.DataFrame,
    boot: stats.Bootstrap,
    generator: torch.Generator,
) -> pd.DataFrame:
    """R minus S of each architecture, by the bootstrap that measured both, and its null."""
    about = overall.drop(columns=["value", "low", "high"])
    differences = stats.intervals(*stats.compared(study, about, boot, paired=True))
    differences = differences[differences["metric"].isin(["shape_bias", "coverage"])]
    differences["metric"] += "_difference"
    rows = []
    both = [pair for pair in pairs(study).values() if len(pair) == 2]
    for pair, aggregation in itertools.product(both, AGGREGATIONS):
        names = [pair["robust"].name, pair["standard"].name]
        these = trials[(trials["aggregation"] == aggregation) & trials["network"].isin(names)]
        responses = these.pivot(index="stimulus", columns="network", values="decision")[names]
        null = stats.exchange_null(
            torch.tensor((responses == "shape").values).float(),
            torch.tensor((responses != "neither").values).float(),
            torch.tensor(pd.factorize(pd.Series(map(_shape_image, responses.index)))[0]),
            generator=generator,
        )
        this = (differences["network"] == " - ".join(names)) & (
            differences["aggregation"] == aggregation
        )
        differences.loc[this, "n"] = len(responses)
        shared = differences[this].iloc[0].to_dict() | {"value": 0.0}
        ends = {"low": null.low, "high": null.high}
        rows.append({**shared, "metric": "exchange_null", **ends})
        ends = {"low": math.nan, "high": math.nan}
        rows.append({**shared, "metric": "exchange_p", **ends, "value": null.p})
    table = pd.concat([differences, pd.DataFrame(rows)], ignore_index=True)
    return table.assign(condition="paired", scope="network")


def _shape_image(name: str) -> str:
    """The image a stimulus took its shape from: dog10 of dog10-bird2."""
    cue = cues(name)
    return f"{cue.shape}{cue.shape_design}"


COLUMNS = ["study", "network", "architecture", "cue", "metric", "value", "low", "high", "n"]


@measure
def cue_parity(study: Study, *, n_images: int = 800, batch: int = 200) -> pd.DataFrame:
    """Accuracy of networks that learned from one cue alone, on held-out images with that cue alone.

    One row per network (column `cue`: shape | texture), with Wilson's interval; no rows where a
    study has no such networks.
    """
    rows = []
    for entry in study.entries:
        if entry.cue != "both":
            held_out = study.source.single_cue(entry.cue, n_images).to(study.device)
            correctness = correct(study.network_named(entry.name), held_out, batch)
            interval = vars(stats.wilson(int(correctness.sum()), len(correctness)))
            named = described(study, entry) | {"cue": entry.cue, "metric": "top1"}
            rows.append(named | interval)
    return tidy(pd.DataFrame(rows, columns=COLUMNS))
