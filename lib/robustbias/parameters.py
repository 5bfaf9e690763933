"""Parameters as a person types them: literals, checked by name and by the type of a default."""

import ast
from typing import Any

from robustbias.errors import UserError


def value(text: str) -> Any:
    """A parameter's value as typed on a command line: a Python literal, else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def settings(texts: list[str] | None) -> dict[str, Any]:
    """NAME=VALUE texts as a dictionary. Raises UserError for a text of another form."""
    pairs = [text.partition("=") for text in texts or []]
    if wrong := ["".join(pair) for pair in pairs if not pair[0] or not pair[1]]:
        raise UserError(f"{wrong[0]!r} is no setting; expected NAME=VALUE, for instance seed=1.")
    return {name: value(text) for name, _, text in pairs}


def checked(owner: str, known: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The given parameters, if `owner` has them all and they are of its defaults' types.

    An int may stand for a float and a tuple for a list; a default of None takes anything.

    Raises:
        UserError: Unknown or mistyped parameters; the message lists the valid ones.
    """
    wrong = [
        f"{name} = {value!r} is not {_kind(known[name])}" if name in known else f"no {name!r}"
        for name, value in given.items()
        if name not in known or not _fits(known[name], value)
    ]
    if wrong:
        valid = ", ".join(f"{name}: {_kind(value)} = {value!r}" for name, value in known.items())
        raise UserError(f"parameters of {owner}: {'; '.join(wrong)}. Valid: {valid}.")
    return given


def _kind(default: Any) -> str:
    """What a parameter takes, in words: `list of int`."""
    if isinstance(default, list | tuple):
        return f"list of {type(default[0]).__name__}" if default else "list"
    return "any" if default is None else type(default).__name__


def _fits(default: Any, value: Any) -> bool:
    """Whether a value can stand where the default stands."""
    if default is None:
        return True
    if isinstance(default, list | tuple):
        return isinstance(value, list | tuple) and all(
            _fits(default[0], item) for item in value if default
        )
    return type(value) is type(default) or (type(default) is float and type(value) is int)
