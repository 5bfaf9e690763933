"""The pages of the last `make book`, seen by a real browser, wide and narrow, light and dark."""

import pytest

from browser import CHROMIUM, looked
from robustbias.manifest import ROOT

HTML = ROOT / "_build" / "html"
LOOKS = ((1280, "light"), (1280, "dark"), (390, "light"), (390, "dark"))


@pytest.fixture(scope="module")
def facts():
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    if not (HTML / "index.html").exists():
        pytest.skip("no book here: run `make book` first")
    pages = [path.relative_to(HTML).as_posix() for path in sorted(HTML.rglob("*.html"))]
    made = ("_static/", "index.html", "genindex.html", "search.html")  # not written by us
    pages = [page for page in pages if not page.startswith(made)]
    return looked(HTML, [(page, *look) for page in pages for look in LOOKS])


def wrong(facts, holds):
    return [(fact["page"], fact["width"], fact["theme"]) for fact in facts if not holds(fact)]


def test_no_page_is_wider_than_the_screen(facts):
    assert wrong(facts, lambda fact: fact["overflow"] <= 0) == []


def test_every_picture_loads_and_says_what_it_shows(facts):
    assert wrong(facts, lambda fact: not fact["broken"] and not fact["speechless"]) == []


def test_every_formula_is_typeset(facts):
    assert sum(fact["formulas"] for fact in facts) > 0
    assert wrong(facts, lambda fact: not fact["raw_formulas"] and not fact["formula_errors"]) == []


def test_every_widget_appears(facts):
    assert wrong(facts, lambda fact: fact["widgets"] >= fact["wanted_widgets"]) == []


def test_figures_keep_a_white_ground_in_the_dark(facts):
    dark = [fact for fact in facts if fact["theme"] == "dark"]
    assert wrong(dark, lambda fact: set(fact["grounds"]) <= {"rgb(255, 255, 255)"}) == []


def test_no_role_or_directive_is_left_in_the_text(facts):
    assert wrong(facts, lambda fact: "{" not in fact["text"] or "code" in fact["text"]) == []


def test_pages_ask_nobody_outside_when_the_scripts_are_vendored(facts):
    if not (HTML / "_static" / "vendor").is_dir():
        pytest.skip("built without npm: pages ask a CDN for two scripts")
    assert wrong(facts, lambda fact: not fact["outside"]) == []
