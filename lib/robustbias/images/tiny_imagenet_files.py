"""Tiny-ImageNet's files, in whichever of its two layouts they are."""

import dataclasses
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Int64

from robustbias.utils import MissingData, UserError, fingerprints, reading

# -- --------------------------------------------------------------------------------------------
# Encoded images of one split, as a reader of some layout found them.


@dataclasses.dataclass(frozen=True)
class Encoded:
    """JPEG images that have not been decoded yet.

    `labels` index a data set's classes; `key` names the content (files and their hashes), so that
    decoded pixels can be kept under it; `content` hands out the bytes in the order of the names.
    """

    labels: Int64[np.ndarray, " n"]
    names: tuple[str, ...]
    key: tuple[str, ...]
    content: Callable[[], Iterable[bytes]]

    def ordered(self) -> "Encoded":
        """By class, then by the number in the name: the same order in every layout."""
        order = sorted(
            range(len(self.names)), key=lambda i: (self.labels[i], _number(self.names[i]))
        )

        def content() -> list[bytes]:
            unordered = list(self.content())
            return [unordered[i] for i in order]

        return Encoded(self.labels[order], tuple(self.names[i] for i in order), self.key, content)


def _number(name: str) -> int:
    """478 of n04254777_478.JPEG."""
    digits = re.findall(r"\d+", Path(name).stem)
    return int(digits[-1]) if digits else 0


# -- --------------------------------------------------------------------------------------------
# Tiny-ImageNet in parquet shards of the Hugging Face image schema.
#
# SPLIT-00000-of-0000N.parquet, also below data/, with columns `image` {bytes, path} and `label`,
# the rank of the WNID among the 200 sorted ones.


NAME = re.compile(r"^(train|valid|validation|val)-(\d+)-of-(\d+)(?:-[0-9a-f]+)?\.parquet$")


WHOLE = "a whole parquet file"
ADVICE = "get the data set again: `robustbias fetch tiny-imagenet`"
AGAIN = "Get the data set again: `robustbias fetch tiny-imagenet`."


def shards(folder: Path, split: str) -> list[Path]:
    """The split's shards in order, none when the folder has another layout.

    Raises:
        UserError: Fewer shards than their names announce.
    """
    paths: dict[int, Path] = {}
    total = 0
    for path in [*folder.glob("*.parquet"), *folder.glob("data/*.parquet")]:
        if (match := NAME.match(path.name)) and match[1].startswith(split):
            paths[int(match[2])], total = path, max(total, int(match[3]))
    if absent := [index for index in range(total) if index not in paths]:
        numbers = ", ".join(f"{index:05d}" for index in absent)
        raise UserError(
            f"{folder}: {len(paths)} of {total} {split} shards; missing number {numbers}. {AGAIN}"
        )
    return [paths[index] for index in sorted(paths)]


def shard_count(shards: list[Path]) -> int:
    """Images in all of them; only the footers are read."""
    return sum(_opened(shard).metadata.num_rows for shard in shards)


def from_shards(shards: list[Path], wnids: tuple[str, ...], wanted: tuple[str, ...]) -> Encoded:
    """Rows of the wanted classes, in the order of the shards; labels are ranks among `wnids`."""
    ranks = pa.array([wnids.index(wnid) for wnid in wanted])
    tables = [_rows(shard, ["label", "image.path"], wnids, ranks) for shard in shards]
    rows = pa.concat_tables(tables)
    paths = pc.struct_field(rows["image"], "path").to_pylist()
    return Encoded(
        labels=rows["label"].to_numpy().astype(np.int64),
        names=tuple(path or f"image_{row}.JPEG" for row, path in enumerate(paths)),
        key=tuple(fingerprints(shards)),
        content=lambda: (
            content
            for shard in shards
            for content in pc.struct_field(
                _rows(shard, ["label", "image.bytes"], wnids, ranks)["image"], "bytes"
            ).to_pylist()
        ),
    )


def _rows(shard: Path, columns: list[str], wnids: tuple[str, ...], ranks: pa.Array) -> pa.Table:
    """Rows of the wanted classes, the file and its labels checked."""
    file = _opened(shard)
    _check_schema(shard, file.schema_arrow, wnids)
    with reading(shard, WHOLE, ADVICE):
        rows = file.read(columns=columns)
    if rows["label"].null_count or rows["image"].null_count:
        raise UserError(f"{shard}: a row without a label or an image. {AGAIN}")
    bounds = pc.min_max(rows["label"]).as_py()
    if rows.num_rows and not 0 <= bounds["min"] <= bounds["max"] < len(wnids):
        raise UserError(
            f"{shard}: labels {bounds['min']}..{bounds['max']}; expected 0..{len(wnids) - 1}, "
            "the rank of the sorted WNID."
        )
    return rows.filter(pc.is_in(rows["label"], ranks))


def _opened(shard: Path) -> pq.ParquetFile:
    with reading(shard, WHOLE, ADVICE):
        return pq.ParquetFile(shard)


def _check_schema(shard: Path, schema: pa.Schema, wnids: tuple[str, ...]) -> None:
    """Columns as expected and, where the file names its classes, in the order of sorted WNIDs."""
    fields = {field.name: field.type for field in schema}
    image = fields.get("image", pa.null())
    inner = {field.name for field in image} if pa.types.is_struct(image) else set()
    if not ({"bytes", "path"} <= inner and pa.types.is_integer(fields.get("label", pa.null()))):
        raise UserError(
            f"{shard}: columns {', '.join(f'{n}: {t}' for n, t in fields.items())}; expected "
            "image: struct<bytes, path> and label: int64 (Hugging Face image schema)."
        )
    with reading(shard, "a parquet file with readable notes on its columns", ADVICE):
        about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        label = about.get("info", {}).get("features", {}).get("label", {})
        names = tuple(label.get("names", ()))
    if names and names != wnids:
        raise UserError(
            f"{shard}: its classes are not the {len(wnids)} sorted WNIDs of Tiny-ImageNet "
            f"(first: {names[0]!r}; expected {wnids[0]!r}), so labels would be misread."
        )


# -- --------------------------------------------------------------------------------------------
# Tiny-ImageNet in the folders of the official zip.
#
# train/WNID/images/*.JPEG, val/images/*.JPEG with val/val_annotations.txt, and wnids.txt.


def unpacked(folder: Path) -> Path | None:
    """The folder of wnids.txt: this one or tiny-imagenet-200/ below it."""
    roots = (folder, folder / "tiny-imagenet-200")
    return next((root for root in roots if (root / "wnids.txt").is_file()), None)


def folder_count(root: Path, split: str) -> int:
    """Image files of a split."""
    pattern = "train/*/images/*.JPEG" if split == "train" else "val/images/*.JPEG"
    return sum(1 for _ in root.glob(pattern))


def from_folders(
    root: Path, split: str, wnids: tuple[str, ...], wanted: tuple[str, ...]
) -> Encoded:
    """Files of the wanted classes; labels are ranks among `wnids`."""
    if set((root / "wnids.txt").read_text().split()) != set(wnids):
        raise UserError(f"{root / 'wnids.txt'} does not list the {len(wnids)} WNIDs. {AGAIN}")
    if split == "train":
        labelled = [
            (wnid, path)
            for wnid in wanted
            for path in sorted((root / "train" / wnid / "images").glob("*.JPEG"))
        ]
    else:
        labelled = _validation(root / "val", frozenset(wanted))
    files = [path for _, path in labelled]
    return Encoded(
        labels=np.array([wnids.index(wnid) for wnid, _ in labelled], dtype=np.int64),
        names=tuple(path.name for path in files),
        key=tuple(fingerprints(files)),
        content=lambda: (path.read_bytes() for path in files),
    )


def _validation(folder: Path, wanted: frozenset[str]) -> list[tuple[str, Path]]:
    """(WNID, file) of the validation images, from the annotation file."""
    annotations = folder / "val_annotations.txt"
    if not annotations.is_file():
        raise UserError(f"no {annotations}; expected a line `file WNID box` an image. {AGAIN}")
    pairs = [line.split("\t")[:2] for line in annotations.read_text().splitlines() if line]
    labelled = [(wnid, folder / "images" / name) for name, wnid in pairs if wnid in wanted]
    if absent := [path for _, path in labelled if not path.is_file()]:
        raise UserError(
            f"{annotations} names {len(absent)} missing images, first {absent[0]}. {AGAIN}"
        )
    return labelled


def encoded(folder: Path, split: str, wnids: tuple[str, ...], wanted: tuple[str, ...]) -> Encoded:
    """Images of the wanted classes, by class and number; labels are ranks among `wnids`.

    Args:
        folder: What was downloaded; the unpacked zip may lie below it as tiny-imagenet-200/.
        split: "train" or "val".
        wnids: The 200 WNIDs, sorted.
        wanted: Some of them.

    Raises:
        MissingData: The folder is not there or has neither layout.
        UserError: A shard is missing, truncated or of another schema; a class has no image.
    """
    if paths := shards(folder, split):
        images = from_shards(paths, wnids, wanted)
    elif (root := unpacked(folder)) is not None:
        images = from_folders(root, split, wnids, wanted)
    else:
        raise MissingData(
            f"{folder} holds neither {split}-*.parquet nor the folders of tiny-imagenet-200.zip "
            "(wnids.txt, train/, val/). Run `robustbias fetch tiny-imagenet`, or set "
            "ROBUSTBIAS_DATA to the folder above an existing tiny-imagenet/."
        )
    ranks = set(images.labels.tolist())
    if empty := [wnid for wnid in wanted if wnids.index(wnid) not in ranks]:
        raise UserError(
            f"{folder}: the {split} split has no image of {', '.join(empty[:5])} "
            f"({len(empty)} of {len(wanted)} classes). {AGAIN}"
        )
    return images.ordered()


def count(folder: Path, split: str) -> int:
    """Number of images of a split, whichever layout the folder has; nothing is decoded."""
    if paths := shards(folder, split):
        return shard_count(paths)
    root = unpacked(folder)
    return folder_count(root, split) if root else 0
