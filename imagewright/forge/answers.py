"""What a forge's answer means. Pure: an answer in, a typed meaning out; whatever is not clear is no meaning at all.

https://docs.github.com/en/rest/actions/workflows#create-a-workflow-dispatch-event
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from imagewright.documents import BadDocument, load_json
from imagewright.errors import Exit, ImagewrightError
from imagewright.forge.runs import Outcome, Run
from imagewright.names import shown
from imagewright.registry.answers import MAX_ERROR_BYTES, Answer

MAX_PAGE_BYTES = 8 * 2**20
_BEFORE_ANYTHING_WAS_TOLD = datetime(1980, 1, 1, tzinfo=UTC)
"""Gitea states the epoch, or the year 1, where something has not happened."""


class Unreadable(ImagewrightError):
    """The forge's runs cannot be read, so nothing is asked of it: what is not seen may be there all the same."""

    exit = Exit.REJECTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some runs, newest first. total: how many there are, without a limit. seen: how many stood here, of all workflows."""

    runs: tuple[Run, ...]
    seen: int
    total: int


def outcome(answer: Answer, repository: str) -> Outcome:
    """What became of a request for a run."""
    if answer.status == 204:
        return Outcome(outcome="accepted")
    if answer.status == 200:
        return _details(answer, repository)
    if answer.status == 408 or answer.status >= 500 or answer.status < 300:
        return Outcome(
            outcome="ambiguous",
            detail=f"the forge answered {answer.status}{_message(answer)}",
            remedy="The run may have been made all the same; the next plan finds it, or asks for it anew.",
        )
    return Outcome(
        outcome="rejected", detail=f"the forge answered {answer.status}{_message(answer)}", remedy=_remedy(answer)
    )


def _details(answer: Answer, repository: str) -> Outcome:
    doubtful = "The run may have been made all the same; look at the forge."
    document = _members(answer)
    run, url = document.get("workflow_run_id"), document.get("html_url")
    if not isinstance(run, int) or isinstance(run, bool) or not isinstance(url, str):
        return Outcome(outcome="ambiguous", detail="the forge answered 200 and names no run", remedy=doubtful)
    if not _is_of(url, repository):
        return Outcome(outcome="ambiguous", detail=f"the forge names a run elsewhere, {shown(url)}", remedy=doubtful)
    return Outcome(outcome="accepted", run=run, url=url)


def _is_of(url: str, repository: str) -> bool:
    return f"/{repository.lower()}/actions/runs/" in url.lower()


def _members(answer: Answer) -> Mapping[str, Any]:
    """The members of an answer's body; none where that is no JSON object."""
    try:
        document = load_json(answer.body, MAX_ERROR_BYTES)
    except BadDocument:
        return {}
    return document if isinstance(document, dict) else {}


def _message(answer: Answer) -> str:
    """The forge's own words, made harmless."""
    message = _members(answer).get("message")
    return f": {shown(message[:200])}" if isinstance(message, str) and message else ""


def is_limited(answer: Answer) -> bool:
    """Whether too much was asked. https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api"""
    told = answer.headers
    spent = told.get("x-ratelimit-remaining") == "0" or "retry-after" in told or b"secondary rate" in answer.body
    return answer.status == 429 or (answer.status == 403 and spent)


_MOVED = frozenset({301, 302, 307, 308})
_RENAMED = "The repository has another name now; set `repository` of [tool.imagewright.forge]."


def _remedy(answer: Answer) -> str:
    if is_limited(answer):
        return "Too much was asked of it; the next run asks again."
    if answer.status in _MOVED:
        return _RENAMED
    return {
        401: "The token is wrong or has expired.",
        403: "The token may not start workflows: it needs `actions: write`.",
        404: "There is no such workflow on the default branch, it is disabled, or the token does not see the repository.",
        422: "The workflow on that branch knows other inputs, cannot be started by hand, or there is no such branch.",
    }.get(answer.status, "Look at the forge's status page.")


def page(answer: Answer, repository: str, workflow: str) -> Page:
    """A page of runs; those of other workflows are left out. `Unreadable` where any of it is not understood."""
    if answer.status != 200:
        raise Unreadable(
            f"the runs of {repository} cannot be read: the forge answered {answer.status}{_message(answer)}",
            remedy=_reading_remedy(answer),
        )
    try:
        document: Any = load_json(answer.body, MAX_PAGE_BYTES)
        listed = document["workflow_runs"]
        made = [_run(one, repository) for one in listed if _workflow(one["path"]) == workflow]
        return Page(runs=tuple(made), seen=len(listed), total=_whole(document["total_count"]))
    except (BadDocument, KeyError, TypeError, AttributeError, ValueError) as error:
        raise Unreadable(
            f"the runs of {repository} cannot be read: the answer is not understood ({shown(str(error)[:200])})",
            remedy="Is `api` of [tool.imagewright.forge] the address of the forge's API, and `kind` its kind?",
        ) from None


def _reading_remedy(answer: Answer) -> str:
    if is_limited(answer):
        return "Too much was asked of it; the next run looks again."
    if answer.status in _MOVED:
        return _RENAMED
    if answer.status in (401, 403, 404):
        return "The token may not see the repository's Actions, or there is no such repository."
    return "The next run looks again."


def _workflow(path: str) -> str:
    """The file that a run is of: GitHub says `.github/workflows/build.yml`, Gitea `build.yml@refs/heads/main`."""
    return path.partition("@")[0].rpartition("/")[2]


def _run(members: Mapping[str, Any], repository: str) -> Run:
    url, title, status = (_text(members[name]) for name in ("html_url", "display_title", "status"))
    if not _is_of(url, repository):
        raise ValueError(f"a run elsewhere, {url}")
    ended = _moment(members.get("updated_at") or members.get("completed_at"))
    in_flight = status != "completed"
    if not in_flight and ended is None:
        raise ValueError(f"run {members['id']} ended, and nobody knows when")
    return Run(
        id=_whole(members["id"]),
        title=title,
        status=status,
        conclusion=members.get("conclusion") or "",
        created=_moment(members.get("created_at") or members.get("started_at")),
        ended=None if in_flight else ended,
        attempt=max(_whole(members.get("run_attempt") or 1), 1),
        url=url,
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no number")
    return value


def _moment(value: object) -> datetime | None:
    if not value:
        return None
    moment = datetime.fromisoformat(_text(value))
    if moment.tzinfo is None:
        raise ValueError(f"{value!r} has no time zone")
    return moment if moment > _BEFORE_ANYTHING_WAS_TOLD else None
