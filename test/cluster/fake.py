# SPDX-License-Identifier: Apache-2.0
"""
A node of Python: registers, keeps its lease, claims extents, answers questions.

It holds no pages.  A thread of its own reads the link and answers what nodes
answer by themselves; the test talks through the methods below.
"""

import json
import queue
import socket
import threading
import time

import wire


class FakeNode:
    def __init__(self, coordinator, name, memory=1 << 30, shards=1,
                 endpoint=None, join=True, link=True, renew=True):
        self.coordinator, self.name = coordinator, name
        self.shards, self.renewing = shards, renew
        self.memory, self.endpoint = memory, endpoint or "127.0.0.1:50051"
        self.figures = {}       # added to the LEASE document
        self.clients = {}       # space id: number, for SPACE_DROP
        self.on_query = None    # document -> document
        self.silent = set()     # types of message that it does not answer
        self.spaces = {}        # id: document, as told
        self.dropping = set()   # ids that may take no new client
        self.members = {}       # as last told
        self.epoch = 0
        self.refused = None     # the last word, if we were turned away
        self.lease_ns = None
        self.link = self.thread = None
        self.register()
        if link:
            self.connect()
            if join:
                self.renew()

    # Life.

    def register(self, expect=201):
        self.registration = self.coordinator.post("/v1/nodes", {
            "name": self.name, "memory_bytes": self.memory,
            "endpoint": self.endpoint, "protocol": 1}, expect)
        self.id = self.registration.get("id")
        self.incarnation = self.registration.get("incarnation")
        return self.registration

    def connect(self):
        self.answers = queue.Queue()
        self.link = wire.Link(self.registration["node_port"])
        self.lock = threading.Lock()
        self.closed = threading.Event()
        self.greeted = threading.Event()
        self.send(wire.hello(self.id, self.incarnation, self.shards))
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()
        return self

    def hello_done(self, timeout=10):
        return self.greeted.wait(timeout)

    def break_link(self):
        """As if the cable were cut: nothing is said."""
        if self.link:
            self.renewing = False
            try:
                self.link.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            self.thread.join(10)
            self.link.close()
            self.link = None

    def leave(self, timeout=10):
        self.renewing = False
        self.send(wire.Message(wire.LEAVE))
        return self.answer(wire.LEAVE, timeout)

    def close(self):
        self.break_link()

    # Saying.

    def send(self, message):
        with self.lock:
            message.epoch = self.epoch
            self.link.send(message)

    def answer(self, type, timeout=10):
        """The next answer of that type."""
        end = time.monotonic() + timeout
        while True:
            m = self.answers.get(timeout=max(0.001, end - time.monotonic()))
            if m is None:
                raise wire.Closed
            if m.type == type:
                return m

    def send_lease(self):
        doc = {"pid": 4000 + self.id, "state": "alive",
               "limit_bytes": self.memory, "resident_bytes": 0,
               "lent_bytes": 0, "borrowed_bytes": 0, "overhead_bytes": 0,
               "shards": self.shards,
               "faults": {"first_touch": 0, "remote_read": 0,
                          "remote_write": 0, "upgrade": 0, "refault": 0,
                          "prefetched": 0},
               "wakeups": 0, "threads": 2, "clients": 0, "peers": [],
               "spaces": [], **self.figures}
        self.send(wire.Message(wire.LEASE, payload=json.dumps(doc).encode()))

    def renew(self, timeout=10):
        """Renew the lease, wait for the answer; from then on by itself."""
        self.send_lease()
        m = self.answer(wire.LEASE, timeout)
        assert not m.error(), m.error()
        self.lease_ns = m.arg
        if self.renewing:
            threading.Thread(target=self._renew, daemon=True).start()
        return m

    def claim(self, space, first, n, n_open=None, ask=False, wait=True):
        """[(home, opened, version)], or the refusal's document."""
        n_open = (0 if ask else n) if n_open is None else n_open
        self.send(wire.Message(wire.CLAIM, space=space, page=first * 512,
                               arg=wire.claim_arg(n, n_open, ask)))
        if not wait:
            return None
        m = self.answer(wire.CLAIM)
        assert m.page == first * 512 and m.space == space
        return m.error() or wire.extents(m)

    # Hearing.

    def _renew(self):
        link = self.link
        while self.renewing and self.link is link and link:
            time.sleep(min(self.lease_ns / 1e9 / 3, 0.5))
            try:
                if self.renewing:
                    self.send_lease()
            except (OSError, AttributeError):
                return

    def _read(self):
        try:
            while True:
                self._heard(self.link.recv(timeout=None))
        except (wire.Closed, OSError, ValueError):
            pass
        self.closed.set()
        self.answers.put(None)

    def _heard(self, m):
        self.epoch = max(self.epoch, m.epoch)
        if m.reply():
            if m.type == wire.LEAVE and m.error():
                self.refused = m.error()
            self.answers.put(m)
        elif m.type == wire.HELLO:
            self.cluster = m.payload[-16:]
            self.greeted.set()
        elif m.type == wire.MEMBERS:
            self.members = wire.members(m)
        elif m.type not in self.silent:
            self._asked(m)

    def _asked(self, m):
        doc = m.json()
        if m.type == wire.SPACE_ADD:
            self.spaces[doc["id"]] = doc
            answer = {}
        elif m.type == wire.SPACE_DROP:
            answer = {"clients": self.clients.get(doc["id"], 0)}
            if doc.get("cancel"):
                self.dropping.discard(doc["id"])
            elif doc["commit"]:
                self.spaces.pop(doc["id"], None)
                self.dropping.discard(doc["id"])
            else:
                self.dropping.add(doc["id"])
        else:
            answer = self.on_query(doc) if self.on_query else None
            if answer is None:
                return
        self.send(wire.Message(m.type, wire.REPLY, space=m.space, arg=m.arg,
                               payload=json.dumps(answer).encode()))
