"""`imagewright explain`."""

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from imagewright import report, snapshot, suite
from imagewright.cli import Place
from imagewright.errors import BadReport, Exit, Usage
from imagewright.load import load_catalogue
from imagewright.render import explanation
from imagewright.state import DEFAULT, REPORT, SNAPSHOT
from imagewright.verdict import State

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
    if fresh:
        with TemporaryDirectory(prefix="imagewright-explain-") as scratch:
            folder = Path(scratch)
            chosen = [f"--tool={tool.name}" for tool in catalogue.tools if target.startswith(f"{tool.name}-")]
            found, content = suite.run(place.root, ["--fresh", *chosen], place.environ, folder)
            seen = _snapshot(folder / SNAPSHOT)
    else:
        file = place.root / DEFAULT / REPORT
        try:
            content = file.read_bytes()
        except OSError as error:
            raise BadReport(
                f"there is no report: {error.strerror}",
                remedy="Run `pytest checks/` first, or ask now with --fresh.",
                where=str(file),
            ) from None
        found = report.parse(content, str(file))
        seen = _snapshot(file.with_name(SNAPSHOT))
    record = found.record(target)
    if record is None:
        known = ", ".join(list(found.expected)[:8])
        excluded = next((one["because"] for one in found.excluded if one["target"] == target), None)
        raise Usage(
            f"'{target}' is excluded: {excluded}" if excluded else f"the report has no target '{target}'",
            remedy=f"It has {known}{', …' if len(found.expected) > 8 else ''}.",
        )
    findings = report.findings(content, target)
    if as_json:
        click.echo(_as_json(content, target, seen))
    else:
        for line in explanation(record, findings, suite.promises(place.root), seen, found):
            click.secho(line.text, fg=line.colour or None)
    return _EXITS[record.state]


def _snapshot(file: Path) -> snapshot.Snapshot | None:
    try:
        return snapshot.load(file.read_text("utf-8"), str(file))
    except OSError:  # explained without observations
        return None


def _as_json(content: bytes, target: str, seen: snapshot.Snapshot | None) -> str:
    section = json.loads(content)[report.SECTION]
    observed = json.loads(snapshot.dump(seen)) if seen else {"targets": [], "bases": []}
    (record,) = [one for one in section["verdicts"] if one["target"] == target]
    return json.dumps(
        {
            "schema": 1,
            "record": record,
            "findings": [one.as_json() for one in report.findings(content, target)],
            "observed": next(_named(observed["targets"], "target", target), None),
            "base": next(_named(observed["bases"], "name", record["base"]), None),
        }
    )


def _named(members: list[dict[str, object]], key: str, value: str) -> Iterator[dict[str, object]]:
    return (one for one in members if one[key] == value)
