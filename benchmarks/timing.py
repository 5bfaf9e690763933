"""What the benchmarks share: a clock that waits for the device, and the rows they print or keep."""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch

from robustbias import manifest, studies, utils


def device(arguments: list[str]) -> torch.device:
    """The device named first on the command line, else the best there is."""
    return studies.chosen_device(arguments[1] if len(arguments) > 1 else "auto")


def seconds(work: Callable[[], object], on: torch.device, repeats: int = 5) -> float:
    """Median time of a call, after one that is not counted."""
    return paired([work], on, repeats)[0]


def paired(works: list[Callable[[], object]], on: torch.device, repeats: int = 5) -> list[float]:
    """Median times of several works done in turn, so that a drift of the machine hits all."""
    times: list[list[float]] = [[] for _ in works]
    for turn in range(repeats + 1):
        for work, own in zip(works, times, strict=True):
            start = time.perf_counter()
            work()
            if on.type == "cuda":
                torch.cuda.synchronize(on)
            if turn:
                own.append(time.perf_counter() - start)
    return [statistics.median(own) for own in times]


def row(
    name: str,
    ours: float,
    *,
    unit: str,
    on: torch.device,
    peer: float | None = None,
    peer_name: str | None = None,
    limit: float | None = None,
) -> None:
    """Prints one JSON line; `ours`, `peer` and `limit` in `unit`, larger is faster."""
    line = {
        "name": name,
        "ours": round(ours, 1),
        "peer": peer and round(peer, 1),
        "peer_name": peer_name,
        "limit": limit and round(limit, 1),
        "unit": unit,
        "device": f"{studies.device_name(on)}, {torch.get_num_threads()} threads"
        if on.type == "cpu"
        else studies.device_name(on),
    }
    print(json.dumps(line), flush=True)


def store(name: str, row: dict, key: str) -> None:
    """Puts the row in benchmarks/NAME.csv, in place of an earlier one of the same key.

    With the commit, the device and the command that measured it. Another program may store rows of
    the same file at the same time.
    """
    path = Path(__file__).with_name(f"{name}.csv")
    row = row | {
        "commit": studies.commit(),
        "device": studies.device_name(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "command": " ".join(["python", f"benchmarks/{name}.py", *sys.argv[1:]]),
    }
    with utils.locked(manifest.ROOT / "_build" / "locks" / f"{name}.lock"):
        stored = pd.read_csv(path).to_dict("records") if path.is_file() else []
        table = pd.DataFrame([*(kept for kept in stored if kept[key] != row[key]), row])
        with utils.atomic(path) as partial:
            table.sort_values(key).to_csv(partial, index=False)
