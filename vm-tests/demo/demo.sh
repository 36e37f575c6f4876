#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The demonstration: three nginx backends, one `xlbctl apply`, one curl and one wrk
# connection, and a table of who got which requests, from the backends' own logs.
# Made for the machine of `make vm-run`; fails when a count is not what it has to be.
set -euo pipefail
cd "$(dirname "$0")"
vip=10.96.0.10
ports=(8081 8082 8083)
dir=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$dir"' EXIT
fail() { echo "demo: $*" >&2; exit 1; }
shown() { echo; echo "\$ $*"; "$@"; }

for port in "${ports[@]}"; do
	mkdir -p "$dir/$port"
	cat >"$dir/$port/conf" <<-END
		daemon off; worker_processes 1; pid $dir/$port/pid; error_log stderr error; user root;
		events { worker_connections 1024; }
		http {
		  log_format demo '\$http_user_agent|\$uri|\$connection';
		  keepalive_requests 10000000;
		  client_body_temp_path $dir/$port; proxy_temp_path $dir/$port; fastcgi_temp_path $dir/$port;
		  uwsgi_temp_path $dir/$port; scgi_temp_path $dir/$port;
		  server {
		    listen 127.0.0.1:$port; access_log $dir/$port/log demo;
		    location / { return 200 "backend $port\n"; }
		  }
		}
	END
	nginx -p "$dir/$port" -e stderr -c "$dir/$port/conf" &
done
for port in "${ports[@]}"; do
	for _ in $(seq 100); do curl -s -o /dev/null "127.0.0.1:$port/" && break; sleep 0.1; done
	# The first line is this look; it is no part of the demonstration.
	: >"$dir/$port/log"
done

shown cat routes.yaml
! curl -s -m 1 -o /dev/null "http://$vip/" || fail "$vip answers before xlbctl apply"
shown xlbctl apply -f routes.yaml
echo
echo "\$ curl http://$vip/item/[1-8] http://$vip/v2/item/[1-4]"
curl -sS -w '%{num_connects}\n' "http://$vip/item/[1-8]" "http://$vip/v2/item/[1-4]" >"$dir/curl" || {
	cat "$dir/curl"
	fail "curl failed"
}
grep backend "$dir/curl"
curl_connects=$(grep -c '^1$' "$dir/curl")
echo
echo "\$ wrk -t 1 -c 1 -d 3s -s wrk.lua http://$vip/"
wrk -t 1 -c 1 -d 3s --timeout 10s -s wrk.lua "http://$vip/" | tee "$dir/wrk" | grep -E 'requests in|Requests/sec|errors|Non-2xx'
! grep -qE 'Socket errors|Non-2xx' "$dir/wrk" || fail "wrk saw errors"
sleep 0.5
echo
xlbctl get endpoints

# Who runs here? Besides the kernel's own threads only this script, its three nginx and
# what the machine itself needs: whatever else there is could be a proxy.
others=$(ps -e -o pid=,ppid=,comm= | awk -v me=$$ '
	$2 == 2 || $1 == 2 { next }
	$3 !~ /^(nginx|bash|sh|demo\.sh|boot|virtme-ng-init|ps|awk|mawk|gawk|sleep)$/ { print $3 }')
listeners=$(ss -Hltn | awk '{ print $4 }' | sort | tr '\n' ' ')
[ "$listeners" = "127.0.0.1:8081 127.0.0.1:8082 127.0.0.1:8083 " ] || others+=" (listening: $listeners)"
! grep -rq proxy_pass "$dir"/*/conf || others+=" (nginx is a proxy)"
if [ -z "$others" ]; then proxies="no proxy process running"; else proxies="OTHER PROCESSES: $others"; fi

requests() { # CLIENT PORT
	if [ "$1" = curl ]; then grep -c '^curl' "$dir/$2/log" || true; else grep -vc '^curl' "$dir/$2/log" || true; fi
}
row() { printf '  %-22s %9s %16s %16s %16s\n' "$@"; }
declare -A got
for client in curl wrk; do
	got[$client]=0
	for port in "${ports[@]}"; do
		got[$client$port]=$(requests "$client" "$port")
		got[$client]=$((got[$client] + got[$client$port]))
	done
done
echo
echo "  Linux $(uname -r), unmodified; $proxies"
echo
row '' '' 127.0.0.1:8081 127.0.0.1:8082 127.0.0.1:8083
row 'requests of' 'in all' '/ (weight 3)' '/ (weight 1)' '/v2'
row ---------------------- --------- ---------------- ---------------- ----------------
row "curl, $curl_connects connection" "${got[curl]}" "${got[curl8081]}" "${got[curl8082]}" "${got[curl8083]}"
row "wrk, 1 connection" "${got[wrk]}" "${got[wrk8081]}" "${got[wrk8082]}" "${got[wrk8083]}"
echo

[ -z "$others" ] || fail "$others"
[ "$curl_connects" = 1 ] || fail "curl opened $curl_connects connections"
[ "${got[curl8081]} ${got[curl8082]} ${got[curl8083]}" = "6 2 4" ] || fail "curl's requests: 6, 2 and 4 were to come"
# wrk stops in the middle of a round.
awk -v a="${got[wrk8081]}" -v b="${got[wrk8082]}" -v c="${got[wrk8083]}" \
	'BEGIN { exit !(b > 10 && a - 3 * b <= 3 && 3 * b - a <= 3 && 3 * c - (a + b) <= 4 && (a + b) - 3 * c <= 4) }' ||
	fail "wrk's requests are not spread 9 : 3 : 4"
