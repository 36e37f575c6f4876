# SPDX-License-Identifier: GPL-2.0
"""The real cheroot (env/pypi) as a backend: cheroot_server.py HOST PORT

Answers with the path; /slow after 300 ms with POISON.
"""

import sys
import time

sys.path.insert(0, "/xlb/pypi/programs")

from cheroot import wsgi  # noqa: E402


def app(environ, start_response):
    environ["wsgi.input"].read()
    path = environ["PATH_INFO"]
    text = f"answer to {path}"
    if path == "/slow":
        time.sleep(0.3)
        text = "POISON"
    body = text.encode("latin-1")
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


wsgi.Server((sys.argv[1], int(sys.argv[2])), app, timeout=600).start()
