"""Archives unpacked without trusting them: nothing is written outside the destination."""

import functools
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from tqdm import tqdm

from robustbias.errors import UserError

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
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
        raise UserError(f"{archive} is damaged ({error}); delete it and fetch again.") from error
    if not written:
        raise UserError(f"{archive} has no file below {folder or 'its root'!r}; expected some.")
    return written


def _members(archive: Path, folder: str) -> Iterator[Member]:
    """The files wanted, by their path below the destination, each checked first."""
    listing = _zip if zipfile.is_zipfile(archive) else _tar if tarfile.is_tarfile(archive) else None
    if listing is None:
        raise UserError(f"{archive} is neither a zip nor a tar archive; delete it and fetch again.")
    for name, size, content in listing(archive):
        path = PurePosixPath(name)
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
                opened = functools.partial(file.extractfile, member) if member.isreg() else None
                yield member.name, member.size, opened
