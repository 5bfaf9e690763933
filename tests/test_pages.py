"""The pages of the last `make book`, seen by a real browser, wide and narrow, light and dark."""

import shutil
from pathlib import Path

import pytest

import chrome
from robustbias.book.render import _unpacked
from robustbias.manifest import ROOT

HTML = ROOT / "_build" / "html"
LOOKS = ((1280, "light"), (1280, "dark"), (390, "light"))
AXE = "axe-core@4.10.2"  # MPL-2.0; fetched, not kept here
ANSWERED = ["01", "02", "03", "04", "05", "06", "07"]  # chapters that test a claim

# What a page is like; folded parts are opened after the positions were taken.
PROBE = """(async () => {
  const root = document.documentElement;
  const all = (selector) => [...document.querySelectorAll("article " + selector)];
  const top = (element) => element && element.getBoundingClientRect().top + scrollY;
  const figures = all(".cell_output img, figure img").filter((i) => !i.closest(".jupyter-widgets"));
  for (const image of figures) image.loading = "eager";
  await Promise.all(figures.map((image) => image.decode().catch(() => {})));
  const facts = {
    theme: root.dataset.theme,
    overflow: root.scrollWidth - root.clientWidth,
    answer: top(all(".tag_answer .cell_output")[0]),
    figure: top(figures[0]),
    broken: figures.filter((image) => !image.naturalWidth).map((image) => image.src),
    speechless: figures.filter((image) => !image.alt).map((image) => image.src),
    raster: figures.filter((image) => !image.src.endsWith(".svg")).map((image) => image.src),
    grounds: [...new Set(figures.map((image) => getComputedStyle(image).backgroundColor))],
    formulas: all("mjx-container").length,
    raw_formulas: all(".math").filter((m) => !m.querySelector("mjx-container")).length,
    formula_errors: all("mjx-merror").length,
    widgets: all(".jupyter-widgets").length,
    wanted: all('script[type="application/vnd.jupyter.widget-view+json"]').length,
    text: document.querySelector("article").innerText,
    sizes: [],
  };
  for (const image of figures.filter((i) => i.src.endsWith(".svg"))) {
    const source = await (await fetch(image.src)).text();
    const scale = image.clientWidth / Number(source.match(/viewBox="0 0 ([0-9.]+)/)[1]);
    // a glyph of matplotlib is drawn at a hundredth of the size of its font
    const glyphs = [...source.matchAll(/scale\\(([0-9.]+) -\\1\\)/g)].map((m) => 100 * m[1]);
    if (glyphs.length) facts.sizes.push(scale * Math.min(...glyphs));
  }
  for (const part of document.querySelectorAll("article details")) part.open = true;
  const column = document.querySelector("article").getBoundingClientRect().right + 1;
  facts.wide = all("table, pre").filter((element) => !element.closest(".jupyter-widgets"))
    .filter((element) => {
      const box = element.closest(".text_html, .pst-scrollable-table-container, .highlight");
      return element.getBoundingClientRect().right > column || element.scrollWidth >
        element.clientWidth + 1 || (box && box.scrollWidth > box.clientWidth + 1);
    }).map((element) => element.innerText.slice(0, 80));
  return facts;
})()"""
VIOLATIONS = """(async () => {
  const found = await axe.run(document, {resultTypes: ["violations"]});
  return found.violations.filter((rule) => ["serious", "critical"].includes(rule.impact))
    .flatMap((rule) => rule.nodes.map((node) => `${rule.id}: ${node.target.join(" ")}`));
})()"""


@pytest.fixture(scope="module")
def axe():
    folder = ROOT / "_build" / "axe"
    if not folder.exists():
        folder.mkdir(parents=True)
        if shutil.which("npm") is None or _unpacked(AXE, folder) is None:
            shutil.rmtree(folder)
            return ""
    return (folder / "package" / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def facts(axe):
    if chrome.CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    if not (HTML / "index.html").exists():
        pytest.skip("no book here: run `make book` first")
    pages = [path.relative_to(HTML).as_posix() for path in sorted(HTML.rglob("*.html"))]
    made = ("_static/", "index.html", "genindex.html", "search.html")  # not written by us
    pages = [page for page in pages if not page.startswith(made)]
    seen = []
    with chrome.served(HTML) as address, chrome.opened() as tab:
        for page in pages:
            for width, theme in LOOKS:
                tab.errors.clear()
                tab.outside.clear()
                tab.look(width, theme=theme)
                tab.open(f"{address}/{page}")
                tab.until(f"document.readyState == 'complete' && location.pathname == '/{page}'")
                tab.pause(0.3)
                _settled(tab)
                found = tab.value(PROBE) | {"page": page, "width": width, "wants": theme}
                found |= {"errors": list(tab.errors), "outside": list(tab.outside)}
                if axe:
                    tab.pause(0.6)  # what was unfolded fades in
                    tab.value(axe + ";0")
                    found["violations"] = tab.value(VIOLATIONS)
                seen.append(found)
    return seen


def _settled(tab: chrome.Page) -> None:
    """Formulas and widgets are there, or never come."""
    shown = """(() => { const all = (s) => document.querySelectorAll("article " + s).length;
      return all(".math") <= all(".math mjx-container") && all(".jupyter-widgets") >=
        all('script[type="application/vnd.jupyter.widget-view+json"]'); })()"""
    try:
        tab.until(shown, seconds=10)
    except AssertionError:
        return


def wrong(facts, what):
    """What is wrong with each page: the pages where `what` of its facts is not empty."""
    found = {(f["page"], f["width"], f["wants"]): what(f) for f in facts}
    return {place: reason for place, reason in found.items() if reason}


def test_no_page_is_wider_than_the_screen(facts):
    assert wrong(facts, lambda fact: max(fact["overflow"], 0)) == {}


def test_no_table_or_code_is_wider_than_its_column(facts):
    wide = [fact for fact in facts if fact["width"] == 1280]
    assert wrong(wide, lambda fact: fact["wide"]) == {}


def test_every_figure_loads_and_says_what_it_shows(facts):
    assert wrong(facts, lambda fact: fact["broken"] + fact["speechless"]) == {}


def test_figures_are_vector_graphics_with_text_of_at_least_nine_pixels(facts):
    wide = [fact for fact in facts if fact["width"] == 1280]
    assert wrong(wide, lambda fact: fact["raster"]) == {}
    assert sum(len(fact["sizes"]) for fact in wide) > 0
    assert wrong(wide, lambda fact: [size for size in fact["sizes"] if size < 9]) == {}


def test_a_chapter_begins_with_its_answer_and_a_figure(facts):
    chapters = [
        f for f in facts if Path(f["page"]).name[:2] in ANSWERED or f["page"] == "intro.html"
    ]
    wide = [fact for fact in chapters if fact["width"] == 1280]
    assert wide
    late = wrong(wide, lambda f: [p for p in (f["answer"], f["figure"]) if p is None or p > 1350])
    assert late == {}


def test_every_formula_is_typeset(facts):
    assert sum(fact["formulas"] for fact in facts) > 0
    assert wrong(facts, lambda fact: fact["raw_formulas"] + fact["formula_errors"]) == {}


def test_every_widget_appears(facts):
    assert wrong(facts, lambda fact: max(fact["wanted"] - fact["widgets"], 0)) == {}


def test_the_theme_is_the_readers_and_figures_keep_a_white_ground_in_the_dark(facts):
    assert wrong(facts, lambda fact: fact["theme"] != fact["wants"]) == {}
    dark = [fact for fact in facts if fact["theme"] == "dark"]
    assert wrong(dark, lambda fact: set(fact["grounds"]) - {"rgb(255, 255, 255)"}) == {}


def test_no_role_or_directive_is_left_in_the_text(facts):
    assert wrong(facts, lambda fact: "{" in fact["text"] and "code" not in fact["text"]) == {}


def test_no_page_reports_an_error(facts):
    assert wrong(facts, lambda fact: fact["errors"]) == {}


def test_pages_ask_nobody_outside_when_the_scripts_are_vendored(facts):
    if not (HTML / "_static" / "vendor").is_dir():
        pytest.skip("built without npm: pages ask a CDN for two scripts")
    assert wrong(facts, lambda fact: fact["outside"]) == {}


def test_pages_have_no_serious_barrier_for_assistive_technology(facts, axe):
    if not axe:
        pytest.skip("axe-core comes by npm, which is not here")
    assert wrong(facts, lambda fact: fact["violations"]) == {}
