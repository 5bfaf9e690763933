"""Broden's layout, written and read back, and folders that are damaged or hostile."""

import csv
import functools

import numpy as np
import pytest
import torch
from PIL import Image

from robustbias.images import broden
from robustbias.images.concepts import Concepts
from robustbias.images.iconworld import IconWorld, World
from robustbias.utils import MissingData, UserError


@functools.cache
def world() -> IconWorld:
    return IconWorld(World(val_images=16))


@pytest.fixture
def folder(tmp_path):
    """Six images of the icon world as a Broden folder."""
    broden.write(tmp_path, world().concepts(6))
    return tmp_path


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def changed(folder, **fields) -> None:
    """Another first line in index.csv."""
    index = rows(folder / "index.csv")
    index[0] |= fields
    broden._write_table(folder / "index.csv", index)


def equal(one: Concepts, two: Concepts) -> None:
    assert torch.equal(one.pixels, two.pixels)
    assert one.names == two.names
    for category in one.names:
        assert torch.equal(one.maps[category].long(), two.maps[category].long())
        assert torch.equal(one.carried[category], two.carried[category])


def test_the_icon_world_is_read_back_as_it_was_written(folder):
    equal(broden.read(folder), world().concepts(6))
    equal(broden.read(folder, 2), world().concepts(6).take(torch.arange(2)))


def test_several_maps_whole_image_labels_and_missing_categories_are_read_back(tmp_path):
    g = torch.Generator().manual_seed(0)
    n = 5
    names = {
        "object": tuple(f"thing {i}" for i in range(300)),  # more than a byte holds
        "part": ("leg", "head"),
        "texture": ("dotted", "striped"),
    }
    known = torch.tensor([True, True, False, True, False])
    objects = torch.randint(0, 301, (n, 1, 6, 8), generator=g)
    parts = torch.randint(0, 3, (n, 2, 6, 8), generator=g) * known[:, None, None, None]
    texture = torch.tensor([[1, 2], [2, 0], [0, 0], [1, 0], [0, 0]])[:, :, None, None]
    written = Concepts(
        torch.randint(0, 256, (n, 3, 12, 16), generator=g, dtype=torch.uint8),
        {"object": objects, "part": parts, "texture": texture},
        names,
        {"object": torch.ones(n, dtype=torch.bool), "part": known, "texture": known},
    )
    broden.write(tmp_path, written)
    equal(broden.read(tmp_path), written)


def test_a_set_read_in_parts_has_the_pixels_and_labels_of_one_read_whole(folder, monkeypatch):
    whole = broden.read(folder)
    monkeypatch.setattr(broden, "MEMORY", 0)
    streamed = broden.read(folder)
    assert isinstance(streamed, broden.Streamed)
    assert (len(streamed), streamed.side, streamed.concepts) == (
        len(whole), whole.side, whole.concepts,
    )  # fmt: skip
    index = torch.tensor([4, 1, 2])
    equal(streamed.take(index), whole.take(index))
    assert torch.equal(streamed.pixels[:3], whole.pixels[:3])
    for images in (whole, streamed):
        regions, members = images.regions_of(index)
        assert torch.equal(members[regions], torch.cat(
            [whole.regions.concepts, whole.regions.carried], 1
        ).float()[whole.regions.index[index].flatten(1)])  # fmt: skip


def test_the_tables_have_the_columns_and_numbers_of_broden(folder):
    index = rows(folder / "index.csv")
    assert list(index[0]) == [
        "image", "split", "ih", "iw", "sh", "sw", "object", "texture", "color", "scene",
    ]  # fmt: skip
    assert (index[0]["ih"], index[0]["sw"]) == ("64", "32")
    label = {row["name"]: row for row in rows(folder / "label.csv")}
    assert set(label["cat"]) == {"number", "name", "category", "frequency", "coverage", "syns"}
    codes = rows(folder / "c_color.csv")
    assert list(codes[0]) == ["code", "number", "name", "frequency", "coverage"]
    assert codes[0]["code"] == "1"
    for row in codes:
        assert label[row["name"]]["number"] == row["number"]
    mask = np.asarray(Image.open(folder / "images" / index[0]["object"]))
    shown = mask[..., 0] + 256 * mask[..., 1].astype(int)
    names = {int(row["number"]): row["name"] for row in rows(folder / "label.csv")}
    assert {names[n] for n in np.unique(shown) if n} == {"airplane"}
    summary = {row["name"]: row for row in rows(folder / "category.csv")}
    assert summary["object"]["count"] == "16"


def test_a_concept_of_two_categories_has_one_number(tmp_path):
    labels = torch.ones(1, 1, 2, 2, dtype=torch.uint8)
    everywhere = torch.ones(1, dtype=torch.bool)
    both = {"object": ("fabric",), "material": ("fabric",)}
    written = Concepts(
        torch.zeros(1, 3, 4, 4, dtype=torch.uint8),
        dict.fromkeys(both, labels), both, dict.fromkeys(both, everywhere),
    )  # fmt: skip
    broden.write(tmp_path, written)
    (row,) = rows(tmp_path / "label.csv")
    assert row["category"] == "object(1);material(1)"
    equal(broden.read(tmp_path), written)


@pytest.mark.parametrize(
    "path", ["../../secret.png", "/etc/passwd", "a/../../index.csv", "..\\secret.png", "link.png"]
)
@pytest.mark.parametrize("field", ["image", "object"])
def test_paths_that_leave_the_folder_are_refused(folder, tmp_path_factory, path, field):
    outside = tmp_path_factory.mktemp("outside") / "secret.png"
    Image.new("RGB", (64, 64)).save(outside)
    (folder / "images" / "link.png").symlink_to(outside)
    changed(folder, **{field: path})
    with pytest.raises(UserError, match="a path outside images/; refused"):
        broden.read(folder)


def test_damage_is_named(folder):
    index = rows(folder / "index.csv")
    with pytest.raises(UserError, match="lists 6 images; 7 were asked for"):
        broden.read(folder, 7)
    mask = folder / "images" / index[0]["object"]
    content = mask.read_bytes()
    mask.write_bytes(b"<html>")
    with pytest.raises(UserError, match="is not a readable image"):
        broden.read(folder)
    Image.new("RGB", (16, 16)).save(mask)
    with pytest.raises(UserError, match="is 16 x 16; index.csv says 32 x 32"):
        broden.read(folder)
    mask.unlink()
    with pytest.raises(UserError, match="is not a readable image"):
        broden.read(folder)
    mask.write_bytes(content)
    changed(folder, sh="16")
    with pytest.raises(UserError, match="masks of 2 sizes"):
        broden.read(folder)
    (folder / "c_object.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="no column code, number, name"):
        broden.read(folder)


def test_a_missing_folder_says_how_to_get_it(tmp_path):
    with pytest.raises(MissingData, match="robustbias fetch broden.*often down"):
        broden.read(tmp_path / "nothing")
