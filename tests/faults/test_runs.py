# ruff: noqa: E501 - a case a line
"""Whatever is asked of pytest, and whatever hooks and checks do to a run: it has no result, or one that holds.

A case is green (0, 0) only where every target was asked and is fresh. Everything else ends as unknown (20), as a report
that is none (50), or as the plan of exactly what was found and asked for (10).
"""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from imagewright import cli
from imagewright.testing.images import layer
from tests.test_plugin import World, family, world

__all__ = ["family", "world"]

pytest_plugins = ["pytester"]

SELECTS = "def pytest_collection_modifyitems(items):\n    "
REPORTS = "@pytest.hookimpl(tryfirst=True)\ndef pytest_runtest_makereport(item, call):\n    "


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is done to a run of four fresh targets, and how it ends. addopts: PYTEST_ADDOPTS. ini: of `-c`.

    stale: two targets are built on what their base was before. check, file: one more check and where it stands. conftest:
    more of it. ends: pytest's exit code. plan: what `imagewright plan` ends with after it.
    """

    arguments: Sequence[str] = ()
    addopts: str = ""
    ini: str = ""
    stale: bool = False
    check: str = ""
    file: str = "test_mine.py"
    conftest: str = ""
    own_process: bool = False
    ends: int
    plan: int


CASES = {
    "x": Case(arguments=("-x",), stale=True, ends=1, plan=50),
    "maxfail2": Case(arguments=("--maxfail=2",), stale=True, ends=1, plan=50),
    "maxfail99": Case(arguments=("--maxfail=99",), stale=True, ends=1, plan=10),
    "ff": Case(arguments=("--ff",), stale=True, ends=1, plan=10),
    "lf-none": Case(arguments=("--lf",), ends=0, plan=0),
    "sw": Case(arguments=("--sw",), stale=True, ends=2, plan=50),
    "setup-only": Case(arguments=("--setup-only",), ends=1, plan=50),
    "setup-plan": Case(arguments=("--setup-plan",), ends=1, plan=50),
    "setup-show": Case(arguments=("--setup-show",), ends=0, plan=0),
    "no-jsonreport": Case(arguments=("-p", "no:pytest_jsonreport"), ends=4, plan=50),
    "no-json-report": Case(arguments=("-p", "no:json-report"), ends=0, plan=0),
    "no-imagewright": Case(arguments=("-p", "no:imagewright.pytest_plugin"), ends=1, plan=50),
    "no-run": Case(arguments=("-p", "no:imagewright-run"), ends=3, plan=50),
    "no-fixtures": Case(arguments=("-p", "no:imagewright.check_fixtures"), ends=1, plan=50),
    "no-cache": Case(arguments=("-p", "no:cacheprovider"), ends=0, plan=0),
    "no-terminal": Case(arguments=("-p", "no:terminal"), ends=4, plan=50),
    "no-skipping": Case(arguments=("-p", "no:skipping"), ends=0, plan=0),
    "no-xdist": Case(arguments=("-p", "no:xdist"), ends=0, plan=0),
    "no-runner": Case(arguments=("-p", "no:logging"), ends=0, plan=0),
    "summary": Case(arguments=("--json-report-summary",), ends=0, plan=0),
    "omit": Case(arguments=("--json-report-omit=tests",), ends=0, plan=0),
    "omit-env": Case(addopts="--json-report-omit summary --json-report-file=none", ends=4, plan=50),
    "indent": Case(arguments=("--json-report-indent=2",), ends=0, plan=0),
    "json-report": Case(arguments=("--json-report",), ends=0, plan=0),
    "elsewhere": Case(arguments=("--json-report-file=../out/report.json",), ends=0, plan=50),
    "noconftest": Case(arguments=("--noconftest",), ends=1, plan=50),
    "ignore": Case(arguments=("--ignore=checks/test_latest.py",), ends=0, plan=50),
    "co": Case(arguments=("--collect-only", "-q"), ends=0, plan=50),
    "rootdir": Case(arguments=("--rootdir=/tmp",), ends=0, plan=0),
    "o": Case(arguments=("-o", "addopts=-x"), ends=0, plan=0),
    "o-python": Case(arguments=("-o", "python_functions=nothing_*"), ends=5, plan=50),
    "o-files": Case(arguments=("-o", "python_files=test_e*.py"), ends=0, plan=50),
    "c": Case(arguments=("-c", "../x.ini"), ini="[pytest]\naddopts = -k fedora\n", ends=0, plan=0),
    "deselect-env": Case(addopts="--deselect checks/test_latest.py", ends=0, plan=50),
    "version": Case(arguments=("--version",), ends=0, plan=50),
    "markers": Case(arguments=("--markers",), ends=0, plan=50),
    "SystemExit": Case(check="def test_mine(target):\n    raise SystemExit(0)\n", ends=1, plan=20),
    "sysexit-setup": Case(check="@pytest.fixture\ndef s():\n    sys.exit(0)\ndef test_mine(target, s):\n    pass\n", ends=1, plan=20),
    "KeyboardInterrupt": Case(check="def test_mine(target):\n    raise KeyboardInterrupt\n", own_process=True, ends=2, plan=50),
    "exit0": Case(check="def test_mine(target):\n    pytest.exit('so', returncode=0)\n", ends=1, plan=50),
    "exit0-last": Case(file="test_zz.py", check="def test_zz(target):\n    if target.key=='gemini-minimal': pytest.exit('so', returncode=0)\n", ends=1, plan=50),
    "exit0-last-teardown": Case(file="test_zz.py", check="@pytest.fixture\ndef s(target):\n    yield\n    if target.key=='gemini-minimal': pytest.exit('so', returncode=0)\ndef test_zz(target, s):\n    pass\n", ends=1, plan=50),
    "skip-mark": Case(check="@pytest.mark.skip\ndef test_mine(target):\n    pass\n", ends=1, plan=20),
    "skip-call": Case(check="def test_mine(target):\n    pytest.skip('no')\n", ends=1, plan=20),
    "skip-module": Case(check="pytest.skip('no', allow_module_level=True)\ndef test_mine(target):\n    pass\n", ends=0, plan=50),
    "xfail-mark-pass": Case(check="@pytest.mark.xfail\ndef test_mine(target):\n    pass\n", ends=1, plan=20),
    "xfail-strict-pass": Case(check="@pytest.mark.xfail(strict=True)\ndef test_mine(target):\n    pass\n", ends=1, plan=20),
    "xfail-mark-fail": Case(check="@pytest.mark.xfail\ndef test_mine(target):\n    assert False\n", ends=1, plan=20),
    "xfail-norun": Case(check="@pytest.mark.xfail(run=False)\ndef test_mine(target):\n    pass\n", ends=1, plan=20),
    "xfail-call": Case(check="def test_mine(target):\n    pytest.xfail('so')\n", ends=1, plan=20),
    "xfail-stale": Case(stale=True, conftest=SELECTS + "for one in items: one.add_marker(pytest.mark.xfail)\n", ends=1, plan=20),
    "skip-hook": Case(stale=True, conftest=SELECTS + "for one in items: one.add_marker(pytest.mark.skip)\n", ends=1, plan=20),
    "fail": Case(check="def test_mine(target):\n    pytest.fail('so')\n", ends=1, plan=20),
    "surrogate": Case(check="def test_mine(target):\n    raise ValueError('\\udcff')\n", ends=1, plan=20),
    "setup-error": Case(check="@pytest.fixture\ndef s():\n    raise OSError('x')\ndef test_mine(target, s):\n    pass\n", ends=1, plan=20),
    "teardown-error": Case(check="@pytest.fixture\ndef s():\n    yield\n    raise OSError('x')\ndef test_mine(target, s):\n    pass\n", ends=1, plan=20),
    "teardown-error-stale": Case(stale=True, check="@pytest.fixture\ndef s():\n    yield\n    raise OSError('x')\ndef test_mine(target, s):\n    pass\n", ends=1, plan=20),
    "teardown-skip": Case(check="@pytest.fixture\ndef s():\n    yield\n    pytest.skip('x')\ndef test_mine(target, s):\n    pass\n", ends=1, plan=20),
    "teardown-session": Case(check="@pytest.fixture(scope='session')\ndef s():\n    yield\n    raise OSError('x')\ndef test_mine(target, s):\n    pass\n", ends=1, plan=20),
    "same-name": Case(check="def test_latest(target):\n    pass\n", ends=1, plan=50),
    "parametrized": Case(check="@pytest.mark.parametrize('x',[1,2])\ndef test_mine(target, x):\n    pass\n", ends=1, plan=50),
    "class": Case(check="class TestMine:\n    def test_mine(self, target):\n        assert False\n", ends=1, plan=50),
    "no-target": Case(check="def test_mine():\n    pass\n", ends=0, plan=50),
    "no-target-fails": Case(check="def test_mine():\n    assert False\n", ends=1, plan=50),
    "async": Case(check="async def test_mine(target):\n    assert False\n", ends=1, plan=50),
    "returns": Case(check="def test_mine(target):\n    return False\n", ends=1, plan=20),
    "yields": Case(check="def test_mine(target):\n    yield\n", ends=2, plan=50),
    "drop-target": Case(conftest=SELECTS + "items[:] = [o for o in items if 'codex-fedora' not in o.name]\n", ends=0, plan=0),
    "drop-check": Case(conftest=SELECTS + "items[:] = [o for o in items if o.name != 'test_latest[codex-fedora]']\n", ends=0, plan=0),
    "drop-all": Case(conftest=SELECTS + "items.clear()\n", ends=5, plan=50),
    "twice": Case(conftest=SELECTS + "items.append(items[0])\n", ends=1, plan=50),
    "reverse": Case(conftest=SELECTS + "items.reverse()\n", ends=0, plan=0),
    "deselected-lie": Case(conftest="def pytest_collection_modifyitems(items, config):\n    config.hook.pytest_deselected(items=items[:3])\n", ends=0, plan=0),
    "late-drop": Case(conftest="def pytest_collection_finish(session):\n    del session.items[0]\n", ends=1, plan=50),
    "loop": Case(conftest="@pytest.hookimpl(tryfirst=True)\ndef pytest_runtestloop(session):\n    return True\n", ends=1, plan=50),
    "protocol": Case(conftest="@pytest.hookimpl(tryfirst=True)\ndef pytest_runtest_protocol(item, nextitem):\n    return True\n", ends=1, plan=50),
    "protocol-one": Case(conftest="@pytest.hookimpl(tryfirst=True)\ndef pytest_runtest_protocol(item, nextitem):\n    return True if item.name=='test_latest[codex-fedora]' else None\n", ends=1, plan=50),
    "call": Case(stale=True, conftest="@pytest.hookimpl(tryfirst=True)\ndef pytest_pyfunc_call(pyfuncitem):\n    return True\n", ends=1, plan=10),
    "makereport-passed": Case(stale=True, conftest=REPORTS + "return pytest.TestReport(item.nodeid, item.location, {}, 'passed', None, call.when)\n", ends=1, plan=50),
    "makereport-wrap": Case(stale=True, conftest="@pytest.hookimpl(wrapper=True)\ndef pytest_runtest_makereport(item, call):\n    report = yield\n    report.outcome = 'passed'\n    return report\n", ends=1, plan=10),
    "makereport-raises": Case(conftest=REPORTS + "raise RuntimeError('x')\n", ends=3, plan=50),
    "logreport-raises": Case(conftest="def pytest_runtest_logreport(report):\n    raise RuntimeError('x')\n", ends=3, plan=50),
    "logreport-props": Case(stale=True, conftest="@pytest.hookimpl(tryfirst=True)\ndef pytest_runtest_logreport(report):\n    report.user_properties.clear()\n", ends=1, plan=50),
    "finish-3": Case(conftest="def pytest_sessionfinish(session):\n    session.exitstatus = 3\n", ends=3, plan=50),
    "finish-0": Case(stale=True, conftest="def pytest_sessionfinish(session):\n    session.exitstatus = 0\n", ends=1, plan=10),
    "finish-raises": Case(conftest="def pytest_sessionfinish(session):\n    raise RuntimeError('x')\n", ends=3, plan=50),
    "finish-exit": Case(conftest="def pytest_sessionfinish(session):\n    pytest.exit('so', returncode=4)\n", ends=4, plan=50),
    "modify-json": Case(conftest="def pytest_json_modifyreport(json_report):\n    del json_report['tests'][0]\n", ends=0, plan=50),
    "modify-json-unserializable": Case(conftest="def pytest_json_modifyreport(json_report):\n    json_report['x'] = object()\n", ends=3, plan=50),
    "shouldstop": Case(conftest="def pytest_runtest_logreport(report):\n    pass\ndef pytest_runtest_teardown(item):\n    item.session.shouldstop = 'so'\n", ends=2, plan=50),
    "import-exit": Case(conftest="sys.exit(0)\n", own_process=True, ends=0, plan=50),
    "import-raise": Case(conftest="raise RuntimeError('x')\n", ends=4, plan=50),
    "unconfigure-raises": Case(conftest="def pytest_unconfigure():\n    raise RuntimeError('x')\n", ends=3, plan=0),
    "summary-raises": Case(conftest="def pytest_terminal_summary():\n    raise RuntimeError('x')\n", ends=3, plan=50),
    "ignore-hook": Case(conftest="def pytest_ignore_collect(collection_path):\n    return True if collection_path.name=='test_latest.py' else None\n", ends=0, plan=50),
    "own-target": Case(conftest="@pytest.fixture\ndef observed():\n    return None\n", ends=1, plan=20),
    "generate": Case(conftest="def pytest_generate_tests(metafunc):\n    metafunc.parametrize('target', ['a'])\n", ends=2, plan=50),
    "record-nan": Case(check="def test_mine(target, record_property):\n    record_property('x', float('nan'))\n", ends=0, plan=50),
    "record-object": Case(check="def test_mine(target, record_property):\n    record_property('x', object())\n", ends=0, plan=0),
    "record-forged": Case(stale=True, check="def test_mine(target, record_property):\n    record_property('imagewright', dict(check='test_mine',target=target.key,kind='right',reasons=[],why=''))\n", ends=1, plan=50),
    "record-broken": Case(check="def test_mine(target, record_property):\n    record_property('imagewright', 5)\n", ends=3, plan=50),
    "subtests": Case(check="def test_mine(target, subtests):\n    with subtests.test('a'):\n        assert False\n", ends=1, plan=50),
    "subtests-pass": Case(check="def test_mine(target, subtests):\n    with subtests.test('a'):\n        pass\n", ends=1, plan=50),
    "warning": Case(arguments=("-W", "error"), check="import warnings\ndef test_mine(target):\n    warnings.warn('x')\n", ends=1, plan=20),
    "recursion": Case(check="def test_mine(target):\n    test_mine(target)\n", ends=1, plan=20),
    "huge": Case(check="def test_mine(target):\n    raise ValueError('x'*3000000)\n", ends=1, plan=20),
    "chdir": Case(check="def test_mine(target):\n    os.chdir('/')\n", ends=0, plan=0),
    "rm-state": Case(check="import shutil, pathlib\nHERE=pathlib.Path(__file__).parent.parent\ndef test_mine(target):\n    shutil.rmtree(HERE/'.imagewright', ignore_errors=True)\n", ends=3, plan=50),
    "edit-catalogue": Case(check="import pathlib\nHERE=pathlib.Path(__file__).parent.parent\ndef test_mine(target):\n    (HERE/'tools/codex/tool.yaml').write_text('title: x\\n')\n", ends=0, plan=50),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_run_has_a_result_that_holds_or_none(family: World, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    if case.stale:
        family.base("fedora", layer({"etc/os": "new"}))
    if case.check:
        (family.project / "checks" / case.file).write_text(f"import pytest, os, sys\n{case.check}")
    if case.conftest:
        conftest = family.project / "conftest.py"
        conftest.write_text(f"import pytest, sys, os\n{conftest.read_text()}{case.conftest}")
    if case.ini:
        (family.root / "x.ini").write_text(case.ini)

    if case.own_process:
        ran = family.spawn(*case.arguments)
    else:
        with monkeypatch.context() as patch:
            patch.setenv("PYTEST_ADDOPTS", case.addopts)
            ran = family.run(*case.arguments)

    assert ran.code == case.ends, ran.text
    assert plan(family) == case.plan, ran.text
    plan_is_there = (family.project / ".imagewright" / "plan.json").exists()
    assert plan_is_there == (case.plan in (0, 10, 20))


def plan(made: World) -> int:
    """What `imagewright plan` ends with."""
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()) as said,
    ):
        patch.chdir(made.project)
        patch.setattr("sys.argv", ["imagewright", "plan"])
        code = cli._run()
    assert "Traceback" not in said.getvalue()
    return code
