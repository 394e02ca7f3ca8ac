"""The time. Here, and in the pytest plugin, is the clock read; everything else takes it as a parameter."""

from datetime import UTC, datetime, timedelta

from imagewright.errors import BadReport


def now() -> datetime:
    """Now, in UTC."""
    return datetime.now(UTC)


def stamp(moment: datetime) -> str:
    """A moment as it stands in our files."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


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
