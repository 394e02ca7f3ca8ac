"""Settings and catalogue from files and environment, read once, strictly, every mistake at once."""

import graphlib
import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any

from imagewright import fields
from imagewright.catalogue import Catalogue, Image, Tool
from imagewright.dockerfile import parents
from imagewright.errors import BadCatalogue
from imagewright.fields import Node, Problems, listed, named, number, one_of, text, texts_by_name, truth, whole
from imagewright.names import (
    BadName,
    Repository,
    is_loopback,
    make_repository,
    parse_familiar,
    parse_folder_name,
    parse_host,
    parse_platform,
    parse_reference,
    parse_repository,
    parse_tag,
    shown,
)
from imagewright.settings import (
    CACHE_KINDS,
    FORGES,
    SCHEMES,
    BaseSettings,
    BasesSettings,
    BuildSettings,
    Cache,
    ForgeSettings,
    HostSettings,
    ImagesSettings,
    Limits,
    PlanSettings,
    Settings,
    VersionsSettings,
)

TOOLS, IMAGES = "tools", "images"
OWN_FILE, PROJECT_FILE = "imagewright.toml", "pyproject.toml"
MAX_BUDGET = 100
"""Builds that one run may ask for, whatever the settings say."""
BUILDERS = ("auto", "buildkit", "docker", "buildah", "copy")
_NOT_SETTINGS = frozenset({"IMAGEWRIGHT_FORGE_TOKEN"})


def _label_prefix(node: Node) -> str:
    try:
        return parse_host(text(node))
    except BadName:
        raise ValueError("a domain or a word is expected, e.g. imagewright or org.example") from None


def _hold(node: Node) -> dict[str, str]:
    held = {}
    for entry in listed(text)(node):
        name, colon, why = entry.partition(":")
        if not colon or not why.strip():
            raise ValueError("each entry reads 'name: why'")
        held[name.strip()] = why.strip()
    return dict(sorted(held.items()))


def _repository(node: Node) -> str:
    return str(named(parse_repository)(node))


def _positive(node: Node) -> int:
    if not (made := whole(node)):
        raise ValueError("at least 1")
    return made


def _budget(node: Node) -> int:
    if (made := _positive(node)) > MAX_BUDGET:
        raise ValueError(f"at most {MAX_BUDGET}")
    return made


def _workflow(node: Node) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.ya?ml", text(node)):
        raise ValueError("the name of a workflow's file is expected, e.g. build.yml")
    return text(node)


def _ref(node: Node) -> str:
    # https://git-scm.com/docs/git-check-ref-format, without what nobody uses
    if not re.fullmatch(r"(?!.*(\.\.|//|/\.|\.lock$))[A-Za-z0-9_][A-Za-z0-9_./-]*(?<![./])", text(node)):
        raise ValueError("a branch or tag is expected")
    return text(node)


def _api(node: Node) -> str:
    """The base address of a forge's API, as GITHUB_API_URL states it; plain HTTP on loopback only."""
    matched = re.fullmatch(r"(https?)://([A-Za-z0-9._:\[\]-]+)((?:/[A-Za-z0-9._~-]+)*)/?", text(node))
    if not matched or (matched[1] == "http" and not is_loopback(matched[2])):
        raise ValueError("the address of an API is expected, e.g. https://api.github.com")
    return text(node).rstrip("/")


def _forge_repository(node: Node) -> str:
    if text(node) and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9_.-]+", text(node)):
        raise ValueError("owner/name is expected")
    return text(node)


def _image_name(node: Node) -> str:
    return str(named(parse_reference)(node)) if text(node) else ""


_SECRET_ATTRIBUTES = frozenset({"access_key_id", "secret_access_key", "session_token", "token"})


def _cache(node: Node) -> Cache | None:
    if not text(node):
        return None
    pairs = [part.partition("=") for part in text(node).split(",")]
    attributes = {name.strip(): value.strip() for name, _, value in pairs}
    kind = attributes.pop("type", "")
    if len(attributes) + 1 != len(pairs) or kind not in CACHE_KINDS or not all(attributes.values()):
        raise ValueError(f"'type=KIND,NAME=VALUE,…' is expected, KIND one of {', '.join(CACHE_KINDS)}")
    if secret := sorted(_SECRET_ATTRIBUTES & set(attributes)):
        raise ValueError(f"{secret[0]} is a secret: it comes from the environment, e.g. AWS_ACCESS_KEY_ID")
    if lacking := [name for name in CACHE_KINDS[kind] if name not in attributes]:
        raise ValueError(f"a cache of type {kind} needs {' and '.join(lacking)}")
    if kind == "local" and set(attributes) != {"dir"}:
        raise ValueError("a cache of type local has a `dir` and nothing else")
    return Cache(kind=kind, attributes=attributes)


_PLATFORMS = listed(named(parse_platform))
_HOST = {
    "plain-http": truth,
    "anonymous": truth,
    "realms": listed(named(parse_host)),
    "missing-codes": listed(text),
    "second-look": number,
    "connections": whole,
    "per-second": number,
}
_LIMITS = {"connect": number, "read": number, "total": number, "settle": number}
_PLAN = {
    "max-vanished": whole,
    "hold": _hold,
    "budget": _budget,
    "per-hour": _positive,
    "in-flight": _positive,
    "workflow": _workflow,
    "ref": _ref,
}
_FORGE = {"api": _api, "repository": _forge_repository, "kind": one_of(*FORGES)}
_VERSIONS = {"image": _image_name, "host-fallback": truth, "timeout": number}
_IMAGES = {"repository": _repository, "registry": named(parse_host), "bootstrap": truth}
_BUILD = {"parallel": _positive, "cache": _cache, "sbom": _image_name, "provenance": truth}
_BASES = {
    "repository": _repository,
    "registry": named(parse_host),
    "discover": truth,
    "names": listed(named(parse_folder_name)),
    "exclude": listed(named(parse_folder_name)),
}
_TOP = {
    "registry": named(parse_host),
    "repository": _repository,
    "platforms": _PLATFORMS,
    "builder": one_of(*BUILDERS),
    "label-prefix": _label_prefix,
    "bootstrap": truth,
}
SETTINGS = {
    "": tuple(_TOP),
    "bases": tuple(_BASES),
    "bases.<base>": ("platforms",),
    "images": tuple(_IMAGES),
    "versions": tuple(_VERSIONS),
    "build": tuple(_BUILD),
    "limits": tuple(_LIMITS),
    "plan": tuple(_PLAN),
    "forge": tuple(_FORGE),
    'registries."<host>"': tuple(_HOST),
}
"""Every setting there is, by table; `docs/settings.md` is compared with it."""


def load_settings(root: Path, environ: Mapping[str, str]) -> Settings:
    """The settings of the project in `root`: `imagewright.toml`, else `[tool.imagewright]`; the environment overrides.

    `BadCatalogue` names every mistake with its place.
    """
    node = _settings_node(root)
    problems = Problems()
    node = _overridden(node, environ, problems)
    tables = {"bases", "images", "versions", "build", "limits", "plan", "forge", "registries"}
    top = fields.read(_without(node, tables), _TOP, problems)
    given = {name: node.value[name] for name in tables if name in node.value}
    empty = Node({}, node.place)
    images = fields.read(given.get("images", empty), _IMAGES, problems, "images")
    versions = fields.read(given.get("versions", empty), _VERSIONS, problems, "versions")
    build = fields.read(given.get("build", empty), _BUILD, problems, "build")
    limits = fields.read(given.get("limits", empty), _LIMITS, problems, "limits")
    plan = fields.read(given.get("plan", empty), _PLAN, problems, "plan")
    forge = fields.read(given.get("forge", empty), _FORGE, problems, "forge")
    registries = _registries(given.get("registries", empty), problems)
    registry = top.pop("registry", "ghcr.io")
    repository: Repository | None = None
    bases: BasesSettings | None = None
    standalone = None
    if "repository" in images:
        host = images.get("registry", registry)
        standalone = _made(host, images["repository"], "images.repository", node, problems)
    if standalone and "repository" not in top and "bases" not in given:
        # Standalone images alone: no pairs, so no bases either.
        repository, bases = standalone, BasesSettings(repository=standalone, discover=False)
    else:
        repository = _made(registry, top.pop("repository", None), "repository", node, problems)
        bases = _bases(given.get("bases", empty), registry, problems)
    if top.get("platforms") == ():
        problems.add(node.value["platforms"].place, "platforms: an empty list means that nothing is published")
    problems.refuse("Mend these settings; docs/settings.md lists all of them.")
    assert repository, "refused above"
    assert bases, "refused above"
    return Settings(
        repository=repository,
        bases=bases,
        images=ImagesSettings(repository=standalone, bootstrap=images.get("bootstrap", False)),
        versions=VersionsSettings(**_keywords(versions)),
        build=BuildSettings(**_keywords(build)),
        registries=registries,
        limits=Limits(**limits),
        plan=PlanSettings(**_keywords(plan)),
        forge=ForgeSettings(**forge),
        **_keywords(top),
    )


def _settings_node(root: Path) -> Node:
    own, project = (file.read_bytes() if file.is_file() else None for file in (root / OWN_FILE, root / PROJECT_FILE))
    node = settings_in(own, project)
    if node is not None:
        return node
    raise BadCatalogue(
        f"there are no settings in {root}",
        remedy="Make a project of it with `imagewright init`, or add [tool.imagewright] to pyproject.toml: at least "
        "`repository`, and `repository` of [tool.imagewright.bases].",
    )


def settings_in(own: bytes | None, project: bytes | None) -> Node | None:
    """The settings in `imagewright.toml`, else in `pyproject.toml`, as they stand there; None where there are none.

    own, project: the content of the two files, None where there is none. `BadCatalogue` where one is not TOML.
    """
    if own is not None:
        return fields.from_toml(own, OWN_FILE)
    if project is not None:
        tool = fields.from_toml(project, PROJECT_FILE).value.get("tool")
        if tool and isinstance(tool.value, dict) and "imagewright" in tool.value:
            return tool.value["imagewright"]  # type: ignore[no-any-return]
    return None


def _overridden(node: Node, environ: Mapping[str, str], problems: Problems) -> Node:
    """The settings with single keys replaced from `IMAGEWRIGHT_…`; `__` separates table and key."""
    tables: Mapping[str, Mapping[str, Any]] = {
        "": _TOP,
        "bases": _BASES,
        "images": _IMAGES,
        "versions": _VERSIONS,
        "build": _BUILD,
        "limits": _LIMITS,
        "plan": _PLAN,
        "forge": _FORGE,
    }
    known = {_variable(table, key): (table, key) for table, schema in tables.items() for key in schema}
    members = dict(node.value) if isinstance(node.value, dict) else {}
    for name in sorted(environ):
        if not name.startswith("IMAGEWRIGHT_") or name in _NOT_SETTINGS:
            continue
        if name not in known:
            problems.add(f"environment variable {name}", "not a known setting")
            continue
        table, key = known[name]
        place = f"environment variable {name}"
        value: Any = environ[name]
        if key in ("platforms", "names", "exclude", "hold"):
            value = [Node(one.strip(), place) for one in value.split(",") if one.strip()]
        if table:
            inner = members.get(table, Node({}, place))
            if not isinstance(inner.value, dict):
                continue  # it is no table, and said to be none when it is read
            members[table] = Node({**inner.value, key: Node(value, place)}, inner.place)
        else:
            members[key] = Node(value, place)
    return Node(members, node.place)


def _variable(table: str, key: str) -> str:
    return "IMAGEWRIGHT_" + "__".join(part.upper().replace("-", "_") for part in (table, key) if part)


def _without(node: Node, names: set[str]) -> Node:
    return Node({name: member for name, member in node.value.items() if name not in names}, node.place)


def _keywords(read: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("-", "_"): value for name, value in read.items()}


def _registries(node: Node, problems: Problems) -> dict[str, HostSettings]:
    if not isinstance(node.value, dict):
        problems.add(node.place, "registries is not a table")
        return {}
    made = {}
    for host, member in sorted(node.value.items()):
        try:
            name = parse_host(host)
        except BadName as error:
            problems.add(member.place, f"registries: {error}")
            continue
        read = fields.read(member, _HOST, problems, f'registries."{host}"')
        for what, least in (("connections", "at least 1"), ("per-second", "more than 0")):
            if read.get(what) == 0:
                problems.add(member.place, f'registries."{host}".{what}: {least}')
        made[name] = HostSettings(**_keywords(read))
    return made


def _bases(node: Node, registry: str, problems: Problems) -> BasesSettings | None:
    if not isinstance(node.value, dict):
        problems.add(node.place, "bases is not a table")
        return None
    tables = {name: member for name, member in node.value.items() if isinstance(member.value, dict)}
    read = fields.read(_without(node, set(tables)), _BASES, problems, "bases")
    single = {}
    for name, member in sorted(tables.items()):
        inner = fields.read(member, {"platforms": _PLATFORMS}, problems, f"bases.{name}")
        if inner.get("platforms") == ():
            problems.add(
                member.place, f"bases.{name}.platforms: an empty list; use `exclude` for a base without images"
            )
        try:
            single[parse_folder_name(name)] = BaseSettings(**inner)
        except BadName as error:
            problems.add(member.place, f"bases: {error}")
    names, exclude = read.get("names"), read.get("exclude", ())
    if names is not None and read.get("discover"):
        problems.add(
            node.value["names"].place, "bases.names: the bases are discovered, `discover = true`; keep one of both"
        )
    discover = read.get("discover", names is None)
    if not discover and not set(names or ()) - set(exclude):
        problems.add(node.place, "bases: none is left: `names` is empty, or all of it is excluded")
    repository = _made(read.get("registry", registry), read.get("repository"), "bases.repository", node, problems)
    if repository is None:
        return None
    return BasesSettings(repository=repository, discover=discover, names=names or (), exclude=exclude, single=single)


def _made(host: str, name: str | None, field: str, node: Node, problems: Problems) -> Repository | None:
    """The repository that a table names; None where it names none, which is a mistake of its own."""
    if name is None:
        if "repository" not in node.value:
            problems.add(node.place, f"{field}: is not set")
        return None
    try:
        return make_repository(host, name)
    except BadName as error:
        problems.add(node.place, f"{field}: {error}")
        return None


_TOOL = {
    "title": text,
    "homepage": text,
    "description": text,
    "licenses": text,
    "command": text,
    "version-scheme": one_of(*SCHEMES),
    "exclude-bases": texts_by_name(parse_folder_name),
    "platforms": _PLATFORMS,
    "redistributable": truth,
    "base-config": one_of("check", "ignore"),
    "squashed": truth,
}
TOOL_FIELDS = tuple(_TOOL)
"""Every field of `tool.yaml`; `docs/settings.md` is compared with it."""


_IMAGE = {
    "version": text,
    "title": text,
    "description": text,
    "licenses": text,
    "command": text,
    "platforms": _PLATFORMS,
    "base": truth,
}
IMAGE_FIELDS = tuple(_IMAGE)
"""Every field of `image.yml`; `docs/settings.md` is compared with it."""


def load_catalogue(root: Path, environ: Mapping[str, str]) -> Catalogue:
    """Settings, tools and images of the project in `root`. `BadCatalogue` names every mistake with its place."""
    settings = load_settings(root, environ)
    problems = Problems()
    tools = [_tool(one, root / TOOLS, problems) for one in _folders(root / TOOLS)]
    images = [_image(one, root, settings, problems) for one in _folders(root / IMAGES)]
    for folder in (root / TOOLS, root / IMAGES):
        _refuse_leaving_links(folder, root, problems)
    problems.refuse("Mend these files; docs/settings.md lists what tool.yaml and image.yml may say.")
    if not tools and not images:
        raise BadCatalogue(
            f"there is neither a tool in {root / TOOLS} nor an image in {root / IMAGES}",
            remedy="Add a folder per tool, with version.sh and install.sh: `imagewright new tool NAME`.",
        )
    catalogue = Catalogue(
        root=root,
        settings=settings,
        tools=tuple(tool for tool in tools if tool),
        images=tuple(image for image in images if image),
        hash=f"sha256:{_hash(settings, root, [image for image in images if image])}",
    )
    _refuse_baseless(catalogue)
    _refuse_circles(catalogue)
    return catalogue


def _folders(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if one.is_dir()) if folder.is_dir() else []


def _refuse_baseless(catalogue: Catalogue) -> None:
    bases = catalogue.settings.bases
    if (
        catalogue.tools
        and not bases.discover
        and not set(bases.names) - set(bases.exclude)
        and not catalogue.own_bases()
    ):
        raise BadCatalogue(
            "there are tools and no bases to put them on",
            remedy="Set `repository` of [tool.imagewright.bases], or say `base: true` in an image.yml.",
        )


def _refuse_circles(catalogue: Catalogue) -> None:
    """Images that are built on each other would wait for each other."""
    edges = {image.name: {catalogue.waits_for(catalogue.standalone(image))} - {""} for image in catalogue.images}
    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError as error:
        raise BadCatalogue(
            f"images are built on each other in a circle: {' → '.join(error.args[1])}",
            remedy="Let one of them start from something else.",
            where=str(catalogue.root / IMAGES),
        ) from None


def _tool(folder: Path, tools: Path, problems: Problems) -> Tool | None:
    place = f"tools/{folder.name}"
    try:
        name = parse_folder_name(folder.name)
    except BadName as error:
        problems.add(place, str(error))
        return None
    read = {}
    file = folder / "tool.yaml"
    if file.is_file():
        try:
            read = fields.read(fields.from_yaml(file.read_bytes(), f"{place}/tool.yaml"), _TOOL, problems)
        except BadCatalogue as error:
            problems.add(error.where, error.reason)
    if read.get("platforms") == ():
        problems.add(f"{place}/tool.yaml", "platforms: an empty list means that nothing is published")
    base_config = read.pop("base-config", "check")
    own, shared = folder / "Dockerfile", tools / "Dockerfile"
    uses_shared = shared.is_file() and (folder / "install.sh").exists()
    return Tool(
        name=name,
        folder=folder,
        dockerfile=own if own.is_file() else shared if uses_shared else None,
        check_base_config=base_config == "check",
        **_keywords(read),
    )


def _image(folder: Path, root: Path, settings: Settings, problems: Problems) -> Image | None:
    place = f"{IMAGES}/{folder.name}"
    file, recipe = folder / "image.yml", folder / "Dockerfile"
    where = place
    try:
        name = parse_folder_name(folder.name)
        node = fields.from_yaml(file.read_bytes(), f"{place}/image.yml")
        where = f"{place}/Dockerfile"
        starts_from = parents(recipe.read_text("utf-8"), where, {})
        where = f"{where}:{starts_from.final_line}"
        parent = None if starts_from.final == "scratch" else parse_familiar(starts_from.final)
    except BadName as error:
        problems.add(where, str(error))
        return None
    except BadCatalogue as error:
        problems.add(error.where or where, error.reason)
        return None
    except FileNotFoundError as error:
        problems.add(place, f"there is no {Path(error.filename).name}; an image has a Dockerfile and an image.yml")
        return None
    except UnicodeDecodeError:
        problems.add(where, "not UTF-8")
        return None
    read = fields.read(node, _IMAGE, problems)
    if read.get("platforms") == ():
        problems.add(f"{place}/image.yml", "platforms: an empty list means that nothing is published")
    is_base = read.pop("base", False)
    if not is_base and settings.images.repository is None:
        problems.add(place, "images.repository is not set: where is this image to be published?")
    version = _image_version(read.pop("version", ""), root, name, f"{place}/image.yml", problems)
    return Image(
        name=name,
        folder=folder,
        dockerfile=recipe,
        version=version,
        parent=parent,
        stands_for=starts_from.final
        if parent and not parent.digest and starts_from.final_argument != "BASE_IMAGE"
        else "",
        is_base=is_base,
        **_keywords(read),
    )


def _image_version(stated: str, root: Path, name: str, place: str, problems: Problems) -> str:
    """The version of a standalone image; `project` is that of the project's pyproject.toml."""
    if not stated:
        problems.add(place, "version: is not set; a version, or `project` for that of pyproject.toml")
        return ""
    if stated == "project":
        file = root / "pyproject.toml"
        project = fields.from_toml(file.read_bytes(), file.name).value.get("project") if file.is_file() else None
        node = project.value.get("version") if project and isinstance(project.value, dict) else None
        if node is None or not isinstance(node.value, str):
            problems.add(place, "version: `project`, and pyproject.toml has no version under [project]")
            return ""
        stated = node.value
    try:
        parse_tag(f"{name}-{stated}")
    except BadName as error:
        problems.add(place, f"version: {error}")
    return stated


def _refuse_leaving_links(folder: Path, root: Path, problems: Problems) -> None:
    inside = root.resolve()
    for path in (folder, *sorted(folder.rglob("*"))) if folder.is_dir() else ():
        # realpath, because resolve raises for a link that leads to itself
        if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(inside):
            problems.add(
                str(path.relative_to(root)), f"a link that leaves the project, to {shown(str(path.readlink()))}"
            )


def _hash(settings: Settings, root: Path, images: Iterable[Image]) -> str:
    """Over the settings and every file: two equal hashes mean that the same targets are expected, by the same rules.

    Where builds are asked for is no part of that: a plan may be carried out with a forge that is named then.
    """
    sha256 = hashlib.sha256()
    for one in (one for one in fields_of(settings) if one.name != "forge"):
        sha256.update(f"{one.name}={getattr(settings, one.name)!r}\0".encode())
    for image in images:  # a version may come from the project
        sha256.update(f"{image.name}={image.version}\0".encode())
    for path in (*sorted((root / TOOLS).rglob("*")), *sorted((root / IMAGES).rglob("*"))):
        relative = os.fsencode(path.relative_to(root).as_posix())
        if path.is_symlink():
            kind, content = b"link", os.fsencode(path.readlink())
        elif path.is_file():
            kind = b"program" if path.stat().st_mode & 0o100 else b"file"
            content = path.read_bytes()
        else:
            continue
        sha256.update(b"%b %d %b\0%b" % (kind, len(content), relative, content))
    return sha256.hexdigest()
