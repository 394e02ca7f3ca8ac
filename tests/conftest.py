"""Engine tests run where the engines are. Elsewhere the summary says which did not run, and what would let them."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in its background so, and children would inherit it: Ctrl-C could not be tested.
    signal.signal(signal.SIGINT, signal.default_int_handler)

NOT_RUN = "needs "
"""How the reason of a test that a machine cannot run begins; the summary has a line for each such reason."""

PROOF = Path(__file__).parent / "proof"
"""The long proofs."""

# In a fresh clone the first draw of a text builds a table, and a busy machine is slow at any time: neither is a fault.
settings.register_profile("imagewright", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("imagewright")


def pytest_configure(config: pytest.Config) -> None:
    if worker := getattr(config, "workerinput", None):
        # A registry and its client are threads of one process here. On several processors they pass the interpreter's
        # lock to and fro, which takes most of their time (https://bugs.python.org/issue7946).
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker["workerid"].removeprefix("gw")) % len(cores)]})


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--engines",
        choices=("auto", "required", "off"),
        default="auto",
        help="tests with a real registry and BuildKit: run where scripts/setup-engines has been (auto, the default), "
        "fail where it has not (required), leave out (off); the summary names those that did not run",
    )
    parser.addoption("--proof", action="store_true", help="collect the long proofs in tests/proof as well")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if collection_path.is_relative_to(PROOF) and not config.getoption("--proof") else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(120))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    not_run: dict[str, list[str]] = {}
    for test, reason in _skipped(terminalreporter):
        if reason.startswith(NOT_RUN):
            not_run.setdefault(reason.removeprefix(NOT_RUN), []).append(test)
    for reason, tests in not_run.items():
        count = "1 test needs" if len(tests) == 1 else f"{len(tests)} tests need"
        terminalreporter.section("tests that did not run", yellow=True)
        terminalreporter.write_line(f"not run: {count} {reason}")
        for test in tests:
            terminalreporter.write_line(f"  {test}")


def _skipped(terminalreporter: pytest.TerminalReporter) -> Iterator[tuple[str, str]]:
    for report in terminalreporter.stats.get("skipped", ()):
        if isinstance(report, pytest.TestReport) and isinstance(report.longrepr, tuple):
            yield report.nodeid, report.longrepr[2].removeprefix("Skipped: ")
