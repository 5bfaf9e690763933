"""All verdicts in one place: read from notebooks, joined, and put into words."""

import json

import nbformat
import pandas as pd
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook, new_output

from robustbias import manifest
from robustbias.book import pages
from robustbias.claims import FIELDS, SHORT, Claim
from robustbias.findings import figures as findings_figures
from robustbias.findings import measure as findings_measure
from robustbias.findings import report as findings_report
from robustbias.front_page import figures as front_page_figures
from robustbias.front_page import report as front_page_report
from robustbias.front_page.measure import Conflicts
from robustbias.shape_bias import published
from robustbias.stats import Interval
from robustbias.utils import CLAIMS, HEADLINES, UserError


def claim(id, value, *, half=0.2, **fields):
    """A record as notebooks carry it; the smallest effect is 0.1."""
    about = {
        "id": id, "statement": f"Statement of {id}.", "source": "a paper", "study": "iconworld",
        "architecture": "", "statistic": "R minus S", "smallest": 0.1,
    }  # fmt: skip
    interval = Interval(value, value - half, value + half, 50)
    return Claim(interval=interval, **about | fields).record()


CLAIMED = [
    claim("C9.late", 0.5),
    claim("C1.difference", 0.5),
    claim("C1.difference", 0.4, architecture="alexnet", primary=False),
    claim("C2.stylized", -0.5, above=True),
    claim("C0.cost", 0.01, half=0.05),
    claim("C0.gain", 0.205, half=0.2),  # p = .045: too large for six tests
    claim("C2.black", 0.1),
    claim("C4.colour", 0.1, untestable="no colours"),
]


@pytest.fixture
def contents(tmp_path):
    """Two studies with one executed chapter each."""
    made = {}
    for study, claims in {"iconworld": CLAIMED, "tiny-imagenet": CLAIMED[:2]}.items():
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


def test_claims_come_in_the_order_of_the_statements_with_the_notebook_they_are_from(table):
    order = ["C0.cost", "C0.gain", "C1.difference", "C2.stylized", "C2.black", "C4.colour"]
    assert list(table["id"].unique()) == [*order, "C9.late"]
    assert set(table["notebook"]) == {"iconworld/02_x.ipynb", "tiny-imagenet/02_x.ipynb"}
    assert set(table["title"]) == {"Icon world", "Tiny-ImageNet"}


def test_claims_of_earlier_editions_are_passed_over(tmp_path):
    old = {k: v for k, v in CLAIMED[0].items() if k != "smallest"} | {"beside": False}
    output = new_output("display_data", data={CLAIMS: [old]})
    nbformat.write(new_notebook(cells=[new_code_cell(outputs=[output])]), tmp_path / "01_x.ipynb")
    assert findings_measure.read({"iconworld": [tmp_path / "01_x.ipynb"]}).empty


def lines_of(text, start):
    return [line for line in text.splitlines() if line.startswith(start)]


def test_a_study_page_says_what_each_training_took_and_how_to_repeat_it():
    text = pages.study_page(manifest.study("iconworld"))
    assert "robustbias train iconworld --network NAME" in text
    names = [n for n in manifest.networks("iconworld") if manifest.network(n).trained_here]
    recorded = [manifest.ROOT / manifest.network(name).weights for name in names]
    recorded = [
        path.with_suffix(".json") for path in recorded if path.with_suffix(".json").exists()
    ]
    ledger = text.partition("## Trainings")[2].partition(":::")[0]
    assert len(lines_of(ledger, "| ")) == 2 + len(recorded)
    record = json.loads(recorded[-1].read_text())
    entry = manifest.network(record["network"])
    start = f"| {entry.title.partition(', replicate')[0]} | {entry.replicate} | "
    (line,) = lines_of(ledger, start)
    assert line.startswith(f"{start}{len(record['rows'])} | {record['seconds'] / 60:.0f} | ")
    assert f"| {'yes' if record['plateau'] else 'no'} | " in line
    assert f"| {record['rows'][-1]['adversarial']:.2f} |" in line


def test_the_page_of_a_drawn_study_has_a_picture_of_each_category():
    entry = manifest.study("iconworld")
    assert "(categories.svg)" in pages.study_page(entry)
    assert pages.drawn_categories(entry).count("<image ") == len(entry.categories)
    assert "(categories.svg)" not in pages.study_page(manifest.study("tiny-imagenet"))


def headline(number, regime, value, **fields):
    """A record of chapter 1 or 2 of one training."""
    about = {"study": "iconworld", "architecture": "alexnet", "regime": regime, "n": 200}
    ends = {"low": value - 0.05, "high": value + 0.05}
    return about | {"number": number, "value": value} | ends | fields


def test_a_study_page_has_the_means_of_pairs_over_trainings(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "_stored", lambda _: pd.DataFrame())
    sides = {"standard": 0.1, "robust": 0.5, "robust - standard": 0.4}
    names = {"standard": "iconworld-alexnet-s", "robust": "iconworld-alexnet-r"}
    names["robust - standard"] = "R - S"
    rows = [
        headline("top-1 under attack, eps 1", regime, value + extra, **which)
        for regime, value in sides.items()
        for extra, which in (
            (-0.02, {"replicate": 1, "network": f"{names[regime]}-1"}),
            (0.02, {"replicate": 2, "network": f"{names[regime]}-2"}),
            (0.0, {"mean_over": "replicates"}),
        )
    ]
    rows.append(headline("shape bias", "robust", 0.8, replicate=1))
    rows.append(headline("shape bias, shuffled", "robust", 0.33, replicate=1))
    output = new_output("display_data", data={HEADLINES: rows})
    nbformat.write(new_notebook(cells=[new_code_cell(outputs=[output])]), tmp_path / "01_x.ipynb")
    text = pages.study_page(manifest.study("iconworld"), [tmp_path / "01_x.ipynb"])
    empty = "–"
    interval = '<span class="interval">[{}, {}]</span>'
    cell = "0.40 " + interval.format("0.35", "0.45")
    assert lines_of(text, "| AlexNet | R minus S |") == [
        f"| AlexNet | R minus S | {empty} | {cell} | {' | '.join([empty] * 4)} |"
    ]
    (line,) = lines_of(text, "| AlexNet | R | – |")
    assert "0.80 " + interval.format("0.75", "0.85") in line
    assert "0.33" not in line
    assert "trainings of S and of R: AlexNet 2" in text
    (line,) = lines_of(text.partition("## Trainings")[2], "| AlexNet, robust | 2 |")
    assert line.endswith("| 0.52 |")
    assert "attack of chapter 1 (200 images)" in text


def test_intervals_of_one_training_say_what_they_do_not_cover():
    row = headline("top-1, clean", "robust", 0.9, replicate=1)
    attacked = headline("top-1 under attack, eps 1", "robust", 0.4, replicate=1)
    words, _ = pages.pairs_section(pd.DataFrame([row, attacked], columns=FIELDS))
    assert "not other trainings: there is one of each network" in words


ATTACKED = {"images": 200, "book": 100, "square": 1, "zero_gradients": 0}


def test_independent_attacks_on_the_shipped_weights_have_a_column(monkeypatch):
    name = next(n for n in manifest.networks("iconworld") if manifest.network(n).sha256)
    shipped = ATTACKED | {"network": name, "weights": manifest.network(name).sha256[:12]}
    rows = [shipped | {"union": 97, "difference": 0.015},
            shipped | {"weights": "0" * 12, "union": 10, "difference": 0.45}]  # fmt: skip
    monkeypatch.setattr(pages, "_stored", lambda _: pd.DataFrame(rows))
    text = pages.study_page(manifest.study("iconworld"))
    assert "leaves at most 1.5 percentage points more correct, on 1 networks." in text
    assert "Images that only the attack without gradients fools: 1" in text
    ledger = text.partition("## Trainings")[2].partition(":::")[0]
    assert len([line for line in lines_of(ledger, "| ") if line.endswith("| 0.48 |")]) == 1
    assert "independent attacks |" in ledger


def test_without_stored_results_pages_say_nothing_of_them(monkeypatch, tmp_path):
    monkeypatch.setattr(pages, "_stored", lambda _: pd.DataFrame())
    assert pages.recipes() == ""
    assert "ndependent attacks" not in pages.study_page(manifest.study("iconworld"))


def test_recipes_are_compared_in_a_table(monkeypatch):
    name = manifest.networks("iconworld")[0]
    row = {
        "recipe": "full radius", "network": name, "epochs": 20, "warm": 0.0, "ramp": 0.2,
        "average": 0.0, "seconds": 600.0, "images": 400, "clean": 0.9, "robust": 0.5,
        "plateau": True, "commit": "abc", "device": "abacus", "threads": 1, "command": "python x",
    }  # fmt: skip
    rows = [row | {"recipe": "averaged", "robust": 0.6, "average": 0.9, "plateau": False}, row]
    monkeypatch.setattr(pages, "_stored", lambda _: pd.DataFrame(rows))
    text = pages.recipes()
    assert "| full radius | 20 | 0, 0.2 | 0 | 10 | 0.90 | 0.50 | yes |" in text
    assert "| averaged | 20 | 0, 0.2 | 0.9 | 10 | 0.90 | 0.60 | no |" in text
    assert text.index("full radius") < text.index("averaged")  # the file is sorted by name
    assert "`python x`, abacus, threads: 1, commit `abc`" in text


def test_the_page_of_verdicts_counts_them_by_chapter_and_lists_every_statement(contents):
    counts, _, listed = pages.verdicts_page(contents).partition("## Statement by statement")
    first, _, counts = counts.partition("\n\n")
    assert first.startswith("Icon world: 6 primary verdicts (2 supported, ")
    assert "that Holm's correction makes undetermined: 1 (accuracy under attack)" in first
    lines = counts.splitlines()
    assert lines[0] == "| chapter | claim | Icon world | Tiny-ImageNet |"
    assert lines[2].startswith("| 2 | R pays with clean accuracy")
    assert lines[2].endswith("| 1 no relevant effect, 1 undetermined | – |")
    assert lines[4].endswith("| 1 contradicted, 1 undetermined | – |")
    assert lines[5].endswith("| 1 not testable here | – |")
    (line,) = [line for line in listed.splitlines() if "C1.difference" in line]
    cell = '0.50 <span class="interval">[0.30, 0.70]</span> **supported**'
    assert line == f"| 2 | Statement of C1.difference. | {cell} | {cell} |"
    assert "| **not testable here** | – |" in listed


def test_the_front_page_answers_each_question_in_a_sentence(table):
    lines = front_page_report.answer(table).splitlines()
    assert len(lines) == 2  # no statement of the second question was tested
    effect = "*Icon world*: supported (0.50 [0.30, 0.70])."
    assert lines[0].endswith(f"{effect} {effect.replace('Icon world', 'Tiny-ImageNet')}")
    assert lines[1].endswith("*Icon world*: not testable here.")
    assert "version 0." in front_page_report.edition()


def test_of_several_statements_the_decided_ones_are_named_and_the_others_counted(table):
    ids = {"C0.cost": "C4.a", "C1.difference": "C5.a", "C2.stylized": "C6.a", "C2.black": "C5.b"}
    renamed = table.assign(id=table["id"].replace(ids), short=table["id"].replace(ids))
    (line,) = front_page_report.answer(renamed[renamed["title"] == "Icon world"]).splitlines()
    assert line.endswith(
        "*Icon world*: 1 supported (C5.a); 1 contradicted (C6.a); 1 no relevant effect; "
        "1 undetermined; 1 not testable here."
    )


def test_the_key_figure_has_the_effects_of_pairs_and_of_studies(table):
    pixels = torch.rand(2, 3, 8, 8)
    decisions = {"standard": ["dog", "car"], "robust": ["cat", "truck"]}
    conflicts = Conflicts(pixels, ["cat", "bear"], ["dog", "car"], decisions)
    filters = {regime: torch.randn(6, 3, 5, 5) for regime in decisions}
    rates = [
        {"network": regime, "regime": regime, "pair": True, "metric": "top1", "attack_eps": eps,
         "steps": 0 if eps == 0 else 10, "value": 0.5, "low": 0.4, "high": 0.6}
        for regime in decisions
        for eps in (0.0, 1.0)
    ]  # fmt: skip
    figure = front_page_figures.key_figure(conflicts, filters, table, pd.DataFrame(rates))
    assert "S (standard) follows shape in 0 of 2, R (robust) follows shape in 1 of 2" in repr(
        figure
    )
    assert "shape bias, R − S: Icon world supported, Tiny-ImageNet supported." in repr(figure)
    effects = next(ax for ax in figure.axes if ax.get_xlabel() == "shape bias,\nR − S")
    values = [line.get_xdata()[0] for line in effects.lines if line.get_marker() in ("D", "o")]
    assert sorted(values) == [0.4, 0.5, 0.5]
    names = [label.get_text() for label in effects.get_yticklabels()]
    assert names == ["AlexNet, Icon world", "all, Icon world", "all, Tiny-ImageNet"]


def test_without_any_claim_the_reader_is_told_what_to_run(monkeypatch):
    monkeypatch.setattr(findings_measure.edition, "contents", lambda executed: {})
    with pytest.raises(UserError, match="no chapter has tested a claim yet; run `make book`"):
        findings_measure.registered([])


def test_the_conclusion_names_every_statement_with_each_verdict_and_where_it_has_it(table):
    lines = findings_report.conclusion(table).splitlines()
    assert lines == [
        "- **Supported on every study that can test it**: larger shape bias, C9.late.",
        "- **Contradicted**: better on stylized images (Icon world).",
        "- **No relevant effect**: lower clean accuracy (Icon world).",
        "- **Undetermined**: accuracy under attack, better on black silhouettes (Icon world).",
        "- **Not testable on any study**: more colour detectors.",
    ]


def test_the_conclusion_of_all_statements_has_at_most_200_words():
    """A bad case: the verdicts of many statements differ between the two studies."""
    verdicts = ("supported", "contradicted", "no relevant effect", "undetermined")
    titles = ("Icon world", "Tiny-ImageNet")
    rows = [
        {"id": id, "short": short, "title": title, "primary": True,
         "verdict": verdicts[(i // 4 ** t) % 4]}
        for i, (id, short) in enumerate(SHORT.items())
        for t, title in enumerate(titles)
    ]  # fmt: skip
    text = findings_report.conclusion(pd.DataFrame(rows))
    assert all(short in text for short in SHORT.values())
    assert len(text.split()) <= 200


def test_the_summary_counts_verdicts_and_those_that_the_correction_changes(table):
    assert findings_report.summary(table) == (
        "Icon world: 6 primary verdicts (2 supported, 1 contradicted, 1 no relevant effect, "
        "2 undetermined); statements not testable here: 1; verdicts that Holm's correction makes "
        "undetermined: 1 (accuracy under attack). Tiny-ImageNet: 2 primary verdicts (2 supported, "
        "0 contradicted, 0 no relevant effect, 0 undetermined); statements not testable here: 0; "
        "verdicts that Holm's correction makes undetermined: 0."
    )


def test_the_tables_say_what_was_measured_and_what_is_excluded(table):
    details = findings_report.details(table).set_index(["statement", "study"])
    row = details.loc[("Statement of C4.colour.", "Icon world")]
    assert (row["verdict"], row["p (Holm)"]) == ("not testable here: no colours", "–")
    assert len(details) == 9
    excluded = findings_report.excluded(table).set_index("statement")["excluded"]
    assert excluded["lower clean accuracy"] == "R minus S: beyond [-0.04, 0.06]"
    assert set(excluded.index) == {
        "lower clean accuracy", "accuracy under attack", "better on black silhouettes"
    }  # fmt: skip


def test_published_effects_are_the_differences_of_their_own_source():
    effects = published.effects().set_index("id")["value"]
    assert effects["C0.cost"] == pytest.approx(0.579 - 0.7613)
    assert effects["C0.gain"] == pytest.approx(0.3509 - 0.0013)
    assert effects["C1.difference"] == pytest.approx(0.64752 - 0.214646)


def test_the_forest_has_an_interval_per_verdict_and_fits_a_page(table):
    figure = findings_figures.forest(table)
    (ax,) = figure.axes
    lines = [
        line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_linewidth() == 1.5
    ]
    assert len(lines) == 8  # all but the untestable one
    bias = next(line for line in lines if tuple(line.get_xdata()) == pytest.approx((3.0, 7.0)))
    assert bias.get_ydata()[0] == pytest.approx(2, abs=0.5)  # the third statement from above
    dots = [line for line in ax.lines if line.get_marker() == "."]
    assert [line.get_xdata()[0] for line in dots] == [pytest.approx(4.0)]
    assert [text.get_text() for text in ax.texts] == ["not testable"]
    assert figure.get_figwidth() <= 6.9
    words = [*ax.texts, *ax.get_xticklabels(), *ax.get_yticklabels(), ax.xaxis.label]
    words += figure.legends[0].get_texts()
    assert min(text.get_fontsize() for text in words) >= 9
