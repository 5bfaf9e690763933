"""All that is known about the units of a study's S and R, ready to be shown."""

import dataclasses
import functools
from typing import Any

import pandas as pd
import torch

from robustbias.errors import UserError
from robustbias.explorer import units
from robustbias.explorer.cards import LETTERS, card
from robustbias.explorer.pictures import Sheet
from robustbias.explorer.sights import Sights, sights
from robustbias.images.concepts import Concepts
from robustbias.manifest import NetworkEntry
from robustbias.measures.dissection import concept_set
from robustbias.measures.registry import pairs
from robustbias.measures.variation import spatial_filters

WORDS = ("object", "part", "texture")  # categories that say what is on an image


@dataclasses.dataclass(frozen=True)
class Atlas:
    """Units of the pairs of a study.

    Args:
        pairs: Architecture -> regime -> network, of architectures that have both.
        table: From `units.joined`.
        concepts: From `units.concepts`.
        images: What excited the units: the images that were dissected with.
        sights: Network -> layer -> what its units see.
    """

    study: Any
    pairs: dict[str, dict[str, NetworkEntry]]
    table: pd.DataFrame
    concepts: pd.DataFrame
    images: Concepts
    sights: dict[str, dict[str, Sights]]

    @functools.cached_property
    def _by_layer(self) -> dict[tuple[str, str], pd.DataFrame]:
        return dict(list(self.table.groupby(["network", "layer"], sort=False)))

    @functools.cached_property
    def _by_unit(self) -> dict[tuple[str, str, int], pd.DataFrame]:
        return dict(list(self.concepts.groupby(units.KEYS, sort=False)))

    def layers(self, architecture: str) -> list[str]:
        """Layers that S and R of an architecture were both dissected at, in their order."""
        own = [self.sights[entry.name] for entry in self.pairs[architecture].values()]
        return [layer for layer in own[0] if all(layer in found for found in own)]

    def layer(self, network: str, layer: str) -> pd.DataFrame:
        """The units of one layer."""
        return self._by_layer[network, layer]

    def unit(self, network: str, layer: str, unit: int) -> pd.Series:
        """One unit. Raises UserError when the layer has none of that number."""
        own = self.layer(network, layer)
        found = own[own["unit"] == unit]
        if found.empty:
            raise UserError(
                f"layer {layer} of {network} has units {own['unit'].min()} to "
                f"{own['unit'].max()}; asked for {unit}."
            )
        return found.iloc[0]

    def views(self) -> list[units.View]:
        """Ways to look through a layer."""
        return units.views(self.table, self.images.categories)

    def card(self, entry: NetworkEntry, layer: str, unit: int, sheet: Sheet) -> str:
        """HTML of one unit (see `cards.card`)."""
        seen = self.sights[entry.name][layer]
        return card(
            self.unit(entry.name, layer, unit),
            name=unit_name(entry, layer, unit),
            regime=entry.regime,
            of=len(self.layer(entry.name, layer)),
            seen=seen,
            sheet=sheet,
            ious=self._by_unit[entry.name, layer, unit],
            words=[self.words[image] for image in seen.images[unit].tolist()],
            filter=self._filter(entry, layer, unit),
        )

    @functools.cached_property
    def words(self) -> list[str]:
        """For each image what is on it: the concept of most pixels, category by category."""
        text = [[] for _ in range(len(self.images))]
        for category in [c for c in WORDS if c in self.images.categories]:
            labels = self.images.maps[category].flatten(1).long().cpu()
            names = ("", *self.images.names[category])
            counts = torch.zeros(len(labels), len(names)).scatter_add_(
                1, labels, torch.ones(labels.shape)
            )
            counts[:, 0] = 0.5  # "nothing" wins only where there is nothing else
            for image, most in enumerate(counts.argmax(1).tolist()):
                text[image] += [names[most]] if names[most] else []
        return [" with ".join(words) or "image" for words in text]

    def _filter(self, entry: NetworkEntry, layer: str, unit: int) -> torch.Tensor | None:
        """Weights of a unit of the first layer, where they are what looks at the image."""
        if layer != self.layers(entry.architecture)[0]:
            return None
        filters = next(iter(spatial_filters(self.study.network_named(entry.name).body).values()))
        fits = filters.shape[1] == 3 and len(filters) == len(self.layer(entry.name, layer))
        return filters[unit] if fits else None


def unit_name(entry: NetworkEntry, layer: str, unit: int) -> str:
    """Under which a link finds a unit: `googlenet-r-inception4c-17`."""
    return f"{entry.architecture}-{LETTERS[entry.regime].lower()}-{layer}-{unit}"


def atlas(
    study: Any,
    *,
    dissection: pd.DataFrame,
    n_images: int | None = None,
    concepts: str = "",
    tops: int = 5,
    **tables: pd.DataFrame,
) -> Atlas:
    """Everything about the units that the tables know, with the images that excite them.

    Args:
        dissection: From `measures.dissection` with the same `n_images` and `concepts`.
        tops: Images a unit.
        tables: Other measured tables by the name of their measure.

    Raises:
        UserError: No architecture of the study has both networks here.
    """
    found = {name: pair for name, pair in pairs(study).items() if len(pair) == 2}
    found = {name: {r: pair[r] for r in ("standard", "robust")} for name, pair in found.items()}
    if not found:
        raise UserError(
            f"no architecture of study {study.name} has an S and an R here; run `robustbias train "
            f"{study.name}`."
        )
    names = [entry.name for pair in found.values() for entry in pair.values()]
    images = concept_set(study, concepts, n_images)
    table = units.joined({"dissection": dissection, **tables}, names)
    layers = {name: list(own["layer"].unique()) for name, own in _in_order(dissection, names)}
    seen = {
        name: sights(study.network_named(name), images.pixels, layers=layers[name], m=tops)
        for name in names
    }
    best = units.concepts(dissection, names)
    return Atlas(study, found, table, best, images, seen)


def _in_order(dissection: pd.DataFrame, names: list[str]) -> list[tuple[str, pd.DataFrame]]:
    own = dissection[dissection["network"].isin(names) & (dissection["metric"] == "iou")]
    return list(own.groupby("network", sort=False))
