"""Tables and sentences of the chapters on what units detect and respond to."""

import pandas as pd

from robustbias.names import REGIMES, architecture
from robustbias.stats import Interval
from robustbias.text import Prose

TYPES = {
    "concepts": "concepts",
    "effective_classes": "effective classes",
    "distance": "distance by",
    "distance_robust": "distance by",
}


def detectors(table: pd.DataFrame) -> pd.DataFrame:
    """Share of all units that detect a category, and how many concepts they detect; by network.

    Args:
        table: From `measures.dissection`.
    """
    own = table[(table["unit"] == -1) & (table["layer"] == "all")]
    own = own[own["regime"].isin(list(REGIMES))]
    shares = own[own["metric"] == "detectors"].assign(column=lambda t: t["category"])
    above = own[(own["metric"] == "above_null") & (own["category"] == "any")]
    null = own[(own["metric"] == "null_detectors") & (own["category"] == "any")]
    parts = [
        shares,
        null.assign(column="any, masks of other images"),
        above.assign(column="above every null IoU"),
    ]
    wide = _wide(pd.concat(parts))
    unique = own[(own["metric"] == "unique") & (own["category"] == "any")]
    wide["different concepts"] = _column(unique, wide.index)
    return wide


def null_labels(table: pd.DataFrame) -> pd.DataFrame:
    """Share of all units whose best IoU lies above every null IoU of their layer, by category.

    Args:
        table: From `measures.dissection`.
    """
    own = table[(table["unit"] == -1) & (table["layer"] == "all")]
    own = own[(own["metric"] == "above_null") & own["regime"].isin(list(REGIMES))]
    return _wide(own.assign(column=own["category"]))


def ceilings(table: pd.DataFrame, *, share: float = 0.005, threshold: float = 0.04) -> Prose:
    """Which concepts cover so many pixels that no unit can reach the threshold, in a sentence.

    A unit that stands out on a share s of the pixels meets a concept that covers p of them with
    an IoU of at most s / p.

    Args:
        table: From `measures.dissection`.
    """
    covered = table[table["metric"] == "pixel_share"]
    lines = []
    for category, own in covered.groupby("category", sort=False):
        out = int((share / own["value"] <= threshold).sum())
        low, high = own["value"].min(), own["value"].max()
        least, most = share / high, min(1.0, share / low) if low else 1.0
        lines.append(
            f"- {category}: {len(own)} concepts, each on {low:.1%} to {high:.1%} of the pixels, "
            f"so with an IoU of at most {least:.3f} to {most:.3f}; "
            f"{out} of them cannot reach {threshold:g}."
        )
    return Prose(
        f"A unit that stands out on {share:.1%} of the pixels cannot overlap well with a concept "
        "that covers many times as many:\n\n" + "\n".join(lines)
    )


def input_types(table: pd.DataFrame) -> pd.DataFrame:
    """Means over all units of the probed layers, with intervals; by network.

    Args:
        table: From `measures.input_types`.
    """
    own = table[(table["unit"] == -1) & (table["layer"] == "all")]
    own = own[own["regime"].isin(list(REGIMES))]
    words = own["metric"].map(TYPES) + " " + own["judge"]
    return _wide(own.assign(column=words.str.strip()))


def judges(table: pd.DataFrame) -> Prose:
    """Whose features say how alike images are, in a sentence."""
    named = table[table["features"] != ""]
    named = named.drop_duplicates(["architecture", "metric"])[["architecture", "features"]]
    lines = [
        f"{architecture(name)}: {' and '.join(own['features'])}"
        for name, own in named.groupby("architecture", sort=False)
    ]
    chance = table[table["regime"] == "chance"].iloc[0]
    return Prose(
        f"Judges of likeness: {'; '.join(lines)}. {chance['n']} images drawn at random show "
        f"{chance['value']:.1f} effective classes (middle 95 %: {chance['low']:.1f} to "
        f"{chance['high']:.1f})."
    )


def _wide(rows: pd.DataFrame) -> pd.DataFrame:
    """A line an architecture and regime, a column a `column`, value [95 % interval]."""
    text = [str(Interval(r.value, r.low, r.high, int(r.n))) for r in rows.itertuples()]
    named = _named(rows).assign(text=text)
    order = list(dict.fromkeys(named["column"]))
    wide = named.pivot(index=["network", "training"], columns="column", values="text")
    words = list(REGIMES.values())
    lines = sorted(wide.index, key=lambda line: (line[0], words.index(line[1])))
    return wide.reindex(lines)[order].rename_axis(columns=None)


def _column(rows: pd.DataFrame, index: pd.MultiIndex) -> list[int]:
    values = _named(rows).set_index(["network", "training"])["value"]
    return [int(values[line]) for line in index]


def _named(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(
        network=[architecture(name) for name in rows["architecture"]],
        training=[REGIMES[regime] for regime in rows["regime"]],
    )
