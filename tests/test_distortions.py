"""Each distortion takes what it says and nothing else, against arithmetic done by hand."""

import math

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import toy_study
from robustbias.images import distortions
from robustbias.images.distortions import (
    DISTORTIONS,
    SUPPRESSIONS,
    distorted,
    rotated,
    saturated,
    scrambled,
    suppressed,
)
from robustbias.utils import UserError


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.rand(6, 3, 32, 32, generator=seeded(1))


@pytest.mark.parametrize("name", DISTORTIONS)
def test_a_distortion_keeps_the_form_and_range_and_is_a_function_of_the_seed(name, pixels):
    before = pixels.clone()
    out = distorted(pixels, name, seeded())
    assert out.shape == pixels.shape
    assert out.dtype == pixels.dtype
    assert 0 <= out.min() <= out.max() <= 1
    assert torch.equal(out, distorted(pixels, name, seeded()))
    assert torch.equal(pixels, before)
    assert distortions.removed(name)


@pytest.mark.parametrize("patches", [2, 4, 8])
def test_no_patch_of_a_scrambled_image_is_in_its_place_and_none_is_lost(patches):
    """Trap: a random permutation leaves a patch in place in two of three images."""
    side = 4 * patches
    numbers = torch.arange(patches**2).reshape(patches, patches).float() / patches**2
    image = numbers.repeat_interleave(4, 0).repeat_interleave(4, 1)
    out = scrambled(image.expand(50, 3, side, side), seeded(), patches=patches)
    blocks = out.unfold(2, 4, 4).unfold(3, 4, 4).flatten(4)
    assert (blocks == blocks[..., :1]).all()  # patches are moved whole
    found = blocks[:, 0, :, :, 0].reshape(50, -1)
    assert (found != numbers.flatten()).all()
    assert torch.equal(found.sort(1).values, numbers.flatten().sort().values.expand(50, -1))
    assert torch.equal(out[:, 0], out[:, 2])  # colours move together


def test_every_patch_is_turned_in_its_place():
    image = torch.rand(20, 3, 32, 32, generator=seeded())
    out = rotated(image, seeded(), patches=4)
    turns = []
    for i in range(20):
        for y in range(0, 32, 8):
            for x in range(0, 32, 8):
                patch, turned = (part[i, :, y : y + 8, x : x + 8] for part in (image, out))
                found = [k for k in range(4) if torch.equal(patch.rot90(k, (1, 2)), turned)]
                turns += found
    assert len(turns) == 20 * 16
    assert set(turns) == {1, 2, 3}
    with pytest.raises(UserError, match="5 x 5 patches of 32 x 32"):
        rotated(image, seeded(), patches=5)


@pytest.mark.parametrize("d", [4, 12])
def test_the_bilateral_filter_is_that_of_opencv(d):
    levels = np.random.default_rng(0).integers(0, 256, (24, 20, 3)).astype(np.uint8)
    smooth = cv2.GaussianBlur(levels, (5, 5), 1.5)  # neighbours alike, as in a photograph
    images = torch.from_numpy(np.stack([levels, smooth])).permute(0, 3, 1, 2) / 255
    out = distortions.bilateral(images, seeded(), d=d, sigma=170.0)
    for found, image in zip(out, (levels, smooth), strict=True):
        expected = cv2.bilateralFilter(image, d, 170, 170)
        off = (found.permute(1, 2, 0) * 255).numpy() - expected
        assert np.abs(off).max() < 0.75  # OpenCV rounds to whole levels
        assert np.abs(off).mean() < 0.3
    assert (out[0] - images[0]).abs().mean() > 0.05


def test_a_blur_is_that_of_opencv():
    image = np.random.default_rng(1).random((32, 32, 3)).astype(np.float32)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    out = distortions.blurred(pixels, seeded(), sigma=2.0)
    expected = cv2.GaussianBlur(image, (13, 13), 2.0, borderType=cv2.BORDER_REFLECT_101)
    np.testing.assert_allclose(out[0].permute(1, 2, 0).numpy(), expected, atol=1e-5)


def test_no_channel_stays_in_its_place(pixels):
    out = distortions.channel_shuffled(pixels, seeded())
    for image, changed in zip(pixels, out, strict=True):
        order = [[torch.equal(a, b) for b in image].index(True) for a in changed]
        assert order in ([1, 2, 0], [2, 0, 1])


@pytest.mark.parametrize("name", SUPPRESSIONS)
def test_a_suppression_keeps_form_and_range_and_is_a_function_of_the_seed(name, pixels):
    out = suppressed(pixels, name, seeded())
    assert out.shape == pixels.shape
    assert -1e-6 <= out.min() <= out.max() <= 1 + 1e-6
    assert torch.equal(out, suppressed(pixels, name, seeded()))
    assert not torch.equal(out, pixels)
    assert distortions.removed(name)


def test_noise_of_an_octave_has_no_energy_outside_it():
    grey = torch.full((8, 3, 64, 64), 0.5)
    for low in (1, 4, 16):
        band = {"low": low / 64, "high": 2 * low / 64 - 1e-6}
        noise = distortions.noisy(grey, seeded(), sigma=0.05, **band) - grey
        assert noise.std() == pytest.approx(0.05, rel=0.05)
        frequency, energy = power(noise)
        kept = (frequency >= low / 64 - 1e-6) & (frequency < 2 * low / 64)
        assert energy[kept].sum() / energy.sum() > 0.999


def test_all_derangements_are_equally_likely():
    """There are 9 derangements of 4 things."""
    drawn = distortions.derangements(9000, 4, seeded())
    kinds, counts = drawn.unique(dim=0, return_counts=True)
    assert len(kinds) == 9
    assert (counts.float() / 1000 - 1).abs().max() < 0.15


def test_patches_must_divide_the_image(pixels):
    for patches in (1, 5):
        with pytest.raises(UserError, match=f"{patches} x {patches} patches of 32 x 32"):
            scrambled(pixels, seeded(), patches=patches)


def test_greyscale_is_what_pillow_makes_of_the_image(pixels):
    image = Image.fromarray((pixels[0] * 255).byte().permute(1, 2, 0).numpy())
    exact = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    expected = torch.from_numpy(np.array(image.convert("L")) / 255).float()
    out = distortions.greyscale(exact[None].float(), seeded())[0]
    torch.testing.assert_close(out, expected.expand(3, -1, -1), atol=1.5 / 255, rtol=0)


def test_otsus_threshold_is_the_best_of_all_thresholds(pixels):
    """The oracle tries every one of 256 thresholds."""
    x = (pixels[:, :1] ** 3 * 0.7).mul(255).round() / 255 + 1 / 512  # inside a step, skewed
    found = distortions.otsu(x)

    def apart(values, threshold):
        low, high = values[values < threshold], values[values >= threshold]
        if not len(low) or not len(high):
            return 0.0
        return float(len(low) * len(high) * (low.mean() - high.mean()) ** 2) / len(values) ** 2

    for image, threshold in zip(x, found, strict=True):
        best = max(apart(image.flatten(), t / 256) for t in range(1, 256))
        assert apart(image.flatten(), threshold) == pytest.approx(best, rel=1e-3)


def test_black_and_white_is_black_and_white_and_keeps_the_order_of_grey_levels():
    ramp = torch.linspace(0.3, 0.7, 64).expand(1, 3, 64, 64).contiguous()
    out = distortions.black_and_white(ramp, seeded())
    assert out.unique().tolist() == [0, 1]
    assert (out[0, 0, 0].diff() >= 0).all()
    assert out.mean() == pytest.approx(0.5, abs=0.02)


def test_saturation_does_nothing_at_p_2_and_leaves_two_levels_at_infinity(pixels):
    torch.testing.assert_close(saturated(pixels, seeded(), p=2.0), pixels, atol=1e-6, rtol=0)
    assert saturated(pixels, seeded(), p=math.inf).unique().tolist() == [0, 1]
    far = saturated(pixels, seeded(), p=1024.0)
    assert (far - saturated(pixels, seeded(), p=math.inf)).abs().mean() < 0.01
    assert saturated(torch.tensor([0.3]).view(1, 1, 1, 1), seeded(), p=4.0).item() == pytest.approx(
        0.5 - math.sqrt(0.4) / 2
    )
    half = torch.full((1, 3, 2, 2), 0.5)
    assert (saturated(half, seeded(), p=math.inf) == 0.5).all()
    with pytest.raises(UserError, match="p = 0.0"):
        saturated(pixels, seeded(), p=0.0)


def power(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(frequency, power) of every coefficient, by the full transform."""
    spectrum = torch.fft.fft2(x - x.mean((2, 3), keepdim=True)).abs().square().mean((0, 1))
    line = torch.fft.fftfreq(x.shape[-1])
    return torch.hypot(line[:, None], line), spectrum


@pytest.mark.parametrize(
    ("band", "inside"),
    [({}, (0.0, 1.0)), ({"high": 0.125}, (0.0, 0.125)), ({"low": 0.25}, (0.25, 1.0))],
)
def test_noise_has_the_energy_and_the_band_asked_for(band, inside):
    grey = torch.full((8, 3, 64, 64), 0.5)
    noise = distortions.noisy(grey, seeded(), sigma=0.05, **band) - grey
    assert noise.std() == pytest.approx(0.05, rel=0.02)
    frequency, energy = power(noise)
    kept = (frequency >= inside[0] - 1e-6) & (frequency <= inside[1] + 1e-6)
    assert energy[kept].sum() / energy.sum() > 0.999


def test_filters_part_an_image_into_low_and_high_frequencies():
    line = torch.arange(64).float()
    slow = 0.2 * torch.sin(2 * math.pi * line / 64)
    fast = 0.2 * torch.sin(2 * math.pi * 16 * line / 64)
    image = (0.5 + slow + fast).expand(1, 3, 64, 64)
    gain = [math.exp(-2 * (math.pi * 0.02 * cycles) ** 2) for cycles in (1, 16)]
    low = distortions.low_passed(image, seeded())[0, 0, 0]
    torch.testing.assert_close(low, 0.5 + gain[0] * slow + gain[1] * fast, atol=1e-5, rtol=0)
    high = distortions.high_passed(image, seeded())[0, 0, 0]
    torch.testing.assert_close(high - 0.5, image[0, 0, 0] - low, atol=1e-5, rtol=0)


def test_drawings_are_black_on_white_and_a_contour_is_the_border_of_the_object_alone():
    square = torch.zeros(1, 32, 32, dtype=torch.bool)
    square[:, 10:22, 8:20] = True
    black = distortions.silhouettes(square)
    assert black[0, :, 15, 15].tolist() == [0, 0, 0]
    assert black[0, :, 0, 0].tolist() == [255, 255, 255]
    outline = distortions.contours(square)[0, 0] == 0
    assert outline.sum() == 4 * 12 - 4
    assert outline[10, 8:20].all()
    assert not outline[11:21, 9:19].any()


def test_wrong_requests_are_refused(pixels):
    with pytest.raises(UserError, match="unknown distortion 'blurred'; valid: greyscale"):
        distorted(pixels, "blurred", seeded())
    for wrong in (pixels * 255, pixels - 0.5, pixels * torch.nan):
        with pytest.raises(UserError, match=r"expected values in \[0, 1\]"):
            distorted(wrong, "greyscale", seeded())


def test_examples_show_every_distortion_of_the_same_images():
    shown = distortions.examples(toy_study.Source(), 4)
    assert list(shown) == ["clean", *DISTORTIONS]  # the toy has no stimuli
    assert all(pixels.shape == (4, 3, 8, 8) for pixels in shown.values())
