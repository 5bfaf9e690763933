"""The repository as a whole: layout, manifest, and what must not be in it."""

import dataclasses
import re
import subprocess
import tomllib

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from robustbias import manifest
from robustbias.manifest import ROOT
from robustbias.training import Recipe

TOP = {
    "README.md", "LICENSE", "CITATION.cff", "CHANGELOG.md", "SECURITY.md", "Makefile", "Snakefile",
    "_config.yml", "requirements.txt", "requirements.lock", "pyproject.toml", "book", "chapters",
    "lib", "profiles", "data_manifest", "checkpoints", "tests", "benchmarks",
}  # fmt: skip
HOME = re.compile(r"(?<![\w.])/(?:home|root|Users|work|tmp)/\w")
TEXT = {
    ".py", ".md", ".toml", ".yml", ".ipynb", ".csv", ".txt", ".json", ".css", ".cff", ".bib", "",
}  # fmt: skip


@pytest.fixture(scope="module")
def tracked():
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_the_top_level_is_what_the_readme_shows(tracked):
    found = {path.relative_to(ROOT).parts[0] for path in tracked}
    assert {name for name in found if not name.startswith(".")} <= TOP
    readme = (ROOT / "README.md").read_text()
    for folder in ("chapters/", "lib/robustbias/", "data_manifest/", "checkpoints/", "book/"):
        assert folder in readme


def test_what_the_readme_names_is_there(tracked):
    readme = (ROOT / "README.md").read_text()
    paths = [f"/{path.relative_to(ROOT)}" for path in tracked]
    files = set(re.findall(r"`([\w/.-]+\.(?:py|yml|md))`", readme))
    assert {name for name in files if not any(path.endswith(f"/{name}") for path in paths)} == set()
    named = re.findall(r"`(\w+)` (?:in|is `\w+` in) `([\w/]+\.py)`", readme)
    assert len(named) > 4
    for name, file in named:
        text = (ROOT / "lib/robustbias" / file).read_text()
        assert re.search(rf"^\s*(?:def |class )?{name}\b", text, re.MULTILINE), (name, file)


def test_the_methods_list_every_option_of_a_recipe_with_its_default():
    rows = re.findall(r"^\| (`.+?`) \| (.+?) \| .+ \|$", _recipes(), re.MULTILINE)
    listed = {}
    for names, defaults in rows:
        values = [text.strip("` ") for text in defaults.split(",")]
        listed |= dict(zip(re.findall(r"`(\w+)`", names), values, strict=True))
    fields = {field.name: field.default for field in dataclasses.fields(Recipe)}
    assert set(listed) == set(fields)
    for name, default in fields.items():
        if default is dataclasses.MISSING:
            assert listed[name] == "–"
        elif isinstance(default, int | float) and not isinstance(default, bool):
            assert float(listed[name]) == default, name
        else:
            assert listed[name] == str(default).lower(), name


def _recipes():
    """The section on training recipes of the book's methods."""
    methods = (ROOT / "book/methods.md").read_text()
    return methods.partition("(sec-recipes)=")[2].partition("\n## ")[0]


def test_no_file_names_a_place_on_somebodys_machine(tracked):
    texts = [path for path in tracked if path.suffix in TEXT]
    found = {
        str(path.relative_to(ROOT)): match[0]
        for path in texts
        if path != ROOT / "tests/test_repository.py"
        and (match := HOME.search(path.read_text(encoding="utf-8")))
    }
    assert found == {}


def test_pictures_enter_only_as_outputs_of_published_chapters(tracked):
    assert [
        p.name for p in tracked if p.suffix in (".png", ".jpg", ".jpeg", ".JPEG", ".parquet")
    ] == []


def test_every_text_gives_the_drawings_of_openmoji_one_licence():
    for name in ("README.md", "book/methods.md", "data_manifest/datasets/iconworld.toml"):
        said = re.findall(r"OpenMoji.{,60}?CC BY[-\w]* [\d.]+|CC BY[-\w]* [\d.]+ \(OpenMoji",
                          " ".join((ROOT / name).read_text().split()))  # fmt: skip
        assert said, name
        assert all("CC BY-SA 4.0" in sentence for sentence in said), (name, said)


def test_what_is_kept_of_a_network_is_of_one_in_the_manifest(tracked):
    """Weights, records and visualisations leave with the network they belong to."""
    known = [name for study in manifest.studies() for name in manifest.networks(study)]
    folders = [ROOT / "checkpoints", ROOT / "book/static/visualisations"]
    kept = [path for path in tracked if folders[0] in path.parents or folders[1] in path.parents]
    records = [path.stem for path in kept if path.suffix == ".json"]
    assert len(records) > 20
    assert set(records) <= set(known)
    assert [p.name for p in kept if not p.name.startswith(tuple(records))] == []


def test_no_file_is_large(tracked):
    assert {path.name: path.stat().st_size for path in tracked if path.stat().st_size > 8e6} == {}


def test_every_cited_work_is_in_the_bibliography():
    keys = set(re.findall(r"@\w+\{(\w+),", (ROOT / "book/references.bib").read_text()))
    texts = [path.read_text() for path in (ROOT / "book").glob("*.md")]
    for path in (ROOT / "chapters").glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        texts += [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    cited = {
        key.strip()
        for text in texts
        for keys in re.findall(r"\{cite:\w+\}`([^`]+)`", text)
        for key in keys.split(",")
    }
    assert cited - keys == set()


def test_published_chapters_are_of_known_studies_and_chapters():
    chapters = {path.name for path in (ROOT / "chapters").glob("*.ipynb")}
    for path in (ROOT / "book").glob("*/*.ipynb"):
        assert path.parent.name in manifest.studies()
        assert path.name in chapters


def test_ranges_of_requirements_have_the_pins_the_book_needs():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert "jupyter-book>=1.0.4,<2" in lines
    assert lines[-1] == "-e ."


def test_the_lock_pins_every_requirement_within_its_range_and_by_hash():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = (ROOT / "requirements.txt").read_text().splitlines()
    wanted = [line for line in wanted if line and not line.startswith(("#", "-e"))]
    wanted += project["dependencies"] + project["optional-dependencies"]["dev"]
    lock = (ROOT / "requirements.lock").read_text()
    pins = re.findall(r"^([\w.-]+)==(\S+)(?: ;.*)? \\\n    --hash=sha256:", lock, re.MULTILINE)
    versions = {canonicalize_name(name): version for name, version in pins}
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), (
            f"{requirement} is not what requirements.lock holds: run `make lock`"
        )
    assert "://" not in lock


def test_the_books_scripts_have_a_fallback():
    config = yaml.safe_load((ROOT / "_config.yml").read_text())["sphinx"]["config"]
    assert {"mathjax_path", "nb_ipywidgets_js"} <= set(config)
