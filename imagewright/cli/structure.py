"""container-structure-test on what was built: `test.yaml` beside a tool's or image's recipe says what must be in it.

https://github.com/GoogleContainerTools/container-structure-test
"""

import json
import secrets
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from imagewright import containers, process
from imagewright.catalogue import Target
from imagewright.cli.local import archived
from imagewright.errors import BadCatalogue, BuildFailed
from imagewright.names import Platform, shown

FILE = "test.yaml"
_PROGRAM = "container-structure-test"
_COMMANDS = "commandTests"
_SECONDS = 300.0
_SHOWN_LINES = 12


def try_structure(
    target: Target,
    layout: Path,
    platforms: tuple[Platform, ...],
    environ: Mapping[str, str],
    say: Callable[[str], None],
) -> None:
    """Tests the image of each platform. Commands in it are run by docker alone, and on docker's own platform.

    say: is told each result, and what could not be run. `BuildFailed` where a test fails.
    """
    file = target.source.folder / FILE
    if not file.is_file():
        return
    program = shutil.which(_PROGRAM, path=f"{environ.get('PATH', '')}:{Path(sys.executable).parent}")
    if program is None:
        raise BuildFailed(
            f"{target.key}: {FILE} wants {_PROGRAM}, which is not installed",
            remedy=f"Install it: pip install {_PROGRAM}.",
            where=str(file),
        )
    tests = _read(file)
    found = containers.find(environ) if _COMMANDS in tests else ""
    docker = found if isinstance(found, containers.Engine) and found.name == "docker" else None
    trial = _Trial(key=target.key, program=program, file=file, tests=tests, environ=environ, say=say)
    for platform in platforms:
        name = f"imagewright-{secrets.token_hex(8)}:test"
        with archived(layout, platform, name) as archive:
            if docker and docker.platform == platform.normalised():
                trial.in_docker(docker, platform, name, archive)
            else:
                trial.in_archive(platform, archive)


def _read(file: Path) -> Mapping[str, object]:
    try:
        tests = yaml.safe_load(file.read_bytes())
    except yaml.YAMLError as error:
        raise BadCatalogue(f"not YAML: {' '.join(str(error).split())}", where=str(file)) from None
    if not isinstance(tests, dict):
        raise BadCatalogue("container-structure-test wants a table here, with `schemaVersion`", where=str(file))
    return tests


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """One file of tests, on one target."""

    key: str
    program: str
    file: Path
    tests: Mapping[str, object]
    environ: Mapping[str, str]
    say: Callable[[str], None]

    def in_docker(self, docker: containers.Engine, platform: Platform, name: str, archive: Path) -> None:
        """With all tests, in an image that docker has for that long."""
        if why := containers.load(docker, archive):
            raise BuildFailed(f"{self.key}: {FILE} cannot be tried: {why}", where=str(self.file))
        try:
            self._run(platform, "--driver", "docker", "--image", name, "--config", str(self.file))
        finally:
            containers.forget(docker, name)

    def in_archive(self, platform: Platform, archive: Path) -> None:
        """Without the tests that run commands."""
        config = archive.with_name(FILE)
        config.write_text(yaml.safe_dump({key: one for key, one in self.tests.items() if key != _COMMANDS}))
        self._run(platform, "--driver", "tar", "--image", str(archive), "--config", str(config))
        if _COMMANDS in self.tests:
            self.say(f"{platform}: {_COMMANDS} of {FILE} are not run: they need docker, on its own platform")

    def _run(self, platform: Platform, *options: str) -> None:
        argv = [self.program, "test", "--output", "json", *options]
        ended = process.run(argv, timeout=_SECONDS, env=self.environ)
        try:
            told = json.loads(ended.stdout)
            failed = [f"{one['Name']}: {', '.join(one['Errors'] or ())}" for one in told["Results"] if not one["Pass"]]
            count = int(told["Total"])
        except (ValueError, KeyError, TypeError):
            last = ended.stderr.decode("utf-8", "replace").strip().split("\n")[-1]
            how = f"did not end within {_SECONDS:.0f} s" if ended.timed_out else f"says {shown(last, 200)}"
            raise BuildFailed(f"{self.key}: {_PROGRAM} {how} on {platform}", where=str(self.file)) from None
        if failed or ended.status != 0:
            lines = "".join(f"\n    {shown(one, 200)[1:-1]}" for one in failed[:_SHOWN_LINES])
            raise BuildFailed(
                f"{self.key}: {len(failed)} of {count} tests of {FILE} fail on {platform}{lines}", where=str(self.file)
            )
        self.say(f"{platform}: {count} {'test' if count == 1 else 'tests'} of {FILE} passed")
