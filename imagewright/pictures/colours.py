"""The colours of the marks on a page and in a drawing: the palette of Okabe and Ito, which colour-blind people tell apart.

https://jfly.uni-koeln.de/color/. Black on each of them has a contrast of 5 to 1 or more, so glyphs are black in both schemes.
"""

from imagewright.matrix import Mark

FILLS = {
    Mark.FRESH: "#009e73",
    Mark.STALE: "#d55e00",
    Mark.UNKNOWN: "#f0e442",
    Mark.EXCLUDED: "#56b4e9",
    Mark.WITHHELD: "#cc79a7",
}
HOLLOW = {Mark.EXCLUDED, Mark.WITHHELD}
"""Drawn as a frame: nobody looked there."""

INK = "#000000"

LIGHT = {"paper": "#ffffff", "text": "#1a1a1a", "quiet": "#595959", "rule": "#d4d4d4", "raised": "#f4f4f2"}
DARK = {"paper": "#14171a", "text": "#ececec", "quiet": "#a8adb3", "rule": "#3a4047", "raised": "#1e2328"}
"""Both schemes, by use. `quiet` has a contrast of 4.5 to 1 or more on `paper` and `raised`."""


def variables(scheme: dict[str, str]) -> str:
    """A scheme as CSS: `--paper: …; …`."""
    return " ".join(f"--{name}: {value};" for name, value in scheme.items())
