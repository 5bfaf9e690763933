"""The explorer in a real browser: from a folder, over http, in the book, and live through voila."""

import importlib.util
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import toy_units
from robustbias.manifest import ROOT
from robustbias.unit_explorer import files

if importlib.util.find_spec("websockets") is None:
    pytest.skip("no package websockets to talk to a browser with", allow_module_level=True)

import chrome
from toy_server import served

if chrome.CHROMIUM is None:
    pytest.skip("no chromium on this machine", allow_module_level=True)

STATIC = ROOT / "book" / "static"
BOOK = ROOT / "_build" / "html"
SHOWN = "document.querySelector('.unit-explorer')?.dataset.shown"
UNITS = "[...document.querySelectorAll('.unit-explorer .unit')].map((u) => u.dataset.unit)"
TILES = "document.querySelectorAll('.unit-grid button').length"
# what the book's theme and the browser complain about on every page
THEIRS = ("THEBE_JS_URL", "invalid theme mode", "favicon")
LIMIT = 1.5 * 2**20  # bytes before the first choice


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder with the explorer's page and its files, laid out as in the book."""
    folder = tmp_path_factory.mktemp("site")
    page = files.Page(toy_units.units())
    static = folder / "_static"
    shutil.copytree(STATIC, static)
    files.written(page.record, static / "explorer" / "iconworld")
    (folder / "iconworld").mkdir()
    body = page._repr_mimebundle_()["text/html"]
    (folder / "iconworld" / "08_unit_explorer.html").write_text(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport "
        f"content='width=device-width'><title>units</title><article>{body}"
        "<div style='height:3000px'></div></article></html>"
    )
    return folder


@pytest.fixture(scope="module", params=["http", "file", "book"])
def tab(request, site):
    """A browser, and where it finds the explorer's page."""
    folder = BOOK if request.param == "book" else site
    path = "iconworld/08_unit_explorer.html"
    if not (folder / "_static" / "explorer" / "iconworld").exists():
        pytest.skip("no book with this chapter here: run `make book` first")
    with chrome.served(folder) as address, chrome.opened() as tab:
        tab.address = f"{folder.as_uri() if request.param == 'file' else address}/{path}"
        tab.index = index(folder)
        yield tab


@pytest.fixture
def page(tab):
    """The explorer's page, just opened, with every request to other machines refused."""
    tab.open("about:blank")
    tab.pause(0.1)
    tab.errors.clear()
    tab.look(1280)
    tab.open(tab.address)
    tab.until(SHOWN, 30)
    yield tab
    assert tab.outside == []
    assert [e for e in tab.errors if not any(word in e for word in THEIRS)] == []


def index(folder: Path) -> dict:
    text = (folder / "_static" / "explorer" / "iconworld" / "index.js").read_text(encoding="utf-8")
    return json.loads(text.partition(",")[2].removesuffix(");\n"))


def after(page, act) -> str:
    """The address once an act has changed what is on the page."""
    before = page.value(SHOWN)
    act()
    return page.until(f"{SHOWN} != {before!r} && {SHOWN}")


def click(page, selector: str) -> str:
    return after(page, lambda: page.value(f"document.querySelector({selector!r}).click()"))


def test_every_unit_of_every_layer_is_there(page):
    for a, one in page.index["architectures"].items():
        if page.value("document.querySelector('.unit-architecture').value") != a:
            place = list(page.index["architectures"]).index(a)
            after(page, lambda place=place: page.choose(".unit-architecture", place))
        for i, layer in enumerate(one["layers"]):
            if page.value("document.querySelector('select.unit-layer').value") != layer["id"]:
                after(page, lambda i=i: page.choose("select.unit-layer", i))
            assert page.value(TILES) == sum(layer["n"].values())
            for side, n in layer["n"].items():
                last = f".unit-grid > [data-u='{n - 1}']"
                place = f".unit-{side} {last}"
                if page.value(f"document.querySelector({place!r}).ariaPressed") != "true":
                    click(page, place)
                assert f"{a}-{side}-{layer['id']}-{n - 1}" in page.value(UNITS)


def test_a_search_keeps_the_units_that_detect_the_concept(page):
    concept = max(page.index["detectors"], key=lambda at: len(page.index["detectors"][at]))
    name, _ = page.index["concepts"][int(concept)]
    search = f"""(() => {{ const s = document.querySelector('.unit-search');
      s.value = {name!r}; s.dispatchEvent(new Event('change')); }})()"""
    address = after(page, lambda: page.value(search))
    places = page.index["detectors"][concept]
    assert f"d=concept+{concept}" in address
    assert page.value("document.querySelectorAll('.unit-found button').length") == len(places)
    here = page.value("document.querySelector('.unit-found [aria-pressed=true]').textContent")
    _, _, counts = here.rpartition(": ")
    assert page.value(TILES) == sum(int(part.split()[1]) for part in counts.split(", "))
    page.value(search.replace(repr(name), "'no such thing'"))
    page.until("document.querySelector('.unit-status').textContent.includes('No unit detects')")


def test_the_address_restores_every_choice_and_a_unit_has_one_of_its_own(page):
    layers = next(iter(page.index["architectures"].values()))["layers"]
    after(page, lambda: page.choose(".unit-architecture", 0)) if len(
        page.index["architectures"]
    ) > 1 else None
    if page.value("document.querySelector('select.unit-layer').value") != layers[-1]["id"]:
        after(page, lambda: page.choose("select.unit-layer", len(layers) - 1))
    after(page, lambda: page.choose(".unit-order", 3))
    click(page, ".unit-s .unit-grid button:nth-child(5)")
    click(page, ".unit-mode-scatter")
    address = after(page, lambda: page.choose(".unit-axis-x", 1))
    units, here = page.value(UNITS), page.value("location.href")
    for target in (here, f"{page.address}#unit-{units[1]}", f"{page.address}?unit={units[1]}"):
        page.open("about:blank")
        page.pause(0.2)
        page.open(target)
        page.until(SHOWN)
        assert page.value(UNITS)[1] == units[1]
        if target == here:
            assert page.value(SHOWN) == address
            assert page.value(UNITS) == units
    page.value(f"location.hash = '#unit-{units[0]}'")
    page.until(f"{UNITS}[0] == {units[0]!r}")


def test_a_link_and_the_numbers_of_a_unit_can_be_taken_away(page):
    unit = page.value(UNITS)[1]
    root = "document.querySelector('.unit-r ')"
    page.value(f"{root}.querySelector('.unit-copy').click()")
    page.until(f"{root}.querySelector('.unit-copy').textContent == 'copied'")
    page.value(
        "globalThis.saved = []; URL.createObjectURL = (blob) => { saved.push(blob); return '#' }"
    )
    page.value(f"{root}.querySelector('.unit-json').click()")
    page.value(f"{root}.querySelector('.unit-csv').click()")
    written, table = page.value("Promise.all(saved.map((blob) => blob.text()))")
    numbers = json.loads(written)
    assert unit.endswith(f"-{numbers['layer']}-{numbers['unit']}")
    assert f"iou,{numbers['iou']}" in table.splitlines()
    assert numbers["concepts"][0]["iou"] >= numbers["concepts"][1]["iou"]


def test_arrow_keys_work_inside_the_explorer_alone(page):
    first = page.value(SHOWN)
    page.value("document.activeElement.blur()")
    page.press("ArrowRight")
    page.pause(0.3)
    assert page.value(SHOWN) == first
    page.value("document.querySelector('.unit-step').focus()")
    second = after(page, lambda: page.press("ArrowRight"))
    assert second != first
    after(page, lambda: page.press("ArrowLeft"))
    page.value("document.querySelector('.unit-grid button[tabindex=\"0\"]').focus()")
    before = page.value(SHOWN), page.value("document.activeElement.dataset.u")
    page.press("ArrowDown")
    page.pause(0.2)
    assert page.value("document.activeElement.dataset.u") != before[1]
    assert page.value(SHOWN) == before[0]  # a focus is not a choice


def test_a_point_of_the_scatter_plot_is_a_unit(page):
    click(page, ".unit-mode-scatter")
    points = "document.querySelectorAll('.unit-r .unit-scatter circle').length"
    assert page.value(points) > 5
    point = "document.querySelector('.unit-r .unit-scatter circle:not(.unit-chosen)')"
    unit = page.value(f"{point}.dataset.u")
    event = f"{point}.dispatchEvent(new MouseEvent('click', {{bubbles: true}}))"
    after(page, lambda: page.value(event))
    assert page.value(UNITS)[1].endswith(f"-{unit}")


def test_what_has_no_units_cannot_be_chosen(page):
    options = page.value(
        "[...document.querySelector('.unit-detects').options].map((o) => [o.text, o.disabled])"
    )
    assert all(off == ("(S 0, R 0)" in words) for words, off in options)
    assert any(off for _, off in options) or len(options) < 4


def test_a_unit_read_in_the_layer_below_is_one_click_away(page):
    layers = page.value("document.querySelector('select.unit-layer').options.length")
    if page.value("document.querySelector('select.unit-layer').selectedIndex") == 0:
        after(page, lambda: page.choose("select.unit-layer", layers - 1))
    layer = page.value("document.querySelector('select.unit-layer').value")
    below = "document.querySelector('.unit-r .unit-reads button').title"
    page.until("!!document.querySelector('.unit-r .unit-reads button')")
    unit, of = page.value(below).split(": ")[0].removeprefix("unit ").split(" of ")
    click(page, ".unit-r .unit-reads button")
    assert page.value(UNITS)[1].endswith(f"-r-{of}-{unit}")
    assert of != layer


def test_every_control_and_picture_has_a_name(page):
    unnamed = page.value(
        """[...document.querySelectorAll('.unit-explorer :is(select, input, button, [role=img])')]
        .filter((e) => !(e.ariaLabel || e.labels?.length || e.textContent.trim()))
        .map((e) => e.outerHTML)"""
    )
    assert unnamed == []
    assert page.value("[...document.querySelectorAll('.unit-facts abbr')].every((a) => a.title)")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_the_contrast_that_wcag_asks_for(page, theme):
    page.value(f"document.documentElement.dataset.theme = {theme!r}")
    if theme == "dark" and page.value("!getComputedStyle(document.body).color.includes('2')"):
        page.value("document.body.style.cssText = 'background:#121212;color:#ddd'")
        page.value(
            "document.querySelector('.unit-explorer').style.cssText = "
            "'--pst-color-text-base:#ddd;--pst-color-text-muted:#a6a6a6;"
            "--pst-color-background:#121212'"
        )
    page.pause(0.4)
    texts = page.value(
        """(() => { const ground = (e) => { for (; e; e = e.parentElement) {
          const c = getComputedStyle(e).backgroundColor;
          if (!/, 0\\)|transparent/.test(c)) return c; } return 'rgb(255, 255, 255)'; };
        return [...document.querySelectorAll('.unit-explorer *')].filter((e) =>
          [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) && e.offsetParent)
          .map((e) => [getComputedStyle(e).color, ground(e), e.textContent.slice(0, 30)]); })()"""
    )
    assert len(texts) > 50
    low = {(words, colour) for colour, behind, words in texts if contrast(colour, behind) < 4.5}
    assert low == set()


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2, of two CSS colours."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    rgb = np.array([float(v) for v in colour[colour.index("(") + 1 : -1].split(",")[:3]]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


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


def test_the_first_screen_has_a_unit(page):
    top = page.value(
        "document.querySelector('.unit-picture, .unit').getBoundingClientRect().top + scrollY"
    )
    assert top < 700


def test_a_page_is_small_before_the_first_choice_and_a_layer_comes_quickly(page):
    if page.address.startswith("file"):
        pytest.skip("a browser does not say how large what it read from a folder is")
    sizes = """performance.getEntriesByType('resource').filter((e) =>
      /explorer|visualisations/.test(e.name)).map((e) => [e.name, e.encodedBodySize])"""
    loaded = dict(page.value(sizes))
    assert sum(loaded.values()) < LIMIT, loaded
    place = page.value("document.querySelector('select.unit-layer').selectedIndex")
    started = time.perf_counter()
    after(page, lambda: page.choose("select.unit-layer", 0 if place else 1))
    assert time.perf_counter() - started < 0.5


# -- live ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """A server of the app over the toy units."""
    tests = str(Path(__file__).parent)
    source = f"import sys\nsys.path.insert(0, {tests!r})\nimport toy_units\n"
    source += "from robustbias.unit_explorer import app\napp.App(toy_units.units())"
    with served(tmp_path_factory.mktemp("live"), source) as server:
        yield server


def test_the_live_app_attacks_an_upload_and_silences_units(live, tmp_path):
    Image.fromarray(np.full((60, 80, 3), (200, 60, 40), np.uint8)).save(tmp_path / "red.png")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "large.png").write_bytes(bytes(30 * 2**20))
    figures = "document.querySelectorAll('.unit-trials .unit-figure').length"
    said = "document.querySelector('.unit-status').textContent"
    shown = SHOWN.replace(".unit-explorer", ".unit-explorer[data-shown]")
    with chrome.opened() as page:
        page.look(1280, 1600)
        page.open(live.address)
        first = page.until(shown, 240)
        page.choose("select.unit-layer", 1)
        page.until(f"{shown} != {first!r}", 60)
        assert all("-features.9-" in unit for unit in page.value(f"{UNITS}.filter((u) => u)"))

        page.upload(".unit-upload", tmp_path / "notes.txt")
        page.until(f"{said}.includes('notes.txt is not an image')")
        page.upload(".unit-upload", tmp_path / "large.png")
        page.until(f"{said}.includes('large.png has 30 MB; expected at most 10')", 60)
        assert page.value(figures) == 0
        page.upload(".unit-upload", tmp_path / "red.png")
        page.until(f"{figures} == 2")

        page.value("document.querySelector('.unit-eps').focus()")
        page.press("ArrowRight")
        page.until(f"{figures} == 4")
        before = page.value("document.querySelectorAll('.unit-trials img')[2].src")
        started = time.perf_counter()
        page.press("ArrowRight")
        page.until(f"document.querySelectorAll('.unit-trials img')[2].src != {before!r}")
        assert time.perf_counter() - started < 5  # a second on a machine that does nothing else

        page.value("document.querySelector('.unit-silence').click()")
        page.until("document.body.innerText.includes('answers to cue conflicts change')")
        page.until(f"{said}.includes('done in')")
        assert [e for e in page.errors if not any(word in e for word in THEIRS)] == []
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
