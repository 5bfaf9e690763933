"""The explorer in a real browser: in a page without a kernel, and live through voila."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from ipywidgets import embed
from PIL import Image

import toy_units
from robustbias.book import render
from robustbias.manifest import ROOT
from robustbias.unit_explorer import page as unit_explorer_page

if importlib.util.find_spec("websockets") is None:
    pytest.skip("no package websockets to talk to a browser with", allow_module_level=True)

import chrome
from toy_server import served

if chrome.CHROMIUM is None:
    pytest.skip("no chromium on this machine", allow_module_level=True)

UNITS = "[...document.querySelectorAll('.unit-explorer .unit')].map((u) => u.dataset.unit)"
BRACES = str.maketrans({"{": "{{", "}": "}}"})  # of a script inside a template
BOOK = ROOT / "_build" / "html"
# what the book's theme complains about on every page
THEIRS = ("THEBE_JS_URL", "invalid theme mode", "favicon")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder with one page: the explorer, its script, and the widget manager."""
    folder = tmp_path_factory.mktemp("site")
    if not render.scripts(ROOT / "_build" / "vendor"):
        pytest.skip("no npm, so no widget manager for a page without a network")
    (folder / "embed.js").symlink_to(ROOT / "_build" / "vendor" / "embed.js")
    units = toy_units.units()
    root = unit_explorer_page.page(units, n_units=3)
    script = f"<script>{unit_explorer_page.links(units, n_units=3).data}</script>"
    embed.embed_minimal_html(
        folder / "page.html",
        views=[root],
        state=embed.dependency_state([root]),
        requirejs=False,
        embed_url="embed.js",
        template=embed.html_template.replace("</body>", f"{script.translate(BRACES)}</body>"),
    )
    return folder


@pytest.fixture(params=["alone", "in the book"])
def page(request, site):
    """The explorer's page, opened over http with every request to other machines refused."""
    folder, path = site, "page.html"
    if request.param == "in the book":
        folder, path = BOOK, "iconworld/08_unit_explorer.html"
        if not (folder / path).exists():
            pytest.skip("no book with this chapter here: run `make book` first")
    with chrome.served(folder) as address, chrome.opened() as tab:
        tab.address = f"{address}/{path}"
        tab.look(1280)
        tab.open(tab.address)
        tab.until(f"{UNITS}.length == 2 && !!document.querySelector('.unit-step')", 30)
        yield tab
        assert tab.outside == []
        assert [e for e in tab.errors if not any(word in e for word in THEIRS)] == []


def changed(page, act) -> list[str]:
    """The units on the page after an act that should change both."""
    before = page.value(UNITS)
    act()
    page.until(f"{UNITS}.every((u, i) => u != {before!r}[i]) && {UNITS}.length == 2")
    return page.value(UNITS)


def test_choosing_layer_order_and_rank_changes_the_units_and_their_images(page):
    images = "[...document.querySelectorAll('.unit-tiles i')].map((i) => i.style.cssText).join()"
    maps = "[...document.querySelectorAll('img.unit-maps')].map((i) => i.src).join()"
    before = page.value(images), page.value(maps)
    layers = page.value("document.querySelector('.unit-layer select').options.length")
    after = changed(page, lambda: page.choose(".unit-layer select", layers - 1))
    layer = page.value("document.querySelector('.unit-layer select').selectedOptions[0].text")
    assert all(f"-{layer}-" in unit for unit in after)
    assert page.value(images) != before[0]
    assert page.value(maps) != before[1]
    changed(page, lambda: page.choose(".unit-rank select", 1))
    changed(page, lambda: page.choose(".unit-rank select", 2))
    views = page.value(
        "[...document.querySelector('.unit-view select').options]"
        ".map((option) => option.text.replace(/\\s/g, ' '))"  # widgets make blanks unbreakable
    )
    texture = views.index("texture detectors, by IoU")
    page.choose(".unit-view select", texture)
    page.until("document.querySelectorAll('.unit-explorer .unit').length == 2")


def test_arrow_keys_and_buttons_go_from_rank_to_rank(page):
    first = page.value(UNITS)
    page.value("document.activeElement.blur()")
    second = changed(page, lambda: page.press("ArrowRight"))
    assert changed(page, lambda: page.press("ArrowLeft")) == first
    click = "document.querySelector('.unit-step[aria-label=\"next unit\"]').click()"
    assert changed(page, lambda: page.value(click)) == second
    page.until("document.querySelector('.unit-status').textContent.includes('unit')")


def test_an_address_leads_to_a_unit(page):
    changed(page, lambda: page.choose(".unit-layer select", 1))
    changed(page, lambda: page.choose(".unit-rank select", 2))
    wanted = page.value(UNITS)[1]
    page.open("about:blank")
    page.pause(0.2)
    page.open(f"{page.address}?unit={wanted}")
    page.until(f"{UNITS}.includes({wanted!r})")


def test_every_control_has_a_name_and_every_picture_a_text(page):
    page.until("document.querySelectorAll('.unit-explorer select').length == 4")
    names = page.value(
        "[...document.querySelectorAll('.unit-explorer select')]"
        ".map((select) => select.labels[0].textContent)"
    )
    assert names == ["Network", "Layer", "Show", "Rank"]
    assert page.value("[...document.querySelectorAll('.unit-explorer img')].every((i) => i.alt)")
    assert page.value("[...document.querySelectorAll('.unit-tiles')].every((t) => t.ariaLabel)")


def test_a_phone_shows_one_column_and_nothing_sticks_out(page):
    page.look(390)
    page.pause(0.3)
    boxes = page.value(
        "[...document.querySelectorAll('.unit')].map((u) => u.getBoundingClientRect().toJSON())"
    )
    assert boxes[0]["bottom"] <= boxes[1]["top"]
    assert all(box["left"] >= 0 and box["right"] <= 390 for box in boxes)
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.value(wide) <= 0


def test_text_keeps_its_contrast_in_the_dark(page):
    page.value("document.documentElement.dataset.theme = 'dark'")
    colours = "['color'].map((p) => getComputedStyle(document.querySelector('.unit p'))[p])"
    ground = """(() => { for (let e = document.querySelector('.unit'); e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if (!/, 0\\)|transparent/.test(c)) return c; } return 'rgb(255, 255, 255)'; })()"""
    page.pause(0.3)
    text, behind = page.value(colours)[0], page.value(ground)
    assert abs(lightness(text) - lightness(behind)) > 100


def lightness(colour: str) -> float:
    return float(np.mean([float(v) for v in colour[colour.index("(") + 1 : -1].split(",")[:3]]))


# -- live ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """A server of the app over the toy units."""
    tests = str(Path(__file__).parent)
    source = f"import sys\nsys.path.insert(0, {tests!r})\nimport toy_units\n"
    source += "from robustbias.unit_explorer import app\napp.app(toy_units.units())"
    with served(tmp_path_factory.mktemp("live"), source) as server:
        yield server


def test_the_live_app_attacks_an_upload_and_silences_units(live, tmp_path):
    Image.fromarray(np.full((60, 80, 3), (200, 60, 40), np.uint8)).save(tmp_path / "red.png")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "large.png").write_bytes(bytes(30 * 2**20))
    figures = "document.querySelectorAll('.unit-looks figure').length"
    said = "document.querySelector('.unit-said').textContent"
    with chrome.opened() as page:
        page.look(1280, 1600)
        page.open(live.address)
        page.until(f"{UNITS}.length == 2", 120)
        after = changed(page, lambda: page.choose(".unit-layer select", 1))
        assert all("-features.9-" in unit for unit in after)

        page.upload(".unit-upload", tmp_path / "notes.txt")
        page.until(f"{said}.includes('notes.txt is not an image')")
        page.upload(".unit-upload", tmp_path / "large.png")
        page.until(f"{said}.includes('large.png has 30 MB; expected at most 10')", 60)
        assert page.value(figures) == 0
        page.upload(".unit-upload", tmp_path / "red.png")
        page.until(f"{figures} == 2")

        page.value("document.querySelector('.unit-eps .noUi-handle').focus()")
        page.press("ArrowRight")
        page.until(f"{figures} == 4")
        before = page.value("document.querySelectorAll('.unit-looks img')[2].src")
        page.press("ArrowRight")
        page.until(f"document.querySelectorAll('.unit-looks img')[2].src != {before!r}")

        page.value("document.querySelector('.unit-silence').click()")
        page.until("document.body.innerText.includes('answers to cue conflicts change')")
        page.until(f"{said}.includes('done in')")
        assert page.errors == []
        assert page.outside == []
        asking = "fetch('https://example.org').then(() => 'asked', () => 'refused')"
        assert page.value(asking) == "refused"
        assert page.outside == []  # the page's own policy refused; the browser was not even asked


def test_pages_that_are_left_leave_no_kernel(tmp_path):
    widget = "import ipywidgets; ipywidgets.Label('a widget')"
    kernels = set()
    with served(tmp_path, widget) as server, chrome.opened() as page:
        for _ in range(3):
            page.open(server.address)
            page.until("!!document.querySelector('#loading_text')")  # and is left while it loads
            page.open(server.address)
            page.until("document.body?.innerText.includes('a widget')", 60)
            server.until(1)
            assert kernels.isdisjoint(server.kernels())
            kernels |= server.kernels()
        page.open("about:blank")
        page.pause(1)  # what the page says as it is left goes through this test
        server.until(0)
