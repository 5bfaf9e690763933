"""What the explorer's page reads: an index of a study, one part per layer, one sheet of images.

A page without a kernel gets them as files, written when the book is staged. They are scripts that
call one function with JSON, since a page opened from a folder may load scripts but not fetch data.
Until then they travel in the executed notebook, as a record. A page with a kernel asks for the same
parts one by one.
"""

import base64
import io
import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from contourpy import contour_generator
from jaxtyping import Float, Int64
from torch import Tensor
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from robustbias.claims import matching
from robustbias.manifest import NetworkEntry
from robustbias.plotting import class_name
from robustbias.unit_explorer import sprites
from robustbias.unit_explorer.data import TopImages, UnitData
from robustbias.unit_explorer.units import NO_CONCEPT, RESULTS
from robustbias.utils import EXPLORER, architecture

SIDES = {"s": "standard", "r": "robust"}
QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.95, 0.995, 1.0)  # of a unit's peaks over images
LOWER = (0.75, 0.5, 0.25)  # quantiles whose images stand next to the top ones
CANVAS = 128  # units of an outline's coordinates along one side of its image
MANY = 16  # points of an outline, above which every second is left out
SIDE = 8  # of an activation map on the page
COLUMNS = 40  # images in a row of the sheet of natural images

# what is measured of a visualisation: title, tooltip, decimals
PICTURED = {
    "tv_normalised": (
        "TV of picture", "total variation over contrast of the image that excites it most "
        "(gradient ascent); lower is smoother", 2,
    ),
    "high_frequency_share": (
        "high frequencies", "share of that image's energy above 0.25 cycles per pixel; "
        "lower is smoother", 2,
    ),
    "likeness": (
        "likeness", "cosine of the activations, layer by layer, of that image and of natural "
        "images that excite the unit; a random image has 0", 2,
    ),
    "likeness_of_image": (
        "likeness of an image", "the same for the natural image that excites it most", 2,
    ),
}  # fmt: skip
OTHERS = {
    "iou": ("IoU", "overlap of its region with the pixels of its best concept, 0 to 1", 3),
    "shape_minus_texture": (
        "shape − texture", "shape score minus texture score; positive: shape needs it more", 0,
    ),
    "clean_peak": ("peak, clean", "mean over images of its largest activation", 2),
    "attacked_peak": ("peak, attacked", "the same under attack at the study's radius", 2),
}  # fmt: skip


def index(data: UnitData, *, show_images: bool = True) -> dict[str, Any]:
    """What a page needs before a layer is chosen: networks, layers, concepts, meanings, a start."""
    concepts = [(name, category) for category, name in data.images.concepts]
    facts = {r.column: (r.title, r.about, r.digits) for r in RESULTS if r.column in data.table}
    facts |= {k: v for k, v in OTHERS.items() if k in data.table or data.attacked is not None}
    facts |= {f"picture_{name}": about for name, about in PICTURED.items()}
    architectures = {}
    for a, pair in data.pairs.items():
        layers = []
        for layer in data.shared_layers(a):
            tables = {s: data.layer(pair[r].name, layer) for s, r in SIDES.items()}
            layers.append(
                {
                    "id": layer,
                    "n": {s: len(table) for s, table in tables.items()},
                    "detects": {
                        s: table["detects"].value_counts().to_dict() for s, table in tables.items()
                    },
                }
            )
        networks = {s: pair[r].name for s, r in SIDES.items()}
        drawn = {s: list(sprites.numbers(data.study, pair[r])) for s, r in SIDES.items()}
        architectures[a] = {
            "title": architecture(a), "networks": networks, "layers": layers, "drawn": drawn,
        }  # fmt: skip
    threat, words = data.study.entry.threat, data.descriptions if show_images else []
    return {
        "study": data.study.name,
        "title": data.study.entry.title,
        "images": show_images,
        "image": {"columns": COLUMNS, "n": len(data.images), "words": words},
        "picture": {"columns": sprites.COLUMNS},
        "threat": {"norm": threat.norm.upper(), "eps": threat.eps},
        "categories": [*data.images.categories, NO_CONCEPT],
        "concepts": [(class_name(name), category) for name, category in concepts],
        "facts": facts,
        "architectures": architectures,
        "detectors": _detectors(data.table, concepts),
        "start": _start(data),
    }


def _detectors(
    units: pd.DataFrame, concepts: list[tuple[str, str]]
) -> dict[str, list[tuple[str, str, int, int]]]:
    """Place of a concept -> (architecture, layer, S detectors, R detectors), if there are any."""
    units = units[units["detector"]]
    if units.empty:
        return {}
    keys = ["concept", "category", "architecture", "layer", "regime"]
    counts = units.groupby(keys, sort=False).size().unstack(fill_value=0)
    counts = counts.reindex(columns=list(SIDES.values()), fill_value=0)
    detectors: dict[str, list] = {}
    for (concept, category, *where), n in zip(counts.index, counts.to_numpy(), strict=True):
        key = str(concepts.index((concept, category)))
        detectors.setdefault(key, []).append((*where, *n.tolist()))
    return detectors


def _start(data: UnitData) -> dict[str, Any]:
    """The unit a page opens on: R's detector with the highest IoU in the deepest layer but one.

    The S unit next to it is the one with the highest IoU for the same concept, if there is any.
    """
    a = "googlenet" if "googlenet" in data.pairs else next(iter(data.pairs))
    layer = data.shared_layers(a)[-2:][0]
    s, r = (data.layer(data.pairs[a][SIDES[side]].name, layer) for side in SIDES)
    best = r.loc[r["iou"].idxmax()]
    same = s[s["concept"] == best["concept"]]
    other = (same if len(same) else s)["iou"].idxmax()
    return {"a": a, "l": layer, "s": int(s.loc[other, "unit"]), "r": int(best["unit"])}


def layer(
    data: UnitData, architecture: str, layer: str, *, show_images: bool = True
) -> dict[str, Any]:
    """All units of a layer of S and R: a list per quantity, in the order of the units."""
    return {
        s: _side(data, data.pairs[architecture][regime], layer, show_images)
        for s, regime in SIDES.items()
    }


def _side(data: UnitData, entry: NetworkEntry, layer: str, show_images: bool) -> dict[str, Any]:
    table = data.layer(entry.name, layer).sort_values("unit").reset_index(drop=True)
    top = data.top_images(entry.name)[layer]
    place = {(name, category): i for i, (category, name) in enumerate(data.images.concepts)}
    rows = matching(data.concepts, network=entry.name, layer=layer)
    best: dict[int, list] = {}
    for row in rows.itertuples():
        at = place[row.concept, row.category]
        best.setdefault(row.unit, []).append([at, round(row.iou, 3), round(row.null, 3)])
    facts = {
        name: _rounded(table[name], digits)
        for name, digits in [
            *((r.column, r.digits) for r in RESULTS),
            ("iou", 3),
            ("shape_minus_texture", 0),
        ]
        if name in table and table[name].notna().any()
    }
    for name, values in sprites.numbers(data.study, entry).get(layer, {}).items():
        facts[f"picture_{name}"] = values
    if data.attacked is not None:
        peaks = matching(data.attacked, network=entry.name, layer=layer).sort_values("unit")
        for condition, part in peaks.groupby("condition"):
            facts[f"{condition}_peak"] = _rounded(part["value"], 2)
    quantiles = torch.quantile(top.peaks.double(), torch.tensor(QUANTILES).double(), dim=1).T
    side = {
        "n": len(table),
        "detects": table["detects"].tolist(),
        "best": [best[unit] for unit in table["unit"].tolist()],
        "facts": facts,
        "quantiles": [[_short(v) for v in row] for row in quantiles.tolist()],
        "histogram": [_heights(top, unit) for unit in range(len(table))],
    }
    if "n_decisions" in table:
        side["decisions"] = int(table["n_decisions"].max())
    if data.reads is not None:
        side |= _reads(data.reads, entry.name, layer)
    if (weights := data.colour_filters(entry, layer)) is not None:
        side["filters"] = _filters(weights)
    if show_images:  # a map may be as good as the image
        ranked = top.peaks.argsort(dim=1)
        at = [round(q * (top.peaks.shape[1] - 1)) for q in LOWER]
        thresholds = table["threshold"].tolist()
        side |= {
            "top": top.images.tolist(),
            "lower": ranked[:, at].tolist(),
            "maps": [_map(maps) for maps in top.maps],
            "outlines": [
                [outline(map, float(threshold)) for map in maps]
                for maps, threshold in zip(top.maps, thresholds, strict=True)
            ],
        }
    return side


def _rounded(values: pd.Series, digits: int) -> list[float | int | None]:
    kept = (None if not math.isfinite(v) else round(v, digits) for v in values.tolist())
    return [v if digits or v is None else int(v) for v in kept]


def _short(value: float) -> float:
    """Three significant digits."""
    return float(f"{value:.3g}")


def _heights(top: TopImages, unit: int) -> str:
    """A digit 0 to z per bin: square roots of the counts, so that a single image is visible."""
    counts, low, high = top.histogram(unit)
    if high <= low:
        return ""
    tall = (counts.double().sqrt() / counts.max().double().sqrt() * 35).ceil().int().tolist()
    return "".join(np.base_repr(value, 36).lower() for value in tall)


def _map(maps: Float[Tensor, "m a b"]) -> str:
    """SIDE x SIDE hexadecimal digits per map, f at the largest activation of all maps."""
    small = F.adaptive_avg_pool2d(maps[:, None], min(SIDE, maps.shape[1]))
    large = F.interpolate(small, (SIDE, SIDE), mode="nearest")[:, 0].clamp_min(0)
    level = (large / large.max().clamp_min(1e-12) * 15).round().int().flatten().tolist()
    return "".join(f"{value:x}" for value in level)


def _reads(table: pd.DataFrame, network: str, layer: str) -> dict[str, Any]:
    rows = matching(table, network=network, layer=layer)
    if rows.empty:
        return {}
    rows = rows.sort_values(["unit", "place"])
    pairs = [[int(b), _short(v)] for b, v in zip(rows["below"], rows["value"], strict=True)]
    n = int(rows["place"].max()) + 1
    parts = [pairs[i : i + n] for i in range(0, len(pairs), n)]
    return {"below": rows["layer_below"].iloc[0], "reads": parts}


def outline(map: Float[Tensor, "a b"], threshold: float, side: int = 32) -> str:
    """An SVG path around the pixels whose bilinearly enlarged activation exceeds the threshold.

    Empty when none does.
    """
    large = F.interpolate(map[None, None], (side, side), mode="bilinear")[0, 0]
    if not bool((large > threshold).any()):
        return ""
    # a lower ring around the map closes outlines that would end at the border
    ring = F.pad(large[None, None], (1, 1, 1, 1), value=min(threshold, 0.0) - 1e-3)[0, 0]
    lines = contour_generator(z=ring.cpu().numpy()).lines(threshold)
    points = [(line.clip(0.5, side + 0.5) - 0.5) * CANVAS / side for line in lines]
    return "".join(_path(np.round(line).astype(np.int64)) for line in points)


def _path(points: Int64[np.ndarray, "k 2"]) -> str:
    """A closed SVG path in relative steps, without zero steps; empty for a single point."""
    if len(points) > MANY:  # a smooth outline looks the same with half its points
        points = np.concatenate([points[:-1:2], points[-1:]])
    steps = np.diff(points, axis=0)
    steps = steps[(steps != 0).any(1)][:-1]
    if not len(steps):
        return ""
    text = " ".join(f"{x} {y}" for x, y in steps)
    return f"M{points[0, 0]} {points[0, 1]}l{text}z".replace(" -", "-")


def data_uri(content: bytes, format: str) -> str:
    """The content of an image file as a data URI."""
    return f"data:image/{format.lower()};base64,{base64.b64encode(content).decode()}"


def _filters(weights: Float[Tensor, "u 3 a b"]) -> str:
    """Data URI of all filters, as many in a row as visualisations; mid-grey where a weight is 0."""
    scaled = 0.5 + 0.5 * weights / weights.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12)
    return data_uri(encoded(make_grid(scaled.cpu(), sprites.COLUMNS, padding=0), "PNG"), "PNG")


def encoded(pixels: Float[Tensor, "3 h w"], format: str, **options: Any) -> bytes:
    """An image in [0, 1] as the content of a file."""
    file = io.BytesIO()
    level = (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
    to_pil_image(level.cpu()).save(file, format, **options)
    return file.getvalue()


def images(data: UnitData, format: str = "AVIF", quality: int = 55) -> bytes:
    """All images that were presented to units, COLUMNS in a row, as one file."""
    picture = make_grid(data.images.pixels.cpu(), nrow=COLUMNS, padding=0)
    file = io.BytesIO()
    to_pil_image(picture).save(file, format, quality=quality)
    return file.getvalue()


class Page:
    """The explorer in a page. A notebook keeps all its data as a record."""

    def __init__(self, data: UnitData, *, show_images: bool = True):
        self.record = {
            "index": index(data, show_images=show_images),
            "layers": {
                f"{a}/{name}": layer(data, a, name, show_images=show_images)
                for a in data.pairs
                for name in data.shared_layers(a)
            },
        }
        if show_images:
            self.record["images"] = base64.b64encode(images(data)).decode()

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        study = self.record["index"]["study"]
        return {
            "text/plain": "the unit explorer; it appears in the rendered page",
            "text/html": (
                f"<div class=unit-explorer data-explorer={study} data-root=../_static/></div>"
                "<link rel=stylesheet href=../_static/explorer.css>"
                "<script src=../_static/explorer.js></script>"
                f"<script src=../_static/explorer/{study}/index.js></script>"
            ),
            EXPLORER: packed(self.record),
        }


def packed(record: dict[str, Any]) -> str:
    """A record as one line, compressed: a notebook would put every number on its own line."""
    return base64.b64encode(zlib.compress(_json(record).encode(), 9)).decode()


def unpacked(text: str) -> dict[str, Any]:
    """The record that `packed` made a line of."""
    return json.loads(zlib.decompress(base64.b64decode(text)))


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def written(record: dict[str, Any], folder: Path) -> None:
    """The files of a page in `folder`, from the record of its notebook."""
    study = record["index"]["study"]
    folder.mkdir(parents=True, exist_ok=True)
    _script(folder / "index.js", "index", study, record["index"])
    for key, part in record["layers"].items():
        _script(folder / f"{key}.js", "layer", f"{study}/{key}", part)
    if "images" in record:
        (folder / "images.avif").write_bytes(base64.b64decode(record["images"]))


def _script(path: Path, function: str, name: str, value: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"unitExplorer.{function}({_json(name)},{_json(value)});\n", encoding="utf-8")
