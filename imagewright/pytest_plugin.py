"""pytest for checks: a test per target and promise, one survey before the first of them, typed records in the report.

Inert for items that do not ask for its fixtures. Under xdist the controller lists bases and reads versions, the first
worker surveys under a lock, the others read what it saw.
"""

import argparse
import contextlib
import errno
import gc
import json
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest
from pytest_jsonreport.plugin import JSONReport, JSONReportWorker

from imagewright import loop, process, render, snapshot, suite, survey, verdict
from imagewright.asked import Asked, Unlisted
from imagewright.cache import Cache
from imagewright.catalogue import Pair, Standalone, Target, refuse_collisions, repositories_of
from imagewright.digests import FileDigests
from imagewright.errors import BadCatalogue, ImagewrightError
from imagewright.files import write_atomically
from imagewright.load import load_catalogue
from imagewright.recipe import BUILDKIT, Recipes
from imagewright.registry.client import Client
from imagewright.report import EXISTS, NO_BASES, PROPERTY, SECTION, Evidence, Report, assemble, seal
from imagewright.report import dump as dump_section
from imagewright.snapshot import Snapshot, TargetSeen
from imagewright.state import DEFAULT, DIGESTS, DOCUMENTS, REPORT, SNAPSHOT, StateFolder
from imagewright.stopwatch import Stopwatch
from imagewright.verdict import Finding, NotAsked, Outcome

CHECKS = suite.FOLDER
pytest_plugins = ["imagewright.check_fixtures"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("imagewright", "what must be true of published images")
    group.addoption("--tool", action="append", default=[], metavar="T", help="only this tool; may be repeated")
    group.addoption("--target", action="append", default=[], metavar="NAME", help="only this target; may be repeated")
    group.addoption("--base", action="append", default=[], metavar="B", help="only this base; may be repeated")
    group.addoption("--versions", metavar="FILE", help="versions as `imagewright versions -o FILE` wrote them")
    group.addoption("--tool-version", action="append", default=[], metavar="T=V", help="the version of a tool")
    group.addoption(
        "--base-digest", action="append", default=[], metavar="B=DIGEST", help="judge against this digest of a base"
    )
    group.addoption("--snapshot", metavar="FILE", help="judge recorded observations, without network")
    group.addoption("--fresh", action="store_true", help="ask the registry for everything, use nothing remembered")
    group.addoption("--wait", type=_seconds, default=0, metavar="SECONDS", help="wait for what is not visible yet")


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError("seconds from now are expected, 0 or more")
    return seconds


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "pair(tool, base): a check of a pair, for `-m \"pair(tool='codex')\"`")
    project = _project(config)
    if project is None:
        return
    option = config.option
    for plugin in ("terminal", "pytest_jsonreport"):
        if not config.pluginmanager.hasplugin(plugin):
            raise pytest.UsageError(f"checks need pytest's plugin {plugin}: leave out `-p no:{plugin}`")
    path = project / DEFAULT / REPORT
    if hasattr(config, "workerinput"):
        path = Path(config.workerinput["report"])
    elif option.json_report_file is None:  # its word for it is `none`
        raise pytest.UsageError("checks leave a report: leave out `--json-report-file=none`")
    elif option.json_report_file != ".report.json":
        path = config.invocation_params.dir / option.json_report_file
    # Our report takes the place of the plugin's own: the same document with our section, written as a whole.
    option.json_report, option.json_report_file = False, None
    option.json_report_summary = False
    option.json_report_omit = ["log", "streams", "collectors", "keywords"]
    run = Run(config, project, path)
    config.stash[RUN] = run
    config.pluginmanager.register(run, "imagewright-run")
    config.pluginmanager.register(JSONReportWorker(config) if run.worker else _OurReport(config, run))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """`-n auto` gains nothing here: the checks compare values in memory."""
    return 0 if _project(config) else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Without a run there are no targets: a check that came in with other tests says so, and does not lack fixtures."""
    is_check = _RESERVED.intersection(metafunc.fixturenames) and CHECKS in metafunc.definition.path.parent.parts
    if is_check and metafunc.config.stash.get(RUN, None) is None:
        raise pytest.Collector.CollectError("Checks are run by themselves: pytest checks/")


def _project(config: pytest.Config) -> Path | None:
    """The folder whose `checks/` hold all that is to be run; None where something else is.

    Not pytest's rootdir: where no ini-file says better, `--versions /tmp/versions.json` makes that one `/`.
    """
    here = config.invocation_params.dir
    paths = [(here / one.partition("::")[0]).resolve() for one in config.args]
    folders = {next((one for one in (path, *path.parents) if one.name == CHECKS), None) for path in paths}
    folder = folders.pop() if len(folders) == 1 else None
    return folder.parent if folder and folder.is_dir() else None


class _OurReport(JSONReport):  # type: ignore[misc]
    """The report of pytest-json-report, with our section, written so that it is whole or absent."""

    def __init__(self, config: pytest.Config, run: "Run") -> None:
        super().__init__(config)
        self._run = run

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None]:
        """After everybody else's, as each may change how the run ends; before the terminal's summary, which is around."""
        yield
        super().pytest_sessionfinish(session)
        self._run.finish(session, self.report)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """As the parent's. Of a stage that passed and left nothing to show it is written here what the parent writes."""
        is_plain = report.passed and not report.sections and report.when in ("setup", "call", "teardown")
        if not is_plain or any(name != PROPERTY for name, _ in report.user_properties):
            super().pytest_runtest_logreport(report)
            return
        test = self._json_tests.get(report.nodeid)
        if test is None:
            test = {"nodeid": report.nodeid, "lineno": report.location[1], "outcome": "passed"}
            self._json_tests[report.nodeid] = test
        if report.when == "teardown":
            test["user_properties"] = [{name: value} for name, value in report.user_properties]
        else:
            test[report.when] = {"duration": report.duration, "outcome": "passed"}

    def pytest_terminal_summary(self) -> None:
        """Nothing: the last lines are ours."""


class Run:
    """One run of the checks: alone, or as controller or worker of xdist."""

    def __init__(self, config: pytest.Config, project: Path, report_path: Path) -> None:
        self.config = config
        self.project = project
        self.report_path = report_path
        self.environ = dict(os.environ)
        self.worker: dict[str, Any] | None = getattr(config, "workerinput", None)
        self.started = _now()
        self.nonce: str = self.worker["nonce"] if self.worker else secrets.token_hex(8)
        self.state = StateFolder(report_path.parent)
        self.since: dict[str, str] = {}
        self.expected: list[str] = []
        self.partial: list[str] = []
        self.findings: dict[str, list[Finding]] = {}
        self.crashed: list[str] = []
        self.recipe: dict[str, str] = {}
        self.seen: Snapshot | None = None
        self.by_target: dict[str, TargetSeen] = {}
        self.section: Report | None = None
        self.unwritten = ""
        self.watch = Stopwatch()
        self.watch.seconds["start"] = time.process_time()
        self.clients: list[Client] = []
        self.recalled = 0
        self._handlers: dict[int, Any] = {}
        try:
            self.checks = tuple(suite.promises(project))
            self.catalogue = load_catalogue(project, self.environ)
            digests = FileDigests(self.state.folder / DIGESTS, now=time.time_ns())
            self.recipes = Recipes(self.catalogue.settings.label_prefix, digests)
            self.asked = Asked(
                config.option, self.catalogue, self.environ, self.worker, is_controller=self.is_controller
            )
        except SyntaxError as error:
            raise pytest.UsageError(f"{error.filename}:{error.lineno}: {error.msg}") from None
        except ImagewrightError as error:
            self.stop(error)

    def stop(self, error: ImagewrightError) -> NoReturn:
        """Ends the run with pytest's code for misuse; the reason stays in run.json, for `imagewright plan`."""
        if not self.worker:
            with contextlib.suppress(OSError):  # a folder that cannot be written; the error itself is told below
                self.state.begin(self.nonce, self.started, error)
        raise pytest.UsageError(str(error))

    @property
    def is_controller(self) -> bool:
        """Whether workers of xdist run the items for this process."""
        workers = self.config.getoption("numprocesses", None) or self.config.getoption("tx", [])
        return self.worker is None and bool(workers)

    def chosen(self) -> Sequence[Target | Unlisted]:
        """The targets that are asked for; the run ends where two of all that there are collide."""
        try:
            return self.asked.chosen()
        except BadCatalogue as error:
            self.stop(error)

    # pytest's stages

    def pytest_sessionstart(self) -> None:
        if self.worker:
            threading.Thread(target=self._end_with_controller, daemon=True).start()
            return
        self._handle(signal.default_int_handler, signal.SIGTERM, signal.SIGHUP)  # they end a run as Ctrl-C does
        if not self.config.option.collectonly:
            self._begin()
        with self.watch.stage("discovery"):
            # Refuses what is wrong with the catalogue or the options before anything is collected.
            chosen = self.chosen()
        targets = [one for one in chosen if not isinstance(one, Unlisted)]
        if self.is_controller and not self.config.option.collectonly:
            if not self.asked.recorded:
                self._read_versions(targets)
            self._hash_recipes(targets)

    def _end_with_controller(self) -> None:
        """Ends a worker of xdist, which would wait for a silent registry: ten seconds for pytest, or as an orphan."""
        self.state.await_unlock()
        os._exit(pytest.ExitCode.INTERRUPTED)

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self) -> None:
        """Once is enough: what cleans up is not interrupted. xdist: lets the workers go before pytest waits for them."""
        if not self.worker:
            self._handle(signal.SIG_IGN, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if self.is_controller:
            self.state.unlock()

    def _handle(self, handler: Any, *numbers: int) -> None:
        """Sets how signals are handled until pytest ends, but for those that whoever started it ignores, as nohup does."""
        in_first_thread = threading.current_thread() is threading.main_thread()  # Python's condition for a handler
        for number in numbers:
            if in_first_thread and signal.getsignal(number) is not signal.SIG_IGN:
                self._handlers.setdefault(number, signal.signal(number, handler))

    def _read_versions(self, targets: Sequence[Target]) -> None:
        """xdist: versions, and what can be wrong with them, are the controller's, as a worker cannot end the run."""
        versions = {one.tool: one.version for one in self.asked.readings.results(self.asked.tools())}
        try:
            refuse_collisions((one, survey.version_of(one, versions) or "latest") for one in targets)
            self._refuse_changed_tools()
        except BadCatalogue as error:
            self.stop(error)

    def _hash_recipes(self, targets: Iterable[Target]) -> None:
        """Today's recipes, before anybody is asked: what cannot be hashed could not be built either."""
        try:
            self.recipe = {one.key: self.recipes.of(one.source, BUILDKIT) for one in targets}
        except BadCatalogue as error:
            self.stop(error)

    def _begin(self) -> None:
        try:
            self.state.lock()
            self.since = self.state.since()
            self.state.begin(self.nonce, self.started)
            self.report_path.unlink(missing_ok=True)
        except ImagewrightError as error:
            raise pytest.UsageError(str(error)) from None
        except OSError as error:
            raise pytest.UsageError(f"{self.state.folder} cannot be written: {error.strerror}") from None

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """xdist: each worker gets what the controller knows."""
        known = self.asked.recorded.readings if self.asked.recorded else self.asked.readings.results(self.asked.tools())
        node.workerinput.update(
            nonce=self.nonce,
            report=str(self.report_path),
            bases=list(self.asked.base_names) if isinstance(self.asked.base_names, tuple) else self.asked.base_names,
            readings=[snapshot.dump_reading(one) for one in known],
        )

    @pytest.hookimpl(wrapper=True)
    def pytest_collection(self) -> Generator[None, Any, Any]:
        with self.watch.stage("collection"):
            return (yield)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "target" in metafunc.fixturenames:
            metafunc.parametrize("target", [_param(one) for one in self.chosen()])

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Generator[None]:
        # There are no pairs to ask about, so one item and one record stand for all.
        items[:] = [one for one in items if not isinstance(_target_of(one), Unlisted) or _check_of(one) == EXISTS]
        yield
        selected: dict[str, set[str]] = {}
        for item in items:
            if (target := _target_of(item)) is not None:
                selected.setdefault(target.key, set()).add(_check_of(item))
        for key, checks in selected.items():
            whole = checks >= ({EXISTS} if key == NO_BASES else set(self.checks))
            (self.expected if whole else self.partial).append(key)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """The survey: after deselection, before the first check."""
        if self.config.option.collectonly or self.is_controller:
            return None
        found = [_target_of(item) for item in session.items]
        asked = {one.key: one for one in found if isinstance(one, Pair | Standalone)}
        if not self.worker:
            with self.watch.stage("recipes"):
                self._hash_recipes(asked.values())
        try:
            seen = self._looked(tuple(asked.values()))
        except BadCatalogue as error:
            self.stop(error)
        self.seen, self.by_target = seen, {one.target: one for one in seen.targets}
        gc.freeze()  # items and observations live until the end: nobody need look whether they are garbage
        return self._looped(session)

    def _looped(self, session: pytest.Session) -> bool | None:
        """Runs the checks, unless pytest has to do it itself."""
        given = {"run": self}
        made = None if self.worker or session.testsfailed else loop.fixtures(session, given)
        if made is None:
            return None
        with self.watch.stage("checks"):
            loop.run(session, made, given, self._tell)
        return True

    def _tell(self, ran: loop.Ran) -> None:
        """Tells pytest what a check found."""
        item, hook = ran.item, ran.item.ihook
        raised = self._recorded(item, ran.raised)
        outcome = self._outcome_report(item, raised, ran) if isinstance(raised, Outcome) else None
        hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        hook.pytest_runtest_logreport(report=outcome or loop.passed(ran, "call"))
        hook.pytest_runtest_logreport(report=loop.passed(ran, "teardown"))
        hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)

    def _looked(self, targets: tuple[Target, ...]) -> Snapshot:
        if not self.worker:
            return self.asked.recorded or self._survey(targets)
        with self.state.only_one(self.nonce) as shared:
            if shared.exists():
                return snapshot.load(json.loads(shared.read_bytes())["seen"], str(shared))
            seen = self.asked.recorded or self._survey(targets)
            members = {"expected": self.expected, "partial": self.partial, "seen": "".join(snapshot.dump(seen))}
            self._write(shared, lambda: [json.dumps(members).encode()])
            return seen

    def _write(self, path: Path, content: Callable[[], Iterable[bytes]]) -> None:
        """Writes one of this run's files. Where the disk is full, what is only a saving makes room."""
        try:
            write_atomically(path, content())
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            (self.state.folder / DOCUMENTS).unlink(missing_ok=True)
            write_atomically(path, content())

    def _survey(self, targets: tuple[Target, ...]) -> Snapshot:
        request = survey.Request(
            catalogue=self.catalogue,
            base_names=self.asked.base_names if isinstance(self.asked.base_names, tuple) else (),
            targets=targets,
            base_digests=self.asked.base_digests,
            wait=self.config.option.wait,
            now=_now(),
            nonce=self.nonce,
            last_good=self.state.last_good(),
        )
        whole = len(targets) == len(self.asked.targets[0])
        place = self.state.folder / DOCUMENTS
        with Cache(place, now=time.time(), reads=not self.config.option.fresh, whole=whole) as cache:
            with self.watch.stage("survey"):
                seen = survey.survey(request, self.asked.readings, self._connect, cache)
        self.recalled = cache.recalled
        self.watch.seconds["versions"] = self.asked.readings.waited
        self.watch.seconds["survey"] -= self.asked.readings.waited
        self._refuse_changed_tools()
        return seen

    def _connect(self) -> Client:
        self.clients.append(self.asked.connect())
        return self.clients[-1]

    def _refuse_changed_tools(self) -> None:
        if load_catalogue(self.project, self.environ).hash != self.catalogue.hash:
            raise BadCatalogue(
                "tools/ changed while versions were read",
                remedy="A version.sh may not write into its project: find out which one does.",
            )

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool | None:
        """Calls the check, so that nobody else can leave it out, and takes nothing it returns for an answer."""
        if _target_of(pyfuncitem) is None:
            return None
        arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}  # noqa: SLF001
        loop.call(pyfuncitem, arguments)
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> pytest.TestReport | None:
        """Records what the check found."""
        target = _target_of(item)
        raised = call.excinfo.value if call.excinfo else None
        if target is None or not (call.when == "call" or (call.when == "setup" and raised)):
            return None
        if item.get_closest_marker("xfail"):
            raised = RuntimeError("it is expected to fail, so nothing follows from how it ends")
        raised = self._recorded(item, raised)
        return self._outcome_report(item, raised, call) if isinstance(raised, Outcome) else None

    def _recorded(self, item: pytest.Item, raised: BaseException | None) -> BaseException | None:
        """Records what a check found, by what it raised; and what is to be believed of that."""
        target = _target_of(item)
        assert target
        if self.seen and not isinstance(target, Unlisted):
            raised = verdict.believed(raised, self.seen.distrust(*repositories_of(target)))
        found = verdict.finding(_check_of(item), target.key, raised)
        item.user_properties.append((PROPERTY, found.as_json()))
        return raised

    def _outcome_report(
        self, item: pytest.Item, raised: Outcome, call: pytest.CallInfo[None] | loop.Ran
    ) -> pytest.TestReport:
        """What pytest is told of a check that found something. Made here: pytest would draw a traceback, slowly."""
        skipped = (str(item.path), (item.location[1] or 0) + 1, f"Skipped: not asked: {raised}")
        return pytest.TestReport(
            nodeid=item.nodeid,
            location=item.location,
            keywords={},
            outcome="skipped" if isinstance(raised, NotAsked) else "failed",
            longrepr=skipped if isinstance(raised, NotAsked) else f"{raised.kind}: {raised}",
            when="setup" if call.when == "setup" else "call",
            duration=call.duration,
            start=call.start,
            stop=call.stop,
            user_properties=item.user_properties,
        )

    def pytest_report_teststatus(self, report: pytest.TestReport | pytest.CollectReport) -> tuple[str, str, str] | None:
        """A stale or unknown target is a failed test, wherever in the test it was noticed."""
        if not report.failed or report.when == "teardown":
            return None
        kinds = [one.kind for one in _findings(report)]
        words = {verdict.STALE: ("failed", "F", "STALE"), verdict.UNKNOWN: ("failed", "U", "UNKNOWN")}
        return words.get(kinds[-1]) if kinds else None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if self.worker:
            return
        if report.when not in ("setup", "call", "teardown"):
            self.crashed.append(report.nodeid)  # a worker of xdist died in this check
            return
        if report.when != "teardown":
            return
        for one in _findings(report):
            if not report.passed:
                one = verdict.finding(one.check, one.target, RuntimeError("an error in its teardown"))  # noqa: PLW2901
            self.findings.setdefault(one.target, []).append(one)

    # The end

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self) -> Generator[None]:
        """Around all others: a run that ends by an error, or by Ctrl-C in its last moment, leaves no report."""
        try:
            yield
        except BaseException:
            if not self.worker:
                self.report_path.unlink(missing_ok=True)
            raise

    def finish(self, session: pytest.Session, document: dict[str, Any]) -> None:
        """Judges, and writes report, snapshot and what is known good now."""
        if self.config.option.collectonly or session.exitstatus == pytest.ExitCode.USAGE_ERROR:
            return
        with self.watch.stage("report"):
            self._conclude(session, document)

    def _conclude(self, session: pytest.Session, document: dict[str, Any]) -> None:
        if self.is_controller:
            self._take_shared()
        self.section = assemble(self._evidence())
        fresh = {one.target: one.reference for one in self.section.records if one.state is verdict.State.FRESH}
        if session.exitstatus == pytest.ExitCode.OK and len(fresh) != len(self.section.expected):
            # For pytest a check that was skipped, or expected to fail, is none that failed.
            session.exitstatus = document["exitcode"] = pytest.ExitCode.TESTS_FAILED
        self.recipes.save()
        try:
            if self.seen:
                self._write(self.state.folder / SNAPSHOT, partial(_encoded, self.seen))
            self.state.remember_good(fresh)
            self._write(self.report_path, partial(seal, {**document, SECTION: dump_section(self.section)}))
        except OSError as error:
            self.unwritten = f"the report could not be written to {self.report_path}: {error.strerror}"
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR

    def _take_shared(self) -> None:
        shared = self.state.shared(self.nonce)
        if shared.exists():
            members = json.loads(shared.read_bytes())
            self.expected, self.partial = members["expected"], members["partial"]
            self.seen = snapshot.load(members["seen"], str(shared))
            shared.unlink()

    def _evidence(self) -> Evidence:
        targets, excluded = self.asked.targets
        expected = list(dict.fromkeys(self.expected))
        wanted = [one for one in targets if one.key in set(expected)]
        crashed = [one.rpartition("::")[2].removesuffix("]").partition("[") for one in self.crashed]
        return Evidence(
            nonce=self.nonce,
            catalogue=self.catalogue.hash,
            started=self.asked.recorded.taken if self.asked.recorded else self.started,
            finished=_now(),
            selection=self.asked.selection(len(expected), len(targets)),
            checks=self.checks,
            expected=expected,
            partial=list(dict.fromkeys(self.partial)),
            targets=targets,
            excluded=excluded,
            findings={key: sorted(found, key=lambda one: one.check) for key, found in self.findings.items()},
            crashed=[(check, target) for check, _, target in crashed],
            seen=self.seen,
            since=self.since,
            waits_for={one.key: self.catalogue.waits_for(one) for one in wanted},
            recipe=self.recipe,
            warnings=self.asked.warnings,
        )

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> Generator[None]:
        """Ours are the last lines. Verdicts are counted apart, not traced: as failures pytest shows what broke."""
        failed = terminalreporter.stats.pop("failed", [])
        for report in failed:
            kind = next((one.kind for one in _findings(report) if not one.is_crash), "failed")
            terminalreporter._add_stats(kind, [report])  # noqa: SLF001 - so that the last line has them after -x, too
        yield
        if self.section is None:
            return
        terminalreporter.section("imagewright", sep="=")
        judged = {one.target for one in self.section.records}
        unjudged = [one for key, found in self.findings.items() if key not in judged for one in found]
        for line in render.report_lines(self.section, unjudged):
            terminalreporter.write_line(line.text, **({line.colour: True} if line.colour else {}))
        if self.config.get_verbosity() > 0:
            asked = sum(one.asked for one in self.clients)
            for line in render.time_lines(self.watch.seconds, asked, self.recalled):
                terminalreporter.write_line(line.text)
        terminalreporter.write_line(
            self.unwritten or render.next_step(self.section, self._shown(self.report_path)), red=bool(self.unwritten)
        )

    def _shown(self, path: Path) -> str:
        here = self.config.invocation_params.dir
        return str(path.relative_to(here) if path.is_relative_to(here) else path)

    @pytest.hookimpl(tryfirst=True)
    def pytest_unconfigure(self) -> None:
        gc.freeze()  # pytest collects garbage next, twice
        self.asked.close()
        process.end_all()
        self.state.unlock()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)


RUN = pytest.StashKey[Run]()
"""Where a session keeps its run."""
_RESERVED = frozenset({"target", "looked", "observed"})
"""Fixtures that every check asks for at least one of."""


def _param(target: Target | Unlisted) -> Any:
    if not isinstance(target, Pair):
        return pytest.param(target, id=target.key)
    return pytest.param(target, id=target.key, marks=pytest.mark.pair(tool=target.tool.name, base=target.base.name))


def _target_of(item: pytest.Item) -> Target | Unlisted | None:
    callspec = getattr(item, "callspec", None)
    target = callspec.params.get("target") if callspec else None
    return target if isinstance(target, Pair | Standalone | Unlisted) else None


def _check_of(item: pytest.Item) -> str:
    return str(getattr(item, "originalname", item.name))


def _findings(report: pytest.TestReport | pytest.CollectReport) -> list[Finding]:
    if isinstance(report, pytest.CollectReport):  # a check that could not be imported
        return []
    return [Finding.from_json(value) for name, value in report.user_properties if name == PROPERTY]  # type: ignore[arg-type]


def _encoded(seen: Snapshot) -> Iterator[bytes]:
    return (one.encode("utf-8", "replace") for one in snapshot.dump(seen))


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
