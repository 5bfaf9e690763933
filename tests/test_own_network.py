"""A network of a user's: one entry of the manifest and a checkpoint go through the chapters."""

import shutil

import pytest
import torch
import torchvision

import miniature
from robustbias import manifest, studies
from robustbias.adversarial_training.measure import accuracy
from robustbias.images.cue_conflict import CATEGORIES, class_names, entry_level
from robustbias.input_types.measure import input_types
from robustbias.ood_generalization.measure import ood
from robustbias.shape_bias.measure import shape_bias
from robustbias.smooth_filters.measure import smoothness

ENTRY = """
[network.mine]
study = "imagenet"
title = "SqueezeNet, mine"
architecture = "squeezenet1_1"
regime = "standard"
pair = "squeezenet1_1"
classes = 1000
size = 224
layers = ["features.1", "features.12"]
dataset = "imagenet-val"
weights = "CHECKPOINT"
licence = "mine"
source = "trained by me"
"""
PHOTOGRAPHS = 2


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The study `imagenet` with that network alone, two photographs a category, few stimuli."""
    folder = tmp_path_factory.mktemp("own")
    torch.manual_seed(0)
    body = torchvision.models.squeezenet1_1().eval()
    torch.save({"state_dict": body.state_dict()}, folder / "net.pt")
    shutil.copytree(manifest.ROOT / "data_manifest", folder / "root" / "data_manifest")
    for path in (folder / "root" / "data_manifest" / "networks").iterdir():
        path.unlink()
    mine = folder / "root" / "data_manifest" / "networks" / "mine.toml"
    mine.write_text(ENTRY.replace("CHECKPOINT", str(folder / "net.pt")))
    wnids = class_names("imagenet_classes.txt")
    for k, category in enumerate(CATEGORIES):
        place = folder / "data" / "imagenetv2" / str(wnids.index(entry_level()[category][0]))
        place.mkdir(parents=True)
        for i in range(PHOTOGRAPHS):
            (place / f"{i}.jpeg").write_bytes(miniature.jpeg(10 * k + i))
    for name, content in miniature.stimuli().items():
        path = (
            folder
            / "data"
            / "texture-vs-shape"
            / name.split("stimuli/")[1].replace("style-transfer-preprocessed-512", "cue-conflict")
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    miniature.concept_set(folder / "data" / "broden1_224", n=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "ROOT", folder / "root")
        patch.setenv("ROBUSTBIAS_DATA", str(folder / "data"))
        patch.setenv("ROBUSTBIAS_CACHE", str(folder / "cache"))
        patch.setenv("ROBUSTBIAS_TABLES", str(folder / "tables"))
        manifest._network_tables.cache_clear()
        studies._loaded.cache_clear()
        yield studies.load("imagenet", device="cpu")
    manifest._network_tables.cache_clear()
    studies._loaded.cache_clear()


CHAPTERS = {
    "01": lambda study: accuracy(study, n_images=4, steps=1),
    "02": lambda study: shape_bias(study, null_seeds=1, draws=20),
    "03": lambda study: ood(study, n_images=4, n_corrupted=1, n_attacked=1, draws=20),
    "04": lambda study: smoothness(study, n_images=2, draws=20),
    "06": lambda study: input_types(
        study, n_images=16, k=4, concepts="broden", concept_images=8, draws=20
    ),
}


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_it_goes_through_a_chapter(study, chapter):
    assert [entry.name for entry in study.entries] == ["mine"]
    table = CHAPTERS[chapter](study)
    assert "mine" in set(table["network"])
    assert table.loc[table["network"] == "mine", "value"].notna().any()
