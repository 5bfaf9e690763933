"""The ImageNet study, fetched from a local server by the command line: what a user does first."""

import tomllib

import pytest

import miniature
from robustbias import manifest

NAMES = ("imagenet-googlenet-s", "imagenet-googlenet-r")
LOAD = """
from robustbias import studies
study = studies.load("imagenet", device="cpu")
assert study.entry.dataset == "imagenetv2"
assert len(study.source.val()) == 207
assert len(study.source.cue_conflict()) == 48
assert len(study.source.silhouettes()) == len(study.source.edges()) == 32
assert len(study.source.stylized()) == 16
robust, standard = (study.network("googlenet", regime) for regime in ("robust", "standard"))
assert robust.weights_hash != standard.weights_hash
pixels = study.source.val().pixels[:1].float() / 255
assert robust(pixels).shape == (1, 1000)
print("loaded")
"""


def test_the_study_is_fetched_from_a_server_and_loads(tmp_path, capfd):
    networks = {name: miniature.NETWORKS[name] for name in NAMES}
    with miniature.served(tmp_path / "server") as address:
        miniature.write(tmp_path, address, networks)
        miniature.robustbias(tmp_path, "fetch", "imagenet")
    lines = capfd.readouterr().out.splitlines()
    sets = ["imagenetv2", "cue-conflict", "filled-silhouettes", "edges", "stylized"]
    assert [line.partition(":")[0] for line in lines] == [*sets, *NAMES]
    miniature.robustbias(tmp_path, "fetch", "imagenet")  # the server is gone: all is here
    miniature.robustbias(tmp_path, "doctor")
    doctor = capfd.readouterr().out
    (row,) = [line.split() for line in doctor.splitlines() if line.split()[:1] == ["imagenet"]]
    assert row[1:5] == ["here", "2", "of", "2"]
    miniature.python(tmp_path, LOAD)
    assert capfd.readouterr().out.endswith("loaded\n")


@pytest.mark.parametrize("name", miniature.NETWORKS)
def test_the_miniature_has_the_originals_names(name):
    """A table of the manifest and the miniature's are of one file."""
    path = manifest.ROOT / "data_manifest" / "networks" / "imagenet.toml"
    entry = tomllib.loads(path.read_text())["network"][name]
    block = miniature._blocks(path.read_text())[f"network.{name}"]
    url = entry.get("weights", "").rpartition("/")[2].partition("?")[0]
    assert miniature._file(block) == entry.get("file", url)
