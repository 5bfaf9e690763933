"""Feature visualisation on networks whose best images are computable by hand."""

import pytest
import torch
from torch import nn

import toy_networks
from robustbias import claims, studies
from robustbias.networks import hooks, zoo
from robustbias.smooth_filters import visualisation
from robustbias.smooth_filters.visualisation import NOISE, visualisations
from robustbias.utils import UserError


def drawn(network, layer, units, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    return visualisations(network, layer, torch.tensor(units), generator=generator, **options)


@pytest.fixture
def linear():
    """Two units that see the whole image, behind a ReLU that is silent on every noise start."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 2, 8), nn.ReLU())
    nn.init.constant_(body[0].bias, -1000.0)
    entry = toy_networks.entry(size=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), layers=("1",))
    return zoo.Network(entry, body)


@pytest.fixture
def alexnet():
    return toy_networks.network()


def test_a_step_of_a_linear_unit_goes_along_its_weights_though_it_is_silent(linear):
    start = 0.5 + NOISE * torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    pixels = drawn(linear, "1", [0, 1], starts=1, steps=3, length=0.1, jitter=0)
    weights = linear.body[0].weight.detach().flatten(1)
    expected = 0.3 * weights / weights.norm(dim=1, keepdim=True)
    torch.testing.assert_close((pixels - start).flatten(1), expected, atol=1e-5, rtol=1e-4)


def test_a_unit_whose_inputs_are_silent_moves_all_the_same():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.ReLU())
    nn.init.constant_(body[0].bias, -10.0)
    entry = toy_networks.entry(size=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), layers=("3",))
    pixels = drawn(zoo.Network(entry, body), "3", [0, 1], steps=4)
    assert pixels.std((1, 2, 3)).min() > 5 * NOISE


def test_a_long_ascent_of_a_linear_unit_saturates_at_the_signs_of_its_weights(linear):
    pixels = drawn(linear, "1", [0, 1], steps=300, jitter=0)
    weights = linear.body[0].weight.detach()
    clear = weights.abs() > 0.2 * weights.abs().max()
    assert torch.equal(pixels[clear], (weights > 0)[clear].float())


def test_pixels_stay_in_range_and_the_generator_decides_them(alexnet):
    options = {"steps": 4, "length": 5.0}
    first, again, other = (drawn(alexnet, "features.1", [0, 1], s, **options) for s in (0, 0, 1))
    assert first.shape == (2, 3, 64, 64)
    assert 0.0 <= first.min() <= first.max() <= 1.0
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_unit_in_a_batch_is_the_unit_alone(alexnet):
    together = drawn(alexnet, "features.4", [0, 2, 1], steps=3, batch=2)
    for unit, pixels in zip([0, 2, 1], together, strict=True):
        alone = drawn(alexnet, "features.4", [unit], steps=3)[0]
        torch.testing.assert_close(pixels, alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "layer"),
    [("alexnet", "features.4"), ("googlenet", "inception3b"), ("resnet50", "layer2")],
)
def test_the_layer_is_the_relu_of_its_preactivation(architecture, layer):
    network = toy_networks.network(architecture=architecture, width=0.125)
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        output = hooks.prefix(network, layer, pixels)
        before = hooks.preactivation(network, layer, pixels)
        torch.testing.assert_close(before.relu(), output)
        torch.testing.assert_close(hooks.prefix(network, layer, pixels), output)
    assert before.min() < 0


def test_what_cannot_be_ascended_is_refused(alexnet):
    with pytest.raises(UserError, match="units 0 to"):
        drawn(alexnet, "features.1", [10_000])
    with pytest.raises(UserError, match="0 starts"):
        drawn(alexnet, "features.1", [0], starts=0)


def test_smoothness_does_not_depend_on_contrast_and_orders_coarse_below_fine():
    fine = torch.zeros(1, 3, 16, 16)
    fine[..., ::2] = 1.0
    coarse = torch.zeros(1, 3, 16, 16)
    coarse[..., :8] = 1.0
    values = visualisation.smoothness(torch.cat([fine, 0.3 + 0.1 * fine, coarse, 0 * fine]))
    tv, share = values["tv_normalised"], values["high_frequency_share"]
    assert tv[0] == pytest.approx(float(tv[1]))
    assert tv[0] == pytest.approx(15 / 8)  # 15 steps of 1 in a row whose pixels are 1/2 from grey
    assert tv[2] == pytest.approx(1 / 8)
    assert share[:2].tolist() == pytest.approx([1.0, 1.0])
    assert share[2] < 0.2
    assert tv[3].isnan()
    assert share[3].isnan()


def test_the_strongest_image_itself_has_the_likeness_it_is_compared_with(alexnet):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (12, 3, 64, 64), dtype=torch.uint8, generator=generator)
    natural = visualisation.spatial_means(alexnet, images)
    layer, units = alexnet.layers[0], torch.arange(3)
    strongest = images[natural[layer][:, units].argmax(0)].float() / 255
    values = visualisation.likeness(alexnet, layer, units, strongest, natural)
    torch.testing.assert_close(values["likeness"], values["likeness_of_image"], atol=1e-4, rtol=0)
    assert values["likeness"].abs().max() <= 1


def test_the_table_compares_r_with_s_and_the_claim_reads_it(monkeypatch, tmp_path):
    monkeypatch.setenv("ROBUSTBIAS_TABLES", str(tmp_path))
    study = studies.load("iconworld", device="cpu", architectures=["alexnet"], replicates=[1])
    table = visualisation.visualised(study, n_units=2, n_images=8, draws=50)
    whole = table[(table["scope"] == "network") & (table["metric"] == "tv_normalised")]
    by_layer = table[
        (table["regime"] == "robust / standard")
        & (table["scope"] == "layer")
        & (table["metric"] == "tv_normalised")
    ]
    product = by_layer["value"].prod() ** (1 / len(by_layer))
    assert whole["value"].item() == pytest.approx(product)
    parts = {claim.id: claim for claim in claims.tested(table, "C3v").claims}
    assert set(parts) == {"C3v.smooth", "C3v.spectrum", "C3v.likeness"}
    assert parts["C3v.smooth"].interval.value == whole["value"].item()
    assert {"standard", "robust", "untrained"} <= set(table["regime"])
