"""Visualisations of all units, kept with the book: one picture per layer of a network.

They take about ten minutes per study, longer than a page may take to build, so that they are files
of the repository: `robustbias visualise STUDY` draws those again whose weights have changed.
"""

import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from robustbias.manifest import ROOT, NetworkEntry
from robustbias.smooth_filters import visualisation
from robustbias.studies import Study, held_out_sample, pair_of
from robustbias.unit_explorer.measure import explored
from robustbias.utils import atomic, reading

FOLDER = ROOT / "book" / "static" / "visualisations"
FRONT = "tiny-imagenet"  # the study whose strip is on the book's first page
COLUMNS = 16  # pictures in a row of a sheet
QUALITY = 45
GAP = 4  # between pictures of a strip, in pixels
N_IMAGES = 512  # held-out images that a visualisation's likeness is to


def sheet(pixels: UInt8[Tensor, "n 3 h w"], quality: int = QUALITY) -> bytes:
    """The images, COLUMNS in a row, as one AVIF file."""
    file = io.BytesIO()
    picture = to_pil_image(make_grid(pixels.cpu(), nrow=COLUMNS, padding=0))
    picture.save(file, "AVIF", quality=quality, speed=4)
    return file.getvalue()


def _facts(entry: NetworkEntry, study: str) -> Path:
    return FOLDER / study / f"{entry.name}.json"


def numbers(study: Study, entry: NetworkEntry) -> dict[str, dict[str, list[float | None]]]:
    """{layer: {metric: a value per unit}} of the sheets of a network; empty without current ones.

    Sheets are current if they were drawn from the weights that are here.

    Raises:
        UserError: The file is damaged.
    """
    path = _facts(entry, study.name)
    if not path.is_file():
        return {}
    with reading(path, "the record of a network's visualisations", "run `robustbias visualise`"):
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        drawn, layers = facts["weights"], facts["layers"]
    return layers if drawn == study.network_named(entry.name).weights_hash else {}


def drawn(study: Study) -> Iterator[Path]:
    """Draws the sheets of the study's pairs that are missing or of other weights; their files."""
    images = held_out_sample(study, N_IMAGES, torch.Generator().manual_seed(study.seed))
    for entry in explored(study):
        if numbers(study, entry):
            continue
        network = study.network_named(entry.name)
        natural = visualisation.spatial_means(network, images.pixels)
        layers = {}
        for layer in network.layers:
            units = torch.arange(natural[layer].shape[1])
            pixels, values = visualisation.pictured(network, layer, units, natural, study.seed)
            path = FOLDER / study.name / f"{entry.name}-{layer}.avif"
            with atomic(path) as partial:
                partial.write_bytes(sheet((pixels * 255).round().to(torch.uint8)))
            layers[layer] = {name: _rounded(value) for name, value in values.items()}
            yield path
        with atomic(_facts(entry, study.name)) as partial:
            facts = {"weights": network.weights_hash, "layers": layers}
            partial.write_text(json.dumps(facts, separators=(",", ":")) + "\n", encoding="utf-8")
        yield _facts(entry, study.name)


def strip(study: Study, architecture: str, n: int = 12) -> Path:
    """A picture of the first n units of the deepest probed layer but one, S above R."""
    rows = []
    for regime in ("standard", "robust"):
        network = study.network_named(pair_of(study, architecture)[regime].name)
        network.requires_grad_(False)
        draw = {"generator": torch.Generator().manual_seed(study.seed), "bfloat16": True}
        units = torch.arange(n)
        rows.append(visualisation.visualisations(network, network.layers[-2], units, **draw))
    picture = make_grid(torch.cat(rows).cpu(), nrow=n, padding=GAP, pad_value=1.0)
    path = FOLDER / f"{study.name}.png"
    with atomic(path) as partial:
        to_pil_image(picture).save(partial, optimize=True)
    return path


def _rounded(values: Tensor) -> list[float | None]:
    """Three decimals; None for a value that is not finite, which JSON has no word for."""
    return [round(v, 3) if math.isfinite(v) else None for v in values.cpu().double().tolist()]
