# SPDX-License-Identifier: GPL-2.0
"""A threaded HTTP/1.1 server that says what it got.

    echo.py HOST PORT NAME LOG

    /echo...            reads the whole body, answers with JSON: backend, method, path, headers, length, crc, body
    /bytes/N[?chunked|?close]   N bytes of a known pattern; their CRC-32 in x-crc
    /mirror             sends the body back while it comes in (chunked)
    /early              answers at once, reads the body afterwards
    /status/NNN         that status without a body
    /sleep/MS           waits, then as /echo
    /interim            two 103 responses before the final one
    /trailers           a chunked response with trailers
    /http10             an HTTP/1.0 response that the close ends
    /abort/N            promises 2N bytes, sends N, then RST
LOG gets one line for each request: CONNECTION METHOD PATH
"""
import http.server
import itertools
import json
import random
import socket
import struct
import sys
import time
import zlib

HOST, PORT, NAME, LOG = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
BLOCK = random.Random(1).randbytes(65521)
CONNECTIONS = itertools.count(1)
LOGFILE = open(LOG, "a", buffering=1)


def pattern(length):
    """`length` bytes, in pieces."""
    while length > 0:
        piece = BLOCK[:length]
        yield piece
        length -= len(piece)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "echo"
    timeout = 600

    def setup(self):
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.number = next(CONNECTIONS)
        super().setup()

    def log_message(self, *args):
        pass

    def body(self):
        """The request's body, in pieces, as they come."""
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            while True:
                size = int(self.rfile.readline().split(b";")[0], 16)
                if size == 0:
                    while self.rfile.readline().strip():
                        pass
                    return
                yield self.rfile.read(size)
                self.rfile.readline()
        left = int(self.headers.get("content-length", 0))
        while left > 0:
            piece = self.rfile.read1(min(left, 65536))
            if not piece:
                raise ConnectionError("the client closed in its body")
            left -= len(piece)
            yield piece

    def answer(self, status, body=b"", fields=()):
        self.send_response(status)
        for name, value in fields:
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def serve(self):
        LOGFILE.write(f"{self.number} {self.command} {self.path}\n")
        path, _, query = self.path.partition("?")
        parts = path.strip("/").split("/")
        action = getattr(self, "on_" + parts[0], None)
        if action is None or parts[0] == "echo":
            return self.on_echo(parts, query)
        return action(parts, query)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = do_TRACE = serve

    def on_echo(self, parts, query):
        crc, length, start = 0, 0, b""
        for piece in self.body():
            crc, length = zlib.crc32(piece, crc), length + len(piece)
            start = (start + piece)[:4096]
        said = {"backend": NAME, "method": self.command, "path": self.path,
                "headers": list(self.headers.items()), "length": length, "crc": crc,
                "body": start.decode("latin-1")}
        self.answer(200, json.dumps(said).encode(), [("Content-Type", "application/json")])

    def on_bytes(self, parts, query):
        length, crc = int(parts[1]), 0
        for piece in pattern(length):
            crc = zlib.crc32(piece, crc)
        self.send_response(200)
        self.send_header("x-crc", str(crc))
        if query == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        elif query == "close":
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command == "HEAD":
            return
        for piece in pattern(length):
            if query == "chunked":
                self.chunk(piece)
            else:
                self.wfile.write(piece)
        if query == "chunked":
            self.wfile.write(b"0\r\n\r\n")

    def on_mirror(self, parts, query):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in self.body():
            self.chunk(piece)
        self.wfile.write(b"0\r\n\r\n")

    def on_early(self, parts, query):
        self.answer(200, b"early\n")
        for _ in self.body():
            pass

    def on_status(self, parts, query):
        self.answer(int(parts[1]))

    def on_sleep(self, parts, query):
        time.sleep(int(parts[1]) / 1000)
        self.on_echo(parts, query)

    def on_interim(self, parts, query):
        for _ in range(2):
            self.wfile.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
        self.answer(200, b"final\n")

    def on_trailers(self, parts, query):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Trailer", "x-sum")
        self.end_headers()
        self.chunk(b"hello ")
        self.chunk(b"world")
        self.wfile.write(b"0\r\nx-sum: 42\r\n\r\n")

    def on_http10(self, parts, query):
        self.close_connection = True
        self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nold\n")

    def on_abort(self, parts, query):
        length = int(parts[1])
        self.send_response(200)
        self.send_header("Content-Length", str(2 * length))
        self.end_headers()
        for piece in pattern(length):
            self.wfile.write(piece)
        self.wfile.flush()
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.request.close()
        self.close_connection = True


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 4096
    daemon_threads = True
    address_family = socket.AF_INET6 if ":" in HOST else socket.AF_INET

    def handle_error(self, request, client_address):
        pass

    def server_bind(self):
        # The base class looks the name up, which a machine without DNS pays for.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        socket.socket.bind(self.socket, self.server_address)
        self.server_name, self.server_port = NAME, PORT


Server((HOST.strip("[]"), PORT), Handler).serve_forever()
