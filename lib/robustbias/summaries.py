"""Tables as a reader wants them: one line a network, values with their intervals as text."""

import pandas as pd

from robustbias.names import REGIMES, architecture
from robustbias.stats import Interval
from robustbias.text import Prose


def accuracy(table: pd.DataFrame) -> pd.DataFrame:
    """Top-1 of S and R, clean and at every attack radius: value [95 % interval]."""
    top1 = table[(table["metric"] == "top1") & table["pair"]]
    steps = top1.loc[top1["steps"] > 0, "steps"].min()
    top1 = top1[top1["steps"].isin([0, steps])]
    columns = ["clean" if eps == 0 else f"eps {eps:g}" for eps in top1["attack_eps"]]
    return _wide(top1.assign(column=columns))


def shape_bias(table: pd.DataFrame) -> pd.DataFrame:
    """Shape bias and coverage of S, R and the untrained, with what random answers would give.

    `bias (sum)` decides by the summed instead of the mean probability of a category's classes.
    """
    shown = table[(table["category"] == "all") & (table["pair"] | (table["regime"] == "untrained"))]
    words = {
        ("cue-conflict", "mean", "shape_bias"): "shape bias",
        ("cue-conflict", "mean", "coverage"): "coverage",
        ("cue-conflict", "sum", "shape_bias"): "bias (sum)",
        ("shuffled", "mean", "shape_bias"): "bias, shuffled",
        ("shuffled", "mean", "coverage"): "coverage, shuffled",
    }
    keys = zip(shown["condition"], shown["aggregation"], shown["metric"], strict=True)
    shown = shown.assign(column=[words.get(key) for key in keys]).dropna(subset=["column"])
    return _wide(shown, list(words.values()), "display")


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


def cue_parity(table: pd.DataFrame) -> Prose:
    """Whether both cues are learned to 0.85 and within 0.1 of each other, in one sentence."""
    if set(table["cue"]) != {"shape", "texture"}:
        return Prose(
            "No networks of this study were trained on one cue alone, so how easy each cue is to "
            "learn is not known here: a shape bias of 0.5 need not mean indifference."
        )
    found = table.set_index("cue")
    known = {row.cue: _interval(row) for row in table.itertuples()}
    fair = found["value"].min() >= 0.85 and found["value"].max() - found["value"].min() <= 0.1
    verdict = (
        "Both cues can be learned about equally well, so what a network follows is its choice."
        if fair
        else "The cues are not on a par (at least 0.85 each, within 0.1): read biases with care."
    )
    return Prose(
        f"A network trained on shape alone reaches {known['shape']} on held-out designs, one "
        f"trained on texture alone {known['texture']}. {verdict}"
    )


def training_lengths(records: pd.DataFrame) -> Prose:
    """How long each network of a series over radii was trained, and whether that is a confound."""
    epochs = records.groupby("eps")["epoch"].max()
    if epochs.nunique() <= 1:
        return Prose(f"All networks of the series were trained for {epochs.max()} epochs.")
    lengths = ", ".join(f"{n} (eps {eps:g})" for eps, n in epochs.items())
    return Prose(
        f"The networks of the series were not trained equally long, but for {lengths} epochs. "
        "Shape bias depends on that too, so this curve is not of the radius alone."
    )


def _wide(rows: pd.DataFrame, order: list[str] | None = None, *by: str) -> pd.DataFrame:
    """One line an architecture, regime and `by`; the column `column` spread out."""
    text = [_interval(row) for row in rows.itertuples()]
    named = rows.assign(
        text=text,
        network=[architecture(id) for id in rows["architecture"]],
        training=[REGIMES[id] for id in rows["regime"]],
    )
    order = order or list(dict.fromkeys(named["column"]))
    index = ["network", "training", *by]
    wide = named.pivot(index=index, columns="column", values="text")
    ranks = [list(REGIMES.values()), *(list(dict.fromkeys(named[column])) for column in by)]
    lines = sorted(
        dict.fromkeys(named[index].itertuples(index=False, name=None)),
        key=lambda line: (line[0], *(r.index(v) for r, v in zip(ranks, line[1:], strict=True))),
    )
    wide = wide.reindex(lines)[[column for column in order if column in wide]].fillna("")
    return wide.rename_axis(columns=None)


def _interval(row) -> str:
    return str(Interval(row.value, row.low, row.high, row.n)) if row.n else "none decided"
