"""Tables and sentences of chapter 1, from `measure.accuracy`."""

import pandas as pd

from robustbias.claims import Headlines, matching
from robustbias.plotting import reader_table
from robustbias.utils import REGIMES, Prose, architecture


def headlines(table: pd.DataFrame) -> Headlines:
    """Top-1 of S, R and R - S on clean images and under the attack R was trained against."""
    top1 = matching(table, metric=("top1", "top1_difference"), pair=True)
    eps = top1["eps"].max()
    return Headlines.of(
        {
            "top-1, clean": matching(top1, attack_eps=0),
            f"top-1 under attack, eps {eps:g}": matching(top1, attack_eps=eps),
        }
    )


def accuracy(table: pd.DataFrame) -> pd.DataFrame:
    """Top-1 of S and R, clean and at every attack radius: value [95 % interval]."""
    top1 = matching(table, metric="top1", pair=True)
    columns = ["clean" if eps == 0 else f"radius {eps:g}" for eps in top1["attack_eps"]]
    return reader_table(top1.assign(column=columns))


def checks(table: pd.DataFrame) -> Prose:
    """One sentence on the checks of `measure.accuracy_checks`, naming those that fail."""
    failed = table[~table["holds"]]
    if failed.empty:
        return Prose(f"All {len(table)} checks of the attack hold.")
    several = bool(table["replicate"].nunique() > 1)
    lines = [
        f"- {architecture(row.architecture)}, {REGIMES.get(row.regime, row.regime)}"
        + f", replicate {row.replicate:g}" * several
        + f": {row.check}; fails by {row.worst:.3f} (allowed {row.allowed:g})"
        for row in failed.itertuples()
    ]
    return Prose(f"{len(failed)} of {len(table)} checks of the attack fail:\n\n" + "\n".join(lines))
