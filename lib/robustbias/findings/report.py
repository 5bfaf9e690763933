"""What all verdicts together say: sentences and tables computed from the primary ones."""

import pandas as pd

from robustbias.claims import (
    FIELDS,
    UNTESTABLE,
    VERDICTS,
    Claim,
    headline_means,
    matching,
    p_text,
)
from robustbias.findings.measure import primary
from robustbias.plotting import pivoted
from robustbias.stats import Interval
from robustbias.utils import Prose, architecture


def conclusion(claims: pd.DataFrame) -> Prose:
    """What holds on every study, what on which, what is contradicted, and what is open.

    A statement is named with each verdict that it has, and the studies that gave it.

    Args:
        claims: From `measure.registered`.
    """
    rows = primary(claims)
    titles = list(dict.fromkeys(rows["title"]))
    said: dict[str, dict[str, list[str]]] = {}
    for _, part in rows.groupby("id", sort=False):
        tested = part[part["verdict"] != UNTESTABLE]
        by_verdict = {
            verdict: ", ".join(rows["title"])
            for verdict, rows in tested.groupby("verdict", sort=False)
        } or {UNTESTABLE: ""}
        if set(by_verdict) == {"supported"} and len(tested) > 1:
            by_verdict = {"everywhere": ""}
        for kind, where in by_verdict.items():
            said.setdefault(kind, {}).setdefault(where, []).append(part["short"].iloc[0])
    words = {
        "everywhere": "Supported on every study that can test it",
        "supported": "Supported",
        "contradicted": "Contradicted",
        "no relevant effect": "No relevant effect",
        "undetermined": "Undetermined",
        UNTESTABLE: "Not testable on any study",
    }
    lines = [
        f"- **{words[kind]}**: "
        + "; ".join(
            ", ".join(names) + (f" ({where})" if where and len(titles) > 1 else "")
            for where, names in said[kind].items()
        )
        + "."
        for kind in words
        if kind in said
    ]
    return Prose("\n".join(lines))


def summary(claims: pd.DataFrame) -> Prose:
    """How many primary verdicts each study has, of which kind, and how many the correction changes.

    Args:
        claims: From `measure.registered`.
    """
    sentences = []
    for title, rows in primary(claims).groupby("title", sort=False):
        tested = rows[rows["verdict"] != UNTESTABLE]
        counts = tested["verdict"].value_counts()
        words = ", ".join(f"{counts.get(verdict, 0)} {verdict}" for verdict in VERDICTS)
        changed = tested[tested["verdict"] != tested["uncorrected"]]
        named = f" ({', '.join(changed['short'])})" if len(changed) else ""
        sentences.append(
            f"{title}: {len(tested)} primary verdicts ({words}); statements not testable here: "
            f"{len(rows) - len(tested)}; verdicts that Holm's correction makes undetermined: "
            f"{len(changed)}{named}."
        )
    return Prose(" ".join(sentences))


def details(claims: pd.DataFrame) -> pd.DataFrame:
    """Every primary verdict with its pooled effect, smallest effect of interest and corrected p.

    Args:
        claims: From `measure.registered`.
    """
    rows = primary(claims)
    return pd.DataFrame(
        {
            "statement": rows["statement"],
            "study": rows["title"],
            "effect": rows["statistic"],
            "pooled [95 % interval]": rows["measured"].where(rows["untestable"] == "", "–"),
            "smallest": [
                f"× {row.smallest:g}" if row.ratio else f"{row.smallest:g}"
                for row in rows.itertuples()
            ],
            "p (Holm)": [
                "–" if p != p else p_text(p).removeprefix("= ")
                for p in rows["adjusted"].astype(float)
            ],
            "verdict": [
                f"{row.verdict}: {row.untestable}" if row.untestable else row.verdict
                for row in rows.itertuples()
            ],
        }
    ).reset_index(drop=True)


def excluded(claims: pd.DataFrame) -> pd.DataFrame:
    """What is excluded where no effect was established.

    Args:
        claims: From `measure.registered`.
    """
    rows = matching(primary(claims), verdict=("undetermined", "no relevant effect"))
    table = pd.DataFrame(
        {
            "statement": rows["short"],
            "study": rows["title"],
            "verdict": rows["verdict"],
            "excluded": [
                f"{record['statistic']}: beyond {Claim.of(record).ends}"
                for record in rows.to_dict("records")
            ],
        }
    )
    return table.reset_index(drop=True)


def against_published(claims: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Our measurements and those of ImageNet's ResNet-50, for claims that have a published number.

    Pairs, in the condition that the verdict is about.

    Args:
        claims: From `measure.registered`.
        published: From `published.effects`.
    """
    judged = primary(claims)[["id", "study", "condition"]]
    claims = claims[(claims["architecture"] != "") & (claims["replicate"] == "")].merge(judged)
    rows = published[["id", "value"]].merge(claims, on="id", suffixes=("_published", ""))
    rows["ImageNet, ResNet-50"] = rows["value_published"].map("{:.2f}".format)
    rows["study"] = (rows["title"] + " " + rows["condition"]).str.strip()
    rows = rows.assign(column=rows["architecture"].map(architecture), text=rows["measured"])
    columns = [architecture(name) for name in sorted(rows["architecture"].unique())]
    return pivoted(rows, ["statistic", "ImageNet, ResNet-50", "study"], columns)


def numbers_table(records: list[dict], study: str) -> pd.DataFrame:
    """Headline numbers of one study; one column per architecture and regime.

    Args:
        records: From the notebooks, as `Headlines`.
    """
    rows = headline_means(matching(pd.DataFrame(records, columns=FIELDS), study=study))
    rows = matching(rows, regime=("standard", "robust"))
    text = [
        f"{row.value:.0f} [{row.low:.0f}, {row.high:.0f}]"
        if row.number == "mCE"
        else str(Interval(row.value, row.low, row.high, row.n))
        for row in rows.itertuples()
    ]
    letters = {"standard": "S", "robust": "R"}
    column = rows["architecture"].map(architecture) + " " + rows["regime"].map(letters)
    rows = rows.assign(text=text, column=column)
    names = sorted(rows["architecture"].unique())
    columns = [f"{architecture(name)} {letter}" for name in names for letter in letters.values()]
    return pivoted(rows, ["number"], columns).rename_axis(index=None)
