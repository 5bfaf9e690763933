"""Corruptions of weather: snow, frost, fog and brightness."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from robustbias.images.corruptions.frosting import crops, crystals
from robustbias.images.corruptions.resampling import crop_side, enlarged, motion_blurred


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
    folder with them, the frost is a stand-in of our own (`frosting.crystals`), and accuracies on it
    are not those on ImageNet-C's frost.

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
    wide = 100.0
    while corners.shape[-1] < size:
        k = corners.shape[-1]
        noise = torch.rand(n, 3, k, k, generator=generator, device=device)
        noise = noise.mul_(2 * wide**2).sub_(wide**2)
        pairs = corners + corners.roll(-1, 1)
        middle = (pairs + pairs.roll(-1, 2)) / 4 + noise[:, 0]
        top = (middle + middle.roll(1, 1) + corners + corners.roll(-1, 2)) / 4 + noise[:, 1]
        left = (middle + middle.roll(1, 2) + pairs) / 4 + noise[:, 2]
        upper = torch.stack([corners, top], -1).flatten(2)
        lower = torch.stack([left, middle], -1).flatten(2)
        corners = torch.stack([upper, lower], 2).flatten(1, 2)
        wide /= decay
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
