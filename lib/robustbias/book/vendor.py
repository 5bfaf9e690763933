"""Browser scripts that let the pages work without a network: widgets and mathematics.

They come from npm when it is there; without it the pages load the same scripts from a CDN.
"""

import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

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
