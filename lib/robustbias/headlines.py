"""The few numbers of every network that the closing chapter sets side by side.

A chapter's notebook carries them for programs, as it carries its claims, so that the closing
chapter needs nothing but the notebooks.
"""

import json
from typing import Any

import pandas as pd

from robustbias.claims import joint
from robustbias.mimes import HEADLINES
from robustbias.names import architecture
from robustbias.stats import Interval

FIELDS = ["study", "architecture", "regime", "number", "value", "low", "high", "n"]
LETTERS = {"standard": "S", "robust": "R"}
STIMULI = ("stylized", "silhouettes", "edges")


class Headlines(list):
    """Records with the keys of FIELDS; a notebook carries them and shows nothing."""

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        text = f"{len(self)} numbers for the closing chapter"
        return {"text/plain": text, HEADLINES: json.loads(json.dumps(self, default=float))}


def accuracy(table: pd.DataFrame) -> Headlines:
    """Top-1 on clean images and under the attack R was trained against: `measures.accuracy`."""
    own = table[(table["metric"] == "top1") & table["pair"]]
    steps, eps = own.loc[own["steps"] > 0, "steps"].min(), own["eps"].max()
    clean = own[own["attack_eps"] == 0]
    attacked = own[(own["attack_eps"] == eps) & (own["steps"] == steps)]
    parts = {"top-1, clean": clean, f"top-1, PGD-{steps}, eps {eps:g}": attacked}
    return _headlines(parts)


def shape_bias(table: pd.DataFrame) -> Headlines:
    """Shape bias on every display, with coverage and nulls where claims rest on it.

    Args:
        table: From `measures.shape_bias`.
    """
    rows = table[(table["category"] == "all") & (table["aggregation"] == "mean")]
    shown = list(dict.fromkeys(rows["display"]))
    decides = set(rows.loc[rows["decides"], "display"])
    parts = {}
    for display in sorted(shown, key=lambda name: name not in decides):
        own = rows[rows["display"] == display]
        answers = own[own["condition"] == "cue-conflict"]
        dealt = own[(own["condition"] == "shuffled") & own["pair"]]
        untrained, answers = answers[answers["regime"] == "untrained"], answers[answers["pair"]]
        where = f", {display}" if len(shown) > 1 else ""
        parts[f"shape bias{where}"] = _of(answers, "shape_bias")
        parts[f"coverage{where}"] = _of(answers, "coverage")
        if display in decides:
            parts[f"shape bias, shuffled{where}"] = _of(dealt, "shape_bias")
            parts[f"coverage, shuffled{where}"] = _of(dealt, "coverage")
            null = _of(untrained, "shape_bias")
            parts[f"shape bias, untrained{where}"] = null.assign(regime="standard")
    return _headlines(parts)


def ood(table: pd.DataFrame) -> Headlines:
    """Accuracy on stimuli without texture, and the mCE: `measures.ood`.

    Where stimuli have no labels finer than categories, it is entry-level accuracy, and so named.
    """
    parts = {}
    for name in STIMULI:
        own = table[table["condition"] == name]
        for metric, words in (("top1", "top-1"), ("entry_level", "entry-level")):
            if metric in set(own["metric"]):
                parts[f"{words}, {name}"] = _of(own, metric)
                break
    parts["mCE"] = _of(table, "mce")
    return _headlines(parts)


def table(records: list[dict], verdicts: pd.DataFrame, study: str) -> pd.DataFrame:
    """A line a number and claim of one study; a column an architecture and regime.

    A claim's verdict is about the pair; it stands under R.

    Args:
        records: From the notebooks, as `Headlines`.
        verdicts: `book.findings.verdicts`.
    """
    rows = pd.DataFrame(records, columns=FIELDS)
    rows = rows[rows["study"] == study]
    text = [
        f"{row.value:.0f} [{row.low:.0f}, {row.high:.0f}]"
        if row.number == "mCE"
        else str(Interval(row.value, row.low, row.high, row.n))
        for row in rows.itertuples()
    ]
    cells = rows[["number", "architecture", "regime"]].assign(text=text)
    own = verdicts[verdicts["study"] == study]
    judged = [
        {"number": claim, "architecture": name, "regime": "robust", "text": joint(of["verdict"])}
        for (claim, name), of in own.groupby(["claim", "architecture"], sort=False)
    ]
    cells = pd.concat([cells, pd.DataFrame(judged)])
    order = list(dict.fromkeys(cells["number"]))
    columns = sorted({*zip(cells["architecture"], cells["regime"], strict=True)}, key=_place)
    wide = cells.pivot(index="number", columns=["architecture", "regime"], values="text")
    wide = wide.reindex(index=order, columns=columns).fillna("")
    wide.columns = [f"{architecture(name)} {LETTERS[regime]}" for name, regime in columns]
    return wide.rename_axis(index=None)


def _place(column: tuple[str, str]) -> tuple[str, int]:
    return column[0], list(LETTERS).index(column[1])


def _of(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    return rows[rows["metric"] == metric]


def _headlines(parts: dict[str, pd.DataFrame]) -> Headlines:
    rows = [part.assign(number=number)[FIELDS] for number, part in parts.items()]
    return Headlines(pd.concat(rows).to_dict("records"))
