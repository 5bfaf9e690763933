"""Training photographs that stay on disk, decoded when a batch of them is due.

    FOLDER/WNID/*.JPEG     as ILSVRC's training archive is unpacked
    FOLDER/*.tar           shards as webdataset writes them: KEY.jpg (.jpeg, .png) and KEY.cls, the
                           number of the class, next to each other

Both are read at random places: the order of a training does not depend on the number of processes.
"""

import dataclasses
import functools
import hashlib
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import RandomResizedCrop

from robustbias.images import cache_folder, opened
from robustbias.utils import MissingData, UserError, atomic, stamp

SUFFIXES = (".jpeg", ".jpg", ".png")


@dataclasses.dataclass(frozen=True)
class Index:
    """Where each of n images lies, and its label.

    `file` indexes `files`; the image is `length` bytes from `start`, a whole file where it is 0.
    """

    files: np.ndarray  # of bytes, so that worker processes share their memory
    file: Int[np.ndarray, " n"]
    start: Int[np.ndarray, " n"]
    length: Int[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def digest(self) -> str:
        """Hash of places and labels, without the folder they are in."""
        total = hashlib.sha256(b"\0".join(sorted(Path(os.fsdecode(f)).name.encode()
                                                 for f in self.files)))  # fmt: skip
        for array in (self.start, self.length, self.labels):
            total.update(array.tobytes())
        return total.hexdigest()[:16]


def index(folder: Path, classes: tuple[str, ...]) -> Index:
    """The images of a folder of class folders, or of shards.

    Args:
        classes: WNIDs in the order of the network's outputs.

    Raises:
        MissingData: The folder is not there.
        UserError: It holds neither folders of these classes nor shards, or a shard is damaged.
    """
    if not folder.is_dir():
        raise MissingData(
            f"no folder {folder} with training images: expected WNID/*.JPEG, or webdataset shards "
            "*.tar. ILSVRC's are to be had from image-net.org with an account."
        )
    shards = sorted(folder.glob("*.tar"))
    if shards:
        return _of_shards(shards, len(classes))
    files: list[bytes] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        if (folder / name).is_dir():
            paths = sorted(e.path for e in os.scandir(folder / name)
                           if e.name.lower().endswith(SUFFIXES))  # fmt: skip
            files += map(os.fsencode, paths)
            labels += [label] * len(paths)
    if not files:
        raise UserError(
            f"{folder} holds no image in a folder of a class (as {classes[0]}) and no shard *.tar; "
            "unpack the training images there."
        )
    none = np.zeros(len(files), dtype=np.int64)
    return Index(np.array(files), np.arange(len(files)), none, none, np.array(labels))


def _of_shards(shards: list[Path], n_classes: int) -> Index:
    """Places of all images in the shards, found once and kept in the cache."""
    key = hashlib.sha256("\n".join(map(stamp, shards)).encode()).hexdigest()[:24]
    path = cache_folder() / "shards" / f"{key}.npy"
    if not path.is_file():
        rows = [(number, *row) for number, shard in enumerate(shards) for row in _members(shard)]
        with atomic(path) as partial:
            np.save(partial, np.array(rows, dtype=np.int64).reshape(-1, 4))
    file, start, length, labels = np.load(path).T.copy()
    if not len(labels) or labels.min() < 0 or labels.max() >= n_classes:
        raise UserError(
            f"{shards[0].parent}: {len(labels)} images with labels outside of 0..{n_classes - 1}, "
            "or none; expected KEY.jpg with the number of its class in KEY.cls."
        )
    return Index(np.array([os.fsencode(s) for s in shards]), file, start, length, labels)


def _members(shard: Path) -> list[tuple[int, int, int]]:
    """(start, length, label) of each image in a shard, in its order."""
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                stem, suffix = os.path.splitext(member.name)
                if suffix.lower() in SUFFIXES:
                    images[stem] = member.offset_data, member.size
                elif suffix == ".cls" and (file := tar.extractfile(member)):
                    labels[stem] = int(file.read(32))
    except (tarfile.TarError, OSError, ValueError) as error:
        raise UserError(f"{shard} is no readable shard ({error}); fetch it again.") from error
    if set(images) != set(labels):
        raise UserError(
            f"{shard} has {len(images)} images and {len(labels)} labels; expected KEY.jpg and "
            "KEY.cls of each."
        )
    return [(*place, labels[stem]) for stem, place in images.items()]


@dataclasses.dataclass(frozen=True)
class Stream(Dataset):
    """The training images of one pass: element i is image i and its label.

    Each image is cropped to 8 to 100 % of its area at a ratio of 3:4 to 4:3 and resized, as in
    Szegedy et al. (2015); where, is a function of the seed, the pass and i alone.
    """

    index: Index
    size: int
    epoch: int
    seed: int

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> tuple[UInt8[Tensor, "3 h w"], int]:
        path = Path(os.fsdecode(self.index.files[self.index.file[i]]))
        with open(path, "rb") as file:
            file.seek(self.index.start[i])
            content = file.read(self.index.length[i] or -1)
        with opened(io.BytesIO(content), path) as image:
            pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
        words = hashlib.sha256(f"{self.seed} {self.epoch} {i}".encode()).digest()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int.from_bytes(words[:8], "big") >> 1)
            return _crop(self.size)(pixels), int(self.index.labels[i])


@functools.cache
def _crop(size: int) -> RandomResizedCrop:
    return RandomResizedCrop(size, antialias=True)
