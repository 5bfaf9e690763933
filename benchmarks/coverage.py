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
    return table | {f"{n} units": (units, n) for n in (9, 20, 64, 256)}


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
