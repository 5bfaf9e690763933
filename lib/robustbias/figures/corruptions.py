"""Figure of chapter 3: one image under every corruption and severity."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from robustbias.figures.theme import canvas, picture


def corruption_sheet(
    pixels: Float[np.ndarray, "c s h w 3"], names: Sequence[str], *, show_images: bool = True
) -> Figure:
    """A row a corruption: the clean image, then severities 1 to 5.

    Args:
        pixels: In [0, 1], column 0 clean: `images.corruptions.sheet(...).movedim(2, -1).numpy()`.
        names: Of the rows.
        show_images: False leaves grey places (for photographs that must not be shown).
    """
    rows, columns = pixels.shape[:2]
    figure, axes = canvas(rows, columns, panel=(0.95, 0.8))
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    for row, (name, line) in enumerate(zip(names, axes, strict=True)):
        for column, ax in enumerate(line):
            title = ("clean" if column == 0 else f"severity {column}") if row == 0 else ""
            if show_images:
                picture(ax, pixels[row, column], title)
            else:
                picture(ax, None, title)
                ax.texts[0].set_visible(False)  # "not shown" ninety times over is noise
        line[0].set_ylabel(
            name.replace("_", "\n"), rotation=0, ha="right", va="center", size="small"
        )
    return figure
