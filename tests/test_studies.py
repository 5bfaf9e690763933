"""A study loads by one word, and says what is wrong with a word that is not one."""

import dataclasses

import pytest
import torch

from robustbias import manifest, studies
from robustbias.images import floats
from robustbias.utils import TABLES, MissingData, UserError


@pytest.fixture(scope="module")
def iconworld():
    return studies.load("iconworld", device="cpu")


@pytest.mark.parametrize("name", manifest.networks("iconworld"))
def test_shipped_weights_load_and_recognise_held_out_designs(iconworld, name):
    network, entry = iconworld.network_named(name), manifest.network(name)
    assert network.weights_hash == entry.sha256
    cue = None if entry.cue == "both" else entry.cue
    of_its_world = studies.load("iconworld", device="cpu", world=entry.world)
    source = of_its_world.source if entry.world else iconworld.source
    images = source.single_cue(cue, 160) if cue else source.val(160)
    with torch.no_grad():
        top1 = (network(floats(images.pixels)).argmax(1) == images.labels).float().mean()
    # chance is 1/16; the largest radius costs the most
    assert top1 > (0.8 if entry.regime == "standard" else 0.4)


def test_parts_of_a_study_can_be_chosen():
    chosen = studies.load("iconworld", device="cpu", architectures=["googlenet"])
    assert {e.architecture for e in chosen.entries} == {"googlenet"}
    assert chosen.network("googlenet", "robust").entry.eps == chosen.entry.threat.eps
    with pytest.raises(UserError, match="has no robust alexnet here; it has: googlenet"):
        chosen.network("alexnet", "robust")


def test_a_world_parameter_changes_the_images_and_their_digest(iconworld):
    other = studies.load("iconworld", device="cpu", world={"texture_contrast": 0.2})
    assert other.source.world.texture_contrast == 0.2
    assert other.source.digest != iconworld.source.digest
    with pytest.raises(UserError, match=r"unknown world parameter\(s\) \['contrast'\]; valid: .*"):
        studies.load("iconworld", world={"contrast": 0.2})
    with pytest.raises(UserError, match="unknown world parameter"):
        studies.load("tiny-imagenet", world={"side": 32})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "icon"}, "unknown study 'icon'; valid: iconworld, imagenet, tiny-imagenet"),
        ({"name": "iconworld", "architectures": ["vgg"]}, "has no architecture vgg; it has"),
        ({"name": "iconworld", "device": "tpu"}, "unknown device 'tpu'; expected cpu, cuda"),
    ],
)
def test_wrong_words_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        studies.load(**arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has cuda")
def test_cuda_is_refused_where_there_is_none():
    with pytest.raises(UserError, match="torch sees none; use cpu or auto"):
        studies.load("iconworld", device="cuda")


def test_membership_is_one_class_a_category(iconworld):
    table = iconworld.membership(iconworld.network("googlenet", "standard"))
    assert torch.equal(table, torch.eye(16))


def test_a_kind_of_data_without_a_source_says_so():
    entry = dataclasses.replace(manifest.study("iconworld"), dataset="broden")
    with pytest.raises(MissingData, match="kind 'broden', for which there is no source"):
        studies.source(entry, torch.device("cpu"))


def test_the_footer_names_weights_data_code_and_device(iconworld):
    footer = iconworld.footer()
    assert footer["images (digest)"] == iconworld.source.digest[:12]
    for entry in iconworld.entries:
        assert footer[f"weights of {entry.name}"] == entry.sha256[:12]
    assert {"commit", "device", "seconds", "torch"} <= set(footer)


def test_a_mistyped_key_of_the_style_transfer_or_the_world_is_named():
    entry = manifest.study("tiny-imagenet")
    for table, message in (
        ({"painters": ["tiny-imagenet-painter"], "stile": 3.0}, r"unknown key\(s\) \['stile'\]"),
        ({"painters": ["tiny-imagenet-painter"], "steps": "many"}, "steps: expected int"),
    ):
        wrong = dataclasses.replace(entry, painting=table)
        with pytest.raises(UserError, match=f"study tiny-imagenet: painting.*{message}"):
            studies.source(wrong, torch.device("cpu"))
    world = manifest.study("iconworld")
    wrong = dataclasses.replace(world, world=world.world | {"sid": 64})
    with pytest.raises(UserError, match="study iconworld: world: unknown key"):
        studies.source(wrong, torch.device("cpu"))


def test_a_footer_carries_the_summaries_of_the_tables_that_were_used():
    study = studies.load("iconworld", device="cpu")
    study.tables["accuracy-0"] = {"measure": "accuracy"}
    assert study.footer()._repr_mimebundle_()[TABLES] == [{"measure": "accuracy"}]
