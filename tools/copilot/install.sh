#!/bin/sh
set -eu
npm install --global --no-audit --no-fund "@github/copilot@${TOOL_VERSION}"
