"""Parameters typed by a person, against the defaults they replace."""

import pytest

from robustbias import manifest
from robustbias.manifest import checked
from robustbias.utils import UserError

KNOWN = {"study": "first", "n": 3, "scale": 1.0, "grid": [1, 2], "sizes": None, "names": []}
COUNTS = {"null_seeds": 3, "seed": 0, "eps_grid": None}


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"m": 1}, "no 'm'"),
        ({"n": "3"}, "n = '3' is not int"),
        ({"n": True}, "n = True is not int"),
        ({"n": 3.5}, "n = 3.5 is not int"),
        ({"scale": "big"}, "scale = 'big' is not float"),
        ({"grid": 4}, "grid = 4 is not list of int"),
        ({"grid": ["a"]}, "grid = ['a'] is not list of int"),
    ],
)
def test_a_wrong_parameter_is_an_error_that_lists_the_valid_ones(given, complaint):
    with pytest.raises(UserError) as error:
        checked("01", KNOWN, given)
    assert complaint in str(error.value)
    assert "Valid: study: str = 'first', n: int = 3, scale: float = 1.0" in str(error.value)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"n": 0}, "n = 0 is not positive"),
        ({"n": 10**23}, "n = 1" + "0" * 23 + " is not a number of 64 bits"),
        ({"seed": -(10**23)}, "is not a number of 64 bits"),
        ({"null_seeds": -1}, "null_seeds = -1 is not 0 or more"),
        ({"scale": float("nan")}, "scale = nan is not finite"),
        ({"eps_grid": [0.5, float("inf")]}, r"eps_grid = [0.5, inf] is not finite"),
        ({"eps_grid": 0.5}, "eps_grid = 0.5 is not list of float"),
    ],
)
def test_an_impossible_number_is_an_error(given, complaint):
    with pytest.raises(UserError) as error:
        checked("01", KNOWN | COUNTS, given, {"eps_grid": [1.0]})
    assert complaint in str(error.value)
    assert "eps_grid: list of float = None" in str(error.value)


@pytest.mark.parametrize("name", ["sizes", "anything"])
def test_a_parameter_where_there_are_none_is_an_error(name):
    with pytest.raises(UserError, match=f"parameters of 09: no '{name}'. Valid: none."):
        checked("09", {}, {name: [64]})


def test_counts_that_may_be_zero_may():
    assert checked("01", COUNTS, {"null_seeds": 0, "seed": -1}) == {"null_seeds": 0, "seed": -1}


def test_a_whole_number_stands_for_a_float_and_a_tuple_for_a_list():
    given = {"scale": 2, "grid": (3,), "n": 5}
    assert checked("01", KNOWN, given) == given


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("[1, 2]", [1, 2]), ("cpu", "cpu"), ("True", True), ("1e-3", 1e-3)],
)
def test_a_typed_value_is_a_literal_or_text(text, value):
    assert manifest.value(text) == value


def test_a_default_of_none_takes_anything_and_an_empty_list_any_list():
    given = {"sizes": [3], "names": ["a"]}
    assert checked("01", KNOWN, given) == given


def test_settings_are_names_and_values():
    assert manifest.settings(["n=3", "name=a=b"]) == {"n": 3, "name": "a=b"}
    assert manifest.settings(None) == {}
    with pytest.raises(UserError, match="'n' is no setting; expected NAME=VALUE"):
        manifest.settings(["n"])
