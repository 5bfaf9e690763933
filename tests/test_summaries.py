"""Readers' tables say what the long tables say, in words that follow from the numbers."""

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

import toy_study
from robustbias.adversarial_training import report as adversarial_training_report
from robustbias.adversarial_training.measure import accuracy, accuracy_checks
from robustbias.findings import report as findings_report
from robustbias.findings.measure import records, without_records
from robustbias.shape_bias import report as shape_bias_report
from robustbias.shape_bias.measure import cue_parity, shape_bias
from robustbias.utils import HEADLINES

pytestmark = pytest.mark.usefixtures("toy_networks_only")


def test_accuracy_has_a_line_a_network_and_a_column_a_radius():
    table = adversarial_training_report.accuracy(accuracy(toy_study.study(), n_images=20, steps=4))
    assert list(table.columns) == ["clean", "radius 0.25", "radius 0.5", "radius 4"]
    assert list(table.index) == [("AlexNet", "S (standard)"), ("AlexNet", "R (robust)")]
    assert table.loc[("AlexNet", "R (robust)"), "clean"] == "1.00 [0.84, 1.00]"


def test_shape_bias_has_both_aggregations_and_both_nulls():
    table = shape_bias_report.shape_bias(shape_bias(toy_study.study(), draws=50))
    robust = table.loc[("AlexNet", "R (robust)", f"{toy_study.SIDE} px")]
    assert robust["shape bias"] == robust["bias (sum)"] == "1"
    assert float(robust["bias, shuffled"].split()[0]) == pytest.approx(0.5, abs=0.05)
    untrained = table.loc[("AlexNet", "untrained", f"{toy_study.SIDE} px")]
    assert untrained["coverage"].startswith("0.67")
    assert untrained["bias, shuffled"] == ""


def test_checks_name_what_fails():
    checks = accuracy_checks(accuracy(toy_study.study(), n_images=20, steps=10))
    assert (
        adversarial_training_report.checks(checks)
        == f"All {len(checks)} checks of the attack hold."
    )
    failing = checks.assign(holds=[False] + [True] * (len(checks) - 1), worst=0.25)
    text = adversarial_training_report.checks(failing)
    assert text.startswith(f"1 of {len(checks)} checks of the attack fail")
    assert checks["check"].iloc[0] in text


@pytest.mark.parametrize(
    ("shape", "texture", "words"),
    [
        (0.90, 0.95, "within 0.1), but texture is easier."),
        (0.90, 0.92, "within 0.1)."),
        (0.80, 0.85, "not on a par"),
        (0.87, 0.99, "not on a par"),
    ],
)
def test_cues_are_on_a_par_when_both_are_learned_and_close(shape, texture, words):
    rows = [
        {"cue": cue, "value": value, "low": value - 0.02, "high": value + 0.01, "n": 800}
        for cue, value in (("shape", shape), ("texture", texture))
    ]
    table = pd.DataFrame(rows)
    text = shape_bias_report.cue_parity(table.assign(regime="standard"))
    robust = shape_bias_report.cue_parity(table.assign(regime="robust"))
    assert text.startswith("Trained without an adversary")
    assert robust.startswith("Trained with an adversary")
    assert words in text
    assert f"{shape:.2f} [{shape - 0.02:.2f}, {shape + 0.01:.2f}]" in text


def test_parity_is_measured_on_images_with_that_cue_alone():
    study = toy_study.study()
    study.entries.extend(
        toy_study.entry(f"toy-{cue}", "standard", 0.0, cue=cue) for cue in ("shape", "texture")
    )
    study.networks |= {
        "toy-shape": toy_study.HalfLooker("left"),
        "toy-texture": toy_study.HalfLooker("left"),
    }
    table = cue_parity(study, n_images=30).set_index("cue")
    assert table.loc["shape", "value"] == 1.0
    assert table.loc["texture", "value"] < 0.6


def test_a_study_without_one_cue_networks_says_so():
    table = cue_parity(toy_study.study())
    assert table.empty
    assert "how easy each cue is to learn is unknown" in shape_bias_report.cue_parity(table)


def test_a_series_trained_unequally_long_is_called_confounded():
    rows = [
        {"eps": eps, "epoch": n} for eps, last in [(0.0, 3), (1.0, 5)] for n in range(1, last + 1)
    ]
    text = shape_bias_report.training_lengths(pd.DataFrame(rows))
    assert "for 3 (eps 0), 5 (eps 1) epochs" in text
    assert "not of the radius alone" in text
    equal = pd.DataFrame(rows).query("epoch <= 3")
    assert shape_bias_report.training_lengths(equal) == (
        "All networks of the series were trained for 3 epochs."
    )


# The numbers that the closing chapter compares.


@pytest.fixture
def bias():
    table = shape_bias(toy_study.study(), null_seeds=0, draws=20)
    null = table[table["regime"] == "standard"].assign(regime="untrained", pair=False)
    return pd.concat([table, null])


def test_shape_bias_comes_with_coverage_and_both_nulls(bias):
    rows = pd.DataFrame(shape_bias_report.headlines(bias))
    values = rows.set_index(["number", "regime"])["value"]
    assert values["shape bias", "robust"] == 1
    assert values["shape bias", "standard"] == 0
    assert values["coverage", "robust"] == 1
    assert 0.2 < values["shape bias, shuffled", "robust"] < 0.8
    assert ("shape bias, untrained", "standard") in values.index


def test_the_numbers_are_those_of_the_displays_that_decide(bias):
    other = bias.assign(display="other")
    both = pd.concat([bias.assign(decides=False), other])
    rows = pd.DataFrame(shape_bias_report.headlines(both))
    assert set(rows["number"]) == {
        "shape bias", "coverage", "by shape", "by texture",
        "shape bias, shuffled", "coverage, shuffled", "shape bias, untrained",
    }  # fmt: skip
    # S and R, the untrained once, and R minus S of what is not shuffled
    assert rows["regime"].value_counts().to_dict() == {
        "standard": 7, "robust": 6, "robust - standard": 4,
    }  # fmt: skip


def test_accuracy_is_clean_and_at_the_radius_of_training():
    numbers = adversarial_training_report.headlines(accuracy(toy_study.study(), n_images=20))
    assert {row["number"] for row in numbers} == {"top-1, clean", "top-1 under attack, eps 0.5"}
    assert {row["regime"] for row in numbers} == {"standard", "robust", "robust - standard"}
    assert {row["network"] for row in numbers} == {"toy-s", "toy-r", "toy-r - toy-s"}


def test_numbers_travel_in_the_notebook_to_the_closing_chapter(bias, tmp_path):
    bundle = shape_bias_report.headlines(bias)._repr_mimebundle_()
    output = new_output("display_data", data=bundle)
    notebook = new_notebook(cells=[new_code_cell(outputs=[output])])
    nbformat.write(notebook, tmp_path / "x.ipynb")
    numbers = records(tmp_path / "x.ipynb", HEADLINES)
    assert numbers == bundle[HEADLINES]
    table = findings_report.numbers_table(numbers, "toy")
    assert list(table.columns) == ["AlexNet S", "AlexNet R"]
    assert table.loc["shape bias", "AlexNet R"].startswith("1.00 [")
    without_records(notebook)
    assert HEADLINES not in notebook.cells[0].outputs[0]["data"]
