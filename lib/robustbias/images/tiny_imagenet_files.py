"""The two layouts Tiny-ImageNet comes in, each read into the same records.

Parquet shards: SPLIT-00000-of-0000N.parquet (also below data/), columns `image` {bytes, path} and
`label`, the rank of the WNID among the 200 sorted ones.
Folders of the official zip: train/WNID/images/*.JPEG, val/images/*.JPEG with
val/val_annotations.txt, and wnids.txt.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from robustbias.errors import MissingData, UserError

SHARD = re.compile(r"^(train|valid|validation|val)-(\d+)-of-(\d+)(?:-[0-9a-f]+)?\.parquet$")
AGAIN = "Get the data set again: `robustbias fetch tiny-imagenet`."


@dataclasses.dataclass(frozen=True)
class Records:
    """The encoded images of one split, by class and then by number.

    `labels` are ranks among the 200 sorted WNIDs; `key` names the content (paths, sizes, times);
    `encoded` hands out the JPEG bytes in the same order.
    """

    labels: np.ndarray
    names: tuple[str, ...]
    key: tuple[str, ...]
    encoded: Callable[[], Iterable[bytes]]


def records(folder: Path, split: str, wnids: tuple[str, ...], wanted: tuple[str, ...]) -> Records:
    """Images of the wanted classes in whichever layout the folder has.

    Args:
        folder: What was downloaded; the unpacked zip may lie below it as tiny-imagenet-200/.
        split: "train" or "val".
        wnids: The 200 WNIDs, sorted.
        wanted: Some of them.

    Raises:
        MissingData: The folder is not there or has neither layout.
        UserError: A shard is missing, truncated or of another schema; a class has no image.
    """
    if shards := _shards(folder, split):
        found = _parquet_records(shards, wnids, wanted)
    elif (root := _unpacked(folder)) is not None:
        found = _folder_records(root, split, wnids, wanted)
    else:
        raise MissingData(
            f"{folder} holds neither {split}-*.parquet nor the folders of tiny-imagenet-200.zip "
            "(wnids.txt, train/, val/). Run `robustbias fetch tiny-imagenet`, or set "
            "ROBUSTBIAS_DATA to the folder above an existing tiny-imagenet/."
        )
    if empty := [w for w in wanted if wnids.index(w) not in set(found.labels.tolist())]:
        raise UserError(
            f"{folder}: the {split} split has no image of {', '.join(empty[:5])} "
            f"({len(empty)} of {len(wanted)} classes). {AGAIN}"
        )
    order = sorted(
        range(len(found.names)), key=lambda i: (found.labels[i], _number(found.names[i]))
    )
    return Records(
        labels=found.labels[order],
        names=tuple(found.names[i] for i in order),
        key=found.key,
        encoded=functools.partial(_reordered, found.encoded, order),
    )


def _reordered(encoded: Callable[[], Iterable[bytes]], order: list[int]) -> list[bytes]:
    content = list(encoded())
    return [content[i] for i in order]


def _number(name: str) -> int:
    """478 of n04254777_478.JPEG, so that the order is the same in both layouts."""
    digits = re.findall(r"\d+", Path(name).stem)
    return int(digits[-1]) if digits else 0


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{path.name} {status.st_size} {status.st_mtime_ns}"


# Parquet shards


def _shards(folder: Path, split: str) -> list[Path]:
    """The split's shards in order, all that their names announce."""
    found: dict[int, Path] = {}
    total = 0
    for path in [*folder.glob("*.parquet"), *folder.glob("data/*.parquet")]:
        if (match := SHARD.match(path.name)) and match[1].startswith(split):
            found[int(match[2])], total = path, max(total, int(match[3]))
    if absent := [index for index in range(total) if index not in found]:
        numbers = ", ".join(f"{index:05d}" for index in absent)
        raise UserError(
            f"{folder}: {len(found)} of {total} {split} shards; missing number {numbers}. {AGAIN}"
        )
    return [found[index] for index in sorted(found)]


def _parquet_records(
    shards: list[Path], wnids: tuple[str, ...], wanted: tuple[str, ...]
) -> Records:
    ranks = pa.array([wnids.index(wnid) for wnid in wanted])
    tables = [_rows(shard, ["label", "image.path"], wnids, ranks) for shard in shards]
    rows = pa.concat_tables(tables)
    paths = pc.struct_field(rows["image"], "path").to_pylist()
    return Records(
        labels=rows["label"].to_numpy().astype(np.int64),
        names=tuple(path or f"image_{row}.JPEG" for row, path in enumerate(paths)),
        key=tuple(_stamp(shard) for shard in shards),
        encoded=lambda: (
            content
            for shard in shards
            for content in pc.struct_field(
                _rows(shard, ["label", "image.bytes"], wnids, ranks)["image"], "bytes"
            ).to_pylist()
        ),
    )


def _rows(shard: Path, columns: list[str], wnids: tuple[str, ...], ranks: pa.Array) -> pa.Table:
    """Rows of the wanted classes, the file and its labels checked."""
    try:
        file = pq.ParquetFile(shard)
        _check_schema(shard, file.schema_arrow, wnids)
        rows = file.read(columns=columns)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(
            f"{shard} is not a whole parquet file ({str(error).splitlines()[0]}); "
            f"it may be a broken download. {AGAIN}"
        ) from error
    bounds = pc.min_max(rows["label"]).as_py()
    if rows.num_rows and not 0 <= bounds["min"] <= bounds["max"] < len(wnids):
        raise UserError(
            f"{shard}: labels {bounds['min']}..{bounds['max']}; expected 0..{len(wnids) - 1}, "
            "the rank of the sorted WNID."
        )
    return rows.filter(pc.is_in(rows["label"], ranks))


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
    about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    label = about.get("info", {}).get("features", {}).get("label", {})
    if (names := tuple(label.get("names", ()))) and names != wnids:
        raise UserError(
            f"{shard}: its classes are not the {len(wnids)} sorted WNIDs of Tiny-ImageNet "
            f"(first: {names[0]!r}; expected {wnids[0]!r}), so labels would be misread."
        )


# Folders of the official zip


def _unpacked(folder: Path) -> Path | None:
    roots = (folder, folder / "tiny-imagenet-200")
    return next((root for root in roots if (root / "wnids.txt").is_file()), None)


def _folder_records(
    root: Path, split: str, wnids: tuple[str, ...], wanted: tuple[str, ...]
) -> Records:
    if set((root / "wnids.txt").read_text().split()) != set(wnids):
        raise UserError(f"{root / 'wnids.txt'} does not list the {len(wnids)} WNIDs. {AGAIN}")
    if split == "train":
        labelled = [(wnid, path) for wnid in wanted for path in _jpegs(root / "train" / wnid)]
    else:
        labelled = _validation(root / "val", frozenset(wanted))
    files = [path for _, path in labelled]
    return Records(
        labels=np.array([wnids.index(wnid) for wnid, _ in labelled], dtype=np.int64),
        names=tuple(path.name for path in files),
        key=tuple(_stamp(path) for path in files),
        encoded=lambda: (path.read_bytes() for path in files),
    )


def _jpegs(folder: Path) -> list[Path]:
    return sorted((folder / "images").glob("*.JPEG"))


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
