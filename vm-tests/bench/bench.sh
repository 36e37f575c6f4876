#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The benchmark: requests per second of wrk with 16 keep-alive connections and a small
# GET, to nginx directly, through XLB and through HAProxy, one after the other in one
# boot; latency with one connection; 256 connections; bodies of 1 MiB; module memory for each idle socket.
# With `make bench` the machine counts instructions (1 instruction = 1 ns of its time), so
# that the figures compare instructions of the whole system for each request.
# QUICK=1 measures one second each instead of three.
set -euo pipefail
cd "$(dirname "$0")"
vip=10.96.0.10
seconds=3
[ -z "${QUICK:-}" ] || seconds=1
dir=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$dir"' EXIT
fail() { echo "bench: $*" >&2; exit 1; }
. ./hello.sh

cat >"$dir/haproxy.cfg" <<END
global
  nbthread 1
  maxconn 20000
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  http-reuse always
frontend f
  bind 127.0.0.1:8090
  default_backend b
backend b
  server s 127.0.0.1:8081
END
cat >"$dir/routes.yaml" <<END
version: 1
services:
- {name: bench, listen: ["$vip:80"], routes: [{cluster: nginx}]}
- {name: idle, listen: ["$vip:81"], routes: [{cluster: idle}]}
clusters:
- {name: nginx, lb: round_robin, endpoints: ["127.0.0.1:8081"], pool: {max: 2000}}
- {name: idle, lb: round_robin, endpoints: ["127.0.0.1:8081"], pool: {max: 2000, min_idle: 1000, idle_timeout: 600s}}
END
hello "$dir" 8081
haproxy -db -f "$dir/haproxy.cfg" &
answer 8081 8090
xlbctl apply -f "$dir/routes.yaml" >/dev/null
curl -sS "http://$vip/" | grep -q hello || fail "nothing answers through XLB"

# The time that wrk itself measures, in requests per second and microseconds.
load() { # URL CONNECTIONS SECONDS
	wrk -t 1 -c "$2" -d "$3" --timeout 30s --latency "$1" >"$dir/wrk"
	! grep -qE 'Socket errors|Non-2xx' "$dir/wrk" || { cat "$dir/wrk"; fail "errors from $1"; }
}
rate() { awk '/^Requests\/sec/ { print $2 }' "$dir/wrk"; }
of_direct() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'; }
latency() { # to microseconds
	awk '$1 == "50%" { v = $2; u = v; sub(/[0-9.]+/, "", u); sub(/[a-z]+/, "", v)
		print v * (u == "us" ? 1 : u == "ms" ? 1000 : 1000000) }' "$dir/wrk"
}

names=(direct xlb haproxy)
urls=(http://127.0.0.1:8081/ "http://$vip/" http://127.0.0.1:8090/)
declare -A rps lat one many big
for i in 0 1 2; do
	echo "measuring ${names[i]}" >&2
	# Warm: pools are filled, caches and branch predictors have seen the path.
	load "${urls[i]}" 16 1
	load "${urls[i]}" 16 "$seconds"
	rps[${names[i]}]=$(rate)
	load "${urls[i]}" 1 1
	lat[${names[i]}]=$(latency)
	one[${names[i]}]=$(rate)
	load "${urls[i]}" 256 1
	load "${urls[i]}" 256 "$seconds"
	many[${names[i]}]=$(rate)
	load "${urls[i]}mib" 16 1
	big[${names[i]}]=$(rate)
done

echo
echo "  Linux $(uname -r), $(nproc) CPU, small GET, keep-alive, $seconds s each"
echo
printf '  %-9s %18s %8s %22s %22s\n' '' '16 connections' of '1 connection' 'median, 1 connection'
printf '  %-9s %18s %8s %22s %22s\n' '' 'requests/s' direct 'requests/s' 'us'
for name in "${names[@]}"; do
	printf '  %-9s %18s %8s %22s %22s\n' "$name" "${rps[$name]}" \
		"$(of_direct "${rps[$name]}" "${rps[direct]}")" "${one[$name]}" "${lat[$name]}"
done

echo
printf '  %-9s %18s %8s %22s %8s\n' '' '256 connections' of '1 MiB, 16 connections' of
printf '  %-9s %18s %8s %22s %8s\n' '' 'requests/s' direct 'requests/s' direct
for name in "${names[@]}"; do
	printf '  %-9s %18s %8s %22s %8s\n' "$name" "${many[$name]}" "$(of_direct "${many[$name]}" "${many[direct]}")" \
		"${big[$name]}" "$(of_direct "${big[$name]}" "${big[direct]}")"
done

# A thousand idle client sockets, each after one request; then a thousand idle connections.
cat >"$dir/idle.py" <<'END'
import json, socket, subprocess, sys, time

def counters():
    return json.loads(subprocess.run(["xlbctl", "status", "-o", "json"], stdout=subprocess.PIPE).stdout)["counters"]

def ask(sock):
    sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    got = b""
    while not got.endswith(b"hello\n"):
        piece = sock.recv(4096)
        assert piece, got
        got += piece

vip = sys.argv[1]
before = counters()
socks = [socket.create_connection((vip, 80)) for _ in range(1000)]
fresh = counters()
for sock in socks:
    ask(sock)
used = counters()
ask(socket.create_connection((vip, 81)))
for _ in range(200):
    pooled = counters()
    if pooled["isocks_idle"] >= 1000:
        break
    time.sleep(0.1)

def each(now, what):
    return round(now[what + "_bytes"] / now[what + "s"]) if now[what + "s"] else 0

print(f"  module memory for each idle p-sock: {each(fresh, 'psock')} bytes before its first request, "
      f"{each(used, 'psock')} after one ({used['psocks']} of them)")
print(f"  module memory for each idle i-sock: {each(pooled, 'isock')} bytes ({pooled['isocks']} of them)")
END
echo
python3 "$dir/idle.py" "$vip"
echo
