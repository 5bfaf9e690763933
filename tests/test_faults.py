"""Faults: processes killed at random moments, full disks, two writers of one file. `-m faults`."""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from robustbias import tables

pytestmark = pytest.mark.faults
HERE = Path(__file__).parent
WRITER = """
import sys, time
from pathlib import Path
import pandas as pd
from robustbias import tables
path, value = Path(sys.argv[1]), int(sys.argv[2])
while True:
    tables.write(pd.DataFrame({"value": [value] * 20_000}), path, {"measure": "m", "arguments": {}})
    print("written", flush=True)
"""
HASHES = """
import sys
from pathlib import Path
from robustbias import manifest
manifest.ROOT = Path(sys.argv[1])
for i in range(20):
    manifest.set_hash(sys.argv[2], f"{i:064x}")
"""
NETWORK = '[network.{}]\nweights = "x"\nsha256 = ""\n'


def environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, sys.path)])}


def started(*words, **how):
    words = [sys.executable, *map(str, words)]
    return subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, **how)


def killed(process, seconds):
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_a_stored_table_is_whole_whenever_its_writers_are_killed(tmp_path):
    path, chance = tmp_path / "table.parquet", random.Random(0)
    for _ in range(3):
        writers = [started("-c", WRITER, path, value) for value in (1, 2)]
        for writer in writers:
            writer.stdout.readline()
        for writer in writers:
            killed(writer, chance.uniform(0, 0.5))
        values = tables.read(path)["value"]
        assert len(values) == 20_000
        assert values.nunique() == 1


def test_two_writers_of_hashes_lose_none(tmp_path):
    folder = tmp_path / "data_manifest" / "networks"
    folder.mkdir(parents=True)
    (folder / "a.toml").write_text(NETWORK.format("one") + "\n" + NETWORK.format("two"))
    writers = [started("-c", HASHES, tmp_path, name) for name in ("one", "two")]
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    assert (folder / "a.toml").read_text().count(f'sha256 = "{19:064x}"') == 2


def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path):
    path = tmp_path / "table.parquet"
    writer = started("-c", WRITER, path, 1)
    writer.stdout.readline()
    killed(writer, 0)
    before = path.read_bytes()

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    writer = started("-c", WRITER, path, 2, stderr=subprocess.PIPE, preexec_fn=limit)
    _, error = writer.communicate()
    assert b"UserError: could not write" in error
    assert path.read_bytes() == before
