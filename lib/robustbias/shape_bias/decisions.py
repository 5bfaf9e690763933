"""Per-trial decisions of people and networks, in the file format both share.

One row a trial: `subj,session,trial,rt,object_response,category,condition,imagename`, as in
rgeirhos/texture-vs-shape and bethgelab/model-vs-human. Responses are the 16 entry-level
categories; `na` (no answer in time) is a decision for neither cue and is never dropped.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
import torch

from robustbias import manifest
from robustbias.images.cue_conflict import CATEGORIES, checked, cues
from robustbias.shape_bias.measure import bias_and_coverage, conflict_trials
from robustbias.studies import Study
from robustbias.utils import MissingData, UserError, atomic, reading

COLUMNS = ["subj", "session", "trial", "rt", "object_response", "category", "condition"]


COLUMNS += ["imagename"]


NO_ANSWER = ("na", "nan", "none", "")


def read(paths: str | Path | Iterable[str | Path], *, agreeing: bool = False) -> pd.DataFrame:
    """Trials of one or several files, with the cues of each stimulus and what the answer followed.

    Adds to the file's columns: `stimulus` (as in dog10-bird2), `shape` and `texture` (its
    categories; texture is missing for a silhouette or an edge drawing) and `decision`
    ("shape", "texture" or "neither").

    Args:
        paths: CSV files, or one of them.
        agreeing: Keep the stimuli whose two cues are of one category (80 of the 1,280). They
            hold no conflict and are left out otherwise.

    Raises:
        UserError: A missing or empty file, column or value, an unknown category, a category that
            is not the shape's, a trial or a stimulus that one observer has twice.
    """
    files = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    if not files:
        raise UserError("no decision files given; expected at least one CSV.")
    table = pd.concat([_rows(file) for file in files], ignore_index=True)
    for key in (["subj", "session", "trial"], ["subj", "session", "condition", "stimulus"]):
        if (twice := table.duplicated(key)).any():
            first = ", ".join(f"{k} {v}" for k, v in table.loc[twice.idxmax(), key].items())
            raise UserError(
                f"{int(twice.sum())} repeated trials in {', '.join(map(str, files))}, the first: "
                f"{first}; give every file once and every trial its own row."
            )
    return table if agreeing else table[table["shape"] != table["texture"]].reset_index(drop=True)


def write(
    path: Path,
    subj: str,
    names: Sequence[str],
    responses: Sequence[str],
    *,
    session: int = 1,
    condition: str = "0",
) -> Path:
    """Decisions of one observer as a CSV that `read` and model-vs-human's tools take; atomic.

    Args:
        subj: The observer, for instance a network's name.
        names: Stimuli, as in dog10-bird2, in the order shown.
        responses: A category or "na" for each of them.

    Raises:
        UserError: Unequal lengths, a name or a response of another form.
    """
    if len(names) != len(responses):
        raise UserError(f"{len(names)} stimuli but {len(responses)} responses; expected one each.")
    parsed = [cues(name) for name in names]
    table = pd.DataFrame(
        {
            "subj": subj,
            "session": session,
            "trial": range(1, len(parsed) + 1),
            "rt": "NaN",
            "object_response": list(responses),
            "category": [cue.shape for cue in parsed],
            "condition": condition,
            "imagename": [
                f"{trial:04d}_cue_dnn_{condition}_{cue.shape}_00_{cue.stem}.png"
                for trial, cue in enumerate(parsed, 1)
            ],
        }
    )
    _check_categories(table, path)
    with atomic(Path(path)) as partial:
        table.to_csv(partial, index=False)
    return Path(path)


def restricted(table: pd.DataFrame, categories: tuple[str, ...]) -> pd.DataFrame:
    """The trials whose cues are all among `categories`; answers outside them stay, as neither."""
    allowed = set(checked(categories))
    inside = table["shape"].isin(allowed) & (
        table["texture"].isin(allowed) | table["texture"].isna()
    )
    return table[inside].reset_index(drop=True)


def published(stimuli: str = "cue-conflict") -> pd.DataFrame:
    """Decisions of 10 people and of ImageNet networks on one of the sets of Geirhos et al. 2019.

    Args:
        stimuli: "cue-conflict", "filled-silhouettes" or "edges".

    Raises:
        MissingData: The files are not in the data directory.
    """
    folder = manifest.data_directory() / manifest.dataset("decisions").path / stimuli
    if not (files := sorted(folder.glob("*.csv"))):
        raise MissingData(f"no decision files in {folder}; run `robustbias fetch decisions`.")
    return read(files)


def _rows(file: Path) -> pd.DataFrame:
    """One file's trials, checked and with the cues parsed."""
    with reading(file, "a readable CSV of decisions"):
        table = pd.read_csv(file, dtype=str, keep_default_na=False, index_col=False)
    table = table.rename(columns=str.lower)  # some published files write Session
    # pandas names the second of two equal columns x.1
    if twice := [name for name in table if name.partition(".")[0] in COLUMNS and "." in name] + [
        *table.columns[table.columns.duplicated()]
    ]:
        raise UserError(f"{file}: column {twice[0].partition('.')[0]} is there twice; keep one.")
    if missing := [column for column in COLUMNS if column not in table]:
        raise UserError(
            f"{file}: no column {', '.join(missing)}; expected {','.join(COLUMNS)} "
            f"and found {','.join(table.columns)}."
        )
    if table.empty:
        raise UserError(f"{file}: no trials below the header.")
    for column in ("session", "trial"):
        table[column] = _numbers(table[column], f"{file}: {column}").astype(int)
    table["rt"] = pd.to_numeric(table["rt"], errors="coerce")  # seconds; networks have none
    unanswered = table["object_response"].str.strip().str.lower().isin(NO_ANSWER)
    table["object_response"] = table["object_response"].mask(unanswered, "na")
    parsed = [cues(name) for name in table["imagename"]]
    table["stimulus"] = [cue.stem for cue in parsed]
    table["shape"] = [cue.shape for cue in parsed]
    table["texture"] = pd.Series([cue.texture for cue in parsed], dtype=table["shape"].dtype)
    _check_categories(table, file)
    if (other := table["category"] != table["shape"]).any():
        row = table[other].iloc[0]
        raise UserError(
            f"{file}: category {row['category']!r} of trial {row['trial']} is not the shape of "
            f"{row['stimulus']}; expected the shape's category."
        )
    follows = {
        cue: table["object_response"] == table[cue].fillna("") for cue in ("shape", "texture")
    }
    table["decision"] = "neither"
    table["decision"] = table["decision"].mask(follows["texture"], "texture")
    table["decision"] = table["decision"].mask(follows["shape"], "shape")
    return table


def _numbers(column: pd.Series, where: str) -> pd.Series:
    """Whole numbers, or an error naming the first value that is none."""
    numbers = pd.to_numeric(column, errors="coerce")
    if (bad := numbers.isna() | (numbers % 1 != 0) | (numbers.abs() > 2**53)).any():
        raise UserError(f"{where} is {column[bad].iloc[0]!r}; expected a whole number.")
    return numbers


def _check_categories(table: pd.DataFrame, file: Path) -> None:
    """Every response and every cue is one of the 16 categories."""
    for column in ("object_response", "category", "shape", "texture"):
        if column not in table:
            continue
        allowed = [*CATEGORIES, "na"] if column == "object_response" else [*CATEGORIES]
        values = table[column].dropna()
        if unknown := sorted(set(values) - set(allowed)):
            raise UserError(
                f"{file}: unknown {column} {', '.join(map(repr, unknown[:5]))}; "
                f"expected one of {', '.join(allowed)}."
            )


# -- --------------------------------------------------------------------------------------------
# Shape bias of whoever looked: people and networks, from and to files of per-trial decisions.


PERSON = r"subject-\d+"  # how the published files name a person


def summary(files: Iterable[Path], *, seed: int = 0) -> pd.DataFrame:
    """One row an observer, in the order of the files, and one for all people together.

    Columns: observer, n (stimuli in conflict), shape and texture (decisions for each cue),
    coverage, shape_bias, low and high (95 %, resampled by shape image).

    Raises:
        UserError: A file cannot be read, or holds no stimulus with two cues in conflict.
    """
    trials = read(files)
    trials = trials[trials["texture"].notna()]
    if trials.empty:
        raise UserError(
            "no trial has two cues in conflict; expected images named like dog10-bird2."
        )
    people = trials[trials["subj"].str.fullmatch(PERSON)]
    if (count := people["subj"].nunique()) > 1:
        trials = pd.concat([trials, people.assign(subj=f"{count} people, pooled")])
    generator = torch.Generator().manual_seed(seed)
    table, _ = bias_and_coverage(trials, ["subj"], generator=generator)
    bias = table[table["metric"] == "shape_bias"].set_index("subj")
    counts = trials.groupby("subj")["decision"].value_counts().unstack(fill_value=0)
    counts = counts.reindex(columns=["shape", "texture", "neither"], fill_value=0)
    decided, n = counts["shape"] + counts["texture"], counts.sum(axis=1)
    rows = pd.DataFrame(
        {
            "n": n,
            "shape": counts["shape"],
            "texture": counts["texture"],
            "coverage": decided / n,
            "shape_bias": bias["value"],
            "low": bias["low"],
            "high": bias["high"],
        }
    )
    return rows.loc[trials["subj"].unique()].rename_axis("observer").reset_index()


def written(study: Study, folder: Path) -> list[Path]:
    """The answers of a study's networks to its cue conflicts, a file a network and display.

    In the format of `decisions.read` and of model-vs-human, whose tools can read them on.
    """
    trials = conflict_trials(study, null_seeds=0)
    trials = trials[trials["aggregation"] == "mean"]
    return [
        write(
            folder / f"cue-conflict_{network}_{display.replace(' ', '')}_session_1.csv",
            network,
            list(rows["stimulus"]),
            list(rows["object_response"]),
            condition=display.replace(" ", ""),
        )
        for (network, display), rows in trials.groupby(["network", "display"], sort=False)
    ]
