"""The matrix drawn: in a terminal, as a page, as an SVG. The same matrix gives the same bytes."""
