"""Tables, concept images and maximally activating images of the units of a study's S and R."""

import dataclasses
import functools
import inspect
from collections.abc import Iterable

import pandas as pd
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from robustbias import studies
from robustbias.book import edition, execute
from robustbias.concepts import measure as concepts_measure
from robustbias.images import floats
from robustbias.images.concepts import Concepts
from robustbias.input_types.measure import input_types
from robustbias.manifest import NetworkEntry
from robustbias.networks import hooks
from robustbias.networks.zoo import Network
from robustbias.smooth_filters.measure import smoothness, spatial_filters
from robustbias.studies import Study
from robustbias.unit_explorer import units
from robustbias.unit_explorer.measure import attacked_units, connections
from robustbias.units_and_cues.measure import ablation
from robustbias.utils import UserError

CHAPTER = "08_unit_explorer"
SIDES = ("standard", "robust")
M = 5  # maximally activating images per unit
BINS = 24
DESCRIBING = ("object", "part", "texture")  # categories that say what an image contains


@dataclasses.dataclass(frozen=True)
class TopImages:
    """Maximally activating images of the units of one layer, among n images.

    Args:
        images: Per unit the indices of the m images with the highest peaks, strongest first.
        maps: The unit's activations on them.
        peaks: The largest activation in each of the n images.
    """

    images: Int64[Tensor, "u m"]
    maps: Float[Tensor, "u m a b"]
    peaks: Float[Tensor, "u n"]

    def histogram(self, unit: int) -> tuple[Int64[Tensor, " bins"], float, float]:
        """Number of images per bin of their peak, start of the first bin, end of the last."""
        peaks = self.peaks[unit]
        low, high = min(0.0, float(peaks.min())), float(peaks.max())
        return torch.histc(peaks, BINS, low, high).long(), low, high


@torch.no_grad()
def top_images(
    network: Network,
    pixels: UInt8[Tensor, "n 3 h w"],
    layers: Iterable[str],
    m: int = M,
    batch: int = 200,
) -> dict[str, TopImages]:
    """Maximally activating images of every unit of the layers, from one pass over the images.

    Memory: one batch, and m maps per unit.

    Args:
        m: Images per unit; at most all.

    Raises:
        UserError: No images, or an unknown layer.
    """
    if not len(pixels):
        raise UserError("there are no images to show to the units; give at least 1.")
    layers = list(layers)
    top: dict[str, TopImages] = {}
    device = next(network.parameters()).device
    index = torch.arange(len(pixels))
    with hooks.captured(network, layers) as maps:
        size = hooks.fitting(network, pixels, batch, held=True)
        for part, numbers in zip(pixels.split(size), index.split(size), strict=True):
            network(floats(part.to(device)))
            for layer in layers:
                new = _strongest(maps[layer].cpu(), numbers, m)
                top[layer] = _merged(top[layer], new, m) if layer in top else new
    return top


def _strongest(maps: Float[Tensor, "n u a b"], index: Int64[Tensor, " n"], m: int) -> TopImages:
    peaks = maps.amax((2, 3)).T
    best = peaks.topk(min(m, len(index)), dim=1).indices
    unit = torch.arange(len(peaks))[:, None]
    return TopImages(index[best], maps[best, unit], peaks)


def _merged(first: TopImages, second: TopImages, m: int) -> TopImages:
    """The m strongest images of both; of equal peaks the earlier image."""
    images = torch.cat([first.images, second.images], 1)
    maps = torch.cat([first.maps, second.maps], 1)
    order = maps.amax((2, 3)).argsort(dim=1, descending=True, stable=True)[:, :m]
    unit = torch.arange(len(images))[:, None]
    peaks = torch.cat([first.peaks, second.peaks], 1)
    return TopImages(images[unit, order], maps[unit, order], peaks)


@dataclasses.dataclass(frozen=True)
class UnitData:
    """The units of the S / R pairs of a study.

    Args:
        pairs: Architecture -> regime -> network, of architectures that have both.
        table: From `units.joined`.
        concepts: From `units.best_concepts`.
        images: The images that were dissected with.
        layers: Network -> its dissected layers, in their order.
        reads: From `measure.connections`, or None.
        attacked: From `measure.attacked_units`, or None.
    """

    study: Study
    pairs: dict[str, dict[str, NetworkEntry]]
    table: pd.DataFrame
    concepts: pd.DataFrame
    images: Concepts
    layers: dict[str, list[str]]
    reads: pd.DataFrame | None = None
    attacked: pd.DataFrame | None = None
    _top_images: dict[str, dict[str, TopImages]] = dataclasses.field(default_factory=dict)

    def top_images(self, network: str) -> dict[str, TopImages]:
        """Layer -> maximally activating images of its units; computed on the first call."""
        if network not in self._top_images:
            self._top_images[network] = top_images(
                self.study.network_named(network), self.images.pixels, self.layers[network]
            )
        return self._top_images[network]

    @functools.cached_property
    def _by_layer(self) -> dict[tuple[str, str], pd.DataFrame]:
        return dict(list(self.table.groupby(["network", "layer"], sort=False)))

    def shared_layers(self, architecture: str) -> list[str]:
        """Layers that S and R of an architecture were both dissected at, in their order."""
        first, *others = (self.layers[entry.name] for entry in self.pairs[architecture].values())
        return [layer for layer in first if all(layer in layers for layers in others)]

    def layer(self, network: str, layer: str) -> pd.DataFrame:
        """The rows of `table` of one layer."""
        return self._by_layer[network, layer]

    @functools.cached_property
    def descriptions(self) -> list[str]:
        """Per image what it contains: the concept of most pixels, category by category."""
        words = [[] for _ in range(len(self.images))]
        for category in [c for c in DESCRIBING if c in self.images.categories]:
            labels = self.images.maps[category].flatten(1).long().cpu()
            names = ("", *self.images.names[category])
            counts = torch.zeros(len(labels), len(names)).scatter_add_(
                1, labels, torch.ones(labels.shape)
            )
            counts[:, 0] = 0.5  # unlabelled pixels count only where there are no others
            for image, most in enumerate(counts.argmax(1).tolist()):
                words[image] += [names[most]] if names[most] else []
        return [" with ".join(each) or "image" for each in words]

    def colour_filters(self, entry: NetworkEntry, layer: str) -> Float[Tensor, "u 3 a b"] | None:
        """Weights of the first layer's units when they apply to the image, else None."""
        if layer != self.layers[entry.name][0]:
            return None
        filters = next(iter(spatial_filters(self.study.network_named(entry.name).body).values()))
        fits = filters.shape[1] == 3 and len(filters) == len(self.layer(entry.name, layer))
        return filters if fits else None


def unit_tables(
    study: Study,
    *,
    n_concepts: int = 1600,
    concepts: str = "",
    n_smooth: int = 128,
    n_tops: int = 1300,
    n_each: int = 60,
) -> dict[str, pd.DataFrame]:
    """Per-unit tables of the chapters before, by the name of the measure.

    With the arguments that those chapters have, these are their tables, read from the store.

    Args:
        n_concepts: Images with concept masks.
        concepts: A data set of kind broden; the study's images when empty.
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
        "connections": connections(study),
        "attacked_units": attacked_units(study),
    }


def unit_data(
    study: Study, tables: dict[str, pd.DataFrame], *, n_concepts: int = 1600, concepts: str = ""
) -> UnitData:
    """The units of the study's pairs, with the tables joined.

    Args:
        tables: From `unit_tables`; `dissection` at least, of the same `n_concepts` and `concepts`.

    Raises:
        UserError: No architecture of the study has both networks on this machine.
    """
    pairs = complete_pairs(study)
    if not pairs:
        raise UserError(
            f"no architecture of study {study.name} has an S and an R here; run `robustbias train "
            f"{study.name}`."
        )
    names = [entry.name for pair in pairs.values() for entry in pair.values()]
    dissection = tables["dissection"]
    iou = dissection[dissection["network"].isin(names) & (dissection["metric"] == "iou")]
    return UnitData(
        study,
        pairs,
        units.joined(tables, names),
        units.best_concepts(dissection, names),
        concepts_measure.concept_set(study, concepts, n_concepts),
        {n: list(rows["layer"].unique()) for n, rows in iou.groupby("network", sort=False)},
        tables.get("connections"),
        tables.get("attacked_units"),
    )


def complete_pairs(study: Study) -> dict[str, dict[str, NetworkEntry]]:
    """Architecture -> its S and R, of architectures with both on this machine."""
    return {
        name: {regime: pair[regime] for regime in SIDES}
        for name, pair in studies.first_pairs(study).items()
        if len(pair) == 2
    }


def book_unit_data(name: str) -> UnitData:
    """The units of a study with the parameters that its chapter has in this edition.

    Tables that are not stored yet are measured, which takes minutes.
    """
    given = execute.defaults(edition.chapter(CHAPTER)) | edition.parameters(name, CHAPTER)
    options = {
        option: given[option]
        for option, parameter in inspect.signature(unit_tables).parameters.items()
        if parameter.kind == parameter.KEYWORD_ONLY
    }
    study = studies.load(name, architectures=list(complete_pairs(studies.load(name))))
    about = {key: options[key] for key in ("n_concepts", "concepts")}
    return unit_data(study, unit_tables(study, **options), **about)
