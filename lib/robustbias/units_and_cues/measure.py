"""What every unit is needed for: decisions by shape, by texture, and about clean images."""

from functools import partial

import pandas as pd
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from robustbias import stats
from robustbias.concepts.measure import UNIT
from robustbias.images import floats
from robustbias.networks import hooks, zoo
from robustbias.studies import Study, described, held_out_sample, paired, pairs
from robustbias.tables import Part, measure, parts, tidy
from robustbias.units_and_cues.ablation import (
    KINDS,
    Kind,
    decision_rule,
    decisions,
    generality,
    images_by_decision,
    sample,
    unit_answers,
)
from robustbias.utils import UserError

CANDIDATES = 40  # held-out images per clean one that is wanted


@measure(of=paired)
def ablation(
    study: Study,
    *,
    n_each: int = 60,
    layers: tuple[str, ...] | list[str] | None = None,
    size: int | None = None,
    matched: bool = True,
    draws: int = 2000,
) -> pd.DataFrame:
    """Every unit of every probed layer silenced, and kept alone, in S and R.

    Each network sees three kinds of images, equally many of each and as many to R as to S:
    cue conflicts it decides by shape, cue conflicts it decides by texture, and clean images, of
    CANDIDATES * n_each held-out ones at most, that it names correctly. At most `n_each`; fewer
    where S or R has fewer decisions of a kind.
    Deciding is by the entry-level category of the largest mean probability, in full precision.

    Decisions by a network's rarer cue tend to be narrow, and narrow decisions change at the loss
    of any unit. So those by its rarer cue are drawn with the study's seed, spread over shape
    images, and each is matched with the decision by the other cue whose margin is nearest.

    Rows of scope `unit`, without interval; n is the number of images of the kind:
    - `shape_score`, `texture_score`, `clean_score`: decisions that change when the unit is
      silenced; `shape_share`, ... the same over n.
    - `generality`: 1 - |s - t| / (s + t) of the shape and texture score, NaN where both are 0, and
      `generality_null`, its mean under the permutation null (as many changes of random images).
    - `shape_alone`, `texture_alone`: share of decisions that stay when all other units of the
      layer are silenced.

    Rows of scope `layer` and `network`:
    - `shape_all_silenced`, `texture_all_silenced`: share that stays when all units of a layer are.
    - means over units, with intervals over units and differences of R and S: see `unit_means`.
      Relative generality is 1 where changes fall on the images at random, whichever cue decides
      them.
    - `shape_margin`, ... (of a network): mean margin of its decisions on the images of the kind,
      with an interval over images.

    Cost: 5 n_each images through what follows each layer, for every unit of it; next to nothing
    for a layer that only a spatial mean and a linear map follow.

    Args:
        n_each: Images of each kind, at most.
        layers: Probed layers; the manifest's when None.
        matched: False draws the decisions by the commoner cue without regard to their margins.
        size: Side of the cue conflicts in pixels; the study's smallest when None.

    Raises:
        UserError: n_each below 1, an unknown layer, or a network without decisions by some cue.

    Source: the question is Chen et al.'s (arXiv 2006.09373); single-unit ablation as in Bau et al.
    2020, doi:10.1073/pnas.1907375117.
    """
    if n_each < 1:
        raise UserError(f"n_each is {n_each}: give at least 1 image of each kind")
    stimuli = study.source.cue_conflict(size or min(study.entry.sizes))
    held_out = study.source.val()
    if len(held_out) > CANDIDATES * n_each:
        held_out = held_out_sample(
            study, CANDIDATES * n_each, torch.Generator().manual_seed(study.seed)
        )
    answered = {
        f"decisions {entry.name}": partial(decisions, study, entry, stimuli, held_out)
        for pair in pairs(study).values()
        for entry in pair.values()
    }
    answers = parts(answered)
    rows, margins, tasks, abouts = [], [], {}, []
    for pair in pairs(study).values():
        by_regime = {
            regime: images_by_decision(
                study,
                study.network_named(entry.name),
                stimuli,
                held_out,
                answers[f"decisions {entry.name}"],
            )
            for regime, entry in pair.items()
        }
        sizes = [len(kind.index) for kinds in by_regime.values() for kind in kinds.values()]
        n = min([n_each, *sizes])
        if n == 0:
            raise UserError(
                f"{' or '.join(entry.name for entry in pair.values())} decides no image by one of "
                f"{', '.join(KINDS)}: there is nothing a unit could change. Use more stimuli."
            )
        for regime, entry in pair.items():
            network, columns = study.network_named(entry.name), described(study, entry)
            chosen = sample(study, stimuli, by_regime[regime], n, matched)
            images = [kind.pixels[kind.index.to(kind.pixels.device)] for kind in chosen.values()]
            images = torch.cat([part.to(study.device) for part in images])
            margins.append((columns, chosen))
            for layer in layers or network.layers:
                task = partial(_unit_scores, study, network, layer, images)
                tasks[f"{entry.name} {layer}"] = task
                abouts.append(columns | {"layer": layer, "n": n})
    for about, scores in zip(abouts, parts(tasks).values(), strict=True):
        rows.append(_unit_table(scores).assign(**about))
    units = pd.concat(rows, ignore_index=True)
    means = unit_means(study, units[units["scope"] == "unit"], "layer", draws)
    tables = [units, _margins(study, margins), means]
    return tidy(pd.concat(tables, ignore_index=True))


def _margins(study: Study, networks: list[tuple[dict, dict[str, Kind]]]) -> pd.DataFrame:
    """Margins of each network's decisions of each kind, with intervals over its images."""
    abouts, boots = [], []
    for columns, chosen in networks:
        margin = torch.stack([chosen[kind].margin for kind in KINDS], 1)
        generator = torch.Generator().manual_seed(study.seed)
        everything = torch.ones_like(margin), torch.arange(len(margin))
        boots.append(stats.ratios(margin, *everything, generator=generator))
        about = {"metric": [f"{kind}_margin" for kind in KINDS], "n": len(margin)}
        abouts.append(pd.DataFrame(about).assign(**columns, scope="network"))
    boot = stats.Bootstrap.joined(boots)
    return stats.intervals(*stats.averaged(study, pd.concat(abouts), boot, paired=False))


@torch.no_grad()
def _unit_scores(
    study: Study, network: zoo.Network, layer: str, images: UInt8[Tensor, "m 3 h w"]
) -> Part:
    """Scores of every unit of one layer, and what stays when all are silenced, by metric."""
    n, answer = len(images) // len(KINDS), decision_rule(study, network)
    pixels = floats(images)
    size = hooks.fitting(network, pixels, 128)
    activations = torch.cat([hooks.prefix(network, layer, part) for part in pixels.split(size)])
    before = torch.cat(
        [answer(hooks.resumed(network, layer, part)) for part in activations.split(size)]
    )
    silent = answer(hooks.resumed(network, layer, torch.zeros_like(activations[:1])))
    silenced = unit_answers(network, layer, activations, answer)
    conflicts = activations[: 2 * n]
    alone = unit_answers(network, layer, conflicts, answer, alone=True)
    columns: dict[str, Tensor] = {}
    for kind, at in zip(KINDS, torch.arange(3 * n).split(n), strict=True):
        score = (silenced[:, at] != before[at]).sum(1).cpu()
        columns |= {f"{kind}_score": score, f"{kind}_share": score / n}
        if kind != "clean":
            columns[f"{kind}_all_silenced"] = (silent == before[at]).float().mean().cpu()
            columns[f"{kind}_alone"] = (alone[:, at] == before[at]).float().mean(1).cpu()
    general, null = generality(columns["shape_score"], columns["texture_score"], n)
    return columns | {"generality": general, "generality_null": null}


def _unit_table(columns: Part) -> pd.DataFrame:
    """Rows of one layer from `_unit_scores`; what has no unit is of the layer."""
    tables = []
    for name, value in columns.items():
        scope = {"scope": "unit", "unit": range(len(value))} if value.ndim else {"scope": "layer"}
        values = value.double().reshape(-1).numpy()
        tables.append(pd.DataFrame({"value": values}).assign(**scope, metric=name))
    return pd.concat(tables)


SHARES = ("shape_share", "texture_share", "clean_share", "serves_shape", "serves_texture")
MEANS = (*SHARES, "generality", "relative_generality", "shape_part")
SHARED = tuple(metric for metric in MEANS if metric != "relative_generality")  # 1 at most
ALL = "all"  # groups all units of a network, until the table is made


def unit_means(study: Study, units: pd.DataFrame, by: str, draws: int = 2000) -> pd.DataFrame:
    """Rows of every network and of R minus S (regime `robust - standard`), per metric and group.

    Metrics: the means of SHARES (`serves_...`: whether the score is above 0) and of generality
    over the n units that have one; `relative_generality` = Σ generality / Σ generality_null; and
    `shape_part` = Σ shape_share / Σ (shape_share + texture_share), over the n units with either: 0
    for units that decisions by texture alone need, 0.5 for units that both cues need alike.

    Shares of units that serve a cue have Wilson's interval, all others the bootstrap's.

    Args:
        units: Rows of `ablation` of scope `unit`, and a column `by`.
        by: The column whose values are the groups, and the scope of their rows. All units of a
            network are a group of scope `network`. A group of one unit has no interval to speak
            of and is left out.
    """
    units = units.assign(at=units["layer"])  # `by` may be the layer itself
    units = pd.concat([units, units.assign(**{by: ALL})])
    wide = units.pivot(index=["network", by, "at", "unit"], columns="metric", values="value")
    named = {e.name: described(study, e) for pair in pairs(study).values() for e in pair.values()}
    groups = [
        (named[network] | {by: group}, *_values_and_weights(table))
        for (network, group), table in wide.groupby(level=["network", by], sort=False)
        if len(table) > 1
    ]
    tables = []
    for metrics, bounds in ((SHARED, (0.0, 1.0)), (("relative_generality",), stats.UNBOUNDED)):
        at = [MEANS.index(metric) for metric in metrics]
        chosen = ((name, metrics, x[:, at], weights[:, at]) for name, x, weights in groups)
        generator = torch.Generator().manual_seed(study.seed)  # the same resamples for both
        about, boot = stats.over_units(chosen, generator=generator, draws=draws, bounds=bounds)
        whole = about[by] == ALL
        about = about.assign(scope=whole.map({True: "network", False: by}))
        about[by] = about[by].mask(whole)
        tables.append(stats.aggregate(study, about, boot, paired=False))
    table = pd.concat(tables, ignore_index=True).dropna(subset=["value"])
    serves = table["metric"].str.startswith("serves_") & table["network"].isin(named)
    for at, row in table[serves].iterrows():  # few units, all alike, would have no width at all
        exact = stats.wilson(round(row["value"] * row["n"]), row["n"])
        ends = torch.tensor([exact.low, exact.high])  # single precision, like all other ends
        table.loc[at, ["low", "high"]] = ends.double().numpy()
    return table


def _values_and_weights(wide: pd.DataFrame) -> tuple[Float[Tensor, "u m"], Float[Tensor, "u m"]]:
    """MEANS of every unit, and what each is divided by."""
    serves = {f"serves_{cue}": (wide[f"{cue}_score"] > 0) * 1.0 for cue in ("shape", "texture")}
    needed = wide["shape_share"] + wide["texture_share"]
    wide = wide.assign(
        **serves,
        relative_generality=wide["generality"],
        shape_part=wide["shape_share"].where(needed > 0),
    )
    values = torch.tensor(wide[list(MEANS)].values)
    weights = values.isfinite().double()
    weights[:, -2] = torch.tensor(wide["generality_null"].fillna(0.0).values)
    weights[:, -1] = torch.tensor(needed.values)
    return values, weights


NONE = "no concept"  # `detects` of units that are no detector


def cue_units(
    study: Study, scores: pd.DataFrame, labels: pd.DataFrame, *, draws: int = 2000
) -> pd.DataFrame:
    """Means of ablation scores over the units that detect a category of concepts.

    Rows as from `unit_means`, one per network and metric, for all units (scope `network`) and for
    every `detects`: a category of concepts (object, texture, ...) or "no concept". Intervals are
    over units; regime `robust - standard` is the difference. `serves_shape` is the share of units
    without which a decision by shape changes.

    Args:
        scores: From `ablation`.
        labels: One row per unit: network, layer, unit, category, detector (bool), as from
            `concepts.measure.labels`.

    Raises:
        UserError: Units that were silenced but not dissected.
    """
    return tidy(unit_means(study, labelled(scores, labels), "detects", draws))


def labelled(scores: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """The unit rows of `scores` with the column `detects`.

    Raises:
        UserError: Units that were silenced but not dissected.
    """
    units = scores[scores["scope"] == "unit"]
    labels = labels.assign(detects=labels["category"].where(labels["detector"].astype(bool), NONE))
    units = units.merge(labels[[*UNIT, "detects"]], on=UNIT, how="left", validate="many_to_one")
    if units["detects"].isna().any():
        first = units.loc[units["detects"].isna(), UNIT].iloc[0]
        raise UserError(
            f"unit {first['unit']} of {first['layer']} in {first['network']} has no label: dissect "
            "the same networks and layers that were ablated."
        )
    return units
