"""Jupyter Book over the staged folder; a warning is an error, and the log is kept."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

import nbformat
import yaml
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from robustbias import manifest
from robustbias.book import edition, pages
from robustbias.book.edition import BUILD, PUBLISHED, Contents
from robustbias.book.reader import for_readers
from robustbias.findings.measure import records, without_records
from robustbias.unit_explorer import files
from robustbias.utils import EXPLORER, UserError

# Browser scripts (widgets, mathematics) that let the pages work offline. They come from npm;
# without it the pages load the same scripts from a CDN.

# package, version -> files and folders of the package: name below the vendor folder
_WANTED = {
    ("@jupyter-widgets/html-manager", "1.0.15"): {
        "dist/embed.js": "embed.js",
        "dist/embed.js.LICENSE.txt": "embed.js.LICENSE.txt",
        "dist/*.woff2": "",
    },
    ("mathjax", "3.2.2"): {
        "LICENSE": "mathjax/LICENSE",
        "es5/tex-mml-chtml.js": "mathjax/tex-mml-chtml.js",
        "es5/output/chtml/fonts/woff-v2": "mathjax/output/chtml/fonts/woff-v2",
    },
}


def scripts(folder: Path) -> bool:
    """Whether `folder` holds the scripts; they are fetched once if it does not."""
    if folder.is_dir():
        return True
    if shutil.which("npm") is None:
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        ready = Path(scratch) / "vendor"
        for (package, version), wanted in _WANTED.items():
            unpacked = _unpacked(f"{package}@{version}", Path(tempfile.mkdtemp(dir=scratch)))
            if unpacked is None:
                return False
            for pattern, name in wanted.items():
                for source in unpacked.glob(pattern):
                    _copy(source, ready / (name or source.name))
        ready.rename(folder)
    return True


def _unpacked(package: str, folder: Path) -> Path | None:
    """The package's files, or None where npm cannot reach its registry."""
    packed = subprocess.run(
        ["npm", "pack", "--silent", package], cwd=folder, capture_output=True, check=False
    )
    archives = list(folder.glob("*.tgz"))
    if packed.returncode or not archives:
        return None
    with tarfile.open(archives[0]) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package"


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)


# Labels of a chapter, made unique per study, so that a chapter can appear once for each.

# (fig-eps)=   :name: fig-eps   :label: eq-madry   $$ (eq-madry)
_LABEL = r"(?:ch|sec|fig|tab|eq)-[a-z0-9-]+"
_DEFINITION = re.compile(
    rf"\(({_LABEL})\)=|^:(?:name|label):\s*({_LABEL})|\$\$\s*\(({_LABEL})\)", re.M
)


def labels(notebooks: Iterable[NotebookNode]) -> set[str]:
    """Every label that some notebook defines, in its prose or on a cell's figure."""
    names = set()
    for notebook in notebooks:
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                names.update(filter(None, sum(_DEFINITION.findall(cell.source), ())))
            if name := cell.metadata.get("mystnb", {}).get("figure", {}).get("name"):
                names.add(name)
    return names


def relabelled(
    notebook: NotebookNode, defined: set[str], study: str, left_out: Iterable[str] = ()
) -> NotebookNode:
    """The notebook with `label` turned into `label-study` where it is defined or referred to.

    References to the figures `left_out`, which the study has no data for, become words.
    """
    if not defined:
        return notebook
    longest_first = "|".join(sorted(map(re.escape, defined), key=len, reverse=True))
    pattern = re.compile(rf"(?<![\w-])({longest_first})(?![\w-])")

    def renamed(text: str) -> str:
        for label in left_out:
            text = text.replace(f"{{numref}}`{label}`", "a figure (no data for it here)")
        return pattern.sub(rf"\1-{study}", text)

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = renamed(cell.source)
        figure = cell.metadata.get("mystnb", {}).get("figure", {})
        figure.update({key: renamed(text) for key, text in figure.items() if isinstance(text, str)})
        for output in cell.get("outputs", []):
            if "text/markdown" in output.get("data", {}):
                output.data["text/markdown"] = renamed(output.data["text/markdown"])
    return notebook


# One folder with all that Jupyter Book reads: front matter, chapters per study, written pages.


def stage(contents: Contents, conclusions: list[Path], folder: Path) -> Path:
    """Lay the book's source out in `folder`, from nothing.

    Args:
        contents: Executed notebooks by study, in the order of the book's parts; of other studies
            the book has the page alone.
        conclusions: Executed closing chapters, of no study.
    """
    every = [*(path for paths in contents.values() for path in paths), *conclusions]
    if missing := [str(path) for path in every if not path.exists()]:
        raise UserError(f"not executed yet: {', '.join(missing)}; run `make book`.")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(PUBLISHED, folder, ignore=_not_staged)
    made = folder / "made"
    made.mkdir()
    (made / "verdicts.md").write_text(pages.verdicts_page(contents), encoding="utf-8")
    (made / "recipes.md").write_text(pages.recipes(), encoding="utf-8")
    (made / "provenance.md").write_text(pages.provenance(contents), encoding="utf-8")
    others = {study: [] for study in manifest.studies() if study not in contents}
    for study, paths in (contents | others).items():
        _stage_study(study, paths, folder / study)
        for record in (each for path in paths for each in records(path, EXPLORER)):
            files.written(files.unpacked(record), folder / "static" / "explorer" / study)
    for path in conclusions:
        notebook = for_readers(nbformat.read(path, as_version=4), None, path.stem)
        name = "intro.ipynb" if path == edition.front_page() else path.name
        nbformat.write(without_records(notebook), folder / name)
    _write_yaml(folder / "_toc.yml", _toc(folder / "_toc.yml", contents | others, conclusions))
    has_scripts = scripts(BUILD / "vendor")
    if has_scripts:
        shutil.copytree(BUILD / "vendor", folder / "static" / "vendor")
    _write_yaml(folder / "_config.yml", _config(manifest.ROOT / "_config.yml", has_scripts))
    return folder


def _not_staged(directory: str, names: list[str]) -> set[str]:
    """Hidden files, and the published studies: folders of the top level alone."""
    studies = manifest.studies() if Path(directory) == PUBLISHED else ()
    return {name for name in names if name.startswith(".") or name in studies}


def _stage_study(study: str, paths: list[Path], folder: Path) -> None:
    folder.mkdir()
    entry = manifest.study(study)
    (folder / "study.md").write_text(pages.study_page(entry, paths), encoding="utf-8")
    if entry.world:
        (folder / "categories.svg").write_text(pages.drawn_categories(entry), encoding="utf-8")
    notebooks = [nbformat.read(path, as_version=4) for path in paths]
    defined = labels(notebooks)
    shown = [for_readers(n, entry, path.stem) for path, n in zip(paths, notebooks, strict=True)]
    left_out = defined - labels(shown)
    for path, notebook in zip(paths, shown, strict=True):
        notebook = relabelled(notebook, defined, study, left_out)
        notebook.cells.insert(1, new_markdown_cell(f"*Study: [{entry.title}](study.md)*"))
        nbformat.write(without_records(notebook), folder / path.name)


def _toc(template: Path, contents: Contents, conclusions: list[Path]) -> dict:
    """The template's parts with one part per study, and the closing chapters, before the last."""
    toc = yaml.safe_load(template.read_text(encoding="utf-8"))
    parts = []
    for study, paths in contents.items():
        # A chapter has the number of its file in every study; the study's own page has none.
        chapters = [{"file": f"{study}/{path.stem}"} for path in paths]
        parts.append(
            {"caption": manifest.study(study).title, "chapters": [{"file": f"{study}/study"}]}
        )
        if chapters:
            parts.append({"numbered": True, "restart_numbering": True, "chapters": chapters})
    closing = [{"file": path.stem} for path in conclusions if path != edition.front_page()]
    parts += [{"caption": "All studies", "chapters": closing}] if closing else []
    toc["parts"][-1:-1] = parts
    return toc


def _config(path: Path, has_scripts: bool) -> dict:
    """`_config.yml`; without local scripts the pages fall back to Sphinx's addresses.

    Without the address of a repository there are no buttons that would lead there.
    """
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not has_scripts:
        for key in ("mathjax_path", "nb_ipywidgets_js"):
            config["sphinx"]["config"].pop(key)
    if not config.get("repository", {}).get("url"):
        config.pop("repository", None)
        config.pop("launch_buttons", None)
        config["html"] |= {"use_repository_button": False, "use_issues_button": False}
    return config


def _write_yaml(path: Path, value: dict) -> None:
    # Unsorted: the order of scripts in nb_ipywidgets_js is the order in which pages load them.
    path.write_text(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), encoding="utf-8")


def render(contents: Contents, conclusions: list[Path], build: Path = BUILD) -> Path:
    """The first page of the book made from executed notebooks: by study, and closing ones.

    The pages of an earlier build stay in place until all new ones are there.

    Raises:
        UserError: A warning or an error of Jupyter Book, quoted, and where its log is.
    """
    source = stage(contents, conclusions, build / "book")
    work, html = build / "render", build / "html"
    _jupyter_book(source, work, "-W", "--keep-going", log=build / "logs" / "render.log")
    for page in (work / "_build" / "html").rglob("*.html"):
        page.write_text(mended(page.read_text(encoding="utf-8")), encoding="utf-8")
    shutil.rmtree(html, ignore_errors=True)
    os.replace(work / "_build" / "html", html)
    shutil.rmtree(work)
    return html / "index.html"


def _jupyter_book(source: Path, work: Path, *options: str, log: Path) -> None:
    shutil.rmtree(work, ignore_errors=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [Path(sys.executable).with_name("jupyter-book"), "build", source]
    with open(log, "w", encoding="utf-8") as file:
        built = subprocess.run(
            [*command, "--path-output", work, *options],
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if built.returncode:
        raise UserError(f"the book did not render: {_complaints(log)}The whole log is {log}.")


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def pdf(build: Path = BUILD) -> Path:
    """The book of the last `render` as one PDF, without the pages that need a browser's scripts.

    Raises:
        UserError: Nothing was rendered yet, no Chromium is there, or it does not print.
    """
    source, work, out = build / "book", build / "pdf", build / "book.pdf"
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not source.is_dir() or browser is None:
        raise UserError("a PDF needs a rendered book (`make book`) and Chromium; one is missing.")
    copy = shutil.copytree(source, build / "pdf-source", dirs_exist_ok=True)
    toc = yaml.safe_load((copy / "_toc.yml").read_text(encoding="utf-8"))
    for part in toc["parts"]:
        pages = part["chapters"]
        part["chapters"] = [page for page in pages if "unit_explorer" not in page["file"]]
    _write_yaml(copy / "_toc.yml", toc)
    _jupyter_book(copy, work, "--builder", "singlehtml", log=build / "logs" / "pdf.log")
    (page,) = (work / "_build" / "singlehtml").glob("intro.html")
    page.write_text(mended(page.read_text(encoding="utf-8")), encoding="utf-8")
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
    command += ["--virtual-time-budget=60000", f"--print-to-pdf={out}", page.resolve().as_uri()]
    printed = subprocess.run(command, capture_output=True, text=True, check=False)
    if printed.returncode or not out.exists():
        raise UserError(f"Chromium did not print the book: {printed.stderr[-300:]}")
    shutil.rmtree(copy)
    shutil.rmtree(work)
    return out


_THEBE = re.compile(
    r"<script>const THEBE_JS_URL[^<]*</script>|<script[^>]*sphinx-thebe[^>]*></script>"
)


def mended(page: str) -> str:
    """The page without the scripts of sphinx-thebe, which declare one constant twice, and without
    roles of the bibliography that assistive technology does not accept together."""
    page = _THEBE.sub("", page)
    if "citation-list" in page:
        page = page.replace(' role="list"', "").replace(' role="doc-biblioentry"', "")
    return page


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def _complaints(log: Path, most: int = 5) -> str:
    """The first warnings and errors in Jupyter Book's log, else its last line."""
    lines = _COLOUR.sub("", log.read_text(encoding="utf-8")).splitlines()
    lines = [line for line in lines if "WARNING" in line or "ERROR" in line] or lines[-1:]
    return "\n".join(["", *lines[:most], ""])
