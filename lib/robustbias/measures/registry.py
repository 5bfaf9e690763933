"""What makes a function a measure: its name, the table store, and a tidy table."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import pandas as pd

from robustbias import tables

REGISTRY: dict[str, Callable[..., pd.DataFrame]] = {}
VALUES = ("value", "low", "high", "n")


def measure(
    function: Callable[..., pd.DataFrame] | None = None,
    *,
    of: Callable[[Any], Any] = lambda study: study,
) -> Callable[..., Any]:
    """Decorator: register `function(study, *, ...) -> table` and keep its tables.

    Args:
        of: `paired` for a measure of S and R alone, whose tables then outlive a new network of the
            series over radii.

    Raises:
        ValueError: the name is taken.
    """
    if function is None:
        return functools.partial(measure, of=of)
    name = function.__name__
    if name in REGISTRY:
        raise ValueError(f"measure {name!r} exists already: rename the new one")
    REGISTRY[name] = tables.stored(function, of=of)
    return REGISTRY[name]


def tidy(rows: list[dict] | pd.DataFrame) -> pd.DataFrame:
    """The rows as a long table.

    Raises:
        ValueError: two rows describe the same condition.
    """
    table = pd.DataFrame(rows)
    names = [column for column in table.columns if column not in VALUES]
    repeated = table.duplicated(names)
    if repeated.any():
        first = table.loc[repeated, names].iloc[0].to_dict()
        raise ValueError(f"two rows for one condition: {first}")
    return table


def described(study: Any, entry: Any) -> dict[str, Any]:
    """The columns that say which network a row is about.

    `pair` tells the S and R of an architecture (R at the study's own radius) from the networks of
    the series over radii.
    """
    return {
        "study": study.name,
        "network": entry.name,
        "architecture": entry.architecture,
        "regime": entry.regime,
        "eps": entry.eps,
        "pair": bool(entry.pair),
    }


def pairs(study: Any) -> dict[str, dict[str, Any]]:
    """{architecture: {"standard": entry, "robust": entry}}, without those not on this machine."""
    found: dict[str, dict[str, Any]] = {}
    for entry in study.entries:
        if described(study, entry)["pair"]:
            found.setdefault(entry.architecture, {})[entry.regime] = entry
    return found


def paired(study: Any) -> Any:
    """The study with the networks of its pairs alone, sharing images and networks with it."""
    _ = study.source  # loaded before the copy, so that both have it
    part = copy.copy(study)
    entries = tuple(entry for pair in pairs(study).values() for entry in pair.values())
    object.__setattr__(part, "entries", entries)  # it is frozen, and ours
    return part
