"""Distortions that take something away from an image, batched, on the images' device.

Each is one function (pixels, generator) -> pixels in `DISTORTIONS`, with what it removes: shape,
colour, grey levels, high or low frequencies. Saturation and black-and-white are meant against
texture (Zhang and Zhu 2019) and do remove it where it is fainter than the object; a texture that
crosses mid-grey they sharpen instead. Images that need a foreground mask (silhouettes, contours, a
foreign texture) come from the study's source; `STIMULI` names them. Adversarial images depend on
the network they are made for, see `adversarial`.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Generator, Tensor, nn

from robustbias import attacks
from robustbias.images import Images, floats
from robustbias.images.source import Source
from robustbias.utils import MissingData, UserError

LUMA = (0.299, 0.587, 0.114)  # of red, green, blue (ITU-R BT.601)


# Drawings from foreground masks, black on white as those of Geirhos et al. 2019
# (openreview.net/forum?id=Bygh9j09KX)


def silhouettes(foreground: Bool[Tensor, "n h w"]) -> UInt8[Tensor, "n 3 h w"]:
    """Black objects on white."""
    return _black_on_white(foreground)


def contours(foreground: Bool[Tensor, "n h w"]) -> UInt8[Tensor, "n 3 h w"]:
    """Black outlines on white: the object's pixels that touch the background, one pixel wide."""
    background = (~foreground).float()[:, None]
    return _black_on_white(foreground & (F.max_pool2d(background, 3, 1, 1)[:, 0] > 0))


def luminance(pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1 h w"]:
    """Weighted mean of the channels."""
    weights = torch.tensor(LUMA, device=pixels.device, dtype=pixels.dtype)
    return (pixels * weights[:, None, None]).sum(1, keepdim=True)


def otsu(grey: Float[Tensor, "n 1 h w"], bins: int = 256) -> Float[Tensor, " n"]:
    """The grey level of each image that separates its pixels into the two most distant classes.

        argmax over t of (m(1) w(t) - m(t))² / (w(t) (1 - w(t)))

    with w(t) the share of pixels up to t and m(t) the sum of their levels. Levels are counted in
    `bins` steps; the threshold is the upper end of a step. An image of one level gets that level.

    Source: Otsu 1979, doi:10.1109/TSMC.1979.4310076.
    """
    level = (grey.flatten(1) * bins).long().clamp(0, bins - 1)
    ones = torch.ones_like(level, dtype=grey.dtype)
    counts = torch.zeros(len(grey), bins, device=grey.device, dtype=grey.dtype)
    share = counts.scatter_add(1, level, ones) / level.shape[1]
    middle = (torch.arange(bins, device=grey.device, dtype=grey.dtype) + 0.5) / bins
    weight, mean = share.cumsum(1), (share * middle).cumsum(1)
    distance = (mean[:, -1:] * weight - mean) ** 2 / (weight * (1 - weight)).clamp_min(1e-12)
    distance = distance.masked_fill((weight < 1e-6) | (weight > 1 - 1e-6), -1.0)
    # every step between two classes with nothing in between is as good: take the middle one
    best = distance >= distance.amax(1, keepdim=True) - 1e-9
    at = (best * torch.arange(1, bins + 1, device=grey.device)).sum(1) / best.sum(1)
    return torch.where(distance.amax(1) < 0, grey.flatten(1).amax(1), at / bins)


def _black_on_white(drawn: Bool[Tensor, "n h w"]) -> UInt8[Tensor, "n 3 h w"]:
    return torch.where(drawn, 0, 255).to(torch.uint8)[:, None].expand(-1, 3, -1, -1).contiguous()


LOW, HIGH = 0.125, 0.25  # cycles per pixel; the highest a grid of pixels can hold is 0.5
BLUR = 0.02  # standard deviation of the filters' Gaussian, in sides of the image


class Distortion(NamedTuple):
    """A function (pixels, generator) -> pixels and what of the image it removes."""

    function: Callable[[Tensor, Generator], Tensor]
    removes: str


def scrambled(
    pixels: Float[Tensor, "n c h w"], generator: Generator, *, patches: int
) -> Float[Tensor, "n c h w"]:
    """`patches` x `patches` squares of each image in another order, none in its first place.

    Raises:
        UserError: Fewer than 2 x 2 patches, or a side they do not divide.
    """
    n, c, h, w = pixels.shape
    if patches < 2 or h % patches or w % patches:
        raise UserError(
            f"{patches} x {patches} patches of {h} x {w} pixels; expected at least 2 x 2 and "
            "sides that they divide."
        )
    order = derangements(n, patches**2, generator)
    tile = (h // patches, w // patches)
    tiles = pixels.unfold(2, tile[0], tile[0]).unfold(3, tile[1], tile[1])
    tiles = tiles.reshape(n, c, patches**2, *tile)
    tiles = tiles.gather(2, order[:, None, :, None, None].expand_as(tiles))
    tiles = tiles.reshape(n, c, patches, patches, *tile)
    return tiles.permute(0, 1, 2, 4, 3, 5).reshape(n, c, h, w)


def derangements(n: int, places: int, generator: Generator) -> Int64[Tensor, "n places"]:
    """n permutations that leave nothing in its place, all such permutations equally likely.

    Random permutations are drawn until they are derangements; 1 in e is.
    """
    identity = torch.arange(places, device=generator.device)
    order = identity.expand(n, places).clone()
    fixed = torch.ones(n, dtype=torch.bool, device=generator.device)
    while fixed.any():
        draw = torch.rand(int(fixed.sum()), places, generator=generator, device=generator.device)
        order[fixed] = draw.argsort(1)
        fixed = (order == identity).any(1)
    return order


def greyscale(pixels: Float[Tensor, "n 3 h w"], _: Generator) -> Float[Tensor, "n 3 h w"]:
    """The luminance in all three channels."""
    return luminance(pixels).expand_as(pixels).contiguous()


def black_and_white(pixels: Float[Tensor, "n 3 h w"], _: Generator) -> Float[Tensor, "n 3 h w"]:
    """Black up to Otsu's threshold of each image's luminance, white above it."""
    grey = luminance(pixels)
    return (grey > otsu(grey)[:, None, None, None]).to(pixels.dtype).expand_as(pixels).contiguous()


def saturated(
    pixels: Float[Tensor, "n c h w"], _: Generator, *, p: float
) -> Float[Tensor, "n c h w"]:
    """Every channel pushed to its ends: p = 2 changes nothing, p = inf leaves only 0 and 1.

        x -> sign(2x - 1) |2x - 1|^(2/p) / 2 + 1/2

    Exactly 1/2 stays 1/2 for every p.

    Source: Zhang and Zhu 2019, arXiv 1905.09797.
    """
    if not p > 0:
        raise UserError(f"saturation p = {p}; expected a number above 0, or inf.")
    centred = 2 * pixels - 1
    return centred.sign() * centred.abs() ** (2 / p) / 2 + 0.5


def noisy(
    pixels: Float[Tensor, "n c h w"],
    generator: Generator,
    *,
    sigma: float,
    low: float = 0.0,
    high: float = math.inf,
) -> Float[Tensor, "n c h w"]:
    """The images plus Gaussian noise, cut to [0, 1].

    Args:
        sigma: Standard deviation of the noise in pixel units, whatever its band.
        low: Lowest frequency of the noise, in cycles per pixel.
        high: Highest.
    """
    noise = torch.randn(pixels.shape, generator=generator, device=pixels.device)
    if low > 0 or high < math.inf:
        radius = _frequencies(pixels)
        noise = torch.fft.rfft2(noise) * ((radius >= low) & (radius <= high))
        noise = torch.fft.irfft2(noise, s=pixels.shape[-2:])
        noise = noise / noise.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-12)
    return (pixels + sigma * noise).clamp(0, 1)


def low_passed(pixels: Float[Tensor, "n c h w"], _: Generator) -> Float[Tensor, "n c h w"]:
    """The images under a Gaussian filter of standard deviation 0.02 sides, edges wrapped."""
    sigma = BLUR * pixels.shape[-1]
    gain = torch.exp(-2 * (math.pi * sigma * _frequencies(pixels)) ** 2)
    return torch.fft.irfft2(torch.fft.rfft2(pixels) * gain, s=pixels.shape[-2:]).clamp(0, 1)


def high_passed(pixels: Float[Tensor, "n c h w"], generator: Generator) -> Float[Tensor, "n c h w"]:
    """What `low_passed` removes, around the image's mean colour."""
    mean = pixels.mean((2, 3), keepdim=True)
    return (pixels - low_passed(pixels, generator) + mean).clamp(0, 1)


def adversarial(
    network: nn.Module,
    pixels: Float[Tensor, "n 3 h w"],
    labels: Int64[Tensor, " n"],
    *,
    norm: str,
    eps: float,
    steps: int,
    generator: Generator,
) -> Float[Tensor, "n 3 h w"]:
    """The worst images within eps for this very network, by PGD on the margin."""
    attack = {"norm": norm, "eps": eps, "steps": steps, "generator": generator}
    return attacks.pgd(network, pixels, labels, **attack).pixels


DISTORTIONS: dict[str, Distortion] = {
    "greyscale": Distortion(greyscale, "colour"),
    "black and white": Distortion(black_and_white, "colour, grey levels"),
    "saturated, p = 8": Distortion(partial(saturated, p=8.0), "grey levels"),
    "saturated, p = 64": Distortion(partial(saturated, p=64.0), "grey levels"),
    "saturated, p = inf": Distortion(partial(saturated, p=math.inf), "grey levels"),
    "scrambled 2 x 2": Distortion(partial(scrambled, patches=2), "shape"),
    "scrambled 4 x 4": Distortion(partial(scrambled, patches=4), "shape"),
    "scrambled 8 x 8": Distortion(partial(scrambled, patches=8), "shape"),
    "low-pass filter": Distortion(low_passed, "high frequencies"),
    "high-pass filter": Distortion(high_passed, "low frequencies"),
    "white noise 0.08": Distortion(partial(noisy, sigma=0.08), "nothing (noise)"),
    "white noise 0.18": Distortion(partial(noisy, sigma=0.18), "nothing (noise)"),
    "low-pass noise 0.08": Distortion(partial(noisy, sigma=0.08, high=LOW), "nothing (noise)"),
    "high-pass noise 0.08": Distortion(partial(noisy, sigma=0.08, low=HIGH), "nothing (noise)"),
}

# condition -> (such images of a source, what they lack)
STIMULI: dict[str, tuple[Callable[[Source], Images], str]] = {
    "stylized": (lambda source: source.stylized(), "texture"),
    "silhouettes": (lambda source: source.silhouettes(), "texture"),
    "black silhouettes": (lambda source: source.black_silhouettes(), "texture"),
    "edges": (lambda source: source.edges(), "texture"),
    "texture only": (lambda source: source.texture_only(), "shape"),
}

ADVERSARIAL = "adversarial"


def removed(condition: str) -> str:
    """What a condition removes from an image, in words; "" for one that is not listed."""
    if condition in DISTORTIONS:
        return DISTORTIONS[condition].removes
    if condition in STIMULI:
        return STIMULI[condition][1]
    return "nothing (noise)" if condition == ADVERSARIAL else ""


@torch.no_grad()
def distorted(
    pixels: Float[Tensor, "n 3 h w"], name: str, generator: Generator
) -> Float[Tensor, "n 3 h w"]:
    """Images under the distortion of that name; the same generator state gives the same images.

    Args:
        pixels: In [0, 1].
        name: One of `DISTORTIONS`.
        generator: On the images' device.

    Raises:
        UserError: An unknown name, or pixels outside [0, 1].
    """
    if name not in DISTORTIONS:
        raise UserError(f"unknown distortion {name!r}; known: {', '.join(DISTORTIONS)}.")
    if len(pixels) and not (pixels.min() >= 0 and pixels.max() <= 1):
        raise UserError(
            f"pixels from {float(pixels.min()):.3g} to {float(pixels.max()):.3g}; expected values "
            "in [0, 1]: divide 8-bit images by 255, and distort before normalising."
        )
    return DISTORTIONS[name].function(pixels, generator)


def stimuli(source: Source, images: Images) -> Iterator[tuple[str, Images, bool]]:
    """(condition, images, paired) of every set in `STIMULI` that the source has.

    Paired means that they are `images` themselves, distorted, in the same order: the source gives
    them the same names.
    """
    for condition, (images_of, _) in STIMULI.items():
        try:
            changed = images_of(source)
        except MissingData:
            continue
        paired = bool(images.names) and set(images.names) <= set(changed.names)
        if paired:
            index = {name: i for i, name in enumerate(changed.names)}
            changed = changed.take(torch.tensor([index[name] for name in images.names]))
        yield condition, changed, paired


def examples(source: Source, n: int, seed: int = 0) -> dict[str, Float[Tensor, "n 3 h w"]]:
    """n random validation images, clean and under everything there is: {condition: pixels}.

    Stimuli that are no distorted validation images are random ones as well.
    """

    def some(images: Images) -> Images:
        order = torch.randperm(len(images), generator=Generator().manual_seed(seed))
        return images.take(order[:n].to(images.labels.device))

    images = some(source.val())
    pixels = floats(images.pixels)
    by_condition = {"clean": pixels}
    for condition, changed, paired in stimuli(source, images):
        by_condition[condition] = floats((changed if paired else some(changed)).pixels)
    for name in DISTORTIONS:
        generator = Generator(pixels.device).manual_seed(seed)
        by_condition[name] = distorted(pixels, name, generator)
    return by_condition


def _frequencies(pixels: Float[Tensor, "n c h w"]) -> Float[Tensor, "h v"]:
    """Distance from zero of every frequency of `rfft2`, in cycles per pixel."""
    h, w = pixels.shape[-2:]
    fy = torch.fft.fftfreq(h, device=pixels.device)[:, None]
    return (fy**2 + torch.fft.rfftfreq(w, device=pixels.device) ** 2).sqrt()
