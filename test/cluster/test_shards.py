# SPDX-License-Identifier: Apache-2.0
"""
Shards: nodes of 1, 2 and 4 threads, in all mixtures, with pages and homes in
different shards.  What holds with one holds with all.
"""

import pathlib
import re
import signal

import pytest

from cluster import (EXTENT, MIB, OLD_KERNEL, PAGE, rig,  # noqa: F401
                     threads, wait_for)

PAGES = EXTENT // PAGE


@pytest.mark.parametrize("shards,env", [
    ([2, 2, 2], None), ([4, 4, 4], None), ([1, 2, 4], None),
    ([4, 1, 3], None), ([2, 4, 4], OLD_KERNEL), ([16, 1, 2], None),
], ids=lambda v: "-".join(map(str, v)) if isinstance(v, list)
    else "old-kernel" if v else "kernel")
def test_four_clients_on_three_nodes_add_exactly(rig, shards, env):
    c = rig(nodes=3, shards=shards, env=env)
    for i, n in enumerate(shards):
        names = [name for name, _ in threads(c.nodes[i].pid).values()]
        assert len([x for x in names if x.startswith("shard-")]) == n
    # 64 MiB: 16 stripes, dealt to the shards in turn.  32 pages across the
    # border of two extents, two stripes, and, interleaved, two homes.
    c.space("s", 64 * MIB, bind="interleave")
    first = 2 * PAGES - 16
    hammers = [c.hammer(i % 3, "s", first, 32).go() for i in range(4)]
    p = [c.puppet(i, "s") for i in range(3)]
    # Meanwhile all the other stripes are written and read.
    for s in range(1, 16):
        at = s * 2 * PAGES + 32
        p[s % 3].fill(at, 8, s)
        p[(s + 1) % 3].check(at, 8, s)
        p[(s + 2) % 3].fill(at + 4, 8, s + 1)
        p[s % 3].check(at + 4, 8, s + 1)
    for h in hammers:
        h.progress(500)
        h.stop()
    for q in p:
        c.exact(q, first, 32)
    assert p[0].ask(f"discard 64 {15 * 2 * PAGES}") == "ok"
    for q in p:
        q.check(2 * PAGES + 32, 12, 0)
        q.check(14 * 2 * PAGES + 32, 12, 0)


def test_a_node_of_other_shards_dies_and_the_rest_goes_on(rig):
    c = rig(nodes=3, shards=[2, 4, 1], lease=1000)
    c.space("s", 64 * MIB)
    p = [c.puppet(i, "s") for i in range(3)]
    for s in range(16):
        p[1].fill(s * 2 * PAGES, 4, s + 1)          # home and copy at n1
        p[s % 2 * 2].fill(s * 2 * PAGES + PAGES, 4, s + 1)  # n0, n2
    c.nodes[1].kill()
    assert p[1].wait() == -signal.SIGBUS
    for s in range(16):
        for q in (p[0], p[2]):
            got = q.probe(s * 2 * PAGES, 4, s + 1)
            assert got["zero"] == got["other"] == 0, (s, got)
            got = q.probe(s * 2 * PAGES + PAGES, 4, s + 1)
            assert got["zero"] == got["other"] == 0, (s, got)
    c.space("t", 8 * MIB)
    h = [c.hammer(n, "t", threads=2).go() for n in (0, 2)]
    for x in h:
        x.progress(500)
        x.stop()
    c.exact(c.puppet(2, "t"))


@pytest.mark.parametrize("shards", [0, 17, "x", ""])
def test_a_number_of_shards_that_is_none(rig, shards):
    c = rig(nodes=0)
    node = c.node("n", shards=shards, wait=False)
    assert node.process.popen.wait(20) == 2
    assert re.search(r"memspan-node: --shards: .*1 to 16",
                     node.process.text())


def test_a_shard_without_work_makes_room_for_one_that_has(rig):
    """The memory is all shards': one's idle pages go before another's."""
    c = rig(nodes=0)
    c.node("small", memory="64M", shards=2)
    c.node("room", memory="512M", shards=2)
    c.connected()
    c.space("s", 256 * MIB, bind="room")
    p = c.puppet(0, "s")
    stripe = 4 * MIB // PAGE
    full = c.nodes[0].show()["memory"]["capacity_bytes"] // PAGE

    def each(what, shard, n, seed):
        for at in range(shard * stripe, 64 * stripe, 2 * stripe):
            what(at, min(stripe, n), seed)
            n -= min(stripe, n)
            if n == 0:
                return

    def faults():
        stat = pathlib.Path(f"/proc/{p.pid}/stat").read_text()
        return sum(int(v) for v in stat.rsplit(")", 1)[1].split()[7:11])

    each(p.fill, 0, full - 40, 1)
    each(p.fill, 1, 6000, 2)

    def stays():
        before = faults()
        each(p.check, 1, 2000, 2)
        return faults() - before < 200

    wait_for(stays, 30)
