"""The numbers that the closing chapter sets side by side."""

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

import toy_study
from robustbias.adversarial_training import measure as adversarial_training_measure
from robustbias.adversarial_training import report as adversarial_training_report
from robustbias.findings import report as findings_report
from robustbias.findings.measure import records, without_records
from robustbias.shape_bias import measure as shape_bias_measure
from robustbias.shape_bias import report as shape_bias_report
from robustbias.utils import HEADLINES


@pytest.fixture(autouse=True)
def table_store(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTBIAS_TABLES", str(tmp_path))


@pytest.fixture
def bias():
    table = shape_bias_measure.shape_bias(toy_study.study(), null_seeds=0, draws=20)
    null = table[table["regime"] == "standard"].assign(regime="untrained", pair=False)
    return pd.concat([table, null])


def test_shape_bias_comes_with_coverage_and_both_nulls(bias):
    found = pd.DataFrame(shape_bias_report.headlines(bias)).set_index(["number", "regime"])["value"]
    assert found["shape bias", "robust"] == 1
    assert found["shape bias", "standard"] == 0
    assert found["coverage", "robust"] == 1
    assert 0.2 < found["shape bias, shuffled", "robust"] < 0.8
    assert ("shape bias, untrained", "standard") in found.index


def test_the_display_that_decides_comes_first_and_alone_has_nulls(bias):
    other = bias.assign(display="other")
    both = pd.concat([bias.assign(decides=False), other.assign(decides=True)])
    numbers = list(dict.fromkeys(row["number"] for row in shape_bias_report.headlines(both)))
    own = f"{toy_study.SIDE} px"
    assert numbers == [
        "shape bias, other", "coverage, other", "shape bias, shuffled, other",
        "coverage, shuffled, other", "shape bias, untrained, other",
        f"shape bias, {own}", f"coverage, {own}",
    ]  # fmt: skip


def test_accuracy_is_clean_and_at_the_radius_of_training():
    table = adversarial_training_measure.accuracy(toy_study.study(), n_images=20)
    found = adversarial_training_report.headlines(table)
    assert {row["number"] for row in found} == {"top-1, clean", "top-1, PGD-10, eps 0.5"}
    assert {row["regime"] for row in found} == {"standard", "robust"}


def test_numbers_travel_in_the_notebook_and_meet_the_verdicts(bias, tmp_path):
    bundle = shape_bias_report.headlines(bias)._repr_mimebundle_()
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
    table = findings_report.numbers_table(numbers, verdicts, "toy")
    assert list(table.columns) == ["AlexNet S", "AlexNet R"]
    assert table.loc["shape bias", "AlexNet R"].startswith("1.00 [")
    assert list(table.loc["C1"]) == ["", "undetermined"]
    without_records(notebook)
    assert HEADLINES not in notebook.cells[0].outputs[0]["data"]
