# SPDX-License-Identifier: Apache-2.0
"""
What whole clusters say of their memory: measured figures, who has room, what
spaces are admitted, and what status makes of it.
"""

import http.server
import json
import os
import pathlib
import re
import socket
import subprocess
import threading

import pytest
import requests

import wire
from cluster import BUILD, EXTENT, MIB, PAGE, rig, wait_for  # noqa: F401

PAGES = EXTENT // PAGE


def memory(node):
    return node.show()["memory"]


def memfd_bytes(node, name):
    """What the kernel has given to this node's memfds of that name."""
    total = 0
    folder = pathlib.Path(f"/proc/{node.pid}/fd")
    for fd in os.listdir(folder):
        try:
            if name in os.readlink(folder / fd):
                total += os.stat(folder / fd).st_blocks * 512
        except OSError:
            pass
    return total


def status(c):
    run = subprocess.run(
        [str(BUILD / "memspan"), "status", "--json", "--coordinator",
         c.coordinator.url], capture_output=True, text=True, timeout=30,
        check=True)
    return json.loads(run.stdout)


def codes(c):
    return {r["code"]: r["text"] for r in status(c)["reasons"]}


# --- figures -----------------------------------------------------------------------


def test_resident_memory_is_what_the_kernel_says(rig):
    c = rig(nodes=2)
    c.space("measured", 16 * MIB)
    before = memory(c.nodes[0])["resident_bytes"]
    c.puppet(0, "measured").fill(0, 1000, 1)
    c.puppet(1, "measured").check(0, 300, 1)
    for node in c.nodes:
        there = memfd_bytes(node, "measured")
        assert there >= 300 * PAGE
        wait_for(lambda n=node, b=there:
                 memory(n)["resident_bytes"] - before == b)
    assert memfd_bytes(c.nodes[0], "measured") >= 1000 * PAGE
    # Nobody has evicted anything.
    for node in c.nodes:
        m = memory(node)
        assert m["lent_bytes"] == m["borrowed_bytes"] == 0
        assert m["waiting"] == m["refused"] == 0
    pages = c.coordinator.get("/v1/spaces/measured")["pages"]
    assert pages["written"] >= 1000  # or a run more
    assert pages["evicted"] == pages["under_replicated"] == 0


def test_the_overhead_is_that_of_the_start_and_the_directories(rig):
    c = rig(nodes=1)
    node = c.nodes[0]
    said = int(re.search(r"overhead_bytes=(\d+)", node.process.text()).group(1))
    assert 0 < said < 64 * MIB
    assert memory(node)["overhead_bytes"] == said
    c.space("s", 64 * MIB)
    p = c.puppet(0, "s")
    for extent in range(32):
        p.fill(extent * PAGES, 1, 1)
    # An extent's entries are a page in each of two arrays; and they are small.
    wait_for(lambda: memory(node)["overhead_bytes"] - said >= 2 * 32 * PAGE)
    assert memory(node)["overhead_bytes"] - said <= (2 * 32 + 1) * PAGE
    assert p.end() == 0
    # The node has to notice first that its client has gone.
    wait_for(lambda: c.coordinator.request(
        "DELETE", "/v1/spaces/s").status_code == 204)
    wait_for(lambda: memory(node)["overhead_bytes"] == said)


def test_a_node_says_what_room_it_has(rig):
    c = rig(nodes=1, memory="256M")
    node = c.nodes[0]
    fake = c.coordinator.fake("fake")
    m = memory(node)
    assert 0 < m["capacity_bytes"] <= 252 * MIB  # of 256, 4 are the reserve
    assert 0 < m["room_bytes"] <= m["capacity_bytes"]
    wait_for(lambda: fake.room == {
        node.id: memory(node)["room_bytes"] // PAGE})


def test_memory_is_where_the_pages_are(rig):
    """After a scan by another node both hold them, and status shows it."""
    c = rig(nodes=2)
    c.space("s", 8 * MIB)
    c.puppet(0, "s").fill(0, 2048, 7)
    c.puppet(1, "s").check(0, 2048, 7)
    for node in c.nodes:
        wait_for(lambda n=node: memory(n)["resident_bytes"] >= 8 * MIB)
    text = subprocess.run(
        [str(BUILD / "memspan"), "status", "--coordinator",
         c.coordinator.url], capture_output=True, text=True, timeout=30,
        check=True).stdout
    lines = text.split("\nmemory\n")[1].split("\n")
    assert lines[0].split() == ["ID", "NAME", "LIMIT", "HELD", "LENT",
                                "BORROWED", "ROOM", "OVERHEAD", "WAITING"]
    assert [line.split()[:4] for line in lines[1:3]] == [
        ["0", "n0", "256", "MiB"], ["1", "n1", "256", "MiB"]]
    # Read everywhere, and home has its copy: nothing is stored elsewhere.
    for extent in c.coordinator.get("/v1/spaces/s/map")["extents"]:
        assert extent["pages"]["held"] == PAGES
        assert extent["pages"]["stored"] == 0
        assert extent["holders"] == [0, 1]


def test_what_a_node_borrows_the_others_lend(rig):
    c = rig(nodes=3, memory="64M")
    c.space("s", 100 * MIB)
    p = c.puppet(0, "s")
    for first in range(0, 100 * MIB // PAGE, PAGES):
        p.fill(first, PAGES, 3)

    def stored():
        return sum(e["pages"]["stored"] for e in
                   c.coordinator.get("/v1/spaces/s/map")["extents"])

    def agreed():
        """The figures of all, once no renewal is behind another."""
        pages = c.coordinator.get("/v1/spaces/s")["pages"]
        a, *peers = [memory(n) for n in c.nodes]
        return (a["borrowed_bytes"] == sum(m["lent_bytes"] for m in peers) ==
                pages["evicted"] * PAGE == stored() * PAGE and
                pages["written"] == 100 * MIB // PAGE and (pages, a, peers))

    pages, a, peers = wait_for(agreed, 60)
    assert a["borrowed_bytes"] >= 36 * MIB and a["lent_bytes"] == 0
    assert [m["borrowed_bytes"] for m in peers] == [0, 0]
    assert pages["under_replicated"] == pages["lost"] == 0
    for m in (a, *peers):
        assert m["resident_bytes"] <= m["limit_bytes"]
        assert m["waiting"] == 0
    assert codes(c) == {}


def test_memory_that_nobody_has_is_warned_of_until_there_is_some(rig):
    c = rig(nodes=2, memory="64M", lease=4000)
    c.space("s", 200 * MIB, overcommit=True)
    p = c.puppet(0, "s")
    p.start("full", f"fill 0 {160 * MIB // PAGE} 3")
    wait_for(lambda: memory(c.nodes[0])["waiting"] > 0, 90)
    told = codes(c)["MEMORY_FULL"]
    assert "node 0" in told and "add a node" in told
    # Nobody exceeds its limit meanwhile.
    for node in c.nodes:
        m = memory(node)
        assert m["resident_bytes"] <= m["limit_bytes"]
    # What it says helps: with another node it goes on, and is quiet again.
    c.node(memory="64M")
    assert p.result("full", 90).strip() == "ok"
    wait_for(lambda: "MEMORY_FULL" not in codes(c), 60)
    p.check(0, 160 * MIB // PAGE, 3, 90)


# --- admission ---------------------------------------------------------------------


def test_spaces_fit_what_nodes_say_they_can_hold(rig):
    c = rig(nodes=2, memory="64M")
    total = sum(memory(n)["capacity_bytes"] for n in c.nodes)
    assert 0 < total <= 126 * MIB
    problem = c.space("s", total + PAGE, expect=507)
    assert problem["total_bytes"] == total
    c.space("s", total)
    assert codes(c) == {}
    c.space("t", PAGE, expect=507)
    problem = c.space("t", PAGE, replicas=2, overcommit=False, expect=507)
    assert "size x replicas" in problem["detail"]


def test_too_few_nodes_for_the_replicas(rig):
    c = rig(nodes=2, memory="64M")
    problem = c.space("s", PAGE, replicas=2, expect=507)
    assert "takes 3 nodes, and 2 are alive" in problem["detail"]
    c.space("s", PAGE, replicas=2, overcommit=True)
    c.node(memory="64M")
    c.space("t", PAGE, replicas=2)


def test_after_a_death_status_says_how_much_to_add(rig):
    c = rig(nodes=3, memory="64M", lease=3000)
    one = memory(c.nodes[0])["capacity_bytes"]
    c.space("s", 2 * one + 8 * MIB)
    assert codes(c) == {}
    c.nodes[2].kill()
    c.coordinator.wait_state("n2", "dead")
    told = codes(c)
    assert set(told) == {"NODE_DEAD", "CAPACITY_SHORT"}
    have = sum(memory(n)["capacity_bytes"] for n in c.nodes[:2])
    if have == 2 * one:
        assert "add at least 8 MiB" in told["CAPACITY_SHORT"]
    assert status(c)["health"] == "HEALTH_ERR"
    # A node more, and it is well again, but for the dead.
    c.node(memory="64M")
    wait_for(lambda: set(codes(c)) == {"NODE_DEAD"})


# --- a coordinator that talks nonsense -----------------------------------------------


class Between:
    """
    Between a node and its coordinator: what the answers to leases say of room
    is `lie`, or what it was if that is None.
    """

    def __init__(self, coordinator):
        self.lie = None
        self.lied = 0
        self.sockets = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        port = "127.0.0.1:%d" % self.listener.getsockname()[1]
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                r = requests.post(coordinator.url + self.path, data=body,
                                  headers={"Content-Type": "application/json"},
                                  timeout=10)
                outer.node_port = r.json()["node_port"]
                body = json.dumps({**r.json(), "node_port": port}).encode()
                self.send_response(r.status_code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = "http://127.0.0.1:%d" % self.server.server_address[1]
        for work in (self.server.serve_forever, self._serve):
            threading.Thread(target=work, daemon=True).start()

    def _serve(self):
        try:
            node = self.listener.accept()[0]
            link = wire.Link(self.node_port)
            self.sockets = [node, link.sock]
            threading.Thread(target=self._up, args=(node, link),
                             daemon=True).start()
            while True:
                m = link.recv(timeout=None)
                if m.type == wire.LEASE and self.lie is not None:
                    m.payload = self.lie
                    self.lied += 1
                node.sendall(wire.encode(m))
        except (OSError, wire.Closed):
            pass

    def _up(self, node, link):
        try:
            while data := node.recv(1 << 16):
                link.sock.sendall(data)
        except OSError:
            pass

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.listener.close()
        for s in self.sockets:
            s.close()


@pytest.fixture
def between(coordinators):
    made = []

    def make(coordinator):
        made.append(Between(coordinator))
        return made[0]

    yield make
    for b in made:
        b.close()


def test_nonsense_about_room_costs_a_warning_and_no_lease(rig, between):
    c = rig(nodes=0, lease=4000)
    b = between(c.coordinator)
    node = c.node("n", args=("--coordinator", b.url))
    warning = "figures of free memory are malformed"
    assert warning not in node.process.text()
    # One a second: in the end for longer than a lease lasts.
    for lie in (b"x", b"[]", b'{"room":7}', b'{"room":[[0]]}',
                b'{"room":[[5000,1]]}', b'{"room":[[0,-1]]}'):
        b.lie, before = lie, b.lied
        wait_for(lambda n=before: b.lied > n, 60)
    assert c.coordinator.state("n") == "alive"
    assert node.process.text().count(warning) == 1
    assert "is down" not in node.process.text()
    # And it goes on serving.
    c.space("s", 2 * MIB)
    c.puppet(0, "s").fill(0, 8, 1)
