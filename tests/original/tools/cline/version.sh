#!/usr/bin/env bash
set -euo pipefail

npm view cline version
