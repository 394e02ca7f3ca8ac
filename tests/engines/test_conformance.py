"""The suite by which registries are measured, against the embedded one, with all that can be asked for switched on.

https://github.com/opencontainers/distribution-spec/tree/main/conformance
"""

import os
import subprocess
import time
from collections import Counter
from pathlib import Path

import yaml

from imagewright.embedded.server import Server

SWITCHED_ON = {
    "OCI_VERSION": "1.1",
    "OCI_API_BLOBS_DIGEST_HEADER": "true",
    "OCI_API_BLOBS_UPLOAD_CANCEL": "true",
    "OCI_API_MANIFESTS_DIGEST_HEADER": "true",
    "OCI_API_MANIFESTS_TAG_PARAM": "true",
}
"""What is off by default. An index with holes stays off: this registry refuses it on purpose, as the specification lets it."""

AT_LEAST = 800


def test_the_conformance_suite_has_nothing_to_object_to(engine_bin: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    with Server(tmp_path / "registry") as server:
        environ = {
            **SWITCHED_ON,
            "OCI_REGISTRY": server.address,
            "OCI_TLS": "disabled",
            "OCI_RESULTS_DIR": str(results),
            "OCI_CONFIGURATION": os.devnull,
            "OCI_LOG": "error",
        }
        began = time.monotonic()
        ran = subprocess.run(
            [engine_bin / "conformance"],
            env=environ,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        took = time.monotonic() - began
    told = [line.strip().rpartition(": ") for line in ran.stdout.splitlines() if ": " in line]
    counts = Counter(result for _, _, result in told)
    print(f"\nconformance: {counts['Pass']} passed, {counts['FAIL']} failed, {counts['Skip']} skipped, in {took:.1f} s")
    assert (ran.returncode, counts["FAIL"], counts["Error"]) == (0, 0, 0), ran.stdout
    assert [name for name, _, result in told if result in ("Skip", "Disabled")] == []
    assert counts["Pass"] >= AT_LEAST, ran.stdout
    summary = yaml.safe_load((results / "results.yaml").read_text())
    assert {name for name, result in summary["apis"].items() if result != "Pass"} == set()
    assert {name: result for name, result in summary["data"].items() if result != "Pass"} == {
        "Sparse Manifests": "Disabled"
    }
