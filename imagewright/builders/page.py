"""`docs/engines.md`, made of what the builders say about themselves: `scripts/docs` writes it, a test compares it."""

from imagewright.builders import Abilities
from imagewright.builders.buildah import Buildah
from imagewright.builders.buildkit import BuildKit
from imagewright.builders.copy import Copy
from imagewright.builders.docker import EXPORTING, LOADING, Docker

_FORMS = (
    (f"`{BuildKit.name}`", BuildKit.family, BuildKit.can),
    (f"`{Docker.name}`, most drivers of buildx", Docker.family, EXPORTING),
    (f"`{Docker.name}`, buildx' driver `docker`", Docker.family, LOADING),
    (f"`{Buildah.name}`", Buildah.family, Buildah.can),
    (f"`{Copy.name}`", Copy.family, Copy.can),
)
_HEAD = """\
# Engines

One request, one result: whatever builds, it gets the same Dockerfile, arguments, labels, platforms and base by digest, and
leaves an OCI layout whose `index.json` names one index. `builder` in the settings names the engine; `auto` takes the first of
these, from left to right, that can do what is asked, and says why not the ones before it. `imagewright doctor` tells which
are here.

What an engine cannot do is said before it starts; only a build cache it cannot use is left out, as that costs time alone.

"""
_TAIL = """
**Recipe family**: engines of one family read a build context alike, so recipes are compared within it. **The same digest
again**: for the same input and the same version of the engine. **Base layers as published**: otherwise their content is the
same and they are compressed anew, so they are uploaded once more. **Runs what it built**: the `command` that proves that the
image works.

"""


def page() -> str:
    """The whole document."""
    columns = [_told(family, can) for _, family, can in _FORMS]
    table = [_row(["", *(name for name, _, _ in _FORMS)]), _row(["---"] * (len(_FORMS) + 1))]
    table += [_row([title, *(column[title] for column in columns)]) for title in columns[0]]
    notes = [f"- {name}: {can.note}" for name, _, can in _FORMS]
    return _HEAD + "\n".join(table) + "\n" + _TAIL + "\n".join(notes) + "\n"


def _told(family: str, can: Abilities) -> dict[str, str]:
    return {
        "recipe family": f"`{family}`",
        "several platforms in one image": _word(can.several_platforms),
        "the same digest again": _word(can.reproducible),
        "base layers as published": _word(can.keeps_base_layers),
        "a base in the place of the words in FROM": _word(can.replaces_from),
        "build caches": ", ".join(can.caches) or "–",
        "SBOM and provenance attestations": _word(can.attestations),
        "runs what it built": _word(can.runs),
    }


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _word(can: bool) -> str:
    return "yes" if can else "–"
