#!/bin/sh
set -eu
npm install --global --no-audit --no-fund "cline@${TOOL_VERSION}"
