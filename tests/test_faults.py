"""Faults: processes killed at random moments, full disks, two writers of one file. `-m faults`.

Each test reports how many processes it stopped (tried), after how many every file was whole, old or
new, and the next call went through (survived), and how many files were lost.
"""

import functools
import hashlib
import http.server
import io
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import nbformat
import psutil
import pytest

import toy_book

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
# One process imports once; what is killed are children of it.
FORKS = """
import os, random, signal, sys, time
from pathlib import Path
root, chance = Path(sys.argv[1]), random.Random(0)

def child(work):
    process = os.fork()
    if not process:
        status = 1
        try:
            status = int(work() is False)
        finally:
            os._exit(status)
    return process

def ended(process):
    return os.waitpid(process, 0)[1] == 0

def killed(process, seconds):
    time.sleep(chance.uniform(0, seconds))
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
"""
TABLES = """
import pandas as pd
from robustbias import tables
path = root / "table.parquet"

def write(value):
    while True:
        tables.write(pd.DataFrame({"value": [value] * 20_000}), path, {"measure": "m"})

def whole():
    values = tables.read(path)["value"]
    return len(values) == 20_000 and values.nunique() == 1

survived = 0
for _ in range(10):
    writers = [child(lambda: write(1)), child(lambda: write(2))]
    while not path.exists():
        time.sleep(0.01)
    for writer in writers:
        killed(writer, 0.2)
    survived += 2 * ended(child(whole))
print(survived)
"""
FETCHES = """
from robustbias import manifest
from robustbias.images import download
manifest.ROOT, os.environ["ROBUSTBIAS_DATA"] = root, str(root / "data")
file = manifest.FileEntry("a.zip", *sys.argv[2:], extract=True)
entry = manifest.DatasetEntry("drawings", "Drawings", "category-folders", "here", "none", "us",
                              "drawings", images={"stimuli": 60}, files=(file,))
manifest.datasets, manifest.dataset = lambda: ("drawings",), lambda name: entry
place, archive = root / "data/drawings", root / "data/archives/a.zip"

def fetch():
    download.fetch("drawings", progress=False)
    return len(list(place.glob("cat/*.png"))) == 60

def again_and_again():
    for turn in range(1000):
        fetch()
        place.rename(root / f"done-{os.getpid()}-{turn}")
        archive.rename(root / "archive")

survived = 0
for turn in range(20):
    killed(child(again_and_again), 0.3)
    survived += len(list(place.glob("cat/*.png"))) in (0, 60) and fetch()
    place.rename(root / f"done-{turn}")
    archive.unlink(missing_ok=True)
together = [child(fetch), child(fetch)]
survived += sum(map(ended, together))
hidden = [path for path in (root / "data").rglob("*") if path.name.startswith(".")]
assert not hidden and not list((root / "data").rglob("*.part")), hidden
print(survived)
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


def survivors(script, *words):
    process = started("-c", FORKS + script, *words, stderr=subprocess.PIPE)
    out, error = process.communicate(timeout=170)
    assert process.returncode == 0, error.decode()
    return int(out)


def test_a_stored_table_is_whole_whenever_its_writers_are_killed(tmp_path, counted):
    counted(20, survivors(TABLES, tmp_path))


@pytest.fixture
def address():
    """Where an archive of 60 drawings comes in pieces, so that a kill meets an unfinished one."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for i in range(60):
            file.writestr(f"cat/cat{i}.png", random.Random(i).randbytes(3000))
    content = buffer.getvalue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            try:
                for i in range(start, len(content), 20_000):
                    self.wfile.write(content[i : i + 20_000])
                    time.sleep(0.01)
            except OSError:
                pass  # who asked was killed

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=functools.partial(server.serve_forever, 0.01))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/a.zip", hashlib.sha256(content).hexdigest()
        server.shutdown()
        thread.join()


def test_a_fetched_data_set_is_whole_or_absent_whenever_fetch_is_killed(tmp_path, address, counted):
    counted(22, survivors(FETCHES, tmp_path, *address))  # 20 are killed, 2 fetch at the same time


def test_a_killed_run_leaves_the_notebook_before_and_no_kernel(tmp_path, counted):
    root, chance, survived = toy_book.repository(tmp_path), random.Random(0), 0
    waiting = "open('kernel', 'w').write(str(os.getpid()))\nimport time; time.sleep(300)"
    notebook = toy_book.chapter("Long", "long", f"import os\n{waiting}")
    nbformat.write(notebook, root / "chapters/01_lines.ipynb")
    out, kernel = root / "out" / "01_lines.ipynb", root / "chapters/kernel"
    out.parent.mkdir()
    out.write_text("the run before")
    command = ("robustbias", "run", "01_lines", "--study", "first", "--out", str(out))
    for seconds in (chance.uniform(0, 3), chance.uniform(2, 6), None):
        run = toy_book.started(root, *command)
        if seconds is None:  # in the middle of a cell
            until(kernel.is_file)
        else:
            time.sleep(seconds)
        run.kill()
        run.communicate()
        survived += out.read_text() == "the run before"
    until(lambda: not psutil.pid_exists(int(kernel.read_text())))  # it watches its parent
    nbformat.write(toy_book.chapter("Short", "short"), root / "chapters/01_lines.ipynb")
    done = toy_book.command(root, *command)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    counted(3, survived)


def until(true, seconds=120):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_two_writers_of_hashes_lose_none(tmp_path, counted):
    folder = tmp_path / "data_manifest" / "networks"
    folder.mkdir(parents=True)
    (folder / "a.toml").write_text(NETWORK.format("one") + "\n" + NETWORK.format("two"))
    writers = [started("-c", HASHES, tmp_path, name) for name in ("one", "two")]
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    counted(2, (folder / "a.toml").read_text().count(f'sha256 = "{19:064x}"'))


def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path, counted):
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
    counted(1, path.read_bytes() == before)
