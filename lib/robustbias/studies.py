"""A study: images, network pairs and threat model, loaded on a device.

Everything a chapter needs hangs on it, so that a chapter runs on another study by one word.
"""

import copy
import dataclasses
import functools
import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from robustbias import manifest
from robustbias.images import Images, imagenet
from robustbias.images.cue_conflict import class_names, membership
from robustbias.images.iconworld import IconWorld, World
from robustbias.images.imagenet import ImageNet
from robustbias.images.source import Source
from robustbias.images.style_transfer import StyleTransfer
from robustbias.images.tiny_imagenet import TinyImageNet
from robustbias.manifest import NetworkEntry, StudyEntry
from robustbias.networks import zoo
from robustbias.utils import Footer, MissingData, UserError


def _git(*words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(manifest.ROOT), *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def commit() -> str:
    """The repository's commit, "+" appended if lib differs from it; "unknown" outside git."""
    try:
        return _git("rev-parse", "--short=12", "HEAD") + (
            "+" if _git("status", "--short", "lib") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


@functools.cache
def device_name(device: torch.device) -> str:
    """The accelerator's or the processor's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    table = Path("/proc/cpuinfo")
    lines = table.read_text().splitlines() if table.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "cpu"


CALIBRATION = 400  # images that set the BatchNorm statistics of an untrained network
PACKAGES = ("torch", "torchvision", "numpy", "pandas", "pyarrow", "pillow", "safetensors")


def _iconworld(entry: StudyEntry, device: torch.device, cue: str) -> IconWorld:
    world = manifest.filled(World, entry.world, f"study {entry.name}: world")
    return IconWorld(world, device=str(device), cue=cue)


def _tiny_imagenet(entry: StudyEntry, device: torch.device, cue: str) -> TinyImageNet:
    where = f"study {entry.name}: painting"
    transfer = manifest.filled(StyleTransfer, entry.painting, where) if entry.painting else None
    chosen = {"subset": entry.subset} if entry.subset else {}
    return TinyImageNet(entry.categories, transfer=transfer, **chosen)


def _imagenet(entry: StudyEntry, device: torch.device, cue: str) -> ImageNet:
    dataset, (size, *_) = entry.dataset, entry.sizes
    return ImageNet(entry.categories, dataset=dataset, subset=entry.subset, size=size)


# one source per kind of data set
SOURCES: dict[str, Callable[[StudyEntry, torch.device, str], Source]] = {
    "embedded": _iconworld,
    "tiny-imagenet": _tiny_imagenet,
    "imagenet": _imagenet,
}


@dataclasses.dataclass(frozen=True)
class Study:
    """One study on one device. `entries` are its networks whose weights are on this machine.

    `tables` collects the summaries of the tables that it was asked for, by file.
    """

    entry: StudyEntry
    entries: tuple[NetworkEntry, ...]
    seed: int
    device: torch.device
    started: float = dataclasses.field(default_factory=time.perf_counter)
    tables: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """The study's name in the manifest."""
        return self.entry.name

    @property
    def categories(self) -> tuple[str, ...]:
        """The entry-level categories in play."""
        return self.entry.categories

    @functools.cached_property
    def source(self) -> Source:
        """Its images. Raises MissingData when they are of a kind without a source."""
        return source(self.entry, self.device)

    def network_named(self, name: str) -> zoo.Network:
        """A network of the study by its name in the manifest, loaded once."""
        return _loaded(name, str(self.device))

    def network(self, architecture: str, regime: str) -> zoo.Network:
        """The S or the R (of the study's radius) of an architecture's first replicate."""
        pair = first_pairs(self).get(architecture, {})
        if regime in pair:
            return self.network_named(pair[regime].name)
        present = sorted({f"{e.architecture} {e.regime}" for e in self.entries})
        raise UserError(
            f"study {self.name} has no {regime} {architecture} here; it has: {', '.join(present)}."
        )

    def membership(self, network: zoo.Network) -> Float[Tensor, "k q"]:
        """1 where the network's class k belongs to the study's category q."""
        entry = manifest.dataset(network.entry.dataset)
        if network.entry.dataset == self.entry.dataset:
            classes = self.source.classes
        else:
            classes = entry.classes or class_names(entry.class_file)
        return membership(classes, self.categories)

    def footer(self) -> Footer:
        """Where the numbers of a chapter come from, as a table and as a record of the notebook."""
        rows = {
            "study": self.name,
            "seed": self.seed,
            "images (digest)": self.source.digest[:12],
            "commit": commit(),
            "device": device_name(self.device),
            "threads": torch.get_num_threads(),
            "seconds": round(time.perf_counter() - self.started, 1),
        }
        rows |= {
            f"weights of {e.name}": (e.sha256 or self.network_named(e.name).weights_hash)[:12]
            for e in self.entries
        }
        rows |= {name: importlib.metadata.version(name) for name in PACKAGES}
        return Footer(rows, self.tables.values())


def load(
    name: str,
    *,
    seed: int = 0,
    device: str = "auto",
    architectures: tuple[str, ...] | list[str] | None = None,
    replicates: tuple[int, ...] | list[int] | None = None,
    world: dict[str, Any] | None = None,
) -> Study:
    """The study of that name.

    Args:
        device: cpu, cuda or auto (cuda where there is one).
        architectures: Some of the study's, all when None.
        replicates: Numbers of the trainings to look at, the study's when None or empty. `seed` has
            no part in them: it draws images and resamples.
        world: Parameters of the embedded world to change, for instance {"texture_contrast": 0.05}.

    Raises:
        UserError: An unknown study, architecture, replicate, device or world parameter.
    """
    entry = manifest.study(name)
    networks = [manifest.network(n) for n in manifest.networks(name)]
    present = [e for e in networks if zoo.weights_path(e).is_file()]
    # those of the study first, then those of networks that were added to it
    available = tuple(dict.fromkeys((*entry.architectures, *(e.architecture for e in present))))
    chosen = tuple(architectures) if architectures else available
    if unknown := [a for a in chosen if a not in available]:
        raise UserError(
            f"study {name} has no architecture {', '.join(unknown)}; "
            f"it has: {', '.join(available)}."
        )
    trained = sorted({e.replicate for e in networks} | set(entry.replicates))
    if unknown := [k for k in replicates or () if k not in trained]:
        raise UserError(f"study {name} has no replicate {unknown}; it has: {trained}.")
    if world:
        valid = {field.name for field in dataclasses.fields(World)} if entry.world else set()
        if unknown := sorted(set(world) - valid):
            raise UserError(f"unknown world parameter(s) {unknown}; valid: {sorted(valid)}.")
        entry = dataclasses.replace(entry, world=entry.world | world)
    preferred = (n for n in entry.preferred if imagenet.here(manifest.dataset(n)))
    entry = dataclasses.replace(
        entry,
        architectures=chosen,
        replicates=tuple(replicates or entry.replicates),
        dataset=next(preferred, entry.dataset),
    )
    painters = entry.painting.get("painters", ())  # they make images; no comparison uses them
    entries = tuple(
        e
        for e in present
        if e.architecture in chosen and e.replicate in entry.replicates and e.name not in painters
    )
    return Study(entry, _one_pair_each(entries), seed, chosen_device(device))


def _one_pair_each(entries: tuple[NetworkEntry, ...]) -> tuple[NetworkEntry, ...]:
    """The entries, of which only the first of each pair, regime and replicate keeps the pair."""
    taken: set[tuple[str, str, int]] = set()
    chosen = []
    for entry in entries:
        place = (entry.pair, entry.regime, entry.replicate)
        chosen.append(dataclasses.replace(entry, pair="") if place in taken else entry)
        taken.add(place)
    return tuple(chosen)


def source(entry: StudyEntry, device: torch.device, cue: str = "both") -> Source:
    """A study's images, with one cue or both. Raises MissingData for a kind without a source."""
    kind = manifest.dataset(entry.dataset).kind
    if kind not in SOURCES:
        raise MissingData(
            f"study {entry.name} has images of kind {kind!r}, for which there is no source; "
            f"known kinds: {', '.join(SOURCES)}."
        )
    return SOURCES[kind](entry, device, cue)


def chosen_device(name: str) -> torch.device:
    """The device of that name; "auto" is cuda where there is one. Raises UserError."""
    if name == "auto" and torch.cuda.is_available():
        local = int(os.environ.get("LOCAL_RANK", 0))  # torchrun's processes take a card each
        return torch.device("cuda", local % torch.cuda.device_count())
    if name == "auto":
        return torch.device("cpu")
    if name.partition(":")[0] not in ("cpu", "cuda"):
        raise UserError(f"unknown device {name!r}; expected cpu, cuda or auto.")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError("device cuda was asked for, but torch sees none; use cpu or auto.")
    return torch.device(name)


@functools.lru_cache(maxsize=32)
def _loaded(name: str, device: str) -> zoo.Network:
    return zoo.load(manifest.network(name), device)


def described(study: Study, entry: NetworkEntry) -> dict[str, Any]:
    """The columns that say which network a row is about.

    `pair` tells the S and R of an architecture (R at the study's radius) from the networks of
    the series over radii.
    """
    return {
        "study": study.name,
        "network": entry.name,
        "architecture": entry.architecture,
        "replicate": entry.replicate,
        "regime": entry.regime,
        "eps": entry.eps,
        "pair": bool(entry.pair),
    }


def pairs(study: Study) -> dict[tuple[str, int], dict[str, NetworkEntry]]:
    """{(architecture, replicate): {"standard": entry, "robust": entry}}, of networks that are here.

    Ordered by architecture as in the manifest, then by replicate.
    """
    pairs_here: dict[tuple[str, int], dict[str, NetworkEntry]] = {}
    for entry in study.entries:
        if entry.pair:
            pairs_here.setdefault((entry.architecture, entry.replicate), {})[entry.regime] = entry
    order = list(study.entry.architectures)
    return dict(sorted(pairs_here.items(), key=lambda item: (order.index(item[0][0]), item[0][1])))


def first_pairs(study: Study) -> dict[str, dict[str, NetworkEntry]]:
    """{architecture: {"standard": entry, "robust": entry}} of each one's first replicate here."""
    first: dict[str, dict[str, NetworkEntry]] = {}
    for (architecture, _), pair in pairs(study).items():
        first.setdefault(architecture, pair)
    return first


def pair_of(study: Study, architecture: str) -> dict[str, NetworkEntry]:
    """{"standard": entry, "robust": entry} of one architecture, of its first replicate.

    Raises:
        UserError: The study has no networks of this architecture.
    """
    by_architecture = first_pairs(study)
    if architecture not in by_architecture:
        names = ", ".join(by_architecture) or "none; train some first"
        raise UserError(f"no {architecture!r} networks in this study; here are: {names}.")
    return by_architecture[architecture]


def held_out_sample(study: Study, n: int | None, generator: torch.Generator) -> Images:
    """n held-out images in random order (all when None, or fewer than n), on the study's device.

    Raises:
        UserError: n below 1.
    """
    if n is not None and n < 1:
        raise UserError(f"n_images is {n}: give at least 1 image")
    images = study.source.val()
    images = images.take(torch.randperm(len(images), generator=generator)[:n])
    return images.to(study.device)


def paired(study: Study) -> Study:
    """The study with the networks of its pairs alone, sharing images and networks with it."""
    _ = study.source  # loaded before the copy, so that both have it
    part = copy.copy(study)
    entries = tuple(entry for pair in pairs(study).values() for entry in pair.values())
    object.__setattr__(part, "entries", entries)  # the copy is frozen as well
    return part


def networks_with_controls(
    study: Study, pixels: UInt8[Tensor, "n 3 h w"], controls: int = 1
) -> Iterator[tuple[dict[str, Any], Callable[[], nn.Module], int]]:
    """(columns that describe it, what returns the network, repeat), by architecture.

    First the networks trained on both cues of the study's own images, then the
    random-initialisation controls (regime `untrained`), numbered by `repeat`.

    Args:
        pixels: Images that the controls' BatchNorm statistics are taken from.
        controls: Random initialisations per architecture.
    """
    entries = [entry for entry in study.entries if entry.cue == "both" and not entry.world]
    for architecture in dict.fromkeys(entry.architecture for entry in entries):
        for entry in entries:
            if entry.architecture == architecture:
                load = functools.partial(study.network_named, entry.name)
                yield described(study, entry), load, 0
        if pair := first_pairs(study).get(architecture):
            entry = pair.get("standard") or pair["robust"]
            control = {"network": f"untrained-{architecture}", "regime": "untrained"}
            columns = (
                described(study, entry) | control | {"eps": 0.0, "pair": False, "replicate": None}
            )
            for repeat in range(controls):
                yield columns, functools.partial(_control, study, entry, repeat, pixels), repeat


def _control(
    study: Study, entry: NetworkEntry, repeat: int, pixels: UInt8[Tensor, "n 3 h w"]
) -> nn.Module:
    """A random initialisation of the entry's network, calibrated on the images."""
    network = zoo.untrained(entry, study.seed + repeat).to(study.device)
    return zoo.calibrated(network, pixels)
