"""To how many types of inputs units respond: concepts, classes, and likeness of their images."""

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
from robustbias.studies import (
    CALIBRATION,
    Study,
    first_pairs,
    held_out_sample,
    networks_with_controls,
    pair_of,
    paired,
)
from robustbias.tables import measure, tidy
from robustbias.utils import UserError


@torch.no_grad()
def features(
    network: Network, pixels: UInt8[Tensor, "n 3 h w"], batch: int = 200
) -> Float[Tensor, "n d"]:
    """Spatial means of the network's last probed layer, centred over the images, of length one.

    Without centring, what all images share would make them all alike.
    """
    layer, parts = network.layers[-1], []
    with hooks.captured(network, [layer]) as maps:
        for images in pixels.split(batch):
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
METRICS = ("concepts", "effective_classes", *EXTRACTORS)


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
    - `effective_classes`: exp(entropy) of the classes among its k top held-out images;
    - `distance`: how unlike each other those images are to a third network, neither S nor R of
      this architecture; 1 is any two images. Column `features` names that network, `judge`
      its kind: the S of the study's last other architecture. `distance_robust` is the same by
      that architecture's R, since features of an S network may favour S networks. Where there is
      no other architecture, an untrained network of another seed gives `distance` alone.
    All but the first are left out for units that respond to fewer than two images.

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
    detection = dissection(
        study, n_images=concept_images, concepts=concepts, layers=layers, share=SHARE,
        threshold=threshold, memory=MEMORY, draws=draws,
    )  # fmt: skip
    iou = detection[(detection["scope"] == "unit") & (detection["metric"] == "iou")]
    n_concepts = iou.assign(met=iou["value"] > threshold).groupby(UNIT, sort=False)["met"].sum()
    units, vectors, names = [], {}, {}
    for named, network, _ in networks_with_controls(study, images.pixels[:CALIBRATION]):
        architecture = named["architecture"]
        if architecture not in vectors:
            extractors = _feature_extractors(study, architecture, images)
            vectors[architecture] = {
                metric: features(extractor, images.pixels)
                for metric, (extractor, *_) in extractors.items()
            }
            names |= {(architecture, m): said for m, (_, *said) in extractors.items()}
        for layer, maxima in peaks(network, images.pixels, layers or network.layers).items():
            index, active = top_images(maxima, k)
            values = {
                "unit": range(maxima.shape[1]),
                "concepts": [
                    float(n_concepts[named["network"], layer, u]) for u in range(maxima.shape[1])
                ],
                "effective_classes": effective_classes(images.labels, index, active).cpu(),
            }
            for metric, feature_vectors in vectors[architecture].items():
                values[metric] = mean_distance(feature_vectors, index, active).cpu()
            units.append(pd.DataFrame(values).assign(**named, layer=layer))
    units = pd.concat(units, ignore_index=True)
    metrics = [metric for metric in METRICS if metric in units]
    long = units.melt([*stats.NETWORK, "layer", "unit"], metrics, "metric").dropna(subset=["value"])
    rows = [long.assign(scope="unit", n=len(images)), _means(study, units, draws)]
    rows.append(_chance(study, images.labels.cpu(), k, generator))
    table = pd.concat(rows, ignore_index=True)
    keys = zip(table["architecture"], table["metric"], strict=True)
    said = [names.get(key, (None, None)) for key in keys]
    return tidy(table.assign(features=[name for name, _ in said], judge=[kind for _, kind in said]))


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
    study: Study, labels: Int64[Tensor, " n"], k: int, generator: torch.Generator
) -> pd.DataFrame:
    """Effective classes of k random images: mean and middle 95 % of a thousand draws."""
    index = torch.rand(1000, len(labels), generator=generator).topk(k, dim=1).indices
    drawn = effective_classes(labels, index, torch.ones_like(index, dtype=torch.bool))
    row = {
        "study": study.name, "pair": False, "scope": "study",
        "metric": "effective_classes_chance", "value": float(drawn.mean()),
        "low": float(drawn.quantile(0.025)), "high": float(drawn.quantile(0.975)), "n": k,
    }  # fmt: skip
    return pd.DataFrame([row])
