import io
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from robustbias.images import tiny_imagenet_files
from robustbias.images.cue_conflict import class_names, entry_level
from robustbias.images.tiny_imagenet import TinyImageNet
from robustbias.utils import MissingData, UserError

WNIDS = class_names("tiny_imagenet_classes.txt")
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
CATS = tuple(w for w in entry_level()["cat"] if w in WNIDS)


def jpeg(rng, mode="RGB", side=64):
    coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((side, side)).convert(mode).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture(scope="module")
def images():
    """(split, WNID, name, JPEG): four train and two val images of each of the 200 classes."""
    rng = np.random.default_rng(0)
    train = [("train", w, f"{w}_{i}.JPEG") for w in WNIDS for i in (0, 2, 10, 33)]
    val = [("val", w, f"val_{2 * i + j}.JPEG") for i, w in enumerate(WNIDS) for j in (0, 1)]
    return [
        (*image, jpeg(rng, "L" if n % 50 == 0 else "RGB")) for n, image in enumerate(train + val)
    ]


def parquet(path, rows, metadata=None):
    table = pa.table(
        {
            "image": pa.array([{"bytes": c, "path": n} for _, _, n, c in rows], IMAGE),
            "label": pa.array([WNIDS.index(w) for _, w, _, _ in rows], pa.int64()),
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(metadata), path)


@pytest.fixture
def sharded(tmp_path, images, image_cache):
    """The images in shuffled parquet shards, two of train and one of val."""
    folder = tmp_path / "parquet" / "tiny-imagenet"
    order = np.random.default_rng(1).permutation(len(images))
    train = [images[i] for i in order if images[i][0] == "train"]
    parquet(folder / "train-00000-of-00002.parquet", train[:300])
    parquet(folder / "train-00001-of-00002.parquet", train[300:])
    parquet(
        folder / "valid-00000-of-00001.parquet", [images[i] for i in order if images[i][0] == "val"]
    )
    return folder.parent


@pytest.fixture
def official(tmp_path, images, image_cache):
    """The images in the folders of the official zip, below tiny-imagenet-200/ as it unpacks."""
    root = tmp_path / "zip" / "tiny-imagenet" / "tiny-imagenet-200"
    for split, wnid, name, content in images:
        folder = root / "train" / wnid / "images" if split == "train" else root / "val" / "images"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (root / "wnids.txt").write_text("\n".join(reversed(WNIDS)))
    lines = [f"{name}\t{wnid}\t0\t0\t9\t9" for split, wnid, name, _ in images if split == "val"]
    (root / "val" / "val_annotations.txt").write_text("\n".join(reversed(lines)) + "\n")
    return root.parents[1]


def test_the_classes_are_sorted_wnids_and_labels_index_them(sharded, images):
    source = TinyImageNet(directory=sharded)
    assert len(source.classes) == 26
    assert list(source.classes) == sorted(source.classes)
    train = source.train(0, 0)
    assert train.classes == source.classes
    assert train.labels.bincount().tolist() == [4] * 26
    wnid = {name: wnid for _, wnid, name, _ in images}
    for split in (train, source.val()):
        assert [source.classes[k] for k in split.labels] == [wnid[name] for name in split.names]


def test_pixels_are_those_of_the_stored_jpegs(sharded, images):
    content = {name: content for _, _, name, content in images}
    train = TinyImageNet(directory=sharded, subset="all").train(0, 0)
    assert train.pixels.shape == (800, 3, 64, 64)
    for i in (0, 1, 399, 799):
        stored = np.asarray(Image.open(io.BytesIO(content[train.names[i]])).convert("RGB"))
        np.testing.assert_array_equal(train.pixels[i].permute(1, 2, 0).numpy(), stored)


def test_images_come_by_class_and_then_by_number(sharded):
    train = TinyImageNet(directory=sharded).train(0, 0)
    assert (train.labels.diff() >= 0).all()
    numbers = [int(name.split("_")[1].split(".")[0]) for name in train.names]
    assert numbers == [0, 2, 10, 33] * 26


def test_both_layouts_give_the_same_images(sharded, official):
    one, other = TinyImageNet(directory=sharded), TinyImageNet(directory=official)
    for a, b in ((one.train(0, 0), other.train(0, 0)), (one.val(), other.val())):
        assert a.names == b.names
        torch.testing.assert_close(a.pixels, b.pixels, rtol=0, atol=0)
        torch.testing.assert_close(a.labels, b.labels)
    assert one.digest != other.digest  # the shards come without boxes
    boxes = official / "tiny-imagenet" / "tiny-imagenet-200" / "val" / "val_annotations.txt"
    shutil.copy(boxes, sharded / "tiny-imagenet")
    assert TinyImageNet(directory=sharded).digest == other.digest


def test_the_digest_changes_with_the_classes(sharded):
    digests = {
        TinyImageNet(directory=sharded).digest,
        TinyImageNet(("cat", "dog"), directory=sharded).digest,
        TinyImageNet(directory=sharded, subset="all").digest,
    }
    assert len(digests) == 3


def test_a_choice_of_categories_narrows_the_classes(sharded):
    source = TinyImageNet(("cat",), directory=sharded)
    assert source.classes == CATS
    assert len(source.val()) == 2 * len(CATS)


def test_every_epoch_and_seed_gives_the_stored_images(sharded):
    source = TinyImageNet(("cat",), directory=sharded)
    torch.testing.assert_close(source.train(0, 0).pixels, source.train(3, 7).pixels)


def test_images_are_decoded_once(sharded, image_cache, monkeypatch):
    first = TinyImageNet(("cat",), directory=sharded).train(0, 0)
    monkeypatch.setattr("robustbias.images.tiny_imagenet._pixels", lambda *_: pytest.fail("again"))
    again = TinyImageNet(("cat",), directory=sharded).train(0, 0)
    torch.testing.assert_close(first.pixels, again.pixels)
    assert len(list(image_cache.rglob("*.npy"))) == 1


@pytest.mark.parametrize("layout", ["sharded", "official"])
def test_a_changed_image_is_decoded_again_though_size_and_time_are_kept(layout, images, request):
    """Trap: new images under an old digest, from the pixels decoded before."""
    directory = request.getfixturevalue(layout)
    jpeg = next(content for split, wnid, _, content in images if (split, wnid) == ("val", CATS[0]))
    for shard in directory.rglob("*.parquet"):  # as it is, so that the image is in the file
        pq.write_table(pq.read_table(shard), shard, compression="none", use_dictionary=False)
    before = TinyImageNet(directory=directory)
    old = before.digest
    (path,) = [p for p in directory.rglob("*") if p.is_file() and jpeg in p.read_bytes()]
    status = path.stat()
    at = jpeg.index(b"\xff\xdb") + 5  # the first number of the quantisation, by which all is scaled
    other = jpeg[:at] + bytes([2 * jpeg[at]]) + jpeg[at + 1 :]
    path.write_bytes(path.read_bytes().replace(jpeg, other))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = TinyImageNet(directory=directory)
    assert path.stat().st_size == status.st_size
    assert (after.val().pixels != before.val().pixels).any()
    assert after.digest != old


def test_counts_need_no_decoding(sharded, official):
    for directory, split, expected in ((sharded, "train", 800), (official, "val", 400)):
        assert tiny_imagenet_files.count(directory / "tiny-imagenet", split) == expected


def test_a_truncated_shard_is_one_clear_error_and_leaves_nothing(sharded, image_cache):
    shard = sharded / "tiny-imagenet" / "train-00001-of-00002.parquet"
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    with pytest.raises(
        UserError, match=r"train-00001-of-00002.parquet is not a whole parquet file"
    ):
        TinyImageNet(directory=sharded).train(0, 0)
    assert list(image_cache.rglob("*.npy*")) == []


def test_a_missing_shard_is_named(sharded):
    (sharded / "tiny-imagenet" / "train-00000-of-00002.parquet").unlink()
    with pytest.raises(UserError, match=r"1 of 2 train shards; missing number 00000. Get the data"):
        TinyImageNet(directory=sharded).train(0, 0)


def test_shards_of_another_schema_or_label_range_are_errors(sharded, images):
    shard = sharded / "tiny-imagenet" / "valid-00000-of-00001.parquet"
    pq.write_table(pa.table({"img": [b"x"], "label": [1]}), shard)
    with pytest.raises(
        UserError, match="columns img: binary, label: int64; expected image: struct"
    ):
        TinyImageNet(directory=sharded).val()
    rows = pq.read_table(sharded / "tiny-imagenet" / "train-00000-of-00002.parquet")
    pq.write_table(rows.set_column(1, "label", pa.array([200] * len(rows))), shard)
    with pytest.raises(UserError, match=r"labels 200\.\.200; expected 0\.\.199"):
        TinyImageNet(directory=sharded).val()


def test_shards_that_name_classes_in_another_order_are_an_error(sharded, images):
    names = ", ".join(f'"{wnid}"' for wnid in reversed(WNIDS))
    about = f'{{"info": {{"features": {{"label": {{"names": [{names}]}}}}}}}}'
    shard = sharded / "tiny-imagenet" / "valid-00000-of-00001.parquet"
    parquet(shard, images[-3:], metadata={"huggingface": about})
    with pytest.raises(UserError, match=r"not the 200 sorted WNIDs .*labels would be misread"):
        TinyImageNet(directory=sharded).val()


def test_notes_that_are_none_and_rows_without_a_label_are_errors(sharded, images):
    shard = sharded / "tiny-imagenet" / "valid-00000-of-00001.parquet"
    whole = pq.read_table(shard)
    for about in (b"[", b"[1]", b'{"info": 3}', b"\xff"):
        pq.write_table(whole.replace_schema_metadata({b"huggingface": about}), shard)
        with pytest.raises(UserError, match="readable notes on its columns"):
            TinyImageNet(directory=sharded).val()
    labels = pa.array([None, *whole["label"].to_pylist()[1:]], pa.int64())
    pq.write_table(whole.set_column(1, "label", labels), shard)
    with pytest.raises(UserError, match="a row without a label or an image"):
        TinyImageNet(directory=sharded).val()


def test_a_class_without_images_is_named(sharded, images):
    shard = sharded / "tiny-imagenet" / "valid-00000-of-00001.parquet"
    parquet(shard, [i for i in images if i[0] == "val" and i[1] != CATS[0]])
    with pytest.raises(UserError, match=rf"val split has no image of {CATS[0]} \(1 of 26 classes"):
        TinyImageNet(directory=sharded).val()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"<html>", "is not a readable image"), (jpeg(np.random.default_rng(0), side=32), "32 x 32")],
)
def test_an_image_that_is_none_is_named(official, content, message):
    train = official / "tiny-imagenet" / "tiny-imagenet-200" / "train"
    (train / CATS[0] / "images" / f"{CATS[0]}_0.JPEG").write_bytes(content)
    with pytest.raises(UserError, match=f"{CATS[0]}_0.JPEG is.*{message.split()[-1]}"):
        TinyImageNet(("cat",), directory=official).train(0, 0)


def test_an_incomplete_validation_folder_is_an_error(official):
    val = official / "tiny-imagenet" / "tiny-imagenet-200" / "val"
    next((val / "images").glob(f"val_{2 * WNIDS.index(CATS[0])}.JPEG")).unlink()
    with pytest.raises(UserError, match="names 1 missing images"):
        TinyImageNet(directory=official).val()
    (val / "val_annotations.txt").unlink()
    with pytest.raises(UserError, match=r"val_annotations.txt; expected a line"):
        TinyImageNet(directory=official).val()


def test_a_missing_or_wrong_folder_says_how_to_get_the_data(tmp_path):
    with pytest.raises(MissingData, match=r"no folder .*robustbias fetch tiny-imagenet"):
        TinyImageNet(directory=tmp_path).train(0, 0)
    (tmp_path / "tiny-imagenet").mkdir()
    with pytest.raises(MissingData, match=r"holds neither train-.*nor the folders"):
        TinyImageNet(directory=tmp_path).train(0, 0)


def test_wrong_choices_are_errors():
    with pytest.raises(UserError, match="unknown subset 'half'; expected one of entry-level, all"):
        TinyImageNet(subset="half")
    with pytest.raises(UserError, match="no class of oven; expected some of bear, bird"):
        TinyImageNet(("cat", "oven"))


def test_the_real_data_give_26_classes_of_500_and_50_and_550_conflicts(data_directory, image_cache):
    source = TinyImageNet(directory=data_directory)
    val = source.val()
    assert val.pixels.shape == (1300, 3, 64, 64)
    assert val.labels.bincount().tolist() == [50] * 26
    assert 0.35 < val.pixels.float().mean() / 255 < 0.55
    assert len(source.categories) == 11
    assert len(source.cue_conflict(64)) == 550
    assert len(source.silhouettes()) == len(source.edges()) == 110
    assert tiny_imagenet_files.count(data_directory / "tiny-imagenet", "train") == 100_000


def test_real_validation_labels_are_those_of_the_annotation_file(data_directory, image_cache):
    annotations = data_directory / "tiny-imagenet" / "val_annotations.txt"
    if not annotations.exists():
        pytest.skip("this copy of Tiny-ImageNet has no annotation file beside its shards")
    wnid = dict(line.split("\t")[:2] for line in annotations.read_text().splitlines())
    val = TinyImageNet(directory=data_directory).val()
    assert [val.classes[k] for k in val.labels] == [wnid[name] for name in val.names]
