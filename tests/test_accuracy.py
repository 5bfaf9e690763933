"""On linear networks the distance to the decision boundary is known, so accuracy is too."""

import numpy as np
import pandas as pd
import pytest
import torch

import toy_study
from robustbias import attacks
from robustbias.adversarial_training.measure import accuracy, accuracy_checks, robustness
from robustbias.utils import UserError


@pytest.fixture(autouse=True)
def _store(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTBIAS_TABLES", str(tmp_path))


def value(table, network, condition, metric="top1", steps=None):
    rows = table[
        (table["network"] == network)
        & (table["condition"] == condition)
        & (table["metric"] == metric)
    ]
    if steps is not None:
        rows = rows[rows["steps"] == steps]
    (only,) = rows["value"]
    return only


def boundary_distance(source) -> np.ndarray:
    """L2 distance at which one channel mean of a half reaches another: (a - b) √m / √2."""
    m = toy_study.SIDE * toy_study.SIDE // 2
    return source.contrast.round().numpy() / 255 * np.sqrt(m / 2)


def test_accuracy_under_attack_is_the_share_of_images_farther_than_eps_from_the_boundary():
    study = toy_study.study()
    table = accuracy(study, n_images=60, eps_grid=[0.5, 1.0, 1.5], steps=40)
    distance = boundary_distance(study.source)
    for eps in (0.5, 1.0, 1.5):
        for network in ("toy-s", "toy-r"):
            measured = value(table, network, f"pgd-l2-{eps:g}", steps=40)
            assert measured == pytest.approx((distance > eps).mean(), abs=0.035)
    assert value(table, "toy-s", "clean") == 1.0


def test_an_image_fooled_within_a_radius_is_not_right_within_a_larger_one(monkeypatch):
    honest = attacks.worst_case

    def timid(network, pixels, labels, *, eps, **options):
        return honest(network, pixels, labels, eps=1.0 / (1 + eps), **options)

    monkeypatch.setattr(attacks, "worst_case", timid)
    table = accuracy(toy_study.study(), n_images=60, steps=5)
    for network in ("toy-s", "toy-r"):
        rows = table[(table["network"] == network) & (table["metric"] == "top1")]
        assert rows.sort_values("attack_eps")["value"].is_monotonic_decreasing


def test_no_image_is_attacked_where_another_radius_tells_the_outcome(monkeypatch):
    honest, attacked = attacks.worst_case, []

    def counted(network, pixels, labels, *, eps, **options):
        attacked.append((eps, len(labels)))
        return honest(network, pixels, labels, eps=eps, **options)

    monkeypatch.setattr(attacks, "worst_case", counted)
    table = accuracy(toy_study.study(), n_images=60, steps=20)
    correct = {eps: value(table, "toy-s", f"pgd-l2-{eps:g}") * 60 for eps in (0.25, 0.5, 4.0)}
    of_one = attacked[: len(attacked) // 2]  # S and R are attacked alike
    assert dict(of_one) == {
        0.5: 60, 4.0: pytest.approx(correct[0.5]), 0.25: pytest.approx(60 - correct[0.5]),
    }  # fmt: skip
    assert list(dict(of_one)) == [0.5, 4.0, 0.25]
    assert correct[4.0] <= correct[0.5] <= correct[0.25]


def test_achieved_norms_of_fooled_images_never_leave_the_ball():
    table = accuracy(toy_study.study(), n_images=30, eps_grid=[0.5], steps=10)
    norms = table[table["metric"] == "achieved_norm"]
    assert (norms["high"] <= 0.5 * (1 + 1e-4)).all()
    assert (norms["low"] > 0).all()


def test_every_network_has_its_clean_and_robust_accuracy_and_no_warning():
    table = accuracy(toy_study.study(), n_images=40, steps=5)
    rows = robustness(table).set_index("network")
    assert list(rows.index) == ["toy-s", "toy-r"]
    for network, row in rows.iterrows():
        assert row["robust"] == value(table, network, "pgd-l2-0.5")
        assert (row["clean"], row["n"], row["eps"], row["warnings"]) == (1.0, 40, 0.5, "")


class Masked(toy_study.HalfLooker):
    """The same answers in steps, as JPEG or rounding would give: gradients are zero."""

    def forward(self, pixels):
        return (super().forward(pixels).detach() * 50).round() + 0 * pixels.sum()


def test_masked_gradients_get_a_warning():
    study = toy_study.study()
    study.networks["toy-r"] = Masked("left")
    table = accuracy(study, n_images=40, eps_grid=[0.5, 3.0], steps=3)
    failed = accuracy_checks(table).query("network == 'toy-r' and not holds")["check"].tolist()
    assert failed == [
        "an attack without gradients fools no more images", "no gradient is zero",
    ]  # fmt: skip
    assert robustness(table).set_index("network").loc["toy-r", "warnings"] == "; ".join(failed)


def test_an_image_that_is_wrong_without_attack_counts_as_wrong_under_it():
    study = toy_study.study()
    study.source.labels = (study.source.labels + 1) % 3
    study.source.val = lambda: toy_study.Images(
        toy_study.halves(
            toy_study.Source().labels, toy_study.Source().labels, study.source.contrast
        ),
        study.source.labels,
        toy_study.CATEGORIES,
    )
    table = accuracy(study, n_images=60, eps_grid=[0.5], steps=5)
    assert value(table, "toy-s", "clean") == 0.0
    assert value(table, "toy-s", "pgd-l2-0.5", steps=5) == 0.0
    assert (table["metric"] != "achieved_norm").all()


def test_every_check_holds_for_honest_networks():
    checks = accuracy_checks(accuracy(toy_study.study(), n_images=60, steps=20))
    assert checks["holds"].all(), checks
    standard = checks[checks["network"] == "toy-s"]["check"]
    assert "the standard network falls to zero" in set(standard)
    assert len(checks) == 7


def test_checks_unmask_a_weak_attack_and_images_outside_the_ball(monkeypatch):
    honest = attacks.worst_case

    def far(network, pixels, labels, *, eps, **options):
        return honest(network, pixels, labels, eps=1.01 * eps, **options)

    def weak(network, pixels, labels, **options):
        nothing = torch.zeros(len(pixels))
        return attacks.Attack(pixels, nothing, network(pixels).argmax(1) != labels)

    failed = {}
    for attack in (far, weak):
        monkeypatch.setattr(attacks, "worst_case", attack)
        table = accuracy.__wrapped__(toy_study.study(), n_images=60, eps_grid=[0.5, 4.0])
        checks = accuracy_checks(table)
        failed[attack] = set(checks.loc[~checks["holds"], "check"])
    assert failed[far] == {"perturbations stay in the ball"}
    assert failed[weak] == {
        "an attack without gradients fools no more images", "the standard network falls to zero",
    }  # fmt: skip


@pytest.mark.parametrize(("more", "holds"), [(2, True), (3, False)])
def test_two_images_of_200_are_one_in_a_hundred_in_whatever_floating_point(more, holds):
    row = {
        "network": "r",
        "architecture": "alexnet",
        "replicate": 1,
        "mean_over": None,
        "regime": "robust",
        "steps": 20,
        "attack_eps": 1.0,
        "eps": 1.0,
    }
    rows = [row | {"metric": "top1", "value": 0.44}]
    rows += [row | {"metric": "black_box", "value": (88 + more) / 200 - 88 / 200}]
    checks = accuracy_checks(pd.DataFrame(rows).assign(high=1.0)).set_index("check")["holds"]
    assert checks["an attack without gradients fools no more images"] == holds


def test_the_paired_difference_of_networks_alike_on_every_image_is_exactly_zero():
    table = accuracy(toy_study.study(), n_images=40, eps_grid=[0.5], steps=5)
    clean = table[(table["metric"] == "top1_difference") & (table["condition"] == "clean")]
    assert clean[["value", "low", "high"]].to_numpy().tolist() == [[0.0, 0.0, 0.0]]


def test_networks_beyond_the_pair_are_measured_clean_alone():
    study = toy_study.study()
    study.entries.append(toy_study.entry("toy-r2", "robust", 2.0))
    study.networks["toy-r2"] = toy_study.HalfLooker("left", 1.0)
    table = accuracy(study, n_images=10, eps_grid=[0.5], steps=2)
    assert table.loc[table["network"] == "toy-r2", "condition"].tolist() == ["clean"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_images": 0}, "at least 1 image"),
        ({"eps_grid": [0.5, -1.0]}, "must be positive"),
        ({"eps_grid": []}, "must be positive"),
    ],
)
def test_bad_arguments_get_one_clear_error(arguments, message):
    with pytest.raises(UserError, match=message):
        accuracy(toy_study.study(), **arguments)


def test_the_same_seed_gives_the_same_table_and_draws_its_images_at_random():
    study = toy_study.study()
    first = accuracy(study, n_images=20, eps_grid=[0.5], steps=3)
    again = accuracy.__wrapped__(study, n_images=20, eps_grid=[0.5], steps=3)
    np.testing.assert_array_equal(first["value"], again["value"])
    torch.testing.assert_close(torch.tensor(first["n"].iloc[0]), torch.tensor(20))
