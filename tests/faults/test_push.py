"""What may go wrong while an image is published, at each thing that is written and at each thing that is read back.

Each row ends with a message and not with 0. Whatever happened, each tag names something whole at every moment, `latest` is
where it was, and nothing that writes was sent twice.
"""

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path

import click
import pytest

from imagewright import cli
from imagewright.catalogue import Pair
from imagewright.cli import main
from imagewright.embedded.wire import Answer
from imagewright.errors import Failed
from imagewright.load import load_catalogue
from imagewright.names import Digest
from imagewright.publish import Unconfirmed, Work, move_latest, push
from imagewright.registry.client import Client
from imagewright.settings import Surroundings
from imagewright.testing import images, vices
from imagewright.testing.images import layer
from imagewright.testing.logins import Basic, Bearer
from imagewright.testing.projects import make_project
from imagewright.testing.registry import Registry
from imagewright.testing.vices import Asked, Occasion, Vice
from tests.readers import named, readers_see
from tests.vicious import below

SETTINGS = 'builder = "copy"\n[limits]\nconnect = 1\nread = 1\ntotal = 3\n'
CHECKS = ("-m", "pytest", "checks/", "-q", "-p", "no:hypothesispytest", "-p", "no:timeout")
VERSION = "org.opencontainers.image.version"
WHOLE = "whole, 2 platforms"
ELSEWHERE = f"sha256:{'2' * 64}"
LOGIN = "Check that the login may push there (`docker login`, or REGISTRY_AUTH_FILE)"
ROOM = "Make room for it: a quota, a limit of the registry's or of a proxy before it, or its disk."


@dataclass(frozen=True)
class Parts:
    """What there is to publish. root: a folder with a registry and a layout. digests: by name; `version` is the tag."""

    root: Path
    base: Digest
    digests: Mapping[str, str]


@dataclass
class World:
    """A registry in which version 1.0 is published, and a project in which 2.0 is built. holes: that a reader ever saw."""

    root: Path
    registry: Registry
    parts: Parts
    holes: list[str] = field(default_factory=list)

    @property
    def place(self) -> Path:
        return self.root / "registry" / "own+tools"

    @property
    def pair(self) -> Pair:
        catalogue = load_catalogue(self.root / "project", {})
        tool = catalogue.tool("codex")
        assert tool
        return catalogue.pair(tool, "fedora")

    @property
    def work(self) -> Work:
        layout = self.root / "project" / ".imagewright" / "images" / "codex-fedora"
        base = self.pair.base.reference.repository.at(self.parts.base)
        return Work(target=self.pair, version="2.0", base=base, layouts=[layout])

    def client(self, *auth_files: Path) -> Client:
        settings = load_catalogue(self.root / "project", {}).settings
        return Client(settings, Surroundings(auth_files=tuple(map(str, auth_files))))

    def call(self, *arguments: str) -> tuple[int, str]:
        """A command's exit code and its output."""
        out = io.TextIOWrapper(io.BytesIO(), write_through=True)
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(out):
            patch.chdir(self.root / "project")
            patch.setattr("sys.argv", ["imagewright", *arguments])
            patch.delenv("PYTEST_ADDOPTS", raising=False)
            code = cli._run()
        out.seek(0)
        return code, out.read().replace(self.registry.address, "HOST")

    def publish(self, *vice: Vice) -> tuple[int, str]:
        """Publishes 2.0 into a registry with vices, which is watched."""
        self.registry.becomes(*(self._watched(one) for one in (*vice, Vice(name="", does=lambda it: it.honest()))))
        ended = self.call(
            *("publish", "codex-fedora", "--version", "2.0", "--base-digest", self.parts.base, "--tags"),
            *("--layout", ".imagewright/images/codex-fedora"),
        )
        self._look()
        return ended

    def _watched(self, vice: Vice) -> Vice:
        def does(occasion: Occasion) -> Answer:
            if occasion.asked.method not in ("GET", "HEAD"):
                self._look()
            return vice.does(occasion)

        return replace(vice, does=does)

    def _look(self) -> None:
        self.holes += [f"{tag}: {seen}" for tag, seen in readers_see(self.place).items() if seen != WHOLE]

    def writes(self) -> list[Asked]:
        return [one for one in self.registry.log if one.method not in ("GET", "HEAD")]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """A registry's folder with version 1.0, a layout of 2.0, and the digests of what 2.0 consists of."""
    root = tmp_path_factory.mktemp("push")
    said = {VERSION: "1.0", "imagewright.tool": "codex"}
    with Registry(root / "registry") as registry:
        base = images.push(registry.sink, "own/bases", ["fedora-latest"], below("fedora"))
        old = {one: it.on_top(layer({"bin/codex": f"old {one}"}), labels=said) for one, it in below("fedora").items()}
        images.push(registry.sink, "own/tools", ["codex-fedora-1.0", "codex-fedora-latest"], old)
        shutil.copytree(root / "registry" / "own+tools", root / "own+tools")
        make_project(
            root / "project", registry=registry.address, tools={"codex": "2.0"}, bases=["fedora"], settings=SETTINGS
        )
        made = World(root, registry, Parts(root, base, {}))
        assert made.call("build", "--tool", "codex", "--base", "fedora")[0] == 0
        registry.becomes()
        with made.client() as client:
            push(client, made.work)
        sent = [
            one.target.partition("digest=")[2] for one in made.writes() if one.method == "PUT" and one.kind == "upload"
        ]
        put = [one.reference for one in made.writes() if one.kind == "push"]
    shutil.rmtree(root / "registry" / "own+tools")
    shutil.move(root / "own+tools", root / "registry" / "own+tools")
    names = ["layer", "amd64's configuration", "arm64's configuration", "amd64", "arm64", "index", "version"]
    return Parts(root, base, dict(zip(names, [*sent, *put], strict=True)))


@pytest.fixture
def world(parts: Parts, tmp_path: Path) -> Iterator[World]:
    with _opened(parts, tmp_path) as registry:
        yield World(tmp_path, registry, parts)


def _opened(parts: Parts, root: Path, login: Basic | None = None) -> Registry:
    """A registry and a project of its own, as `parts` left them."""
    shutil.copytree(parts.root / "registry", root / "registry")
    registry = Registry(root / "registry", login=login)
    make_project(
        root / "project", registry=registry.address, tools={"codex": "2.0"}, bases=["fedora"], settings=SETTINGS
    )
    shutil.copytree(parts.root / "project" / ".imagewright" / "images", root / "project" / ".imagewright" / "images")
    return registry


# Writing


def _starts(asked: Asked, _: str) -> bool:
    return asked.method == "POST" and "mount=" not in asked.target


def _uploads(asked: Asked, digest: str) -> bool:
    return asked.method == "PUT" and asked.target.endswith(digest)


def _puts(asked: Asked, reference: str) -> bool:
    return asked.kind == "push" and asked.reference == reference


STEPS: dict[str, tuple[Callable[[Asked, str], bool], str, str]] = {
    # of what → which requests, how it is told of a status, the method
    "layer, its upload": (_starts, "HOST/own/tools refuses an upload", "POST"),
    "layer": (_uploads, "HOST/own/tools did not take {it}", "PUT"),
    "amd64's configuration": (_uploads, "HOST/own/tools did not take {it}", "PUT"),
    "arm64's configuration": (_uploads, "HOST/own/tools did not take {it}", "PUT"),
    "amd64": (_puts, "HOST/own/tools@{it} was not taken", "PUT"),
    "arm64": (_puts, "HOST/own/tools@{it} was not taken", "PUT"),
    "index": (_puts, "HOST/own/tools@{it} was not taken", "PUT"),
    "version": (_puts, "HOST/own/tools:{it} was not taken", "PUT"),
}


def after(vice: Vice) -> Vice:
    """The same, after the registry has done what it was asked to do."""

    def does(occasion: Occasion) -> Answer:
        occasion.honest()
        return vice.does(occasion)

    return replace(vice, name=f"{vice.name}, taken", does=does)


AGAIN, CONNECTION = "Look again later.", "Look again when the connection works."
ADDRESS, PROXIES = "Check the registry's address.", "Check the address, and proxies on the way."
WHO = "Check the login, and `bootstrap` for a new repository."
UNSEEN = "HOST did not answer a {method}"
QUOTA = vices.answers(403, b'{"errors": [{"code": "DENIED", "message": "quota of 1 GiB exceeded"}]}')
BUSY = vices.is_overloaded(429, "1")
EACH: Sequence[str] = tuple(STEPS)
SORTS: Sequence[str] = ("layer, its upload", "layer", "arm64", "version")
FAULTS: list[tuple[Vice, str, str, Sequence[str]]] = [
    # what the registry does, what it is called, the remedy, at which steps
    (vices.answers(500), "status 500", AGAIN, SORTS),
    (vices.answers(503), "status 503", AGAIN, EACH),
    (BUSY, "status 429 TOOMANYREQUESTS, 'toomanyrequests'", AGAIN, SORTS),
    (vices.answers(413), "status 413", ROOM, SORTS),
    (vices.answers(507, b"no space left"), "status 507", ROOM, SORTS),
    (QUOTA, "status 403 DENIED, 'quota of 1 GiB exceeded'", f"{LOGIN}, and any quota.", SORTS),
    (vices.refuses(401), f"{UNSEEN}: status 401 without a challenge that we know", WHO, SORTS),
    (vices.answers_404_as_html(), "status 404", ADDRESS, SORTS),
    (vices.redirects("http://127.0.0.2:9{target}"), "status 307", ADDRESS, SORTS),
    (vices.serves_a_login_page(), "status 200 without the content that was asked for", PROXIES, SORTS),
    (vices.speaks_no_http(), f"{UNSEEN}: the connection broke", CONNECTION, SORTS),
    (vices.resets(), f"{UNSEEN}: connection reset", CONNECTION, EACH),
    (after(vices.answers(503)), "status 503", AGAIN, EACH),
    (after(vices.resets()), f"{UNSEEN}: connection reset", CONNECTION, EACH),
]
REFUSED = [
    pytest.param(fault, told, remedy, step, id=f"{fault.name}-{step}")
    for fault, told, remedy, steps in FAULTS
    for step in steps
]


@pytest.mark.parametrize(("fault", "told", "remedy", "step"), REFUSED)
def test_what_is_not_taken_ends_the_publication(world: World, fault: Vice, told: str, remedy: str, step: str) -> None:
    of_it, prefix, method = STEPS[step]
    it = world.parts.digests[step.partition(",")[0]]
    before = named(world.place)

    code, said = world.publish(fault.where(lambda asked: of_it(asked, it)))

    message = told if told.startswith("HOST") else f"{prefix}: {told}"
    assert said == (
        "failed  HOST/own/tools:codex-fedora-2.0, latest not moved\n"
        f"  {message.format(it=it, method=method)}\n  {remedy}\n"
    )
    assert code == 1
    assert world.holes == []
    assert named(world.place).items() >= before.items()
    assert ("codex-fedora-2.0" in named(world.place)) == (step == "version" and fault.name.endswith("taken"))
    writes = world.writes()
    assert [one.vice for one in writes if one.vice] == [fault.name]  # it was sent once
    assert writes[-1].vice == fault.name  # and nothing after it


@dataclass(frozen=True)
class Row:
    """vice: on: which requests, given what there is to publish. told: the problem, whole, `{amd64}` and so on filled in."""

    name: str
    vice: Vice
    on: Callable[[Asked, Mapping[str, str]], bool]
    told: str


def reads(name: str) -> Callable[[Asked, Mapping[str, str]], bool]:
    return lambda asked, digests: asked.method == "GET" and asked.reference == digests[name]


def asks_for(name: str) -> Callable[[Asked, Mapping[str, str]], bool]:
    return lambda asked, digests: asked.method == "HEAD" and asked.reference == digests[name]


def writes(step: str) -> Callable[[Asked, Mapping[str, str]], bool]:
    return lambda asked, digests: STEPS[step][0](asked, digests[step.partition(",")[0]])


def takes_as_another() -> Vice:
    """Keeps what is pushed, and states another digest."""

    def does(occasion: Occasion) -> Answer:
        honest = occasion.honest()
        return replace(honest, headers={**honest.headers, "Docker-Content-Digest": ELSEWHERE})

    return Vice(name="takes_as_another", does=does)


def wants_it_at(location: str) -> Vice:
    return vices.answers(202, headers={"Location": location} if location else {})


BACK = "HOST/own/tools@{%s} was pushed and cannot be read back\n  Try again later."
ASKED = "HOST/own/tools was asked for {%s}: %s"
READ_BACK = (
    vices.answers_404_as_json(),
    vices.answers_404_as_html(),
    vices.serves_other_bytes(),
    vices.serves_a_login_page(),
    vices.refuses(403),
)
ROWS = (
    *(
        Row(
            f"{one} taken as another",
            takes_as_another(),
            writes(one),
            f"{what} was taken as '{ELSEWHERE}', which is not what was sent",
        )
        for one, what in {
            "amd64": "HOST/own/tools@{amd64}",
            "arm64": "HOST/own/tools@{arm64}",
            "index": "HOST/own/tools@{index}",
            "version": "HOST/own/tools:{version}",
        }.items()
    ),
    *(
        Row(f"{one} read back: {vice.name}", vice, reads(one), BACK % one.partition("'")[0])
        for vice in READ_BACK
        for one in ("amd64", "arm64", "amd64's configuration", "arm64's configuration")
    ),
    Row("arm64 read back: resets", vices.resets(), reads("arm64"), BACK % "arm64"),
    Row(
        "layer asked for: 403", vices.refuses(403), asks_for("layer"), (ASKED % ("layer", "status 403")) + f"\n  {WHO}"
    ),
    Row(
        "layer asked for: 503",
        vices.is_overloaded(503, "600"),
        asks_for("layer"),
        (ASKED % ("layer", "status 503")) + f"\n  {AGAIN}",
    ),
    Row(
        "layer confirmed and lost",
        vices.answers(201),
        writes("layer"),
        "HOST/own/tools@{amd64} was not taken: status 400 MANIFEST_BLOB_UNKNOWN, "
        "'the manifest names content that is not in this repository: sha256:c0cbeef90a0604…'\n  " + ADDRESS,
    ),
    Row(
        "upload elsewhere",
        wants_it_at("http://127.0.0.2:9/u"),
        writes("layer, its upload"),
        "HOST/own/tools wants the upload on another host: 'http://127.0.0.2:9/u'",
    ),
    Row(
        "upload nowhere",
        wants_it_at(""),
        writes("layer, its upload"),
        f"HOST/own/tools refuses an upload: status 202\n  {ADDRESS}",
    ),
    Row(  # seconds: it is the checks that find it
        "version read back: 404",
        vices.answers_404_as_json(),
        reads("version"),
        "the checks do not hold: listed-but-missing: HOST/own/tools lists the tag and answers MANIFEST_UNKNOWN for it",
    ),
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_what_cannot_be_read_back_as_it_was_sent_gets_no_tag(world: World, row: Row) -> None:
    digests = world.parts.digests
    before = named(world.place)
    code, said = world.publish(row.vice.where(lambda asked: row.on(asked, digests)))
    assert said == f"failed  HOST/own/tools:codex-fedora-2.0, latest not moved\n  {row.told.format(**digests)}\n"
    assert code == 1
    assert world.holes == []
    assert named(world.place).items() >= before.items()


# Publications that go on


def test_a_token_at_its_end_in_the_middle_of_an_upload_is_renewed(parts: Parts, tmp_path: Path) -> None:
    login = Bearer(uses=2)
    with _opened(parts, tmp_path, login) as registry:
        world = World(tmp_path, registry, parts)
        auth = tmp_path / "auth.json"
        auth.write_text(json.dumps({"auths": {registry.address: {"auth": login.encoded}}}))
        with world.client(auth) as client:
            assert move_latest(client, push(client, world.work)) == "moved"
        assert set(readers_see(world.place).values()) == {WHOLE}
        refused = [one.kind for one in world.writes() if one.status == 401]
        done = [(one.method, one.target) for one in world.writes() if one.status != 401]
        assert {"upload", "push"} <= set(refused)
        assert [one for one in done if done.count(one) > 1 and not one[1].endswith("/uploads/")] == []
        assert [one for one in world.registry.log if one.kind == "token" and one.status != 200] == []


def test_a_token_server_that_ends_in_the_middle_ends_the_publication(parts: Parts, tmp_path: Path) -> None:
    login = Bearer(uses=2)
    with _opened(parts, tmp_path, login) as registry:
        world = World(tmp_path, registry, parts)
        before = named(world.place)
        to_push = vices.answers(401).on("token").where(lambda asked: "push" in asked.target)
        registry.becomes(replace(to_push, does=lambda occasion: occasion.honest()).times(3), to_push)
        auth = tmp_path / "auth.json"
        auth.write_text(json.dumps({"auths": {registry.address: {"auth": login.encoded}}}))
        with world.client(auth) as client, pytest.raises(Failed) as error:
            push(client, world.work)
        assert str(error.value) == (f"{registry.address} did not answer a PUT: the token server: status 401\n  {WHO}")
        assert named(world.place).items() >= before.items()
        assert "codex-fedora-2.0" not in named(world.place)


ALL_THE_SAME = "HOST/own/tools:codex-fedora-latest names the new image all the same"
LATEST: list[tuple[str, list[Vice], str, str]] = [
    # what happens to the PUT of `latest`, what the registry does, what is said, what is known of `latest`
    (
        "refused",
        [vices.answers(503).on("push")],
        "HOST/own/tools:codex-fedora-latest was not taken: status 503",
        "not moved",
    ),
    (
        "taken, and 503",
        [after(vices.answers(503)).on("push")],
        f"HOST/own/tools:codex-fedora-latest was not taken: status 503; {ALL_THE_SAME}",
        "moved",
    ),
    (
        "taken, and reset",
        [after(vices.resets()).on("push")],
        f"HOST did not answer a PUT: connection reset; {ALL_THE_SAME}",
        "moved",
    ),
    (
        "reset, and nothing to be read",
        [vices.resets().on("push"), vices.refuses(403).on("index").where(lambda asked: asked.number > 3)],
        "HOST did not answer a PUT: connection reset; nobody knows what HOST/own/tools:codex-fedora-latest names now",
        "unknown",
    ),
    (
        "taken, and nothing to be read",
        [vices.refuses(403).on("index").where(lambda asked: asked.number > 3)],
        "HOST/own/tools:codex-fedora-latest cannot be read after it was moved: status 403 DENIED, 'denied'",
        "unknown",
    ),
]


@pytest.mark.parametrize(("vice", "told", "latest"), [row[1:] for row in LATEST], ids=[row[0] for row in LATEST])
def test_a_move_of_latest_that_is_not_confirmed_is_looked_at_and_not_repeated(
    world: World, vice: list[Vice], told: str, latest: str
) -> None:
    with world.client() as client:
        pushed = push(client, world.work)
        world.registry.becomes(*vice)
        with pytest.raises(Unconfirmed) as error:
            move_latest(client, pushed)
    assert error.value.reason.replace(world.registry.address, "HOST") == told
    assert error.value.latest == latest
    assert [one.reference for one in world.writes()] == ["codex-fedora-latest"]  # told once
    assert set(readers_see(world.place).values()) == {WHOLE}


def test_a_move_of_latest_that_was_made_and_not_confirmed_is_no_success(world: World) -> None:
    code, said = world.publish(after(vices.answers(503)).where(lambda asked: _puts(asked, "codex-fedora-latest")))
    assert said == (
        "failed  HOST/own/tools:codex-fedora-2.0, latest moved\n"
        f"  HOST/own/tools:codex-fedora-latest was not taken: status 503; {ALL_THE_SAME}\n  Run the checks again.\n"
    )
    assert code == 1
    assert world.holes == []
    assert named(world.place)["codex-fedora-latest"] == named(world.place)["codex-fedora-2.0"]


# Nothing but a look

DRY: dict[str, list[list[str]]] = {
    "init": [["init", "--dry-run"]],
    "new tool": [["new", "tool", "mine", "--npm", "mine", "--dry-run"]],
    "plan": [["plan", "--dry-run"], ["plan", "--dry-run", "--json"]],
    "build": [
        ["build", "--push", "--dry-run"],
        ["build", "--tool", "codex", "--base", "fedora", "--push", "--dry-run"],
        ["build", "--target", "codex-fedora", "--dry-run", "--json"],
    ],
    "publish": [
        [
            "publish",
            "codex-fedora",
            "--version",
            "2.0",
            "--layout",
            ".imagewright/images/codex-fedora",
            *more,
            "--dry-run",
        ]
        for more in ([], ["--tags"], ["--tags", "--json"])
    ],
}


def _commands(group: click.Group) -> Iterator[tuple[str, click.Command]]:
    """Every command by its words."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from ((f"{name} {rest}", one) for rest, one in _commands(command))
        elif command:
            yield name, command


def test_a_dry_run_writes_nothing_into_a_registry(world: World) -> None:
    writes_there = {name for name, one in _commands(main) if any(it.name == "dry_run" for it in one.params)} - {
        "dispatch"
    }
    assert writes_there == set(DRY)  # what `dispatch` writes is on the forge, and tests/test_dispatch.py sees to that
    project = world.root / "project"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTEST_ADDOPTS", raising=False)
        checked = subprocess.run([sys.executable, *CHECKS], cwd=project, capture_output=True, check=False)
    assert checked.returncode == 1
    assert world.call("plan")[0] == 10
    world.registry.becomes()
    before = named(world.place)

    for arguments in [one for verb in DRY.values() for one in verb]:
        code, said = world.call(*arguments)
        assert code in (0, 10), f"{arguments}: {said}"
    assert world.registry.log
    assert world.writes() == []
    assert named(world.place) == before
