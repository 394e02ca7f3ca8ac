"""The time. Here, and in the pytest plugin, is the clock read; everything else takes it as a parameter."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click

from imagewright.errors import BadReport

HOUR = 3600
_Command = TypeVar("_Command", bound=Callable[..., Any])


def now() -> datetime:
    """Now, in UTC."""
    return datetime.now(UTC)


def stamp(moment: datetime) -> str:
    """A moment as it stands in our files."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def trusted_for(what: str) -> Callable[[_Command], _Command]:
    """The option `--max-age`, in seconds: how long something is trusted before it is looked at as old. what: as `a plan`."""
    return click.option(
        "--max-age",
        default=HOUR,
        type=click.IntRange(min=0),
        metavar="SECONDS",
        show_default=True,
        help=f"How long {what} is trusted.",
    )


def refuse_old(written: str, moment: datetime, at_most: float, *, what: str, where: str) -> None:
    """`BadReport` where something was written longer ago than `at_most` seconds, or in the future."""
    try:
        age = moment - datetime.fromisoformat(written)
    except (ValueError, TypeError):
        raise BadReport(f"{what} bears no time: {written!r}", where=where) from None
    if age.total_seconds() > at_most:
        minutes = int(age.total_seconds() // 60)
        raise BadReport(
            f"{what} is {minutes} minutes old, at most {at_most / 60:g} are trusted",
            remedy="Run `pytest checks/` and `imagewright plan` again.",
            where=where,
        )
    if age < timedelta(seconds=-60):
        raise BadReport(f"{what} is from the future, {written}", remedy="Set the clock; run it again.", where=where)
