#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# How often a request takes each lock, and waits for it: of /proc/lock_stat, so on the debug
# kernel; small GETs over 16 keep-alive connections, of as many processes as there are CPUs,
# eight endpoints, round robin.  The connects are over, and the pools full, when it begins to count.
# What happens by the clock (the reaper looks at each pool once a second) is no part of a request,
# and the slower the kernel the more of it there is beside one: it is counted in a time without
# requests, and taken off.  Fails when a request takes XLB's own locks more than LIMIT times.
set -euo pipefail
cd "$(dirname "$0")"
LIMIT=3
vip=10.96.0.10
rounds=60
dir=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$dir"' EXIT
fail() { echo "locks: $*" >&2; exit 1; }
. ./hello.sh
[ -w /proc/lock_stat ] || fail "this kernel has no lock statistics (CONFIG_LOCK_STAT)"

endpoints=$(printf '"127.0.0.1:%s", ' 808{1..8})
cat >"$dir/routes.yaml" <<END
version: 1
services:
- {name: bench, listen: ["$vip:80"], routes: [{cluster: nginx}]}
clusters:
- {name: nginx, lb: round_robin, endpoints: [${endpoints%, }]}
END
hello "$dir" 808{1..8}
answer 808{1..8}
xlbctl apply -f "$dir/routes.yaml" >/dev/null

cat >"$dir/load.py" <<'END'
import os, socket, sys, time, traceback

CONNECTIONS, WARM, QUIET_S = 16, 15, 20
vip, rounds, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def ask_all(socks):
    for sock in socks:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    for sock in socks:
        got = b""
        while not got.endswith(b"hello\n"):
            piece = sock.recv(4096)
            assert piece, got
            got += piece
        assert got.startswith(b"HTTP/1.1 200"), got


def client(connections, go, done):
    socks = [socket.create_connection((vip, 80)) for _ in range(connections)]
    for sock in socks:
        sock.settimeout(60)
    for _ in range(WARM):
        ask_all(socks)
    os.write(done, b"w")
    os.read(go, 1)
    for _ in range(rounds):
        ask_all(socks)
    os.write(done, b"d")
    # Until all is counted: a close is no part of a request.
    os.read(go, 1)


clients = len(os.sched_getaffinity(0))
go, done = os.pipe(), os.pipe()
pids = []
for _ in range(clients):
    pid = os.fork()
    if pid == 0:
        os.close(done[0])
        os.close(go[1])
        try:
            client(CONNECTIONS // clients, go[0], done[1])
        except BaseException:
            traceback.print_exc()
            os.write(done[1], b"!")
            os._exit(1)
        os._exit(0)
    pids.append(pid)
os.close(done[1])


def all_say(what):
    for _ in range(clients):
        said = os.read(done[0], 1)
        assert said == what, "a client has failed"


def counted(name, work):
    write("/proc/sys/kernel/lock_stat", "0")
    write("/proc/lock_stat", "0")
    write("/proc/sys/kernel/lock_stat", "1")
    start = time.monotonic()
    work()
    write("/proc/sys/kernel/lock_stat", "0")
    seconds = time.monotonic() - start
    with open("/proc/lock_stat") as stat:
        write(f"{folder}/{name}", stat.read())
    return seconds


def requests():
    os.write(go[1], b"g" * clients)
    all_say(b"d")


all_say(b"w")
busy = counted("busy", requests)
quiet = counted("quiet", lambda: time.sleep(QUIET_S))
os.write(go[1], b"e" * clients)
for pid in pids:
    assert os.waitpid(pid, 0)[1] == 0, "a client has failed"
print(clients * (CONNECTIONS // clients) * rounds, busy, quiet)
END
read -r requests busy quiet < <(python3 "$dir/load.py" "$vip" "$rounds" "$dir") || fail "no load"

echo
echo "  Linux $(uname -r), $(nproc) CPU, small GET, 16 keep-alive connections, eight endpoints, round robin, $requests requests"
echo
# A line of a class: its name, a colon; bounces and contentions, four times, bounces and acquisitions.
# xlb_calls is no lock but SRCU: its readers are counted and never wait.
awk -v requests="$requests" -v limit="$LIMIT" -v busy="$busy" -v quiet="$quiet" '
	# What goes by the clock is taken off to within one tick of it: not more than there was.
	function row(name, a, b, c) { return sprintf("  %-28s %14.3f %14.5f %20.1f\n", name, a > 0 ? a : 0, b, c) }
	function line(class) { printf "%s", row(class, got[class] / requests, waited[class] / requests, clock[class]) | "sort" }
	{
		at = match($0, /: +[0-9]/)
		if (!at) next
		class = substr($0, 1, at - 1)
		gsub(/^ +/, "", class)
		if (class !~ /^(xlb_|sk_lock-AF_INET|slock-AF_INET)/ || class ~ /^xlb_calls/) next
		split(substr($0, at + 1), n)
		if (FILENAME ~ /quiet$/) {
			clock[class] += n[8] / quiet
			got[class] -= n[8] / quiet * busy
		} else {
			waited[class] += n[2]
			got[class] += n[8]
		}
	}
	END {
		printf "  %-28s %14s %14s %20s\n", "", "each request", "", "each second"
		printf "  %-28s %14s %14s %20s\n", "lock", "acquisitions", "contentions", "without requests"
		fflush()
		for (class in got)
			if (class ~ /^xlb_/) {
				line(class)
				own += got[class]; waits += waited[class]; rest += clock[class]
			}
		close("sort")
		printf "%s\n", row("all of XLB", own / requests, waits / requests, rest)
		print "  those of the sockets of clients, endpoints and connections, which are TCP'"'"'s:"
		fflush()
		for (class in got)
			if (class !~ /^xlb_/) line(class)
		close("sort")
		print ""
		if (own <= 0) { print "locks: none of XLB was seen" > "/dev/stderr"; exit 1 }
		if (own > limit * requests) { print "locks: more than " limit " acquisitions" > "/dev/stderr"; exit 1 }
	}' "$dir/busy" "$dir/quiet"
