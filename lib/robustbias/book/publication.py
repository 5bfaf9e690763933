"""The published edition: executed chapters kept in the repository, and the findings in README."""

import re
import shutil
from pathlib import Path

from robustbias import manifest
from robustbias.book import edition, pages
from robustbias.errors import UserError
from robustbias.files import atomic

_BLOCK = re.compile(r"(<!-- findings -->\n).*?(<!-- end of findings -->)", re.S)


def publish(study: str) -> list[Path]:
    """Copy a study's executed chapters to `book/STUDY/` and renew the findings in README.md.

    Raises:
        UserError: The study is unknown, or a chapter was not executed on it.
    """
    manifest.study(study)
    executed = edition.notebooks(study, executed=True)
    if missing := [path.stem for path in executed if not path.exists()]:
        raise UserError(
            f"not executed on {study}: {', '.join(missing)}; run `make publish STUDY={study}`."
        )
    folder = edition.PUBLISHED / study
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    published = [Path(shutil.copy(path, folder / path.name)) for path in executed]
    readme = manifest.ROOT / "README.md"
    with atomic(readme) as partial:
        text = renewed(readme.read_text(encoding="utf-8"), pages.findings(edition.contents([])))
        partial.write_text(text, encoding="utf-8")
    return [*published, readme]


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
