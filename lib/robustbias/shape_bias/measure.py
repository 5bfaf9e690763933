"""Shape bias, coverage and absolute cue scores of responses to cue-conflict stimuli.

    shape bias = n_shape / (n_shape + n_texture)      coverage = (n_shape + n_texture) / n
    cue score = mean of 1 / (rank of the cue's label among all classes of the network)

A network that ignores the image also has a shape bias. It is therefore reported with coverage and
two nulls: untrained networks, and the same responses shuffled over the stimuli.

Source: Geirhos et al. 2019, arXiv 1811.12231; ranks: Kim et al. 2026, arXiv 2603.10834.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from robustbias import manifest, stats, studies
from robustbias.adversarial_training.measure import correct
from robustbias.images import CueConflict, floats
from robustbias.images.cue_conflict import cues
from robustbias.networks.hooks import fitting
from robustbias.studies import Study, described, networks_with_controls, pairs
from robustbias.tables import Part, measure, parts, stored, tidy
from robustbias.utils import UserError

AGGREGATIONS = ("mean", "sum")
# kinds of displays: drawn by the study's source, published, made by a painter, and of silhouettes
DRAWN, STIMULI, STYLIZED, COLLAGE = "drawn", "stimuli", "stylized", "collage"
METRICS = ("shape_bias", "coverage", "shape", "texture", "neither", "shape_mrr", "texture_mrr")
BY = [*stats.NETWORK, "display", "kind", "painter", "level", "decides", "aggregation"]


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


def ranks(logits: Float[Tensor, "n k"], membership: Float[Tensor, "k q"]) -> Float[Tensor, "n q"]:
    """Rank of each category's best class among all k classes; tied classes share their mean rank.

    Args:
        membership: 1 where class k belongs to category q.
    """
    of_category = logits[:, :, None].masked_fill(membership == 0, -torch.inf)
    best = of_category.amax(1)[:, None]
    above, equal = (logits[:, :, None] > best).sum(1), (logits[:, :, None] == best).sum(1)
    return 1 + above + (equal - 1) / 2


@torch.no_grad()
def responses(
    network: nn.Module, pixels: UInt8[Tensor, "n 3 h w"], batch: int = 100
) -> Float[Tensor, "n k"]:
    """Logits of uint8 images, in full precision."""
    parts = pixels.split(fitting(network, pixels, batch))
    return torch.cat([network(floats(part)) for part in parts])


class Display(NamedTuple):
    """Cue conflicts as they are presented.

    `kind` is `DRAWN` or `STIMULI` (level: side in pixels), `STYLIZED` (level: weight of the
    texture; `painter`: how the network was trained that made them) or `COLLAGE` (level: scale of
    texture).
    """

    kind: str
    level: float
    painter: str
    stimuli: CueConflict


def _listed(
    study: Study, sizes: tuple[int, ...] | list[int] | None = None
) -> dict[str, tuple[str, float, str, Callable[[], CueConflict]]]:
    """Kind, level, painter of each display of the study's entry, and what makes its stimuli."""
    source, entry = study.source, study.entry
    kind = DRAWN if entry.world else STIMULI
    listed = {
        f"{size} px": (kind, float(size), "", partial(source.cue_conflict, size))
        for size in sizes or entry.sizes
    }
    for name in entry.painting.get("painters", ()):
        painter = manifest.network(name).regime
        for style in entry.painting["styles"]:
            label = f"stylized, {painter} painter, weight {style:g}"
            make = partial(source.stylized_conflict, name, style)
            if label in listed:
                raise UserError(
                    f"study {study.name} has several painters of regime {painter!r}; expected one "
                    "of each regime in [painting], since displays are named by it."
                )
            listed[label] = (STYLIZED, style, painter, make)
    for scale in entry.collage:
        label = COLLAGE if scale == 1 else f"{COLLAGE}, tiles x {scale:g}"
        listed[label] = (COLLAGE, scale, "", partial(source.collage_conflict, scale))
    if entry.decides not in ("", *listed):
        raise UserError(
            f"study {study.name} is decided by {entry.decides!r}; expected one of the "
            f"displays of its stimuli: {', '.join(listed)}."
        )
    return listed


def displays(study: Study, sizes: tuple[int, ...] | list[int] | None = None) -> dict[str, Display]:
    """The study's cue conflicts by display, all that its entry lists.

    Raises:
        UserError: The study is decided by a display it does not have, or has two painters of one
            regime.
    """
    listed = _listed(study, sizes)
    return {name: Display(*about, make()) for name, (*about, make) in listed.items()}


def deciding(study: Study) -> CueConflict:
    """The cue conflicts of the first display that decides claims about shape bias."""
    listed = _listed(study)
    return listed[study.entry.decides or next(iter(listed))][-1]()


@stored
def conflict_trials(
    study: Study, *, sizes: tuple[int, ...] | list[int] | None = None, null_seeds: int = 3
) -> pd.DataFrame:
    """Every network's response to every cue-conflict stimulus, one row per trial.

    Columns: study, network, architecture, regime (also `untrained`), eps, repeat, display, kind,
    painter, level (as in `Display`), decides (whether claims rest on this display), aggregation,
    stimulus, shape, texture, object_response, decision (shape | texture | neither), shape_rank and
    texture_rank (`ranks`). Untrained networks and the sum see the deciding displays alone.

    Args:
        sizes: Sides of the displayed stimuli, in pixels; the study's when None.
        null_seeds: Untrained networks per architecture, numbered by `repeat`.

    Raises:
        UserError: As `displays`.
    """
    trials = []
    for name, display in displays(study, sizes).items():
        decides = study.entry.decides in ("", name)
        pixels, conditions = _conditions(study, display.stimuli)
        conditions = conditions.assign(display=name, decides=decides, kind=display.kind)
        conditions = conditions.assign(painter=display.painter, level=float(display.level))
        networks = list(networks_with_controls(study, pixels[::3], null_seeds if decides else 0))
        tasks = {
            f"{name} {named['network']} {repeat}": partial(_responses, study, load, pixels)
            for named, load, repeat in networks
        }
        for (named, _, repeat), answers in zip(networks, parts(tasks).values(), strict=True):
            table = _trials(study, answers, conditions)
            table = table if decides else table[table["aggregation"] == "mean"]
            trials.append(table.assign(**named, repeat=repeat))
    return pd.concat(trials, ignore_index=True)


def _conditions(study: Study, stimuli: CueConflict) -> tuple[Tensor, pd.DataFrame]:
    """Pixels and cues of the stimuli whose cues differ."""
    conflict = (stimuli.shape != stimuli.texture).nonzero()[:, 0]
    categories = np.array(stimuli.categories)
    about = {
        "stimulus": [stimuli.names[i] for i in conflict.tolist()],
        "shape": categories[stimuli.shape[conflict].cpu()],
        "texture": categories[stimuli.texture[conflict].cpu()],
    }
    return stimuli.pixels[conflict].to(study.device), pd.DataFrame(about)


def _trials(study: Study, answers: Part, conditions: pd.DataFrame) -> pd.DataFrame:
    """The conditions with a network's responses, decisions and ranks, per aggregation."""
    rank = answers["rank"].cpu().numpy()
    categories, columns = np.array(study.categories), {}
    for cue in ("shape", "texture"):
        place = [study.categories.index(category) for category in conditions[cue]]
        columns[f"{cue}_rank"] = rank[np.arange(len(rank)), place]
    tables = []
    for aggregation in AGGREGATIONS:
        answer = categories[answers[aggregation].cpu()]
        follows = [answer == conditions["shape"], answer == conditions["texture"]]
        decision = np.select(follows, ["shape", "texture"], "neither")
        columns |= {"aggregation": aggregation, "object_response": answer, "decision": decision}
        tables.append(conditions.assign(**columns))
    return pd.concat(tables, ignore_index=True)


# metric -> what is summed over trials, above and below the line
_PARTS = {
    "shape_bias": ("shape", "decided"),
    "coverage": ("decided", "trials"),
    "shape": ("shape", "trials"),
    "texture": ("texture", "trials"),
    "neither": ("neither", "trials"),
    "shape_mrr": ("shape_reciprocal", "trials"),
    "texture_mrr": ("texture_reciprocal", "trials"),
}


def _responses(
    study: Study, load: Callable[[], nn.Module], pixels: UInt8[Tensor, "n 3 h w"]
) -> Part:
    """By aggregation, the category that a network gives each image; and `ranks`."""
    network = load()
    membership = study.membership(network).to(study.device)
    logits = responses(network, pixels)
    chosen = {name: entry_level(logits.softmax(1), membership, name) for name in AGGREGATIONS}
    return chosen | {"rank": ranks(logits, membership)}


def bias_and_coverage(
    trials: pd.DataFrame,
    by: list[str],
    *,
    generator: torch.Generator,
    metrics: tuple[str, ...] = METRICS[:5],
    draws: int = stats.DRAWS,
) -> tuple[pd.DataFrame, stats.Bootstrap]:
    """Shape bias, coverage and cue scores of each group of trials, with intervals.

    Metrics: `shape_bias` (n = trials decided by either cue), `coverage`, `shape`, `texture`,
    `neither`, `shape_mrr` and `texture_mrr` (mean reciprocal ranks), n = all trials of the group.
    Shape images and texture images are resampled, the same for all groups.

    Args:
        trials: `stimulus` and `decision`, as from `conflict_trials` or `decisions.read`; ranks for
            the cue scores.
        by: Columns whose values define the groups, for instance ["subj"].

    Returns:
        The long table, and the bootstrap whose columns are its rows.
    """
    row, stimuli = pd.factorize(trials["stimulus"])
    index = (
        torch.from_numpy(row),
        torch.tensor(trials.groupby(by, sort=False, dropna=False).ngroup().values),
    )
    groups = trials[by].drop_duplicates(ignore_index=True)

    parts = {kind: trials["decision"] == kind for kind in ("shape", "texture", "neither")}
    parts |= {"decided": parts["shape"] | parts["texture"], "trials": trials["decision"].notna()}
    for cue in ("shape", "texture"):
        if f"{cue}_rank" in trials:
            parts[f"{cue}_reciprocal"] = 1 / trials[f"{cue}_rank"]

    def summed(part: str) -> Float[Tensor, "n g"]:
        sums = torch.zeros(len(stimuli), len(groups), dtype=torch.double)
        return sums.index_put_(index, torch.tensor(parts[part].to_numpy(float)), accumulate=True)

    over, under = (torch.cat([summed(_PARTS[m][side]) for m in metrics], 1) for side in (0, 1))
    images = [name.split("-") for name in (cues(name).stem for name in stimuli)]
    shapes, textures = (
        torch.from_numpy(pd.factorize(np.array(kind))[0]) for kind in zip(*images, strict=True)
    )
    options = {"generator": generator, "draws": draws}
    if len(textures.unique()) == len(stimuli):  # each within one shape image
        boot = stats.ratios(over, under, shapes, **options)
    else:
        boot = stats.crossed_ratios(over, under, shapes, textures, **options)
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
    - `cue-conflict`: metrics of `bias_and_coverage`; scope `network` or, for the displays that
      decide, `category` (of the shape). A category has too few images for an interval, so those
      rows have none; nor have their means over replicates. Regime `untrained` is the null of a
      network that learned nothing.
    - `shuffled`: shape bias and coverage of the same responses shuffled over the stimuli (mean
      and middle 95 %), the null of a network that ignores the image; for the displays that decide.
      That of a mean over replicates is the mean of their nulls, each shuffled separately.
    - `paired`: each metric (..._difference), R minus S of one architecture under the same
      resampled images; and for stylized displays `style_shift` (`_shifts`) and, with two
      painters, `painter_difference` (`_painters`).

    Args:
        sizes: Sides of the displayed stimuli, in pixels; the study's when None.
        null_seeds: Untrained networks of each architecture.
        draws: Bootstrap resamples.
    """
    trials = conflict_trials(study, sizes=sizes, null_seeds=null_seeds)
    generator = torch.Generator().manual_seed(study.seed)
    rows = []
    for _, group in trials.groupby("kind", sort=False):  # painters share the resampled images
        options = {"generator": generator, "metrics": METRICS, "draws": draws}
        overall, boot = bias_and_coverage(group, BY, **options)
        about = overall.drop(columns=["value", "low", "high"])
        table = stats.aggregate(study, about, boot, paired=True, suffix="_difference")
        paired = table["metric"].str.endswith("_difference")
        table.loc[paired, "n"] = group["stimulus"].nunique()
        table["condition"] = np.where(paired, "paired", "cue-conflict")
        rows.append(table.assign(scope="network"))
        painters = _painters(study, about, boot).assign(n=group["stimulus"].nunique())
        rows += [_shifts(study, overall, boot), painters]
        if not (deciding := group[group["decides"]]).empty:
            rows.append(_by_category(deciding[deciding["aggregation"] == "mean"]))
            rows.append(_shuffled(study, deciding, generator))
    return tidy(pd.concat(rows, ignore_index=True))


def _by_category(trials: pd.DataFrame) -> pd.DataFrame:
    """Shape bias and coverage by category of the shape, without intervals."""
    groups = trials.assign(category=trials["shape"])
    groups = groups.groupby([*BY, "category"], sort=False, dropna=False)
    counts = groups["decision"].value_counts().unstack(fill_value=0)
    counts = counts.reindex(columns=["shape", "texture", "neither"], fill_value=0)
    decided, n = counts["shape"] + counts["texture"], counts.sum(axis=1)
    values = {"shape_bias": (counts["shape"] / decided, decided), "coverage": (decided / n, n)}
    rows = [
        pd.DataFrame({"value": value, "n": n}).reset_index().assign(metric=metric)
        for metric, (value, n) in values.items()
    ]
    return stats.plain_means(pd.concat(rows)).assign(condition="cue-conflict", scope="category")


def style_shift(
    standard: Float[Tensor, "r l"], robust: Float[Tensor, "r l"], styles: Float[Tensor, " l"]
) -> Float[Tensor, " r"]:
    """By how many doublings of the style weight R's curve of shape bias lies to the right of S's.

        logit(bias) = a + b log2(style), with one b for both;    shift = (a_R - a_S) / -b

    Biases are kept within .01 and .99.

    Args:
        standard: Shape biases of S at each style weight, one row per resample.
        robust: Those of R.
    """
    x = styles.log2() - styles.log2().mean()
    curves = torch.stack([standard, robust]).clamp(0.01, 0.99).logit()
    slope = (curves * x).sum((0, 2)) / (2 * x.square().sum())
    return (curves[1] - curves[0]).mean(1) / -slope


def shifted(
    boot: stats.Bootstrap, standard: list[int], robust: list[int], styles: Float[Tensor, " l"]
) -> stats.Bootstrap:
    """`style_shift` with its resamples; widened or narrowed as its linear approximation is.

    Args:
        standard, robust: Columns of `boot` with the shape biases at each style weight.
    """
    both = standard + robust
    biases = boot.value[both].requires_grad_()
    value = style_shift(*biases[None].chunk(2, 1), styles)
    (slopes,) = torch.autograd.grad(value.sum(), biases)
    resamples = style_shift(boot.resamples[:, standard], boot.resamples[:, robust], styles)
    shift = stats.Bootstrap(value.detach(), resamples[:, None], None)
    if boot.cells is None:
        return shift
    return shift.crossed((boot.cells[..., both] @ slopes)[..., None])


def _shifts(study: Study, overall: pd.DataFrame, boot: stats.Bootstrap) -> pd.DataFrame:
    """One row per pair and painter, `style_shift` of R against S, and means; none without several
    weights."""
    table = overall.reset_index(drop=True)
    table = table[(table["metric"] == "shape_bias") & (table["kind"] == STYLIZED)]
    table = table[table["aggregation"] == "mean"].sort_values("level")
    rows, boots = [], []
    for (_, by_painter), pair in product(table.groupby("painter"), pairs(study).values()):
        curves = {
            regime: by_painter[by_painter["network"] == entry.name]
            for regime, entry in pair.items()
        }
        if len(pair) < 2 or len(curves["robust"]) < 2:
            continue
        styles = torch.tensor(curves["robust"]["level"].to_numpy())
        at = [curves[regime].index.tolist() for regime in ("standard", "robust")]
        boots.append(shifted(boot, *at, styles))
        columns = {"network": f"{pair['robust'].name} - {pair['standard'].name}"}
        columns |= {"regime": "robust - standard", "metric": "style_shift"}
        columns |= {"condition": "paired", "scope": "network"}
        columns |= {"display": STYLIZED, "level": np.nan, "n": int(curves["robust"]["n"].sum())}
        row = curves["robust"].head(1).drop(columns=["value", "low", "high"])
        rows.append(row.assign(**columns))
    if not rows:
        return table.head(0)
    shifts = stats.averaged(study, pd.concat(rows), stats.Bootstrap.joined(boots), paired=True)
    return stats.intervals(*shifts)


def _painters(study: Study, about: pd.DataFrame, boot: stats.Bootstrap) -> pd.DataFrame:
    """The painters' part: R minus S on conflicts of the robust painter less that of the standard.

    Shape bias, mean over the style weights, with the means over replicates and architectures; no
    rows without two painters.
    """
    table = about.reset_index(drop=True)
    table = table[(table["metric"] == "shape_bias") & (table["kind"] == STYLIZED)]
    table = table[table["aggregation"] == "mean"]
    sides = [table[table["painter"] == painter] for painter in ("robust", "standard")]
    if min(map(len, sides)) == 0:
        return about.head(0)
    groups = [
        [group.index.tolist() for _, group in side.groupby("network", sort=False)] for side in sides
    ]
    means = boot.mean([*groups[0], *groups[1]], trainings=False)
    first = list(range(len(groups[0])))
    effect = means.difference(first, [i + len(first) for i in first])
    columns = {"metric": "painter", "painter": "robust - standard", "level": np.nan}
    named = table.loc[[group[0] for group in groups[0]]].assign(display=STYLIZED, **columns)
    rows = stats.aggregate(study, named, effect, paired=True, suffix="_difference")
    rows = rows[rows["metric"] == "painter_difference"]
    return rows.assign(condition="paired", scope="network")


def _shuffled(
    study: Study, trials: pd.DataFrame, generator: torch.Generator, draws: int = 500
) -> pd.DataFrame:
    """Shape bias and coverage of each network's responses, shuffled over the stimuli."""
    abouts, nulls = [], []
    trained = trials[(trials["regime"] != "untrained") & (trials["aggregation"] == "mean")]
    for names, answers in trained.groupby(BY, dropna=False):
        codes = pd.concat([answers[c] for c in ("object_response", "shape", "texture")])
        answer, shape, texture = torch.tensor(pd.factorize(codes)[0]).chunk(3)
        shuffled = answer[torch.rand(draws, len(answers), generator=generator).argsort(1)]
        by_shape, by_texture = ((shuffled == cue).sum(1).float() for cue in (shape, texture))
        decided = by_shape + by_texture
        nulls += [(by_shape / decided).nan_to_num(0.5), decided / len(answers)]
        about = dict(zip(BY, names, strict=True)) | {"n": len(answers)}
        abouts += [about | {"metric": metric} for metric in ("shape_bias", "coverage")]
    null, about = torch.stack(nulls, 1), pd.DataFrame(abouts)
    about, mean = stats.averaged(study, about, stats.Bootstrap(null.mean(0), null), paired=True)
    ends = [stats.percentile(mean.resamples, share) for share in (0.025, 0.975)]
    columns = zip(("value", "low", "high"), (mean.value, *ends), strict=True)
    about = about.assign(**{name: column.double().numpy() for name, column in columns})
    table = about.assign(condition="shuffled", scope="network")
    return table[table["mean_over"] != "architectures"]


def deciding_bias(study: Study, *, draws: int = stats.DRAWS) -> pd.DataFrame:
    """Shape bias of every network trained on both cues, on `deciding`, with intervals and means."""
    pixels, conditions = _conditions(study, deciding(study))
    trials = [
        _trials(study, _responses(study, load, pixels), conditions).assign(**named)
        for named, load, _ in networks_with_controls(study, pixels, 0)
    ]
    trials = pd.concat(trials, ignore_index=True)
    generator = torch.Generator().manual_seed(study.seed)
    options = {"generator": generator, "metrics": ("shape_bias",), "draws": draws}
    trials = trials[trials["aggregation"] == "mean"]
    table, boot = bias_and_coverage(trials, [*stats.NETWORK], **options)
    about = table.drop(columns=["value", "low", "high"])
    return stats.intervals(*stats.averaged(study, about, boot, paired=True))


COLUMNS = ["study", "network", "architecture", "regime", "cue", "metric"]
COLUMNS += ["value", "low", "high", "n"]


@measure
def cue_parity(study: Study, *, n_images: int = 800, batch: int = 200) -> pd.DataFrame:
    """Accuracy of networks that learned from one cue alone, on held-out images with that cue alone.

    One row per network (columns `cue`: shape | texture, `regime`), with Wilson's interval; no rows
    where a study has no such networks.
    """
    rows = []
    for entry in study.entries:
        if entry.cue != "both":
            held_out = study.source.single_cue(entry.cue, n_images).to(study.device)
            correctness = correct(study.network_named(entry.name), held_out, batch)
            interval = vars(stats.share(correctness.cpu(), held_out.clusters))
            named = described(study, entry) | {"cue": entry.cue, "metric": "top1"}
            rows.append(named | interval)
    return tidy(pd.DataFrame(rows, columns=COLUMNS))


CONTRAST = "contrast"  # the series of networks trained at other contrasts


@measure
def contrast_sweep(study: Study, *, draws: int = stats.DRAWS) -> pd.DataFrame:
    """Shape bias of S and R where texture is fainter or stronger than in the study, with intervals.

    Networks of the series `contrast`, and the study's pairs of the same architecture and replicate,
    each on cue conflicts with the contrasts that it was trained on. Column `ratio`: texture
    contrast (standard deviation) over the mean step between object and ground. Metrics of
    `bias_and_coverage`. No rows where no network of the series is on this machine.
    """
    series = [entry for entry in study.entries if entry.series == CONTRAST]
    trained = {(entry.architecture, entry.replicate) for entry in series}
    same = [pair for key, pair in pairs(study).items() if key in trained]
    at_study = [entry for pair in same for entry in pair.values()]
    by = [*stats.NETWORK, "ratio"]
    rows = [pd.DataFrame(columns=[*by, "metric", "value", "low", "high", "n"])]
    for entry in [*at_study, *series]:
        world = study.entry.world | entry.world
        source = studies.source(dataclasses.replace(study.entry, world=world), study.device)
        pixels, conditions = _conditions(study, source.cue_conflict(study.entry.sizes[0]))
        answers = _responses(study, partial(study.network_named, entry.name), pixels)
        trials = _trials(study, answers, conditions)
        step = (world["shape_contrast_low"] + world["shape_contrast_high"]) / 2
        named = described(study, entry) | {"ratio": round(world["texture_contrast"] / step, 3)}
        table, _ = bias_and_coverage(
            trials[trials["aggregation"] == "mean"].assign(**named),
            by,
            generator=torch.Generator().manual_seed(study.seed),
            metrics=METRICS,
            draws=draws,
        )
        rows.append(table)
    return tidy(pd.concat(rows, ignore_index=True) if series else rows[0])
