"""Tables and sentences of chapter 5, from `measure.dissection`."""

import pandas as pd

from robustbias.claims import matching
from robustbias.plotting import interval_text, reader_table
from robustbias.utils import REGIMES, Prose


def detectors(table: pd.DataFrame) -> pd.DataFrame:
    """Share of all units that detect a category, and how many concepts they detect; by network.

    A category that no unit of any network detects has no column.
    """
    rows = matching(table, scope="network", regime=tuple(REGIMES))
    anything = matching(rows, category="any")
    shares = pd.concat(
        [
            _by_category(matching(rows, metric="detectors")),
            matching(anything, metric="null_detectors").assign(column="any, masks of other images"),
            matching(anything, metric="net_detectors").assign(column="any, without these"),
        ]
    )
    shares = shares.assign(text=[interval_text(row) for row in shares.itertuples()])
    unique = matching(anything, metric="unique").assign(column="concepts")
    unique = unique.assign(text=[f"{round(value, 1):g}" for value in unique["value"]])
    return reader_table(pd.concat([shares, unique]))


def null_labels(table: pd.DataFrame) -> pd.DataFrame:
    """Share of all units whose best IoU lies above every null IoU of their layer, by category."""
    rows = matching(table, scope="network", metric="above_null", regime=tuple(REGIMES))
    return reader_table(_by_category(rows))


def _by_category(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of single categories, and of any, that are not zero throughout."""
    highest = rows.groupby("category", sort=False)["value"].max()
    kept = [name for name in highest.index[highest > 0] if name != "texture or color"]
    rows = matching(rows, category=(*kept, "any"))
    return rows.assign(column=rows["category"])


def ceilings(table: pd.DataFrame, *, share: float = 0.005, threshold: float = 0.04) -> Prose:
    """Which concepts cover so many pixels that no unit can reach the threshold, in a sentence.

    The union of an IoU is counted on images that carry the category, a share c of all pixels. A
    unit that is active on a share s of all pixels may be active on s / c of those, so that its IoU
    with a concept that covers a share p of them is at most s / (c p).
    """
    lines = []
    covered = matching(table, metric="pixel_share")
    carried = matching(table, metric="carried_share").groupby("category")["value"].first()
    for category, shares in covered.groupby("category", sort=False)["value"]:
        reach = share / carried[category]
        out = int((reach / shares <= threshold).sum())
        low, high = shares.min(), shares.max()
        least, most = min(1.0, reach / high), min(1.0, reach / low) if low else 1.0
        lines.append(
            f"- {category}: {len(shares)} concepts, each on {low:.1%} to {high:.1%} of the pixels "
            f"of images with such labels ({carried[category]:.0%} of all images), so with an IoU "
            f"of at most {least:.2f} to {most:.2f}; "
            f"{out} of them cannot reach {threshold:g}."
        )
    return Prose(
        f"A unit that stands out on {share:.1%} of the pixels cannot overlap well with a concept "
        "that covers many times as many:\n\n" + "\n".join(lines)
    )
