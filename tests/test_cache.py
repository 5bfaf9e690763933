import errno

import numpy as np
import pytest

from robustbias import images
from robustbias.images import cache_folder, cached_pixels
from robustbias.utils import UserError

PIXELS = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4)


def test_an_array_is_made_once_for_each_key(image_cache):
    calls = []
    for key in (["a", "b"], ["a", "b"], ["a", "c"]):
        pixels = cached_pixels("test", key, lambda: calls.append(1) or PIXELS)
        np.testing.assert_array_equal(pixels.numpy(), PIXELS)
    assert len(calls) == 2


def test_other_code_makes_other_pixels(image_cache, tmp_path):
    makers = []
    for at, line in enumerate(["return PIXELS", "return PIXELS  # a comment", "return PIXELS + 1"]):
        path = tmp_path / f"maker{at}.py"
        path.write_text(f"def made():\n    {line}\n")
        values = {"PIXELS": PIXELS}
        exec(compile(path.read_text(), str(path), "exec"), values)
        makers.append(values["made"])
    same = [cached_pixels("test", ["a"], made).numpy() for made in makers]
    assert len(list(image_cache.rglob("*.npy"))) == 2
    np.testing.assert_array_equal(same[2], PIXELS + 1)


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(image_cache, monkeypatch):
    def full(file, array):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(images.np, "save", full)
    with pytest.raises(UserError, match=r"could not write .*No space left on device"):
        cached_pixels("test", ["a"], lambda: PIXELS)
    assert [path for path in image_cache.rglob("*") if path.is_file()] == []


def test_the_cache_lies_in_the_build_folder_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv("ROBUSTBIAS_CACHE", raising=False)
    assert cache_folder().parts[-2:] == ("_build", "cache")


@pytest.mark.parametrize("size", [0, 5, 60, 130, -1, "longer", "another"])
def test_a_damaged_array_is_made_again(image_cache, size):
    cached_pixels("test", ["a"], lambda: PIXELS)
    (path,) = (path for path in image_cache.rglob("*") if path.is_file())
    whole = path.read_bytes()
    if size == "another":
        np.save(path, np.ones(3))
    else:
        path.write_bytes(whole + b"x" if size == "longer" else whole[:size])
    np.testing.assert_array_equal(cached_pixels("test", ["a"], lambda: PIXELS).numpy(), PIXELS)
    assert path.read_bytes() == whole
