# SPDX-License-Identifier: Apache-2.0
"""
Progress: two nodes that store across the same page boundary, where one
instruction needs both pages at once, take them from each other again and again;
none of them may wait for long.
"""

import os

import pytest

from cluster import EXTENT, rig  # noqa: F401

MILLISECONDS = 2000
LONGEST_NS = 100_000_000  # what is promised
RUNS = 3                  # the machine is not ours alone: the best counts


def real_time(priority):
    """What else runs on this machine shall not be what they wait for."""
    def ask():
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
        except PermissionError:
            pass  # a container: then with the noise
    return ask


def run(cluster, page, kind, nodes=(0, 1)):
    """(stores, longest wait in ns) of each node's client."""
    clients = [cluster.client("boundary", cluster.nodes[n].socket, "s", page,
                              kind, MILLISECONDS, preexec_fn=real_time(1))
               for n in nodes]
    for c in clients:
        assert c.line() == "ready"
    for c in clients:
        c.say("go")
    got = [tuple(map(int, c.line(60).split())) for c in clients]
    for c in clients:
        assert c.wait() == 0
    return got


# A boundary inside an extent; one between two extents with different homes.
@pytest.mark.parametrize("kind,page", [
    ("word", 10), ("movs", 10), ("word", EXTENT // 4096 - 1),
], ids=["word", "movs", "word-two-homes"])
def test_nobody_waits_long_at_a_page_boundary(rig, kind, page):
    c = rig(preexec_fn=real_time(1))
    c.space("s", 2 * EXTENT, bind=[[0, 1, 0], [1, 1, 1]])
    longest = []
    for _ in range(RUNS):
        got = run(c, page, kind)
        assert all(stores > 100 for stores, _ in got), got
        longest.append(max(ns for _, ns in got))
        if longest[-1] <= LONGEST_NS:
            return
    assert min(longest) <= LONGEST_NS, longest
