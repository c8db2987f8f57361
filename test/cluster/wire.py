# SPDX-License-Identifier: Apache-2.0
"""
A node that is none: the wire format and the node port's messages, for tests.

Written from src/wire/wire.h and control.h alone, so that it is a second
reading of them and not a copy of the C code.  Slow, and only for small things.
"""

import json
import socket
import struct

HEADER = struct.Struct("<4sBBHIIQQQQQIII")  # and the crc behind it
HEADER_BYTES = 72
HELLO_BODY = struct.Struct("<HHIHHBBBBQQQ16s")
MEMBER = struct.Struct("<HBBIQQQ64s")
EXTENT = struct.Struct("<HBBI")

HELLO, PING, ACKED = 1, 2, 3
LEASE, CLAIM, MEMBERS, SPACE_ADD, SPACE_DROP, QUERY, LEAVE = range(80, 87)
REPLY, ERROR = 4, 8
NODE_NONE = 0xFFFF
STATES = ["joining", "alive", "fenced", "dead", "drained"]


def _crc_table():
    table = []
    for n in range(256):
        for _ in range(8):
            n = (n >> 1) ^ (0x82F63B78 if n & 1 else 0)
        table.append(n)
    return table


_TABLE = _crc_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


assert crc32c(b"123456789") == 0xE3069283


class Message:
    def __init__(self, type, flags=0, space=0, epoch=0, page=0, mask=0, arg=0,
                 payload=b""):
        self.type, self.flags, self.space, self.epoch = type, flags, space, epoch
        self.page, self.mask, self.arg = page, mask, arg
        self.payload = payload
        self.seq = self.ack = 0

    def __repr__(self):
        return (f"<message type={self.type} flags={self.flags} "
                f"space={self.space} epoch={self.epoch} arg={self.arg} "
                f"seq={self.seq} payload={self.payload[:80]}>")

    def json(self):
        return json.loads(self.payload)

    def reply(self):
        return bool(self.flags & REPLY)

    def error(self):
        return self.json() if self.flags & ERROR else None


def encode(m, version=1):
    head = HEADER.pack(b"mspn", version, m.type, m.flags, m.space, m.epoch,
                       m.page, m.mask, m.arg, m.seq, m.ack, len(m.payload),
                       crc32c(m.payload) if m.payload else 0, 0)
    return head + struct.pack("<I", crc32c(head)) + m.payload


def decode_header(data):
    (magic, version, type, flags, space, epoch, page, mask, arg, seq, ack,
     size, payload_crc, reserved) = HEADER.unpack(data[:68])
    assert magic == b"mspn" and version == 1 and reserved == 0
    assert struct.unpack("<I", data[68:])[0] == crc32c(data[:68])
    m = Message(type, flags, space, epoch, page, mask, arg)
    m.seq, m.ack = seq, ack
    return m, size, payload_crc


def hello(node, incarnation, shards=1, versions=(1, 1), cluster=bytes(16)):
    return Message(HELLO, payload=HELLO_BODY.pack(
        versions[0], versions[1], 0, node, NODE_NONE, 0, 0, shards, 0,
        incarnation, 0, 0, cluster))


def claim_arg(n, n_open, ask=False):
    return n | n_open << 16 | (1 << 32 if ask else 0)


def members(m):
    """The records of a MEMBERS message, by node id."""
    out = {}
    for at in range(0, len(m.payload), MEMBER.size):
        (id, state, shards, _, incarnation, limit, free,
         endpoint) = MEMBER.unpack(m.payload[at:at + MEMBER.size])
        out[id] = {"state": STATES[state], "shards": shards,
                   "incarnation": incarnation, "limit_bytes": limit,
                   "free_bytes": free,
                   "endpoint": endpoint.rstrip(b"\0").decode()}
    return out


def extents(m):
    """The records of a CLAIM answer: (home or None, opened, version)."""
    out = []
    for at in range(0, len(m.payload), EXTENT.size):
        home, opened, reserved, version = EXTENT.unpack(
            m.payload[at:at + EXTENT.size])
        assert opened in (0, 1) and reserved == 0
        out.append((None if home == NODE_NONE else home, bool(opened), version))
    return out


class Closed(Exception):
    """The other end closed the connection."""


class Link:
    """One connection to the node port, as a node would have it."""

    def __init__(self, address, timeout=10):
        host, port = address.rsplit(":", 1)
        self.sock = socket.create_connection((host, int(port)), timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buf = b""
        self.seq_out = self.seq_in = 0

    def close(self):
        self.sock.close()

    def send(self, m, version=1):
        if m.type not in (HELLO, PING, ACKED):
            self.seq_out += 1
            m.seq, m.ack = self.seq_out, self.seq_in
        self.sock.sendall(encode(m, version))

    def _more(self):
        try:
            data = self.sock.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        if not data:
            raise Closed
        self.buf += data

    def recv(self, timeout=10):
        """The next message; raises Closed or socket.timeout."""
        self.sock.settimeout(timeout)
        while len(self.buf) < HEADER_BYTES:
            self._more()
        m, size, crc = decode_header(self.buf[:HEADER_BYTES])
        while len(self.buf) < HEADER_BYTES + size:
            self._more()
        m.payload = self.buf[HEADER_BYTES:HEADER_BYTES + size]
        self.buf = self.buf[HEADER_BYTES + size:]
        assert not size or crc32c(m.payload) == crc
        if m.type not in (HELLO, PING, ACKED):
            self.seq_in += 1
            assert m.seq == self.seq_in
        return m

    def recv_type(self, type, timeout=10, seen=None):
        """The next message of `type`; those before it go to `seen`."""
        while True:
            m = self.recv(timeout)
            if m.type == type:
                return m
            if seen is not None:
                seen.append(m)
