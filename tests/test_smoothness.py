"""Total variation, spectra and noise gain against numbers a person can compute."""

import math
from collections import OrderedDict

import pytest
import torch
from torch import nn

import toy_networks
import toy_study
from robustbias import claims
from robustbias.images import Images
from robustbias.images.source import Source
from robustbias.networks import zoo
from robustbias.smooth_filters.measure import (
    filter_smoothness,
    high_frequency_share,
    map_smoothness,
    responses,
    smoothness,
    spatial_filters,
    total_variation,
)
from robustbias.utils import UserError

SIGMAS = (0.05, 0.1)


@pytest.fixture(autouse=True)
def _tables(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTBIAS_TABLES", str(tmp_path))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def images(n: int = 6, side: int = 64) -> Images:
    coarse = torch.rand(n, 3, 5, 5, generator=seeded())
    pixels = nn.functional.interpolate(coarse, (side, side), mode="bilinear") * 255
    return Images(pixels.to(torch.uint8), torch.zeros(n).long(), ("a",))


def test_total_variation_sums_differences_of_neighbours():
    maps = torch.tensor([[[0.0, 1.0], [3.0, 1.0]], [[2.0, 2.0], [2.0, 2.0]]])
    # rows |3-0| + |1-1|, columns |1-0| + |1-3|
    assert total_variation(maps).tolist() == [6.0, 0.0]
    step = torch.zeros(1, 5, 4)
    step[:, :, 2:] = 1
    assert total_variation(step).item() == 5  # one unit step in each of five rows


def test_a_filter_is_given_raw_per_pixel_and_divided_by_its_magnitude():
    filters = torch.tensor([[[[0.0, 1.0], [3.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]]])
    found = {name: value.item() for name, value in filter_smoothness(filters).items()}
    assert found["tv"] == 6
    assert found["tv_per_pixel"] == 6 / 8
    assert found["tv_normalised"] == pytest.approx(6 / 9)
    scaled = filter_smoothness(10 * filters)
    assert scaled["tv"].item() == 60
    assert scaled["tv_normalised"].item() == pytest.approx(6 / 9)


@pytest.mark.parametrize("side", [3, 5, 7])
def test_the_spectrum_is_that_of_the_padded_fourier_transform(side):
    filters = torch.randn(4, 3, side, side, generator=seeded())
    energy = torch.fft.fft2(filters, s=(64, 64)).abs().square().sum(1)
    along = torch.fft.fftfreq(64)
    above = (along[:, None] ** 2 + along**2).sqrt() > 0.2
    expected = (energy * above).sum((1, 2)) / energy.sum((1, 2))
    torch.testing.assert_close(high_frequency_share(filters, 0.2), expected)


def test_the_spectrum_knows_a_point_from_a_checkerboard_and_a_plane():
    point, checks, plane = torch.zeros(3, 1, 8, 8)
    point[0, 4, 4] = 1
    checks[0] = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2 - 1
    plane[0] = 1
    share = high_frequency_share(torch.stack([point, checks, plane])).tolist()
    assert share[0] == pytest.approx(1 - math.pi * 0.25**2, abs=0.005)
    assert share[1] > 0.95
    assert share[2] < 0.1  # its edges are sharp


def test_only_convolutions_of_more_than_one_pixel_have_a_filter():
    found = spatial_filters(toy_networks.network(architecture="googlenet", layers=()).body)
    assert "conv1.conv" in found
    assert "conv2.conv" not in found  # 1 x 1
    assert all(weight.shape[-1] > 1 for weight in found.values())


class Doubler(nn.Module):
    """Channels twice the input, the negative part of it (always silent), and a constant."""

    def forward(self, x):
        return torch.cat([2 * x[:, :1], x[:, :1].clamp(max=0), torch.ones_like(x[:, :1])], 1)


def doubler() -> zoo.Network:
    entry = toy_networks.entry(layers=("twice",), mean=(0.0,) * 3, std=(1.0,) * 3)
    body = OrderedDict(twice=Doubler(), pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten())
    return zoo.Network(entry, nn.Sequential(body)).eval()


def test_the_noise_gain_of_a_linear_unit_is_the_noise_over_the_signal():
    network = doubler()
    shown = images()
    found = map_smoothness(network, ["twice"], shown, SIGMAS, generator=seeded(), batch=6)
    x = shown.pixels[:, 0] / 255
    noise = torch.randn(6, 3, 64, 64, generator=seeded())[:, 0]
    for sigma in SIGMAS:
        gain = found["twice"][f"noise_gain {sigma:g}"]
        expected = sigma * noise.flatten(1).norm(dim=1).sum() / x.flatten(1).norm(dim=1).sum()
        assert gain[0].item() == pytest.approx(expected.item(), rel=1e-4)
        assert gain[2].item() == 0
    assert all(value[1].isnan() for value in found["twice"].values())
    tv = total_variation(x)
    assert found["twice"]["tv"][0].item() == pytest.approx(2 * tv.mean().item(), rel=1e-4)
    normalised = found["twice"]["tv_normalised"]
    assert normalised[0].item() == pytest.approx((tv.sum() / x.sum()).item(), rel=1e-4)
    assert normalised[2].item() == 0


def test_batches_do_not_change_the_sums():
    network = doubler()
    whole, parts = (
        map_smoothness(network, ["twice"], images(), (), generator=seeded(), batch=batch)["twice"]
        for batch in (6, 4)
    )
    torch.testing.assert_close(whole, parts, equal_nan=True)


class Undone(nn.Module):
    """Takes a network's normalisation back, so that what follows sees the pixels."""

    def __init__(self, mean: float, std: float):
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, x):
        return x * self.std + self.mean


def test_s_and_r_see_the_same_pixels_through_their_own_normalisation():
    found = []
    for mean, std in ((0.5, 0.25), (0.25, 0.5)):
        entry = toy_networks.entry(layers=("twice",), mean=(mean,) * 3, std=(std,) * 3)
        body = OrderedDict(undone=Undone(mean, std), **doubler().body._modules)
        network = zoo.Network(entry, nn.Sequential(body)).eval()
        maps = map_smoothness(network, ["twice"], images(), SIGMAS, generator=seeded())
        found.append(maps["twice"])
    torch.testing.assert_close(*found, equal_nan=True)


@pytest.fixture
def study():
    class Source:
        digest = "smoothness"
        val = staticmethod(lambda: images(12))

    entries = [
        toy_networks.entry(name="s", width=0.3),
        toy_networks.entry(name="r", width=0.3, regime="robust", norm="l2", eps=0.5),
    ]
    networks = {entry.name: zoo.untrained(entry, seed=5) for entry in entries}
    with torch.no_grad():  # R's filters are S's, blurred
        weight = networks["r"].body.features[0].weight
        blurred = nn.functional.avg_pool2d(weight, 3, 1, 1)
        weight.copy_(blurred * (weight.norm() / blurred.norm()))
    return toy_study.study(entries=entries, networks=networks, source=Source())


def test_blurred_filters_are_found_smoother_and_block_noise(study):
    table = smoothness(study, n_images=8, draws=200)
    units = table[table["scope"] == "unit"]
    assert set(units["condition"]) == {"filters", "maps", "noise"}
    assert units["low"].isna().all()
    ratio = table[(table["regime"] == "robust / standard") & (table["layer"] == "features.1")]
    known = ratio.dropna(subset=["value"]).set_index(["condition", "metric", "sigma"])
    assert known.loc[("noise", "noise_gain", 0.08), "high"] < 1
    first = table[(table["layer"] == "features.0") & (table["regime"] == "robust / standard")]
    assert first.set_index("metric").loc["high_frequency_share", "high"] < 1
    own = table[(table["layer"] == "features.0") & (table["network"] == "s")]
    tv = own[own["metric"] == "tv"].set_index("unit")["value"]
    assert tv[tv.index.isna()].item() == pytest.approx(tv[tv.index.notna()].mean(), rel=1e-5)
    assert {"s", "r", "untrained-alexnet"} <= set(table["network"])


def test_the_claim_reads_the_ratios_over_all_layers(study):
    table = smoothness(study, n_images=8, draws=200)
    verdicts = claims.tested(table, "C3")
    parts = {claim.id: claim for claim in verdicts.claims}
    assert set(parts) == {"C3.first", "C3.filters", "C3.maps", "C3.noise"}
    ratios = table[(table["regime"] == "robust / standard") & (table["metric"] == "tv_normalised")]
    filters = ratios[ratios["condition"] == "filters"]
    value = filters.set_index(filters["layer"].fillna(filters["scope"]))["value"]
    assert parts["C3.first"].interval.value == value["first layer"] == value["features.0"]
    assert parts["C3.filters"].interval.value == value["network"]
    assert parts["C3.noise"].verdict == "supported"
    assert (parts["C3.noise"].null, parts["C3.noise"].smallest) == (1, 1.05)
    assert not parts["C3.noise"].above


class Black(Source):
    """Images that stand in for photographs that may not be shown."""

    def val(self):
        return Images(torch.zeros(2, 3, 64, 64, dtype=torch.uint8), torch.zeros(2).long(), ("a",))


def test_responses_to_another_sources_image_show_nothing_of_the_studys(study):
    examples = responses(study, architecture="alexnet", source=Black())
    assert examples.clean.max() == 0
    assert not torch.equal(examples.clean, responses(study, architecture="alexnet").clean)


def test_wrong_requests_are_refused(study):
    with pytest.raises(UserError, match="n_images is 0"):
        smoothness(study, n_images=0)
    with pytest.raises(UserError, match="no layer 'conv99'"):
        smoothness(study, layers=["conv99"])
    with pytest.raises(UserError, match="expected positive standard deviations"):
        smoothness(study, sigmas=(0.0,))
