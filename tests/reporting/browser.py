"""Pages in headless Chromium, at the widths of a phone and of a desk."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest


NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Chromium opens no window narrower than 500 pixels, so the page lies in a frame of the wanted width.
FRAME = """<!doctype html><meta charset="utf-8"><body style="margin:0">
<iframe id="page" style="border:0" width="{width}" height="{height}"
srcdoc="{page}"></iframe><script>
document.getElementById("page").onload = event => {{
  const view = event.target.contentWindow, root = view.document.documentElement;
  const texts = [...view.document.querySelectorAll("body *")].filter(
    one => [...one.childNodes].some(node => node.nodeType === 3 && node.textContent.trim()));
  const figures = {{
    width: root.scrollWidth,
    height: root.scrollHeight,
    text: Math.min(...texts.map(one => parseFloat(view.getComputedStyle(one).fontSize))),
    pictures: [...view.document.images].map(one => one.naturalWidth),
    loaded: view.performance.getEntriesByType("resource").map(one => one.name).filter(
      name => !name.startsWith("data:")),
  }};
  document.body.dataset.figures = JSON.stringify(figures);
}};
</script>"""


def browser() -> str:
    """Return Chromium's path, or skip the test."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed")
    return found


def measure(page: Path, width: int, height: int = 800) -> dict:
    """Return what a page measures in a window of this width.

    Returns:
        `width`, `height` of the page and `text`, its smallest text, in pixels; `pictures`, the width of each;
        `loaded`, the addresses that it asked for.
    """
    dom = _run(page, width, height, "--dump-dom")
    return json.loads(html.unescape(re.search(r'data-figures="([^"]*)"', dom)[1]))


def screenshot(page: Path, width: int, height: int, target: Path) -> None:
    """Write a picture of a page's first pixels."""
    _run(page, width, height, f"--window-size={max(width, 500)},{height}", f"--screenshot={target}")


def _run(page: Path, width: int, height: int, *options: str) -> str:
    frame = page.with_name(f"{page.stem}-{width}.frame.html")
    frame.write_text(FRAME.format(width=width, height=height, page=html.escape(page.read_text())))
    profile = f"--user-data-dir={page.with_name('.browser')}"
    common = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--virtual-time-budget=10000",
        profile,
    ]
    command = [browser(), *common, *options, frame.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
