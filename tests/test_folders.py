"""Folders in the layouts of ImageNet-A, -R, -Sketch and -C, made small."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

import toy_folders
from robustbias import manifest
from robustbias.images import doctor, imagenet
from robustbias.images.corruptions.constants import NAMES, SEVERITIES
from robustbias.ood_generalization import variants
from robustbias.ood_generalization.variants import folder_accuracy
from robustbias.utils import MissingData, UserError
from toy_folders import WNIDS


def written(path, size=(8, 8), level=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, level, level)).save(path)


@pytest.fixture
def photographs(tmp_path):
    """Three classes of the study and a fourth folder that is none; images of several suffixes."""
    for k, wnid in enumerate(WNIDS):
        for i, suffix in enumerate(("JPEG", "jpg", "png")):
            written(tmp_path / wnid / f"{i}.{suffix}", level=60 * k)
    written(tmp_path / "n99999999" / "0.JPEG")
    (tmp_path / "README.txt").write_text("not a folder")
    (tmp_path / WNIDS[0] / "notes.txt").write_text("not an image")
    return tmp_path


def test_images_are_read_by_class_and_labels_follow_the_order_of_the_study(photographs):
    images = imagenet.labelled(photographs, WNIDS[::-1], 8)
    assert images.classes == WNIDS[::-1]
    assert len(images) == 9
    for pixels, label, name in zip(images.pixels, images.labels, images.names, strict=True):
        wnid = images.classes[label]
        assert name.startswith(wnid)
        assert abs(int(pixels.float().mean()) - 60 * WNIDS.index(wnid)) <= 2


def test_a_subset_of_the_classes_is_enough(photographs):
    images = imagenet.labelled(photographs, ("n00000000", *WNIDS[1:], "n88888888"), 8)
    assert images.classes == WNIDS[1:]
    assert images.labels.tolist() == [0] * 3 + [1] * 3


def test_a_sample_is_a_function_of_the_seed_and_has_no_repeats(photographs):
    draw = [imagenet.labelled(photographs, WNIDS, 8, n=5, seed=s).names for s in (0, 0, 1)]
    assert draw[0] == draw[1] != draw[2]
    assert len(set(draw[0])) == 5
    assert len(imagenet.labelled(photographs, WNIDS, 8, n=50)) == 9


def test_a_photograph_is_cropped_once_and_one_of_that_size_is_untouched(tmp_path):
    """A bright square of half the shorter side, in the middle of a wide image."""
    wide = np.zeros((64, 128, 3), np.uint8)
    wide[16:48, 48:80] = 255
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    for name, array in (("wide", wide), ("exact", noise)):
        (tmp_path / WNIDS[0]).mkdir(exist_ok=True)
        Image.fromarray(array).save(tmp_path / WNIDS[0] / f"{name}.png")
    exact, cropped = imagenet.labelled(tmp_path, WNIDS, 32).pixels
    assert torch.equal(exact.permute(1, 2, 0), torch.from_numpy(noise))
    bright = (cropped > 127).float().mean()
    assert bright == pytest.approx((0.5 / 0.875) ** 2, rel=0.1)


def test_images_of_imagenet_c_are_never_cropped_again(tmp_path):
    """Trap: ImageNet-C resized and cropped twice. The border of the stored crop must survive."""
    frame = np.zeros((64, 64, 3), np.uint8)
    frame[:4] = frame[-4:] = frame[:, :4] = frame[:, -4:] = 255
    path = tmp_path / "fog" / "3" / WNIDS[0]
    path.mkdir(parents=True)
    Image.fromarray(frame).save(path / "0.png")
    pixels = imagenet.corrupted(tmp_path, "fog", 3, WNIDS, 32).pixels[0]
    assert (pixels[:, 0] > 200).all()
    assert torch.equal(
        imagenet.corrupted(tmp_path, "fog", 3, WNIDS, 64).pixels[0].permute(1, 2, 0),
        torch.from_numpy(frame),
    )


def test_wrong_folders_are_refused(photographs, tmp_path):
    with pytest.raises(MissingData, match="no folder .*absent"):
        imagenet.labelled(tmp_path / "absent", WNIDS, 8)
    with pytest.raises(UserError, match="no folder named after a class .*it holds n01440764"):
        imagenet.labelled(photographs, ("dog", "cat"), 8)
    with pytest.raises(UserError, match="n = 0"):
        imagenet.labelled(photographs, WNIDS, 8, n=0)
    with pytest.raises(UserError, match="size 0"):
        imagenet.labelled(photographs, WNIDS, 0)
    (photographs / WNIDS[1] / "0.JPEG").write_text("<html>")
    with pytest.raises(UserError, match="0.JPEG is not a readable image"):
        imagenet.labelled(photographs, WNIDS, 8)
    for file in (photographs / WNIDS[1]).iterdir():
        file.unlink()
    with pytest.raises(UserError, match=f"no image in {WNIDS[1]}"):
        imagenet.labelled(photographs, WNIDS, 8)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="it holds nothing"):
        imagenet.labelled(tmp_path / "empty", WNIDS, 8)


def test_unknown_cells_of_imagenet_c_are_refused(tmp_path):
    with pytest.raises(UserError, match="unknown corruption 'rain'; valid: gaussian_noise"):
        imagenet.corrupted(tmp_path, "rain", 1, WNIDS, 8)
    with pytest.raises(UserError, match="severity 6"):
        imagenet.corrupted(tmp_path, "fog", 6, WNIDS, 8)
    with pytest.raises(MissingData, match="fog/1"):
        imagenet.corrupted(tmp_path, "fog", 1, WNIDS, 8)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data directory with an ImageNet-R and a Tiny-ImageNet-C of the toy study's classes."""
    monkeypatch.setenv("ROBUSTBIAS_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("ROBUSTBIAS_TABLES", str(tmp_path / "tables"))
    for k, wnid in enumerate(WNIDS[:2]):
        for i in range(5):
            toy_folders.painted(tmp_path / "data" / "imagenet-r" / wnid / f"{i}.png", k, i != 0)
    for name in NAMES:
        for severity in SEVERITIES:
            for k, wnid in enumerate(WNIDS):
                for i in range(4):
                    path = tmp_path / "data" / "tiny-imagenet-c" / name / str(severity) / wnid
                    toy_folders.painted(path / f"{i}.png", k, i >= 2 or severity < 3)
    return tmp_path / "data"


def test_networks_choose_among_the_classes_that_the_folder_has(data):
    """S looks at the right half, which lies in 1 of 5 images, R at the left, which never does."""
    table = folder_accuracy(toy_folders.study(), names=["imagenet-r"], n_images=50)
    top1 = table[table["metric"] == "top1"].set_index("regime")
    assert top1.loc["robust", "value"] == 1.0
    assert top1.loc["standard", "value"] == pytest.approx(0.8)
    assert set(top1["group"]) == set(top1["condition"]) == {"imagenet-r"}
    assert not table["metric"].str.contains("conditional").any()


def test_the_cells_of_imagenet_c_give_a_mce_by_hand(data):
    """S errs on half the images at severities 3 to 5 and R nowhere; S is the AlexNet."""
    study = toy_folders.study()
    table = folder_accuracy(study, names=["tiny-imagenet-c"], n_images=100)
    mce = table[table["metric"] == "mce"].set_index("regime")["value"]
    assert mce["standard"] == 100
    assert mce["robust"] == 0
    cell = table[(table["metric"] == "top1") & (table["regime"] == "standard")]
    cell = cell[cell["condition"] == "fog"].set_index("severity")["value"]
    assert cell[[1, 2, 3, 4, 5]].tolist() == [1, 1, 0.5, 0.5, 0.5]
    assert cell[cell.index.isna()].item() == pytest.approx(0.7)


def test_the_table_of_a_folder_changes_with_the_folder(data):
    """Trap: a stored table that outlives the data it was measured on."""
    study = toy_folders.study()
    before = folder_accuracy(study, names=["imagenet-r"], n_images=50)
    toy_folders.painted(data / "imagenet-r" / WNIDS[0] / "9.png", 1, True)
    after = folder_accuracy(study, names=["imagenet-r"], n_images=50)
    assert before["n"].max() == 10
    assert after["n"].max() == 11
    assert (after["value"] != before["value"]).any()


def test_the_digest_of_a_folder_is_of_its_content(data):
    """Trap: images exchanged with their size and time kept."""
    folder = data / "imagenet-r"
    one = min(path for path in folder.glob("*/*") if path.parent.name in WNIDS)
    before, content, status = imagenet.contents(folder, WNIDS), one.read_bytes(), one.stat()
    one.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(one, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert imagenet.contents(folder, WNIDS) != before


def test_cells_with_other_photographs_and_sets_of_other_kinds_are_refused(data):
    toy_folders.painted(data / "tiny-imagenet-c" / "snow" / "2" / WNIDS[0] / "9.png", 0, True)
    with pytest.raises(UserError, match="snow/2 holds other photographs"):
        folder_accuracy(toy_folders.study(), names=["tiny-imagenet-c"])
    with pytest.raises(UserError, match="kind 'decisions'; expected one in folders: wnid-folders"):
        folder_accuracy(toy_folders.study(), names=["decisions"])
    with pytest.raises(MissingData, match="imagenet-a"):
        folder_accuracy(toy_folders.study(), names=["imagenet-a"])


def test_what_is_here_is_counted_by_group_of_corruptions(data):
    found = doctor.counted(manifest.dataset("tiny-imagenet-c"))
    assert found == {"noise": 180, "blur": 240, "weather": 240, "digital": 240}
    assert doctor.counted(manifest.dataset("imagenet-r")) == {"images": 10}
    assert set(variants.READERS) <= set(doctor.COUNTS)
