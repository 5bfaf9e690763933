"""The published edition: executed chapters kept in the repository, and the findings in README."""

import contextlib
import re
import shutil
from pathlib import Path

from robustbias import manifest
from robustbias.book import edition, pages
from robustbias.errors import UserError
from robustbias.files import atomic, locked

_BLOCK = re.compile(r"(<!-- findings -->\n).*?(<!-- end of findings -->)", re.S)


def publish(study: str) -> list[Path]:
    """Copy a study's executed chapters to `book/STUDY/` and renew the findings in README.md.

    Raises:
        UserError: The study is unknown, or a chapter was not executed on it.
    """
    manifest.study(study)
    with locked(manifest.ROOT / "_build" / "locks" / "publication.lock"):
        return _published(study)


def _published(study: str) -> list[Path]:
    folder, readme = edition.PUBLISHED / study, manifest.ROOT / "README.md"
    _recover(folder)
    executed = edition.notebooks(study, executed=True)
    if missing := [path.stem for path in executed if not path.exists()]:
        raise UserError(
            f"not executed on {study}: {', '.join(missing)}; run `make publish STUDY={study}`."
        )
    renewed(readme.read_text(encoding="utf-8"), "")  # its marks are there
    published = _replaced(folder, executed)
    with atomic(readme) as partial:
        text = readme.read_text(encoding="utf-8")
        found = pages.findings(edition.contents([]))
        partial.write_text(renewed(text, found), encoding="utf-8")
    return [*published, readme]


def _replaced(folder: Path, sources: list[Path]) -> list[Path]:
    """Makes the files all that is in the folder; a reader sees the old ones or the new ones.

    They are copied to a hidden folder beside it, then the two folders change places. Stopped
    between these two renames, the next call puts the old folder back first.

    Raises:
        UserError: The disk refused the write; the folder is as it was.
    """
    new, old = _new(folder), _old(folder)
    try:
        new.mkdir(parents=True)
        for source in sources:
            shutil.copy(source, new / source.name)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    except OSError as error:
        raise UserError(
            f"could not publish to {folder}: {error.strerror or error}. What was published "
            "before is unchanged; free some space or make the folder writable, and try again."
        ) from error
    finally:
        _recover(folder)
    return [folder / source.name for source in sources]


def _new(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.new")


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _recover(folder: Path) -> None:
    """Ends a replacement that was stopped: puts the old folder back where there is none.

    What cannot be removed stays for the next call.
    """
    new, old = _new(folder), _old(folder)
    with contextlib.suppress(OSError):
        if old.exists() and not folder.exists():
            old.rename(folder)
    if folder.exists():  # else the old folder is all there is
        shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(new, ignore_errors=True)


def renewed(text: str, findings: str) -> str:
    """The text with everything between its two findings marks replaced.

    Raises:
        UserError: The text does not hold the two marks, once.
    """
    text, count = _BLOCK.subn(lambda marks: f"{marks[1]}{findings}\n{marks[2]}", text)
    if count != 1:
        raise UserError(
            "README.md should hold one <!-- findings --> and one <!-- end of findings -->; "
            f"found {count} such pairs. Put them back around the table of findings."
        )
    return text
