"""Files are whole or absent."""

import pytest

from robustbias import files
from robustbias.errors import UserError


def test_a_file_takes_its_name_only_when_it_is_whole(tmp_path):
    path = tmp_path / "folder" / "table.txt"
    with files.atomic(path) as partial:
        partial.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "table.txt"
    path.write_text("old")

    def write():
        with files.atomic(path) as partial:
            partial.write_text("ne")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_clear_error(tmp_path):
    def write():
        with files.atomic(tmp_path / "table.txt"):
            raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="No space left.*Nothing was left"):
        write()
    assert not list(tmp_path.iterdir())


def test_sha256_is_that_of_the_standard_test_vector(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert files.sha256(tmp_path / "abc") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
