# SPDX-License-Identifier: GPL-2.0
"""One application for uvicorn (app:asgi) and gunicorn (app:wsgi); BIG_FILE is in MATRIX_BIG; ../README.md has the paths."""
import asyncio
import os
import time

with open(os.environ["MATRIX_BIG"], "rb") as file:
    BIG = file.read()

# path: status, content, more fields
FIXED = {
    "/plain": (200, b"plain body\n", []),
    "/keepalive": (200, b"kept alive\n", [("connection", "keep-alive"), ("keep-alive", "timeout=5")]),
    "/204": (204, None, []),
    "/304": (304, None, [("etag", '"e"')]),
    "/404": (404, b"not here\n", []),
    "/big": (200, BIG, []),
}
PARTS = (b"first part\n", b"second part\n")
PAUSE = 0.05


def fields(path, content, more):
    all_ = [("x-kind", path[1:])]
    if content is not None:
        all_ += [("content-type", "text/plain"), ("content-length", str(len(content)))]
    return all_ + more


async def asgi(scope, receive, send):
    async def start(status, all_):
        await send({"type": "http.response.start", "status": status,
                    "headers": [(n.encode(), v.encode()) for n, v in all_]})

    async def part(content, more=False):
        await send({"type": "http.response.body", "body": content, "more_body": more})

    if scope["type"] != "http":
        return
    path = scope["path"]
    if path == "/chunked2":
        await start(200, [("x-kind", "chunked2"), ("content-type", "text/plain")])
        await part(PARTS[0], True)
        await asyncio.sleep(PAUSE)
        return await part(PARTS[1])
    if path == "/echo":
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        status, content, extra = 200, body, []
    else:
        status, content, extra = FIXED.get(path, FIXED["/404"])
    # uvicorn writes no body to HEAD whatever the application sends.
    await start(status, fields(path, content, extra))
    await part(content or b"")


def wsgi(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/chunked2":
        start_response("200 OK", [("x-kind", "chunked2"), ("content-type", "text/plain")])
        return parts()
    if path == "/echo":
        status, content, more = 200, environ["wsgi.input"].read(), []
    else:
        status, content, more = FIXED.get(path, FIXED["/404"])
        # A WSGI application may not set hop-by-hop fields; gunicorn drops them but takes this.
        more = [f for f in more if f[0] != "connection"]
    start_response(f"{status} Some Reason", fields(path, content, more))
    return [] if content is None or environ["REQUEST_METHOD"] == "HEAD" else [content]


def parts():
    yield PARTS[0]
    time.sleep(PAUSE)
    yield PARTS[1]
