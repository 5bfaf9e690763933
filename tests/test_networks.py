"""Any architecture by a manifest entry alone: built, loaded, converted, checked."""

import dataclasses
import sys
import types

import pytest
import torch
import torchvision
from PIL import Image

import miniature
from robustbias import manifest
from robustbias.images import doctor
from robustbias.images.cue_conflict import class_names
from robustbias.manifest import NetworkEntry
from robustbias.networks import checkpoints, zoo
from robustbias.utils import MissingData, UserError


def entry(path="x.pt", **changes) -> NetworkEntry:
    """A network of a thousand classes with its checkpoint at `path`."""
    facts = {
        "name": "mine", "title": "Mine", "architecture": "squeezenet1_1", "regime": "standard",
        "classes": 1000, "size": 224, "layers": ("features.1", "features.12"), "licence": "MIT",
        "dataset": "imagenet-val", "source": "a test", "weights": str(path), "study": "imagenet",
    }  # fmt: skip
    return NetworkEntry(**facts | changes)


@pytest.fixture
def data(tmp_path, monkeypatch, image_cache):
    monkeypatch.setenv("ROBUSTBIAS_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def original(architecture: str, **arguments) -> torch.nn.Module:
    torch.manual_seed(0)
    return torchvision.models.get_model(architecture, **arguments).eval()


@pytest.mark.parametrize(
    ("architecture", "arguments", "layer"),
    [
        ("mnasnet0_5", {}, "layers.8"),
        ("shufflenet_v2_x0_5", {}, "stage2"),
        ("mobilenet_v2", {"width_mult": 0.25}, "features.3"),
        ("resnet18", {"width_per_group": 64}, "layer1"),
        ("densenet121", {}, "features.transition1"),
    ],
)
@pytest.mark.parametrize("layout", ["plain", "parallel"])
def test_any_architecture_of_torchvision_loads_and_is_cut(
    tmp_path, architecture, arguments, layer, layout
):
    body, path = original(architecture, **arguments), tmp_path / "a.pt"
    miniature.saved(path, architecture, layout, body)
    one = entry(path, architecture=architecture, arguments=arguments, layers=(layer,))
    table = doctor.checked(one)
    assert table["ok"].all()
    pixels = torch.rand(1, 3, 96, 96)
    mean, std = torch.tensor(one.mean)[:, None, None], torch.tensor(one.std)[:, None, None]
    with torch.no_grad():
        torch.testing.assert_close(zoo.load(one)(pixels), body((pixels - mean) / std))


def test_a_network_of_timm_is_built_by_timm(monkeypatch):
    body = original("squeezenet1_1")
    timm = types.ModuleType("timm")
    timm.is_model = lambda name: name == "small"
    timm.create_model = lambda name, num_classes, **arguments: body
    monkeypatch.setitem(sys.modules, "timm", timm)
    assert zoo.untrained(entry(architecture="timm:small")).body is body
    with pytest.raises(UserError, match="unknown architecture 'timm:large'"):
        zoo.untrained(entry(architecture="timm:large"))
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match="pip install timm"):
        zoo.untrained(entry(architecture="timm:small"))


def test_a_real_network_of_timm_loads(tmp_path):
    timm = pytest.importorskip("timm")
    body = timm.create_model("resnet10t", num_classes=1000).eval()
    miniature.saved(tmp_path / "a.pt", "resnet10t", "plain", body)
    one = entry(tmp_path / "a.pt", architecture="timm:resnet10t", layers=("layer1", "layer4"))
    assert doctor.checked(one)["ok"].all()


def test_converted_weights_are_read_in_place_of_the_original(tmp_path):
    body, path = original("squeezenet1_1"), tmp_path / "a.pt"
    miniature.saved(path, "resnet50", "robustness", body)
    one, pixels = entry(path), torch.rand(1, 3, 64, 64)
    before = zoo.load(one)
    converted = zoo.convert(one)
    assert converted == tmp_path / "a.pt.safetensors"
    assert checkpoints.metadata(converted)["network"] == "mine"
    whole, other = path.read_bytes(), original("squeezenet1_1")
    other.classifier[1].bias.data += 1
    miniature.saved(path, "resnet50", "robustness", other)
    with pytest.raises(UserError, match=r"converted from a file .*a\.pt has .* convert again"):
        zoo.load(one)
    path.write_bytes(whole)
    with pytest.raises(UserError, match=r"with other patterns `rename`"):
        zoo.load(dataclasses.replace(one, rename={"^a": "b"}))
    path.unlink()
    after = zoo.load(one)
    assert torch.equal(before(pixels), after(pixels))
    assert before.weights_hash == after.weights_hash  # tables measured before stay valid
    with pytest.raises(UserError, match=r"converted from a file with sha256 .* delete it and conv"):
        zoo.load(dataclasses.replace(one, sha256="0" * 64))
    with pytest.raises(MissingData, match="no weights at"):
        zoo.convert(one)
    with pytest.raises(UserError, match="are safetensors already"):
        zoo.convert(entry(converted))


@pytest.mark.parametrize(("what", "wrong"), [("mean", (0.5, 0.5, 0.5)), ("std", (1.0, 1.0, 1.0))])
def test_another_normalisation_than_that_of_training_is_refused(tmp_path, what, wrong):
    path = tmp_path / "a.pt"
    miniature.saved(path, "resnet50", "robustness", original("squeezenet1_1"))
    zoo.load(entry(path))
    with pytest.raises(UserError, match=rf"normalises by the {what} \[.*correct `{what}`"):
        zoo.load(entry(path, **{what: wrong}))


def test_input_is_shifted_only_where_the_architecture_knows_how():
    with pytest.raises(UserError, match="squeezenet1_1 has no transform_input"):
        zoo.untrained(entry(transform_input=True))


def test_weights_to_be_had_by_hand_say_where_and_how(data):
    one = entry(weights="", by_hand="ask the authors for a.pt", file="a.pt")
    place = data / "networks" / "a.pt"
    with pytest.raises(MissingData, match=rf"by hand, as {place}: ask the authors for a\.pt"):
        zoo.load(one)
    miniature.saved(place, "squeezenet1_1", "plain", original("squeezenet1_1"))
    assert zoo.load(one).weights_hash


def test_a_check_finds_layers_that_give_no_maps(tmp_path):
    body, path = original("vit_b_32"), tmp_path / "a.pt"
    miniature.saved(path, "vit_b_32", "plain", body)
    layers = ("conv_proj", "encoder.layers.encoder_layer_3", "encoder.no")
    table = doctor.checked(entry(path, architecture="vit_b_32", layers=layers))
    found = table.set_index("what")
    assert found.loc[list(layers), "ok"].tolist() == [True, False, False]
    assert found.loc["conv_proj", "found"] == "768 x 7 x 7"


def test_a_check_compares_the_accuracy_with_the_published_one(tmp_path, data, monkeypatch):
    """A network that always answers class 3, on six photographs of which four are of class 3."""
    body, path = original("squeezenet1_1"), tmp_path / "a.pt"
    body.classifier[1].bias.data[3] = 1e6
    miniature.saved(path, "squeezenet1_1", "plain", body)
    named = manifest.dataset
    monkeypatch.setattr(
        manifest, "dataset", lambda name: dataclasses.replace(named(name), images={"val": 6})
    )
    wnids = class_names("imagenet_classes.txt")
    for i, label in enumerate((3, 3, 3, 3, 0, 1)):
        place = data / "imagenet" / "val" / wnids[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (i, i, i)).save(place / f"{i}.JPEG")
    one = dataclasses.replace(entry(path), expected={"top1_percent": 60.0})
    row = doctor.checked(one).iloc[-1]
    assert row["what"] == "top-1 on imagenet-val, n = 6"
    assert row["found"].startswith("66.67 [")
    assert row["ok"]
    far = dataclasses.replace(one, expected={"top1_percent": 99.0})
    assert not doctor.checked(far).iloc[-1]["ok"]
