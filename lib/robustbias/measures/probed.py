"""The networks whose units are looked into: S and R of each architecture, and one untrained."""

from collections.abc import Iterator
from typing import Any

from jaxtyping import UInt8
from torch import Tensor

from robustbias.measures.conflict import calibrated
from robustbias.measures.registry import described, pairs
from robustbias.networks import zoo

CALIBRATION = 400  # images that set the BatchNorm statistics of an untrained network


def probed_networks(
    study: Any, pixels: UInt8[Tensor, "n 3 h w"]
) -> Iterator[tuple[dict[str, Any], zoo.Network]]:
    """(columns that describe it, network), architecture by architecture.

    Args:
        pixels: What an untrained network's BatchNorm statistics are taken from.
    """
    for architecture, pair in pairs(study).items():
        for entry in pair.values():
            yield described(study, entry), study.network_named(entry.name)
        entry = pair.get("standard") or pair["robust"]
        null = {"network": f"untrained-{architecture}", "regime": "untrained"}
        network = zoo.untrained(entry, study.seed).to(study.device)
        columns = described(study, entry) | null | {"eps": 0.0, "pair": False}
        yield columns, calibrated(network, pixels[:CALIBRATION])
