#!/usr/bin/env bash
set -euo pipefail

npm install -g @anthropic-ai/claude-code
