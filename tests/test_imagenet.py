"""ImageNet's photographs in every layout, decoded alike, with labels among the 1,000 classes."""

import dataclasses
import io
import tarfile

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

import miniature
from robustbias import manifest, studies
from robustbias.images import doctor, download, imagenet
from robustbias.images.cue_conflict import CATEGORIES, class_names, entry_level, trials
from robustbias.images.imagenet import ImageNet
from robustbias.utils import MissingData, UserError

WNIDS = class_names("imagenet_classes.txt")
ONE_EACH = [entry_level()[category][0] for category in CATEGORIES]


def written(path, image, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **how)


@pytest.fixture
def data(tmp_path, monkeypatch, image_cache):
    monkeypatch.setenv("ROBUSTBIAS_DATA", str(tmp_path))
    return tmp_path


def photograph(seed: int) -> Image.Image:
    return Image.open(io.BytesIO(miniature.jpeg(seed)))


@pytest.fixture
def photographs(data):
    """A class of every category, in numbered folders, and a class of none."""
    for wnid in (*ONE_EACH, WNIDS[0]):
        rank = WNIDS.index(wnid)
        written(data / "imagenetv2" / str(rank) / "a.jpeg", photograph(rank))
    return data


def test_labels_are_ranks_among_the_thousand_in_both_layouts(photographs):
    numbered = ImageNet(size=32).val()
    assert len(numbered.classes) == 1000
    assert sorted(numbered.labels.tolist()) == sorted(WNIDS.index(wnid) for wnid in ONE_EACH)
    for folder in list((photographs / "imagenetv2").iterdir()):
        folder.rename(folder.with_name(WNIDS[int(folder.name)]))
    named = ImageNet(size=32).val()
    assert torch.equal(named.labels, numbered.labels)
    assert torch.equal(named.pixels, numbered.pixels)


def test_all_photographs_are_taken_if_asked_for_or_if_a_category_has_none(photographs):
    assert len(ImageNet(size=32).val()) == 16
    assert len(ImageNet(size=32, subset="all").val()) == 17
    for file in (photographs / "imagenetv2" / str(WNIDS.index(ONE_EACH[3]))).iterdir():
        file.unlink()
        file.parent.rmdir()
    assert len(ImageNet(size=32).val()) == 16  # those of 15 categories and of none
    assert len(ImageNet(size=32, subset="entry-level").val()) == 15
    with pytest.raises(UserError, match="unknown subset 'some'"):
        ImageNet(subset="some")


def test_decoded_photographs_are_kept_and_made_again_when_a_file_changes(photographs, image_cache):
    first = ImageNet(size=32)
    before, digest = first.val().pixels.clone(), first.digest
    assert len(list(image_cache.rglob("*.npy"))) == 1
    assert torch.equal(ImageNet(size=32).val().pixels, before)
    assert len(list(image_cache.rglob("*.npy"))) == 1
    place = photographs / "imagenetv2" / str(WNIDS.index(ONE_EACH[0])) / "a.jpeg"
    written(place, photograph(5000))
    again = ImageNet(size=32)
    assert not torch.equal(again.val().pixels, before)
    assert again.digest != digest


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "RGBA", "P", "1", "LA"])
def test_every_kind_of_image_becomes_three_channels(data, mode):
    image = Image.new("RGB", (40, 30), (200, 200, 200))
    image = image.quantize() if mode == "P" else image.convert(mode)
    suffix = "jpeg" if mode in ("RGB", "L", "CMYK") else "png"
    written(data / "imagenetv2" / "0" / f"a.{suffix}", image)
    pixels = ImageNet(size=16).val().pixels
    assert pixels.shape == (1, 3, 16, 16)
    if mode != "1":
        assert (pixels.int() - 200).abs().max() <= 3


def test_photographs_stand_upright(data):
    """Red above blue, stored lying on its side with EXIF's orientation 6."""
    upright = Image.new("RGB", (32, 32), "blue")
    upright.paste("red", (0, 0, 32, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = upright.transpose(Image.Transpose.ROTATE_90)
    written(data / "imagenetv2" / "0" / "a.jpeg", lying, exif=exif, quality=95)
    red, _, blue = ImageNet(size=16).val().pixels[0].float()
    assert red[:6].min() > 200 > 50 > blue[:6].max()
    assert blue[-6:].min() > 200 > 50 > red[-6:].max()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_metadata_leave_the_pixels(data):
    written(
        data / "imagenetv2" / "0" / "a.jpeg", photograph(1), exif=b"Exif\0\0II*\0\xff\xff\xff\xff"
    )
    assert ImageNet(size=16).val().pixels.float().std() > 0


def test_a_photograph_is_resized_to_256_and_cropped_to_224(data):
    ramp = np.linspace(0, 255, 512)[None, :, None] * np.ones((256, 1, 3))
    written(data / "imagenetv2" / "0" / "a.png", Image.fromarray(ramp.astype(np.uint8)))
    row = ImageNet().val().pixels[0, 0, 100].float()
    assert row.shape == (224,)
    middle = ramp[0, 144:368, 0]  # of 512 columns
    assert np.abs(row.numpy() - middle).max() <= 2


def test_a_damaged_photograph_and_a_missing_folder_are_named(data):
    with pytest.raises(MissingData, match="robustbias fetch imagenetv2"):
        ImageNet().val()
    place = data / "imagenetv2" / "7" / "cut.jpeg"
    place.parent.mkdir(parents=True)
    place.write_bytes(miniature.jpeg(0)[:-300])
    with pytest.raises(UserError, match=r"cut\.jpeg is not a readable image"):
        ImageNet().val()


def test_a_study_takes_the_preferred_photographs_that_are_complete(photographs, monkeypatch):
    named, counts = manifest.dataset, {"imagenet-val": 2, "imagenetv2": 17}

    def dataset(name: str) -> manifest.DatasetEntry:
        here = {"images": {"images": counts[name]}} if name in counts else {}
        return dataclasses.replace(named(name), **here)

    monkeypatch.setattr(manifest, "dataset", dataset)
    assert studies.load("imagenet", device="cpu").entry.dataset == "imagenetv2"
    for k in range(2):
        written(photographs / "imagenet" / "val" / WNIDS[k] / "a.JPEG", photograph(k))
    study = studies.load("imagenet", device="cpu")
    assert study.entry.dataset == "imagenet-val"
    assert study.source.val().labels.tolist() == [0, 1]
    assert "imagenet-val" in doctor.studied(manifest.study("imagenet"))


def test_stylized_photographs_are_named_after_trials(data):
    place = data / "model-vs-human" / "stylized" / "session-1"
    for k, name in enumerate(("car", "dog", "zebra")):
        written(
            place / f"{k:04d}_sty_dnn_0_{name}_00_{name}-0149-ILSVRC2012-val-00049427.png",
            Image.new("RGB", (224, 224), (k, 0, 0)),
        )
    images = ImageNet(("car", "dog")).stylized()
    assert (images.classes, images.labels.tolist()) == (("car", "dog"), [0, 1])
    assert images.pixels[:, 0, 0, 0].tolist() == [0, 1]
    with pytest.raises(MissingData, match="no stimulus of cat"):
        trials(place.parent, 224, ("cat",))


# The official files


def devkit(classes: list[str]) -> bytes:
    """The development kit of a validation split whose image i is of classes[i]."""
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")]
    synsets = np.array([(k + 1, wnid, "a thing") for k, wnid in enumerate(WNIDS[::-1])], dtype=kind)
    table, archive = io.BytesIO(), io.BytesIO()
    scipy.io.savemat(table, {"synsets": synsets})
    ids = "".join(f"{1 + WNIDS[::-1].index(wnid)}\n" for wnid in classes)
    files = {"meta.mat": table.getvalue(), "ILSVRC2012_validation_ground_truth.txt": ids.encode()}
    with tarfile.open(fileobj=archive, mode="w:gz") as kit:
        for name, content in files.items():
            member = tarfile.TarInfo(f"ILSVRC2012_devkit_t12/data/{name}")
            member.size = len(content)
            kit.addfile(member, io.BytesIO(content))
    return archive.getvalue()


@pytest.fixture
def official(data, monkeypatch):
    """The two archives of ILSVRC 2012 with three images, as somebody put them there by hand."""
    classes = [WNIDS[8], WNIDS[2], WNIDS[8]]
    images = {f"ILSVRC2012_val_{k + 1:08d}.JPEG": miniature.jpeg(k) for k in range(len(classes))}
    (data / "archives").mkdir()
    miniature.tarred(data / "archives" / "ILSVRC2012_img_val.tar", images)
    (data / "archives" / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(devkit(classes))
    named = manifest.dataset("imagenet-val")
    files = tuple(dataclasses.replace(file, md5="") for file in named.files)
    entry = dataclasses.replace(named, images={"val": 3}, files=files)
    monkeypatch.setattr(manifest, "dataset", lambda _: entry)
    return data


@pytest.mark.filterwarnings("ignore:.*has no published hash")
def test_the_official_archives_are_sorted_by_the_devkit(official):
    place = download.fetch("imagenet-val", progress=False)
    found = sorted(str(path.relative_to(place)) for path in place.rglob("*.JPEG"))
    assert found == [
        f"{WNIDS[2]}/ILSVRC2012_val_00000002.JPEG",
        f"{WNIDS[8]}/ILSVRC2012_val_00000001.JPEG",
        f"{WNIDS[8]}/ILSVRC2012_val_00000003.JPEG",
    ]
    batches = list(imagenet.batches(manifest.dataset("imagenet-val"), 32, batch=2))
    assert torch.cat([labels for _, labels in batches]).tolist() == [2, 8, 8]
    assert [len(pixels) for pixels, _ in batches] == [2, 1]


@pytest.mark.filterwarnings("ignore:.*has no published hash")
@pytest.mark.parametrize("kit", [b"no archive", devkit([WNIDS[0]])])
def test_a_devkit_of_another_set_is_refused_and_leaves_nothing(official, kit):
    (official / "archives" / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(kit)
    with pytest.raises(UserError, match="is not the development kit|there are 3 in the archive"):
        download.fetch("imagenet-val", progress=False)
    assert list((official / "imagenet").iterdir()) == []


def test_a_missing_official_archive_is_named_with_its_place(official):
    (official / "archives" / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    with pytest.raises(MissingData, match=r"archives: ILSVRC2012_devkit_t12\.tar\.gz\. Not down"):
        download.fetch("imagenet-val", progress=False)
