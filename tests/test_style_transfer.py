"""Style transfer, and the cue conflicts made with it."""

import dataclasses

import pytest
import torch

import toy_networks
from robustbias import manifest, studies
from robustbias.images import Images, floats, style_transfer
from robustbias.images.cue_conflict import membership
from robustbias.images.style_transfer import StyleTransfer
from robustbias.images.tiny_imagenet import TinyImageNet
from robustbias.networks import zoo
from robustbias.utils import MissingData, UserError

LAYERS = ("features.1", "features.4")
HOW = StyleTransfer("toy", per_category=2, depth=2, steps=40)


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
    stylized = style_transfer.stylized(painter, shapes, textures, HOW)
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
        how = dataclasses.replace(HOW, style=style)
        stylized = style_transfer.stylized(painter, shapes, textures, how)
        found.append(distances(painter, stylized, shapes, textures))
    (content, texture), (content_loose, texture_close) = found
    assert (content < content_loose).all()
    assert (texture_close < texture).all()


def test_each_image_is_stylized_by_itself(painter):
    shapes, textures = squares(3), stripes(3)
    together = style_transfer.stylized(painter, shapes, textures, HOW)
    single = style_transfer.stylized(painter, shapes, textures, HOW, batch=1)
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
    pixels = torch.arange(6, dtype=torch.uint8)[:, None, None, None].expand(6, 3, 64, 64)
    photos = Images(pixels.contiguous(), torch.arange(6) // 2, ("a", "b", "c"))
    boxes = torch.tensor([0, 0, 63, 63]).expand(6, 4)
    chosen = torch.tensor([[0, 1], [2, 3], [5, 4]])

    def stylize(shapes, textures):
        return shapes * 10 + textures

    found = style_transfer.conflicts(photos, boxes, chosen, ("bear", "bird", "boat"), stylize)
    assert len(found) == 3 * 2 * 2
    assert (found.shape != found.texture).all()
    values = dict(zip(found.names, found.pixels[:, 0, 0, 0].tolist(), strict=True))
    assert values["bear1-bird1"] == 2
    assert values["boat2-bear2"] == 41
    names = [f"{found.categories[s]}" for s in found.shape.tolist()]
    assert all(name.startswith(s) for name, s in zip(found.names, names, strict=True))


class Answers(torch.nn.Module):
    """Says of every image the class its brightness names."""

    def forward(self, pixels):
        return torch.eye(4)[(pixels[:, 0, 0, 0] * 255).round().long()]


def test_chosen_photographs_fill_their_image_and_are_named_rightly():
    labels = torch.arange(40) % 4
    said = labels.clone()
    said[:12] = (said[:12] + 1) % 4  # the first 12 are named wrongly
    pixels = said.to(torch.uint8)[:, None, None, None].expand(40, 3, 64, 64).contiguous()
    boxes = torch.tensor([2, 2, 60, 60]).repeat(40, 1)
    boxes[12:20] = torch.tensor([0, 0, 31, 40])  # too small
    boxes[20:24] = torch.tensor([0, 0, 20, 63])  # too narrow
    photos = Images(pixels, labels, ("p", "q", "r", "s"))
    chosen = style_transfer.choose(Answers(), photos, boxes, torch.eye(4)[:2] > 0, 4)
    assert [sorted(row) for row in chosen.tolist()] == [[24, 28, 32, 36], [25, 29, 33, 37]]
    with pytest.raises(UserError, match="per_category = 4 or fewer"):
        style_transfer.choose(Answers(), photos, boxes, torch.eye(4)[:2] > 0, 5)
    # naming another class of the same category is right enough: 0, 4 and 8 were called q
    either = torch.tensor([[True, True, False, False]])
    assert {0, 4, 8} < set(style_transfer.choose(Answers(), photos, boxes, either, 11)[0].tolist())


def test_bad_requests_are_told_so(painter):
    with pytest.raises(UserError, match="at least 1"):
        StyleTransfer("toy", steps=0)
    with pytest.raises(UserError, match="above 0"):
        StyleTransfer("toy", style=0.0)
    with pytest.raises(UserError, match="has 2 probed layers"):
        style_transfer.stylized(painter, squares(1), stripes(1), dataclasses.replace(HOW, depth=3))
    with pytest.raises(UserError, match=r"\[painting\]"):
        TinyImageNet().stylized_conflict()


@pytest.fixture
def tiny():
    """The real photographs, few of them stylized."""
    entry = manifest.study("tiny-imagenet")
    how = StyleTransfer(**entry.painting | {"per_category": 2})
    source = TinyImageNet(entry.categories, transfer=how)
    try:
        source.val()
        zoo.load(manifest.network(how.painter))
    except MissingData as missing:
        pytest.skip(str(missing))
    return source


def test_photographs_become_cue_conflicts(tiny, image_cache):
    found = tiny.stylized_conflict()
    assert len(found) == 11 * 10 * 2
    assert found.pixels.shape[1:] == (3, 64, 64)
    assert len(set(found.names)) == len(found)
    assert torch.equal(tiny.stylized_conflict().pixels, found.pixels)  # from disk
    painter = zoo.load(manifest.network(tiny.transfer.painter))
    belongs = membership(tiny.classes, tiny.categories)
    with torch.no_grad():
        scores = painter(floats(found.pixels)).softmax(1) @ belongs / belongs.sum(0)
    by_shape, by_texture = (scores.argmax(1) == cue for cue in (found.shape, found.texture))
    bias = by_shape.sum() / (by_shape | by_texture).sum()
    assert 0.35 < bias < 0.65  # the weight of the texture was chosen for it


def test_stylized_photographs_keep_their_order(tiny, image_cache):
    few = tiny.val().take(torch.arange(40))
    tiny.val = lambda: few
    tiny.transfer = dataclasses.replace(tiny.transfer, steps=3)
    stylized = tiny.stylized()
    assert stylized.names == few.names
    assert torch.equal(stylized.labels, few.labels)
    changed = (stylized.pixels.int() - few.pixels.int()).abs().float().mean((1, 2, 3))
    assert (changed > 0.5).all()


def test_the_painter_is_compared_with_nothing(tiny):
    study = studies.load("tiny-imagenet")
    assert study.entry.painting["painter"] not in {entry.name for entry in study.entries}
