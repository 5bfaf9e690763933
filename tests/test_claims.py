"""A verdict follows from where the interval lies, and from nothing else."""

import pandas as pd
import pytest

from robustbias import claims
from robustbias.claims import Claim, Verdicts, joint
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
    judged = {claim.id: claim for claim in claims.tested(accuracy_rows(), "C0").claims}
    assert set(judged) == {"C0.cost", "C0.gain"}
    assert judged["C0.cost"].verdict == "supported"
    assert judged["C0.gain"].interval == Interval(0.4, 0.3, 0.5, 200)


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
                    "aggregation": aggregation, "scope": "network", "value": value,
                    "low": value - 0.1, "high": value + 0.1, "n": 99,
                })  # fmt: skip
    return pd.DataFrame(rows)


def test_c1_has_three_parts_and_all_hold_when_r_follows_shape_and_s_texture():
    judged = claims.tested(shape_rows(), "C1").claims
    assert [claim.id for claim in judged] == ["C1.difference", "C1.robust", "C1.standard"]
    assert {claim.verdict for claim in judged} == {"supported"}
    assert judged[0].key == "c1_difference_alexnet"


def test_every_display_is_judged_and_named():
    judged = claims.tested(shape_rows(("64 px", "128 px")), "C1").claims
    assert len(judged) == 6
    assert {claim.condition for claim in judged} == {"64 px", "128 px"}
    assert judged[1].key == "c1_difference_alexnet_128px"


def test_displays_that_a_study_does_not_rest_on_are_secondary():
    table = shape_rows(("64 px", "painted"), decides="painted")
    away = (table["display"] == "64 px") & (table["metric"] == "shape_bias_difference")
    table.loc[away, ["value", "low", "high"]] = [-0.4, -0.5, -0.3]
    verdicts = claims.tested(table, "C1")
    assert [claim.beside for claim in verdicts.claims] == [True, False] * 3
    assert verdicts.claims[0].verdict == "contradicted"
    text = str(verdicts.finding())
    assert "more often than S networks.** Verdict: **supported**" in text
    assert text.index("Secondary") < text.index("**contradicted**")


def test_an_unknown_claim_lists_the_claims_and_an_empty_table_says_what_to_do():
    with pytest.raises(UserError, match="unknown claim 'C9'; the claims are C0, C1"):
        claims.tested(shape_rows(), "C9")
    with pytest.raises(UserError, match="measure an S and an R network"):
        claims.tested(shape_rows().iloc[:0], "C1")


def test_every_statement_is_of_a_claim_with_a_title():
    assert {part.id.partition(".")[0] for part in claims.STATEMENTS} == set(claims.TITLES)


def test_a_notebook_gets_a_table_and_plain_records_for_the_findings_page():
    shown = Verdicts((made(0.1, 0.2),))._repr_mimebundle_()
    assert "<table" in shown["text/html"]
    (record,) = shown[CLAIMS]
    assert {"id", "statement", "source", "study", "value", "high"} <= set(record)
    assert (record["low"], record["architecture"]) == (0.1, "alexnet")
    assert record["verdict"] == "supported"


def test_the_finding_groups_sentences_under_their_statement_with_a_joint_verdict():
    text = Verdicts((made(0.1, 0.2), made(-0.1, 0.2, architecture="resnet50"))).finding()
    assert text.count("R is more.") == 1
    assert "Verdict: **undetermined**" in text
    assert "AlexNet: R minus S is 0.15 [0.10, 0.20], n = 120" in text
    assert text._repr_markdown_() == str(text)
