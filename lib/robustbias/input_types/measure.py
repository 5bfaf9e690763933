"""To how many types of inputs units respond: concepts, classes, and likeness of their images."""

import functools
from collections.abc import Callable

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from robustbias import stats
from robustbias.concepts.measure import THRESHOLD, UNIT, dissection, scopes
from robustbias.concepts.netdissect import MEMORY, SHARE
from robustbias.images import Images, floats
from robustbias.networks import hooks, zoo
from robustbias.networks.hooks import peaks
from robustbias.networks.zoo import Network, calibrated
from robustbias.shape_bias.measure import deciding
from robustbias.studies import (
    CALIBRATION,
    Study,
    first_pairs,
    held_out_sample,
    networks_with_controls,
    pair_of,
    paired,
)
from robustbias.tables import Part, measure, parts, tidy
from robustbias.utils import MissingData, UserError


@torch.no_grad()
def features(
    network: Network, pixels: UInt8[Tensor, "n 3 h w"], batch: int = 200
) -> Float[Tensor, "n d"]:
    """Spatial means of the network's last probed layer, centred over the images, of length one.

    Without centring, what all images share would make them all alike.
    """
    layer, parts = network.layers[-1], []
    with hooks.captured(network, [layer]) as maps:
        for images in pixels.split(hooks.fitting(network, pixels, batch)):
            network(floats(images))
            parts.append(maps[layer].mean((2, 3)))
    pooled = torch.cat(parts)
    pooled = pooled - pooled.mean(0)
    return pooled / pooled.norm(dim=1, keepdim=True).clamp_min(1e-12)


def top_images(
    peaks: Float[Tensor, "n u"], k: int
) -> tuple[Int64[Tensor, "u k"], Bool[Tensor, "u k"]]:
    """The k images each unit responds to most, and which of them it responds to at all.

    A unit does not respond to an image on which its maximum is no larger than the smallest over all
    images: after a ReLU that is mostly 0, and a dead unit responds to nothing.

    Raises:
        UserError: k below 2 or above the number of images.
    """
    if not 2 <= k <= len(peaks):
        raise UserError(f"k = {k} top images of {len(peaks)}; expected 2 to as many.")
    top = peaks.T.topk(k, dim=1)
    return top.indices, top.values > peaks.amin(0)[:, None]


def effective_classes(
    labels: Int64[Tensor, " n"], index: Int64[Tensor, "u k"], active: Bool[Tensor, "u k"]
) -> Float[Tensor, " u"]:
    """Number of classes that would give the entropy of those among a unit's images.

        exp(-Σ p log p), p the share of each class

    1 where all images are of one class, k where each is of another; NaN without two active images.
    """
    counts = torch.zeros(len(index), int(labels.max()) + 1, device=labels.device)
    counts.scatter_add_(1, labels[index], active.float())
    m = counts.sum(1, keepdim=True)
    entropy = -torch.special.xlogy(counts / m, counts / m).sum(1)
    return entropy.exp().masked_fill(m[:, 0] < 2, torch.nan)


def mean_distance(
    features: Float[Tensor, "n d"], index: Int64[Tensor, "u k"], active: Bool[Tensor, "u k"]
) -> Float[Tensor, " u"]:
    """Mean of 1 - cosine over pairs of a unit's images, over that of all pairs of images.

    1 for images no more alike than any; NaN without two active images.

    Args:
        features: Of length one.
    """
    total = torch.stack(
        [(features[i] * a[:, None]).sum(0) for i, a in zip(index, active, strict=True)]
    )
    m = active.sum(1)
    among = (total.square().sum(1) - m) / (m * (m - 1))
    n = len(features)
    all_pairs = (features.sum(0).square().sum() - n) / (n * (n - 1))
    return ((1 - among) / (1 - all_pairs)).masked_fill(m < 2, torch.nan)


# metric -> regime of the network that gives the features
EXTRACTORS = {"distance": "standard", "distance_robust": "robust"}
CLASSES = ("effective_classes", "effective_shapes", "effective_textures")
METRICS = ("concepts", "concepts_of_detectors", *CLASSES, *EXTRACTORS)


@measure(of=paired)
def input_types(
    study: Study,
    *,
    k: int = 20,
    n_images: int | None = None,
    concept_images: int | None = None,
    concepts: str = "",
    layers: tuple[str, ...] | list[str] | None = None,
    threshold: float = THRESHOLD,
    draws: int = 2000,
) -> pd.DataFrame:
    """Types of inputs per unit of S, R and an untrained network, and R minus S.

    Metrics, one row per unit (scope `unit`) without interval:
    - `concepts`: how many concepts it detects with an IoU above the threshold (`dissection`);
      `concepts_of_detectors`, of units that detect any, less those that it detects in masks of
      other images; neither where the study's images have no masks and the argument `concepts`
      names no data set;
    - `effective_shapes` and `effective_textures`: exp(entropy) of the categories of shape, and of
      texture, among its k top cue conflicts, where neither cue tells the other: those in a pose of
      their own (`Source.separate_cues`), else those of `shape_bias.measure.deciding`.
      `effective_classes` is the smaller one, that of the cue the unit follows. Where a study has
      no cue conflicts, `effective_classes` alone, of its k top held-out images (of their
      entry-level categories where there are fewer than k images per class). Column `features` says
      "categories" where categories are counted;
    - `distance`: how unlike each other those images are to a third network, neither S nor R of
      this architecture; 1 is any two images. Column `features` names that network, `judge`
      its kind: the S of the study's last other architecture. `distance_robust` is the same by
      that architecture's R, since features of an S network may favour S networks. Where there is
      no other architecture, an untrained network of another seed gives `distance` alone.
    Classes and distances are left out for units that respond to fewer than two images.

    Rows of scope `layer` and `network`: means over their n units, with bootstraps over units;
    regime `robust - standard` the difference, units resampled separately. Scope `study`:
    `effective_classes_chance`, the effective classes of k images drawn at random.

    Args:
        k: Top images, those with the largest activation anywhere.
        n_images: Held-out images, drawn with the study's seed; all when None.
        concept_images: Images for the dissection; all when None.
        concepts: See `dissection`.

    Raises:
        UserError: k out of range, n_images below 1, an unknown layer.

    Source: PROTOCOL of this book.
    """
    generator = torch.Generator().manual_seed(study.seed)
    images = held_out_sample(study, n_images, generator)
    # as the chapter on concepts calls it, so that the table is measured once
    try:
        detection = dissection(
            study, n_images=concept_images, concepts=concepts, layers=layers, share=SHARE,
            threshold=threshold, memory=MEMORY, draws=draws,
        )  # fmt: skip
    except MissingData:
        if concepts:
            raise
        detection = None  # images without masks, and no data set that has some
    if detection is not None:
        iou = detection[(detection["scope"] == "unit") & (detection["metric"] == "iou")]
        met = iou.assign(met=iou["value"] > threshold)
        n_concepts = met.groupby(UNIT, sort=False)["met"].sum()
        by_chance = detection[detection["metric"] == "null_concepts"].set_index(UNIT)["value"]
        net = (n_concepts - by_chance).where(n_concepts > 0)
        detected = pd.DataFrame({"concepts": n_concepts * 1.0, "concepts_of_detectors": net})

    @functools.cache
    def extractors(architecture: str) -> dict[str, tuple[Network, str, str]]:
        return _feature_extractors(study, architecture, images)

    @functools.cache
    def vectors(architecture: str) -> dict[str, Tensor]:
        chosen = extractors(architecture).items()
        return {metric: features(extractor, images.pixels) for metric, (extractor, *_) in chosen}

    def measured(load: Callable[[], Network], architecture: str) -> Part:
        network, values = load(), {}
        probed = layers or network.layers
        for layer, maxima in peaks(network, counted, probed).items():
            classes = [effective_classes(group, *top_images(maxima, k)) for group in groups]
            values[f"{layer}\teffective_classes"] = torch.stack(classes).amin(0)
            for metric, value in zip(CLASSES[1:], classes, strict=len(classes) > 1):
                values[f"{layer}\t{metric}"] = value
        for layer, maxima in peaks(network, images.pixels, probed).items():
            index, active = top_images(maxima, k)
            for metric, feature_vectors in vectors(architecture).items():
                values[f"{layer}\t{metric}"] = mean_distance(feature_vectors, index, active)
        return values

    counted, groups, kind = _counted(study, images, k)
    networks = list(networks_with_controls(study, images.pixels[:CALIBRATION]))
    tasks = {
        named["network"]: functools.partial(measured, load, named["architecture"])
        for named, load, _ in networks
    }
    units, names = [], {}
    for (named, *_), part in zip(networks, parts(tasks).values(), strict=True):
        architecture, by_layer = named["architecture"], {}
        names |= {(architecture, metric): (kind, None) for metric in CLASSES}
        for metric, (_, *said) in extractors(architecture).items():
            names[architecture, metric] = said
        for place, value in part.items():
            layer, metric = place.split("\t")
            by_layer.setdefault(layer, {})[metric] = value
        for layer, values in by_layer.items():
            count = len(values["effective_classes"])
            units.append(
                pd.DataFrame({"unit": range(count), **values}).assign(**named, layer=layer)
            )
    units = pd.concat(units, ignore_index=True)
    if detection is not None:
        units[list(detected)] = detected.loc[pd.MultiIndex.from_frame(units[UNIT])].to_numpy()
    metrics = [metric for metric in METRICS if metric in units]
    long = units.melt([*stats.NETWORK, "layer", "unit"], metrics, "metric").dropna(subset=["value"])
    rows = [long.assign(scope="unit", n=len(images)), _means(study, units, draws)]
    rows.append(_chance(study, [group.cpu() for group in groups], k, generator))
    table = pd.concat(rows, ignore_index=True)
    keys = zip(table["architecture"], table["metric"], strict=True)
    said = [names.get(key, (None, None)) for key in keys]
    return tidy(table.assign(features=[name for name, _ in said], judge=[kind for _, kind in said]))


def _counted(
    study: Study, images: Images, k: int
) -> tuple[UInt8[Tensor, "n 3 h w"], list[Int64[Tensor, " n"]], str | None]:
    """Images whose classes are counted, one or two labels of each, and what the labels are.

    Cue conflicts with the categories of shape and of texture; else the held-out images with their
    classes, or categories where classes have few images.
    """
    for source in (study.source.separate_cues, functools.partial(deciding, study)):
        try:
            conflicts = source()
        except MissingData:
            continue
        labels = [cue.to(study.device) for cue in (conflicts.shape, conflicts.texture)]
        return conflicts.pixels.to(study.device), labels, "categories"
    counts = torch.bincount(images.labels)
    if k > len(images) or counts[counts > 0].median() >= k:
        return images.pixels, [images.labels], None
    network = study.network_named(study.entries[0].name)
    membership = study.membership(network).to(images.labels.device)
    outside = membership.shape[1]  # one more group
    categories = torch.where(membership.any(1), membership.argmax(1), outside)
    return images.pixels, [categories[images.labels]], "categories"


def _feature_extractors(
    study: Study, architecture: str, images: Images
) -> dict[str, tuple[zoo.Network, str, str]]:
    """Metric -> the network whose features `distance` compares, its name, and its kind."""
    others = [p for name, p in first_pairs(study).items() if name != architecture and len(p) == 2]
    if others:
        chosen = {metric: others[-1][regime] for metric, regime in EXTRACTORS.items()}
        return {
            metric: (study.network_named(entry.name), entry.name, "SR"[entry.regime == "robust"])
            for metric, entry in chosen.items()
        }
    entry = next(iter(pair_of(study, architecture).values()))
    network = zoo.untrained(entry, study.seed + 1).to(study.device)
    name = f"untrained {architecture}"
    return {"distance": (calibrated(network, images.pixels), name, "an untrained network")}


def _means(study: Study, units: pd.DataFrame, draws: int) -> pd.DataFrame:
    """Means by layer and over all units, and R minus S.

    A resample without responding units says nothing and counts as the mean itself.
    """
    groups = []
    for scope, table in scopes(units):
        values = torch.tensor(table.reindex(columns=METRICS).values, dtype=torch.float)
        shared = table.iloc[0][list(stats.NETWORK)].to_dict() | scope
        groups.append((shared, METRICS, values, None))
    generator = torch.Generator().manual_seed(study.seed)
    about, boot = stats.over_units(groups, generator=generator, draws=draws, bounds=None)
    table = stats.aggregate(study, about, boot, paired=False)
    return table.dropna(subset=["value"])


def _chance(
    study: Study, groups: list[Int64[Tensor, " n"]], k: int, generator: torch.Generator
) -> pd.DataFrame:
    """Effective classes of k random images: mean and middle 95 % of a thousand draws."""
    index = torch.rand(1000, len(groups[0]), generator=generator).topk(k, dim=1).indices
    every = torch.ones_like(index, dtype=torch.bool)
    drawn = torch.stack([effective_classes(group, index, every) for group in groups]).amin(0)
    row = {
        "study": study.name, "pair": False, "scope": "study",
        "metric": "effective_classes_chance", "value": float(drawn.mean()),
        "low": float(drawn.quantile(0.025)), "high": float(drawn.quantile(0.975)), "n": k,
    }  # fmt: skip
    return pd.DataFrame([row])
