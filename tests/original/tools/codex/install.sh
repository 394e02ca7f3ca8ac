#!/usr/bin/env bash
set -euo pipefail

npm install -g @openai/codex
