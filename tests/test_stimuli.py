import os

import numpy as np
import pytest
import torch
from PIL import Image

from robustbias.images import Images, cue_conflict
from robustbias.images.cue_conflict import CATEGORIES
from robustbias.images.tiny_imagenet import TinyImageNet
from robustbias.utils import MissingData, UserError
from toy_images import bomb

ELEVEN = TinyImageNet().categories  # of Tiny-ImageNet


def saved(folder, name, pixels, mode="RGB"):
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype=np.uint8), mode=None).convert(mode).save(file)
    return file


@pytest.fixture
def conflicts(tmp_path, image_cache):
    """Five stimuli of 8 x 8 noise, one of them with two cues of one category."""
    noise = np.random.default_rng(0)
    for name in (
        "cat/cat3-dog12",
        "cat/cat3-cat1",
        "dog/dog10-oven2",
        "dog/dog1-cat2",
        "oven/oven1-dog1",
    ):
        saved(tmp_path / "conflict", f"{name}.png", noise.integers(0, 256, (8, 8, 3)))
    return tmp_path / "conflict"


def test_the_cues_index_the_categories_and_agreeing_stimuli_are_dropped(conflicts):
    found = cue_conflict.cue_conflict(conflicts, 8, ("dog", "cat", "oven"))
    assert found.names == ("cat3-dog12", "dog1-cat2", "dog10-oven2", "oven1-dog1")
    assert found.shape.tolist() == [1, 0, 0, 2]
    assert found.texture.tolist() == [0, 1, 2, 0]


def test_both_cues_have_to_be_among_the_categories(conflicts):
    assert cue_conflict.cue_conflict(conflicts, 8, ("cat", "dog")).names == (
        "cat3-dog12",
        "dog1-cat2",
    )


def test_pixels_are_untouched_at_the_stored_side(conflicts):
    found = cue_conflict.cue_conflict(conflicts, 8, ("cat", "dog"))
    stored = np.asarray(Image.open(conflicts / "cat" / "cat3-dog12.png"))
    np.testing.assert_array_equal(found.pixels[0].permute(1, 2, 0).numpy(), stored)


@pytest.mark.parametrize("read", [cue_conflict.cue_conflict, cue_conflict.labelled])
def test_changed_stimuli_are_read_again_though_size_and_time_are_kept(conflicts, read):
    file = conflicts / "cat" / "cat3-dog12.png"
    saved(conflicts, "cat/cat3-dog12.png", np.full((8, 8, 3), 10))
    before, status, digest = read(conflicts, 8), file.stat(), cue_conflict.digest(conflicts)
    saved(conflicts, "cat/cat3-dog12.png", np.full((8, 8, 3), 20))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    after = read(conflicts, 8)
    assert cue_conflict.digest(conflicts) != digest
    at = before.names.index("cat3-dog12")
    assert before.pixels[at].unique().tolist() == [10]
    assert after.pixels[at].unique().tolist() == [20]


def test_a_smaller_side_averages_instead_of_skipping_pixels(tmp_path, image_cache):
    stripes = np.tile(np.array([0, 255] * 16)[None, :, None], (32, 1, 3))
    saved(tmp_path, "cat/cat1-dog1.png", stripes)
    small = cue_conflict.cue_conflict(tmp_path, 8).pixels
    assert small.shape == (1, 3, 8, 8)
    assert (small.float() - 127.5).abs().max() < 16  # skipping would give 0 or 255


def test_what_was_read_once_comes_from_the_cache(conflicts, image_cache, monkeypatch):
    first = cue_conflict.cue_conflict(conflicts, 4)
    assert len(list(image_cache.rglob("*.npy"))) == 1
    monkeypatch.setattr(cue_conflict, "_image", lambda *_: pytest.fail("decoded again"))
    torch.testing.assert_close(cue_conflict.cue_conflict(conflicts, 4).pixels, first.pixels)


def test_a_changed_file_is_read_again(conflicts):
    before = cue_conflict.cue_conflict(conflicts, 8, ("cat", "dog")).pixels
    digest = cue_conflict.digest(conflicts)
    saved(conflicts, "cat/cat3-dog12.png", np.full((8, 8, 3), 7))
    assert (cue_conflict.cue_conflict(conflicts, 8, ("cat", "dog")).pixels[0] == 7).all()
    assert not (before[0] == 7).all()
    assert cue_conflict.digest(conflicts) != digest


def test_changing_the_returned_pixels_does_not_change_the_cache(conflicts):
    cue_conflict.cue_conflict(conflicts, 8).pixels.zero_()
    assert cue_conflict.cue_conflict(conflicts, 8).pixels.float().mean() > 50


def test_a_drawing_in_the_alpha_channel_lies_on_white(tmp_path, image_cache):
    drawing = np.zeros((8, 8, 4), dtype=np.uint8)  # black everywhere; opaque in one corner only
    drawing[:2, :2, 3] = 255
    (tmp_path / "dog").mkdir()
    Image.fromarray(drawing).save(tmp_path / "dog" / "dog1.png")
    pixels = cue_conflict.labelled(tmp_path, 8).pixels[0, 0]
    assert (pixels[:2, :2] == 0).all()
    assert pixels.sum() == 255 * 60


def test_grey_drawings_get_three_channels_and_their_category(tmp_path, image_cache):
    saved(tmp_path, "dog/dog2.png", np.full((8, 8), 9), "L")
    saved(tmp_path, "cat/cat1.png", np.full((8, 8), 5), "L")
    found = cue_conflict.labelled(tmp_path, 8, ("dog", "cat"))
    assert found.labels.tolist() == [1, 0]
    assert found.classes == ("dog", "cat")
    assert found.names == ("cat1", "dog2")
    assert found.pixels.flatten(1).float().mean(1).tolist() == [5, 9]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cat/dog1-cat1.png", "lies in cat/ but its shape is 'dog'"),
        ("teapot/teapot1-cat1.png", "but its shape is 'teapot'"),
        ("cat/picture.png", "'picture.png' does not name a stimulus"),
    ],
)
def test_a_misplaced_stimulus_is_an_error(tmp_path, name, message):
    saved(tmp_path, name, np.zeros((4, 4, 3)))
    with pytest.raises(UserError, match=message):
        cue_conflict.cue_conflict(tmp_path, 4)


def test_a_stimulus_that_is_no_square_image_is_an_error(tmp_path, image_cache):
    saved(tmp_path, "cat/cat1-dog1.png", np.zeros((4, 6, 3)))
    with pytest.raises(UserError, match="is 6 x 4 pixels; expected a square"):
        cue_conflict.cue_conflict(tmp_path, 4)
    (tmp_path / "cat" / "cat1-dog1.png").write_text("<html>not found</html>")
    with pytest.raises(UserError, match=r"cat1-dog1.png is not a readable image"):
        cue_conflict.cue_conflict(tmp_path, 4)
    assert list(image_cache.rglob("*.*")) == []


@pytest.mark.parametrize(
    ("side", "message"),
    [(9_000, "has 9000 x 9000 pixels; expected at most 64 million"), (40_000, "not a readable")],
)
def test_a_small_file_of_a_huge_image_is_refused(tmp_path, image_cache, side, message):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "cat1-dog1.png").write_bytes(bomb(side, side))
    with pytest.raises(UserError, match=rf"cat1-dog1\.png.*{message}"):
        cue_conflict.cue_conflict(tmp_path, 4)


def test_missing_stimuli_and_bad_sizes_are_errors(tmp_path, conflicts):
    with pytest.raises(MissingData, match=r"no folder .*robustbias doctor"):
        cue_conflict.cue_conflict(tmp_path / "absent", 8)
    with pytest.raises(MissingData, match="holds no cue conflict between bear, bird"):
        cue_conflict.cue_conflict(conflicts, 8, ("bear", "bird"))
    with pytest.raises(MissingData, match="holds no stimulus of bear"):
        cue_conflict.labelled(conflicts, 8, ("bear",))
    with pytest.raises(UserError, match="stimulus size 0"):
        cue_conflict.cue_conflict(conflicts, 0)


def test_the_published_stimuli_are_1200_conflicts_75_a_shape(data_directory, image_cache):
    found = cue_conflict.cue_conflict(data_directory / "texture-vs-shape" / "cue-conflict", 64)
    assert found.pixels.shape == (1200, 3, 64, 64)
    assert found.categories == CATEGORIES
    assert found.shape.bincount().tolist() == [75] * 16
    assert (found.shape != found.texture).all()
    assert len(set(found.names)) == 1200


def test_eleven_categories_leave_550_conflicts_at_every_size(data_directory, image_cache):
    folder = data_directory / "texture-vs-shape" / "cue-conflict"
    for size in (64, 96, 224):
        assert cue_conflict.cue_conflict(folder, size, ELEVEN).pixels.shape == (550, 3, size, size)


@pytest.mark.parametrize("name", ["filled-silhouettes", "edges"])
def test_published_drawings_are_dark_on_white_10_a_category(data_directory, image_cache, name):
    found = cue_conflict.labelled(data_directory / "texture-vs-shape" / name, 224)
    assert found.labels.bincount().tolist() == [10] * 16
    corners = found.pixels[:, 0, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners > 200).float().mean() > 0.8
    assert found.pixels.amin((1, 2, 3)).float().max() < 100


def test_large_objects_are_chosen_by_their_boxes_alone():
    labels = torch.arange(40) % 4
    boxes = torch.tensor([2, 2, 60, 60]).repeat(40, 1)
    boxes[12:20] = torch.tensor([0, 0, 31, 40])  # too small
    boxes[20:24] = torch.tensor([0, 0, 20, 63])  # too narrow
    photos = Images(torch.zeros(40, 3, 64, 64, dtype=torch.uint8), labels, ("p", "q", "r", "s"))
    belongs = torch.tensor([[True, True, False, False], [False, False, True, False]])
    chosen = cue_conflict.large(photos, boxes, belongs, 7)
    assert sorted(chosen[1].tolist()) == [2, 6, 10, 26, 30, 34, 38]
    assert set(chosen[0].tolist()) <= {0, 1, 4, 5, 8, 9, *range(24, 40)}
    assert set((chosen[0] % 4).tolist()) <= {0, 1}
    with pytest.raises(UserError, match="just 7 photographs with a large object, not 8"):
        cue_conflict.large(photos, boxes, belongs, 8)


def test_tiles_are_the_middle_of_the_box_mirrored_at_their_scale():
    photograph = torch.arange(64).expand(3, 64, 64).to(torch.uint8)  # a ramp along x
    row = cue_conflict.tiled(photograph, torch.tensor([16, 16, 47, 47]), 1.0, 64)[0, 5].tolist()
    assert row[:16] == list(range(24, 40))
    assert row[16:32] == row[:16][::-1]
    assert row[32:48] == row[:16]
    twice = cue_conflict.tiled(photograph, torch.tensor([16, 16, 47, 47]), 2.0, 64)[0, 5].tolist()
    assert twice[:32] == sorted(twice[:32])
    assert twice[32:] == twice[:32][::-1]


def test_a_collage_is_the_texture_of_another_category_inside_the_silhouette():
    drawings = torch.full((4, 3, 64, 64), 255, dtype=torch.uint8)
    for i in range(4):
        drawings[i, :, 8 * i : 8 * i + 20, 10:50] = 0
    names = ("dog1", "dog10", "cat1", "cat2")
    silhouettes = Images(drawings, torch.tensor([0, 0, 1, 1]), ("dog", "cat"), names)
    photos = torch.arange(10, 50, 10, dtype=torch.uint8)[:, None, None, None].expand(4, 3, 64, 64)
    photos = Images(photos.contiguous(), torch.tensor([0, 0, 1, 1]), ("dog", "cat"))
    boxes = torch.tensor([0, 0, 63, 63]).expand(4, 4)
    chosen = torch.tensor([[0, 1], [2, 3]])
    found = cue_conflict.collage(silhouettes, photos, boxes, chosen, 1.0)
    assert len(found) == 4  # each silhouette with one texture of the other category
    assert (found.shape != found.texture).all()
    assert {name.split("-")[0] for name in found.names} == set(names)
    for name, pixels in zip(found.names, found.pixels, strict=True):
        cue = cue_conflict.cues(name)
        inside = drawings[names.index(name.split("-")[0])] == 0
        texture = 10 * (2 * (cue.texture == "cat") + cue.texture_design)
        assert pixels[inside].unique().tolist() == [texture]
        assert pixels[~inside].unique().tolist() == [cue_conflict.GROUND]
    assert len({name.split("-")[1] for name in found.names}) == 4  # no texture image twice
