"""Re-computation of a published study, and comparison of two sets of results.

What is compared of two notebooks says `records.results`; of two table stores, every cell.
Two numbers agree if |new - old| <= tolerance * |old| + tolerance / 10; text agrees if it is equal.
"""

import datetime
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from robustbias import studies, tables
from robustbias.book import edition, execute
from robustbias.findings.measure import call, records, results
from robustbias.tables import VALUES
from robustbias.utils import PROVENANCE, UserError, atomic

FOLDER = edition.BUILD / "verify"


def recomputed(study: str, old: Path, *, jobs: int = 1, stored: bool = False) -> Path:
    """Execute the chapters in `old` again as `make book` does; returns the notebooks' folder.

    Args:
        stored: Take tables from the table store; otherwise all are measured, into FOLDER/tables.

    Raises:
        UserError: A chapter is unknown or failed, or `old` is the folder to be written.
    """
    out, store = FOLDER / "notebooks" / study, None if stored else FOLDER / "tables"
    chapters = [path.stem for path in notebooks(old)]
    if old.resolve() == out.resolve():
        raise UserError(f"{old} is where chapters are executed again; compare with a copy of it.")
    shutil.rmtree(out, ignore_errors=True)
    if store:
        shutil.rmtree(store / study, ignore_errors=True)
    execute.execute_study(study, chapters, out, jobs=jobs, tables=store)
    return out


def notebooks(folder: Path) -> list[Path]:
    """The executed chapters in a folder, in reading order.

    Raises:
        UserError: There is none.
    """
    paths = [path for path in sorted(folder.glob("[0-9]*.ipynb")) if "." not in path.stem]
    if not paths:
        raise UserError(f"{folder}: no executed chapter there; expected files like 01_name.ipynb.")
    return paths


def compared(old: Path, new: Path, tolerance: float) -> pd.DataFrame:
    """Two folders of executed notebooks, one row per number, verdict or digest (`results`).

    Columns: place (the chapter), kind, name, old, new, absolute and relative (deviations), numbers,
    differing (1 or 0). What only `old` has differs; what only `new` has is counted nowhere, nor are
    digests, which tell whether tables are identical to the last bit.
    """
    before, after = (
        {(path.stem, *k): value for path in notebooks(folder) for k, value in results(path).items()}
        for folder in (old, new)
    )
    keys = list({**before, **after})
    sides = [pd.Series([side.get(k) for k in keys], dtype=object) for side in (before, after)]
    rows = _deviations(*sides, tolerance)
    counted = np.array([k in before and k[1] != "digest" for k in keys])
    rows = rows.assign(numbers=counted * 1, differing=(counted & ~rows["agrees"]) * 1)
    return pd.DataFrame(keys, columns=["place", "kind", "name"]).join(rows)


def compared_tables(
    old: Path, new: Path, tolerance: float, renamed: dict[str, str] | None = None
) -> pd.DataFrame:
    """Two table stores, one row per column of the tables of one study, measure, seed, arguments.

    The code, weights and images that made a table do not matter; of several the latest counts.
    Rows are compared in their order, or, where orders differ, sorted by what identifies them. Where
    only one side has a column that identifies rows, the layout changed: the others of that kind
    count nowhere, and the results are compared in the order of the rows.

    Columns as in `compared`; numbers and differing count cells (of text only those that differ),
    old and new are of the cell that deviates most.

    Args:
        renamed: {old name: new name} of measures, arguments, columns and text cells.
    """
    renamed = renamed or {}
    before, after = _stored(old, renamed), _stored(new, {})
    if not before:
        raise UserError(f"{old}: no stored table there; expected files like accuracy-HASH.parquet.")
    rows = []
    for key in {**before, **after}:
        a, b = (tables.read(side[key]) if key in side else None for side in (before, after))
        if renamed and a is not None:
            a = a.rename(columns=renamed).replace(renamed)
        rows += [{"place": key, "kind": "column", **row} for row in _columns(a, b, tolerance)]
    columns = ["place", "kind", "name", "old", "new", "absolute", "relative"]
    return pd.DataFrame(rows, columns=[*columns, "numbers", "differing"])


def report(rows: pd.DataFrame) -> list[str]:
    """A comparison in lines: each difference, what only the new side has, counts, the total."""
    digests, rows = rows[rows["kind"] == "digest"], rows[rows["kind"] != "digest"]
    lines = [
        f"{row.place}: {row.kind} {row.name}: {row.old} -> {row.new} (deviation {row.absolute:.3g},"
        f" relative {row.relative:.3g}, {row.differing:,} of {max(row.numbers, row.differing):,})"
        for row in rows[rows["differing"] > 0].itertuples(index=False)
    ]
    for place, part in rows.groupby("place", sort=False):
        extra = part[(part["numbers"] == 0) & part["old"].isna() & part["new"].notna()]
        kinds = extra["kind"].value_counts().items()
        only = "".join(f"; {n:,} of kind {kind} only here" for kind, n in kinds)
        lines.append(f"{place}: {_agree(part)}{only}")
    if given := int(digests["old"].notna().sum()):
        same = int(digests["agrees"].sum())
        lines.append(f"identical to the last bit: {same} of {given} measured tables")
    worst = rows[["absolute", "relative"]].max()
    total = f"in all: {_agree(rows)}; largest deviation {worst['absolute']:.3g}, relative"
    return [*lines, f"{total} {worst['relative']:.3g}"]


def record(study: str, rows: pd.DataFrame, executed: Path, tolerance: float) -> Path:
    """Keep the outcome with the published chapters, for the page on provenance."""
    rows = rows[rows["kind"] != "digest"]
    made = next(iter(records(notebooks(executed)[0], PROVENANCE)), {})
    facts = {
        "numbers": int(rows["numbers"].sum()),
        "agree": int((rows["numbers"] - rows["differing"]).sum()),
        "tolerance": tolerance,
        "largest_absolute": float(rows["absolute"].max()),
        "largest_relative": float(rows["relative"].max()),
        "device": made.get("device", "unknown device"),
        "threads": made.get("threads", "unknown"),
        "commit": studies.commit(),
        "date": datetime.date.today().isoformat(),
    }
    path = edition.verified(study)
    with atomic(path) as partial:
        partial.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return path


def _agree(rows: pd.DataFrame) -> str:
    agree = (rows["numbers"] - rows["differing"]).clip(lower=0).sum()
    return f"{agree:,} of {rows['numbers'].sum():,} numbers agree"


def _stored(folder: Path, renamed: dict[str, str]) -> dict[str, Path]:
    """The latest table of each measurement in a store."""
    latest = {}
    for path in sorted(folder.rglob("[!.]*.parquet"), key=lambda path: path.stat().st_mtime):
        made = json.loads(pq.read_schema(path).metadata[tables.METADATA])
        made["measure"] = renamed.get(made["measure"], made["measure"])
        made["arguments"] = {renamed.get(k, k): v for k, v in made["arguments"].items()}
        architectures = ", ".join(made["study"]["architectures"])
        latest[f"{path.parent.name} ({architectures}), seed {made['seed']}: {call(made)}"] = path
    return latest


def _columns(
    a: pd.DataFrame | None, b: pd.DataFrame | None, tolerance: float
) -> Iterator[dict[str, Any]]:
    """Rows of `compared_tables` for one table, None on the side that does not have it."""
    if a is None or b is None or len(a) != len(b):
        size = 0 if a is None else max(1, a.select_dtypes("number").size)
        old = None if a is None else f"{len(a):,} rows"
        new = "no table" if b is None else f"{len(b):,} rows"
        yield {"name": "all", "old": old, "new": new, "numbers": size, "differing": size}
        return
    labels = [name for name in a if name in b and name not in VALUES]
    changed = set(a) - set(VALUES) != set(b) - set(VALUES)
    if not changed and not a[labels].equals(b[labels]):
        a, b = (table.sort_values(labels, ignore_index=True) for table in (a, b))
    for name in [name for name in b if name not in a]:
        yield {"name": name, "new": "a column", "numbers": 0, "differing": 0}
    for name in [name for name in a if name in VALUES or not changed]:
        pair = _deviations(a[name], b.get(name, pd.Series([None] * len(a))), tolerance)
        worst = pair.sort_values(["agrees", "absolute"], ascending=[True, False]).head(1)
        differing = int((~pair["agrees"]).sum())
        numbers = a[name].count() if name in a.select_dtypes("number") else differing
        counts = {"numbers": int(numbers), "differing": differing}
        yield {"name": name, **counts, **(worst.iloc[0] if len(worst) else {})}


def _deviations(old: pd.Series, new: pd.Series, tolerance: float) -> pd.DataFrame:
    """Row by row: old, new, absolute and relative deviation (missing for text), agrees."""
    pair = pd.DataFrame({"old": old, "new": new})
    a, b = (pd.to_numeric(pair[side], errors="coerce").to_numpy(float) for side in pair)
    with np.errstate(invalid="ignore"):
        absolute = np.where(a == b, 0.0, np.abs(b - a))
        scale = np.maximum(np.maximum(np.abs(a), np.abs(b)), np.finfo(float).tiny)
        close = np.isclose(b, a, rtol=tolerance, atol=tolerance / 10)
    same = (pair["old"] == pair["new"]) | (pair["old"].isna() & pair["new"].isna())
    return pair.assign(absolute=absolute, relative=absolute / scale, agrees=same | close)
