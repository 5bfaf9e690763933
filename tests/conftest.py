"""Fixtures every test may use."""

import os
from collections import Counter
from pathlib import Path

import pytest

import toy_study
from robustbias.manifest import ROOT
from robustbias.networks import zoo


@pytest.fixture(scope="session")
def data_directory() -> Path:
    """Folder of the real data sets; tests that need it are skipped where it is not."""
    places = [os.environ.get("ROBUSTBIAS_DATA"), ROOT.parent / "shared" / "data", ROOT / "data"]
    for place in filter(None, places):
        if (Path(place) / "texture-vs-shape").is_dir():
            return Path(place)
    pytest.skip("no real data sets: set ROBUSTBIAS_DATA, or `robustbias fetch` them")


@pytest.fixture
def image_cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of decoded images, for this test alone."""
    monkeypatch.setenv("ROBUSTBIAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def toy_networks_only(tmp_path, monkeypatch) -> None:
    """Tables of this test alone; an untrained network is a toy that looks left."""
    monkeypatch.setenv("ROBUSTBIAS_TABLES", str(tmp_path))
    monkeypatch.setattr(zoo, "untrained", lambda entry, seed: toy_study.HalfLooker("left", 0.0))


@pytest.fixture
def counted(record_property):
    """Reports how many faults a test tried and how many left all whole; the others fail it."""

    def count(tried: int, survived: int) -> None:
        for name, n in (("tried", tried), ("survived", survived), ("lost", tried - survived)):
            record_property(name, int(n))
        assert survived == tried

    return count


def pytest_terminal_summary(terminalreporter):
    """The counts of the faults, by test."""
    counts: dict[str, Counter] = {}
    for report in [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]:
        if report.user_properties:
            name = report.nodeid.partition("::")[2].partition("[")[0]
            counts.setdefault(name, Counter()).update(dict(report.user_properties))
    for name, n in counts.items():
        words = ", ".join(f"{what} {n[what]}" for what in ("tried", "survived", "lost"))
        terminalreporter.write_line(f"{name}: {words}")
