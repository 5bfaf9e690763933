"""Weights come back as they were, from our files and from foreign ones, and code never runs."""

import dataclasses
import io
import os
import pickle
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import safetensors.torch
import torch

import miniature
from robustbias import manifest
from robustbias.networks import checkpoints, zoo
from robustbias.utils import MissingData, UserError
from toy_networks import entry, network


def test_saved_weights_are_the_weights_rounded_to_half_precision(tmp_path):
    body = network().body
    digest = checkpoints.save(body, tmp_path / "a.safetensors", {"network": "toy"})
    state = checkpoints.read(tmp_path / "a.safetensors", digest)
    for name, value in body.state_dict().items():
        expected = value.half() if value.ndim > 1 else value
        assert torch.equal(state[name], expected), name
    assert checkpoints.metadata(tmp_path / "a.safetensors") == {"network": "toy"}


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_checkpoint_of_robustness_loads_without_its_attacker(tmp_path, wrapped):
    body = network().body
    state = {f"module.model.{n}": v for n, v in body.state_dict().items()}
    state |= {f"module.attacker.model.{n}": v + 1 for n, v in body.state_dict().items()}
    state |= {"module.normalizer.new_mean": torch.ones(3)}
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, tmp_path / "r.pt")
    other = network(name="other").body
    checkpoints.fill(other, checkpoints.read(tmp_path / "r.pt"), "r.pt")
    for name, value in body.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return (os.mkdir, (str(self.target),))


@pytest.mark.parametrize("legacy", [True, False])
def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path, legacy):
    target = tmp_path / "boom"
    content = {"state_dict": {"a": torch.ones(1)}, "extra": Bomb(target)}
    torch.save(content, tmp_path / "b.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UserError, match="it asks for posix.mkdir"):
        checkpoints.read(tmp_path / "b.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Bomb(target)))
    with pytest.raises(UserError, match="cannot be read as weights"):
        checkpoints.read(tmp_path / "plain.pt")
    assert not target.exists()


class Intruder(torch.nn.Module):
    """A TorchScript module that makes a file when it is loaded, and again when it is called."""

    def __init__(self, target: str):
        super().__init__()
        self.target = target
        self.first = torch.zeros(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file(self.target, True, 4, dtype=torch.float32).sum()

    @torch.jit.export
    def __getstate__(self):
        return (self.target, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]):
        self.target = state[0]
        self.training = state[1]
        self.first = torch.from_file(self.target, True, 4, dtype=torch.float32).fill_(1.0)[:1]


def as_it_is(archive: bytes) -> bytes:
    return archive


def without_constants(archive: bytes) -> bytes:
    """The archive with the record that torch tells TorchScript by moved down a folder."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(written, "w") as new:
        for record in old.infolist():
            name = record.filename.replace("constants.pkl", "below/constants.pkl")
            new.writestr(name, old.read(record))
    return written.getvalue()


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("disguised", [as_it_is, without_constants])
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors", ".zip", ""])
def test_a_torchscript_archive_is_refused_and_does_not_run(tmp_path, suffix, disguised):
    target, path = tmp_path / "made", tmp_path / f"net{suffix}"
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(Intruder(str(target))), buffer)
    torch.jit.load(io.BytesIO(buffer.getvalue()))
    assert target.exists()  # torch alone runs it
    target.unlink()
    path.write_bytes(disguised(buffer.getvalue()))
    with pytest.raises(UserError, match="not a whole safetensors file|cannot be read as weights"):
        checkpoints.read(path)
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_tar_format_is_refused(tmp_path):
    target = tmp_path / "boom"
    with tarfile.open(tmp_path / "old.pt", "w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("storages", "tensors", "pickle"):
            content = pickle.dumps(Bomb(target), protocol=2)
            record = tarfile.TarInfo(name)
            record.size = len(content)
            tar.addfile(record, io.BytesIO(content))
    with pytest.raises(UserError, match="cannot be read as weights"):
        checkpoints.read(tmp_path / "old.pt")
    assert not target.exists()


class Rebuilt:
    """Four stored numbers seen through a size, strides and an offset of the file's choice."""

    def __init__(self, size: tuple[int, ...], stride: tuple[int, ...], offset: int):
        self.arguments = (
            torch.ones(4)._typed_storage(),
            offset,
            size,
            stride,
            False,
            OrderedDict(),
        )

    def __reduce__(self):
        return (torch._utils._rebuild_tensor_v2, self.arguments)


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((10**12,), (0,), 0),
        ((3, 3), (1, 0), 0),
        ((100,), (1,), 0),
        ((1,), (1,), 50),
        ((2,), (-1,), 1),
        ((1,), (1,), -3),
        ((2**62, 4), (1, 1), 0),
    ],
)
def test_no_tensor_is_larger_than_what_is_stored(tmp_path, legacy, size, stride, offset):
    state = {"a": Rebuilt(size, stride, offset)}
    torch.save(state, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UserError):
        checkpoints.read(tmp_path / "a.pt")


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_compressed_and_repeated_records_are_refused(tmp_path):
    torch.save({"a": torch.zeros(1000)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
        for name, content in records.items():
            bomb.writestr(name, content)
    with pytest.raises(UserError, match="records are compressed"):
        checkpoints.read(tmp_path / "bomb.pt")
    with zipfile.ZipFile(tmp_path / "twice.pt", "w") as twice:
        for name, content in [*records.items(), *records.items()]:
            twice.writestr(name, content)
    with pytest.raises(UserError, match="two of its records have one name"):
        checkpoints.read(tmp_path / "twice.pt")


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize(
    "tensor", [torch.ones(3).to_sparse(), torch.ones(3, device="meta"), torch.ones(3) * 1j]
)
def test_tensors_other_than_plain_ones_are_refused(tmp_path, tensor, legacy):
    torch.save({"a": tensor}, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UserError, match=r"a\.pt: a is not a plain tensor"):
        checkpoints.read(tmp_path / "a.pt")


@pytest.mark.parametrize("legacy", [True, False])
def test_any_truncation_is_one_error(tmp_path, legacy):
    path = tmp_path / "a.pt"
    torch.save({"a": torch.ones(8)}, path, _use_new_zipfile_serialization=not legacy)
    whole = path.read_bytes()
    for size in range(1, len(whole) - 1, 37):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match="cannot be read as weights"):
            checkpoints.read(path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, bad, suffix):
    state = {"first": torch.ones(3), "second": torch.tensor([1.0, bad])}
    writer = torch.save if suffix == ".pt" else safetensors.torch.save_file
    writer(state, tmp_path / f"a{suffix}")
    with pytest.raises(UserError, match="second holds NaN or infinite values"):
        checkpoints.read(tmp_path / f"a{suffix}")


def test_names_that_meet_without_their_prefixes_are_refused(tmp_path):
    torch.save({"w": torch.ones(1), "module.w": torch.zeros(1)}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"holds w twice.*as module\.w"):
        checkpoints.read(tmp_path / "a.pt")


@pytest.mark.parametrize("page", ["<!DOCTYPE html><html>404", "\n<html><body>", "<?xml ?><Error>"])
def test_a_web_page_is_named_as_such(tmp_path, page):
    for name in ("a.pt", "a.safetensors"):
        (tmp_path / name).write_text(page)
        with pytest.raises(UserError, match="is a web page, not a checkpoint"):
            checkpoints.read(tmp_path / name)


def test_damaged_wrong_and_missing_files_are_errors(tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(MissingData, match="no weights at"):
        checkpoints.read(path)
    checkpoints.save(network().body, path)
    with pytest.raises(UserError, match="the manifest says 000000000000"):
        checkpoints.read(path, "0" * 64)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        checkpoints.read(path)
    (tmp_path / "short.pt").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(UserError, match="cannot be read as weights"):
        checkpoints.read(tmp_path / "short.pt")
    torch.save({"epoch": 3}, tmp_path / "none.pt")
    with pytest.raises(UserError, match="holds no named tensors"):
        checkpoints.read(tmp_path / "none.pt")


def test_weights_of_another_network_are_refused(tmp_path):
    checkpoints.save(network(classes=5).body, tmp_path / "a.safetensors")
    state = checkpoints.read(tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="does not fit the network.*classifier.6"):
        checkpoints.fill(network().body, state, "a.safetensors")
    with pytest.raises(UserError, match="missing .*classifier.1"):
        checkpoints.fill(network().body, {}, "a.safetensors")


def test_a_network_normalises_inside():
    net = network(mean=(0.1, 0.2, 0.3), std=(0.5, 0.4, 0.2))
    pixels = torch.rand(2, 3, 64, 64)
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.4, 0.2])
    normalised = (pixels - mean[None, :, None, None]) / std[None, :, None, None]
    torch.testing.assert_close(net(pixels), net.body(normalised))


def test_a_missing_network_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(manifest, "ROOT", tmp_path)
    with pytest.raises(MissingData, match="robustbias train iconworld --network toy"):
        zoo.load(entry(study="iconworld"))
    monkeypatch.setenv("ROBUSTBIAS_DATA", str(tmp_path))
    with pytest.raises(MissingData, match="robustbias fetch toy"):
        zoo.load(entry(weights="https://example.org/toy.pt"))


def test_an_untrained_network_is_a_function_of_its_seed():
    first, again, other = network(), network(), zoo.untrained(entry(), 1)
    weights = [n.body.state_dict()["features.0.weight"] for n in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert first.weights_hash == again.weights_hash != other.weights_hash


ORIGINALS = [
    (architecture, layout)
    for architecture in ("alexnet", "googlenet", "resnet50")
    for layout in (*miniature.LAYOUTS, "safetensors")
]


@pytest.mark.parametrize(("architecture", "layout"), ORIGINALS)
def test_the_original_networks_give_the_same_logits_from_every_layout(
    tmp_path, architecture, layout
):
    original = miniature.network(architecture, seed=1)
    path = tmp_path / ("weights.safetensors" if layout == "safetensors" else "weights.pt")
    if layout == "safetensors":
        safetensors.torch.save_file(original.state_dict(), path)
    else:
        miniature.saved(path, architecture, layout, original)
    known = manifest.network(f"imagenet-{architecture}-s")
    loaded = zoo.load(dataclasses.replace(known, weights=str(path), sha256=""))
    pixels = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    pixels = pixels.to(memory_format=torch.channels_last)
    original.to(memory_format=torch.channels_last)
    mean, std = torch.tensor(known.mean), torch.tensor(known.std)
    with torch.no_grad():
        expected = original((pixels - mean[:, None, None]) / std[:, None, None])
        assert torch.equal(loaded(pixels), expected)
