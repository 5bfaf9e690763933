"""The embedded world holds what it promises: two cues, nothing else, and the truth of pixels."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from robustbias.images import floats, icons, textures
from robustbias.images.iconworld import COLOURS, SCENES, IconWorld, World, _grid
from robustbias.utils import UserError

SMALL = World(train_images=512, val_images=320, conflict_repeats=2)


@pytest.fixture(scope="module")
def world():
    return IconWorld(SMALL)


def test_images_are_a_function_of_seed_and_epoch(world):
    again = IconWorld(SMALL)
    assert torch.equal(world.train(3).pixels, again.train(3).pixels)
    assert not torch.equal(world.train(3).pixels, world.train(4).pixels)
    assert not torch.equal(world.train(3).pixels, world.train(3, seed=1).pixels)
    assert not torch.equal(world.val().pixels, IconWorld(SMALL, seed=1).val().pixels)
    assert world.digest == again.digest
    changed = dataclasses.replace(SMALL, texture_contrast=0.2)
    assert world.digest != IconWorld(changed).digest


def test_conflict_stimuli_are_all_pairs_and_are_named_after_both_cues(world):
    stimuli = world.cue_conflict()
    assert len(stimuli) == 16 * 15 * 2
    assert (stimuli.shape != stimuli.texture).all()
    assert len(set(stimuli.names)) == len(stimuli)
    shape, texture = (word.rstrip("0123456789") for word in stimuli.names[100].split("-"))
    assert world.categories[stimuli.shape[100]] == shape
    assert world.categories[stimuli.texture[100]] == texture


def test_the_stimuli_of_a_cluster_differ_in_texture_alone(world):
    stimuli = world.cue_conflict()
    cluster = [n.split("-")[0] for n in stimuli.names]
    first = list(range(15))
    assert len({cluster[i] for i in first}) == 1
    pixels = floats(stimuli.pixels[first])
    spread = pixels.std(0).mean(0)
    # the background is one picture plus pixel noise; the object carries fifteen textures
    assert spread.quantile(0.1) < 1.3 * SMALL.pixel_noise
    assert spread.max() > 3 * SMALL.pixel_noise


def test_images_and_conflicts_of_one_drawing_are_one_cluster(world):
    """A drawing is drawn again and again, in other poses; a shape image may be of any."""
    val = world.val(160)
    drawings = val.clusters
    assert len(drawings) == 160
    assert len(drawings.unique()) < 89  # the held-out drawings
    of_category = world.designs.category[drawings]
    assert torch.equal(of_category, val.labels)
    assert torch.equal(val.take(torch.tensor([5, 3])).clusters, drawings[[5, 3]])
    assert torch.equal(world.edges(160).clusters, drawings)
    conflicts = world.cue_conflict()
    named = {name.split("-")[0] for name in conflicts.names}
    assert len(named) <= 16 * SMALL.conflict_repeats
    assert {int(n.lstrip("abcdefghijklmnopqrstuvwxyz")) for n in named} <= set(range(1, 1000))


def test_separate_cues_share_no_pose_and_are_of_two_categories(world):
    conflicts = world.separate_cues()
    assert len(conflicts) == SMALL.val_images
    assert (conflicts.shape != conflicts.texture).all()
    assert len(set(conflicts.names)) == len(conflicts)
    counts = torch.bincount(conflicts.texture, minlength=16)
    assert counts.min() > 0
    assert len(conflicts.pixels.flatten(1).unique(dim=0)) == len(conflicts)


def test_conflict_masks_are_where_the_textures_of_a_cluster_differ(world):
    masks, pixels = world.conflict_masks(), floats(world.cue_conflict().pixels)
    assert masks.shape == (len(pixels), 64, 64)
    for first in range(0, len(pixels), 15 * 7):
        assert (masks[first : first + 15] == masks[first]).all()
        spread = pixels[first : first + 15].mean(1).std(0)
        inside = F.avg_pool2d(masks[first][None, None].float(), 5, 1, 2)[0, 0]
        # outside only pixel noise tells the stimuli apart; the edge is left out
        assert (spread[inside == 1] > 1.6 * SMALL.pixel_noise).float().mean() > 0.9
        assert (spread[inside == 0] > 1.6 * SMALL.pixel_noise).float().mean() < 0.01
    with pytest.raises(UserError, match="64 pixels wide, not 32"):
        world.conflict_masks(32)


def test_validation_shows_held_out_designs_only(world):
    held = torch.tensor(icons.load().held_out)
    for held_out in (False, True):
        draw = world._draw(torch.arange(160) % 16, world._generator("t"), held_out)
        assert (held[draw["design"]] == held_out).all()
        own = icons.load().category[draw["design"]]
        assert torch.equal(own, torch.arange(160) % 16)
        assert (draw["morph"] > 0).any() != held_out


def test_brightness_colour_and_scene_do_not_tell_the_category(world):
    images = world.train(0)
    big = torch.cat([world.train(epoch).pixels for epoch in range(8)])
    labels = torch.cat([world.train(epoch).labels for epoch in range(8)])
    mean = floats(big).mean((2, 3))
    between = torch.stack([mean[labels == c].mean(0) for c in range(16)]).var(0, correction=0)
    # with no difference between 16 groups of m images, their means vary by variance / m
    assert (between < 3 * mean.var(0) / (len(big) / 16)).all()
    assert images.pixels.shape == (512, 3, 64, 64)


@pytest.mark.parametrize(("cue", "other"), [("shape", "texture"), ("texture", "shape")])
def test_a_single_cue_leaves_the_other_at_chance(monkeypatch, cue, other):
    source, drawn = IconWorld(SMALL, cue=cue), {}
    original = source._images

    def seen(shape, texture, *arguments, **options):
        drawn.update(shape=shape, texture=texture)
        return original(shape, texture, *arguments, **options)

    monkeypatch.setattr(source, "_images", seen)
    labels = source.train(0).labels
    assert torch.equal(drawn[cue], labels)
    assert (drawn[other] == labels).float().mean() < 0.15


def maps(world: IconWorld, n: int = SMALL.val_images) -> dict[str, torch.Tensor]:
    """Concept maps of the validation images, at their full size."""
    labels, generator = torch.arange(n) % 16, world._generator("val")
    draw = world._draw(labels, generator, held_out=True) | {"texture": labels}
    return world._render(draw, generator, concepts=True)[1]


def test_concept_masks_are_the_truth_of_the_pixels(world):
    images, masks = world.val(), maps(world)
    assert set(masks) == {"object", "texture", "color", "scene"}
    inside = masks["object"] > 0
    for image in range(0, 320, 37):
        assert set(masks["object"][image].unique().tolist()) == {0, int(images.labels[image]) + 1}
    assert torch.equal(inside, masks["texture"] > 0)
    assert torch.equal(inside, masks["scene"] == 0)
    assert masks["color"].min() >= 1
    assert masks["color"].max() <= len(COLOURS)
    assert masks["scene"].max() == len(SCENES)
    assert 0.08 < inside.float().mean() < 0.6
    # inside and outside differ in brightness by at least half the smallest gap, in the mean
    grey = floats(images.pixels).mean(1)
    gap = [(grey[i][inside[i]].mean() - grey[i][~inside[i]].mean()).abs() for i in range(320)]
    assert torch.stack(gap).quantile(0.05) > SMALL.shape_contrast_low / 2


def test_silhouettes_have_no_texture_and_texture_images_have_no_shape(world):
    def roughness(images):
        x = floats(images.pixels).mean(1)
        return (x[:, 20:44, 21:45] - x[:, 20:44, 20:44]).abs().mean()

    assert roughness(world.silhouettes()) < 0.6 * roughness(world.val())
    filled = floats(world.texture_only().pixels).mean(1)
    assert filled[:, :4].std((1, 2)).min() > 0.02  # texture up to the edge


def test_distorted_images_are_the_validation_images_in_another_dress(world):
    val, inside = world.val(96), maps(world, 96)["object"] > 0
    black, edges = world.black_silhouettes(96), world.edges(96)
    assert torch.equal(black.pixels[:, 0] == 0, inside)
    assert set(black.pixels.unique().tolist()) == {0, 255}
    assert ((edges.pixels[:, 0] == 0) <= inside).all()  # an outline lies on its object
    assert 0 < (edges.pixels[:, 0] == 0).sum() < inside.sum() / 2
    stylized = world.stylized(96)
    far = F.max_pool2d(inside[:, None].float(), 3, 1, 1)[:, 0] == 0  # beyond the soft edge
    changed = (stylized.pixels != val.pixels).any(1)
    assert changed[far].float().mean() < 1e-3  # strokes too thin to be in the mask
    assert changed[inside].float().mean() > 0.5
    for images in (black, edges, stylized, world.silhouettes(96), world.texture_only(96)):
        assert images.names == val.names
        assert torch.equal(images.labels, val.labels)


def test_a_foreign_texture_is_of_no_category_and_as_strong_as_the_own_ones(world):
    pages = world._atlas[:, 0]
    assert len(pages) == len(textures.FAMILIES) + len(textures.FOREIGN)
    torch.testing.assert_close(pages.std((1, 2)), torch.ones(len(pages)), atol=0.15, rtol=0)
    flat = pages.flatten(1)
    likeness = (flat @ flat.T / flat.shape[1])[16:, :16]
    assert likeness.abs().max() < 0.5


def test_the_grid_is_the_affine_map_of_torch():
    affine = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.affine_grid(affine, (5, 1, 32, 32), align_corners=False)
    torch.testing.assert_close(_grid(affine, 32), expected)
    torch.testing.assert_close(_grid(affine, 32, torch.zeros(5, 2, 4, 4)), expected)


def test_wrong_requests_are_refused(world):
    with pytest.raises(UserError, match="pixel_noise = -1"):
        World(pixel_noise=-1.0)
    with pytest.raises(UserError, match="64 pixels wide, not 96"):
        world.cue_conflict(96)
    with pytest.raises(UserError, match="n = -1"):
        world.val(-1)
    for n in (10**8, 10**9):
        with pytest.raises(
            UserError, match=rf"{n} images of 64 .* do not fit .* at most \d+\."
        ) as e:
            world.concepts(n)
        most = int(str(e.value).split()[-1].rstrip("."))
        world._check_memory(most)
        assert 1000 < most < n
