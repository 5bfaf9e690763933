"""Which claims there are: one decorated function each, from a measure's table to its parts."""

from collections.abc import Callable, Iterable

import pandas as pd

from robustbias.claims.verdicts import Claim, Verdicts
from robustbias.errors import UserError

TESTS: dict[str, Callable[[pd.DataFrame], Iterable[Claim]]] = {}
TITLES: dict[str, str] = {}


def claim(id: str, title: str) -> Callable:
    """Decorator: the function turns a measure's table into the parts of claim `id`.

    Args:
        title: The claim in a line, as an overview shows it.
    """

    def registered(function: Callable[[pd.DataFrame], Iterable[Claim]]) -> Callable:
        if id in TESTS:
            raise ValueError(f"claim {id!r} exists already: choose another id")
        TESTS[id], TITLES[id] = function, title
        return function

    return registered


def tested(id: str, table: pd.DataFrame) -> Verdicts:
    """The claim's parts, judged by a table.

    Raises:
        UserError: an unknown claim, or a table without any row the claim is about.
    """
    if id not in TESTS:
        raise UserError(f"unknown claim {id!r}; known: {', '.join(sorted(TESTS))}")
    parts = tuple(TESTS[id](table))
    if not parts:
        raise UserError(
            f"the table has no rows to test {id} with: measure an S and an R network of one "
            "architecture first"
        )
    return Verdicts(parts)
