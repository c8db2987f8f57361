# SPDX-License-Identifier: Apache-2.0
"""
Nodes whose memory is short, and peers that lend them theirs: no node ever keeps
more than its --memory, and no byte is ever another than was written, whoever
writes and reads while pages come and go.
"""

import signal

import pytest

from cluster import (EXTENT, MIB, OLD_KERNEL, PAGE, rig,  # noqa: F401
                     wait_for)
from pressure import (LEAST, Gauge, evicted, heard, memfd_bytes, memory,
                      pages_of, resources, roam, wait_evicted, wait_still,
                      wakeups)

PAGES = EXTENT // PAGE


def lenders(c, n, memory="512M", **kwargs):
    for _ in range(n):
        c.node(memory=memory, **kwargs)
    return c.connected()


# --- the limit ---------------------------------------------------------------------


@pytest.mark.parametrize("shards", [1, 4])
def test_no_node_keeps_more_than_its_limit_at_any_moment(rig, shards):
    """One client of a node of 64 MiB and a space of four times as much."""
    c = rig(nodes=1, memory="64M", shards=shards)
    lenders(c, 2, memory="192M", shards=shards)
    size = 4 * LEAST
    c.space("s", size)
    p = c.puppet(0, "s")
    # Directories have their size from here on, so the overhead is exact.
    for extent in range(size // EXTENT):
        p.fill(extent * PAGES, 1, 1)
    with Gauge(c, c.nodes[:1], LEAST), Gauge(c, c.nodes[1:], 192 * MIB):
        p.fill(0, pages_of(size), 2, 120)
        p.check(0, pages_of(size), 2, 120)
        # What its memory cannot hold is at its peers.
        m = heard(c.nodes[0])
        assert m["borrowed_bytes"] >= size - LEAST
        assert evicted(c, "s") >= pages_of(size - LEAST)
    lent = sum(heard(n)["lent_bytes"] for n in c.nodes[1:])
    assert lent >= size - LEAST
    assert memory(c.nodes[0])["refused"] == 0


# --- bytes -------------------------------------------------------------------------


@pytest.mark.parametrize("times", [2, 8])
def test_every_page_comes_back_as_it_went(rig, times):
    c = rig(nodes=1, memory="64M")
    lenders(c, 1, memory="640M")
    size = times * LEAST
    c.space("s", size)
    p = c.puppet(0, "s")
    rounds = 3 if times == 2 else 1
    for seed in range(1, rounds + 1):
        p.fill(0, pages_of(size), seed, 120)
        p.check(0, pages_of(size), seed, 120)
    heard(c.nodes[0])
    assert evicted(c, "s") >= pages_of(size - LEAST)
    # And its peer, where they are, reads them too.
    c.puppet(1, "s").check(0, pages_of(2 * LEAST), rounds, 120)


KINDS = [(1, None), (2, None), (4, None), (1, OLD_KERNEL)]


@pytest.mark.parametrize("shards,env", KINDS,
                         ids=["1", "2", "4", "old-kernel"])
def test_two_nodes_beyond_their_limits_write_and_read_each_others_pages(
        rig, shards, env):
    """A third only lends; all writes are counted, every page is checked."""
    c = rig(nodes=2, memory="64M", shards=shards, env=env)
    lenders(c, 1, shards=shards, env=env)
    pages = pages_of(LEAST * 9 // 4)
    c.space("s", LEAST * 9 // 4, bind="interleave")
    r = [roam(c, n, "s", pages, threads=4, seed=n + 1) for n in (0, 1)]
    with Gauge(c, c.nodes[:2]):
        for client in r:
            client.go()
        for client in r:
            client.progress(pages // 2)
        # Until both have had to send some away.
        wait_for(lambda: all(memory(n)["borrowed_bytes"] > 0
                             for n in c.nodes[:2]), 60)
        assert evicted(c, "s") > 0
        writes = sum(client.stop() for client in r)
    for client in r:
        assert client.sum() == writes
    assert roam(c, 2, "s", pages).sum() == writes


@pytest.mark.parametrize("shards,env", [(1, None), (2, None), (1, OLD_KERNEL)],
                         ids=["1", "2", "old-kernel"])
def test_counters_in_pages_that_are_taken_all_the_time_are_exact(rig, shards,
                                                                 env):
    """
    Every victim is taken from threads that add to it, and comes back at their
    next touch: staging against the write-protect, on two nodes.
    """
    c = rig(nodes=2, memory="64M", shards=shards, env=env)
    lenders(c, 1, shards=shards, env=env)
    # Counters at an extent's border, so of two homes; pressure behind them.
    c.space("s", 4 * MIB, bind="interleave")
    size = LEAST * 5 // 4
    c.space("t", 2 * size)
    h = [c.hammer(n, "s", PAGES - 24, 48, threads=3).go() for n in (0, 1)]
    r = [roam(c, n, "t", pages_of(size), first=n * pages_of(size),
              seed=n + 1).go() for n in (0, 1)]
    refaults = [n.show()["faults"]["refault"] for n in c.nodes[:2]]
    for client in r:
        client.progress(2 * pages_of(size))
    for client in h:
        client.progress(1000)
    # They have been taken, by whatever way.
    for n, before in zip(c.nodes[:2], refaults):
        heard(n)
        assert n.show()["faults"]["refault"] > before
        assert memory(n)["borrowed_bytes"] > 0
    for client in h:
        client.stop()
    writes = [client.stop() for client in r]
    for n in range(3):
        c.exact(c.puppet(n, "s"), PAGES - 24, 48)
    assert [client.sum() for client in r] == writes


# --- pages that several hold ----------------------------------------------------------


@pytest.mark.parametrize("home,replicas", [("n0", 2), ("n2", 1),
                                           ("interleave", 1)])
def test_two_nodes_that_drop_the_same_pages_leave_one_behind(rig, home,
                                                             replicas):
    """Both read all of it, and both have to send it away at once."""
    c = rig(nodes=2, memory="64M")
    lenders(c, 2)
    pages = pages_of(LEAST // 4)
    c.space("s", LEAST // 4, replicas=replicas, bind=home)
    c.space("t", 2 * LEAST, bind=[[0, LEAST // EXTENT, 0],
                                  [LEAST // EXTENT, LEAST // EXTENT, 1]])
    writer = c.puppet(2, "s")
    readers = [c.puppet(n, "s") for n in (0, 1)]
    push = [c.puppet(n, "t") for n in (0, 1)]
    for seed in (1, 2):
        writer.fill(0, pages, seed)
        for p in readers:
            p.check(0, pages, seed)
        for n, p in enumerate(push):
            p.start("t", f"fill {n * pages_of(LEAST)} {pages_of(LEAST)} {seed}")
        for p in push:
            assert p.result("t", 60) == "ok"
        for n in (0, 1):
            heard(c.nodes[n])
        assert evicted(c, "s") > 0
        c.puppet(3, "s").check(0, pages, seed)
        for p in readers:
            p.check(0, pages, seed)
    assert resources(c, "s")["lost"] == 0


# --- what ends while pages are away -----------------------------------------------------


def test_discarded_pages_are_zeros_everywhere_and_their_memory_is_back(rig):
    c = rig(nodes=1, memory="64M")
    lenders(c, 2)
    size = 2 * LEAST
    c.space("s", size)
    p, q = c.puppet(0, "s"), c.puppet(1, "s")
    p.fill(0, pages_of(size), 1)
    wait_evicted(c, "s", pages_of(size - LEAST))
    # But for the last extent.
    most = pages_of(size - EXTENT)
    p.ok(f"discard 0 {most}", 60)
    for n in c.nodes:
        assert memfd_bytes(n, "memspan-s") <= EXTENT
        m = heard(n)
        assert m["lent_bytes"] <= EXTENT and m["borrowed_bytes"] <= EXTENT
    # Zeros that are read are pages again, of those who read them first.
    q.check(0, most // 2, 0)
    p.check(0, most, 0)
    q.check(most // 2, most // 2, 0)
    for x in (p, q):
        x.check(most, pages_of(EXTENT), 1)


def test_a_space_that_goes_while_its_pages_do(rig):
    c = rig(nodes=1, memory="64M")
    lenders(c, 2)
    idle = [heard(n)["resident_bytes"] for n in c.nodes]
    for k in range(3):
        name = f"s{k}"
        c.space(name, 3 * LEAST)
        p = [c.puppet(n, name) for n in (0, 1)]
        for client in p:
            client.start("t", f"fill {k * 7} {pages_of(2 * LEAST)} 1")
        wait_evicted(c, name, 1000)
        # The client in the midst of it, its pages staged and on their way.
        for client in p:
            client.kill()
        wait_for(lambda name=name: c.coordinator.request(
            "DELETE", f"/v1/spaces/{name}").status_code == 204)
    for n, had in zip(c.nodes, idle):
        wait_for(lambda n=n, had=had: heard(n)["resident_bytes"] == had)
        m = memory(n)
        assert m["lent_bytes"] == m["borrowed_bytes"] == m["waiting"] == 0
    # All of it is there for the next.
    c.space("next", 2 * LEAST)
    q = c.puppet(0, "next")
    q.fill(0, pages_of(2 * LEAST), 9)
    q.check(0, pages_of(2 * LEAST), 9)


def test_a_client_that_is_killed_takes_nothing_along(rig):
    c = rig(nodes=1, memory="64M")
    lenders(c, 1)
    pages = pages_of(2 * LEAST)
    c.space("s", 3 * LEAST)
    c.puppet(0, "s").fill(0, pages, 1)
    h = c.hammer(0, "s", pages, 16).go()
    for _ in range(3):
        p = c.puppet(0, "s")
        p.start("t", f"check 0 {pages} 1")
        before = heard(c.nodes[0])
        wait_for(lambda: heard(c.nodes[0]) != before)
        p.kill()
        h.progress(100)
    c.puppet(1, "s").check(0, pages, 1)
    h.stop()
    c.exact(c.puppet(0, "s"), pages)


@pytest.mark.parametrize("who", [0, 1])
def test_a_node_is_stopped_while_pages_leave_it_or_come(rig, who):
    c = rig(nodes=1, memory="64M", lease=1000)
    lenders(c, 2)
    c.space("s", 4 * LEAST, bind="n2")
    c.space("t", LEAST // 4, bind="n2")
    p = c.puppet(0, "s")
    p.start("t", f"fill 0 {pages_of(4 * LEAST)} 1")
    h = c.hammer(2 if who == 0 else 0, "t").go()
    wait_evicted(c, "s", 2000)
    assert c.nodes[who].stop() == 0
    if who == 0:
        assert p.wait() == -signal.SIGBUS
    else:
        # What only it had is lost; but it goes on with who is left.
        assert p.result("t", 60) == "ok"
        got = p.probe(0, pages_of(4 * LEAST), 1, 120)
        assert got["zero"] == got["other"] == 0
        assert got["good"] >= pages_of(LEAST)
    h.progress(200)
    h.stop()
    c.exact(c.puppet(2, "t"))


# --- afterwards ----------------------------------------------------------------------------


def test_who_has_sent_away_what_it_must_sleeps(rig):
    c = rig(nodes=1, memory="64M", shards=2)
    lenders(c, 1, shards=2)
    c.space("s", 2 * LEAST)
    p = c.puppet(0, "s")
    p.fill(0, pages_of(2 * LEAST), 1)
    p.check(0, pages_of(2 * LEAST), 1)
    wait_still(c.nodes[0])
    for name, rate in wakeups(c.nodes).items():
        assert rate <= 2, name
