"""Every error a person can meet: what happened, where, what to do about it, and its exit code."""

from enum import IntEnum


class Exit(IntEnum):
    """Process exit codes of `imagewright`. pytest keeps its own (0 to 5)."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    STALE = 10
    UNKNOWN = 20
    BRAKE = 30
    BAD_CATALOGUE = 40
    BAD_REPORT = 50
    REJECTED = 60
    INTERRUPTED = 130
    TERMINATED = 143


class ImagewrightError(Exception):
    """Base of all expected errors; a subclass owns an exit code.

    reason: one sentence, what happened. remedy: what to do about it, empty if nobody knows.
    where: `file`, `file:line` or `file:line:column`, empty if there is no such place.
    """

    exit = Exit.FAILED

    def __init__(self, reason: str, *, remedy: str = "", where: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy
        self.where = where

    def __str__(self) -> str:
        head = f"{self.where}: {self.reason}" if self.where else self.reason
        return f"{head}\n  {self.remedy}" if self.remedy else head


class Failed(ImagewrightError):
    """Something that was asked for could not be done."""


class BuildFailed(Failed):
    """A builder ran and did not deliver, or could not start."""


class Usage(ImagewrightError):
    """The command line asks for something that does not exist or makes no sense."""

    exit = Exit.USAGE


class Unanswered(ImagewrightError):
    """A question to the world was not answered, so nothing follows from it."""

    exit = Exit.UNKNOWN


class BadCatalogue(ImagewrightError):
    """Settings or catalogue are invalid; nothing was asked of anybody."""

    exit = Exit.BAD_CATALOGUE


class BadReport(ImagewrightError):
    """A report is absent, cut, old, foreign, or its numbers do not add up."""

    exit = Exit.BAD_REPORT
