# SPDX-License-Identifier: Apache-2.0
"""
Clients come, go, and are killed at any moment; whoever is left never notices.
"""

import os
import pathlib
import random
import signal

import pytest

from cluster import (EXTENT, MIB, OLD_KERNEL, PAGE,  # noqa: F401
                     rig, threads, wait_faults, wait_for)

PAGES = EXTENT // PAGE
KERNELS = pytest.mark.parametrize("env", [None, OLD_KERNEL],
                                  ids=["kernel", "old-kernel"])


@KERNELS
def test_thirty_clients_are_killed_and_the_sums_are_exact(rig, env):
    c = rig(shards=2, env=env)
    c.space("s", 8 * MIB, bind="interleave")
    first, pages = PAGES - 8, 16
    rng = random.Random(1)
    stay = [c.hammer(n, "s", first, pages).go() for n in (0, 1)]
    killed = []
    for k in range(30):
        h = c.hammer(k % 2, "s", first, pages).go()
        killed.append(h)
        h.progress(rng.choice((1, 10, 100, 500)))
        assert h.kill() == -signal.SIGKILL
        for s in stay:
            s.progress(10)
    for s in stay:
        s.stop()
    for n in (0, 1):
        c.exact(c.puppet(n, "s"), first, pages, killed=killed)
    wait_for(lambda: all(n.show()["clients"] == 1 for n in c.nodes))


def test_clients_killed_while_they_wait_leave_nothing_behind(rig):
    c = rig(lease=60000)
    c.space("s", 8 * MIB, bind="n0")
    a, b = c.puppet(0, "s"), c.puppet(1, "s")
    a.fill(0, 512, 1)
    for k in range(8):
        c.nodes[0].signal(signal.SIGSTOP)
        victims = [c.puppet(1, "s") for _ in range(2)]
        for i, v in enumerate(victims):
            v.start("r", f"check {32 * k + 2 * i} 1 1")
            v.start("w", f"add {32 * k + 2 * i + 16} 1")
            wait_faults(v.pid, 2)
        for v in victims:
            v.kill()
        c.nodes[0].signal(signal.SIGCONT)
    # What was on its way came, and belongs to the node now.
    for k in range(8):
        b.check(32 * k, 16, 1)
        a.fill(32 * k, 32, 2)
        b.check(32 * k, 32, 2)


@pytest.mark.parametrize("nodes", [(0,), (0, 1)], ids=["one-node", "two-nodes"])
def test_attach_and_detach_again_and_again(rig, nodes):
    c = rig()
    c.space("s", 4 * MIB)
    rounds = 60
    before = [len(threads(n.pid)) for n in c.nodes]
    loops = [c.puppet(n, "s") for n in nodes for _ in range(2)]
    for k, p in enumerate(loops):
        p.start("l", f"loop {rounds} {c.nodes[nodes[k // 2]].socket} s 3")
    for p in loops:
        assert p.result("l", 60).strip() == "ok"
    assert int(loops[0].ask("peek 3")) == rounds * len(loops)
    # All descriptors and threads of the loops are gone.
    wait_for(lambda: all(n.show()["clients"] == (2 if i in nodes else 0)
                         for i, n in enumerate(c.nodes)))
    for n, had in zip(c.nodes, before):
        assert len(os.listdir(f"/proc/{n.pid}/fd")) < 64
        assert len(threads(n.pid)) == had


def test_several_clients_of_a_space_on_a_node_share_its_pages(rig):
    c = rig()
    c.space("s")
    p = [c.puppet(0, "s") for _ in range(5)]
    far = c.puppet(1, "s")
    p[0].fill(0, 64, 1)
    for q in p[1:]:
        q.check(0, 64, 1)
    far.fill(0, 64, 2)
    for q in p:
        q.check(0, 64, 2)
    p[3].fill(0, 64, 3)
    far.check(0, 64, 3)
    p[4].check(0, 64, 3)
    assert p[3].end() == 0
    p[4].fill(8, 8, 4)
    p[0].check(8, 8, 4)
    far.check(8, 8, 4)


def test_a_process_may_attach_a_space_twice(rig):
    c = rig()
    c.space("s")
    c.space("t")
    p = c.puppet(0, "s")
    p.fill(0, 8, 1)
    assert p.ask(f"attach {c.nodes[1].socket} s") == "ok"
    p.check(0, 8, 1)
    p.fill(4, 8, 2)
    assert p.ask(f"attach {c.nodes[0].socket} t") == "ok"
    p.check(0, 8, 0)
    q = c.puppet(0, "s")
    q.check(4, 8, 2)


# --- discard, prefetch ------------------------------------------------------------------


@KERNELS
def test_discarded_pages_are_zeros_everywhere(rig, env):
    c = rig(nodes=3, shards=2, env=env)
    c.space("s", 12 * MIB, bind="interleave")
    p = [c.puppet(i, "s") for i in range(3)]
    last = 12 * MIB // PAGE
    p[0].fill(0, last, 1)
    p[1].check(0, 700, 1)
    p[2].fill(100, 600, 2)
    # Owned here and there, shared, homed everywhere, across extents.
    p[1].ok("discard 50 1000")
    for q in p:
        q.check(0, 50, 1)
        q.check(50, 1000, 0)
        q.check(1050, 50, 1)
    p[2].ok(f"discard 0 {last}", 60)
    for q in p:
        q.check(0, last, 0)
    p[0].fill(0, 100, 3)
    p[1].check(0, 100, 3)


def test_discard_while_others_write_elsewhere(rig):
    c = rig(shards=2)
    c.space("s", 8 * MIB, bind="interleave")
    first = PAGES - 8
    h = [c.hammer(n, "s", first, 16).go() for n in (0, 1)]
    p = [c.puppet(n, "s") for n in (0, 1)]
    for k in range(12):
        p[k % 2].fill(PAGES - 40, 32, k + 1)
        p[1 - k % 2].ok(f"discard {PAGES - 40} 32")
        p[k % 2].check(PAGES - 40, 32, 0)
        p[1 - k % 2].fill(PAGES + 8, 64, k + 1)
        p[k % 2].ok(f"discard {PAGES + 8} 64")
        p[1 - k % 2].check(PAGES + 8, 64, 0)
        for client in h:
            client.progress(10)
    for client in h:
        client.stop()
    c.exact(p[0], first)


def test_discards_of_the_same_pages_at_once(rig):
    c = rig(nodes=3)
    c.space("s", 4 * MIB, bind="interleave")
    p = [c.puppet(i, "s") for i in range(3)]
    for k in range(5):
        for q in p:
            q.fill(PAGES - 100, 200, k + 1)
        for q in p:
            for t in range(4):
                q.start(f"t{t}", f"discard {PAGES - 100 + t} 190")
        for q in p:
            for t in range(4):
                assert q.result(f"t{t}", 60).strip() == "ok"
        for q in p:
            q.check(PAGES - 97, 186, 0)


def test_a_discard_races_with_writers_of_the_same_pages(rig):
    """A page is zeros, or what was written behind; never a mixture."""
    c = rig()
    c.space("s", 4 * MIB, bind="n0")
    a, b = c.puppet(0, "s"), c.puppet(1, "s")
    for k in range(10):
        b.fill(0, 64, 1)
        a.start("d", "discard 0 64")
        b.start("w", "add 200 1")
        for page in range(0, 64, 16):
            b.ok(f"poke {page} {77 + k}")
        assert a.result("d").strip() == "ok"
        b.result("w")
        for page in range(64):
            assert a.ask(f"peek {page}") in (
                ("0", str(77 + k)) if page % 16 == 0 else ("0",))
    assert int(a.ask("peek 200")) == 10


@pytest.mark.parametrize("order,answer", [
    ("discard 1024 1", "EINVAL"), ("discard 1023 2", "EINVAL"),
    ("discard 0 0", "ok"), ("discard 1024 0", "ok"),
    ("prefetch 1024 1", "EINVAL"), ("prefetch 1000 25", "EINVAL"),
    ("prefetch 0 1024", "ok"), ("prefetch 0 0", "ok"),
    ("discard 0 4503599627370495", "EINVAL"),
    ("discard 4503599627370495 2", "EINVAL"),
])
def test_ranges_that_are_none(rig, order, answer):
    c = rig(nodes=1)
    c.space("s", 4 * MIB)
    p = c.puppet(0, "s")
    p.fill(0, 4, 1)
    assert p.ask(order) == answer
    if answer == "EINVAL":
        p.check(0, 4, 1)


def test_prefetched_pages_arrive_before_they_are_touched(rig):
    c = rig()
    c.space("s", 4 * MIB, bind="n0")
    c.puppet(0, "s").fill(0, 512, 1)
    b = c.puppet(1, "s")
    b.check(511, 1, 1)  # so that n1 knows who is home
    before = c.nodes[1].show()["faults"]["prefetched"]
    b.ok("prefetch 0 64")
    wait_for(lambda: c.nodes[1].show()["faults"]["prefetched"] >= before + 64)
    reads = c.nodes[1].show()["faults"]["remote_read"]
    b.check(0, 64, 1)
    # Read again, a second later, in what the node reports.
    age = c.nodes[1].show()
    wait_for(lambda: c.nodes[1].show()["wakeups"] > age["wakeups"])
    assert c.nodes[1].show()["faults"]["remote_read"] == reads
    # Prefetch is a guess, and never takes a page from who writes it.
    c.puppet(0, "s").fill(100, 8, 2)
    b.ok("prefetch 96 32")
    b.check(100, 8, 2)


# --- clients that misbehave ----------------------------------------------------------------


def test_a_client_that_is_stopped_holds_up_nobody(rig):
    c = rig()
    c.space("s", 4 * MIB)
    h = [c.hammer(n, "s").go() for n in (0, 1)]
    still = c.hammer(0, "s").go()
    still.progress(50)
    still.signal(signal.SIGSTOP)
    for client in h:
        client.progress(500)
    still.signal(signal.SIGCONT)
    still.progress(50)
    for client in (*h, still):
        client.stop()
    c.exact(c.puppet(1, "s"))


def test_a_client_that_does_not_listen_holds_up_nobody(rig):
    """It sends thousands of orders and never reads an answer."""
    c = rig()
    c.space("s", 4 * MIB)
    h = [c.hammer(n, "s").go() for n in (0, 1)]
    deaf = c.puppet(0, "s")
    deaf.check(100, 1, 0)
    # Its fence thread is who reads.
    fence = [t for t, name in (
        (t, pathlib.Path(f"/proc/{deaf.pid}/task/{t}/comm").read_text())
        for t in os.listdir(f"/proc/{deaf.pid}/task"))
        if name.startswith("memspan-fence")]
    assert len(fence) == 1
    for _ in range(2000):
        deaf.say("prefetch 0 1024")
    for t in range(100):
        deaf.say(f"@d{t} discard {300 + t} 1")
    deaf.signal(signal.SIGSTOP)
    for client in h:
        client.progress(300)
    deaf.signal(signal.SIGCONT)
    for t in range(100):
        assert deaf.result(f"d{t}").startswith("started")
        assert deaf.result(f"d{t}").strip() == "ok"
    for client in h:
        client.progress(100)
        client.stop()
    c.exact(c.puppet(1, "s"))


@pytest.fixture
def memory_group(root):
    """A memory cgroup, version 1 or 2, as a function of its limit."""
    made = []

    def make(limit):
        for base, knob in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
                           ("/sys/fs/cgroup", "memory.max")):
            path = pathlib.Path(base) / f"memspan-test-{os.getpid()}"
            try:
                path.mkdir()
            except OSError:
                continue
            if (path / knob).exists():
                made.append(path)
                (path / knob).write_text(str(limit))
                return path
            path.rmdir()
        pytest.skip("no memory cgroup can be made here")

    yield make
    for path in made:
        wait_for(lambda: (path / "cgroup.procs").read_text() == "")
        path.rmdir()


def test_a_client_with_too_little_memory_hurts_nobody_else(rig, memory_group):
    """Pages that are installed count for its group: it ends, they stay."""
    c = rig()
    c.space("s", 64 * MIB, bind="n0")
    total = 64 * MIB // PAGE
    a = c.puppet(0, "s")
    a.fill(0, total, 1)
    group = memory_group(16 * MIB)
    small = c.puppet(1, "s", preexec_fn=lambda: (
        group / "cgroup.procs").write_text(str(os.getpid())))
    h = [c.hammer(n, "s", total - 16, 16).go() for n in (0, 1)]
    small.say(f"check 0 {total - 16} 1")
    status = small.wait(60)
    assert status in (-signal.SIGKILL, -signal.SIGBUS, 0), status
    for client in h:
        client.progress(100)
    b = c.puppet(1, "s")
    b.check(0, total - 16, 1)
    b.fill(0, 64, 2)
    a.check(0, 64, 2)
    assert c.nodes[1].process.running()
    for client in h:
        client.stop()
