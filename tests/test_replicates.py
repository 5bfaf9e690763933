"""Two trainings of each network: tables have one line per architecture, figures their means."""

import dataclasses

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch

import toy_study
from robustbias import stats, studies
from robustbias.adversarial_training import figures as attack_figures
from robustbias.adversarial_training import report as attack_report
from robustbias.adversarial_training.measure import accuracy, accuracy_checks, robustness
from robustbias.concepts import figures as concept_figures
from robustbias.ood_generalization import measure as ood_measure
from robustbias.plotting import canvas
from robustbias.shape_bias import figures as bias_figures
from robustbias.shape_bias import report as bias_report
from robustbias.shape_bias.measure import conflict_trials, displays, shape_bias
from robustbias.utils import UserError

pytestmark = pytest.mark.usefixtures("toy_networks_only")
mpl.use("Agg")
SIDES = {"standard": ("s", 0.0, "right"), "robust": ("r", 0.5, "left")}


def study():
    """S and R of one architecture, trained twice; the second S looks left as R does."""
    entries, networks = [], {}
    for k in (1, 2):
        for regime, (letter, eps, half) in SIDES.items():
            name = f"toy-{letter}-{k}"
            entry = toy_study.entry(name, regime, eps)
            entries.append(dataclasses.replace(entry, replicate=k))
            networks[name] = toy_study.HalfLooker("left" if k == 2 else half)
    return toy_study.study(entries=entries, networks=networks)


def test_accuracies_of_two_trainings_are_averaged_and_checked_one_by_one():
    table = accuracy(study(), n_images=20, steps=4)
    top1 = table[(table["metric"] == "top1") & (table["attack_eps"] == 0.5)]
    means = top1[top1["mean_over"] == "replicates"].set_index("network")
    assert set(means.index) == {"toy-s", "toy-r"}
    for network, mean in means.iterrows():
        values = top1[top1["network"].isin([f"{network}-1", f"{network}-2"])]["value"]
        assert mean["value"] == pytest.approx(values.mean())
        exact = stats.wilson(mean["value"] * 20, 20)
        assert mean["low"] <= exact.low
        assert mean["high"] >= exact.high
    assert list(attack_report.accuracy(table).index) == [
        ("AlexNet", "S (standard)"), ("AlexNet", "R (robust)"),
    ]  # fmt: skip
    assert set(robustness(table)["network"]) == {"toy-s-1", "toy-r-1", "toy-s-2", "toy-r-2"}
    checks = accuracy_checks(table).assign(holds=False)
    assert "AlexNet, R (robust), replicate 2: " in attack_report.checks(checks)
    (ax,) = attack_figures.accuracy_curve(table).axes
    (line,) = [c.lines[0] for c in ax.containers if c.get_label() == "R (robust)"]
    assert line.get_ydata()[2] == pytest.approx(means.loc["toy-r", "value"])
    dots = [dots for dots in ax.collections if dots.get_label() == "single trainings"]
    assert [len(each.get_offsets()) for each in dots] == [8, 8]  # 4 radii of S, and of R


def test_biases_of_two_trainings_are_averaged_with_their_categories_and_nulls():
    table = shape_bias(study(), null_seeds=0, draws=50)
    bias = table[(table["metric"] == "shape_bias") & (table["mean_over"] == "replicates")]
    of_s = bias[bias["network"] == "toy-s"]
    assert of_s[of_s["scope"] == "category"]["value"].tolist() == pytest.approx([0.5] * 3)
    null = of_s[of_s["condition"] == "shuffled"].iloc[0]
    assert null["low"] < null["value"] < null["high"]
    text = bias_report.shape_bias(table)
    assert len(text) == 2
    assert text["bias, shuffled"].str.len().min() > 0
    assert text["shape bias"].iloc[0].startswith("0.50 [")
    figure = bias_figures.shape_bias_by_category(table)
    (line,) = [c.lines[0] for c in figure.axes[0].containers if c.get_label() == "S (standard)"]
    assert line.get_xdata().tolist() == pytest.approx([0.5] * 3)
    top = bias_figures.shape_bias_summary(table).axes[0]
    dots = [
        dots.get_offsets() for dots in top.collections if dots.get_label() == "single trainings"
    ]
    assert sorted(np.concatenate(dots)[:, 1]) == [0, 1, 1, 1]


def test_stimuli_have_one_decision_of_s_and_one_of_r():
    toy = study()
    figure = bias_figures.stimuli_with_decisions(
        displays(toy), conflict_trials(toy), architecture="alexnet", n=4
    )
    assert [len(ax.texts) for ax in figure.axes if ax.images] == [2] * 4


def test_a_training_record_has_a_line_per_training():
    rows = [
        {"network": f"{regime}-{k}", "architecture": "alexnet", "regime": regime, "epoch": epoch,
         "clean": 0.5 + 0.1 * k, "adversarial": 0.1 * k}
        for regime in SIDES for k in (1, 2) for epoch in (1, 2)
    ]  # fmt: skip
    figure = attack_figures.training_records(pd.DataFrame(rows))
    assert len(figure.axes[0].lines) == 8
    assert all(len(set(line.get_ydata())) == 1 for line in figure.axes[0].lines)
    assert "R (robust): 0.10, 0.20" in repr(figure)


def test_units_of_two_trainings_are_different_units():
    rows = [
        {"network": f"r-{k}", "regime": "robust", "metric": "iou", "layer": "conv", "unit": unit,
         "value": 0.5 if k == 1 else 0.001}
        for k in (1, 2) for unit in range(4)
    ]  # fmt: skip
    ax = canvas()[1][0, 0]
    concept_figures._best_iou(ax, pd.DataFrame(rows), 0.04)
    assert ax.lines[0].get_ydata()[100] == 0.5


def test_plain_means_are_of_replicates_alone():
    about = {"study": "toy", "architecture": "alexnet", "eps": 0.0, "pair": True, "n": 3}
    rows = [
        about | {"network": f"s-{k}", "replicate": k, "regime": "standard", "group": group,
                 "value": float(k)}
        for k in (1, 2) for group in ("a", "b")
    ]  # fmt: skip
    rows.append(about | {"network": "u", "replicate": None, "regime": "untrained", "value": 9.0})
    table = stats.plain_means(pd.DataFrame(rows))
    means = table[table["mean_over"] == "replicates"]
    assert means[["network", "group", "value", "n"]].values.tolist() == [
        ["s", "a", 1.5, 6], ["s", "b", 1.5, 6],
    ]  # fmt: skip
    assert len(table) == 7


def test_an_unknown_training_is_an_error_that_lists_the_others():
    with pytest.raises(UserError, match=r"iconworld has no replicate \[77\]; it has: \[.*1"):
        studies.load("iconworld", replicates=[1, 77], device="cpu")


def test_the_reference_of_corruption_errors_is_all_its_trainings_at_100():
    generator = torch.Generator().manual_seed(0)
    resamples = torch.rand(200, 2 * 5 * 4, generator=generator)  # corruption, severity, network
    boot = stats.Bootstrap(resamples.mean(0), resamples)
    table = ood_measure.error_rows(study(), boot, "corruption", ("fog", "snow"), 5, 40)
    means = table[(table["metric"] == "mce") & (table["mean_over"] == "replicates")]
    means = means.set_index("network")[["value", "low", "high"]]
    assert means.loc["toy-s"].tolist() == pytest.approx([100, 100, 100])
    assert means.loc["toy-r", "low"] < means.loc["toy-r", "high"]
    assert set(table["reference"].dropna()) == {"toy-s"}


def test_accuracy_where_both_are_correct_is_of_the_two_of_a_pair():
    networks = ood_measure.networks(study())
    assert [entry.name for entry in networks] == ["toy-s-1", "toy-r-1", "toy-s-2", "toy-r-2"]
    assert ood_measure.partners(networks).tolist() == [1, 0, 3, 2]
    assert ood_measure.partners(networks[:3]).tolist() == [1, 0, 2]
