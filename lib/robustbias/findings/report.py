"""What all verdicts together say, in sentences computed from them."""

import pandas as pd

from robustbias.claims import FIELDS, joint
from robustbias.stats import Interval
from robustbias.utils import Prose, architecture

WORDS = {
    "supported": "Supported",
    "contradicted": "Contradicted",
    "undetermined": "Undetermined",
}


def replication(cells: pd.DataFrame) -> Prose:
    """Statement by statement, on which studies and architectures it held and where it did not.

    Args:
        cells: `book.findings.verdicts`: one verdict a statement, study and architecture.
    """
    lines = []
    for (id, statement), own in cells.groupby(["id", "statement"], sort=False):
        places = []
        for verdict, word in WORDS.items():
            found = own[own["verdict"] == verdict]
            where = [
                f"{title} ({', '.join(architecture(name) for name in sorted(names))})"
                for title, names in found.groupby("title", sort=False)["architecture"]
            ]
            places += [f"*{word}*: {'; '.join(where)}."] if where else []
        count = (own["verdict"] == "supported").sum()
        lines.append(
            f"- **{statement}** ({id.partition('.')[0]}) "
            f"{count} of {len(own)} supported. {' '.join(places)}"
        )
    return Prose("\n".join(lines))


def summary(cells: pd.DataFrame) -> Prose:
    """One sentence a study: how many of its verdicts are of each kind."""
    sentences = []
    for title, own in cells.groupby("title", sort=False):
        counts = own["verdict"].value_counts()
        words = [f"{counts.get(v, 0)} {v}" for v in WORDS]
        sentences.append(f"{title}: of {len(own)} verdicts {', '.join(words)}.")
    return Prose(" ".join(sentences))


def undetermined(claims: pd.DataFrame) -> pd.DataFrame:
    """The measurements whose interval holds the threshold, and what it would take to decide.

    `more data` is the factor by which n would have to grow for an interval of the same centre to
    clear the threshold: (half width / distance of the value from the threshold)^2. Where it is
    large, the effect is small or absent rather than badly measured.

    Args:
        claims: `book.findings.registered`.
    """
    open_ = claims[(claims["verdict"] == "undetermined") & ~claims["beside"]]
    half = (open_["high"] - open_["low"]) / 2
    factor = (half / (open_["value"] - open_["threshold"]).abs()) ** 2
    where = zip(open_["statistic"], open_["condition"], strict=True)
    shown = pd.DataFrame(
        {
            "statistic": [", ".join(filter(None, words)) for words in where],
            "study": open_["title"],
            "architecture": [architecture(name) for name in open_["architecture"]],
            "measured": open_["measured"],
            "n": open_["n"],
            "more data": [f"× {x:.1f}" if x < 100 else "× 100 or more" for x in factor],
        }
    )
    return shown.reset_index(drop=True)


def against_published(claims: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Ours beside ImageNet's ResNet-50, for the claims that have a published number.

    Args:
        claims: `book.findings.registered`.
        published: `published.effects`.
    """
    rows = []
    for row in published.itertuples():
        own = claims[claims["id"] == row.id]
        for claim in own.itertuples():
            where = " ".join(filter(None, [claim.title, claim.condition]))
            rows.append(
                {
                    "statistic": claim.statistic,
                    "ImageNet, ResNet-50": f"{row.value:.2f}",
                    "study": where,
                    "architecture": architecture(claim.architecture),
                    "measured": claim.measured,
                }
            )
    wide = pd.DataFrame(rows)
    keys = ["statistic", "ImageNet, ResNet-50", "study"]
    order = wide[keys].drop_duplicates()
    wide = wide.pivot(index=keys, columns="architecture", values="measured").fillna("")
    wide = wide.reindex(pd.MultiIndex.from_frame(order))
    return wide.rename_axis(columns=None)


# -- --------------------------------------------------------------------------------------------
# The few numbers of every network that the closing chapter sets side by side.
#
# A chapter's notebook carries them for programs, as it carries its claims, so that the closing
# chapter needs nothing but the notebooks.


LETTERS = {"standard": "S", "robust": "R"}


def numbers_table(records: list[dict], verdicts: pd.DataFrame, study: str) -> pd.DataFrame:
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
