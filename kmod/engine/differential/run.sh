#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Builds the peers and compares: run.sh [MESSAGES]
set -eu
cd "$(dirname "$0")"
mkdir -p target
(cd peers/go && CGO_ENABLED=0 go build -o ../../target/go-peer .)
cargo build --quiet --release
exec target/release/xlb-engine-differential "$@"
