"""`imagewright explain`."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from imagewright import report, snapshot, suite
from imagewright.catalogue import Catalogue, Tool
from imagewright.cli import Place
from imagewright.cli.jobs import named
from imagewright.errors import BadCatalogue, BadReport, Exit, ImagewrightError, Unanswered, Usage
from imagewright.load import load_catalogue
from imagewright.render import explanation
from imagewright.report import Record, Report
from imagewright.state import DEFAULT, REPORT, SNAPSHOT, StateFolder
from imagewright.verdict import Finding, State, reason_texts

_Known = tuple[Report, bytes, snapshot.Snapshot | None]
"""A report, the file that it was read from, and what was seen, if that was kept."""

_NAMES = 8
_EXITS = {State.FRESH: Exit.DONE, State.STALE: Exit.STALE, State.UNKNOWN: Exit.UNKNOWN}


@click.command()
@click.argument("target")
@click.option("--fresh", is_flag=True, help="Ask the registry anew instead of reading the last report.")
@click.option("--json", "as_json", is_flag=True, help="Print record, findings and observation as JSON.")
@click.pass_obj
def explain(place: Place, target: str, fresh: bool, as_json: bool) -> int:
    """Tell everything known about one target: what was seen, by which rule it was judged, and the verdict.

    \b
    imagewright explain codex-fedora
    imagewright explain codex-fedora --fresh
    """
    catalogue = load_catalogue(place.root, place.environ)
    found, content, seen = _asked_now(place, catalogue, target) if fresh else _last(place.root / DEFAULT)
    record = found.record(target)
    if record is None:
        raise _not_in(found, target)
    if fresh and record.since:  # who asks now does not make it younger
        known = StateFolder(place.root / DEFAULT).since()
        record = replace(record, since=known.get(target, record.since))
    findings = report.findings(content, target)
    if as_json:
        click.echo(_as_json(content, record, findings, seen))
    else:
        for line in explanation(record, findings, _promises(place.root), seen, found):
            click.secho(line.text, fg=line.colour or None)
    return _EXITS[record.state]


def _promises(root: Path) -> dict[str, str]:
    try:
        return suite.promises(root)
    except SyntaxError as error:
        raise BadCatalogue(f"not Python: {error.msg}", where=f"{error.filename}:{error.lineno}") from None


def _asked_now(place: Place, catalogue: Catalogue, target: str) -> _Known:
    named(catalogue, target)  # refuses what nobody has heard of
    tools = [tool for tool in catalogue.tools if target.startswith(f"{tool.name}-")]
    chosen = [f"--target={target}"] if catalogue.image(target) else [f"--tool={tool.name}" for tool in tools]
    for tool in tools:
        _refuse_excluded(tool, target.removeprefix(f"{tool.name}-"), target)
    with TemporaryDirectory(prefix="imagewright-explain-") as scratch:
        folder = Path(scratch)
        found, content = suite.run(place.root, chosen, place.environ, folder)
        return found, content, _snapshot(folder / SNAPSHOT)


def _refuse_excluded(tool: Tool, base: str, target: str) -> None:
    """Where nothing else is selected the checks would have nothing to say."""
    because = "may not be redistributed" if not tool.redistributable else tool.exclude_bases.get(base)
    if because:
        raise Usage(f"'{target}' is excluded: {because}")


def _last(folder: Path) -> _Known:
    file = folder / REPORT
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BadReport(
            f"there is no report: {error.strerror}",
            remedy="Run `pytest checks/` first, or ask now with --fresh.",
            where=str(file),
        ) from None
    return report.parse(content, str(file)), content, _snapshot(folder / SNAPSHOT)


def _not_in(found: Report, target: str) -> ImagewrightError:
    """Why a report says nothing about a target."""
    if nobody := found.record(report.NO_BASES):
        return Unanswered(f"the bases could not be listed: {'; '.join(reason_texts(nobody.reasons))}")
    if target in found.partial:
        return Usage(
            f"the report has no verdict about '{target}': it was asked only some of the checks",
            remedy="Run `pytest checks/`, or ask now with --fresh.",
        )
    excluded = next((one["because"] for one in found.excluded if one["target"] == target), None)
    if excluded:
        return Usage(f"'{target}' is excluded: {excluded}")
    known = ", ".join(found.expected[:_NAMES]) + (", …" if len(found.expected) > _NAMES else "")
    return Usage(f"the report has no target '{target}'", remedy=f"It has {known}.")


def _snapshot(file: Path) -> snapshot.Snapshot | None:
    try:
        return snapshot.load(file.read_bytes(), str(file))
    except OSError:  # explained without observations
        return None


def _as_json(content: bytes, record: Record, findings: Sequence[Finding], seen: snapshot.Snapshot | None) -> str:
    section = json.loads(content)[report.SECTION]
    observed = json.loads("".join(snapshot.dump(seen))) if seen else {"targets": [], "bases": []}
    (members,) = _named(section["verdicts"], "target", record.target)
    looked = next(_named(observed["targets"], "target", record.target), None)
    return json.dumps(
        {
            "schema": 1,
            "record": members | {"since": record.since},
            "findings": [one.as_json() for one in findings],
            "observed": looked,
            "base": next(_named(observed["bases"], "name", looked["base"]), None) if looked else None,
        }
    )


def _named(members: list[dict[str, object]], key: str, value: object) -> Iterator[dict[str, object]]:
    return (one for one in members if one[key] == value)
