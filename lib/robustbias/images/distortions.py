"""Distortions that take something away from an image, batched, on the images' device.

Each is one function (pixels, generator) -> pixels in `DISTORTIONS`, with what it removes: shape,
colour, grey levels, high or low frequencies. Saturation and black-and-white are meant against
texture (Zhang and Zhu 2019) and do remove it where it is fainter than the object; a texture that
crosses mid-grey they sharpen instead. Images that need a foreground mask (silhouettes, contours, a
foreign texture) come from the study's source; `STIMULI` names them.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Generator, Tensor
from torchvision.transforms.v2.functional import gaussian_blur

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
    return _joined(tiles.gather(2, order[:, None, :, None, None].expand_as(tiles)), patches)


def _joined(tiles: Float[Tensor, "n c p a b"], patches: int) -> Float[Tensor, "n c h w"]:
    n, c, _, a, b = tiles.shape
    tiles = tiles.reshape(n, c, patches, patches, a, b)
    return tiles.permute(0, 1, 2, 4, 3, 5).reshape(n, c, patches * a, patches * b)


def rotated(
    pixels: Float[Tensor, "n c h w"], generator: Generator, *, patches: int
) -> Float[Tensor, "n c h w"]:
    """`patches` x `patches` squares of each image, each turned in place by 90, 180 or 270 degrees.

    Raises:
        UserError: Patches that are no squares.
    """
    n, c, h, w = pixels.shape
    if h != w or patches < 2 or h % patches:
        raise UserError(
            f"{patches} x {patches} patches of {h} x {w} pixels to turn; expected at least 2 x 2 "
            "squares."
        )
    side = h // patches
    tiles = pixels.unfold(2, side, side).unfold(3, side, side).reshape(n, c, -1, side, side)
    shape = (n, 1, patches**2, 1, 1)
    quarters = torch.randint(1, 4, shape, generator=generator, device=pixels.device)
    turned = tiles
    for k in (1, 2, 3):
        turned = torch.where(quarters == k, tiles.rot90(k, (3, 4)), turned)
    return _joined(turned, patches)


def bilateral(
    pixels: Float[Tensor, "n c h w"], _: Generator, *, d: int, sigma: float = 170.0
) -> Float[Tensor, "n c h w"]:
    """The bilateral filter: means over neighbours that are near and of similar colour.

        sum_q w(q) x(q) / sum_q w(q)
        w(q) = exp(-(|p - q|^2 + |x(p) - x(q)|_1^2) / 2 sigma^2)

    over the disc of diameter d around each pixel p, edges mirrored, with levels from 0 to 255: as
    `cv2.bilateralFilter` of OpenCV, without its rounding to whole levels.

    Source: Tomasi and Manduchi 1998, doi:10.1109/ICCV.1998.710815.
    """
    radius, (h, w) = max(d // 2, 1), pixels.shape[-2:]
    padded = F.pad(pixels, (radius,) * 4, mode="reflect")
    total, weights = torch.zeros_like(pixels), torch.zeros_like(pixels[:, :1])
    for y in range(-radius, radius + 1):
        for x in range(-radius, radius + 1):
            if x**2 + y**2 > radius**2:
                continue
            other = padded[..., radius + y : radius + y + h, radius + x : radius + x + w]
            far = (255 * (other - pixels).abs().sum(1, keepdim=True)).square() + x**2 + y**2
            weight = torch.exp(-far / (2 * sigma**2))
            total += weight * other
            weights += weight
    return total / weights


def blurred(
    pixels: Float[Tensor, "n c h w"], _: Generator, *, sigma: float
) -> Float[Tensor, "n c h w"]:
    """The images under a Gaussian filter of standard deviation sigma pixels, edges mirrored."""
    return gaussian_blur(pixels, 2 * math.ceil(3 * sigma) + 1, sigma)


def channel_shuffled(
    pixels: Float[Tensor, "n 3 h w"], generator: Generator
) -> Float[Tensor, "n 3 h w"]:
    """Each image's colour channels in another order, none in its first place."""
    order = derangements(len(pixels), 3, generator)
    return pixels.gather(1, order[:, :, None, None].expand_as(pixels))


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


DISTORTIONS: dict[str, Distortion] = {
    "greyscale": Distortion(greyscale, "colour"),
    "black and white": Distortion(black_and_white, "colour, grey levels"),
    "saturated, p = 8": Distortion(partial(saturated, p=8.0), "grey levels"),
    "saturated, p = 64": Distortion(partial(saturated, p=64.0), "grey levels"),
    "saturated, p = inf": Distortion(partial(saturated, p=math.inf), "grey levels"),
    "scrambled 4 x 4": Distortion(partial(scrambled, patches=4), "shape"),
    "low-pass filter": Distortion(low_passed, "high frequencies"),
    "high-pass filter": Distortion(high_passed, "low frequencies"),
    "white noise 0.08": Distortion(partial(noisy, sigma=0.08), "nothing (noise)"),
}


class Suppression(NamedTuple):
    """Functions (pixels, generator) -> pixels, one after the other, and what they suppress."""

    method: str
    level: float  # of a sweep; 0 where there is none
    removes: str
    functions: tuple[Callable[[Tensor, Generator], Tensor], ...]


def _suppressions() -> dict[str, Suppression]:
    """Global shape, texture and colour, and pairs of them, in sweeps where they have a strength."""
    shuffle, rotate = partial(scrambled, patches=4), partial(rotated, patches=4)
    smooth, grey = partial(bilateral, d=12), greyscale
    suppressions = []
    for method, change in (("patch shuffle", scrambled), ("patch rotation", rotated)):
        for n in (2, 4, 8, 16):
            suppressions.append(Suppression(method, n, "shape", (partial(change, patches=n),)))
    for d in (4, 8, 12):
        suppressions.append(
            Suppression("bilateral filter", d, "texture", (partial(bilateral, d=d),))
        )
    for sigma in (0.5, 1.0, 2.0, 4.0):
        blur = (partial(blurred, sigma=sigma),)
        suppressions.append(Suppression("Gaussian blur", sigma, "texture, local shape", blur))
    for method, removes, functions in (
        ("grey", "colour", (grey,)),
        ("channel shuffle", "colour", (channel_shuffled,)),
        ("patch shuffle 4, grey", "shape, colour", (shuffle, grey)),
        ("patch rotation 4, grey", "shape, colour", (rotate, grey)),
        ("bilateral 12, grey", "texture, colour", (smooth, grey)),
        ("bilateral 12, patch shuffle 4", "texture, shape", (smooth, shuffle)),
    ):
        suppressions.append(Suppression(method, 0.0, removes, functions))
    return {f"{s.method} {s.level:g}" if s.level else s.method: s for s in suppressions}


# Source: Burgert et al. 2025, arXiv 2509.20234 (grids, bilateral filter of d 12 and sigma 170)
SUPPRESSIONS = _suppressions()


@torch.no_grad()
def suppressed(
    pixels: Float[Tensor, "n c h w"], name: str, generator: Generator
) -> Float[Tensor, "n c h w"]:
    """Images under the suppression of that name, one of `SUPPRESSIONS`."""
    for function in SUPPRESSIONS[name].functions:
        pixels = function(pixels, generator)
    return pixels


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
    if condition in SUPPRESSIONS:
        return SUPPRESSIONS[condition].removes
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
        raise UserError(f"unknown distortion {name!r}; valid: {', '.join(DISTORTIONS)}.")
    if len(pixels) and not (pixels.min() >= 0 and pixels.max() <= 1):
        raise UserError(
            f"pixels from {float(pixels.min()):.3g} to {float(pixels.max()):.3g}; expected values "
            "in [0, 1]: divide 8-bit images by 255, and distort before normalising."
        )
    return DISTORTIONS[name].function(pixels, generator)


def stimuli(source: Source, images: Images) -> Iterator[tuple[str, Images, Tensor | None]]:
    """(condition, images, index) of every set in `STIMULI` that the source has.

    `index` says which of `images` they are distorted versions of (the source gives them the same
    names); only those are returned. It is None for stimuli that are none.
    """
    place = {name: i for i, name in enumerate(images.names)}
    for condition, (images_of, _) in STIMULI.items():
        try:
            changed = images_of(source)
        except MissingData:
            continue
        shared = [i for i, name in enumerate(changed.names) if name in place]
        if not shared:
            yield condition, changed, None
            continue
        shared.sort(key=lambda i: place[changed.names[i]])
        index = torch.tensor([place[changed.names[i]] for i in shared])
        yield condition, changed.take(torch.tensor(shared).to(changed.labels.device)), index


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
    for condition, changed, index in stimuli(source, images):
        whole = index is not None and len(index) == len(images)
        by_condition[condition] = floats((changed if whole else some(changed)).pixels)
    for name in DISTORTIONS:
        generator = Generator(pixels.device).manual_seed(seed)
        by_condition[name] = distorted(pixels, name, generator)
    return by_condition


def _frequencies(pixels: Float[Tensor, "n c h w"]) -> Float[Tensor, "h v"]:
    """Distance from zero of every frequency of `rfft2`, in cycles per pixel."""
    h, w = pixels.shape[-2:]
    fy = torch.fft.fftfreq(h, device=pixels.device)[:, None]
    return (fy**2 + torch.fft.rfftfreq(w, device=pixels.device) ** 2).sqrt()
