"""What a study asks of its images; `IconWorld` and `TinyImageNet` are the two sources."""

from typing import NoReturn

from jaxtyping import Bool
from torch import Tensor

from robustbias.images import CueConflict, Images
from robustbias.images.concepts import Concepts
from robustbias.utils import MissingData


class Source:
    """Images of one study. A method for images that a source does not have raises MissingData.

    `classes` are names of the labels, `categories` those of the stimuli, and `digest` is a hash of
    everything the images depend on.
    """

    classes: tuple[str, ...]
    categories: tuple[str, ...]
    digest: str

    def train(self, epoch: int, seed: int) -> Images:
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


def _missing(what: str) -> NoReturn:
    raise MissingData(f"the images of this study have no {what}.")
