"""Corruptions of weather: snow, frost, fog and brightness."""

import functools
import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Generator, Tensor

from robustbias.images import opened
from robustbias.images.corruptions.blur import crop_side, enlarged, motion_blurred
from robustbias.images.corruptions.constants import FROST_SCALES
from robustbias.utils import UserError

PHOTOGRAPHS = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")

# Mean colours of thin and thick ice: half way between them is the mean colour of the published
# photographs (0.57, 0.66, 0.70), and one to the other is how much those differ.
_THIN, _THICK = (0.25, 0.41, 0.47), (0.89, 0.91, 0.93)
_CONTRAST = 0.10  # sd of a pixel about the crop's mean, that of the photographs


def crystals(n: int, side: int, generator: Generator) -> Float[Tensor, "n 3 s s"]:
    """A procedural stand-in for ImageNet-C's photographs of frost.

    Noise is stretched along three directions at 60 degrees, turned at random in each image. The
    strongest of the three at each pixel is the visible needle, on a slowly changing background.
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
        chosen = which == k
        margin = torch.tensor(photograph.shape[:2], device=out.device) - side
        y, x = (spot[chosen] * margin).long()[..., None].unbind(1)
        rows, columns = (y + inside)[:, :, None], (x + inside)[:, None]
        out[chosen] = photograph.to(out.device)[rows, columns].movedim(-1, 1).float() / 255
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
        with opened(folder / name) as stored:
            image = stored.convert("RGB")
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


def snow(
    pixels: Float[Tensor, "n c h w"], flakes: tuple[float | int, ...], generator: Generator
) -> Float[Tensor, "n c h w"]:
    """Streaks of flakes over a whitened image.

        s = blur(zoom(N(mean, sd)) above the threshold)
        a x + (1 - a) max(x, 1.5 grey(x) + 0.5) + s + s turned by 180 degrees

    Args:
        flakes: Mean and sd of the noise, zoom, threshold, radius and sigma of the streaks, a.
    """
    mean, sd, zoom, threshold, radius, sigma, kept = flakes
    n, _, side, _ = pixels.shape
    crop = crop_side(side, zoom)  # only the part of the noise that the zoom shows is drawn
    noise = torch.randn(n, 1, crop, crop, generator=generator, device=pixels.device)
    layer = enlarged(noise.mul_(sd).add_(mean), zoom, side)
    layer = (layer * (layer >= threshold)).clamp_(0, 1).mul_(255).floor_().div_(255)
    layer = motion_blurred(layer, radius, sigma, (-135.0, -45.0), generator)
    grey = pixels[:, :1] * 0.299 + pixels[:, 1:2] * 0.587 + pixels[:, 2:] * 0.114
    white = torch.maximum(pixels, grey.mul_(1.5).add_(0.5))
    fallen = layer + layer.flip(-2, -1)
    return torch.lerp(white, pixels, kept).add_(fallen).clamp_(0, 1)


def frost(
    pixels: Float[Tensor, "n c h w"],
    shares: tuple[float, float],
    generator: Generator,
    photographs: Path | None = None,
) -> Float[Tensor, "n c h w"]:
    """Frost on the lens.

        a x + b frost

    The published frost is crops of photographs that we may not ship. Unless `photographs` names a
    folder with them, the frost is procedural (`crystals`), and accuracies on it are not those on
    ImageNet-C's frost.

    Args:
        shares: a and b.
        photographs: Folder with frost1.png ... frost5.jpg.
    """
    n, _, side, _ = pixels.shape
    if photographs is None:
        layer = crystals(n, side, generator)
    else:
        layer = crops(photographs, n, side, generator)
    return layer.mul_(shares[1]).add_(pixels, alpha=shares[0]).clamp_(0, 1)


def fog(
    pixels: Float[Tensor, "n c h w"], haze: tuple[float, float], generator: Generator
) -> Float[Tensor, "n c h w"]:
    """A plasma fractal added, and the whole scaled back to the image's brightest value.

        (x + a plasma) max(x) / (max(x) + a)

    Args:
        haze: a and the decay of the plasma's detail.
    """
    amount, decay = haze
    n, _, side, _ = pixels.shape
    brightest = pixels.amax((1, 2, 3), keepdim=True)
    layer = plasma(n, side, decay, generator)[:, None, :side, :side]
    return (pixels + amount * layer).mul_(brightest / (brightest + amount)).clamp_(0, 1)


def plasma(n: int, side: int, decay: float, generator: Generator) -> Float[Tensor, "n m m"]:
    """Height maps by the diamond-square algorithm on a torus, each scaled to [0, 1].

    Every turn doubles the grid: a new point is the mean of its four neighbours plus uniform noise
    of half width a^2, where a starts at 100 and is divided by `decay`. m is the power of 2 that
    holds `side`.
    """
    device = generator.device
    size = 1 << (side - 1).bit_length()
    corners = torch.zeros(n, 1, 1, device=device)
    amplitude = 100.0
    while corners.shape[-1] < size:
        k = corners.shape[-1]
        noise = torch.rand(n, 3, k, k, generator=generator, device=device)
        noise = noise.mul_(2 * amplitude**2).sub_(amplitude**2)
        pairs = corners + corners.roll(-1, 1)
        middle = (pairs + pairs.roll(-1, 2)) / 4 + noise[:, 0]
        top = (middle + middle.roll(1, 1) + corners + corners.roll(-1, 2)) / 4 + noise[:, 1]
        left = (middle + middle.roll(1, 2) + pairs) / 4 + noise[:, 2]
        upper = torch.stack([corners, top], -1).flatten(2)
        lower = torch.stack([left, middle], -1).flatten(2)
        corners = torch.stack([upper, lower], 2).flatten(1, 2)
        amplitude /= decay
    low, high = corners.aminmax(dim=-1)
    low, high = low.amin(1)[:, None, None], high.amax(1)[:, None, None]
    return corners.sub_(low).div_(high - low)


def brightness(
    pixels: Float[Tensor, "n c h w"], lift: float, generator: Generator
) -> Float[Tensor, "n c h w"]:
    """The value of HSV lifted, hue and saturation kept.

        v' = min(v + lift, 1), v = max over channels

    At constant hue and saturation the channels grow with the value: x v' / v, and v' where v = 0.
    """
    value = pixels.amax(1, keepdim=True)
    lifted = (value + lift).clamp_(max=1)
    return torch.where(value > 0, pixels * (lifted / value), lifted)
