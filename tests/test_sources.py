"""Which edits change a measure's code, on a small package written here."""

import pytest

from robustbias import tables

FILES = {
    "__init__.py": "",
    "stats.py": '"""Intervals."""\nlevel = 0.95\n',
    "measures/__init__.py": "from pack.measures.first import a\nfrom pack.measures import other\n",
    "measures/first.py": "from pack import stats\nfrom pack.shapes import Box\nimport numpy\n",
    "measures/other.py": "def late():\n    from pack.stats import level\n",
    "shapes/__init__.py": "import pack.leaf\nclass Box: pass\n",
    "leaf.py": "",
}


@pytest.fixture
def package(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / "pack" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "pack"


def names(package, module) -> set[str]:
    return {path.relative_to(package).as_posix() for path in tables.reached([module], package)}


def test_imports_are_followed_to_the_module_a_name_comes_from(package):
    expected = {"measures/first.py", "stats.py", "shapes/__init__.py", "leaf.py"}
    assert names(package, "pack.measures.first") == expected


def test_an_import_inside_a_function_counts(package):
    assert names(package, "pack.measures.other") == {"measures/other.py", "stats.py"}


def test_a_module_of_another_package_reaches_nothing(package):
    assert names(package, "numpy.linalg") == set()


@pytest.mark.parametrize(
    ("file", "text", "changes"),
    [
        ("stats.py", '"""Intervals."""\nlevel = 0.9\n', True),
        ("leaf.py", "a = 1\n", True),
        ("stats.py", '"""Bounds."""\n\n# usual\nlevel = 0.95\n', False),
        ("measures/other.py", "a = 1\n", False),
        ("measures/__init__.py", "", False),
    ],
    ids=["imported", "imported by an import", "comment", "another measure", "the list of measures"],
)
def test_an_edit_is_seen_where_a_value_depends_on_it(package, file, text, changes):
    before = tables.digest(["pack.measures.first"], package)
    (package / file).write_text(text)
    assert (tables.digest(["pack.measures.first"], package) != before) == changes


def test_every_measure_depends_on_its_study_and_not_on_figures():
    found = {
        path.relative_to(tables.PACKAGE).as_posix()
        for path in tables.reached(
            ["robustbias.adversarial_training.measure", "robustbias.studies"]
        )
    }
    assert {"attacks.py", "stats.py", "images/iconworld.py", "networks/zoo.py"} <= found
    assert not any(name.startswith(("figures", "book", "claims")) for name in found)
    assert "measures/shape_bias.py" not in found
