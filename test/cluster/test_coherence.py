# SPDX-License-Identifier: Apache-2.0
"""
Memory that is one memory: what is written on a node is read on all, counters
that everybody adds to are exact, and nobody ever sees an older value.
"""

import pytest

from cluster import EXTENT, MIB, OLD_KERNEL, rig  # noqa: F401

KERNELS = pytest.mark.parametrize("env", [None, OLD_KERNEL],
                                  ids=["kernel", "old-kernel"])


@KERNELS
def test_what_one_node_writes_the_others_read(rig, env):
    c = rig(nodes=3, env=env)
    c.space("s", 12 * MIB)
    p = [c.puppet(i, "s") for i in range(3)]
    n = 12 * MIB // 4096
    third = n // 3
    for i in range(3):
        p[i].check(0, 8, 0)
        p[i].fill(i * third + 8, third - 8, i + 1)
    for reader in p:
        for i in range(3):
            reader.check(i * third + 8, third - 8, i + 1)
    # And again, written by others than those who were home or read first.
    for i in range(3):
        p[(i + 1) % 3].fill(i * third, third, i + 11)
    for reader in p:
        for i in range(3):
            reader.check(i * third, third, i + 11)


def test_pages_of_which_two_copies_are_kept_change_hands(rig):
    """Who writes and has no copy is given one before the others go."""
    c = rig(nodes=3)
    c.space("s", bind="n0", replicas=2)
    p = [c.puppet(i, "s") for i in range(3)]
    p[1].fill(0, 8, 1)
    p[0].check(0, 8, 1)
    for k in range(2, 20):
        p[k % 3].fill(0, 8, k)
        p[(k + 1) % 3].check(0, 8, k)


def test_two_nodes_add_exactly(rig):
    c = rig()
    c.space("s")
    hammers = [c.hammer(i % 2, "s", threads=2).go() for i in range(2)]
    for h in hammers:
        h.progress(3000)
    for h in hammers:
        h.stop()
    c.exact(c.puppet(1, "s"))


@KERNELS
@pytest.mark.parametrize("bind", [None, "interleave", "n2"])
def test_four_clients_on_three_nodes_add_exactly(rig, env, bind):
    c = rig(nodes=3, env=env)
    c.space("s", 8 * MIB, bind=bind)
    # 32 pages on both sides of the border of two extents.
    first = EXTENT // 4096 - 16
    hammers = [c.hammer(i % 3, "s", first, 32, threads=2).go()
               for i in range(4)]
    for h in hammers:
        h.progress(2000)
    for h in hammers:
        h.stop()
    for i in range(3):
        c.exact(c.puppet(i, "s"), first, 32)


def test_one_page_that_everybody_wants(rig):
    c = rig(nodes=3)
    c.space("s")
    hammers = [c.hammer(i, "s", 7, 1, threads=2).go() for i in range(3)]
    for h in hammers:
        h.progress(2000)
    for h in hammers:
        h.stop()
    c.exact(c.puppet(0, "s"), 7, 1)


def test_the_last_page_and_the_shortest_space(rig):
    c = rig()
    c.space("one", 4096)
    c.space("odd", EXTENT + 3 * 4096)
    for name, last in (("one", 0), ("odd", 514)):
        a, b = c.puppet(0, name), c.puppet(1, name)
        a.check(last, 1, 0)
        b.fill(last, 1, 5)
        a.check(last, 1, 5)
        a.fill(last, 1, 6)
        b.check(last, 1, 6)


def test_many_spaces_do_not_mix(rig):
    c = rig(nodes=2, shards=2)
    spaces = [f"s{i}" for i in range(12)]
    for s in spaces:
        c.space(s, 4 * MIB)
    for k, s in enumerate(spaces):
        p = c.puppet(k % 2, s)
        p.fill(0, 64, k + 1)
        assert p.end() == 0
    for k, s in enumerate(spaces):
        p = c.puppet((k + 1) % 2, s)
        p.check(0, 64, k + 1)
        p.check(64, 64, 0)
        assert p.end() == 0
