"""Runs the command `imagewright`: as a program, or in this process, for tables, without an interpreter's start."""

import io
import json
import os
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from imagewright import cli

PROGRAM = [sys.executable, "-c", "from imagewright.cli import run; run()"]


@dataclass(frozen=True)
class Ran:
    """What came of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def call(folder: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> Ran:
    """Runs it here, in a folder. environ: all that it finds around it; by default what is here."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(folder)
        patch.setattr("sys.argv", ["imagewright", *arguments])
        if environ is not None:
            for name in os.environ:
                patch.delenv(name)
            for name, value in environ.items():
                patch.setenv(name, value)
        code = cli._run()
    assert "Traceback" not in out.getvalue() + err.getvalue()
    return Ran(code, out.getvalue(), err.getvalue())
