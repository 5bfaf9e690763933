"""One unit as a piece of a page: what excites it, what it detects, how smooth, what it serves."""

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

from robustbias.unit_explorer.data import Sights
from robustbias.unit_explorer.units import FACTS
from robustbias.utils import REGIMES

# -- --------------------------------------------------------------------------------------------
# Small pictures for pages: one sheet of images, activation maps, outlines, histograms.
#
# Many units share their images, so a page holds every image once, in one sheet, and shows parts of
# it. Outlines and histograms are lines (SVG), sharp at every size and a few hundred bytes each.


CANVAS = 128  # units of an outline's coordinates along one side of its image


MANY = 16  # points of an outline, above which every second is left out


LEVELS = 16  # colours of an activation map


def data_uri(image: Image.Image, format: str, **options: object) -> str:
    """The picture as an address that holds the picture itself."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return f"data:image/{format.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


class Sheet:
    """Images laid out in one picture, and where each of them lies.

    Args:
        pixels: The images that may be asked for.
        index: Those that are in the sheet.
        shown: False leaves the images out: tiles are then blank.
    """

    def __init__(self, pixels: UInt8[Tensor, "n 3 h w"], index: Iterable[int], shown: bool = True):
        index = sorted(set(index))
        self.columns = max(1, math.ceil(math.sqrt(len(index))))
        self.rows = max(1, math.ceil(len(index) / self.columns))
        self.shown, self._slot = shown, {image: slot for slot, image in enumerate(index)}
        self._tiles = pixels[torch.tensor(index, dtype=torch.long)].cpu()

    def style(self, image: int) -> str:
        """CSS that makes an element show one image of the sheet."""
        if not self.shown:
            return ""
        row, column = divmod(self._slot[image], self.columns)
        x, y = column / max(1, self.columns - 1), row / max(1, self.rows - 1)
        return f"background-position:{100 * x:.4g}% {100 * y:.4g}%"

    def css(self, quality: int = 65) -> str:
        """The rule that gives the sheet to the tiles of a card."""
        if not self.shown or not self._slot:
            return ""
        n, _, h, w = self._tiles.shape
        sheet = torch.zeros(self.rows * self.columns, 3, h, w, dtype=torch.uint8)
        sheet[:n] = self._tiles
        sheet = sheet.view(self.rows, self.columns, 3, h, w).permute(0, 3, 1, 4, 2)
        picture = Image.fromarray(
            sheet.reshape(self.rows * h, self.columns * w, 3).contiguous().numpy()
        )
        return (
            f".unit-tiles i{{background-image:url({data_uri(picture, 'WEBP', quality=quality)});"
            f"background-size:{100 * self.columns}% {100 * self.rows}%}}"
        )


def outline(map: Float[Tensor, "a b"], threshold: float, side: int = 32) -> str:
    """An SVG path around the pixels whose bilinearly enlarged activation exceeds the threshold.

    Empty where none does.
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
    """A closed path in relative steps, without those of no length; empty for a single point."""
    if len(points) > MANY:  # a smooth outline loses nothing that the eye would see
        points = np.concatenate([points[:-1:2], points[-1:]])
    steps = np.diff(points, axis=0)
    steps = steps[(steps != 0).any(1)][:-1]
    if not len(steps):
        return ""
    text = " ".join(f"{x} {y}" for x, y in steps)
    return f"M{points[0, 0]} {points[0, 1]}l{text}z".replace(" -", "-")


def strip(maps: Float[Tensor, "m a b"], top: float) -> str:
    """Activation maps side by side in one picture, dark at 0 and bright at `top`."""
    m, a, b = maps.shape
    level = (maps.clamp(0, top) / max(top, 1e-12) * (LEVELS - 1)).round().to(torch.uint8)
    picture = Image.fromarray(level.permute(1, 0, 2).reshape(a, m * b).contiguous().numpy())
    picture = picture.convert("P")
    colours = colormaps["viridis"](np.linspace(0, 1, LEVELS))[:, :3] * 255
    picture.putpalette(colours.round().astype(np.uint8).tobytes())
    return data_uri(picture, "PNG", optimize=True, bits=4)


def filter_picture(weights: Float[Tensor, "3 a b"]) -> str:
    """A filter on colours, mid-grey where it is 0."""
    scaled = 0.5 + 0.5 * weights / weights.abs().max().clamp_min(1e-12)
    pixels = (scaled.permute(1, 2, 0) * 255).round().to(torch.uint8).contiguous()
    return data_uri(Image.fromarray(pixels.cpu().numpy()), "PNG", optimize=True)


def picture(pixels: Float[Tensor, "3 h w"]) -> str:
    """One image in [0, 1], without loss."""
    level = (pixels.clamp(0, 1).permute(1, 2, 0) * 255).round().to(torch.uint8)
    return data_uri(Image.fromarray(level.cpu().contiguous().numpy()), "PNG")


def bars(counts: Int64[Tensor, " b"], height: int) -> str:
    """An SVG path of a histogram, bins 4 wide; roots of the counts, so that one image shows."""
    tall = (counts.double().sqrt() / max(1.0, float(counts.max())) ** 0.5 * height).round().int()
    tall = torch.where(counts > 0, tall.clamp_min(1), 0).tolist()
    level, path = 0, f"M0 {height}"
    for value in tall:
        path += (f"v{level - value}" if value != level else "") + "h4"
        level = value
    return f"{path}V{height}z"


LETTERS = {regime: REGIMES[regime][0] for regime in ("standard", "robust")}


def card(
    unit: pd.Series,
    *,
    name: str,
    regime: str,
    of: int,
    seen: Sights,
    sheet: Sheet,
    ious: pd.DataFrame,
    words: Iterable[str],
    filter: object = None,
) -> str:
    """HTML of one unit.

    Args:
        unit: A row of `units.joined`.
        name: Under which a link finds it.
        regime: Of its network.
        of: How many units its layer has.
        ious: Its concepts with the highest IoU: category, concept, iou, null.
        words: For each image of `seen`, what is on it, for those who cannot see it.
        filter: Its weights (3 a b) where it looks at the image itself.
    """
    number = int(unit["unit"])
    title = f"{LETTERS[regime]}, unit {number}"
    parts = [
        f"<section class='unit unit-{regime}' data-unit='{name}' aria-label='{title}'>",
        f"<h3>{REGIMES[regime]} <b>unit {number}</b> <small>of {of}</small> ",
        f"<a class='unit-link' href='#unit-{name}' aria-label='link to {title}'>#</a></h3>",
        _label(unit),
        _sights(unit, seen, sheet, list(words)),
        _bars(ious),
        _facts(unit),
        f"<div class=unit-foot>{_filter(filter)}{_histogram(unit, seen)}</div>",
        "</section>",
    ]
    return "".join(parts)


def none(regime: str, what: str) -> str:
    """A card in place of a unit that is not there."""
    return (
        f"<section class='unit unit-{regime} unit-none'><h3>{REGIMES[regime]}</h3>"
        f"<p>{html.escape(what)}</p></section>"
    )


def _label(unit: pd.Series) -> str:
    if not unit["detector"]:
        return "<p class='unit-label'>detects no concept</p>"
    return (
        f"<p class='unit-label'>detects <b>{html.escape(str(unit['concept']))}</b> "
        f"<small>({html.escape(str(unit['category']))})</small></p>"
    )


def _sights(row: pd.Series, seen: Sights, sheet: Sheet, words: list[str]) -> str:
    unit = int(row["unit"])
    top = float(seen.maps[unit].max())
    if top <= 0:
        return "<p>Silent on every image.</p>"
    threshold = float(row["threshold"])
    tiles = []
    for image, map in zip(seen.images[unit].tolist(), seen.maps[unit], strict=True):
        path = outline(map, threshold)
        tiles.append(
            f"<i style='{sheet.style(image)}'>"
            f"<svg viewBox='0 0 {CANVAS} {CANVAS}'><path d='{path}'/></svg></i>"
        )
    alt = html.escape("; ".join(words), quote=True)
    found = (
        f"<div class=unit-tiles role=img aria-label='Its top images, its region outlined: {alt}'>"
        f"{''.join(tiles)}</div>"
    )
    if sheet.shown:  # a map of a first layer is nearly the image itself
        source = strip(seen.maps[unit], top)
        found += f"<img class=unit-maps src='{source}' alt='its activation maps of these images'>"
    return found


def _bars(ious: pd.DataFrame) -> str:
    scale = max(0.05, float(ious["iou"].max())) if len(ious) else 1.0
    rows = "".join(
        f"<tr><th>{html.escape(row.concept)} <small>{html.escape(row.category)}</small></th>"
        f"<td><i style=width:{100 * row.iou / scale:.0f}%></i>"
        f"<b style=left:{100 * min(1.0, row.null / scale):.0f}%></b></td>"
        f"<td>{row.iou:.3f}</td></tr>"
        for row in ious.itertuples()
    )
    return (
        "<table class=unit-ious><caption>IoU with concepts "
        f"<small>(line: by chance)</small></caption>{rows}</table>"
    )


def _facts(unit: pd.Series) -> str:
    rows = []
    for fact in FACTS:
        if fact.title and fact.column in unit and pd.notna(unit[fact.column]):
            text = fact.form(unit[fact.column])
            if fact.measure == "ablation":
                text += f"/{unit['n_decisions']:.0f}"
            rows.append(f"<dt>{fact.title}</dt><dd data-fact={fact.column}>{text}</dd>")
    return f"<dl class=unit-facts>{''.join(rows)}</dl>" if rows else ""


def _histogram(row: pd.Series, seen: Sights) -> str:
    counts, low, high = seen.histogram(int(row["unit"]))
    if high <= low:
        return ""
    width, threshold = 4 * len(counts), float(row["threshold"])
    at = width * (threshold - low) / (high - low)
    n = seen.peaks.shape[1]
    return (
        f"<svg class=unit-histogram viewBox='0 0 {width} 25' role=img aria-label='Histogram of the "
        f"strongest activation in each of {n} images, from {low:.2g} to {high:.2g}; threshold "
        f"{threshold:.2g}'><path d='{bars(counts, 20)}'/>"
        f"<path class=unit-threshold d='M{at:.1f} 0V20'/><text x=0 y=24>{low:.2g}</text>"
        f"<text x={width} y=24 text-anchor=end>{high:.2g}</text><text x={width / 2:g} y=24 "
        f"text-anchor=middle>strongest activation in {n} images</text></svg>"
    )


def _filter(weights: object) -> str:
    if weights is None:
        return ""
    return f"<img class=unit-filter src='{filter_picture(weights)}' alt='its filter on colours'>"
