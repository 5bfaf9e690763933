"""Frost: needles of ice grown from noise, or crops of photographs where a reader has them."""

import functools
import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Generator, Tensor

from robustbias.errors import UserError
from robustbias.images.corruptions.constants import FROST_SCALES

PHOTOGRAPHS = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
# Mean colours of thin and thick ice: half way between them is the mean colour of the published
# photographs (0.57, 0.66, 0.70), and one to the other is how much those differ.
_THIN, _THICK = (0.25, 0.41, 0.47), (0.89, 0.91, 0.93)
_CONTRAST = 0.10  # sd of a pixel about the crop's mean, that of the photographs


def crystals(n: int, side: int, generator: Generator) -> Float[Tensor, "n 3 s s"]:
    """A stand-in for photographs of frost: our own, not ImageNet-C's.

    Noise is drawn out along three directions 60 degrees apart, turned at random in each image. The
    strongest of the three at each pixel is the needle that is seen, on a slowly changing ground.
    Mean colour and contrast are those of the published photographs.
    """
    device = generator.device
    fy = torch.fft.fftfreq(side, device=device)[:, None]
    fx = torch.fft.rfftfreq(side, device=device)
    noise = torch.randn(n, side, side, generator=generator, device=device)
    spectrum = torch.fft.rfft2(noise)[:, None]
    turn = torch.rand(n, 1, 1, 1, generator=generator, device=device) * math.pi
    angle = turn + torch.tensor([0.0, 1.0, 2.0], device=device)[:, None, None] * (math.pi / 3)
    along = fx * torch.cos(angle) + fy * torch.sin(angle)
    across = fy * torch.cos(angle) - fx * torch.sin(angle)
    # A needle is long (low frequencies along it only) and thin, without a mean.
    length, width = side / 16, side / 120
    needle = torch.exp(-0.5 * (2 * math.pi * length * along) ** 2)
    needle = needle * across.abs() * torch.exp(-0.5 * (2 * math.pi * width * across) ** 2)
    needles = torch.fft.irfft2(spectrum * needle, s=(side, side)).amax(1)
    radius = (fy**2 + fx**2).sqrt()
    ground = torch.fft.irfft2(
        spectrum[:, 0] * torch.exp(-((radius * side / 3) ** 2)), s=(side,) * 2
    )
    relief = _standard(needles) + 0.5 * _standard(ground)
    thin, thick = (torch.tensor(c, device=device)[:, None, None] for c in (_THIN, _THICK))
    depth = torch.rand(n, 1, 1, 1, generator=generator, device=device)
    return (torch.lerp(thin, thick, depth) + _CONTRAST * _standard(relief)[:, None]).clamp_(0, 1)


def _standard(fields: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """Each field with mean 0 and standard deviation 1."""
    sd, mean = torch.std_mean(fields, (1, 2), keepdim=True)
    return (fields - mean) / sd


def crops(folder: Path, n: int, side: int, generator: Generator) -> Float[Tensor, "n 3 s s"]:
    """Random crops of the published photographs, one of the five for each image."""
    photographs = [torch.from_numpy(image) for image in _photographs(Path(folder), side)]
    which = torch.randint(5, (n,), generator=generator, device=generator.device)
    spot = torch.rand(n, 2, generator=generator, device=generator.device)
    inside = torch.arange(side, device=generator.device)
    out = torch.empty(n, 3, side, side, device=generator.device)
    for k, photograph in enumerate(photographs):
        mine = which == k
        room = torch.tensor(photograph.shape[:2], device=out.device) - side
        y, x = (spot[mine] * room).long()[..., None].unbind(1)
        rows, columns = (y + inside)[:, :, None], (x + inside)[:, None]
        out[mine] = photograph.to(out.device)[rows, columns].movedim(-1, 1).float() / 255
    return out


@functools.lru_cache(maxsize=4)
def _photographs(folder: Path, side: int) -> tuple[np.ndarray, ...]:
    missing = [name for name in PHOTOGRAPHS if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{folder} lacks {', '.join(missing)}; expected the frost photographs of "
            "hendrycks/robustness (ImageNet-C/imagenet_c/imagenet_c/frost). Without a folder a "
            "procedural frost is used."
        )
    images = []
    for name in PHOTOGRAPHS:
        image = Image.open(folder / name).convert("RGB")
        size = [round(FROST_SCALES[side] * s) for s in image.size]
        if min(size) <= side:
            raise UserError(f"{folder / name}, scaled to {size}, is no larger than {side} pixels.")
        # Bilinear without smoothing first, as the published images were shrunk.
        points = (
            Image.Transform.AFFINE,
            (1 / FROST_SCALES[side], 0, 0, 0, 1 / FROST_SCALES[side], 0),
        )
        images.append(np.array(image.transform(size, *points, Image.Resampling.BILINEAR)))
    return tuple(images)
