"""The loop over checks: calls each with its values, without what pytest prepares around a test of any kind.

A check compares values in memory within microseconds; fixtures, captures and warnings around each take twenty times that.
Where something of it is asked for, by a plugin, an option, a marker or a fixture of another kind, pytest's own loop runs,
and a check that breaks is run again as pytest runs a test, for its traceback.
"""

import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from _pytest.outcomes import OutcomeException
from _pytest.warnings import catch_warnings_for_item

from imagewright.verdict import Outcome

PARAMETER = "target"
_REQUEST = "request"
"""What pytest gives a fixture that wants to know of the test; those that are left to us do not."""
_MARKERS = frozenset({"pair", "parametrize"})
_HOOKS = (
    "pytest_runtestloop",
    "pytest_runtest_protocol",
    "pytest_runtest_setup",
    "pytest_runtest_call",
    "pytest_runtest_teardown",
    "pytest_runtest_makereport",
    "pytest_pyfunc_call",
    "pytest_fixture_setup",
    "pytest_fixture_post_finalizer",
    "pytest_exception_interact",
)
_HARMLESS = frozenset({"_pytest", "imagewright", "pytest_jsonreport", "xdist", "_hypothesis_pytestplugin"})
"""Whose hooks around a test do nothing for a check: pytest's own, and those for other kinds of tests."""
_OPTIONS = ("usepdb", "trace", "setupshow", "setuponly", "setupplan", "timeout")
"""Options that ask for something around each test."""
_TIMEOUT = "pytest_timeout"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What became of one check. when: `setup` where a value could not be had, else `call`. start, stop: in seconds."""

    item: pytest.Function
    when: Literal["setup", "call"]
    raised: Outcome | None
    start: float
    stop: float

    @property
    def duration(self) -> float:
        """In seconds."""
        return self.stop - self.start


Fixtures = Mapping[str, tuple[Callable[..., Any], tuple[str, ...]]]
"""By name: a function, and the names of what it is given."""


def fixtures(session: pytest.Session, given: Mapping[str, object]) -> Mapping[int, Fixtures] | None:
    """How to make the values of each check, by the id of its `_fixtureinfo`; None where pytest's own loop has to run.

    given: values that are there already, by the names of their fixtures.
    """
    if not _alone(session.config):
        return None
    found: dict[int, Fixtures] = {}
    for item in session.items:
        parameters = item.callspec.params if hasattr(item, "callspec") else ()
        if type(item) is not pytest.Function or item.cls is not None or set(parameters) != {PARAMETER}:
            return None
        if not all(one.name in _MARKERS for one in item.iter_markers()):
            return None
        info = item._fixtureinfo  # noqa: SLF001
        if id(info) not in found:
            made = _made(info, given)
            if made is None:
                return None
            found[id(info)] = made
    return found


def _alone(config: pytest.Config) -> bool:
    """Whether nobody else wants to know of each test."""
    if any(config.getoption(name, None) for name in _OPTIONS):
        return False
    strangers = {
        impl.function.__module__.partition(".")[0]
        for name in _HOOKS
        for impl in getattr(config.hook, name).get_hookimpls()
    } - _HARMLESS
    if strangers == {_TIMEOUT}:  # it is there, and nobody has set a timeout
        return not config.getini("timeout")
    return not strangers


def _made(info: Any, given: Mapping[str, object]) -> Fixtures | None:
    """The functions of all fixtures that a check needs; None where one is more than a function."""
    made: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {}
    for name in info.names_closure:
        if name in (PARAMETER, _REQUEST):
            continue
        definitions = info.name2fixturedefs.get(name)
        if not definitions:
            return None
        if name in given and len(definitions) == 1:
            continue
        one = definitions[-1]
        needs_itself = name in one.argnames or _REQUEST in one.argnames
        if one.scope != "function" or one.params or needs_itself or inspect.isgeneratorfunction(one.func):
            return None
        made[name] = (one.func, tuple(one.argnames))
    return made


def run(
    session: pytest.Session, made: Mapping[int, Fixtures], given: Mapping[str, object], tell: Callable[[Ran], None]
) -> None:
    """Runs all checks of a session. tell: hears of each that ended as a check may."""
    with catch_warnings_for_item(session.config, session.config.hook, when="runtest", item=None):
        for item in session.items:
            assert isinstance(item, pytest.Function)
            try:
                ran = _ran(item, made[id(item._fixtureinfo)], given)  # noqa: SLF001
            except (Exception, OutcomeException, SystemExit):  # noqa: BLE001 - a broken check: pytest shows what broke
                item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
            else:
                tell(ran)
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)


def _ran(item: pytest.Function, made: Fixtures, given: Mapping[str, object]) -> Ran:
    values = {**given, PARAMETER: item.callspec.params[PARAMETER]}
    when: Literal["setup", "call"] = "setup"
    raised, start = None, time.time()
    try:
        arguments = {name: _value(name, made, values) for name in item._fixtureinfo.argnames}  # noqa: SLF001
        when = "call"
        call(item, arguments)
    except Outcome as outcome:
        raised = outcome
    return Ran(item=item, when=when, raised=raised, start=start, stop=time.time())


def call(item: pytest.Function, arguments: Mapping[str, object]) -> None:
    """Calls a check, and takes nothing that it returns for an answer: TypeError."""
    returned = item.obj(**arguments)
    if returned is not None:
        raise TypeError(f"a check raises Stale or Unknown, or returns nothing; this one returned {returned!r}")


def _value(name: str, made: Fixtures, values: dict[str, object]) -> object:
    if name not in values:
        function, names = made[name]
        values[name] = function(**{one: _value(one, made, values) for one in names})
    return values[name]


def passed(ran: Ran, when: Literal["call", "teardown"]) -> pytest.TestReport:
    """What pytest is told of a stage in which all was right."""
    return pytest.TestReport(
        nodeid=ran.item.nodeid,
        location=ran.item.location,
        keywords={},
        outcome="passed",
        longrepr=None,
        when=when,
        duration=ran.duration if when == "call" else 0,
        start=ran.start,
        stop=ran.stop,
        user_properties=ran.item.user_properties,
    )
