"""Tables and sentences of chapter 7, from `measure.ablation`, `cue_units` and `attribution`."""

import pandas as pd

from robustbias.claims import matching
from robustbias.plotting import per_architecture, reader_table
from robustbias.units_and_cues.measure import NONE
from robustbias.utils import REGIMES, Prose, architecture


def margins(table: pd.DataFrame) -> pd.DataFrame:
    """Margins of each network's decisions on the images of each kind; n is their number."""
    words = {
        "shape_margin": "by shape",
        "texture_margin": "by texture",
        "clean_margin": "clean, correct",
    }
    rows = matching(table, metric=tuple(words))
    return reader_table(rows.assign(column=rows["metric"].map(words)), list(words.values()), "n")


def cue_unit_table(table: pd.DataFrame) -> pd.DataFrame:
    """Units by what they detect: how many, how many serve each cue, and their generality."""
    words = {
        "serves_shape": "serve shape",
        "serves_texture": "serve texture",
        "shape_part": "shape's part",
        "relative_generality": "relative generality",
    }
    rows = per_architecture(table)
    rows = matching(rows, regime=("standard", "robust"), metric=tuple(words))
    rows = rows.assign(detects=rows["detects"].fillna("all"))
    last = {NONE: 1, "all": 2}
    rows = rows.sort_values("detects").sort_values(
        "detects", key=lambda detects: detects.map(last).fillna(0), kind="stable"
    )
    wide = reader_table(
        rows.assign(column=rows["metric"].map(words)), list(words.values()), "detects"
    )
    counts = matching(rows, metric="serves_shape")
    keys = [counts["architecture"].map(architecture), counts["regime"].map(REGIMES), "detects"]
    wide.insert(0, "units", counts.set_index(keys)["n"].reindex(wide.index).astype(int))
    return wide


def attribution(table: pd.DataFrame) -> Prose:
    """Whether the integral adds up, in one sentence; or why nothing was measured."""
    if table.empty:
        return Prose(
            "The stimuli of this study come without masks of their objects, so "
            "attribution is not divided into regions here."
        )
    gap = matching(table, metric="completeness_error", regime=tuple(REGIMES))
    if gap.empty:
        return Prose("No method whose attributions must add up was asked for.")
    worst = gap.loc[gap["value"].idxmax()]
    return Prose(
        "Attributions of integrated gradients should add up to the change of the score from the "
        f"baseline to the image. They miss it by {100 * worst['value']:.1f} % at most "
        f"({architecture(worst['architecture'])}, {REGIMES[worst['regime']]}; sum of gaps over "
        f"sum of changes, {int(worst['n'])} images)."
    )
