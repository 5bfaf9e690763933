"""An extension of Sphinx: figures and equations of a chapter are counted from 1 in every study.

Chapters have the same number in every study, and Sphinx counts figures by the chapter's number.
"""

from typing import Any

from sphinx.application import Sphinx


def recount(_app: Any, env: Any) -> list[str]:
    """Numbers (chapter, k) with k from 1 within each page; no page is to be read again."""
    for by_kind in env.toc_fignumbers.values():
        for numbers in by_kind.values():
            chapters: dict[tuple[int, ...], int] = {}
            for name, (*chapter, _) in sorted(numbers.items(), key=lambda item: item[1]):
                place = tuple(chapter)
                chapters[place] = chapters.get(place, 0) + 1
                if place:
                    numbers[name] = (*place, chapters[place])
    return []


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx; runs after its own numbering."""
    app.connect("env-get-updated", recount, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
