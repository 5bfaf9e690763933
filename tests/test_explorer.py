"""The unit explorer: the numbers of the tables, its files, pictures, uploads and trials."""

import io
import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

import toy_networks
from robustbias import studies
from robustbias.images import floats
from robustbias.networks import hooks, zoo
from robustbias.smooth_filters import visualisation
from robustbias.studies import held_out_sample
from robustbias.unit_explorer import app as unit_explorer_app
from robustbias.unit_explorer import data, files, measure, sprites, trials, units
from robustbias.utils import UserError, unit_links
from toy_images import bomb

LAYER = "features.9"
NO_IMAGES = torch.zeros(1, 0, dtype=torch.long)


@pytest.fixture(scope="module")
def study():
    return studies.load("iconworld", device="cpu", architectures=["alexnet"], replicates=[1])


@pytest.fixture(scope="module")
def tables(study, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROBUSTBIAS_TABLES", str(tmp_path_factory.mktemp("tables")))
        yield data.unit_tables(study, n_concepts=120, n_smooth=8, n_tops=100, n_each=2)


@pytest.fixture(scope="module")
def alexnet(study, tables):
    return data.unit_data(study, tables, n_concepts=120)


def entry(alexnet, regime):
    return alexnet.pairs["alexnet"][regime]


@pytest.fixture(scope="module")
def layer(alexnet):
    return files.layer(alexnet, "alexnet", LAYER)


def selected(table: pd.DataFrame, **where) -> pd.DataFrame:
    for column, value in where.items():
        table = table[table[column] == value]
    return table


@pytest.mark.parametrize(
    ("name", "measure", "where"),
    [
        ("tv", "smoothness", {"condition": "maps", "metric": "tv_normalised"}),
        ("noise_gain", "smoothness", {"condition": "noise", "sigma": 0.08}),
        ("effective_classes", "input_types", {"metric": "effective_classes"}),
        ("distance", "input_types", {"metric": "distance"}),
        ("shape_score", "ablation", {"metric": "shape_score"}),
        ("texture_score", "ablation", {"metric": "texture_score"}),
        ("clean_score", "ablation", {"metric": "clean_score"}),
        ("attacked_peak", "attacked_units", {"condition": "attacked"}),
    ],
)
def test_a_layer_has_the_numbers_of_the_tables(alexnet, tables, layer, name, measure, where):
    robust = entry(alexnet, "robust").name
    rows = selected(tables[measure], network=robust, layer=LAYER, **where)
    rows = rows[rows["unit"] >= 0].dropna(subset=["value"])
    assert len(rows) > 0
    shown = [layer["r"]["facts"][name][unit] for unit in rows["unit"]]
    assert shown == pytest.approx(rows["value"].tolist(), abs=0.0051)


def test_a_unit_has_the_concepts_with_the_highest_iou(alexnet, tables, layer):
    where = {"network": entry(alexnet, "standard").name, "layer": LAYER, "unit": 5, "metric": "iou"}
    iou = selected(tables["dissection"], **where).sort_values("value")
    best = layer["s"]["best"][5]
    assert [value for _, value, _ in best] == [round(v, 3) for v in iou["value"].iloc[:-6:-1]]
    concepts = files.index(alexnet)["concepts"]
    assert concepts[best[0][0]] == (iou.iloc[-1]["concept"], iou.iloc[-1]["category"])


def test_the_first_layer_has_the_tv_of_its_filter_and_others_have_none(alexnet, tables, layer):
    name = entry(alexnet, "standard").name
    where = {"network": name, "condition": "filters", "metric": "tv_normalised"}
    rows = selected(tables["smoothness"], **where)
    rows = rows[rows["scope"] == "unit"]
    first = rows[rows["layer"] == rows["layer"].iloc[0]].set_index("unit")["value"]
    side = files.layer(alexnet, "alexnet", "features.1")["s"]
    assert side["facts"]["filter_tv"] == [round(v, 2) for v in first]
    assert side["filters"].startswith("data:image/png")
    assert "filter_tv" not in layer["s"]["facts"]
    assert "filters" not in layer["s"]


def test_a_table_with_a_unit_twice_is_refused(alexnet, tables):
    twice = {**tables, "ablation": pd.concat([tables["ablation"]] * 2)}
    with pytest.raises(UserError, match="twice"):
        units.joined(twice, [entry.name for entry in alexnet.pairs["alexnet"].values()])


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
    path = files.outline(map, 0.5, side=8)
    x, y, *steps = [int(number) for number in re.findall(r"-?\d+", path)]
    corners = np.cumsum([(x, y), *zip(steps[::2], steps[1::2], strict=True)], axis=0) / 16
    # half way from the centres inside to those outside
    assert corners.min(0) == pytest.approx([4, 2], abs=0.1)
    assert corners.max(0) == pytest.approx([7, 4], abs=0.1)


def test_an_outline_that_ends_at_the_border_is_closed_and_one_of_nothing_is_empty():
    map = torch.zeros(4, 4)
    map[:, :2] = 1.0
    path = files.outline(map, 0.5)
    assert path.count("M") == path.count("z") == 1
    assert files.outline(map, 2.0) == ""


def test_heights_show_a_single_image():
    top = data.TopImages(NO_IMAGES, torch.zeros(1, 0, 4, 4), torch.tensor([[0.0] * 1000 + [1.0]]))
    heights = files._heights(top, 0)
    assert len(heights) == data.BINS
    assert heights[0] == "z"
    assert heights[-1] != "0"
    assert set(heights[1:-1]) == {"0"}


def test_lower_quantiles_are_of_all_images(alexnet, layer):
    peaks = alexnet.top_images(entry(alexnet, "robust").name)[LAYER].peaks[3]
    median = peaks[layer["r"]["lower"][3][1]]
    assert (peaks < median).float().mean() == pytest.approx(0.5, abs=2 / len(peaks))
    assert layer["r"]["quantiles"][3][-1] == pytest.approx(float(peaks.max()), rel=0.01)


def test_images_that_may_not_be_published_are_in_no_file(alexnet, tmp_path):
    page = files.Page(alexnet, show_images=False)
    files.written(page.record, tmp_path)
    assert not page.record["index"]["images"]
    assert not page.record["index"]["image"]["words"]
    text = "".join(path.read_text() for path in tmp_path.rglob("*.js"))
    assert not any(f'"{key}"' in text for key in ("top", "lower", "maps", "outlines"))
    assert {path.suffix for path in tmp_path.rglob("*.*")} == {".js"}


def test_the_files_of_a_page_have_every_unit_once_and_its_detectors_add_up(alexnet, tmp_path):
    files.written(files.Page(alexnet).record, tmp_path)
    index = script(tmp_path / "index.js", "index", "iconworld")
    counted = 0
    for one in index["architectures"]["alexnet"]["layers"]:
        key = f"alexnet/{one['id']}"
        sides = script(tmp_path / f"{key}.js", "layer", f"iconworld/{key}")
        for side, regime in files.SIDES.items():
            units = alexnet.layer(entry(alexnet, regime).name, one["id"])
            assert one["n"][side] == sides[side]["n"] == len(units)
            lengths = {len(v) for v in sides[side]["facts"].values()} | {
                len(sides[side][name]) for name in ("best", "quantiles", "top", "outlines", "maps")
            }
            assert lengths == {len(units)}
            assert sum(one["detects"][side].values()) == len(units)
            counted += int(units["detector"].sum())
    places = [place for of in index["detectors"].values() for place in of]
    assert sum(s + r for *_, s, r in places) == counted
    assert (tmp_path / "images.avif").stat().st_size > 1000
    start = index["start"]
    assert start["r"] < len(alexnet.layer(entry(alexnet, "robust").name, start["l"]))


def test_a_record_survives_the_notebook():
    record = {"index": {"study": "ä", "n": [1, None, 0.5]}, "layers": {}}
    assert files.unpacked(files.packed(record)) == record
    assert "\n" not in files.packed(record)


def script(path, function: str, name: str) -> dict:
    """The JSON that a file of the page calls a function with."""
    text = path.read_text(encoding="utf-8")
    head = f'unitExplorer.{function}("{name}",'
    assert text.startswith(head)
    return json.loads(text.removeprefix(head).removesuffix(");\n"))


def test_what_a_unit_reads_is_weight_times_mean_activation_where_nothing_lies_between():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1), nn.Flatten())
    made = toy_networks.entry(size=8, mean=(0.0,) * 3, std=(1.0,) * 3, layers=("0", "1"))
    pixels = torch.rand(5, 3, 8, 8)
    reads = measure.read_from(zoo.Network(made, body), "0", "1", pixels)
    with torch.no_grad():
        expected = body[1].weight[:, :, 0, 0] * body[0](pixels).mean((0, 2, 3))
    torch.testing.assert_close(reads, expected)


def test_peaks_are_of_clean_and_attacked_images(study, tables):
    table = tables["attacked_units"]
    rows = selected(table, layer=LAYER, network="iconworld-alexnet-s-1", condition="clean")
    images = held_out_sample(study, 128, torch.Generator().manual_seed(study.seed))
    peaks = hooks.peaks(study.network_named("iconworld-alexnet-s-1"), images.pixels, [LAYER])[LAYER]
    assert rows["value"].tolist() == pytest.approx(peaks.mean(0).tolist(), abs=1e-3)
    change = table.pivot(index=["network", "layer", "unit"], columns="condition", values="value")
    assert (change["attacked"] - change["clean"]).abs().max() > 0.1


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


def asked(app, ask: str, *buffers: bytes, **about):
    where = {"study": "iconworld", "architecture": "alexnet", "layer": LAYER, "s": 3, "r": 7}
    return app.answer({"ask": ask, "about": {**where, **about}}, list(buffers))


def test_the_app_gives_the_parts_that_a_page_has(app, alexnet):
    index = asked(app, "index", about=["iconworld"])
    assert index["live"]["methods"]
    del index["live"]
    assert index == files.index(alexnet)
    assert asked(app, "layer", about=["iconworld", f"alexnet/{LAYER}"])["s"]["n"] > 0
    assert asked(app, "images", about=["iconworld"]).startswith("data:image/jpeg")
    with pytest.raises(UserError, match="unknown question 'formula'"):
        asked(app, "formula")


def test_an_upload_is_shown_to_both_networks_and_attacked(app):
    asked(app, "upload", file(Image.new("RGB", (80, 60), (200, 40, 40))), name="red.png")
    trial = {"stimulus": None, "eps": 0.0, "method": ""}
    sides = asked(app, "trial", **trial)["sides"]
    assert [(one["side"], one["unit"], len(one["views"])) for one in sides] == [
        ("s", 3, 1), ("r", 7, 1),
    ]  # fmt: skip
    sides = asked(app, "trial", **trial | {"eps": 1.0, "method": "saliency"})["sides"]
    assert all(len(one["views"]) == 3 for one in sides)
    assert all("its answer" in one["words"] for one in sides)
    shares = [share for _, share in sides[0]["views"][0]["answers"]]
    assert shares == sorted(shares, reverse=True)


def test_a_trial_without_an_image_and_a_refused_upload_are_one_message(app):
    with pytest.raises(UserError, match="there is no image yet"):
        asked(app, "trial", stimulus=None, eps=0.0, method="")
    with pytest.raises(UserError, match="notes.txt is not an image"):
        asked(app, "upload", b"hello", name="notes.txt")


def test_silencing_says_which_answers_change(app):
    sides = asked(app, "silence")["sides"]
    for one in sides:
        changed = int(re.match(r"(\d+) of 240 answers to cue conflicts change", one["words"])[1])
        assert len(one["changes"]) == min(changed, unit_explorer_app.N_CHANGED)


def test_a_page_built_by_a_program_has_no_dead_live_part(monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    monkeypatch.delenv("SERVER_SOFTWARE", raising=False)
    assert not unit_explorer_app.served()
    monkeypatch.setenv("SERVER_SOFTWARE", "voila/0.5")
    assert unit_explorer_app.served()


def test_links_lead_to_units_of_the_page():
    html = unit_links([("googlenet", "robust", "inception4c", 17)])
    assert "'08_unit_explorer.html#unit-googlenet-r-inception4c-17'" in html


def test_sheets_are_drawn_where_weights_are_new(study, monkeypatch, tmp_path):
    def pictured(network, layer, units, natural, seed):
        assert natural[layer].shape[1] == len(units)
        pixels = torch.zeros(len(units), 3, 64, 64)
        pixels[:, 0] = torch.linspace(0, 1, len(units))[:, None, None]
        return pixels, {"likeness": torch.where(units == 1, torch.nan, units / 7)}

    monkeypatch.setattr(sprites, "FOLDER", tmp_path)
    monkeypatch.setattr(sprites, "N_IMAGES", 8)
    monkeypatch.setattr(visualisation, "pictured", pictured)
    standard = next(one for one in study.entries if one.name == "iconworld-alexnet-s-1")
    assert sprites.numbers(study, standard) == {}
    paths = list(sprites.drawn(study))
    assert len(paths) == 2 * (len(standard.layers) + 1)
    values = sprites.numbers(study, standard)[LAYER]["likeness"]
    assert values[:3] == [0.0, None, round(2 / 7, 3)]
    sheet = Image.open(tmp_path / "iconworld" / f"{standard.name}-{LAYER}.avif")
    assert sheet.size == (64 * sprites.COLUMNS, 64 * -(-len(values) // sprites.COLUMNS))
    red = sheet.getpixel((32 + 64 * 2, 32))[0]
    assert red == pytest.approx(255 * 2 / (len(values) - 1), abs=12)
    assert list(sprites.drawn(study)) == []
    facts = tmp_path / "iconworld" / f"{standard.name}.json"
    facts.write_text(facts.read_text().replace('"weights":"', '"weights":"other'))
    assert sprites.numbers(study, standard) == {}
    assert len(list(sprites.drawn(study))) == len(standard.layers) + 1
