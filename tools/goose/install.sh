#!/bin/sh
set -eu
case "$(uname -m)" in
    x86_64) machine=x86_64 ;;
    aarch64) machine=aarch64 ;;
    *) echo "goose has no release for $(uname -m)" >&2; exit 1 ;;
esac
url="https://github.com/block/goose/releases/download/v${TOOL_VERSION}/goose-${machine}-unknown-linux-gnu.tar.bz2"
curl -fsSL "$url" | tar -xj -C /usr/local/bin
