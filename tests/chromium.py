"""A page in headless Chromium, without a driver: a script appended to it acts as a person would and reports."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PROGRAM = next(filter(None, map(shutil.which, _NAMES)), None)
needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="no Chromium here: apt-get install chromium")

_PREAMBLE = """
window.__errors = [];
window.addEventListener("error", (e) => window.__errors.push(String(e.message || e.type)));
window.addEventListener("securitypolicyviolation", (e) => window.__errors.push("blocked " + e.blockedURI));
const __error = console.error; console.error = (...a) => { window.__errors.push(a.join(" ")); __error(...a); };
"""
_CLOSING = """
window.addEventListener("load", () => setTimeout(() => {
  const out = { errors: window.__errors };
  try { out.value = (() => { %s })(); } catch (e) { out.errors.push(String(e)); }
  out.requests = performance.getEntriesByType("resource").map((r) => r.name);
  parent.postMessage("@@" + JSON.stringify(out) + "@@", "*");
}, 200));
"""


def act(page: Path, script: str, *, width: int = 1440, scratch: Path) -> dict:
    """Open ``page``, run ``script`` (a function's body) in it; return value, errors and requested addresses."""
    text = page.read_text(encoding="utf-8")
    text = text.replace("<style>", f"<script>{_PREAMBLE}</script><style>", 1)
    text = text.replace("</body>", f"<script>{_CLOSING % script}</script></body>")
    copy = page.with_name("driven.html")
    copy.write_text(text, encoding="utf-8")
    frame = scratch / "frame.html"  # Chromium's own window is never narrower than 500 pixels
    size = f"width:{width}px;height:2400px;border:0"
    listen = "onmessage = (e) => document.body.replaceChildren(document.createTextNode(e.data))"
    frame.write_text(
        f'<body><script>{listen}</script><iframe src="{copy.as_uri()}" style="{size}"></iframe></body>'
    )
    dump = _chromium("--dump-dom", frame, width=max(width, 500))
    copy.unlink()
    found = re.search(r"@@(.*)@@", dump, flags=re.DOTALL)
    assert found, f"the page did not answer: {dump[-2000:]}"
    return json.loads(html.unescape(found[1]))


def _chromium(*arguments: object, width: int, height: int = 1000) -> str:
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    flags += ["--disable-background-networking", "--disable-component-update", "--no-first-run"]
    flags += [f"--window-size={width},{height}", "--virtual-time-budget=5000"]
    *options, page = arguments
    command = [PROGRAM, *flags, *map(str, options), Path(page).as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    return done.stdout
