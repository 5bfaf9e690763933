import re

import pytest

from robustbias import manifest
from robustbias.images.cue_conflict import CATEGORIES, class_names
from robustbias.images.doctor import COUNTS


@pytest.mark.parametrize("name", manifest.datasets())
def test_an_entry_says_what_it_is_where_it_is_from_and_under_which_terms(name):
    entry = manifest.dataset(name)
    assert all((entry.title, entry.source, entry.licence, entry.citation, entry.note))
    assert entry.kind in COUNTS
    assert bool(entry.path) != (entry.kind == "embedded")
    assert bool(entry.images) != (entry.kind == "embedded")


@pytest.mark.parametrize("name", manifest.datasets())
def test_classes_are_the_categories_or_a_file_of_wnids(name):
    entry = manifest.dataset(name)
    if entry.classes:
        assert entry.classes == CATEGORIES
    if entry.class_file:
        assert len(class_names(entry.class_file)) in (200, 1000)


@pytest.mark.parametrize("name", manifest.datasets())
def test_a_file_has_an_address_and_a_whole_hash_or_none(name):
    for file in manifest.dataset(name).files:
        assert re.fullmatch(r"https?://\S+", file.url) or file.md5  # else it is had by hand
        assert re.fullmatch(r"[0-9a-f]{64}|", file.sha256)
        assert re.fullmatch(r"[0-9a-f]{32}|", file.md5)
        assert bool(file.sha256) == bool(file.bytes)
