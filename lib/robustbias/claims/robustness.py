"""C0: what adversarial training costs and buys."""

from collections.abc import Iterator

import pandas as pd

from robustbias.claims.registry import claim
from robustbias.claims.verdicts import Claim

SOURCE = "Chen, Agarwal and Nguyen 2020, arXiv 2006.09373; Madry et al. 2018, arXiv 1706.06083"


@claim("C0", "R pays with clean accuracy and withstands attacks")
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
