"""Generated garbage for every reader: one clear error or a result, nothing written elsewhere."""

import contextlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robustbias import manifest
from robustbias.images import tiny_imagenet_files
from robustbias.images.download import unpacked
from robustbias.networks import checkpoints
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
