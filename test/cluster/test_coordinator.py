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


def detail(problem):
    return problem["detail"]


# --- start and stop ------------------------------------------------------------


def test_a_new_store_has_a_cluster_of_epoch_1(coordinator):
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
    # The URL went when the second began (its fixture's doing); this one lives.
    assert c.process.running()


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
    assert node.renew().arg == 2_000_000_000
    assert coordinator.epoch() == 2
    shown = coordinator.get("/v1/nodes/a")
    assert shown["state"] == "alive" and shown["pid"] == 4711
    assert shown["lease_age_ms"] < 2000 and shown["clients"] == 2
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


# --- spaces --------------------------------------------------------------------


def test_a_space_is_made_told_shown_and_deleted(coordinator):
    node = coordinator.fake("a")
    r = coordinator.request("POST", "/v1/spaces", 201, json={
        "name": "x", "size_bytes": 5 * MIB, "replicas": 2, "bind": None,
        "overcommit": False})
    assert r.headers["Location"] == "/v1/spaces/x"
    made = r.json()
    assert made["extents"] == {"homed": 0, "total": 3}
    assert made["path"] == "/proc/self/fd/200" and made["replicas"] == 2
    # The answer came after the node knew it.
    assert node.spaces[1] == {"id": 1, "name": "x", "size_bytes": 5 * MIB,
                              "replicas": 2, "overcommit": False, "bind": None}
    assert coordinator.get("/v1/spaces/x") == made
    assert coordinator.get("/v1/spaces") == [made]
    assert coordinator.get("/v1/cluster")["spaces"] == [made]
    coordinator.delete("/v1/spaces/x")
    assert node.spaces == {}
    coordinator.get("/v1/spaces/x", 404)
    coordinator.delete("/v1/spaces/x", 404)
    # Numbers are not given again: a late message cannot mean the new one.
    assert coordinator.space("x")["id"] == 2


def test_a_node_that_comes_later_is_told_all_spaces(coordinator):
    coordinator.fake("a")
    for i in range(20):
        coordinator.space(f"s{i}", size=4096)
    late = coordinator.fake("b")
    wait_for(lambda: len(late.spaces) == 20)


def test_a_node_that_does_not_answer_delays_a_space_by_two_seconds(coordinator):
    node = coordinator.fake("a")
    node.silent.add(wire.SPACE_ADD)
    began = time.monotonic()
    coordinator.space("x")
    assert time.monotonic() - began > 1.9
    assert "did not answer in time" in coordinator.log()


@pytest.mark.parametrize("change,why", [
    ({"name": ""}, "name"), ({"name": "X"}, "a-z"), ({"name": ".x"}, "name"),
    ({"name": "x" * 64}, "name"), ({"name": "a/b"}, "name"),
    ({"size_bytes": 0}, "4096"), ({"size_bytes": 4097}, "multiple of 4096"),
    ({"size_bytes": (1 << 44) + 4096}, "from 0 to"),
    ({"replicas": 0}, "from 1 to 8"), ({"replicas": 9}, "from 0 to 8"),
    ({"replicas": 1.5}, "integer"), ({"bind": "nobody"}, "not there"),
    ({"bind": 7}, "not there"), ({"bind": True}, "must be null"),
    ({"bind": []}, "1 to 8192"), ({"bind": {}}, "must be null"),
    ({"bind": [{"first_bytes": 0, "last_bytes": 2 * MIB}]}, "node"),
    ({"bind": [{"first_bytes": 0, "last_bytes": 2 * MIB, "node": 0, "x": 1}]},
     "bind"),
    ({"bind": [{"first_bytes": 0, "last_bytes": 1, "node": 0}]}, "2 MiB"),
    ({"bind": [{"first_bytes": 1, "last_bytes": 2 * MIB, "node": 0}]}, "2 MiB"),
    ({"bind": [{"first_bytes": 0, "last_bytes": 0, "node": 0}]}, "empty"),
    ({"bind": [{"first_bytes": -1, "last_bytes": 2 * MIB, "node": 0}]}, "2 MiB"),
    ({"bind": [{"first_bytes": 0, "last_bytes": 66 * MIB, "node": 0}]},
     "not in the space"),
    ({"bind": [{"first_bytes": 0, "last_bytes": 4 * MIB, "node": 0},
               {"first_bytes": 2 * MIB, "last_bytes": 6 * MIB, "node": 0}]},
     "overlap"),
    ({"bind": [[0, 33, 0]]}, "not in the space"), ({"bind": [[0, 0, 0]]}, "empty"),
    ({"bind": [[0, 1]]}, "N_EXTENTS"), ({"bind": [[0, 1, 9]]}, "not there"),
    ({"bind": [7]}, "bind"),
])
def test_bad_spaces_are_refused(coordinator, change, why):
    coordinator.fake("a")
    problem = coordinator.post(
        "/v1/spaces", {"name": "x", "size_bytes": 64 * MIB, **change}, 400)
    assert why in detail(problem)
    assert coordinator.get("/v1/spaces") == []


def test_names_of_spaces_are_taken_once(coordinator):
    coordinator.fake("a")
    coordinator.space("x")
    assert "exists" in detail(coordinator.space("x", expect=409))


def test_spaces_are_admitted_while_they_fit(coordinator):
    problem = coordinator.space("x", expect=507)
    assert "0 nodes alive" in detail(problem)
    coordinator.fake("a", memory=256 * MIB)
    coordinator.fake("b", memory=32 * MIB)
    room = 256 * MIB * 63 // 64 + 31 * MIB  # a reserve is at least 1 MiB
    coordinator.space("x", size=room // 2 // 4096 * 4096, replicas=2)
    problem = coordinator.space("y", size=2 * MIB, expect=507)
    assert problem["total_bytes"] == room
    assert problem["asked_bytes"] == 2 * MIB
    assert "overcommit" in detail(problem)
    assert coordinator.space("y", size=2 * MIB, overcommit=True)["overcommit"]
    # Who is not alive lends nothing.
    coordinator.post("/v1/nodes", {**REGISTRATION, "name": "c"})
    coordinator.space("z", size=4096, expect=507)
    coordinator.delete("/v1/spaces/x")
    coordinator.space("z", size=4096)


def test_a_huge_space_is_made_at_once(coordinator):
    a = coordinator.fake("a")
    coordinator.space("x", size=1 << 44, overcommit=True, bind="interleave")
    made = coordinator.get("/v1/spaces/x")
    assert made["extents"] == {"homed": 1 << 23, "total": 1 << 23}
    assert a.claim(1, (1 << 23) - 1, 1) == [(0, True, 1)]
    coordinator.delete("/v1/spaces/x")


def test_bound_extents_have_their_home_from_the_beginning(coordinator):
    a, b = coordinator.fake("a"), coordinator.fake("b")
    made = coordinator.space("one", bind="b")
    assert made["bind"] == [
        {"first_bytes": 0, "last_bytes": 64 * MIB, "node": 1}]
    assert made["extents"] == {"homed": 32, "total": 32}
    assert a.claim(1, 0, 2) == [(1, False, 1)] * 2
    assert coordinator.space("two", bind=0)["bind"][0]["node"] == 0

    made = coordinator.space("three", bind="interleave")
    assert made["bind"] == "interleave"
    assert [e[0] for e in a.claim(3, 0, 4)] == [0, 1, 0, 1]
    assert a.spaces[3]["bind"] == "interleave"

    made = coordinator.space("four", size=9 * MIB, bind=[
        {"first_bytes": 4 * MIB, "last_bytes": 9 * MIB, "node": "b"},
        {"first_bytes": 0, "last_bytes": 2 * MIB, "node": "0"}])
    assert made["extents"] == {"homed": 4, "total": 5}
    assert a.spaces[4]["bind"] == [[0, 1, 0], [2, 3, 1]]
    assert b.claim(4, 0, 5, ask=True) == [
        (0, False, 1), (None, False, 0), (1, False, 1), (1, False, 1),
        (1, False, 1)]
    made = coordinator.space("five", size=9 * MIB, bind=[[2, 3, 1], [0, 1, "a"]])
    assert made["bind"] == coordinator.get("/v1/spaces/four")["bind"]


def test_nobody_is_bound_to_who_is_not_alive(coordinator):
    coordinator.fake("a")
    coordinator.post("/v1/nodes", {**REGISTRATION, "name": "b"})
    problem = coordinator.space("x", bind="b", expect=409)
    assert "node 1 (b) is joining" in detail(problem)


def test_a_space_with_clients_is_not_deleted_and_goes_on(coordinator):
    a, b = coordinator.fake("a"), coordinator.fake("b")
    coordinator.space("x")
    b.clients[1] = 3
    problem = coordinator.delete("/v1/spaces/x", 409)
    assert "3 clients" in detail(problem) and "node 1" in detail(problem)
    wait_for(lambda: not a.dropping and not b.dropping)
    assert 1 in a.spaces and 1 in b.spaces
    b.clients[1] = 0
    coordinator.delete("/v1/spaces/x")
    assert a.spaces == {} and b.spaces == {}


def test_a_space_stays_while_a_node_that_lives_does_not_answer(coordinator):
    a, b = coordinator.fake("a"), coordinator.fake("b")
    coordinator.space("x")
    b.silent.add(wire.SPACE_DROP)
    problem = coordinator.delete("/v1/spaces/x", 503)
    assert "node 1 does not answer" in detail(problem)
    wait_for(lambda: not a.dropping)
    b.renewing = False
    b.break_link()
    assert "has no link" in detail(coordinator.delete("/v1/spaces/x", 503))
    coordinator.wait_state("b", "dead")
    coordinator.delete("/v1/spaces/x")


def test_a_space_is_not_deleted_twice_at_once(coordinator):
    a = coordinator.fake("a")
    coordinator.space("x")
    a.silent.add(wire.SPACE_DROP)
    first = threading.Thread(target=coordinator.delete,
                             args=("/v1/spaces/x", 503))
    first.start()
    wait_for(lambda: "just being deleted" in
             coordinator.request("DELETE", "/v1/spaces/x").text)
    coordinator.space("x", expect=409)
    # Who comes now is not told of it until it is sure to stay.
    b = coordinator.fake("b")
    assert b.hello_done() and b.spaces == {}
    first.join(10)
    wait_for(lambda: 1 in b.spaces)


def test_a_node_that_missed_the_end_of_a_space_is_told_again(coordinator):
    a = coordinator.fake("a")
    coordinator.space("x")
    coordinator.delete("/v1/spaces/x")
    a.spaces[1] = {"stale": True}
    a.figures["spaces"] = [{"id": 1, "clients": 0, "written_pages": 0,
                            "lost_pages": 0}]
    wait_for(lambda: a.spaces == {})


def test_figures_of_nodes_are_summed(coordinator):
    a, b = coordinator.fake("a"), coordinator.fake("b")
    coordinator.space("x")
    for node, clients, pages in ((a, 1, 10), (b, 2, 20)):
        node.figures["spaces"] = [{"id": 1, "clients": clients,
                                   "written_pages": pages, "lost_pages": 1}]
        node.send_lease()
    wait_for(lambda: coordinator.get("/v1/spaces/x")["clients"] == 3)
    pages = coordinator.get("/v1/spaces/x")["pages"]
    assert pages["written"] == 30 and pages["lost"] == 2


# --- maps ----------------------------------------------------------------------


def answer_map(node, space_home):
    def answer(doc):
        if doc["op"] == "page":
            return {"state": "owned", "holders": [node.id], "heat": 3}
        return {"extents": [
            {"extent": e, "pages": {"held": 7, "stored": 0, "missing": 0,
                                    "lost": 0}, "holders": [node.id]}
            for e in space_home if doc["from"] <= e < doc["from"] + doc["n"]]}

    node.on_query = answer


def test_a_map_is_put_together_from_its_homes(coordinator):
    a, b = coordinator.fake("a"), coordinator.fake("b")
    coordinator.space("x", size=2 * 10 * MIB)
    a.claim(1, 0, 2)
    b.claim(1, 5, 1)
    answer_map(a, [0, 1, 5])  # 5 is not its to say
    answer_map(b, [5])
    got = coordinator.get("/v1/spaces/x/map")
    assert got["next"] is None
    assert [e["extent"] for e in got["extents"]] == list(range(10))
    assert [e["home"] for e in got["extents"][:6]] == [0, 0, None, None, None, 1]
    assert got["extents"][5]["holders"] == [1]
    assert got["extents"][1]["pages"]["held"] == 7
    assert got["extents"][2]["pages"] == {"held": 0, "stored": 0, "missing": 0,
                                          "lost": 0}
    got = coordinator.get("/v1/spaces/x/map?from=4&n=3")
    assert [e["extent"] for e in got["extents"]] == [4, 5, 6]
    assert got["next"] == 7
    assert coordinator.get("/v1/spaces/x/map?from=10")["extents"] == []
    assert coordinator.get("/v1/spaces/x/map?n=0")["next"] == 0


@pytest.mark.parametrize("query", [
    "from=11", "from=-1", "from=x", "n=1025", "n=", "from=1e3", "size=3",
    "from=99999999999999999999"])
def test_bad_maps_are_refused(coordinator, query):
    coordinator.fake("a")
    coordinator.space("x", size=2 * 10 * MIB)
    coordinator.get("/v1/spaces/x/map?" + query, 400)
    coordinator.get("/v1/spaces/y/map", 404)


def test_a_page_is_shown_as_its_home_sees_it(coordinator):
    a = coordinator.fake("a")
    coordinator.space("x", size=4 * MIB)
    untouched = {"gpn": 5, "home": None, "state": "untouched", "holders": [],
                 "heat": 0}
    assert coordinator.get("/v1/spaces/x/pages/5") == untouched
    a.claim(1, 0, 1)
    answer_map(a, [])
    assert coordinator.get("/v1/spaces/x/pages/5") == {
        "gpn": 5, "home": 0, "state": "owned", "holders": [0], "heat": 3}
    coordinator.get("/v1/spaces/x/pages/1024", 404)
    coordinator.get("/v1/spaces/x/pages/x", 400)
    coordinator.get("/v1/spaces/x/pages/-1", 400)
    coordinator.get("/v1/spaces/y/pages/0", 404)


def test_a_home_that_does_not_answer_is_said(coordinator):
    a = coordinator.fake("a")
    coordinator.space("x", size=4 * MIB)
    a.claim(1, 0, 1)
    began = time.monotonic()
    assert "node 0" in detail(coordinator.get("/v1/spaces/x/map", 503))
    assert "node 0" in detail(coordinator.get("/v1/spaces/x/pages/0", 503))
    assert time.monotonic() - began > 3.8
    a.on_query = lambda doc: {"nonsense": 1}
    coordinator.get("/v1/spaces/x/map", 503)
    coordinator.get("/v1/spaces/x/pages/0", 503)


def test_pages_of_a_dead_home_are_missing_and_then_lost(coordinators):
    c = coordinators("--lease", "300")
    a = c.fake("a")
    c.fake("b")
    c.space("x", size=4 * MIB)
    a.claim(1, 0, 1)
    a.close()
    c.wait_state("a", "dead")
    assert c.get("/v1/spaces/x/pages/0")["state"] == "missing"
    assert c.get("/v1/spaces/x/map")["extents"][0]["pages"]["missing"] == 512
    a.register()
    page = c.get("/v1/spaces/x/pages/0")
    assert page["state"] == "lost" and page["home"] is None
    entry = c.get("/v1/spaces/x/map")["extents"][0]
    assert entry["pages"]["lost"] == 512 and entry["home"] is None
    assert c.get("/v1/spaces/x")["pages"]["lost"] == 512


# --- the document --------------------------------------------------------------


def test_every_request_of_the_document_was_asked(coordinator, openapi):
    """Runs last in this file: the others have asked."""
    seen = {(m, t) for m, t, _ in openapi.seen}
    if len(seen) < 10:
        pytest.skip("run with the rest of this file")
    for template, item in openapi.doc["paths"].items():
        for method in item:
            if method in ("get", "post", "delete"):
                assert (method.upper(), template) in seen, (method, template)
