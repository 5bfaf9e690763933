"""Every entry of the manifest is complete, and a wrong one is refused with one clear error."""

import math
import os
import subprocess
import sys

import pytest
import torch

from robustbias import manifest
from robustbias.networks import zoo
from robustbias.utils import UserError

NETWORK = """
[network.n]
title = "t"
architecture = "googlenet"
regime = "standard"
classes = 16
size = 64
layers = ["conv1"]
dataset = "d"
weights = "checkpoints/n.safetensors"
licence = "MIT"
source = "s"
"""


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes a networks file into a manifest of its own."""

    def write(text: str):
        folder = tmp_path / "data_manifest" / "networks"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "mine.toml").write_text(text)
        manifest._network_tables.cache_clear()
        return folder / "mine.toml"

    monkeypatch.setattr(manifest, "ROOT", tmp_path)
    yield write
    manifest._network_tables.cache_clear()


@pytest.mark.parametrize("name", manifest.networks())
def test_a_network_has_source_licence_probed_layers_and_the_hash_of_its_weights(name):
    entry = manifest.network(name)
    assert entry.source
    assert entry.licence
    with torch.device("meta"):  # modules without weights
        network = zoo.untrained(entry)
    assert set(entry.layers) <= {module for module, _ in network.body.named_modules()}
    if entry.trained_here and zoo.weights_path(entry).is_file():
        assert len(entry.sha256) == 64


@pytest.mark.parametrize("name", manifest.studies())
def test_a_study_names_known_data_and_has_a_pair_of_every_architecture(name):
    study = manifest.study(name)
    for dataset in (study.dataset, study.stimuli, *study.preferred, *study.data):
        manifest.dataset(dataset)
    assert study.attack_grid == tuple(sorted(study.attack_grid))
    entries = [manifest.network(n) for n in manifest.networks(name)]
    for architecture in study.architectures:
        regimes = {
            e.regime
            for e in entries
            if e.architecture == architecture and e.eps in (0, study.threat.eps)
        }
        assert regimes == {"standard", "robust"}


def test_an_unknown_name_is_an_error_that_lists_the_known_ones():
    with pytest.raises(UserError, match="unknown study 'imagnet'; valid: .*iconworld"):
        manifest.study("imagnet")
    with pytest.raises(UserError, match="unknown network 'x'; valid: iconworld"):
        manifest.network("x")
    with pytest.raises(UserError, match="unknown data set 'x'; valid: .*tiny-imagenet"):
        manifest.dataset("x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("classes = 16", "classes = '16'"), "mine.toml: n: classes: expected int, got '16'"),
        (("licence", "license"), "unknown key.*'license'.*valid.*'licence'"),
        (('source = "s"', ""), "missing key.*source"),
        (('"standard"', '"robust"'), "eps = 0.0 with regime 'robust'"),
        (("weights = ", "file = "), "give either weights or by_hand"),
        (("weights = ", 'by_hand = "ask"\nweights = '), "give either weights or by_hand"),
        (("weights = ", "by_hand = "), "also give file"),
        (("size = 64", 'size = 64\nrename = {"(" = ""}'), r"rename '\(' = ''.*regular expression"),
        (('layers = ["conv1"]', 'layers = "conv1"'), "layers: expected a list"),
        (('"standard"', '"robust"\neps = nan'), "eps: expected a finite number, got nan"),
        (('"standard"', '"robust"\neps = inf'), "eps: expected a finite number, got inf"),
        (("size = 64", "size = 64\nmean = [0.5, -inf, 0.5]"), r"mean\[1\]: expected a finite"),
        (("[network.n]", "[net.n]"), r"unknown table\(s\) \['net'\]"),
        (("[network.n]", "[network.n"), "not valid TOML"),
    ],
)
def test_a_wrong_entry_is_refused(written, change, message):
    written(NETWORK.replace(*change))
    with pytest.raises(UserError, match=message):
        manifest.network("n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"categories": ["cat", "cat"]}, "categories lists a value twice"),
        ({"sizes": [64, 64]}, "sizes lists a value twice"),
        (
            {"threat": {"norm": "l2", "eps": -1.0, "steps": 3}},
            "expected eps and steps of 0 or more",
        ),
        (
            {"threat": {"norm": "l2", "eps": 1.0, "steps": -3}},
            "expected eps and steps of 0 or more",
        ),
        ({"threat": {"norm": "l3", "eps": 1.0, "steps": 3}}, "norm is 'l3'; expected one of l2"),
        ({"attack_grid": [0.5, -0.5]}, "attack_grid is .*expected 0 or more"),
        ({"attack_grid": [math.nan]}, "expected a finite number"),
    ],
)
def test_a_wrong_study_is_refused(change, message):
    table = manifest._table(manifest.ROOT / "data_manifest/studies/iconworld.toml")
    with pytest.raises(UserError, match=message):
        manifest.filled(manifest.StudyEntry, {"name": "mine", **table, **change}, "mine")


def test_a_file_of_another_encoding_is_refused(written):
    path = written(NETWORK)
    path.write_bytes(b'title = "\xff"')
    with pytest.raises(UserError, match="mine.toml is not valid TOML"):
        manifest.networks()


@pytest.mark.parametrize("title", ["[network.n] # mine", '[network."n"]', "[network.n]  "])
def test_a_hash_is_written_below_any_title_that_toml_knows(written, title):
    path = written(NETWORK.replace("[network.n]", title).replace("weights =", "  weights ="))
    manifest.set_hash("n", "a" * 64)
    assert manifest.network("n").sha256 == "a" * 64
    assert title in path.read_text()


def test_a_hash_is_written_into_its_own_entry_alone(written):
    path = written(NETWORK + "\n# the second\n" + NETWORK.replace("network.n", "network.m"))
    before = path.read_text().splitlines()
    manifest.set_hash("n", "a" * 64)
    manifest.set_hash("m", "b" * 64)
    manifest.set_hash("n", "c" * 64)
    assert manifest.network("n").sha256 == "c" * 64
    assert manifest.network("m").sha256 == "b" * 64
    after = path.read_text().splitlines()
    assert [line for line in after if not line.startswith("sha256")] == before
    assert len(after) == len(before) + 2


WRITER = """
import sys
from robustbias import manifest
for i in range(60):
    manifest.set_hash(sys.argv[1], f"{i:064d}")
    manifest._network_tables.cache_clear()
    assert manifest.networks() == ("n", "m")
    assert manifest.network(sys.argv[1]).sha256 == f"{i:064d}"
"""


def test_processes_that_write_hashes_lose_none_and_readers_see_whole_files(written, tmp_path):
    path = written(NETWORK + NETWORK.replace("network.n", "network.m"))
    environment = {**os.environ, "ROBUSTBIAS_ROOT": str(tmp_path)}
    both = [
        subprocess.Popen([sys.executable, "-c", WRITER, name], env=environment) for name in "nm"
    ]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    manifest._network_tables.cache_clear()
    assert {manifest.network(name).sha256 for name in "nm"} == {f"{59:064d}"}
    assert [p.name for p in path.parent.iterdir()] == ["mine.toml"]


def test_leftovers_of_a_killed_process_are_not_read(written):
    path = written(NETWORK)
    path.with_name(".mine.toml.ab12.toml").write_text(NETWORK)
    (path.parent / ".partial-ab12").mkdir()
    (path.parent / ".partial-ab12" / "mine.toml").write_text("half [")
    assert manifest.networks() == ("n",)
    studies = path.parent.with_name("studies")
    studies.mkdir()
    (studies / ".x.toml").write_text("")
    assert manifest.studies() == ()


def test_the_hash_of_an_unknown_network_is_refused(written):
    written(NETWORK)
    with pytest.raises(UserError, match=r"no \[network\.x\]"):
        manifest.set_hash("x", "a" * 64)


def test_the_data_directory_is_a_setting(monkeypatch, tmp_path):
    monkeypatch.setenv("ROBUSTBIAS_DATA", str(tmp_path))
    assert manifest.data_directory() == tmp_path
    monkeypatch.delenv("ROBUSTBIAS_DATA")
    assert manifest.data_directory() == manifest.ROOT / "data"
    monkeypatch.setenv("ROBUSTBIAS_DATA", "sets")
    monkeypatch.chdir(tmp_path)  # as a chapter's kernel works elsewhere than a command
    assert manifest.data_directory() == manifest.ROOT / "sets"


@pytest.mark.parametrize(
    "place", ["data/set/index.csv", "chapters/01.ipynb", "data_manifest/studies/x.toml", "lib/x.py"]
)
def test_outputs_go_neither_to_the_data_nor_among_the_sources(tmp_path, monkeypatch, place):
    monkeypatch.setattr(manifest, "ROOT", tmp_path)
    monkeypatch.delenv("ROBUSTBIAS_DATA", raising=False)
    manifest.check_output(tmp_path / "_build" / "table.csv")
    (tmp_path / "link").symlink_to((tmp_path / place).parent)
    for path in (tmp_path / place, tmp_path / "link" / "new.csv"):
        with pytest.raises(UserError, match="which is only read; write to another folder"):
            manifest.check_output(path)
