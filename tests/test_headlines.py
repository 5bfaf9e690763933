"""The numbers that the closing chapter sets side by side."""

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

import toy_study
from robustbias import headlines, measures
from robustbias.book.records import records, without_records
from robustbias.mimes import HEADLINES


@pytest.fixture(autouse=True)
def table_store(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTBIAS_TABLES", str(tmp_path))


@pytest.fixture
def bias():
    table = measures.shape_bias(toy_study.study(), null_seeds=0, draws=20)
    null = table[table["regime"] == "standard"].assign(regime="untrained", pair=False)
    return pd.concat([table, null])


def test_shape_bias_comes_with_coverage_and_both_nulls(bias):
    found = pd.DataFrame(headlines.shape_bias(bias)).set_index(["number", "regime"])["value"]
    assert found["shape bias", "robust"] == 1
    assert found["shape bias", "standard"] == 0
    assert found["coverage", "robust"] == 1
    assert 0.2 < found["shape bias, shuffled", "robust"] < 0.8
    assert ("shape bias, untrained", "standard") in found.index


def test_the_display_that_decides_comes_first_and_alone_has_nulls(bias):
    other = bias.assign(display="other")
    both = pd.concat([bias.assign(decides=False), other.assign(decides=True)])
    numbers = list(dict.fromkeys(row["number"] for row in headlines.shape_bias(both)))
    own = f"{toy_study.SIDE} px"
    assert numbers == [
        "shape bias, other", "coverage, other", "shape bias, shuffled, other",
        "coverage, shuffled, other", "shape bias, untrained, other",
        f"shape bias, {own}", f"coverage, {own}",
    ]  # fmt: skip


def test_accuracy_is_clean_and_at_the_radius_of_training():
    table = measures.accuracy(toy_study.study(), n_images=20)
    found = headlines.accuracy(table)
    assert {row["number"] for row in found} == {"top-1, clean", "top-1, PGD-10, eps 0.5"}
    assert {row["regime"] for row in found} == {"standard", "robust"}


def test_numbers_travel_in_the_notebook_and_meet_the_verdicts(bias, tmp_path):
    bundle = headlines.shape_bias(bias)._repr_mimebundle_()
    notebook = new_notebook(
        cells=[new_code_cell(outputs=[new_output("display_data", data=bundle)])]
    )
    nbformat.write(notebook, tmp_path / "x.ipynb")
    numbers = records(tmp_path / "x.ipynb", HEADLINES)
    assert numbers == bundle[HEADLINES]
    verdicts = pd.DataFrame(
        [
            {"claim": "C1", "study": "toy", "architecture": "alexnet", "verdict": verdict}
            for verdict in ("supported", "undetermined")
        ]
    )
    table = headlines.table(numbers, verdicts, "toy")
    assert list(table.columns) == ["AlexNet S", "AlexNet R"]
    assert table.loc["shape bias", "AlexNet R"].startswith("1.00 [")
    assert list(table.loc["C1"]) == ["", "undetermined"]
    without_records(notebook)
    assert HEADLINES not in notebook.cells[0].outputs[0]["data"]
