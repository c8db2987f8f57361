# SPDX-License-Identifier: Apache-2.0
"""
Garbage at the doors of a node: the page port, where peers come, and the clients'
socket.  (The coordinator's two are in test_coordinator*.py.)  Whatever comes in,
the cluster goes on, its counters are exact, and no descriptor is left behind.
"""

import array
import ctypes
import errno
import os
import random
import signal
import socket
import struct
import threading

import pytest

import wire
from cluster import (EXTENT, MIB, PAGE, rig, wait_for)  # noqa: F401

PAGES = EXTENT // PAGE
GET_S, GET_X, DISCARD = 8, 9, 10
GRANT_S, GRANT_X, GRANT_ZERO, UPGRADE, LOST, DISCARDED, MOVED = range(16, 23)
RECALL_S, RECALL_X, INVAL = 32, 33, 34
EVICT, DROP, STORE, STORED = 56, 58, 59, 60
AGAIN = 23
F_STORE, F_MORE = 32, 64


def descriptors(node):
    return len(os.listdir(f"/proc/{node.pid}/fd"))


@pytest.fixture
def busy(rig):
    """Two nodes under load; at the end all must be as if nothing had been."""
    c = rig()
    c.space("s", 8 * MIB, bind="interleave")
    h = [c.hammer(n, "s", PAGES - 8, 16).go() for n in (0, 1)]
    for client in h:
        client.progress(100)
    two = list(c.nodes)
    before = [descriptors(n) for n in two]
    yield c
    for client in h:
        client.progress(100)
    wait_for(lambda: all(descriptors(n) <= b for n, b in zip(two, before)))
    for client in h:
        client.stop()
    for n in two:
        assert n.process.running()
        c.exact(c.puppet(0, "s"), PAGES - 8)
    # Nobody has to be told twice, and new nodes still come in.
    c.node("late")
    c.connected()


def dial(node):
    host, port = node.show()["endpoint"].rsplit(":", 1)
    return socket.create_connection((host, int(port)), 10)


def closed(sock, timeout=10):
    """The other end hangs up, whatever it says before."""
    sock.settimeout(timeout)
    try:
        while sock.recv(1 << 16):
            pass
    except ConnectionError:
        pass
    sock.close()


# --- the page port: strangers ----------------------------------------------------------


def hello(node, incarnation, to_node, to_incarnation, cluster, shards=1,
          versions=(1, 1), from_shard=0, to_shard=0, applied=0):
    return wire.Message(wire.HELLO, payload=wire.HELLO_BODY.pack(
        *versions, 0, node, to_node, from_shard, to_shard, shards, 0,
        incarnation, to_incarnation, applied, cluster))


def cluster_id(c):
    return bytes.fromhex(
        c.coordinator.get("/v1/cluster")["id"].replace("-", ""))


def strangers(c):
    rng = random.Random(7)
    n, m = c.nodes[0].show(), c.nodes[1].show()
    good = dict(node=m["id"], incarnation=m["incarnation"], to_node=n["id"],
                to_incarnation=n["incarnation"], cluster=cluster_id(c))
    valid = wire.encode(hello(**good))
    yield b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 10
    yield b"\0" * 4096
    yield from (rng.randbytes(k) for k in (128, 129, 5000))
    yield b"mspn" + rng.randbytes(500)
    yield valid[:100] + bytes([valid[100] ^ 1]) + valid[101:]  # crc
    yield wire.encode(hello(**good), version=9)
    yield wire.encode(wire.Message(GET_S, space=1, mask=1)) * 2  # no hello
    yield wire.encode(hello(**{**good, "cluster": b"x" * 16}))
    yield wire.encode(hello(**{**good, "node": 77}))
    yield wire.encode(hello(**{**good, "incarnation": 99}))
    yield wire.encode(hello(**{**good, "to_incarnation": 99}))
    yield wire.encode(hello(**good, from_shard=3, shards=4))
    yield wire.encode(hello(**good, to_shard=9))


def test_strangers_at_the_page_port_are_sent_away(busy):
    c = busy
    for data in strangers(c):
        with dial(c.nodes[0]) as s:
            s.sendall(data)
            closed(s)


def test_half_a_hello_and_then_nothing(busy):
    c = busy
    n, m = c.nodes[0].show(), c.nodes[1].show()
    valid = wire.encode(hello(m["id"], m["incarnation"], n["id"],
                              n["incarnation"], cluster_id(c)))
    socks = []
    for k in (0, 1, 71, 72, 100, len(valid) - 1):
        socks.append(dial(c.nodes[0]))
        socks[-1].sendall(valid[:k])
    # Who does not come to the point is sent away after a while.
    for s in socks:
        closed(s, 15)


def test_two_hundred_connections_that_say_nothing(busy):
    c = busy
    idle = [dial(c.nodes[0]) for _ in range(200)]
    try:
        # Those who have something to say get in all the same.
        third = c.node("third")
        c.connected()
        assert third.stop() == 0
    finally:
        for s in idle:
            s.close()


# --- the page port: a member that lies ----------------------------------------------------


class Liar:
    """A member of the cluster, of the highest id, whose messages are ours."""

    def __init__(self, c, name="liar"):
        self.fake = c.coordinator.fake(name)
        self.cluster = c

    def dial(self, node):
        show = node.show()
        link = wire.Link(show["endpoint"])
        link.send(hello(self.fake.id, self.fake.incarnation, show["id"],
                        show["incarnation"], cluster_id(self.cluster)))
        m = link.recv()
        assert m.type == wire.HELLO
        assert wire.HELLO_BODY.unpack(m.payload)[8] == 0, "refused"
        return link


def message(type, page=0, mask=1, arg=0, space=1, payload=b"", flags=0):
    return wire.Message(type, space=space, page=page, mask=mask, arg=arg,
                        payload=payload, flags=flags)


LIES = {
    "answers what nobody asked": lambda: message(GRANT_ZERO),
    "grants bytes that nobody asked for":
        lambda: message(GRANT_X, payload=b"x" * PAGE),
    "upgrades": lambda: message(UPGRADE),
    "says that it is lost": lambda: message(LOST),
    "discarded": lambda: message(DISCARDED),
    "asks beyond the space": lambda: message(GET_S, page=1 << 30),
    "asks for nothing": lambda: message(GET_S, mask=0),
    "asks across extents": lambda: message(GET_S, page=PAGES - 1, mask=3),
    "of no known type": lambda: message(200),
    "flags that are none": lambda: wire.Message(GET_S, flags=0x4000, space=1,
                                                mask=1),
    "bytes that a question has not": lambda: message(GET_S, payload=b"x"),
    "recalls what is not its own": lambda: message(RECALL_X, page=0, arg=0),
    "invalidates what is not its own": lambda: message(INVAL, page=PAGES - 8),
    "holds what it was not given": lambda: message(STORED),
    "will not hold what it was not given":
        lambda: message(STORED, mask=0, arg=1),
    "lets go what is not its own": lambda: message(DROP),
    "keeps what nobody wants to be rid of":
        lambda: message(DROP, mask=0, arg=1),
    "is to be rid of what it has not": lambda: message(EVICT),
    "is to be rid of nothing": lambda: message(EVICT, mask=0),
    "gives away what is beyond the space":
        lambda: message(STORE, page=1 << 30),
    "gives away nothing": lambda: message(STORE, mask=0),
    "gives away across extents":
        lambda: message(STORE, page=PAGES - 1, mask=3),
    "gives away what a node has that is none":
        lambda: message(STORE, arg=5000),
    "gives away with bytes": lambda: message(STORE, payload=b"x" * PAGE),
    "writes what it is to hold for others":
        lambda: message(GET_X, flags=F_STORE),
    "grants to read, and more, what nobody asked":
        lambda: message(GRANT_S, flags=F_MORE, payload=b"x" * PAGE),
    "grants zeros, and more": lambda: message(GRANT_ZERO, flags=F_MORE),
}


def test_a_member_that_breaks_the_rules_is_cut_off_alone(rig):
    c = rig()
    c.space("s", 8 * MIB, bind="interleave")
    p = [c.puppet(n, "s") for n in (0, 1)]
    for first in (0, PAGES - 8):
        p[0].fill(first, 8, 3)
    h = [c.hammer(n, "s", PAGES, 8).go() for n in (0, 1)]
    for k, (lie, make) in enumerate(LIES.items()):
        liar = Liar(c, f"liar{k}")
        link = wait_dial(liar, c.nodes[0])
        link.send(make())
        try:
            with pytest.raises(wire.Closed):
                while True:
                    link.recv(10)
        except socket.timeout:
            raise AssertionError(f"who {lie} is not cut off") from None
        link.close()
        said = f"session is over peer={liar.fake.id} "
        wait_for(lambda: said in c.nodes[0].process.text())
        # Out for good, and nothing has changed.
        with pytest.raises((wire.Closed, AssertionError)):
            liar.dial(c.nodes[0])
        for q in p:
            for first in (0, PAGES - 8):
                q.check(first, 8, 3)
        for client in h:
            client.progress(10)
    for client in h:
        client.stop()
    c.exact(p[0], PAGES, 8)


def is_cut_off(link):
    with pytest.raises(wire.Closed):
        while True:
            link.recv(10)
    link.close()


def test_what_a_member_may_ask_in_vain_is_answered(rig):
    """Spaces come and go, and pages move: a copy then stays where it is."""
    c = rig()
    c.space("s", 8 * MIB, bind="interleave")
    p = c.puppet(0, "s")
    p.fill(0, 8, 3)          # home n0, held there
    p.fill(PAGES, 8, 4)      # home n1, held by n0
    link = wait_dial(Liar(c), c.nodes[0])

    def answer(type, *args, **kwargs):
        link.send(message(*args, **kwargs))
        m = link.recv_type(type)
        return m.mask, m.arg

    assert answer(STORED, STORE, space=99, mask=5) == (0, 5)
    assert answer(DROP, EVICT, space=99, mask=5) == (0, 5)
    assert answer(DROP, EVICT, page=PAGES, mask=9) == (0, 9)
    assert answer(STORED, STORE, page=PAGES, mask=9, arg=1) == (9, 0)
    # Homed nowhere, at itself, or at who is not there: as if nothing was said.
    for k, home in enumerate((wire.NODE_NONE, c.nodes[0].id, 1000)):
        c.space(f"t{k}", 2 * MIB, bind="n1")
        assert answer(STORED, STORE, space=2 + k, arg=home) == (0, 1)
        q = [c.puppet(n, f"t{k}") for n in (0, 1)]
        q[0].fill(0, 8, 5)
        q[1].check(0, 8, 5)
    # A copy to hold for others, which it then wants to be rid of: once.
    link.send(message(GET_S, flags=F_STORE))
    assert len(link.recv_type(GRANT_S).payload) == PAGE
    assert answer(DROP, EVICT) == (1, 0)
    link.send(message(EVICT))
    is_cut_off(link)
    p.check(0, 8, 3)
    c.puppet(1, "s").check(PAGES, 8, 4)


HOME_LIES = {
    "more, to who reads": ("peek 0", GET_S, [(GRANT_S, F_MORE, PAGE)]),
    "more, and the same again":
        ("poke 0 1", GET_X, [(GRANT_S, F_MORE, PAGE)] * 2),
    "to read, to who writes": ("poke 0 1", GET_X, [(GRANT_S, 0, PAGE)]),
    "an upgrade of nothing": ("poke 0 1", GET_X, [(UPGRADE, 0, 0)]),
    "it may go, to who asks for it": ("peek 0", GET_S, [(DROP, 0, 0)]),
    "it is stored, to who asks for it":
        ("poke 0 1", GET_X, [(GRANT_S, F_MORE, PAGE), (DROP, 0, 0)]),
}


def test_a_home_that_breaks_the_rules_is_cut_off_alone(rig):
    c = rig(lease=1000)
    c.space("good", 8 * MIB, bind="interleave")
    h = [c.hammer(n, "good", PAGES - 8, 16).go() for n in (0, 1)]
    for k, (lie, (order, asked, answers)) in enumerate(HOME_LIES.items()):
        liar = Liar(c, f"liar{k}")
        name = f"s{k}"
        id = c.space(name, 2 * MIB, bind=f"liar{k}")["id"]
        liar.fake.claim(id, 0, 1)
        link = wait_dial(liar, c.nodes[0])
        p = c.puppet(0, name)
        p.start("t", order)
        link.recv_type(asked)
        for type, flags, size in answers:
            link.send(message(type, space=id, flags=flags,
                              payload=b"x" * size))
        try:
            is_cut_off(link)
        except socket.timeout:
            raise AssertionError(f"who says {lie} is not cut off") from None
        # Nothing of what it said is read; who waits ends when it is dead.
        liar.fake.close()
        c.coordinator.wait_state(f"liar{k}", "dead")
        assert p.wait(30) == -signal.SIGBUS
        assert p.lines.get(timeout=1) is None
    for client in h:
        client.progress(100)
        client.stop()
    c.exact(c.puppet(1, "good"), PAGES - 8)


def wait_dial(liar, node):
    """The node may not have heard of us yet: then it hangs up."""
    def try_it():
        try:
            return liar.dial(node)
        except wire.Closed:
            return None
    return wait_for(try_it)


def test_a_member_that_sends_half_a_message_holds_up_nobody(busy):
    c = busy
    liar = Liar(c)
    links = [wait_dial(liar, n) for n in c.nodes]
    for link in links:
        data = wire.encode(message(GRANT_X, payload=b"x" * PAGE))
        link.sock.sendall(data[:1000])
    for h in c.clients:
        h.progress(100)
    for link in links:
        link.close()


def test_a_member_that_asks_and_never_reads_holds_up_nobody(busy):
    c = busy
    c.space("t", 8 * MIB, bind="n0")
    p = c.puppet(0, "t")
    p.fill(0, 2048, 1)
    liar = Liar(c)
    link = wait_dial(liar, c.nodes[0])
    # All credits at once, answered with a mebibyte that stays unread.
    for k in range(4):
        link.send(message(GET_S, space=2, page=64 * k, mask=(1 << 64) - 1))
    for h in c.clients[:2]:
        h.progress(200)
    # More than its credits: that is a breach.
    link.send(message(GET_S, space=2, page=256, mask=(1 << 64) - 1))
    wait_for(lambda: "broke the protocol" in c.nodes[0].process.text())
    link.close()
    p.end()
    wait_for(lambda: c.coordinator.request(
        "DELETE", "/v1/spaces/t").status_code == 204)


# --- the clients' socket ---------------------------------------------------------------------

LOCAL = struct.Struct("<IIIiQQQQQQIIII2I296s")
assert LOCAL.size == 384
LOCAL_MAGIC = 0x6d73706c
(ATTACH, SPACE, MAPPED, READY, PREFETCH, L_DISCARD, DETACH, DONE, ENDED,
 REFUSED, OPEN, OPENED) = range(1, 13)


def packet(type, text=b"", magic=LOCAL_MAGIC, version=2, offset=0, size=0,
           base=0, cookie=0, reserved=(0, 0)):
    return LOCAL.pack(magic, version, type, 0, 0, offset, size, base, cookie,
                      0, 0, 0, 0, 0, *reserved, text)


class Local:
    """A client without the library."""

    def __init__(self, node):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(10)
        wait_for(lambda: self._connect(node))

    def _connect(self, node):
        """A Unix socket says EAGAIN while too many wait to be accepted."""
        try:
            self.sock.connect(str(node.socket))
        except BlockingIOError:
            return False
        return True

    def send(self, data, fds=()):
        extra = [(socket.SOL_SOCKET, socket.SCM_RIGHTS,
                  array.array("i", fds))] if fds else []
        self.sock.sendmsg([data], extra)

    def recv(self):
        """(type, error, text) of the next packet, and the whole of it."""
        data, anc, _, _ = self.sock.recvmsg(1024, 4096)
        for _, _, raw in anc:
            got = array.array("i")
            got.frombytes(raw[:len(raw) // 4 * 4])
            for fd in got:
                os.close(fd)
        if not data:
            return None
        v = LOCAL.unpack(data)
        return {"type": v[2], "error": v[3], "bytes": v[4], "cookie": v[8],
                "stripes": v[10], "text": v[16].split(b"\0")[0].decode()}

    def attach(self, name=b"s"):
        self.send(packet(ATTACH, name))
        got = self.recv()
        assert got["type"] == SPACE, got
        return got

    def is_closed(self):
        try:
            while self.recv() is not None:
                pass
        except ConnectionError:
            pass
        self.sock.close()
        return True


BAD_PACKETS = {
    "empty": b"x",
    "short": packet(ATTACH, b"s")[:-1],
    "long": packet(ATTACH, b"s") + b"x",
    "magic": packet(ATTACH, b"s", magic=1),
    "reserved": packet(ATTACH, b"s", reserved=(0, 1)),
    "endless text": packet(ATTACH, b"s" * 296),
    "type 0": packet(0), "type 13": packet(13), "type of the node": packet(4),
    "opened by a client": packet(OPENED),
    "mapped before attach": packet(MAPPED), "detach first": packet(DETACH),
    "discard first": packet(L_DISCARD),
}


def test_packets_that_make_no_sense_end_their_connection(busy):
    n = busy.nodes[0]
    for name, data in BAD_PACKETS.items():
        k = Local(n)
        k.send(data)
        assert k.is_closed(), name
        # And the same from who has a space offered.
        if data != packet(MAPPED):
            k = Local(n)
            k.attach()
            k.send(data)
            assert k.is_closed(), name
        # With descriptors that nobody asked for.
        k = Local(n)
        k.send(data, [0, 1, 2] * 20)
        assert k.is_closed(), name
    rng = random.Random(3)
    for size in (0, 1, 383, 384, 385, 5000, 60000):
        k = Local(n)
        k.send(rng.randbytes(size))
        k.sock.shutdown(socket.SHUT_WR)
        assert k.is_closed()


def test_another_version_of_the_library_is_told_so(busy):
    k = Local(busy.nodes[0])
    k.send(packet(ATTACH, b"s", version=3))
    got = k.recv()
    assert got["type"] == REFUSED and got["error"] == -errno.EPROTONOSUPPORT
    assert "same release" in got["text"]
    assert k.is_closed()


def test_an_unknown_space_is_refused_and_another_may_be_tried(busy):
    k = Local(busy.nodes[0])
    k.send(packet(ATTACH, b"nope"))
    got = k.recv()
    assert got["type"] == REFUSED and got["error"] == -errno.ENOENT
    assert "no space of this name" in got["text"]
    k.attach()
    k.sock.close()


def test_descriptors_that_are_no_userfaultfds_are_refused(busy):
    n = busy.nodes[0]
    null = os.open("/dev/null", os.O_RDWR)
    for count in (0, 1, 2, 3, 64):
        k = Local(n)
        offer = k.attach()
        k.send(packet(MAPPED, base=1 << 40, size=8 * MIB), [null] * count)
        got = k.recv()
        assert got is None or got["type"] == REFUSED, got
        assert offer["stripes"] == 2
        k.sock.close()
    os.close(null)


def test_parts_that_are_none_of_the_space_are_refused(busy):
    n = busy.nodes[0]
    fds = [userfaultfd() for _ in range(2)]
    for offset, size, count in ((0, 0, 2), (0, 8 * MIB + PAGE, 2),
                                (PAGE, 8 * MIB, 2), (8 * MIB, PAGE, 1),
                                (100, PAGE, 1), (0, 100, 1),
                                (PAGE, 1 << 63, 2), (1 << 63, 1 << 63, 2),
                                (0, PAGE, 2), (4 * MIB - PAGE, 2 * PAGE, 1),
                                (4 * MIB, 4 * MIB, 2)):
        k = Local(n)
        k.attach()
        k.send(packet(MAPPED, base=1 << 40, offset=offset, size=size),
               fds[:count])
        got = k.recv()
        assert got["type"] == REFUSED, (offset, size, count, got)
        assert got["error"] == -errno.EINVAL
        k.sock.close()
    for offset, size, count in ((4 * MIB - PAGE, 2 * PAGE, 2),
                                (4 * MIB, PAGE, 1)):
        k = Local(n)
        k.attach()
        k.send(packet(MAPPED, base=1 << 40, offset=offset, size=size),
               fds[:count])
        assert k.recv()["type"] == READY
        k.sock.close()
    for fd in fds:
        os.close(fd)


def test_who_has_opened_a_space_may_say_nothing_more(busy):
    n = busy.nodes[0]
    for data in (packet(OPEN, b"s"), packet(ATTACH, b"s"), packet(DETACH),
                 packet(L_DISCARD, size=PAGE), packet(MAPPED)):
        k = Local(n)
        k.send(packet(OPEN, b"nope"))
        assert k.recv()["error"] == -errno.ENOENT
        k.send(packet(OPEN, b"s"))
        got = k.recv()
        assert (got["type"], got["bytes"]) == (OPENED, 8 * MIB)
        k.send(data)
        assert k.is_closed()
    k = Local(n)
    k.attach()
    k.send(packet(OPEN, b"s"))
    assert k.is_closed()


def test_offers_that_nobody_takes_up_are_bounded_and_come_back(busy):
    n = busy.nodes[0]
    waiting = []
    refused = 0
    for _ in range(70):
        k = Local(n)
        k.send(packet(ATTACH, b"s"))
        got = k.recv()
        if got["type"] == REFUSED:
            assert got["error"] == -errno.ENOMEM
            assert "64" in got["text"]
            refused += 1
        waiting.append(k)
    assert refused >= 70 - 64
    for k in waiting:
        k.sock.close()
    wait_for(lambda: n.show()["clients"] == 1)
    p = busy.puppet(0, "s")
    p.check(0, 1, 0)
    assert p.end() == 0


def test_two_hundred_idle_clients(busy):
    idle = [Local(busy.nodes[0]) for _ in range(200)]
    p = busy.puppet(0, "s")
    p.check(0, 1, 0)
    assert p.end() == 0
    for k in idle:
        k.sock.close()


def userfaultfd():
    """One that watches nothing."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(323, os.O_CLOEXEC | os.O_NONBLOCK)
    if fd < 0:
        pytest.skip("no userfaultfd here")
    api = struct.pack("<QQQ", 0xAA, 0, 0)
    buf = ctypes.create_string_buffer(api)
    assert libc.ioctl(fd, ctypes.c_ulong(0xC018AA3F), buf) == 0
    return fd


def test_a_client_whose_userfaultfds_watch_nothing(busy):
    """Pages cannot be installed there; who waits elsewhere gets them."""
    n = busy.nodes[0]
    fds = [userfaultfd() for _ in range(2)]
    k = Local(n)
    k.attach()
    k.send(packet(MAPPED, base=1 << 40, size=8 * MIB), fds)
    assert k.recv()["type"] == READY
    for h in busy.clients:
        h.progress(200)
    for offset, size, error in ((8 * MIB, PAGE, -errno.EINVAL),
                                (0, 9 * MIB, -errno.EINVAL),
                                (1, PAGE, -errno.EINVAL),
                                (1 << 63, 1 << 63, -errno.EINVAL),
                                (PAGE * 700, PAGE, 0)):
        k.send(packet(L_DISCARD, offset=offset, size=size, cookie=9))
        got = k.recv()
        assert (got["type"], got["error"], got["cookie"]) == (DONE, error, 9)
    # Thousands of orders, and never an answer taken.
    k.sock.settimeout(0.5)
    try:
        for i in range(3000):
            k.send(packet(L_DISCARD, offset=PAGE * (700 + i % 8), size=PAGE))
            k.send(packet(PREFETCH, offset=0, size=8 * MIB))
    except (TimeoutError, BlockingIOError):
        pass  # it is made to wait: as good
    for h in busy.clients:
        h.progress(200)
    k.sock.close()
    for fd in fds:
        os.close(fd)


# --- a wire that changes what it carries ---------------------------------------------------


class Proxy:
    """Between two nodes; changes a bit of the next large packet when told."""

    def __init__(self, target):
        host, port = target.rsplit(":", 1)
        self.target = (host, int(port))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.flip = threading.Event()
        self.flipped = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                a = self.listener.accept()[0]
                b = socket.create_connection(self.target, 10)
            except OSError:
                return
            for pair in ((a, b), (b, a)):
                threading.Thread(target=self._carry, args=pair,
                                 daemon=True).start()

    def _carry(self, a, b):
        try:
            while data := a.recv(1 << 16):
                if len(data) > 2000 and self.flip.is_set():
                    self.flip.clear()
                    data = data[:1500] + bytes([data[1500] ^ 4]) + data[1501:]
                    self.flipped.set()
                b.sendall(data)
        except OSError:
            pass
        for s in (a, b):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def test_damaged_pages_are_never_mapped_and_nobody_waits_for_ever(rig):
    c = rig(nodes=1, lease=1000)
    proxy = Proxy(c.nodes[0].show()["endpoint"])
    # Who joins from now on reaches n0 through it.
    c.coordinator.post("/v1/nodes/n0/endpoint", {"tcp": proxy.endpoint},
                       expect=200)
    c.node("n1")
    c.connected()
    c.space("s", 8 * MIB, bind="interleave")
    c.space("t", 8 * MIB)
    h = [c.hammer(n, "s", PAGES - 8, 16).go() for n in (0, 1)]
    for client in h:
        client.progress(200)
    proxy.flip.set()
    assert proxy.flipped.wait(30)
    # Who is told that he broke the protocol ends, and says why.
    gone = wait_for(lambda: [n for n in c.nodes if not n.process.running()])
    assert len(gone) == 1 and gone[0].process.popen.wait() == 1
    assert "has ended its session" in gone[0].process.text()
    i = c.nodes.index(gone[0])
    assert h[i].wait() == -signal.SIGBUS
    other = c.nodes[1 - i]
    assert "arrived damaged" in other.process.text()
    # The pages that went with it are lost, and none was ever wrong.
    assert h[1 - i].wait(30) == -signal.SIGBUS
    c.tally.no_errors()
    p = c.puppet(1 - i, "t")
    p.fill(0, 64, 1)
    p.check(0, 64, 1)
    proxy.listener.close()
