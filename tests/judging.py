"""Verdicts without a run of pytest: the functions of `checks/` on a snapshot, their fixtures filled in by hand.

For proofs with thousands of runs. `tests/test_judging.py` shows that a run of pytest comes to the same.
"""

import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from imagewright import check_fixtures, verdict
from imagewright.catalogue import Catalogue, Target, repositories_of
from imagewright.recipe import Recipes
from imagewright.shipped import CHECKS
from imagewright.snapshot import Snapshot
from imagewright.verdict import Outcome, Verdict


@cache
def promises() -> dict[str, Callable[..., None]]:
    """Check → its function, of all checks that come with imagewright."""
    found = {}
    for file in sorted(Path(CHECKS).glob("test_*.py")):
        spec = importlib.util.spec_from_file_location(f"judged_{file.stem}", file)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found.update({name: one for name, one in vars(module).items() if name.startswith("test_")})
    return found


@dataclass
class _Values:
    """The values of fixtures for one target, made as they are asked for."""

    made: dict[str, Any] = field(default_factory=dict)

    def of(self, name: str) -> Any:
        if name not in self.made:
            function = getattr(check_fixtures, name)._get_wrapped_function()
            self.made[name] = function(**self.for_(function))
        return self.made[name]

    def for_(self, function: Callable[..., Any]) -> dict[str, Any]:
        return {name: self.of(name) for name in _parameters(function)}


@cache
def _parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)


def judged(seen: Snapshot, catalogue: Catalogue, targets: tuple[Target, ...]) -> dict[str, Verdict]:
    """Target → its verdict, from what was seen."""
    run = SimpleNamespace(
        catalogue=catalogue,
        seen=seen,
        by_target={one.target: one for one in seen.targets},
        recipes=Recipes(catalogue.settings.label_prefix),
    )
    return {one.key: _judged(one, run, seen) for one in targets}


def _judged(target: Target, run: SimpleNamespace, seen: Snapshot) -> Verdict:
    distrust = seen.distrust(*repositories_of(target))
    findings = []
    for name, check in promises().items():
        raised: BaseException | None = None
        try:
            check(**_Values({"run": run, "target": target}).for_(check))
        except Outcome as outcome:
            raised = outcome
        findings.append(verdict.finding(name, target.key, verdict.believed(raised, distrust)))
    found = verdict.judge(findings, list(promises()))
    assert found, "each check was heard once"
    return found
