"""Distortions that take something away from an image, batched, on the images' device.

Each is one function (pixels, generator) -> pixels in `DISTORTIONS`, with what it takes: shape,
colour, grey levels, high or low frequencies. Saturation and black-and-white are meant against
texture (Zhang and Zhu 2019) and do take it where it is fainter than the object; a texture that
crosses mid-grey they sharpen instead. Those that need to know where the object is (silhouettes,
contours, a foreign texture) belong to the source of the images; `STIMULI` names them. Adversarial
images depend on the network they are made for, see `adversarial`.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn

from robustbias import attacks
from robustbias.errors import MissingData, UserError
from robustbias.images import Images, floats
from robustbias.images.masks import luminance, otsu

LOW, HIGH = 0.125, 0.25  # cycles per pixel; the highest a grid of pixels can hold is 0.5
BLUR = 0.02  # standard deviation of the filters' Gaussian, in sides of the image


class Distortion(NamedTuple):
    """A function (pixels, generator) -> pixels and what of the image it removes."""

    function: Callable[[Tensor, Generator], Tensor]
    removes: str


def scrambled(
    pixels: Float[Tensor, "n c h w"], generator: Generator, *, patches: int
) -> Float[Tensor, "n c h w"]:
    """`patches` x `patches` squares of each image in another order, none in its own place.

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
    """What `low_passed` takes away, around the image's mean colour."""
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
# condition -> (method of a source that has such images, what they lack)
STIMULI: dict[str, tuple[str, str]] = {
    "stylized": ("stylized", "texture"),
    "silhouettes": ("silhouettes", "texture"),
    "black silhouettes": ("black_silhouettes", "texture"),
    "edges": ("edges", "texture"),
    "texture only": ("texture_only", "shape"),
}
ADVERSARIAL = "adversarial"


def removed(condition: str) -> str:
    """What a condition takes away from an image, in words; "" for one that is not listed."""
    if condition in DISTORTIONS:
        return DISTORTIONS[condition].removes
    if condition == ADVERSARIAL:
        return "nothing (noise)"
    return STIMULI.get(condition, ("", ""))[1]


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


def stimuli(source: Any, images: Images) -> Iterator[tuple[str, Images, bool]]:
    """(condition, images, paired) of every set in `STIMULI` that the source has.

    Paired means that they are `images` themselves, distorted, in the same order: the source gives
    them the same names. Sets whose method or whose files are missing are left out.
    """
    for condition, (method, _) in STIMULI.items():
        try:
            found = getattr(source, method)() if hasattr(source, method) else None
        except MissingData:
            found = None
        if found is None:
            continue
        paired = bool(images.names) and set(images.names) <= set(found.names)
        if paired:
            place = {name: i for i, name in enumerate(found.names)}
            found = found.take(torch.tensor([place[name] for name in images.names]))
        yield condition, found, paired


def examples(source: Any, n: int, seed: int = 0) -> dict[str, Float[Tensor, "n 3 h w"]]:
    """n random validation images, clean and under everything there is: {condition: pixels}.

    Stimuli that are no distorted validation images are random ones as well.
    """

    def some(images: Images) -> Images:
        order = torch.randperm(len(images), generator=Generator().manual_seed(seed))
        return images.take(order[:n].to(images.labels.device))

    images = some(source.val())
    pixels = floats(images.pixels)
    shown = {"clean": pixels}
    for condition, found, paired in stimuli(source, images):
        shown[condition] = floats((found if paired else some(found)).pixels)
    for name in DISTORTIONS:
        generator = Generator(pixels.device).manual_seed(seed)
        shown[name] = distorted(pixels, name, generator)
    return shown


def _frequencies(pixels: Float[Tensor, "n c h w"]) -> Float[Tensor, "h v"]:
    """Distance from zero of every frequency of `rfft2`, in cycles per pixel."""
    h, w = pixels.shape[-2:]
    fy = torch.fft.fftfreq(h, device=pixels.device)[:, None]
    return (fy**2 + torch.fft.rfftfreq(w, device=pixels.device) ** 2).sqrt()
