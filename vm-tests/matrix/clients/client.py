# SPDX-License-Identifier: GPL-2.0
"""aiohttp and httpx as clients of the matrix: client.py aiohttp|httpx, then what ../README.md says."""
import asyncio
import json
import sys
import time
import zlib

LIBRARY, LIMIT, FILE, REQUESTS = sys.argv[1], int(sys.argv[2]) / 1000, sys.argv[3], sys.argv[4]
SHOWN = ("content-type", "content-length", "x-kind", "etag")


class Aiohttp:
    def __init__(self, base):
        import aiohttp
        self.aiohttp, self.base, self.session = aiohttp, base, aiohttp.ClientSession()

    async def ask(self, method, path, body, flag):
        more = {}
        if flag == "close":
            more["headers"] = {"Connection": "close"}
        if flag == "expect":
            more["expect100"] = True
        session = self.session
        if flag == "http10":
            session = self.aiohttp.ClientSession(version=self.aiohttp.HttpVersion10)
        try:
            async with session.request(method, self.base + path, data=body, allow_redirects=False, **more) as res:
                return res.status, res.headers, await res.read()
        finally:
            if session is not self.session:
                await session.close()

    async def end(self):
        await self.session.close()


class Httpx:
    def __init__(self, base):
        import httpx
        self.base, self.client = base, httpx.AsyncClient(timeout=LIMIT, trust_env=False)

    async def ask(self, method, path, body, flag):
        headers = {"close": {"Connection": "close"}, "expect": {"Expect": "100-continue"}}.get(flag, {})
        res = await self.client.request(method, self.base + path, content=body, headers=headers)
        return res.status_code, res.headers, res.content

    async def end(self):
        await self.client.aclose()


async def main():
    with open(FILE, "rb") as file:
        big = file.read()
    for target in sys.argv[5:]:
        via, _, base = target.partition("=")
        client = {"aiohttp": Aiohttp, "httpx": Httpx}[LIBRARY](base)
        for request in REQUESTS.split(";"):
            kind, method, path, length, flag = request.split(",")
            out = {"via": via, "kind": kind, "error": None}
            begin = time.monotonic()
            try:
                body = big[:int(length)] or None
                status, headers, got = await asyncio.wait_for(client.ask(method, path, body, flag), LIMIT)
                out |= {"status": status, "length": len(got), "crc": zlib.crc32(got),
                        "headers": {n: headers[n] for n in SHOWN if n in headers}}
            except Exception as error:  # whatever the library says is the result
                out["error"] = repr(error)
            out["ms"] = int((time.monotonic() - begin) * 1000)
            print(json.dumps(out), flush=True)
        await client.end()

asyncio.run(main())
