"""Files are whole or absent."""

import os
import signal
import subprocess
import sys

import pytest

from robustbias import utils
from robustbias.utils import UserError


def test_a_file_takes_its_name_only_when_it_is_whole(tmp_path):
    path = tmp_path / "folder" / "table.txt"
    with utils.atomic(path) as partial:
        partial.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "table.txt"
    path.write_text("old")

    def write():
        with utils.atomic(path) as partial:
            partial.write_text("ne")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_clear_error(tmp_path):
    def write():
        with utils.atomic(tmp_path / "table.txt"):
            raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="No space left.*Nothing was left"):
        write()
    assert not list(tmp_path.iterdir())


def test_no_pattern_meets_a_temporary_file(tmp_path):
    path = tmp_path / "01_table.csv.gz"
    with utils.atomic(path) as partial:
        partial.write_text("half")
        assert partial.name == path.name  # pandas, for one, compresses by the suffix
        assert not list(tmp_path.glob("*.gz"))
        assert not list(tmp_path.glob("[!.]*"))


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    code = f"""
import os, pathlib, signal
from robustbias import utils
with utils.atomic(pathlib.Path({str(tmp_path)!r}) / "table.csv") as partial:
    partial.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    run = subprocess.run([sys.executable, "-c", code], check=False)
    assert run.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    with utils.atomic(tmp_path / "a.txt") as first, utils.atomic(tmp_path / "b.txt") as second:
        assert not left.exists()
        first.write_text("a")
        second.write_text("b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt"]


def test_a_folder_that_cannot_be_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"could not write .*File exists"),
        utils.atomic(tmp_path / "file" / "table.txt"),
    ):
        pass


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_is_one_clear_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="Permission denied"), utils.atomic(tmp_path / "table.txt"):
        pass


def test_a_full_disk_is_one_clear_error_for_weights_too(tmp_path):
    """Safetensors reports it as an error of its own; a limit on file sizes stands for the disk."""
    code = f"""
import resource, signal, pathlib, torch, safetensors.torch
from robustbias import utils
from robustbias.utils import UserError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with utils.atomic(pathlib.Path({str(tmp_path)!r}) / "a.safetensors") as partial:
        safetensors.torch.save_file({{"a": torch.ones(10000)}}, partial)
except UserError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "could not write" in run.stdout
    assert "File too large" in run.stdout
    assert not list(tmp_path.iterdir())


def test_sha256_is_that_of_the_standard_test_vector(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert utils.sha256(tmp_path / "abc") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
