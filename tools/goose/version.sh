#!/bin/bash
# The redirect of releases/latest names the newest tag and, unlike the API, has no limit for strangers.
set -euo pipefail
latest=$(curl -fsSI -o /dev/null -w '%{redirect_url}' https://github.com/block/goose/releases/latest)
tag=${latest##*/}
echo "${tag#v}"
