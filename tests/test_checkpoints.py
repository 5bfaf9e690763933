"""Weights come back as they were, from our files and from foreign ones, and code never runs."""

import dataclasses
import os
import pickle
from pathlib import Path

import pytest
import torch
import torchvision

from robustbias import manifest
from robustbias.errors import MissingData, UserError
from robustbias.networks import checkpoints, zoo
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


@pytest.mark.parametrize("prefix", ["", "module.model."])
@pytest.mark.parametrize("architecture", ["googlenet", "resnet50"])
def test_the_original_networks_load_by_manifest_entry(tmp_path, architecture, prefix):
    """Files as torchvision and robustness write them, with random weights."""
    shifted = architecture == "googlenet"
    options = {"transform_input": True, "init_weights": False} if shifted else {}
    original = getattr(torchvision.models, architecture)(weights=None, **options).eval()
    state = {prefix + name: value for name, value in original.state_dict().items()}
    torch.save({"state_dict": state} if prefix else state, tmp_path / "weights.pth")
    found = manifest.network(f"imagenet-{architecture}-s")
    loaded = zoo.load(dataclasses.replace(found, weights=str(tmp_path / "weights.pth")))
    pixels = torch.rand(1, 3, 64, 64)
    normalised = torchvision.transforms.functional.normalize(
        pixels, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    with torch.no_grad():
        expected = original(normalised)
        torch.testing.assert_close(loaded(pixels), expected, atol=1e-4, rtol=1e-4)
