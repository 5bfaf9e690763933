"""Tiny-ImageNet in parquet shards of the Hugging Face image schema.

SPLIT-00000-of-0000N.parquet, also below data/, with columns `image` {bytes, path} and `label`, the
rank of the WNID among the 200 sorted ones.
"""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from robustbias.errors import UserError
from robustbias.images.encoded import Encoded, stamp

NAME = re.compile(r"^(train|valid|validation|val)-(\d+)-of-(\d+)(?:-[0-9a-f]+)?\.parquet$")
AGAIN = "Get the data set again: `robustbias fetch tiny-imagenet`."


def shards(folder: Path, split: str) -> list[Path]:
    """The split's shards in order, none when the folder has another layout.

    Raises:
        UserError: Fewer shards than their names announce.
    """
    found: dict[int, Path] = {}
    total = 0
    for path in [*folder.glob("*.parquet"), *folder.glob("data/*.parquet")]:
        if (match := NAME.match(path.name)) and match[1].startswith(split):
            found[int(match[2])], total = path, max(total, int(match[3]))
    if absent := [index for index in range(total) if index not in found]:
        numbers = ", ".join(f"{index:05d}" for index in absent)
        raise UserError(
            f"{folder}: {len(found)} of {total} {split} shards; missing number {numbers}. {AGAIN}"
        )
    return [found[index] for index in sorted(found)]


def count(shards: list[Path]) -> int:
    """Images in all of them; only the footers are read."""
    return sum(_opened(shard).metadata.num_rows for shard in shards)


def encoded(shards: list[Path], wnids: tuple[str, ...], wanted: tuple[str, ...]) -> Encoded:
    """Rows of the wanted classes, in the order of the shards; labels are ranks among `wnids`."""
    ranks = pa.array([wnids.index(wnid) for wnid in wanted])
    tables = [_rows(shard, ["label", "image.path"], wnids, ranks) for shard in shards]
    rows = pa.concat_tables(tables)
    paths = pc.struct_field(rows["image"], "path").to_pylist()
    return Encoded(
        labels=rows["label"].to_numpy().astype(np.int64),
        names=tuple(path or f"image_{row}.JPEG" for row, path in enumerate(paths)),
        key=tuple(stamp(shard) for shard in shards),
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
    try:
        rows = file.read(columns=columns)
    except (pa.ArrowInvalid, OSError) as error:
        raise _damaged(shard, error) from error
    bounds = pc.min_max(rows["label"]).as_py()
    if rows.num_rows and not 0 <= bounds["min"] <= bounds["max"] < len(wnids):
        raise UserError(
            f"{shard}: labels {bounds['min']}..{bounds['max']}; expected 0..{len(wnids) - 1}, "
            "the rank of the sorted WNID."
        )
    return rows.filter(pc.is_in(rows["label"], ranks))


def _opened(shard: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(shard)
    except (pa.ArrowInvalid, OSError) as error:
        raise _damaged(shard, error) from error


def _damaged(shard: Path, error: Exception) -> UserError:
    reason = (str(error).splitlines() or ["unreadable"])[0]
    return UserError(f"{shard} is not a whole parquet file ({reason}). {AGAIN}")


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
