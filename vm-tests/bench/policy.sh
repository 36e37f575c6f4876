#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# What the policy costs at worst: heads that were chosen against it, and long lists of routes.
# For a machine that counts instructions (1 instruction = 1 ns of its time):
#
#	make vm-run ICOUNT=1 SCRIPT=vm-tests/bench/policy.sh
#
# Each figure is the time of the write that hands a whole head over, answered 404 by XLB itself, less
# the time of the same write to a service that asks for nothing.  QUICK=1 leaves the lists out.  Exits with 1 when one is above its bound.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

cat >"$dir/policy.py" <<'END_PYTHON'
import json, os, random, socket, subprocess, sys, time

US = 1000
services, cases = [], []


def case(name, routes, head, bound_ns):
    address = f"10.96.1.{len(services) + 1}"
    services.append({"name": f"s{len(services)}", "listen": [f"{address}:80"], "routes": routes})
    cases.append((name, address, head, bound_ns))


def head(target="/", fields=()):
    lines = [f"GET {target} HTTP/1.1", "Host: a"] + [f"{name}: {value}" for name, value in fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def one(**match):
    return [{"match": match, "cluster": "c"}]


def names(count, start=0):
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    return [letters[n // 36 % 36] + letters[n % 36] for n in range(start, start + count)]


plain = [{"match": {"path": {"exact": "/nowhere"}}, "cluster": "c"}]
case("plain", plain, head(), 0)

# One route against heads of up to 64 KiB: 2 ms.
LIMIT = 2000 * US
sevens = [("x-a", "a" * 8000)] * 7
for needle in ["ab", "a" * 1000 + "b", "b" + "a" * 1000, "ab" * 2000, "a" * 4000 + "b" + "a" * 95]:
    case(f"contains {needle[:2]}.. ({len(needle)} bytes) in 7 * 8,000 of a",
         one(headers=[{"name": "x-a", "contains": needle}]), head(fields=sevens), LIMIT)
period = [("x-a", "ab" * 15000)] * 2
case("contains abab..c (2,001 bytes) in 60,000 of ab", one(headers=[{"name": "x-a", "contains": "ab" * 1000 + "c"}]),
     head(fields=period), LIMIT)
case("present in 7 * 8,000 of a", one(headers=[{"name": "x-a", "present": True}, {"name": "x-none", "present": True}]),
     head(fields=sevens), LIMIT)
# Many of them in one value: none is there but the last, so all are asked for.
absent = {
    "runs of a and one b": [{"name": "x-a", "contains": "a" * n + "b"} for n in range(20, 61)],
    "runs of a": [{"name": "x-a", "contains": "a" * n} for n in range(1, 41)] + [{"name": "x-a", "contains": "ab"}],
    "long runs": [{"name": "x-a", "contains": "a" * 90 * n + "b"} for n in range(1, 41)],
}
for needles, headers in absent.items():
    case(f"41 needles, {needles}, in 7 * 8,000 of a", one(headers=headers), head(fields=sevens), LIMIT)
    case(f"41 needles, {needles}, in 56,000 of aaaaaaac", one(headers=headers),
         head(fields=[("x-a", "aaaaaaac" * 1000)] * 7), LIMIT)
case("41 needles, in 60,000 of ab", one(headers=[{"name": "x-a", "contains": "ab" * n + "c"} for n in range(1, 42)]),
     head(fields=period), LIMIT)
# So many next bytes that states fail to suffixes.
spread = random.Random(1)
words = ["".join(spread.choice("abcdefgh") for _ in range(150)) for _ in range(60)]
prefixes = "".join(spread.choice(words)[spread.randrange(20):][:spread.randrange(130)] for _ in range(2000))[:56000]
case("60 needles that spread, in parts of them", one(headers=[{"name": "x-a", "contains": w} for w in words]),
     head(fields=[("x-a", prefixes[n * 8000:][:8000]) for n in range(7)]), LIMIT)
case("2 needles, in 60,000 of ab", one(headers=[{"name": "x-a", "contains": "ax"}, {"name": "x-a", "contains": "bx"}]),
     head(fields=period), LIMIT)
case("4 needles, two of them everywhere in 60,000 of ab", one(headers=[{"name": "x-a", "contains": c} for c in ["ab", "ba", "ax", "bx"]]),
     head(fields=period), LIMIT)
case("60 needles, two of each of 30 headers", one(headers=[{"name": f"x-{n}", "contains": c} for n in range(30) for c in ["a" * 30, "ab"]] + [{"name": "x-none", "present": True}]),
     head(fields=[(f"x-{n}", "a" * 1998 + "b") for n in range(30)]), LIMIT)
case("one header of 250", one(headers=[{"name": "x-none", "exact": "1"}]),
     head(fields=[(f"x-{n}", "v" * 240) for n in range(250)]), LIMIT)
case("one header of 250 of one name", one(headers=[{"name": "x-none", "exact": "1"}]),
     head(fields=[("x", "v" * 250)] * 250), LIMIT)
parameters = "&".join(n * 2 for n in names(1296)) + "&" + "&".join(names(1296)) * 2
case("one of 3,800 parameters in 16,000 bytes", one(query=[{"name": "none", "exact": "1"}]),
     head("/?" + parameters[:16000]), LIMIT)
case("one parameter after 8,000 empty ones", one(query=[{"name": "none", "exact": "1"}]),
     head("/?" + "&" * 16000), LIMIT)
cookies = ";".join(names(1296)) + ";" + ";".join(n + "x" for n in names(1296)) + ";" + ";".join(n + "yz" for n in names(1296))
case("one cookie among 12,000 in 60,000 bytes", one(cookies=[{"name": "none", "exact": "1"}]),
     head(fields=[("Cookie", (cookies * 3)[:30000])] * 2), LIMIT)
case("one cookie among 30,000 of one name", one(cookies=[{"name": "none", "exact": "1"}]),
     head(fields=[("Cookie", ("a;" * 15000))] * 2), LIMIT)

letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'()*+-./:<>?@[]^_`{|}~"
pairs = ";".join(a + b for a in letters for b in letters)
# One that is asked for is searched for; two and more are found in one pass, however many there are in a route.
for part in [pairs + ";", "a;", "ab;", "abcdefgh;", "abcdefghijklmnop;", "a=b;", "nonesuch;", "n;", "=;", "; "]:
    text = "x;" + (part * 30000)[:29998].rstrip()
    name = f"{len(letters) ** 2:,} names of two bytes" if len(part) > 100 else f"60,000 bytes of '{part}'"
    for asked in [["none"], ["none", "x"], ["x", "a", "ab", "n"] + [f"name-{n}" for n in range(58)]]:
        # Present, then absent: all conditions are looked at.
        wanted = [{"name": n, "present": n in text.split(";")} for n in asked] + [{"name": "last", "present": True}]
        wanted = wanted[-62:]
        case(f"{len(wanted)} cookies among {name}",
             one(cookies=wanted), head(fields=[("Cookie", text)] * 2), LIMIT)
# The same bytes asked for in two ways are looked at twice.
case("the Cookie header's value and its cookies", one(headers=[{"name": "cookie", "contains": c} for c in ["a=x", "b;x"]], cookies=[{"name": n, "present": False} for n in ["x", "y"]]),
     head(fields=[("Cookie", ("a=b;" * 7500))] * 2), 2 * LIMIT)
case("62 headers of 250", one(headers=[{"name": f"x-none-{n}", "present": False} for n in range(61)] + [{"name": "x-last", "exact": "1"}]),
     head(fields=[(f"x-{n}", "v" * 240) for n in range(250)]), LIMIT)
case("62 parameters of 3,800 in 16,000 bytes", one(query=[{"name": f"none-{n}", "present": False} for n in range(61)] + [{"name": "last", "exact": "1"}]),
     head("/?" + parameters[:16000]), LIMIT)

# 10,000 routes under one prefix: 1 us each.
ROUTES = 10_000
exact = [{"match": {"path": {"prefix": "/"}, "headers": [{"name": "x-user", "exact": f"user-{n}"}]}, "cluster": "c"} for n in range(ROUTES)]
case("10,000 routes, small GET with the header", exact, head(fields=[("x-user", "user-none")]), ROUTES * US)
case("10,000 routes, small GET without", exact, head(), ROUTES * US)
case("10,000 routes, head of 45 KB", exact, head(fields=[(f"x-{n}", "v" * 200) for n in range(220)] + [("x-user", "user-none")]), ROUTES * US)
needles = [{"match": {"path": {"prefix": "/"}, "headers": [{"name": "x-a", "contains": "a" * 50 + f"user-{n}"}]}, "cluster": "c"} for n in range(ROUTES)]
case("10,000 routes, a needle each, 56,000 bytes of a", needles, head(fields=sevens), LIMIT + ROUTES * US)
query = [{"match": {"path": {"prefix": "/"}, "query": [{"name": f"p{n}", "exact": "1"}]}, "cluster": "c"} for n in range(ROUTES)]
case("10,000 routes by a parameter, 16 KB of them", query, head("/?" + parameters[:16000]), ROUTES * US)
value = [{"match": {"path": {"prefix": "/"}, "cookies": [{"name": "user", "exact": f"user-{n}"}]}, "cluster": "c"} for n in range(ROUTES)]
case("10,000 routes by a cookie's value, 60 KB of cookies", value, head(fields=[("Cookie", (cookies * 3)[:30000])] * 2), ROUTES * US)
cookie = [{"match": {"path": {"prefix": "/"}, "cookies": [{"name": f"c{n}", "exact": "1"}]}, "cluster": "c"} for n in range(ROUTES)]
case("10,000 routes by a cookie, 60 KB of them", cookie, head(fields=[("Cookie", (cookies * 3)[:30000])] * 2), ROUTES * US)

if os.environ.get("QUICK"):
    keep = [n for n, c in enumerate(cases) if not c[0].startswith("10,000")]
    services, cases = [services[n] for n in keep], [cases[n] for n in keep]

config = {"version": 1, "services": services,
          "clusters": [{"name": "c", "lb": "round_robin", "endpoints": ["127.0.0.1:9"]}]}
with open(sys.argv[1], "w") as file:
    json.dump(config, file)
subprocess.run(["xlbctl", "apply", "-f", sys.argv[1]], check=True, stdout=subprocess.DEVNULL)


def ask(sock, data):
    start = time.perf_counter_ns()
    sock.sendall(data)
    took = time.perf_counter_ns() - start
    got = b""
    while b"no_route" not in got:
        piece = sock.recv(65536)
        assert piece, got
        got += piece
    return took


def best(address, data):
    with socket.create_connection((address, 80)) as sock:
        sock.settimeout(600)
        return min(ask(sock, data) for _ in range(3))


failed = False
for name, address, data, bound in cases:
    # The same head to a service without conditions.
    base = best(cases[0][1], data)
    took = best(address, data) - base
    bad = bound and took > bound
    failed |= bool(bad)
    print(f"  {name:55} {len(data):6} bytes {took / 1e6:12.3f} ms  bound {bound / 1e6:8.3f}  (rest {base / 1e6:.3f}){'  ABOVE' if bad else ''}", flush=True)
sys.exit(1 if failed else 0)
END_PYTHON
python3 "$dir/policy.py" "$dir/config.json"
