"""C0: what adversarial training costs and buys."""

from collections.abc import Iterator

import pandas as pd

from robustbias.claims import Claim, Headlines, claim, gathered
from robustbias.plotting import reader_table
from robustbias.utils import Prose

SOURCE = "Chen, Agarwal and Nguyen 2020, arXiv 2006.09373; Madry et al. 2018, arXiv 1706.06083"


@claim("C0")
def robustness(table: pd.DataFrame) -> Iterator[Claim]:
    """Paired differences of top-1 from `measures.accuracy`: clean, and at the training radius."""
    rows = table[table["metric"] == "top1_difference"]
    shared = ["id", "statement", "statistic", "above"]
    clean = rows[rows["condition"] == "clean"].assign(
        id="C0.cost",
        statement="R networks pay with clean accuracy.",
        statistic="clean top-1, R minus S",
        above=False,
    )
    attacked = rows[(rows["attack_eps"] == rows["eps"]) & (rows["steps"] > 0)]
    attacked = (
        attacked.sort_values("steps")
        .drop_duplicates("architecture")
        .assign(
            id="C0.gain",
            statement="R networks gain accuracy under attack.",
            statistic="top-1 under attack at the training radius, R minus S",
            above=True,
        )
    )
    for row in pd.concat([clean, attacked]).itertuples():
        yield Claim.of(
            row,
            **{name: getattr(row, name) for name in shared},
            source=SOURCE,
            threshold=0.0,
        )


# -- --------------------------------------------------------------------------------------------
# The few numbers of every network that the closing chapter sets side by side.
#
# A chapter's notebook carries them for programs, as it carries its claims, so that the closing
# chapter needs nothing but the notebooks.


def headlines(table: pd.DataFrame) -> Headlines:
    """Top-1 on clean images and under the attack R was trained against: `measures.accuracy`."""
    own = table[(table["metric"] == "top1") & table["pair"]]
    steps, eps = own.loc[own["steps"] > 0, "steps"].min(), own["eps"].max()
    clean = own[own["attack_eps"] == 0]
    attacked = own[(own["attack_eps"] == eps) & (own["steps"] == steps)]
    parts = {"top-1, clean": clean, f"top-1, PGD-{steps}, eps {eps:g}": attacked}
    return gathered(parts)


# -- --------------------------------------------------------------------------------------------
# Tables as a reader wants them: one line a network, values with their intervals as text.


def accuracy(table: pd.DataFrame) -> pd.DataFrame:
    """Top-1 of S and R, clean and at every attack radius: value [95 % interval]."""
    top1 = table[(table["metric"] == "top1") & table["pair"]]
    steps = top1.loc[top1["steps"] > 0, "steps"].min()
    top1 = top1[top1["steps"].isin([0, steps])]
    columns = ["clean" if eps == 0 else f"eps {eps:g}" for eps in top1["attack_eps"]]
    return reader_table(top1.assign(column=columns))


def checks(table: pd.DataFrame) -> Prose:
    """One sentence on the checks of `measures.accuracy_checks`, naming those that fail."""
    failed = table[~table["holds"]]
    if failed.empty:
        return Prose(f"All {len(table)} checks of the attack hold.")
    lines = [
        f"- {row.network}: {row.check} — fails by {row.worst:.3f} (allowed {row.allowed:g})"
        for row in failed.itertuples()
    ]
    return Prose(f"{len(failed)} of {len(table)} checks of the attack fail:\n\n" + "\n".join(lines))
