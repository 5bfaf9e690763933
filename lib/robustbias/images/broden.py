"""Concept sets in the layout of Broden 1.0: read, and written.

    index.csv      image,split,ih,iw,sh,sw,CATEGORY...   one line an image, files below images/
    label.csv      number,name,category,frequency,coverage,syns
    category.csv   name,first,last,count,frequency
    c_CATEGORY.csv code,number,name,frequency,coverage   the category's own labels

A field of a category holds any number of labels, separated by semicolons: a number labels the
whole image; a PNG labels its pixels by red + 256 * green. Empty: nothing known about the category.

Source: Bau et al. 2017, arXiv 1704.05796; the README of Broden 1.0.
"""

import contextlib
import copy
import csv
import hashlib
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from jaxtyping import Int, Int64, UInt8
from PIL import Image

from robustbias.images import opened
from robustbias.images.concepts import Concepts
from robustbias.utils import MissingData, UserError, atomic, fingerprints, reading

FIXED = ("image", "split", "ih", "iw", "sh", "sw")


MEMORY = 1 << 29  # bytes of the pixels of a set that is read at once


def read(folder: Path, n: int | None = None) -> Concepts:
    """The first n images (all when None); Broden's index lists them in an order of chance.

    Labels that a category's own file does not list count as none. A set of more than MEMORY bytes
    is `Streamed`.

    Raises:
        MissingData: The folder has no index.csv.
        UserError: n out of range, a table without the columns expected, a path that leaves the
            folder, a file that is missing or no image, images or masks of several sizes.
    """
    folder = Path(folder)
    if not (folder / "index.csv").is_file():
        raise MissingData(
            f"no index.csv in {folder}; run `robustbias fetch broden`, or unpack a copy of "
            "broden1_224.zip there. Its server is often down."
        )
    with _reading(folder):
        rows = _table(folder / "index.csv", FIXED)
        if not 1 <= (n := len(rows) if n is None else n) <= len(rows):
            raise UserError(f"{folder / 'index.csv'} lists {len(rows)} images; {n} were asked for.")
        images = Streamed(folder, rows[:n])
        large = n * 3 * math.prod(images.image_side) > MEMORY
        return images if large else images.take(torch.arange(n))


def digest(folder: Path) -> str:
    """Hash of the tables, which name all images and labels; "" where there is no such set."""
    tables = sorted(Path(folder).glob("*.csv"))
    return hashlib.sha256("\n".join(fingerprints(tables)).encode()).hexdigest() if tables else ""


def _reading(folder: Path) -> contextlib.AbstractContextManager[None]:
    return reading(folder, "a concept set in the layout of Broden 1.0", "fetch the data again")


class Streamed(Concepts):
    """A set whose images and masks are decoded when they are asked for, and not kept.

    Memory is that of one batch; every pass over the set decodes it again.
    """

    def __init__(self, folder: Path, rows: list[dict[str, str]]):
        self.__dict__.update(folder=folder, rows=rows, device=torch.device("cpu"))
        fields, names, codes = {}, {}, {}
        for category in rows[0]:
            table = folder / f"c_{category}.csv"
            if category in FIXED or not table.is_file():
                continue
            labels = _table(table, ("code", "number", "name"))
            labels = sorted(labels, key=lambda row: int(row["code"]))
            parts = [[part for part in row[category].split(";") if part] for row in rows]
            if labels and any(parts):
                fields[category] = parts
                names[category] = tuple(row["name"] for row in labels)
                codes[category] = {int(row["number"]): 1 + i for i, row in enumerate(labels)}
        self.__dict__.update(fields=fields, names=names, codes=codes)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def image_side(self) -> tuple[int, int]:
        """Height and width of the images."""
        return int(self.rows[0]["ih"]), int(self.rows[0]["iw"])

    @property
    def side(self) -> tuple[int, int]:
        """Height and width of the masks."""
        return int(self.rows[0]["sh"]), int(self.rows[0]["sw"])

    @property
    def pixels(self) -> "_Pixels":
        """The images; an index into them decodes those it names."""
        return _Pixels(self)

    def to(self, device: torch.device | str) -> "Streamed":
        """The same set, decoded to another device."""
        images = copy.copy(self)
        images.__dict__["device"] = torch.device(device)
        return images

    def take(self, index: Int64[torch.Tensor, " k"]) -> Concepts:
        """The images at `index`, decoded."""
        with _reading(self.folder), ThreadPoolExecutor() as pool:
            rows = [self.rows[i] for i in index.tolist()]
            carried, maps = {}, {}
            for category in self.names:
                fields = [self.fields[category][i] for i in index.tolist()]
                carried[category] = torch.tensor([bool(field) for field in fields])
                maps[category] = _maps(self.folder, rows, fields, self.codes[category], pool)
            images = Concepts(self.pixels.cpu(index), maps, self.names, carried)
        return images.to(self.device)

    def regions_of(self, index):
        """As `Concepts.regions_of`, of these images alone."""
        images = self.take(index)
        if images.side not in ((1, 1), self.side):
            raise UserError(
                f"{self.folder}: masks of {images.side} and of {self.side} pixels; expected one "
                "size, as in broden1_224 or broden1_227."
            )
        regions = images.regions
        members = torch.cat([regions.concepts, regions.carried], 1).float()
        return regions.index.expand(-1, *self.side).flatten(1).long(), members


class _Pixels:
    """The images of a streamed set, by index or slice."""

    def __init__(self, images: Streamed):
        self.images, self.device = images, images.device

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: slice | torch.Tensor) -> UInt8[torch.Tensor, "n 3 h w"]:
        if isinstance(index, slice):
            index = torch.arange(len(self))[index]
        with _reading(self.images.folder):
            return self.cpu(index).to(self.device)

    def cpu(self, index: Int64[torch.Tensor, " k"]) -> UInt8[torch.Tensor, "k 3 h w"]:
        """The images at `index`, decoded on all cores."""
        folder, rows = self.images.folder, [self.images.rows[i] for i in index.tolist()]

        def picture(row: dict[str, str]) -> np.ndarray:
            return _picture(folder, row["image"], int(row["ih"]), int(row["iw"]))

        with ThreadPoolExecutor() as pool:
            pixels = _stacked(list(pool.map(picture, rows)), folder, "images")
        return torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())


def write(folder: Path, concepts: Concepts) -> None:
    """The set as a folder that `read` and other readers of Broden understand.

    A map of one pixel is written as the image's label, a mask without labels as an empty field.
    """
    folder = Path(folder)
    numbers = {name: 1 + i for i, name in enumerate(dict.fromkeys(c for _, c in concepts.concepts))}
    shares = {c: _shares(concepts, c) for c in concepts.categories}
    h, w = concepts.pixels.shape[2:]
    sh, sw = concepts.side
    index = []
    for i, picture in enumerate(concepts.pixels.permute(0, 2, 3, 1).cpu().numpy()):
        name = f"concepts/{i:06d}.png"
        _save(folder / "images" / name, picture)
        row = dict(zip(FIXED, (name, "train", h, w, sh, sw), strict=True))
        for category in concepts.categories:
            row[category] = ""
            if concepts.carried[category][i]:
                codes = np.array([0, *(numbers[c] for c in concepts.names[category])])
                labels = codes[concepts.maps[category][i].cpu().numpy()]
                row[category] = ";".join(_written(folder, i, category, labels))
        index.append(row)
    _write_table(folder / "index.csv", index)
    summary, label_rows = [], {number: {} for number in numbers.values()}
    for category, names in concepts.names.items():
        frequency, coverage = shares[category]
        codes = [
            {
                "code": 1 + i, "number": numbers[name], "name": name,
                "frequency": int(frequency[i]), "coverage": float(coverage[i]),
            }
            for i, name in enumerate(names)
        ]  # fmt: skip
        _write_table(folder / f"c_{category}.csv", codes)
        for row in codes:
            label_rows[row["number"]][category] = row
        used = [row["number"] for row in codes]
        indices = {"first": min(used), "last": max(used), "count": len(used)}
        summary.append({"name": category, **indices, "frequency": int(frequency.sum())})
    _write_table(folder / "category.csv", summary)
    _write_table(
        folder / "label.csv",
        [
            {
                "number": number,
                "name": name,
                "category": ";".join(f"{c}({r['frequency']})" for c, r in rows.items()),
                "frequency": sum(row["frequency"] for row in rows.values()),
                "coverage": sum(row["coverage"] for row in rows.values()),
                "syns": "",
            }
            for (name, number), rows in zip(numbers.items(), label_rows.values(), strict=True)
        ],
    )


def _table(path: Path, needed: tuple[str, ...]) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, restval="")
        absent = [name for name in needed if name not in (reader.fieldnames or ())]
        if absent:
            raise UserError(
                f"{path} has no column {', '.join(absent)}; expected those of Broden 1.0: "
                f"{', '.join(needed)}."
            )
        rows = list(reader)
    if not rows:
        raise UserError(f"{path} has no line below its header; fetch the data set again.")
    return rows


def _maps(
    folder: Path,
    rows: list[dict[str, str]],
    fields: list[list[str]],
    codes: dict[int, int],
    pool: ThreadPoolExecutor,
) -> torch.Tensor:
    """Label maps of one category; of one pixel where it labels whole images only."""
    lookup = np.zeros(max(65_536, max(codes) + 1), dtype=np.int16)
    lookup[list(codes)] = list(codes.values())
    depth = max(1, *map(len, fields))
    whole = all(part.isdigit() for field in fields for part in field)
    sizes = {(1, 1) if whole else (int(row["sh"]), int(row["sw"])) for row in rows}
    if len(sizes) > 1:
        raise UserError(
            f"{folder}: masks of {len(sizes)} sizes, among them {sorted(sizes)[:2]}; expected one, "
            "as in broden1_224 or broden1_227."
        )
    maps = np.zeros((len(rows), depth, *sizes.pop()), dtype=np.int16)

    def fill(i: int) -> None:
        for j, part in enumerate(fields[i]):
            if part.isdigit():
                maps[i, j] = lookup[min(int(part), len(lookup) - 1)]
            else:
                mask = _picture(folder, part, int(rows[i]["sh"]), int(rows[i]["sw"]))
                mask = mask.astype(np.int32)
                maps[i, j] = lookup[mask[..., 0] + 256 * mask[..., 1]]

    list(pool.map(fill, range(len(rows))))
    return torch.from_numpy(maps)


def _picture(folder: Path, name: str, height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
    """An image below images/, which must not lead out of the folder."""
    root = (folder / "images").resolve()
    path = root / name
    if (
        not name
        or PurePosixPath(name).is_absolute()
        or "\\" in name
        or not path.resolve().is_relative_to(root)
    ):
        raise UserError(f"{folder / 'index.csv'} names {name!r}, a path outside images/; refused.")
    with opened(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    if pixels.shape[:2] != (height, width):
        raise UserError(
            f"{path} is {pixels.shape[0]} x {pixels.shape[1]}; index.csv says {height} x {width}."
        )
    return pixels


def _stacked(pixels: list[np.ndarray], folder: Path, what: str) -> np.ndarray:
    sizes = sorted({image.shape[:2] for image in pixels})
    if len(sizes) > 1:
        raise UserError(
            f"{folder}: {what} of {len(sizes)} sizes, among them {sizes[:2]}; expected one, as in "
            "broden1_224 or broden1_227."
        )
    return np.stack(pixels)


def _written(folder: Path, i: int, category: str, labels: Int[np.ndarray, "m a b"]) -> list[str]:
    """The field's parts: numbers for maps of one pixel, else names of the masks written."""
    if labels.shape[1:] == (1, 1):
        return [str(int(label)) for label in labels.flatten() if label] or ["0"]
    parts = []
    for j, label in enumerate(labels):
        name = f"concepts/{i:06d}_{category}{f'_{j}' if j else ''}.png"
        _save(folder / "images" / name, np.stack([label % 256, label // 256, 0 * label], -1))
        parts.append(name)
    return parts


def _save(path: Path, pixels: np.ndarray) -> None:
    with atomic(path) as partial:
        Image.fromarray(pixels.astype(np.uint8)).save(partial, "PNG")


def _shares(concepts: Concepts, category: str) -> tuple[torch.Tensor, torch.Tensor]:
    """For each label the images that show it and the sum of their shares of pixels."""
    label = torch.arange(1, len(concepts.names[category]) + 1)
    shares = torch.stack(
        [
            (labels.cpu().flatten(1)[..., None] == label).float().mean(1)
            for labels in concepts.maps[category]
        ]
    ).amax(1)
    return (shares > 0).sum(0), shares.sum(0)


def _write_table(path: Path, rows: list[dict]) -> None:
    with atomic(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
