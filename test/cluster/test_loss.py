# SPDX-License-Identifier: Apache-2.0
"""
Loss: a node that is killed or stopped, a coordinator that is gone.  Whoever
could be given wrong bytes ends instead, by SIGBUS and with a message; a page
whose only copy is gone is poison; nothing ever reads as zeros that was not;
and the rest of the cluster goes on.
"""

import re
import signal
import time

import pytest

from cluster import (EXTENT, MIB, OLD_KERNEL, PAGE, faults_waiting,  # noqa: F401
                     rig, wait_faults, wait_for)

PAGES = EXTENT // PAGE
LEASE = 1000
SECOND = 1.0
NOISE = 1.5  # what a busy machine may add to what is promised about time

KERNELS = pytest.mark.parametrize("env", [None, OLD_KERNEL],
                                  ids=["kernel", "old-kernel"])


def ended_by_bus(client, message=None):
    """It died of SIGBUS, and said why."""
    status = client.wait(30)
    assert status == -signal.SIGBUS, (status, client.errors())
    if message:
        assert re.search(message, client.errors()), client.errors()


# --- the node of a client dies -------------------------------------------------------


@KERNELS
def test_clients_end_with_their_node_whatever_they_do(rig, tmp_path, env):
    c = rig(lease=60000, env=env)
    c.space("s", 2 * EXTENT, bind="n0")
    c.puppet(0, "s").fill(0, 64, 3)
    (tmp_path / "bytes").write_bytes(b"x" * 8 * PAGE)
    blocked, reading, later, idle = (c.puppet(1, "s") for _ in range(4))
    for p in (blocked, reading, later, idle):
        p.check(0, 4, 3)
    c.nodes[0].signal(signal.SIGSTOP)  # so that faults last
    blocked.start("t", "check 20 1 3")
    reading.start("t", f"read {tmp_path}/bytes 32 {4 * PAGE}")
    wait_faults(blocked.pid, 1)
    wait_faults(reading.pid, 1)
    killed = time.monotonic()
    c.nodes[1].kill()
    for p in (blocked, reading, later, idle):
        ended_by_bus(p, r"memspan: space s: its node is gone.*SIGBUS")
        assert p.ended_at - killed < SECOND + NOISE
    # No thread saw anything: the results would be lines.
    assert all(p.lines.get(timeout=1) is None for p in (blocked, reading))
    c.nodes[0].signal(signal.SIGCONT)


def test_a_client_that_touches_after_the_kill_reads_no_zeros(rig):
    """The moment between the death of the node and that of the client."""
    c = rig(lease=60000)
    c.space("s", 8 * MIB, bind="n0")
    c.puppet(0, "s").fill(0, 2048, 3)
    clients = [c.client("puppet", c.nodes[1].socket, "s") for _ in range(4)]
    for p in clients:
        assert p.line() == "- ready"
        p.say("check 0 2048 3")
        assert p.line(60) == "- ok"
        p.say("check 0 2048 3\n" * 2000)  # it is at it when it happens
        assert p.line(60) == "- ok"
    c.nodes[1].kill()
    for p in clients:
        ended_by_bus(p, "its node is gone")
        while (line := p.lines.get(timeout=5)) is not None:
            assert line == "- ok"


# --- pages of a node that died ------------------------------------------------------


@KERNELS
def test_pages_whose_only_copy_died_are_poison_and_the_rest_goes_on(rig, env):
    c = rig(nodes=3, lease=LEASE, env=env)
    c.space("s", 4 * EXTENT, bind=[[0, 1, 0], [1, 1, 1], [2, 2, 2]])
    c.space("other", 4 * MIB)
    a, b = c.puppet(0, "s"), c.puppet(1, "s")
    b.fill(0, 64, 1)               # home n0, only copy at n1
    b.fill(64, 64, 1)
    a.check(64, 64, 1)             # home n0, copies at n0 and n1
    a.fill(PAGES, 32, 2)           # home n1, only copy at n0
    b.fill(PAGES + 64, 32, 2)      # home n1, only copy there
    b.fill(2 * PAGES, 32, 3)       # home n2, only copy at n1
    a.fill(2 * PAGES + 64, 32, 3)  # home n2, only copy at n0
    h = [c.hammer(n, "other").go() for n in (0, 2)]
    c.nodes[1].kill()
    ended_by_bus(b)
    for client in h:
        client.progress(200)
    # Asked at once, answered when the dead is declared dead.
    d = c.puppet(2, "s")
    if env is None:
        for p in (a, d):
            assert p.probe(0, 64, 1) == {"good": 0, "zero": 0, "other": 0,
                                         "lost": 64}
            assert p.probe(64, 64, 1)["good"] == 64
            assert p.probe(PAGES + 64, 32, 2)["lost"] == 32
            assert p.probe(2 * PAGES, 32, 3)["lost"] == 32
            assert p.probe(2 * PAGES + 64, 32, 3)["good"] == 32
        # What n0 has of a dead home stays; nobody else can find it.
        assert a.probe(PAGES, 32, 2)["good"] == 32
        assert d.probe(PAGES, 32, 2)["lost"] == 32
        # Pages that live go on living, also those that were read there.
        d.fill(64, 64, 5)
        a.check(64, 64, 5)
        d.fill(2 * PAGES + 64, 32, 6)
        a.check(2 * PAGES + 64, 32, 6)
        # And memory that nobody had touched is memory still.
        d.fill(3 * PAGES, 64, 7)
        a.check(3 * PAGES, 64, 7)
    else:
        # A page cannot be poisoned there: the space's clients end.
        a.say("check 0 64 1")
        ended_by_bus(a, "lost")
        d.say("probe 0 64 1")
        ended_by_bus(d, "lost")
    for client in h:
        client.progress(200)
        client.stop()
    c.exact(c.puppet(0, "other"))
    c.coordinator.wait_state("n1", "dead")
    assert c.coordinator.state("n0") == c.coordinator.state("n2") == "alive"


def test_a_thread_that_waits_for_a_dead_home_gets_sigbus(rig):
    c = rig(lease=3 * LEASE)
    c.space("s", 2 * EXTENT, bind="n1")
    c.puppet(1, "s").fill(0, 600, 1)
    a, b, one = c.puppet(0, "s"), c.puppet(0, "s"), c.puppet(0, "s")
    one.check(300, 1, 1)
    c.nodes[1].signal(signal.SIGSTOP)
    a.start("t", "check 0 1 1")       # bytes
    b.start("t", "fill 512 1 2")      # bytes, to write
    one.start("t", "add 300 1")       # rights alone
    for p in (a, b, one):
        wait_faults(p.pid, 1)
    c.nodes[1].kill()
    for p in (a, b, one):
        ended_by_bus(p)
        assert p.lines.get(timeout=1) is None


def test_a_node_that_comes_back_has_lost_what_it_had(rig):
    c = rig(nodes=3, lease=LEASE)
    c.space("s", 4 * EXTENT, bind=[[0, 2, 1], [2, 2, 0]])
    a, b, d = (c.puppet(i, "s") for i in range(3))
    b.fill(0, 64, 1)
    a.fill(64, 64, 2)
    b.fill(2 * PAGES, 64, 3)
    a.check(0, 1, 1)      # n0 knows who was home there; n2 does not
    c.nodes[1].kill()
    ended_by_bus(b)
    c.coordinator.wait_state("n1", "dead")
    c.node("n1")
    c.connected()
    e = c.puppet(3, "s")
    assert c.nodes[3].id == 1
    lost = {"good": 0, "zero": 0, "other": 0, "lost": 32}
    for p in (e, d, a):
        assert p.probe(32, 32, 1) == lost
        assert p.probe(2 * PAGES + 32, 32, 3) == lost
    for p in (e, d, a):
        for first, seed in ((0, 1), (64, 2)):
            got = p.probe(first, 64, seed)
            assert got["zero"] == got["other"] == 0
    # What it had never opened it serves.
    c.space("t", 4 * EXTENT, bind="n1")
    f, g = c.puppet(3, "t"), c.puppet(2, "t")
    f.fill(0, 64, 9)
    g.check(0, 64, 9)


def test_discard_brings_a_lost_page_back_as_zeros(rig):
    """For clients that have not touched it while it was lost."""
    c = rig(lease=LEASE)
    c.space("s", 2 * EXTENT, bind="n0")
    a, b = c.puppet(0, "s"), c.puppet(1, "s")
    b.fill(0, 16, 1)
    c.nodes[1].kill()
    assert a.probe(0, 16, 1)["lost"] == 16
    a.ok("discard 0 8")
    p = c.puppet(0, "s")
    p.check(0, 8, 0)
    p.fill(0, 8, 2)
    p.check(0, 8, 2)
    assert p.probe(8, 8, 1)["lost"] == 8


# --- nodes that stand still -----------------------------------------------------------


def test_a_node_stopped_for_too_long_ends_and_says_why(rig):
    c = rig(lease=LEASE)
    c.space("s", 2 * EXTENT, bind="n0")
    a, b = c.puppet(0, "s"), c.puppet(1, "s")
    b.fill(0, 16, 1)
    c.nodes[1].signal(signal.SIGSTOP)
    stopped = time.monotonic()
    # Its clients may not go on reading what others will be told is lost.
    ended_by_bus(b, r"lease has been over for a second")
    assert b.ended_at - stopped > LEASE / 1000 * 2 / 3
    assert a.probe(0, 16, 1)["lost"] == 16
    assert c.coordinator.state("n1") == "dead"
    c.nodes[1].signal(signal.SIGCONT)
    assert c.nodes[1].process.popen.wait(20) == 1
    assert re.search(r"this node ends.*declared this node dead",
                     c.nodes[1].process.text())
    a.fill(PAGES, 16, 4)
    a.check(PAGES, 16, 4)


@pytest.mark.parametrize("shards", [1, 2])
def test_a_node_stopped_for_a_moment_loses_nothing(rig, shards):
    c = rig(nodes=3, lease=8000, shards=shards)
    c.space("s", 8 * MIB, bind="interleave")
    first = PAGES - 8
    h = [c.hammer(n, "s", first, 16).go() for n in range(3)]
    for k in range(6):
        for client in h:
            client.progress(100)
        victim = c.nodes[k % 3]
        victim.signal(signal.SIGSTOP)
        # Until one of the others misses it.
        others = [client for client in h if client is not h[k % 3]]
        wait_for(lambda: any(faults_waiting(o.pid)[0] > 0 for o in others))
        victim.signal(signal.SIGCONT)
    for client in h:
        client.progress(100)
        client.stop()
    c.exact(c.puppet(0, "s"), first)


def test_a_node_that_was_fenced_and_renewed_goes_on(rig):
    """Its lease ended, but it was not declared dead: nothing was lost."""
    c = rig(lease=4000)
    c.space("s", 4 * MIB, bind="interleave")
    first = PAGES - 8
    h = [c.hammer(n, "s", first, 16, threads=2).go() for n in range(2)]
    for client in h:
        client.progress(200)
    c.nodes[1].signal(signal.SIGSTOP)
    c.coordinator.wait_state("n1", "fenced")
    c.nodes[1].signal(signal.SIGCONT)
    c.coordinator.wait_state("n1", "alive")
    for client in h:
        client.progress(200)
        client.stop()
    c.exact(c.puppet(0, "s"), first)


# --- the coordinator -------------------------------------------------------------------


def test_pages_travel_while_the_coordinator_restarts(rig):
    c = rig(lease=4000)
    c.space("s", 8 * MIB)
    h = [c.hammer(n, "s", threads=2).go() for n in range(2)]
    for kill in (True, False, True, True):
        for client in h:
            client.progress(200)
        c.coordinator.restart(kill=kill)
        for client in h:
            client.progress(200)
    # New memory needs it: there it is.
    p, q = c.puppet(0, "s"), c.puppet(1, "s")
    p.fill(PAGES, 64, 1)
    q.check(PAGES, 64, 1)
    c.coordinator.wait_state("n0", "alive")
    c.coordinator.wait_state("n1", "alive")
    for client in h:
        client.stop()
    c.exact(p)


def test_new_memory_waits_for_the_coordinator(rig):
    c = rig(lease=8000)
    c.space("s", 64 * EXTENT)
    p = c.puppet(0, "s")
    p.fill(0, 1, 1)
    c.coordinator.kill()
    # Far from what was claimed ahead.
    p.start("t", f"fill {40 * PAGES} 4 2")
    wait_faults(p.pid, 1)
    c.coordinator_again()
    assert p.result("t") == "ok"
    q = c.puppet(1, "s")
    q.check(40 * PAGES, 4, 2)
    q.check(0, 1, 1)


def test_without_a_coordinator_the_members_go_on_together(rig):
    """Each prolongs the others' leases, for as long as all of them live."""
    c = rig(nodes=3, lease=LEASE)
    c.space("s", 8 * MIB, bind="interleave")
    first = PAGES - 8
    h = [c.hammer(n, "s", first, 16).go() for n in range(3)]
    for client in h:
        client.progress(200)
    c.coordinator.kill()
    gone = time.monotonic()
    while time.monotonic() < gone + 4 * LEASE / 1000:
        for client in h:
            client.progress(50)
    c.coordinator_again()
    for i in range(3):
        c.coordinator.wait_state(f"n{i}", "alive")
    for client in h:
        client.progress(100)
        client.stop()
    c.exact(c.puppet(1, "s"), first)


def test_without_coordinator_and_one_member_all_are_fenced(rig):
    """Nobody can know any more who acts; so nobody does."""
    c = rig(nodes=3, lease=LEASE)
    c.space("s", 8 * MIB, bind="interleave")
    first = PAGES - 8
    h = [c.hammer(n, "s", first, 16).go() for n in range(3)]
    for client in h:
        client.progress(200)
    c.coordinator.kill()
    c.nodes[2].kill()
    for client in h:
        ended_by_bus(client, r"lease has been over|its node is gone")
    c.tally.no_errors()
