"""The page and the drawing in a real browser: how they look on wide and narrow screens, in light and dark."""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from html import unescape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from imagewright.matrix import draw
from imagewright.pictures import page, svg
from imagewright.report import Report
from tests.test_matrix import CHANGED, SILENT, missing, record, report

CHROMIUM = "chromium"
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--virtual-time-budget=20000",
)
SCHEMES = {"light": (), "dark": ("--force-dark-mode",)}
WIDTHS = {"narrow": 390, "wide": 1600}
SIZES = {"small": (8, 7), "large": (40, 60)}
NASTY = '<img src=x onerror=alert(1)> & "quoted" `text` that is longer than others'

LOOK = """
const pixels = (name) => {
  const image = document.getElementById(name), canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const drawn = canvas.getContext("2d");
  drawn.drawImage(image, 0, 0);
  const data = drawn.getImageData(0, 0, canvas.width, canvas.height).data, counts = {};
  for (let at = 0; at < data.length; at += 4) {
    const colour = `${data[at]},${data[at + 1]},${data[at + 2]}`;
    counts[colour] = (counts[colour] || 0) + 1;
  }
  return counts;
};
const drawing = (inner) => {
  const paper = inner.querySelector(".paper").getBoundingClientRect();
  return {
    texts: inner.querySelectorAll("text").length,
    outside: [...inner.querySelectorAll("text")].filter((one) => {
      const place = one.getBoundingClientRect();
      return place.left < paper.left || place.right > paper.right || place.bottom > paper.bottom;
    }).map((one) => one.textContent),
  };
};
const sheet = (inner) => {
  const style = (element) => inner.defaultView.getComputedStyle(element);
  const box = inner.querySelector(".sheet"), cells = [...inner.querySelectorAll("td[class]")];
  const count = {}, colours = {};
  for (const cell of cells) {
    count[cell.className] = (count[cell.className] || 0) + 1;
    colours[cell.className] = [style(cell.firstChild).backgroundColor, style(cell.firstChild).color];
  }
  const corner = (element) => [element.getBoundingClientRect().left, element.getBoundingClientRect().top];
  const heads = [inner.querySelector("tbody th"), inner.querySelector("thead th")];
  const before = heads.map(corner), from = corner(cells.at(-1));
  [box.scrollLeft, box.scrollTop] = [120, 90];
  const after = heads.map(corner), to = corner(cells.at(-1));
  return {
    overflow: inner.documentElement.scrollWidth - inner.documentElement.clientWidth,
    background: style(inner.body).backgroundColor,
    count, colours,
    clipped: cells.filter((one) => one.firstChild.scrollWidth > one.firstChild.clientWidth + 1).length,
    words: [...inner.querySelectorAll("td small")].filter((one) => one.offsetWidth).length,
    scrolled: [from[0] - to[0], from[1] - to[1]],
    row_stays: before[0][0] === after[0][0],
    head_stays: before[1][1] === after[1][1],
  };
};
addEventListener("load", () => {
  const found = {};
  for (const frame of document.querySelectorAll("iframe")) {
    const inner = frame.contentDocument;
    found[frame.id] = inner.querySelector("svg") ? drawing(inner) : sheet(inner);
  }
  for (const image of document.querySelectorAll("img")) found[image.id] = pixels(image.id);
  document.getElementById("found").textContent = JSON.stringify(found);
});
"""


def sample(tools: int, bases: int) -> Report:
    """A base that was rebuilt, a tool with a release, a base that does not answer, a tool that is withheld."""
    names = [f"base-{at:02}" for at in range(bases)]
    why = {0: CHANGED, 1: SILENT}
    records = [
        record(f"tool-{row:02}", base, why.get(at, ()) or (missing(f"tool-{row:02}-{base}") if row == 2 else ()))
        for row in range(tools - 1)
        for at, base in enumerate(names)
    ]
    excluded = [
        {"target": f"held-{base}", "tool": "held", "base": base, "because": "may not be redistributed"}
        for base in names
    ]
    excluded.append({"target": NASTY, "because": NASTY})
    return report(*records, tools=(), bases=(), excluded=tuple(excluded))


class _Quiet(SimpleHTTPRequestHandler):
    asked: list[str]

    def log_message(self, *args: Any) -> None:
        self.asked.append(self.path)


@pytest.fixture(scope="module")
def seen(engine_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the browser measured, by scheme and what was looked at; and under "asked" which files it wanted."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "look.js").write_text(LOOK)
    looks = []
    for size, (tools, bases) in SIZES.items():
        drawn = draw(sample(tools, bases), "sha256:" + "ab" * 32)
        (folder / f"{size}.html").write_text(page.document(drawn))
        (folder / f"{size}.svg").write_text(svg.document(drawn))
        looks += [
            f'<iframe id="{size}-{width}" src="{size}.html" style="width:{pixels}px;height:600px;border:0"></iframe>'
            for width, pixels in WIDTHS.items()
        ]
        looks.append(f'<iframe id="{size}-drawing" src="{size}.svg" style="width:2000px;height:2000px"></iframe>')
        looks.append(f'<img id="{size}-image" src="{size}.svg">')
    head = '<!DOCTYPE html><link rel="icon" href="data:,"><pre id="found"></pre><script src="look.js"></script>'
    (folder / "look.html").write_text(head + "".join(looks))

    handler = type("Handler", (_Quiet,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}/look.html"
        try:
            found = {scheme: _look(address, flags, folder / scheme) for scheme, flags in SCHEMES.items()}
        finally:
            server.shutdown()
            thread.join()
    yield found | {"asked": handler.asked}


def _look(address: str, flags: tuple[str, ...], profile: Path) -> Any:
    argv = [
        CHROMIUM,
        *FLAGS,
        *flags,
        f"--user-data-dir={profile}/data",
        "--window-size=2400,1200",
        "--dump-dom",
        address,
    ]
    profile.mkdir()
    environ = os.environ | {"HOME": str(profile)}  # it writes there too, whatever its profile
    said = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=100, env=environ).stdout
    shutil.rmtree(profile)
    return json.loads(unescape(said.partition('<pre id="found">')[2].partition("</pre>")[0]))


FRESH, STALE, UNKNOWN = "rgb(0, 158, 115)", "rgb(213, 94, 0)", "rgb(240, 228, 66)"
HOLLOW, BLACK = "rgba(0, 0, 0, 0)", "rgb(0, 0, 0)"
PAPERS = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 26)"}
TEXTS = {"light": "rgb(26, 26, 26)", "dark": "rgb(236, 236, 236)"}
COUNTS = {
    "small": {"fresh": 30, "stale": 12, "unknown": 7, "withheld": 7},
    "large": {"fresh": 2204, "stale": 97, "unknown": 39, "withheld": 60},
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("size", SIZES)
def test_the_page_fits_and_shows_each_state(seen: dict[str, Any], size: str, width: str, scheme: str) -> None:
    found = seen[scheme][f"{size}-{width}"]
    assert found["overflow"] == 0
    assert found["clipped"] == 0
    assert found["background"] == PAPERS[scheme]
    assert found["count"] == COUNTS[size]
    assert found["colours"] == {
        "fresh": [FRESH, BLACK],
        "stale": [STALE, BLACK],
        "unknown": [UNKNOWN, BLACK],
        "withheld": [HOLLOW, TEXTS[scheme]],
    }
    has_words = (size, width) == ("small", "wide")
    assert found["words"] == (19 if has_words else 0)  # each that is stale or unknown says why


@pytest.mark.parametrize("width", WIDTHS)
def test_names_stay_where_a_large_grid_is_scrolled(seen: dict[str, Any], width: str) -> None:
    found = seen["light"][f"large-{width}"]
    across, down = found["scrolled"]
    assert down == 90
    assert across == 120 or width == "wide"
    assert found["row_stays"]
    assert found["head_stays"]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", SIZES)
def test_the_drawing_holds_its_texts_and_shows_each_state(seen: dict[str, Any], size: str, scheme: str) -> None:
    inside = seen[scheme][f"{size}-drawing"]
    assert inside["texts"] > 60
    assert inside["outside"] == []
    pixels = {f"rgb({', '.join(colour.split(','))})": count for colour, count in seen[scheme][f"{size}-image"].items()}
    for colour in (FRESH, STALE, UNKNOWN, PAPERS[scheme]):
        assert pixels.get(colour, 0) > 1000, colour
    other = PAPERS["light" if scheme == "dark" else "dark"]
    assert pixels.get(other, 0) < 50


def test_nothing_else_is_asked_for(seen: dict[str, Any]) -> None:
    pictures = {f"/{size}.{kind}" for size in SIZES for kind in ("html", "svg")}
    assert set(seen["asked"]) == pictures | {"/look.html", "/look.js"}
