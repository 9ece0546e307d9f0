"""A page as a person's browser shows it: Debian's Chromium, driven by Playwright."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")

Scheme = Literal["light", "dark"]

PHONE = 360
"""Width in CSS pixels of the smallest phones in use."""

# Text on what is behind it, by the rules of WCAG 2.2, 1.4.3: what is 4.5 to 1 for text, 3 to 1 for large text.
CONTRAST = """() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = css => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = css; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const color = rgba(getComputedStyle(e).backgroundColor);
      if (color[3] > 250) return color;
    }
    return [255, 255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, style = getComputedStyle(element);
    const box = element.getBoundingClientRect();
    // A mark lies on bars of any colour; its sign has a halo of the paper's.
    const shown = walker.currentNode.textContent.trim() && parseFloat(style.fontSize) > 0 && box.width > 2;
    if (!shown || style.visibility === 'hidden' || element.closest('.track > b')) continue;
    const [a, b] = [light(rgba(style.color)), light(behind(element))].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize), bold = parseInt(style.fontWeight) >= 600;
    const needed = size >= 24 || (bold && size >= 18.66) ? 3 : 4.5;
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < needed) found.push(`${walker.currentNode.textContent.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return [...new Set(found)];
}"""

STRUCTURE = """() => {
  const found = [];
  if (!document.documentElement.lang) found.push('no language');
  if (!document.title) found.push('no title');
  if (document.querySelectorAll('h1').length !== 1) found.push('not exactly one h1');
  if (document.querySelectorAll('main').length !== 1) found.push('not exactly one main');
  let last = 0;
  for (const h of document.querySelectorAll('h1,h2,h3,h4')) {
    const level = Number(h.tagName[1]);
    if (level > last + 1) found.push(`heading "${h.textContent}" skips a level`);
    last = level;
  }
  const ids = [...document.querySelectorAll('[id]')].map(e => e.id);
  if (new Set(ids).size !== ids.length) found.push('an id is there twice');
  for (const e of document.querySelectorAll('[role=img]')) {
    if (!(e.getAttribute('aria-label') || '').trim()) found.push('an image without words');
  }
  for (const e of document.querySelectorAll('[aria-labelledby]')) {
    if (!document.getElementById(e.getAttribute('aria-labelledby'))) found.push('a label that is not there');
  }
  for (const t of document.querySelectorAll('table')) {
    const heads = t.querySelectorAll('thead th[scope=col]').length;
    if (!heads) found.push('a table without headings');
    for (const row of t.querySelectorAll('tbody tr')) {
      if (row.cells.length !== heads) found.push(`a row of ${row.cells.length} cells below ${heads} headings`);
    }
  }
  return [...new Set(found)];
}"""


@dataclass(frozen=True)
class Look:
    """What was seen of a page."""

    text: str
    width: int
    console: tuple[str, ...]
    requests: tuple[str, ...]
    contrast: tuple[str, ...]
    structure: tuple[str, ...]
    scripts: int


def executable() -> str:
    """Chromium's path. Fails with what to do where there is none: nothing else can say how the page looks."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    raise AssertionError(
        "There is no Chromium on this machine: run scripts/prepare as root, or apt-get install chromium"
    )


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window."""
    # As root Chromium runs only without its sandbox; it opens nothing but files of ours.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=arguments)
        try:
            yield browser
        finally:
            browser.close()


def look(browser: Browser, file: Path, width: int, scheme: Scheme) -> Look:
    """Opens a file at that width, with everything that can be unfolded unfolded."""
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion="reduce"
    )
    try:
        page = context.new_page()
        console: list[str] = []
        requests: list[str] = []
        page.on("console", lambda message: console.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: console.append(f"error: {error}"))
        page.on("dialog", lambda dialog: console.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(file.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        answers: dict[str, Any] = {
            "text": page.evaluate("document.body.innerText"),
            "width": page.evaluate("document.documentElement.scrollWidth"),
            "contrast": tuple(page.evaluate(CONTRAST)),
            "structure": tuple(page.evaluate(STRUCTURE)),
            "scripts": page.evaluate("document.scripts.length"),
        }
        return Look(console=tuple(console), requests=tuple(u for u in requests if u != file.as_uri()), **answers)
    finally:
        context.close()


def problems(seen: Look, width: int) -> list[str]:
    """What is wrong with any page, whatever it shows."""
    found = [*seen.console, *(f"request for {url}" for url in seen.requests), *seen.structure]
    found += [f"contrast of {text}" for text in seen.contrast]
    found += [f"{seen.width} pixels wide on {width}"] if seen.width > width else []
    found += [f"{seen.scripts} scripts"] if seen.scripts else []
    return found
