"""Tiny-ImageNet with the real stimuli of Geirhos et al.: natural images of 64 x 64.

Decoded once (5,000 images/s on two cores) into a memory-mapped uint8 array. Classes are in the
order of their sorted WNIDs, images in the order of their class and number, whichever layout the
files have.
"""

import dataclasses
import functools
import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from tqdm import tqdm

from robustbias import manifest, utils
from robustbias.images import (
    CueConflict,
    Images,
    cached_pixels,
    cue_conflict,
    opened,
    style_transfer,
    textures,
)
from robustbias.images import concepts as images_concepts
from robustbias.images.concepts import Concepts
from robustbias.images.cue_conflict import CATEGORIES, checked, class_names, entry_level, membership
from robustbias.images.source import StimulusFolders
from robustbias.images.tiny_imagenet_files import Encoded, encoded
from robustbias.networks import zoo
from robustbias.utils import MissingData, UserError

SIDE = 64
SUBSETS = ("entry-level", "all")
BLOCK = 256  # images a thread decodes at a time
BAR_FROM = 2_000  # images; decoding fewer takes no time worth a progress bar


class TinyImageNet(StimulusFolders):
    """Tiny-ImageNet with the stimuli of Geirhos et al. at its size.

    `classes` are WNIDs, sorted; labels index them. `categories` are those of the 16 entry-level
    ones that the classes cover (11), or fewer of them.

    Args:
        categories: The categories of stimuli; all that the classes cover when empty.
        subset: "entry-level", the 26 classes of the categories, or "all", the 200.
        transfer: How to stylize photographs; None for a source without stylized ones.
        directory: Where the data sets lie; the data directory otherwise.

    Raises:
        UserError: Another subset, or a category the classes do not cover.
    """

    def __init__(
        self,
        categories: tuple[str, ...] = (),
        *,
        subset: str = "entry-level",
        transfer: style_transfer.StyleTransfer | None = None,
        directory: Path | None = None,
    ):
        if subset not in SUBSETS:
            raise UserError(f"unknown subset {subset!r}; expected one of {', '.join(SUBSETS)}.")
        self.wnids = class_names(manifest.dataset("tiny-imagenet").class_file)
        covered = {c: set(entry_level()[c]) & set(self.wnids) for c in CATEGORIES}
        chosen = checked(categories) or tuple(c for c in CATEGORIES if covered[c])
        super().__init__(chosen, SIDE, directory)
        if absent := [c for c in self.categories if not covered[c]]:
            raise UserError(
                f"Tiny-ImageNet has no class of {', '.join(absent)}; expected some of "
                f"{', '.join(c for c in CATEGORIES if covered[c])}."
            )
        chosen = set().union(*(covered[c] for c in self.categories))
        self.classes = tuple(w for w in self.wnids if subset == "all" or w in chosen)
        self.transfer = transfer

    def train(self, epoch: int = 0, seed: int = 0) -> Images:
        """The stored training images, 500 per class; the same in every epoch and for every seed."""
        return self._split("train")

    def val(self) -> Images:
        """The validation images, 50 per class."""
        return self._split("val")

    def stylized_conflict(self, painter: str, style: float) -> CueConflict:
        """Cue conflicts of photographs: the shape of one in the texture of another category's.

        Some validation photographs of each category are shapes and others textures
        (`cue_conflict.large`): the object of a photograph, from edge to edge.

        Args:
            painter: One of the study's painters.
            style: Weight of the texture.

        Raises:
            MissingData: The object boxes, a painter or its weights are not there.
            UserError: A category with too few such photographs.
        """
        photos, boxes, chosen = self._large(2 * self._transfer().per_category)
        stylize = functools.partial(self._stylized, painter, style)
        return style_transfer.conflicts(photos, boxes, chosen, self.categories, stylize)

    def collage_conflict(self, scale: float) -> CueConflict:
        """The published silhouettes, filled with tiles from ten photographs of each category.

        Args:
            scale: Size of the tiles; 1 is the size that the photographs have.

        Raises:
            MissingData: The object boxes or the silhouettes are not there.
        """
        photos, boxes, chosen = self._large(10)
        return cue_conflict.collage(self.silhouettes(), photos, boxes, chosen, scale)

    def _large(self, k: int) -> tuple[Images, Tensor, Tensor]:
        """The validation photographs, their boxes, and k with large objects of each category."""
        photos, belongs = self.val(), membership(self.classes, self.categories).T > 0
        boxes = images_concepts.boxes(self._folder("tiny-imagenet"), photos)
        return photos, boxes, cue_conflict.large(photos, boxes, belongs, k)

    def stylized(self) -> Images:
        """Validation photographs in procedural textures that belong to no category.

        Raises:
            MissingData: The painter or its weights are not there.
        """
        how, photos = self._transfer(), self.val()
        generator = torch.Generator().manual_seed(0)
        photos = photos.take(torch.randperm(len(photos), generator=generator)[: how.photographs])
        patches, _ = textures.texture_patches(len(photos), SIDE, generator, textures.FOREIGN)
        pixels = self._stylized(how.painters[0], how.style, photos.pixels, patches)
        return dataclasses.replace(photos, pixels=pixels)

    def concepts(self, n: int | None = None) -> Concepts:
        """n images with concept masks (all photographs when None), a fifth of them textures.

        Objects are the classes, each named by its category and WNID. Half of the textures, at most
        ten of each category, are tiles from the objects of validation photographs; the rest are
        procedural patterns.

        Raises:
            MissingData: val_annotations.txt with the object boxes is not there.
            UserError: More photographs than there are.
        """
        photos = self.val()
        n_patches = len(photos) // 4 if n is None else n // 5
        count = len(photos) if n is None else n - n_patches
        if not 1 <= count <= len(photos):
            raise UserError(f"n = {n} images asked for; expected 1 to {len(photos) * 5 // 4}.")
        generator = torch.Generator().manual_seed(0)
        photos = photos.take(torch.randperm(len(photos), generator=generator)[:count])
        words = {wnid: word for word, wnids in entry_level().items() for wnid in wnids}
        names = tuple(f"{words.get(wnid, '')} {wnid}".strip() for wnid in self.classes)
        boxes = images_concepts.boxes(self._folder("tiny-imagenet"), photos)
        tiles = self._tiles(n_patches // 2, generator)
        patterns = n_patches - len(tiles)
        return images_concepts.concepts(photos, boxes, names, tiles, patterns, generator)

    def _tiles(self, n: int, generator: torch.Generator) -> Images:
        """At most n textures of photographs from edge to edge, labelled by category."""
        photos, boxes, chosen = self._large(10)
        order = torch.randperm(chosen.numel(), generator=generator)[:n]
        index = chosen.flatten()[order].tolist()
        tiles = [cue_conflict.tiled(photos.pixels[i], boxes[i], 1.0, SIDE) for i in index]
        pixels = torch.stack(tiles) if tiles else photos.pixels[:0]
        return Images(pixels, order // chosen.shape[1], self.categories)

    @functools.cached_property
    def digest(self) -> str:
        """Hash of the classes, the decoded images, labels, boxes if here, stimuli and painters."""
        total = hashlib.blake2b(digest_size=8)
        total.update(" ".join((*self.classes, *self.categories)).encode())
        for split in (self.train(), self.val()):
            total.update(split.labels.numpy())
            total.update(split.pixels.numpy())
        if images_concepts.annotations(self._folder("tiny-imagenet")) is None:
            total.update(b"no boxes")  # measures go without; `boxes` takes the published ones alone
        total.update(self.stimuli_digest())
        if self.transfer is not None:
            for painter in self.transfer.painters:
                total.update(manifest.network(painter).sha256.encode())
        return total.hexdigest()

    def _transfer(self) -> style_transfer.StyleTransfer:
        if self.transfer is None:
            raise MissingData("this source has no painter; give its study a table [painting].")
        return self.transfer

    def _stylized(self, painter: str, style: float, shapes: Tensor, patches: Tensor) -> Tensor:
        """`style_transfer.stylized`, made once and kept on disk."""
        network, how = zoo.load(manifest.network(painter)), self._transfer()
        inputs = hashlib.sha256(shapes.numpy().tobytes() + patches.numpy().tobytes()).hexdigest()
        _, code = utils.parsed(Path(style_transfer.__file__))
        settings = (how.depth, how.smooth, how.steps, how.rate, style)
        return cached_pixels(
            "painted",
            (network.weights_hash, str(settings), inputs, code),
            lambda: style_transfer.stylized(network, shapes, patches, how, style).numpy(),
        )

    @functools.lru_cache(maxsize=2)  # noqa: B019  a source lives as long as its study
    def _split(self, split: str) -> Images:
        folder = self._folder("tiny-imagenet")
        if not folder.is_dir():
            raise MissingData(
                f"no folder {folder}; run `robustbias fetch tiny-imagenet`, or set ROBUSTBIAS_DATA "
                "to the folder above an existing tiny-imagenet/."
            )
        images = encoded(folder, split, self.wnids, self.classes)
        rank = {self.wnids.index(wnid): label for label, wnid in enumerate(self.classes)}
        return Images(
            pixels=cached_pixels(
                "tiny-imagenet",
                (split, *self.classes, *images.key),
                lambda: decoded(images, f"decoding {split}"),
            ),
            labels=torch.tensor([rank[label] for label in images.labels.tolist()]),
            classes=self.classes,
            names=images.names,
        )


def decoded(images: Encoded, title: str) -> UInt8[np.ndarray, "n 3 64 64"]:
    """Pixels of the encoded images, decoded on all cores; greyscale images get three channels."""
    pixels = np.empty((len(images.names), 3, SIDE, SIDE), dtype=np.uint8)
    content = list(images.content())
    blocks = [range(i, min(i + BLOCK, len(pixels))) for i in range(0, len(pixels), BLOCK)]

    def decode(block: range) -> int:
        for i in block:
            pixels[i] = _pixels(content[i], images.names[i])
        return len(block)

    bar = tqdm(total=len(pixels), desc=title, unit="image", disable=len(pixels) < BAR_FROM)
    with bar, ThreadPoolExecutor() as pool:  # the decoder releases the interpreter's lock
        for done in pool.map(decode, blocks):
            bar.update(done)
    return pixels


def _pixels(content: bytes, name: str) -> UInt8[np.ndarray, "3 64 64"]:
    with opened(io.BytesIO(content), name) as stored:
        image = stored.convert("RGB")
    if image.size != (SIDE, SIDE):
        raise UserError(f"{name} is {image.width} x {image.height}; expected {SIDE} x {SIDE}.")
    return np.asarray(image).transpose(2, 0, 1)
