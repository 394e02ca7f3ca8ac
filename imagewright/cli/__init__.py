"""The command line: parses, calls, prints, exits. A file per verb, imported when it is called."""

import contextlib
import gc
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from imagewright.errors import Exit, ImagewrightError

VERBS = {
    "init": "Make a project of this folder.",
    "new": "Make a new tool.",
    "doctor": "Say what is installed and reachable here.",
    "versions": "Read the version of every tool.",
    "plan": "Turn a report into builds.",
    "dispatch": "Ask the forge for the builds of a plan.",
    "build": "Build what a plan asks for, or one target, here.",
    "publish": "Push platforms by digest, join them, move the tags.",
    "explain": "Tell everything known about one target.",
    "matrix": "Draw a report: tools and bases, what is not fresh and why.",
    "registry": "Serve the embedded registry.",
    "demo": "See the whole loop on an embedded registry.",
}
"""Every verb and its one line of help; the module of each is loaded only when it is called."""


_FEW_COLLECTIONS = 100_000
"""New objects until Python looks for garbage: what a command reads it keeps, and reading a large report makes many."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a command runs. root: of the project, the working folder."""

    root: Path
    environ: dict[str, str]


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = getattr(import_module(f"imagewright.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="imagewright")
@click.option("--no-input", is_flag=True, help="Never ask anything.")
@click.pass_context
def main(context: click.Context, no_input: bool) -> None:  # noqa: ARG001 - nothing asks yet
    """Keep families of container images right: `pytest checks/` shows what is not, these verbs mend it.

    \b
    pytest checks/                what rots, and why
    imagewright plan              which builds that asks for
    imagewright build PLAN --push build them here, publish, verify

    Exit codes: 0 fresh or done, 1 failed, 2 usage, 10 stale, 20 unknown, 30 brake, 40 bad catalogue or settings, 50 bad or
    incomplete report, 60 dispatch rejected or ambiguous, 130 and 143 interrupted.
    """
    context.obj = Place(Path.cwd(), dict(os.environ))
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":  # https://no-color.org; click knows pipes only
        context.color = False


class _Terminated(BaseException):
    """SIGTERM, so that everything on the way out is cleaned up."""


def run() -> NoReturn:
    """The program: runs `main`, tells errors in words, and exits with the code that they own."""
    signal.signal(signal.SIGTERM, _terminate)
    gc.set_threshold(_FEW_COLLECTIONS)
    try:
        code = _run()
    except BrokenPipeError:  # who read our output has enough, as in `imagewright plan | head`
        code = Exit.FAILED
    _leave(code)


def _run() -> int:
    try:
        return int(main.main(prog_name="imagewright", standalone_mode=False) or Exit.DONE)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return Exit.USAGE
    except ImagewrightError as error:
        click.echo(f"imagewright: {error}", err=True)
        return error.exit
    except (KeyboardInterrupt, click.Abort):
        click.echo("imagewright: interrupted", err=True)
        return Exit.INTERRUPTED
    except _Terminated:
        click.echo("imagewright: terminated", err=True)
        return Exit.TERMINATED
    except BrokenPipeError:
        raise
    except OSError as error:  # a full disk, a folder that may not be written
        said = f"{error.filename or 'a file'}: {error.strerror}" if error.strerror else str(error)
        click.echo(f"imagewright: {said}", err=True)
        return Exit.FAILED


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _Terminated


def _leave(code: int) -> NoReturn:
    """Ends the process at once: threads that wait for the network are not waited for, programs of ours are ended."""
    for number in (signal.SIGINT, signal.SIGTERM):  # once is enough
        signal.signal(number, signal.SIG_IGN)
    for module in ("imagewright.containers", "imagewright.process"):
        if module in sys.modules:
            sys.modules[module].end_all()
    if code in (Exit.INTERRUPTED, Exit.TERMINATED):
        _let_threads_clean_up()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BrokenPipeError):  # nobody reads it any more
            stream.flush()
    os._exit(code)


def _let_threads_clean_up() -> None:
    """Half a second for threads whose program has just been ended to remove its files."""
    until = time.monotonic() + 0.5
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(max(until - time.monotonic(), 0))
