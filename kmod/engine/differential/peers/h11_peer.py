# SPDX-License-Identifier: GPL-2.0
"""h11, as server for requests and as client for responses.

Messages come as kind, length and bytes on standard input; one line answers each.
"""

import re
import struct
import sys

import h11


def parse(kind, data):
    connection = h11.Connection(h11.SERVER if kind == b"q" else h11.CLIENT)
    if kind != b"q":
        method = "HEAD" if kind == b"h" else "GET"
        connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
        connection.send(h11.EndOfMessage())
    closed = False
    connection.receive_data(data)
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            text = re.sub(r"\(.*|[0-9]+|b?'.*|\{.*", "", str(error))
            return "err " + text.strip()
        if event is h11.NEED_DATA:
            if closed:
                return "partial"
            closed = True
            connection.receive_data(b"")
        elif isinstance(event, h11.EndOfMessage) or event is h11.PAUSED:
            return "ok %d" % (len(data) - len(connection.trailing_data[0]))
        elif isinstance(event, h11.ConnectionClosed):
            return "partial"


def main():
    source = sys.stdin.buffer
    while True:
        head = source.read(5)
        if len(head) < 5:
            return
        (length,) = struct.unpack(">I", head[1:])
        print(parse(head[:1], source.read(length)), flush=True)


main()
