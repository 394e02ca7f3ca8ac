"""What makes a folder a project: which files it lacks, what an earlier layout brings along, what is left for a person.

A draft is made by reading only. Carrying it out adds files, and lines to the end of three; nothing is overwritten.
"""

import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from imagewright import original
from imagewright.edits import CONFTEST, PLUGIN, edits, is_for_bash, parses, pin, plugins_line, tool_edits
from imagewright.errors import BadCatalogue, Failed, Usage
from imagewright.files import append_whole, write_atomically
from imagewright.load import OWN_FILE, PROJECT_FILE, TOOL_FIELDS, settings_in
from imagewright.names import BadName, parse_folder_name
from imagewright.original import Remark
from imagewright.shipped import RECIPE, STEPS, shipped
from imagewright.skeletons import Kind, skeleton
from imagewright.state import DEFAULT

EXAMPLE = "example"
_IGNORED = ".gitignore"
_SET_UP = re.compile(rb"^.*# `imagewright init` writes another line here$", re.MULTILINE)
"""The line of the workflows' steps that is another one in a project of its own."""
_IGNORED_LINES = (f"{DEFAULT}/", ".venv/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A file to write. path: in the project, with `/`. appended: to what is there; everything else is a new file."""

    path: str
    content: bytes
    mode: int = 0o644
    appended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """pieces: what is to be written. kept: files that are there. remarks: what was decided. edits: what a person has to do."""

    pieces: tuple[Piece, ...] = ()
    kept: tuple[str, ...] = ()
    remarks: tuple[Remark, ...] = ()
    edits: tuple[Remark, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the settings should say; empty where nobody knows yet. published: whether there are images already."""

    registry: str = ""
    repository: str = ""
    bases: str = ""
    published: bool = False


def draft(root: Path, wanted: Wanted, source: Path | None, environ: Mapping[str, str], version: str) -> Draft:
    """What `root` needs to be a project of imagewright `version`.

    source: a folder of tools in the earlier layout, whose settings are taken from beside it and from `environ`. `Usage`
    where there is no tool in it, `BadCatalogue` where a file that has to be understood cannot be.
    """
    remarks: list[Remark] = []
    pieces: list[Piece] = []
    if source is not None:
        wanted, remarks = _earlier_settings(wanted, source, environ)
        if source.resolve() != (root / "tools").resolve():
            brought, left = _brought(source)
            pieces += brought
            remarks += left
    elif _is_empty(root):
        pieces += tool_pieces(EXAMPLE)
    pieces = [
        *_settings(root, wanted, version, remarks),
        *_conftest(root),
        *_ignored(root),
        *_shipped(root, pieces, version),
        *pieces,
    ]
    return _against(root, pieces, remarks, version)


def _against(root: Path, pieces: list[Piece], remarks: list[Remark], version: str) -> Draft:
    """The draft without what is there already."""
    ours, written, kept = shipped(), [], []
    for piece in pieces:
        path = root / piece.path
        if piece.appended or not (path.exists() or path.is_symlink()):
            _refuse_in_the_way(root, path)
            written.append(piece)
            continue
        kept.append(piece.path)
        if not path.is_file() or path.read_bytes() != piece.content:
            other = f"the one of imagewright {version}" if piece.path in ours else "what would be written"
            remarks.append(Remark(place=piece.path, what=f"is not {other}: left as it is"))
    made = Draft(pieces=tuple(written), kept=tuple(kept), remarks=tuple(remarks))
    return replace(made, edits=tuple(edits(_After(root, made), version)))


def _refuse_in_the_way(root: Path, path: Path) -> None:
    for folder in path.relative_to(root).parents:
        if (root / folder).exists() and not (root / folder).is_dir():
            raise Failed(
                f"{folder} is in the way: a folder of that name is needed", remedy="Move it; nothing was written."
            )


def carry_out(root: Path, made: Draft) -> None:
    """Writes the pieces, each whole. `Failed` names those that were written before one that could not be."""
    done: list[str] = []
    for piece in made.pieces:
        path = root / piece.path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if piece.appended:
                append_whole(path, piece.content)
            else:
                write_atomically(path, piece.content, piece.mode)
        except OSError as error:
            raise Failed(
                f"{piece.path} cannot be written: {error.strerror}; written before it: {', '.join(done) or 'nothing'}",
                remedy="Mend that and run the same again: it goes on where it stopped.",
            ) from None
        done.append(piece.path)


def new_tool(root: Path, name: str, kind: Kind | None, source: str) -> Draft:
    """The files of a new tool. `BadCatalogue` where `root` is no project, `Usage` for what cannot be its name, `Failed`
    where there is such a tool. source: as `skeletons.parse_source` made it.
    """
    if settings_in(_read(root / OWN_FILE), _read(root / PROJECT_FILE)) is None:
        raise BadCatalogue(f"{root} is no project: there are no settings", remedy="Make one: `imagewright init`.")
    try:
        parse_folder_name(name)
    except BadName as error:
        raise Usage(str(error)) from None
    if os.path.lexists(root / "tools" / name):
        raise Failed("there is something of that name already", where=f"tools/{name}", remedy="Take another name.")
    made = Draft(pieces=tuple(tool_pieces(name, kind, source)))
    for piece in made.pieces:
        _refuse_in_the_way(root, root / piece.path)
    return replace(made, edits=tuple(tool_edits(_After(root, made), name)))


def tool_pieces(name: str, kind: Kind | None = None, source: str = "") -> list[Piece]:
    """The skeleton of a tool as files."""
    return [
        Piece(path=f"tools/{name}/{file}", content=text.encode(), mode=0o755 if file.endswith(".sh") else 0o644)
        for file, text in skeleton(name, kind, source).items()
    ]


class _After:
    """The project as it will be."""

    def __init__(self, root: Path, made: Draft) -> None:
        self._root = root
        self._pieces = {one.path: one for one in made.pieces}

    def content(self, path: str) -> bytes | None:
        """Of a file, None where there is none."""
        piece, there = self._pieces.get(path), _read(self._root / path)
        if piece is None:
            return there
        return (there or b"") + piece.content if piece.appended else piece.content

    def has_folder(self, path: str) -> bool:
        """Whether there is a folder."""
        return (self._root / path).is_dir() or any(one.startswith(f"{path}/") for one in self._pieces)

    def tools(self) -> list[str]:
        """The names of the folders in `tools/`."""
        folder = self._root / "tools"
        there = {one.name for one in folder.iterdir() if one.is_dir()} if folder.is_dir() else set()
        return sorted(there | {path.split("/")[1] for path in self._pieces if re.match(r"tools/[^/]+/", path)})


def _is_empty(root: Path) -> bool:
    """Whether nothing is in a folder; what is hidden (`.git`, `.venv`) does not count."""
    return not root.exists() or all(one.name.startswith(".") for one in root.iterdir())


def _read(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


# The files of a project


def _settings(root: Path, wanted: Wanted, version: str, remarks: list[Remark]) -> list[Piece]:
    """The settings: a table at the end of `pyproject.toml`, or where that cannot take one, a file of their own."""
    own, project = _read(root / OWN_FILE), _read(root / PROJECT_FILE)
    there = settings_in(own, project)
    if there is not None:
        if wanted.registry or wanted.repository or wanted.bases:
            remarks.append(Remark(place=there.place, what="the settings are there: left as they are"))
        return [Piece(path=PROJECT_FILE if own is None else OWN_FILE, content=(project if own is None else own) or b"")]
    if project is None:
        head = (
            f'[project]\nname = "{_project_name(root)}"\nversion = "0"\nrequires-python = ">=3.11"\n'
            f'dependencies = ["{pin(version)}"]\n\n'
        )
        return [Piece(path=PROJECT_FILE, content=(head + _settings_text(wanted, "tool.imagewright")).encode())]
    text = _settings_text(wanted, "tool.imagewright")
    added = _added(project, text)
    try:
        settings_in(None, project + added)
    except BadCatalogue as error:
        remarks.append(
            Remark(place=PROJECT_FILE, what=f"cannot take a table at its end ({error.reason}): {OWN_FILE} instead")
        )
        return [Piece(path=OWN_FILE, content=_settings_text(wanted, "").encode())]
    return [Piece(path=PROJECT_FILE, content=added, appended=True)]


def _settings_text(wanted: Wanted, table: str) -> str:
    """The settings as TOML. table: the one that they stand in, empty for a file of their own."""
    head, inner = (f"[{table}]\n", f"{table}.bases") if table else ("", "bases")
    bootstrap = (
        "" if wanted.published else "bootstrap = true   # nothing is published yet; remove this line once it is\n"
    )
    return (
        f"{head}registry = {json.dumps(wanted.registry or 'ghcr.io')}\n"
        f"repository = {json.dumps(wanted.repository)}   # of the images: <tool>-<base>-<version> and -latest are tags here\n"
        f'platforms = ["linux/amd64", "linux/arm64"]\n{bootstrap}\n'
        f"[{inner}]\nrepository = {json.dumps(wanted.bases)}   # of the bases: its tags <base>-latest are the bases\n"
    )


def _added(content: bytes, text: str) -> bytes:
    """What to add to a file so that `text` follows after an empty line, with the file's own ends of line."""
    end = "\r\n" if b"\r\n" in content else "\n"
    gap = "" if not content else "\n" if content.endswith(b"\n") else "\n\n"
    return (gap + text).replace("\n", end).encode()


def _project_name(root: Path) -> str:
    return re.sub(r"[^a-z0-9]+", "-", root.resolve().name.lower()).strip("-") or "images"


def _conftest(root: Path) -> list[Piece]:
    line = f'pytest_plugins = ["{PLUGIN}"]\n'
    content = _read(root / CONFTEST)
    if content is None:
        return [Piece(path=CONFTEST, content=line.encode())]
    if plugins_line(content) is None and parses(content):
        return [Piece(path=CONFTEST, content=_added(content, line), appended=True)]
    return [Piece(path=CONFTEST, content=content)]


def _ignored(root: Path) -> list[Piece]:
    content = _read(root / _IGNORED)
    there = {line.strip().strip("/") for line in (content or b"").decode("utf-8", "replace").splitlines()}
    lines = "".join(f"{line}\n" for line in _IGNORED_LINES if line.strip("/") not in there)
    if content is None:
        return [Piece(path=_IGNORED, content=lines.encode())]
    if not lines:
        return [Piece(path=_IGNORED, content=content)]
    gap = b"" if not content or content.endswith(b"\n") else b"\n"
    return [Piece(path=_IGNORED, content=gap + lines.encode(), appended=True)]


def _shipped(root: Path, brought: list[Piece], version: str) -> list[Piece]:
    """Checks, recipe, workflows. Where an install.sh is for bash, the recipe runs bash, which every base must then have."""
    files = shipped()
    scripts = [one.content for one in brought if one.path.endswith("/install.sh")]
    scripts += [one.read_bytes() for one in root.glob("tools/*/install.sh") if one.is_file()]
    if any(is_for_bash(one) for one in scripts):
        recipe = files[RECIPE[0]]
        files[RECIPE[0]] = recipe.replace(b" sh /recipe/install.sh", b" bash /recipe/install.sh")
    files[STEPS] = _SET_UP.sub(
        f'  python3 -m venv "$environment" && "$environment/bin/python" -m pip install --quiet "{pin(version)}"'.encode(),
        files[STEPS],
    )
    return [
        Piece(path=path, content=content, mode=0o755 if path == STEPS else 0o644) for path, content in files.items()
    ]


# Tools of the earlier layout


def _earlier_settings(wanted: Wanted, source: Path, environ: Mapping[str, str]) -> tuple[Wanted, list[Remark]]:
    """What is wanted, completed by the settings beside the folder of tools."""
    file = source.resolve().parent / original.CONFIG
    said, remarks = original.old_settings(_read(file), str(source.parent / original.CONFIG), environ)
    return Wanted(
        registry=wanted.registry or said.get("registry", ""),
        repository=wanted.repository or said.get("repository", ""),
        bases=wanted.bases or said.get("bases.repository", ""),
        published=True,
    ), remarks


def _brought(source: Path) -> tuple[list[Piece], list[Remark]]:
    """The tools in a folder: scripts byte for byte, `tool.yaml` with our fields."""
    pieces: list[Piece] = []
    remarks: list[Remark] = []
    if not source.is_dir():
        raise Usage(f"there is no folder {source}", remedy="Name the folder that has a folder per tool.")
    for entry in sorted(source.iterdir()):
        try:
            if entry.is_symlink() or not entry.is_dir():
                remarks.append(Remark(place=str(entry), what="not a folder, so not a tool: not carried over"))
                continue
            tool = parse_folder_name(entry.name)
        except BadName as error:
            remarks.append(
                Remark(
                    place=str(entry),
                    what=f"{error}: not carried over",
                    remedy="Give it a name that can be part of a tag.",
                )
            )
            continue
        for path in sorted(entry.rglob("*")):
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                remarks.append(Remark(place=str(path), what="a link or no file: not carried over"))
            elif path.is_file():
                pieces.append(_brought_file(path, f"tools/{tool}/{path.relative_to(entry).as_posix()}", tool, remarks))
    if not pieces:
        raise Usage(f"there is no tool in {source}", remedy="Name the folder that has a folder per tool.")
    return pieces, remarks


def _brought_file(file: Path, path: str, tool: str, remarks: list[Remark]) -> Piece:
    content, mode = file.read_bytes(), stat.S_IMODE(file.stat().st_mode) & 0o777
    if path == f"tools/{tool}/tool.yaml":
        try:
            content, said = original.converted(content, str(file), tool, TOOL_FIELDS)
            remarks += said
        except BadCatalogue as error:
            remarks.append(
                Remark(place=error.where, what=f"{error.reason}: carried over as it is", remedy=f"Mend {path}.")
            )
    return Piece(path=path, content=content, mode=mode)
