"""Concept sets: what they refuse, regions, colours of pixels, and the sets of the sources."""

import pytest
import torch

from robustbias import manifest
from robustbias.images import Images, floats, textures
from robustbias.images import concepts as images_concepts
from robustbias.images.concepts import Concepts
from robustbias.images.iconworld import IconWorld, World
from robustbias.images.tiny_imagenet import TinyImageNet
from robustbias.utils import MissingData, UserError


def labels(n: int, names: int, *shape: int, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, names + 1, (n, *shape), generator=g, dtype=torch.uint8)


def concepts(n: int = 6, **changes) -> Concepts:
    fields = {
        "pixels": torch.zeros(n, 3, 8, 8, dtype=torch.uint8),
        "maps": {"object": labels(n, 3, 1, 4, 4), "part": labels(n, 2, 2, 4, 4, seed=1)},
        "names": {"object": ("a", "b", "c"), "part": ("d", "e")},
        "carried": {"object": torch.ones(n, dtype=torch.bool), "part": torch.arange(n) % 2 > 0},
    }
    return Concepts(**fields | changes)


def test_regions_say_all_about_every_pixel():
    own = concepts()
    regions = own.regions
    assert own.side == (4, 4)
    assert own.concepts == (
        ("object", "a"), ("object", "b"), ("object", "c"), ("part", "d"), ("part", "e"),
    )  # fmt: skip
    for column, (category, name) in enumerate(own.concepts):
        code = 1 + own.names[category].index(name)
        expected = (own.maps[category] == code).any(1) & own.carried[category][:, None, None]
        assert torch.equal(regions.concepts[regions.index, column], expected)
    for column, category in enumerate(own.categories):
        expected = own.carried[category][:, None, None].expand(-1, 4, 4)
        assert torch.equal(regions.carried[regions.index, column], expected)


def test_a_set_keeps_its_order_when_images_are_taken():
    own, index = concepts(), torch.tensor([4, 0])
    taken = own.take(index)
    assert torch.equal(taken.maps["part"], own.maps["part"][index])
    assert taken.carried["part"].tolist() == [False, False]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"maps": {}, "names": {}, "carried": {}}, "a concept set needs masks"),
        ({"names": {"object": ("a", "b", "c")}}, "the same categories"),
        (
            {"maps": {"object": labels(6, 3, 1, 4, 4), "part": labels(6, 2, 1, 5, 4)}},
            "masks of several sizes",
        ),
        (
            {"maps": {"object": labels(5, 3, 1, 4, 4), "part": labels(6, 2, 1, 4, 4)}},
            "n = 6 images",
        ),
        ({"names": {"object": ("a", "b"), "part": ("d", "e")}}, "0 for none and 1..2"),
    ],
)
def test_masks_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        concepts(**changes)


def test_the_icon_worlds_concepts_draw_shape_and_texture_independently():
    world = IconWorld(World(val_images=32))
    own = world.concepts(640)
    assert len(own) == 640
    assert own.side == (32, 32)
    assert [len(own.names[c]) for c in ("object", "texture", "color", "scene")] == [16, 16, 8, 4]
    shape = own.maps["object"].flatten(1).amax(1).long()
    texture = own.maps["texture"].flatten(1).amax(1).long()
    assert (shape.bincount(minlength=17)[1:] == 40).all()
    assert 0.03 < (shape == texture).float().mean() < 0.1  # 1 in 16, not all
    assert torch.equal(own.maps["object"] > 0, own.maps["texture"] > 0)
    assert torch.equal(own.maps["object"] > 0, own.maps["scene"] == 0)
    assert torch.equal(own.pixels, world.concepts(640).pixels)
    assert not torch.equal(own.pixels[:32], world.val(32).pixels)


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (0x000000, "black"), (0xFFFFFF, "white"), (0xFF0000, "red"), (0x0000FF, "blue"),
        (0x101010, "black"), (0x7A5230, "brown"), (0x90A040, "green"), (0x888A85, "grey"),
        (0x6FA8DC, "blue"), (0xFFB6C1, "pink"), (0xFF9900, "orange"), (0xFFEE00, "yellow"),
    ],
)  # fmt: skip
def test_colours_get_the_name_people_give_them(code, name):
    rgb = torch.tensor([code >> 16, code >> 8 & 255, code & 255])[None, :, None, None] / 255
    assert list(images_concepts.SHADES)[int(images_concepts.named(rgb)) - 1] == name


def test_lab_is_that_of_the_literature():
    """Red, mid-grey and white: CIELAB under D65, as in any table of the sRGB primaries."""
    rgb = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0.5], [1.0, 1, 1]])[:, :, None, None]
    expected = torch.tensor([[53.24, 80.09, 67.20], [53.39, 0, 0], [100.0, 0, 0]])
    torch.testing.assert_close(images_concepts.lab(rgb)[:, :, 0, 0], expected, atol=0.05, rtol=0)


def test_texture_patches_show_one_texture_each_up_to_the_edge():
    pixels, family = textures.texture_patches(32, 64, torch.Generator().manual_seed(0))
    assert family.bincount().tolist() == [2] * len(textures.FAMILIES)
    grey = floats(pixels).mean(1)
    assert grey[:, :6].std((1, 2)).min() > 0.01
    horizontal, vertical = grey.diff(dim=2).abs().mean((1, 2)), grey.diff(dim=1).abs().mean((1, 2))
    names = list(textures.FAMILIES)
    upright, lying = names.index("vertical stripes"), names.index("horizontal stripes")
    assert (horizontal > 1.5 * vertical)[family == upright].all()
    assert (vertical > 1.5 * horizontal)[family == lying].all()


def test_the_object_of_a_photograph_is_its_box():
    images = Images(
        torch.full((2, 3, 64, 64), 200, dtype=torch.uint8), torch.tensor([1, 0]), ("x", "y")
    )
    boxes = torch.tensor([[10, 20, 29, 59], [0, 0, 63, 63]])
    tiles = Images(images.pixels, torch.tensor([1, 0]), ("skin", "fur"))
    own = images_concepts.concepts(
        images, boxes, ("cat", "dog"), tiles, 4, torch.Generator().manual_seed(0)
    )
    objects = own.maps["object"][:, 0]
    expected = torch.zeros(32, 32)
    expected[10:30, 5:15] = 2  # half the side; a box of 20 x 40 pixels
    assert torch.equal(objects[0].float(), expected)
    assert (objects[1] == 1).all()
    assert (objects[2:] == 0).all()
    assert own.carried["object"].tolist() == [True] * 2 + [False] * 6
    assert own.carried["texture"].tolist() == [False] * 2 + [True] * 2 + [False] * 4
    assert own.carried["pattern"].tolist() == [False] * 4 + [True] * 4
    assert own.maps["texture"].flatten().tolist() == [0, 0, 2, 1, 0, 0, 0, 0]
    assert own.maps["pattern"].flatten().tolist() == [0, 0, 0, 0, 1, 2, 3, 4]
    assert own.names["texture"] == ("skin", "fur")
    white = list(images_concepts.SHADES).index("grey") + 1
    assert (own.maps["color"][:2] != 0).all()
    assert own.maps["color"][0].unique().tolist() in ([white], [white + 6])


def test_real_photographs_have_boxes_colours_and_textures(data_directory, image_cache):
    source = TinyImageNet(directory=data_directory)
    if not (data_directory / "tiny-imagenet" / "val_annotations.txt").is_file():
        pytest.skip("this copy of Tiny-ImageNet has no annotation file beside its shards")
    own = source.concepts(100)
    assert len(own) == 100
    assert int(own.carried["object"].sum()) == 80
    assert len(own.names["object"]) == 26
    boxes = (own.maps["object"][:80] > 0).float().mean((1, 2, 3))
    assert 0.2 < boxes.mean() < 0.9
    with pytest.raises(UserError, match="expected 1 to 1625"):
        source.concepts(5000)


def test_missing_or_foreign_boxes_are_refused(tmp_path):
    images = Images(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), torch.zeros(1).long(), ("x",))
    with pytest.raises(MissingData, match="no val_annotations.txt"):
        images_concepts.boxes(tmp_path, images)
    (tmp_path / "val_annotations.txt").write_text("val_0.JPEG\tn1\t0\t0\t5\t5\n")
    with pytest.raises(UserError, match="is not the published annotation file"):
        images_concepts.boxes(tmp_path, images)


def test_the_manifest_names_broden():
    assert manifest.dataset("broden").kind == "broden"
