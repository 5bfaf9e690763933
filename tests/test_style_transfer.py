"""Style transfer, and the cue conflicts made with it."""

import dataclasses
from collections import Counter

import pytest
import torch

import toy_networks
from robustbias import manifest, studies
from robustbias.images import Images, floats, style_transfer
from robustbias.images.cue_conflict import cues
from robustbias.images.style_transfer import StyleTransfer
from robustbias.images.tiny_imagenet import TinyImageNet
from robustbias.networks import zoo
from robustbias.utils import MissingData, UserError

LAYERS = ("features.1", "features.4")
HOW = StyleTransfer(("toy",), per_category=2, depth=2, steps=40)


@pytest.fixture(scope="module")
def painter():
    return toy_networks.network(width=0.25, layers=LAYERS).requires_grad_(False)


def squares(n: int) -> torch.Tensor:
    """Light squares on dark ground, each at another place."""
    pixels = torch.full((n, 3, 64, 64), 60, dtype=torch.uint8)
    for i in range(n):
        pixels[i, :, 10 + i : 40 + i, 12:44] = 190
    return pixels


def stripes(n: int) -> torch.Tensor:
    """Stripes from edge to edge, each of another width."""
    x = torch.arange(64)
    rows = [((x // (2 + i)) % 2 * 200 + 20).expand(3, 64, 64) for i in range(n)]
    return torch.stack(rows).to(torch.uint8)


def distances(painter, pixels, shapes, textures):
    """Content and mean Gram distance of the images to their shapes and textures."""
    responses, content, style = (
        style_transfer._responses(painter, LAYERS, floats(images))
        for images in (pixels, shapes, textures)
    )
    distance = style_transfer._distance(responses[-1], content[-1])
    pairs = zip(responses, style, strict=True)
    grams = [
        style_transfer._distance(style_transfer.gram(a), style_transfer.gram(b)) for a, b in pairs
    ]
    return distance, torch.stack(grams).mean(0)


def test_an_image_takes_on_the_texture_and_keeps_the_shape(painter):
    shapes, textures = squares(3), stripes(3)
    stylized = style_transfer.stylized(painter, shapes, textures, HOW, 3.0)
    assert stylized.dtype == torch.uint8
    assert stylized.shape == shapes.shape
    _, before = distances(painter, shapes, shapes, textures)
    content, after = distances(painter, stylized, shapes, textures)
    bare, _ = distances(painter, textures, shapes, textures)
    assert (after < before / 2).all()
    assert (content < bare).all()


def test_style_weighs_the_texture_against_the_shape(painter):
    shapes, textures = squares(2), stripes(2)
    found = []
    for style in (0.01, 10.0):
        stylized = style_transfer.stylized(painter, shapes, textures, HOW, style)
        found.append(distances(painter, stylized, shapes, textures))
    (content, texture), (content_loose, texture_close) = found
    assert (content < content_loose).all()
    assert (texture_close < texture).all()


def test_each_image_is_stylized_by_itself(painter):
    shapes, textures = squares(3), stripes(3)
    together = style_transfer.stylized(painter, shapes, textures, HOW, 3.0)
    single = style_transfer.stylized(painter, shapes, textures, HOW, 3.0, batch=1)
    assert (together.int() - single.int()).abs().float().mean() < 3  # bfloat16 sums in other orders


def test_gram_is_the_mean_product_of_units_over_places():
    maps = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]])
    assert style_transfer.gram(maps).tolist() == [[[2.5, 0.5], [0.5, 5.0]]]


def test_a_texture_is_the_inside_of_its_box():
    pixels = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    pixels[0, 0, 16:48, 16:48], pixels[1, 1, :, 32:] = 200, 100
    boxes = torch.tensor([[16, 16, 47, 47], [32, 0, 63, 63]])
    inside = style_transfer.cropped(pixels, boxes)
    assert inside.shape == pixels.shape
    assert (inside[0, 0, 1:-1, 1:-1] == 200).all()
    assert (inside[0, 1] == 0).all()
    assert (inside[1, 1, 1:-1, 1:-1] == 100).all()


def test_every_shape_meets_one_texture_of_each_other_category():
    pixels = torch.arange(12, dtype=torch.uint8)[:, None, None, None].expand(12, 3, 64, 64)
    photos = Images(pixels.contiguous(), torch.arange(12) // 4, ("a", "b", "c"))
    boxes = torch.tensor([0, 0, 63, 63]).expand(12, 4)
    chosen = torch.arange(12).view(3, 4)  # two shapes, then two textures of each category

    def stylize(shapes, textures):
        return shapes * 12 + textures

    found = style_transfer.conflicts(photos, boxes, chosen, ("bear", "bird", "boat"), stylize)
    assert len(found) == 3 * 2 * 2
    assert (found.shape != found.texture).all()
    values = {
        n: divmod(v, 12)
        for n, v in zip(found.names, found.pixels[:, 0, 0, 0].tolist(), strict=True)
    }
    for name, (shape, texture) in values.items():
        cue = cues(name)
        order = {"bear": 0, "bird": 4, "boat": 8}
        assert shape == order[cue.shape] + cue.shape_design - 1
        assert texture == order[cue.texture] + 2 + cue.texture_design - 1
    uses = Counter((cue.texture, cue.texture_design) for cue in map(cues, found.names))
    assert set(uses.values()) == {2}  # as many texture images as shape images, equally often


def test_bad_requests_are_told_so(painter):
    with pytest.raises(UserError, match="at least 1"):
        StyleTransfer(("toy",), steps=0)
    with pytest.raises(UserError, match="above 0"):
        StyleTransfer(("toy",), styles=(1.0, 0.0))
    with pytest.raises(UserError, match="at least one painter"):
        StyleTransfer(())
    with pytest.raises(UserError, match="has 2 probed layers"):
        style_transfer.stylized(
            painter, squares(1), stripes(1), dataclasses.replace(HOW, depth=3), 1.0
        )
    with pytest.raises(UserError, match=r"\[painting\]"):
        TinyImageNet().stylized_conflict("toy", 1.0)


@pytest.fixture
def tiny():
    """The real photographs, few of them stylized."""
    entry = manifest.study("tiny-imagenet")
    few = {"per_category": 1, "photographs": 40, "steps": 10}
    how = manifest.filled(StyleTransfer, entry.painting | few, "a test")
    source = TinyImageNet(entry.categories, transfer=how)
    try:
        source.val()
        zoo.load(manifest.network(how.painters[0]))
    except MissingData as missing:
        pytest.skip(str(missing))
    return source


def test_photographs_become_cue_conflicts(tiny, image_cache):
    painter = tiny.transfer.painters[0]
    found, other = (tiny.stylized_conflict(painter, style) for style in (1.0, 10.0))
    assert len(found) == 11 * 10
    assert found.pixels.shape[1:] == (3, 64, 64)
    assert len(set(found.names)) == len(found)
    assert found.names == other.names
    assert not torch.equal(found.pixels, other.pixels)
    assert torch.equal(tiny.stylized_conflict(painter, 1.0).pixels, found.pixels)  # from disk


def test_stylized_photographs_are_some_of_the_validation_images(tiny, image_cache):
    stylized, photos = tiny.stylized(), tiny.val()
    assert len(stylized) == 40
    index = torch.tensor([photos.names.index(name) for name in stylized.names])
    assert torch.equal(stylized.labels, photos.labels[index])
    changed = (stylized.pixels.int() - photos.pixels[index].int()).abs().float().mean((1, 2, 3))
    assert (changed > 0.5).all()


def test_painters_are_compared_with_nothing(tiny):
    study = studies.load("tiny-imagenet")
    assert not set(study.entry.painting["painters"]) & {entry.name for entry in study.entries}
