"""A published study computed again: which numbers count, when they agree, what is reported."""

import json
import shutil
from types import SimpleNamespace

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from robustbias import tables
from robustbias.book import edition, execute, pages, verify
from robustbias.findings import measure as findings_measure
from robustbias.utils import CLAIMS, HEADLINES, PROVENANCE, TABLES, UserError
from toy_book import chapter, command, repository

CLAIM = {
    "id": "C1.x", "architecture": "alexnet", "condition": "64px", "above": True, "value": 0.36,
    "low": 0.3, "high": 0.4, "n": 960, "measured": "0.36 [0.30, 0.40]", "verdict": "supported",
}  # fmt: skip
HEADLINE = {"study": "s", "architecture": "alexnet", "regime": "robust", "number": "mCE"}
TABLE = {
    "measure": "m", "arguments": {"n": 4, "k": None}, "rows": 8, "digest": "0a",
    "columns": {"value": {"count": 8.0, "mean": 0.25}},
}  # fmt: skip
HTML = """<table><thead><tr><th></th><th>eps 0.25</th></tr></thead><tbody>
<tr><th>ResNet-50</th><td>0.97 [0.94, 0.99]</td></tr>
<tr><th>7</th><td>7150359e9612</td></tr><tr><th>8</th><td>-1.5e-3</td></tr></tbody></table>"""


def outputs(**changes):
    """What the cells of a chapter put out; `changes` replaces some of it."""
    glue = {"application/papermill.record/text/plain": changes.get("glue", "'0.36 [0.30, 0.40]'")}
    claim = {**CLAIM, **changes.get("claim", {})}
    parts = [
        {CLAIMS: [claim], "text/html": "<td>0.36</td>"},
        {HEADLINES: [{**HEADLINE, "value": 73.5, "low": 61.3, "high": 90.4, "n": 15}]},
        {"text/html": HTML},
        {"text/markdown": changes.get("prose", "All 1,600 images at 128px.\n\n3.5 % of L2 miss.")},
        {"image/png": "", "text/plain": "<Figure size 640x480 with 3 Axes>"},
        {PROVENANCE: {"seconds": "51.0"}, TABLES: changes.get("tables", [TABLE])},
    ]
    glued = new_output("display_data", data=glue, metadata={"scrapbook": {"name": "c1_x"}})
    return [glued, *(new_output("display_data", data=data) for data in parts)]


def folder(path, name="02_x", **changes):
    """A folder with one executed chapter."""
    path.mkdir(exist_ok=True)
    notebook = new_notebook(cells=[new_code_cell(outputs=outputs(**changes))])
    nbformat.write(notebook, path / f"{name}.ipynb")
    return path


def store(path, rows, *, source="old", arguments=None, measure="toy"):
    """A table store with one table of the study toy."""
    made = {"measure": measure, "arguments": arguments or {"n": 4}, "seed": 0, "source": source}
    made["study"] = {"name": "toy", "architectures": ["alexnet"]}
    names = ["unit", "answer", "value"]
    tables.write(pd.DataFrame(rows, columns=names), path / f"toy/{measure}-{source}.parquet", made)
    return path


ROWS = [(1, "cat", 0.5), (2, "dog", -0.25), (3, "cat", float("nan"))]


def test_every_number_a_reader_or_a_program_sees_counts_once_and_no_name_or_record(tmp_path):
    (path,) = folder(tmp_path).iterdir()
    assert findings_measure.results(path) == {
        ("glue", "c1_x 1"): 0.36, ("glue", "c1_x 2"): 0.3, ("glue", "c1_x 3"): 0.4,
        ("claim", "C1.x alexnet 64px value"): 0.36, ("claim", "C1.x alexnet 64px low"): 0.3,
        ("claim", "C1.x alexnet 64px high"): 0.4, ("claim", "C1.x alexnet 64px n"): 960,
        ("claim", "C1.x alexnet 64px verdict"): "supported",
        ("headline", "mCE, alexnet robust value"): 73.5,
        ("headline", "mCE, alexnet robust low"): 61.3,
        ("headline", "mCE, alexnet robust high"): 90.4,
        ("headline", "mCE, alexnet robust n"): 15,
        ("output", "1, line 1, number 1"): 0.97, ("output", "1, line 1, number 2"): 0.94,
        ("output", "1, line 1, number 3"): 0.99, ("output", "1, line 3, number 1"): -0.0015,
        ("output", "2, line 1, number 1"): 1600, ("output", "2, line 3, number 1"): 3.5,
        ("digest", "m(k=None, n=4)"): "0a", ("table", "m(k=None, n=4) rows"): 8,
        ("table", "m(k=None, n=4): value count"): 8.0,
        ("table", "m(k=None, n=4): value mean"): 0.25,
    }  # fmt: skip


def test_equal_notebooks_agree_in_every_number(tmp_path):
    rows = verify.compared(folder(tmp_path / "a"), folder(tmp_path / "b"), 0.0)
    assert (rows["numbers"].sum(), rows["differing"].sum()) == (21, 0)
    assert verify.report(rows) == [
        "02_x: 21 of 21 numbers agree",
        "identical to the last bit: 1 of 1 measured tables",
        "in all: 21 of 21 numbers agree; largest deviation 0, relative 0",
    ]


@pytest.mark.parametrize(
    ("change", "tolerance", "line"),
    [
        ({"claim": {"value": 0.360001}}, 1e-5, None),
        ({"claim": {"value": 0.37}}, 1e-5, "claim C1.x alexnet 64px value: 0.36 -> 0.37 (deviation"
         " 0.01, relative 0.027, 1 of 1)"),
        ({"claim": {"verdict": "undetermined"}}, 1e-5, "claim C1.x alexnet 64px verdict: supported"
         " -> undetermined"),
        ({"glue": "'0.37 [0.30, 0.40]'"}, 1e-5, "glue c1_x 1: 0.36 -> 0.37"),
        ({"prose": "All 1,601 images.\n\n3.5 % of"}, 1e-5, "output 2, line 1, number 1: 1600.0 ->"),
        ({"prose": "None."}, 1e-5, "output 2, line 3, number 1: 3.5 -> None"),
        ({"tables": [{**TABLE, "rows": 9}]}, 1e-5, "table m(k=None, n=4) rows: 8 -> 9"),
        ({"tables": []}, 1e-5, "table m(k=None, n=4): value mean: 0.25 -> None"),
    ],
)  # fmt: skip
def test_a_deviation_beyond_the_tolerance_is_named(tmp_path, change, tolerance, line):
    new = folder(tmp_path / "b", **change)
    rows = verify.compared(folder(tmp_path / "a"), new, tolerance)
    differing = [text for text in verify.report(rows) if " -> " in text]
    assert (rows["differing"].sum() > 0) == bool(line)
    assert not line or any(text.startswith(f"02_x: {line}") for text in differing)


def test_what_only_the_new_notebooks_have_is_said_and_counted_nowhere(tmp_path):
    rows = verify.compared(folder(tmp_path / "a", tables=[]), folder(tmp_path / "b"), 1e-6)
    assert (rows["numbers"].sum(), rows["differing"].sum()) == (18, 0)
    assert verify.report(rows) == [
        "02_x: 18 of 18 numbers agree; 3 of kind table only here",
        "in all: 18 of 18 numbers agree; largest deviation 0, relative 0",
    ]


def test_another_digest_is_said_and_decides_nothing(tmp_path):
    new = folder(tmp_path / "b", tables=[{**TABLE, "digest": "0b"}])
    rows = verify.compared(folder(tmp_path / "a"), new, 1e-6)
    assert rows["differing"].sum() == 0
    assert "identical to the last bit: 0 of 1 measured tables" in verify.report(rows)


def test_a_folder_without_chapters_is_an_error(tmp_path):
    folder(tmp_path / "a", name="02_x.failed")
    with pytest.raises(UserError, match="no executed chapter there"):
        verify.notebooks(tmp_path / "a")


def test_notebooks_that_would_be_overwritten_are_not_compared_with(tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "FOLDER", tmp_path)
    (tmp_path / "notebooks").mkdir()
    old = folder(tmp_path / "notebooks/iconworld")
    with pytest.raises(UserError, match="compare with a copy of it"):
        verify.recomputed("iconworld", old)
    assert list(old.iterdir())


def test_tables_match_whatever_code_made_them_and_in_whatever_order_of_rows(tmp_path):
    old = store(tmp_path / "a", ROWS)
    new = store(tmp_path / "b", ROWS[::-1], source="new")
    rows = verify.compared_tables(old, new, 0.0)
    assert (rows["numbers"].sum(), rows["differing"].sum()) == (5, 0)  # 3 units and 2 values
    assert verify.report(rows)[-1].startswith("in all: 5 of 5 numbers agree; largest deviation 0,")


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ([(1, "cat", 0.5), (2, "dog", -0.2), ROWS[2]], "value: -0.25 -> -0.2 (deviation 0.05"),
        ([(1, "cat", 0.5), (2, "dog", -0.25), (3, "cat", 1.0)], "value: nan -> 1.0"),
        ([(1, "cow", 0.5), *ROWS[1:]], "answer: cat -> cow"),
        (ROWS[:2], "all: 3 rows -> 2 rows"),
    ],
)
def test_a_changed_cell_of_a_table_is_named(tmp_path, changed, line):
    rows = verify.compared_tables(store(tmp_path / "a", ROWS), store(tmp_path / "b", changed), 1e-6)
    assert rows["differing"].sum() > 0
    assert f"toy (alexnet), seed 0: toy(n=4): column {line}" in verify.report(rows)[0]


def test_a_changed_layout_is_said_and_the_results_are_compared_all_the_same(tmp_path):
    old, new = store(tmp_path / "a", ROWS), store(tmp_path / "b", [])
    path = next(new.rglob("*.parquet"))
    made = tables.read(path).attrs["provenance"]
    table = pd.DataFrame(ROWS, columns=["unit", "answer", "value"])
    table = table.assign(unit=pd.array([None, 2, 3], "Int64"), scope="unit")
    for value, differing in ((0.5, 0), (0.6, 1)):
        table.loc[0, "value"] = value
        tables.write(table, path, made)
        rows = verify.compared_tables(old, new, 1e-6)
        assert (rows["numbers"].sum(), rows["differing"].sum()) == (2, differing)
        assert set(rows.loc[rows["new"] == "a column", "name"]) == {"scope"}


def test_a_table_that_only_one_store_has_is_named_and_missed_only_in_the_new(tmp_path):
    old, new = store(tmp_path / "a", ROWS), store(tmp_path / "b", ROWS, arguments={"n": 5})
    rows = verify.compared_tables(old, new, 1e-6)
    assert list(rows["differing"]) == [6, 0]
    assert any("toy(n=4): column all: 3 rows -> no table" in line for line in verify.report(rows))
    assert any("toy(n=5): 0 of 0" in line for line in verify.report(rows))


def test_a_store_without_tables_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no stored table there"):
        verify.compared_tables(tmp_path / "a", store(tmp_path / "b", ROWS), 1e-6)


def test_of_several_tables_of_one_measurement_the_latest_counts(tmp_path):
    old = store(store(tmp_path / "a", ROWS[:1]), ROWS, source="later")
    new = store(tmp_path / "b", ROWS)
    assert verify.compared_tables(old, new, 0.0)["differing"].sum() == 0


def test_measures_arguments_columns_and_words_may_have_new_names(tmp_path):
    old = store(tmp_path / "a", ROWS)
    renamed = {"toy": "new_toy", "n": "n_images", "cat": "feline"}
    again = [(unit, answer.replace("cat", "feline"), value) for unit, answer, value in ROWS]
    new = store(tmp_path / "b", again, measure="new_toy", arguments={"n_images": 4})
    assert verify.compared_tables(old, new, 0.0, renamed)["differing"].sum() == 0
    assert verify.compared_tables(old, new, 0.0)["differing"].sum() > 0


def test_the_provenance_page_says_what_the_last_verification_found(tmp_path, monkeypatch):
    monkeypatch.setattr(edition, "PUBLISHED", tmp_path)
    assert "not computed again yet (`make verify STUDY=iconworld`)" in pages.provenance(
        {"iconworld": []}
    )
    old = folder(tmp_path / "old", tables=[])
    new = folder(tmp_path / "iconworld", claim={"value": 0.37})
    verify.record("iconworld", verify.compared(old, new, 1e-6), new, 1e-6)
    page = pages.provenance({"iconworld": []})
    assert "17 of 18 published numbers and verdicts were computed again and agree" in page
    assert "(tolerance 1e-06, largest relative deviation 0.027): unknown device" in page


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A toy repository with both chapters of its first study published."""
    root = repository(tmp_path_factory.mktemp("toy"))
    store = "import os\nos.environ.get('ROBUSTBIAS_TABLES')"
    nbformat.write(chapter("More", "more", "n", store), root / "chapters/02_more.ipynb")
    for name in ("01_lines", "02_more"):
        out = root / f"book/first/{name}.ipynb"
        run = command(root, "robustbias", "run", name, "--study", "first", "--out", str(out))
        assert run.returncode == 0, run.stderr
    return root


@pytest.fixture
def copied(published, tmp_path):
    root = shutil.copytree(published, tmp_path / "toy")
    (root / "book/first/verified.json").unlink(missing_ok=True)
    return root


def test_a_published_study_is_executed_again_with_an_empty_table_store(published):
    run = command(published, "robustbias", "verify", "--jobs", "2")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "executing 01_lines on first" in run.stderr
    assert "identical to the last bit: 2 of 2 measured tables" in run.stdout
    kept = json.loads((published / "book/first/verified.json").read_text())
    assert kept["numbers"] == kept["agree"] > 10
    assert (kept["largest_relative"], kept["device"], kept["tolerance"]) == (0.0, "abacus", 1e-6)
    executed = (published / "_build/verify/notebooks/first/02_more.ipynb").read_text()
    assert str(published / "_build/verify/tables") in executed


def test_a_number_that_differs_is_printed_with_status_1(copied):
    (copied / "book/edition.yml").write_text(
        "execute: [first]\nparameters: {first: {02_more: {n: 4}}}\n"
    )
    path = copied / "book/first/01_lines.ipynb"
    path.write_text(path.read_text().replace('"value": 0.3,', '"value": 0.4,'))
    run = command(copied, "robustbias", "verify", "first", "--stored")
    assert run.returncode == 1, run.stderr
    assert "01_lines: claim C9.lines value: 0.4 -> 0.3 (deviation 0.1" in run.stdout
    assert "02_more: output 1, line 1, number 1: 3.0 -> 4.0" in run.stdout
    assert not (copied / "book/first/verified.json").exists()  # nothing was measured again


def test_a_chapter_that_is_killed_is_an_error_too(copied, monkeypatch):
    killed = SimpleNamespace(returncode=-9, stderr="")
    monkeypatch.setattr(execute.subprocess, "run", lambda *_, **__: killed)
    monkeypatch.setattr(execute.edition, "parameters", lambda *_: {})
    monkeypatch.setattr(execute.edition, "chapter", lambda name: copied / f"{name}.ipynb")
    with pytest.raises(UserError, match="01_lines on first ended with status -9"):
        execute.execute_study("first", ["01_lines"], copied / "out")


def test_two_verifications_do_not_share_a_folder(copied):
    with edition.alone(copied / "_build" / "verify.lock", "verification"):
        run = command(copied, "robustbias", "verify", "first")
    assert run.returncode == 2
    assert "error: another verification is running here" in run.stderr


def test_a_chapter_that_fails_is_one_error(copied):
    nbformat.write(chapter("X", "lines", "1 / 0"), copied / "chapters/01_lines.ipynb")
    (copied / "book/first/02_more.ipynb").unlink()
    run = command(copied, "robustbias", "verify", "first")
    assert run.returncode == 2
    assert "error: 01_lines on first: cell [4] failed with ZeroDivisionError" in run.stderr
    assert "Traceback" not in run.stderr
