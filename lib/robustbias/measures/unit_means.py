"""Means over units, and their differences between R and S, with a bootstrap over units.

Units are the population here: which ones training happened to make is what another training run
would change. S and R have no units in common, so theirs are resampled independently.
"""

from typing import Any

import pandas as pd
import torch
from jaxtyping import Int64
from torch import Tensor

from robustbias import stats
from robustbias.measures.registry import described, pairs

SHARES = ("shape_share", "texture_share", "clean_share", "serves_shape", "serves_texture")
MEANS = (*SHARES, "generality", "relative_generality", "shape_part")


def unit_means(study: Any, units: pd.DataFrame, by: str, draws: int = 2000) -> pd.DataFrame:
    """Rows of every network and of R minus S (regime `robust - standard`), one a metric and group.

    Metrics: the means of SHARES (`serves_...`: whether the score is above 0) and of generality
    over the n units that have one; `relative_generality` = Σ generality / Σ generality_null; and
    `shape_part` = Σ shape_share / Σ (shape_share + texture_share), over the n units with either: 0
    for units that decisions by texture alone need, 0.5 for units that both cues need alike.

    Shares of units that serve a cue have Wilson's interval, all others the bootstrap's.

    Args:
        units: Rows of `measures.ablation` of unit 0 and up, and a column `by`.
        by: The column whose values are the groups; "all" is added. A group of one unit has no
            interval to speak of and is left out.
    """
    generator = torch.Generator().manual_seed(study.seed)
    keys = ["network", by, "at", "unit"]
    units = units.assign(at=units["layer"])  # `by` may be the layer itself
    own = pd.concat([units, units.assign(**{by: "all"})])
    wide = own.pivot(index=keys, columns="metric", values="value")
    boots = {
        key: _bootstrap(group, generator, draws)
        for key, group in wide.groupby(level=["network", by], sort=False)
        if len(group) > 1
    }
    rows = []
    for pair in pairs(study).values():
        for regime, entry in pair.items():
            mine = {group: boot for (name, group), boot in boots.items() if name == entry.name}
            rows += [
                _rows(boot, n).assign(**described(study, entry), **{by: group})
                for group, (boot, n) in mine.items()
            ]
            if regime == "robust" and "standard" in pair:
                rows += _differences(study, pair, mine, boots, by)
    return pd.concat(rows, ignore_index=True)


def _differences(study: Any, pair: dict, mine: dict, boots: dict, by: str) -> list[pd.DataFrame]:
    robust, standard = pair["robust"], pair["standard"]
    shared = described(study, robust) | {
        "network": f"{robust.name} - {standard.name}",
        "regime": "robust - standard",
    }
    rows = []
    for group, (boot, n) in mine.items():
        if (standard.name, group) in boots:
            other, count = boots[standard.name, group]
            apart = stats.Bootstrap(
                boot.value - other.value, boot.replicates - other.replicates, -1.0, 1.0
            )
            rows.append(_rows(apart, n + count).assign(**shared, **{by: group}))
    return rows


def _bootstrap(
    wide: pd.DataFrame, generator: torch.Generator, draws: int
) -> tuple[stats.Bootstrap, Int64[Tensor, " m"]]:
    """Means of MEANS over units, and the number of units in each."""
    serves = {f"serves_{cue}": (wide[f"{cue}_score"] > 0) * 1.0 for cue in ("shape", "texture")}
    needed = wide["shape_share"] + wide["texture_share"]
    wide = wide.assign(
        **serves,
        relative_generality=wide["generality"],
        shape_part=wide["shape_share"].where(needed > 0),
    )
    over = torch.tensor(wide[list(MEANS)].values)
    under = over.isfinite().double()
    under[:, -2] = torch.tensor(wide["generality_null"].fillna(0.0).values)
    under[:, -1] = torch.tensor(needed.values)
    boot = stats.ratios(
        over.nan_to_num(), under, torch.arange(len(over)), generator=generator, draws=draws
    )
    return boot, over.isfinite().sum(0)


def _rows(boot: stats.Bootstrap, n: Int64[Tensor, " m"]) -> pd.DataFrame:
    """A row a metric with its interval; no row where no unit has a value."""
    low, high = boot.interval()
    ends = {"value": boot.value.numpy(), "low": low.numpy(), "high": high.numpy()}
    rows = pd.DataFrame({"metric": MEANS, **ends, "n": n.numpy()}).dropna(subset=["value"])
    if boot.floor == 0:  # not a difference: few units, all alike, would have no width at all
        for at in rows.index[rows["metric"].str.startswith("serves_")]:
            count = int(rows.loc[at, "n"])
            exact = stats.wilson(round(rows.loc[at, "value"] * count), count)
            rows.loc[at, ["low", "high"]] = exact.low, exact.high
    return rows
