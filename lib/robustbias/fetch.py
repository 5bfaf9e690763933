"""Data sets and published weights brought to the data directory, checked, unpacked safely."""

import shutil
import tempfile
from pathlib import Path

import pandas as pd

from robustbias import manifest
from robustbias.archives import unpacked
from robustbias.doctor import doctor
from robustbias.downloads import downloaded
from robustbias.errors import MissingData, UserError
from robustbias.files import sha256
from robustbias.holdings import complete, folder, holdings
from robustbias.manifest import DatasetEntry, FileEntry
from robustbias.networks import zoo

__all__ = ["doctor", "fetch", "verify"]


def fetch(name: str, progress: bool = True) -> Path:
    """Where a data set or a network's weights lie, downloaded unless they are complete.

    Archives stay in DATA/archives, where data sets of one archive share them. A folder takes its
    name only when everything in it has been unpacked and counted.

    Args:
        name: An entry of data_manifest/datasets, or a network whose weights are published.

    Raises:
        MissingData: It has to be obtained by hand or trained; the message says how.
        UserError: Unknown name, embedded data set, a folder with other content, a failed or
            tampered download, a disk that refuses.
    """
    if name not in manifest.datasets():
        return _weights(name, progress)
    entry = manifest.dataset(name)
    if entry.kind == "embedded":
        raise UserError(f"{name} is drawn by this package; there is nothing to fetch.")
    place = folder(entry)
    if place.is_dir() and complete(entry):
        return place
    if not entry.files:
        raise MissingData(f"{name} cannot be downloaded by a program. {entry.note}")
    if place.is_dir() and any(place.iterdir()):
        raise UserError(f"{place} is there but not complete: {_counted(entry, place)}. "
                        f"Move it away and run `robustbias fetch {name}` again.")  # fmt: skip
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.") as staging:
            whole = Path(staging) / place.name
            _fill(whole, entry, progress)
            if not complete(entry, whole):
                raise UserError(
                    f"the download of {name} is not complete: {_counted(entry, whole)}."
                )
            shutil.rmtree(place, ignore_errors=True)  # an empty folder, by the check above
            whole.rename(place)
    except OSError as error:
        raise UserError(
            f"could not write to {place}: {error.strerror or error}. Nothing is half-written; "
            "free some space, or set ROBUSTBIAS_DATA to a folder you may write to."
        ) from error
    return place


def verify(name: str) -> pd.DataFrame:
    """What the manifest expects of a data set and what is here, one row a check.

    Columns: what, expected, found, ok. Splits are counted; archives kept from the download are
    hashed where the manifest has a sha256.

    Raises:
        MissingData: The data set is not here.
    """
    entry = manifest.dataset(name)
    if entry.path and not folder(entry).is_dir():
        raise MissingData(f"no folder {folder(entry)}; run `robustbias fetch {name}`.")
    rows = [
        (split, str(entry.images[split]), str(found)) for split, found in holdings(entry).items()
    ]
    for file in {file.name: file for file in entry.files}.values():
        archive = _archives() / file.name
        if file.sha256 and archive.exists():
            rows.append((file.name, file.sha256, sha256(archive)))
    table = pd.DataFrame(rows, columns=["what", "expected", "found"])
    return table.assign(ok=table["expected"] == table["found"])


def _weights(name: str, progress: bool) -> Path:
    networks = manifest.networks()
    if name not in networks:
        published = [n for n in networks if "://" in manifest.network(n).weights]
        known = ", ".join((*manifest.datasets(), *published))
        raise UserError(f"unknown data set or network {name!r}; known: {known}.")
    entry = manifest.network(name)
    path = zoo.weights_path(entry)
    if path.is_file():
        return path
    if "://" not in entry.weights:
        raise MissingData(
            f"the weights of {entry.name} are made here, not downloaded; run "
            f"`robustbias train {entry.study} --network {entry.name}`."
        )
    file = FileEntry(path.name, entry.weights, entry.sha256)
    return downloaded(file, path.parent, progress=progress)


def _archives() -> Path:
    return manifest.data_directory() / "archives"


def _fill(place: Path, entry: DatasetEntry, progress: bool) -> None:
    for file in entry.files:
        target = place / file.into
        if file.extract:
            path = downloaded(file, _archives(), progress=progress)
            unpacked(path, target, folder=file.folder, progress=progress)
        else:
            downloaded(file, target, progress=progress)


def _counted(entry: DatasetEntry, place: Path) -> str:
    """As "train 12 of 100000, val 0 of 10000"."""
    found = holdings(entry, place).items()
    return ", ".join(f"{split} {count} of {entry.images[split]}" for split, count in found)
