"""Which source files a function's values depend on, read from the import statements.

    files(m) = m and files(everything m imports from this package)

A name imported from a package counts as the module of that name where there is one, else as the
package's own file: importing one measure does not make it depend on all the others.
"""

import ast
import functools
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent


def digest(modules: Iterable[str], package: Path = PACKAGE) -> str:
    """Hash of the code that the modules run, comments and docstrings aside.

    Args:
        modules: Dotted names; those outside the package are left out.
    """
    total = hashlib.sha256()
    for path in sorted(reached(modules, package)):
        name = path.relative_to(package).as_posix()
        total.update(f"{name}\0{_code(path, path.stat().st_mtime_ns)}\0".encode())
    return total.hexdigest()


def reached(modules: Iterable[str], package: Path = PACKAGE) -> frozenset[Path]:
    """The package's files that the modules import, directly or through others."""
    found: set[Path] = set()
    waiting = [path for name in modules for path in _files(name, package)]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += [
                file
                for name in _imports(path, path.stat().st_mtime_ns)
                for file in _files(name, package)
            ]
    return frozenset(found)


def _files(name: str, package: Path) -> Iterator[Path]:
    """The file of `package.a.b`, or of `package.a` when `b` is a name inside it."""
    first, *parts = name.split(".")
    if first != package.name:
        return
    for place in (package.joinpath(*parts), package.joinpath(*parts[:-1])):
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if path.is_file():
                yield path
                return


@functools.lru_cache(maxsize=512)
def _imports(path: Path, _modified: int) -> tuple[str, ...]:
    """Dotted names that a file imports, at its top or inside functions."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(names)


@functools.lru_cache(maxsize=512)
def _code(path: Path, _modified: int) -> str:
    """The file's syntax tree without docstrings, which no value depends on."""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
            and isinstance(body[0].value.value, str)
        ):
            body.pop(0)
    return ast.dump(tree)
