"""The store: never stale, never half-written, and it knows where a table came from."""

import dataclasses
import errno
import json

import pandas as pd
import pyarrow.parquet as pq
import pytest

import toy_study
from robustbias import manifest, tables
from robustbias.studies import paired
from robustbias.utils import UserError

CALLS = []


def doubled(study, *, times=1):
    CALLS.append(times)
    return pd.DataFrame({"condition": ["a", "b"], "value": [1.0 * times, 2.0 * times]})


@pytest.fixture(autouse=True)
def _store(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTBIAS_TABLES", str(tmp_path / "tables"))
    CALLS.clear()


def kept(folder) -> list:
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_a_table_is_measured_once_and_read_back_equal():
    study = toy_study.study()
    first = tables.cached(doubled, study, study.entries, times=3)
    again = tables.cached(doubled, study, study.entries, times=3)
    assert CALLS == [3]
    pd.testing.assert_frame_equal(first, again)
    assert first["value"].tolist() == [3.0, 6.0]


OTHER_LAYERS = dataclasses.replace(toy_study.entry("toy-r", "robust", 0.5), layers=("body",))


class OtherImages(toy_study.Source):
    digest = "other images"


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"source": OtherImages()},
        {
            "networks": {
                "toy-s": toy_study.HalfLooker("right", 41.0),
                "toy-r": toy_study.HalfLooker("left"),
            }
        },
        {"entry": dataclasses.replace(toy_study.study().entry, sizes=(16,))},
        {"entry": dataclasses.replace(toy_study.study().entry, name="other")},
        {"entries": [toy_study.study().entries[0], OTHER_LAYERS]},
    ],
    ids=["seed", "images", "weights", "study", "name", "network"],
)
def test_whatever_a_value_depends_on_is_in_the_key(change):
    study = toy_study.study()
    tables.cached(doubled, study, study.entries)
    other = toy_study.study(**change)
    tables.cached(doubled, other, other.entries)
    assert len(CALLS) == 2


def test_where_the_weights_are_and_prose_are_not_in_the_key():
    study = toy_study.study()
    tables.cached(doubled, study, study.entries)
    moved = [
        dataclasses.replace(entry, title="T", weights="elsewhere", sha256="1" * 64)
        for entry in study.entries
    ]
    tables.cached(doubled, toy_study.study(entries=moved), moved)
    assert len(CALLS) == 1


def test_the_tables_of_a_concept_set_are_in_the_key(monkeypatch, tmp_path):
    monkeypatch.setenv("ROBUSTBIAS_DATA", str(tmp_path))
    keys = []
    for content in ("a", "a", "b"):
        folder = tmp_path / manifest.dataset("broden").path
        folder.mkdir(exist_ok=True)
        (folder / "index.csv").write_text(content)
        study = toy_study.study()
        depends = tables.dependencies(doubled, study, [], {"concepts": "broden"})
        keys.append(tables.key(depends))
    assert keys[0] == keys[1] != keys[2]


def test_an_unreadable_table_that_may_be_whole_is_kept(monkeypatch):
    study = toy_study.study()
    tables.cached(doubled, study, study.entries)
    (path,) = tables.folder().rglob("*.parquet")

    def busy(*_, **__):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(tables.pq, "read_table", busy)
    with pytest.raises(OSError, match="Too many open files"):
        tables.cached(doubled, study, study.entries)
    assert path.is_file()


def test_arguments_and_the_set_of_networks_are_in_the_key():
    study = toy_study.study()
    tables.cached(doubled, study, study.entries, times=1)
    tables.cached(doubled, study, study.entries, times=2)
    tables.cached(doubled, study, study.entries[:1], times=1)
    assert CALLS == [1, 2, 1]


def test_a_changed_line_of_a_measures_code_is_another_key(monkeypatch):
    study = toy_study.study()
    tables.cached(doubled, study, study.entries)
    monkeypatch.setattr(tables, "digest", lambda modules: "edited")
    tables.cached(doubled, study, study.entries)
    assert len(CALLS) == 2


def test_defaults_and_their_spelled_out_values_are_one_key():
    study = toy_study.study()
    stored = tables.stored(doubled)
    stored(study)
    stored(study, times=1)
    assert CALLS == [1]


def test_a_measure_of_pairs_neither_sees_the_series_nor_depends_on_it():
    study = toy_study.study()
    series = toy_study.entry("toy-2", "robust", 2.0)
    networks = {**study.networks, "toy-2": toy_study.HalfLooker("left")}
    more = toy_study.study(entries=[*study.entries, series], networks=networks)
    seen = paired(more)
    assert [entry.name for entry in seen.entries] == ["toy-s", "toy-r"]
    assert seen.source is more.source
    assert len(more.entries) == 3
    stored = tables.stored(doubled, of=paired)
    stored(study)
    stored(more)
    assert CALLS == [1]


def test_provenance_travels_inside_the_file(tmp_path):
    study = toy_study.study()
    table = tables.cached(doubled, study, study.entries, times=2)
    made = tables.provenance(table)
    assert made["measure"] == "doubled"
    assert made["arguments"] == {"times": 2}
    assert made["weights"] == {"toy-s": "right-40.0", "toy-r": "left-40.0"}
    assert made["images"] == "toy-images"
    assert made["seconds"] >= 0
    (path,) = kept(tmp_path / "tables")
    assert tables.METADATA in pq.read_schema(path).metadata


def test_a_study_collects_summaries_of_the_tables_it_used_measured_or_read():
    study, again = toy_study.study(), toy_study.study()
    tables.cached(doubled, study, study.entries, times=3)
    tables.cached(doubled, again, again.entries, times=3)
    assert study.tables == again.tables
    (summary,) = study.tables.values()
    assert (summary["measure"], summary["arguments"]) == ("doubled", {"times": 3})
    assert summary["rows"] == 2
    assert set(summary["columns"]) == {"value"}
    column = summary["columns"]["value"]
    assert (column["count"], column["mean"], column["min"], column["max"]) == (2, 4.5, 3.0, 6.0)


def test_a_table_read_on_the_way_to_another_is_not_collected():
    def summed(study):
        return tables.cached(doubled, study, study.entries)[["value"]].sum().to_frame("value")

    study, again = toy_study.study(), toy_study.study()
    for each in (study, again):  # measured by way of doubled, then read
        tables.cached(summed, each, each.entries)
    assert CALLS == [1]
    assert [table["measure"] for table in study.tables.values()] == ["summed"]
    assert study.tables == again.tables


def test_a_digest_ignores_the_order_of_rows_and_finds_one_changed_cell():
    table = pd.DataFrame({"answer": ["cat"] * 500 + ["dog"] * 500, "value": range(1000)})
    table.attrs["provenance"] = {"measure": "m", "arguments": {}}

    def digest(table):
        return tables.summary(table)["digest"]

    assert digest(table.iloc[::-1]) == digest(table)
    assert digest(table.replace({"value": {500: 500.0001}})) != digest(table)
    assert digest(table.assign(answer=["dog", *table["answer"][1:]])) != digest(table)


def test_a_summary_of_cells_that_are_no_finite_numbers_is_json():
    table = pd.DataFrame({"value": [float("inf"), float("nan"), 1.0], "none": [float("nan")] * 3})
    table.attrs["provenance"] = {"measure": "m", "arguments": {}}
    columns = tables.summary(table)["columns"]
    json.dumps(columns, allow_nan=False)
    assert (columns["value"]["count"], columns["value"]["max"]) == (1, 1.0)
    assert columns["none"] == {"count": 0}


def test_a_full_disk_leaves_nothing_half_written_and_one_clear_error(tmp_path, monkeypatch):
    def full(table, path, **_):
        with open(path, "wb") as file:
            file.write(b"PAR1half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tables.pq, "write_table", full)
    study = toy_study.study()
    with pytest.raises(UserError, match=r"No space left on device.*free some space"):
        tables.cached(doubled, study, study.entries)
    assert kept(tmp_path / "tables") == []


def test_a_table_damaged_from_outside_is_measured_again(tmp_path):
    study = toy_study.study()
    tables.cached(doubled, study, study.entries)
    (path,) = kept(tmp_path / "tables")
    path.write_bytes(path.read_bytes()[:100])
    assert tables.cached(doubled, study, study.entries)["value"].tolist() == [1.0, 2.0]
    assert len(CALLS) == 2


@pytest.mark.parametrize("note", [None, b"not JSON", b"\xff"])
def test_a_table_without_its_note_is_measured_again(tmp_path, note):
    study = toy_study.study()
    tables.cached(doubled, study, study.entries)
    (path,) = kept(tmp_path / "tables")
    notes = {} if note is None else {tables.METADATA: note}
    pq.write_table(pq.read_table(path).replace_schema_metadata(notes), path)
    assert tables.cached(doubled, study, study.entries)["value"].tolist() == [1.0, 2.0]
    assert len(CALLS) == 2


def test_a_changed_value_in_a_stored_table_is_noticed(tmp_path):
    study = toy_study.study()
    tables.cached(doubled, study, study.entries, times=12345)
    (path,) = kept(tmp_path / "tables")
    stored = path.read_bytes()
    start = pq.read_metadata(path).row_group(0).column(1).dictionary_page_offset
    end = pq.read_metadata(path).row_group(0).column(1).total_compressed_size + start
    damaged = bytearray(stored)
    damaged[end - 1] ^= 1
    path.write_bytes(damaged)
    table = tables.cached(doubled, study, study.entries, times=12345)
    assert table["value"].tolist() == [12345.0, 24690.0]
    assert len(CALLS) == 2
