"""What a study asks of its images; `IconWorld`, `TinyImageNet` and `ImageNet` are the sources."""

import hashlib
from pathlib import Path
from typing import NoReturn

from jaxtyping import Bool
from torch import Tensor

from robustbias import manifest
from robustbias.images import CueConflict, Images, cue_conflict
from robustbias.images.concepts import Concepts
from robustbias.images.streams import Stream
from robustbias.utils import MissingData


class Source:
    """Images of one study. A method for images that a source does not have raises MissingData.

    `classes` are names of the labels, `categories` those of the stimuli, and `digest` is a hash of
    everything the images depend on.
    """

    classes: tuple[str, ...]
    categories: tuple[str, ...]
    digest: str

    def train(self, epoch: int, seed: int) -> Images | Stream:
        """Training images of one epoch."""
        _missing("training images")

    def val(self) -> Images:
        """Held-out images, labelled by class."""
        _missing("validation images")

    def single_cue(self, cue: str, n: int) -> Images:
        """n held-out images where only `cue`, shape or texture, tells the category."""
        _missing("images with a single cue")

    def cue_conflict(self, size: int) -> CueConflict:
        """Stimuli whose shape and texture are of different categories, `size` pixels a side."""
        _missing("cue conflicts")

    def separate_cues(self) -> CueConflict:
        """Held-out images with cues of different categories; none shares its pose with another."""
        _missing("cue conflicts in a pose of their own")

    def conflict_masks(self, size: int) -> Bool[Tensor, "n h w"]:
        """The pixels of the object in each stimulus of `cue_conflict`."""
        _missing("masks of the objects in cue conflicts")

    def stylized_conflict(self, painter: str, style: float) -> CueConflict:
        """Cue conflicts made by a painter between validation photographs, at a style weight."""
        _missing("cue conflicts made by style transfer")

    def collage_conflict(self, scale: float) -> CueConflict:
        """Silhouettes filled with tiles of another category's object, at a scale of the tiles."""
        _missing("cue conflicts made of silhouettes and tiles")

    def stylized(self) -> Images:
        """The validation images in textures that belong to no category."""
        _missing("stylized images")

    def silhouettes(self) -> Images:
        """Objects of a single colour."""
        _missing("silhouettes")

    def black_silhouettes(self) -> Images:
        """Black objects on white."""
        _missing("black silhouettes")

    def edges(self) -> Images:
        """Outlines, black on white."""
        _missing("edge drawings")

    def texture_only(self) -> Images:
        """Textures from edge to edge, without an object."""
        _missing("images of texture alone")

    def concepts(self, n: int | None = None) -> Concepts:
        """n images with concept masks, as many as the source has when None."""
        _missing('concept masks; name a data set that has some, like concepts="broden"')


class StimulusFolders(Source):
    """A source whose stimuli are those of Geirhos et al. (2019) in the data directory.

    Args:
        categories: Entry-level categories of the stimuli.
        side: Side in pixels of the images and, unless said otherwise, of the stimuli.
        directory: Where the data sets lie; the data directory otherwise.
    """

    def __init__(self, categories: tuple[str, ...], side: int, directory: Path | None = None):
        self.categories, self.side = categories, side
        self.directory = directory or manifest.data_directory()

    def cue_conflict(self, size: int = 0) -> CueConflict:
        """Stimuli with both cues among the categories, `size` (or `side`) pixels a side."""
        folder = self._folder("cue-conflict")
        return cue_conflict.cue_conflict(folder, size or self.side, self.categories)

    def silhouettes(self) -> Images:
        """Black objects on white, 10 per category; labels index the categories."""
        folder = self._folder("filled-silhouettes")
        return cue_conflict.labelled(folder, self.side, self.categories)

    def edges(self) -> Images:
        """Edge drawings, 10 per category; labels index the categories."""
        return cue_conflict.labelled(self._folder("edges"), self.side, self.categories)

    def stimuli_digest(self, further: tuple[str, ...] = ()) -> bytes:
        """Hash of the stimuli that are here, and of `further` data sets of images in folders."""
        total = hashlib.blake2b(digest_size=8)
        for name in ("cue-conflict", "filled-silhouettes", "edges", *further):
            folder = self._folder(name)
            total.update((cue_conflict.digest(folder) if folder.is_dir() else "absent").encode())
        return total.digest()

    def _folder(self, name: str) -> Path:
        return self.directory / manifest.dataset(name).path


def _missing(what: str) -> NoReturn:
    raise MissingData(f"the images of this study have no {what}.")
