"""Fuzzes the parsers of foreign bytes, guided by coverage: `python tests/proof/fuzz.py [NAME…] [--seconds N] [--json FILE]`.

Each parser has a process of its own, as many at once as there are processors. A finding is kept in `.imagewright/findings/`;
once it is mended it belongs into the corpus, as `found-…`. Exit 1 where there is one.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.proof.parsers import CORPUS, PARSERS

HARNESS = Path(__file__).with_name("harness.py")
FINDINGS = Path(".imagewright/findings")
_STATUS = re.compile(r"^#(\d+)\s+\w+\s+cov: (\d+) ft: (\d+)", re.MULTILINE)
_LIMITS = ("-max_len=16384", "-timeout=10", "-rss_limit_mb=1024")
_GRACE = 60
FIRST = ("manifest", "config", "answer", "retry-after", "challenge", "link", "version", "tool", "report")
"""What strangers write and every verdict hangs on. The others have a tenth of the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fuzzed:
    """What became of one parser. edges: of its code, reached. findings: files with inputs that it cannot stand.

    said: why it ended early; empty where it did not.
    """

    parser: str
    executions: int
    edges: int
    features: int
    findings: tuple[str, ...]
    said: str
    seconds: float


def fuzz(name: str, seconds: int) -> Fuzzed:
    """Fuzzes one parser in a process of its own."""
    FINDINGS.mkdir(parents=True, exist_ok=True)
    before = set(FINDINGS.iterdir())
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="imagewright-fuzz-") as scratch:
        found, project = Path(scratch, "found"), Path(scratch, "project")
        found.mkdir()
        project.mkdir()
        own = (f"-max_total_time={seconds}", f"-artifact_prefix={FINDINGS}/{name}-", *_LIMITS)
        ended = subprocess.run(
            [sys.executable, HARNESS, name, project, *own, found, CORPUS / name],
            capture_output=True,
            timeout=seconds + _GRACE,
            check=False,
        )
    stderr = ended.stderr.decode("utf-8", "replace")
    status = _STATUS.findall(stderr)
    executions, edges, features = map(int, status[-1]) if status else (0, 0, 0)
    new = sorted(str(path) for path in set(FINDINGS.iterdir()) - before if path.name.startswith(f"{name}-"))
    return Fuzzed(
        parser=name,
        executions=executions,
        edges=edges,
        features=features,
        findings=tuple(new),
        said="" if ended.returncode == 0 else (ended.stdout.decode("utf-8", "replace").strip() or stderr)[-2000:],
        seconds=round(time.monotonic() - started, 1),
    )


def told(results: list[Fuzzed]) -> str:
    """The results as a table, and below it what was found."""
    lines = [f"{'parser':12} {'executions':>12} {'edges':>6} {'features':>9} {'findings':>9} {'seconds':>8}"]
    lines += [
        f"{one.parser:12} {one.executions:12,} {one.edges:6,} {one.features:9,} {len(one.findings):9} {one.seconds:8}"
        for one in results
    ]
    lines += [f"\n{one.parser}: {', '.join(one.findings) or 'ended early'}\n{one.said}" for one in results if one.said]
    return "\n".join(lines)


def main() -> int:
    """The command. Exit 1 where something was found."""
    arguments = argparse.ArgumentParser(description="Fuzzes the parsers of foreign bytes.")
    arguments.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(PARSERS)}; all by default")
    arguments.add_argument(
        "--seconds", type=int, default=20, help="for each that strangers write (%(default)s), a tenth for others"
    )
    arguments.add_argument("--json", type=Path, metavar="FILE", help="where the figures go, a line for each parser")
    asked = arguments.parse_args()
    if unknown := sorted(set(asked.names) - set(PARSERS)):
        arguments.error(f"there is no parser {', '.join(unknown)}")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        names = asked.names or sorted(PARSERS, key=lambda name: name not in FIRST)
        results = list(pool.map(lambda name: fuzz(name, asked.seconds // (1 if name in FIRST else 10)), names))
    print(told(results))
    if asked.json:
        asked.json.write_text("".join(f"{json.dumps(asdict(one))}\n" for one in results))
    return 1 if any(one.said for one in results) else 0


if __name__ == "__main__":
    sys.exit(main())
