"""The corruptions once more, one image at a time, from other libraries: OpenCV, scikit-image, SciPy
and Pillow, in numpy's double precision and with numpy's random numbers.

An oracle takes an image (h w 3, 8 bits), the constants of a cell and a numpy generator, and returns
an image in [0, 1]. Written after the description in Hendrycks and Dietterich 2019 and the calls
that hendrycks/robustness makes; the benchmark times these as "per image" where that package has
no constants.
"""

import io
import math

import cv2
import numpy as np
from PIL import Image
from scipy import ndimage
from skimage import color, filters, util

ORACLES = {}


def oracle(function):
    ORACLES[function.__name__] = function
    return function


@oracle
def gaussian_noise(image, sigma, rng):
    return np.clip(image / 255 + rng.normal(0, sigma, image.shape), 0, 1)


@oracle
def shot_noise(image, photons, rng):
    return np.clip(rng.poisson(image / 255 * photons) / photons, 0, 1)


@oracle
def impulse_noise(image, amount, rng):
    return util.random_noise(image / 255, mode="s&p", amount=amount, rng=rng)


@oracle
def defocus_blur(image, lens, rng):
    radius, rim = lens
    reach, taps = (8, 3) if radius <= 8 else (radius, 5)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    kernel = (np.hypot(x, y) <= radius).astype(np.float32)
    kernel = cv2.GaussianBlur(kernel / kernel.sum(), (taps, taps), rim)
    return np.clip(cv2.filter2D(image / 255, -1, kernel), 0, 1)


@oracle
def glass_blur(image, glass, rng):
    sigma, reach, times = glass
    h, w, _ = image.shape
    soft = filters.gaussian(image / 255, sigma, channel_axis=-1)
    soft = (soft * 255).astype(np.uint8)
    for _ in range(times):
        soft = moved(soft, rng.integers(-reach, reach, (2, h, w)), reach)
    return np.clip(filters.gaussian(soft / 255, sigma, channel_axis=-1), 0, 1)


def moved(image, offsets, reach):
    """Pixels displaced one after the other, from the bottom right; offsets are rows and columns."""
    h, w = image.shape[:2]
    image = image.copy()
    for y in range(h - reach, reach, -1):
        for x in range(w - reach, reach, -1):
            image[y, x] = image[y + offsets[0, y, x], x + offsets[1, y, x]]
    return image


@oracle
def motion_blur(image, motion, rng):
    return np.clip(streaked(image / 255, *motion, rng.uniform(-45, 45)), 0, 1)


def streaked(image, radius, sigma, degrees):
    """The kernel drawn as a picture and correlated by OpenCV, edges repeated."""
    reach = 2 * radius
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    for i in range(reach + 1):
        row, column = math.ceil(i * sin - 0.5), math.ceil(i * cos - 0.5)
        kernel[reach + row, reach + column] += math.exp(-(i**2) / (2 * sigma**2))
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)


@oracle
def zoom_blur(image, zoom, rng):
    factors = np.arange(1, *zoom)
    image = image / 255
    return (image + sum(zoomed(image, factor) for factor in factors)) / (len(factors) + 1)


def zoomed(image, factor):
    side = len(image)
    crop = math.ceil(side / factor)
    start = (side - crop) // 2
    part = image[start : start + crop, start : start + crop]
    large = ndimage.zoom(part, (factor, factor) + (1,) * (image.ndim - 2), order=1)
    start = (len(large) - side) // 2
    return large[start : start + side, start : start + side]


@oracle
def snow(image, flakes, rng):
    mean, sd, zoom, threshold, radius, sigma, kept = flakes
    image = image.astype(np.float32) / 255
    layer = zoomed(rng.normal(mean, sd, image.shape[:2]), zoom)
    layer[layer < threshold] = 0
    layer = (np.clip(layer, 0, 1) * 255).astype(np.uint8) / 255
    layer = streaked(layer, radius, sigma, rng.uniform(-135, -45))[..., None]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
    white = np.maximum(image, grey * 1.5 + 0.5)
    return np.clip(kept * image + (1 - kept) * white + layer + np.rot90(layer, 2), 0, 1)


@oracle
def frost(image, shares, rng, photographs=None):
    """With the photographs; without, the same mean colour and contrast drawn pixel by pixel."""
    side = len(image)
    if photographs is None:
        depth = rng.uniform()
        mean = depth * np.array([0.89, 0.91, 0.93]) + (1 - depth) * np.array([0.25, 0.41, 0.47])
        layer = mean + 0.1 * rng.normal(size=(side, side, 1))
    else:
        photograph = photographs[rng.integers(len(photographs))]
        y, x = (rng.integers(0, length - side) for length in photograph.shape[:2])
        layer = photograph[y : y + side, x : x + side] / 255
    return np.clip(shares[0] * image / 255 + shares[1] * layer, 0, 1)


@oracle
def fog(image, haze, rng):
    amount, decay = haze
    image = image / 255
    side, top = len(image), image.max()
    layer = plasma(1 << (side - 1).bit_length(), decay, rng)[:side, :side, None]
    return np.clip((image + amount * layer) * top / (top + amount), 0, 1)


def plasma(size, decay, rng):
    """Diamond-square in place, on a torus."""
    field, step, wide = np.zeros((size, size)), size, 100.0

    def wobbled(total):
        return total / 4 + rng.uniform(-(wide**2), wide**2, total.shape)

    while step > 1:
        half = step // 2
        corner = field[::step, ::step]
        right, below = np.roll(corner, -1, 1), np.roll(corner, -1, 0)
        centre = wobbled(corner + right + below + np.roll(right, -1, 0))
        field[half::step, half::step] = centre
        field[::step, half::step] = wobbled(corner + right + centre + np.roll(centre, 1, 0))
        field[half::step, ::step] = wobbled(corner + below + centre + np.roll(centre, 1, 1))
        step, wide = half, wide / decay
    return (field - field.min()) / (field.max() - field.min())


@oracle
def brightness(image, lift, rng):
    hsv = color.rgb2hsv(image / 255)
    hsv[..., 2] = np.clip(hsv[..., 2] + lift, 0, 1)
    return np.clip(color.hsv2rgb(hsv), 0, 1)


@oracle
def contrast(image, share, rng):
    image = image / 255
    mean = image.mean((0, 1))
    return np.clip((image - mean) * share + mean, 0, 1)


@oracle
def elastic_transform(image, stretch, rng):
    amount, sigma, corner = stretch
    side = len(image)
    bent = affine(image / 255, corner * rng.uniform(-1, 1, (3, 2)))
    fields = rng.uniform(-1, 1, (2, side, side))
    return np.clip(warped(bent, smoothed(fields, sigma) * amount), 0, 1)


def affine(image, moves):
    middle, arm = len(image) // 2, len(image) // 3
    triangle = middle + arm * np.float32([[1, 1], [1, -1], [-1, -1]])
    matrix = cv2.getAffineTransform(triangle, (triangle + moves).astype(np.float32))
    size = image.shape[1::-1]
    image = image.astype(np.float32)
    return cv2.warpAffine(image, matrix, size, borderMode=cv2.BORDER_REFLECT_101)


def smoothed(fields, sigma):
    if sigma == 0:
        return fields
    return np.stack([filters.gaussian(f, sigma, mode="reflect", truncate=3) for f in fields])


def warped(image, moves):
    """The value at (x, y) is read at (x, y) + moves."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    at = [y + moves[1], x + moves[0]]
    channels = np.moveaxis(image, -1, 0)
    read = [ndimage.map_coordinates(c, at, order=1, mode="reflect") for c in channels]
    return np.stack(read, -1)


@oracle
def pixelate(image, share, rng):
    side = len(image)
    picture = Image.fromarray(image)
    small = picture.resize((int(side * share),) * 2, Image.Resampling.BOX)
    return np.asarray(small.resize((side, side), Image.Resampling.BOX)) / 255


@oracle
def jpeg_compression(image, quality, rng):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)) / 255
