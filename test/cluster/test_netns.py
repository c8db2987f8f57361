# SPDX-License-Identifier: Apache-2.0
"""
Nodes in network namespaces of their own, as on hosts of their own: pages travel
over a veth, whose counters are the kernel's, not ours.

	 hub 10.77.0.1          the coordinator and the test
	  |          |
	 a .2 ====== b .3       nodes; pages over 10.78.0.2 == 10.78.0.3 alone
"""

import ctypes
import json
import os
import shutil
import signal
import subprocess

import pytest

from cluster import (EXTENT, MIB, PAGE, faults_waiting, rig,  # noqa: F401
                     wait_for)

PAGES = EXTENT // PAGE
HEADER = 72
# On the veth, of a GET and its GRANT: Ethernet, IP and TCP with timestamps.
FRAME = 14 + 20 + 32
CLONE_NEWNET = 0x40000000
PAGE_NET = {"a": "10.78.0.2", "b": "10.78.0.3"}


def run(*argv, check=True):
    r = subprocess.run(argv, capture_output=True, text=True, timeout=30,
                       check=False)
    assert not check or r.returncode == 0, (argv, r.stderr)
    return r


def enter(namespace):
    """Move the calling thread (and what it starts from now on) there."""
    libc = ctypes.CDLL(None, use_errno=True)
    path = namespace if "/" in namespace else f"/run/netns/{namespace}"
    fd = os.open(path, os.O_RDONLY)
    try:
        if libc.setns(fd, CLONE_NEWNET) < 0:
            raise OSError(ctypes.get_errno(), f"setns {path}")
    finally:
        os.close(fd)


class Net:
    """Three namespaces, joined as the top of this file shows."""

    def __init__(self):
        self.name = {k: f"msp{os.getpid()}{k}" for k in ("hub", "a", "b")}
        for name in self.name.values():
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        hub, a, b = (self.name[k] for k in ("hub", "a", "b"))
        run("ip", "-n", hub, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", hub, "addr", "add", "10.77.0.1/24", "dev", "br0")
        run("ip", "-n", hub, "link", "set", "br0", "up")
        for k, name in (("2", a), ("3", b)):
            run("ip", "-n", name, "link", "add", "ctl", "type", "veth",
                "peer", "name", f"p{k}", "netns", hub)
            run("ip", "-n", hub, "link", "set", f"p{k}", "master", "br0", "up")
            run("ip", "-n", name, "addr", "add", f"10.77.0.{k}/24", "dev",
                "ctl")
            run("ip", "-n", name, "link", "set", "ctl", "up")
        run("ip", "-n", a, "link", "add", "pages", "type", "veth", "peer",
            "name", "pages", "netns", b)
        for k in ("a", "b"):
            run("ip", "-n", self.name[k], "addr", "add",
                f"{PAGE_NET[k]}/24", "dev", "pages")
            # A packet is a packet: no segments merged behind our back.
            if shutil.which("ethtool"):
                run("ip", "netns", "exec", self.name[k], "ethtool", "-K",
                    "pages", "tso", "off", "gso", "off", "gro", "off")
            run("ip", "-n", self.name[k], "link", "set", "pages", "up")

    def close(self):
        for name in self.name.values():
            run("ip", "netns", "del", name, check=False)

    def within(self, k, *argv, check=True):
        return run("ip", "netns", "exec", self.name[k], *argv, check=check)

    def counted(self):
        """Bytes and packets over the page veth, both ways, as a sees them."""
        r = self.within("a", "ip", "-s", "-j", "link", "show", "pages")
        s = json.loads(r.stdout)[0]["stats64"]
        return {"bytes": s["rx"]["bytes"] + s["tx"]["bytes"],
                "packets": s["rx"]["packets"] + s["tx"]["packets"]}

    def link(self, state):
        run("ip", "-n", self.name["a"], "link", "set", "pages", state)


@pytest.fixture
def net(root):
    if not shutil.which("ip") or run("ip", "netns", "list",
                                     check=False).returncode != 0:
        pytest.skip("no network namespaces here")
    home = f"/proc/{os.getpid()}/task/{os.getpid()}/ns/net"
    home_fd = os.open(home, os.O_RDONLY)
    made = Net()
    enter(made.name["hub"])
    yield made
    enter(f"/proc/self/fd/{home_fd}")
    os.close(home_fd)
    made.close()


@pytest.fixture
def pair(net, rig):
    """pair(lease=...) starts a node in a and one in b."""
    def make(lease=2000, coordinator_args=(), **kwargs):
        c = rig(nodes=0, lease=lease,
                coordinator_args=("--listen", "10.77.0.1:0", "--node-listen",
                                  "10.77.0.1:0", "--insecure",
                                  *coordinator_args))
        for k in ("a", "b"):
            c.node(k, args=("--listen", PAGE_NET[k], "--insecure"),
                   preexec_fn=lambda k=k: enter(net.name[k]), **kwargs)
        return c.connected()
    return make


def faults(node):
    """What a node reports, once it has reported after now."""
    before = node.show()["wakeups"]
    wait_for(lambda: node.show()["wakeups"] > before)
    f = node.show()["faults"]
    return f["remote_read"] + f["remote_write"] + f["prefetched"]


# --- pages over the wire ------------------------------------------------------------


def test_counters_are_exact_between_namespaces(net, pair):
    c = pair()
    assert [n.show()["endpoint"].rsplit(":", 1)[0] for n in c.nodes] == [
        PAGE_NET["a"], PAGE_NET["b"]]
    c.space("s", 8 * MIB, bind="interleave")
    before = net.counted()
    h = [c.hammer(n, "s", PAGES - 8, 16, threads=2).go() for n in (0, 1)]
    for client in h:
        client.progress(2000)
    for client in h:
        client.stop()
    c.exact(c.puppet(0, "s"), PAGES - 8)
    assert net.counted()["bytes"] > before["bytes"] + 10 * PAGE


@pytest.mark.parametrize("how", ["sequential", "random"])
def test_the_bytes_on_the_wire_are_those_of_the_faults(net, pair, how):
    c = pair()
    c.space("s", 64 * MIB, bind="a")
    n = 4096
    c.puppet(0, "s").fill(0, n, 1)
    b = c.puppet(1, "s")
    order = list(range(n))
    if how == "random":
        # One page here, one there: nothing to foresee.
        order = [(i * 1237) % n for i in range(n)][:1500]
    idle = net.counted()
    start = faults(c.nodes[1])
    before = net.counted()
    if how == "sequential":
        b.check(0, n, 1)
    else:
        for page in order:
            b.check(page, 1, 1)
    moved = net.counted()
    pages = faults(c.nodes[1]) - start
    assert pages >= 0.98 * len(order)
    assert pages <= 1.10 * n
    # Beside the pages: what packets and questions cost, from the packets
    # themselves; and what an idle pair says (keep-alive) is next to nothing.
    assert before["bytes"] - idle["bytes"] < 64 * 1024
    frames = (moved["packets"] - before["packets"]) * FRAME
    data = moved["bytes"] - before["bytes"] - frames
    per_page = PAGE + (2 * HEADER if how == "random" else 0)
    assert data == pytest.approx(pages * per_page, rel=0.10), (
        data / pages, pages)


# --- connections that break -------------------------------------------------------------


def hammers(c):
    c.space("s", 8 * MIB, bind="interleave")
    h = [c.hammer(n, "s", PAGES - 8, 16, threads=2).go() for n in (0, 1)]
    for client in h:
        client.progress(200)
    return h


def all_exact(c, h):
    for client in h:
        client.progress(200)
        client.stop()
    for n in (0, 1):
        c.exact(c.puppet(n, "s"), PAGES - 8)


def established(net):
    """Page connections of the node in b, as (local, peer) ports."""
    r = net.within("b", "ss", "-Htn", "state", "established", "dst",
                   PAGE_NET["a"])
    return {tuple(w.rsplit(":", 1)[1] for w in line.split()[2:4])
            for line in r.stdout.splitlines()}


@pytest.mark.parametrize("shards", [1, 2])
def test_a_connection_that_is_killed_is_resumed(net, pair, shards):
    c = pair(shards=shards)
    h = hammers(c)
    for k in range(25):
        had = wait_for(lambda: established(net))
        # RST from one end or the other.
        where, other = ("ab", "ba")[k % 2]
        r = net.within(where, "ss", "-K", "dst", PAGE_NET[other],
                       check=False)
        if "Operation not supported" in r.stderr:
            pytest.skip("this kernel cannot kill sockets")
        wait_for(lambda: established(net) - had)
        for client in h:
            client.progress(20)
    all_exact(c, h)


def test_a_link_that_is_down_for_a_moment(net, pair):
    c = pair(lease=20000)
    h = hammers(c)
    for _ in range(3):
        net.link("down")
        wait_for(lambda: any(faults_waiting(x.pid)[0] > 0 for x in h))
        net.link("up")
        for client in h:
            client.progress(20, timeout=60)
    all_exact(c, h)


def test_a_link_that_is_down_until_the_nodes_notice(net, pair):
    c = pair(lease=20000)
    h = hammers(c)
    net.link("down")
    for n, peer in ((0, 1), (1, 0)):
        wait_for(lambda n=n, peer=peer:
                 c.nodes[peer].id not in c.nodes[n].connected(), 30)
    net.link("up")
    c.connected()
    for client in h:
        client.progress(20)
    all_exact(c, h)


def test_rejected_packets_break_connections_and_lose_nothing(net, pair):
    if not shutil.which("nft"):
        pytest.skip("no nft here")
    c = pair(lease=20000)
    h = hammers(c)
    for k in range(4):
        where = "ab"[k % 2]
        net.within(where, "nft", "add table inet t")
        net.within(where, "nft", "add chain inet t out { type filter hook "
                   "output priority 0 ; }")
        net.within(where, "nft", "add rule inet t out oifname pages ip "
                   "protocol tcp reject with tcp reset")
        wait_for(lambda: any(faults_waiting(x.pid)[0] > 0 for x in h))
        net.within(where, "nft", "delete table inet t")
        for client in h:
            client.progress(20, timeout=60)
    all_exact(c, h)


def test_a_node_cut_off_from_all_ends_and_the_other_goes_on(net, pair):
    c = pair(lease=1000)
    c.space("s", 2 * EXTENT, bind="a")
    a, b = c.puppet(0, "s"), c.puppet(1, "s")
    a.fill(0, 16, 1)
    b.fill(16, 16, 2)
    b.check(0, 8, 1)
    for dev in ("pages", "ctl"):
        run("ip", "-n", net.name["b"], "link", "set", dev, "down")
    assert b.wait(30) == -signal.SIGBUS
    assert "lease has been over" in b.errors()
    assert a.probe(16, 16, 2) == {"good": 0, "zero": 0, "other": 0,
                                  "lost": 16}
    a.check(0, 16, 1)
    a.fill(0, 16, 3)
    a.check(0, 16, 3)
    c.coordinator.wait_state("b", "dead")
    # Back again it hears that it is dead.
    for dev in ("pages", "ctl"):
        run("ip", "-n", net.name["b"], "link", "set", dev, "up")
    assert c.nodes[1].process.popen.wait(30) == 1
    assert "declared this node dead" in c.nodes[1].process.text()


def test_a_node_cut_off_from_the_coordinator_alone(net, pair):
    """Its peer, who hears the coordinator, does not keep it alive for ever."""
    c = pair(lease=1000)
    h = hammers(c)
    a, b = c.puppet(0, "s"), c.puppet(1, "s")
    a.fill(0, 16, 1)
    b.check(0, 8, 1)
    b.fill(16, 16, 2)
    run("ip", "-n", net.name["b"], "link", "set", "ctl", "down")
    for client in (h[1], b):
        assert client.wait(30) == -signal.SIGBUS
        assert "lease has been over" in client.errors()
    c.coordinator.wait_state("b", "dead")
    # What only b had is lost; a goes on with the rest.
    assert a.probe(16, 16, 2)["lost"] == 16
    a.check(0, 16, 1)
    a.fill(0, 16, 3)
    a.check(0, 16, 3)
    c.tally.no_errors()
    run("ip", "-n", net.name["b"], "link", "set", "ctl", "up")
    assert c.nodes[1].process.popen.wait(30) == 1
    assert c.coordinator.state("a") == "alive"
