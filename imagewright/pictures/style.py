"""How the page looks: its style sheet."""

from imagewright.pictures.colours import DARK, FILLS, INK, LIGHT, variables

_COLOURS = "\n".join(
    [
        f":root {{ color-scheme: light dark; --ink: {INK}; {variables(LIGHT)} }}",
        f"@media (prefers-color-scheme: dark) {{ :root {{ {variables(DARK)} }} }}",
        *(f".{mark.key} {{ --fill: {colour}; }}" for mark, colour in FILLS.items()),
    ]
)

_GLYPHS_ONLY = """
.grid th[scope=col] { vertical-align: bottom; padding: .4em 0; text-align: center; }
.grid th[scope=col] span { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 11em; overflow: hidden; }
.grid td { padding: 0; width: 1.75em; min-width: 1.75em; }
.grid td > * { min-width: 0; height: 1.65em; padding: 0; }
.grid th[scope=row] { padding-top: 0; padding-bottom: 0; }
.grid td small { display: none; }
"""
"""A grid of many bases on any screen, and any grid on a narrow one."""

_PAGE = """
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem clamp(.75rem, 3vw, 2.5rem) 3rem; max-width: 120rem; background: var(--paper);
  color: var(--text); font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0; }
h2 { font-size: 1.1rem; margin: 2rem 0 .6rem; }
header p { margin: .3rem 0 0; }
time { font-weight: 600; white-space: nowrap; }
.quiet { color: var(--quiet); font-size: .87em; overflow-wrap: anywhere; }
.legend { display: flex; flex-wrap: wrap; gap: .4rem 1.1rem; list-style: none; margin: 1.1rem 0; padding: 0; }
.glyph { display: inline-block; width: 1.5em; height: 1.5em; line-height: 1.5em; margin-right: .35em; text-align: center;
  border-radius: .25em; background: var(--fill, transparent); color: var(--ink); font-weight: 700; }
.sheet { overflow: auto; max-height: 88vh; border: 1px solid var(--rule); border-radius: .5rem; width: fit-content;
  max-width: 100%; }
.grid { border-collapse: separate; border-spacing: 0; font-size: .93em; }
.grid th { background: var(--raised); font-weight: 600; text-align: left; padding: .45em .7em; white-space: nowrap; }
.grid thead th { position: sticky; top: 0; z-index: 1; }
.grid th[scope=row] { position: sticky; left: 0; max-width: 40vw; overflow: hidden; text-overflow: ellipsis; }
.grid thead td { position: sticky; top: 0; left: 0; z-index: 2; background: var(--raised); }
.grid th[scope=row] small { color: var(--quiet); font-weight: 400; margin-left: .4em; }
.grid th[scope=col] span { display: inline-block; }
.grid td { padding: 1px; }
.grid td > * { display: flex; align-items: center; gap: .35em; min-width: 5.5em; height: 2.9em; padding: 0 .55em;
  margin: 1px; border-radius: .25em; background: var(--fill, transparent); color: var(--ink); text-decoration: none;
  line-height: 1.15; white-space: nowrap; }
.grid td > * > b { flex: none; width: 1.1em; text-align: center; margin: 0 auto; }
.grid td small { flex: 1; font-size: .84em; }
.grid td small i { display: block; font-style: normal; }
:is(.not-in-report, .no-pair) > .glyph, .grid :is(.not-in-report, .no-pair) > * { color: var(--quiet); }
:is(.excluded, .withheld) > .glyph, .grid :is(.excluded, .withheld) > * { background: transparent;
  box-shadow: inset 0 0 0 2px var(--fill); color: var(--text); }
.grid a:focus-visible, .grid a:hover { outline: 2px solid var(--text); outline-offset: -1px; }
.grid tbody tr:hover th { text-decoration: underline; }
"""

_LIST = """
.stories, .images { list-style: none; margin: 0; padding: 0; border-top: 1px solid var(--rule); }
.stories > li, .images > li { display: grid; grid-template-columns: 2.2em minmax(12em, 1fr) minmax(14em, 2fr) 13em;
  gap: .2rem .9rem;
  padding: .55rem .3rem; border-bottom: 1px solid var(--rule); break-inside: avoid; scroll-margin: 3rem; }
.stories > li:target { background: var(--raised); outline: 2px solid var(--fill); }
.stories p { margin: 0; overflow-wrap: anywhere; }
.stories .quiet { white-space: nowrap; }
.who { font-weight: 600; }
.who a { color: inherit; }
"""

_NARROW = """
@media screen and (max-width: 50rem) {
  .stories > li, .images > li { grid-template-columns: 2.2em 1fr; }
  .stories > li > :nth-child(n + 3), .images > li > :nth-child(n + 3) { grid-column: 2; }
  .grid th[scope=row] small { display: none; }
"""

_PRINT = """
@media print {
  @page { size: landscape; margin: 1cm; }
  body { padding: 0; font-size: 10px; }
  .dense { font-size: 7.5px; }
  .sheet { overflow: visible; max-height: none; border: 0; }
  .grid th, .grid thead td { position: static; }
  .glyph, .grid td > *, .grid th { print-color-adjust: exact; }
}
"""

STYLE = "".join((_COLOURS, _PAGE, _GLYPHS_ONLY.replace(".grid", ".dense"), _LIST, _NARROW, _GLYPHS_ONLY, "}", _PRINT))
