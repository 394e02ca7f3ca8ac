"""Every parser of foreign bytes, as something to fuzz: what it reads, how it may refuse, and what holds of what it takes.

A parser's `check` either returns, or raises one of its `refusals`. Anything else is a finding, a broken law included.
"""

import contextlib
import hashlib
import ipaddress
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BufferedReader, BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
import urllib3.exceptions

from imagewright import documents, load, names, plan, report, snapshot, versions
from imagewright.dockerfile import parents
from imagewright.documents import BadDocument
from imagewright.embedded.refusal import Refused
from imagewright.embedded.wire import read_request
from imagewright.errors import BadCatalogue, BadReport
from imagewright.names import BadName
from imagewright.plan import Policy
from imagewright.registry import answers, auth
from imagewright.registry.answers import Absent, Answer, Document, Trouble
from imagewright.registry.transport import Interrupted, redirect_target
from imagewright.settings import HostSettings

CORPUS = Path(__file__).parent / "corpus"
"""A folder per parser: seeds, and whatever was found once."""

HOST, LOOPBACK, REDIRECTING = "r.example", "127.0.0.1:5000", "https://r.example/v2/a/b/manifests/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parser:
    """check: reads the bytes, and holds the laws; it may write into the folder. is_json: worth changing as a tree."""

    check: Callable[[bytes, Path], None]
    refusals: tuple[type[Exception], ...]
    is_json: bool = False

    def takes(self, data: bytes, folder: Path) -> bool:
        """Whether the parser takes the bytes; False where it refuses them as it should."""
        try:
            self.check(data, folder)
        except self.refusals:
            return False
        return True


def _document(parse: Callable[[bytes], object], data: bytes, folder: Path) -> None:
    """Blanks and the spelling of characters do not change what a document means."""
    parsed = parse(data)
    try:
        again = json.dumps(json.loads(data), allow_nan=False).encode()
    except ValueError:  # 1e999, which JSON cannot write again; no member that counts may be one
        return
    assert parse(again) == parsed


def _answer(data: bytes) -> Answer:
    """An answer as on the wire: status, header lines, an empty line, a body."""
    head, _, body = data.partition(b"\n\n")
    status, *lines = head.decode("latin-1").split("\n")
    fields = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in fields}
    return Answer(
        status=int(status) if status in {"200", "401", "404", "429", "503"} else 418, headers=headers, body=body
    )


def _answers(data: bytes, folder: Path) -> None:
    """Absent is what only a 404 in JSON says; a document is what its digest says."""
    answer = _answer(data)
    meaning = answers.content(answer, None, ("MANIFEST_UNKNOWN",))
    asked = names.digest_of(b"what was asked for")
    match meaning:
        case Absent():
            assert answer.status == 404
            assert json.loads(answer.body)["errors"][0]["code"] == meaning.code
        case Document():
            assert answer.status == 200
            stated = answer.headers.get("docker-content-digest") or meaning.digest
            algorithm, _, encoded = stated.partition(":")
            assert hashlib.new(algorithm, answer.body).hexdigest() == encoded
            assert isinstance(answers.content(answer, asked, ()), Trouble)
        case Trouble():
            assert meaning.retry_after is None or meaning.retry_after >= 0
            assert meaning.detail.isprintable()
    answers.tag_page(answer)
    answers.streamed(answer, asked, asked)


def _waits(data: bytes, folder: Path) -> None:
    meaning = answers.refusal(Answer(status=429, headers={"retry-after": data.decode("latin-1")}, body=b""))
    assert meaning.retry_after is None or meaning.retry_after >= 0


def _challenge(data: bytes, folder: Path) -> None:
    """A declared realm is the host itself for whoever parses its URL, and https off loopback: it may see a secret."""
    challenge = auth.parse_challenge(data.decode("latin-1"))
    if challenge is None:
        return
    realm = challenge.parameters.get("realm", "")
    if auth.realm_is_declared(realm, HOST, HostSettings()):
        assert _goes_to(realm) in (("https", HOST, None), None), realm
    if auth.realm_is_declared(realm, LOOPBACK, HostSettings()):
        assert (_goes_to(realm) or ("", "127.0.0.1"))[1] == "127.0.0.1", realm


def _goes_to(url: str) -> tuple[str | None, str | None, int | None] | None:
    """Scheme, host and port as what connects reads them, with another parser than what judges; None: not connected to."""
    try:
        there = urllib3.util.parse_url(str(requests.Request("GET", url).prepare().url))
    except (requests.RequestException, urllib3.exceptions.LocationParseError, UnicodeError):
        return None
    return there.scheme, there.host, there.port


def _link(data: bytes, folder: Path) -> None:
    following = answers.next_page(data.decode("latin-1"), partial(urljoin, REDIRECTING))
    if following and (parts := urlsplit(following)) and (parts.scheme, parts.netloc) == ("https", HOST):
        assert _goes_to(following) in (("https", HOST, None), None), following


def _location(data: bytes, folder: Path) -> None:
    """Where a redirect is followed to is what was judged, in the eyes of whoever connects."""
    response = SimpleNamespace(url=REDIRECTING, headers={"Location": data.decode("latin-1")})
    target = redirect_target(cast("requests.Response", response), HOST)
    there = _goes_to(target)
    if there is None:
        return
    assert there[0] == "https"
    assert str(there[1]).strip("[]") == urlsplit(target).hostname, target
    with contextlib.suppress(OSError):  # a name, no address in any spelling
        assert ipaddress.ip_address(socket.inet_aton(str(there[1]))).is_global, target


def _version(data: bytes, folder: Path) -> None:
    version, wrong = versions.parse_output(data)
    assert (version is None) == bool(wrong)
    assert wrong.isprintable()
    if version is None:
        raise BadName(wrong)
    assert versions.parse_output(version.encode()) == (version, "")
    if len(version) <= names.MAX_TAG:
        names.parse_tag(version)


def _names(data: bytes, folder: Path) -> None:
    """What a parser made of a text it makes of that again. The first byte chooses the parser."""
    parse = _NAMES[data[0] % len(_NAMES)] if data else names.parse_tag
    parsed = parse(data[1:].decode("utf-8", "replace"))
    text = str(parsed)
    assert text.isprintable()
    assert not set(text) & set(" \\?#%'\"")
    assert ".." not in text.split("/")
    assert parse(text) == parsed


_NAMES: tuple[Callable[[str], object], ...] = (
    names.parse_tag,
    names.parse_digest,
    names.parse_host,
    names.parse_repository,
    names.parse_folder_name,
    names.parse_reference,
    names.parse_familiar,
    names.parse_platform,
)


def _settings(data: bytes, folder: Path) -> None:
    (folder / "pyproject.toml").write_bytes(data)
    assert load.load_settings(folder, {}) == load.load_settings(folder, {})


def _catalogue(place: str, data: bytes, folder: Path) -> None:
    """One file of a project that is in order but for it."""
    tool, image = folder / "tools" / "a", folder / "images" / "b"
    if not tool.exists():
        for made in (tool, image):
            made.mkdir(parents=True)
        (folder / "pyproject.toml").write_text(_PROJECT)
        (image / "image.yml").write_text("version: 1")
        (image / "Dockerfile").write_text("FROM scratch")
    (folder / place).write_bytes(data)
    load.load_catalogue(folder, {})


_PROJECT = """[project]
version = "1"
[tool.imagewright]
repository = "a/b"
[tool.imagewright.bases]
repository = "a/bases"
[tool.imagewright.images]
repository = "a/images"
"""


def _dockerfile(data: bytes, folder: Path) -> None:
    text = data.decode("utf-8", "replace")
    found = parents(text, "Dockerfile", {"TARGETARCH": "amd64"})
    assert found.final
    assert 1 <= found.final_line <= text.count("\n") + 1
    assert len(found.others) == len(found.other_lines)


def _report(data: bytes, folder: Path) -> None:
    """What is a report can be written and read again, planned from, and its plan too. Sealed anew: see `_plan`."""
    with contextlib.suppress(BadReport):
        report.parse(data, "report.json")
    sealed = _sealed(data)
    parsed = report.parse(sealed, "report.json")
    whole = json.loads(sealed) | {"imagewright": report.dump(parsed)}
    assert report.parse(_sealed(json.dumps(whole).encode()), "report.json") == parsed
    for one in parsed.expected:
        report.findings(sealed, one)
    policy = Policy(vanished_at_most=3, hold={})
    decided = plan.decide(parsed, digest="", last_good={}, policy=policy, force=False, now="")
    assert plan.parse(plan.dump(decided), "plan.json") == decided
    assert {one.target for one in decided.builds} <= {
        one.target for one in parsed.records if one.state.value == "stale"
    }


def _plan(data: bytes, folder: Path) -> None:
    """As it is, and with the hash that belongs to it: else only the hash would ever be refused."""
    with contextlib.suppress(BadReport):
        plan.parse(data, "plan.json")
    parsed = plan.parse(_sealed(data), "plan.json")
    assert plan.parse(plan.dump(parsed), "plan.json") == parsed


def _sealed(data: bytes) -> bytes:
    """A report or a plan with its hash over all of it but the hash, or the bytes as they are where they are neither."""
    try:
        document = json.loads(data)
        sealed = document.get("imagewright", document)
        sealed.pop("self", None)
        canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        sealed["self"] = f"sha256:{hashlib.sha256(canonical.encode('utf-8', 'replace')).hexdigest()}"
        return json.dumps(document).encode()
    except (ValueError, RecursionError, TypeError, AttributeError):
        return data


def _snapshot(data: bytes, folder: Path) -> None:
    seen = snapshot.load(data, "snapshot.json")
    assert snapshot.load("".join(snapshot.dump(seen)), "snapshot.json") == seen


def _request(data: bytes, folder: Path) -> None:
    source = BufferedReader(cast("Any", BytesIO(data)))
    announced: list[bool] = []
    while request := read_request(source, lambda: announced.append(True)):
        assert all(name == name.lower() for name in request.headers)
        assert len(request.body.whole(64 * 2**10)) <= 64 * 2**10


PARSERS = {
    "manifest": Parser(check=partial(_document, documents.parse_manifest), refusals=(BadDocument,), is_json=True),
    "config": Parser(check=partial(_document, documents.parse_config), refusals=(BadDocument,), is_json=True),
    "tags": Parser(check=partial(_document, documents.parse_tags), refusals=(BadDocument,), is_json=True),
    "layout": Parser(check=partial(_document, documents.parse_layout_index), refusals=(BadDocument,), is_json=True),
    "answer": Parser(check=_answers, refusals=()),
    "retry-after": Parser(check=_waits, refusals=()),
    "challenge": Parser(check=_challenge, refusals=()),
    "link": Parser(check=_link, refusals=(ValueError,)),
    "location": Parser(check=_location, refusals=(Interrupted,)),
    "version": Parser(check=_version, refusals=(BadName,)),
    "names": Parser(check=_names, refusals=(BadName,)),
    "settings": Parser(check=_settings, refusals=(BadCatalogue,)),
    "tool": Parser(check=partial(_catalogue, "tools/a/tool.yaml"), refusals=(BadCatalogue,)),
    "image": Parser(check=partial(_catalogue, "images/b/image.yml"), refusals=(BadCatalogue,)),
    "dockerfile": Parser(check=_dockerfile, refusals=(BadCatalogue,)),
    "report": Parser(check=_report, refusals=(BadReport,), is_json=True),
    "plan": Parser(check=_plan, refusals=(BadReport,), is_json=True),
    "snapshot": Parser(check=_snapshot, refusals=(BadReport,), is_json=True),
    "request": Parser(check=_request, refusals=(Refused, ConnectionError)),
}
