"""Feature visualisation: images that single units respond to most, by gradient ascent on pixels.

No image prior: what looks smooth is smooth because of the network (Engstrom et al. 2019,
arXiv 1906.00945). A visualisation is not an explanation of what a unit does on natural images
(Geirhos et al. 2024, arXiv 2306.04719), so `likeness` says how far it is processed like one.
"""

import functools
from collections.abc import Callable

import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from robustbias.images import floats
from robustbias.networks import hooks
from robustbias.networks.zoo import Network
from robustbias.smooth_filters.measure import aggregates, total_variation
from robustbias.studies import Study, held_out_sample, networks_with_controls, pair_of, paired
from robustbias.tables import Part, measure, parts, tidy
from robustbias.utils import UserError

NOISE = 0.01  # standard deviation of a start around mid-grey; less than what ascent adds
LEAK = 0.1  # of the gradient through silent ReLUs, in the first half of the steps
TOP = 5  # natural images that excite a unit most: the first is compared, the others are the target

Objective = Callable[..., Float[Tensor, " n"]]  # images, leak -> a value per image


def visualisations(
    network: Network,
    layer: str,
    units: Int64[Tensor, " u"],
    *,
    generator: torch.Generator,
    starts: int = 2,
    steps: int = 32,
    length: float = 2.0,
    jitter: int = 4,
    batch: int = 128,
    bfloat16: bool = False,
) -> Float[Tensor, "u 3 h w"]:
    """Per unit an image in [0, 1] with a high mean pre-activation: the best end of all starts.

    Every unit has the same starts, noise around mid-grey, and the same jitter, so a unit's image
    does not depend on the other units. No start is a natural image, of which the result might be a
    copy. So that units which are silent on noise have a gradient, the objective is the activation
    before the ReLU, and in the first half of the steps earlier ReLUs pass on LEAK of the gradient
    where they are silent (as in Olah, Mordvintsev and Schubert 2017, doi:10.23915/distill.00007).

    Args:
        units: Indices of channels of the layer.
        generator: On the CPU; draws the starts and the jitter.
        length: L2 length of each step, in pixel units.
        jitter: Largest shift of the image in a step, in pixels.
        batch: Images per forward and backward pass, fewer where memory is short.
        bfloat16: Convolutions in half precision, about 1.6 times as fast where the device has it.

    Raises:
        UserError: No start or step, or an unknown layer or unit.
    """
    if starts < 1 or steps < 1:
        raise UserError(f"{starts} starts and {steps} steps; expected at least 1 of each.")
    size, on = network.entry.size, network.mean.device
    draw = {"generator": generator}
    noise = (0.5 + NOISE * torch.randn(starts, 3, size, size, **draw)).clamp(0, 1)
    shifts = torch.randint(-jitter, jitter + 1, (steps, 2), **draw).tolist()
    with torch.no_grad():
        n = hooks.preactivation(network, layer, torch.zeros(1, 3, size, size, device=on)).shape[1]
    if len(units) and not 0 <= int(units.min()) <= int(units.max()) < n:
        raise UserError(f"layer {layer} has units 0 to {n - 1}; asked for {units.tolist()}.")
    ends = [torch.empty(0, 3, size, size, device=on)]
    size = hooks.fitting(network.body, noise, batch, held=True)
    for part in units.to(on).split(size):
        objective = functools.partial(_mean_preactivation, network, layer, part)
        first = [one.to(on).expand(len(part), -1, -1, -1) for one in noise]
        with torch.autocast(on.type, torch.bfloat16, enabled=bfloat16):
            ends.append(_best([ascended(objective, x, shifts, length) for x in first], objective))
    return torch.cat(ends)


def _mean_preactivation(
    network: Network,
    layer: str,
    units: Int64[Tensor, " n"],
    pixels: Float[Tensor, "n 3 h w"],
    leak: float = 0.0,
) -> Float[Tensor, " n"]:
    """The mean over space of a unit per image."""
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    maps = hooks.preactivation(network, layer, pixels, leak)
    return maps[torch.arange(len(units), device=units.device), units].float().mean((1, 2))


def ascended(
    objective: Objective, pixels: Float[Tensor, "n 3 h w"], shifts: list[list[int]], length: float
) -> Float[Tensor, "n 3 h w"]:
    """The images after one normalised gradient step per shift, in [0, 1]."""
    for i, shift in enumerate(shifts):
        pixels, leak = pixels.detach().requires_grad_(), LEAK * (2 * i < len(shifts))
        (gradient,) = torch.autograd.grad(
            objective(torch.roll(pixels, shift, (2, 3)), leak=leak).sum(), pixels
        )
        norm = torch.linalg.vector_norm(gradient, dim=(1, 2, 3), keepdim=True).clamp_min(1e-20)
        pixels = (pixels.detach() + length * gradient / norm).clamp(0, 1)
    return pixels.detach()


@torch.no_grad()
def _best(ends: list[Float[Tensor, "n 3 h w"]], objective: Objective) -> Float[Tensor, "n 3 h w"]:
    best = torch.stack([objective(end) for end in ends]).argmax(0)
    return torch.stack(ends)[best, torch.arange(len(best), device=best.device)]


def smoothness(
    pixels: Float[Tensor, "u 3 h w"], cutoff: float = 0.25
) -> dict[str, Float[Tensor, " u"]]:
    """Two measures of an image that its contrast and mean colour do not change.

    `tv_normalised` is the total variation over the summed distance from the mean colour,
    `high_frequency_share` the share of the energy of that distance above `cutoff` cycles per pixel.
    NaN where an image has no contrast.
    """
    centred = pixels - pixels.mean((2, 3), keepdim=True)
    energy = torch.fft.fft2(centred).abs().square().sum(1)
    along = [torch.fft.fftfreq(side, device=pixels.device) for side in pixels.shape[2:]]
    high = torch.hypot(along[0][:, None], along[1]) > cutoff
    return {
        "tv_normalised": total_variation(centred).sum(1) / centred.abs().sum((1, 2, 3)),
        "high_frequency_share": energy[:, high].sum(1) / energy.sum((1, 2)),
    }


@torch.no_grad()
def spatial_means(
    network: Network, pixels: Tensor, batch: int = 128
) -> dict[str, Float[Tensor, "n u"]]:
    """{probed layer: mean activation over space of each unit on each image}."""
    parts: dict[str, list[Tensor]] = {layer: [] for layer in network.layers}
    with hooks.captured(network, network.layers) as maps:
        for part in pixels.split(hooks.fitting(network, pixels, batch, held=True)):
            network(floats(part) if part.dtype == torch.uint8 else part)
            for layer in network.layers:
                parts[layer].append(maps[layer].mean((2, 3)))
    return {layer: torch.cat(means) for layer, means in parts.items()}


def likeness(
    network: Network,
    layer: str,
    units: Int64[Tensor, " u"],
    pixels: Float[Tensor, "u 3 h w"],
    natural: dict[str, Float[Tensor, "n c"]],
) -> dict[str, Float[Tensor, " u"]]:
    """How far the network processes a unit's visualisation like natural images that excite it.

    `likeness` is the cosine between the mean activations of the visualisation and those of the
    unit's 2nd to 5th strongest natural images, both as deviations from the mean natural image,
    averaged over the probed layers up to the unit's. A random image has 0 in expectation. The
    strongest image in the visualisation's place gives `likeness_of_image`, the value to compare
    with. The idea is that of Geirhos et al. 2024, section 4; they normalise by classes.

    Args:
        pixels: The visualisations.
        natural: From `spatial_means` of at least TOP natural images.
    """
    layers = network.layers[: network.layers.index(layer) + 1]
    seen = spatial_means(network, pixels)
    best = natural[layer][:, units.to(natural[layer].device)].topk(TOP, dim=0).indices
    cosines = []
    for name in layers:
        centre = natural[name].mean(0)
        images = natural[name][best] - centre
        one, target = torch.stack([seen[name] - centre, images[0]]), images[1:].mean(0)
        cosines.append(F.cosine_similarity(one, target, dim=2))
    return dict(zip(("likeness", "likeness_of_image"), torch.stack(cosines).mean(0), strict=True))


def pictured(
    network: Network,
    layer: str,
    units: Int64[Tensor, " u"],
    natural: dict[str, Float[Tensor, "n c"]],
    seed: int = 0,
) -> tuple[Float[Tensor, "u 3 h w"], dict[str, Float[Tensor, " u"]]]:
    """Visualisations with the settings of the book, and all that is measured of them."""
    network.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    pixels = visualisations(network, layer, units, generator=generator, bfloat16=True)
    return pixels, smoothness(pixels) | likeness(network, layer, units, pixels, natural)


@measure(of=paired)
def visualised(
    study: Study, *, n_units: int = 16, n_images: int = 512, draws: int = 2000
) -> pd.DataFrame:
    """What visualisations of units of S, R and an untrained network are like, and R against S.

    Metrics: `tv_normalised` and `high_frequency_share` (from `smoothness`), `likeness` and
    `likeness_of_image`. Rows of scope `unit`, without interval, and of scope `layer`: the mean over
    a layer's n visualised units. Regime `robust / standard` (of the first two) and `robust -
    standard` (of likeness) compare such means; at scope `network` they are the geometric or the
    arithmetic mean over layers. Units are resampled, as in `measure.smoothness`.

    Args:
        n_units: Units per layer, drawn with the study's seed; at most all.
        n_images: Held-out images that likeness is to.
    """
    generator = torch.Generator().manual_seed(study.seed)
    images = held_out_sample(study, n_images, generator)

    def measured(load: Callable[[], Network]) -> Part:
        network, values = load(), {}
        natural = spatial_means(network, images.pixels)
        for layer in network.layers:
            drawn = torch.Generator().manual_seed(study.seed)
            units = torch.randperm(natural[layer].shape[1], generator=drawn)[:n_units].sort()[0]
            metrics = pictured(network, layer, units, natural, study.seed)[1]
            values |= {f"{layer}\tunit": units}
            values |= {f"{layer}\t{metric}": value for metric, value in metrics.items()}
        return values

    networks = list(networks_with_controls(study, images.pixels))
    tasks = {named["network"]: functools.partial(measured, load) for named, load, _ in networks}
    rows = []
    for (named, *_), part in zip(networks, parts(tasks).values(), strict=True):
        for place, value in part.items():
            layer, metric = place.split("\t")
            if metric != "unit":
                long = {"unit": part[f"{layer}\tunit"].numpy(), "value": value.double().numpy()}
                about = {"layer": layer, "condition": "visualisations", "metric": metric}
                rows.append(pd.DataFrame(long).assign(**named, **about))
    units = pd.concat(rows, ignore_index=True)
    alike = units["metric"].str.startswith("likeness")
    means = [
        aggregates(study, part, generator, draws, by)
        for part, by in ((units[~alike], "/"), (units[alike], "-"))
    ]
    return tidy(pd.concat([units.assign(scope="unit"), *means], ignore_index=True))


def examples(
    study: Study, *, architecture: str, layer: str, n: int = 8, n_images: int = 512
) -> dict[str, tuple[Int64[Tensor, " n"], Float[Tensor, "n 3 h w"], Float[Tensor, " n"]]]:
    """{regime: (units, their visualisations, likeness)} of a layer's first live units.

    A unit is live if it is active on some natural image.

    Raises:
        UserError: The study has no networks of this architecture.
    """
    pair = pair_of(study, architecture)
    images = held_out_sample(study, n_images, torch.Generator().manual_seed(study.seed))
    by_regime = {}
    for regime in ("standard", "robust"):
        network = study.network_named(pair[regime].name)
        natural = spatial_means(network, images.pixels)
        units = (natural[layer].amax(0) > 0).nonzero()[:n, 0].cpu()
        pixels, values = pictured(network, layer, units, natural, study.seed)
        by_regime[regime] = units, pixels.cpu(), values["likeness"].cpu()
    return by_regime


def first_units(study: Study, *, architecture: str, n: int = 12) -> dict[str, Tensor]:
    """{regime: visualisations, n 3 h w} of the deepest probed layer but one; needs no images.

    Raises:
        UserError: The study has no networks of this architecture.
    """
    by_regime = {}
    for regime, entry in pair_of(study, architecture).items():
        network = study.network_named(entry.name).requires_grad_(False)
        draw = {"generator": torch.Generator().manual_seed(study.seed), "bfloat16": True}
        pixels = visualisations(network, network.layers[-2], torch.arange(n), **draw)
        by_regime[regime] = pixels.cpu()
    return by_regime
