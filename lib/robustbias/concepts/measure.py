"""What units detect: Network Dissection of S, R and untrained networks, with its null.

Source: Bau et al. 2017, arXiv 1704.05796.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Bool, UInt8
from torch import Tensor

from robustbias import manifest, stats
from robustbias.concepts.netdissect import MEMORY, SHARE, Dissected, dissected
from robustbias.images import broden, floats
from robustbias.images.concepts import Concepts
from robustbias.networks import hooks
from robustbias.networks.hooks import peaks
from robustbias.networks.zoo import Network
from robustbias.studies import CALIBRATION, Study, networks_with_controls, pair_of, paired
from robustbias.tables import Part, measure, parts, tidy
from robustbias.utils import UserError

THRESHOLD = 0.04  # IoU from which a unit counts as a detector
KEPT = 64  # concepts per unit in the table: those with the largest IoU
UNIT = ["network", "layer", "unit"]


def concept_set(study: Study, name: str = "", n: int | None = None) -> Concepts:
    """n images with masks, on the study's device: the study's, or those of a data set.

    Raises:
        UserError: The study's source has no masks, or the data set is no Broden.
    """
    if name:
        entry = manifest.dataset(name)
        if entry.kind != "broden":
            raise UserError(
                f"data set {name} is of kind {entry.kind!r} and has no concept masks; expected one "
                "of kind 'broden', or \"\" for the study's images."
            )
        images = broden.read(manifest.data_directory() / entry.path, n)
    else:
        images = study.source.concepts(n)
    return images.to(study.device)


@measure(of=paired)
def dissection(
    study: Study,
    *,
    n_images: int | None = None,
    concepts: str = "",
    layers: tuple[str, ...] | list[str] | None = None,
    share: float = SHARE,
    threshold: float = THRESHOLD,
    memory: int = MEMORY,
    draws: int = 2000,
) -> pd.DataFrame:
    """Every unit of S, R and an untrained network against every concept, and shares of detectors.

    Rows of scope `unit`, without interval:
    - `iou`, `null_iou` (masks of another image) for category and concept, of the KEPT concepts
      with the largest IoU, all those above the threshold, and that of the largest null IoU;
      `ceiling`, the largest IoU that the areas of unit and concept allow. n: number of images.
    - `null_concepts`: how many concepts have a null IoU above the threshold: false positives;
      `activation_threshold`, and `share_above`, the share of activations above it.

    Rows of scope `layer` and `network` (in which wide layers weigh more): shares of all units,
    dead ones included, that are labelled with a concept of the category (or of `any`). Metrics:
    `detectors` (largest IoU above `threshold`), `null_detectors` (the same by null IoU: false
    positives), `net_detectors` (the first without the second), `above_null` (largest IoU above
    every null IoU of the layer), and the number `unique` of different concepts among the labels,
    without interval. Intervals are bootstraps over units: the images are the same for all networks,
    the units are what training happened to make. Regime `robust - standard` is the difference,
    units resampled separately.

    Rows of scope `concept`: `pixel_share` of each concept on images that carry its category, and
    `carried_share`, those images' share of all pixels.

    Args:
        n_images: Images of the concept set; all of it when None.
        concepts: A data set of kind broden; the study's images when empty.
        layers: Probed layers; the manifest's when None.
        share: Of the activations that lie above a unit's threshold.
        memory: Bytes of activation maps kept at most (see `netdissect.dissected`).

    Raises:
        UserError: An unknown layer or data set, images without masks, more images than there are.
    """
    images = concept_set(study, concepts, n_images)

    def measured(load: Callable[[], Network]) -> Part:
        generator = torch.Generator().manual_seed(study.seed)
        options = {"share": share, "memory": memory, "generator": generator}
        return {
            f"{layer}\t{field}": torch.as_tensor(value)
            for layer, counts in dissected(load(), images, layers, **options).items()
            for field, value in vars(counts).items()
        }

    networks = list(networks_with_controls(study, images.pixels[:CALIBRATION]))
    tasks = {named["network"]: partial(measured, load) for named, load, _ in networks}
    rows, units, covered = [], [], None
    for (named, *_), part in zip(networks, parts(tasks).values(), strict=True):
        by_layer: dict[str, dict[str, Tensor]] = {}
        for place, value in part.items():
            layer, field = place.split("\t")
            by_layer.setdefault(layer, {})[field] = value
        for layer, fields in by_layer.items():
            counts = Dissected(**fields | {"positions": int(fields["positions"])})
            covered = _concept_rows(study, images, counts) if covered is None else covered
            of_units = _unit_rows(counts, images, threshold)
            rows.append(of_units.assign(**named, scope="unit", layer=layer))
            units.append(_detectors(counts, images, threshold).assign(**named, layer=layer))
    rows.append(_shares(study, pd.concat(units), images, draws))
    return tidy(pd.concat([covered, *rows], ignore_index=True))


def labels(table: pd.DataFrame, threshold: float = THRESHOLD) -> pd.DataFrame:
    """One row per unit: its best concept and category, iou, null (its largest null IoU), detector.

    Args:
        table: From `dissection`.
        threshold: IoU above which the unit is a detector.
    """
    units = table[table["scope"] == "unit"]
    iou = units[units["metric"] == "iou"]
    best = iou.loc[iou.groupby(UNIT, sort=False)["value"].idxmax()]
    null = units[units["metric"] == "null_iou"].groupby(UNIT, sort=False)["value"].max()
    columns = ["study", "architecture", "regime", "pair", *UNIT, "category", "concept"]
    best = best.assign(iou=best["value"])[[*columns, "iou"]]
    best = best.merge(null.rename("null").reset_index(), on=UNIT, validate="one_to_one")
    return best.assign(detector=best["iou"] > threshold)


def _unit_rows(counts: Dissected, images: Concepts, threshold: float) -> pd.DataFrame:
    """Long rows of one layer: units x kept concepts for each kind of IoU, then rows per unit."""
    category, concept = (
        np.array(part, dtype=object) for part in zip(*images.concepts, strict=True)
    )
    units = len(counts.thresholds)
    kinds = {"iou": counts.iou, "null_iou": counts.null_iou, "ceiling": counts.ceiling}
    iou, null = kinds["iou"], kinds["null_iou"]
    kept = iou > threshold
    kept.scatter_(1, iou.topk(min(KEPT, len(concept)), dim=1).indices, True)
    kept.scatter_(1, null.argmax(1, keepdim=True), True)
    unit, which = (index.cpu().numpy() for index in kept.nonzero(as_tuple=True))
    about = {"unit": unit, "category": category[which], "concept": concept[which]}
    rows = [
        pd.DataFrame(about | {"metric": metric, "value": values[kept].cpu().numpy()})
        for metric, values in kinds.items()
    ]
    per_unit = {
        "null_concepts": (null > threshold).sum(1),
        "activation_threshold": counts.thresholds,
        "share_above": counts.above / counts.positions,
    }
    for metric, values in per_unit.items():
        about = {"unit": np.arange(units), "metric": metric}
        rows.append(pd.DataFrame(about | {"value": values.double().cpu().numpy()}))
    return pd.concat(rows, ignore_index=True).assign(n=len(images))


def _concept_rows(study: Study, images: Concepts, counts: Dissected) -> pd.DataFrame:
    """The share of pixels each concept covers, on images that carry its category; and theirs."""
    carried = counts.carried[counts.category]
    shares = {
        "pixel_share": counts.concepts / carried,
        "carried_share": carried / (len(images) * math.prod(images.side)),
    }
    rows = [
        {"category": category, "concept": concept, "metric": metric, "value": value}
        for metric, values in shares.items()
        for (category, concept), value in zip(images.concepts, values.tolist(), strict=True)
        if not math.isnan(value)
    ]
    about = {"study": study.name, "pair": False, "scope": "concept"}
    return pd.DataFrame(rows).assign(**about, n=len(images))


def _detectors(counts: Dissected, images: Concepts, threshold: float) -> pd.DataFrame:
    """One row per unit: the label by IoU and by null IoU, and whether each passes its test."""
    iou, best = counts.iou.max(1)
    null, best_null = counts.null_iou.max(1)
    category = counts.category.cpu()
    names = np.array(images.categories, dtype=object)
    return pd.DataFrame(
        {
            "unit": range(len(iou)),
            "category": names[category[best.cpu()]],
            "null_category": names[category[best_null.cpu()]],
            "concept": best.cpu(),
            "detectors": (iou > threshold).cpu(),
            "null_detectors": (null > threshold).cpu(),
            "above_null": (iou > null.max()).cpu(),
        }
    )


METRICS = ("detectors", "null_detectors", "above_null", "net_detectors")


def scopes(units: pd.DataFrame) -> list[tuple[dict[str, str], pd.DataFrame]]:
    """(columns, units) of every layer of every network, then of every network."""
    layers = units.groupby(["network", "layer"], sort=False)
    networks = units.groupby("network", sort=False)
    return [({"scope": "layer", "layer": layer}, table) for (_, layer), table in layers] + [
        ({"scope": "network"}, table) for _, table in networks
    ]


def _shares(study: Study, units: pd.DataFrame, images: Concepts, draws: int) -> pd.DataFrame:
    """Shares of units by category, layer by layer and over all, and R minus S."""
    groups = {c: (c,) for c in images.categories}
    groups |= {"any": images.categories}
    generator = torch.Generator().manual_seed(study.seed)
    columns = [(metric, group) for metric in METRICS for group in groups]
    shares, rows = [], []
    for scope, table in scopes(units):
        hits = {
            (metric, group): (table[metric] & table[category].isin(groups[group])).astype(float)
            for metric, group in columns
            if metric in table
            for category in ["null_category" if metric == "null_detectors" else "category"]
        }
        for group in groups:
            false = hits["null_detectors", group]
            hits["net_detectors", group] = hits["detectors", group] - false
        shared = table.iloc[0][list(stats.NETWORK)].to_dict() | scope
        shares.append(
            (
                shared,
                columns,
                torch.from_numpy(np.stack([hits[c] for c in columns], 1)).float(),
                None,
            )
        )
        detectors = table[table["detectors"]]
        for group, categories in groups.items():
            unique = detectors.loc[detectors["category"].isin(categories), "concept"].nunique()
            count = {"metric": "unique", "category": group, "value": unique, "n": len(table)}
            rows.append(shared | count)
    about, boot = stats.over_units(shares, generator=generator, draws=draws)
    metric, about["category"] = zip(*about["metric"], strict=True)
    table = stats.aggregate(study, about.assign(metric=metric), boot, paired=False)
    return pd.concat([table, stats.plain_means(pd.DataFrame(rows))], ignore_index=True)


@dataclasses.dataclass(frozen=True)
class UnitExamples:
    """Top images of some units, with the region above the unit's threshold at full size."""

    units: pd.DataFrame  # regime, layer, unit, category, concept, iou: one row per example
    pixels: UInt8[Tensor, "m k 3 h w"]
    regions: Bool[Tensor, "m k h w"]


@torch.no_grad()
def unit_examples(
    study: Study,
    table: pd.DataFrame,
    labels: pd.DataFrame,
    images: Concepts,
    *,
    architecture: str,
    categories: tuple[str, ...] | list[str] = ("texture", "object"),
    k: int = 5,
) -> UnitExamples:
    """For S and R of one architecture the unit with the largest IoU of each category.

    Args:
        table: From `dissection`.
        labels: From `labels`.
        images: The concept set that was dissected.
        k: Images per unit, those with the largest activations.

    Raises:
        UserError: The study has no networks of this architecture, or k exceeds the images.
    """
    pair = pair_of(study, architecture)
    if not 1 <= k <= len(images):
        raise UserError(f"k = {k} top images of {len(images)}; expected 1 to as many.")
    limits = table[table["metric"] == "activation_threshold"]
    limits = limits.set_index(UNIT)["value"]
    rows, pixels, regions = [], [], []
    for regime in ("standard", "robust"):
        entry = pair[regime]
        network = study.network_named(entry.name)
        of_network = labels[labels["network"] == entry.name]
        for category in categories:
            candidates = of_network[of_network["category"] == category]
            if candidates.empty:
                continue
            best = candidates.loc[candidates["iou"].idxmax()]
            layer, unit = best["layer"], int(best["unit"])
            parts = torch.arange(len(images), device=images.pixels.device).split(1000)
            response = torch.cat(
                [peaks(network, images.pixels[part], [layer])[layer][:, unit] for part in parts]
            )
            top = images.pixels[response.topk(k).indices]
            with hooks.captured(network, [layer]) as maps:
                network(floats(top))
            enlarged = F.interpolate(maps[layer][:, unit, None], top.shape[-2:], mode="bilinear")
            regions.append(enlarged[:, 0] > limits[entry.name, layer, unit])
            pixels.append(top)
            rows.append(best[["layer", "unit", "category", "concept", "iou"]].to_dict())
            rows[-1] |= {"regime": regime}
    return UnitExamples(pd.DataFrame(rows), torch.stack(pixels), torch.stack(regions))
