"""A verdict follows from the pooled interval, the smallest effect of interest and Holm's rule."""

import dataclasses
import math

import pandas as pd
import pytest
import scipy.stats

from robustbias import claims
from robustbias.claims import Claim, Verdicts
from robustbias.stats import Interval
from robustbias.utils import CLAIMS, UserError


def made(low, high, *, id="C9.part", architecture="", **fields) -> Claim:
    interval = Interval((low + high) / 2, low, high, 120)
    about = ("R is more.", "a paper", "toy", architecture, "R minus S")
    return Claim(id, *about, interval, **{"smallest": 0.05, **fields})


@pytest.mark.parametrize(
    ("low", "high", "fields", "verdict"),
    [
        (0.1, 0.3, {}, "supported"),
        (0.01, 0.3, {}, "supported"),
        (-0.3, -0.1, {}, "contradicted"),
        (-0.1, 0.1, {}, "undetermined"),
        (0.0, 0.1, {}, "undetermined"),
        (0.001, 0.04, {}, "no relevant effect"),  # above 0, and too small to matter
        (-0.04, 0.04, {}, "no relevant effect"),
        (-0.04, 0.05, {}, "undetermined"),
        (math.nan, math.nan, {}, "undetermined"),
        (-0.3, -0.1, {"above": False}, "supported"),
        (0.1, 0.3, {"above": False}, "contradicted"),
        (0.42, 0.44, {"null": 0.5}, "contradicted"),
        (0.46, 0.54, {"null": 0.5}, "no relevant effect"),
        (0.5, 0.9, {"null": 1.0, "ratio": True, "smallest": 1.05, "above": False}, "supported"),
        (0.96, 1.04, {"null": 1.0, "ratio": True, "smallest": 1.05}, "no relevant effect"),
        (0.95, 1.04, {"null": 1.0, "ratio": True, "smallest": 1.05}, "undetermined"),  # < 1 / 1.05
        (-4.0, 9.0, {"smallest": 5.0, "superiority": False}, "supported"),
        (-9.0, -6.0, {"smallest": 5.0, "superiority": False}, "contradicted"),
        (-9.0, 3.0, {"smallest": 5.0, "superiority": False}, "undetermined"),
        (-9.0, -4.0, {"smallest": 5.0, "superiority": False}, "undetermined"),
    ],
)
def test_the_verdict_is_read_off_the_interval_and_the_smallest_effect(low, high, fields, verdict):
    claim = made(low, high, **fields)
    assert claim.verdict == claim.uncorrected == verdict
    assert f"**{verdict}**" in claim.sentence
    assert ("are excluded" in claim.sentence) == (verdict in ("undetermined", "no relevant effect"))
    decided = verdict != "undetermined"
    assert (claim.p < 0.05) == decided


def test_p_is_that_of_the_normal_or_t_test_whose_interval_it_is():
    normal = scipy.stats.norm
    claim = made(0.1 - 1.96 * 0.04, 0.1 + 1.96 * 0.04)
    assert claim.p == pytest.approx(2 * normal.sf(0.1 / 0.04), rel=1e-3)
    quantile = scipy.stats.t.ppf(0.975, 2)
    claim = made(0.1 - quantile * 0.04, 0.1 + quantile * 0.04, freedom=2.0)
    assert claim.p == pytest.approx(2 * scipy.stats.t.sf(0.1 / 0.04, 2))
    # two one-sided tests: the larger of both against an effect of the smallest size
    claim = made(0.01 - 1.96 * 0.015, 0.01 + 1.96 * 0.015)
    assert claim.p == pytest.approx(2 * normal.sf((0.05 - 0.01) / 0.015), rel=1e-3)
    skewed = Claim(*("", "", "", "toy", "", ""), Interval(0.1, 0.05, 0.9, 9), 0.01)
    assert skewed.p == pytest.approx(2 * normal.sf(1.96 * 2), rel=1e-3)  # the side of the null


@pytest.mark.parametrize("p", [[0.01, 0.04, 0.03, 0.005], [0.2, 0.2, 0.9], [0.001], [], [0.9, 0.6]])
def test_holm_agrees_with_the_definition(p):
    """Reject in the order of p while p <= .05 / tests left: the adjusted p says where it ends."""
    adjusted = claims.holm(p)
    order = sorted(range(len(p)), key=lambda i: p[i])
    for alpha in (0.01, 0.02, 0.05, 0.1, 0.5):
        rejected, left = set(), len(p)
        for i in order:
            if p[i] > alpha / left:
                break
            rejected.add(i)
            left -= 1
        assert {i for i in range(len(p)) if adjusted[i] <= alpha} == rejected


def test_holm_by_hand():
    adjusted = claims.holm([0.01, 0.04, 0.03, 0.005])
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])  # 3 x .01, 2 x .03 twice, 4 x .005


def test_the_correction_is_for_the_testable_primary_verdicts_of_a_study():
    weak = made(0.001, 0.2)  # p just below .05
    others = [
        made(-0.2, 0.3, id="C9.other"),
        made(0.1, 0.2, architecture="alexnet", primary=False),
        made(0.1, 0.2, id="C9.never", untestable="no colours"),
    ]
    first, *_, never = claims.corrected([weak, *others])
    assert (first.uncorrected, first.verdict) == ("supported", "undetermined")
    assert first.adjusted == pytest.approx(2 * weak.p)  # two tests in all
    assert "it would be supported" in first.sentence
    assert never.adjusted is None
    assert never.verdict == "not testable here"
    elsewhere = dataclasses.replace(others[0], study="another")
    alone, _ = claims.corrected([weak, elsewhere])
    assert alone.verdict == "supported"


def accuracy_rows(**columns) -> pd.DataFrame:
    shared = {
        "study": "toy", "architecture": "alexnet", "network": "r - s", "eps": 0.5, "n": 200,
        "regime": "robust - standard", "metric": "top1_difference", **columns,
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
    judged = {claim.id: claim for claim in claims.tested(accuracy_rows(), "C0")}
    assert set(judged) == {"C0.cost", "C0.gain"}
    assert judged["C0.cost"].verdict == "supported"
    assert judged["C0.gain"].interval == Interval(0.4, 0.3, 0.5, 200)


def test_the_pooled_row_has_the_verdict_and_pairs_and_replicates_have_none():
    table = pd.concat([
        accuracy_rows(replicate=0, mean_over=""),
        accuracy_rows(replicate=1, network="r-1 - s-1", mean_over=""),
        accuracy_rows(mean_over="replicates"),
        accuracy_rows(architecture=None, network=None, mean_over="architectures").assign(low=-0.26),
    ])  # fmt: skip
    verdicts = claims.tested(table, "C0")
    cost = [claim for claim in verdicts if claim.id == "C0.cost"]
    assert [claim.primary for claim in cost] == [True, False, False, False]
    keys = ["c0_cost", "c0_cost_alexnet_0", "c0_cost_alexnet_1", "c0_cost_alexnet"]
    assert [claim.key for claim in cost] == keys
    assert cost[0].interval.low == -0.26
    text = verdicts.finding()
    assert "clean accuracy.** Verdict: **supported**: clean top-1, R minus S is -0.20" in text
    assert "- Not judged: AlexNet -0.20 [-0.25, -0.15]." in text


def test_several_architectures_without_a_pooled_effect_have_no_verdict():
    table = pd.concat([accuracy_rows(), accuracy_rows(architecture="resnet50", network="x - y")])
    first = claims.tested(table, "C0").claims[0]
    assert (first.verdict, first.architecture) == ("not testable here", "")
    assert "no effect is pooled over the architectures" in first.sentence


def shape_rows(displays=("64 px",), decides="", study="toy") -> pd.DataFrame:
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
                    "study": study, "architecture": "alexnet", "network": regime, "regime": regime,
                    "pair": True, "eps": 0.5, "display": display,
                    "decides": decides in ("", display), "condition": condition, "metric": metric,
                    "aggregation": aggregation, "scope": "network", "value": value,
                    "low": value - 0.1, "high": value + 0.1, "n": 99,
                })  # fmt: skip
    return pd.DataFrame(rows)


def test_c1_has_three_parts_and_all_hold_when_r_follows_shape_and_s_texture():
    judged = claims.tested(shape_rows(), "C1").claims
    assert [claim.id for claim in judged] == ["C1.difference", "C1.robust", "C1.standard"]
    assert {claim.verdict for claim in judged} == {"supported"}
    assert judged[0].key == "c1_difference_alexnet"


def test_levels_of_shape_bias_are_not_testable_where_the_display_sets_them():
    judged = {claim.id: claim for claim in claims.tested(shape_rows(study="tiny-imagenet"), "C1")}
    assert judged["C1.difference"].verdict == "supported"
    for id in ("C1.robust", "C1.standard"):
        assert judged[id].verdict == "not testable here"
        assert judged[id].sentence.startswith("**not testable here** (how conflicts are made")


def test_displays_that_a_study_does_not_rest_on_are_secondary_and_named():
    table = shape_rows(("64 px", "painted"), decides="painted")
    away = (table["display"] == "64 px") & (table["metric"] == "shape_bias_difference")
    table.loc[away, ["value", "low", "high"]] = [-0.4, -0.5, -0.3]
    verdicts = claims.tested(table, "C1")
    assert [claim.primary for claim in verdicts] == [True, False] * 3
    assert verdicts.claims[1].condition == "64 px"
    assert verdicts.claims[1].key == "c1_difference_alexnet_64px"
    text = str(verdicts.finding())
    assert "more often than S networks.** Verdict: **supported**" in text
    assert "- Not judged: AlexNet, 64 px -0.40 [-0.50, -0.30]." in text


def test_a_finding_counts_secondary_displays_when_there_are_many_and_the_table_has_them():
    sizes = tuple(f"{size} px" for size in range(1, 7))
    verdicts = claims.tested(shape_rows(sizes, decides="3 px"), "C1")
    text = str(verdicts.finding())
    assert "- Not judged: 5 other conditions, in the table of every statement." in text
    assert " px " not in text.replace("(3 px,", "")
    table = verdicts._repr_mimebundle_()["text/html"]
    assert all(size in table for size in sizes)


def test_a_verdict_rests_on_the_reading_of_the_figures_and_names_it():
    shared = {
        "study": "toy", "architecture": "alexnet", "network": "r - s", "condition": "stylized",
        "regime": "robust - standard", "n": 400,
    }  # fmt: skip
    top1 = shared | {"metric": "top1_difference", "value": 0.1, "low": 0.05, "high": 0.15}
    entry = shared | {"metric": "entry_level_difference", "value": 0, "low": -0.02, "high": 0.02}
    both = claims.tested(pd.DataFrame([top1, entry]), "C2").claims
    assert [(c.statistic[:11], c.primary) for c in both] == [
        ("entry-level", True),
        ("top-1 on st", False),
    ]
    assert both[0].verdict == "no relevant effect"
    (only,) = claims.tested(pd.DataFrame([top1]), "C2")
    assert (only.verdict, only.statistic) == ("supported", "top-1 on stylized images, R minus S")


def unit_rows(n_robust: int, study: str = "toy") -> pd.DataFrame:
    shared = {
        "study": study, "architecture": "alexnet", "scope": "network", "metric": "net_detectors",
        "value": 0.2, "low": 0.1, "high": 0.3,
    }  # fmt: skip
    sides = {"standard": 40, "robust": n_robust, "robust - standard": 40 + n_robust}
    return pd.DataFrame(
        shared | {"network": regime, "regime": regime, "category": category, "n": n}
        for regime, n in sides.items()
        for category in ("texture", "color", "object")
    )


def test_a_verdict_about_units_needs_twenty_of_s_and_of_r():
    assert {c.verdict for c in claims.tested(unit_rows(20), "C4")} == {"supported", "contradicted"}
    few = claims.tested(unit_rows(19), "C4")
    assert {claim.verdict for claim in few} == {"not testable here"}
    assert "19 units of S or R" in few.claims[0].sentence


def test_icons_cannot_test_detectors_of_textures_and_colours():
    judged = {c.id: c.verdict for c in claims.tested(unit_rows(90, "iconworld"), "C4")}
    assert judged == {
        "C4.texture": "not testable here", "C4.colour": "not testable here",
        "C4.object": "contradicted",
    }  # fmt: skip


def test_an_unknown_claim_lists_the_claims_and_an_empty_table_says_what_to_do():
    with pytest.raises(UserError, match="unknown claim 'C9'; the claims are C0, C1"):
        claims.tested(shape_rows(), "C9")
    with pytest.raises(UserError, match="measure an S and an R network"):
        claims.tested(shape_rows().iloc[:0], "C1")


def test_every_statement_is_of_a_claim_with_a_title_and_has_a_smallest_effect():
    assert {part.id.partition(".")[0] for part in claims.STATEMENTS} == set(claims.TITLES)
    assert len(claims.SHORT) == len(set(claims.SHORT.values())) == len(claims.STATEMENTS)
    fixed = {part.id: part.smallest for part in claims.STATEMENTS}
    assert fixed == {  # fixed before results were read: a change of one needs a reason
        "C0.cost": 0.03, "C0.gain": 0.03, "C1.difference": 0.05, "C1.robust": 0.05,
        "C1.standard": 0.05, "C2.stylized": 0.03, "C2.silhouettes": 0.03, "C2.black": 0.03,
        "C2.saturated": 0.03, "C2.scrambled": 0.03, "C2c": 5.0, "C3.first": 1.05,
        "C3.filters": 1.05, "C3.maps": 1.05, "C3.noise": 1.05,
        "C3v.smooth": 1.05, "C3v.spectrum": 1.05, "C3v.likeness": 0.05, "C4.texture": 0.03,
        "C4.colour": 0.03, "C4.object": 0.03, "C5.concepts": 0.05, "C5.classes": 0.5,
        "C5.distance": 0.05, "C6.serve": 0.05, "C6.generalists": 0.05,
    }  # fmt: skip


def test_a_notebook_gets_a_table_and_plain_records_that_give_the_claims_again():
    both = (made(0.1, 0.2), made(math.nan, math.nan, id="C9.no", untestable="no colours"))
    shown = Verdicts(both)._repr_mimebundle_()
    assert "<table" in shown["text/html"]
    first, second = shown[CLAIMS]
    assert (first["low"], first["verdict"], second["low"]) == (0.1, "supported", None)
    assert Claim.of(first) == both[0]
    assert Claim.of(second).sentence == both[1].sentence


def test_what_is_excluded_has_the_decimals_of_the_interval():
    claim = made(-0.004, 0.003)
    assert claim.sentence.startswith("**no relevant effect**: R minus S is -0.001 [-0.004, 0.003]")
    assert claim.sentence.endswith("Effects beyond [-0.004, 0.003] are excluded.")


def test_an_answer_has_a_sentence_per_statement_in_the_order_asked_for():
    judged = [
        made(0.1, 0.2, id="C9.a"), made(-0.2, 0.2, id="C9.b"),
        made(0.3, 0.4, id="C9.a", primary=False, architecture="alexnet"),
    ]  # fmt: skip
    text = claims.answer(judged, "C9.b", "C9.a").splitlines()
    assert text[0].startswith("- R is more. **Undetermined**: R minus S is 0.00 [-0.20, 0.20]")
    assert text[0].endswith("Effects beyond [-0.20, 0.20] are excluded.")
    assert text[1].startswith(
        "- R is more. **Supported**: R minus S is 0.15 [0.10, 0.20] (smallest"
    )
    assert claims.answer(judged).count("- ") == 2
    with pytest.raises(UserError, match="no statement 'C1.x' here; there are: C9.a, C9.b"):
        claims.answer(judged, "C1.x")


def test_headline_numbers_are_of_each_training_and_their_means():
    about = {"study": "toy", "regime": "robust", "eps": 1.0, "low": 0.0, "high": 1.0, "n": 9}
    rows = [
        {"architecture": "alexnet", "replicate": 1, "mean_over": None, "value": 0.1},
        {"architecture": "alexnet", "replicate": 2, "mean_over": None, "value": 0.3},
        {"architecture": "alexnet", "replicate": None, "mean_over": "replicates", "value": 0.2},
        {"architecture": "resnet50", "replicate": 1, "mean_over": None, "value": 0.6},
        {"architecture": None, "replicate": None, "mean_over": "architectures", "value": 0.4},
    ]
    untrained = [about | {"architecture": "alexnet", "value": 0.5}]  # of one network, once
    tables = {"top-1": pd.DataFrame([about | row for row in rows]),
              "untrained": pd.DataFrame(untrained)}  # fmt: skip
    numbers = claims.Headlines.of(tables)
    kept = [(row["number"], row["architecture"], row["value"]) for row in numbers]
    assert kept == [("top-1", "alexnet", 0.1), ("top-1", "alexnet", 0.3), ("top-1", "alexnet", 0.2),
                    ("top-1", "resnet50", 0.6), ("untrained", "alexnet", 0.5)]  # fmt: skip
    (bundle,) = [v for k, v in numbers._repr_mimebundle_().items() if k.endswith("+json")]
    assert bundle[2]["replicate"] is None
    means = claims.headline_means(pd.DataFrame(bundle))
    assert means["value"].tolist() == [0.2, 0.6, 0.5]


def test_a_claim_that_nothing_measures_has_no_verdict():
    rows = shape_rows().assign(metric="coverage")
    judged = claims.tested(rows, "C1").claims
    assert {claim.verdict for claim in judged} == {"not testable here"}
    assert "nothing that was measured" in judged[0].sentence


def test_the_pooled_distance_is_judged_as_those_of_the_pairs():
    one = {
        "study": "toy", "architecture": "alexnet", "network": "R - S", "pair": True, "n": 40,
        "regime": "robust - standard", "scope": "network", "metric": "distance", "judge": "S",
        "mean_over": None, "replicate": 1, "value": -0.1, "low": -0.2, "high": 0.0,
    }  # fmt: skip
    pooled = one | {"architecture": None, "network": None, "judge": None, "replicate": None}
    other = one | {"architecture": "resnet50"}
    table = pd.DataFrame([one, other, pooled | {"mean_over": "architectures"}])
    table = pd.concat([table, table.assign(regime="standard"), table.assign(regime="robust")])
    (primary, *_) = [c for c in claims.tested(table, "C5").claims if c.id == "C5.distance"]
    assert primary.architecture == ""
    assert primary.condition == "judged by S"
