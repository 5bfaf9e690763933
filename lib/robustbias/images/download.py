"""Data sets and published weights brought to the data directory, checked, unpacked safely."""

import bz2
import errno
import functools
import gzip
import io
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
from robustbias.images.cue_conflict import class_names
from robustbias.images.doctor import complete, counted, folder, studied
from robustbias.manifest import DatasetEntry, FileEntry
from robustbias.networks import zoo
from robustbias.utils import MissingData, UserError, digest, locked, reading, scratch, sha256

# -- --------------------------------------------------------------------------------------------
# One file from the web: retried, resumed where the server allows, verified, whole or absent.


RETRIES = 3


SILENCE = 30  # seconds without a byte before an attempt is given up


WEB_PAGE = (b"<!doctype html", b"<html", b"<?xml")


def downloaded(file: FileEntry, folder: Path, *, progress: bool = True) -> Path:
    """The file's path below `folder`, downloaded unless it is there with the right hash.

    An interrupted download is kept as NAME.part and continued next time.

    Args:
        file: Without a hash the file cannot be verified; a warning gives the sha256 it has.
            Without an address it has to be there.
        progress: Show a bar with MB/s.

    Raises:
        MissingData: It has to be put there by hand.
        UserError: No connection, a web page instead of the file, another hash or size, a full disk.
    """
    import pooch  # here alone: measures run without it
    import requests

    hashed = f"sha256:{file.sha256}" if file.sha256 else f"md5:{file.md5}" if file.md5 else None
    place = folder / file.name
    if not file.url and not place.is_file():
        raise MissingData(f"{place} is not here and has to be put there by hand.")
    store = pooch.create(
        path=folder,
        base_url="",
        registry={file.name: hashed},
        urls={file.name: file.url or f"file://{place}"},
        retry_if_failed=RETRIES,
    )
    pooch.get_logger().setLevel("ERROR")  # our bar and our errors say it

    def stream(url: str, output: str, _: object) -> None:
        if not file.url:
            raise ValueError(f"{place} is another version, or damaged")
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
        if file.bytes and Path(output).stat().st_size != file.bytes:
            raise ValueError(f"{Path(output).stat().st_size} bytes came, expected {file.bytes}")

    by_hand = f"Try again later, or put the file at {place} by hand."
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
        raise UserError(f"could not write {place}: {error.strerror or error}.") from error
    if hashed is None:
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
    absent = [f.name for f in entry.files if not f.url and not (_archives() / f.name).is_file()]
    if absent or not entry.files:
        wanted = f" Missing in {_archives()}: {', '.join(absent)}." if absent else ""
        raise MissingData(f"{name} cannot be downloaded by a program.{wanted} {entry.note}")
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
    hashed where the manifest has a hash.

    Raises:
        MissingData: The data set is not here.
    """
    entry = manifest.dataset(name)
    if entry.path and not folder(entry).is_dir():
        raise MissingData(f"no folder {folder(entry)}; run `robustbias fetch {name}`.")
    rows = [
        (split, str(entry.images[split]), str(found)) for split, found in counted(entry).items()
    ]
    for file in {file.name: file for file in entry.files}.values():
        archive = _archives() / file.name
        for kind, expected in (("sha256", file.sha256), ("md5", file.md5)):
            if expected and archive.exists():
                rows.append((file.name, expected, digest(archive, kind)))
    table = pd.DataFrame(rows, columns=["what", "expected", "found"])
    return table.assign(ok=table["expected"] == table["found"])


def _weights(name: str, progress: bool) -> Path:
    networks = manifest.networks()
    if name not in networks:
        published = [n for n in networks if "://" in manifest.network(n).weights]
        known = ", ".join((*manifest.datasets(), *published))
        raise UserError(f"unknown data set or network {name!r}; valid: {known}.")
    entry = manifest.network(name)
    path, here = zoo.original_path(entry), zoo.weights_path(entry)
    if here.is_file() and (here != path or entry.archive or "://" not in entry.weights):
        return here
    if "://" not in entry.weights:
        raise MissingData(
            f"the weights of {entry.name} are not downloaded; get them: {zoo.how_to_get(entry)}"
        )
    file = FileEntry(path.name, entry.weights, entry.sha256, entry.bytes, entry.md5)
    if not entry.archive:
        return downloaded(file, path.parent, progress=progress)
    archive = downloaded(FileEntry(entry.archive, entry.weights), _archives(), progress=progress)
    inside = [member for member, *_ in _members(archive, "") if Path(member).name == path.name]
    if len(inside) != 1:
        raise UserError(f"{archive} holds {len(inside)} files {path.name}; expected one.")
    with scratch(_archives()) as staging:
        unpacked(archive, staging, folder=inside[0])
        path.parent.mkdir(parents=True, exist_ok=True)
        (staging / path.name).replace(path)
    return path


def fetch_study(name: str, progress: bool = True) -> list[str]:
    """Brings everything of a study that a program can download; one line for each thing.

    Photographs of a preferred set that are here already are not downloaded again. What fails does
    not stop the rest.

    Raises:
        UserError: Unknown study, or a download that failed, once all others were tried.
    """
    study, lines, failed = manifest.study(name), [], []
    wanted = [n for n in studied(study) if manifest.dataset(n).kind != "embedded"]
    wanted += [n for n in manifest.networks(name) if not manifest.network(n).trained_here]
    for item in wanted:
        try:
            lines.append(f"{item}: {fetch(item, progress)}")
        except MissingData as missing:
            lines.append(f"{item}: by hand. {missing}")
        except UserError as error:
            failed.append(f"{item}: {error}")
    if failed:
        raise UserError("\n".join([*lines, f"{len(failed)} downloads failed:", *failed]))
    return lines or [f"{name}: nothing has to be downloaded."]


def _archives() -> Path:
    return manifest.data_directory() / "archives"


def _fill(place: Path, entry: DatasetEntry, progress: bool) -> None:
    for file in entry.files:
        target = place / file.into
        if file.extract:
            path = downloaded(file, _archives(), progress=progress)
            unpacked(path, target, folder=file.folder, progress=progress)
        elif file.url:
            downloaded(file, target, progress=progress)
        else:  # what says into which classes the images belong
            _sort_validation(place, downloaded(file, _archives(), progress=progress))


# The official files of the validation split: flat images in an archive, their classes in another


def _sort_validation(folder: Path, devkit: Path) -> None:
    """Moves ILSVRC2012_val_*.JPEG of a folder into folders of WNIDs, as the devkit's tables say.

    Args:
        devkit: ILSVRC2012_devkit_t12.tar.gz.

    Raises:
        UserError: The devkit has not the tables expected, or does not fit the images.
    """
    import scipy.io  # nothing else here reads MATLAB's files

    images = sorted(folder.glob("ILSVRC2012_val_*.JPEG"))
    with (
        reading(devkit, "the development kit of ILSVRC 2012", "download it again"),
        tarfile.open(devkit) as archive,
    ):
        tables = {Path(member.name).name: member for member in archive if member.isfile()}

        def table(name: str) -> bytes:
            return archive.extractfile(tables[name]).read()

        synsets = scipy.io.loadmat(io.BytesIO(table("meta.mat")), squeeze_me=True)["synsets"]
        wnid_of = {int(synset[0]): str(synset[1]) for synset in synsets}
        wnids = [
            wnid_of[int(line)] for line in table("ILSVRC2012_validation_ground_truth.txt").split()
        ]
    if len(images) != len(wnids) or not set(wnids) <= set(class_names("imagenet_classes.txt")):
        raise UserError(
            f"{devkit} has classes for {len(wnids)} images, but there are {len(images)} in the "
            "archive of images; download both again."
        )
    for wnid in set(wnids):
        (folder / wnid).mkdir()
    for image, wnid in zip(images, wnids, strict=True):
        image.rename(folder / wnid / image.name)


def _counted(entry: DatasetEntry, place: Path) -> str:
    """As "train 12 of 100000, val 0 of 10000"."""
    counts = counted(entry, place).items()
    return ", ".join(f"{split} {count} of {entry.images[split]}" for split, count in counts)
