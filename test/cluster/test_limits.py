# SPDX-License-Identifier: Apache-2.0
"""
Full and bounded things: thousands of threads that wait at once, as many clients
as a node takes, no descriptors.  Nobody waits for ever, nobody spins, and who is
refused hears why.
"""

import os
import pathlib
import resource
import signal
import socket
import time

import pytest

from cluster import (MIB, OLD_KERNEL, PAGE, rig, wait_faults,  # noqa: F401
                     wait_for)

CROWD = 10_000


@pytest.mark.parametrize("shards", [1, 2])
def test_ten_thousand_threads_wait_at_once(rig, shards):
    c = rig(lease=60000, shards=shards)
    c.space("s", CROWD * PAGE, bind="n0")
    home = c.puppet(0, "s")
    home.fill(0, CROWD, 9)
    crowd = c.client("crowd", c.nodes[1].socket, "s", 0, CROWD, 9)
    assert crowd.line(120) == "ready"
    c.nodes[0].signal(signal.SIGSTOP)
    crowd.say("go")
    try:
        # All of them are in the node's hands, none is served.
        wait_faults(crowd.pid, CROWD, 120)
    finally:
        c.nodes[0].signal(signal.SIGCONT)
    assert crowd.line(120) == f"{CROWD} 0"
    assert crowd.wait() == 0


# --- descriptors -------------------------------------------------------------------------


def few(n):
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (n, n))


def cpu_ticks(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1]
    return sum(map(int, fields.split()[11:13]))


def test_a_node_without_descriptors_refuses_and_recovers(rig):
    c = rig(nodes=1)
    c.node("poor", preexec_fn=few(48))
    c.connected()
    c.space("big", 256 * MIB)
    c.space("s", 4 * MIB)
    # 64 userfaultfds are too many for it; the reason says so.
    why = c.puppet_refused(1, "big", "EMFILE")
    assert "too few descriptors" in why
    # As are so many connections; it waits, and does not spin.
    pid = c.nodes[1].pid
    idle = []
    for _ in range(60):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        idle.append(s)
        wait_for(lambda: s.connect_ex(str(c.nodes[1].socket)) == 0)
    wait_for(lambda: len(os.listdir(f"/proc/{pid}/fd")) == 48)
    before = cpu_ticks(pid)
    time.sleep(1)  # what is measured, not what is waited for
    assert cpu_ticks(pid) - before < os.sysconf("SC_CLK_TCK") / 4
    for s in idle:
        s.close()
    p = c.puppet(1, "s")
    p.fill(0, 8, 1)
    q = c.puppet(0, "s")
    q.check(0, 8, 1)


def test_a_client_without_descriptors_is_told(rig):
    c = rig(nodes=1, memory="512M")
    c.space("big", 256 * MIB)
    p = c.client("puppet", preexec_fn=few(40))
    assert p.line() == "- ready"
    p.say(f"attach {c.nodes[0].socket} big")
    got = p.line()
    assert got.startswith("- EMFILE") and "ulimit -n" in got
    # And the node has kept nothing of it.
    wait_for(lambda: c.nodes[0].show()["clients"] == 0)
    q = c.puppet(0, "big")
    q.fill(0, 8, 1)


# --- clients -----------------------------------------------------------------------------


def test_as_many_clients_as_a_node_takes_of_a_space(rig):
    c = rig()
    c.space("s", 4 * MIB)
    p = [c.puppet(0, "s") for _ in range(64)]
    why = c.puppet_refused(0, "s", "ENOMEM")
    assert "64" in why
    far = c.puppet(1, "s")
    far.fill(0, 4, 1)
    for client in p:
        client.check(0, 4, 1)
    for k in range(3):
        # All of them map the page, and all of them must let go of it.
        far.fill(0, 4, k + 2)
        for client in p:
            client.check(0, 4, k + 2)
        p[20 * k].fill(0, 4, k + 12)
        far.check(0, 4, k + 12)
    assert p[7].end() == 0
    wait_for(lambda: c.nodes[0].show()["clients"] == 63)
    c.puppet(0, "s").check(0, 4, 14)


# --- memory ------------------------------------------------------------------------------


def test_pages_whose_home_died_are_not_in_the_way_of_others(rig):
    """They cannot go, for their home must be asked; whoever else can, goes."""
    c = rig(nodes=0, lease=1000)
    for name, memory in ("home", "256M"), ("small", "64M"), ("room", "512M"):
        c.node(name, memory=memory)
    c.connected()
    c.space("s", 32 * MIB, bind="home")
    c.space("t", 64 * MIB, bind="room")
    s, t = c.puppet(1, "s"), c.puppet(1, "t")
    s.fill(0, 6000, 1)
    # Some are asked about when their home dies, some rest.
    c.nodes[0].signal(signal.SIGSTOP)
    t.start("w", f"fill 0 {16384} 2")
    wait_for(lambda: c.nodes[0].show()["state"] == "dead")
    c.nodes[0].kill()
    assert t.result("w", 60) == "ok"
    t.check(0, 16384, 2)
    s.check(0, 6000, 1)


def test_pages_whose_home_came_back_empty_are_no_sign_that_all_is_full(rig):
    """Who is home again does not know them; that says nothing of its room."""
    c = rig(nodes=0, lease=1000)
    for name, memory in ("home", "256M"), ("small", "64M"), ("room", "512M"):
        c.node(name, memory=memory)
    c.connected()
    c.space("s", 32 * MIB, bind="home")
    c.space("t", 64 * MIB, bind="room")
    s, t = c.puppet(1, "s"), c.puppet(1, "t")
    s.fill(0, 6000, 1)
    c.nodes[0].kill()
    wait_for(lambda: c.nodes[0].show()["state"] == "dead")
    c.node("home", memory="256M")
    c.connected()
    for k in range(2, 5):
        t.fill(0, 16384, k)
        t.check(0, 16384, k)
    s.check(0, 6000, 1)
    assert c.nodes[1].show()["memory"]["refused"] == 0


def test_a_client_that_comes_while_pages_are_staged_writes_nothing_unseen(rig):
    """Where the kernel maps by itself what is there, it needs a marker."""
    c = rig(nodes=0, env=OLD_KERNEL)
    for name, memory in ("home", "256M"), ("small", "64M"):
        c.node(name, memory=memory, env=OLD_KERNEL)
    c.connected()
    c.space("s", 64 * MIB, bind="home")
    first = c.puppet(1, "s")
    # As much as makes it stage some, the first ones, and send none away.
    n = c.nodes[1].show()["memory"]["capacity_bytes"] // PAGE + 40
    first.fill(0, n, 1)
    second = c.puppet(1, "s")
    far = c.puppet(0, "s")
    far.check(0, n, 1)
    first.check(0, 200, 1)
    second.fill(0, 200, 2)
    far.check(0, 200, 2)


def test_pages_held_for_a_peer_are_nobody_s_until_they_are_touched(rig):
    c = rig(nodes=0)
    for name, memory in ("small", "64M"), ("room", "256M"):
        c.node(name, memory=memory)
    c.connected()
    c.space("s", 80 * MIB, bind="small")
    n = 18000
    client = c.puppet(1, "s")  # it maps the space, but no page
    c.puppet(0, "s").fill(0, n, 1)
    lent = lambda: c.nodes[1].show()["memory"]["lent_bytes"]  # noqa: E731
    wait_for(lambda: lent() > 2000 * PAGE)
    client.check(0, n, 1)
    wait_for(lambda: lent() == 0)
