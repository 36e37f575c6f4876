# SPDX-License-Identifier: GPL-2.0
"""Holds heads without an end, in a memory cgroup of its own: FOLDER ADDRESS COUNT LIMIT(bytes, or max).

Prints the growth of memory.current while it holds them, what is left of it after closing, how many
heads were taken, and the errno that ended it (0: none).
"""
import errno, os, socket, sys, time

folder, address, count, limit = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
host, port = address.rsplit(":", 1)


def current():
    with open(folder + "/memory.current") as file:
        return int(file.read())


def write(name, text):
    with open(folder + "/" + name, "w") as file:
        file.write(text)


write("cgroup.procs", str(os.getpid()))
head = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"x-%d: %s\r\n" % (n, b"a" * 3000) for n in range(18))
# One of them first: what Python itself needs is there before the count begins.
socks = []
with socket.create_connection((host, int(port))) as sock:
    sock.send(head)
time.sleep(0.5)
before = current()
for _ in range(count):
    socks.append(socket.create_connection((host, int(port))))
for sock in socks:
    sock.setblocking(False)
# Opened before: a full cgroup has no memory for another open file, and that would call the OOM killer.
bound = os.open(folder + "/memory.max", os.O_WRONLY)
if limit != "max":
    os.write(bound, str(current() + int(limit)).encode())
taken, error = 0, 0
for sock in socks:
    try:
        taken += sock.send(head) == len(head)
    except OSError as e:
        error = e.errno
        break
os.pwrite(bound, b"max", 0)
held = current() - before
for sock in socks:
    sock.close()
for _ in range(50):
    left = current() - before
    if left < 1 << 20:
        break
    time.sleep(0.1)
print(held, left, taken, error, len(head))
