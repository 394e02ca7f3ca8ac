#!/bin/sh
set -eu
npm install --global --no-audit --no-fund "@anthropic-ai/claude-code@${TOOL_VERSION}"
