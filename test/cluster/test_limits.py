# SPDX-License-Identifier: Apache-2.0
"""
Full and bounded things: thousands of threads that wait at once, as many clients
as a node takes, a memory group that is too small, a client that does not listen.
"""

import os
import pathlib
import signal

import pytest

from cluster import (MIB, PAGE, faults_waiting, rig,  # noqa: F401
                     wait_faults, wait_for)

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
