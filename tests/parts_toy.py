"""Measures a toy table of several parts in a process of its own: to be killed, or to be shared.

python parts_toy.py LOG SECONDS
"""

import sys
import time
from pathlib import Path

import pandas as pd
import torch

import toy_study
from robustbias import tables


def sevenths(study, *, n: int = 7) -> pd.DataFrame:
    """A row per part; each part says in the log that it was computed."""

    def part(i: int) -> tables.Part:
        time.sleep(SECONDS)
        with open(LOG, "a") as log:
            log.write(f"{i}\n")
        g = torch.Generator().manual_seed(i)
        return {"x": torch.rand(3, generator=g), "right": torch.rand(3, generator=g) > 0.5}

    done = tables.parts({f"part {i}/{n}": lambda i=i: part(i) for i in range(n)})
    rows = [{"condition": name, "value": float(p["x"].sum() + p["right"].sum())}
            for name, p in done.items()]  # fmt: skip
    return pd.DataFrame(rows)


if __name__ == "__main__":
    LOG, SECONDS = Path(sys.argv[1]), float(sys.argv[2])
    study = toy_study.study()
    print(tables.cached(sevenths, study, study.entries)["value"].tolist(), flush=True)
