# SPDX-License-Identifier: Apache-2.0
"""
Whole clusters, and clients of them.

	def test_it(rig):
	    c = rig(nodes=2, lease=500)     a coordinator, nodes "n0" and "n1"
	    c.space("s", 16 * MIB, bind="interleave")
	    p = c.puppet(0, "s")            a client of node 0 that obeys
	    p.ask("fill 0 16 7")            "ok"
	    h = c.hammer(1, "s", pages=8)   a client of node 1 that adds

Clients are the programs of test/cluster/src.  All processes are ended by pid
when the test is over.
"""

import itertools
import mmap
import os
import pathlib
import queue
import re
import signal
import struct
import subprocess
import threading
import time

import pytest

from conftest import BUILD, MIB, program, wait_for  # noqa: F401

EXTENT = 2 * MIB
PAGE = 4096
OLD_KERNEL = {"MEMSPAN_MASK_FEATURES": "minor_wp,poison"}
TALLY_SLOTS, TALLY_PAGES = 64, 64
TALLY = struct.Struct(f"<8Q{TALLY_PAGES}Q")


def tool(name):
    path = BUILD / "test" / "cluster" / name
    if not path.exists():
        pytest.skip(f"{path} is not built")
    return str(path)


# --- looking at processes --------------------------------------------------------


def faults_waiting(pid):
    """
    Threads of `pid` that wait for a page: (all, those whose fault the node has
    not read yet).  The kernel's own count, from its userfaultfds.
    """
    total = unread = 0
    folder = pathlib.Path(f"/proc/{pid}/fdinfo")
    for fd in os.listdir(folder):
        try:
            text = (folder / fd).read_text()
        except OSError:
            continue
        m = re.search(r"^pending:\s*(\d+)\s+total:\s*(\d+)", text, re.M)
        if m:
            unread += int(m.group(1))
            total += int(m.group(2))
    return total, unread


def wait_faults(pid, n, timeout=30):
    """Until `n` threads of `pid` wait for pages, and their node knows."""
    wait_for(lambda: faults_waiting(pid) == (n, 0), timeout)


def threads(pid):
    """{tid: (name, voluntary context switches)}"""
    out = {}
    for tid in os.listdir(f"/proc/{pid}/task"):
        try:
            text = pathlib.Path(f"/proc/{pid}/task/{tid}/status").read_text()
        except OSError:
            continue
        name = re.search(r"^Name:\s*(.*)$", text, re.M).group(1)
        switches = re.search(r"^voluntary_ctxt_switches:\s*(\d+)", text, re.M)
        out[int(tid)] = (name, int(switches.group(1)))
    return out


# --- clients -----------------------------------------------------------------------


class Client:
    """A program of test/cluster/src, spoken to by lines."""

    numbers = itertools.count()

    def __init__(self, name, *argv, folder, before=(), **kwargs):
        """`before`: a command that runs it."""
        self.err = pathlib.Path(folder) / f"{name}-{next(self.numbers)}.err"
        with open(self.err, "wb") as err:
            self.popen = subprocess.Popen(
                [*before, tool(name), *map(str, argv)], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=err, text=True, **kwargs)
        self.pid = self.popen.pid
        self.argv = (name, *argv)
        self.lines = queue.Queue()
        self.ended_at = None
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.popen.stdout:
            self.lines.put(line.rstrip("\n"))
        # The pipe closes when the process has ended: when was that?
        self.ended_at = time.monotonic()
        self.lines.put(None)

    def say(self, line):
        self.popen.stdin.write(line + "\n")
        self.popen.stdin.flush()

    def line(self, timeout=30):
        try:
            got = self.lines.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError(
                f"{self.argv} says nothing for {timeout} s") from None
        if got is None:
            self.lines.put(None)
            raise AssertionError(f"{self.argv} has ended: "
                                 f"{self.popen.wait(5)}: {self.errors()}")
        return got

    def errors(self):
        return self.err.read_text(errors="replace")

    def running(self):
        return self.popen.poll() is None

    def wait(self, timeout=20):
        """Its exit status; minus the signal that ended it."""
        status = self.popen.wait(timeout)
        self.reader.join(5)
        return status

    def end(self, timeout=20):
        """The end of its stdin, and its exit status."""
        try:
            self.popen.stdin.close()
        except BrokenPipeError:
            pass
        return self.wait(timeout)

    def signal(self, number):
        if self.running():
            self.popen.send_signal(number)

    def kill(self):
        self.signal(signal.SIGKILL)
        return self.wait()


class Puppet(Client):
    """src/puppet.c: a client that does what it is told."""

    def __init__(self, *argv, **kwargs):
        super().__init__("puppet", *argv, **kwargs)
        self.waiting = {}
        assert self.result("-", 30) == "ready"

    def result(self, tag, timeout=30):
        end = time.monotonic() + timeout
        while not self.waiting.get(tag):
            got, _, rest = self.line(
                max(0.001, end - time.monotonic())).partition(" ")
            self.waiting.setdefault(got, []).append(rest)
        return self.waiting[tag].pop(0)

    def ask(self, order, timeout=30):
        self.say(order)
        return self.result("-", timeout).strip()

    def ok(self, order, timeout=30):
        got = self.ask(order, timeout)
        assert got == "ok", (order, got)

    def start(self, tag, order):
        """On a thread of its own; returns its tid."""
        self.say(f"@{tag} {order}")
        word, tid = self.result(tag).split()
        assert word == "started"
        return int(tid)

    def fill(self, first, n, seed, timeout=60):
        self.ok(f"fill {first} {n} {seed}", timeout)

    def check(self, first, n, seed, timeout=60):
        self.ok(f"check {first} {n} {seed}", timeout)

    def probe(self, first, n, seed, timeout=60):
        """Pages that read as written, as zeros, as something else, as SIGBUS."""
        got = self.ask(f"probe {first} {n} {seed}", timeout).split()
        return dict(zip(("good", "zero", "other", "lost"), map(int, got)))


class Stranger(Client):
    """src/stranger.c, by `memspan run`: a program of somebody else's."""

    def __init__(self, *run, **kwargs):
        super().__init__("stranger", before=run, **kwargs)
        assert self.line() == "ready"

    def ask(self, order, timeout=30):
        self.say(order)
        return self.line(timeout)

    def ok(self, order, timeout=30):
        got = self.ask(order, timeout)
        assert got == "ok", (order, got, self.errors())

    def number(self, order, timeout=30):
        got = self.ask(order, timeout)
        assert got.isdecimal(), (order, got, self.errors())
        return int(got)

    def map(self, size, offset=0, how="rws", at=0, fd=200):
        """Its address."""
        return self.number(f"map {fd} {offset} {size} {how} {at}")

    def descriptors(self):
        return set(os.listdir(f"/proc/{self.pid}/fd"))

    def refused(self, order, error, says):
        """With that errno, and a message that says why."""
        got = self.ask(order)
        assert got == error, (order, got, self.errors())
        assert re.search(says, self.errors()), (order, self.errors())


class Hammer(Client):
    """src/hammer.c: adds to counters, and keeps a tally of it."""

    def __init__(self, socket, space, tally, first, pages, threads, slot,
                 seed, **kwargs):
        self.tally, self.slots = tally, range(slot, slot + threads)
        super().__init__("hammer", socket, space, tally.path, first, pages,
                         threads, slot, seed, **kwargs)
        assert self.line() == "ready"

    def go(self):
        self.say("go")
        return self

    def done(self):
        return sum(self.tally.slot(i)["done"] for i in self.slots)

    def progress(self, n=100, timeout=30):
        """Until it has added `n` times more."""
        goal = self.done() + n

        def there():
            assert self.running(), (self.wait(), self.errors())
            return self.done() >= goal

        wait_for(there, timeout)

    def stop(self, timeout=60):
        self.say("stop")
        assert self.line(timeout) == "stopped"
        assert self.end() == 0


class Tally:
    """The file in which hammers note what they did."""

    def __init__(self, path):
        self.path = str(path)
        size = TALLY.size * TALLY_SLOTS
        with open(self.path, "wb") as f:
            f.truncate(size)
        with open(self.path, "r+b") as f:
            self.map = mmap.mmap(f.fileno(), size)

    def slot(self, i):
        v = TALLY.unpack_from(self.map, i * TALLY.size)
        return {"begun": v[0], "done": v[1], "errors": v[2], "reads": v[3],
                "bad": {"page": v[4], "got": v[5], "want": v[6]},
                "pages": v[8:]}

    def no_errors(self):
        for i in range(TALLY_SLOTS):
            s = self.slot(i)
            assert s["errors"] == 0, (i, s["errors"], s["bad"])


# --- clusters --------------------------------------------------------------------


class Cluster:
    def __init__(self, coordinator, folder):
        self.coordinator = coordinator
        self.folder = pathlib.Path(folder)
        self.nodes, self.clients = [], []
        self.free_slot = 0
        self._tally = None

    # Parts.

    def node(self, name=None, shards=1, args=(), env=None, **kwargs):
        node = self.coordinator.node(
            name or f"n{len(self.nodes)}",
            args=("--shards", str(shards), *args),
            env={**os.environ, **(env or {})}, **kwargs)
        if kwargs.get("wait", True):
            wait_for(node.socket.exists)  # a moment after its first lease
        self.nodes.append(node)
        return node

    def connected(self):
        """Until every living node reaches every other."""
        alive = [n for n in self.nodes if n.process.running()]
        ids = {n.id for n in alive}
        wait_for(lambda: all(n.connected() >= ids - {n.id} for n in alive))
        return self

    def space(self, name, size=16 * MIB, **fields):
        return self.coordinator.space(name, size, **fields)

    def coordinator_again(self):
        """Start it after kill(), on the ports that the nodes remember."""
        c = self.coordinator
        c.start(ports=(c.http_port, int(c.node_port().rsplit(":", 1)[1])))

    def _keep(self, client):
        self.clients.append(client)
        return client

    def puppet(self, node, space, **kwargs):
        return self._keep(Puppet(self.nodes[node].socket, space,
                                 folder=self.folder, **kwargs))

    def puppet_refused(self, node, space, error):
        """It cannot attach, with `error`; returns the reason it is given."""
        p = self._keep(Puppet(folder=self.folder))
        got, _, why = p.ask(
            f"attach {self.nodes[node].socket} {space}").partition(" ")
        assert got == error, (got, why)
        assert p.end() == 0
        return why

    def client(self, program, *argv, **kwargs):
        return self._keep(Client(program, *argv, folder=self.folder, **kwargs))

    def run(self, node, *spaces):
        """`memspan run` of these spaces on that node, without a command."""
        return [program("memspan"), "run", "--run-dir",
                str(self.coordinator.run_dir), "--node",
                str(self.nodes[node].id),
                *(w for s in spaces for w in ("--space", s)), "--"]

    def stranger(self, node, *spaces, **kwargs):
        return self._keep(Stranger(*self.run(node, *spaces),
                                   folder=self.folder, **kwargs))

    @property
    def tally(self):
        if not self._tally:
            self._tally = Tally(self.folder / "tally")
        return self._tally

    def hammer(self, node, space, first=0, pages=16, threads=1, **kwargs):
        slot = self.free_slot
        self.free_slot += threads
        return self._keep(Hammer(self.nodes[node].socket, space, self.tally,
                                 first, pages, threads, slot, slot + 1,
                                 folder=self.folder, **kwargs))

    # What must hold.

    def exact(self, puppet, first=0, pages=16, killed=()):
        """
        Every counter is the sum of what the hammers did to it.  A client that
        was killed may have added once without having noted it, per thread.
        """
        unsure = {s for h in killed for s in h.slots}
        self.tally.no_errors()
        slots = [self.tally.slot(i) for i in range(TALLY_SLOTS)]
        total = 0
        for p in range(pages):
            want = sum(s["pages"][p] for s in slots)
            got = int(puppet.ask(f"peek {first + p}"))
            assert want <= got <= want + len(unsure), (
                f"page {first + p}: {got} additions, {want} were made")
            total += got
        assert total <= sum(s["begun"] for s in slots)

    def close(self):
        for c in self.clients:
            if c.running():
                c.signal(signal.SIGCONT)
                c.kill()


@pytest.fixture
def rig(coordinators, tmp_path, root, request):
    """rig(nodes=, shards=, lease=, env=, ...) starts a cluster."""
    made = []

    def make(nodes=2, shards=1, lease=None, env=None, memory="256M",
             coordinator_args=(), **kwargs):
        args = list(coordinator_args)
        if lease:
            args += ["--lease", str(lease)]
        c = Cluster(coordinators(*args), tmp_path)
        made.append(c)
        for i in range(nodes):
            n = shards[i] if isinstance(shards, (list, tuple)) else shards
            c.node(shards=n, env=env, memory=memory, **kwargs)
        return c.connected()

    yield make
    for c in made:
        c.close()
    if getattr(request.node, "failed", False):
        for err in sorted(tmp_path.glob("*.err")):
            if err.stat().st_size:
                print(f"--- {err.name}\n{err.read_text()[-2000:]}")
