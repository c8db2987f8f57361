# SPDX-License-Identifier: Apache-2.0
"""
Fixtures for tests with real processes.

	def test_it(coordinator):               a coordinator on free ports
	    node = coordinator.node("a")        a memspan-node that has joined
	    fake = coordinator.fake("b")        a node of Python (fake.py)
	    coordinator.get("/v1/nodes/a")      an answer, held to openapi.yaml

Everything that was started is ended by its pid when the test is over, and what
it wrote to its log is shown when the test failed.
"""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import jsonschema
import pytest
import requests
import yaml

sys.path.insert(0, os.path.dirname(__file__))
import fake  # noqa: E402

REPO = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("MEMSPAN_BUILD", REPO / "build")).resolve()
MIB = 1 << 20
GIB = 1 << 30


def wait_for(what, timeout=15, every=0.01):
    """Ask what() until it gives something true, and return that."""
    end = time.monotonic() + timeout
    while True:
        got = what()
        if got:
            return got
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout} s in vain")
        time.sleep(every)


def program(name):
    path = BUILD / name
    if not path.exists():
        pytest.skip(f"{path} is not built")
    return str(path)


# --- answers, held to docs/openapi.yaml ----------------------------------------


def _strict(node):
    """No field that the document does not name may be in an answer."""
    if isinstance(node, dict):
        if node.get("type") == "object" and "properties" in node:
            node.setdefault("additionalProperties", False)
        for value in node.values():
            _strict(value)
    elif isinstance(node, list):
        for value in node:
            _strict(value)


class OpenApi:
    def __init__(self):
        with open(REPO / "docs" / "openapi.yaml", encoding="utf-8") as f:
            self.doc = yaml.safe_load(f)
        _strict(self.doc["components"]["schemas"])
        self.resolver = jsonschema.RefResolver("", self.doc)
        self.seen = set()  # (method, template, status)

    def _deref(self, node):
        while "$ref" in node:
            node = self.resolver.resolve(node["$ref"])[1]
        return node

    def template(self, path):
        path = path.split("?")[0]
        for template in self.doc["paths"]:
            if re.fullmatch(re.sub(r"\{[^}]*\}", "[^/]+", template), path):
                return template
        return None

    def check(self, method, path, response):
        template = self.template(path)
        item = self.doc["paths"].get(template, {})
        operation = item.get("get" if method == "HEAD" else method.lower())
        status = str(response.status_code)
        if operation is None:
            # Not in the document: then it must be a problem.
            assert response.status_code in (400, 403, 404, 405, 413), (
                method, path, status)
            described = {"$ref": "#/components/responses/Problem"}
        else:
            described = operation["responses"].get(status)
            if described is None:
                assert response.status_code in (400, 403, 404, 413, 503), (
                    f"{method} {path} may not answer {status}")
                described = operation["responses"]["default"]
        self.seen.add((method, template, status))
        described = self._deref(described)
        kind = response.headers.get("Content-Type")
        if "content" not in described:
            assert response.content == b"" and kind is None
            return
        assert kind in described["content"], (method, path, status, kind)
        if method == "HEAD":
            return
        body = response.json()
        schema = described["content"][kind]["schema"]
        jsonschema.Draft202012Validator(
            schema, resolver=self.resolver).validate(body)
        if response.status_code >= 400:
            assert body["status"] == response.status_code


_openapi = OpenApi()


@pytest.fixture(scope="session")
def openapi():
    return _openapi


# --- processes -----------------------------------------------------------------


class Process:
    """A program with its log in the run directory."""

    def __init__(self, argv, log, **kwargs):
        self.argv, self.log = argv, pathlib.Path(log)
        with open(self.log, "ab") as out:
            self.popen = subprocess.Popen(argv, stdin=subprocess.DEVNULL,
                                          stdout=out, stderr=out, **kwargs)
        self.pid = self.popen.pid

    def running(self):
        return self.popen.poll() is None

    def signal(self, number):
        if self.running():
            self.popen.send_signal(number)

    def stop(self, timeout=20):
        """SIGTERM, and its exit status."""
        self.signal(signal.SIGTERM)
        return self.popen.wait(timeout)

    def kill(self):
        """SIGKILL, also of what is stopped."""
        self.signal(signal.SIGKILL)
        return self.popen.wait(20)

    def text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class Coordinator:
    """memspan-coordinator in a run directory of its own."""

    def __init__(self, run_dir, args=(), check=True):
        self.run_dir = pathlib.Path(run_dir)
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self.args = list(args)
        self.check = check
        self.url = self.process = None
        self.session = requests.Session()
        self.session.trust_env = False
        self.started = []  # nodes, fake ones too

    # Life.

    def start(self, args=None, ports=None, wait=True, **kwargs):
        """ports: (http, node) as numbers; else free ones."""
        ports = ports or (0, 0)
        args = self.args if args is None else list(args)
        self.old_url = self._url_stamp()
        self.process = Process(
            [program("memspan-coordinator"),
             "--listen", f"127.0.0.1:{ports[0]}",
             "--node-listen", f"127.0.0.1:{ports[1]}",
             "--run-dir", str(self.run_dir), *args],
            self.run_dir / "coordinator.log", **kwargs)
        if wait:
            self.wait_ready()
        return self

    def _url_stamp(self):
        """Tells one coordinator.url from the next; None: there is none."""
        try:
            st = (self.run_dir / "coordinator.url").stat()
            return st.st_ino, st.st_mtime_ns
        except FileNotFoundError:
            return None

    def wait_ready(self):
        def there():
            assert self.process.running(), self.process.text()
            return self._url_stamp() not in (None, self.old_url)

        wait_for(there)
        self.url = (self.run_dir / "coordinator.url").read_text().strip()
        self.http_port = int(self.url.rsplit(":", 1)[1])

    def restart(self, kill=False):
        """On the same ports, which nodes remember."""
        ports = (self.http_port, int(self.node_port().rsplit(":", 1)[1]))
        if kill:
            self.process.kill()
        else:
            assert self.process.stop() == 0
        return self.start(ports=ports)

    def stop(self):
        return self.process.stop()

    def kill(self):
        return self.process.kill()

    def close(self):
        for node in reversed(self.started):
            node.close()
        if self.process:
            self.process.kill()
        self.session.close()

    def log(self):
        return self.process.text() if self.process else ""

    def node_port(self):
        ready = re.findall(r"node_port=(\S+)", self.log())
        return ready[-1]

    # HTTP.

    def request(self, method, path, expect=None, **kwargs):
        kwargs.setdefault("timeout", 20)
        r = self.session.request(method, self.url + path, **kwargs)
        if self.check:
            _openapi.check(method, path, r)
        if expect is not None:
            assert r.status_code == expect, (method, path, r.status_code,
                                             r.text)
        return r

    def get(self, path, expect=200, **kwargs):
        return self.request("GET", path, expect, **kwargs).json()

    def post(self, path, body, expect=201, **kwargs):
        return self.request("POST", path, expect, json=body, **kwargs).json()

    def delete(self, path, expect=204):
        r = self.request("DELETE", path, expect)
        return r.json() if r.content else None

    def epoch(self):
        return self.get("/health")["epoch"]

    def state(self, name):
        return self.get(f"/v1/nodes/{name}")["state"]

    def wait_state(self, name, state, timeout=15):
        wait_for(lambda: self.state(name) == state, timeout)

    def space(self, name, size=64 * MIB, expect=201, **fields):
        return self.post("/v1/spaces", {"name": name, "size_bytes": size,
                                        **fields}, expect)

    # Nodes.

    def fake(self, name, **kwargs):
        """A node of Python, which has joined."""
        node = fake.FakeNode(self, name, **kwargs)
        self.started.append(node)
        return node

    def node(self, name, **kwargs):
        """A memspan-node, which has joined."""
        node = Node(self, name, **kwargs)
        self.started.append(node)
        return node


class Node:
    """memspan-node beside a Coordinator, in its run directory."""

    def __init__(self, coordinator, name, memory="256M", args=(), wait=True,
                 **kwargs):
        self.coordinator, self.name = coordinator, name
        self.process = Process(
            [program("memspan-node"), "--coordinator", coordinator.url,
             "--name", name, "--memory", str(memory),
             "--run-dir", str(coordinator.run_dir), *args],
            coordinator.run_dir / f"{name}.log", **kwargs)
        self.pid = self.process.pid
        if wait:
            self.wait_alive()

    def wait_alive(self, timeout=20):
        def alive():
            assert self.process.running(), self.process.text()
            r = self.coordinator.request("GET", f"/v1/nodes/{self.name}")
            return (r.status_code == 200 and r.json()["state"] == "alive" and
                    r.json()["pid"] == self.pid)

        wait_for(alive, timeout)
        self.id = self.show()["id"]
        self.socket = self.coordinator.run_dir / f"node-{self.id}.sock"

    def show(self):
        return self.coordinator.get(f"/v1/nodes/{self.name}")

    def connected(self):
        """The ids of the peers that it reaches."""
        return {p["id"] for p in self.show()["peers"] if p["connected"]}

    def signal(self, number):
        self.process.signal(number)

    def stop(self, timeout=20):
        return self.process.stop(timeout)

    def kill(self):
        return self.process.kill()

    def close(self):
        self.process.kill()


# --- fixtures ------------------------------------------------------------------


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Fixtures see in item.failed whether their test failed."""
    report = (yield).get_result()
    item.failed = getattr(item, "failed", False) or report.failed


@pytest.fixture
def coordinators(tmp_path, request):
    """coordinators(args...) starts one; run_dir= and start= as needed."""
    made = []

    def make(*args, run_dir=None, start=True, **kwargs):
        c = Coordinator(run_dir or tmp_path / f"run{len(made)}", args)
        made.append(c)
        return c.start(**kwargs) if start else c

    yield make
    for c in reversed(made):
        c.close()
    if getattr(request.node, "failed", False):
        for c in made:
            for log in sorted(c.run_dir.glob("*.log")):
                print(f"--- {log}\n{log.read_text(errors='replace')[-8000:]}")


@pytest.fixture
def coordinator(coordinators):
    return coordinators()


@pytest.fixture
def root():
    if os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture
def small_disk(tmp_path, root):
    """A tmpfs of 1 MiB, for whoever wants to see it full."""
    where = tmp_path / "disk"
    where.mkdir()
    if not shutil.which("mount") or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(where)],
            check=False).returncode != 0:
        pytest.skip("cannot mount a tmpfs")
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)
