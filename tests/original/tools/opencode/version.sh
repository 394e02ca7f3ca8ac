#!/usr/bin/env bash
set -euo pipefail

npm view opencode-ai version
