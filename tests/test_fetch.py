import dataclasses
import functools
import hashlib
import http.server
import io
import shutil
import threading
import zipfile

import pytest

import miniature
from robustbias import manifest, training
from robustbias.images import doctor, download
from robustbias.images.download import downloaded
from robustbias.manifest import DatasetEntry, FileEntry, NetworkEntry
from robustbias.utils import MissingData, UserError

PNG = b"\x89PNG stimulus"


def archive_of(count):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for i in range(count):
            file.writestr(f"repo-1/stimuli/cat/cat{i}.png", PNG)
    return buffer.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.files`, whole or from a byte on; `server.log` keeps (path, range asked)."""

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.log.append((self.path, asked))
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = int(asked.split("=")[1].rstrip("-")) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        cut = self.server.cut.pop() if self.server.cut else len(content)
        self.wfile.write(content[start:cut])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """A web server of this test's own; `cut` breaks the next answers off after so many bytes."""
    monkeypatch.setattr("time.sleep", lambda _: None)  # between two attempts
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.files, served.log, served.cut = {}, [], []
    served.url = f"http://127.0.0.1:{served.server_port}"
    thread = threading.Thread(target=functools.partial(served.serve_forever, poll_interval=0.01))
    thread.start()
    yield served
    served.shutdown()
    served.server_close()
    thread.join()


def entry_of(server, content, **changes):
    server.files["/a.zip"] = content
    digest = hashlib.sha256(content).hexdigest()
    return FileEntry("a.zip", f"{server.url}/a.zip", digest, len(content), **changes)


def test_a_file_is_downloaded_once_and_verified(server, tmp_path):
    file = entry_of(server, b"content")
    for _ in range(2):
        assert downloaded(file, tmp_path, progress=False).read_bytes() == b"content"
    assert server.log == [("/a.zip", None)]
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_an_interrupted_download_is_continued(server, tmp_path):
    content = bytes(range(256)) * 4096
    server.cut = [700_000]
    assert downloaded(entry_of(server, content), tmp_path, progress=False).read_bytes() == content
    assert [asked is None for _, asked in server.log] == [True, False]


def test_another_hash_is_an_error_and_leaves_nothing(server, tmp_path):
    file = entry_of(server, b"content")
    server.files["/a.zip"] = b"tampered"
    with pytest.raises(UserError, match=r"a\.zip is not the expected file.*by hand"):
        downloaded(file, tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_web_page_instead_of_the_file_is_an_error(server, tmp_path):
    page = b"\n<!DOCTYPE html><html>Sign in</html>"
    with pytest.raises(UserError, match=r"gave a web page instead of a.zip"):
        downloaded(entry_of(server, page), tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_or_server_is_an_error_after_retries(server, tmp_path):
    file = entry_of(server, b"content")
    server.files.clear()
    with pytest.raises(UserError, match=r"could not download http.*404.*Try again later, or put"):
        downloaded(file, tmp_path, progress=False)
    assert len(server.log) == 4
    gone = FileEntry("a.zip", "http://127.0.0.1:9/a.zip", "0" * 64)
    with pytest.raises(UserError, match="could not download"):
        downloaded(gone, tmp_path, progress=False)


def test_a_file_without_a_published_hash_is_reported_as_unverified(server, tmp_path):
    file = FileEntry("a.zip", entry_of(server, b"content").url)
    with pytest.warns(UserWarning, match=hashlib.sha256(b"content").hexdigest()):
        downloaded(file, tmp_path, progress=False)


@pytest.fixture
def stimuli(server, tmp_path, monkeypatch):
    """A data set of three silhouettes in the manifest, its archive on the server."""
    monkeypatch.setenv("ROBUSTBIAS_DATA", str(tmp_path))
    entry = DatasetEntry(
        "drawings", "Drawings", "category-folders", "here", "CC BY 4.0", "us", "set/drawings",
        images={"stimuli": 3},
        files=(entry_of(server, archive_of(3), extract=True, folder="repo-1/stimuli"),),
    )  # fmt: skip
    named = manifest.dataset
    monkeypatch.setattr(manifest, "dataset", lambda n: entry if n == "drawings" else named(n))
    monkeypatch.setattr(manifest, "datasets", lambda: ("drawings",))
    return tmp_path


def test_a_data_set_is_fetched_unpacked_and_counted(stimuli, server):
    place = download.fetch("drawings", progress=False)
    assert place == stimuli / "set" / "drawings"
    assert sorted(p.name for p in place.glob("cat/*")) == ["cat0.png", "cat1.png", "cat2.png"]
    assert download.verify("drawings")["ok"].tolist() == [True, True]
    download.fetch("drawings", progress=False)
    assert len(server.log) == 1


def test_a_second_data_set_of_the_archive_needs_no_second_download(stimuli, server):
    place = download.fetch("drawings", progress=False)
    place.rename(stimuli / "elsewhere")
    download.fetch("drawings", progress=False)
    assert len(server.log) == 1


def test_an_incomplete_folder_is_left_alone(stimuli):
    place = download.fetch("drawings", progress=False)
    (place / "cat" / "cat0.png").unlink()
    with pytest.raises(UserError, match=r"not complete: stimuli 2 of 3. Move it away"):
        download.fetch("drawings", progress=False)
    assert len(list(place.glob("cat/*"))) == 2
    assert not download.verify("drawings")["ok"].iloc[0]


def test_an_archive_with_less_than_the_manifest_says_leaves_no_folder(stimuli, server):
    entry = manifest.dataset("drawings")
    entry.images["stimuli"] = 4
    with pytest.raises(UserError, match="download of drawings is not complete: stimuli 3 of 4"):
        download.fetch("drawings", progress=False)
    assert list((stimuli / "set").iterdir()) == []


def test_a_failed_fetch_leaves_no_folder(stimuli, server):
    server.files.clear()
    with pytest.raises(UserError, match="could not download"):
        download.fetch("drawings", progress=False)
    assert list((stimuli / "set").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_error(stimuli):
    (stimuli / "set").write_text("a file where a folder should be")
    with pytest.raises(UserError, match=r"could not write to .*set ROBUSTBIAS_DATA"):
        download.fetch("drawings", progress=False)


def test_what_cannot_be_fetched_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTBIAS_DATA", str(tmp_path))
    with pytest.raises(UserError, match="unknown data set or network 'nothing'; valid: broden"):
        download.fetch("nothing")
    with pytest.raises(UserError, match="iconworld is drawn by this package"):
        download.fetch("iconworld")
    with pytest.raises(MissingData, match=r"cannot be downloaded by a program.*register"):
        download.fetch("imagenet-val")
    with pytest.raises(MissingData, match="robustbias fetch edges"):
        download.verify("edges")


def test_published_weights_are_fetched_and_others_are_to_be_trained(server, tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTBIAS_DATA", str(tmp_path))
    content = b"weights"
    server.files["/net.pth"] = content
    facts = {
        "title": "A network", "architecture": "alexnet", "regime": "standard", "classes": 1000,
        "size": 224, "layers": (), "dataset": "imagenet-val", "licence": "BSD", "source": "here",
    }  # fmt: skip
    networks = {
        "published": NetworkEntry(
            name="published", weights=f"{server.url}/net.pth",
            sha256=hashlib.sha256(content).hexdigest(), **facts,
        ),
        "ours": NetworkEntry(name="ours", weights="checkpoints/x.safetensors", study="s", **facts),
    }  # fmt: skip
    monkeypatch.setattr(manifest, "networks", lambda study=None: tuple(networks))
    monkeypatch.setattr(manifest, "network", networks.get)
    path = download.fetch("published", progress=False)
    assert (path, path.read_bytes()) == (tmp_path / "networks" / "net.pth", content)
    with pytest.raises(MissingData, match="robustbias train s --network ours"):
        download.fetch("ours")
    table = doctor.doctor()["Networks"].set_index("network")
    assert table["weights"].to_dict() == {"published": "here", "ours": "missing"}


STUDY = """
title = "Small"
summary = "A study that is downloaded."
dataset = "imagenetv2"
preferred = ["imagenet-val", "imagenetv2"]
stimuli = "cue-conflict"
data = ["stylized"]
sizes = [224]
categories = ["cat", "dog"]
architectures = ["resnet18"]
attack_grid = [1.0]
threat = {norm = "l2", eps = 3.0, steps = 3}
"""
NETWORKS = """
[defaults]
study = "small"
dataset = "imagenet-val"
classes = 1000
size = 224
layers = ["layer1"]
architecture = "resnet18"
regime = "standard"
licence = "MIT"
source = "a test"
[network.ours]
title = "S"
weights = "URL/s.pth?dl=1"
file = "s.pth"
sha256 = "SHA"
[network.theirs]
title = "R"
regime = "robust"
eps = 3.0
by_hand = "ask them for r.pt"
file = "r.pt"
[network.packed]
title = "Q"
weights = "URL/all.tar"
archive = "all.tar"
file = "q.pt"
"""


@pytest.fixture
def study(server, tmp_path, monkeypatch):
    """A manifest of one study, whose files are on the server or have to be had by hand."""
    root = tmp_path / "root"
    shutil.copytree(manifest.ROOT / "data_manifest", root / "data_manifest")
    monkeypatch.setattr(manifest, "ROOT", root)
    monkeypatch.setenv("ROBUSTBIAS_DATA", str(tmp_path / "data"))
    (root / "data_manifest" / "studies" / "small.toml").write_text(STUDY)
    text = NETWORKS.replace("URL", server.url).replace("SHA", hashlib.sha256(b"S" * 9).hexdigest())
    (root / "data_manifest" / "networks" / "small.toml").write_text(text)
    miniature.tarred(tmp_path / "all.tar", {"./deep/q.pt": b"Q" * 9, "./deep/p.pt": b"P"})
    miniature.tarred(tmp_path / "v2.tar", {"val/0/a.jpeg": b"photograph"})
    server.files |= {
        "/s.pth?dl=1": b"S" * 9,
        "/all.tar": (tmp_path / "all.tar").read_bytes(),
        "/v2.tar": (tmp_path / "v2.tar").read_bytes(),
        "/a.zip": archive_of(3),
    }
    named = manifest.dataset
    changes = {
        "imagenetv2": ("v2.tar", "val", {"images": 1}),
        "cue-conflict": ("a.zip", "repo-1/stimuli", {"stimuli": 3}),
        "stylized": ("a.zip", "repo-1/stimuli", {"stimuli": 3}),
    }

    def dataset(name: str) -> DatasetEntry:
        if name not in changes:
            return named(name)
        file, folder, images = changes[name]
        md5 = hashlib.md5(server.files[f"/{file}"]).hexdigest()
        entry = FileEntry(file, f"{server.url}/{file}", md5=md5, extract=True, folder=folder)
        return dataclasses.replace(named(name), images=images, files=(entry,))

    monkeypatch.setattr(manifest, "dataset", dataset)
    manifest._network_tables.cache_clear()
    yield tmp_path / "data"
    manifest._network_tables.cache_clear()


@pytest.mark.filterwarnings("ignore:.*has no published hash")
def test_a_study_is_fetched_and_what_has_to_be_had_by_hand_is_listed(study, server):
    lines = download.fetch_study("small", progress=False)
    assert [line.partition(":")[0] for line in lines] == [
        "imagenetv2", "cue-conflict", "stylized", "ours", "theirs", "packed",
    ]  # fmt: skip
    assert f"by hand, as {study / 'networks' / 'r.pt'}: ask them for r.pt" in lines[4]
    assert (study / "networks" / "s.pth").read_bytes() == b"S" * 9
    assert (study / "networks" / "q.pt").read_bytes() == b"Q" * 9
    assert (study / "imagenetv2" / "0" / "a.jpeg").is_file()
    before = len(server.log)
    (study / "networks" / "r.pt").write_bytes(b"by hand")
    assert not any("by hand" in line for line in download.fetch_study("small", progress=False))
    assert len(server.log) == before
    row = doctor.doctor()["Studies"].set_index("study").loc["small"]
    assert (row["networks"], row["can train"], row["to do"]) == ("3 of 3", False, "")


@pytest.mark.filterwarnings("ignore:.*has no published hash")
def test_one_failed_download_does_not_stop_the_others(study, server):
    server.files["/s.pth?dl=1"] = b"tampered!"
    with pytest.raises(
        UserError, match=r"(?s)packed: .*1 downloads failed.*ours: s\.pth is not the"
    ):
        download.fetch_study("small", progress=False)
    assert not (study / "networks" / "s.pth").exists()
    server.files["/s.pth?dl=1"] = b"S" * 9
    download.fetch_study("small", progress=False)
    (study / "networks" / "s.pth").write_bytes(b"damaged!!")
    download.fetch_study("small", progress=False)
    assert (study / "networks" / "s.pth").read_bytes() == b"S" * 9


def test_downloaded_networks_are_never_trained_over(study):
    for networks in (None, ["theirs"]):
        with pytest.raises(UserError, match="theirs.* not made here but downloaded.*fetch small"):
            training.train_study("small", networks=networks, device="cpu")
    table = doctor.doctor()["Networks"].set_index("network")["to do"]
    assert table["ours"] == "robustbias fetch ours"
    assert "ask them for r.pt" in table["theirs"]


def test_a_study_of_this_package_has_nothing_to_fetch():
    assert download.fetch_study("iconworld") == ["iconworld: nothing has to be downloaded."]


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_a_wrong_size_or_either_hash_is_an_error(server, tmp_path, kind):
    server.files["/a"] = b"content"
    right = hashlib.new(kind, b"content").hexdigest()
    file = FileEntry("a", f"{server.url}/a", bytes=7, **{kind: right})
    assert downloaded(file, tmp_path, progress=False).is_file()
    for change in ({"bytes": 8}, {kind: right[::-1]}):
        wrong = dataclasses.replace(file, name="b", **change)
        with pytest.raises(UserError, match="b is not the expected file"):
            downloaded(wrong, tmp_path, progress=False)
        assert not (tmp_path / "b").exists()


def test_the_doctor_says_what_is_missing_and_what_to_type(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTBIAS_DATA", str(tmp_path))
    tables = doctor.doctor()
    sets = tables["Data sets"].set_index("data set")
    assert set(sets.index) == set(manifest.datasets())
    assert sets.loc["iconworld", "state"] == "embedded"
    assert sets.loc["edges", ["state", "to do"]].tolist() == ["missing", "robustbias fetch edges"]
    assert "by hand, from https://image-net.org" in sets.loc["imagenet-val", "to do"]
    assert "torch" in tables["Versions"]["package"].tolist()
    assert "processor" in tables["Device"]["what"].tolist()


@pytest.mark.parametrize("name", manifest.studies())
def test_the_doctor_knows_what_a_study_can_run(tmp_path, monkeypatch, name):
    monkeypatch.setenv("ROBUSTBIAS_DATA", str(tmp_path))
    row = doctor.doctor()["Studies"].set_index("study").loc[name]
    dataset = manifest.dataset(manifest.study(name).dataset)
    assert row["can train"] == (dataset.kind == "embedded")
    assert (f"robustbias fetch {name}" in row["to do"]) == (dataset.kind != "embedded")


def test_a_broken_data_set_does_not_stop_the_doctor(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTBIAS_DATA", str(tmp_path))
    (tmp_path / "tiny-imagenet").mkdir()
    (tmp_path / "tiny-imagenet" / "train-00000-of-00001.parquet").write_text("<html>")
    sets = doctor.doctor()["Data sets"].set_index("data set")
    assert sets.loc["tiny-imagenet", "state"] == "broken"
    assert "not a whole parquet file" in sets.loc["tiny-imagenet", "found"]


@pytest.mark.parametrize(
    "name", ["cue-conflict", "filled-silhouettes", "edges", "decisions", "tiny-imagenet"]
)
def test_the_real_data_are_complete(data_directory, monkeypatch, name):
    monkeypatch.setenv("ROBUSTBIAS_DATA", str(data_directory))
    assert download.verify(name)["ok"].all()
    assert download.fetch(name, progress=False) == data_directory / manifest.dataset(name).path
