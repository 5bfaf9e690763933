"""Concepts of photographs with one object box each: object, colour, and textures of our own.

The box's pixels are the object, so the mask holds some background too. Colours are named by
pixel. Textures are procedural swatches, since nobody has labelled those of the photographs.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Int64
from torch import Tensor

from robustbias import files
from robustbias.errors import MissingData, UserError
from robustbias.images import Images, colours, floats, swatches, textures
from robustbias.images.concepts import Concepts

# The boxes are not in the digest of the images that tables are kept under, hence pinned here.
BOXES_SHA256 = "c37765a8b40fce4f28962bf1847a2537e2781753974cbb2447eeb50ff31130a2"


def concepts(
    photographs: Images,
    boxes: Int64[Tensor, "n 4"],
    names: tuple[str, ...],
    fills: int,
    generator: torch.Generator,
) -> Concepts:
    """Photographs, then `fills` swatches; masks have half the images' side.

    Object labels are carried by the photographs, textures by the swatches, colours by both.

    Args:
        boxes: Left, top, right, bottom in pixels, all of them inside the object.
        names: The word for each class of the photographs.
    """
    n, side = len(photographs), photographs.pixels.shape[-1]
    filled, family = swatches.swatches(fills, side, generator)
    pixels = torch.cat([photographs.pixels, filled])
    half = F.avg_pool2d(floats(pixels), 2)
    place = torch.arange(0, side, 2) + 0.5  # where the centre of a mask's pixel lies
    left, top, right, bottom = boxes.T[:, :, None]
    wide, tall = (place >= left) & (place <= right + 1), (place >= top) & (place <= bottom + 1)
    inside = tall[:, :, None] & wide[:, None]
    objects = torch.zeros(n + fills, 1, side // 2, side // 2, dtype=torch.uint8)
    objects[:n, 0] = inside * (photographs.labels + 1)[:, None, None]
    texture = torch.cat([torch.zeros(n, dtype=torch.long), family + 1]).to(torch.uint8)
    photo = torch.arange(n + fills) < n
    return Concepts(
        pixels,
        {
            "object": objects,
            "texture": texture[:, None, None, None],
            "color": colours.named(half)[:, None],
        },
        {
            "object": names,
            "texture": tuple(textures.FAMILIES),
            "color": tuple(colours.SHADES),
        },
        {"object": photo, "texture": ~photo, "color": torch.ones_like(photo)},
    )


def boxes(folder: Path, images: Images) -> Int64[Tensor, "n 4"]:
    """Box of each validation image of Tiny-ImageNet, from val_annotations.txt in its folder.

    Raises:
        MissingData: No such file; parquet copies of the data set leave it out.
        UserError: Another file than the published one.
    """
    places = (folder / sub / "val_annotations.txt" for sub in ("", "val", "tiny-imagenet-200/val"))
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise MissingData(
            f"no val_annotations.txt in {folder}, which holds the object boxes; copy it there from "
            "val/ of tiny-imagenet-200.zip (`robustbias fetch tiny-imagenet` gets the zip)."
        )
    if files.sha256(path) != BOXES_SHA256:
        raise UserError(
            f"{path} is not the published annotation file (sha256 {BOXES_SHA256[:12]}...); take "
            "the one of tiny-imagenet-200.zip."
        )
    rows = (line.split("\t") for line in path.read_text().splitlines())
    known = {name: [int(edge) for edge in box] for name, _, *box in rows}
    if absent := [name for name in images.names if name not in known]:
        raise UserError(f"{path} has no box of {absent[0]} ({len(absent)} images without one).")
    return torch.tensor([known[name] for name in images.names])
