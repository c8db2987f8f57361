# SPDX-License-Identifier: Apache-2.0
"""
What outlives the coordinator: SIGKILL at any moment, full disks, files that are
damaged or not ours.
"""

import random
import resource
import shutil
import sqlite3
import threading
import time

import pytest
import requests

import wire
from conftest import GIB, MIB, wait_for


def store_of(c):
    return c.run_dir / "coordinator.db"


# --- restarts ------------------------------------------------------------------


@pytest.mark.parametrize("kill", [False, True])
def test_a_restart_loses_nothing(coordinators, kill):
    c = coordinators()
    a, b = c.fake("a"), c.fake("b")
    c.space("x", size=200 * MIB, replicas=2, overcommit=True)
    c.space("y", bind="interleave")
    c.space("z", size=9 * MIB, bind=[[1, 2, 0], [3, 1, 1]])
    c.space("gone")
    c.delete("/v1/spaces/gone")
    c.post("/v1/nodes/b/endpoint", {"tcp": "10.0.0.7:7"}, 200)
    c.post("/v1/nodes", {"name": "c", "memory_bytes": GIB,
                         "endpoint": "127.0.0.1:50051", "protocol": 1})
    a.claim(1, 0, 60, n_open=20)
    b.claim(1, 60, 10)
    b.claim(2, 0, 3)
    before = c.get("/v1/cluster")
    extents = [a.claim(1, 0, 64, ask=True), a.claim(2, 0, 32, ask=True),
               a.claim(3, 0, 5, ask=True)]
    a.break_link()
    b.break_link()
    c.restart(kill)
    after = c.get("/v1/cluster")

    def hard(cluster):
        for n in cluster["nodes"]:
            for soft in ("lease_age_ms", "pid", "epoch", "threads"):
                n.pop(soft)
        return cluster

    assert hard(after) == hard(before)
    a.connect()
    a.renewing = True
    a.renew()
    assert [a.claim(1, 0, 64, ask=True), a.claim(2, 0, 32, ask=True),
            a.claim(3, 0, 5, ask=True)] == extents
    assert sorted(a.spaces) == [1, 2, 3]
    assert c.epoch() == before["epoch"]
    # Counters go on where they were.
    assert c.space("new", size=4096)["id"] == 5
    assert c.fake("d").id == 3


def test_a_restart_without_a_cluster_makes_none(coordinators):
    c = coordinators()
    c.delete("/v1/cluster")
    c.restart()
    c.get("/v1/cluster", 404)


def test_what_was_lost_stays_lost_over_a_restart(coordinators):
    c = coordinators("--lease", "300")
    a = c.fake("a")
    c.space("x")
    a.claim(1, 0, 2)
    a.leave()
    a.register()
    assert c.get("/v1/spaces/x")["pages"]["lost"] == 1024
    c.restart(kill=True)
    assert c.get("/v1/spaces/x")["pages"]["lost"] == 1024
    assert c.get("/v1/spaces/x/pages/0")["state"] == "lost"


class Claimant(threading.Thread):
    """Claims at random for ever, and remembers what it was promised."""

    def __init__(self, node, spaces, extents, seed):
        super().__init__(daemon=True)
        self.node, self.spaces, self.extents = node, spaces, extents
        self.rng = random.Random(seed)
        self.heard = {}  # (space, extent): (home, version), opened by us
        self.opened = set()
        self.answers = 0
        self.wrong = []

    def note(self, space, first, n_open, got):
        self.answers += 1
        for i, (home, opened, version) in enumerate(got):
            key = (space, first + i)
            if self.heard.setdefault(key, (home, version)) != (home, version):
                self.wrong.append((key, self.heard[key], (home, version)))
            if key in self.opened and not opened:
                self.wrong.append((key, "no longer opened"))
            if home == self.node.id and n_open > 0:
                n_open -= 1
                if not opened:
                    self.wrong.append((key, "not opened"))
                self.opened.add(key)

    def run(self):
        try:
            while True:
                space = self.rng.choice(self.spaces)
                n = self.rng.randint(1, 64)
                first = self.rng.randrange(self.extents - n + 1)
                n_open = self.rng.randint(0, n)
                got = self.node.claim(space, first, n, n_open)
                if isinstance(got, dict):
                    assert got["status"] == 409, got  # no lease for a moment
                    continue
                self.note(space, first, n_open, got)
        except (wire.Closed, OSError, AttributeError):
            pass


def test_no_claim_is_forgotten_in_50_kills(coordinators):
    """
    SIGKILL at random moments under claims of three nodes: no extent has two
    homes, and none that was answered is forgotten.
    """
    c = coordinators("--lease", "60000")
    rng = random.Random(50)
    nodes = [c.fake(f"n{i}", memory=1 << 45) for i in range(3)]
    extents = 60000  # enough that each round finds some that nobody has
    spaces = [c.space(f"s{i}", size=extents * 2 * MIB)["id"] for i in range(3)]
    claimants = [Claimant(n, spaces, extents, i) for i, n in enumerate(nodes)]
    for round_ in range(50):
        for claimant in claimants:
            claimant.start()
        time.sleep(rng.uniform(0.005, 0.12))  # the moment is what is tested
        c.kill()
        for claimant in claimants:
            claimant.join(20)
            assert not claimant.is_alive()
            claimant.node.break_link()
        c.start(ports=ports(c))
        for n in nodes:
            n.connect()
            n.renew()
        claimants = [successor(cl, round_) for cl in claimants]
    check(c, nodes, claimants, spaces, extents)


def ports(c):
    return (c.http_port, int(c.node_port().rsplit(":", 1)[1]))


def successor(claimant, seed):
    new = Claimant(claimant.node, claimant.spaces, claimant.extents,
                   seed * 10 + claimant.node.id)
    for field in ("heard", "opened", "answers", "wrong"):
        setattr(new, field, getattr(claimant, field))
    return new


def check(c, nodes, claimants, spaces, extents):
    homes = {}
    for space in spaces:
        for first in range(0, extents, 60):
            got = nodes[0].claim(space, first, 60, ask=True)
            for i, (home, opened, version) in enumerate(got):
                homes[space, first + i] = (home, version, opened)
    promised = 0
    for claimant in claimants:
        assert claimant.wrong == []
        for key, (home, version) in claimant.heard.items():
            assert homes[key][:2] == (home, version), key
            promised += 1
        for key in claimant.opened:
            assert homes[key][2], key
    assert promised > 2000
    assert all(version <= 1 for _, version, _ in homes.values())
    counted = sum(sp["extents"]["homed"] for sp in c.get("/v1/spaces"))
    assert counted == sum(1 for h in homes.values() if h[0] is not None)
    print(f"{sum(cl.answers for cl in claimants)} answers, "
          f"{promised} promises kept over 50 kills")


def test_registrations_and_spaces_survive_kills(coordinators):
    """What was answered is there; ids and incarnations are never reused."""
    c = coordinators("--lease", "60000")
    rng = random.Random(3)
    incarnations, ids, spaces = set(), {}, set()
    for round_ in range(15):
        stop = threading.Event()

        def work():
            session = requests.Session()
            i = 0
            while not stop.is_set():
                name = f"r{round_}-{i}"
                i += 1
                try:
                    r = session.post(c.url + "/v1/nodes", json={
                        "name": name, "memory_bytes": GIB,
                        "endpoint": "h:1", "protocol": 1}, timeout=10)
                    if r.status_code == 201:
                        assert r.json()["incarnation"] not in incarnations
                        incarnations.add(r.json()["incarnation"])
                        assert r.json()["id"] not in ids.values()
                        ids[name] = r.json()["id"]
                    r = session.post(c.url + "/v1/spaces", json={
                        "name": name, "size_bytes": 4096, "overcommit": True},
                        timeout=10)
                    if r.status_code == 201:
                        spaces.add(name)
                except requests.exceptions.RequestException:
                    return

        worker = threading.Thread(target=work)
        worker.start()
        time.sleep(rng.uniform(0.01, 0.08))  # the moment is what is tested
        c.kill()
        stop.set()
        worker.join(20)
        c.start(ports=ports(c))
        got = {n["name"]: n["id"] for n in c.get("/v1/nodes")}
        for name, id in ids.items():
            assert got[name] == id
        assert spaces <= {s["name"] for s in c.get("/v1/spaces")}
    assert len(ids) > 15


# --- disks ---------------------------------------------------------------------


def fill(where):
    with open(where / "filler", "ab", buffering=0) as f:
        try:
            while True:
                f.write(b"x" * 4096)
        except OSError:
            pass


def test_a_full_disk_refuses_what_it_cannot_keep_and_the_rest_goes_on(
        coordinators, small_disk):
    c = coordinators("--store", str(small_disk / "store.db"), "--lease", "2000")
    a = c.fake("a", memory=64 * GIB)
    c.space("x", size=32 * GIB)
    a.claim(1, 0, 1)
    fill(small_disk)
    first = 64
    while True:
        got = a.claim(1, first, 64)
        if isinstance(got, dict):
            break
        first += 64
        assert first < 16000
    assert got["status"] == 507 and "full" in got["detail"]
    # What is promised holds, what is not is not given.
    assert a.claim(1, 0, 1) == [(0, True, 1)]
    assert a.claim(1, first, 64, ask=True) == [(None, False, 0)] * 64
    problem = c.get("/health", 503)
    assert problem["reasons"][0]["code"] == "STORE_FAILS"
    assert "full" in problem["reasons"][0]["text"]
    assert "make room" in c.space("y", size=4096, expect=507)["detail"]
    c.post("/v1/nodes", {"name": "b", "memory_bytes": GIB,
                         "endpoint": "h:1", "protocol": 1}, 507)
    c.delete("/v1/spaces/x", 507)
    assert c.get("/v1/cluster")["spaces"][0]["name"] == "x"
    time.sleep(2.5)  # more than the lease: it is renewed all the same
    assert c.state("a") == "alive" and a.refused is None
    (small_disk / "filler").unlink()
    wait_for(lambda: c.request("GET", "/health").status_code == 200)
    assert a.claim(1, first, 64) == [(0, True, 1)] * 64
    c.space("y", size=4096)
    assert "the store works again" in c.log()
    c.restart(kill=True)
    assert c.get("/v1/spaces/x")["extents"]["homed"] >= 65


def test_a_death_that_cannot_be_written_down_waits(coordinators, small_disk):
    c = coordinators("--store", str(small_disk / "store.db"), "--lease", "1500")
    a = c.fake("a", memory=64 * GIB)
    b = c.fake("b")
    c.space("x", size=32 * GIB)
    fill(small_disk)
    for first in range(64, 16000, 64):
        if isinstance(a.claim(1, first, 64), dict):
            break
    b.break_link()
    c.wait_state("b", "fenced")
    time.sleep(1.5)  # long after its time: it stays fenced
    assert c.state("b") == "fenced"
    assert c.get("/v1/cluster")["epoch"] == 3
    before = cpu_seconds(c.process.pid)
    time.sleep(1)  # and nothing spins meanwhile
    assert cpu_seconds(c.process.pid) - before < 0.3
    (small_disk / "filler").unlink()
    c.wait_state("b", "dead")
    assert c.epoch() == 4 and c.state("a") == "alive"


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def test_a_file_size_limit_is_an_error_and_no_end(coordinators):
    c = coordinators("--lease", "60000", start=False)
    c.start(preexec_fn=lambda: resource.setrlimit(
        resource.RLIMIT_FSIZE, (300000, 300000)))
    a = c.fake("a", memory=64 * GIB)
    c.space("x", size=32 * GIB)
    kept = 0
    for first in range(64, 16000, 64):
        got = a.claim(1, first, 64)
        if isinstance(got, dict):
            break
        kept += 64
    else:
        pytest.fail("the limit was never met")
    # SQLite forgets the errno by which it could be told from a broken disk.
    assert got["status"] in (503, 507) and "store" in got["detail"]
    assert c.process.running()
    c.kill()
    c.start()
    assert c.get("/v1/spaces/x")["extents"]["homed"] == kept


def test_a_store_that_cannot_be_opened_is_said(coordinators, tmp_path):
    c = coordinators("--store", "/nonexistent/store.db", start=False)
    c.start(wait=False)
    assert c.process.popen.wait(10) == 1
    assert "cannot open the store /nonexistent/store.db" in c.log()


@pytest.mark.parametrize("make,why", [
    (lambda p: p.write_bytes(b"not a database" * 1000), "is not a memspan store"),
    (lambda p: sqlite3.connect(p).execute("CREATE TABLE t(x)").connection.commit(),
     "is not a memspan store"),
])
def test_a_file_that_is_not_ours_is_left_alone(coordinators, tmp_path, make,
                                               why):
    path = tmp_path / "other.db"
    make(path)
    before = path.read_bytes()
    c = coordinators("--store", str(path), start=False)
    c.start(wait=False)
    assert c.process.popen.wait(10) == 1
    assert why in c.log()
    assert path.read_bytes() == before


def test_a_newer_layout_is_refused(coordinators):
    c = coordinators()
    assert c.stop() == 0
    with sqlite3.connect(store_of(c)) as db:
        db.execute("PRAGMA user_version=2")
    db.close()
    c.start(wait=False)
    assert c.process.popen.wait(10) == 1
    assert "has layout 2, this program knows 1" in c.log()


def test_a_changed_value_is_noticed(coordinators):
    c = coordinators()
    c.space("x", overcommit=True)
    assert c.stop() == 0
    copy = c.run_dir / "copy.db"
    shutil.copy(store_of(c), copy)
    with sqlite3.connect(store_of(c)) as db:
        db.execute("UPDATE kv SET value = replace(value, 'true', 'null') "
                   "WHERE key LIKE 'space/%'")
        assert db.total_changes == 1
    db.close()
    c.start(wait=False)
    assert c.process.popen.wait(10) == 1
    assert "space/00000001 does not match its checksum" in c.log()
    shutil.copy(copy, store_of(c))
    c.start()
    assert c.get("/v1/spaces/x")["name"] == "x"
