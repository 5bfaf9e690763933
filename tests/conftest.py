"""Fixtures every test may use."""

import os
from pathlib import Path

import pytest

from robustbias.manifest import ROOT


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
