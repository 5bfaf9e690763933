"""One folder with all that Jupyter Book reads: front matter, chapters per study, made pages."""

import shutil
from pathlib import Path

import nbformat
import yaml
from nbformat.v4 import new_markdown_cell

from robustbias import manifest
from robustbias.book import pages, vendor
from robustbias.book.edition import BUILD, PUBLISHED, Contents
from robustbias.book.labels import labels, relabelled
from robustbias.book.records import without_records
from robustbias.errors import UserError


def stage(contents: Contents, conclusions: list[Path], folder: Path) -> Path:
    """Lay the book's source out in `folder`, from nothing.

    Args:
        contents: Executed notebooks by study, in the order of the book's parts.
        conclusions: Executed closing chapters, of no study.
    """
    every = [*(path for paths in contents.values() for path in paths), *conclusions]
    if missing := [str(path) for path in every if not path.exists()]:
        raise UserError(f"not executed yet: {', '.join(missing)}; run `make book`.")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(PUBLISHED, folder, ignore=shutil.ignore_patterns(".*", *manifest.studies()))
    made = folder / "made"
    made.mkdir()
    (made / "overview.md").write_text(pages.overview(contents), encoding="utf-8")
    (made / "provenance.md").write_text(pages.provenance(contents), encoding="utf-8")
    for study, paths in contents.items():
        _stage_study(study, paths, folder / study)
    for path in conclusions:
        nbformat.write(without_records(nbformat.read(path, as_version=4)), folder / path.name)
    _write_yaml(folder / "_toc.yml", _toc(folder / "_toc.yml", contents, conclusions))
    has_scripts = vendor.scripts(BUILD / "vendor")
    if has_scripts:
        shutil.copytree(BUILD / "vendor", folder / "static" / "vendor")
    _write_yaml(folder / "_config.yml", _config(manifest.ROOT / "_config.yml", has_scripts))
    return folder


def _stage_study(study: str, paths: list[Path], folder: Path) -> None:
    folder.mkdir()
    entry = manifest.study(study)
    (folder / "study.md").write_text(pages.study_page(entry), encoding="utf-8")
    notebooks = [without_records(nbformat.read(path, as_version=4)) for path in paths]
    defined = labels(notebooks)
    for path, notebook in zip(paths, notebooks, strict=True):
        notebook.cells.insert(1, new_markdown_cell(f"*Study: [{entry.title}](study.md)*"))
        nbformat.write(relabelled(notebook, defined, study), folder / path.name)


def _toc(template: Path, contents: Contents, conclusions: list[Path]) -> dict:
    """The template's parts with one part a study, and the closing chapters, before the last."""
    toc = yaml.safe_load(template.read_text(encoding="utf-8"))
    parts = [
        {
            "caption": manifest.study(study).title,
            "numbered": True,
            "chapters": [
                {"file": f"{study}/{name}"} for name in ["study", *(p.stem for p in paths)]
            ],
        }
        for study, paths in contents.items()
    ]
    closing = [{"file": path.stem} for path in conclusions]
    parts += [{"caption": "All studies", "chapters": closing}] if closing else []
    toc["parts"][-1:-1] = parts
    return toc


def _config(path: Path, has_scripts: bool) -> dict:
    """`_config.yml`; without local scripts the pages fall back to Sphinx's own addresses."""
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not has_scripts:
        for key in ("mathjax_path", "nb_ipywidgets_js"):
            config["sphinx"]["config"].pop(key)
    return config


def _write_yaml(path: Path, value: dict) -> None:
    # Unsorted: the order of scripts in nb_ipywidgets_js is the order in which pages load them.
    path.write_text(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), encoding="utf-8")
