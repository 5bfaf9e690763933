"""A visitor's own image: checked, then cut to the square a network sees.

Dimensions are read from the header and checked before anything is decoded, so that a small file
that unpacks to gigabytes costs nothing.
"""

import io
import warnings

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from robustbias.errors import UserError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAX_BYTES = 10 * 2**20
MAX_PIXELS = 24_000_000  # what a good phone takes
MIN_SIDE = 16
GROUND = (128, 128, 128)  # what shows through where an image is transparent


def square(content: bytes, name: str, side: int) -> UInt8[Tensor, "3 side side"]:
    """The middle of an image, turned as its camera said, without transparency, `side` wide.

    Greyscale, palette, CMYK and 16-bit images become RGB; of an animation the first frame counts.

    Args:
        content: The file as it was uploaded.
        name: Its name, for the message.

    Raises:
        UserError: Not an image of FORMATS, damaged, too large or too small.
    """
    if len(content) > MAX_BYTES:
        raise UserError(
            f"{name} has {len(content) / 2**20:.0f} MB; expected at most {MAX_BYTES / 2**20:.0f}. "
            "Save it smaller and try again."
        )
    try:
        with warnings.catch_warnings():
            # pillow warns of far larger images than are taken here
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError:
        raise UserError(_too_large(name)) from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        known = ", ".join(FORMATS[:-1])
        raise UserError(
            f"{name} is not an image that can be read here; expected {known} or {FORMATS[-1]}."
        ) from None
    if image.width * image.height > MAX_PIXELS:
        raise UserError(_too_large(name, f"{image.width} x {image.height} pixels"))
    if min(image.size) < MIN_SIDE:
        raise UserError(
            f"{name} is {image.width} x {image.height} pixels; expected {MIN_SIDE} or more a side."
        )
    try:
        image.draft("RGB", (2 * side, 2 * side))  # a large JPEG is decoded at a fraction
        image = ImageOps.exif_transpose(image)
        image = ImageOps.fit(_rgb(image), (side, side), Image.Resampling.BICUBIC)
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UserError(f"{name} is damaged ({error}); save it again and retry.") from error
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _too_large(name: str, size: str = "far too many pixels") -> str:
    return (
        f"{name} has {size}; expected at most {MAX_PIXELS // 10**6} million. Scale it down "
        "and try again."
    )


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits a pixel, which convert() cuts off
        values = np.asarray(image, dtype=np.float64)
        return Image.fromarray((values / max(values.max(), 1) * 255).astype(np.uint8)).convert(
            "RGB"
        )
    if "A" in image.getbands() or "transparency" in image.info:
        above = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", above.size, GROUND), above).convert("RGB")
    return image.convert("RGB")
