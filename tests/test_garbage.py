"""Generated garbage for every reader: one clear error or a result, nothing written elsewhere."""

import contextlib
import io
import sys
import tempfile
from pathlib import Path

import papermill
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robustbias import cli, manifest, tables, training
from robustbias.book import edition, verify
from robustbias.images import download, tiny_imagenet_files
from robustbias.images.download import unpacked
from robustbias.networks import checkpoints, zoo
from robustbias.shape_bias import decisions
from robustbias.utils import UserError
from test_archives import tarred, zipped

HEADER = b"subj,session,trial,rt,object_response,category,condition,imagename\n"
ROW = b"a,1,1,NaN,dog,dog,0,0001_cue_dnn_0_dog_00_dog10-bird2.png\n"
MAGIC = (b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\x00", b"PAR1", b"\x80")
WHOLE = {
    "csv": HEADER + ROW,
    "toml": b'title = "a"\nsizes = [64]\n[threat]\nnorm = "l2"\n',
}
NAMES = ("draws", "eps_grid", "seed", "sigmas", "nothing")
DEFAULTS = {"draws": 2000, "eps_grid": None, "seed": 0, "sigmas": [0.1, 0.2]}


def archives(folder):
    members = [("a/b", b"0", b"text"), ("a/c", b"0", bytes(300))]
    zipped(folder / "whole.zip", {name: content for name, _, content in members})
    tarred(folder / "whole.tgz", members)
    return [(folder / name).read_bytes() for name in ("whole.zip", "whole.tgz")]


with tempfile.TemporaryDirectory() as made:
    ARCHIVES = archives(Path(made))


@st.composite
def damaged(draw, *wholes):
    """Random bytes behind a known beginning, or a good file with some bytes changed or cut off."""
    if draw(st.booleans()):
        return draw(st.sampled_from([b"", *MAGIC, HEADER])) + draw(st.binary(max_size=200))
    content = bytearray(draw(st.sampled_from(wholes)))
    for place, byte in draw(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)))):
        content[place % len(content)] = byte
    return bytes(content[: draw(st.integers(0, len(content)))])


def tried(suffix, content, read):
    """Writes the content to a file in a new folder, reads it, and looks for files elsewhere."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "in" / f"file{suffix}"
        path.parent.mkdir()
        path.write_bytes(content)
        with contextlib.suppress(UserError):
            read(path)
        inside = {p.name for p in Path(place).iterdir()}
        assert inside <= {"in", "out"}
        assert [p.name for p in path.parent.iterdir()] == [path.name]


slow = settings(
    max_examples=200,
    deadline=10_000,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
)


@slow
@given(damaged(WHOLE["csv"]))
def test_decisions(content):
    tried(".csv", content, decisions.read)


@slow
@given(damaged(WHOLE["toml"]))
def test_toml(content):
    def read(path):
        manifest.filled(manifest.StudyEntry, manifest._table(path), "study")

    tried(".toml", content, read)


@slow
@given(damaged(*ARCHIVES))
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archive(content):
    tried(".zip", content, lambda path: unpacked(path, path.parent.parent / "out"))


@slow
@given(damaged(*ARCHIVES), st.sampled_from([".pt", ".safetensors", ".parquet"]))
def test_weights_and_parquet(content, suffix):
    if suffix == ".parquet":
        tried(suffix, content, lambda path: tiny_imagenet_files.shard_count([path]))
    else:
        tried(suffix, content, checkpoints.read)


@slow
@given(
    st.sampled_from(NAMES), st.text(max_size=30) | st.floats().map(repr) | st.integers().map(repr)
)
def test_parameters(name, text):
    with contextlib.suppress(UserError):
        values = manifest.settings([f"{name}={text}"])
        manifest.checked("a measure", DEFAULTS, values, {"eps_grid": [0.0]})


# words of a command line, good ones and others; a name may be followed by an option with a value
WORDS = {
    "fetch": ("edges", "imagenet-val", "iconworld", "torchvision-alexnet"),
    "train": ("iconworld", "tiny-imagenet", "--network", "iconworld-alexnet-r-1"),
    "measure": ("accuracy", "shape_bias", "dissection", "ood", "--study", "iconworld"),
    "run": ("02_shape_bias", "09_findings", "GIVEN.ipynb", "--study", "iconworld"),
    "publish": ("GIVEN", "moon"),
    "verify": ("moon", "--against", "GIVEN", "--tolerance", "-1"),
    "decisions": ("moon", "GIVEN"),
    "shape-bias": ("GIVEN.csv", "GIVEN"),
}
ANYTHING = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
SETTINGS = st.sampled_from([*DEFAULTS, "n_images", "sizes", "study", "batch"])
VALUES = st.sampled_from(["0", "-1", "1e23", "nan", "[nan]", "[64]", "None", "'a'", "{}", "moon"])


@st.composite
def command_lines(draw):
    verb = draw(st.sampled_from(sorted(WORDS)))
    options = st.tuples(
        st.sampled_from(["--set", "--out", "--seed", "--study", "--device"]),
        st.builds("{}={}".format, SETTINGS, VALUES | ANYTHING) | VALUES | ANYTHING,
    )
    words = draw(st.lists(st.sampled_from(WORDS[verb]) | ANYTHING, max_size=4))
    return [verb, *words, *(word for pair in draw(st.lists(options, max_size=2)) for word in pair)]


@pytest.fixture(scope="module")
def harmless():
    """The verbs without what takes minutes: downloads, epochs, kernels; no weights are here."""

    def refused(*_, **__):
        raise UserError("not in this test")

    tables.measures()  # imported before the clock runs
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download, "downloaded", refused)
        patch.setattr(training, "train", refused)
        patch.setattr(papermill, "execute_notebook", refused)
        patch.setattr(verify, "recomputed", refused)
        patch.setattr(zoo, "weights_path", lambda entry: Path("nowhere"))
        with tempfile.TemporaryDirectory() as place:
            patch.setattr(edition, "BUILD", Path(place) / "build")
            patch.setenv("ROBUSTBIAS_DATA", str(Path(place) / "data"))
            yield patch


SOURCES = ("chapters", "checkpoints", "data_manifest", "book", "lib")


def sources():
    files = [path for name in SOURCES for path in (manifest.ROOT / name).rglob("*")]
    return {
        path: path.stat().st_mtime_ns
        for path in [*manifest.ROOT.iterdir(), *files]
        if path.is_file() and path.suffix != ".pyc"
    }


@settings(slow, max_examples=400, deadline=30_000)
@given(command_lines(), damaged(WHOLE["csv"], b'{"cells": [], "metadata": {}, "nbformat": 4}'))
def test_command_line(harmless, words, content):
    before, out = sources(), io.StringIO()
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        for name in ("GIVEN", "GIVEN.csv", "GIVEN.ipynb"):
            Path(name).write_bytes(content)
        harmless.setattr(sys, "argv", ["robustbias", *words])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            try:
                cli.main()
            except SystemExit as stop:
                assert stop.code in (0, 1, 2), (words, stop.code)  # noqa: PT017
    assert "Traceback" not in out.getvalue()
    assert sources() == before
