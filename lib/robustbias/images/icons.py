"""The bank of object drawings as masks: icon glyphs, and a few drawings made for this project.

`data_manifest/designs.toml` says which drawing stands for which category and which are held out.
"""

import dataclasses
import functools
import importlib.util
import re
import tomllib
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from robustbias import manifest, utils
from robustbias.utils import MissingData, UserError

SIDE = 96  # pixels of a stored mask; images of 64 pixels sample it at about 1.2 per pixel
_DARK = 60  # of 255; OpenMoji draws its inner lines in black, which are cut out of the mask


@dataclasses.dataclass(frozen=True)
class Designs:
    """Masks of all designs (0 background .. 255 object), their category, and the split."""

    masks: UInt8[Tensor, "g side side"]
    category: Int64[Tensor, " g"]
    held_out: tuple[bool, ...]
    names: tuple[str, ...]
    categories: tuple[str, ...]
    digest: str

    def of_split(self, held_out: bool) -> Int64[Tensor, " m"]:
        """Indices of the designs of one split."""
        return torch.tensor([i for i, held in enumerate(self.held_out) if held == held_out])


def signed_distances(masks: UInt8[Tensor, "g h w"]) -> Float[Tensor, "g h w"]:
    """Distance in pixels to the nearest pixel of the other kind: positive inside, at most 12.

    Averages of two such maps pass smoothly from one drawing to the other, and adding a constant
    makes strokes bolder; neither is true of the masks. Exact Euclidean distances, one axis at a
    time: min over x' of ((x - x')^2 + min over y' of (y - y')^2).
    """
    line = torch.arange(masks.shape[-1], dtype=torch.float32)
    square = (line[:, None] - line[None]) ** 2

    def to(kind: Tensor) -> Tensor:
        far = torch.where(kind, 0.0, 1e6)
        rows = (far[:, None, :, :] + square[None, :, :, None]).amin(2)
        return (rows[:, :, None, :] + square[None, None]).amin(3).sqrt()

    inside = masks > 127
    # half a pixel: the outline runs between the last pixel inside and the first one outside
    parts = [to(~i) - to(i) - torch.where(i, 0.5, -0.5) for i in inside.split(16)]
    return torch.cat(parts).clamp(-12, 12)


@functools.cache
def load() -> Designs:
    """The designs of `data_manifest/designs.toml`.

    Raises:
        MissingData: A wheel with one of the fonts is not installed.
        UserError: A font is not the pinned one, or has no such glyph.
    """
    path = manifest.ROOT / "data_manifest" / "designs.toml"
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    fonts = {name: _font(name, entry) for name, entry in table["font"].items()}
    masks, category, held_out, names = [], [], [], []
    for index, (name, split) in enumerate(sorted(table["category"].items())):
        for key in ("train", "held_out"):
            for design in split[key]:
                masks.append(_mask(design, fonts, table["drawing"]))
                category.append(index)
                held_out.append(key == "held_out")
                names.append(f"{name}: {design}")
    return Designs(
        masks=torch.from_numpy(np.stack(masks)),
        category=torch.tensor(category),
        held_out=tuple(held_out),
        names=tuple(names),
        categories=tuple(sorted(table["category"])),
        digest=utils.sha256(path),
    )


def _font(name: str, entry: dict[str, str]) -> ImageFont.FreeTypeFont:
    spec = importlib.util.find_spec(entry["package"])  # not imported: qtawesome needs Qt
    if spec is None or not spec.submodule_search_locations:
        raise MissingData(
            f"the icon font {name!r} comes with the package {entry['package']!r}, which is not "
            "installed; run `make setup` (or pip install -r requirements.txt)."
        )
    path = Path(spec.submodule_search_locations[0]) / entry["file"]
    if not path.is_file() or utils.sha256(path) != entry["sha256"]:
        raise UserError(
            f"{path} is not the font that designs.toml pins; install the versions of "
            "requirements.txt, or the drawings would differ from the published ones."
        )
    return ImageFont.truetype(str(path), 2 * SIDE)


def _mask(design: str, fonts: dict, drawings: dict[str, list[str]]) -> np.ndarray:
    """One design, cropped to its ink, centred on a square with a margin of 9 %."""
    font, code, *_ = design.split()
    ink = _drawn(drawings[code]) if font == "drawn" else _glyph(fonts[font], int(code, 16))
    box = ink.getbbox()
    if box is None:
        raise UserError(f"design {design!r} draws nothing; correct data_manifest/designs.toml.")
    ink = ink.crop(box)
    scale = 0.82 * SIDE / max(ink.size)
    ink = ink.resize([max(1, round(side * scale)) for side in ink.size], Image.Resampling.BOX)
    square = Image.new("L", (SIDE, SIDE))
    square.paste(ink, ((SIDE - ink.width) // 2, (SIDE - ink.height) // 2))
    return np.asarray(square)


def _glyph(font: ImageFont.FreeTypeFont, codepoint: int) -> Image.Image:
    size = round(font.size)
    canvas = Image.new("RGBA", (2 * size, 2 * size))
    pen = ImageDraw.Draw(canvas)
    # drawn in a bright colour, so that what is dark afterwards is a line of the colour font
    position, bright = (size // 3, size // 3), (255, 0, 255, 255)
    pen.text(position, chr(codepoint), font=font, fill=bright, embedded_color=True)
    pixels = np.asarray(canvas)
    line = pixels[..., :3].max(-1) < _DARK
    return Image.fromarray(np.where(line, 0, pixels[..., 3]).astype(np.uint8))


def _drawn(strokes: list[str]) -> Image.Image:
    """A drawing from its strokes: `+` adds and `-` cuts an ellipse (centre, radii), a rectangle
    (two corners) or a polygon (corners), in hundredths of the square's side."""
    scale = 2 * SIDE / 100
    canvas = Image.new("L", (2 * SIDE, 2 * SIDE))
    pen = ImageDraw.Draw(canvas)
    for stroke in strokes:
        if not re.fullmatch(r"[+-] (ellipse|rectangle|polygon)( \d+)+", stroke):
            raise UserError(f"stroke {stroke!r} is not '+|- ellipse|rectangle|polygon NUMBERS'.")
        sign, shape, *numbers = stroke.split()
        at = [float(number) * scale for number in numbers]
        if shape == "ellipse":
            x, y, rx, ry = at
            at = [x - rx, y - ry, x + rx, y + ry]
        getattr(pen, shape)(at, fill=255 if sign == "+" else 0)
    return canvas
