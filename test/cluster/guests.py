# SPDX-License-Identifier: Apache-2.0
"""
Guests whose memory is a space, on clusters of these tests.

	def test_it(rig, guests):
	    c = guest_cluster(rig, ["256M", "1G"])     the nodes' --memory
	    g = guests.boot(c, 256)                    a guest of 256 MiB on node 0
	    guests.checked(g.wait(), 256)              it checked its memory

They are booted by `memspan vm`, run by QEMU without KVM, and check their memory
with test/vm/src/memory-check.c.  What is printed and how it ends is read by
test/vm/guest.py.
"""

import pathlib
import re
import subprocess
import sys

import pytest

from conftest import BUILD, REPO, wait_for

sys.path.insert(0, str(REPO / "test" / "vm"))
import guest  # noqa: E402  (the path is set above)

MIB = 1 << 20
# A guest under emulation may hold all processors for moments.
LEASE_MS = 20000
# What memory-check leaves free; the kernel would keep 44 MiB of 1 GiB besides.
LEAVE_MIB = 12
CHECK = """
echo 4096 >/proc/sys/vm/min_free_kbytes
memory-check %d %d %d
"""


def guest_cluster(rig, memories, **kwargs):
    """A cluster whose nodes n0, n1 ... have these --memory."""
    kwargs.setdefault("lease", LEASE_MS)
    c = rig(nodes=0, **kwargs)
    for memory in memories:
        c.node(memory=memory)
    return c.connected()


def vm_command(cluster, *words, node=0):
    """`memspan vm` on a node of a cluster; `words` come behind its options."""
    return [str(BUILD / "memspan"), "vm",
            "--coordinator", cluster.coordinator.url,
            "--run-dir", str(cluster.coordinator.run_dir),
            "--node", str(cluster.nodes[node].id), *map(str, words)]


def faults(cluster, node, *kinds):
    """The sum of a node's counters of these kinds of faults."""
    counted = cluster.nodes[node].show()["faults"]
    return sum(counted[k] for k in kinds)


def written_pages(cluster, space):
    return cluster.coordinator.get(f"/v1/spaces/{space}")["pages"]["written"]


class Guests:
    """Boots guests, and ends what a test leaves."""

    def __init__(self, kernel, folder):
        self.kernel, self.folder = kernel, pathlib.Path(folder)
        self.running = []

    def place(self):
        where = self.folder / f"guest{len(self.running)}"
        where.mkdir()
        return where

    def initrd(self, where, script, modules=()):
        program = BUILD / "test" / "vm" / "memory-check"
        assert program.exists(), f"{program} is not built"
        return guest.make_initrd(self.kernel,
                                 {"/usr/bin/memory-check": program},
                                 script, where, modules)

    def boot(self, cluster, ram_mb, node=0, script=None, seed=1, rounds=1,
             options=(), arguments=(), cpus=1, modules=()):
        """
        A guest of `ram_mb` MiB on a node of the cluster, which runs `script`
        (without one, memory-check), under `memspan vm` with `options`, with
        these `arguments` of QEMU's besides.
        """
        where = self.place()
        initrd = self.initrd(
            where, script or CHECK % (seed, LEAVE_MIB, rounds), modules)
        return self.start(
            vm_command(cluster, *options, "--",
                       *guest.qemu_arguments(self.kernel, initrd, where,
                                             ram_mb, cpus), *arguments,
                       node=node), where)

    def start(self, command, where, **kwargs):
        running = guest.Running(command, where, **kwargs)
        self.running.append(running)
        return running

    def checked(self, result, ram_mb):
        """A guest checked nearly all its memory, and turned itself off."""
        m = re.search(r"^memory-check ok pages=(\d+) errors=0$",
                      result.output, re.M)
        assert m and result.status == 0, result.text()
        assert result.exit_status == 0, result.text()
        # The rest is the kernel, what it booted from, and what was left free.
        least = ram_mb * 9 // 10 - 72
        assert int(m.group(1)) * 4096 >= least * MIB, result.text()

    def no_space_left(self, cluster):
        """What `memspan vm` makes it deletes."""
        assert [s["name"] for s in cluster.coordinator.get("/v1/spaces")
                if s["name"].startswith("vm-")] == []

    def close(self):
        for running in self.running:
            # So that `memspan vm` deletes its space; who is stuck is killed.
            running.process.terminate()
            try:
                running.process.wait(20)
            except subprocess.TimeoutExpired:
                pass
            running.end()


def memtest(guests, cluster, *options):
    """memtest86+ in a guest on node 0, by `memspan vm` with `options`."""
    try:
        image = guest.cached_memtest()
    except guest.NoPackage as e:
        pytest.fail(str(e), pytrace=False)
    where = guests.place()
    return guests.start(vm_command(
        cluster, *options, "--", "-accel", "tcg", "-nodefaults", "-display",
        "none", "-no-reboot", "-serial", f"file:{where}/output", "-kernel",
        image, "-append", "console=ttyS0,115200 nosmp nobench nosm nopause"),
        where)


@pytest.fixture(scope="session")
def kernel():
    """Linux 6.1 of Debian 12."""
    reason = guest.possible()
    if reason:
        pytest.skip(reason)
    try:
        return guest.cached_kernel("6.1")
    except guest.NoPackage as e:
        pytest.fail(str(e), pytrace=False)


@pytest.fixture
def guests(kernel, tmp_path, root):
    made = Guests(kernel, tmp_path)
    yield made
    made.close()


__all__ = ["CHECK", "LEAVE_MIB", "faults", "guest", "guest_cluster", "guests",
           "kernel", "memtest", "vm_command", "wait_for", "written_pages"]
