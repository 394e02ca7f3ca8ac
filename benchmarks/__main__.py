"""The benchmark; `scripts/bench` is its door and makes the environment that is measured.

    python -m benchmarks [--small] [--rounds N] [--json FILE] [--write]

Progress goes to stderr; the tables and, as the last line, the verdict on request counts and ratios to stdout. It ends with 1
where that is not good.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import large, report, small
from benchmarks.measure import Failed, Measured
from benchmarks.site import Programs

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "benchmarks" / "reference.json"
PAGE = ROOT / "docs" / "performance.md"
SETUP = ROOT / "scripts" / "setup-engines"


def main() -> int:
    """Measures, prints, writes what is to be written; the exit code."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="imagewright-bench-") as name:
        folder = Path(name)
        programs = _programs(folder)
        builds = subprocess.run([SETUP, "--check"], check=False, capture_output=True).returncode == 0
        few = small.measure(
            folder, programs, rounds=2 if options.small else options.rounds, thorough=not options.small, builds=builds
        )
        many = None
        if not options.small:
            of_few = next(iter(few.measured.values()))["warm"]
            many = large.measure(folder, programs, rounds=options.rounds, few=of_few, builds=builds)
    if options.write:
        REFERENCE.write_text(
            json.dumps({one.name: round(one.value, 4) for one in few.ratios}, indent=2, ensure_ascii=False) + "\n"
        )
    reference = json.loads(REFERENCE.read_text()) if REFERENCE.exists() else {}
    few = replace(few, ratios=[replace(one, reference=reference.get(one.name)) for one in few.ratios])
    if many:
        few = replace(few, counts=[*few.counts, *many.counts])
    document = _document(few, many)
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    if options.write:
        PAGE.write_text(report.page(document))
    line, good = small.verdict(few)
    print(report.text(document))
    for one in document["not_measured"]:
        print(f"not measured: {one}")
    if many:
        bounds = [one.met for one in many.lines if one.met is not None]
        line += f"; {sum(bounds)} of {len(bounds)} bounds met"
    print(line)
    return 0 if good else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="What imagewright takes, and what others take.")
    parser.add_argument("--small", action="store_true", help="counts and ratios only, in under 45 seconds")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds of the whole comparison; 3")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures there")
    parser.add_argument(
        "--write", action="store_true", help="also write docs/performance.md and benchmarks/reference.json"
    )
    options = parser.parse_args()
    if options.small and options.write:
        parser.error("--write takes the whole comparison")
    return options


def _programs(folder: Path) -> Programs:
    """Nothing of the caller's environment comes along, and no configuration of the caller's."""
    where = subprocess.run([SETUP, "--where"], check=True, capture_output=True, text=True).stdout.strip()
    here = Path(sys.executable).parent
    home = folder / "home"
    home.mkdir()
    path = f"{here}:{where}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return Programs(bin=here, env={"PATH": path, "HOME": str(home), "LANG": "C.UTF-8", "TMPDIR": str(folder)})


def _document(few: small.Part, many: large.Part | None) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),  # noqa: TID251 - a program of its own, and its own clock
        "machine": _machine(),
        "lines": [asdict(one) for one in many.lines] if many else [],
        "rivals": [asdict(one) for one in many.rivals] if many else [],
        "growth": [asdict(one) for one in many.growth] if many else [],
        "counts": [{**asdict(one), "exact": one.exact} for one in few.counts],
        "ratios": [asdict(one) for one in few.ratios],
        "others": few.others,
        "profile": many.profile if many else {},
        "forge": many.forge if many else [],
        "not_measured": list(dict.fromkeys([*few.not_measured, *(many.not_measured if many else ())])),
        "measured": {**_rounds(few.measured), **(_rounds(many.measured) if many else {})},
    }


def _rounds(measured: Mapping[str, Mapping[str, Measured]]) -> dict[str, Any]:
    return {
        world: {
            way: [
                {
                    "seconds": round(one.seconds, 3),
                    "cpu": round(one.cpu, 3),
                    "mebibytes": round(one.mebibytes, 1),
                    "asked": dict(one.asked),
                }
                for one in each.rounds
            ]
            for way, each in ways.items()
        }
        for world, ways in measured.items()
    }


def _machine() -> dict[str, Any]:
    processor = next(
        (line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    kibibytes = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "memory": f"{kibibytes / 1024**2:.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as error:
        sys.exit(f"bench: {error}")
