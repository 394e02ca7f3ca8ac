"""What our report stands on in pytest, pytest-json-report and xdist: an upgrade that changes it is noticed here.

The packages alone, without our plugin: their outcomes are no evidence, and these are the ways in which they are not.
"""

import importlib.metadata
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPORT = "report.json"
PLUGINS = ("-p", "pytest_jsonreport.plugin", "-p", "pytest_metadata.plugin", "-p", "no:cacheprovider")
XDIST = ("-p", "xdist.plugin")
QUIET = ("--json-report-omit", "log", "streams", "collectors", "--json-report-indent=0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a run of pytest ended. written: the content of the report's file, None where there is none."""

    exit: int
    written: str | None
    output: str

    @property
    def report(self) -> dict[str, Any]:
        made: dict[str, Any] = json.loads(self.written or "")
        return made

    @property
    def outcomes(self) -> dict[str, str]:
        """Outcome by name of test."""
        return {one["nodeid"].partition("::")[2]: one["outcome"] for one in self.report["tests"]}

    @property
    def counts(self) -> dict[str, int]:
        return {
            name: self.report["summary"][name]
            for name in ("collected", "deselected", "total")
            if name in self.report["summary"]
        }

    def test(self, name: str) -> dict[str, Any]:
        return next(one for one in self.report["tests"] if one["nodeid"] == f"test_it.py::{name}")


Run = Callable[..., Ran]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs pytest on a file of tests. before: done in the process before it."""

    def start(source: str, *arguments: str, before: Callable[[], None] | None = None) -> Ran:
        (tmp_path / "test_it.py").write_text(source)
        plugins = (*PLUGINS, *XDIST) if "-n" in arguments else PLUGINS
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", *plugins, "--json-report", f"--json-report-file={REPORT}", *arguments],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            preexec_fn=before,
        )
        report = tmp_path / REPORT
        return Ran(exit=ended.returncode, written=report.read_text() if report.exists() else None, output=ended.stdout)

    return start


def test_the_packages_are_those_whose_source_was_read() -> None:
    assert importlib.metadata.version("pytest-json-report") == "1.5.0"
    assert importlib.metadata.version("pytest").startswith("9.")
    assert importlib.metadata.version("pytest-xdist").startswith("3.")


OUTCOMES = """
import logging
import pytest

@pytest.fixture
def broken():
    raise RuntimeError("in a fixture")

@pytest.fixture
def late():
    yield
    raise RuntimeError("in a teardown")

def test_stale(): assert not "stale"
def test_crash(): raise RuntimeError("in the body")
def test_fixture(broken): pass
def test_late(late): pytest.fail("stale", pytrace=False)
def test_says(record_property, json_metadata):
    record_property("ours", {"target": "codex-fedora"})
    json_metadata["ours"] = ["a"]
    print("TOKEN-printed")
    logging.getLogger().warning("TOKEN-logged")

@pytest.mark.parametrize("name", ["é", "a::b", "a[b]", "a\\nb"])
def test_id(name): pass

@pytest.mark.parametrize("name", [])
def test_none(name): pass
"""


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "two workers"])
def test_outcomes_do_not_tell_a_stale_image_from_a_bug(run: Run, workers: Sequence[str]) -> None:
    ran = run(OUTCOMES, *workers)
    assert ran.exit == ran.report["exitcode"] == 1
    assert ran.outcomes == {
        "test_stale": "failed",
        "test_crash": "failed",
        "test_fixture": "error",
        "test_late": "error",
        "test_says": "passed",
        "test_id[\\xe9]": "passed",
        "test_id[a::b]": "passed",
        "test_id[a[b]]": "passed",
        "test_id[a\\nb]": "passed",
        "test_none[NOTSET]": "skipped",
    }
    assert ran.counts == {"collected": 10, "total": 10}
    assert "call" not in ran.test("test_fixture")
    late = ran.test("test_late")
    assert (late["call"]["outcome"], late["call"]["crash"]["message"]) == ("failed", "Failed: stale")
    assert late["teardown"]["outcome"] == "failed"
    says = ran.test("test_says")
    assert says["user_properties"] == [{"ours": {"target": "codex-fedora"}}]
    assert says["metadata"] == {"ours": ["a"]}
    assert says["call"]["stdout"] == "TOKEN-printed\n"
    assert [one["msg"] for one in says["call"]["log"]] == ["TOKEN-logged"]


def test_what_is_left_out_takes_the_secrets_with_it(run: Run) -> None:
    ran = run(OUTCOMES, *QUIET)
    assert "TOKEN" not in (ran.written or "")
    assert ran.test("test_says")["user_properties"] == [{"ours": {"target": "codex-fedora"}}]
    assert "collectors" not in ran.report


def test_the_option_that_leaves_out_swallows_a_path(run: Run) -> None:
    ran = run(OUTCOMES, "--json-report-omit", "log", "no-such-folder")
    assert ran.counts == {"collected": 10, "total": 10}


NO_TESTS = "import pytest\n@pytest.mark.parametrize('name', [])\ndef test_it(name): pass\n"


def test_an_empty_list_of_targets_looks_green(run: Run) -> None:
    ran = run(NO_TESTS)
    assert (ran.exit, ran.outcomes) == (0, {"test_it[NOTSET]": "skipped"})


def test_an_empty_list_can_be_made_to_fail(run: Run) -> None:
    ran = run(NO_TESTS, "-o", "empty_parameter_set_mark=fail_at_collect")
    assert (ran.exit, ran.outcomes) == (2, {})


@pytest.mark.parametrize(
    ("source", "code", "counts"),
    [
        ("broken =", 2, {"collected": 0, "total": 0}),
        ("", 5, {"collected": 0, "total": 0}),
    ],
    ids=["not Python", "no tests"],
)
def test_what_is_reported_where_nothing_ran(run: Run, source: str, code: int, counts: dict[str, int]) -> None:
    ran = run(source)
    assert (ran.exit, ran.report["exitcode"], ran.report["tests"], ran.counts) == (code, code, [], counts)


FOUR = """
import logging, os, signal
import pytest

class Odd: pass

@pytest.mark.parametrize("number", range({tests}))
def test_it(number):
    if number == 1:
        {happens}
"""


def source(happens: str, tests: int = 4) -> str:
    """Four tests; in the second one something happens."""
    return FOUR.format(happens=happens, tests=tests)


DIES = source("os._exit(1)")


def test_a_test_whose_worker_dies_looks_stale(run: Run) -> None:
    ran = run(DIES, "-n", "1")
    assert ran.exit == 1
    assert ran.outcomes == {
        "test_it[0]": "passed",
        "test_it[1]": "failed",
        "test_it[2]": "passed",
        "test_it[3]": "passed",
    }
    lost = ran.test("test_it[1]")
    assert (lost["???"]["outcome"], "call" in lost) == ("failed", False)
    assert "user_properties" not in lost


def test_tests_of_a_worker_that_is_not_replaced_are_lost_and_the_counts_alone_say_so(run: Run) -> None:
    ran = run(DIES, "-n", "1", "--max-worker-restart=0")
    assert ran.exit == 1
    assert ran.outcomes == {"test_it[0]": "passed", "test_it[1]": "failed"}
    assert ran.counts == {"collected": 4, "total": 2}


ODD_LOG = source('logging.getLogger().warning("odd", extra={"odd": Odd()})', tests=40)


def test_a_log_record_that_cannot_travel_between_processes_loses_tests_and_shows_no_failure(run: Run) -> None:
    ran = run(ODD_LOG, "-n", "2")
    assert ran.exit == ran.report["exitcode"] == 3
    assert set(ran.outcomes.values()) <= {"passed"}
    assert ran.counts["collected"] == 40
    assert ran.counts["total"] == len(ran.outcomes) < 40


def test_without_logs_nothing_is_lost(run: Run) -> None:
    ran = run(ODD_LOG, "-n", "2", *QUIET)
    assert (ran.exit, ran.counts) == (0, {"collected": 40, "total": 40})


@pytest.mark.parametrize(
    ("happens", "code"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("os._exit(0)", 0),
    ],
    ids=["crash", "SIGTERM", "SIGKILL", "exit"],
)
def test_a_run_that_is_cut_short_leaves_the_report_of_the_run_before(
    run: Run, tmp_path: Path, happens: str, code: int
) -> None:
    (tmp_path / REPORT).write_text("of the run before")
    ran = run(source(happens), before=_no_core)
    assert (ran.exit, ran.written) == (code, "of the run before")


def _no_core() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def test_a_test_that_is_interrupted_can_be_passed(run: Run) -> None:
    ran = run(source("os.kill(os.getpid(), signal.SIGINT)"), before=_interruptible)
    assert ran.exit == ran.report["exitcode"] == 2
    assert ran.outcomes == {"test_it[0]": "passed", "test_it[1]": "passed"}
    assert ran.counts == {"collected": 4, "total": 2}
    assert "call" not in ran.test("test_it[1]")


def _interruptible() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_report_that_a_full_disk_cut_changes_no_exit_code(run: Run) -> None:
    ran = run(source("pass"), before=_one_kibibyte_at_most)
    assert ran.exit == 0
    assert len(ran.written or "") == 1024
    with pytest.raises(json.JSONDecodeError):
        json.loads(ran.written or "")


def _one_kibibyte_at_most() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))


def test_selection_is_counted_alone(run: Run) -> None:
    ran = run(source("pass"), "-k", "1 or 2")
    assert (ran.exit, ran.counts) == (0, {"collected": 4, "deselected": 2, "total": 2})


def test_selection_is_not_counted_with_workers(run: Run) -> None:
    ran = run(source("pass"), "-n", "1", "-k", "1 or 2")
    assert (ran.exit, ran.counts) == (0, {"collected": 2, "total": 2})


def test_nothing_selected_has_a_code_of_its_own(run: Run) -> None:
    ran = run(source("pass"), "-k", "nothing")
    assert (ran.exit, ran.counts) == (5, {"collected": 4, "deselected": 4, "total": 0})


def test_a_hook_says_how_many_workers_auto_is(run: Run, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("def pytest_xdist_auto_num_workers(config): return 0\n")
    ran = run("import os\ndef test_it(): assert 'PYTEST_XDIST_WORKER' not in os.environ\n", "-n", "auto")
    assert (ran.exit, ran.outcomes) == (0, {"test_it": "passed"})
