"""One file from the web: retried, resumed where the server allows, verified, whole or absent."""

import warnings
from pathlib import Path

from tqdm import tqdm

from robustbias.errors import UserError
from robustbias.files import sha256
from robustbias.manifest import FileEntry

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
    try:
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
