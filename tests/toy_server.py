"""The explorer's server with a notebook of a test, in a process of its own."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import psutil
from nbformat.v4 import new_code_cell, new_notebook

SERVE = """
import pathlib
from robustbias.unit_explorer import server
server.IDLE = server.CHECK = {idle}
server.serve(pathlib.Path({notebook!r}), {port}, browser=False)
"""


class Server:
    """A server that runs: where it listens and which kernels it has."""

    def __init__(self, port: int, process: subprocess.Popen):
        self.port = port
        self.address = f"http://127.0.0.1:{port}/"
        self._process = psutil.Process(process.pid)

    def kernels(self) -> set[int]:
        """Numbers of the processes of its kernels."""
        found = set()
        for child in self._process.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.status() != psutil.STATUS_ZOMBIE and "ipykernel" in str(child.cmdline()):
                    found.add(child.pid)
        return found

    def until(self, n_kernels: int, seconds: float = 20.0) -> None:
        """Returns once there are so many kernels; raises AssertionError if that never happens."""
        end = time.monotonic() + seconds
        while (n := len(self.kernels())) != n_kernels:
            assert time.monotonic() < end, f"{n} kernels after {seconds} s, not {n_kernels}"
            time.sleep(0.2)


@contextlib.contextmanager
def served(folder: Path, source: str, *, idle: int = 30) -> Iterator[Server]:
    """A server of a page with one cell; `idle` replaces IDLE and CHECK."""
    notebook = new_notebook(cells=[new_code_cell(source)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, folder / "app.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = SERVE.format(notebook=str(folder / "app.ipynb"), port=port, idle=idle)
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            time.sleep(0.1)
        yield Server(port, process)
    finally:
        process.terminate()
        process.wait(timeout=20)
