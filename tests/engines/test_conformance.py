"""The conformance suite of the OCI distribution specification against the embedded registry, with everything enabled.

https://github.com/opencontainers/distribution-spec/tree/main/conformance
"""

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from imagewright.embedded.server import Server

EVERYTHING = {
    "OCI_VERSION": "dev",
    **{f"OCI_API_{name}": "true" for name in ("PING", "PULL", "PUSH", "REFERRER")},
    **{
        f"OCI_API_BLOBS_{name}": "true"
        for name in ("ATOMIC", "DELETE", "DIGEST_HEADER", "MOUNT_ANONYMOUS", "UPLOAD_CANCEL")
    },
    **{f"OCI_API_MANIFESTS_{name}": "true" for name in ("ATOMIC", "DELETE", "DIGEST_HEADER", "TAG_PARAM")},
    **{f"OCI_API_TAGS_{name}": "true" for name in ("ATOMIC", "DELETE", "LIST")},
    **{
        f"OCI_DATA_{name}": "true"
        for name in (
            "IMAGE",
            "INDEX",
            "INDEX_LIST",
            "SPARSE",
            "ARTIFACT",
            "SUBJECT",
            "SUBJECT_MISSING",
            "ARTIFACT_LIST",
            "SUBJECT_LIST",
            "DATA_FIELD",
            "NONDISTRIBUTABLE",
            "CUSTOM_FIELDS",
            "NO_LAYERS",
            "EMPTY_BLOB",
            "SHA512",
        )
    },
}


@pytest.mark.parametrize(
    ("settings", "sparse", "off", "skipped", "passed"),
    [
        pytest.param(EVERYTHING, True, [], [], 1032, id="everything"),
        pytest.param(EVERYTHING | {"OCI_DATA_SPARSE": "false"}, False, ["sparse"], [], 986, id="as served by default"),
        pytest.param(
            {"OCI_VERSION": "1.1"},
            False,
            ["digestHeader", "uploadCancel", "digestHeader", "tagParam", "sparse"],
            ["sha256 blobs/post cancel/blob-post-cancel", "sha512 blobs/post cancel/blob-post-cancel"],
            860,
            id="as the suite comes for version 1.1",
        ),
    ],
)
def test_the_embedded_registry_conforms(
    engine_bin: Path,
    tmp_path: Path,
    settings: Mapping[str, str],
    sparse: bool,
    off: list[str],
    skipped: list[str],
    passed: int,
) -> None:
    with Server(tmp_path / "registry", sparse=sparse) as server:
        suite = subprocess.run(
            [engine_bin / "conformance"],
            cwd=tmp_path,
            env=_environ()
            | settings
            | {"OCI_REGISTRY": server.address, "OCI_TLS": "disabled", "OCI_RESULTS_DIR": str(tmp_path / "results")},
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
    cases = [
        (
            str(case.get("status")),
            str(case.get("name")).removeprefix("OCI Conformance Test/"),
            case.findtext("system-out"),
        )
        for case in ET.parse(tmp_path / "results" / "junit.xml").iter("testcase")
    ]
    not_passed = [case for case in cases if case[0] not in ("passed", "skipped")]
    assert (not_passed, suite.returncode) == ([], 0), suite.stderr
    assert [name for status, name, _ in cases if status == "skipped"] == skipped
    assert re.findall(r"(\w+): false", (tmp_path / "results" / "results.yaml").read_text()) == off
    counted = re.search(r"^  Pass\.+: +(\d+)$", suite.stdout, re.MULTILINE)
    assert counted and int(counted[1]) >= passed


def _environ() -> dict[str, str]:
    """This process's environment without settings for the suite, which would hide what a test turns on."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OCI_")}
