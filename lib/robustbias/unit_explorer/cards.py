"""One unit as HTML: its top images, its concepts, its numbers; outlines and histograms as SVG.

Units share images, so a page holds each image once, in one sheet, and its cards show parts of it.
"""

import base64
import html
import io
import math
from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from contourpy import contour_generator
from jaxtyping import Float, Int64, UInt8
from matplotlib import colormaps
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from robustbias.manifest import ROOT, NetworkEntry
from robustbias.unit_explorer.data import SIDES, TopImages, UnitData
from robustbias.unit_explorer.units import RESULTS
from robustbias.utils import REGIMES

STATIC = ROOT / "book" / "static"
CANVAS = 128  # units of an outline's coordinates along one side of its image
MANY = 16  # points of an outline, above which every second is left out
LEVELS = 16  # colours of an activation map
LETTERS = {regime: REGIMES[regime][0] for regime in SIDES}


def data_uri(image: Image.Image, format: str, **options: object) -> str:
    """The image file as a data URI."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return f"data:image/{format.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


class Sheet:
    """A grid of images as one picture, and the position of each in it.

    Args:
        pixels: Images to choose from.
        index: Indices of the images in the sheet.
        show_images: False leaves the images out: tiles are then blank.
    """

    def __init__(
        self, pixels: UInt8[Tensor, "n 3 h w"], index: Iterable[int], show_images: bool = True
    ):
        index = sorted(set(index))
        self.columns = max(1, math.ceil(math.sqrt(len(index))))
        self.rows = max(1, math.ceil(len(index) / self.columns))
        self.show_images = show_images
        self._slot = {image: slot for slot, image in enumerate(index)}
        self._tiles = pixels[torch.tensor(index, dtype=torch.long)].cpu()

    def style(self, image: int) -> str:
        """CSS that makes an element show one image of the sheet."""
        if not self.show_images:
            return ""
        row, column = divmod(self._slot[image], self.columns)
        x, y = column / max(1, self.columns - 1), row / max(1, self.rows - 1)
        return f"background-position:{100 * x:.4g}% {100 * y:.4g}%"

    def css(self, quality: int = 65) -> str:
        """The CSS rule that makes the sheet the background of a card's tiles."""
        if not self.show_images or not self._slot:
            return ""
        picture = to_pil_image(make_grid(self._tiles, nrow=self.columns, padding=0))
        return (
            f".unit-tiles i{{background-image:url({data_uri(picture, 'WEBP', quality=quality)});"
            f"background-size:{100 * self.columns}% {100 * self.rows}%}}"
        )


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


def map_strip(maps: Float[Tensor, "m a b"], top: float) -> str:
    """Data URI of activation maps side by side, dark at 0 and bright at `top`."""
    level = (maps.clamp(0, top) / max(top, 1e-12) * (LEVELS - 1)).round().to(torch.uint8)
    picture = Image.fromarray(torch.cat(list(level), 1).numpy()).convert("P")
    colours = colormaps["viridis"](np.linspace(0, 1, LEVELS))[:, :3] * 255
    picture.putpalette(colours.round().astype(np.uint8).tobytes())
    return data_uri(picture, "PNG", optimize=True, bits=4)


def picture(pixels: Float[Tensor, "3 h w"], **options: object) -> str:
    """Data URI of one image in [0, 1], without loss."""
    level = (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
    return data_uri(to_pil_image(level.cpu()), "PNG", **options)


def bars(counts: Int64[Tensor, " b"], height: int) -> str:
    """An SVG path of a histogram, bins 4 wide; square roots of the counts, at least 1 high."""
    tall = (counts.double().sqrt() / max(1.0, float(counts.max())) ** 0.5 * height).round().int()
    tall = torch.where(counts > 0, tall.clamp_min(1), 0).tolist()
    level, path = 0, f"M0 {height}"
    for value in tall:
        path += (f"v{level - value}" if value != level else "") + "h4"
        level = value
    return f"{path}V{height}z"


def unit_name(entry: NetworkEntry, layer: str, unit: int) -> str:
    """The unit in a link: `googlenet-r-inception4c-17`."""
    return f"{entry.architecture}-{LETTERS[entry.regime].lower()}-{layer}-{unit}"


def card(data: UnitData, entry: NetworkEntry, layer: str, unit: int, sheet: Sheet) -> str:
    """HTML of one unit; `sheet` has its top images."""
    row = data.unit(entry.name, layer, unit)
    top = data.top_images(entry.name)[layer]
    name, title = unit_name(entry, layer, unit), f"{LETTERS[entry.regime]}, unit {unit}"
    words = [data.descriptions[image] for image in top.images[unit].tolist()]
    weights = data.colour_filter(entry, layer, unit)
    return (
        f"<section class='unit unit-{entry.regime}' data-unit='{name}' aria-label='{title}'>"
        f"<h3>{REGIMES[entry.regime]} <b>unit {unit}</b> "
        f"<small>of {len(data.layer(entry.name, layer))}</small> "
        f"<a class='unit-link' href='#unit-{name}' aria-label='link to {title}'>#</a></h3>"
        f"{_label(row)}{_top_images(row, top, sheet, words)}"
        f"{_ious(data.unit_concepts(entry.name, layer, unit))}{_numbers(row)}"
        f"<div class=unit-foot>{'' if weights is None else _filter(weights)}"
        f"{_histogram(row, top)}</div></section>"
    )


def empty_card(regime: str, text: str) -> str:
    """HTML in place of a unit that does not exist."""
    return (
        f"<section class='unit unit-{regime} unit-none'><h3>{REGIMES[regime]}</h3>"
        f"<p>{html.escape(text)}</p></section>"
    )


def _label(row: pd.Series) -> str:
    if not row["detector"]:
        return "<p class='unit-label'>detects no concept</p>"
    return (
        f"<p class='unit-label'>detects <b>{html.escape(str(row['concept']))}</b> "
        f"<small>({html.escape(str(row['category']))})</small></p>"
    )


def _top_images(row: pd.Series, top: TopImages, sheet: Sheet, words: list[str]) -> str:
    maps, images = top.maps[int(row["unit"])], top.images[int(row["unit"])]
    peak = float(maps.max())
    if peak <= 0:
        return "<p>Silent on every image.</p>"
    tiles = "".join(
        f"<i style='{sheet.style(image)}'><svg viewBox='0 0 {CANVAS} {CANVAS}'>"
        f"<path d='{outline(map, float(row['threshold']))}'/></svg></i>"
        for image, map in zip(images.tolist(), maps, strict=True)
    )
    alt = html.escape("; ".join(words), quote=True)
    tiles = (
        f"<div class=unit-tiles role=img aria-label='Its top images, its region outlined: {alt}'>"
        f"{tiles}</div>"
    )
    if not sheet.show_images:  # a map of a first layer is nearly the image itself
        return tiles
    source, alt = map_strip(maps, peak), "its activation maps of these images"
    return f"{tiles}<img class=unit-maps src='{source}' alt='{alt}'>"


def _ious(concepts: pd.DataFrame) -> str:
    scale = max(0.05, float(concepts["iou"].max())) if len(concepts) else 1.0
    rows = "".join(
        f"<tr><th>{html.escape(row.concept)} <small>{html.escape(row.category)}</small></th>"
        f"<td><i style=width:{100 * row.iou / scale:.0f}%></i>"
        f"<b style=left:{100 * min(1.0, row.null / scale):.0f}%></b></td>"
        f"<td>{row.iou:.3f}</td></tr>"
        for row in concepts.itertuples()
    )
    return (
        "<table class=unit-ious><caption>IoU with concepts "
        f"<small>(line: by chance)</small></caption>{rows}</table>"
    )


def _numbers(row: pd.Series) -> str:
    rows = []
    for result in RESULTS:
        if result.title and result.column in row and pd.notna(row[result.column]):
            text = result.form(row[result.column])
            if result.measure == "ablation":
                text += f"/{row['n_decisions']:.0f}"
            rows.append(f"<dt>{result.title}</dt><dd data-fact={result.column}>{text}</dd>")
    return f"<dl class=unit-facts>{''.join(rows)}</dl>" if rows else ""


def _histogram(row: pd.Series, top: TopImages) -> str:
    counts, low, high = top.histogram(int(row["unit"]))
    if high <= low:
        return ""
    width, threshold = 4 * len(counts), float(row["threshold"])
    at = width * (threshold - low) / (high - low)
    n = top.peaks.shape[1]
    return (
        f"<svg class=unit-histogram viewBox='0 0 {width} 25' role=img aria-label='Histogram of the "
        f"strongest activation in each of {n} images, from {low:.2g} to {high:.2g}; threshold "
        f"{threshold:.2g}'><path d='{bars(counts, 20)}'/>"
        f"<path class=unit-threshold d='M{at:.1f} 0V20'/><text x=0 y=24>{low:.2g}</text>"
        f"<text x={width} y=24 text-anchor=end>{high:.2g}</text><text x={width / 2:g} y=24 "
        f"text-anchor=middle>strongest activation in {n} images</text></svg>"
    )


def _filter(weights: Float[Tensor, "3 a b"]) -> str:
    """A filter as a picture, mid-grey where its weight is 0."""
    scaled = 0.5 + 0.5 * weights / weights.abs().max().clamp_min(1e-12)
    source = picture(scaled, optimize=True)
    return f"<img class=unit-filter src='{source}' alt='its filter on colours'>"
