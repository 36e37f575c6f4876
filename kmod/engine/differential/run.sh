#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Builds the peers and compares: run.sh [MESSAGES].  Writes only below CARGO_TARGET_DIR.
set -eu
cd "$(dirname "$0")"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"
mkdir -p "$CARGO_TARGET_DIR"
# Go without modules, network and cgo; its cache is as disposable as cargo's results.
export GOCACHE="${GOCACHE:-$CARGO_TARGET_DIR/go-cache}" GOPATH="${GOPATH:-$CARGO_TARGET_DIR/go}"
export GOPROXY=off GOTOOLCHAIN=local GOFLAGS= CGO_ENABLED=0
if [ -z "${XLB_GO:-}" ]; then
	go build -o "$CARGO_TARGET_DIR/go-peer" peers/go/main.go
	export XLB_GO="$CARGO_TARGET_DIR/go-peer"
fi
cargo build --quiet --release --locked
exec "$CARGO_TARGET_DIR/release/xlb-engine-differential" "$@"
