import csv

import pytest
import torch

from robustbias import manifest
from robustbias.images import cue_conflict
from robustbias.images.cue_conflict import CATEGORIES, class_names, entry_level, membership
from robustbias.utils import UserError

# ImageNet classes of every category: Geirhos et al. 2019, as in the protocol of the study.
COUNTS = {
    "airplane": 1, "bear": 4, "bicycle": 2, "bird": 49, "boat": 5, "bottle": 7, "car": 3, "cat": 6,
    "chair": 4, "clock": 3, "dog": 109, "elephant": 2, "keyboard": 2, "knife": 1, "oven": 1,
    "truck": 8,
}  # fmt: skip

# Indices of some categories among the 1,000 outputs, as published in the same file as the WNIDs.
INDICES = {
    "bear": [294, 295, 296, 297],
    "boat": [472, 554, 625, 814, 914],
    "cat": [281, 282, 283, 284, 285, 286],
    "knife": [499],
    "truck": [555, 569, 656, 675, 717, 734, 864, 867],
}


def test_the_16_categories_gather_207_imagenet_classes():
    assert {category: len(wnids) for category, wnids in entry_level().items()} == COUNTS
    assert sum(COUNTS.values()) == 207
    assert tuple(COUNTS) == CATEGORIES


def test_the_imagenet_classes_are_1000_sorted_wnids_without_repeats():
    wnids = class_names("imagenet_classes.txt")
    assert len(set(wnids)) == 1000
    assert list(wnids) == sorted(wnids)
    assert all(len(w) == 9 and w[0] == "n" and w[1:].isdigit() for w in wnids)


@pytest.mark.parametrize("category", INDICES)
def test_wnids_lie_where_the_published_indices_say(category):
    table = membership(class_names("imagenet_classes.txt"), CATEGORIES)
    rows = table[:, CATEGORIES.index(category)].nonzero()[:, 0]
    assert rows.tolist() == INDICES[category]


def test_no_class_belongs_to_two_categories_and_columns_sum_to_the_counts():
    table = membership(class_names("imagenet_classes.txt"), CATEGORIES)
    assert table.sum(0).tolist() == list(COUNTS.values())
    assert table.sum(1).max() == 1


def test_tiny_imagenet_covers_11_categories_with_26_classes():
    wnids = class_names("tiny_imagenet_classes.txt")
    assert len(wnids) == 200
    assert list(wnids) == sorted(wnids)
    assert set(wnids) <= set(class_names("imagenet_classes.txt"))
    covered = {c: len(set(w) & set(wnids)) for c, w in entry_level().items()}
    assert [c for c, n in covered.items() if n == 0] == [
        "airplane", "bicycle", "clock", "knife", "oven",
    ]  # fmt: skip
    assert sum(covered.values()) == 26


def test_category_words_are_their_own_classes():
    torch.testing.assert_close(membership(("cat", "dog"), ("dog", "cat")), torch.eye(2).flip(0))


def test_a_category_without_a_class_is_an_error():
    with pytest.raises(UserError, match="belongs to oven; leave"):
        membership(class_names("tiny_imagenet_classes.txt"), ("cat", "oven"))


def test_an_unknown_category_is_an_error_listing_the_known():
    with pytest.raises(UserError, match=r"unknown categories .'teapot'.*airplane, bear"):
        cue_conflict.checked(("cat", "teapot"))


def test_the_class_order_of_tiny_imagenet_is_that_of_its_class_table(data_directory):
    table = data_directory / manifest.dataset("tiny-imagenet").path / "classes.tsv"
    if not table.exists():
        pytest.skip("this copy of Tiny-ImageNet has no class table")
    rows = list(csv.DictReader(table.read_text().splitlines(), delimiter="\t"))
    ordered = sorted(rows, key=lambda row: int(row["label"]))
    assert tuple(row["wnid"] for row in ordered) == class_names("tiny_imagenet_classes.txt")
