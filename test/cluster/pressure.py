# SPDX-License-Identifier: Apache-2.0
"""
For tests of nodes whose memory is short: who looks at what they keep, clients
that want more than there is, and what the coordinator has heard of it.
"""

import pathlib
import time

from cluster import MIB, PAGE, Client, threads, wait_for
from test_figures import codes, memory, memfd_bytes  # noqa: F401

LEAST = 64 * MIB  # of --memory
PLAY = 1.02       # what a limit may be exceeded by: design, not noise
ON_ITS_WAY = 0.1  # seconds: a renewal may have been


def resources(c, name):
    return c.coordinator.get(f"/v1/spaces/{name}")["pages"]


def evicted(c, name):
    """Pages of a space that nodes have sent away and not taken back."""
    return resources(c, name)["evicted"]


def heard(node):
    """What a node says of its memory, in a renewal that it sent after now."""
    start = time.monotonic()

    def later():
        show = node.show()
        ago = show["lease_age_ms"] / 1000 + ON_ITS_WAY
        return show if ago < time.monotonic() - start else None

    return wait_for(later)["memory"]


def sanitized(node):
    """Its anonymous memory is the sanitizer's more than its own."""
    maps = pathlib.Path(f"/proc/{node.pid}/maps").read_text()
    return "libasan" in maps or "libtsan" in maps


def capacity(c):
    """Bytes that all nodes together can hold for good."""
    return sum(memory(n)["capacity_bytes"] for n in c.nodes)


class Gauge:
    """
    src/gauge.c looks at nodes every 10 ms; leaving the block asserts that none
    of them ever kept more than its --memory.

	with Gauge(c, c.nodes):
	    ...
    """

    def __init__(self, cluster, nodes, limit=LEAST, samples=20):
        self.cluster, self.nodes = cluster, list(nodes)
        self.limit, self.samples = limit, samples
        self.client = cluster.client("gauge", *(n.pid for n in self.nodes))

    def __enter__(self):
        self.client.say("begin")
        assert self.client.line() == "begun"
        return self

    def __exit__(self, kind, *rest):
        if kind is None:
            self.end()

    def end(self):
        # A directory grows with what is touched first: what the overhead is
        # now it was when there was most.
        overhead = [heard(n)["overhead_bytes"] for n in self.nodes]
        self.client.say("end")
        got = list(map(int, self.client.line().split()))
        assert self.client.end() == 0
        for i, node in enumerate(self.nodes):
            samples, memfds, together, rss = got[4 * i:4 * i + 4]
            print(f"{node.name}: {samples} samples, at most "
                  f"{memfds / MIB:.2f} MiB in memfds, with RssAnon less "
                  f"overhead {(together - overhead[i]) / MIB:.2f} of "
                  f"{self.limit / MIB:.0f}; RSS {rss / MIB:.2f}")
            assert samples >= self.samples
            assert memfds <= self.limit
            if not sanitized(node):
                assert together - overhead[i] <= PLAY * self.limit


class Roam(Client):
    """src/roam.c: threads that wander over many pages, and check them."""

    def __init__(self, socket, space, first, pages, threads=2, seed=1,
                 **kwargs):
        super().__init__("roam", socket, space, first, pages, threads, seed,
                         **kwargs)
        assert self.line() == "ready"

    def ask(self, order, timeout=60):
        self.say(order)
        return list(map(int, self.line(timeout).split()))

    def go(self):
        self.say("go")
        assert self.line() == "going"
        return self

    def visits(self):
        writes, reads, errors = self.ask("done")
        assert errors == 0, self.errors()
        return writes + reads

    def progress(self, n, timeout=60):
        """Until they have been at `n` pages more."""
        goal = self.visits() + n
        wait_for(lambda: self.visits() >= goal, timeout, every=0.05)

    def stop(self):
        """Writes so far."""
        writes, _, errors = self.ask("stop")
        assert errors == 0, self.errors()
        return writes

    def sum(self):
        versions, errors = self.ask("sum", 120)
        assert errors == 0, self.errors()
        return versions


def roam(c, node, space, pages, first=0, **kwargs):
    client = Roam(c.nodes[node].socket, space, first, pages,
                  folder=c.folder, **kwargs)
    c.clients.append(client)
    return client


def wait_evicted(c, name, pages, timeout=30):
    """Until so many pages of a space have gone."""
    wait_for(lambda: evicted(c, name) >= pages, timeout, every=0.1)


def wait_still(node, timeout=30):
    """Until a node has sent away what it had to: its figures stand still."""
    last = [None, time.monotonic()]

    def still():
        m = heard(node)
        now = (m["resident_bytes"], m["borrowed_bytes"], m["lent_bytes"])
        if now != last[0]:
            last[:] = now, time.monotonic()
        return time.monotonic() - last[1] > 1

    wait_for(still, timeout)


def wakeups(nodes, seconds=5):
    """Of each node: per second and thread."""
    first = {n.name: threads(n.pid) for n in nodes}
    start = time.monotonic()
    time.sleep(seconds)  # what is measured, not what is waited for
    took = time.monotonic() - start
    out = {}
    for n in nodes:
        now = threads(n.pid)
        woken = sum(s - first[n.name].get(tid, (0, 0))[1]
                    for tid, (_, s) in now.items())
        out[n.name] = woken / took / len(now)
    return out


def pages_of(size):
    return size // PAGE
