#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# How long others may have to wait for a CPU while 100,000 p-sockets are listed: the longest section
# of the kernel that cannot be preempted.  For a machine that counts instructions (1 instruction = 1 ns of its
# time), and a kernel that preempts where it can:
#
#	make vm-run ICOUNT=1 APPEND=preempt=full SCRIPT=vm-tests/bench/sockets.sh
#
# A task of the highest priority sleeps for 50 us again and again, on the only CPU there is.  Its longest sleep while
# `xlbctl get sockets` runs is due to some section of the kernel; it may be 100 us longer with 100,000 sockets than
# with three, or than while another program comes and goes with as much memory as that list takes in xlbctl
# (its pages are freed in longer sections than those of XLB).  The same while all are ended, which is shown only.
set -euo pipefail
dir=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$dir"' EXIT
cat >"$dir/routes.yaml" <<END
version: 1
services: [{name: many, listen: ["10.96.0.10:80"], routes: [{cluster: c}]}]
clusters: [{name: c, lb: round_robin, endpoints: ["127.0.0.1:9"]}]
END
xlbctl apply -f "$dir/routes.yaml" >/dev/null
cat >"$dir/sleeper.py" <<'END'
import os, signal, sys, time
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(90))
stop = False
def end(*_):
    global stop
    stop = True
signal.signal(signal.SIGTERM, end)
waits = []
worst, now = 0, time.perf_counter_ns()
while not stop:
    time.sleep(50e-6)
    then, now = now, time.perf_counter_ns()
    worst = max(worst, now - then)
print(worst)
END
cat >"$dir/many.py" <<'END'
import os, resource, socket, sys, time
count = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, count + 100))
socks = []
for n in (3, count):
    while len(socks) < n:
        s = socket.socket()
        s.connect(("10.96.0.10", 80))
        socks.append(s)
    open(f"{sys.argv[2]}{n}", "w").close()
    sys.stdin.readline()
END
during() { # NAME COMMAND...: the longest sleep while COMMAND runs, in ns, to `longest`
	local name=$1 pid
	shift
	python3 "$dir/sleeper.py" >"$dir/longest" &
	pid=$!
	sleep 0.2
	"$@" >"$dir/out"
	kill "$pid"
	wait "$pid" || true
	longest=$(cat "$dir/longest")
	printf '  %-34s longest wait %8.1f us\n' "$name" "$(awk -v n="$longest" 'BEGIN { print n / 1000 }')"
}
list() { # COUNT
	until [ -e "$dir/ready$1" ]; do sleep 0.1; done
	during "list of $1 sockets" xlbctl get sockets
	[ "$(grep -c 10.96.0.10:80 "$dir/out")" = "$1" ] || { echo "sockets: not all are listed"; exit 1; }
}
mkfifo "$dir/stdin"
python3 "$dir/many.py" 100000 "$dir/ready" <"$dir/stdin" &
exec 7>"$dir/stdin"
list 3
few=$longest
during 'a program of 60 MB' python3 -c 'list(map(str, range(1_000_000)))'
[ "$longest" -le "$few" ] || few=$longest
echo >&7
list 100000
many=$longest
during 'all of them ended' xlbctl unload --force
[ $((many - few)) -le 100000 ]
