"""Corruptions against OpenCV, scikit-image, SciPy and Pillow, and their published constants.

What is compared with which oracle (corruption_oracles.py), and how close it has to be:

corruption          oracle                                    tolerance
defocus_blur        OpenCV GaussianBlur, filter2D             1e-5 a pixel
zoom_blur           scipy.ndimage.zoom                        1e-5 a pixel
brightness          skimage.color HSV there and back          1e-5 a pixel
contrast            numpy                                     1e-5 a pixel
pixelate            Pillow, box (8 bits twice)                1.5 / 255 a pixel
jpeg_compression    Pillow (libjpeg, in integers)             0.4 / 255 on average, 5 % of values
                                                              more than 2.5 / 255 off
glass_blur          a walk over the pixels                    equal sources; 1e-5 blurred
motion_blur         OpenCV filter2D with the drawn kernel     1e-5 a pixel at equal angles
elastic_transform   OpenCV warpAffine (5-bit weights)         0.02 a pixel, 1e-3 on average
                    scipy.ndimage.map_coordinates             1e-4 a pixel at equal fields
shot_noise, counts  scipy.stats.poisson                       chi-square, p > 1e-4
frost, photographs  crops by hand                             equal pixels
snow, fog, and all random ones as a whole: mean and variance of the residual (corrupted - clean)
                    the oracle of the same name               5 standard errors over the images
"""

import math
import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import stats

import corruption_oracles as oracles
from robustbias.images import corruptions, floats
from robustbias.images.corruptions import blur, digital, noise, weather
from robustbias.images.corruptions.constants import GROUPS, NAMES, SEVERITIES, TABLES
from robustbias.images.iconworld import IconWorld, World
from robustbias.utils import UserError

EXACT = {
    "defocus_blur": 1e-5,
    "zoom_blur": 1e-5,
    "brightness": 1e-5,
    "contrast": 1e-5,
    "pixelate": 1.5 / 255,
}
RANDOM = tuple(name for name in NAMES if name not in (*EXACT, "jpeg_compression"))
SIDES = tuple(TABLES)

# as in hendrycks/robustness: corruptions.py (224) and make_tinyimagenet_c.py (64)
PUBLISHED = {
    224: {
        "gaussian_noise": "0.08 0.12 0.18 0.26 0.38",
        "shot_noise": "60 25 12 5 3",
        "impulse_noise": "0.03 0.06 0.09 0.17 0.27",
        "defocus_blur": "3 0.1 4 0.5 6 0.5 8 0.5 10 0.5",
        "glass_blur": "0.7 1 2 0.9 2 1 1 2 3 1.1 3 2 1.5 4 2",
        "motion_blur": "10 3 15 5 15 8 15 12 20 15",
        "zoom_blur": "1.11 0.01 1.16 0.01 1.21 0.02 1.26 0.02 1.31 0.03",
        "snow": "0.1 0.3 3 0.5 10 4 0.8 0.2 0.3 2 0.5 12 4 0.7 0.55 0.3 4 "
        "0.9 12 8 0.7 0.55 0.3 4.5 0.85 12 8 0.65 0.55 0.3 2.5 0.85 12 12 0.55",
        "frost": "1 0.4 0.8 0.6 0.7 0.7 0.65 0.7 0.6 0.75",
        "fog": "1.5 2 2 2 2.5 1.7 2.5 1.5 3 1.4",
        "brightness": "0.1 0.2 0.3 0.4 0.5",
        "contrast": "0.4 0.3 0.2 0.1 0.05",
        "elastic_transform": "488 170.8 24.4 488 19.52 48.8 12.2 "
        "2.44 4.88 17.08 2.44 4.88 29.28 2.44 4.88",
        "pixelate": "0.6 0.5 0.4 0.3 0.25",
        "jpeg_compression": "25 18 15 10 7",
    },
    64: {
        "gaussian_noise": "0.04 0.08 0.12 0.15 0.18",
        "shot_noise": "250 100 50 30 15",
        "impulse_noise": "0.01 0.02 0.05 0.08 0.14",
        "defocus_blur": "0.5 0.6 1 0.1 1.5 0.1 2.5 0.01 3 0.1",
        "glass_blur": "0.1 1 1 0.5 1 1 0.6 1 2 0.7 2 1 0.9 2 2",
        "motion_blur": "10 1 10 1.5 10 2 10 2.5 12 3",
        "zoom_blur": "1.06 0.01 1.11 0.01 1.16 0.01 1.21 0.01 1.26 0.01",
        "snow": "0.1 0.2 1 0.6 8 3 0.8 0.1 0.2 1 0.5 10 4 0.8 0.15 0.3 1.75 "
        "0.55 10 4 0.7 0.25 0.3 2.25 0.6 12 6 0.65 0.3 0.3 1.25 0.65 14 12 0.6",
        "frost": "1 0.3 0.9 0.4 0.8 0.45 0.75 0.5 0.7 0.55",
        "fog": "0.4 3 0.7 3 1 2.5 1.5 2 2 1.75",
        "brightness": "0.1 0.2 0.3 0.4 0.5",
        "contrast": "0.4 0.3 0.2 0.1 0.05",
        "elastic_transform": "0 0 5.12 3.2 19.2 3.84 6.4 5.12 3.84 6.4 1.92 1.92 10.24 1.92 1.28",
        "pixelate": "0.9 0.8 0.7 0.6 0.5",
        "jpeg_compression": "65 58 50 40 25",
    },
}  # fmt: skip


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def levels() -> dict[int, torch.Tensor]:
    """Icon world's images in 8 bits, by side."""
    small = IconWorld(World(val_images=48)).val().pixels
    large = F.interpolate(small[:4].float(), size=224, mode="bicubic", antialias=True)
    return {64: small, 224: large.round().clamp(0, 255).to(torch.uint8)}


@pytest.fixture(scope="module")
def photographs(data_directory) -> torch.Tensor:
    """Real photographs of 224 x 224."""
    files = sorted((data_directory / "imagenet-sample").glob("*.jpg"))[:4]
    if not files:
        pytest.skip("no photographs in the data directory")
    crops = [np.array(Image.open(f).convert("RGB").crop((0, 0, 224, 224))) for f in files]
    return torch.from_numpy(np.stack(crops)).movedim(-1, 1)


def by_oracle(name: str, images: torch.Tensor, constants, rng=None) -> torch.Tensor:
    rows = images.movedim(1, -1).contiguous().numpy()
    out = [oracles.ORACLES[name](row, constants, rng) for row in rows]
    return torch.from_numpy(np.stack(out)).movedim(-1, 1).float()


def array(images: torch.Tensor) -> np.ndarray:
    """n c h w as n h w c, for the oracles."""
    return images.movedim(1, -1).double().numpy()


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", EXACT)
def test_what_is_not_random_equals_its_oracle(levels, name, side, severity):
    images = levels[side][:3]
    expected = by_oracle(name, images, TABLES[side][name][severity - 1])
    ours = corruptions.corrupted(floats(images), name, severity, seeded())
    torch.testing.assert_close(ours.contiguous(), expected, rtol=0, atol=EXACT[name])


@pytest.mark.parametrize("name", EXACT)
def test_photographs_too_equal_the_oracle(photographs, name):
    expected = by_oracle(name, photographs, TABLES[224][name][2])
    ours = corruptions.corrupted(floats(photographs), name, 3, seeded())
    torch.testing.assert_close(ours.contiguous(), expected, rtol=0, atol=EXACT[name])


@pytest.mark.parametrize("side", SIDES)
def test_the_constants_are_the_published_ones(side):
    assert TABLES[side].keys() == PUBLISHED[side].keys()
    for name, words in PUBLISHED[side].items():
        numbers = np.hstack(TABLES[side][name])
        np.testing.assert_allclose(numbers, [float(word) for word in words.split()], err_msg=name)


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("side", [*SIDES, "photographs"])
def test_jpeg_loses_what_libjpeg_loses(levels, request, side, severity):
    given = side == "photographs"
    images = request.getfixturevalue("photographs") if given else levels[side][:8]
    quality = TABLES[images.shape[-1]]["jpeg_compression"][severity - 1]
    expected = by_oracle("jpeg_compression", images, quality)
    ours = corruptions.corrupted(floats(images), "jpeg_compression", severity, seeded())
    # A coefficient that falls on the other side of a half changes its whole block a little.
    off = (ours - expected).abs() * 255
    assert off.mean() < 0.4
    assert (off > 2.5).double().mean() < 0.05


@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize("name", RANDOM)
def test_residuals_have_the_mean_and_variance_of_the_oracles(levels, name, severity):
    images = levels[64][:16] if name == "glass_blur" else levels[64]
    clean, constants = images.float() / 255, TABLES[64][name][severity - 1]
    rng = np.random.default_rng([severity, zlib.crc32(name.encode())])
    theirs = by_oracle(name, images, constants, rng) - clean
    ours = corruptions.corrupted(clean, name, severity, seeded(severity)) - clean
    for moment in (torch.mean, torch.var):
        a, b = (torch.stack([moment(image) for image in r.double()]) for r in (ours, theirs))
        # Both saw the same images: what varies is the randomness, paired image by image.
        difference = a - b
        error = difference.std() / math.sqrt(len(images))
        assert abs(difference.mean()) < 5 * error + 1e-6, moment.__name__


@pytest.mark.parametrize("reach", [1, 2, 3, 4])
def test_displacements_equal_a_walk_over_the_pixels(reach):
    rng = np.random.default_rng(reach)
    offsets = rng.integers(-reach, reach, (2, 3, 40, 40))
    sources = blur.displaced(torch.from_numpy(offsets), reach).view(3, 40, 40)
    places = np.arange(1600).reshape(40, 40)
    for image in range(3):
        walked = oracles.moved(places, offsets[:, image], reach)
        assert np.array_equal(sources[image].numpy(), walked)


def test_a_chain_of_displacements_is_followed_to_its_end():
    # Every pixel copies from its right neighbour, which has been replaced: one value a row.
    offsets = torch.zeros(2, 1, 60, 60, dtype=torch.int64)
    offsets[1] = 1
    source = blur.displaced(offsets, 2).view(60, 60) % 60
    assert source[30].tolist() == [0, 1, 2] + [59] * 56 + [59]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", GROUPS["noise"])
def test_noise_of_a_flat_image_has_the_variance_it_is_defined_by(side, name):
    value = 0.5
    for severity, c in zip(SEVERITIES, TABLES[side][name], strict=True):
        images = torch.full((4, 3, side, side), value)
        out = corruptions.corrupted(images, name, severity, seeded(severity)).double()
        n = out.numel()
        if name == "impulse_noise":
            assert (out != value).double().mean() == pytest.approx(c, abs=5 * (c / n) ** 0.5)
            assert out.mean() == pytest.approx(value, abs=5 * (c / 4 / n) ** 0.5)
        elif name == "shot_noise" and c >= 25:  # below, the cut at 1 takes variance away
            assert out.mean() == pytest.approx(value, abs=5 * (value / c / n) ** 0.5)
            assert out.var() == pytest.approx(value / c, rel=0.05)
        elif name == "gaussian_noise" and c <= 0.12:
            assert out.var() == pytest.approx(c**2, rel=5 * (2 / n) ** 0.5)


@pytest.mark.parametrize("level", [0.0, 1.0, 100.4, 128.0, 255.0])
@pytest.mark.parametrize("photons", [3.0, 60.0, 250.0])
def test_photons_are_counted_with_the_probabilities_of_poisson(photons, level):
    n = 200_000
    counts = noise._counted(torch.full((n,), level), photons, seeded(1)).int().numpy()
    found = np.bincount(counts, minlength=512)
    expected = n * stats.poisson.pmf(np.arange(512), level * photons / 255)
    often = expected > 20
    off = (found - expected)[often] ** 2 / expected[often]
    assert stats.chi2.sf(off.sum(), often.sum()) > 1e-4


@pytest.mark.parametrize("side", SIDES)
def test_streaks_equal_a_drawn_kernel(levels, side):
    images = levels[side][:3].float() / 255
    degrees = torch.tensor([-45.0, 7.0, 44.0])
    for radius, sigma in TABLES[side]["motion_blur"]:
        room = [2 * radius] * 4
        ours = blur.streaked(images, radius, sigma, torch.deg2rad(degrees), room)
        for image, own, angle in zip(array(images), array(ours), degrees.tolist(), strict=True):
            expected = oracles.streaked(image, radius, sigma, angle)
            assert np.abs(own - expected).max() < 1e-5


@pytest.mark.parametrize("degrees", [(-45.0, 45.0), (-135.0, -45.0)])
def test_the_room_around_streaks_is_enough_at_every_angle(degrees):
    images, radius, sigma = torch.rand(64, 1, 48, 48, generator=seeded()), 10, 9.0
    ours = blur.motion_blurred(images, radius, sigma, degrees, seeded(1))
    turn = torch.rand(64, generator=seeded(1))
    angle = torch.deg2rad(degrees[0] + (degrees[1] - degrees[0]) * turn)
    wide = blur.streaked(images, radius, sigma, angle, [2 * radius] * 4)
    torch.testing.assert_close(ours, wide, rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", SIDES)
def test_an_elastic_transform_equals_opencv_and_scipy_at_equal_draws(levels, side):
    images = levels[side][:3].float() / 255
    rng = np.random.default_rng(0)
    grid = digital._grid(side, images.device)
    for amount, sigma, corner in TABLES[side]["elastic_transform"]:
        moves = corner * rng.uniform(-1, 1, (3, 3, 2)).astype(np.float32)
        arm, middle = side // 3, side // 2
        triangle = torch.tensor([[arm, arm], [arm, -arm], [-arm, -arm]]) + middle
        back = digital.affine_back(triangle.float(), torch.from_numpy(moves))
        places = grid @ back[:, None, :2] + back[:, None, None, 2]
        bent = digital.sampled(images, places, align_corners=True)
        expected = np.stack(
            [oracles.affine(i, m) for i, m in zip(array(images), moves, strict=True)]
        )
        off = np.abs(array(bent) - expected)
        assert off.max() < 0.02
        assert off.mean() < 1e-3
        fields = rng.uniform(-1, 1, (3, 2, side, side)).astype(np.float32)
        smooth = blur.gaussian_blurred(torch.from_numpy(fields), sigma, 3.0, "reflect") * amount
        theirs = np.stack([oracles.smoothed(own, sigma) for own in fields]) * amount
        assert np.abs(smooth.numpy() - theirs).max() < 1e-3  # pixels
        ours = digital.sampled(images, grid + smooth.movedim(1, -1), align_corners=False)
        read = [
            oracles.warped(i, m)
            for i, m in zip(array(images), smooth.double().numpy(), strict=True)
        ]
        assert np.abs(array(ours) - np.stack(read)).max() < 1e-4


@pytest.mark.parametrize("decay", [1.4, 2.0, 3.0])
def test_plasma_has_the_spectrum_of_diamond_square(decay):
    n, rng = 64, np.random.default_rng(0)
    ours = weather.plasma(n, 64, decay, seeded()).double().numpy()
    theirs = np.stack([oracles.plasma(64, decay, rng) for _ in range(n)])
    assert ours.min() == 0
    assert ours.max() == 1
    for statistic in (
        lambda f: f.mean((1, 2)),
        lambda f: f.var((1, 2)),
        lambda f: np.square(np.diff(f, axis=1)).mean((1, 2)),
        lambda f: np.square(np.diff(f, axis=2)).mean((1, 2)),
        lambda f: np.square(f - np.roll(f, 16, 2)).mean((1, 2)),
    ):
        a, b = statistic(ours), statistic(theirs)
        error = math.sqrt((a.var() + b.var()) / n)
        assert abs(a.mean() - b.mean()) < 5 * error


def test_crystals_have_the_colours_and_contrast_of_the_photographs():
    for side in SIDES:
        ice = weather.crystals(200 if side == 64 else 40, side, seeded())
        error = 5 * 0.19 / math.sqrt(len(ice))
        mean = ice.mean((0, 2, 3))
        assert mean.tolist() == pytest.approx([0.57, 0.66, 0.70], abs=error)
        assert ice.std((2, 3)).mean() == pytest.approx(0.10, abs=0.01)


def test_frost_from_photographs_shows_crops_of_them(tmp_path):
    rng = np.random.default_rng(0)
    for k, name in enumerate(weather.PHOTOGRAPHS):
        grey = np.full((240, 260, 3), 40 * k + 20, np.uint8)
        grey[:120] += 10
        image = Image.fromarray(grey if k else rng.integers(0, 256, (240, 260, 3), np.uint8))
        image.save(tmp_path / name, quality=100)
    black = torch.zeros(40, 3, 224, 224)
    out = corruptions.corrupted(black, "frost", 1, seeded(), frost=tmp_path) / 0.4
    photograph = np.asarray(Image.open(tmp_path / "frost1.png")) / 255
    seen = set()
    for own in array(out):
        if own.std() < 0.1:  # two greys
            seen.add(round((own.max() * 255 - 30) / 40))
            continue
        seen.add(0)
        starts = [
            (y, x)
            for y, x in np.ndindex(16, 36)
            if np.abs(photograph[y, x] - own[0, 0]).max() < 1e-3
        ]
        assert any(
            np.abs(photograph[y : y + 224, x : x + 224] - own).max() < 1e-5 for y, x in starts
        )
    assert seen == {0, 1, 2, 3, 4}


# The published constants do not grow in every number (glass at 2 moves pixels once where 1 moves
# them twice; elastic trades wide bends for small ones), so the change does not grow either. These
# steps go down, in the oracles too; those of LEVEL are so small that they may go either way.
DOWN = {
    64: {"glass_blur": {2, 4}, "frost": {3}, "elastic_transform": {2, 3, 4, 5}},
    224: {"glass_blur": {2, 4}, "frost": {4}, "elastic_transform": {3}},
}
LEVEL = {64: {}, 224: {"snow": {3}, "fog": {4}}}


def steps_down(corrupt, images: torch.Tensor) -> set[int]:
    """Severities that change the images less than the one before."""
    clean = images.float() / 255
    mse = [float((corrupt(severity) - clean).square().mean()) for severity in SEVERITIES]
    return {s for s in SEVERITIES[1:] if mse[s - 1] <= mse[s - 2]}


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", NAMES)
def test_the_change_grows_with_severity_where_the_constants_do(levels, name, side):
    images = levels[side]
    down = steps_down(lambda s: corruptions.corrupted(floats(images), name, s, seeded(7)), images)
    assert down - LEVEL[side].get(name, set()) == DOWN[side].get(name, set())


@pytest.mark.parametrize("name", DOWN[64])
def test_where_severity_is_not_monotone_the_oracle_is_not_either(levels, name):
    images = levels[64][:24]

    def corrupt(severity):
        return by_oracle(name, images, TABLES[64][name][severity - 1], np.random.default_rng(7))

    assert steps_down(corrupt, images) == DOWN[64][name]


@pytest.mark.parametrize("name", NAMES)
def test_photographs_change_more_with_severity_too(photographs, name):
    down = steps_down(
        lambda s: corruptions.corrupted(floats(photographs), name, s, seeded(7)), photographs
    )
    assert down <= DOWN[224].get(name, set()) | LEVEL[224].get(name, set())


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_gives_the_same_images_in_either_layout(levels, name):
    pixels = levels[64].float() / 255
    last = pixels.to(memory_format=torch.channels_last)
    first = corruptions.corrupted(pixels, name, 3, seeded(3))
    again = corruptions.corrupted(last, name, 3, seeded(3))
    assert torch.equal(first, again)
    assert again.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(pixels, levels[64].float() / 255)  # the images given are left alone
    other = corruptions.corrupted(pixels, name, 3, seeded(4))
    assert torch.equal(first, other) == (name not in RANDOM)


@pytest.mark.parametrize("name", RANDOM)
def test_every_image_draws_its_own_noise(name):
    image = torch.rand(1, 3, 64, 64, generator=seeded())
    twice = corruptions.corrupted(image.expand(2, -1, -1, -1), name, 4, seeded())
    assert not torch.equal(*twice)


@pytest.mark.parametrize("name", NAMES)
def test_results_stay_in_range_at_the_ends_of_the_range(name):
    ends = torch.stack([torch.zeros(3, 64, 64), torch.ones(3, 64, 64)])
    for severity in (1, 5):
        out = corruptions.corrupted(ends, name, severity, seeded())
        assert out.isfinite().all()
        assert out.min() >= 0
        assert out.max() <= 1


def test_the_fifteen_names_are_those_of_the_folders_of_imagenet_c():
    assert len(set(NAMES)) == 15
    assert list(GROUPS) == ["noise", "blur", "weather", "digital"]
    assert all(set(table) == set(NAMES) for table in TABLES.values())
    assert all(len(cells) == 5 for table in TABLES.values() for cells in table.values())


def test_no_images_give_no_images():
    out = corruptions.corrupted(torch.empty(0, 3, 64, 64), "fog", 1, seeded())
    assert out.shape == (0, 3, 64, 64)


def test_the_sheet_has_a_row_a_corruption_and_the_clean_image_first(levels):
    image = levels[64][0].float() / 255
    cells = corruptions.sheet(image, seeded())
    assert cells.shape == (15, 6, 3, 64, 64)
    assert (cells[:, 0] == image).all()
    row = NAMES.index("contrast")
    assert torch.equal(
        cells[row, 5], corruptions.corrupted(image[None], "contrast", 5, seeded())[0]
    )


@pytest.mark.parametrize(
    ("pixels", "name", "severity", "message"),
    [
        (torch.zeros(1, 3, 64, 64), "rain", 1, "Unknown corruption 'rain'.*gaussian_noise, shot"),
        (torch.zeros(1, 3, 64, 64), "fog", 6, "Severity 6; expected 1, 2, 3, 4 or 5"),
        (torch.zeros(1, 3, 64, 64), "fog", 0, "Severity 0"),
        (torch.zeros(1, 3, 96, 96), "fog", 1, "96 x 96.*224 x 224 and 64 x 64"),
        (torch.zeros(1, 3, 64, 224), "fog", 1, "64 x 224"),
        (torch.full((1, 3, 64, 64), 255.0), "fog", 1, "expected values in \\[0, 1\\]"),
        (torch.full((1, 3, 64, 64), -0.1), "fog", 1, "expected values in \\[0, 1\\]"),
        (torch.full((1, 3, 64, 64), math.nan), "fog", 1, "expected values in \\[0, 1\\]"),
    ],
)
def test_wrong_input_is_one_clear_error(pixels, name, severity, message):
    with pytest.raises(UserError, match=message):
        corruptions.corrupted(pixels, name, severity, seeded())


def test_a_folder_without_frost_says_which_photographs_are_missing(tmp_path):
    images = torch.zeros(1, 3, 64, 64)
    with pytest.raises(UserError, match="lacks frost1.png, frost2.png"):
        corruptions.corrupted(images, "frost", 1, seeded(), frost=tmp_path)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_gives_the_same_images_up_to_its_random_numbers(levels, name):
    images = floats(levels[64])
    here = corruptions.corrupted(images, name, 3, seeded()) - images
    generator = torch.Generator("cuda").manual_seed(0)
    there = corruptions.corrupted(images.cuda(), name, 3, generator).cpu() - images
    if name in EXACT:
        torch.testing.assert_close(there, here, rtol=0, atol=2e-3)
    elif name not in RANDOM:
        assert (there - here).abs().mean() < 0.4 / 255
    else:
        assert there.var() == pytest.approx(float(here.var()), rel=0.1)
