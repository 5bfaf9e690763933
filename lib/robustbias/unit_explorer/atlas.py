"""All that is known about the units of a study's S and R, ready to be shown."""

import dataclasses
import functools
import inspect

import pandas as pd
import torch

from robustbias import studies
from robustbias.book import edition, execute
from robustbias.concepts import measure as concepts_measure
from robustbias.concepts.measure import concept_set
from robustbias.images.concepts import Concepts
from robustbias.input_types.measure import input_types
from robustbias.manifest import NetworkEntry
from robustbias.smooth_filters.measure import smoothness, spatial_filters
from robustbias.studies import Study, pairs
from robustbias.unit_explorer import units
from robustbias.unit_explorer.cards import LETTERS, Sheet, card
from robustbias.unit_explorer.data import Sights, sights
from robustbias.units_and_cues.measure import ablation
from robustbias.utils import UserError

CHAPTER = "08_unit_explorer"


WORDS = ("object", "part", "texture")  # categories that say what is on an image


@dataclasses.dataclass(frozen=True)
class Atlas:
    """Units of the pairs of a study.

    Args:
        pairs: Architecture -> regime -> network, of architectures that have both.
        table: From `units.joined`.
        concepts: From `units.concepts`.
        images: What excited the units: the images that were dissected with.
        layers: Network -> its dissected layers, in their order.
        tops: Images a unit.
    """

    study: Study
    pairs: dict[str, dict[str, NetworkEntry]]
    table: pd.DataFrame
    concepts: pd.DataFrame
    images: Concepts
    layers: dict[str, list[str]]
    tops: int

    @functools.cached_property
    def _sights(self) -> dict[str, dict[str, Sights]]:
        return {}

    def sights(self, network: str) -> dict[str, Sights]:
        """Layer -> what its units see; looked for when first asked."""
        if network not in self._sights:
            self._sights[network] = sights(
                self.study.network_named(network),
                self.images.pixels,
                layers=self.layers[network],
                m=self.tops,
            )
        return self._sights[network]

    @functools.cached_property
    def _by_layer(self) -> dict[tuple[str, str], pd.DataFrame]:
        return dict(list(self.table.groupby(["network", "layer"], sort=False)))

    @functools.cached_property
    def _by_unit(self) -> dict[tuple[str, str, int], pd.DataFrame]:
        return dict(list(self.concepts.groupby(units.KEYS, sort=False)))

    def shared_layers(self, architecture: str) -> list[str]:
        """Layers that S and R of an architecture were both dissected at, in their order."""
        own = [self.layers[entry.name] for entry in self.pairs[architecture].values()]
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
        seen = self.sights(entry.name)[layer]
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
        if layer != self.layers[entry.name][0]:
            return None
        filters = next(iter(spatial_filters(self.study.network_named(entry.name).body).values()))
        fits = filters.shape[1] == 3 and len(filters) == len(self.layer(entry.name, layer))
        return filters[unit] if fits else None


def unit_name(entry: NetworkEntry, layer: str, unit: int) -> str:
    """Under which a link finds a unit: `googlenet-r-inception4c-17`."""
    return f"{entry.architecture}-{LETTERS[entry.regime].lower()}-{layer}-{unit}"


def tables(
    study: Study,
    *,
    n_concepts: int = 1600,
    concepts: str = "",
    n_smooth: int = 128,
    n_tops: int = 1300,
    n_each: int = 60,
) -> dict[str, pd.DataFrame]:
    """What the chapters before say about single units, by the name of the measure.

    With the arguments that those chapters have, these are their tables, read from the store.

    Args:
        n_concepts: Images with concept masks.
        concepts: A data set of kind broden; the study's own images when empty.
        n_smooth: Held-out images behind total variation and noise gain.
        n_tops: Held-out images that a unit's top images are chosen from.
        n_each: Decisions of each kind that a unit is silenced on.
    """
    about = {"concepts": concepts}
    return {
        "dissection": concepts_measure.dissection(study, n_images=n_concepts, **about),
        "smoothness": smoothness(study, n_images=n_smooth),
        "input_types": input_types(study, n_images=n_tops, concept_images=n_concepts, **about),
        "ablation": ablation(study, n_each=n_each),
    }


def atlas(
    study: Study,
    tables: dict[str, pd.DataFrame],
    *,
    n_concepts: int = 1600,
    concepts: str = "",
    tops: int = 5,
) -> Atlas:
    """Everything about the units that the tables know, with the images that excite them.

    Args:
        tables: From `tables`; `dissection` at least, of the same `n_concepts` and `concepts`.
        tops: Images a unit.

    Raises:
        UserError: No architecture of the study has both networks here.
    """
    dissection = tables["dissection"]
    found = {name: pair for name, pair in pairs(study).items() if len(pair) == 2}
    found = {name: {r: pair[r] for r in ("standard", "robust")} for name, pair in found.items()}
    if not found:
        raise UserError(
            f"no architecture of study {study.name} has an S and an R here; run `robustbias train "
            f"{study.name}`."
        )
    names = [entry.name for pair in found.values() for entry in pair.values()]
    images = concept_set(study, concepts, n_concepts)
    table = units.joined(tables, names)
    layers = {name: list(own["layer"].unique()) for name, own in _in_order(dissection, names)}
    best = units.concepts(dissection, names)
    return Atlas(study, found, table, best, images, layers, tops)


def measured(name: str) -> Atlas:
    """The atlas of a study with the parameters that its chapter has in this edition.

    Tables that are not stored yet are measured, which takes minutes.
    """
    given = execute.defaults(edition.chapter(CHAPTER)) | edition.parameters(name, CHAPTER)
    known = [
        parameter
        for parameter in inspect.signature(tables).parameters.values()
        if parameter.kind == parameter.KEYWORD_ONLY
    ]
    counts = {one.name: given[one.name] for one in known}
    study = studies.load(name, architectures=paired(name))
    about = {key: counts[key] for key in ("n_concepts", "concepts")}
    return atlas(study, tables(study, **counts), **about)


def paired(name: str) -> list[str]:
    """Architectures of a study whose S and R are both on this machine."""
    study = studies.load(name)
    return [architecture for architecture, pair in pairs(study).items() if len(pair) == 2]


def _in_order(dissection: pd.DataFrame, names: list[str]) -> list[tuple[str, pd.DataFrame]]:
    own = dissection[dissection["network"].isin(names) & (dissection["metric"] == "iou")]
    return list(own.groupby("network", sort=False))
