"""What becomes of uploads to the embedded registry when clients, disks or the process do not do what they should."""

import hashlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import requests

from imagewright.embedded.server import Server
from tests.registry_client import CONFIG, LAYER, Client, digest_of, image, refused

LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)
from imagewright.cli import run
run()
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def server(root: Path) -> Iterator[Server]:
    with Server(root) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    made = Client(server.address)
    yield made
    made.session.close()


def received(root: Path) -> list[bytes]:
    """The content of the files of all uploads."""
    return [path.read_bytes() for path in (root / ".uploads").iterdir()]


def damaged(root: Path) -> list[str]:
    """The names of the blobs of repository `a` whose content has another digest."""
    blobs = root.glob("a/blobs/sha256/[0-9a-f]*")
    return [path.name for path in blobs if hashlib.sha256(path.read_bytes()).hexdigest() != path.name]


@contextmanager
def stalled(address: str, client: Client, place: str) -> Iterator[socket.socket]:
    """A connection that has announced LAYER for an upload and has sent its first ten bytes, which have arrived."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(f"PATCH {place} HTTP/1.1\r\nContent-Length: {len(LAYER)}\r\n\r\n".encode() + LAYER[:10])
        while client.ask("GET", place).headers["Range"] == "0-0":
            time.sleep(0.01)
        yield connection


def test_of_two_writers_of_one_chunk_one_is_told_where_to_go_on(server: Server) -> None:
    content = os.urandom(400_000)
    first, second = Client(server.address), Client(server.address)
    place = first.start_upload("a")
    headers = {"Content-Range": f"0-{len(content) - 1}"}
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda one: one.ask("PATCH", place, data=content, headers=headers), (first, second)))
    assert sorted(answer.status_code for answer in answers) == [202, 416]
    assert [answer.headers["Range"] for answer in answers] == ["0-399999"] * 2
    assert first.ask("PUT", place, params={"digest": digest_of(content)}).status_code == 201
    assert first.ask("GET", f"a/blobs/{digest_of(content)}").content == content
    for one in (first, second):
        one.session.close()


def test_two_pushers_of_one_blob_both_succeed(server: Server, root: Path) -> None:
    content = os.urandom(400_000)

    def push(number: int) -> str:
        one = Client(server.address)
        try:
            return one.push_blob("a", content)
        finally:
            one.session.close()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(push, range(16))) == [digest_of(content)] * 16
    assert (root / "a" / "blobs" / digest_of(content).replace(":", "/")).read_bytes() == content
    assert received(root) == []


def test_a_writer_does_not_wait_for_ever_for_another(client: Client, server: Server) -> None:
    place = client.start_upload("a")
    with stalled(server.address, client, place) as connection:
        answer = client.ask("PATCH", place, data=LAYER, headers={"Content-Range": "0-34"})
        assert refused(answer) == (400, "BLOB_UPLOAD_INVALID")
        assert answer.json()["errors"][0]["message"] == "another request is still writing to this upload"
        connection.sendall(LAYER[10:])
        assert connection.recv(65536).startswith(b"HTTP/1.1 202 ")
    assert client.ask("PUT", place, params={"digest": digest_of(LAYER)}).status_code == 201


def test_cancelling_does_not_wait_for_who_is_writing(client: Client, server: Server, root: Path) -> None:
    place = client.start_upload("a")
    with stalled(server.address, client, place) as connection:
        before = time.monotonic()
        assert client.ask("DELETE", place).status_code == 204
        assert time.monotonic() - before < 1
        assert received(root) == []
        connection.sendall(LAYER[10:])
        assert connection.recv(65536).startswith(b"HTTP/1.1 404 ")
    for method in ("DELETE", "GET", "PATCH", "PUT"):
        answer = client.ask(method, place, params={"digest": digest_of(LAYER)}, data=LAYER)
        assert refused(answer) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert received(root) == []


def test_an_upload_is_either_cancelled_or_a_blob(server: Server, root: Path) -> None:
    first, second = Client(server.address), Client(server.address)
    outcomes = set()
    with ThreadPoolExecutor(2) as pool:
        for number in range(40):
            content = b"%d" % number
            place = first.start_upload("a")
            finished = pool.submit(first.ask, "PUT", place, params={"digest": digest_of(content)}, data=content)
            cancelled = pool.submit(second.ask, "DELETE", place)
            outcome = (finished.result().status_code, cancelled.result().status_code)
            there = second.ask("HEAD", f"a/blobs/{digest_of(content)}").status_code
            outcomes.add((*outcome, there))
    assert outcomes <= {(201, 404, 200), (404, 204, 404)}
    assert received(root) == []
    for one in (first, second):
        one.session.close()


def test_an_abandoned_upload_ends_after_a_day(client: Client, root: Path) -> None:
    old, young = client.start_upload("a"), client.start_upload("a")
    client.ask("PATCH", old, data=LAYER)
    client.ask("PATCH", young, data=CONFIG)
    os.utime(root / ".uploads" / old.rpartition("/")[2], (time.time() - 90_000,) * 2)
    client.start_upload("b")
    assert refused(client.ask("GET", old)) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert sorted(received(root)) == [b"", CONFIG]
    assert client.ask("PUT", young, params={"digest": digest_of(CONFIG)}).status_code == 201


def test_an_upload_whose_file_is_gone_does_not_go_on_without_it(client: Client, root: Path) -> None:
    place = client.start_upload("a")
    client.ask("PATCH", place, data=LAYER[:10])
    (root / ".uploads" / place.rpartition("/")[2]).unlink()
    assert refused(client.ask("PATCH", place, data=LAYER[10:])) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert refused(client.ask("PUT", place, params={"digest": digest_of(LAYER)})) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert received(root) == []


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_an_upload_whose_file_has_been_changed_is_no_blob(client: Client, root: Path, algorithm: str) -> None:
    place = client.start_upload("a")
    client.ask("PATCH", place, data=LAYER)
    with (root / ".uploads" / place.rpartition("/")[2]).open("ab") as file:
        file.write(b"more")
    answer = client.ask("PUT", place, params={"digest": digest_of(LAYER, algorithm)})
    assert refused(answer) == (400, "BLOB_UPLOAD_INVALID")
    assert answer.json()["errors"][0]["message"] == "the upload's file has been changed; start another"
    assert client.ask("HEAD", f"a/blobs/{digest_of(LAYER, algorithm)}").status_code == 404
    assert received(root) == []


@pytest.mark.parametrize(
    ("content_range", "status", "code", "here"),
    [
        ("10-34", 202, None, "0-34"),
        ("9-33", 416, "RANGE_INVALID", "0-9"),
        ("11-35", 416, "RANGE_INVALID", "0-9"),
        ("10-8", 416, "RANGE_INVALID", "0-9"),
        ("10-", 416, "RANGE_INVALID", "0-9"),
        ("-34", 416, "RANGE_INVALID", "0-9"),
        ("0-99999999999999999999", 416, "RANGE_INVALID", "0-9"),
        ("10-33", 400, "SIZE_INVALID", "0-34"),
        ("10-35", 400, "SIZE_INVALID", "0-34"),
    ],
)
def test_a_streamed_chunk_has_to_be_the_one_that_it_says(
    client: Client, content_range: str, status: int, code: str | None, here: str
) -> None:
    place = client.start_upload("a")
    client.ask("PATCH", place, data=LAYER[:10], headers={"Content-Range": "0-9"})
    answer = client.ask("PATCH", place, data=iter([LAYER[10:]]), headers={"Content-Range": content_range})
    assert (answer.status_code if code is None else refused(answer)) == (status if code is None else (status, code))
    assert client.ask("GET", place).headers["Range"] == here


@contextmanager
def serving(root: Path, largest_file: int) -> Iterator[str]:
    """The address of a registry in a process of its own that can write no file of more bytes than that."""
    process = subprocess.Popen(
        [sys.executable, "-c", LIMITED, str(largest_file), "registry", "serve", "--port", "0", "--root", str(root)],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    try:
        yield process.stderr.readline().partition(" at ")[2].partition(";")[0]
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert "Traceback" not in said


def test_a_full_disk_leaves_nothing_half_written(root: Path) -> None:
    content = os.urandom(300_000)
    with serving(root, largest_file=100_000) as address:
        client = Client(address)
        before = client.push_image("a", "1")
        whole = client.ask("POST", "a/blobs/uploads/", params={"digest": digest_of(content)}, data=content)
        assert refused(whole) == (500, "UNKNOWN")
        assert whole.json()["errors"][0]["message"] == "the registry's disk: File too large"
        assert received(root) == []

        place = client.start_upload("a")
        assert refused(client.ask("PATCH", place, data=content)) == (500, "UNKNOWN")
        assert client.ask("GET", place).headers["Range"] == "0-99999"
        assert client.ask("PUT", place, params={"digest": digest_of(content[:100_000])}).status_code == 201
        assert client.ask("GET", f"a/blobs/{digest_of(content[:100_000])}").content == content[:100_000]

        large = client.push("a", "1", image(annotations={"x": "x" * 100_000}))
        assert refused(large) == (500, "UNKNOWN")
        assert client.tags("a") == ["1"]
        assert client.ask("GET", "a/manifests/1").headers["Docker-Content-Digest"] == before
        assert client.ask("HEAD", f"a/blobs/{digest_of(content)}").status_code == 404
        client.session.close()
    assert received(root) == []
    assert damaged(root) == []
    assert [path.name for path in root.rglob(".*") if path.name != ".uploads"] == []


EVENTS = {"open", "os.link", "os.mkdir", "os.remove", "os.rename"}
"""What Python tells an audit hook before it changes the file system: https://docs.python.org/3/library/audit_events.html"""


def serve_until(fatal: int, root: Path, address: Connection) -> None:
    """Serves, and is killed just before the `fatal`-th change to the folder since it began to listen."""
    changes = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal changes
        if event in EVENTS and str(root) in str(arguments[0]):
            changes += 1
            if changes == fatal:
                os.kill(os.getpid(), signal.SIGKILL)

    server = Server(root)
    sys.addaudithook(count)
    address.send(server.address)
    server.serve_forever()


def push_in_steps(client: Client, acknowledged: list[str]) -> None:
    """Pushes an image under two tags, one blob in chunks; adds to the list what has been promised to be there."""
    place = client.start_upload("a")
    client.ask("PATCH", place, data=LAYER[:10], headers={"Content-Range": "0-9"})
    client.ask("PATCH", place, data=LAYER[10:], headers={"Content-Range": f"10-{len(LAYER) - 1}"})
    assert client.ask("PUT", place, params={"digest": digest_of(LAYER)}).status_code == 201
    acknowledged.append(f"a/blobs/{digest_of(LAYER)}")
    acknowledged.append(f"a/blobs/{client.push_blob('a', CONFIG)}")
    for tag in ("1", "latest"):
        assert client.push("a", tag, image()).status_code == 201
        acknowledged.append(f"a/manifests/{tag}")


def check_after_death(root: Path, acknowledged: list[str]) -> None:
    """What was promised is there, what is there is whole, and the push can be done again."""
    assert damaged(root) == []
    with Server(root) as server:
        client = Client(server.address)
        assert [path for path in acknowledged if client.ask("GET", path).status_code != 200] == []
        listed = client.ask("GET", "a/tags/list")
        for tag in listed.json()["tags"] if listed.status_code == 200 else []:
            assert client.ask("GET", f"a/manifests/{tag}").content == image()
            assert client.ask("GET", f"a/blobs/{digest_of(CONFIG)}").content == CONFIG
            assert client.ask("GET", f"a/blobs/{digest_of(LAYER)}").content == LAYER
        push_in_steps(client, [])
        assert client.tags("a") == ["1", "latest"]
        client.session.close()


def test_a_killed_registry_keeps_what_it_promised_wherever_it_was_killed(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    for fatal in range(1, 100):
        root = tmp_path / f"{fatal}"
        here, there = fork.Pipe()
        process = fork.Process(target=serve_until, args=(fatal, root, there), daemon=True)
        process.start()
        client = Client(here.recv())
        acknowledged: list[str] = []
        try:
            push_in_steps(client, acknowledged)
        except requests.ConnectionError:
            process.join(20)
            assert process.exitcode == -signal.SIGKILL
        else:
            process.kill()
            process.join(20)
            break
        finally:
            client.session.close()
        check_after_death(root, acknowledged)
    assert 20 < fatal < 99
