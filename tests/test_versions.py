"""What version a tool has: real scripts are run, and whatever is not exactly one version is a question left open."""

import json
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewright.catalogue import Tool
from imagewright.errors import BadCatalogue, Exit
from imagewright.names import Platform
from imagewright.reasons import Unknown
from imagewright.settings import VersionsSettings
from imagewright.snapshot import Reading
from imagewright.versions import Readings, compare, dump_file, environment, on_host, parse_output, read_file
from tests.engine_stand_in import DIGEST, PODMAN, REFERENCE, gone, processes, stand_in

ENV = {"PATH": os.defpath, "LANG": "C"}


@pytest.mark.parametrize(
    ("output", "version"),
    [
        (b"1.2.3\n", "1.2.3"),
        (b"1.2.3", "1.2.3"),
        (b"1.2.3\r\n", "1.2.3"),
        (b"v2.0.0-rc.1\n", "v2.0.0-rc.1"),
        (b"3.10\n", "3.10"),
        (b"0\n", "0"),
        (b"2025_09", "2025_09"),
    ],
)
def test_one_line_that_is_legal_in_a_tag_is_the_version(output, version):
    assert parse_output(output) == (version, "")


@pytest.mark.parametrize(
    ("output", "wrong"),
    [
        (b"", "printed nothing"),
        (b"\n", "printed nothing"),
        (b"\r\n", "printed nothing"),
        (b"1.2.3 \n", "printed '1.2.3 ', which is no version"),
        (b" 1.2.3\n", "printed ' 1.2.3', which is no version"),
        (b"1.2.3\r\r\n", r"printed '1.2.3\r', which is no version"),
        (b"1.2.3\n1.2.4\n", "printed 2 lines, the first is '1.2.3'"),
        (b"1.2.3\n\n", "printed 2 lines, the first is '1.2.3'"),
        (b"npm warn\n1.2.3\n", "printed 2 lines, the first is 'npm warn'"),
        (b"x" * 2**20, "printed 1048576 bytes"),
        (b"1.2\x00.3\n", r"printed '1.2\x00.3', which is no version"),
        (b"\x1b[32m1.2.3\n", r"printed '\x1b[32m1.2.3', which is no version"),
        (b"1.2\xff\n", r"printed '1.2\\xff\n'"),
        ("1.2.3é\n".encode(), r"printed '1.2.3\xe9\n'"),
        ("\N{ARABIC-INDIC DIGIT ONE}".encode(), "printed '\N{ARABIC-INDIC DIGIT ONE}'"),
        (b"$(id)\n", "printed '$(id)', which is no version"),
        (b"`id`1\n", "printed '`id`1', which is no version"),
        (b";rm -rf 1\n", "printed ';rm -rf 1', which is no version"),
        (b"../../x1\n", "printed '../../x1', which is no version"),
        (b"-rf1\n", "printed '-rf1', which is no version"),
        (b"--help1\n", "printed '--help1', which is no version"),
        (b"latest\n", "printed 'latest', which is no version"),
        (b"null\n", "printed 'null', which is no version"),
        (b"1.0+build\n", "printed '1.0+build', which is no version"),
        (b"API rate limit exceeded 60\n", "printed 'API rate limit exceeded 60', which is no version"),
        (b"<html>1</html>\n", "printed '<html>1</html>', which is no version"),
    ],
)
def test_any_other_output_is_no_version(output, wrong):
    assert parse_output(output) == (None, wrong)


@given(st.binary(max_size=20))
def test_an_output_is_a_version_or_says_what_is_wrong(output):
    version, wrong = parse_output(output)
    assert (version is None) == bool(wrong)
    assert wrong.isprintable()
    assert version is None or parse_output(version.encode()) == (version, "")


@pytest.fixture
def tool(tmp_path):
    def make(script):
        folder = tmp_path / "codex"
        folder.mkdir(exist_ok=True)
        content = script if isinstance(script, bytes) else script.encode()
        (folder / "version.sh").write_bytes(content)
        return Tool(name="codex", folder=folder)

    return make


def reading(made, timeout=20, env=ENV):
    seen = on_host(made, timeout, env)
    assert seen.tool == "codex"
    return seen.version, seen.reason, seen.detail


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo 1.2.3", ("1.2.3", None, "")),
        ("#!/bin/bash\r\nif true; then\r\n  echo 1.2.3\r\nfi\r\n", ("1.2.3", None, "")),
        ("echo noise >&2; echo 1.2.3", ("1.2.3", None, "")),
        ("cat; echo 1.2.3", ("1.2.3", None, "")),
        ("echo 1.2.3; sleep 60 &", ("1.2.3", None, "")),
        (
            "cat data.txt",
            (None, Unknown.VERSION_FAILED, "exit status 1, it says 'cat: data.txt: No such file or directory'"),
        ),
        ("echo 1.2.3; exit 1", (None, Unknown.VERSION_FAILED, "exit status 1")),
        (
            "echo 1.2.3; echo first >&2; echo why >&2; exit 3",
            (None, Unknown.VERSION_FAILED, "exit status 3, it says 'why'"),
        ),
        ("echo 1.2.3; kill -9 $$", (None, Unknown.VERSION_FAILED, "killed by signal 9")),
        ("echo 1.2.3; kill -TERM $$", (None, Unknown.VERSION_FAILED, "killed by signal 15")),
        (
            "printf '\\033[31mbad\\n' >&2; exit 1",
            (None, Unknown.VERSION_FAILED, r"exit status 1, it says '\x1b[31mbad'"),
        ),
        ("true", (None, Unknown.VERSION_FORMAT, "printed nothing")),
        ("echo a; echo b", (None, Unknown.VERSION_FORMAT, "printed 2 lines, the first is 'a'")),
        ("head -c 1000000 /dev/zero", (None, Unknown.VERSION_FORMAT, "printed 1000000 bytes")),
    ],
)
def test_a_script_is_believed_only_if_it_ends_well_and_prints_a_version(tool, script, expected):
    assert reading(tool(script)) == expected


def test_a_tool_without_a_script_is_unknown(tmp_path):
    tmp_path.joinpath("codex").mkdir()
    expected = (None, Unknown.VERSION_FAILED, "there is no version.sh")
    assert reading(Tool(name="codex", folder=tmp_path / "codex")) == expected


def test_a_folder_in_the_scripts_place_is_no_script(tmp_path):
    (tmp_path / "codex" / "version.sh").mkdir(parents=True)
    expected = (None, Unknown.VERSION_FAILED, "there is no version.sh")
    assert reading(Tool(name="codex", folder=tmp_path / "codex")) == expected


def test_a_script_sees_nothing_secret(tool):
    given_to_us = {**ENV, "GH_TOKEN": "s1", "IMAGEWRIGHT_FORGE_TOKEN": "s2", "AWS_SECRET_ACCESS_KEY": "s3"}
    script = 'env | grep -c "s[123]$"; echo "x"'
    assert reading(tool(script), env=environment(given_to_us)) == (
        None,
        Unknown.VERSION_FORMAT,
        "printed 2 lines, the first is '0'",
    )
    assert environment(given_to_us) == ENV


def test_the_way_out_to_the_network_is_passed_on():
    given_to_us = {"PATH": "/bin", "HTTPS_PROXY": "http://p", "no_proxy": "x", "SSL_CERT_FILE": "/c", "OTHER": "y"}
    assert environment(given_to_us) == {
        "PATH": "/bin",
        "HTTPS_PROXY": "http://p",
        "no_proxy": "x",
        "SSL_CERT_FILE": "/c",
    }


@pytest.mark.parametrize(
    ("proxy", "passed"),
    [
        ("http://me:secret@proxy.example:3128", "http://proxy.example:3128"),
        ("http://me:se@cret@proxy.example/", "http://proxy.example/"),
        ("me:secret@proxy.example", "proxy.example"),
        ("http://proxy.example", "http://proxy.example"),
        ("", ""),
    ],
)
def test_a_script_gets_no_login_of_a_proxy(proxy, passed):
    assert environment({"HTTPS_PROXY": proxy, "http_proxy": proxy}) == {"HTTPS_PROXY": passed, "http_proxy": passed}


def test_a_script_reads_its_folder_and_writes_elsewhere(tool):
    made = tool('cat data.txt; rm data.txt 2>"$TMPDIR/why" || touch ~/new "$TMPDIR/new"')
    (made.folder / "data.txt").write_text("4.5.6\n")
    assert reading(made) == ("4.5.6", None, "")
    assert sorted(one.name for one in made.folder.iterdir()) == ["data.txt", "version.sh"]


def test_each_tool_is_read_once_and_known_ones_never(tool, tmp_path):
    made = tool(f"echo x >> {tmp_path}/runs; echo 1.0")
    readings = Readings([Reading(tool="goose", version="9", via="given")], VersionsSettings(), ENV)
    goose = Tool(name="goose", folder=tmp_path / "absent")
    readings.start([made, goose])
    first = readings.results([made, goose])
    assert [(one.tool, one.version) for one in first] == [("codex", "1.0"), ("goose", "9")]
    assert readings.results([goose, made]) == first[::-1]
    assert readings.all_known()
    readings.close()
    assert (tmp_path / "runs").read_text() == "x\n"


def test_closing_ends_what_is_still_being_read(tool, tmp_path):
    readings = Readings([], VersionsSettings(timeout=300), ENV)
    readings.start([tool("sleep 300.0815")])
    while not processes("300.0815"):
        time.sleep(0.01)
    readings.close()
    assert gone(processes("300.0815"))


# The version-check image: an engine's stand-in here; with real engines in tests/engines.


@pytest.fixture
def podman(tmp_path):
    return stand_in(tmp_path, "podman")


def answers(made, podman, **settings):
    readings = Readings([], VersionsSettings(image=REFERENCE, **settings), {"PATH": podman.path})
    try:
        (one,) = readings.results([made])
        return one, readings.warnings
    finally:
        readings.close()


def test_the_image_answers_first(tool, podman):
    podman.have()
    made = tool("echo ${CONTAINER-no}-1.0\r\n")
    seen, warnings = answers(made, podman)
    assert (seen.version, seen.via, seen.image, seen.fallback) == ("yes-1.0", "image", DIGEST, "")
    assert warnings == ()


ONLY_ON_HOST = "[[ -z $CONTAINER ]] || { %s; }; echo 1.0"


@pytest.mark.parametrize(
    ("in_the_image", "reason", "why"),
    [
        ("echo why >&2; exit 3", Unknown.VERSION_FAILED, "exit status 3, it says 'why'"),
        ("kill -9 $$", Unknown.VERSION_FAILED, "exit status 137"),
        ("exit 0", Unknown.VERSION_FORMAT, "printed nothing"),
        ("echo warning", Unknown.VERSION_FORMAT, "printed 2 lines, the first is 'warning'"),
        ("echo null; exit 0", Unknown.VERSION_FORMAT, "printed 'null', which is no version"),
        ("sleep 60", Unknown.VERSION_TIMEOUT, "did not end within 1 s"),
    ],
)
def test_where_the_image_has_no_answer_the_host_is_asked_if_it_may_be(tool, podman, in_the_image, reason, why):
    podman.have()
    made = tool(ONLY_ON_HOST % in_the_image)
    seen, warnings = answers(made, podman, timeout=1)
    assert (seen.version, seen.via, seen.image, seen.fallback) == ("1.0", "host", "", why)
    assert warnings == ()
    alone, _ = answers(made, podman, timeout=1, host_fallback=False)
    assert (alone.version, alone.reason, alone.detail, alone.via) == (None, reason, why, "image")
    assert podman.live == []


def test_different_answers_are_no_reason_to_ask_the_host(tool, podman, tmp_path):
    podman.have()
    seen, _ = answers(tool(f"[[ -n $CONTAINER ]] || echo host >>{tmp_path}/runs; echo ${{CONTAINER+2.0}}"), podman)
    assert (seen.version, seen.via) == ("2.0", "image")
    assert not (tmp_path / "runs").exists()


def test_where_both_fail_both_reasons_are_told(tool, podman):
    podman.have()
    seen, _ = answers(tool("echo null; exit ${CONTAINER+3}"), podman)
    assert (seen.version, seen.reason, seen.via) == (None, Unknown.VERSION_FORMAT, "host")
    assert seen.detail == ("in the image: exit status 3; on the host: printed 'null', which is no version")


NO_IMAGE = f"the image {REFERENCE} cannot be pulled: 'Error: manifest unknown'"
AWAY = "there is no container engine (docker: 'hidden'; podman: 'Cannot connect to the daemon')"
UNSTARTED = "the container could not be started: 'Error: no space left'"


@pytest.mark.parametrize(
    ("trouble", "why", "said"),
    [
        (lambda podman: None, NO_IMAGE, True),
        (lambda podman: podman.away(), AWAY, True),
        (lambda podman: podman.have() or podman.refuse("no space left"), UNSTARTED, False),
    ],
    ids=["no image", "no engine", "no container"],
)
def test_without_an_image_the_host_answers_with_a_warning_or_nobody(tool, podman, trouble, why, said):
    trouble(podman)
    seen, warnings = answers(tool("echo 1.0"), podman)
    assert (seen.version, seen.via, seen.fallback) == ("1.0", "host", why)
    assert warnings == ((f"versions are read on the host: {why}",) if said else ())
    alone, warnings = answers(tool("echo 1.0"), podman, host_fallback=False)
    assert (alone.version, alone.reason, alone.detail) == (None, Unknown.VERSION_FAILED, why)
    assert warnings == ((f"no version could be read: {why}",) if said else ())


def test_what_cannot_be_limited_is_a_warning(tool, podman):
    podman.have()
    podman.tell({"host": PODMAN["host"] | {"cgroupControllers": ["pids"]}})
    _, warnings = answers(tool("echo 1.0"), podman)
    assert warnings == ("podman cannot limit memory of a version.sh here",)


def several(tmp_path, scripts):
    made = []
    for name, script in scripts.items():
        (tmp_path / "tools" / name).mkdir(parents=True)
        (tmp_path / "tools" / name / "version.sh").write_text(script)
        made.append(Tool(name=name, folder=tmp_path / "tools" / name))
    return made


def test_the_engine_and_the_image_are_looked_for_once(tmp_path, podman):
    podman.have()
    tools = several(tmp_path, {f"tool{at}": f"echo 1.{at}" for at in range(5)})
    readings = Readings([], VersionsSettings(image=REFERENCE), {"PATH": podman.path})
    assert [one.version for one in readings.results(tools)] == ["1.0", "1.1", "1.2", "1.3", "1.4"]
    readings.close()
    assert [len(podman.asked(verb)) for verb in ("info", "pull", "run")] == [1, 1, 5]


def test_versions_take_as_long_as_the_slowest(tmp_path, podman):
    podman.have()
    tools = several(tmp_path, {f"tool{at}": f"sleep {at % 3}; echo 1.{at}" for at in range(9)})
    readings = Readings([], VersionsSettings(image=REFERENCE), {"PATH": podman.path})
    began = time.monotonic()
    assert all(one.version for one in readings.results(tools))
    assert time.monotonic() - began < 2 + 2
    readings.close()


def test_a_script_in_a_container_sees_nothing_secret_and_trusts_whom_this_machine_trusts(tool, podman, tmp_path):
    podman.have()
    authority = tmp_path / "ca.pem"
    authority.touch()
    environ = {
        "PATH": podman.path,
        "HOME": "/home/somebody",
        "GH_TOKEN": "secret",
        "LANG": "C",
        "HTTPS_PROXY": "http://user:secret@proxy.example",
        "SSL_CERT_FILE": str(authority),
        "NODE_EXTRA_CA_CERTS": str(authority),
        "PIP_CERT": str(tmp_path / "absent"),
        "SSL_CERT_DIR": str(tmp_path),
    }
    made = tool("env | cut -d= -f1 | sort | grep -v -e _ -e PWD -e SHLVL | tr '\\n' .; env | grep -c CERT")
    readings = Readings([], VersionsSettings(image=REFERENCE), environ)
    (seen,) = readings.results([made])
    readings.close()
    assert (seen.version, seen.detail) == ("CONTAINER.HOME.LANG.PATH.2", "")
    (call,) = podman.asked("run")
    assert call.count("secret") == 0
    assert f"--mount type=bind,source={authority},target={authority},readonly" in call
    assert call.count("--mount") == 2
    assert " ".join(word for word in call.split() if word.isupper() or "CERT" in word) == (
        "ALL LANG HTTPS_PROXY SSL_CERT_FILE NODE_EXTRA_CA_CERTS"
    )


def test_closing_ends_containers_and_asks_no_host(tool, podman, tmp_path):
    podman.have()
    readings = Readings([], VersionsSettings(image=REFERENCE, timeout=300), {"PATH": podman.path})
    readings.start([tool(f"echo $$ ${{CONTAINER-host}} >> {tmp_path}/runs; sleep 300")])
    runs = tmp_path / "runs"
    while not runs.is_file() or not runs.read_text().endswith("\n"):
        time.sleep(0.01)
    readings.close()
    pid, where = runs.read_text().split()
    assert where == "yes"
    assert gone([int(pid)])
    readings._pool.shutdown()
    assert len(runs.read_text().split()) == 2
    assert podman.live == []


@pytest.mark.parametrize(
    ("script", "result", "failures"),
    [
        ("echo 1.0", "same", ()),
        ("echo 1.${CONTAINER+2}", "differs", ()),
        ("[[ -z $CONTAINER ]] || echo 1.0", "failed", ("host: printed nothing",)),
        ("[[ -n $CONTAINER ]] || echo 1.0", "failed", ("image linux/amd64: printed nothing",)),
        ("exit 3", "failed", ("host: exit status 3", "image linux/amd64: exit status 3")),
    ],
)
def test_host_and_image_are_compared(tool, podman, script, result, failures):
    podman.have()
    (row,) = compare([tool(script)], VersionsSettings(image=REFERENCE), {"PATH": podman.path}, [])
    assert (row.result, row.failures) == (result, failures)
    assert [platform for platform, _ in row.images] == ["linux/amd64"]


def test_each_platform_is_compared_and_each_failure_told(tool, podman):
    podman.have()
    platforms = [Platform("linux", "amd64"), Platform("linux", "arm64")]
    (row,) = compare([tool("echo 1.0")], VersionsSettings(image=REFERENCE), {"PATH": podman.path}, platforms)
    assert row.result == "failed"
    assert row.failures == (f"image linux/arm64: the image {REFERENCE} is for linux/amd64, not for linux/arm64",)
    assert [(platform, one.version) for platform, one in row.images] == [("linux/amd64", "1.0"), ("linux/arm64", None)]


READINGS = [
    Reading(tool="codex", version="0.77.0", seconds=1.5),
    Reading(tool="crush", version="0.1", via="image", image=DIGEST),
    Reading(tool="droid", version="0.2", fallback="exit status 1"),
    Reading(tool="goose", version=None, reason=Unknown.VERSION_FAILED, detail="exit status 1", via="given"),
]


def test_a_file_of_versions_is_read_back_equal(tmp_path):
    (tmp_path / "v.json").write_bytes(dump_file(READINGS))
    assert read_file(tmp_path / "v.json") == READINGS


def test_a_file_of_versions_from_before_images_is_read(tmp_path):
    document = json.loads(dump_file(READINGS[:1]))
    for name in ("image", "fallback"):
        del document["versions"][0][name]
    (tmp_path / "v.json").write_text(json.dumps(document))
    assert read_file(tmp_path / "v.json") == READINGS[:1]


def refusal(path):
    with pytest.raises(BadCatalogue) as caught:
        read_file(path)
    assert caught.value.exit is Exit.BAD_CATALOGUE
    assert caught.value.where == str(path)
    return caught.value.reason


def test_a_file_of_versions_cut_anywhere_is_refused(tmp_path):
    content = dump_file(READINGS).rstrip()
    for length in range(len(content)):
        (tmp_path / "v.json").write_bytes(content[:length])
        assert refusal(tmp_path / "v.json").startswith("not a file of versions: ")


MEMBERS = json.loads(dump_file(READINGS))["versions"][0]


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ([], "not a file of versions: TypeError('list indices must be integers or slices, not str')"),
        ({}, "not a file of versions: KeyError('versions')"),
        ({"versions": [{}]}, "not a file of versions: KeyError('via')"),
        (
            {"versions": [MEMBERS | {"via": "magic"}]},
            "not a file of versions: ValueError(\"a version cannot come from 'magic'\")",
        ),
        (
            {"versions": [MEMBERS | {"version": "$(id)"}]},
            "codex: the version is '$(id)', which is no version",
        ),
        ({"versions": [MEMBERS | {"version": ""}]}, "codex: the version is nothing"),
    ],
)
def test_a_damaged_file_of_versions_is_refused_with_what_is_wrong(tmp_path, document, reason):
    (tmp_path / "v.json").write_text(json.dumps(document))
    assert refusal(tmp_path / "v.json") == reason


@pytest.mark.parametrize(
    "document",
    [
        {"versions": [MEMBERS | {"version": 3.10}]},
        {"versions": [MEMBERS | {"version": None}]},
        {"versions": [MEMBERS | {"tool": None}]},
        {"versions": None},
        {"versions": [7]},
    ],
)
def test_what_is_no_reading_is_refused_without_a_traceback(tmp_path, document):
    (tmp_path / "v.json").write_text(json.dumps(document))
    assert refusal(tmp_path / "v.json")


def test_an_absent_file_of_versions_is_refused(tmp_path):
    assert refusal(tmp_path / "v.json") == "cannot be read: No such file or directory"
