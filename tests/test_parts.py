"""Measures in parts: killed and gone on from, shared by processes, and the same as in one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import parts_toy
import toy_study
from robustbias import tables
from robustbias.utils import UserError

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _store(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTBIAS_TABLES", str(tmp_path / "tables"))


def started(log: Path, seconds: float, worker: str = "") -> subprocess.Popen:
    """A process that measures the toy table."""
    paths = os.pathsep.join([str(HERE), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": paths, "ROBUSTBIAS_WORKER": worker}
    words = [sys.executable, HERE / "parts_toy.py", log, str(seconds)]
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)


def computed(log: Path) -> list[int]:
    return [int(line) for line in log.read_text().split()] if log.exists() else []


@pytest.fixture
def expected(tmp_path, monkeypatch) -> list[float]:
    """The table of one undisturbed process, outside of the store."""
    monkeypatch.setattr(parts_toy, "LOG", tmp_path / "expected", raising=False)
    monkeypatch.setattr(parts_toy, "SECONDS", 0, raising=False)
    return parts_toy.sevenths(toy_study.study())["value"].tolist()


def test_a_killed_measure_goes_on_and_ends_with_the_table_of_an_unbroken_one(tmp_path, expected):
    log = tmp_path / "log"
    process = started(log, 0.3)
    while len(computed(log)) < 3:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = computed(log)
    assert len(before) < 7
    output, _ = started(log, 0).communicate()
    assert output.strip() == str(expected)
    again = computed(log)[len(before) :]
    assert set(before) | set(again) == set(range(7))
    assert len(set(before) & set(again)) <= 1  # what was written between the part and its file
    assert not list((tmp_path / "tables").rglob("*.safetensors"))  # they go when the table is there


def test_workers_share_the_parts_and_all_have_the_table_of_one_process(tmp_path, expected):
    log = tmp_path / "log"
    workers = [started(log, 0.5, f"{i}/2") for i in (1, 2)]
    for worker in workers:
        assert worker.communicate()[0].strip() == str(expected)
    assert sorted(computed(log)) == list(range(7))


def test_processes_that_are_no_workers_wait_for_the_one_that_measures(tmp_path, expected):
    log = tmp_path / "log"
    processes = [started(log, 0.1) for _ in range(2)]
    for process in processes:
        assert process.communicate()[0].strip() == str(expected)
    assert sorted(computed(log)) == list(range(7))


def test_a_damaged_part_is_computed_again(tmp_path, monkeypatch):
    calls = []

    def task():
        calls.append(1)
        return {"x": torch.arange(6).view(2, 3).T}

    monkeypatch.setattr(tables, "_KEPT", [tmp_path])
    first = tables.parts({"a/b": task})["a/b"]["x"]
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:20])
    assert torch.equal(tables.parts({"a/b": task})["a/b"]["x"], first)
    assert torch.equal(tables.parts({"a/b": task})["a/b"]["x"], first)
    assert len(calls) == 2


@pytest.mark.parametrize("text", ["3", "0/2", "3/2", "a/b", "1/"])
def test_a_worker_that_is_none_is_refused(text, monkeypatch):
    monkeypatch.setenv("ROBUSTBIAS_WORKER", text)
    with pytest.raises(UserError, match="expected for instance 3/8"):
        tables.worker()
