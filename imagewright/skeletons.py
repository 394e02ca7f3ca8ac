"""The files of a new tool: right for where its releases are, or with the places to fill in. Values only."""

import re
from collections.abc import Callable, Mapping
from typing import Literal

from imagewright.names import shown

Kind = Literal["npm", "pypi", "github"]
"""Where the releases of a tool are."""

UNWRITTEN = b"is not written yet"
"""What a script of a skeleton says until somebody has written it."""

_GRAMMARS: Mapping[Kind, tuple[str, str]] = {
    "npm": (r"(?:@[a-z0-9][a-z0-9._~-]*/)?[a-z0-9][a-z0-9._~-]*", "a package, e.g. @openai/codex"),
    "pypi": (r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", "a package, e.g. aider-chat"),
    "github": (r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+", "a repository, e.g. block/goose"),
}


def parse_source(kind: Kind, text: str) -> str:
    """The name of a package or repository, safe within a script; ValueError with what is expected."""
    grammar, expected = _GRAMMARS[kind]
    if not re.fullmatch(grammar, text):
        raise ValueError(f"{shown(text)} is not {expected}")
    return text


def skeleton(tool: str, kind: Kind | None = None, source: str = "") -> dict[str, str]:
    """The files of a tool by name. source: as `parse_source` made it."""
    return _MAKERS[kind](tool, source) if kind else _blank(tool)


def _blank(tool: str) -> dict[str, str]:
    return {
        "version.sh": f"""\
#!/bin/bash
# Prints the version to publish: one line on stdout and nothing else, with exit status 0.
#   npm view 'PACKAGE' version
#   curl -fsSL 'https://example.org/releases/latest.json' | jq -er .version
echo "tools/{tool}/version.sh {UNWRITTEN.decode()}" >&2
exit 1
""",
        "install.sh": f"""\
#!/bin/sh
# Installs exactly ${{TOOL_VERSION}}, on every base, as the base's user: tools/Dockerfile runs it.
#   npm install --global "PACKAGE@${{TOOL_VERSION}}"
set -eu
echo "tools/{tool}/install.sh {UNWRITTEN.decode()}" >&2
exit 1
""",
        "tool.yaml": f"""\
# All of this is optional.
title: {tool}
command: {tool} --version       # what proves that the tool is installed
# homepage: https://example.org
# description: what it is, in a line
# licenses: MIT                 # an SPDX expression
# version-scheme: semver        # or pep440, calver, opaque: how its versions are ordered, for `latest`
# redistributable: false        # built here only, never published
# exclude-bases:
#   alpine: does not work on musl
""",
    }


def _npm(tool: str, package: str) -> dict[str, str]:
    return {
        "version.sh": f"#!/bin/bash\nnpm view '{package}' version\n",
        "install.sh": f"""\
#!/bin/sh
set -eu
npm install --global --no-audit --no-fund "{package}@${{TOOL_VERSION}}"
""",
        "tool.yaml": _yaml(tool),
    }


def _pypi(tool: str, package: str) -> dict[str, str]:
    return {
        "version.sh": f"""\
#!/bin/bash
# The first line reads `PACKAGE (VERSION)`. Without pipefail, a package that does not exist would be no failure.
set -euo pipefail
python3 -m pip index versions --disable-pip-version-check '{package}' | sed -n '1s/^.* (\\(.*\\))$/\\1/p'
""",
        "install.sh": f"""\
#!/bin/sh
# In an environment of its own: the Python of most bases is managed by their package manager.
set -eu
python3 -m venv /opt/{tool}
/opt/{tool}/bin/pip install --no-cache-dir --disable-pip-version-check "{package}==${{TOOL_VERSION}}"
ln -s /opt/{tool}/bin/{tool} /usr/local/bin/{tool}
""",
        "tool.yaml": _yaml(tool, "version-scheme: pep440"),
    }


def _github(tool: str, repository: str) -> dict[str, str]:
    return {
        "version.sh": f"""\
#!/bin/bash
# The redirect of releases/latest names the tag of the newest release and, unlike the API, has no limit for strangers.
set -euo pipefail
latest=$(curl -fsSI -o /dev/null -w '%{{redirect_url}}' 'https://github.com/{repository}/releases/latest')
tag=${{latest##*/}}
echo "${{tag#v}}"
""",
        "install.sh": f"""\
#!/bin/sh
# Projects name the files of their releases as they like: say here how this one does.
set -eu
case "$(uname -m)" in
    x86_64) machine=x86_64 ;;
    aarch64) machine=aarch64 ;;
    *) echo "{tool} has no release for $(uname -m)" >&2; exit 1 ;;
esac
file="{tool}-${{machine}}-unknown-linux-gnu.tar.gz"
curl -fsSL "https://github.com/{repository}/releases/download/v${{TOOL_VERSION}}/${{file}}" | tar -xz -C /usr/local/bin
""",
        "tool.yaml": _yaml(tool, f"homepage: https://github.com/{repository}"),
    }


def _yaml(tool: str, *lines: str) -> str:
    return "".join(f"{line}\n" for line in (f"title: {tool}", *lines, f"command: {tool} --version"))


_MAKERS: Mapping[Kind, Callable[[str, str], dict[str, str]]] = {"npm": _npm, "pypi": _pypi, "github": _github}
