"""A verdict follows from where the interval lies, and from nothing else."""

import json

import pandas as pd
import pytest

from robustbias.adversarial_training import report as adversarial_training_report
from robustbias.claims import Claim, Verdicts, joint
from robustbias.shape_bias import report as shape_bias_report
from robustbias.stats import Interval
from robustbias.utils import CLAIMS, UserError


def made(low, high, *, above=True, id="C9.part", architecture="alexnet", threshold=0.0) -> Claim:
    return Claim(
        id, "R is more.", "a paper", "toy", architecture, "R minus S",
        Interval((low + high) / 2, low, high, 120), threshold, above,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "above", "verdict"),
    [
        (0.1, 0.3, True, "supported"),
        (-0.3, -0.1, True, "contradicted"),
        (-0.1, 0.1, True, "undetermined"),
        (0.0, 0.1, True, "undetermined"),
        (-0.3, -0.1, False, "supported"),
        (0.1, 0.3, False, "contradicted"),
    ],
)
def test_the_verdict_is_read_off_the_interval(low, high, above, verdict):
    claim = made(low, high, above=above)
    assert claim.verdict == verdict
    assert f"**{verdict}**" in claim.sentence
    words = {"supported": "lies", "contradicted": "lies", "undetermined": "includes"}
    assert words[verdict] in claim.sentence


def test_a_claim_in_parts_fails_by_one_part_and_holds_by_all():
    yes, no, open_ = (made(*ends).verdict for ends in [(0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1)])
    assert joint([yes, yes]) == "supported"
    assert joint([yes, open_]) == "undetermined"
    assert joint([yes, open_, no]) == "contradicted"
    assert joint([]) == "undetermined"


def accuracy_rows() -> pd.DataFrame:
    shared = {
        "study": "toy", "architecture": "alexnet", "regime": "robust - standard", "eps": 0.5,
        "metric": "top1_difference", "n": 200,
    }  # fmt: skip
    rows = [
        ("clean", 0.0, 0, -0.2, -0.25, -0.15),
        ("pgd-l2-0.25", 0.25, 10, 0.1, -0.1, 0.2),
        ("pgd-l2-0.5", 0.5, 10, 0.4, 0.3, 0.5),
        ("pgd-l2-0.5", 0.5, 20, 0.2, -0.1, 0.5),
    ]
    names = ["condition", "attack_eps", "steps", "value", "low", "high"]
    return pd.DataFrame([shared | dict(zip(names, row, strict=True)) for row in rows])


def test_c0_reads_clean_cost_and_the_gain_at_the_training_radius():
    found = {
        claim.id: claim for claim in adversarial_training_report.robustness(accuracy_rows()).claims
    }
    assert set(found) == {"C0.cost", "C0.gain"}
    assert found["C0.cost"].verdict == "supported"
    assert found["C0.gain"].interval == Interval(0.4, 0.3, 0.5, 200)


def shape_rows(displays=("64 px",), decides="") -> pd.DataFrame:
    rows = []
    for display in displays:
        for regime, condition, metric, value in (
            ("standard", "cue-conflict", "shape_bias", 0.3),
            ("robust", "cue-conflict", "shape_bias", 0.7),
            ("robust", "shuffled", "shape_bias", 0.5),
            ("robust - standard", "paired", "shape_bias_difference", 0.4),
        ):
            for aggregation in ("mean", "sum"):
                rows.append({
                    "study": "toy", "architecture": "alexnet", "regime": regime, "pair": True,
                    "eps": 0.5, "display": display, "decides": decides in ("", display),
                    "condition": condition, "metric": metric,
                    "aggregation": aggregation, "category": "all", "value": value,
                    "low": value - 0.1, "high": value + 0.1, "n": 99,
                })  # fmt: skip
    return pd.DataFrame(rows)


def test_c1_has_three_parts_and_all_hold_when_r_follows_shape_and_s_texture():
    found = shape_bias_report.shape(shape_rows()).claims
    assert [claim.id for claim in found] == ["C1.difference", "C1.robust", "C1.standard"]
    assert {claim.verdict for claim in found} == {"supported"}
    assert found[0].key == "c1_difference_alexnet"


def test_every_display_is_judged_and_named():
    found = shape_bias_report.shape(shape_rows(("64 px", "128 px"))).claims
    assert len(found) == 6
    assert {claim.condition for claim in found} == {"64 px", "128 px"}
    assert found[1].key == "c1_difference_alexnet_128px"


def test_a_display_that_does_not_decide_is_shown_beside():
    table = shape_rows(("64 px", "painted"), decides="painted")
    away = (table["display"] == "64 px") & (table["metric"] == "shape_bias_difference")
    table.loc[away, ["value", "low", "high"]] = [-0.4, -0.5, -0.3]
    verdicts = shape_bias_report.shape(table)
    assert [claim.beside for claim in verdicts.claims] == [True, False] * 3
    assert verdicts.claims[0].verdict == "contradicted"
    text = str(verdicts.finding())
    assert "more often than S networks.** Verdict: **supported**" in text
    assert text.index("Shown beside") < text.index("**contradicted**")


def test_an_unknown_claim_lists_the_known_ones_and_an_empty_table_says_what_to_do():
    with pytest.raises(UserError, match="measure an S and an R network"):
        shape_bias_report.shape(shape_rows().iloc[:0])


def test_registered_claims_are_whole_json_files_by_study(tmp_path):
    Verdicts((made(0.1, 0.2), made(-0.1, 0.2, architecture="resnet50"))).register(tmp_path)
    (path,) = (tmp_path / "toy").iterdir()
    assert path.name == "C9.json"
    records = json.loads(path.read_text())
    assert [r["verdict"] for r in records] == ["supported", "undetermined"]
    assert records[0]["low"] == 0.1
    assert records[0]["architecture"] == "alexnet"


def test_a_notebook_gets_a_table_and_plain_records_for_the_findings_page():
    shown = Verdicts((made(0.1, 0.2),))._repr_mimebundle_()
    assert "<table" in shown["text/html"]
    (record,) = shown[CLAIMS]
    assert {"id", "statement", "source", "study", "architecture", "value", "low", "high"} <= set(
        record
    )
    assert record["verdict"] == "supported"


def test_the_finding_groups_sentences_under_their_statement_with_a_joint_verdict():
    text = Verdicts((made(0.1, 0.2), made(-0.1, 0.2, architecture="resnet50"))).finding()
    assert text.count("R is more.") == 1
    assert "Verdict: **undetermined**" in text
    assert "AlexNet: R minus S is 0.15 [0.10, 0.20], n = 120" in text
    assert text._repr_markdown_() == str(text)
