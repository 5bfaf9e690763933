"""How often the book's 95 % intervals cover the truth, by simulation.

    python benchmarks/coverage.py [--studies 2000]

Every kind of interval is computed on simulated studies whose truth is known: a network's accuracy
has a part of its training, observations have a part of their image (two crossed images where a
stimulus is made of two). The share of intervals that cover the truth should be .93 to .97.
"""

import time
from dataclasses import replace
from typing import Annotated

import pandas as pd
import torch
import typer

from robustbias import stats
from robustbias.ood_generalization.corruption_error import mean_corruption_error
from robustbias.ood_generalization.measure import NOISES, channel
from robustbias.shape_bias.measure import shifted

DRAWS = 1000


def one_way(clusters: int, generator: torch.Generator) -> tuple[float, float, float]:
    """The mean of 4 observations per cluster, with a random part of the cluster."""
    group = torch.arange(clusters).repeat_interleave(4)
    values = torch.randn(clusters, generator=generator)[group] + torch.randn(
        len(group), generator=generator
    )
    boot = stats.ratios(
        values[:, None], torch.ones(len(group), 1), group, generator=generator, draws=DRAWS
    )
    return (0.0, *_ends(replace(boot, bounds=None)))


def crossed(rows: int, columns: int, generator: torch.Generator) -> tuple[float, float, float]:
    """Shape images times texture images, one stimulus each; a third of the cells is empty."""
    a, b = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).T
    kept = torch.rand(len(a), generator=generator) > 1 / 3
    a, b = a[kept], b[kept]
    values = (
        0.05 * torch.randn(rows, generator=generator)[a]
        + 0.07 * torch.randn(columns, generator=generator)[b]
        + 0.4 * torch.randn(len(a), generator=generator)
    )
    boot = stats.crossed_ratios(
        values[:, None], torch.ones(len(a), 1), a, b, generator=generator, draws=DRAWS
    )
    return (0.0, *_ends(replace(boot, bounds=None)))


def trained(
    replicates: int, architectures: int, training: float, generator: torch.Generator
) -> tuple[float, float, float]:
    """R minus S of trained networks on 200 shared images; `training` is the sd of new trainings."""
    k, n = replicates * architectures, 200
    effect = 0.1 + training * torch.randn(k, generator=generator)
    image = 0.3 * torch.randn(n, 1, generator=generator)
    values = effect + image + 0.4 * torch.randn(n, k, generator=generator)
    boot = stats.ratios(values, torch.ones(n, k), torch.arange(n), generator=generator, draws=DRAWS)
    boot = replace(boot, bounds=None)
    groups = [list(range(i, i + replicates)) for i in range(0, k, replicates)]
    mean = boot.mean(groups, trainings=True)
    if architectures > 1:
        mean = mean.mean([list(range(architectures))], trainings=False)
    return (0.1, *_ends(mean))


def units(n: int, generator: torch.Generator) -> tuple[float, float, float]:
    """The share of n units of a layer that detect something, 0.3 in truth."""
    share = (torch.rand(n, 1, generator=generator) < 0.3).float()
    boot = stats.ratios(share, torch.ones(n, 1), torch.arange(n), generator=generator, draws=DRAWS)
    return (0.3, *_ends(boot))


def trials(n: int, share: float, generator: torch.Generator) -> tuple[float, float, float]:
    """Wilson's interval of a share of n independent images."""
    hits = int((torch.rand(n, generator=generator) < share).sum())
    interval = stats.wilson(hits, n)
    return share, interval.low, interval.high


def biases(
    rows: int, columns: int, share: float, generator: torch.Generator
) -> tuple[float, float, float]:
    """R minus S of the shape bias: decided trials over crossed shape and texture images.

    R decides .4 of the stimuli by shape and .2 by texture, S .3 and .3, both with the images' parts
    in common; a share of all combinations are stimuli.
    """
    a, b = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).T
    kept = torch.rand(len(a), generator=generator) < share
    a, b = a[kept], b[kept]
    part = 0.1 * (2 * torch.rand(rows, generator=generator) - 1)[a]
    part -= 0.1 * (2 * torch.rand(columns, generator=generator) - 1)[b]
    chance = torch.rand(len(a), 2, generator=generator)
    shape = chance < part[:, None] + torch.tensor([0.4, 0.3])
    decided = chance < torch.tensor([0.6, 0.6])
    boot = stats.crossed_ratios(
        shape.float(), decided.float(), a, b, generator=generator, draws=DRAWS
    )
    return (0.4 / 0.6 - 0.5, *_ends(boot.difference([0], [1])))


def unit_shares(n: int, generator: torch.Generator) -> tuple[float, float, float]:
    """R minus S of the share of units that detect something: .4 less .3, units in common: none."""
    sides = [(torch.rand(n, 1, generator=generator) < share).float() for share in (0.4, 0.3)]
    boots = [
        stats.ratios(u, torch.ones(n, 1), torch.arange(n), generator=generator, draws=DRAWS)
        for u in sides
    ]
    return (0.1, *_ends(stats.Bootstrap.joined(boots).difference([0], [1])))


def layers(n: int, generator: torch.Generator) -> tuple[float, float, float]:
    """Geometric mean over 5 layers of the ratio R over S of a mean over n units each."""
    logs = []
    for layer in range(5):
        spread = 0.2 + 0.1 * layer
        draws = [torch.randn(n, 1, generator=generator).mul(spread).exp() for _ in "RS"]
        boots = [
            stats.ratios(u, torch.ones(n, 1), torch.arange(n), generator=generator, draws=DRAWS)
            for u in (0.8 * draws[0], draws[1])
        ]
        ratio = replace(stats.Bootstrap.joined(boots), bounds=None).ratio([0], [1])
        logs.append(replace(ratio, value=ratio.value.log(), resamples=ratio.resamples.log()))
    mean = stats.Bootstrap.joined(logs).mean([list(range(5))], trainings=False)
    mean = replace(mean, value=mean.value.exp(), resamples=mean.resamples.exp(), training=None)
    return (0.8, *_ends(mean))


def corruption_errors(n: int, generator: torch.Generator) -> tuple[float, float, float]:
    """R minus S of the mCE on n images under 15 corruptions of 5 severities.

    An error is likelier for some images than for others, alike for both networks.
    """
    chance = torch.linspace(0.1, 0.6, 75).view(15, 5, 1) + torch.tensor([0.0, 0.05])
    of_image = 0.1 * (2 * torch.rand(n, 1, 1, 1, generator=generator) - 1)
    error = torch.rand(n, 15, 5, 2, generator=generator) < chance + of_image
    correct = (~error).float().flatten(1)
    boot = stats.ratios(
        correct, torch.ones_like(correct), torch.arange(n), generator=generator, draws=DRAWS
    )
    _, mce = mean_corruption_error(boot, 0, tuple(map(str, range(15))), 5, n)
    mce = replace(mce, bounds=None)
    sums = chance.sum(1)
    truth = float((100 * (sums[:, 1] - sums[:, 0]) / sums[:, 0]).mean())
    return (truth, *_ends(mce.difference([1], [0])))


def shifts(images: int, generator: torch.Generator) -> tuple[float, float, float]:
    """Horizontal shift of R's curve of shape bias over four style weights: one doubling."""
    styles = torch.tensor([0.5, 1.0, 2.0, 4.0])
    a, b = torch.cartesian_prod(torch.arange(images), torch.arange(images)).T
    chance = torch.sigmoid(0.2 - 0.8 * (styles.log2()[:, None] - torch.tensor([0.0, 1.0])))
    shape = torch.rand(len(a), 8, generator=generator) < chance.T.flatten()
    boot = stats.crossed_ratios(
        shape.float(), torch.ones(len(a), 8), a, b, generator=generator, draws=DRAWS
    )
    return (1.0, *_ends(shifted(boot, [0, 1, 2, 3], [4, 5, 6, 7], styles)))


def channels(n: int, generator: torch.Generator) -> tuple[float, float, float]:
    """Centre of the frequency channel, from accuracy on n images under noise of five octaves."""
    octaves, noise = torch.arange(5) + 0.5, torch.tensor(NOISES).log2()
    half = 4 + (octaves - 2.5).abs()[:, None]  # where accuracy falls to half, in doublings
    chance = 0.8 * torch.sigmoid(-2 * (noise + 7 - half))
    truth = channel(chance[None], torch.tensor([0.8]), octaves)[1][0, 0]
    hits = torch.rand(n, 26, generator=generator)
    hits = (hits < torch.cat([torch.tensor([0.8]), chance.flatten()])).float()
    counts = stats.resampled_counts(n, DRAWS, generator) / n
    value, resamples = (
        channel(mean[:, 1:].unflatten(1, (5, -1)), mean[:, 0], octaves)[1][:, :1]
        for mean in (hits.mean(0)[None], counts @ hits)
    )
    return (float(truth), *_ends(stats.Bootstrap(value[0], resamples, None)))


def _ends(boot: stats.Bootstrap) -> tuple[float, float]:
    low, high = boot.interval()
    return float(low[0]), float(high[0])


def kinds() -> dict[str, tuple]:
    """Name -> simulated study and its arguments."""
    table: dict[str, tuple] = {f"{n} shape images": (one_way, n) for n in (5, 10, 20, 110)}
    sides = ((10, 10), (110, 33), (40, 10))
    table |= {f"{r} x {c} shapes and textures": (crossed, r, c) for r, c in sides}
    for training in (0.0, 0.02, 0.1):
        for replicates, architectures in ((3, 1), (5, 1), (3, 3), (2, 3)):
            name = f"{replicates} trainings, {architectures} architecture(s), sd {training:g}"
            table[name] = (trained, replicates, architectures, training)
    table |= {f"{n} units": (units, n) for n in (9, 20, 64, 256)}
    table |= {f"R minus S, {n} units each": (unit_shares, n) for n in (20, 64)}
    table |= {f"R over S, 5 layers of {n} units": (layers, n) for n in (16, 64)}
    table |= {f"{n} images, share {p:g}": (trials, n, p) for n, p in ((200, 0.5), (200, 0.95))}
    for r, c, share in ((10, 10, 1.0), (110, 33, 0.15)):
        table[f"R minus S of shape bias, {r} x {c}"] = (biases, r, c, share)
    table["R minus S of mCE, 400 images"] = (corruption_errors, 400)
    table["shift over the style weight, 20 x 20"] = (shifts, 20)
    return table | {"channel centre, 300 images": (channels, 300)}


def covered(simulate, arguments: tuple, studies: int) -> tuple[float, float]:
    """Share of intervals that cover the truth, and their mean width."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.tensor([simulate(*arguments, generator) for _ in range(studies)])
    truth, low, high = rows.T
    return float(((low <= truth) & (truth <= high)).float().mean()), float((high - low).mean())


def main(studies: Annotated[int, typer.Option(help="Simulated studies of each kind.")] = 2000):
    """Prints one row per kind of interval."""
    torch.set_num_threads(1)
    rows = []
    for name, (simulate, *arguments) in kinds().items():
        start = time.perf_counter()
        share, width = covered(simulate, tuple(arguments), studies)
        seconds = time.perf_counter() - start
        rows.append({"interval": name, "covers": share, "width": width, "seconds": seconds})
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3f}".format))


if __name__ == "__main__":
    typer.run(main)
