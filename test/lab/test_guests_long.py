# SPDX-License-Identifier: Apache-2.0
"""
What test/cluster/test_guests.py does, with more memory and for longer: whole
passes of memtest86+, and several rounds over a guest of 1 GiB.
"""

import re
import signal

import pytest

from cluster import MIB, rig  # noqa: F401
from guests import (faults, guest_cluster, guests,  # noqa: F401
                    kernel, memtest, wait_for)


def whole_pass(g, seconds):
    """memtest86+ has done all its tests once, and found nothing."""
    def passed():
        assert g.process.poll() is None, g.end().text()
        return re.search(r"Pass: *[1-9]", g.said())

    wait_for(passed, seconds, 1)
    assert set(re.findall(r"Errors: *(\d+)", g.said())) == {"0"}
    g.process.send_signal(signal.SIGTERM)
    assert g.process.wait(30) == 0


@pytest.mark.parametrize("memory", ["64M", "128M"])
def test_a_whole_pass_of_memtest86(rig, guests, memory):
    """Half of its memory has its home on the other node."""
    c = guest_cluster(rig, ["256M", "256M"])
    c.space("ram", int(memory[:-1]) * MIB, bind="interleave")
    whole_pass(memtest(guests, c, "--space", "ram"), 2400)


def test_a_whole_pass_of_memtest86_in_a_quarter_of_its_memory(rig, guests):
    """The rest is always at two memory servers."""
    c = guest_cluster(rig, ["64M", "256M", "256M"])
    whole_pass(memtest(guests, c, "--memory", "256M"), 5400)


@pytest.mark.parametrize("ratio", [2, 16])
def test_a_guest_much_larger_than_its_node(rig, guests, ratio):
    """As test/cluster/test_guests.py has it for a quarter."""
    ram = 64 * max(ratio, 4)
    c = guest_cluster(rig, [f"{ram // ratio}M", f"{ram}M", f"{ram}M"])
    g = guests.boot(c, ram, rounds=2)
    guests.checked(g.wait(2400), ram)
    guests.no_space_left(c)


def test_a_guest_of_1_gib_three_rounds_with_two_processors(rig, guests):
    c = guest_cluster(rig, ["1G", "1G"])
    g = guests.boot(c, 1024, rounds=3, cpus=2)
    guests.checked(g.wait(1800), 1024)
    guests.no_space_left(c)


def test_memory_that_another_node_takes_away_for_long(rig, guests):
    ram = 512
    c = guest_cluster(rig, ["512M", "512M"])
    c.space("ram", ram * MIB, bind="n1")
    stir = c.client("stir", c.nodes[1].socket, "ram", 9)
    assert stir.line() == "ready"
    g = guests.boot(c, ram, rounds=2, options=["--space", "ram"], cpus=2)
    passes, pages = 0, ram * MIB // 4096
    while g.process.poll() is None and passes < 1000:
        stir.say(f"pass {pages}")
        assert stir.line(600) == f"passed {pages}"
        passes += 1
    guests.checked(g.wait(2400), ram)
    wait_for(lambda: faults(c, 0, "remote_read", "remote_write") >
             pages)
