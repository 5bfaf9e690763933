"""The 15 corruptions of ImageNet-C at 5 severities, batched, on the images' device.

Each is one function (pixels, constants, generator) -> pixels in noise.py, blur.py, weather.py or
digital.py, and its constants are in constants.py. All of them run on the GPU if the
images are there, JPEG included; only photographs of frost are read on the CPU.

What differs from the published images: pixels stay floats between the steps (the published images
were rounded to 8 bits and saved once more as JPEG of quality 85), and `frost` is a stand-in unless
a folder with the published photographs is given.

Source: Hendrycks and Dietterich 2019, arXiv:1903.12261.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from robustbias.images.corruptions import blur, digital, noise, weather
from robustbias.images.corruptions.constants import NAMES, SEVERITIES, TABLES
from robustbias.utils import UserError

_FUNCTIONS = {
    name: function
    for module in (noise, blur, weather, digital)
    for name, function in vars(module).items()
    if name in NAMES
}

# Values worked on at once: on a CPU so many that the steps in between stay in the cache.
_CHUNK = {"cpu": 1 << 19, "cuda": 1 << 25}


@torch.no_grad()
def corrupted(
    pixels: Float[Tensor, "n 3 h w"],
    name: str,
    severity: int,
    generator: Generator,
    *,
    frost: Path | None = None,
) -> Float[Tensor, "n 3 h w"]:
    """Images under one corruption; each image draws its noise, angle, flakes or frost.

    The same generator state and device give the same images, in either memory format.

    Args:
        pixels: In [0, 1], of a side that a table of constants exists for (224 or 64).
        name: One of `NAMES`.
        severity: 1 to 5.
        generator: On the images' device.
        frost: Folder with the published photographs of frost; without it a stand-in is drawn.

    Raises:
        UserError: Unknown corruption or severity, another size, pixels outside [0, 1], or a
            generator of another device.
    """
    constants = _constants(pixels, name, severity, generator)
    options = {"photographs": frost} if name == "frost" else {}
    size = max(1, _CHUNK.get(pixels.device.type, 1 << 25) // max(1, pixels[:1].numel()))
    out = torch.empty_like(pixels)
    for given, place in zip(pixels.split(size), out.split(size), strict=True):
        place.copy_(_FUNCTIONS[name](given.float().contiguous(), constants, generator, **options))
    return out


def sheet(pixels: Float[Tensor, "3 h w"], generator: Generator) -> Float[Tensor, "15 6 3 h w"]:
    """One image in rows per corruption; column 0 is clean, then come severities 1 to 5."""
    image = pixels[None]
    rows = [
        torch.cat([image] + [corrupted(image, name, s, generator) for s in SEVERITIES])
        for name in NAMES
    ]
    return torch.stack(rows)


def _constants(pixels: Tensor, name: str, severity: int, generator: Generator):
    """Constants of one cell, after checks of everything a caller may get wrong."""
    if name not in NAMES:
        raise UserError(f"Unknown corruption {name!r}; valid: {', '.join(NAMES)}.")
    if severity not in SEVERITIES:
        raise UserError(f"Severity {severity!r}; expected 1, 2, 3, 4 or 5.")
    h, w = pixels.shape[-2:]
    if h != w or h not in TABLES:
        sides = " and ".join(f"{side} x {side}" for side in TABLES)
        raise UserError(
            f"Images of {h} x {w} pixels, but constants are published for {sides} only "
            "(ImageNet-C and Tiny-ImageNet-C). Resize the images to one of these first."
        )
    if generator.device.type != pixels.device.type:
        raise UserError(
            f"The generator is on {generator.device}, the images on {pixels.device}; "
            f"pass torch.Generator({pixels.device.type!r})."
        )
    if len(pixels):
        low, high = (float(end) for end in pixels.aminmax())
        if not (low >= 0 and high <= 1):
            raise UserError(
                f"Pixels from {low:.3g} to {high:.3g}; expected values in [0, 1]. Divide 8-bit "
                "images by 255, and corrupt before normalising."
            )
    return TABLES[h][name][severity - 1]
