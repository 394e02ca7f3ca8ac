"""Speaking with a forge, over real HTTP. GitHub's own description of its API holds the client and the stand-in together."""

import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from openapi_core import OpenAPI
from openapi_core.exceptions import OpenAPIError
from openapi_core.testing import MockRequest, MockResponse

from imagewright.errors import Failed
from imagewright.forge.answers import Unreadable, outcome
from imagewright.forge.client import Forge
from imagewright.forge.place import Place, place_of
from imagewright.forge.runs import Outcome, inputs_of
from imagewright.plan import Build
from imagewright.reasons import Stale
from imagewright.registry.answers import Answer
from imagewright.settings import ForgeSettings, Limits, Surroundings
from imagewright.testing.github import INPUTS, Fault, GitHub, Heard, Said
from imagewright.verdict import Reason

DESCRIPTION = Path(__file__).parents[2] / "shared" / "data" / "github-openapi.json"
LIMITS = Limits(connect=0.5, read=0.5, total=1)
NOW = datetime.now(UTC)
SINCE = NOW - timedelta(days=10)
BUILD = Build(
    key="0123456789abcdef",
    target="codex-fedora",
    tool="codex",
    base="fedora",
    version="1.0",
    base_digest=f"sha256:{'0' * 64}",
    reasons=(Reason(code=Stale.BASE_CHANGED), Reason(code=Stale.BASE_CHANGED, platform="linux/arm64")),
    action="build",
)
INPUT = inputs_of(BUILD, force=False)


@pytest.fixture
def github() -> Iterator[GitHub]:
    with GitHub() as made:
        yield made
    for heard, said in made.answers:
        refuse_undescribed(heard, said)


def forge(github: GitHub, *, token: str = "t", repository: str = "own/images") -> Forge:
    return Forge(Place(api=github.api, repository=repository, kind="github", token=token), LIMITS, Surroundings())


def ask(github: GitHub, **given: Any) -> Outcome:
    with forge(github, **given) as asking:
        return asking.ask("build.yml", "main", INPUT)


# The official description


def _description() -> OpenAPI | None:
    if not DESCRIPTION.exists():
        return None
    document = json.loads(DESCRIPTION.read_bytes())
    del document["components"]["parameters"]["created"]["schema"]["format"]  # it is searched by ranges, no `date-time`
    return OpenAPI.from_dict(document)


OFFICIAL = _description()
UNDESCRIBED = {400, 401, 403, 404, 408, 422, 429, 500, 502, 503, 504}
"""Errors, which it hardly describes."""
_MEMBERS, _QUERY = {"ref", "inputs", "return_run_details"}, {"per_page", "page"}


def refuse_undescribed(heard: Heard, said: Said) -> None:
    """What a request and its right answer have that GitHub does not describe; nothing where the description is not here."""
    if OFFICIAL is None or said.status in UNDESCRIBED or isinstance(said.body, bytes) or said.status >= 300:
        return
    assert set(heard.query) <= _QUERY
    assert not heard.body or set(json.loads(heard.body)) <= _MEMBERS
    request = MockRequest(
        "https://api.github.com",
        heard.method,
        heard.path,
        args={name: value[0] for name, value in heard.query.items()},
        data=heard.body or None,
        content_type="application/json",
    )
    response = MockResponse(json.dumps(said.body).encode(), status_code=said.status, content_type="application/json")
    OFFICIAL.validate_request(request)
    if said.status != 204:
        OFFICIAL.validate_response(request, response)


needs_description = pytest.mark.skipif(
    OFFICIAL is None, reason="needs GitHub's description in ../shared/data, beside the project's folder"
)


@needs_description
def test_requests_and_answers_are_as_github_describes_them(github: GitHub) -> None:
    github.add("build codex-fedora 1.0 [0123456789abcdef]", status="completed", conclusion="success")
    with forge(github) as asking:
        assert asking.ask("build.yml", "main", INPUT).outcome == "accepted"
        assert len(asking.runs("build.yml", SINCE)) == 2
    assert [said.status for _, said in github.answers] == [200, 200]
    for heard, said in github.answers:
        refuse_undescribed(heard, said)
    assert {one.headers["x-github-api-version"] for one in github.log} == {"2022-11-28"}


WRONG = {
    "no ref": {"inputs": {}},
    "26 inputs": {"ref": "main", "inputs": {f"i{at}": "x" for at in range(26)}},
    "a text where a truth is meant": {"ref": "main", "return_run_details": "yes"},
}


@needs_description
@pytest.mark.parametrize("what", WRONG)
def test_the_description_finds_what_is_wrong(what: str) -> None:
    path = "/repos/own/images/actions/workflows/build.yml/dispatches"
    heard = Heard(method="POST", path=path, query={}, headers={}, body=json.dumps(WRONG[what]).encode())
    with pytest.raises(OpenAPIError):
        refuse_undescribed(heard, Said(status=204))


# Asking for a run

HTML = b"<html>Unicorn!</html>"
DETAILS = {"workflow_run_id": 7, "run_url": "x", "html_url": "https://github.com/own/images/actions/runs/7"}
ANSWERS = {
    "200 with a run": (200, DETAILS, {}, "accepted"),
    "200 with a run, the name in other letters": (
        200,
        DETAILS | {"html_url": "https://github.com/Own/Images/actions/runs/7"},
        {},
        "accepted",
    ),
    "204": (204, None, {}, "accepted"),
    "200 and HTML": (200, HTML, {}, "ambiguous"),
    "200 and nothing": (200, b"", {}, "ambiguous"),
    "200 and a list": (200, [], {}, "ambiguous"),
    "200 without a number": (200, DETAILS | {"workflow_run_id": "7"}, {}, "ambiguous"),
    "200 with a run elsewhere": (
        200,
        DETAILS | {"html_url": "https://github.com/other/images/actions/runs/7"},
        {},
        "ambiguous",
    ),
    "201": (201, None, {}, "ambiguous"),
    "301": (301, None, {"location": "/repositories/7"}, "rejected"),
    "400": (400, {"message": "Problems parsing JSON"}, {}, "rejected"),
    "401": (401, {"message": "Bad credentials"}, {}, "rejected"),
    "403": (403, {"message": "Resource not accessible by integration"}, {}, "rejected"),
    "403, a secondary limit": (403, {"message": "secondary rate limit"}, {"retry-after": "60"}, "rejected"),
    "403, nothing remains": (403, {"message": "rate limit"}, {"x-ratelimit-remaining": "0"}, "rejected"),
    "404": (404, {"message": "Not Found"}, {}, "rejected"),
    "408": (408, None, {}, "ambiguous"),
    "422": (422, {"message": "Unexpected inputs provided"}, {}, "rejected"),
    "429": (429, None, {"retry-after": "60"}, "rejected"),
    "500": (500, None, {}, "ambiguous"),
    "502 and HTML": (502, HTML, {}, "ambiguous"),
    "503": (503, None, {}, "ambiguous"),
    "504": (504, None, {}, "ambiguous"),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_an_answer_says_accepted_rejected_or_neither(what: str) -> None:
    status, body, headers, expected = ANSWERS[what]
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    made = outcome(Answer(status=status, headers=headers, body=content), "own/images")
    assert made.outcome == expected
    assert (made.outcome == "accepted") is not bool(made.detail)
    assert (made.outcome == "accepted") is not bool(made.remedy)


def test_a_run_is_asked_for_with_texts_alone_and_known_by_its_number(github: GitHub) -> None:
    made = ask(github)
    assert (made.outcome, made.run) == ("accepted", 1)
    (sent,) = github.posts()
    assert sent == {
        "ref": "main",
        "return_run_details": True,
        "inputs": {
            "tool": "codex",
            "base": "fedora",
            "version": "1.0",
            "base_digest": f"sha256:{'0' * 64}",
            "reason": "base-changed",
            "key": "0123456789abcdef",
        },
    }


def test_a_standalone_image_is_named_by_target_and_force_is_said() -> None:
    image = Build(
        key="0" * 16, target="util", tool=None, base=None, version="1", base_digest="", reasons=(), action="build"
    )
    assert inputs_of(image, force=True) == {"target": "util", "version": "1", "key": "0" * 16, "force": "true"}
    assert set(inputs_of(BUILD, force=True)) | set(inputs_of(image, force=True)) == set(INPUTS)


def test_a_server_that_refuses_the_question_which_run_it_became_is_asked_once_more_without() -> None:
    with GitHub(tells_runs=False) as github, forge(github) as asking:
        assert asking.ask("build.yml", "main", INPUT) == Outcome(outcome="accepted")
        assert asking.ask("build.yml", "main", INPUT) == Outcome(outcome="accepted")
        assert [("return_run_details" in one) for one in github.posts()] == [True, False, False]
        assert len(github.runs) == 2


NEVER_REPEATED = {
    "500 before": (Fault(method="POST", said=Said(status=500)), 0, "ambiguous"),
    "500 after": (Fault(method="POST", said=Said(status=500), after=True), 1, "ambiguous"),
    "502 and HTML after": (Fault(method="POST", said=Said(status=502, body=HTML), after=True), 1, "ambiguous"),
    "no answer before": (Fault(method="POST"), 0, "ambiguous"),
    "no answer after": (Fault(method="POST", after=True), 1, "ambiguous"),
    "silence after": (Fault(method="POST", after=True, pause=0.8), 1, "ambiguous"),
    "429": (Fault(method="POST", said=Said(status=429, headers={"Retry-After": "1"})), 0, "rejected"),
    "another repository's run": (
        Fault(method="POST", said=Said(status=200, body=DETAILS | {"html_url": "https://x/o/r/actions/runs/1"})),
        0,
        "ambiguous",
    ),
}


@pytest.mark.parametrize("what", NEVER_REPEATED)
def test_a_request_for_a_run_is_never_repeated(github: GitHub, what: str) -> None:
    fault, runs, expected = NEVER_REPEATED[what]
    github.fails(fault)
    made = ask(github)
    assert made.outcome == expected
    assert (len(github.posts()), len(github.runs)) == (1, runs)


REJECTED = {
    "another token": ({"token": "wrong"}, "401", "The token is wrong"),
    "another repository": ({"repository": "own/else"}, "404", "There is no such workflow"),
}


@pytest.mark.parametrize("what", REJECTED)
def test_a_refusal_says_what_to_do(github: GitHub, what: str) -> None:
    given, status, remedy = REJECTED[what]
    made = ask(github, **given)
    assert (made.outcome, status in made.detail, remedy in made.remedy) == ("rejected", True, True)


def test_a_forge_that_was_not_reached_was_asked_for_nothing() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        place = Place(api=f"http://127.0.0.1:{nobody.getsockname()[1]}", repository="o/r", kind="github", token="t")
        with Forge(place, LIMITS, Surroundings()) as asking:
            made = asking.ask("build.yml", "main", INPUT)
            assert (made.outcome, made.detail) == ("rejected", "the forge was not reached: connection refused")
            with pytest.raises(Unreadable, match="connection refused"):
                asking.runs("build.yml", SINCE)


# Reading runs


def test_runs_are_read_page_by_page_until_they_are_ten_days_old(github: GitHub) -> None:
    for number in range(450):
        made = NOW - timedelta(hours=450 - number)
        github.add(f"run {number}", status="completed", conclusion="success", created=made)
    with forge(github) as asking:
        found = asking.runs("build.yml", SINCE)
    assert [one.title for one in found] == [f"run {number}" for number in range(449, 210, -1)]
    assert [one.query["page"] for one in github.log] == [["1"], ["2"], ["3"]]


def test_a_run_that_waits_is_read_however_old_it_is(github: GitHub) -> None:
    github.add("old", status="waiting", created=NOW - timedelta(days=20))
    with forge(github) as asking:
        assert [one.title for one in asking.runs("build.yml", SINCE)] == ["old"]


def test_no_runs_are_one_request(github: GitHub) -> None:
    with forge(github) as asking:
        assert asking.runs("build.yml", SINCE) == ()
    assert len(github.log) == 1


RUN = {"id": 1, "display_title": "x", "status": "completed", "conclusion": "success", "path": "build.yml"}
RUN |= {"html_url": "https://github.com/own/images/actions/runs/1", "updated_at": "2026-01-01T00:00:00Z"}


def listing(*runs: Any, total: int = 1) -> Said:
    return Said(status=200, body={"total_count": total, "workflow_runs": list(runs)})


UNREADABLE = {
    "401": Said(status=401, body={"message": "Bad credentials"}),
    "403": Said(status=403, body={"message": "Resource not accessible"}),
    "404": Said(status=404, body={"message": "Not Found"}),
    "301": Said(status=301),
    "429": Said(status=429, headers={"Retry-After": "60"}),
    "HTML": Said(status=200, body=HTML),
    "a list": Said(status=200, body=[]),
    "no list of runs": Said(status=200, body={"total_count": 0}),
    "no count": Said(status=200, body={"workflow_runs": []}),
    "a count that is none": Said(status=200, body={"total_count": "0", "workflow_runs": []}),
    "fewer than there are": listing(total=3),
    "a run of another repository": listing(RUN | {"html_url": "https://github.com/o/r/actions/runs/1"}),
    "a run without a title": listing(RUN | {"display_title": None}),
    "a run without a status": listing({name: value for name, value in RUN.items() if name != "status"}),
    "a run that ended, nobody knows when": listing(RUN | {"updated_at": None}),
    "a time without a zone": listing(RUN | {"updated_at": "2026-01-01T00:00:00"}),
    "a run without a number": listing(RUN | {"id": "1"}),
    "a run that is none": listing("x"),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_runs_that_are_not_understood_to_the_last_are_not_read_at_all(github: GitHub, what: str) -> None:
    github.fails(Fault(method="GET", said=UNREADABLE[what]))
    with forge(github) as asking, pytest.raises(Unreadable) as error:
        asking.runs("build.yml", SINCE)
    assert error.value.remedy
    assert "Traceback" not in str(error.value)


AGAIN = {
    "503": Fault(method="GET", said=Said(status=503), times=2),
    "no answer": Fault(method="GET", times=2),
    "silence": Fault(method="GET", pause=0.6),
}


@pytest.mark.parametrize("what", AGAIN)
def test_reading_is_tried_again(github: GitHub, what: str) -> None:
    github.add("there")
    github.fails(AGAIN[what])
    with forge(github) as asking:
        assert [one.title for one in asking.runs("build.yml", SINCE)] == ["there"]


def test_reading_ends_after_three_tries(github: GitHub) -> None:
    github.fails(Fault(method="GET", said=Said(status=503), times=9))
    with forge(github) as asking, pytest.raises(Unreadable, match="503"):
        asking.runs("build.yml", SINCE)
    assert len(github.log) == 3


# Where it is

ACTIONS = {
    "GITHUB_ACTIONS": "true",
    "GITHUB_API_URL": "https://git.example/api/v1",
    "GITHUB_REPOSITORY": "their/fork",
    "GITHUB_TOKEN": "inside",
}
OURS = ForgeSettings(repository="own/images")
ELSEWHERE = ForgeSettings(api="https://git.example/api/v1", repository="own/images", kind="gitea")
PLACES: dict[str, tuple[ForgeSettings, dict[str, str], tuple[str, str, str, str]]] = {
    "github.com": (
        OURS,
        {"GH_TOKEN": "a", "GITHUB_TOKEN": "b"},
        ("https://api.github.com", "own/images", "github", "a"),
    ),
    "github.com, the other name": (
        OURS,
        {"GITHUB_TOKEN": "b"},
        ("https://api.github.com", "own/images", "github", "b"),
    ),
    "a token of our own": (
        OURS,
        {"GH_TOKEN": "a", "IMAGEWRIGHT_FORGE_TOKEN": "o"},
        ("https://api.github.com", "own/images", "github", "o"),
    ),
    "inside Actions": (OURS, ACTIONS, ("https://git.example/api/v1", "their/fork", "github", "inside")),
    "inside Gitea's": (
        OURS,
        ACTIONS | {"GITEA_ACTIONS": "true"},
        ("https://git.example/api/v1", "their/fork", "gitea", "inside"),
    ),
    "another forge": (
        ELSEWHERE,
        {"GH_TOKEN": "a", "IMAGEWRIGHT_FORGE_TOKEN": "o"},
        ("https://git.example/api/v1", "own/images", "gitea", "o"),
    ),
}


@pytest.mark.parametrize("what", PLACES)
def test_the_forge_is_where_actions_says_or_the_settings(what: str) -> None:
    settings, environ, expected = PLACES[what]
    place = place_of(settings, environ)
    assert (place.api, place.repository, place.kind, place.token) == expected
    assert "token" not in repr(place)


NOWHERE = {
    "no repository": (ForgeSettings(), {"GH_TOKEN": "a"}, "asked for"),
    "no token": (OURS, {}, "there is no token for https://api.github.com"),
    "github's token for another forge": (ELSEWHERE, {"GH_TOKEN": "a", "GITHUB_TOKEN": "b"}, "there is no token"),
}


@pytest.mark.parametrize("what", NOWHERE)
def test_without_a_place_or_a_token_for_it_nothing_is_asked(what: str) -> None:
    settings, environ, said = NOWHERE[what]
    with pytest.raises(Failed, match=said):
        place_of(settings, environ)
