"""To how many types of inputs units respond: concepts, classes, and likeness of their images."""

from typing import Any

import pandas as pd
import torch
from jaxtyping import Int64
from torch import Tensor

from robustbias import stats
from robustbias.errors import UserError
from robustbias.images import Images
from robustbias.measures.conflict import calibrated
from robustbias.measures.detectors import MEMORY, SHARE
from robustbias.measures.dissection import THRESHOLD, UNIT, dissection
from robustbias.measures.input_kinds import (
    effective_classes,
    features,
    mean_distance,
    peaks,
    top_images,
)
from robustbias.measures.probed import probed_networks
from robustbias.measures.registry import described, measure, paired, pairs, tidy
from robustbias.networks import zoo

JUDGES = {"distance": "standard", "distance_robust": "robust"}  # metric -> regime of the judge
METRICS = ("concepts", "effective_classes", *JUDGES)
NETWORK = ["study", "network", "architecture", "regime", "eps", "pair"]


@measure(of=paired)
def input_types(
    study: Any,
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

    Metrics, one row a unit (`unit` 0 and up) without interval:
    - `concepts`: how many concepts it meets with an IoU above the threshold (`dissection`);
    - `effective_classes`: exp(entropy) of the classes among its k top held-out images;
    - `distance`: how unlike each other those images are to a third network, neither S nor R of
      this architecture; 1 is any two images. Column `features` names that network, `judge` says
      its kind: the S of the study's last other architecture. `distance_robust` is the same by
      that architecture's R, since what an S network calls alike may suit S networks. Where there
      is no other architecture, an untrained network of another seed judges alone.
    All but the first are left out for units that respond to fewer than two images.

    Rows with `unit` -1: means over the n units of a layer, or of layer `all`, with bootstraps over
    units; regime `robust - standard` the difference, units resampled separately. Network `chance`:
    the effective classes of k images drawn at random.

    Args:
        k: Top images, those with the largest activation anywhere.
        n_images: Held-out images, drawn with the study's seed; all when None.
        concept_images: Images for the dissection; all when None.
        concepts: See `dissection`.

    Raises:
        UserError: k out of range, n_images below 1, an unknown layer.

    Source: PROTOCOL of this book.
    """
    if n_images is not None and n_images < 1:
        raise UserError(f"n_images is {n_images}: give at least 1 image")
    generator = torch.Generator().manual_seed(study.seed)
    images = study.source.val()
    images = images.take(torch.randperm(len(images), generator=generator)[:n_images])
    images = images.to(study.device)
    # as the chapter on concepts calls it, so that the table is measured once
    found = dissection(
        study, n_images=concept_images, concepts=concepts, layers=layers, share=SHARE,
        threshold=threshold, memory=MEMORY, draws=draws,
    )  # fmt: skip
    iou = found[(found["unit"] >= 0) & (found["metric"] == "iou")]
    met = iou.assign(met=iou["value"] > threshold).groupby(UNIT, sort=False)["met"].sum()
    units, known, names = [], {}, {}
    for named, network in probed_networks(study, images.pixels):
        architecture = named["architecture"]
        if architecture not in known:
            judges = _judges(study, architecture, images)
            known[architecture] = {m: features(j, images.pixels) for m, (j, *_) in judges.items()}
            names |= {(architecture, m): said for m, (_, *said) in judges.items()}
        for layer, own in peaks(network, images.pixels, layers or network.layers).items():
            index, active = top_images(own, k)
            values = {
                "unit": range(own.shape[1]),
                "concepts": [float(met[named["network"], layer, u]) for u in range(own.shape[1])],
                "effective_classes": effective_classes(images.labels, index, active).cpu(),
            }
            for metric, seen in known[architecture].items():
                values[metric] = mean_distance(seen, index, active).cpu()
            units.append(pd.DataFrame(values).assign(**named, layer=layer))
    units = pd.concat(units, ignore_index=True)
    metrics = [metric for metric in METRICS if metric in units]
    long = units.melt([*NETWORK, "layer", "unit"], metrics, "metric").dropna(subset=["value"])
    rows = [long.assign(n=len(images)), _means(study, units, draws)]
    rows.append(_chance(study, images.labels.cpu(), k, generator))
    table = pd.concat(rows, ignore_index=True)
    keys = zip(table["architecture"], table["metric"], strict=True)
    said = [names.get(key, ("", "")) for key in keys]
    return tidy(table.assign(features=[name for name, _ in said], judge=[kind for _, kind in said]))


def _judges(
    study: Any, architecture: str, images: Images
) -> dict[str, tuple[zoo.Network, str, str]]:
    """Metric -> the network whose features say how alike images are, its name, and its kind."""
    others = [pair for own, pair in pairs(study).items() if own != architecture and len(pair) == 2]
    if others:
        chosen = {metric: others[-1][regime] for metric, regime in JUDGES.items()}
        return {
            metric: (study.network_named(entry.name), entry.name, "SR"[entry.regime == "robust"])
            for metric, entry in chosen.items()
        }
    entry = next(iter(pairs(study)[architecture].values()))
    network = zoo.untrained(entry, study.seed + 1).to(study.device)
    name = f"untrained {architecture}"
    return {"distance": (calibrated(network, images.pixels), name, "an untrained network")}


def _means(study: Any, units: pd.DataFrame, draws: int) -> pd.DataFrame:
    """Means by layer and over all units, and R minus S."""
    generator = torch.Generator().manual_seed(study.seed)
    rows, boots = [], {}
    groups = [(key, own) for key, own in units.groupby(["network", "layer"], sort=False)]
    groups += [((name, "all"), own) for name, own in units.groupby("network", sort=False)]
    for (name, layer), own in groups:
        values = torch.tensor(own.reindex(columns=METRICS).values, dtype=torch.float)
        known = values.isfinite()
        boot = stats.ratios(
            values.nan_to_num(),
            known.float(),
            torch.arange(len(values)),
            generator=generator,
            draws=draws,
        )
        shared = own.iloc[0][NETWORK].to_dict() | {"layer": layer}
        boots[name, layer] = boot, known.sum(0), shared
        rows.append(_rows(boot, known.sum(0), shared))
    for pair in [pair for pair in pairs(study).values() if len(pair) == 2]:
        robust, standard = pair["robust"], pair["standard"]
        for name, layer in [key for key in boots if key[0] == robust.name]:
            (one, n, shared), (other, m, _) = boots[name, layer], boots[standard.name, layer]
            gap = stats.Bootstrap(one.value - other.value, one.replicates - other.replicates)
            about = shared | described(study, robust) | {
                "network": f"{robust.name} - {standard.name}",
                "regime": "robust - standard",
            }  # fmt: skip
            rows.append(_rows(gap, n + m, about))
    return pd.concat(rows, ignore_index=True)


def _rows(boot: stats.Bootstrap, n: Tensor, shared: dict[str, Any]) -> pd.DataFrame:
    """A row a metric; a resample without responding units says nothing and is left out."""
    drawn = boot.replicates.where(boot.replicates.isfinite(), boot.value)
    ends = {"low": stats.percentile(drawn, 0.025), "high": stats.percentile(drawn, 0.975)}
    columns = {"metric": METRICS, "value": boot.value, **ends, "n": n}
    table = pd.DataFrame({name: list(map(_plain, values)) for name, values in columns.items()})
    return table.assign(**shared, unit=-1).dropna(subset=["value"])


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) else value


def _chance(
    study: Any, labels: Int64[Tensor, " n"], k: int, generator: torch.Generator
) -> pd.DataFrame:
    """Effective classes of k random images: mean and middle 95 % of a thousand draws."""
    index = torch.rand(1000, len(labels), generator=generator).topk(k, dim=1).indices
    drawn = effective_classes(labels, index, torch.ones_like(index, dtype=torch.bool))
    row = {
        "study": study.name, "network": "chance", "architecture": "", "regime": "chance",
        "eps": 0.0, "pair": False, "layer": "all", "unit": -1,
        "metric": "effective_classes", "value": float(drawn.mean()),
        "low": float(drawn.quantile(0.025)), "high": float(drawn.quantile(0.975)), "n": k,
    }  # fmt: skip
    return pd.DataFrame([row])
