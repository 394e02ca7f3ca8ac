"""Speaks with a forge: reads the runs of a workflow, asks for one. What reads may be repeated, what asks never is."""

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Self
from urllib.parse import quote

import requests
import urllib3.exceptions

from imagewright.forge.answers import MAX_PAGE_BYTES, Page, Unreadable, is_limited, outcome, page
from imagewright.forge.place import Place
from imagewright.forge.runs import Outcome, Run
from imagewright.registry.answers import UNAVAILABLE, Answer
from imagewright.registry.transport import Arrival, GuardedSession, Interrupted, trouble_of, was_not_sent
from imagewright.settings import ForgeKind, Limits, Surroundings

_TRIES = 3
_PAGES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dialect:
    """How a kind of forge is spoken to. runs: the path and query of a page of runs. details_in: where its run is asked for."""

    headers: Mapping[str, str]
    runs: str
    details_in: Literal["body", "query"]


_DIALECTS: Mapping[ForgeKind, _Dialect] = {
    # https://docs.github.com/en/rest/about-the-rest-api/api-versions
    "github": _Dialect(
        headers={"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"},
        runs="actions/workflows/{workflow}/runs?per_page=100&page={page}",
        details_in="body",
    ),
    # It has no list of one workflow's runs, and passes over `per_page` and over members of the body that it does not know.
    "gitea": _Dialect(
        headers={"Accept": "application/json"}, runs="actions/runs?limit=50&page={page}", details_in="query"
    ),
}


class Forge:
    """One repository on a forge."""

    def __init__(self, place: Place, limits: Limits, surroundings: Surroundings) -> None:
        self.place = place
        self._limits = limits
        self._dialect = _DIALECTS[place.kind]
        self._session = GuardedSession(limits, surroundings, connections=1)
        self._session.headers.update({**self._dialect.headers, "Authorization": f"Bearer {place.token}"})
        self._tells_runs = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def runs(self, workflow: str, since: datetime) -> tuple[Run, ...]:
        """The runs of a workflow that were made since then, newest first, each once. `Unreadable` where one may be missing."""
        found: dict[int, Run] = {}
        seen = 0
        for number in range(1, _PAGES + 1):
            read = self._page(workflow, number)
            seen += read.seen
            found |= {one.id: one for one in read.runs}
            if seen >= read.total or any(one.created and one.created < since for one in read.runs):
                return tuple(
                    one for one in found.values() if one.created is None or one.created >= since or one.in_flight
                )
            if not read.seen:
                raise Unreadable(
                    f"the runs of {self.place.repository} cannot be read: the list ends after {seen} of {read.total}",
                    remedy="The next run looks again.",
                )
        raise Unreadable(
            f"{self.place.repository} has too many runs to read, more than {seen} within ten days",
            remedy="Ask for fewer builds an hour: `plan.per-hour`.",
        )

    def newest(self, workflow: str) -> tuple[Run, ...]:
        """The newest runs of a workflow, from one page that is asked for once. `Unreadable`."""
        return self._page(workflow, 1, tries=1).runs

    def _page(self, workflow: str, number: int, tries: int = _TRIES) -> Page:
        path = self._dialect.runs.format(workflow=quote(workflow, safe=""), page=number)
        for attempt in range(1, tries + 1):
            try:
                answer = self._answer("GET", path, None)
            except Interrupted as error:
                if attempt == tries:
                    raise Unreadable(
                        f"the runs of {self.place.repository} cannot be read: {error.trouble.detail}",
                        remedy=f"Is {self.place.api} reachable from here?",
                    ) from None
            else:
                if answer.status not in UNAVAILABLE or is_limited(answer) or attempt == tries:
                    return page(answer, self.place.repository, workflow)
            time.sleep(0.5 * 2**attempt * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        raise AssertionError("the last try returns or raises")

    def ask(self, workflow: str, ref: str, inputs: Mapping[str, str]) -> Outcome:
        """Asks for one run of a workflow. Never twice, but for a server that refuses the question which run it became."""
        path = f"actions/workflows/{quote(workflow, safe='')}/dispatches"
        body: dict[str, object] = {"ref": ref, "inputs": dict(inputs)}
        if self._dialect.details_in == "query":
            return self._asked(f"{path}?return_run_details=true", body)[1]
        status, became = self._asked(path, body | ({"return_run_details": True} if self._tells_runs else {}))
        if status == 400 and self._tells_runs:  # GitHub Enterprise Server up to 3.20: nothing was made
            self._tells_runs = False
            return self._asked(path, body)[1]
        return became

    def _asked(self, path: str, body: Mapping[str, object]) -> tuple[int, Outcome]:
        try:
            answer = self._answer("POST", path, body)
        except Interrupted as error:
            detail = error.trouble.detail
            if isinstance(error, _NotSent):
                return 0, Outcome(
                    outcome="rejected", detail=f"the forge was not reached: {detail}", remedy="The next run asks again."
                )
            return 0, Outcome(
                outcome="ambiguous",
                detail=f"the forge did not answer: {detail}",
                remedy="The run may have been made all the same; the next plan finds it, or asks for it anew.",
            )
        return answer.status, outcome(answer, self.place.repository)

    def _answer(self, method: str, path: str, body: Mapping[str, object] | None) -> Answer:
        """One request, its answer read within limits. `Interrupted`, as `_NotSent` where the forge never heard of it."""
        url = f"{self.place.api}/repos/{self.place.repository}/{path}"
        arrival = Arrival(MAX_PAGE_BYTES, time.monotonic() + self._limits.total, None)
        try:
            response = self._session.request(method, url, json=body)
            content = arrival.body(response)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            trouble = trouble_of(error, self._limits)
            raise (_NotSent if was_not_sent(error) else Interrupted)(trouble) from None
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(status=response.status_code, headers=headers, body=content)


class _NotSent(Interrupted):
    """There was no connection, so nothing can have come of the request."""
