"""Images a second of each corruption, against the reference and one image at a time.

    python benchmarks/corruptions.py [cpu|cuda] [PYTHON]

All five severities of each corruption on the same 8-bit images, ours in one batch (with the way
from 8 bits to floats and back in its time), the peers image by image.

- At 64 pixels, constants of Tiny-ImageNet-C: the peer is tests/corruption_oracles.py, the same
  corruptions from OpenCV, scikit-image, SciPy and Pillow, since no package has these constants.
- At 224 pixels, constants of ImageNet-C: the peer is the package `imagecorruptions`. It asks for
  old libraries, so it runs in an environment of its own, PYTHON: `python -m venv peer` and
  `peer/bin/pip install imagecorruptions "setuptools<81"`. Two names that numpy and scikit-image
  dropped since are given back to it (see PEER). Without PYTHON the peer is again the oracles.

The package's frost reads its photographs at every call; the oracles have none, so that frost has
no peer at 64. The rows "all" are the time of all that have one. One JSON line a row; on a machine
that does other work, OMP_NUM_THREADS=1 keeps threads from waiting for each other.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from timing import device, paired, row

from robustbias.images import corruptions
from robustbias.images.corruptions import constants as corruptions_constants
from robustbias.images.iconworld import IconWorld, World

N = {64: 64, 224: 4}
REPEATS = {64: 3, 224: 1}
PEER = """
import sys, time, warnings
warnings.simplefilter("ignore")
import numpy as np
if not hasattr(np, "float_"):
    np.float_ = np.float64
from imagecorruptions import corrupt, corruptions
gaussian = corruptions.gaussian
def old(image, *sigma, multichannel=None, **options):
    return gaussian(image, *sigma, channel_axis=-1 if multichannel else None, **options)
corruptions.gaussian = old
images = np.load(sys.argv[1])
print("ready", flush=True)
for name in sys.stdin:
    start = time.perf_counter()
    for severity in range(1, 6):
        for image in images:
            corrupt(image, corruption_name=name.strip(), severity=severity)
    print(time.perf_counter() - start, flush=True)
"""


def ours(images: torch.Tensor, name: str) -> Callable[[], object]:
    generator = torch.Generator(images.device).manual_seed(0)

    def work():
        for severity in corruptions_constants.SEVERITIES:
            out = corruptions.corrupted(images.float().div_(255), name, severity, generator)
            out.mul_(255).round_().to(torch.uint8)

    return work


def by_oracles(images: torch.Tensor, name: str) -> Callable[[], object]:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from corruption_oracles import ORACLES

    rows = images.movedim(1, -1).contiguous().cpu().numpy()
    constants, rng = corruptions_constants.TABLES[images.shape[-1]][name], np.random.default_rng(0)

    def work():
        for own in constants:
            for image in rows:
                (ORACLES[name](image, own, rng) * 255).round().astype(np.uint8)

    return work


class Package:
    """The package in its own environment; a call returns after it has done its work."""

    def __init__(self, python: str, images: torch.Tensor):
        file = Path(tempfile.mkdtemp()) / "images.npy"
        np.save(file, images.movedim(1, -1).cpu().numpy())
        pipe = subprocess.PIPE
        command = [python, "-c", PEER, str(file)]
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1)
        if self._process.stdout.readline() != "ready\n":
            sys.exit(f"{python} cannot import imagecorruptions; see this file's first lines.")

    def work(self, name: str) -> Callable[[], object]:
        def work():
            print(name, file=self._process.stdin, flush=True)
            float(self._process.stdout.readline())

        return work


if __name__ == "__main__":
    on = device(sys.argv)
    small = IconWorld(World(val_images=N[64])).val().pixels
    large = F.interpolate(small[: N[224]].float(), size=224, mode="bicubic", antialias=True)
    for side, levels in ((64, small), (224, large.round().clamp(0, 255).to(torch.uint8))):
        peer_name, peer = "per image, OpenCV, scikit-image, SciPy, Pillow", None
        if side == 224 and len(sys.argv) > 2:
            peer_name, peer = "imagecorruptions", Package(sys.argv[2], levels)
        images, count = levels.to(on), len(levels) * len(corruptions_constants.SEVERITIES)
        total, compared = np.zeros(2), 0
        for name in corruptions_constants.NAMES:
            works = [ours(images, name)]
            if peer:
                works.append(peer.work(name))
            elif name != "frost":
                works.append(by_oracles(levels, name))
            own, *took = paired(works, on, REPEATS[side])
            other = {"peer": count / took[0], "peer_name": peer_name} if took else {}
            row(f"{name} {side} px", count / own, unit="images/s", on=on, **other)
            if took:
                total += own, took[0]
                compared += 1
        own, took = compared * count / total
        row(
            f"all {compared}, {side} px",
            own,
            peer=took,
            peer_name=peer_name,
            unit="images/s",
            on=on,
        )
