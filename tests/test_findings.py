"""All verdicts in one place: read from notebooks, joined, and put into words."""

import json

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from robustbias import manifest
from robustbias.book import pages
from robustbias.findings import measure as findings_measure
from robustbias.findings import report as findings_report
from robustbias.shape_bias import published
from robustbias.utils import CLAIMS, UserError


def claim(
    id, verdict, *, study="iconworld", architecture="alexnet", condition="", value=0.3, beside=False
):
    return {
        "id": id, "statement": f"Statement of {id}.", "statistic": "R minus S", "study": study,
        "architecture": architecture, "condition": condition, "value": value, "threshold": 0.0,
        "beside": beside,
        "low": value - 0.2, "high": value + 0.2, "n": 50, "verdict": verdict,
        "measured": f"{value:.2f} [{value - 0.2:.2f}, {value + 0.2:.2f}]",
    }  # fmt: skip


CLAIMED = [
    claim("C10.late", "supported"),
    claim("C2.part", "supported", condition="64 px"),
    claim("C2.part", "undetermined", condition="96 px", value=0.1),
    claim("C2.part", "contradicted", architecture="googlenet", value=-0.5),
    claim("C2.other", "supported"),
]


@pytest.fixture
def contents(tmp_path):
    """Two studies with one executed chapter each."""
    made = {}
    for study, claims in {"iconworld": CLAIMED, "tiny-imagenet": CLAIMED[-1:]}.items():
        claims = [{**row, "study": study} for row in claims]
        output = new_output("display_data", data={CLAIMS: claims})
        path = tmp_path / study / "02_x.ipynb"
        path.parent.mkdir()
        nbformat.write(new_notebook(cells=[new_code_cell(outputs=[output])]), path)
        made[study] = [path]
    return made


@pytest.fixture
def table(contents) -> pd.DataFrame:
    return findings_measure.read(contents)


def test_claims_come_in_the_order_of_their_numbers_with_the_notebook_they_are_from(table):
    assert [id.split(".")[0] for id in table["id"]] == ["C2"] * 5 + ["C10"]
    assert set(table["notebook"]) == {"iconworld/02_x.ipynb", "tiny-imagenet/02_x.ipynb"}
    assert set(table["title"]) == {"Icon world", "Tiny-ImageNet"}


def test_what_is_shown_beside_does_not_count(table):
    beside = table.iloc[:1].assign(id="C2.part", verdict="contradicted", beside=True)
    with_it = pd.concat([table, beside])
    pd.testing.assert_frame_equal(
        findings_measure.verdicts(with_it), findings_measure.verdicts(table)
    )
    assert len(findings_report.undetermined(with_it)) == len(findings_report.undetermined(table))


def test_a_study_page_says_what_each_training_took_and_how_to_repeat_it():
    text = pages.study_page(manifest.study("iconworld"))
    assert "robustbias train iconworld --network NAME" in text
    (line,) = [row for row in text.splitlines() if row.startswith("| iconworld-googlenet-r | 36 ")]
    record = json.loads((manifest.ROOT / "checkpoints/iconworld-googlenet-r.json").read_text())
    assert f"| {record['seconds'] / 60:.0f} |" in line
    assert f"| {record['rows'][-1]['adversarial']:.2f} |" in line


def test_conditions_of_one_statement_are_joined_and_counted(table):
    cells = findings_measure.verdicts(table).set_index(["id", "study", "architecture"])
    joined = cells.loc[("C2.part", "iconworld", "alexnet")]
    assert joined["verdict"] == "undetermined"
    assert joined["text"] == "1 supported, 1 undetermined"
    alone = cells.loc[("C2.part", "iconworld", "googlenet")]
    assert (alone["verdict"], alone["text"]) == ("contradicted", "-0.50 [-0.70, -0.30]")


def test_the_overview_counts_verdicts_by_claim_and_study(contents):
    lines = pages.overview(contents).splitlines()
    assert lines[0] == "| claim | Icon world | Tiny-ImageNet |"
    assert lines[2].endswith("| 1 supported, 1 undetermined, 1 contradicted | 1 supported |")
    assert lines[3] == "| C10: C10 | 1 supported | – |"


def test_without_any_claim_the_reader_is_told_what_to_run(monkeypatch):
    monkeypatch.setattr(findings_measure.edition, "contents", lambda executed: {})
    with pytest.raises(UserError, match="no chapter has tested a claim yet; run `make book`"):
        findings_measure.registered([])


def test_the_words_name_where_a_statement_held_and_where_it_did_not(table):
    cells = findings_measure.verdicts(table)
    text = findings_report.replication(cells)
    assert "**Statement of C2.part.** (C2) 0 of 2 supported." in text
    assert "*Contradicted*: Icon world (GoogLeNet)." in text
    assert "*Supported*: Icon world (AlexNet); Tiny-ImageNet (AlexNet)." in text
    assert "Icon world: of 4 verdicts 2 supported, 1 contradicted, 1 undetermined." in (
        findings_report.summary(cells)
    )


def test_an_open_verdict_says_how_much_more_data_would_decide_it(table):
    (row,) = findings_report.undetermined(table).to_dict("records")
    assert row["statistic"] == "R minus S, 96 px"
    assert row["more data"] == "× 4.0"  # half width 0.2 at a distance of 0.1: twice too wide


def test_published_effects_are_the_differences_of_their_own_source():
    effects = published.effects().set_index("id")["value"]
    assert effects["C0.cost"] == pytest.approx(0.579 - 0.7613)
    assert effects["C0.gain"] == pytest.approx(0.3509 - 0.0013)
    assert effects["C1.difference"] == pytest.approx(0.64752 - 0.214646)


def test_the_matrix_has_a_cell_for_every_verdict(table):
    cells = findings_measure.verdicts(table)
    ax = findings_report.verdict_matrix(cells).axes[0]
    assert len(ax.patches) == len(cells)
    assert len(ax.get_yticks()) == cells["id"].nunique()
