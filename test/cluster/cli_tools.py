# SPDX-License-Identifier: Apache-2.0
"""
What the tests of the command line share: running `memspan`, and a coordinator
that is none: an HTTP server in this process whose answers a test chooses.
"""

import copy
import http.server
import json
import os
import pathlib
import re
import subprocess
import threading

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("MEMSPAN_BUILD", ROOT / "build")).resolve()
COMMANDS = ["doctor", "up", "status", "validate", "space", "map", "bench",
            "run", "vm", "down"]
SECONDS = 120  # that a command may take; they end by themselves much earlier


def memspan(*words, program=BUILD / "memspan", env=None, cwd=None):
    """Run the program.  What the environment says of clusters is left out."""
    clean = {k: v for k, v in os.environ.items()
             if not k.startswith(("MEMSPAN_", "XDG_RUNTIME_DIR"))
             or k == "MEMSPAN_TEST_MARK"}
    clean.update(env or {})
    return subprocess.run([str(program), *map(str, words)], env=clean, cwd=cwd,
                          stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=SECONDS)


def usage(command):
    run = memspan("help", command)
    assert run.returncode == 0, run.stderr
    return run.stdout


def options_of(text):
    """The long options that a text names."""
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))


# --- answers --------------------------------------------------------------------

def node(id, peers=(), **more):
    """A node as the coordinator describes it, sound unless told otherwise."""
    n = {
        "id": id, "name": f"node{id}", "state": "alive",
        "endpoint": f"127.0.0.1:{50051 + id}", "epoch": 3, "lease_age_ms": 120,
        "pid": None, "metrics_url": None,
        "memory": {"limit_bytes": 1 << 30, "capacity_bytes": 1000 << 20,
                   "resident_bytes": 8 << 20, "room_bytes": 992 << 20,
                   "lent_bytes": 4096, "borrowed_bytes": 8192,
                   "overhead_bytes": 5 << 20, "waiting": 0, "refused": 0,
                   "refused_age_ms": None},
        "faults": {"first_touch": 1, "remote_read": 20, "remote_write": 300,
                   "upgrade": 4000, "refault": 50000, "prefetched": 7},
        "clients": 0,
        "peers": [{"id": p, "connected": True} for p in peers],
    }
    n.update(more)
    return n


def space(name, **more):
    s = {
        "id": 1, "name": name, "size_bytes": 8 << 20, "replicas": 1,
        "overcommit": False, "bind": None, "path": "/proc/self/fd/200",
        "extents": {"homed": 2, "total": 4},
        "pages": {"written": 3, "evicted": 0, "under_replicated": 0,
                  "missing": 0, "lost": 0},
        "clients": 0,
    }
    s.update(more)
    return s


def cluster(nodes=None, spaces=()):
    return {"schema": "memspan.cluster/1", "id": "x", "name": "default",
            "epoch": 3, "lease_ms": 2000,
            "nodes": [node(0, [1]), node(1, [0])] if nodes is None else nodes,
            "spaces": list(spaces)}


def extent(number, home, holders, **pages):
    return {"extent": number, "home": home, "holders": holders,
            "pages": {"held": 0, "stored": 0, "missing": 0, "lost": 0,
                      **pages}}


def problem(status, detail):
    return status, {"type": "about:blank", "title": "No", "status": status,
                    "detail": detail}


# --- the coordinator --------------------------------------------------------------

class Coordinator:
    """Answers requests from `answers`: "GET /path" -> (status, body), or a
    function of the request's body that returns that.  Notes what was asked."""

    def __init__(self, **given):
        self.answers = {
            "GET /health": (200, {"status": "ok", "epoch": 3}),
            "GET /v1/cluster": (200, cluster(**given)),
        }
        self.asked = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self):
                n = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(n)) if n else None
                what = f"{self.command} {self.path}"
                outer.asked.append((what, body))
                found = outer.answers.get(what, problem(404, f"no {what}"))
                status, text = found(body) if callable(found) else found
                if text is not None and not isinstance(text, str):
                    text = json.dumps(copy.deepcopy(text))
                data = (text or "").encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = answer

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0),
                                                      Handler)
        self.server.daemon_threads = True
        self.url = "http://127.0.0.1:%d" % self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def run(self, *words, **more):
        return memspan(*words, "--coordinator", self.url, **more)

    def json(self, *words, status=0, **more):
        run = self.run(*words, "--json", **more)
        assert run.returncode == status, run.stderr + run.stdout
        return json.loads(run.stdout)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
