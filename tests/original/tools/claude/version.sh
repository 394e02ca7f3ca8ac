#!/usr/bin/env bash
set -euo pipefail

npm view @anthropic-ai/claude-code version
