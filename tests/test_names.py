"""Names of OCI things: what is accepted, how it is spelled afterwards, and what is said of the rest."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewright.names import (
    BadName,
    Platform,
    Reference,
    Repository,
    digest_algorithm,
    digest_of,
    is_loopback,
    make_repository,
    parse_digest,
    parse_familiar,
    parse_folder_name,
    parse_host,
    parse_platform,
    parse_reference,
    parse_repository,
    parse_tag,
    shown,
)

A64, A128 = "a" * 64, "a" * 128


def refusal(parse, *texts):
    with pytest.raises(BadName) as caught:
        parse(*texts)
    return str(caught.value)


@pytest.mark.parametrize("text", [f"sha256:{A64}", f"sha512:{A128}", f"sha256:{'0123456789abcdef' * 4}"])
def test_a_digest_that_can_be_verified_is_accepted_as_it_is(text):
    assert parse_digest(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"sha256:{'A' * 64}",
        "sha256:../../etc",
        f"md5:{'a' * 32}",
        f"sha256:{'a' * 63}",
        f"sha256:{'a' * 65}",
        f"sha512:{A64}",
        f"sha384:{'a' * 96}",
        f"sha256:{A64}\n",
        f" sha256:{A64}",
        f"sha256:{'a' * 63}\N{FULLWIDTH LATIN SMALL LETTER A}",
        A64,
    ],
)
def test_what_is_no_digest_is_refused(text):
    assert (
        refusal(parse_digest, text)
        == f"{shown(text)} is not a digest (sha256:<64 hex digits> or sha512:<128 hex digits>)"
    )


@pytest.mark.parametrize(
    ("content", "algorithm", "digest"),
    [
        (b"", "sha256", "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (b"abc", "sha256", "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            b"abc",
            "sha512",
            (
                "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
                "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
            ),
        ),
    ],
)
def test_the_digest_of_bytes_is_the_published_test_vector(content, algorithm, digest):
    assert digest_of(content, algorithm) == digest
    assert digest_algorithm(parse_digest(digest)) == algorithm


def test_a_digest_is_sha256_unless_another_is_asked_for():
    assert digest_of(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize("text", ["latest", "_", "1.2.3", "A-b_c.d", "0", "x" * 128, "codex-fedora-0.77.0", "M", "xM5"])
def test_a_tag_is_accepted_as_it_is(text):
    assert parse_tag(text) == text


CHARACTERS = "a tag consists of letters, digits, '_', '.', '-' and starts with none of the last two"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"'' cannot be a tag: {CHARACTERS}"),
        ("-rf", f"'-rf' cannot be a tag: {CHARACTERS}"),
        (".hidden", f"'.hidden' cannot be a tag: {CHARACTERS}"),
        ("1.0+build", f"'1.0+build' cannot be a tag: {CHARACTERS}"),
        ("a/b", f"'a/b' cannot be a tag: {CHARACTERS}"),
        ("a:b", f"'a:b' cannot be a tag: {CHARACTERS}"),
        ("é", f"'é' cannot be a tag: {CHARACTERS}"),
        (f"-{'x' * 127}", f"'-{'x' * 79}…' cannot be a tag: {CHARACTERS}"),
        ("a\n", rf"'a\n' cannot be a tag: {CHARACTERS}"),
        ("$(id)", f"'$(id)' cannot be a tag: {CHARACTERS}"),
        ("x" * 129, f"'{'x' * 80}…' cannot be a tag: a tag has at most 128 characters, this one 129"),
    ],
)
def test_what_is_no_tag_is_refused_with_the_rule_it_breaks(text, message):
    assert refusal(parse_tag, text) == message


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("ghcr.io", "ghcr.io"),
        ("GHCR.io", "ghcr.io"),
        ("localhost:5000", "localhost:5000"),
        ("127.0.0.1:65535", "127.0.0.1:65535"),
        ("[::1]:5000", "[::1]:5000"),
        ("[FE80::1]", "[fe80::1]"),
        ("[2001:db8::c5]:5", "[2001:db8::c5]:5"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
    ],
)
def test_a_host_is_spelled_in_lower_case(text, host):
    assert parse_host(text) == host


@pytest.mark.parametrize(
    "text",
    [
        *("", "https://ghcr.io", "ghcr.io/", "user@ghcr.io", "ghcr.io:", "a:65536", "-a", "a..b", "a_b", "é.example"),
        *(
            "::1",
            "a-",
            "a.-b",
            "a-.b",
            "a.",
            ".a",
            "[]",
            "[::1",
            "[g::]",
            "[::1]x",
            "a:123456",
            "a:000080",
            "a:x",
            "a:-1",
            "a b",
        ),
    ],
)
def test_what_is_no_host_is_refused(text):
    assert refusal(parse_host, text) == f"'{text}' is not a registry: host or host:port, without scheme and path"


@pytest.mark.parametrize("text", ["a", "aicage/aicage-image-base", "a.b/c_d/e__f/g---h", "0/1/2", "m5.m5/a-5"])
def test_a_repository_is_accepted_as_it_is(text):
    assert parse_repository(text) == text


@pytest.mark.parametrize(
    "text", ["", "A", "a/", "/a", "a//b", "a..b", "a___b", "a._b", "-a", "a-", "../a", "a:1", "a@b", "é", "a b", "a\n"]
)
def test_what_is_no_repository_is_refused(text):
    assert refusal(parse_repository, text) == (
        f"{shown(text)} is not a repository: lower-case words of letters and digits, joined by '.', '_', '-' and '/'"
    )


def test_host_and_name_together_have_at_most_255_characters():
    assert len(str(make_repository("ghcr.io", "a" * 247))) == 255
    message = f"'ghcr.io/{'a' * 72}…' has 256 characters, at most 255 are allowed"
    assert refusal(make_repository, "ghcr.io", "a" * 248) == message


@pytest.mark.parametrize("text", ["codex", "a-b", "a.b", "a_b", "3.10", "no", "con", "x" * 128])
def test_a_tool_or_base_may_be_called_so(text):
    assert parse_folder_name(text) == text


@pytest.mark.parametrize(
    "text", ["", "Foo", "foo bar", "-x", ".hidden", "foo--bar", "foo-", "é", "x" * 129, "foo/", "a/b", "..", "a\n"]
)
def test_a_tool_or_base_cannot_be_called_so(text):
    assert refusal(parse_folder_name, text) == (
        f"{shown(text)} cannot name a tool or base: lower-case letters and digits, joined by single '.', '_' or '-'"
    )


@pytest.mark.parametrize(
    ("host", "answer"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("127.0.0.2", True),
        ("[::1]", True),
        ("[::1]:5000", True),
        ("127.0.0.1.example.com", False),
        ("localhost.example.com", False),
        ("0.0.0.0", False),
        ("10.0.0.1:5000", False),
        ("[::2]:5000", False),
        ("[::ffff:127.0.0.1]", False),
        ("127.1", False),
        ("127.10.20.30:5000", True),
        ("127x0.0.1", False),
        ("127.0x0.1", False),
        ("127.0.0x1", False),
        ("127..0.1", False),
        ("127.0..1", False),
        ("127.0.0.", False),
        ("example.127.0.0.1", False),
        ("ghcr.io", False),
    ],
)
def test_only_a_literal_address_of_this_machine_is_loopback(host, answer):
    assert is_loopback(host) is answer


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("ghcr.io/a/b:1", Reference(Repository("ghcr.io", "a/b"), parse_tag("1"))),
        ("GHCR.IO/a:latest", Reference(Repository("ghcr.io", "a"), parse_tag("latest"))),
        ("localhost:5000/a:1", Reference(Repository("localhost:5000", "a"), parse_tag("1"))),
        (f"h/a@sha256:{A64}", Reference(Repository("h", "a"), parse_digest(f"sha256:{A64}"))),
    ],
)
def test_a_complete_reference_is_taken_apart(text, reference):
    assert parse_reference(text) == reference


def test_a_reference_knows_whether_it_is_one_by_digest():
    assert parse_reference("h/a:1").digest is None
    assert parse_reference(f"h/a@sha512:{A128}").digest == f"sha512:{A128}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fedora", "'fedora' is not a reference: host/repository:tag or host/repository@digest"),
        ("fedora:40", "'fedora:40' is not a reference: host/repository:tag or host/repository@digest"),
        ("ghcr.io/a/b", "'ghcr.io/a/b' has neither tag nor digest"),
        ("ghcr.io/a:", f"'' cannot be a tag: {CHARACTERS}"),
        ("ghcr.io/a:1:2", f"'1:2' cannot be a tag: {CHARACTERS}"),
        ("ghcr.io/a@", "'' is not a digest (sha256:<64 hex digits> or sha512:<128 hex digits>)"),
        (
            f"ghcr.io/a:1@sha256:{A64}",
            "'a:1' is not a repository: lower-case words of letters and digits, joined by '.', '_', '-' and '/'",
        ),
    ],
)
def test_an_incomplete_or_double_reference_is_refused(text, message):
    assert refusal(parse_reference, text) == message


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v2", "linux/amd64/v2"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/x86-64/v3", "linux/amd64/v3"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/aarch64/v8", "linux/arm64"),
        ("linux/arm64/v9", "linux/arm64/v9"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/7", "linux/arm/v7"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("linux/arm/5", "linux/arm/v5"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/arm/8", "linux/arm/v8"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/i386", "linux/386"),
        ("linux/i386/v5", "linux/386"),
        ("linux/armhf/v6", "linux/arm/v7"),
        ("linux/armel/v7", "linux/arm/v6"),
        ("macos/arm64", "darwin/arm64"),
        ("linux/riscv64", "linux/riscv64"),
    ],
)
def test_a_platform_is_spelled_as_containerd_does(text, spelled):
    assert str(parse_platform(text)) == spelled


def test_a_document_may_spell_a_platform_in_capitals():
    assert Platform("Linux", "AMD64", "V1").normalised() == Platform("linux", "amd64")


def test_a_platform_is_of_any_variant_and_version_unless_it_names_one():
    assert Platform("linux", "amd64") == Platform("linux", "amd64", "", "")


def test_the_version_of_windows_belongs_to_the_platform():
    one = Platform("windows", "amd64", "", "10.0.17763.1")
    assert str(one) == "windows/amd64:10.0.17763.1"
    assert one.normalised() == one


@pytest.mark.parametrize(
    "text", ["", "linux", "linux/", "/amd64", "linux/amd64/v1/x", "Linux/amd64", "linux/amd64\n", "linux amd64"]
)
def test_what_is_no_platform_is_refused(text):
    assert refusal(parse_platform, text) == (
        f"{shown(text)} is not a platform: os/architecture or os/architecture/variant, e.g. linux/arm64"
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain", "'plain'"),
        ("é", "'é'"),
        ("a\nb", r"'a\nb'"),
        ("\x1b[31mred", r"'\x1b[31mred'"),
        ("\u202eevil", r"'\u202eevil'"),
        ("\x00", r"'\x00'"),
        ("x" * 80, f"'{'x' * 80}'"),
        ("x" * 81, f"'{'x' * 80}…'"),
    ],
)
def test_foreign_text_is_shown_on_one_line_without_control_characters(text, line):
    assert shown(text) == line


@given(st.text())
def test_whatever_is_shown_is_printable_and_short(text):
    assert shown(text).isprintable()
    assert len(shown(text)) <= 83


hosts = st.from_regex(r"[a-z0-9]{1,8}(\.[a-z]{2,5})?(:[1-9][0-9]{0,3})?", fullmatch=True)
names = st.from_regex(r"[a-z0-9]{1,9}([._/-][a-z0-9]{1,9}){0,3}", fullmatch=True)
tags = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", fullmatch=True).map(parse_tag)
digests = st.tuples(st.binary(max_size=8), st.sampled_from(["sha256", "sha512"])).map(lambda one: digest_of(*one))


@given(hosts, names, tags | digests)
def test_a_printed_reference_is_read_back_equal(host, name, to):
    reference = Reference(make_repository(host, name), to)
    assert parse_reference(str(reference)) == reference


@given(
    st.sampled_from(["linux", "windows", "macos", "darwin"]),
    st.sampled_from(["amd64", "x86_64", "arm64", "aarch64", "arm", "armhf", "armel", "i386", "386", "riscv64"]),
    st.sampled_from(["", "v1", "v2", "v5", "v6", "v7", "v8", "5", "6", "7", "8", "v9"]),
)
def test_a_normalised_platform_stays_as_it_is_and_is_read_back_equal(os, architecture, variant):
    one = Platform(os, architecture, variant).normalised()
    assert one.normalised() == one
    assert parse_platform(str(one)) == one


@given(st.text(max_size=12))
def test_a_text_is_a_name_or_is_refused_in_words(text):
    for parse in (parse_digest, parse_tag, parse_host, parse_repository, parse_folder_name):
        try:
            assert parse(text).isascii()
        except BadName as error:
            assert str(error).isprintable()


@given(st.binary())
def test_equal_bytes_have_equal_digests_and_only_they(content):
    assert digest_of(content) == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert digest_of(content) != digest_of(content + b"\0")


DIGEST = f"sha256:{'1' * 64}"


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("fedora", "docker.io/library/fedora:latest"),
        ("fedora:42", "docker.io/library/fedora:42"),
        ("docker.io/fedora", "docker.io/library/fedora:latest"),
        ("docker.io/library/fedora:latest", "docker.io/library/fedora:latest"),
        ("index.docker.io/aicage/fedora", "docker.io/aicage/fedora:latest"),
        ("aicage/fedora", "docker.io/aicage/fedora:latest"),
        ("a/b/c", "docker.io/a/b/c:latest"),
        ("localhost/fedora", "localhost/fedora:latest"),
        ("localhost:5000/fedora", "localhost:5000/fedora:latest"),
        ("registry:5000/fedora:42", "registry:5000/fedora:42"),
        ("ghcr.io/aicage/fedora", "ghcr.io/aicage/fedora:latest"),
        ("r.io/fedora", "r.io/fedora:latest"),
        (f"fedora@{DIGEST}", f"docker.io/library/fedora@{DIGEST}"),
        (f"fedora:42@{DIGEST}", f"docker.io/library/fedora@{DIGEST}"),
    ],
)
def test_the_words_of_a_from_mean_a_whole_name(words: str, meant: str) -> None:
    assert str(parse_familiar(words)) == meant
