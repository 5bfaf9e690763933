"""Small pictures for pages: one sheet of images, activation maps, outlines, histograms.

Many units share their images, so a page holds every image once, in one sheet, and shows parts of
it. Outlines and histograms are lines (SVG), sharp at every size and a few hundred bytes each.
"""

import base64
import io
import math
from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from contourpy import contour_generator
from jaxtyping import Float, Int64, UInt8
from matplotlib import colormaps
from PIL import Image
from torch import Tensor

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
