"""The unit explorer: the numbers of the tables, its orders, pictures, uploads and trials."""

import datetime
import io
import re

import ipywidgets
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from robustbias import studies
from robustbias.images import floats
from robustbias.networks import hooks
from robustbias.unit_explorer import app as unit_explorer_app
from robustbias.unit_explorer import cards, data, page, trials, units
from robustbias.utils import UserError
from toy_images import bomb

LAYER = "features.9"
NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


@pytest.fixture(scope="module")
def study():
    return studies.load("iconworld", device="cpu", architectures=["alexnet"])


@pytest.fixture(scope="module")
def tables(study, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROBUSTBIAS_TABLES", str(tmp_path_factory.mktemp("tables")))
        yield data.unit_tables(study, n_concepts=120, n_smooth=8, n_tops=100, n_each=2)


@pytest.fixture(scope="module")
def alexnet(study, tables):
    return data.unit_data(study, tables, n_concepts=120)


@pytest.fixture(scope="module")
def sheet(alexnet):
    return cards.Sheet(alexnet.images.pixels, range(len(alexnet.images)))


def entry(alexnet, regime):
    return alexnet.pairs["alexnet"][regime]


def test_a_card_has_the_numbers_of_the_tables(alexnet, tables, sheet):
    robust = entry(alexnet, "robust")
    metrics = {
        "tv": ("smoothness", {"condition": "maps", "metric": "tv_normalised"}, "{:.2f}"),
        "noise_gain": ("smoothness", {"condition": "noise", "sigma": 0.08}, "{:.2f}"),
        "concepts_met": ("input_types", {"metric": "concepts"}, "{:.0f}"),
        "effective_classes": ("input_types", {"metric": "effective_classes"}, "{:.2f}"),
        "distance": ("input_types", {"metric": "distance"}, "{:.2f}"),
        "shape_score": ("ablation", {"metric": "shape_score"}, "{:.0f}/2"),
        "texture_score": ("ablation", {"metric": "texture_score"}, "{:.0f}/2"),
        "clean_score": ("ablation", {"metric": "clean_score"}, "{:.0f}/2"),
    }
    compared = 0
    for layer in alexnet.shared_layers("alexnet"):
        for unit in alexnet.layer(robust.name, layer)["unit"].tolist()[::20]:
            card = cards.card(alexnet, robust, layer, unit, sheet)
            numbers = dict(re.findall(r"<dd data-fact=(\w+)>([^<]+)</dd>", card))
            for name, (measure, where, form) in metrics.items():
                where = {"network": robust.name, "layer": layer, "unit": unit, **where}
                rows = selected(tables[measure], **where)
                expected = [form.format(v) for v in rows["value"].dropna()]
                assert expected == [numbers.get(name)] * len(expected)
                assert bool(expected) == (name in numbers)
                compared += len(expected)
    assert compared > 60


def selected(table: pd.DataFrame, **where) -> pd.DataFrame:
    for column, value in where.items():
        table = table[table[column] == value]
    return table


def test_a_card_shows_the_concepts_with_the_highest_iou(alexnet, tables, sheet):
    standard = entry(alexnet, "standard")
    card = cards.card(alexnet, standard, LAYER, 5, sheet)
    where = {"network": standard.name, "layer": LAYER, "unit": 5, "metric": "iou"}
    iou = selected(tables["dissection"], **where).sort_values("value")
    rows = re.findall(r"<tr><th>([^<]+) <small>([^<]+)</small></th>.*?<td>([\d.]+)</td></tr>", card)
    assert [value for *_, value in rows] == [f"{v:.3f}" for v in iou["value"].iloc[:-6:-1]]
    assert rows[0][:2] == (iou.iloc[-1]["concept"], iou.iloc[-1]["category"])


def test_the_first_layer_has_the_tv_of_its_filter_and_others_have_none(alexnet, tables):
    name = entry(alexnet, "standard").name
    where = {"network": name, "condition": "filters", "metric": "tv_normalised"}
    rows = selected(tables["smoothness"], **where)
    rows = rows[rows["scope"] == "unit"]
    first = rows[rows["layer"] == rows["layer"].iloc[0]].set_index("unit")["value"]
    tv = alexnet.layer(name, "features.1").set_index("unit")["filter_tv"]
    assert tv.tolist() == first.tolist()
    assert alexnet.layer(name, LAYER)["filter_tv"].isna().all()


def test_a_table_with_a_unit_twice_is_refused(alexnet, tables):
    twice = {**tables, "ablation": pd.concat([tables["ablation"]] * 2)}
    with pytest.raises(UserError, match="twice"):
        units.joined(twice, [entry.name for entry in alexnet.pairs["alexnet"].values()])


def test_an_unknown_unit_is_one_message(alexnet):
    with pytest.raises(UserError, match="has units 0 to"):
        alexnet.unit(entry(alexnet, "robust").name, LAYER, 10_000)


def layer_of(**columns) -> pd.DataFrame:
    return pd.DataFrame({"unit": range(4), **columns})


def test_equal_units_come_by_number_and_units_without_a_value_are_left_out():
    layer = layer_of(tv=[0.5, np.nan, 0.5, 0.1])
    assert units.View("", "tv").ranked(layer) == [0, 2, 3]
    assert units.View("", "tv", descending=False).ranked(layer) == [3, 0, 2]


def test_a_filter_keeps_the_detectors_of_a_category():
    detects = ["object", "texture", "object", "no concept"]
    layer = layer_of(iou=[0.1, 0.3, 0.2, 0.05], detects=detects)
    assert units.View("", "iou", detects="object").ranked(layer) == [2, 0]
    assert units.View("", "iou", detects="scene").ranked(layer) == []


def test_every_view_of_a_page_is_about_a_column_of_the_tables(alexnet):
    by = {view.by for view in alexnet.views()}
    assert by == {"iou", "tv", "shape_minus_texture"}
    assert len({view.title for view in alexnet.views()}) == len(alexnet.views())


def test_top_images_are_those_with_the_highest_peaks(study, alexnet):
    network = study.network_named(entry(alexnet, "standard").name)
    pixels = alexnet.images.pixels[:50]
    top = data.top_images(network, pixels, [LAYER], m=3, batch=16)[LAYER]
    with torch.no_grad():
        maps = hooks.prefix(network, LAYER, floats(pixels))
    peaks = maps.amax((2, 3)).T
    torch.testing.assert_close(top.peaks, peaks, atol=1e-4, rtol=1e-4)
    expected = peaks.topk(3, dim=1).values
    alive = expected[:, 2] > 0
    reached = peaks.gather(1, top.images).sort(dim=1, descending=True).values
    torch.testing.assert_close(reached[alive], expected[alive], atol=1e-4, rtol=1e-4)
    unit = int(alive.nonzero()[0])
    image = int(top.images[unit, 0])
    torch.testing.assert_close(top.maps[unit, 0], maps[image, unit], atol=1e-4, rtol=1e-4)


def test_a_histogram_counts_every_image(alexnet):
    top = alexnet.top_images(entry(alexnet, "robust").name)[LAYER]
    counts, low, high = top.histogram(3)
    assert int(counts.sum()) == len(alexnet.images)
    assert (low, high) == (0.0, float(top.peaks[3].max()))


def test_an_outline_surrounds_the_pixels_above_the_threshold():
    map = torch.zeros(8, 8)
    map[2:4, 4:7] = 1.0
    path = cards.outline(map, 0.5, side=8)
    x, y, *steps = [int(number) for number in re.findall(r"-?\d+", path)]
    corners = np.cumsum([(x, y), *zip(steps[::2], steps[1::2], strict=True)], axis=0) / 16
    # half way from the centres inside to those outside
    assert corners.min(0) == pytest.approx([4, 2], abs=0.1)
    assert corners.max(0) == pytest.approx([7, 4], abs=0.1)


def test_an_outline_that_ends_at_the_border_is_closed_and_one_of_nothing_is_empty():
    map = torch.zeros(4, 4)
    map[:, :2] = 1.0
    path = cards.outline(map, 0.5)
    assert path.count("M") == path.count("z") == 1
    assert cards.outline(map, 2.0) == ""


def test_a_sheet_has_each_image_once_at_its_position():
    pixels = torch.zeros(9, 3, 4, 4, dtype=torch.uint8)
    sheet = cards.Sheet(pixels, [7, 1, 7, 3])
    assert (sheet.columns, sheet.rows) == (2, 2)
    assert sheet.style(1) == "background-position:0% 0%"
    assert sheet.style(7) == "background-position:0% 100%"
    assert "background-size:200% 200%" in sheet.css()


def test_images_that_may_not_be_published_are_in_no_sheet():
    sheet = cards.Sheet(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), [0, 1], show_images=False)
    assert sheet.css() == sheet.style(1) == ""


def test_bars_show_a_single_image():
    assert cards.bars(torch.tensor([10_000, 0, 1]), 10) == "M0 10v-10h4v10h4v-1h4V10z"


def test_a_page_links_every_choice_and_has_each_card_once(alexnet):
    widgets = list(every_widget(page.page(alexnet, n_units=2)))
    names = [name for w in widgets for name in re.findall(r"data-unit='([^']+)'", text(w))]
    assert len(names) == len(set(names))
    views, layers = len(alexnet.views()), len(alexnet.shared_layers("alexnet"))
    stacks = [w for w in widgets if isinstance(w, ipywidgets.Stack)]
    assert len(stacks) == 2 + 1 + layers + 2 * layers * views
    table = alexnet.layer(entry(alexnet, "robust").name, LAYER)
    assert f"alexnet-r-{LAYER}-{alexnet.views()[0].ranked(table)[0]}" in names


def every_widget(root) -> set:
    """The widget and those in it, each once."""
    return {root}.union(*(every_widget(child) for child in getattr(root, "children", ())))


def text(widget) -> str:
    return widget.value if isinstance(widget, ipywidgets.HTML) else ""


def test_a_page_without_images_has_none(alexnet):
    root = page.page(alexnet, n_units=1, show_images=False)
    html = "".join(text(widget) for widget in every_widget(root))
    assert "image/webp" not in html
    assert "<img class=unit-maps" not in html
    assert "<path" in html


def test_addresses_of_a_page_are_those_of_its_views(alexnet):
    script = page.links(alexnet, n_units=2).data
    assert '"alexnet":{"features.1":{"s":[[' in script


def file(image: Image.Image, format: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("image", "format"),
    [
        (Image.new("CMYK", (90, 60), (0, 255, 255, 0)), "JPEG"),
        (Image.new("RGB", (60, 90), (255, 0, 0)).convert("P"), "PNG"),
        (Image.new("RGBA", (64, 64), (255, 0, 0, 255)), "PNG"),
        (Image.new("RGB", (70, 70), (255, 0, 0)), "WEBP"),
        (Image.new("RGB", (70, 70), (255, 0, 0)).convert("P"), "GIF"),
    ],
    ids=["CMYK", "palette", "alpha", "WebP", "GIF"],
)
def test_images_of_every_mode_become_rgb(image, format):
    pixels = trials.square(file(image, format), "x", 32)
    assert pixels.shape == (3, 32, 32)
    assert pixels.float().mean((1, 2)).tolist() == pytest.approx([255, 0, 0], abs=4)


def test_transparency_shows_mid_grey_and_16_bits_are_not_cut_off():
    clear = trials.square(file(Image.new("RGBA", (40, 40), (255, 0, 0, 0))), "x", 16)
    assert clear.unique().tolist() == [128]
    ramp = np.linspace(0, 65535, 40 * 40).reshape(40, 40).astype(np.uint16)
    grey = trials.square(file(Image.fromarray(ramp)), "x", 16)
    assert grey.min() < 16
    assert 110 < grey.float().mean() < 145


@pytest.mark.parametrize("value", [0, 6_554, 32_896, 65_535])
def test_16_bits_keep_their_brightness(value):
    content = file(Image.fromarray(np.full((40, 40), value, np.uint16)))
    assert trials.square(content, "x", 16).unique().tolist() == [value // 257]


def test_the_middle_of_a_wide_image_is_kept():
    pixels = np.zeros((40, 120, 3), np.uint8)
    pixels[:, 40:80] = 255
    assert trials.square(file(Image.fromarray(pixels)), "x", 16).min() > 200


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no image at all", "x is not an image"),
        (b"", "x is not an image"),
        (file(Image.new("RGB", (64, 64)))[:60], "damaged"),
        (file(Image.new("RGB", (200, 8))), "16 or more"),
        (bytes(trials.MAX_BYTES + 1), "at most 10"),
    ],
    ids=["text", "empty", "cut off", "tiny", "large file"],
)
def test_what_cannot_be_shown_is_refused_with_one_message(content, message):
    with pytest.raises(UserError, match=message):
        trials.square(content, "x", 32)


def test_100_megapixels_are_refused_before_they_are_decoded(monkeypatch):
    content, larger = bomb(10_000, 10_000), bomb(40_000, 40_000)
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    with pytest.raises(UserError, match="10000 x 10000 pixels; expected at most 24 million"):
        trials.square(content, "x", 32)
    with pytest.raises(UserError, match="x has far too many pixels; expected at most 24 million"):
        trials.square(larger, "x", 32)


def test_an_attack_stays_in_its_radius_and_the_same_one_comes_again(study, alexnet):
    standard = entry(alexnet, "standard")
    image = alexnet.images.pixels[0].float() / 255
    first, again = (trials.attacked(study, standard, image, 0.5, steps=3) for _ in range(2))
    assert 0 < float((first - image).norm()) <= 0.5 + 1e-4
    torch.testing.assert_close(first, again)


def test_silencing_a_unit_is_what_a_zeroed_unit_gives(study, alexnet):
    robust = entry(alexnet, "robust")
    network = study.network_named(robust.name)
    conflicts = trials.Conflicts(study, n=40)
    result = conflicts.silenced(robust, LAYER, 7)

    def zeroed(maps):
        keep = torch.ones(maps.shape[1])
        keep[7] = 0
        return maps * keep[:, None, None]

    pixels = floats(conflicts.stimuli.pixels)
    with torch.no_grad():
        plain = network(pixels).argmax(1)
        with hooks.edited(network, LAYER, zeroed):
            without = network(pixels).argmax(1)
    assert result.before.tolist() == plain.tolist()
    assert result.after.tolist() == without.tolist()
    counts = result.counts()
    assert sum(n for _, n in counts.values()) == 40
    assert sum(changed for changed, _ in counts.values()) == len(result.changed)


@pytest.fixture
def app(alexnet):
    return unit_explorer_app.App(alexnet)


def test_choosing_a_layer_shows_its_units(app):
    app.layer.value = LAYER
    assert f"data-unit='alexnet-s-{LAYER}-" in app.cards["standard"].value
    assert f"data-unit='alexnet-r-{LAYER}-" in app.cards["robust"].value
    before = app.units["robust"].value
    app.forward.click()
    assert app.units["robust"].index == 1
    assert app.units["robust"].value != before
    assert "done in" in app.status.value


def test_a_filter_that_no_unit_passes_says_so(app, alexnet):
    app.layer.value = "features.1"
    counts = alexnet.layer(entry(alexnet, "robust").name, "features.1")["detects"]
    absent = next(c for c in app.detects.options if c not in {"all units", *counts})
    app.detects.value = absent
    assert "No unit of this layer" in app.cards["robust"].value


def upload(app, name: str, content: bytes) -> None:
    about = {"name": name, "type": "", "size": len(content), "last_modified": NOW}
    app.upload.value = ({**about, "content": content},)


def test_an_upload_is_shown_to_both_networks_and_attacked(app):
    upload(app, "red.png", file(Image.new("RGB", (80, 60), (200, 40, 40))))
    assert app.trials["standard"].value.count("<figure>") == 1
    app.eps.value = app.eps.max / 4
    assert all(one.value.count("<figure>") == 2 for one in app.trials.values())
    app.method.value = "saliency"
    assert all(one.value.count("<figure>") == 3 for one in app.trials.values())


def test_a_refused_upload_leaves_one_message(app):
    upload(app, "notes.txt", b"hello")
    assert "role=alert" in app.status.value
    assert "notes.txt is not an image" in app.status.value
    assert app.trials["standard"].value == ""


def test_silencing_says_which_answers_change(app):
    app.layer.value = LAYER
    app.silence.click()
    assert re.search(r"\d+ of 240 answers to cue conflicts change", app.ablations["robust"].value)


def test_a_page_built_by_a_program_has_no_dead_live_part(monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    monkeypatch.delenv("SERVER_SOFTWARE", raising=False)
    assert not unit_explorer_app.served()
    monkeypatch.setenv("SERVER_SOFTWARE", "voila/0.5")
    assert unit_explorer_app.served()
