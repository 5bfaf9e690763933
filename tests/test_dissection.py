"""Network Dissection against its literal self, a planted detector, and the nulls."""

import gc
import weakref

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import literal_dissection
import toy_networks
import toy_study
from robustbias.concepts import measure, netdissect, report
from robustbias.concepts.measure import UNIT, concept_set, dissection, labels
from robustbias.concepts.netdissect import (
    activations_above,
    dissected,
    pixels_above,
    spans,
    true_indices,
    upper_quantiles,
)
from robustbias.images import concepts as concepts_module
from robustbias.images import floats
from robustbias.images.concepts import Concepts
from robustbias.networks import zoo
from robustbias.networks.zoo import Network
from robustbias.utils import UserError

SIDE = 16
ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


@pytest.fixture(autouse=True)
def _tables(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTBIAS_TABLES", str(tmp_path))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Body(nn.Sequential):
    """Two layers whose units look at colours; the last unit of the first is dead."""

    def __init__(self):
        super().__init__()
        self.add_module("first", nn.Conv2d(3, 6, 3, 2, 1))
        self.add_module("relu", nn.ReLU(inplace=True))
        self.add_module("second", nn.Conv2d(6, 5, 3, 3, 1))
        self.add_module("mean", nn.AdaptiveAvgPool2d(1))
        self.add_module("flat", nn.Flatten())
        for layer in (self.first, self.second):
            nn.init.normal_(layer.weight, generator=seeded(7))
            nn.init.zeros_(layer.bias)
        self.first.weight.data[5], self.first.bias.data[5] = 0, -1


def network(mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), body: nn.Module | None = None) -> Network:
    entry = toy_networks.entry(layers=("relu", "second"), mean=mean, std=std, size=SIDE)
    return Network(entry, body or Body()).eval()


def random_concepts(n: int = 30, side: int = 8) -> Concepts:
    """Random images and labels: two categories of which not all images carry the second."""
    g = seeded(1)
    pixels = torch.randint(0, 256, (n, 3, SIDE, SIDE), generator=g, dtype=torch.uint8)
    return Concepts(
        pixels,
        {
            "object": torch.randint(0, 4, (n, 1, side, side), generator=g, dtype=torch.uint8),
            "part": torch.randint(0, 3, (n, 2, side, side), generator=g, dtype=torch.uint8),
            "scene": torch.randint(0, 3, (n, 1, 1, 1), generator=g, dtype=torch.uint8),
        },
        {"object": ("a", "b", "c"), "part": ("d", "e"), "scene": ("f", "g")},
        {
            "object": torch.ones(n, dtype=torch.bool),
            "part": torch.arange(n) % 3 > 0,
            "scene": torch.arange(n) % 2 > 0,
        },
    )


def literally(net: Network, concepts: Concepts, share: float):
    def forward():
        for index in torch.arange(len(concepts)).split(7):
            x = (floats(concepts.pixels[index]) - net.mean) / net.std
            with torch.no_grad():
                relu = net.body.relu(net.body.first(x))
                maps = {"relu": relu, "second": net.body.second(relu)}
            yield index.numpy(), {layer: own.numpy() for layer, own in maps.items()}

    return literal_dissection.dissected(
        forward,
        {c: m.numpy() for c, m in concepts.maps.items()},
        {c: len(names) for c, names in concepts.names.items()},
        {c: own.numpy() for c, own in concepts.carried.items()},
        concepts.side,
        share,
    )


@pytest.mark.parametrize("share", [0.005, 0.1])
@pytest.mark.parametrize("batch", [4, 100])
@pytest.mark.parametrize("few", [0, 10_000])
def test_iou_and_thresholds_are_those_of_the_literal_two_passes(share, batch, few, monkeypatch):
    monkeypatch.setattr(concepts_module, "FEW", few)
    net, concepts = network(), random_concepts()
    options = {"share": share, "batch": batch, "generator": seeded()}
    ours = dissected(net, concepts, ("relu", "second"), **options)
    for layer, (limits, iou) in literally(net, concepts, share).items():
        np.testing.assert_allclose(ours[layer].thresholds, limits, rtol=1e-6)
        np.testing.assert_allclose(ours[layer].iou, iou, rtol=1e-6, atol=1e-9)
        best = ours[layer].iou.max(1).values > 0
        np.testing.assert_array_equal(ours[layer].iou.argmax(1)[best], iou.argmax(1)[best])
        above = ours[layer].above / ours[layer].positions
        assert ((above <= share) & (above > share / 2 - 1e-3) | (above == 0)).all()


def test_dead_units_detect_nothing_and_have_no_nan():
    ours = dissected(network(), random_concepts(), ["relu"], generator=seeded())["relu"]
    assert ours.thresholds[5] == 0
    assert (ours.iou[5] == 0).all()
    assert (ours.null_iou[5] == 0).all()
    assert ours.iou.isfinite().all()


@pytest.mark.parametrize("share", [0.005, 0.05, 0.3])
@pytest.mark.parametrize("memory", [0, 30_000])
def test_little_memory_changes_no_threshold_and_no_count(share, memory):
    """Images whose maps do not fit are passed twice; trap: thresholds of the first batch alone."""
    net, concepts = network(), random_concepts(60)
    options = {"share": share, "batch": 6}
    ours, small = (
        dissected(net, concepts, generator=seeded(), memory=size, **options)
        for size in (1 << 30, memory)
    )
    for layer, counts in ours.items():
        for name, value in vars(counts).items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(getattr(small[layer], name)))


def test_maps_are_not_kept_where_they_do_not_fit(monkeypatch):
    """Peak memory does not grow with the number of images."""
    held = []
    original = netdissect._passed

    def seen(*given):
        for index, other, maps in original(*given):
            held.append(weakref.ref(maps["relu"]))
            yield index, other, maps
            del maps
            gc.collect()
            assert sum(reference() is not None for reference in held) <= 4

    monkeypatch.setattr(netdissect, "_passed", seen)
    dissected(network(), random_concepts(120), ["relu"], batch=5, memory=20_000, generator=seeded())
    assert len(held) == 48  # 24 batches, twice


def test_the_table_keeps_the_best_concepts_the_detected_and_the_best_null(monkeypatch):
    study = planted_study(monkeypatch)
    whole = dissection(study, share=0.02, draws=50)
    monkeypatch.setattr(measure, "KEPT", 1)
    few = dissection.__wrapped__(study, share=0.02, draws=50)
    assert len(few) < len(whole)
    pd.testing.assert_frame_equal(labels(few), labels(whole))
    detected = []
    for table in (few, whole):
        rows = table[(table["unit"] >= 0) & (table["metric"] == "iou")]
        detected.append((rows["value"] > 0.04).groupby([rows[key] for key in UNIT]).sum())
    pd.testing.assert_series_equal(*detected)


def test_the_null_uses_the_masks_of_other_images():
    """A unit that fires on one concept alone meets it no more often than chance elsewhere."""
    concepts, net = planted()
    ours = dissected(net, concepts, ["relu"], share=0.02, generator=seeded())["relu"]
    assert ours.iou[0].max() > 0.5
    assert ours.null_iou[0].max() < 0.2


def planted(n: int = 64) -> tuple[Concepts, Network]:
    """Squares of four colours at random places; unit 0 of the network fires on red ones."""
    g = seeded(3)
    pixels = torch.full((n, 3, SIDE, SIDE), 20, dtype=torch.uint8)
    mask = torch.zeros(n, 1, SIDE, SIDE, dtype=torch.uint8)
    for i in range(n):
        y, x = torch.randint(0, SIDE - 6, (2,), generator=g).tolist()
        colour = i % 4
        where = (slice(y, y + 5), slice(x, x + 5))
        mask[i, 0][where] = 1 + colour
        # not all alike: no one exceeds a threshold that everyone shares
        pixels[i, colour % 3][where] = torch.randint(180, 255, (5, 5), generator=g).byte()
        if colour == 3:
            pixels[i, 1][where] = 200
    body = Body()
    body.first = nn.Conv2d(3, 6, 1)
    nn.init.normal_(body.first.weight, generator=g)
    body.first.weight.data[0] = torch.tensor([1.0, -1, -1])[:, None, None]
    body.first.bias.data.zero_()
    everywhere = torch.ones(n, dtype=torch.bool)
    names = {"color": ("red", "green", "blue", "yellow")}
    concepts = Concepts(pixels, {"color": mask}, names, {"color": everywhere})
    return concepts, network(ZERO, ONE, body)


class Source(toy_study.Source):
    def __init__(self):
        super().__init__()
        self.images, _ = planted()

    def concepts(self, n=None):
        return self.images.take(torch.arange(n or len(self.images)))


def planted_study(monkeypatch, **changes) -> toy_study.Study:
    """R has the planted detector, S another random body."""
    _, robust = planted()
    standard = network(ZERO, ONE)
    monkeypatch.setattr(zoo, "untrained", _untrained)
    robust.weights_hash, standard.weights_hash = "r", "s"
    networks = {"toy-s": standard, "toy-r": robust}
    return toy_study.study(source=Source(), networks=networks, **changes)


def _untrained(entry, seed=0):
    torch.manual_seed(seed)
    body = Body()
    for module in (body.first, body.second):
        nn.init.normal_(module.weight)
    return network(ZERO, ONE, body)


def test_a_planted_detector_gets_its_label(monkeypatch):
    table = dissection(planted_study(monkeypatch), share=0.02, draws=50)
    found = labels(table).set_index(["network", "layer", "unit"]).loc[("toy-r", "relu", 0)]
    assert (found["category"], found["concept"]) == ("color", "red")
    assert found["detector"]
    assert found["iou"] > 0.5 > found["null"]


def test_the_table_is_tidy_and_counts_dead_units_in_the_denominator(monkeypatch):
    table = dissection(planted_study(monkeypatch), share=0.02, draws=50)
    assert set(table["network"].dropna()) == {
        "toy-s", "toy-r", "untrained-alexnet", "toy-r - toy-s",
    }  # fmt: skip
    assert table.loc[table["network"].isna(), "scope"].eq("concept").all()
    units = table[(table["network"] == "toy-s") & (table["metric"] == "iou")]
    assert len(units) == (6 + 5) * 4
    shares = table[table["scope"].isin(["layer", "network"]) & (table["metric"] == "detectors")]
    assert shares["unit"].isna().all()
    own = shares[(shares["network"] == "toy-r") & (shares["category"] == "any")]
    own = own.set_index(own["layer"].fillna(own["scope"]))
    assert own.loc["relu", "n"] == 6
    assert own.loc["network", "n"] == 11
    best = labels(table)
    share = best[best["network"] == "toy-r"].groupby("layer")["detector"].mean()
    assert own.loc["relu", "value"] == pytest.approx(share["relu"])
    inside = shares.dropna(subset=["low"])
    assert (inside["low"] <= inside["value"] + 1e-6).all()
    assert (inside["value"] <= inside["high"] + 1e-6).all()
    difference = shares[shares["regime"] == "robust - standard"]
    assert len(difference) == 3 * len(set(shares["category"]))


def test_false_positives_are_subtracted_category_by_category(monkeypatch):
    table = dissection(planted_study(monkeypatch), share=0.02, draws=50)
    whole = table[(table["scope"] == "network") & (table["network"] == "toy-s")]
    shares = whole.pivot(index="category", columns="metric", values="value")
    assert "texture or color" not in shares.index
    net = shares["detectors"] - shares["null_detectors"]
    assert shares["net_detectors"].to_dict() == pytest.approx(net.to_dict())


def test_no_unit_exceeds_the_ceiling_of_a_concept_that_few_images_carry():
    """Trap: s / p, with s of all pixels and p of those that carry the category."""
    rows = [
        {"category": "texture", "metric": "pixel_share", "value": 0.0625},
        {"category": "texture", "metric": "carried_share", "value": 0.2},
    ]
    text = report.ceilings(pd.DataFrame(rows))
    assert "(20% of all images)" in text
    assert "at most 0.40 to 0.40; 0 of them" in text


def test_the_share_of_pixels_of_a_concept_is_reported(monkeypatch):
    study = planted_study(monkeypatch)
    table = dissection(study, share=0.02, draws=50)
    rows = table[table["metric"] == "pixel_share"].set_index("concept")["value"]
    masks = study.source.images.maps["color"]
    assert rows["blue"] == pytest.approx(float((masks == 3).float().mean()))


def test_s_and_r_see_the_same_pixels_through_their_own_normalisation():
    """Trap: normalising twice, or one network by the other's values."""
    concepts = random_concepts()
    plain, own = network(ZERO, ONE), network((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    # the same function of the pixels, written for another normalisation
    weight = plain.body.first.weight * own.std[None]
    own.body.first = nn.Conv2d(3, 6, 3, 2, 1, padding_mode="zeros")
    own.body.first.weight.data = weight.detach().clone()
    shift = (plain.body.first.weight * own.mean[None]).sum((1, 2, 3)).detach()
    own.body.first.bias.data = plain.body.first.bias.detach() + shift
    inner = {}
    for name, net in (("plain", plain), ("own", own)):
        seen = dissected(net, concepts, ["relu"], share=0.05, generator=seeded())["relu"]
        inner[name] = seen.thresholds
        x = floats(concepts.pixels[:2])
        with torch.no_grad():
            inner[name, "maps"] = net.body.relu(net.body.first((x - net.mean) / net.std))
    middle = (slice(None), slice(None), slice(1, None), slice(1, None))  # padding is not pixels
    torch.testing.assert_close(
        inner["plain", "maps"][middle], inner["own", "maps"][middle], atol=1e-4, rtol=1e-4
    )
    normalised = (floats(concepts.pixels) - own.mean) / own.std
    with torch.no_grad():
        values = own.body.relu(own.body.first(normalised)).permute(0, 2, 3, 1).reshape(-1, 6)
    rank = int(0.05 * len(values) + 1e-9)
    expected = values.sort(0, descending=True).values[rank]
    torch.testing.assert_close(inner["own"], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("cells", "pixels"), [(3, 8), (7, 32), (16, 32), (8, 8), (5, 3), (1, 4)])
def test_enlarging_cell_by_cell_is_the_interpolation_of_torch(cells, pixels):
    maps = torch.rand(3, 4, cells, cells + 1, generator=seeded())
    side = (pixels, pixels + 1)
    limits = torch.tensor([0.2, 0.5, 0.9, 2.0])
    expected = F.interpolate(maps, side, mode="bilinear") > limits[:, None, None]
    pixel, unit = pixels_above(maps, limits, activations_above(maps, limits), side)
    found = torch.zeros(3, 4, *side, dtype=torch.bool)
    image, place = pixel // (side[0] * side[1]), pixel % (side[0] * side[1])
    found.view(3, 4, -1)[image, unit, place] = True
    assert torch.equal(found, expected)
    assert len(pixel) == int(expected.sum())  # no pixel twice
    assert spans(cells, pixels, torch.device("cpu"))[0].shape[1] == cells + 1


def test_a_constant_map_never_exceeds_its_own_value():
    maps = torch.full((2, 3, 5, 5), 0.1)
    limits = torch.full((3,), 0.1)
    pixel, _ = pixels_above(maps, limits, activations_above(maps, limits), (13, 13))
    assert len(pixel) == 0


@pytest.mark.parametrize("share", [0.005, 0.02])
def test_quantiles_are_exact_whatever_the_distribution(share):
    g = seeded()
    n = 60_000
    columns = [
        torch.randn(n, generator=g),
        torch.randn(n, generator=g).relu() * (torch.rand(n, generator=g) < 0.003),  # rarely on
        torch.zeros(n),
        torch.full((n,), -2.5),
        torch.randint(0, 5, (n,), generator=g).float(),  # many ties
        torch.linspace(0, 1, n),  # sorted: a sample by stride is regular
        torch.linspace(1, 0, n) ** 40,
        -torch.rand(n, generator=g),
    ]
    values = torch.stack(columns, 1)
    found, among = upper_quantiles(values.split(7_001), share)
    for chunk, at in zip(values.split(7_001), among or [], strict=bool(among)):
        assert set(true_indices(chunk > found).tolist()) <= set(at.tolist())
    expected = values.sort(0, descending=True).values[int(share * n + 1e-9)]
    assert torch.equal(found, expected)
    assert ((values > found).float().mean(0) <= share + 1e-6).all()


def test_places_are_those_of_nonzero():
    for size in (8, 64, 801):
        mask = torch.rand(size, generator=seeded()) < 0.1
        assert torch.equal(true_indices(mask), mask.nonzero()[:, 0])
    assert len(true_indices(torch.zeros(16, dtype=torch.bool))) == 0


def test_wrong_requests_are_refused(monkeypatch):
    study = planted_study(monkeypatch)
    with pytest.raises(UserError, match="no layer 'conv9'"):
        dissection(study, layers=["conv9"])
    with pytest.raises(UserError, match="has no concept masks; expected one"):
        concept_set(study, "iconworld")
    with pytest.raises(UserError, match="have no concept masks; name a data set"):
        concept_set(toy_study.study())
    with pytest.raises(UserError, match="1 image.s. with concepts"):
        dissected(network(), random_concepts(1), generator=seeded())
    with pytest.raises(UserError, match="share between 0 and 1"):
        dissected(network(), random_concepts(), share=1.5, generator=seeded())
