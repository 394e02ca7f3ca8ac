#!/bin/sh
set -eu
npm install --global --no-audit --no-fund "@qwen-code/qwen-code@${TOOL_VERSION}"
