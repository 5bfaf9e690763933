"""No picture of an edition with hidden images shows a photograph of its data set."""

import base64
import io
import re

import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from robustbias import plotting
from robustbias.book import edition
from robustbias.images.tiny_imagenet import TinyImageNet

STUDY = "tiny-imagenet"
SIDE = 24  # pixels at which panels and photographs are compared
ALIKE = 0.5  # r of a panel and a photograph that it shows, in grey values and in edges
# how much more than of any other photograph; in the icon world's edition, which shows none, the
# largest is 0.09, and in a figure of 120 filters 0.19. Of first-layer maps it is 0.2 to 0.4.
MARGIN = 0.25
PANEL = 24  # the smallest side of a panel, in pixels of the picture
EMBEDDED = re.compile(r"data:image/(?:png|jpeg|webp|avif);base64,([A-Za-z0-9+/=\s]+)")


def pictures(path):
    """Every picture among a notebook's outputs, also those inside SVG, HTML and widgets."""
    found = []
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            found += [data[kind] for kind in ("image/png", "image/jpeg") if kind in data]
            for kind in ("text/html", "image/svg+xml"):
                found += EMBEDDED.findall(str(data.get(kind, "")))
    found += EMBEDDED.findall(path.read_text(encoding="utf-8").replace("\\n", ""))
    return [Image.open(io.BytesIO(base64.b64decode(text))).convert("L") for text in set(found)]


def runs(flags):
    """(start, stop) of the runs of True that are at least a panel long."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return [(a, b) for a, b in edges.reshape(-1, 2) if b - a >= PANEL]


def panels(picture):
    """Parts of a figure between its white rows and columns, frames cut off, SIDE a side.

    Only nearly square parts are kept, as photographs are. A panel of an SVG is a picture itself.
    """
    pixels = np.asarray(picture)
    parts = [pixels] if 0.8 < pixels.shape[0] / pixels.shape[1] < 1.25 else []
    for top, bottom in runs((pixels < 250).mean(1) > 0.05):
        row = pixels[top:bottom]
        for left, right in runs((row < 250).mean(0) > 0.5):
            part = row[:, left:right]
            inside = runs((part < 250).mean(1) > 0.5)
            for a, b in inside:
                if 0.8 < (b - a) / part.shape[1] < 1.25:
                    trim = max(2, (b - a) // 30)
                    parts.append(part[a + trim : b - trim, trim:-trim])
    small = [Image.fromarray(part).resize((SIDE, SIDE), Image.Resampling.BOX) for part in parts]
    return torch.tensor(np.array(small), dtype=torch.float32).reshape(-1, SIDE, SIDE)


def standardised(images):
    flat = images.flatten(1)
    flat = flat - flat.mean(1, keepdim=True)
    return flat / flat.norm(dim=1, keepdim=True).clamp_min(1e-3)


def views(images):
    """Grey values, and the strength of edges: a filtered image keeps the places of its edges."""
    down, across = images.diff(dim=1)[:, :, 1:], images.diff(dim=2)[:, 1:]
    edges = F.avg_pool2d((down.square() + across.square()).sqrt()[:, None], 3, 1, 1)[:, 0]
    return standardised(images), standardised(edges)


def recognised(picture, photographs):
    """Indices of the photographs that panels of a picture show.

    A photograph is recognised when it is like a panel in grey values (of either sign) and in edges,
    and clearly more so than every other photograph: a smooth panel is a little like many.
    """
    parts = panels(picture)
    pixels, edges = (a @ b.T for a, b in zip(views(parts), photographs, strict=True))
    if not len(parts):
        return set()
    best, index = torch.minimum(pixels.abs(), edges).topk(2, dim=1)
    sure = (best[:, 0] > ALIKE) & (best[:, 0] - best[:, 1] > MARGIN)
    return set(index[sure, 0].tolist())


@pytest.fixture(scope="module")
def photographs(data_directory):
    pixels = TinyImageNet(subset="all", directory=data_directory).val().pixels
    return pixels, views(grey(pixels))


def grey(pixels):
    return F.interpolate(pixels.float().mean(1, keepdim=True), (SIDE, SIDE), mode="area")[:, 0]


def figure(*panels):
    """A figure with these pictures in a row, as the chapters draw them."""
    drawn, axes = plotting.canvas(1, len(panels), panel=(1.05, 1.12))
    for ax, panel in zip(axes.flat, panels, strict=True):
        plotting.picture(ax, panel)
    stored = io.BytesIO()
    drawn.savefig(stored, format="png")
    return Image.open(stored).convert("L")


def test_a_photograph_its_edges_and_its_noisy_version_are_recognised(photographs):
    pixels, seen = photographs
    index = torch.arange(0, len(pixels), 1250).tolist()
    generator = torch.Generator().manual_seed(0)
    counts = {"photograph": 0, "noisy": 0, "map": 0}
    for i in index:
        image = pixels[i].float() / 255
        noisy = (image + 0.08 * torch.randn(image.shape, generator=generator)).clamp(0, 1)
        # what a first layer makes of it: blurred, filtered, rectified, at half the side
        kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
        map = F.conv2d(image.mean(0)[None, None], kernel[None, None], stride=2)[0, 0]
        shown = {
            "photograph": image.permute(1, 2, 0).numpy(),
            "noisy": noisy.permute(1, 2, 0).numpy(),
            "map": plotting.grey(map, float(map.max())),
        }
        for kind, panel in shown.items():
            counts[kind] += i in recognised(figure(panel, panel), seen)
    assert min(counts.values()) >= 0.8 * len(index), counts


def test_no_picture_of_the_edition_shows_a_photograph(photographs):
    _, seen = photographs
    paths = edition.notebooks(STUDY, executed=False)
    found = {
        path.stem: indices
        for path in paths
        for picture in pictures(path)
        if min(picture.size) >= PANEL and (indices := recognised(picture, seen))
    }
    assert paths
    assert not found, f"validation photographs by chapter: {found}"


def test_the_icon_worlds_edition_shows_no_photograph(photographs):
    _, seen = photographs
    paths = edition.notebooks("iconworld", executed=False)
    shown = [p for path in paths for p in pictures(path) if min(p.size) >= PANEL]
    assert len(shown) > 10
    assert not any(recognised(picture, seen) for picture in shown)
