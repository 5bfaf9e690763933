"""Shape bias of whoever looked: people and networks, from and to files of per-trial decisions."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from robustbias import decisions
from robustbias.errors import UserError
from robustbias.measures import conflict_trials, decided_bias

PERSON = r"subject-\d+"  # how the published files name a person


def summary(files: Iterable[Path], *, seed: int = 0) -> pd.DataFrame:
    """One row an observer, in the order of the files, and one for all people together.

    Columns: observer, n (stimuli in conflict), shape and texture (decisions for each cue),
    coverage, shape_bias, low and high (95 %, resampled by shape image).

    Raises:
        UserError: A file cannot be read, or holds no stimulus with two cues in conflict.
    """
    trials = decisions.read(files)
    trials = trials[trials["texture"].notna()]
    if trials.empty:
        raise UserError(
            "no trial has two cues in conflict; expected images named like dog10-bird2."
        )
    people = trials[trials["subj"].str.fullmatch(PERSON)]
    if (count := people["subj"].nunique()) > 1:
        trials = pd.concat([trials, people.assign(subj=f"{count} people, pooled")])
    generator = torch.Generator().manual_seed(seed)
    table, _ = decided_bias(trials, ["subj"], generator=generator)
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


def written(study: Any, folder: Path) -> list[Path]:
    """The answers of a study's networks to its cue conflicts, a file a network and display.

    In the format of `decisions.read` and of model-vs-human, whose tools can read them on.
    """
    trials = conflict_trials(study, null_seeds=0)
    trials = trials[trials["aggregation"] == "mean"]
    return [
        decisions.write(
            folder / f"cue-conflict_{network}_{display.replace(' ', '')}_session_1.csv",
            network,
            list(own["stimulus"]),
            list(own["object_response"]),
            condition=display.replace(" ", ""),
        )
        for (network, display), own in trials.groupby(["network", "display"], sort=False)
    ]
