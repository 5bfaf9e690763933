"""Hostile and damaged checkpoints: one clear error each, or the weights alone; no code runs."""

import builtins
import importlib
import io
import json
import operator
import os
import pickle
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch

from robustbias.networks import checkpoints
from robustbias.utils import UserError

WEIGHTS = {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(2)}
NORMALISER = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


class Call:
    """What unpickles into `function(*arguments)`."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments, *([state] if state is not None else []))

    def __reduce__(self):
        return self.reduced

    def __call__(self):
        """pickle accepts as a function only what can be called."""


def calls(target: Path) -> dict[str, Call]:
    """Calls that would make `target`, by what they go through."""
    make = f"open({str(target)!r}, 'w')"
    return {
        "eval": Call(builtins.eval, make),
        "exec": Call(builtins.exec, make),
        "open": Call(builtins.open, str(target), "w"),
        "getattr": Call(builtins.getattr, Call(importlib.import_module, "os"), "mkdir"),
        "os.mkdir": Call(os.mkdir, str(target)),
        "os.system": Call(os.system, f"touch {target}"),
        "subprocess": Call(subprocess.Popen, ["touch", str(target)]),
        "shutil": Call(shutil.copy, __file__, str(target)),
        "method": Call(operator.methodcaller, "touch"),
        "path": Call(Path(target).touch),
        "load": Call(torch.load, str(target)),
        "hub": Call(torch.hub.load, "a/b", "c"),
        "state": Call(operator.itemgetter, 0, state={"dump_patches": True}),
        "applied": Call(Call(operator.attrgetter, "touch"), Path(target).name),
    }


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("name", calls(Path("x")))
def test_code_besides_the_weights_is_inert_or_refused(tmp_path, name, legacy):
    target, path = tmp_path / "made", tmp_path / "a.pt"
    content = {"model": WEIGHTS, "schedule": [calls(target)[name]], "epoch": 3}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    if name.startswith("os."):
        with pytest.raises(UserError, match=r"a\.pt cannot be read as weights .it asks for posix"):
            checkpoints.read(path)
    else:
        state = checkpoints.read(path)
        assert {n: v.tolist() for n, v in state.items()} == {
            n: v.tolist() for n, v in WEIGHTS.items()
        }
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", calls(Path("x")))
def test_code_among_the_weights_is_refused(tmp_path, name):
    target, path = tmp_path / "made", tmp_path / "a.pt"
    torch.save({"model": WEIGHTS | {"b.weight": calls(target)[name]}}, path)
    with pytest.raises(UserError) as caught:
        checkpoints.read(path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


def test_the_error_names_what_stands_in_place_of_weights(tmp_path):
    torch.save({"model": WEIGHTS | {"b.weight": Call(json.loads, "{}")}}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"an object of json\.loads in place of the weights b\.wei"):
        checkpoints.read(tmp_path / "a.pt")
    torch.save({"model": Call(json.loads, "{}")}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"an object of json\.loads in place of weights"):
        checkpoints.read(tmp_path / "a.pt")


def legacy(pickled: bytes) -> bytes:
    """A file of torch's old format around a pickle made by hand."""
    head = [torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION, {}]
    return b"".join(pickle.dumps(part, 2) for part in head) + pickled


def zipped(records: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return stream.getvalue()


def stored(content: object, **how) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **how)
    return stream.getvalue()


def deep(levels: int) -> list:
    nested: list = []
    for _ in range(levels):
        nested = [nested]
    return nested


def tensors(header: dict | bytes, body: bytes = b"\0" * 16) -> bytes:
    """A safetensors file with this header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


FLOATS = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
many = b"".join(f"cmodule{i}\nname\n0".encode() for i in range(200))  # asked for and dropped
other = {"module.normalizer.new_mean": torch.tensor([0.5, 0.5, 0.5])}
half = {"module.normalizer.new_std": torch.tensor([0.229, 0.224])}

# name of the file -> content
DAMAGED = {
    "empty.pt": b"",
    "empty.safetensors": b"",
    "zeros.pt": b"\0" * 4096,
    "photograph.pt": b"\xff\xd8\xff\xe0" + b"\x11" * 2000,
    "gzip.pt": b"\x1f\x8b\x08\0" + b"\0" * 100,
    "page.pt": b"<!DOCTYPE html><html>quota exceeded</html>",
    "page.safetensors": b" \n<HTML>404</HTML>",
    "answer.pt": b'{"error": "not found"}',
    "pointer.pt": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    "no-record.pt": zipped({"archive/version": b"3"}),
    "foreign.pt": zipped({"readme.txt": b"hello"}),
    "numpy.pt": zipped({"a.npy": b"\x93NUMPY\x01\0"}),
    "script.pt": zipped(
        {"archive/data.pkl": b"\x80\x02}.", "archive/constants.pkl": b"\x80\x02)."}
    ),
    "program.pt": zipped({"archive/data.pkl": b"\x80\x02}.", "archive/code/a.py": b"import os"}),
    "bomb.pt": zipped({"archive/data.pkl": b"\0" * 10**6}, zipfile.ZIP_DEFLATED),
    "cut.pt": stored({"model": WEIGHTS})[:-200],
    "cut-legacy.pt": stored({"model": WEIGHTS}, _use_new_zipfile_serialization=False)[:-9],
    "magic.pt": pickle.dumps(12345, 2) + pickle.dumps(WEIGHTS.keys().__class__.__name__, 2),
    "no-tensor.pt": stored({"model": {"a": 1.0}}),
    "list.pt": stored([torch.ones(2)]),
    "attacker-alone.pt": stored({"model": {"module.attacker.model.a": torch.ones(1)}}),
    "twice.pt": stored({"model": {"module.a": torch.ones(1), "model.a": torch.ones(1)}}),
    "infinite.pt": stored({"a": torch.tensor([float("inf")])}),
    "complex.pt": stored({"a": torch.ones(2) * 1j}),
    "normaliser.pt": stored({"model": {**WEIGHTS, **other}}),
    "normaliser-shape.pt": stored({"model": {**WEIGHTS, **half}}),
    "unended.pt": legacy(b"\x80\x02}q\x00"),
    "stack.pt": legacy(b"\x80\x020."),
    "memo.pt": legacy(b"\x80\x02h\x63."),
    "instance.pt": legacy(b"(S'x'\nios\nsystem\n."),  # opcode INST
    "protocol-4.pt": legacy(pickle.dumps(Call(os.mkdir, "made"), 4)),
    "extension.pt": legacy(b"\x80\x02\x82\x01."),
    "persistent.pt": legacy(b"\x80\x02(X\x06\x00\x00\x00moduleX\x01\x00\x00\x00atQ."),
    "many-names.pt": legacy(b"\x80\x02" + many + b"}."),
    "long-text.pt": legacy(b"\x80\x02X\xff\xff\xff\x7fshort."),
    "header.safetensors": struct.pack("<Q", 2**62) + b"{}",
    "json.safetensors": tensors(b"{not json"),
    "type.safetensors": tensors({"a": FLOATS | {"dtype": "PICKLE"}}),
    "short.safetensors": tensors({"a": FLOATS}, b"\0" * 8),
    "shape.safetensors": tensors({"a": FLOATS | {"shape": [2**40, 2**40]}}),
    "offsets.safetensors": tensors({"a": FLOATS, "b": FLOATS | {"data_offsets": [8, 24]}}),
    "pickle.safetensors": stored({"a": torch.ones(1)}),
    "nothing.safetensors": tensors({}, b""),
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_one_clear_error(tmp_path, monkeypatch, name):
    path = tmp_path / name
    path.write_bytes(DAMAGED[name])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        checkpoints.read(path, normaliser=NORMALISER)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)
    assert len(str(caught.value)) < 600
    assert list(tmp_path.iterdir()) == [path]


def test_a_deep_pickle_is_an_error_or_its_weights(tmp_path):
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)
    try:
        content = stored({"model": WEIGHTS, "nested": deep(3000)})
    finally:
        sys.setrecursionlimit(limit)
    (tmp_path / "deep.pt").write_bytes(content)
    assert set(checkpoints.read(tmp_path / "deep.pt")) == set(WEIGHTS)


def test_renamed_weights_may_not_meet(tmp_path):
    safetensors.torch.save_file(WEIGHTS, tmp_path / "a.safetensors")
    state = checkpoints.read(tmp_path / "a.safetensors", rename={r"^a\.": "b.0."})
    assert set(state) == {"b.0.weight", "b.0.bias"}
    with pytest.raises(UserError, match="a second a"):
        checkpoints.read(tmp_path / "a.safetensors", rename={r"\..*": ""})
