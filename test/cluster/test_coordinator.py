# SPDX-License-Identifier: Apache-2.0
"""
The coordinator's HTTP interface, with nodes of Python behind it.

Each answer is held to docs/openapi.yaml by conftest.py, so here stands what the
answers mean.  The node port is tested in test_coordinator_link.py, and what
outlives the coordinator in test_coordinator_store.py.
"""

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest
import requests

import wire
from conftest import GIB, MIB, program, wait_for

REGISTRATION = {"name": "a", "memory_bytes": GIB,
                "endpoint": "127.0.0.1:50051", "protocol": 1}


@pytest.fixture
def coordinator(coordinators):
    """A lease that a busy machine does not let run out by itself."""
    return coordinators("--lease", "20000")


def detail(problem):
    return problem["detail"]


# --- start and stop ------------------------------------------------------------


def test_a_new_store_has_a_cluster_of_epoch_1(coordinators):
    coordinator = coordinators()
    assert coordinator.get("/health") == {"status": "ok", "epoch": 1}
    cluster = coordinator.get("/v1/cluster")
    assert cluster["name"] == "default" and cluster["lease_ms"] == 2000
    assert cluster["nodes"] == [] and cluster["spaces"] == []


def test_the_run_directory_says_who_and_where(coordinators):
    c = coordinators()
    assert (c.run_dir / "coordinator.pid").read_text().split()[0] == str(
        c.process.pid)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", c.url)
    assert (c.run_dir / "coordinator.db").exists()
    assert c.stop() == 0
    assert not (c.run_dir / "coordinator.pid").exists()
    assert not (c.run_dir / "coordinator.url").exists()


def test_it_makes_its_run_directory_for_all_to_read(coordinators, tmp_path):
    c = coordinators("--run-dir", str(tmp_path / "made"), start=False)
    old = os.umask(0o022)
    try:
        c.start(wait=False)
    finally:
        os.umask(old)
    wait_for((tmp_path / "made" / "coordinator.url").exists)
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_in_order(coordinator, number):
    coordinator.process.signal(number)
    assert coordinator.process.popen.wait(10) == 0


def test_it_stops_at_once_while_a_request_waits_for_nodes(coordinator):
    node = coordinator.fake("a")
    node.silent.add(wire.SPACE_ADD)
    asked = threading.Thread(target=coordinator.space, args=("x",))
    asked.start()
    wait_for(lambda: coordinator.request("GET", "/v1/spaces/x").ok)
    began = time.monotonic()
    assert coordinator.stop() == 0
    asked.join(10)
    assert time.monotonic() - began < 1.9


def test_two_coordinators_do_not_share_a_run_directory(coordinators):
    c = coordinators()
    other = coordinators(run_dir=c.run_dir, start=False)
    other.start(wait=False)
    assert other.process.popen.wait(10) == 1
    assert f"as process {c.process.pid}" in c.log()
    assert c.process.running()
    assert (c.run_dir / "coordinator.url").read_text().strip() == c.url


def test_the_url_of_one_that_was_killed_is_not_left_for_long(coordinators):
    c = coordinators()
    c.kill()
    assert (c.run_dir / "coordinator.url").exists()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        c.start(ports=(taken.getsockname()[1], 0), wait=False)
        assert c.process.popen.wait(10) == 1
    assert not (c.run_dir / "coordinator.url").exists()


def test_two_coordinators_do_not_share_a_store(coordinators):
    c = coordinators()
    other = coordinators("--store", str(c.run_dir / "coordinator.db"),
                         start=False)
    other.start(wait=False)
    assert other.process.popen.wait(10) == 1
    assert f"is in use by process {c.process.pid}" in other.log()
    assert c.get("/health")["status"] == "ok"


@pytest.mark.parametrize("which", [0, 1])
def test_a_taken_port_is_refused_with_its_owner(coordinators, which):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        c = coordinators(start=False)
        c.start(ports=(port, 0) if which == 0 else (0, port), wait=False)
        assert c.process.popen.wait(10) == 1
        assert f"port {port} " in c.log()
        assert f"is taken by process {os.getpid()} " in c.log()
    assert not (c.run_dir / "coordinator.pid").exists()


def test_it_does_not_listen_beyond_loopback_unless_told_to(tmp_path):
    command = [program("memspan-coordinator"), "--run-dir", str(tmp_path)]
    for option in ("--listen", "--node-listen"):
        r = subprocess.run([*command, option, "0.0.0.0:0"], check=False,
                           capture_output=True, text=True, timeout=20)
        assert r.returncode == 2
        assert option in r.stderr and "--insecure" in r.stderr


@pytest.mark.parametrize("args,why", [
    (["--lease", "soon"], "milliseconds"),
    (["--lease", "1"], "100"),
    (["--listen", "localhost"], "ADDR:PORT"),
    (["--listen", "127.0.0.1:70000"], "ADDR:PORT"),
    (["--log-format", "xml"], "json"),
    (["--nonsense"], "nonsense"),
    (["more"], "too much"),
    (["--config", "/nonexistent"], "/nonexistent"),
])
def test_wrong_use_is_said_and_exits_2(args, why):
    r = subprocess.run([program("memspan-coordinator"), *args], check=False,
                       capture_output=True, text=True, timeout=20)
    assert r.returncode == 2
    assert why in r.stderr and r.stdout == ""


def test_help_and_version_are_for_stdout():
    r = subprocess.run([program("memspan-coordinator"), "--help"],
                       capture_output=True, text=True, check=True, timeout=20)
    for option in ("--listen", "--node-listen", "--store", "--lease",
                   "--missing-grace", "--link-patience", "--run-dir",
                   "--log-format", "--config", "--insecure"):
        assert option in r.stdout
    r = subprocess.run([program("memspan-coordinator"), "--version"],
                       capture_output=True, text=True, check=True, timeout=20)
    assert re.fullmatch(r"memspan-coordinator \d+\.\d+\.\d+\n", r.stdout)


def test_a_file_may_say_it_and_the_command_line_has_the_last_word(
        coordinators, tmp_path):
    conf = tmp_path / "memspan.conf"
    conf.write_text("[coordinator]\nlease = 700\nlog_format = json\n"
                    "[node]\nwhatever = 1\n")
    c = coordinators("--config", str(conf))
    assert c.get("/v1/cluster")["lease_ms"] == 700
    for line in c.log().splitlines():
        assert json.loads(line)["component"] == "coordinator"
    c = coordinators("--config", str(conf), "--lease", "800",
                     "--log-format", "text")
    assert c.get("/v1/cluster")["lease_ms"] == 800


@pytest.mark.parametrize("text,why", [
    ("[coordinator]\nleese = 700\n", "line 2: there is no setting 'leese'"),
    ("[coordinator]\nlease = x\n", "line 2: 'x' is not"),
    ("[coordinator]\nlease 7\n", "line 2: "),
])
def test_a_wrong_file_is_refused_by_line(tmp_path, text, why):
    conf = tmp_path / "memspan.conf"
    conf.write_text(text)
    r = subprocess.run([program("memspan-coordinator"), "--config", str(conf)],
                       check=False, capture_output=True, text=True, timeout=20)
    assert r.returncode == 2 and why in r.stderr


# --- HTTP itself ---------------------------------------------------------------


@pytest.mark.parametrize("host,status", [
    ("127.0.0.1", 200), ("127.0.0.1:7070", 200), ("localhost:1", 200),
    ("[::1]:7070", 200), ("127.9.9.9", 200),
    ("memspan.example", 403), ("memspan.example:7070", 403),
    ("10.0.0.1", 403), ("127.0.0.1.example", 403), ("localhost.example", 403),
    ("", 403), ("[::1", 403), ("127.0.0.1:x", 403),
])
def test_a_foreign_host_header_is_refused(coordinator, host, status):
    coordinator.request("GET", "/health", status, headers={"Host": host})


def test_a_foreign_origin_is_refused(coordinator):
    own = coordinator.url
    coordinator.request("GET", "/health", 200, headers={"Origin": own})
    for origin in ("http://memspan.example", "null", own + "1",
                   "http://localhost:3000", "file://"):
        coordinator.request("POST", "/v1/spaces", 403,
                            headers={"Origin": origin}, data="{}")


def test_unknown_paths_and_methods_are_said(coordinator):
    for path in ("/", "/v1", "/v1/", "/v2/nodes", "/v1/nodes/", "/v1/nodes/a/b",
                 "/v1/spaces/x/pages", "/v1/spaces/x/pages/", "/health/",
                 "/v1/nodes/%00", "/v1/pages/3"):
        coordinator.request("GET", path, 404)
    r = coordinator.request("PUT", "/v1/nodes", 405)
    assert r.headers["Allow"] == "GET, POST"
    r = coordinator.request("POST", "/health", 405)
    assert r.headers["Allow"] == "GET"
    r = coordinator.request("DELETE", "/v1/spaces/x/pages/1", 405)
    assert r.headers["Allow"] == "GET"


def test_head_is_get_without_a_body(coordinator):
    r = coordinator.request("HEAD", "/health", 200)
    assert r.content == b"" and int(r.headers["Content-Length"]) > 10


def test_long_bodies_are_refused_and_the_connection_goes_on(coordinator):
    for length in (65537, 1 << 20, 5 << 20):
        r = coordinator.request("POST", "/v1/spaces", 413,
                                data=b" " * length)
        assert "65536" in r.json()["detail"]

    def chunks():
        for _ in range(100):
            yield b" " * 1000

    coordinator.request("POST", "/v1/spaces", 413, data=chunks())
    coordinator.request("POST", "/v1/spaces", 400, data=b" " * 65536)


@pytest.mark.parametrize("body,why", [
    (b"", "empty"),
    (b"[]", "object"),
    (b"{", "line 1"),
    (b'{"name":"x",\n  "size_bytes":}', "line 2"),
    (b'{"name":"x","size_bytes":4096} trailing', "line 1"),
    (b'{"name":"x","name":"y","size_bytes":4096}', "duplicate"),
    (b'{"name":"x"}', "'size_bytes' is missing"),
    (b'{"size_bytes":4096}', "'name' is missing"),
    (b'{"name":"x",\n "size_bytes":4096,\n "colour":1}',
     "'colour' is not a field of this request, at line 3, column 2"),
    (b'{"name":"x",\n "size_bytes":"4096"}',
     "'size_bytes' must be an integer, at line 2, column 2"),
    (b'{"name":"x","size_bytes":4096.0}', "must be an integer"),
    (b'{"name":"x","size_bytes":-4096}', "from 0 to"),
    (b'{"name":"x","size_bytes":99999999999999999999}', "too big"),
    (b'{"name":7,"size_bytes":4096}', "'name' must be a string"),
    (b'{"name":"x","size_bytes":4096,"overcommit":1}', "true or false"),
    (b'{"name":"x\\u0000","size_bytes":4096}', "\\u0000"),
    (b'\xff\xfe', "line 1"),
    (b'{"name":"x\xff","size_bytes":4096}', "decode"),
    (b"[" * 5000, "line 1"),
])
def test_bodies_are_read_strictly(coordinator, body, why):
    r = coordinator.request("POST", "/v1/spaces", 400, data=body)
    assert why in r.json()["detail"]


def test_unknown_parameters_are_refused(coordinator):
    coordinator.get("/v1/cluster?x=1", 400)
    coordinator.get("/health?verbose", 400)


def test_many_may_ask_at_once_and_idle(coordinator):
    idle = [socket.create_connection(("127.0.0.1", coordinator.http_port))
            for _ in range(50)]
    for s in idle[:25]:
        s.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n")
    answers = []

    def ask():
        with requests.Session() as session:
            for _ in range(20):
                answers.append(session.get(coordinator.url + "/health",
                                           timeout=10).status_code)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(30)
    assert answers == [200] * 160
    for s in idle:
        s.close()


def test_what_is_no_http_does_no_harm(coordinator):
    for garbage in (b"\0" * 5000, os.urandom(5000), b"GET\r\n\r\n",
                    b"GET /health HTTP/9.9\r\n\r\n",
                    b"A" * 100000,
                    b"POST /v1/spaces HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                    b"Content-Length: -1\r\n\r\n",
                    wire.encode(wire.hello(0, 1))):
        with socket.create_connection(
                ("127.0.0.1", coordinator.http_port)) as s:
            s.settimeout(5)
            try:
                s.sendall(garbage)
                s.shutdown(socket.SHUT_WR)
                while s.recv(65536):
                    pass
            except OSError:
                pass
    assert coordinator.get("/health")["status"] == "ok"


def test_http_1_1_needs_a_host(coordinator):
    with socket.create_connection(("127.0.0.1", coordinator.http_port)) as s:
        s.sendall(b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert s.recv(4096).startswith(b"HTTP/1.1 400 ")


# --- the cluster ---------------------------------------------------------------


def test_a_cluster_can_be_deleted_and_made(coordinator):
    first = coordinator.get("/v1/cluster")
    problem = coordinator.post("/v1/cluster", {"name": "two"}, 409)
    assert "'default'" in detail(problem)
    coordinator.delete("/v1/cluster")
    coordinator.get("/v1/cluster", 404)
    coordinator.delete("/v1/cluster", 404)
    assert coordinator.get("/health", 503)["reasons"][0]["code"] == "NO_CLUSTER"
    assert "POST /v1/cluster" in detail(coordinator.get("/v1/nodes", 404))
    coordinator.post("/v1/nodes", REGISTRATION, 404)
    made = coordinator.post("/v1/cluster", {"name": "two", "lease_ms": 500})
    assert made["lease_ms"] == 500 and made["epoch"] == 1
    assert made["id"] != first["id"]
    assert coordinator.get("/v1/cluster") == made


def test_a_cluster_that_is_used_is_not_deleted(coordinator):
    node = coordinator.fake("a")
    assert "node 0 (a) lives" in detail(coordinator.delete("/v1/cluster", 409))
    coordinator.space("x")
    assert not node.leave().error()
    assert "'x'" in detail(coordinator.delete("/v1/cluster", 409))
    coordinator.delete("/v1/spaces/x")
    coordinator.delete("/v1/cluster")


def test_ids_begin_anew_in_a_new_cluster_but_incarnations_do_not(coordinator):
    first = coordinator.post("/v1/nodes", REGISTRATION)
    coordinator.delete("/v1/cluster")
    coordinator.post("/v1/cluster", {"name": "next"})
    second = coordinator.post("/v1/nodes", REGISTRATION)
    assert second["id"] == 0
    assert second["incarnation"] > first["incarnation"]


@pytest.mark.parametrize("body", [
    {}, {"name": ""}, {"name": "a b"}, {"name": "x" * 64}, {"name": 1},
    {"name": "x", "lease_ms": 99}, {"name": "x", "lease_ms": 3600001},
    {"name": "x", "lease_ms": "2000"}, {"name": "x", "more": 1},
])
def test_bad_clusters_are_refused(coordinator, body):
    coordinator.delete("/v1/cluster")
    coordinator.post("/v1/cluster", body, 400)


# --- nodes ---------------------------------------------------------------------


def test_a_node_registers_joins_and_leaves(coordinator):
    assert coordinator.epoch() == 1
    node = coordinator.fake("a", link=False)
    assert node.id == 0 and node.registration["epoch"] == 1
    assert coordinator.state("a") == "joining"
    assert coordinator.get("/v1/nodes/0")["lease_age_ms"] is None
    node.connect()
    assert node.hello_done()
    assert coordinator.epoch() == 1
    node.figures = {"pid": 4711, "resident_bytes": 4096, "clients": 2,
                    "peers": [{"id": 1, "connected": True}]}
    assert node.renew().arg == 20_000_000_000
    assert coordinator.epoch() == 2
    shown = coordinator.get("/v1/nodes/a")
    assert shown["state"] == "alive" and shown["pid"] == 4711
    assert shown["lease_age_ms"] < 20000 and shown["clients"] == 2
    assert shown["peers"] == [{"id": 1, "connected": True}]
    assert shown["memory"]["resident_bytes"] == 4096
    assert shown["memory"]["limit_bytes"] == GIB
    assert [n["name"] for n in coordinator.get("/v1/nodes")] == ["a"]
    node.figures["resident_bytes"] = 0
    node.send_lease()
    assert not node.leave().error()
    assert coordinator.state("a") == "drained"
    assert coordinator.epoch() == 3
    assert node.closed.wait(5)


def test_a_node_that_leaves_its_pages_behind_is_dead(coordinator):
    node = coordinator.fake("a")
    coordinator.space("x")
    node.claim(1, 0, 4)
    node.leave()
    assert coordinator.state("a") == "dead"
    pages = coordinator.get("/v1/spaces/x")["pages"]
    assert pages["missing"] == 4 * 512 and pages["lost"] == 0


def test_a_name_that_lives_is_not_given_again(coordinator):
    node = coordinator.fake("a")
    problem = node.register(409)
    assert "is alive, as node 0" in detail(problem)
    coordinator.delete("/v1/nodes/a", 409)


def test_a_name_keeps_its_id_and_gets_a_new_incarnation(coordinator):
    a = coordinator.fake("a")
    b = coordinator.fake("b")
    assert (a.id, b.id) == (0, 1)
    a.leave()
    again = coordinator.post("/v1/nodes", REGISTRATION)
    assert again["id"] == 0 and again["incarnation"] > b.incarnation
    # Asked twice, for the answer may have been lost: a life later.
    third = coordinator.post("/v1/nodes", REGISTRATION)
    assert third["id"] == 0
    assert third["incarnation"] == again["incarnation"] + 1


def test_ids_of_deleted_nodes_are_not_given_again(coordinator):
    assert coordinator.post("/v1/nodes", REGISTRATION)["id"] == 0
    coordinator.delete("/v1/nodes/a")
    coordinator.get("/v1/nodes/a", 404)
    coordinator.get("/v1/nodes/0", 404)
    assert coordinator.get("/v1/nodes") == []
    assert coordinator.post("/v1/nodes", REGISTRATION)["id"] == 1


@pytest.mark.parametrize("change,why", [
    ({"name": ""}, "name"), ({"name": "7"}, "not a number"),
    ({"name": "a b"}, "name"), ({"name": "x" * 64}, "name"),
    ({"name": "-a"}, "name"), ({"name": None}, "string"),
    ({"memory_bytes": 0}, "more than 0"), ({"memory_bytes": -1}, "from 0"),
    ({"memory_bytes": "1G"}, "integer"), ({"memory_bytes": 1 << 51}, "from 0"),
    ({"endpoint": "127.0.0.1"}, "HOST:PORT"),
    ({"endpoint": ":50051"}, "HOST:PORT"),
    ({"endpoint": "a:0"}, "HOST:PORT"), ({"endpoint": "a:65536"}, "HOST:PORT"),
    ({"endpoint": "a:1x"}, "HOST:PORT"), ({"endpoint": "a b:1"}, "HOST:PORT"),
    ({"endpoint": "x" * 60 + ":50051"}, "HOST:PORT"),
    ({"endpoint": "::1:50051"}, "HOST:PORT"),
    ({"protocol": "1"}, "integer"), ({"extra": 1}, "not a field"),
])
def test_bad_registrations_are_refused(coordinator, change, why):
    problem = coordinator.post("/v1/nodes", {**REGISTRATION, **change}, 400)
    assert why in detail(problem)
    assert coordinator.get("/v1/nodes") == []


@pytest.mark.parametrize("missing", sorted(REGISTRATION))
def test_registrations_are_complete(coordinator, missing):
    body = {k: v for k, v in REGISTRATION.items() if k != missing}
    assert f"'{missing}' is missing" in detail(
        coordinator.post("/v1/nodes", body, 400))


def test_another_protocol_is_refused(coordinator):
    problem = coordinator.post("/v1/nodes",
                               {**REGISTRATION, "protocol": 2, "new": 1}, 409)
    assert "protocol 1" in detail(problem) and "speaks 2" in detail(problem)


@pytest.mark.parametrize("endpoint", [
    "127.0.0.1:1", "[::1]:50051", "host-1.example:65535", "[fe80::1%2]:1"])
def test_endpoints_have_many_forms(coordinator, endpoint):
    coordinator.post("/v1/nodes", {**REGISTRATION, "endpoint": endpoint})
    assert coordinator.get("/v1/nodes/0/endpoint") == {"tcp": endpoint}


def test_endpoints_can_be_changed_and_members_hear_of_it(coordinator):
    a = coordinator.fake("a")
    b = coordinator.fake("b")
    new = {"tcp": "10.0.0.1:7"}
    assert coordinator.post("/v1/nodes/b/endpoint", new, 200) == new
    assert coordinator.get("/v1/nodes/1/endpoint") == new
    wait_for(lambda: a.members[b.id]["endpoint"] == "10.0.0.1:7")
    assert coordinator.get("/v1/endpoints") == [
        {"id": 0, "name": "a", "tcp": "127.0.0.1:50051"},
        {"id": 1, "name": "b", "tcp": "10.0.0.1:7"}]
    coordinator.post("/v1/nodes/b/endpoint", {"tcp": "nowhere"}, 400)
    coordinator.post("/v1/nodes/b/endpoint", {}, 400)
    coordinator.post("/v1/nodes/c/endpoint", new, 404)
    coordinator.get("/v1/nodes/c/endpoint", 404)


def test_unknown_nodes_are_404(coordinator):
    for name in ("0", "99999", "a", "4294967296", "x" * 300):
        coordinator.get(f"/v1/nodes/{name}", 404)
        coordinator.delete(f"/v1/nodes/{name}", 404)


def test_the_protocol_of_a_live_port_is_told_by_all_addresses(coordinators):
    c = coordinators(start=False)
    c.start(args=["--listen", "0.0.0.0:0", "--node-listen", "0.0.0.0:0",
                  "--insecure"])
    assert c.url.startswith("http://127.0.0.1:")
    assert c.post("/v1/nodes", REGISTRATION)["node_port"].startswith(
        "127.0.0.1:")
    c.request("GET", "/health", 200, headers={"Host": "10.1.2.3:7070"})
    c.request("GET", "/health", 403, headers={"Host": "memspan.example"})
