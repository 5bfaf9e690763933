"""A few units to be looked at: the images each responds to most, and where."""

import dataclasses
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Bool, UInt8
from torch import Tensor

from robustbias.errors import UserError
from robustbias.images import floats
from robustbias.images.concepts import Concepts
from robustbias.measures.input_kinds import peaks
from robustbias.measures.registry import pairs
from robustbias.networks import hooks


@dataclasses.dataclass(frozen=True)
class UnitExamples:
    """Top images of some units, with the region above the unit's threshold at full size."""

    units: pd.DataFrame  # regime, layer, unit, category, concept, iou: one row an example
    pixels: UInt8[Tensor, "m k 3 h w"]
    regions: Bool[Tensor, "m k h w"]


@torch.no_grad()
def unit_examples(
    study: Any,
    table: pd.DataFrame,
    labels: pd.DataFrame,
    images: Concepts,
    *,
    architecture: str,
    categories: tuple[str, ...] | list[str] = ("texture", "object"),
    k: int = 5,
) -> UnitExamples:
    """For S and R of one architecture the unit with the largest IoU of each category.

    Chosen by number, so that no one picks the pretty ones.

    Args:
        table: From `measures.dissection`.
        labels: One row a unit, from `measures.unit_labels`.
        images: The concept set that was dissected.
        k: Images a unit, those with the largest activations.

    Raises:
        UserError: The study has no networks of this architecture, or k exceeds the images.
    """
    found = pairs(study).get(architecture)
    if not found:
        raise UserError(f"no {architecture!r} networks in this study: {list(pairs(study))}.")
    if not 1 <= k <= len(images):
        raise UserError(f"k = {k} top images of {len(images)}; expected 1 to as many.")
    limits = table[table["metric"] == "activation_threshold"]
    limits = limits.set_index(["network", "layer", "unit"])["value"]
    rows, pixels, regions = [], [], []
    for regime in ("standard", "robust"):
        entry = found[regime]
        network = study.network_named(entry.name)
        own = labels[labels["network"] == entry.name]
        for category in categories:
            mine = own[own["category"] == category]
            if mine.empty:
                continue
            best = mine.loc[mine["iou"].idxmax()]
            layer, unit = best["layer"], int(best["unit"])
            response = peaks(network, images.pixels, [layer])[layer][:, unit]
            top = images.pixels[response.topk(k).indices]
            with hooks.captured(network, [layer]) as maps:
                network(floats(top))
            enlarged = F.interpolate(maps[layer][:, unit, None], top.shape[-2:], mode="bilinear")
            regions.append(enlarged[:, 0] > limits[entry.name, layer, unit])
            pixels.append(top)
            rows.append(best[["layer", "unit", "category", "concept", "iou"]].to_dict())
            rows[-1] |= {"regime": regime}
    return UnitExamples(pd.DataFrame(rows), torch.stack(pixels), torch.stack(regions))
