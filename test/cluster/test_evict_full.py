# SPDX-License-Identifier: Apache-2.0
"""
All nodes full at once.  What was admitted fits, and everybody goes on; what was
insisted on (--overcommit) waits, and says so, until there is memory; nobody
keeps more than it may, and nothing is given up.
"""

import pytest

from cluster import EXTENT, MIB, PAGE, faults_waiting, rig, wait_for  # noqa: F401
from pressure import (LEAST, Gauge, capacity, codes, heard, memory, pages_of,
                      roam, wait_still, wakeups)

PAGES = EXTENT // PAGE


def wait_full(c, timeout=60):
    """Until faults wait for memory that nobody has."""
    wait_for(lambda: any(memory(n)["waiting"] > 0 for n in c.nodes), timeout,
             every=0.1)


# --- what fits ---------------------------------------------------------------------


@pytest.mark.parametrize("shards", [1, 2])
def test_spaces_that_just_fit_are_written_and_read_by_all(rig, shards):
    c = rig(nodes=3, memory="64M", shards=shards)
    size = capacity(c) // 2 // EXTENT * EXTENT
    for name in ("s", "t"):
        c.space(name, size)
    c.space("too-much", 2 * EXTENT, expect=507)
    with Gauge(c, c.nodes):
        # Each space by another two nodes, all nodes to their marks.
        r = [roam(c, n, name, pages_of(size), seed=n + 1)
             for n, name in ((0, "s"), (1, "s"), (1, "t"), (2, "t"))]
        writers = [c.puppet(0, "s"), c.puppet(2, "t")]
        for p in writers:
            # Zeros, but of pages that exist: the node has written them.
            p.start("t", f"touch 0 {pages_of(size)}")
        for p in writers:
            assert p.result("t", 120) == "ok"
        for client in r:
            client.go()
        for client in r:
            client.progress(pages_of(size) // 8, 120)
        writes = [client.stop() for client in r]
    sums = [sum(writes[:2])] * 2 + [sum(writes[2:])] * 2
    for i in (0, 2, 1):
        assert r[i].sum() == sums[i]
    assert all(heard(n)["waiting"] == 0 for n in c.nodes)
    assert "CAPACITY_SHORT" not in codes(c)


# --- what does not -----------------------------------------------------------------


OTHER = pages_of(14 * MIB)  # filled, of a space of 16 MiB


def overcommitted(rig, more=24 * MIB, **kwargs):
    """A space that is larger than all memory, and who fills it, and waits."""
    c = rig(nodes=2, memory="64M", **kwargs)
    c.space("other", 16 * MIB)
    q = c.puppet(1, "other")
    q.fill(0, OTHER, 5)
    size = (capacity(c) + more) // PAGE * PAGE
    c.space("s", size, overcommit=True)
    p = c.puppet(0, "s")
    p.start("t", f"fill 0 {pages_of(size)} 1")
    wait_full(c)
    return c, p, q, size


def test_too_much_waits_until_a_node_joins(rig):
    c, p, q, size = overcommitted(rig)
    with Gauge(c, c.nodes, samples=10):
        assert "node 0" in codes(c)["MEMORY_FULL"]
        # It waits, in the kernel, and is not killed.
        wait_for(lambda: faults_waiting(p.pid)[0] > 0)
        # Pages that there are can be had meanwhile, and be written.
        q.check(0, OTHER, 5, 120)
        q.fill(0, 1000, 6)
        q.check(0, 1000, 6)
        assert p.waiting.get("t", []) == []
        c.node(memory="128M")
        c.connected()
        assert p.result("t", 120) == "ok"
    p.check(0, pages_of(size), 1, 120)
    wait_for(lambda: "MEMORY_FULL" not in codes(c))
    c.puppet(1, "s").check(pages_of(size) // 2, 1000, 1)
    c.puppet(2, "other").check(0, 1000, 6)


def test_too_much_waits_until_a_space_goes(rig):
    c, p, q, size = overcommitted(rig, more=-8 * MIB)
    with Gauge(c, c.nodes, samples=10):
        assert "MEMORY_FULL" in codes(c)
        assert q.end() == 0
        # The node has to notice first that its client has gone.
        wait_for(lambda: c.coordinator.request(
            "DELETE", "/v1/spaces/other").status_code == 204)
        assert p.result("t", 120) == "ok"
        # Still more than n0 keeps: each page for another.
        p.check(0, 3000, 1, 120)
        p.check(pages_of(size) - 3000, 3000, 1, 120)
    wait_for(lambda: "MEMORY_FULL" not in codes(c))


def test_a_full_cluster_with_nothing_to_do_sleeps(rig):
    c, p, q, _ = overcommitted(rig)
    p.kill()
    wait_for(lambda: all(heard(n)["waiting"] == 0 for n in c.nodes))
    for n in c.nodes:
        wait_still(n)
    for name, rate in wakeups(c.nodes).items():
        assert rate <= 2, name
    # And is not asleep for good.
    q.check(0, OTHER, 5, 120)
    c.puppet(1, "s").check(0, 1000, 1)
