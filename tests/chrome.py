"""A headless Chromium that a test drives: real time, real events, every request seen.

It speaks the browser's own protocol over a socket, so that no driver has to be installed.
"""

import base64
import contextlib
import functools
import http.server
import json
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from websockets.sync.client import connect

THIS = ("data", "blob", "file")  # schemes of addresses on this machine
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


class Page:
    """One tab. `outside` are requests that would have left this machine, all of them refused;
    `errors` is what its scripts complained about."""

    def __init__(self, socket: Any):
        self._socket, self._number, self._answers = socket, 0, {}
        self._dialogues: list[int] = []
        self.outside: list[str] = []
        self.errors: list[str] = []
        for domain in ("Page", "Runtime", "Log", "DOM", "Network"):
            self.send(f"{domain}.enable")
        self.send("Fetch.enable", patterns=[{"urlPattern": "*"}])

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The browser's answer to one command."""
        self._number += 1
        number = self._number
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while number not in self._answers:
            self._read(timeout=60)
        answer = self._answers.pop(number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _read(self, timeout: float) -> None:
        message = json.loads(self._socket.recv(timeout=timeout))
        if "id" in message:
            self._answers[message["id"]] = message
            return
        about = message["params"]
        match message["method"]:
            case "Fetch.requestPaused":
                self._admit(about)
            case "Page.fileChooserOpened":
                self._dialogues.append(about["backendNodeId"])
            case "Runtime.exceptionThrown":
                details = about["exceptionDetails"]
                self.errors.append(details.get("exception", details).get("description", "?"))
            case "Log.entryAdded" if about["entry"]["level"] == "error":
                self.errors.append(about["entry"]["text"] + " " + about["entry"].get("url", ""))
            case "Runtime.consoleAPICalled" if about["type"] == "error":
                self.errors.append(
                    str([a.get("value", a.get("description")) for a in about["args"]])
                )

    def _admit(self, about: dict[str, Any]) -> None:
        where = urlsplit(about["request"]["url"])
        own = where.hostname in ("127.0.0.1", "localhost") or where.scheme in (
            "data",
            "blob",
            "file",
        )
        if not own:
            self.outside.append(about["request"]["url"])
        answer = ("Fetch.continueRequest", {}) if own else (
            "Fetch.failRequest", {"errorReason": "ConnectionRefused"}
        )  # fmt: skip
        self._number += 1
        message = {"id": self._number, "method": answer[0]}
        message["params"] = {"requestId": about["requestId"], **answer[1]}
        self._socket.send(json.dumps(message))

    def pause(self, seconds: float) -> None:
        """Let time pass, and hear what the browser says meanwhile."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                self._read(timeout=left)

    def open(self, address: str) -> None:
        """Go to an address; returns before the page is complete."""
        self.send("Page.navigate", url=address)

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript is in the page, promises awaited."""
        found = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, expression: str, seconds: float = 20.0) -> Any:
        """The expression's value as soon as it is true. Raises AssertionError when it never is."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := self.value(expression):
                return found
            self.pause(0.05)
        raise AssertionError(f"after {seconds} s still not: {expression}; errors: {self.errors}")

    def choose(self, selector: str, place: int) -> None:
        """Choose an option of a list, as a reader would."""
        self.value(
            f"""(() => {{ const s = document.querySelector({selector!r}); s.selectedIndex = {place};
            s.dispatchEvent(new Event("change", {{bubbles: true}})); }})()"""
        )

    def press(self, key: str) -> None:
        """Press and release a key."""
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def upload(self, button: str, path: Path) -> None:
        """Click the button and give the file to the dialogue that opens."""
        self.send("Page.setInterceptFileChooserDialog", enabled=True)
        self.send(
            "Runtime.evaluate",
            expression=f"document.querySelector({button!r}).click()",
            userGesture=True,
        )
        for _ in range(100):
            if self._dialogues:
                node = self._dialogues.pop()
                self.send("DOM.setFileInputFiles", files=[str(path)], backendNodeId=node)
                return
            self.pause(0.05)
        raise AssertionError(f"{button} opened no dialogue for a file")

    def look(self, width: int, height: int = 900, theme: str = "light") -> None:
        """A screen of that width, and a reader who prefers that theme."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        feature = {"name": "prefers-color-scheme", "value": theme}
        self.send("Emulation.setEmulatedMedia", features=[feature])

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """What is seen, as a PNG."""
        image = self.send("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        Path(path).write_bytes(base64.b64decode(image))


@contextlib.contextmanager
def opened() -> Iterator[Page]:
    """A page of a fresh browser."""
    with tempfile.TemporaryDirectory() as profile:
        browser = subprocess.Popen(
            [
                CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            with connect(_address(Path(profile)), max_size=None, open_timeout=30) as socket:
                yield Page(socket)
        finally:
            browser.terminate()
            browser.wait(timeout=20)
            time.sleep(0.2)  # its children finish with the profile


def _address(profile: Path) -> str:
    """Where the browser's first tab listens."""
    file = profile / "DevToolsActivePort"
    for _ in range(300):
        if file.exists() and len(lines := file.read_text().splitlines()) == 2:
            with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json") as answer:
                tabs = json.load(answer)
            return next(t["webSocketDebuggerUrl"] for t in tabs if t["type"] == "page")
        time.sleep(0.1)
    raise RuntimeError("chromium did not start")


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder, over http."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
