"""What an answer means: a row of the table, a test."""

import hashlib
import json

import pytest

from imagewright.names import Digest, digest_of
from imagewright.reasons import Unknown
from imagewright.registry.answers import (
    BLOB_UNKNOWN,
    DENIED,
    NAME_UNKNOWN,
    RETRIES,
    Absent,
    Answer,
    Document,
    Trouble,
    content,
    is_plain_url,
    next_page,
    refusal,
    streamed,
    tag_page,
)

BODY = b'{"schemaVersion": 2}'
DIGEST = Digest(f"sha256:{hashlib.sha256(BODY).hexdigest()}")
LONG = Digest(f"sha512:{hashlib.sha512(BODY).hexdigest()}")
OTHER = Digest("sha256:" + "0" * 64)
OCI = "application/vnd.oci.image.manifest.v1+json"
MISSING_CODES = ("MANIFEST_UNKNOWN",)


def error(code: object, message: object = "why", **more: object) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message, **more}]}).encode()


def document(digest: Digest = DIGEST, media_type: str = OCI) -> Document:
    return Document(body=BODY, media_type=media_type, digest=digest)


@pytest.mark.parametrize(
    ("headers", "asked", "meaning"),
    [
        ({}, None, document()),
        ({}, DIGEST, document()),
        ({"docker-content-digest": DIGEST}, None, document()),
        ({"docker-content-digest": DIGEST}, DIGEST, document()),
        ({"docker-content-digest": LONG}, None, document(LONG)),
        ({"docker-content-digest": LONG}, DIGEST, document()),
        ({"docker-content-digest": DIGEST}, LONG, document(LONG)),
        (
            {},
            OTHER,
            Trouble(Unknown.INTEGRITY, f"the bytes have digest {DIGEST}, asked for was {OTHER}"),
        ),
        (
            {"docker-content-digest": OTHER},
            None,
            Trouble(Unknown.INTEGRITY, f"the bytes have digest {DIGEST}, stated in the answer was {OTHER}"),
        ),
        (
            {"docker-content-digest": OTHER},
            DIGEST,
            Trouble(Unknown.INTEGRITY, f"the bytes have digest {DIGEST}, stated in the answer was {OTHER}"),
        ),
        (
            {"docker-content-digest": "sha256:../../etc"},
            None,
            Trouble(
                Unknown.BAD_DIGEST,
                "Docker-Content-Digest: 'sha256:../../etc' is not a digest "
                "(sha256:<64 hex digits> or sha512:<128 hex digits>)",
            ),
        ),
        (
            {"content-type": "text/html; charset=utf-8"},
            None,
            Trouble(Unknown.GARBAGE, "a web page instead of a document"),
        ),
        ({"content-type": "text/plain"}, None, document(media_type="text/plain")),
        ({"ratelimit-remaining": "0;w=21600"}, None, document()),
    ],
)
def test_a_200_is_evidence_if_its_bytes_are_right(
    headers: dict[str, str], asked: Digest | None, meaning: Document | Trouble
) -> None:
    answer = Answer(status=200, headers={"content-type": OCI, **headers}, body=BODY)
    assert content(answer, asked, MISSING_CODES) == meaning


CUT = Trouble(Unknown.GARBAGE, "cut short, or no JSON document at all")


@pytest.mark.parametrize(
    ("body", "headers", "asked", "meaning"),
    [
        (b"", {}, None, Trouble(Unknown.GARBAGE, "status 200 with an empty body")),
        (b"", {}, DIGEST, Trouble(Unknown.GARBAGE, "status 200 with an empty body")),
        (BODY[:-1], {}, None, CUT),
        (BODY[:-1], {}, DIGEST, CUT),
        (BODY[:-1], {"docker-content-digest": DIGEST}, None, CUT),
        (BODY[:-1], {"docker-content-digest": DIGEST}, DIGEST, CUT),
        (b"[" * 100_000, {}, None, CUT),
        (b"welcome", {}, None, CUT),
        (b"\xff", {}, None, CUT),
        (
            b"{}",
            {},
            DIGEST,
            Trouble(Unknown.INTEGRITY, f"the bytes have digest {digest_of(b'{}')}, asked for was {DIGEST}"),
        ),
    ],
)
def test_a_200_without_a_whole_document_is_garbage(
    body: bytes, headers: dict[str, str], asked: Digest | None, meaning: Trouble
) -> None:
    assert content(Answer(status=200, headers=headers, body=body), asked, MISSING_CODES) == meaning


def test_bytes_that_are_no_json_are_evidence_where_their_digest_is_known() -> None:
    for headers, asked in (({}, digest_of(b"[")), ({"docker-content-digest": digest_of(b"[")}, None)):
        found = content(Answer(status=200, headers=headers, body=b"["), asked, MISSING_CODES)
        assert found == Document(body=b"[", media_type="", digest=digest_of(b"["))


NO_WORD = Trouble(Unknown.NOT_A_REGISTRY_ANSWER, "status 404 without a registry's error body")


@pytest.mark.parametrize(
    ("body", "meaning"),
    [
        (error("MANIFEST_UNKNOWN"), Absent("MANIFEST_UNKNOWN")),
        (error("NAME_UNKNOWN"), Absent("NAME_UNKNOWN")),
        (error("MANIFEST_UNKNOWN", "manifest unknown", detail={"Tag": "1.0"}), Absent("MANIFEST_UNKNOWN")),
        (error("MANIFEST_UNKNOWN", None) + b"\n", Absent("MANIFEST_UNKNOWN")),
        (error("MANIFEST_UNKNOWN", detail=None), Absent("MANIFEST_UNKNOWN")),
        (error("NOT_FOUND"), Trouble(Unknown.UNEXPECTED_STATUS, "status 404 NOT_FOUND")),
        (error("BLOB_UNKNOWN"), Trouble(Unknown.UNEXPECTED_STATUS, "status 404 BLOB_UNKNOWN")),
        (error("manifest_unknown"), Trouble(Unknown.UNEXPECTED_STATUS, "status 404 manifest_unknown")),
        (error("\x1b[2J\nMANIFEST_UNKNOWN"), NO_WORD),
        (error("X" * 65), NO_WORD),
        (error(""), NO_WORD),
        (error(None), NO_WORD),
        (error(["MANIFEST_UNKNOWN"]), NO_WORD),
        (b'{"errors": []}', NO_WORD),
        (b'{"errors": [{"code": "MANIFEST_UNKNOWN"}, {"code": "DENIED"}]}', Absent("MANIFEST_UNKNOWN")),
        (
            b'{"errors": [{"code": "DENIED"}, {"code": "MANIFEST_UNKNOWN"}]}',
            Trouble(Unknown.UNEXPECTED_STATUS, "status 404 DENIED"),
        ),
        (b'{"errors": {"code": "MANIFEST_UNKNOWN"}}', NO_WORD),
        (b'{"errors": ["MANIFEST_UNKNOWN"]}', NO_WORD),
        (b'{"code": "MANIFEST_UNKNOWN"}', NO_WORD),
        (b'[{"code": "MANIFEST_UNKNOWN"}]', NO_WORD),
        (b'{"errors": [{"code": "MANIFEST_UNKNOWN"}], "errors": []}', NO_WORD),
        (error("MANIFEST_UNKNOWN")[:-2], NO_WORD),
        (error("MANIFEST_UNKNOWN") + b"<!-- proxy -->", NO_WORD),
        (b"404 page not found\n", NO_WORD),
        (b"<html>MANIFEST_UNKNOWN</html>", NO_WORD),
        (b"MANIFEST_UNKNOWN", NO_WORD),
        (b"", NO_WORD),
        (b"\xff\xfe", NO_WORD),
        (b"[" * 60_000, NO_WORD),
    ],
)
def test_a_404_means_absent_only_in_the_registrys_own_words(body: bytes, meaning: Absent | Trouble) -> None:
    for media_type in ("application/json", "text/plain", ""):
        answer = Answer(status=404, headers={"content-type": media_type}, body=body)
        assert content(answer, None, MISSING_CODES) == meaning


@pytest.mark.parametrize(("size", "meaning"), [(64 * 1024, Absent("MANIFEST_UNKNOWN")), (64 * 1024 + 1, NO_WORD)])
def test_the_words_of_a_registry_have_at_most_64_kib(size: int, meaning: Absent | Trouble) -> None:
    body = error("MANIFEST_UNKNOWN").ljust(size)
    assert content(Answer(status=404, headers={}, body=body), None, MISSING_CODES) == meaning


def test_a_200_where_something_else_was_asked_for_is_garbage() -> None:
    found = refusal(Answer(status=200, headers={}, body=BODY))
    assert found == Trouble(Unknown.GARBAGE, "status 200 without the content that was asked for")
    assert found.retry_after is None


def test_the_codes_of_the_specification() -> None:
    assert (NAME_UNKNOWN, BLOB_UNKNOWN, DENIED) == ("NAME_UNKNOWN", "BLOB_UNKNOWN", "DENIED")


def test_another_word_for_absent_counts_where_it_is_configured() -> None:
    harbor = Answer(status=404, headers={}, body=error("NOT_FOUND"))
    assert content(harbor, None, ("MANIFEST_UNKNOWN", "NOT_FOUND")) == Absent("NOT_FOUND")


@pytest.mark.parametrize(
    ("status", "body", "reason", "detail"),
    [
        (400, b"", Unknown.UNEXPECTED_STATUS, "status 400"),
        (400, error("UNSUPPORTED"), Unknown.UNEXPECTED_STATUS, "status 400 UNSUPPORTED, 'why'"),
        (
            401,
            error("UNAUTHORIZED", "authentication required"),
            Unknown.AUTH,
            "status 401 UNAUTHORIZED, 'authentication required'",
        ),
        (401, b"true", Unknown.AUTH, "status 401"),
        (401, error("", "why"), Unknown.AUTH, "status 401, 'why'"),
        (401, error("UNAUTHORIZED", None), Unknown.AUTH, "status 401 UNAUTHORIZED"),
        (401, error("UNAUTHORIZED", ""), Unknown.AUTH, "status 401 UNAUTHORIZED"),
        (403, error("X" * 64, ""), Unknown.AUTH, f"status 403 {'X' * 64}"),
        (403, error("azAZ059_-", ""), Unknown.AUTH, "status 403 azAZ059_-"),
        (403, error("A", ""), Unknown.AUTH, "status 403 A"),
        (403, error("DENIED"), Unknown.AUTH, "status 403 DENIED, 'why'"),
        (403, error("denied", "or it may not exist"), Unknown.AUTH, "status 403 denied, 'or it may not exist'"),
        (403, error("DENIED", "\x1b[31mred\n"), Unknown.AUTH, r"status 403 DENIED, '\x1b[31mred\n'"),
        (403, error("DENIED", "m" * 100), Unknown.AUTH, f"status 403 DENIED, '{'m' * 80}…'"),
        (405, b"{}", Unknown.UNEXPECTED_STATUS, "status 405"),
        (406, b"", Unknown.UNEXPECTED_STATUS, "status 406"),
        (410, error("MANIFEST_UNKNOWN"), Unknown.UNEXPECTED_STATUS, "status 410 MANIFEST_UNKNOWN, 'why'"),
        (412, b"a line that is not JSON", Unknown.UNEXPECTED_STATUS, "status 412"),
        (418, b"", Unknown.UNEXPECTED_STATUS, "status 418"),
        (451, b"", Unknown.UNEXPECTED_STATUS, "status 451"),
        (408, b"", Unknown.REGISTRY_UNAVAILABLE, "status 408"),
        (429, b"You have reached your limit", Unknown.REGISTRY_UNAVAILABLE, "status 429"),
        (499, b"", Unknown.REGISTRY_UNAVAILABLE, "status 499"),
        (500, error("UNKNOWN"), Unknown.REGISTRY_UNAVAILABLE, "status 500 UNKNOWN, 'why'"),
        (502, b"<html>", Unknown.REGISTRY_UNAVAILABLE, "status 502"),
        (503, error("MANIFEST_UNKNOWN"), Unknown.REGISTRY_UNAVAILABLE, "status 503 MANIFEST_UNKNOWN, 'why'"),
        (504, b"", Unknown.REGISTRY_UNAVAILABLE, "status 504"),
        (522, b"", Unknown.REGISTRY_UNAVAILABLE, "status 522"),
        (501, b"", Unknown.UNEXPECTED_STATUS, "status 501"),
        (204, b"", Unknown.GARBAGE, "status 204 without the content that was asked for"),
        (206, BODY, Unknown.GARBAGE, "status 206 without the content that was asked for"),
        (304, b"", Unknown.UNEXPECTED_STATUS, "status 304"),
        (201, BODY, Unknown.UNEXPECTED_STATUS, "status 201"),
    ],
)
def test_every_other_status_leaves_the_question_open(status: int, body: bytes, reason: Unknown, detail: str) -> None:
    answer = Answer(status=status, headers={}, body=body)
    for meaning in (content(answer, None, MISSING_CODES), tag_page(answer), streamed(answer, DIGEST, DIGEST)):
        assert isinstance(meaning, Trouble)
        assert (meaning.reason, meaning.detail) == (reason, detail)


@pytest.mark.parametrize(
    ("status", "body", "computed", "meaning"),
    [
        (200, b"", DIGEST, None),
        (200, b"", OTHER, Trouble(Unknown.INTEGRITY, f"the bytes have digest {OTHER}, asked for was {DIGEST}")),
        (404, error("BLOB_UNKNOWN"), OTHER, Absent("BLOB_UNKNOWN")),
        (404, error("NAME_UNKNOWN"), OTHER, Absent("NAME_UNKNOWN")),
        (404, error("MANIFEST_UNKNOWN"), OTHER, Trouble(Unknown.UNEXPECTED_STATUS, "status 404 MANIFEST_UNKNOWN")),
        (404, b"", OTHER, NO_WORD),
    ],
)
def test_a_blob_that_was_hashed_on_its_way_is_judged_by_that(
    status: int, body: bytes, computed: Digest, meaning: Absent | Trouble | None
) -> None:
    assert streamed(Answer(status=status, headers={}, body=body), DIGEST, computed) == meaning


@pytest.mark.parametrize(
    ("status", "body", "meaning"),
    [
        (200, b'{"tags": []}', b'{"tags": []}'),
        (200, b'{"tags": [', CUT),
        (200, b"<html>", CUT),
        (200, b"", CUT),
        (404, error("NAME_UNKNOWN"), Absent("NAME_UNKNOWN")),
        (404, error("MANIFEST_UNKNOWN"), Trouble(Unknown.UNEXPECTED_STATUS, "status 404 MANIFEST_UNKNOWN")),
        (404, b"not here", NO_WORD),
    ],
)
def test_a_page_of_tags_is_its_body(status: int, body: bytes, meaning: object) -> None:
    assert tag_page(Answer(status=status, headers={}, body=body)) == meaning


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0),
        ("1", 1),
        ("60", 60),
        ("1.5", None),
        ("-1", None),
        ("²", None),
        ("", None),
        ("880.092µs", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("soon", None),
    ],
)
def test_a_pause_is_read_where_it_is_in_seconds(header: str | None, seconds: float | None) -> None:
    headers = {} if header is None else {"retry-after": header}
    assert refusal(Answer(status=429, headers=headers, body=b"")).retry_after == seconds


LONG_LAST = "%3D" * 150


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("", None),
        ('</v2/a/tags/list?n=100&last=z>; rel="next"', "/v2/a/tags/list?n=100&last=z"),
        ("</v2/a/tags/list?n=100&last=z>; rel=next", "/v2/a/tags/list?n=100&last=z"),
        ('<https://r.example/v2/a/tags/list?n=1>; rel="next"', "https://r.example/v2/a/tags/list?n=1"),
        ('</v2/a/tags/list?next_page=gAAA%3D%3D&n=50>; rel="next"', "/v2/a/tags/list?next_page=gAAA%3D%3D&n=50"),
        (
            f'<https://r.example/v2/a/tags/list?last={LONG_LAST}>;rel="next"',
            f"https://r.example/v2/a/tags/list?last={LONG_LAST}",
        ),
        ('</v2/a/tags/list?last=a,b>; rel="next"', "/v2/a/tags/list?last=a,b"),
        ('</v2/a/tags/list?last=a;b>; rel="next"', "/v2/a/tags/list?last=a;b"),
        ('</x>; REL="Next"', "/x"),
        ('</x>; rel="last next"', "/x"),
        ('</x>; title="a, b"; rel="next"', "/x"),
        ('</x>; rel = "next"', "/x"),
        ('</x>; title=""; rel="next"', "/x"),
        ("</x>; title=; rel=next", "/x"),
        ('</x>; anchor; rel="next"', "/x"),
        ('<>; rel="next"', ""),
        ('</first>; rel="first", </next>; rel="next"', "/next"),
        ('</next>; rel="next", </last>; rel="last"', "/next"),
        ('</x>; rel="prev"', None),
        ('</x>; rel="nextfoo"', None),
        ('</x>; title="rel=next"', None),
        ("</x>", None),
        ('/x; rel="next"', None),
        ("<>", None),
    ],
)
def test_the_next_page_is_found_in_every_shape_that_registries_send(link: str, target: str | None) -> None:
    assert next_page(link, str) == target


def test_what_is_repeated_and_how_often() -> None:
    assert {reason.code: times for reason, times in RETRIES.items()} == {
        "registry-unavailable": 4,
        "network": 2,
        "timeout": 2,
        "garbage": 1,
        "integrity": 1,
        "not-a-registry-answer": 1,
    }


@pytest.mark.parametrize(
    "text",
    [
        *(
            "https://r.example",
            "http://127.0.0.1:5000",
            "https://[::1]:5000/x",
            "HTTPS://R-5.Example:443?x",
            "h://",
            "a+b-c.95://x#y",
        ),
        *("https://r.example/a\\b", "https://r_z.example/@x", "ZaQzMm://MmQ.45"),
    ],
)
def test_everyone_reads_the_same_host_in_a_plain_url(text: str) -> None:
    assert is_plain_url(text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "r.example",
            "//r.example",
            "/path",
            "https:r.example",
            "https:/r.example",
            "1https://r.example",
            "://r.example",
        ),
        *(
            "https://u@r.example",
            "https://u:p@r.example/",
            "https://r.example\\@evil.example",
            "https://r.example\n",
            "https://é",
        ),
        *("https://r.example /", " https://r.example", "https://r.example%2f", "ht_tp://r.example", "-://x"),
    ],
)
def test_not_everyone_reads_the_same_host_in_it(text: str) -> None:
    assert not is_plain_url(text)
