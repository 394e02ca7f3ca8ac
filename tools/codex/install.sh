#!/bin/sh
set -eu
npm install --global --no-audit --no-fund "@openai/codex@${TOOL_VERSION}"
