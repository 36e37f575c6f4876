#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# What an apply costs, and what is applied: time of a first apply and of one endpoint that changes, kernel memory of the maps.
#
#   10,000 routes to one cluster of 10,000 endpoints     at most 64 MiB, an endpoint at most 50 ms
#   the same cluster in 500 services                     the same
#   10,000 services, each with a cluster of two          at most 100 MB
#
# With ICOUNT=1 the machine counts instructions: 1 instruction = 1 ns.  What is above its limit is named at the end.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

cat >"$dir/write.py" <<'END'
import json, sys

def cluster(name, ports):
    return {"name": name, "endpoints": [f"10.{p >> 16}.{p >> 8 & 255}.{p & 255}:8080" for p in ports]}

def service(name, number, clusters):
    routes = [{"match": {"path": {"prefix": f"/api/r{r}"}}, "cluster": c} for r, c in enumerate(clusters)]
    return {"name": name, "listen": [f"172.16.{number >> 8}.{number & 255}:80"], "routes": routes}

def write(name, services, clusters):
    with open(f"{sys.argv[1]}/{name}.json", "w") as file:
        json.dump({"version": 1, "services": services, "clusters": clusters}, file)

large, changed = cluster("c", range(1, 10001)), cluster("c", [*range(1, 5000), *range(5001, 10002)])
write("routes", [service("s", 1, ["c"] * 10000)], [large])
write("shared", [service(f"s{n}", n, ["c"]) for n in range(500)], [large])
for name in "routes", "shared":
    write(f"{name}-changed", [], [changed])
    write(f"{name}-again", [], [large])
write("services", [service(f"s{n}", n, [f"c{n}"]) for n in range(10000)],
      [cluster(f"c{n}", [2 * n + 1, 2 * n + 2]) for n in range(10000)])
write("services-changed", [], [cluster("c5000", [10001, 30000])])
write("services-again", [], [cluster("c5000", [10001, 10002])])
END
python3 "$dir/write.py" "$dir"

failed=
limit() { # WHAT VALUE LIMIT UNIT
	awk -v a="$2" -v b="$3" 'BEGIN { exit a <= b }' || return 0
	failed+="$1: $2 $4, the limit is $3"$'\n'
}
apply() { # FILE: prints the milliseconds, from the start of the process to its end
	local begin=${EPOCHREALTIME/.} end
	xlbctl apply -f "$dir/$1.json" >"$dir/said"
	end=${EPOCHREALTIME/.}
	awk -v us="$((end - begin))" 'BEGIN { printf "%.1f", us / 1e3 }'
}
# Of maps by what the kernel charges; those that are there before anything is applied are not counted.
memory() { bpftool -j map show | python3 -c 'import json, sys; print(sum(m["bytes_memlock"] for m in json.load(sys.stdin)))'; }

printf '  %-10s %14s %14s %12s\n' '' 'apply, ms' 'endpoint, ms' 'maps, MiB'
for case in routes:67108864 shared:67108864 services:100000000; do
	name=${case%:*} most=${case#*:}
	xlbctl load >/dev/null
	before=$(memory)
	first=$(apply "$name")
	maps=$(($(memory) - before))
	grep -q 'added' "$dir/said"
	# There and back: the median of five.
	endpoint=$(for which in changed again changed again changed; do
		apply "$name-$which"
		echo
		grep -qx 'cluster c[0-9]* changed' "$dir/said"
	done | sort -n | sed -n 3p)
	printf '  %-10s %14s %14s %12s\n' "$name" "$first" "$endpoint" "$(awk -v b="$maps" 'BEGIN { printf "%.1f", b / 1048576 }')"
	limit "$name, memory" "$maps" "$most" bytes
	[ "$name" = services ] || limit "$name, an endpoint" "$endpoint" 50 ms
	xlbctl unload >/dev/null
done
[ -z "$failed" ] || { printf '%s' "$failed" >&2; exit 1; }
