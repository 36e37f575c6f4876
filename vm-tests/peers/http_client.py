# SPDX-License-Identifier: GPL-2.0
"""Keep-alive requests with http.client, then with requests. http_client.py HOST PORT"""
import http.client
import json
import sys
import zlib

import requests

HOST, PORT = sys.argv[1], int(sys.argv[2])


def check(said, body):
    assert said["length"] == len(body) and said["crc"] == zlib.crc32(body), said


conn = http.client.HTTPConnection(HOST, PORT, timeout=30)
for number in range(30):
    body = bytes([number]) * (number * 1000)
    conn.request("POST", f"/echo/{number}", body=body)
    answer = conn.getresponse()
    assert answer.status == 200
    check(json.loads(answer.read()), body)
conn.request("POST", "/echo/chunked", body=(b"x" * n for n in range(1, 100)), encode_chunked=True,
             headers={"Transfer-Encoding": "chunked"})
check(json.loads(conn.getresponse().read()), b"x" * 4950)
conn.close()

session = requests.Session()
base = f"http://{HOST}:{PORT}"
for number in range(20):
    body = bytes([number]) * 5000
    check(session.post(f"{base}/echo/{number}", data=body, timeout=30).json(), body)
with session.get(f"{base}/bytes/300000?chunked", stream=True, timeout=30) as answer:
    crc = 0
    for piece in answer.iter_content(4096):
        crc = zlib.crc32(piece, crc)
    assert crc == int(answer.headers["x-crc"])
assert session.head(f"{base}/bytes/10", timeout=30).headers["content-length"] == "10"
assert session.get(f"{base}/status/204", timeout=30).status_code == 204
print("python ok", 30 + 1 + 20 + 3)
