"""Training images that stay on disk: folders and shards, the same images, the same crops."""

import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from robustbias import training
from robustbias.images import streams
from robustbias.images.source import Source
from robustbias.images.streams import Stream
from robustbias.utils import MissingData, UserError
from toy_networks import network
from toy_source import Dots

CLASSES = ("n01", "n02", "n03", "n04")
N = 32


def jpeg(k: int) -> bytes:
    """A picture whose brightness is its label."""
    noise = np.random.default_rng(k).integers(0, 40, (48, 60, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise + np.uint8(50 * (k % 4))).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    for k in range(N):
        place = tmp_path / "folders" / CLASSES[k % 4]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{k:03d}.JPEG").write_bytes(jpeg(k))
    return tmp_path / "folders"


@pytest.fixture
def shards(tmp_path, image_cache):
    (tmp_path / "shards").mkdir()
    by_class = sorted(range(N), key=lambda k: (k % 4, k))
    for number in range(2):
        with tarfile.open(tmp_path / "shards" / f"train-{number}.tar", "w") as tar:
            for k in by_class[number * N // 2 : (number + 1) * N // 2]:
                for suffix, content in (("jpg", jpeg(k)), ("cls", str(k % 4).encode())):
                    member = tarfile.TarInfo(f"{k:03d}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return tmp_path / "shards"


def test_shards_and_folders_give_the_same_images_labels_and_crops(folder, shards):
    one, two = (streams.index(place, CLASSES) for place in (folder, shards))
    assert len(one) == len(two) == N
    for i in range(N):
        (a, label), (b, other) = (Stream(index, 32, 1, 0)[i] for index in (one, two))
        assert label == other
        assert torch.equal(a, b)
        assert abs(int(a.float().mean()) - (20 + 50 * label)) < 10
    assert streams.index(shards, CLASSES).start.tolist() == two.start.tolist()  # from the cache


def test_a_crop_depends_on_the_image_the_pass_and_the_seed_alone(folder):
    index = streams.index(folder, CLASSES)
    first = Stream(index, 32, 0, 0)
    assert torch.equal(first[3][0], Stream(index, 32, 0, 0)[3][0])
    for other in (Stream(index, 32, 1, 0), Stream(index, 32, 0, 1)):
        assert not torch.equal(first[3][0], other[3][0])
    loader = DataLoader(first, batch_sampler=[[3, 5]], num_workers=1)
    ((pixels, labels),) = loader
    assert torch.equal(pixels[0], first[3][0])
    assert labels.tolist() == [first[3][1], first[5][1]]


class Streamed(Source):
    def __init__(self, index):
        self.index = index

    def train(self, epoch, seed):
        return Stream(self.index, 64, epoch, seed)

    def val(self):
        return Dots().val()


def test_a_training_in_pieces_sees_every_image_once_a_pass(folder, monkeypatch):
    seen = []

    def here(stream, batch_sampler, **_):  # no other process, whose images would not be seen
        for batch in batch_sampler:
            seen.extend((stream.epoch, i) for i in batch)
            yield from DataLoader(stream, batch_sampler=[batch])

    monkeypatch.setattr(training, "DataLoader", here)
    how = training.Recipe(
        epochs=4, pieces=2, batch=8, rate=0.001, test_images=8, flip=True, bfloat16=False
    )
    rows = training.train(network(classes=4), Streamed(streams.index(folder, CLASSES)), how,
                          progress=False)  # fmt: skip
    assert len(rows) == 4
    assert sorted(seen) == [(epoch, i) for epoch in (0, 1) for i in range(N)]


def test_what_is_no_training_set_is_one_clear_error(tmp_path, shards):
    with pytest.raises(MissingData, match="expected WNID/.*JPEG, or webdataset shards"):
        streams.index(tmp_path / "nothing", CLASSES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no image in a folder of a class"):
        streams.index(tmp_path / "empty", CLASSES)
    with pytest.raises(UserError, match="labels outside of 0..1"):
        streams.index(shards, CLASSES[:2])
    (shards / "train-2.tar").write_bytes(b"<html>" * 200)
    with pytest.raises(UserError, match="no readable shard"):
        streams.index(shards, CLASSES)
