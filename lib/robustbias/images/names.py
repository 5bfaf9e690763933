"""What the name of a stimulus says: `dog10-bird2` is the shape of dog 10 with texture bird 2."""

import re
from typing import NamedTuple

from robustbias.errors import UserError

NAME = re.compile(r"(?:^|[_/])([a-z]+)(\d+)(?:-([a-z]+)(\d+))?(?:\.[A-Za-z]+)?$")


class Cues(NamedTuple):
    """The cues of one stimulus; a silhouette or an edge drawing has no texture (None)."""

    shape: str
    shape_design: int
    texture: str | None = None
    texture_design: int | None = None

    @property
    def stem(self) -> str:
        """The name without its folder, trial prefix and extension."""
        texture = "" if self.texture is None else f"-{self.texture}{self.texture_design}"
        return f"{self.shape}{self.shape_design}{texture}"


def cues(name: str) -> Cues:
    """The cues named by a stimulus, a file or a trial.

    The last `_` ends a trial prefix: `0003_s5n_s01_0_dog_00_dog10-bicycle1.png`.

    Raises:
        UserError: The name has another form.

    Source: stimuli of rgeirhos/texture-vs-shape; trials of bethgelab/model-vs-human.
    """
    if (match := NAME.search(name)) is None:
        raise UserError(
            f"{name!r} does not name a stimulus; "
            "expected shapeK-textureJ as in dog10-bird2, or categoryK as in dog10."
        )
    shape, shape_design, texture, texture_design = match.groups()
    return Cues(shape, int(shape_design), texture, texture and int(texture_design))
