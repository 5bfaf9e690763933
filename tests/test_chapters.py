"""Every chapter there is: its form, and that it runs at smoke scale on the embedded study."""

import ast

import nbformat
import pytest

from robustbias.book import edition, execute, render
from robustbias.claims import UNTESTABLE, VERDICTS
from robustbias.findings import measure as findings_measure
from robustbias.utils import CLAIMS, PROVENANCE

CODE_LINES = 80
OF_STUDIES = edition.chapters()
CHAPTERS = [*OF_STUDIES, *edition.chapters(closing=True)]

each_chapter = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)


def notebook(chapter):
    return nbformat.read(chapter, as_version=4)


def cells(chapter, kind):
    return [cell for cell in notebook(chapter).cells if cell.cell_type == kind]


@each_chapter
def test_a_chapter_carries_no_outputs(chapter):
    for cell in cells(chapter, "code"):
        assert cell.outputs == []
        assert cell.execution_count is None
    assert "widgets" not in notebook(chapter).metadata


@each_chapter
def test_a_chapter_is_thin(chapter):
    lines = [line for cell in cells(chapter, "code") for line in cell.source.splitlines()]
    assert len([line for line in lines if line.strip()]) <= CODE_LINES


@each_chapter
def test_a_chapter_defines_nothing(chapter):
    for cell in cells(chapter, "code"):
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
        found = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, kinds)]
        assert not found, "move it to lib/robustbias"


@each_chapter
def test_a_chapter_has_one_cell_of_literal_parameters(chapter):
    tagged = [c for c in cells(chapter, "code") if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1
    defaults = execute.defaults(chapter)
    if chapter in OF_STUDIES:
        assert {"study", "seed", "device"} <= set(defaults)
        assert defaults["study"] == "iconworld"


@each_chapter
def test_a_chapter_starts_with_a_label_and_a_title(chapter):
    first = notebook(chapter).cells[0]
    assert first.cell_type == "markdown"
    label, title = first.source.splitlines()[:2]
    assert label.startswith("(ch-")
    assert title.startswith("# ")


@each_chapter
def test_a_chapters_figures_are_numbered_and_described(chapter):
    for cell in cells(chapter, "code"):
        if figure := cell.metadata.get("mystnb", {}).get("figure"):
            assert figure["name"] in render.labels([notebook(chapter)])
            assert len(cell.metadata.mystnb.image.alt) > 20
            assert figure["caption"].endswith(".")


@pytest.mark.parametrize("name", ["02_shape_bias", "03_ood_generalization"])
@pytest.mark.parametrize(
    ("kind", "absent"),
    [
        ("drawn", ("painter", "collage", "stylized conflict", "Silhouettes and edge drawings are")),
        ("photographs", ("icon", "drawn stimulus", "object's colours", "fig-contrast")),
    ],
)
def test_a_chapter_does_not_speak_of_images_that_a_kind_of_study_lacks(name, kind, absent):
    texts = [
        cell.source
        for cell in cells(edition.chapter(name), "markdown")
        if cell.metadata.get("robustbias", {}).get("only", kind) == kind
    ]
    assert len(texts) > 10
    assert not [word for word in absent for text in texts if word in text]


@pytest.mark.parametrize("name", ["01", "02", "03", "04", "05", "06", "07"])
def test_a_chapter_that_tests_a_claim_opens_with_the_answer_and_its_figure(name):
    (chapter,) = (path for path in OF_STUDIES if path.stem.startswith(name))
    opening = notebook(chapter).cells[:6]
    assert "**Question.**" in opening[0].source
    tags = [cell.metadata.get("tags", []) for cell in opening]
    assert tags[1] == ["parameters"]
    assert tags[3] == ["answer"]
    assert opening[3].source == "claims.answer(verdicts)"
    assert "figure" in opening[4].metadata["mystnb"]
    assert opening[5].source.startswith("**Tested claim")
    text = "".join(cell.source for cell in notebook(chapter).cells)
    assert text.index("## Every measurement") < text.index("**What would change the verdict.**")


def test_no_label_is_defined_twice():
    found = [label for path in CHAPTERS for label in sorted(render.labels([notebook(path)]))]
    assert len(found) == len(set(found))


@each_chapter
def test_a_chapter_runs_at_smoke_scale(chapter, tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTBIAS_TABLES", str(tmp_path / "tables"))
    smoke = notebook(chapter).metadata.get("robustbias", {}).get("smoke", {})
    if chapter not in OF_STUDIES:
        smoke |= {"executed": []}  # of the published edition
        if findings_measure.read(edition.contents([])).empty:
            pytest.skip("the published edition has verdicts of an earlier form: publish it again")
    out = execute.execute(chapter, "iconworld", smoke, tmp_path / chapter.name)
    (record,) = findings_measure.records(out, PROVENANCE)
    assert record["commit"]
    for claim in findings_measure.records(out, CLAIMS):
        assert claim["untestable"] or claim["low"] <= claim["value"] <= claim["high"]
        assert claim["verdict"] in (*VERDICTS, UNTESTABLE)
        assert claim["study"] == "iconworld"
