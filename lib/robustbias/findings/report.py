"""What all verdicts together say: their matrix, sentences and tables computed from them."""

import textwrap

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from robustbias import plotting
from robustbias.claims import FIELDS, joint, matching
from robustbias.plotting import pivoted
from robustbias.stats import Interval
from robustbias.utils import Prose, architecture

VERDICTS = ("supported", "contradicted", "undetermined")

# Colour and sign say the same, so that the matrix reads without colour too.
LOOK = {
    "supported": ("#7fbf9f", "✓"),
    "undetermined": ("#e3e3e3", "?"),
    "contradicted": ("#e8a07a", "✗"),
}


def verdict_matrix(cells: pd.DataFrame) -> Figure:
    """One cell per statement, study and architecture: its verdict, and what was measured.

    Args:
        cells: From `measure.verdicts`.
    """
    statements = list(dict.fromkeys(zip(cells["id"], cells["statement"], strict=True)))
    places = list(dict.fromkeys(zip(cells["title"], cells["architecture"], strict=True)))
    studies = list(dict.fromkeys(cells["title"]))
    places.sort(key=lambda place: (studies.index(place[0]), place[1]))
    figure, axes = plotting.canvas(panel=(3.4 + 1.35 * len(places), 0.8 + 0.46 * len(statements)))
    ax = axes[0, 0]
    for row in cells.itertuples():
        x = places.index((row.title, row.architecture))
        y = statements.index((row.id, row.statement))
        colour, sign = LOOK[row.verdict]
        ax.add_patch(_cell(x, y, colour))
        text = textwrap.fill(row.text.replace(" [", "\n["), 24)
        ax.text(x, y - 0.2, sign, ha="center", va="center", fontsize=9)
        ax.text(x, y + 0.17, text, ha="center", va="center", fontsize=6.5, linespacing=1.0)
    labels = [
        textwrap.fill(f"{id.partition('.')[0]} {statement}", 48) for id, statement in statements
    ]
    ax.set_yticks(range(len(statements)), labels, fontsize=7.5)
    columns = [f"{title}\n{architecture(name)}" for title, name in places]
    ax.set_xticks(range(len(places)), columns, fontsize=7.5)
    ax.xaxis.tick_top()
    ax.set(xlim=(-0.5, len(places) - 0.5), ylim=(len(statements) - 0.5, -0.5))
    ax.tick_params(length=0)
    plotting.without_frame(ax)
    key = [_cell(0, 0, colour, label=f"{sign} {word}") for word, (colour, sign) in LOOK.items()]
    figure.legend(handles=key, loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    return figure


def _cell(x: int, y: int, colour: str, **options):
    return Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, color=colour, lw=0, **options)


def replication(cells: pd.DataFrame) -> Prose:
    """Statement by statement, on which studies and architectures it held and where it did not.

    Args:
        cells: From `measure.verdicts`.
    """
    lines = []
    for (id, statement), rows in cells.groupby(["id", "statement"], sort=False):
        places = []
        for verdict in VERDICTS:
            studies = matching(rows, verdict=verdict).groupby("title", sort=False)["architecture"]
            where = [
                f"{title} ({', '.join(map(architecture, sorted(names)))})"
                for title, names in studies
            ]
            places += [f"*{verdict.capitalize()}*: {'; '.join(where)}."] if where else []
        count = (rows["verdict"] == "supported").sum()
        lines.append(
            f"- **{statement}** ({id.partition('.')[0]}) "
            f"{count} of {len(rows)} supported. {' '.join(places)}"
        )
    return Prose("\n".join(lines))


def summary(cells: pd.DataFrame) -> Prose:
    """One sentence per study: how many of its verdicts are of each kind."""
    sentences = []
    for title, verdicts in cells.groupby("title", sort=False)["verdict"]:
        counts = verdicts.value_counts()
        words = [f"{counts.get(verdict, 0)} {verdict}" for verdict in VERDICTS]
        sentences.append(f"{title}: of {len(verdicts)} verdicts {', '.join(words)}.")
    return Prose(" ".join(sentences))


def undetermined(claims: pd.DataFrame) -> pd.DataFrame:
    """The measurements whose interval includes the threshold, and how much data would settle them.

    `more data` is the factor by which n would have to grow for an interval of the same centre to
    clear the threshold: (half width / distance of the value from the threshold)^2. Where it is
    large, the effect is small or absent rather than badly measured.

    Args:
        claims: From `measure.registered`.
    """
    rows = claims[(claims["verdict"] == "undetermined") & ~claims["beside"]]
    half = (rows["high"] - rows["low"]) / 2
    factor = (half / (rows["value"] - rows["threshold"]).abs()) ** 2
    where = zip(rows["statistic"], rows["condition"], strict=True)
    table = pd.DataFrame(
        {
            "statistic": [", ".join(filter(None, words)) for words in where],
            "study": rows["title"],
            "architecture": [architecture(name) for name in rows["architecture"]],
            "measured": rows["measured"],
            "n": rows["n"],
            "more data": [f"× {x:.1f}" if x < 100 else "× 100 or more" for x in factor],
        }
    )
    return table.reset_index(drop=True)


def against_published(claims: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Our measurements and those of ImageNet's ResNet-50, for claims that have a published number.

    Args:
        claims: From `measure.registered`.
        published: From `published.effects`.
    """
    rows = published[["id", "value"]].merge(claims, on="id", suffixes=("_published", ""))
    rows["ImageNet, ResNet-50"] = rows["value_published"].map("{:.2f}".format)
    rows["study"] = (rows["title"] + " " + rows["condition"]).str.strip()
    rows = rows.assign(column=rows["architecture"].map(architecture), text=rows["measured"])
    columns = [architecture(name) for name in sorted(rows["architecture"].unique())]
    return pivoted(rows, ["statistic", "ImageNet, ResNet-50", "study"], columns)


def numbers_table(records: list[dict], verdicts: pd.DataFrame, study: str) -> pd.DataFrame:
    """Headline numbers and claims of one study; one column per architecture and regime.

    A claim's verdict is about the pair; it stands under R.

    Args:
        records: From the notebooks, as `Headlines`.
        verdicts: From `measure.verdicts`.
    """
    rows = matching(pd.DataFrame(records, columns=FIELDS), study=study)
    text = [
        f"{row.value:.0f} [{row.low:.0f}, {row.high:.0f}]"
        if row.number == "mCE"
        else str(Interval(row.value, row.low, row.high, row.n))
        for row in rows.itertuples()
    ]
    judged = matching(verdicts, study=study).groupby(["claim", "architecture"], sort=False)
    judged = judged["verdict"].agg(joint).rename("text").reset_index()
    judged = judged.rename(columns={"claim": "number"}).assign(regime="robust")
    rows = pd.concat([rows.assign(text=text), judged])
    letters = {"standard": "S", "robust": "R"}
    rows["column"] = rows["architecture"].map(architecture) + " " + rows["regime"].map(letters)
    names = sorted(rows["architecture"].unique())
    columns = [f"{architecture(name)} {letter}" for name in names for letter in letters.values()]
    return pivoted(rows, ["number"], columns).rename_axis(index=None)
