"""What `imagewright build` is to do: from a plan, or from the name of one target."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from imagewright import plan as plans
from imagewright.catalogue import Catalogue, Pair, Target
from imagewright.cli.clock import now, refuse_old
from imagewright.errors import BadReport, Failed, Usage
from imagewright.names import BadName, Platform, Reference, digest_of, parse_digest, shown
from imagewright.registry.client import Client
from imagewright.snapshot import Missing, Observation, Published, Unreachable
from imagewright.survey import look_at
from imagewright.versions import Readings


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One thing to do: build a target on a base, or only see to its `latest`. base: by digest; None for scratch.

    platforms: only these of the target's; all of them where it is empty.
    """

    target: Target
    version: str
    base: Reference | None
    action: plans.Action = "build"
    platforms: tuple[Platform, ...] = ()

    def required(self, base: Observation | None) -> tuple[Platform, ...]:
        """The platforms to build, from what is seen of its base. `Failed` where that, or a platform named, is not there."""
        if self.base is None:
            whole = self.target.declared
        elif isinstance(base, Published):
            whole = self.target.required(base.platforms)
        else:
            why = base.detail if isinstance(base, Unreachable) else "it is not there"
            raise Failed(f"the base {self.base} cannot be read: {why}", remedy="Make a new plan.")
        if strange := [str(one) for one in self.platforms if one not in whole]:
            raise Failed(
                f"{self.target.key} is not for {', '.join(strange)}",
                remedy=f"It is for {', '.join(map(str, whole)) or 'no platform'}.",
            )
        return tuple(one for one in whole if one in self.platforms or not self.platforms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """A target that is built on another one, once that is published. waits_for: its key."""

    target: Target
    version: str
    waits_for: str

    def on(self, base: Reference) -> Job:
        """The job, once there is a base for it."""
        return Job(target=self.target, version=self.version, base=base)


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobs:
    """What can be done at once, and what follows from it."""

    now: tuple[Job, ...]
    later: tuple[Later, ...] = ()


def planned(catalogue: Catalogue, file: Path, max_age: int) -> Jobs:
    """What a plan asks for. `BadReport` where it is none, is older than `max_age` seconds, or of another catalogue."""
    made, _ = read_plan(catalogue, file, max_age)
    return jobs_of(catalogue, made, file)


def read_plan(catalogue: Catalogue, file: Path, max_age: int) -> tuple[plans.Plan, str]:
    """A plan, and the digest of its file. `BadReport` as `planned`."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BadReport(
            f"there is no plan: {error.strerror}", remedy="Make one: `imagewright plan`.", where=str(file)
        ) from None
    made = plans.parse(content, str(file))
    refuse_old(made.created, now(), max_age, what="the plan", where=str(file))
    if made.catalogue != catalogue.hash:
        raise BadReport(
            "settings, tools/ or images/ have changed since the plan",
            remedy="Run `pytest checks/` and `imagewright plan` again.",
            where=str(file),
        )
    return made, digest_of(content)


def jobs_of(catalogue: Catalogue, made: plans.Plan, file: Path) -> Jobs:
    """What a plan asks for. `BadReport` where it names what cannot be a target of this catalogue."""
    asked = {one.target for one in made.builds}
    waiting = [one for one in made.deferrals if isinstance(one, plans.Waiting)]
    return Jobs(
        now=tuple(_job(catalogue, one, file) for one in made.builds),
        later=tuple(_later(catalogue, one, file) for one in waiting if _leads_to(one, asked, waiting)),
    )


def _leads_to(one: plans.Waiting, asked: set[str], waiting: Iterable[plans.Waiting]) -> bool:
    """Whether what it waits for is built in this plan, or waits itself for what is."""
    above = next((other for other in waiting if other.target == one.waits_for), None)
    return one.waits_for in asked or (above is not None and _leads_to(above, asked, waiting))


def _job(catalogue: Catalogue, build: plans.Build, file: Path) -> Job:
    with _part_of(file, build.target):
        target = _target(catalogue, build.target, build.tool, build.base)
        target.tagged(build.version)
        base = target.base.reference.repository.at(parse_digest(build.base_digest)) if target.base else None
        return Job(target=target, version=build.version, base=base, action=build.action)


def _later(catalogue: Catalogue, waiting: plans.Waiting, file: Path) -> Later:
    with _part_of(file, waiting.target):
        target = _target(catalogue, waiting.target, waiting.tool, waiting.base)
        target.tagged(waiting.version)
        return Later(target=target, version=waiting.version, waits_for=waiting.waits_for)


@contextmanager
def _part_of(file: Path, key: str) -> Iterator[None]:
    try:
        yield
    except BadName as error:
        raise BadReport(
            f"not a plan: {key}: {error}", remedy="Make a new one: `imagewright plan`.", where=str(file)
        ) from None


def _target(catalogue: Catalogue, key: str, tool: str | None, base: str | None) -> Target:
    if tool is None or base is None:
        image = catalogue.image(key)
        if image is None:
            raise BadName("there is no such image")
        return catalogue.standalone(image)
    found = catalogue.tool(tool)
    if found is None:
        raise BadName(f"there is no tool {shown(tool)}")
    return catalogue.pair(found, base)


def named(catalogue: Catalogue, key: str) -> Target:
    """The target of that key, whatever bases there are. `Usage` where there cannot be one."""
    try:
        found = catalogue.find(key)
    except BadName as error:
        raise Usage(str(error)) from None
    if found is None:
        known = _some([*(one.name for one in catalogue.images), *(f"{one.name}-<base>" for one in catalogue.tools)])
        raise Usage(f"there is no target '{key}'", remedy=f"There are {known}.")
    return found


def paired(catalogue: Catalogue, tool: str, base: str) -> Pair:
    """That tool on that base. `Usage` where there is no such tool, or a name is none."""
    found = catalogue.tool(tool)
    if found is None:
        raise Usage(f"there is no tool '{tool}'", remedy=f"There are {_some([one.name for one in catalogue.tools])}.")
    try:
        return catalogue.pair(found, base)
    except BadName as error:
        raise Usage(str(error)) from None


def _some(names: Sequence[str], limit: int = 12) -> str:
    return ", ".join(names[:limit]) + (" and more" if len(names) > limit else "")


def single(
    target: Target,
    version: str | None,
    client: Client,
    readings: Readings,
    *,
    base_digest: str | None = None,
    platforms: tuple[Platform, ...] = (),
) -> Job:
    """One target. version: by default what its `version.sh` or image.yml says. base_digest: of its base, today's by default.

    platforms: as in `Job`.
    """
    if version is None:
        version = _version(target, readings)
    try:
        target.tagged(version)
    except BadName as error:
        raise Usage(str(error)) from None
    return Job(target=target, version=version, base=base_at(client, target, base_digest), platforms=platforms)


def _version(target: Target, readings: Readings) -> str:
    if not isinstance(target, Pair):
        return target.image.version
    (reading,) = readings.results([target.tool])
    if reading.version is None:
        raise Failed(f"the version of {reading.tool} is unknown: {reading.detail}", remedy="Name it with --version.")
    return reading.version


def base_at(client: Client, target: Target, digest: str | None) -> Reference | None:
    """The target's base by that digest, or by today's; None for an image from scratch. `Failed`, `Usage`."""
    if digest is None or target.base is None:
        return base_today(client, target)
    try:
        return target.base.reference.repository.at(parse_digest(digest))
    except BadName as error:
        raise Usage(str(error)) from None


def base_today(client: Client, target: Target) -> Reference | None:
    """The target's base by the digest that is published now; None for an image from scratch. `Failed`."""
    if target.base is None:
        return None
    reference = target.base.reference
    seen = look_at(client, [reference])[reference]
    if isinstance(seen, Published):
        return reference.repository.at(seen.digest)
    why = f"it is not there ({seen.code})" if isinstance(seen, Missing) else seen.detail
    raise Failed(f"the base {reference} cannot be read: {why}")
