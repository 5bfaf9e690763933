"""Data sets and published weights brought to the data directory, checked, unpacked safely."""

import bz2
import errno
import functools
import gzip
import lzma
import shutil
import stat
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

import pandas as pd
from tqdm import tqdm

from robustbias import manifest
from robustbias.images.doctor import complete, folder, holdings
from robustbias.manifest import DatasetEntry, FileEntry
from robustbias.networks import zoo
from robustbias.utils import MissingData, UserError, locked, scratch, sha256

# -- --------------------------------------------------------------------------------------------
# One file from the web: retried, resumed where the server allows, verified, whole or absent.


RETRIES = 3


SILENCE = 30  # seconds without a byte before an attempt is given up


WEB_PAGE = (b"<!doctype html", b"<html", b"<?xml")


def downloaded(file: FileEntry, folder: Path, *, progress: bool = True) -> Path:
    """The file's path below `folder`, downloaded unless it is there with the right hash.

    An interrupted download is kept as NAME.part and continued next time.

    Args:
        file: Without a sha256 the file cannot be verified; a warning gives the hash it has.
        progress: Show a bar with MB/s.

    Raises:
        UserError: No connection, a web page instead of the file, another hash, a full disk.
    """
    import pooch  # here alone: measures run without it
    import requests

    store = pooch.create(
        path=folder,
        base_url="",
        registry={file.name: f"sha256:{file.sha256}" if file.sha256 else None},
        urls={file.name: file.url},
        retry_if_failed=RETRIES,
    )
    pooch.get_logger().setLevel("ERROR")  # our bar and our errors say it

    def stream(url: str, output: str, _: object) -> None:
        part = folder / f"{file.name}.part"
        have = part.stat().st_size if part.exists() else 0
        ask = {"Accept-Encoding": "identity"}  # bytes as stored, so that a part can be continued
        ask |= {"Range": f"bytes={have}-"} if have else {}
        with requests.get(url, stream=True, timeout=SILENCE, headers=ask) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                part.unlink()
            response.raise_for_status()
            resumed = response.status_code == requests.codes.partial_content
            start = have if resumed else 0
            total = start + int(response.headers.get("Content-Length", 0))
            bar = tqdm(total=total or None, initial=start, unit="B", unit_scale=True,
                       desc=file.name, disable=not progress)  # fmt: skip
            with bar, open(part, "ab" if resumed else "wb") as target:
                for block in response.iter_content(1 << 18):
                    target.write(block)
                    bar.update(len(block))
        if total and part.stat().st_size < total:
            raise requests.ConnectionError(f"{part.stat().st_size} of {total} bytes came")
        part.replace(output)
        if _is_web_page(Path(output)):
            raise ValueError(f"{url} gave a web page instead of {file.name}")

    by_hand = f"Try again later, or put the file at {folder / file.name} by hand."
    lock = manifest.ROOT / "_build" / "locks" / f"{file.name}.lock"  # of NAME.part
    try:
        with locked(lock):
            path = Path(store.fetch(file.name, downloader=stream))
    except requests.RequestException as error:
        raise UserError(f"could not download {file.url}: {error}. {by_hand}") from error
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file.name} is not the expected file: {reason}. {by_hand}") from error
    except OSError as error:
        raise UserError(
            f"could not write {folder / file.name}: {error.strerror or error}."
        ) from error
    if not file.sha256:
        warnings.warn(
            f"{file.name} has no published hash and is not verified; sha256 {sha256(path)}",
            stacklevel=2,
        )
    return path


def _is_web_page(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(512).lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(WEB_PAGE)


# -- --------------------------------------------------------------------------------------------
# Archives unpacked without trusting them: nothing is written outside the destination.


Content = Callable[[], IO[bytes] | None]


Member = tuple[str, int, Content]  # path, bytes, what opens it


def unpacked(archive: Path, destination: Path, *, folder: str = "", progress: bool = False) -> int:
    """The number of files written from a zip or tar archive into `destination`.

    Args:
        archive: .zip, .tar, .tar.gz, .tgz, .tar.bz2 or .tar.xz, told by content.
        folder: Only what lies below this folder of the archive (or this one file), its name
            taken off; everything when empty.
        progress: Show a bar with files/s.

    Raises:
        UserError: No archive, truncated, without the folder, too large for the disk, or holding
            an absolute path, a `..`, a link or a device.
    """
    written = 0
    try:
        needed = sum(size for _, size, _ in _members(archive, folder))
        destination.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(destination).free) < needed:
            raise UserError(
                f"{archive.name} unpacks to {needed / 1e6:.0f} MB but {destination} has only "
                f"{free / 1e6:.0f} MB free; free some space and try again."
            )
        bar = tqdm(desc=f"unpacking {archive.name}", unit="file", disable=not progress)
        with bar:
            for name, _, content in _members(archive, folder):
                target = destination / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with content() as source, open(target, "wb") as file:
                    shutil.copyfileobj(source, file)
                written += 1
                bar.update()
        _check_end(archive)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UserError(f"{archive} holds a name too long for {destination}.") from error
        if error.errno is None:  # gzip and bz2 report damage as an OSError of no number
            raise _damaged(archive, error) from error
        raise UserError(f"{destination}: {error.strerror or error}.") from error
    except DAMAGE as error:
        raise _damaged(archive, error) from error
    if not written:
        raise UserError(f"{archive} has no file below {folder or 'its root'!r}; expected some.")
    return written


# what zipfile, tarfile and the decompressors raise for damaged, encrypted and unknown content
DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError,
    RuntimeError, ValueError, LookupError, OverflowError, struct.error,
)  # fmt: skip


def _damaged(archive: Path, error: Exception) -> UserError:
    if isinstance(error, UserError):
        return error
    return UserError(f"{archive} is damaged or encrypted ({error}); delete it and fetch again.")


def _check_end(archive: Path) -> None:
    """Reads a compressed tar to its end, where its check sum is: tarfile stops before it."""
    if zipfile.is_zipfile(archive):
        return  # whose members have one each, read with them
    with open(archive, "rb") as file:
        head = file.read(6)
    openers = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
    for magic, opener in openers.items():
        if head.startswith(magic):
            with opener(archive) as stream:
                while stream.read(1 << 20):
                    pass


def _members(archive: Path, folder: str) -> Iterator[Member]:
    """The files wanted, by their path below the destination, each checked first."""
    listing = _zip if zipfile.is_zipfile(archive) else _tar if tarfile.is_tarfile(archive) else None
    if listing is None:
        raise UserError(f"{archive} is neither a zip nor a tar archive; delete it and fetch again.")
    for name, size, content in listing(archive):
        path = PurePosixPath(name)
        if not path.parts or "\0" in name:
            raise UserError(f"{archive} holds {name!r}, which is no name of a file; refused.")
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in path.parts[0]:
            raise UserError(f"{archive} holds {name!r}, a path outside its own folder; refused.")
        if content is None:
            raise UserError(f"{archive} holds {name!r}, a link or a device; refused.")
        if not folder:
            yield name, size, content
        elif path == PurePosixPath(folder):
            yield path.name, size, content
        elif path.is_relative_to(folder):
            yield path.relative_to(folder).as_posix(), size, content


def _zip(archive: Path) -> Iterator[tuple[str, int, Content | None]]:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)  # 0: made where files have no type
            regular = kind in (0, stat.S_IFREG)
            if not member.is_dir():
                opened = functools.partial(file.open, member) if regular else None
                yield member.filename, member.file_size, opened


def _tar(archive: Path) -> Iterator[tuple[str, int, Content | None]]:
    with tarfile.open(archive) as file:
        for member in file:
            if not member.isdir():
                if member.issparse():  # a few bytes there are any number of bytes here
                    raise UserError(f"{archive} holds {member.name!r} with holes; refused.")
                opened = functools.partial(file.extractfile, member) if member.isreg() else None
                yield member.name, member.size, opened


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
        with scratch(place.parent) as staging:
            whole = staging / place.name
            _fill(whole, entry, progress)
            if not complete(entry, whole):
                raise UserError(
                    f"the download of {name} is not complete: {_counted(entry, whole)}."
                )
            try:
                whole.rename(place)  # also onto an empty folder
            except OSError:
                if not (place.is_dir() and complete(entry)):
                    raise
                # else another process was faster
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
