"""How smooth the filters and activations of S and R are, and what pixel noise does to them."""

from collections.abc import Iterable
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from robustbias import stats
from robustbias.errors import UserError
from robustbias.images import Images
from robustbias.measures.conflict import calibrated
from robustbias.measures.registry import described, measure, paired, pairs, tidy
from robustbias.measures.variation import filter_smoothness, map_smoothness, spatial_filters
from robustbias.networks import zoo

GROUP = ["layer", "condition"]


@measure(of=paired)
def smoothness(
    study: Any,
    *,
    n_images: int = 128,
    sigmas: tuple[float, ...] | list[float] = (0.04, 0.08, 0.16),
    cutoff: float = 0.25,
    layers: tuple[str, ...] | list[str] | None = None,
    draws: int = 2000,
) -> pd.DataFrame:
    """Smoothness of every filter and unit of S, R and an untrained network, and R over S.

    `condition` says of what: `filters` (layers are convolutions), `maps` or `noise` (layers are
    the probed ones). Metrics: `tv`, `tv_per_pixel`, `tv_normalised`, `high_frequency_share` (of
    filters), `noise_gain` (column `sigma`, 0 elsewhere).

    Rows, told apart by `unit`: 0 and up a unit, without interval; -1 the mean over a layer's live
    units, n of them, with a bootstrap over units; regime `robust / standard` the ratio of two such
    means, and under layer `all` the geometric mean of that ratio over layers. Units, not images,
    are resampled: both networks see the same images and the same noise, and which units training
    happened to make is the larger uncertainty.

    Args:
        n_images: Held-out images, drawn with the study's seed; at most all of them.
        cutoff: Where high frequencies begin, in cycles a pixel (at most 0.5 along a row).
        layers: Probed layers; the manifest's when None.

    Raises:
        UserError: n_images below 1, an unknown layer, a sigma that is not positive.

    Source: Rudin, Osher and Fatemi 1992, doi:10.1016/0167-2789(92)90242-F, for total variation.
    """
    if n_images < 1:
        raise UserError(f"n_images is {n_images}: give at least 1 image")
    generator = torch.Generator().manual_seed(study.seed)
    images = study.source.val()
    images = images.take(torch.randperm(len(images), generator=generator)[:n_images])
    images = images.to(study.device)
    units = []
    for named, network in _networks(study, images):
        found = {
            ("filters", layer): filter_smoothness(filters, cutoff)
            for layer, filters in spatial_filters(network.body).items()
        }
        noise = torch.Generator(images.pixels.device).manual_seed(study.seed)
        probed = map_smoothness(network, layers or network.layers, images, sigmas, generator=noise)
        for layer, values in probed.items():
            gains = {name: v for name, v in values.items() if name.startswith("noise_gain")}
            found["noise", layer] = gains
            found["maps", layer] = {k: v for k, v in values.items() if k not in gains}
        units += [
            pd.DataFrame({"unit": range(len(value)), "value": value.cpu().double().numpy()}).assign(
                **named, layer=layer, condition=condition, metric=metric
            )
            for (condition, layer), values in found.items()
            for metric, value in values.items()
        ]
    table = pd.concat([*units, _aggregates(study, pd.concat(units), generator, draws)])
    split = table["metric"].str.split(" ")  # noise_gain 0.08 -> metric and sigma
    sigma = pd.to_numeric(split.str[1]).fillna(0.0)
    return tidy(table.assign(metric=split.str[0], sigma=sigma).reset_index(drop=True))


def _networks(study: Any, images: Images) -> Iterable[tuple[dict[str, Any], zoo.Network]]:
    """(columns, network): S and R of each architecture, then one untrained."""
    for architecture, pair in pairs(study).items():
        for entry in pair.values():
            yield described(study, entry), study.network_named(entry.name)
        entry = pair.get("standard") or pair["robust"]
        null = {"network": f"untrained-{architecture}", "regime": "untrained"}
        network = zoo.untrained(entry, study.seed).to(study.device)
        columns = described(study, entry) | null | {"eps": 0.0, "pair": False}
        yield columns, calibrated(network, images.pixels)


def _aggregates(
    study: Any, units: pd.DataFrame, generator: torch.Generator, draws: int
) -> pd.DataFrame:
    """Means over the units of each layer, and R over S of each architecture."""
    rows, boots = [], {}
    for (name, *group), own in units.groupby(["network", *GROUP], sort=False):
        wide = own.pivot(index="unit", columns="metric", values="value")
        values = torch.tensor(wide.values)
        live = values.isfinite()
        boot = stats.ratios(
            values.nan_to_num(),
            live.float(),
            torch.arange(len(values)),
            generator=generator,
            draws=draws,
        )
        boots[name, *group] = wide.columns, boot, live.sum(0)
        shared = own.iloc[0].drop(["unit", "metric", "value"]).to_dict()
        rows.append(_rows(shared, wide.columns, boot.value, boot.replicates, live.sum(0)))
    for pair in [pair for pair in pairs(study).values() if len(pair) == 2]:
        shared = described(study, pair["robust"]) | {
            "network": f"{pair['robust'].name} / {pair['standard'].name}",
            "regime": "robust / standard",
        }
        rows += _ratios(shared, boots, pair["robust"].name, pair["standard"].name)
    return pd.concat(rows)


def _ratios(shared: dict[str, Any], boots: dict, robust: str, standard: str) -> list[pd.DataFrame]:
    """R over S by layer, and its geometric mean over the layers of each condition."""
    rows, logs = [], {}
    for (name, layer, condition), (metrics, boot, n) in boots.items():
        if name != robust:
            continue
        _, other, count = boots[standard, layer, condition]
        ratio = boot.value / other.value, boot.replicates / other.replicates, n + count
        own = shared | {"layer": layer, "condition": condition}
        rows.append(_rows(own, metrics, *ratio))
        logs.setdefault((condition, tuple(metrics)), []).append(ratio)
    for (condition, metrics), ratios in logs.items():
        value, replicates, n = (torch.stack(part) for part in zip(*ratios, strict=True))
        mean = value.log().mean(0).exp(), replicates.log().mean(0).exp(), n.sum(0)
        rows.append(_rows(shared | {"layer": "all", "condition": condition}, metrics, *mean))
    return rows


def _rows(
    shared: dict[str, Any],
    metrics: Iterable[str],
    value: Float[Tensor, " m"],
    replicates: Float[Tensor, "r m"],
    n: Int64[Tensor, " m"],
) -> pd.DataFrame:
    """A row a metric, with the middle 95 % of its replicates."""
    ends = {
        "low": stats.percentile(replicates, 0.025).numpy(),
        "high": stats.percentile(replicates, 0.975).numpy(),
    }
    own = pd.DataFrame({"metric": list(metrics), "value": value.numpy(), **ends, "n": n.numpy()})
    return own.assign(**shared, unit=-1)
