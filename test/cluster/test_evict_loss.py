# SPDX-License-Identifier: Apache-2.0
"""
Lenders that die, stand still, or cannot be reached while they hold others'
pages.  With a replica more nothing is lost; without, what is lost is told, and
is never zeros; and who only waits loses nothing.
"""

import signal
import socket
import threading

import pytest

from cluster import EXTENT, MIB, PAGE, rig, wait_for  # noqa: F401
from pressure import (LEAST, heard, memory, pages_of, resources, roam,
                      wait_evicted, wait_still)
from test_loss import ended_by_bus

PAGES = EXTENT // PAGE


def with_lenders(rig, n, lease=1000, memory="256M", **kwargs):
    """A node of 64 MiB, and `n` more to lend it theirs."""
    c = rig(nodes=1, memory="64M", lease=lease, **kwargs)
    for _ in range(n):
        c.node(memory=memory, **kwargs)
    return c.connected()


# --- lenders that die ----------------------------------------------------------------


@pytest.mark.parametrize("shards", [1, 2])
def test_with_two_replicas_a_lender_may_die(rig, shards):
    c = with_lenders(rig, 3, shards=shards)
    size = LEAST * 5 // 4
    c.space("s", size, replicas=2, bind="n0")
    p = c.puppet(0, "s")
    p.fill(0, pages_of(size), 1)
    wait_still(c.nodes[0])
    # Each page that has gone is on two of the three.
    away = resources(c, "s")["evicted"]
    assert away >= pages_of(size - LEAST)
    lent = [memory(n)["lent_bytes"] // PAGE for n in c.nodes]
    assert sum(lent) >= 2 * away
    scarce = resources(c, "s")["under_replicated"]
    c.nodes[1].kill()
    c.coordinator.wait_state("n1", "dead")
    # What it had is there once, and that is told.
    wait_for(lambda: resources(c, "s")["under_replicated"] >=
             scarce + lent[1] // 2)
    assert resources(c, "s")["lost"] == 0
    c.puppet(2, "s").check(0, pages_of(size), 1, 120)
    p.check(0, pages_of(size), 1, 120)
    p.fill(0, pages_of(size), 2, 120)
    p.check(0, pages_of(size), 2, 120)
    assert resources(c, "s")["lost"] == 0


def test_with_one_replica_what_a_lender_took_along_is_lost_and_counted(rig):
    c = with_lenders(rig, 2)
    size = LEAST * 5 // 4
    c.space("s", size, bind="n0")
    p = c.puppet(0, "s")
    p.fill(0, pages_of(size), 1)
    wait_still(c.nodes[0])
    lent = memory(c.nodes[1])["lent_bytes"] // PAGE
    assert lent > 0
    c.nodes[1].kill()
    c.coordinator.wait_state("n1", "dead")
    got = p.probe(0, pages_of(size), 1, 120)
    assert got["zero"] == got["other"] == 0
    assert 0 < got["lost"] <= lent
    assert got["good"] + got["lost"] == pages_of(size)
    heard(c.nodes[0])
    assert resources(c, "s")["lost"] == got["lost"]
    # The rest goes on, and what is discarded is memory again.
    assert c.puppet(2, "s").probe(0, pages_of(size), 1, 120) == got
    p.ok(f"discard 0 {pages_of(size)}", 120)
    q = c.puppet(0, "s")
    q.fill(0, pages_of(size), 3, 120)
    q.check(0, pages_of(size), 3, 120)


def test_a_lender_dies_while_it_is_written_to_and_read_from(rig):
    """Two replicas, one death, and threads that go on meanwhile."""
    c = with_lenders(rig, 3)
    size = LEAST * 3 // 2
    c.space("s", size, replicas=2, bind="n0")
    r = roam(c, 0, "s", pages_of(size), threads=4).go()
    wait_evicted(c, "s", pages_of(size - LEAST))
    r.progress(1000)
    c.nodes[2].kill()
    c.coordinator.wait_state("n2", "dead")
    r.progress(pages_of(size))
    writes = r.stop()
    assert r.sum() == writes
    assert resources(c, "s")["lost"] == 0


def test_pages_whose_home_is_dead_are_not_in_the_way_of_others(rig):
    """They cannot leave any more; what else there is can."""
    c = with_lenders(rig, 2)
    size = 24 * MIB
    c.space("s", size, bind="n1")
    c.space("t", 2 * LEAST, bind="n0")
    p, q = c.puppet(0, "s"), c.puppet(0, "t")
    p.fill(0, pages_of(size), 1)
    c.nodes[1].kill()
    c.coordinator.wait_state("n1", "dead")
    q.fill(0, pages_of(2 * LEAST), 2, 60)
    q.check(0, pages_of(2 * LEAST), 2, 60)
    assert p.probe(0, pages_of(size), 1) == {
        "good": pages_of(size), "zero": 0, "other": 0, "lost": 0}


# --- lenders that are away for a moment ------------------------------------------------


def test_a_lender_that_stands_still_holds_up_nobody_and_loses_nothing(rig):
    c = with_lenders(rig, 2, lease=20000, shards=2)
    size = 2 * LEAST
    c.space("s", size, bind="n0")
    half = pages_of(size) // 2
    p = c.puppet(0, "s")
    p.start("a", f"fill 0 {half} 1")
    wait_for(lambda: memory(c.nodes[1])["lent_bytes"] > 0 or
             p.waiting.get("a"), every=0.05)
    c.nodes[1].signal(signal.SIGSTOP)
    try:
        # Whatever it was asked to store: the other one takes more.
        assert p.result("a", 60) == "ok"
        p.fill(half, half, 1)
    finally:
        c.nodes[1].signal(signal.SIGCONT)
    assert c.coordinator.state("n1") == "alive"
    p.check(0, pages_of(size), 1, 120)
    c.puppet(2, "s").check(0, pages_of(size), 1, 120)


class Valve:
    """Between two nodes: shut, it ends their connections and takes no more."""

    def __init__(self, target):
        host, port = target.rsplit(":", 1)
        self.target = (host, int(port))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.open = True
        self.lock = threading.Lock()
        self.sockets = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                a = self.listener.accept()[0]
            except OSError:
                return
            with self.lock:
                if not self.open:
                    a.close()
                    continue
                b = socket.create_connection(self.target, 10)
                self.sockets += [a, b]
            for pair in ((a, b), (b, a)):
                threading.Thread(target=self._carry, args=pair,
                                 daemon=True).start()

    @staticmethod
    def _carry(a, b):
        try:
            while data := a.recv(1 << 18):
                b.sendall(data)
        except OSError:
            pass
        for s in (a, b):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def shut(self):
        with self.lock:
            self.open = False
            for s in self.sockets:
                try:
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
            self.sockets = []

    def close(self):
        self.shut()
        self.listener.close()


def test_connections_that_are_cut_and_come_back_lose_nothing(rig):
    c = rig(nodes=2, memory="256M", lease=20000)
    valve = Valve(c.nodes[0].show()["endpoint"])
    # Who joins from now on reaches n0 through it.
    c.coordinator.post("/v1/nodes/n0/endpoint", {"tcp": valve.endpoint},
                       expect=200)
    c.node(memory="64M")
    c.connected()
    size = 2 * LEAST
    c.space("s", size, bind="n2")
    r = roam(c, 2, "s", pages_of(size), threads=2).go()
    wait_evicted(c, "s", pages_of(LEAST // 2))
    part = pages_of(LEAST // 8)
    for _ in range(4):
        valve.shut()
        wait_for(lambda: c.nodes[0].id not in c.nodes[2].connected())
        valve.open = True
        r.progress(part)
        c.connected()
    # And for as long as it takes the other one to lend all that is missing.
    valve.shut()
    c.space("t", LEAST, bind="n2")
    p = c.puppet(2, "t")
    p.fill(0, pages_of(LEAST), 1)
    valve.open = True
    r.progress(part)
    writes = r.stop()
    assert r.sum() == writes
    p.check(0, pages_of(LEAST), 1)
    assert roam(c, 1, "s", pages_of(size)).sum() == writes
    assert resources(c, "s")["lost"] == 0
    valve.close()
