"""ImageNet's files in miniature, in the formats of the originals: few images, true architectures.

`write(folder)` makes

    folder/server/   the archives and checkpoints that study `imagenet` downloads
    folder/data/     a data directory with what has to be had by hand, Broden and ImageNet-C
    folder/root/     a repository whose manifest names those files, their hashes and numbers

so that ROBUSTBIAS_ROOT=folder/root and ROBUSTBIAS_DATA=folder/data work as they would with the
originals. As a program it also fetches everything from a server of its own, and with --book
executes all chapters and renders the book:

    python tests/miniature.py FOLDER [--book]
"""

import contextlib
import functools
import hashlib
import http.server
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image, ImageDraw
from torch import nn
from torchvision.transforms import v2 as transforms

from robustbias.images import broden
from robustbias.images.concepts import Concepts
from robustbias.images.corruptions.constants import NAMES, SEVERITIES
from robustbias.images.cue_conflict import CATEGORIES, class_names, cues, membership

ROOT = Path(__file__).resolve().parents[1]
# network -> (architecture, layout of its file); of the study's networks only these are kept
NETWORKS = {
    "imagenet-alexnet-s": ("alexnet", "plain"),
    "imagenet-alexnet-r": ("alexnet", "robustness"),
    "imagenet-googlenet-s": ("googlenet", "plain"),
    "imagenet-googlenet-r": ("googlenet", "robustness"),
    "imagenet-resnet50-s": ("resnet50", "robustness"),
    "imagenet-resnet50-r": ("resnet50", "robustness"),
    "imagenet-resnet50-eps1": ("resnet50", "wrapped"),
    "imagenet-resnet50-stylized": ("resnet50", "parallel"),
}
# few images; silencing units, chapters 07 and 08, and chapter 04 of the smallest network alone,
# whose last layer is fitted to the photographs: chapter 03 divides by errors and takes another one
EDITION = """
execute: []
parameters:
  imagenet:
    01_adversarial_training: {n_images: 2, steps: 1, architectures: [alexnet], example: alexnet}
    02_shape_bias: {null_seeds: 1, n_examples: 4}
    03_ood_generalization: {n_images: 4, n_corrupted: 1, n_attacked: 1, n_suppressed: 2,
      n_channel: 1, n_examples: 2, architectures: [googlenet]}
    04_smooth_filters: {n_images: 4, n_units: 1, architectures: [alexnet], example: alexnet}
    05_concepts: {n_images: 24, concepts: broden}
    06_input_types: {n_images: 16, k: 4, concept_images: 24, concepts: broden}
    07_units_and_cues: {n_each: 1, n_concept_images: 24, concepts: broden, n_attribution: 2,
      architectures: [alexnet], example: alexnet}
    08_unit_explorer: {n_concepts: 24, concepts: broden, n_smooth: 4, n_tops: 20,
      n_each: 1, architectures: [alexnet], show_images: false}
"""
CONFLICTS = 3  # textures per shape


# Networks with random weights, and their files


def network(architecture: str, seed: int = 0) -> nn.Module:
    """torchvision's network with random weights, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        options = {"init_weights": False, "aux_logits": False, "transform_input": True}
        options = options if architecture == "googlenet" else {}
        return torchvision.models.get_model(architecture, **options).eval()


def deciding(body: nn.Module) -> nn.Module:
    """The AlexNet with a last layer, by ridge regression, that names the photographs correctly and
    the cue conflicts half by shape, half by texture; chapter 07 silences units of decisions."""
    classes = membership(class_names("imagenet_classes.txt"), CATEGORIES)
    first = classes.argmax(0)  # one class of each category
    images, labels = [], []
    for name, content in stimuli().items():
        if "-preprocessed-" in name:
            named = cues(name)
            cue = named.texture if len(images) % 2 else named.shape
            images.append(content)
            labels.append(int(first[CATEGORIES.index(cue)]))
    held_out = classes.any(1).nonzero()[:, 0].tolist()
    images += [jpeg(k) for k in held_out]
    prepare = transforms.Compose([
        transforms.PILToTensor(),
        transforms.Resize(256),
        transforms.CenterCrop(224),
        transforms.ToDtype(torch.float, scale=True),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ])  # fmt: skip
    pixels = torch.stack([prepare(Image.open(io.BytesIO(i)).convert("RGB")) for i in images])
    head, body.classifier[-1] = body.classifier[-1], nn.Identity()
    with torch.inference_mode():
        features = torch.cat([body(batch) for batch in pixels.split(64)]).double()
    body.classifier[-1] = head
    wanted = torch.nn.functional.one_hot(torch.tensor(labels + held_out), 1000).double()
    middle = features.mean(0)
    gram = (features - middle) @ (features - middle).T
    gram.diagonal().add_(1e-6 * gram.trace() / len(gram))
    weight = 20 * torch.linalg.solve(gram, wanted - wanted.mean(0)).T @ (features - middle)
    head.weight.data.copy_(weight)
    head.bias.data.copy_(-weight @ middle)
    return body


def published(architecture: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights under the names of `robustness`."""
    old, new = {
        "alexnet": ("classifier.6.", "last_layer."),
        "googlenet": (".branch4.1.", ".branch4_conv."),
        "resnet50": ("", ""),
    }[architecture]
    return {name.replace(old, new) if old else name: value for name, value in state.items()}


def dilled() -> dict[str, object]:
    """What training programs store besides weights, under names that are not installed here."""
    module = sys.modules["dill._dill"] = types.ModuleType("dill._dill")
    sys.modules["dill"] = types.ModuleType("dill")

    def create(*_):
        return None

    create.__module__, create.__qualname__ = "dill._dill", "_create_function"
    module._create_function = create

    class Schedule:
        def __reduce__(self):
            return create, (("code", b"\x00"), {}, "<lambda>", None, None)

    return {
        "schedule": {"lr_lambdas": [Schedule()], "last_epoch": 90, "_last_lr": [np.float64(0.1)]},
        "nat_prec1": torch.tensor(0.1),
        "adv_prec1": np.float32(0.2),
    }


def saved(path: Path, architecture: str, layout: str, body: nn.Module) -> Path:
    """A checkpoint of the network: its file in one of `LAYOUTS`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    LAYOUTS[layout](path, architecture, body.state_dict())
    return path


def _plain(path, architecture, state):
    torch.save(state, path)


def _parallel(path, architecture, state):
    content = {"epoch": 60, "arch": architecture, "best_prec1": torch.tensor(60.0)}
    content |= {"state_dict": {f"module.{n}": v for n, v in state.items()}}
    torch.save(content, path)


def _robustness(path, architecture, state, prefix="model.", legacy=True):
    names = published(architecture, state)
    model = {
        "module.normalizer.new_mean": torch.tensor([0.485, 0.456, 0.406])[:, None, None],
        "module.normalizer.new_std": torch.tensor([0.229, 0.224, 0.225])[:, None, None],
        **{f"module.{prefix}{name}": value for name, value in names.items()},
        "module.attacker.normalize.new_mean": torch.tensor([0.485, 0.456, 0.406])[:, None, None],
        "module.attacker.normalize.new_std": torch.tensor([0.229, 0.224, 0.225])[:, None, None],
        **{f"module.attacker.{prefix}{name}": value for name, value in names.items()},
    }
    before = dict(sys.modules)
    try:
        content = {"model": model, "epoch": 90, **dilled()}
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    finally:  # the reader finds no such module
        for name in set(sys.modules) - set(before):
            del sys.modules[name]


def _wrapped(path, architecture, state):
    _robustness(path, architecture, state, prefix="model.model.")


def _zipped(path, architecture, state):
    _robustness(path, architecture, state, legacy=False)


LAYOUTS = {
    "plain": _plain,
    "parallel": _parallel,
    "robustness": _robustness,
    "robustness as zip": _zipped,
    "wrapped": _wrapped,
}


# Images


def jpeg(seed: int, side: tuple[int, int] = (48, 40)) -> bytes:
    """A small photograph of nothing: smooth colours."""
    colours = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(colours).resize(side, Image.Resampling.BICUBIC).save(stream, "JPEG")
    return stream.getvalue()


def png(shape: int, texture: int, design: int = 0) -> bytes:
    """A 224 x 224 drawing: a polygon of `shape` + 3 corners with stripes of `texture`."""
    image = Image.new("RGB", (224, 224), "white")
    draw = ImageDraw.Draw(image)
    draw.regular_polygon((112, 112, 70 + 10 * design), shape + 3, fill="black")
    for x in range(0, 224, 6 + 2 * texture) if texture >= 0 else ():
        draw.line((x, 0, x, 224), fill=(12 * texture, 200 - 10 * texture, 90), width=3)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def photographs() -> dict[str, bytes]:
    """One photograph in each of the folders 0 to 999."""
    root = "imagenetv2-matched-frequency-format-val"
    return {
        f"{root}/{k}/{hashlib.md5(str(k).encode()).hexdigest()}.jpeg": jpeg(k) for k in range(1000)
    }


def stimuli() -> dict[str, bytes]:
    """Cue conflicts, silhouettes and edges as in the archive of texture-vs-shape."""
    root = "texture-vs-shape-1b69c6a445c3348927139edb30a5134521fd4b03/stimuli"
    files = {}
    for s, shape in enumerate(CATEGORIES):
        for step in range(CONFLICTS + 1):  # the first has two equal cues
            t = (s + 5 * step) % len(CATEGORIES)
            name = f"{shape}1-{CATEGORIES[t]}{1 + step}.png"
            files[f"{root}/style-transfer-preprocessed-512/{shape}/{name}"] = png(s, t)
        for design in (1, 2):
            files[f"{root}/filled-silhouettes/{shape}/{shape}{design}.png"] = png(s, -1, design)
            files[f"{root}/edges/{shape}/{shape}{design}.png"] = png(s, 15, design)
    return files


def stylized() -> dict[str, bytes]:
    """Stylized photographs, named after trials."""
    return {
        f"stylized/dnn/session-1/{k + 1:04d}_sty_dnn_0_{category}_00_{category}-0001-val.png": png(
            k, 3
        )
        for k, category in enumerate(CATEGORIES)
    }


NUMBERS = {  # data set -> what of it there is here
    "imagenetv2": 1000,
    "cue-conflict": 16 * (CONFLICTS + 1),
    "filled-silhouettes": 32,
    "edges": 32,
    "stylized": 16,
    "broden": 24,
}


def tarred(path: Path, files: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def concept_set(folder: Path, n: int = NUMBERS["broden"]) -> None:
    """A folder in the layout of Broden 1.0: two objects, two textures and a scene."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(n, 1, 112, 112, dtype=torch.int16)
    for i in range(n):
        masks[i, 0, 20:90, 30 + i : 80 + i] = 1 + i % 2
    whole = 1 + torch.arange(n)[:, None, None, None].to(torch.int16) % 2
    concepts = Concepts(
        torch.randint(0, 256, (n, 3, 224, 224), generator=generator, dtype=torch.uint8),
        {"object": masks, "texture": whole, "scene": torch.ones_like(whole)},
        {"object": ("dog", "car"), "texture": ("striped", "dotted"), "scene": ("street",)},
        {name: torch.ones(n, dtype=torch.bool) for name in ("object", "texture", "scene")},
    )
    broden.write(folder, concepts)


def corrupted_folders(folder: Path, classes: int = 3) -> None:
    """CORRUPTION/SEVERITY/WNID/*.JPEG of ImageNet-C, one image a class."""
    for name in NAMES:
        for severity in SEVERITIES:
            for k, wnid in enumerate(class_names("imagenet_classes.txt")[:classes]):
                place = folder / name / str(severity) / wnid
                place.mkdir(parents=True)
                (place / "ILSVRC2012_val_00000001.JPEG").write_bytes(jpeg(k, (224, 224)))


# The server, the data directory and the manifest


def write(folder: Path, url: str = "", networks: dict[str, tuple[str, str]] = NETWORKS) -> None:
    """Everything below `folder`; the manifest's addresses are of a server at `url`."""
    server, data = folder / "server", folder / "data"
    server.mkdir(parents=True)
    tarred(
        server / "imagenetv2-matched-frequency.tar.gz", photographs()
    )  # as the original: no gzip
    tarred(server / "stylized.tar.gz", stylized(), "w:gz")
    with zipfile.ZipFile(server / "1b69c6a445c3348927139edb30a5134521fd4b03.zip", "w") as archive:
        for name, content in stimuli().items():
            archive.writestr(name, content)
    manifest = ROOT / "data_manifest"
    for seed, (name, (architecture, layout)) in enumerate(networks.items()):
        block = _blocks((manifest / "networks" / "imagenet.toml").read_text())[f"network.{name}"]
        by_hand = "by_hand" in block
        place = data / "networks" if by_hand else server
        body = network(architecture, seed)
        if architecture == "alexnet":
            body = deciding(body)
        saved(place / _file(block), architecture, layout, body)
    concept_set(data / "broden1_224")
    corrupted_folders(data / "imagenet-c")
    repository(folder / "root", server, url, networks)


def repository(root: Path, server: Path, url: str, networks: dict[str, tuple[str, str]]) -> None:
    """A copy of the repository whose manifest names the files on the server."""
    for name in ("chapters", "data_manifest", "book"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("made", ".*"))
    for name in ("lib", "checkpoints", "Snakefile", "_config.yml", "README.md", "CITATION.cff"):
        (root / name).symlink_to(ROOT / name)
    (root / "book" / "edition.yml").write_text(EDITION)
    page = root / "chapters" / "00_front_page.ipynb"  # it attacks the networks of the icon world
    text, default = page.read_text(encoding="utf-8"), "n_images: int = 200"
    assert default in text, f"{page.name} has no {default}"
    page.write_text(text.replace(default, "n_images: int = 4"), encoding="utf-8")
    for path in [
        *root.glob("data_manifest/datasets/*.toml"),
        root / "data_manifest/networks/imagenet.toml",
    ]:
        blocks = _blocks(path.read_text())
        kept = {
            title: block
            for title, block in blocks.items()
            if not title.startswith("network.") or title.removeprefix("network.") in networks
        }
        text = "".join(_pointed(block, server, url) for block in kept.values())
        if path.stem in NUMBERS:
            text = re.sub(r"(?<=\[images\]\n)(\w+) = \d+", rf"\1 = {NUMBERS[path.stem]}", text)
        path.write_text(text)


def _blocks(text: str) -> dict[str, str]:
    """{title of a TOML table: its lines}, the lines before the first under ""; equal titles differ
    by a number."""
    blocks: dict[str, str] = {}
    for block in re.split(r"(?m)^(?=\[)", text):
        title = re.match(r"\[+([^\]]+)\]|", block)[1] or ""
        blocks[title if title not in blocks else f"{title} {len(blocks)}"] = block
    return blocks


def _file(block: str) -> str:
    """The name of the file that a table is about."""
    explicit = re.search(r'(?m)^file = "(.+)"', block)
    return explicit[1] if explicit else re.search(r'(?m)^(?:url|weights) = ".*/([^/"?]+)', block)[1]


def _pointed(block: str, server: Path, url: str) -> str:
    """The table with the address, hash and size of its file on the server, if it is there."""
    if not re.search(r"(?m)^(url|weights) = ", block) or not (server / _file(block)).is_file():
        return block
    path = server / _file(block)
    facts = (
        f'sha256 = "{hashlib.sha256(path.read_bytes()).hexdigest()}"\nbytes = {path.stat().st_size}'
    )
    block = re.sub(r"(?m)^(sha256|bytes|md5) = .*\n", "", block)
    return re.sub(r"(?m)^(url|weights) = .*$", rf'\1 = "{url}/{path.name}"\n{facts}', block)


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a web server on this machine with the files below `folder`."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=functools.partial(server.serve_forever, poll_interval=0.05))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def settings(folder: Path) -> dict[str, str]:
    """The environment in which the library works on `folder`."""
    names = {"ROOT": "root", "DATA": "data", "CACHE": "cache", "TABLES": "tables"}
    return {f"ROBUSTBIAS_{name}": str(folder / place) for name, place in names.items()}


def robustbias(folder: Path, *words: str) -> None:
    """The command on `folder`. Raises CalledProcessError if it fails."""
    environment = {**os.environ, **settings(folder)}
    subprocess.run(
        [Path(sys.executable).parent / "robustbias", *words], env=environment, check=True
    )


def python(folder: Path, program: str) -> None:
    """A program that works on `folder`. Raises CalledProcessError if it fails."""
    environment = {**os.environ, **settings(folder)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


if __name__ == "__main__":
    target = Path(sys.argv[1]).resolve()
    shutil.rmtree(target, ignore_errors=True)
    with served(target / "server") as address:
        write(target, address)
        robustbias(target, "fetch", "imagenet")
    if "--book" in sys.argv:
        robustbias(target, "doctor")
        robustbias(target, "check", "imagenet-resnet50-r", "--images", "20")
        robustbias(target, "convert", "imagenet-resnet50-r")
        cores = str(os.cpu_count() or 1)
        robustbias(target, "build", "book", "--study", "imagenet", "--cores", cores)
        pages = sorted((target / "root" / "_build" / "html" / "imagenet").glob("0*.html"))
        assert len(pages) == 8, pages
        print(f"{len(pages)} chapters of study imagenet: {pages[0].parent}")
    print("\n".join(f"export {name}={value}" for name, value in settings(target).items()))
