#!/bin/sh
set -eu
npm install --global --no-audit --no-fund "@google/gemini-cli@${TOOL_VERSION}"
