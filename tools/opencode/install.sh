#!/bin/sh
set -eu
npm install --global --no-audit --no-fund "opencode-ai@${TOOL_VERSION}"
