"""What a real browser makes of built pages, measured inside the page; no driver is needed."""

import functools
import html
import http.server
import json
import re
import shutil
import subprocess
import threading
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")

# Opens every page in a frame of a given width and writes what it finds into the document.
PROBE = """<!doctype html><meta charset="utf-8"><pre id="facts"></pre><script>
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
async function looked(page, width, theme) {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width:${width}px;height:900px;border:0`;
  frame.src = page;
  document.body.append(frame);
  await new Promise((done) => { frame.onload = done; });
  const view = frame.contentWindow, root = frame.contentDocument.documentElement;
  root.dataset.theme = theme;
  await wait(3000);
  const all = (selector) => [...root.querySelectorAll(selector)];
  const facts = {
    page, width, theme,
    overflow: root.scrollWidth - root.clientWidth,
    outside: view.performance.getEntriesByType("resource").map((entry) => entry.name)
      .filter((name) => /^https?:/.test(name) && !name.startsWith(location.origin)),
    broken: all("article img").filter((image) => !image.naturalWidth).map((image) => image.src),
    speechless: all("article img").filter((image) => !image.alt).map((image) => image.src),
    formulas: all("mjx-container").length,
    raw_formulas: all("article .math").filter((m) => !m.querySelector("mjx-container")).length,
    formula_errors: all("mjx-merror").length,
    widgets: all(".jupyter-widgets").length,
    wanted_widgets: all('script[type="application/vnd.jupyter.widget-view+json"]').length,
    // of figures; a picture inside a widget is no figure
    grounds: all("article img").filter((image) => !image.closest(".jupyter-widgets"))
      .map((image) => view.getComputedStyle(image).backgroundColor),
    text: root.querySelector("article").innerText,
  };
  frame.remove();
  return facts;
}
(async () => {
  const facts = [];
  for (const visit of VISITS) facts.push(await looked(...visit));
  document.getElementById("facts").textContent = JSON.stringify(facts);
})();
</script>"""


def looked(folder: Path, visits: list[tuple[str, int, str]]) -> list[dict]:
    """Facts of each visited page: (page, width in pixels, theme light | dark)."""
    probe = PROBE.replace("VISITS", json.dumps(visits)).encode()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/probe":
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(probe)
            else:
                super().do_GET()

        def log_message(self, *_):
            pass

    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            dom = subprocess.run(
                [
                    CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu",
                    "--window-size=1400,1000", f"--virtual-time-budget={10_000 * len(visits)}",
                    "--dump-dom", f"http://127.0.0.1:{server.server_port}/probe",
                ],
                capture_output=True, text=True, check=True, timeout=300,
            ).stdout  # fmt: skip
        finally:
            server.shutdown()
    found = re.search(r'<pre id="facts">(.*?)</pre>', dom, re.S)
    return json.loads(html.unescape(found[1]))
