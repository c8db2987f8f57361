# SPDX-License-Identifier: Apache-2.0
"""
Whole guests whose memory is a space: what they write is what they read, over
nearly all their memory, wherever its pages are.
"""

import hashlib
import json
import os
import re
import signal
import socket

import pytest

from cluster import rig  # noqa: F401
from conftest import MIB
from guests import (LEAVE_MIB, faults, guest_cluster, guests,  # noqa: F401
                    kernel, memtest, wait_for, written_pages)


@pytest.mark.parametrize("ratio", [1, 4, 16])
def test_a_guest_larger_than_its_node(rig, guests, ratio):
    """Its node has 1/ratio of its memory, and at least the smallest allowed;
    two memory servers without clients have the rest."""
    ram = max(256, 64 * ratio)
    c = guest_cluster(rig, [f"{ram // ratio}M", f"{ram}M", f"{ram}M"])
    g = guests.boot(c, ram)
    guests.checked(g.wait(600), ram)
    guests.no_space_left(c)
    wait_for(lambda: faults(c, 0, "first_touch") > 0)
    if ratio > 1:
        wait_for(lambda: faults(c, 0, "refault", "remote_read",
                                "remote_write") > 0)


def test_two_guests_at_once_on_two_nodes(rig, guests):
    c = guest_cluster(rig, ["256M", "256M", "256M"])
    two = [guests.boot(c, 192, node=n, seed=7 + n) for n in (0, 1)]
    for g in two:
        guests.checked(g.wait(600), 192)
    guests.no_space_left(c)


def test_two_guests_share_small_nodes(rig, guests):
    """Each on a node of a quarter of its memory; a third node only lends, and
    the two hold pages for each other, too."""
    c = guest_cluster(rig, ["64M"] * 2 + ["512M"])
    two = [guests.boot(c, 256, node=n, seed=7 + n) for n in (0, 1)]
    for g in two:
        guests.checked(g.wait(900), 256)
    guests.no_space_left(c)


def test_memory_that_another_node_takes_away_all_the_time(rig, guests):
    """
    All pages have their home on the other node, and a client there takes each
    of them for itself, again and again, while the guest boots and checks them.
    """
    ram = 192
    c = guest_cluster(rig, ["256M", "256M"])
    c.space("ram", ram * MIB, bind="n1")
    stir = c.client("stir", c.nodes[1].socket, "ram", 5)
    assert stir.line() == "ready"
    g = guests.boot(c, ram, options=["--space", "ram"])
    # Not while the firmware still counts what it has.
    wait_for(lambda: g.said() or g.process.poll() is not None, 240)
    passes, pages = 0, ram * MIB // 4096
    while g.process.poll() is None and passes < 100:
        stir.say(f"pass {pages}")
        assert stir.line(300) == f"passed {pages}"
        passes += 1
    guests.checked(g.wait(600), ram)
    assert passes > 0
    wait_for(lambda: faults(c, 0, "remote_read", "remote_write") >
             pages // 4)
    assert stir.end() == 0
    # A space that was there before stays.
    assert written_pages(c, "ram") > 0


# --- what devices read and write ---------------------------------------------------


COPY = """
sha256sum /dev/vda
dd if=/dev/vda of=/dev/vdb bs=1M iflag=direct oflag=direct 2>/dev/null
"""


@pytest.mark.parametrize("aio", ["threads", "io_uring"])
def test_disks_are_read_into_and_written_from_a_space(rig, guests, tmp_path,
                                                      aio):
    """
    QEMU's threads, and the kernel for them, touch guest pages too, while a
    client of the other node, which is home of them all, takes them away.
    """
    ram, disk = 128, 24 * MIB
    c = guest_cluster(rig, ["256M", "256M"])
    c.space("ram", ram * MIB, bind="n1")
    stir = c.client("stir", c.nodes[1].socket, "ram", 7)
    assert stir.line() == "ready"
    (tmp_path / "a").write_bytes(os.urandom(disk))
    (tmp_path / "b").write_bytes(bytes(disk))
    g = guests.boot(
        c, ram, script=COPY, modules=["virtio_pci", "virtio_blk"],
        options=["--space", "ram"], arguments=[
            "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny",
            *(word for d in "ab" for word in (
                "-drive", f"file={tmp_path}/{d},if=virtio,format=raw,"
                f"aio={aio}"))])
    wait_for(lambda: g.said() or g.process.poll() is not None, 240)
    while g.process.poll() is None:
        stir.say("pass 2000")
        assert stir.line(120) == "passed 2000"
    result = g.wait()
    assert result.status == 0 and result.exit_status == 0, result.text()
    want = (tmp_path / "a").read_bytes()
    assert hashlib.sha256(want).hexdigest() in result.output, result.text()
    assert (tmp_path / "b").read_bytes() == want


# --- NUMA --------------------------------------------------------------------------

NODES = """
dmesg | grep -E 'ACPI: (SRAT|SLIT|HMAT)' >/tmp/acpi
grep -c -E 'ACPI: (SRAT|SLIT|HMAT) 0x' /tmp/acpi
for n in /sys/devices/system/node/node*; do
    echo "$(basename $n) cpus=$(cat $n/cpulist) distance=$(cat $n/distance) \
latency=$(cat $n/access0/initiators/read_latency 2>/dev/null) \
kib=$(awk '/MemTotal/ { print $4 }' $n/meminfo)"
done
"""


def nodes_of(result):
    """{node: (cpus, distances, latency, MiB)} as the guest's kernel sees it."""
    assert result.status == 0, result.text()
    return {int(m[0]): (m[1], m[2], m[3], int(m[4]) // 1024)
            for m in re.findall(
                r"^node(\d+) cpus=(\S*) distance=([\d ]+) latency=(\d*) "
                r"kib=(\d+)$", result.output, re.M)}


def test_the_guest_is_told_where_its_memory_is_bound(rig, guests):
    c = guest_cluster(rig, ["512M", "512M"])
    c.space("ram", 256 * MIB, bind=[
        {"first_bytes": 0, "last_bytes": 96 * MIB, "node": 1},
        {"first_bytes": 96 * MIB, "last_bytes": 256 * MIB, "node": 0}])
    result = guests.boot(c, 256, script=NODES, cpus=2,
                         options=["--space", "ram", "--numa"]).wait()
    nodes = nodes_of(result)
    assert result.output.startswith("3\n"), result.text()
    assert set(nodes) == {0, 1}
    # The processors, whose node Linux numbers first, are with the memory that
    # is bound here, though it lies behind the other.
    assert nodes[0][:3] == ("0-1", "10 40", "100")
    assert nodes[1][:3] == ("", "40 10", "60000")
    assert nodes[1][3] < 96 < 120 < nodes[0][3] <= 160


def test_a_new_space_is_bound_in_equal_parts(rig, guests):
    c = guest_cluster(rig, ["512M", "512M"])
    result = guests.boot(
        c, 256, node=1, script=NODES, options=["--numa"],
        arguments=["-machine", "q35"]).wait()
    nodes = nodes_of(result)
    assert nodes[0][:2] == ("0", "10 40")
    assert nodes[1][:2] == ("", "40 10")
    assert nodes[1][3] < 128
    guests.no_space_left(c)


def test_processors_without_memory_of_their_own(rig, guests):
    c = guest_cluster(rig, ["256M", "256M"])
    c.space("ram", 192 * MIB, bind="n1")
    nodes = nodes_of(guests.boot(c, 192, script=NODES,
                                 options=["--space", "ram", "--numa"]).wait())
    assert nodes[0][0] == "0" and nodes[0][3] == 0
    assert nodes[1][0] == "" and nodes[1][3] > 100


# --- memory that is given back -------------------------------------------------------


class Monitor:
    """QEMU's, in its machine's protocol."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(str(path))
        self.file = self.sock.makefile("r")
        self.read()
        self.ask("qmp_capabilities")

    def read(self):
        return json.loads(self.file.readline())

    def ask(self, command, **arguments):
        self.sock.sendall(json.dumps(
            {"execute": command, "arguments": arguments}).encode() + b"\n")
        while True:
            got = self.read()
            if "event" not in got:
                return got["return"]


BALLOON = ["virtio_pci", "virtio_balloon"]
WRITE_AND_STAY = f"memory-check 3 {LEAVE_MIB}; echo written; sleep 100000"


def test_a_balloon_gives_pages_back(rig, guests, tmp_path):
    ram = 256
    c = guest_cluster(rig, ["512M", "256M"])
    c.space("ram", ram * MIB)
    g = guests.boot(
        c, ram, script=WRITE_AND_STAY, modules=BALLOON,
        options=["--space", "ram"],
        arguments=["-device", "virtio-balloon-pci",
                   "-qmp", f"unix:{tmp_path}/qmp,server=on,wait=off"])
    wait_for(lambda: "written" in g.said(), 300)
    before = wait_for(lambda: written_pages(c, "ram"))
    monitor = Monitor(tmp_path / "qmp")
    monitor.ask("balloon", value=160 * MIB)
    wait_for(lambda: monitor.ask("query-balloon")["actual"] == 160 * MIB, 120)
    # What the balloon holds is nobody's any more, on any node.
    given = (ram - 160) * MIB // 4096
    wait_for(lambda: written_pages(c, "ram") <= before - given * 9 // 10, 60)
    # And back: they come as zeros, and the guest still runs.
    monitor.ask("balloon", value=ram * MIB)
    wait_for(lambda: monitor.ask("query-balloon")["actual"] == ram * MIB, 120)
    # SIGTERM is passed on, and QEMU ends well.
    g.process.send_signal(signal.SIGTERM)
    assert g.process.wait(30) == 0


def test_free_pages_are_reported_and_given_back(rig, guests):
    ram = 256
    c = guest_cluster(rig, ["512M", "256M"])
    c.space("ram", ram * MIB)
    g = guests.boot(
        c, ram, script=WRITE_AND_STAY, modules=BALLOON,
        options=["--space", "ram"],
        arguments=["-device", "virtio-balloon-pci,free-page-reporting=on"])
    wait_for(lambda: "written" in g.said(), 300)
    # All that memory-check had is free again, and reported by and by.
    wait_for(lambda: written_pages(c, "ram") < ram * MIB // 4096 // 2, 120)
    g.process.send_signal(signal.SIGTERM)
    assert g.process.wait(30) == 0


# --- memtest86+ ----------------------------------------------------------------------


def test_memtest86_finds_no_error(rig, guests):
    """
    Its nine pattern tests, over all of a small guest's memory.  What is left
    of a pass is a test that waits, whose turn shows that they are done.  (It
    shows tests as it finds time, so not each of them is seen.)
    """
    c = guest_cluster(rig, ["64M", "64M"])
    g = memtest(guests, c, "--memory", "32M")

    def waits():
        assert g.process.poll() is None, g.end().text()
        return re.search(r"#10 \[Bit fade", g.said()) and g.said()

    seen = wait_for(waits, 400, 0.5)
    assert len(set(re.findall(r"#(\d) +\[", seen))) >= 3, seen
    assert set(re.findall(r"Errors: *(\d+)", seen)) == {"0"}
    g.process.send_signal(signal.SIGTERM)
    assert g.process.wait(30) == 0
    guests.no_space_left(c)


def test_memtest86_in_a_quarter_of_its_memory(rig, guests):
    """For as long as all of its memory has come and gone once; a whole
    pass is in test/lab."""
    c = guest_cluster(rig, ["64M", "256M", "256M"])
    g = memtest(guests, c, "--memory", "256M")
    pages = 256 * MIB // 4096

    def swept():
        assert g.process.poll() is None, g.end().text()
        return (faults(c, 0, "remote_read", "remote_write") > pages and
                re.search(r"Errors: *\d", g.said()))

    wait_for(swept, 400, 0.5)
    assert set(re.findall(r"Errors: *(\d+)", g.said())) == {"0"}
    g.process.send_signal(signal.SIGTERM)
    assert g.process.wait(30) == 0
    guests.no_space_left(c)

