"""The way from chapters to pages, on a toy repository: execution, staging, rendering."""

import dataclasses
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_output
from papermill.exceptions import PapermillExecutionError

from robustbias import manifest
from robustbias.book import edition, numbers, pages, render
from robustbias.book import execute as book_execute
from robustbias.book.reader import for_readers
from robustbias.utils import UserError
from toy_book import chapter, command, repository, started


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A toy repository whose book was executed and rendered once."""
    root = repository(tmp_path_factory.mktemp("toy"))
    run = command(root, "robustbias", "build", "--cores", "2")
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stderr == ""
    assert sorted(run.stdout.splitlines()) == [
        "executing 01_lines on first", "executing 02_more on first", "executing 09_end",
        "rendering",
    ]  # fmt: skip
    return root


@pytest.fixture
def copied(built, tmp_path):
    """The built repository, for a test that changes it."""
    return shutil.copytree(built, tmp_path / "toy")


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "01_lines.ipynb"
    nbformat.write(chapter("Lines", "lines"), path)
    return path


def planned(root):
    """What Snakemake would do now: rule -> number of jobs."""
    run = command(root, "snakemake", "--cores", "1", "--dry-run", "--quiet", "rules", "--", "book")
    assert run.returncode == 0, run.stderr
    words = [line.split() for line in (run.stdout + run.stderr).splitlines()]
    jobs = {line[0]: int(line[1]) for line in words if len(line) == 2 and line[1].isdigit()}
    assert jobs or "Nothing to be done" in run.stdout + run.stderr
    return jobs


def test_a_wrong_parameter_stops_a_chapter_before_it_runs(lines, tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "study", lambda name: SimpleNamespace(name=name))
    with pytest.raises(UserError, match="parameters of 01_lines: no 'm'"):
        book_execute.execute(lines, "first", {"m": 1}, tmp_path / "out.ipynb")
    assert not (tmp_path / "out.ipynb").exists()


def test_a_chapter_whose_parameter_is_no_literal_is_refused(tmp_path):
    path = tmp_path / "x.ipynb"
    notebook = chapter("X", "x")
    notebook.cells[1].source = "n = 2 * 3"
    nbformat.write(notebook, path)
    with pytest.raises(UserError, match="n = 2 \\* 3 is not a literal"):
        book_execute.defaults(path)


def test_an_executed_chapter_has_its_parameters_and_no_path_of_this_machine(built):
    text = (built / "_build/notebooks/first/01_lines.ipynb").read_text()
    assert 'study = \\"first\\"' in text
    assert str(built) not in text
    assert '"input_path": "chapters/01_lines.ipynb"' in text


def test_a_failing_chapter_names_its_cell_and_leaves_the_run_before_as_it_was(copied):
    nbformat.write(chapter("X", "x", "1 / 0"), copied / "chapters/01_lines.ipynb")
    out = copied / "_build/notebooks/first/01_lines.ipynb"
    before = out.read_bytes()
    run = command(copied, "robustbias", "run", "01_lines", "--study", "first", "--out", str(out))
    assert run.returncode == 2
    failed = out.with_suffix(".failed.ipynb")
    assert (
        "01_lines on first: cell [4] failed with ZeroDivisionError: division by zero" in run.stderr
    )
    assert str(failed) in run.stderr
    assert "Traceback" not in run.stderr
    assert out.read_bytes() == before
    executed = nbformat.read(failed, as_version=4)
    assert any("ZeroDivisionError" in str(cell.get("outputs")) for cell in executed.cells)
    assert sorted(path.name for path in out.parent.iterdir()) == [
        "01_lines.failed.ipynb", "01_lines.ipynb", "02_more.ipynb",
    ]  # fmt: skip


@pytest.fixture
def quick(monkeypatch):
    """Studies by any name, and a papermill that copies, or fails when the chapter says 1 / 0."""

    def execute(source, target, **_):
        notebook = nbformat.read(source, as_version=4)
        if failing := any(cell.source == "1 / 0" for cell in notebook.cells):
            notebook.metadata["papermill"] = {"exception": True}
        nbformat.write(notebook, target)
        if failing:
            raise PapermillExecutionError(0, 1, "1 / 0", "ZeroDivisionError", "by zero", [])

    monkeypatch.setattr(manifest, "study", lambda name: SimpleNamespace(name=name))
    monkeypatch.setattr(book_execute.papermill, "execute_notebook", execute)


def linked(kind, source, tmp_path):
    """Another way to write the path of a chapter."""
    link = tmp_path / "link.ipynb"
    if kind == "symbolic link":
        link.symlink_to(source)
    elif kind == "hard link":
        link.hardlink_to(source)
    elif kind == "detour":
        return source.parent / "none" / ".." / source.name
    return link if link.exists() else source


@pytest.mark.parametrize("kind", ["same", "symbolic link", "hard link", "detour"])
@pytest.mark.parametrize("cell", ["n", "1 / 0"])
def test_a_chapter_is_never_written_over(quick, tmp_path, kind, cell):
    source = tmp_path / "mine.ipynb"
    nbformat.write(chapter("X", "x", cell), source)
    before, out = source.read_bytes(), linked(kind, source, tmp_path)
    with pytest.raises(UserError, match=r"which is read; write to another file"):
        book_execute.execute(source, "first", {}, out)
    assert source.read_bytes() == before


@pytest.mark.parametrize("dead", [0, 2, 3])
def test_a_kernel_that_dies_before_its_first_cell_is_started_again(
    quick, monkeypatch, tmp_path, dead
):
    """Its port was taken by another that started at the same time."""
    source, out, starts = tmp_path / "mine.ipynb", tmp_path / "out.ipynb", []
    nbformat.write(chapter("X", "x", "n"), source)
    copies = book_execute.papermill.execute_notebook

    def execute(*arguments, **options):
        starts.append(1)
        if len(starts) <= dead:
            raise RuntimeError("Kernel died before replying to kernel_info")
        copies(*arguments, **options)

    monkeypatch.setattr(book_execute.papermill, "execute_notebook", execute)
    if dead == 3:
        with pytest.raises(UserError, match="died three times before its first cell"):
            book_execute.execute(source, "first", {}, out)
    else:
        book_execute.execute(source, "first", {}, out)
    assert out.exists() == (dead < 3)
    assert len(starts) == min(dead + 1, 3)


@pytest.mark.parametrize("cell", ["n", "1 / 0"])
def test_the_record_of_a_failure_replaces_neither_chapter_nor_other_notebooks(
    quick, tmp_path, cell
):
    source, other = tmp_path / "mine.failed.ipynb", tmp_path / "out.failed.ipynb"
    nbformat.write(chapter("X", "x", cell), source)
    nbformat.write(chapter("Y", "y"), other)
    before = source.read_bytes(), other.read_bytes()
    with pytest.raises(UserError, match="which is read"):
        book_execute.execute(source, "first", {}, tmp_path / "mine.ipynb")
    with pytest.raises(UserError, match="is not the record of a failed run"):
        book_execute.execute(source, "first", {}, tmp_path / "out.ipynb")
    assert (source.read_bytes(), other.read_bytes()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [source.name, other.name]


def test_of_a_progress_bar_a_chapter_keeps_what_it_wrote_last(monkeypatch, tmp_path):
    monkeypatch.setattr(manifest, "study", lambda name: SimpleNamespace(name=name))
    bar = "for i in tqdm(range(5), disable=False, mininterval=0):\n    time.sleep(0.1)"
    source, out = tmp_path / "mine.ipynb", tmp_path / "out.ipynb"
    nbformat.write(chapter("X", "x", f"import time\nfrom tqdm import tqdm\n{bar}"), source)
    (text,) = [
        output.text
        for cell in nbformat.read(book_execute.execute(source, "first", {}, out), 4).cells
        for output in cell.get("outputs", [])
        if output.get("name") == "stderr"
    ]
    assert text.count("it/s") == 1
    assert "5/5" in text


def test_the_record_of_a_failure_goes_when_the_chapter_works_again(quick, lines, tmp_path):
    broken, out = tmp_path / "broken.ipynb", tmp_path / "out.ipynb"
    nbformat.write(chapter("X", "x", "1 / 0"), broken)
    with pytest.raises(UserError, match=r"The partial notebook is .*out\.failed\.ipynb"):
        book_execute.execute(broken, "first", {}, out)
    assert not out.exists()
    assert out.with_suffix(".failed.ipynb").exists()
    book_execute.execute(lines, "first", {}, out)
    assert out.exists()
    assert not out.with_suffix(".failed.ipynb").exists()


def test_a_chapter_whose_kernel_died_runs_again(monkeypatch, tmp_path):
    monkeypatch.setattr(manifest, "study", lambda name: SimpleNamespace(name=name))
    source, out = tmp_path / "mine.ipynb", tmp_path / "out.ipynb"
    nbformat.write(chapter("X", "x", "import os; os.kill(os.getpid(), 9)"), source)
    for _ in range(2):
        with pytest.raises(UserError, match="its kernel died"):
            book_execute.execute(source, "first", {}, out)
    assert out.with_suffix(".failed.ipynb").exists()


def test_labels_get_the_study_where_they_are_defined_and_where_they_are_used():
    notebook = chapter("Lines", "eps")
    notebook.cells[0].source += " Not fig-epsilon, not config-eps."
    found = render.labels([notebook])
    assert found == {"ch-eps", "fig-eps", "eq-eps"}
    new = render.relabelled(notebook, found, "toy")
    assert new.cells[0].source.startswith("(ch-eps-toy)=")
    assert "{numref}`fig-eps-toy` and {eq}`eq-eps-toy`" in new.cells[0].source
    assert new.cells[0].source.endswith("Not fig-epsilon, not config-eps.")
    assert new.cells[2].source.endswith("(eq-eps-toy)")
    assert new.cells[3].metadata.mystnb.figure.name == "fig-eps-toy"


def test_a_page_does_not_refer_to_a_figure_that_it_leaves_out():
    notebook = chapter("Lines", "eps")
    said = nbformat.v4.new_output("display_data", data={"text/markdown": "{numref}`fig-eps`"})
    notebook.cells.append(new_code_cell(outputs=[said]))
    render.relabelled(notebook, render.labels([notebook]), "toy", {"fig-eps"})
    assert said.data["text/markdown"] == "a figure (no data for it here)"
    assert "{numref}`fig-eps`" not in notebook.cells[0].source
    assert "a figure (no data for it here) and {eq}`eq-eps-toy`" in notebook.cells[0].source


def executed(*cells):
    """A chapter with parameters as papermill leaves them, and these cells."""
    made = chapter("X", "x")
    given = new_code_cell('study = "second"\nn = 5', metadata={"tags": ["injected-parameters"]})
    made.cells[2:] = [given, *cells]
    return made


def study_of(kind):
    world = {"side": 1} if kind == "drawn" else {}
    return dataclasses.replace(manifest.study("iconworld"), name="second", world=world)


def test_a_page_has_parameters_as_a_table_with_the_values_of_the_run():
    page = for_readers(executed(), study_of("drawn"), "01_x")
    assert len(page.cells) == 2
    text = page.cells[-1].source
    assert "| study | `'second'` | a study |" in text
    assert "| n | `5` |" in text
    assert "| grid | `[1, 2]` |" in text
    assert "robustbias run 01_x --study second --set NAME=VALUE" in text


@pytest.mark.parametrize(("kind", "left"), [("drawn", 1), ("photographs", 0)])
def test_cells_of_one_kind_of_study_are_on_its_pages_alone(kind, left):
    cell = new_code_cell("1", metadata={"robustbias": {"only": "drawn"}})
    assert len(for_readers(executed(cell), study_of(kind), "01_x").cells) == 2 + left


def test_code_is_folded_and_a_figure_has_the_alternative_text_of_its_result():
    figure = {"figure": {"name": "fig-x", "caption": "A line."}, "image": {"alt": "any line"}}
    data = {"image/svg+xml": "<svg/>", "text/plain": "the line rises"}
    cell = new_code_cell("f()", metadata={"mystnb": figure}, outputs=[new_output("display_data")])
    cell.outputs[0].data = data
    empty = new_code_cell("f()", metadata={"mystnb": dict(figure)})
    table = new_code_cell("t()", outputs=[new_output("display_data")])
    table.outputs[0].data = {"text/html": "<td>0.30 [-0.1, 0.5]</td>"}
    long = new_code_cell("long()", metadata={"robustbias": {"folded": "All rows"}})
    page = for_readers(executed(cell, empty, table, long), study_of("drawn"), "01_x").cells
    assert len(page) == 5  # without the figure that has no output
    assert page[3].metadata.tags == ["hide-cell"]
    assert page[3].metadata.mystnb["code_prompt_show"] == "All rows"
    assert page[1].metadata.tags == ["hide-input"]
    assert page[1].metadata.mystnb.image.alt == "the line rises"
    html = page[2].outputs[0].data["text/html"]
    assert html == '<td>0.30 <span class="interval">[-0.1, 0.5]</span></td>'


def test_figures_of_a_chapter_are_counted_from_one_on_its_page():
    first = {"figure": {"a": (1, 1), "b": (1, 2)}}
    second = {"figure": {"d": (1, 4), "c": (1, 3)}, "displaymath": {"e": (1, 2)}}
    front = {"figure": {"f": (7,)}}
    env = SimpleNamespace(toc_fignumbers={"x/01": first, "y/01": second, "intro": front})
    assert numbers.recount(None, env) == []
    assert first["figure"] == {"a": (1, 1), "b": (1, 2)}
    assert second == {"figure": {"c": (1, 1), "d": (1, 2)}, "displaymath": {"e": (1, 1)}}
    assert front == {"figure": {"f": (7,)}}


def test_buttons_lead_to_a_repository_only_where_there_is_an_address(tmp_path):
    text = (manifest.ROOT / "_config.yml").read_text()
    (tmp_path / "without.yml").write_text(text)
    (tmp_path / "with.yml").write_text(text.replace('url: ""', "url: https://example.org/a/b"))
    without = render._config(tmp_path / "without.yml", True)
    assert "repository" not in without
    assert "launch_buttons" not in without
    assert not without["html"]["use_repository_button"]
    given = render._config(tmp_path / "with.yml", True)
    assert given["launch_buttons"]["colab_url"]
    assert given["html"]["use_issues_button"]


def test_a_table_cell_may_hold_a_bar():
    assert pages.table(["a"], [["|d| <= eps"]]).splitlines()[-1] == "| \\|d\\| <= eps |"


def test_the_page_shows_findings_numbered_figures_and_records(built):
    html = built / "_build/html"
    intro = (html / "intro.html").read_text()
    assert intro.count("1 supported") == 2  # a line per chapter
    assert '0.30 <span class="interval">[0.10, 0.50]</span> <strong>supported</strong>' in intro
    lines = (html / "first/01_lines.html").read_text()
    assert "Fig. 1.1" in lines
    assert 'alt="line"' in lines
    assert 'href="study.html"' in lines
    assert "a" * 40 in (html / "provenance.html").read_text()
    assert "Drawn images" in (html / "first/study.html").read_text()


def test_parts_of_the_book_are_its_studies(built):
    toc = yaml.safe_load((built / "_build/book/_toc.yml").read_text())
    captions = [part.get("caption") for part in toc["parts"]]
    assert captions == ["First", None, "Second", "All studies", "Record"]
    files = [page["file"] for part in toc["parts"][:4] for page in part["chapters"]]
    # the second study was not executed; its page says what it is
    assert files == ["first/study", "first/01_lines", "first/02_more", "second/study", "09_end"]


def test_a_closing_chapter_is_executed_once_and_reads_all_claims(built):
    notebooks = built / "_build/notebooks"
    assert (notebooks / "09_end.ipynb").exists()
    assert not (notebooks / "first/09_end.ipynb").exists()
    page = (built / "_build/html/09_end.html").read_text()
    assert "first/01_lines.ipynb" in page
    assert "first/02_more.ipynb" in page
    assert 'href="first/02_more.html#ch-more-first"' in page


def test_nothing_is_done_again_when_nothing_changed(built):
    assert planned(built) == {}


def test_one_changed_parameter_executes_one_chapter(copied):
    edition = "execute: [first]\nparameters: {first: {02_more: {n: 4}}}\n"
    (copied / "book/edition.yml").write_text(edition)
    assert planned(copied) == {"execute": 1, "conclude": 1, "render": 1, "book": 1, "total": 4}


def test_a_second_build_is_refused_while_one_runs_and_goes_through_once_it_was_killed(copied):
    waiting = "import os, time\nopen('started', 'w').close()\n"
    waiting += "while not os.path.exists('go'): time.sleep(0.1)"
    nbformat.write(chapter("X", "x", waiting), copied / "chapters/01_lines.ipynb")
    first = started(copied, "robustbias", "build", "executed")
    deadline = time.monotonic() + 120
    while not (copied / "chapters/started").exists() and time.monotonic() < deadline:
        time.sleep(0.1)

    second = command(copied, "robustbias", "build", "executed")
    assert second.returncode == 2
    assert second.stderr.startswith(f"error: another build is running here (process {first.pid});")

    os.killpg(first.pid, signal.SIGKILL)
    first.communicate(timeout=60)
    (copied / "chapters/go").touch()
    third = command(copied, "robustbias", "build", "executed")
    assert third.returncode == 0, third.stderr
    assert third.stdout == "executing 01_lines on first\n"


def test_a_build_that_fails_says_why(copied):
    run = command(copied, "robustbias", "build", "--study", "nosuch")
    assert run.returncode == 2
    assert run.stderr.startswith("error: unknown study 'nosuch'; valid: first, second.")

    run = command(copied, "robustbias", "build", "nosuch")
    assert run.returncode == 2
    assert run.stderr.startswith("error: the build stopped: No rule to produce nosuch")

    nbformat.write(chapter("X", "x", "1 / 0"), copied / "chapters/01_lines.ipynb")
    run = command(copied, "robustbias", "build", "executed")
    assert run.returncode == 2
    assert "cell [4] failed with ZeroDivisionError" in run.stderr
    assert run.stderr.endswith("error: the build stopped: At least one job did not complete "
                               "successfully.\n")  # fmt: skip


@pytest.mark.parametrize("content", [b"", b"no notebook", b"[1]", b"\xff\xfe", b'{"cells": 3}'])
def test_a_file_that_is_no_notebook_is_refused(content, tmp_path):
    path = tmp_path / "01_lines.ipynb"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"01_lines.ipynb is not a Jupyter notebook"):
        book_execute.defaults(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("execute: [", "is not valid YAML"),
        ("execute: first\nparameters: {}\n", "expected execute to be a list"),
        ("execute: []\nparameters: {first: 3}\n", "parameters a table of chapters"),
        ("- 3\n", "expected the keys execute and parameters"),
    ],
)
def test_an_edition_of_another_form_is_refused(content, message, tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "ROOT", tmp_path)
    (tmp_path / "book").mkdir()
    (tmp_path / "book/edition.yml").write_text(content)
    with pytest.raises(UserError, match=message):
        edition.studies()


def test_an_edition_that_names_no_chapter_is_an_error(copied):
    (copied / "book/edition.yml").write_text(
        "execute: [first]\nparameters: {first: {03_end: {}}}\n"
    )
    run = command(copied, "robustbias", "book", "first")
    assert run.returncode == 2
    assert "unknown chapter '03_end'; valid: 01_lines, 02_more, 09_end" in run.stderr


def test_publishing_keeps_chapters_and_renews_the_findings_in_the_readme(copied):
    config = (copied / "_config.yml").read_text()
    (copied / "_config.yml").write_text(config.replace('url: ""', "url: https://example.org/a/b"))
    run = command(copied, "robustbias", "publish", "first")
    assert run.returncode == 0, run.stderr
    assert {path.name for path in (copied / "book/first").iterdir()} == {
        "01_lines.ipynb", "02_more.ipynb",
    }  # fmt: skip
    readme = (copied / "README.md").read_text()
    assert "\nnone\n" not in readme
    published = nbformat.read(copied / "book/first/01_lines.ipynb", as_version=4)
    assert "--branch main https://example.org/a/b " in published.cells[0].source
    assert "robustbias" not in nbformat.read(copied / "chapters/01_lines.ipynb", 4).cells[0].source
    run = command(copied, "robustbias", "publish", "second")
    assert run.returncode == 2
    assert "not executed on second: 01_lines, 02_more" in run.stderr


def test_chapters_of_a_library_with_uncommitted_changes_are_not_published(copied):
    path = copied / "_build/notebooks/first/02_more.ipynb"
    path.write_text(path.read_text().replace("a" * 40, "a" * 12 + "+"))
    run = command(copied, "robustbias", "publish", "first")
    assert run.returncode == 2
    assert "changes in lib/ that are not committed: 02_more; commit them" in run.stderr
    assert not (copied / "book/first").exists()


@pytest.fixture
def editions(tmp_path):
    """A published folder of eight old chapters, and eight new ones to put there."""
    for age in ("old", "new"):
        (tmp_path / age).mkdir()
        for i in range(8):
            (tmp_path / age / f"{i:02d}.ipynb").write_text(age)
    return (tmp_path / "old").rename(tmp_path / "first"), sorted((tmp_path / "new").iterdir())


def of_age(folder):
    """The age of a folder that is whole."""
    texts = [path.read_text() for path in folder.iterdir()]
    assert len(texts) == 8
    (age,) = set(texts)
    return age


@pytest.mark.parametrize("step", range(11))
def test_a_failure_at_any_step_of_publishing_leaves_the_old_edition(editions, monkeypatch, step):
    folder, new = editions
    steps = iter(range(100))

    def failing(function):
        def call(*arguments):
            if next(steps) == step:
                raise OSError(errno.ENOSPC, "No space left on device")
            return function(*arguments)

        return call

    monkeypatch.setattr(pages.shutil, "copy", failing(shutil.copy))
    monkeypatch.setattr(Path, "rename", failing(Path.rename))
    if step < 10:  # 8 copies and 2 renames
        with pytest.raises(UserError, match=r"could not publish .*No space left on device"):
            pages._replaced(folder, new)
    else:
        pages._replaced(folder, new)
    assert of_age(folder) == ("old" if step < 10 else "new")
    assert sorted(path.name for path in folder.parent.iterdir()) == ["first", "new"]


@pytest.mark.faults
@pytest.mark.parametrize("step", range(12))
def test_a_process_killed_while_publishing_leaves_a_whole_edition(editions, step, counted):
    folder, new = editions
    code = f"""
import os, pathlib, shutil, signal
from robustbias.book import pages
steps = iter(range(100))
def fatal(function):
    def call(*arguments, **options):
        if next(steps) == {step}:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call
for place, name in ((shutil, "copy"), (pathlib.Path, "rename"), (shutil, "rmtree")):
    setattr(place, name, fatal(getattr(place, name)))
folder = pathlib.Path({str(folder)!r})
pages._replaced(folder, sorted(folder.with_name("new").iterdir()))
"""
    run = subprocess.run([sys.executable, "-c", code], check=False)
    assert run.returncode == -signal.SIGKILL
    between_the_renames = step == 9
    assert folder.exists() != between_the_renames
    pages._recover(folder)
    assert of_age(folder) == ("old" if step < 10 else "new")
    assert sorted(path.name for path in folder.parent.iterdir()) == ["first", "new"]
    pages._replaced(folder, new)
    counted(1, of_age(folder) == "new")


def test_a_readme_without_the_marks_is_an_error():
    with pytest.raises(UserError, match="found 0 such pairs"):
        pages.renewed("# Readme", "findings")


def test_a_warning_stops_the_book_and_the_old_pages_stay(copied):
    notebook = copied / "_build/notebooks/first/01_lines.ipynb"
    executed = nbformat.read(notebook, as_version=4)
    executed.cells[0].source += " See {ref}`ch-nowhere`."
    nbformat.write(executed, notebook)
    run = command(copied, "robustbias", "book", "first")
    assert run.returncode == 2
    assert "undefined label: 'ch-nowhere'" in run.stderr
    assert "_build/logs/render.log" in run.stderr
    assert (copied / "_build/html/index.html").exists()


def test_without_npm_the_pages_ask_a_cdn(copied, monkeypatch):
    shutil.rmtree(copied / "_build/vendor", ignore_errors=True)
    monkeypatch.setattr(render.shutil, "which", lambda name: None)
    assert not render.scripts(copied / "_build/vendor")
    run = command(copied, "robustbias", "book", "first", PATH="/nowhere")
    assert run.returncode == 0, run.stderr
    page = (copied / "_build/html/first/02_more.html").read_text()
    assert "https://cdn.jsdelivr.net/npm/mathjax" in page
    assert "vendor/embed.js" not in page
