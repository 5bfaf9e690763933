"""The explorer's server: who gets a page, how many kernels there are, and when they end."""

import contextlib
import http.client
import json
import re
from collections.abc import Iterator

import pytest

from robustbias.unit_explorer.server import FULL, MAX_KERNELS
from toy_server import served

# pages that stay incomplete, and pages that are complete but that nothing connects to
SLOW, QUICK = "import time; time.sleep(600)", "1 + 1"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with served(tmp_path_factory.mktemp("slow"), SLOW) as running:
        yield running


@contextlib.contextmanager
def asked(server, **headers: str) -> Iterator[http.client.HTTPResponse]:
    """The answer to a request for the page, which is left, complete or not, when the block ends."""
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    ) as connection:
        connection.request("GET", "/", headers={k.replace("_", "-"): v for k, v in headers.items()})
        with connection.getresponse() as answer:
            yield answer


@pytest.mark.parametrize("host", ["evil.example", "192.168.1.7:8866", "localhost.evil.example"])
def test_a_name_that_is_not_local_gets_no_page_and_no_kernel(server, host):
    with asked(server, Host=host) as answer:
        assert answer.status == 403
        assert server.kernels() == set()


def test_what_another_page_embeds_gets_no_kernel(server):
    with asked(server, Sec_Fetch_Dest="image") as answer:
        assert answer.status == 403
        assert server.kernels() == set()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8866", "[::1]"])
def test_a_local_name_gets_a_page_whose_kernel_ends_when_it_is_left_incomplete(server, host):
    with asked(server, Host=host) as answer:
        assert answer.status == 200
        server.until(1)
    server.until(0)


def test_one_page_too_many_is_told_so_and_starts_no_kernel(server):
    n = MAX_KERNELS
    with contextlib.ExitStack() as pages:
        for _ in range(n):
            assert pages.enter_context(asked(server)).status == 200
        with asked(server) as answer:
            assert answer.status == 503
            assert FULL in answer.read().decode()
        assert len(server.kernels()) == n
    server.until(0)


def test_the_kernel_of_a_page_that_nothing_connects_to_ends(tmp_path):
    with served(tmp_path, QUICK, idle=1) as server:
        with asked(server) as answer:
            server.until(1)
            answer.read()
        server.until(0)


def test_a_browser_sends_its_kernel_no_code_and_another_site_sends_it_nothing(tmp_path):
    client = pytest.importorskip("websockets.sync.client")
    with served(tmp_path, QUICK) as server:
        with asked(server) as answer:
            kernel = re.search(r'"kernelId": "([\w-]+)"', answer.read().decode())[1]
        address = f"ws://127.0.0.1:{server.port}/api/kernels/{kernel}/channels?session_id=a"
        with pytest.raises(Exception, match="403"):
            client.connect(address, origin="http://evil.example")
        code = f"open({str(tmp_path / 'executed')!r}, 'w').close()"
        with client.connect(address, origin=server.address.rstrip("/")) as socket:
            socket.send(message("execute_request", code=code, silent=False))
            socket.send(message("kernel_info_request"))  # answered after the one before
            while json.loads(socket.recv(timeout=30))["msg_type"] != "kernel_info_reply":
                pass
        assert not (tmp_path / "executed").exists()


def message(kind: str, **content) -> str:
    """A message of the Jupyter protocol to a kernel's shell."""
    header = {"msg_id": kind, "msg_type": kind, "username": "", "session": "a", "version": "5.3"}
    parts = {"parent_header": {}, "metadata": {}, "buffers": [], "channel": "shell"}
    return json.dumps({"header": header, "content": content, **parts})
