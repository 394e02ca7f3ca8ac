#!/bin/sh
set -eu
npm install --global --no-audit --no-fund "@charmland/crush@${TOOL_VERSION}"
