"""The bank of drawings: enough of them, split so that held out means unseen."""

import math

import pytest
import torch
from PIL import Image

from robustbias.images import icons
from robustbias.utils import MissingData, UserError


def test_every_category_has_at_least_six_designs_of_both_splits():
    bank = icons.load()
    assert len(bank.categories) == 16
    held = torch.tensor(bank.held_out)
    for index, category in enumerate(bank.categories):
        own = bank.category == index
        assert own.sum() >= 6, category
        assert (own & held).sum() >= 2, category
        fonts = {n.split()[1] for n, o in zip(bank.names, own, strict=True) if o}
        assert len(fonts) >= 2, category


def test_no_held_out_drawing_is_also_a_training_drawing():
    bank = icons.load()
    held = torch.tensor(bank.held_out)
    masks = (bank.masks > 127).flatten(1).float()
    both = masks[held] @ masks[~held].T
    either = masks[held].sum(1)[:, None] + masks[~held].sum(1)[None] - both
    overlap = torch.where(
        bank.category[held][:, None] == bank.category[~held][None], both / either, 0
    )
    assert overlap.max() < 0.97


def test_signed_distances_are_those_to_the_nearest_pixel_of_the_other_kind():
    mask = torch.zeros(1, 24, 24, dtype=torch.uint8)
    mask[0, 5:9, 6:13] = 255
    inside = mask[0] > 127
    found = icons.signed_distances(mask)[0]
    points = [(y, x) for y in range(24) for x in range(24)]
    for y, x in points:
        other = [math.dist((y, x), p) for p in points if inside[p] != inside[y, x]]
        expected = (min(other) - 0.5) * (1 if inside[y, x] else -1)
        assert found[y, x].item() == pytest.approx(max(-12.0, min(12.0, expected)), abs=1e-4)


def test_strokes_add_and_cut():
    drawing = icons._drawn(["+ rectangle 10 10 90 90", "- ellipse 50 50 20 20"])
    assert drawing.getpixel((drawing.width // 5, drawing.height // 5)) == 255
    assert drawing.getpixel((drawing.width // 2, drawing.height // 2)) == 0
    assert isinstance(drawing, Image.Image)


@pytest.mark.parametrize("stroke", ["+ circle 1 2 3", "rectangle 1 2 3 4", "+ ellipse 1 2 x 4"])
def test_a_wrong_stroke_is_refused(stroke):
    with pytest.raises(UserError, match="is not"):
        icons._drawn([stroke])


def test_a_missing_font_package_says_what_to_install():
    entry = {"package": "no_such_icons", "file": "a.ttf", "sha256": ""}
    with pytest.raises(MissingData, match="no_such_icons.*make setup"):
        icons._font("a", entry)


def test_a_font_of_another_version_is_refused():
    entry = {"package": "qtawesome", "file": "fonts/elusiveicons-webfont-2.0.ttf", "sha256": "0"}
    with pytest.raises(UserError, match="not the font that designs.toml pins"):
        icons._font("ei", entry)
