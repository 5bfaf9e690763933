"""The live unit explorer served on this machine, to this machine only, by voila."""

from pathlib import Path
from typing import Any

import tornado.web
from jupyter_server.base.call_context import CallContext
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado.ioloop import IOLoop
from traitlets.config import Config
from voila.app import Voila

HERE = Path(__file__).parent
NOTEBOOK = HERE / "app.ipynb"
MAX_KERNELS = 4  # each page has one, of 1 to 2 GB
IDLE = 30  # seconds after which a kernel that does nothing for no page is shut down
CHECK = 5  # seconds between looking for such kernels
FULL = (
    f"The explorer already serves {MAX_KERNELS} pages, as many as fit in memory. "
    "Close one, wait half a minute, and load this page again."
)
# The page's scripts and styles come from this server alone; widgets connect to it by websocket.
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "connect-src 'self' data: blob: ws://localhost:* ws://127.0.0.1:*; "
    "frame-ancestors 'self'"
)


def serve(notebook: Path = NOTEBOOK, port: int = 8866, browser: bool = True) -> None:
    """Serve a notebook as a page until Ctrl-C; each page that is open has a kernel.

    Args:
        port: If it is taken, the next free one is used.
        browser: Open the page in a browser.
    """
    server = Voila(config=_config(), config_file_paths=[], port=port, open_browser=browser)
    server.initialize([str(notebook)])
    server.template_paths.insert(0, str(HERE / "templates"))
    server.start()


class Kernels(AsyncMappingKernelManager):
    """At most MAX_KERNELS kernels; a request for one more gets status 503 and the reason."""

    _starting = 0

    async def start_kernel(self, **options: Any) -> str:
        if len(self) + self._starting >= MAX_KERNELS:
            raise tornado.web.HTTPError(503, reason=FULL)
        self._starting += 1
        try:
            kernel = await super().start_kernel(**options)
        finally:
            self._starting -= 1

        def abandoned() -> None:
            IOLoop.current().add_callback(self.shutdown_kernel, kernel, now=True)

        # A page that is left while it loads cannot shut its kernel down, as a complete page does.
        page = CallContext.get(CallContext.JUPYTER_HANDLER)
        page.request.connection.set_close_callback(abandoned)
        return kernel


def _before_kernel(handler: JupyterHandler, **_: Any) -> None:
    """Called for each request for the page, before its kernel starts."""
    if handler.request.headers.get("Sec-Fetch-Dest", "document") != "document":
        raise tornado.web.HTTPError(403)  # an image or a frame in a page of another site
    _ = handler.xsrf_token  # sets the cookie without which the kernel's shutdown is refused


def _config() -> Config:
    return Config(
        Voila={
            "ip": "127.0.0.1",
            "tornado_settings": {
                # A page of another site whose name points to this machine is refused (status 403).
                "allow_remote_access": False,
                "headers": {"Content-Security-Policy": POLICY},
                # An upload that is too large must arrive for the page to say so.
                "websocket_max_message_size": 2**28,
            },
        },
        VoilaConfiguration={
            "multi_kernel_manager_class": Kernels,
            "prelaunch_hook": _before_kernel,
            "allow_template_override": "NO",
        },
        # A page that is left shuts its kernel down, unless its browser ended too quickly for that.
        MappingKernelManager={"cull_idle_timeout": IDLE, "cull_interval": CHECK},
    )
