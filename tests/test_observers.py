"""Our answers go out in the format that anyone's come in."""

import pytest

import toy_study
from robustbias.shape_bias import decisions
from toy_study import CATEGORIES


@pytest.fixture(autouse=True)
def own_tables(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTBIAS_TABLES", str(tmp_path / "tables"))


def test_written_decisions_give_the_shape_bias_that_was_measured(tmp_path):
    paths = decisions.written(toy_study.study(), tmp_path / "out")
    assert [path.name for path in paths] == [
        f"cue-conflict_toy-{regime}_8px_session_1.csv" for regime in "sr"
    ]
    table = decisions.summary(paths).set_index("observer")
    # S looks at the half with the texture, R at the one with the shape
    assert table.loc["toy-s", "shape_bias"] == 0
    assert table.loc["toy-r", "shape_bias"] == 1
    assert set(table["n"]) == {3 * 2 * 2}
    trials = decisions.read(paths)
    assert set(trials["object_response"]) <= set(CATEGORIES)
    assert set(trials["condition"]) == {"8px"}
