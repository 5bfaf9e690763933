"""What is here and what is missing: data sets, what each study can run, device, versions."""

import importlib.metadata
import itertools
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch

from robustbias import manifest, stats
from robustbias.images import cue_conflict, floats, imagenet, tiny_imagenet_files
from robustbias.images.corruptions.constants import GROUPS, SEVERITIES
from robustbias.manifest import DatasetEntry, NetworkEntry, StudyEntry
from robustbias.networks import hooks, zoo
from robustbias.utils import UserError

# -- --------------------------------------------------------------------------------------------
# What is here of a data set: images, stimuli or trials counted, split by split.


def folder(entry: DatasetEntry) -> Path:
    """Where the data set lies or would lie."""
    return manifest.data_directory() / entry.path


def counted(entry: DatasetEntry, place: Path | None = None) -> dict[str, int]:
    """Number of items of every split that the manifest names; 0 where nothing is.

    Args:
        place: Another folder than the data set's own.

    Raises:
        UserError: What is there cannot be read (a broken shard, a missing one).
    """
    if entry.kind not in COUNTS:
        raise UserError(
            f"data set {entry.name}: unknown kind {entry.kind!r}; "
            f"expected one of {', '.join(sorted(COUNTS))}."
        )
    place = place or folder(entry)
    return {
        split: COUNTS[entry.kind](place, split) if place.is_dir() else 0 for split in entry.images
    }


def complete(entry: DatasetEntry, place: Path | None = None) -> bool:
    """Whether every split has as many items as the manifest says; always for an embedded set."""
    return counted(entry, place) == entry.images


def _stimuli(place: Path, split: str) -> int:
    return sum(file.suffix.lower() in cue_conflict.SUFFIXES for file in place.glob("*/*"))


def _trials(place: Path, split: str) -> int:
    return sum(
        max(len(file.read_text().splitlines()) - 1, 0) for file in (place / split).glob("*.csv")
    )


def _photographs(place: Path, split: str) -> int:
    return imagenet.count(place)


def _corrupted(place: Path, split: str) -> int:
    """Images of all corruptions of a group (noise, blur, weather, digital) at all severities."""
    cells = itertools.product(GROUPS[split], SEVERITIES)
    return sum(imagenet.count(place / name / str(severity)) for name, severity in cells)


def _index_rows(place: Path, split: str) -> int:
    index = place / "index.csv"
    return len(index.read_text().splitlines()) - 1 if index.is_file() else 0


def _drawn(place: Path, split: str) -> int:
    return 0  # made when needed: nothing lies on disk


COUNTS: dict[str, Callable[[Path, str], int]] = {
    "embedded": _drawn,
    "tiny-imagenet": tiny_imagenet_files.count,
    "cue-conflict": _stimuli,
    "category-folders": _stimuli,
    "decisions": _trials,
    "wnid-folders": _photographs,
    "imagenet": _photographs,
    "trial-images": _stimuli,
    "imagenet-c": _corrupted,
    "broden": _index_rows,
}


PACKAGES = ("torch", "torchvision", "numpy", "pandas", "pyarrow", "Pillow", "safetensors")


PACKAGES += ("pooch", "papermill", "jupyter-book", "seaborn", "ipywidgets", "qtawesome")


def doctor() -> dict[str, pd.DataFrame]:
    """Tables by title; every row that is not in order says what to type."""
    return {
        "Data sets": _dataset_table(),
        "Studies": _study_table(),
        "Networks": _network_table(),
        "Device": _device_table(),
        "Versions": _version_table(),
    }


def _dataset_table() -> pd.DataFrame:
    """data set, state (here, incomplete, missing, broken, embedded), found, to do."""
    rows = []
    for name in manifest.datasets():
        entry = manifest.dataset(name)
        state, found = _state(entry)
        rows.append((name, state, found, _to_do(entry, state)))
    return pd.DataFrame(rows, columns=["data set", "state", "found", "to do"])


def _state(entry: DatasetEntry) -> tuple[str, str]:
    if entry.kind == "embedded":
        return "embedded", entry.size
    try:
        numbers = counted(entry)
    except UserError as error:
        return "broken", str(error)
    counts = ", ".join(f"{split} {n:,} of {entry.images[split]:,}" for split, n in numbers.items())
    if not any(numbers.values()):
        return "missing", str(folder(entry))
    return ("here" if complete(entry) else "incomplete"), counts


def _to_do(entry: DatasetEntry, state: str) -> str:
    if state in ("here", "embedded"):
        return ""
    if not all(file.url for file in entry.files) or not entry.files:
        return f"by hand, from {entry.source}; `robustbias fetch {entry.name}` says how"
    fetch = f"robustbias fetch {entry.name}"
    return fetch if state == "missing" else f"move {folder(entry)} away, then {fetch}"


def _study_table() -> pd.DataFrame:
    """study, what its images, stimuli and networks are, and what it can run."""
    rows = []
    for name in manifest.studies():
        entry = manifest.study(name)
        wanted = [manifest.dataset(n) for n in studied(entry)]
        missing = [d.name for d in wanted if _state(d)[0] not in ("here", "embedded")]
        networks = [manifest.network(n) for n in manifest.networks(study=name)]
        absent = [network for network in networks if not zoo.weights_path(network).is_file()]
        foreign = [network for network in absent if not network.trained_here]
        to_do = [f"robustbias fetch {name}"] if missing or foreign else []
        to_do += [f"robustbias train {name}"] if len(absent) > len(foreign) else []
        rows.append(
            {
                "study": name,
                "images": "missing: " + ", ".join(missing) if missing else "here",
                "networks": f"{len(networks) - len(absent)} of {len(networks)}",
                "can train": not missing and any(n.trained_here for n in networks),
                "can measure": not missing and len(absent) < len(networks),
                "to do": "; ".join(to_do),
            }
        )
    return pd.DataFrame(rows)


def _network_table() -> pd.DataFrame:
    """network, study, whether its weights are here, to do."""
    rows = []
    for entry in map(manifest.network, manifest.networks()):
        here = zoo.weights_path(entry).is_file()
        rows.append(
            (
                entry.name,
                entry.study,
                "here" if here else "missing",
                "" if here else zoo.how_to_get(entry),
            )
        )
    return pd.DataFrame(rows, columns=["network", "study", "weights", "to do"])


def studied(entry: StudyEntry) -> list[str]:
    """The data sets a study reads: its photographs (of a preferred set if here), its stimuli."""
    preferred = (n for n in entry.preferred if imagenet.here(manifest.dataset(n)))
    names = (next(preferred, entry.dataset), entry.stimuli, *entry.data)
    return list(dict.fromkeys(names))


TOLERANCE = 0.3  # percent of images on which decoders and resizing may disagree
PHOTOGRAPHS = ("imagenet-val", "imagenetv2")  # `expected` is about the first


@torch.no_grad()
def checked(
    entry: NetworkEntry, n_images: int = 2000, device: torch.device | str = "cpu"
) -> pd.DataFrame:
    """Whether a network is what its entry says: what, found, expected, ok.

    The weights fit, the probed layers give maps, and where ImageNet's validation split is here,
    the top-1 accuracy is the published one within the 95 % interval of n_images images. Networks
    score 10 to 14 points lower on ImageNetV2, which is measured in its place but not judged.

    Raises:
        MissingData, UserError: The weights cannot be loaded.
    """
    network = zoo.load(entry, device)
    parameters = sum(p.numel() for p in network.parameters())
    rows = [
        ("weights", f"{zoo.weights_path(entry)}, sha256 {network.weights_hash[:12]}", "", True),
        ("parameters", f"{parameters:,}", "", True),
    ]
    pixels = torch.rand(1, 3, entry.size, entry.size, device=device)
    for layer in entry.layers:
        try:
            with hooks.captured(network, [layer]) as maps:
                network(pixels)
            found, ok = " x ".join(map(str, maps[layer].shape[1:])), maps[layer].ndim == 4
        except UserError as error:
            found, ok = str(error), False
        rows.append((layer, found, "units x height x width", ok))
    published = entry.expected.get("top1_percent")
    sets = [manifest.dataset(name) for name in PHOTOGRAPHS if entry.dataset == PHOTOGRAPHS[0]]
    images = next(filter(imagenet.here, sets), None)
    if images is not None:
        hits = [
            (network(floats(x.to(device))).argmax(1).cpu() == y)
            for x, y in imagenet.batches(images, entry.size, n_images)
        ]
        correct = torch.cat(hits)
        top1 = stats.wilson(int(correct.sum()), len(correct))
        low, high = 100 * top1.low - TOLERANCE, 100 * top1.high + TOLERANCE
        judged = published is not None and images.name == PHOTOGRAPHS[0]
        found = f"{100 * top1.value:.2f} [{100 * top1.low:.2f}, {100 * top1.high:.2f}] %"
        expected = f"{published:.2f} %" if judged else ""
        ok = not judged or low <= published <= high
        rows.append((f"top-1 on {images.name}, n = {len(correct)}", found, expected, ok))
    elif published is not None:
        rows.append(("top-1", "not measured: no imagenet-val here", f"{published:.2f} %", True))
    return pd.DataFrame(rows, columns=["what", "found", "expected", "ok"])


def _device_table() -> pd.DataFrame:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    place = manifest.data_directory()
    existing = next(path for path in (place, *place.parents) if path.exists())
    rows = [
        ("processor", f"{platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB"),
        ("data directory", f"{place}, {shutil.disk_usage(existing).free / 2**30:.0f} GiB free"),
    ]
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        rows.append((f"cuda:{index}", f"{card.name}, {card.total_memory / 2**30:.0f} GiB"))
    if not torch.cuda.is_available():
        rows.append(("cuda", "none; everything runs on the processor"))
    return pd.DataFrame(rows, columns=["what", "is"])


def _version_table() -> pd.DataFrame:
    rows = [("python", platform.python_version())]
    for package in PACKAGES:
        try:
            rows.append((package, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            rows.append((package, "not installed"))
    return pd.DataFrame(rows, columns=["package", "version"])
