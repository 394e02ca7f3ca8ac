"""`imagewright demo`: the whole loop, on an embedded registry in a throw-away folder."""

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from imagewright import process
from imagewright.cli import Place
from imagewright.embedded.server import Server
from imagewright.errors import Exit, Failed
from imagewright.testing.images import HttpSink, Picture, layer, push
from imagewright.testing.projects import make_project, set_version

_PLATFORMS = ("linux/amd64", "linux/arm64")
_TOOLS = {"lantern": "1.4.0", "compass": "0.9.2"}
_BASES = ("forest", "harbour", "summit")
_STEP_SECONDS = 60.0
_PROJECT_REPOSITORY, _BASE_REPOSITORY = "own/tools", "own/bases"


@click.command()
@click.pass_obj
def demo(place: Place) -> int:
    """See the whole loop: nothing published, plan, build, verify; then things rot, and it mends exactly them.

    No root, no container engine, no network. Everything is gone afterwards.
    """
    began = time.monotonic()
    with TemporaryDirectory(prefix="imagewright-demo-") as scratch, Server(Path(scratch) / "registry") as server:
        story = _Story(Path(scratch) / "project", server.address, place.environ)
        story.tell()
    click.secho(
        f"\nSeen in {time.monotonic() - began:.0f} s: the checks planned, the builds followed, "
        "the same checks verified.\n",
        bold=True,
    )
    click.echo("Try next, in your own project (settings: docs/settings.md):")
    click.echo("  pytest checks/                  what rots, and why")
    click.echo("  imagewright plan                which builds that asks for")
    click.echo("  imagewright explain TOOL-BASE   everything known about one of them")
    return Exit.DONE


class _Story:
    """A project, its registry, and what happens to them. Each step says what it expects and stops if it is not so."""

    def __init__(self, project: Path, registry: str, environ: dict[str, str]) -> None:
        self._project = project
        self._sink = HttpSink(registry)
        self._environ = {name: value for name, value in environ.items() if not name.startswith("IMAGEWRIGHT_")}
        for base in _BASES:
            self._push_base(base, "2026-01")
        make_project(project, registry=registry, tools=_TOOLS, platforms=_PLATFORMS)

    def tell(self) -> None:
        """The story, step by step."""
        pairs = sorted(f"{tool}-{base}" for tool in _TOOLS for base in _BASES)
        self._chapter(f"{len(_TOOLS)} tools on {len(_BASES)} bases, two platforms each; nothing is published yet")
        self._checks(stale=pairs)
        self._plan_and_build()
        self._checks(stale=[])

        self._chapter("The base harbour is rebuilt: a layer in its middle changes, its last layer stays")
        self._push_base("harbour", "2026-02")
        click.echo("compass has a release, 0.10.0")
        set_version(self._project, "compass", "0.10.0")
        click.echo("and linux/arm64 of lantern-summit vanishes from the registry")
        self._delete_platform("lantern-summit-1.4.0")
        click.echo("(a platform that is gone is noticed once a day, and by --fresh at once)\n")
        self._checks(
            "--fresh", stale=sorted({"lantern-harbour", "lantern-summit", *(f"compass-{base}" for base in _BASES)})
        )
        self._command("imagewright", "explain", "lantern-harbour", expect=Exit.STALE)
        self._plan_and_build()
        self._checks(stale=[])

    def _push_base(self, name: str, month: str) -> None:
        last = layer({"entrypoint": "the same in every build"})
        pictures = {
            platform: Picture(
                steps=[layer({"etc/base": name}), layer({"etc/month": f"{month} {platform}"}), "ENV LANG=C.UTF-8", last]
            )
            for platform in _PLATFORMS
        }
        push(self._sink, _BASE_REPOSITORY, [f"{name}-latest"], pictures)

    def _delete_platform(self, tag: str) -> None:
        self._sink.delete(_PROJECT_REPOSITORY, self._sink.children(_PROJECT_REPOSITORY, tag)["linux/arm64"])

    def _plan_and_build(self) -> None:
        self._command("imagewright", "plan", expect=Exit.STALE)
        self._command("imagewright", "build", ".imagewright/plan.json", "--push", expect=Exit.DONE)

    def _checks(self, *options: str, stale: list[str]) -> None:
        said = self._command("pytest", "checks/", "-q", *options, expect=1 if stale else 0)
        named = sorted(line.split()[1] for line in said.splitlines() if line.startswith("✗ "))
        if named != stale:
            raise Failed(f"expected {stale or 'nothing'} to be stale, the checks named {named or 'nothing'}")

    def _command(self, program: str, *arguments: str, expect: int) -> str:
        click.secho(f"$ {' '.join((program, *arguments))}", bold=True)
        module = {"pytest": ["-m", "pytest"], "imagewright": ["-c", "from imagewright.cli import run; run()"]}
        ended = process.run(
            [sys.executable, *module[program], *arguments],
            timeout=_STEP_SECONDS,
            env=self._environ,
            cwd=self._project,
            on_line=click.echo,
        )
        click.echo()
        if ended.status != expect:
            raise Failed(f"`{program} {' '.join(arguments)}` ended with {ended.status}, expected was {expect}")
        return ended.stdout.decode()

    def _chapter(self, title: str) -> None:
        click.secho(f"\n── {title}\n", bold=True, fg="cyan")
