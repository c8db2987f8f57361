# SPDX-License-Identifier: Apache-2.0
"""
memspan bench with real clusters: what it says when a page is wrong, and that it
leaves nothing behind however it ends.  That its figures hang together is checked
by tools/bench-facts.  No time is asserted here.
"""

import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from cli_tools import BUILD, memspan

PAGE = 4096
SMALL = ("--size", "8M")


class Cluster:
    """`memspan up` in a run directory whose name is short."""

    def __init__(self, nodes, memory="256M"):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="memspan-bench-",
                                                  dir="/tmp"))
        self.must("up", "--nodes", nodes, "--memory", memory)

    def run(self, *words, **more):
        return memspan(*words, "--run-dir", self.path, **more)

    def must(self, *words, **more):
        run = self.run(*words, **more)
        assert run.returncode == 0, run.stderr + run.stdout + self.logs()
        return run.stdout

    def bench(self, *words, **more):
        return json.loads(self.must("bench", "--json", *words, **more))

    def spaces(self):
        return json.loads(self.must("space", "list", "--json"))["spaces"]

    def pid(self, node):
        return int((self.path / f"node-{node}.pid").read_text().split()[0])

    def nodes(self):
        return sorted(int(p.stem.split("-")[1])
                      for p in self.path.glob("node-*.pid"))

    def affinity(self):
        return {(n, tid): os.sched_getaffinity(int(tid))
                for n in self.nodes()
                for tid in os.listdir(f"/proc/{self.pid(n)}/task")}

    def logs(self):
        return "".join(f"--- {p.name}\n{p.read_text(errors='replace')[-4000:]}"
                       for p in sorted(self.path.glob("*.log")))

    def close(self):
        self.run("down")
        shutil.rmtree(self.path)


def cluster_of(nodes, **more):
    for name in ("memspan-node", "memspan-coordinator"):
        if not (BUILD / name).exists():
            pytest.skip(f"{name} is not built")
    return Cluster(nodes, **more)


@pytest.fixture(scope="module")
def two():
    c = cluster_of(2)
    yield c
    c.close()


@pytest.fixture(scope="module")
def three():
    c = cluster_of(3)
    yield c
    c.close()


@pytest.fixture(autouse=True)
def nothing_is_left(request):
    """No space, no process of the crew, whatever a test did."""
    yield
    for name in {"two", "three", "small", "full"} & set(request.fixturenames):
        c = request.getfixturevalue(name)
        assert [s["name"] for s in c.spaces()] == []
    assert crew() == []


def children(pid):
    out = subprocess.run(["ps", "-o", "pid=,comm=", "--ppid", str(pid)],
                         capture_output=True, text=True, check=False).stdout
    return [line.split() for line in out.splitlines()]


MARK = f"memspan-test-{os.getpid()}"


def crew():
    """Processes of benchmarks that this test has started."""
    left = []
    for p in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            comm = (p / "comm").read_text().strip()
            mine = MARK.encode() in (p / "environ").read_bytes()
            state = (p / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if comm.startswith("bench-") and mine and state != "Z":
            left.append((int(p.name), comm))
    return left


class Running:
    """A benchmark that goes on while the test does something."""

    def __init__(self, cluster, *words):
        env = {k: v for k, v in os.environ.items()
               if not k.startswith("MEMSPAN_")}
        self.popen = subprocess.Popen(
            [str(BUILD / "memspan"), "bench", "--run-dir", cluster.path,
             *words], env={**env, "MEMSPAN_TEST_MARK": MARK},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True)

    def clients(self):
        return [int(pid) for pid, comm in children(self.popen.pid)
                if comm == "bench-client"]

    def end(self):
        out, err = self.popen.communicate(timeout=60)
        return self.popen.returncode, out, err


def wait_for(what, seconds=30):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


# --- integrity ----------------------------------------------------------------

# Changes one byte in a node's memory of the space, where memspan cannot see it.
FLIP = """
import os, sys
pid, page, byte = map(int, sys.argv[1:])
name = "/memfd:memspan-" + os.environ["MEMSPAN_BENCH_SPACE"] + " (deleted)"
where = "/proc/%d/fd/" % pid
found = [f for f in os.listdir(where) if os.readlink(where + f) == name]
fd = os.open(where + found[0], os.O_RDWR)
at = page * 4096 + byte
was = os.pread(fd, 1, at)
os.pwrite(fd, bytes([was[0] ^ 0x40]), at)
"""


def flip(pid, page, byte):
    return {"MEMSPAN_BENCH_HOOK": shlex.join(
        [sys.executable, "-c", FLIP, str(pid), str(page), str(byte)])}


@pytest.mark.parametrize("page, byte", [(0, 0), (517, 2049), (1023, 4095)])
def test_a_flipped_byte_is_named(two, page, byte):
    # The first half was written on node 0, so that is where its bytes are.
    run = two.run("bench", *SMALL, "--pattern", "sequential,integrity",
                  "--json", env=flip(two.pid(0), page, byte))
    assert run.returncode == 1, run.stderr
    j = json.loads(run.stdout)
    # Each node has read it, and found nothing else.
    assert j["integrity_errors"] == 2
    assert {(e["node"], e["page"], e["byte"]) for e in j["errors"]} == {
        (0, page, byte), (1, page, byte)}
    for node in (0, 1):
        assert (f"page {page} of {j['errors'][0]['space']}, read on node "
                f"{node}, is wrong") in run.stderr


def test_a_flipped_byte_is_in_the_text(two):
    run = two.run("bench", *SMALL, "--pattern", "integrity",
                  env=flip(two.pid(0), 3, 77))
    assert run.returncode == 1
    assert "integrity errors: 2\n" in run.stdout
    assert "page 3 of bench-" in run.stdout
    assert "byte 77 is 0x" in run.stdout


def test_a_hook_that_changes_nothing_is_no_error(two):
    j = two.bench(*SMALL, "--pattern", "integrity",
                  env={"MEMSPAN_BENCH_HOOK": "true"})
    assert j["integrity_errors"] == 0
    assert [p["name"] for p in j["patterns"]] == ["integrity"] * 2


def test_a_hook_that_fails_ends_the_run(two):
    run = two.run("bench", *SMALL, "--pattern", "integrity",
                  env={"MEMSPAN_BENCH_HOOK": "exit 3"})
    assert run.returncode == 1
    assert "integrity: $MEMSPAN_BENCH_HOOK ended with 3" in run.stderr


# --- what takes part ----------------------------------------------------------

def by_name(j):
    out = {}
    for entry in j["patterns"]:
        out.setdefault(entry["name"], []).append(entry)
    return out


def test_one_node_has_no_remote_figures(two):
    run = two.run("bench", *SMALL, "--nodes", "node1", "--json")
    assert run.returncode == 0, run.stderr
    for name in "shared", "invalidate":
        assert f"{name} is left out: it needs two nodes" in run.stderr
    j = json.loads(run.stdout)
    assert j["placement"]["nodes"] == 1
    got = by_name(j)
    assert sorted(got) == ["concurrent", "integrity", "random", "sequential",
                           "stride"]
    for (entry,) in got.values():
        assert entry["node"] == 1
        assert entry["remote_us"] is None
        assert entry["remote_faults"] == 0


def test_three_nodes_invalidate_by_the_third(three):
    j = three.bench("--size", "6M", "--pattern", "invalidate,shared")
    got = by_name(j)
    first, second, third = got["invalidate"]
    assert first["accesses"] == second["accesses"] == 0
    assert third["remote_faults"] == third["accesses"] == 512
    assert third["remote_us"]["n"] == 512
    assert third["floor"]["copies"] == 1
    for entry in got["shared"]:
        assert entry["local_us"] is None
        assert entry["remote_faults"] > 0
        assert entry["handovers_per_s"] > 0


def test_nodes_without_a_socket_here_are_named(three):
    sock = three.path / "node-2.sock"
    aside = sock.rename(three.path / "aside")
    try:
        run = three.run("bench", *SMALL, "--pattern", "random", "--json")
    finally:
        aside.rename(sock)
    assert run.returncode == 0, run.stderr
    assert "node 2 is skipped: its client socket" in run.stderr
    assert {p["node"] for p in json.loads(run.stdout)["patterns"]} == {0, 1}


def test_a_node_that_nobody_knows(two):
    run = two.run("bench", *SMALL, "--nodes", "0,7")
    assert run.returncode == 1
    assert "there is no node '7'" in run.stderr


def test_many_threads_all_served(two):
    j = two.bench(*SMALL, "--pattern", "concurrent", "--threads", "1000")
    for entry in by_name(j)["concurrent"]:
        # The space grew: 4 pages for each thread, first here, then there.
        assert entry["accesses"] >= 2 * 4 * 1000
        assert entry["threads"] == 1000
        assert entry["x_floor"]["threads"] > 0
    assert j["floor"]["threads"][0]["threads"] == 1000


def test_threads_that_do_not_divide_a_share(two):
    j = two.bench(*SMALL, "--pattern", "concurrent", "--threads", "37")
    assert j["integrity_errors"] == 0


# --- capacity -----------------------------------------------------------------

@pytest.fixture(scope="module")
def small():
    """Three nodes that hold about 50 MiB each: four times that is too much."""
    c = cluster_of(3, memory="64M")
    yield c
    c.close()


@pytest.fixture(scope="module")
def full():
    c = cluster_of(2, memory="64M")
    yield c
    c.close()


def remote_reads(c):
    """What the first node says: it is at most a renewal old."""
    node = json.loads(c.must("status", "--json"))["nodes"][0]
    return node["faults"]["remote_read"]


def test_more_memory_than_a_node_has(small):
    before = remote_reads(small)
    j = small.bench("--pattern", "capacity")
    assert j["integrity_errors"] == 0
    rows = by_name(j)["capacity"]
    assert [e["resident_percent"] for e in rows] == [100, 75, 50, 25]
    assert {e["node"] for e in rows} == {0}
    all_fits, much, half, too_much = rows
    for e in all_fits, much, half:
        assert e["skipped"] is None
        assert e["accesses"] >= 100000
        assert e["accesses_per_s"] > 0 and e["plain_accesses_per_s"] > 0
        assert e["quiet_us"]["n"] > 0
        # First touch is its filling, which is not among the accesses.
        assert e["local_faults"] == 0
    # Each of a drawn page, so it misses as often as pages are elsewhere, but
    # for those that are staged: they are an eighth of so small a node's.
    assert all_fits["remote_miss_ratio"] < 0.05
    assert 0.10 < much["remote_miss_ratio"] < 0.30
    assert 0.30 < half["remote_miss_ratio"] < 0.55
    for e in much, half:
        assert e["remote_us"]["n"] == e["remote_faults"]
        assert e["fault_us"]["n"] == (
            e["remote_faults"] + e["refaults"] + e["upgrades"]
            + e["prefetched_faults"])
        assert e["evicted_pages_per_s"] > 0
        assert e["x_quiet"]["p99"] > 0 and e["fault_x_floor_p50"] > 0
    assert "it needs a space of" in too_much["skipped"]
    assert too_much["accesses"] == 0
    assert too_much["accesses_per_s"] is None
    # Pages did travel: the node counted them too.
    faults = much["remote_faults"] + half["remote_faults"]
    wait_for(lambda: remote_reads(small) - before >= faults)


def test_a_full_cluster_still_swaps(full):
    """Two nodes, and as much as both can hold: no peer ever has room to spare,
    but pages that both have can go.  If they are not found, those that nobody
    else has are staged in vain, and each comes back as a refault."""
    rows = by_name(full.bench("--pattern", "capacity"))["capacity"]
    half = rows[2]
    assert half["skipped"] is None
    assert half["remote_miss_ratio"] > 0.30
    assert half["refaults"] < 0.1 * half["accesses"]


def test_a_size_is_one_row_of_capacity(small):
    text = small.must("bench", "--pattern", "capacity", "--size", "8M",
                      "--output", small.path / "row.json")
    (row,) = json.loads((small.path / "row.json").read_text())["patterns"]
    assert row["resident_percent"] == 100
    assert row["space_bytes"] == 8 << 20
    assert "capacity: (node 0): resident=100%, size=8 MiB" in text
    assert "resident=75%" not in text


def test_one_node_alone_names_the_rows_that_do_not_fit(small):
    run = small.run("bench", "--pattern", "capacity", "--nodes", "2",
                    "--size", "1G", "--json")
    assert run.returncode == 0, run.stderr
    (row,) = json.loads(run.stdout)["patterns"]
    assert row["node"] == 2
    assert "it needs a space of 1 GiB" in row["skipped"]
    assert row["quiet_us"] is None


# --- spaces -------------------------------------------------------------------

def test_a_cluster_that_is_too_small(two):
    run = two.run("bench", "--size", "8G", "--pattern", "random")
    assert run.returncode == 1
    assert "random: it needs a space of 8 GiB: " in run.stderr


def test_a_named_space_is_used_and_stays(two):
    two.must("space", "create", "mine", "--size", "8M")
    try:
        j = two.bench("--space", "mine", "--pattern",
                      "sequential,integrity,random")
        assert j["integrity_errors"] == 0
        assert j["size_bytes"] == 8 << 20
        assert [s["name"] for s in two.spaces()] == ["mine"]
    finally:
        two.must("space", "delete", "mine")


def test_a_named_space_that_is_not_there(two):
    run = two.run("bench", "--space", "nowhere")
    assert run.returncode == 1
    assert "nowhere" in run.stderr


# --- placement ----------------------------------------------------------------

@pytest.mark.parametrize("where", ["near", "far"])
def test_the_affinity_of_nodes_is_given_back(two, where):
    if where == "far" and len(os.sched_getaffinity(0)) < 2:
        pytest.skip("far needs two CPUs")
    before = two.affinity()
    bench = Running(two, *SMALL, "--pattern", "random", "--placement", where)
    # While it runs every thread of a node has one CPU.
    wait_for(lambda: all(len(c) == 1 for c in two.affinity().values())
             or bench.popen.poll() is not None)
    during = two.affinity()
    status, _, err = bench.end()
    assert status == 0, err
    assert all(len(c) == 1 for c in during.values())
    assert two.affinity() == before


# --- ends ---------------------------------------------------------------------

def test_an_interrupt_leaves_nothing(two):
    before = two.affinity()
    bench = Running(two, "--size", "64M", "--pattern", "random",
                    "--placement", "near")
    wait_for(lambda: len(two.spaces()) == 1 and len(bench.clients()) == 2)
    bench.popen.send_signal(signal.SIGINT)
    status, out, err = bench.end()
    assert status == 1
    assert "interrupted" in err
    assert out == ""
    assert two.affinity() == before


def test_a_client_that_dies_is_named(two):
    bench = Running(two, "--size", "64M", "--pattern", "random")
    wait_for(lambda: len(two.spaces()) == 1 and len(bench.clients()) == 2)
    os.kill(bench.clients()[1], signal.SIGKILL)
    status, _, err = bench.end()
    assert status == 1
    assert "the client of node 1 ended with signal 9" in err


def test_a_node_that_dies_ends_the_run():
    c = cluster_of(2)
    try:
        bench = Running(c, "--size", "64M", "--pattern", "random")
        wait_for(lambda: len(c.spaces()) == 1 and len(bench.clients()) == 2)
        os.kill(c.pid(1), signal.SIGKILL)
        status, _, err = bench.end()
        assert status == 1
        # Whose pages went with it: either client may be the first to say so.
        assert "ended with signal 7" in err
        assert c.spaces() == []
    finally:
        c.close()


def test_a_killed_benchmark_leaves_no_process(two):
    bench = Running(two, "--size", "64M", "--pattern", "random")
    wait_for(lambda: len(two.spaces()) == 1 and len(bench.clients()) == 2)
    bench.popen.kill()
    bench.end()
    wait_for(lambda: crew() == [])
    # Nobody could delete the space; who looks finds whose it was.
    (space,) = two.spaces()
    assert space["name"] == f"bench-{bench.popen.pid}-random"
    wait_for(lambda: two.run("space", "delete",
                             space["name"]).returncode == 0)


# --- what it prints -----------------------------------------------------------

def test_output_has_the_numbers_that_are_printed(two, tmp_path):
    file, hgrm = tmp_path / "out.json", tmp_path / "hgrm"
    text = two.must("bench", *SMALL, "--pattern", "random", "--output", file,
                    "--hgrm", hgrm)
    j = json.loads(file.read_text())
    for entry in j["patterns"]:
        for kind in "local", "remote":
            assert "p50=%.2f, %.2fx floor" % (
                entry[f"{kind}_us"]["p50"],
                entry["x_floor"][f"{kind}_p50"]) in text
            name = hgrm / f"random-{entry['node']}-{kind}.hgrm"
            count = name.read_text().split("Total count")[1].split("=")[1]
            assert int(count.split("]")[0]) == entry[f"{kind}_us"]["n"]
    assert "x floor" in text
    # What both are held against is the run's own floor.
    ratio = j["patterns"][0]["remote_us"]["p50"] / j["floor"]["remote_us"]["p50"]
    assert abs(ratio - j["patterns"][0]["x_floor"]["remote_p50"]) < 1e-6


def test_the_same_seed_gives_the_same_counts(two):
    def counts(seed):
        j = two.bench(*SMALL, "--pattern", "random", "--seed", seed)
        return [(p["node"], p["pages"], p["accesses"]) for p in j["patterns"]]

    assert counts(1) == counts(1) == counts(2)


def test_the_floor_needs_no_cluster(tmp_path):
    run = memspan("bench", "--pattern", "floor", "--json", "--run-dir",
                  tmp_path / "none")
    assert run.returncode == 0, run.stderr
    j = json.loads(run.stdout)
    assert j["patterns"] == []
    assert j["floor"]["local_us"]["p50"] > 0
    assert j["floor"]["remote_us"]["p50"] > 0
    assert j["floor"]["stream_bytes_per_s"] > 0


def test_without_a_cluster_it_says_so(tmp_path):
    run = memspan("bench", "--coordinator", "http://127.0.0.1:9", "--run-dir",
                  tmp_path)
    assert run.returncode == 1
    assert run.stderr.startswith("memspan bench: ")


@pytest.mark.parametrize("words", [
    ("--pattern", "sideways"), ("--pattern", ""), ("--threads", "0"),
    ("--threads", "10001"), ("--placement", "there"), ("--size", "1M"),
    ("--size", "x"), ("--seed", "-1"), ("--space", "UPPER"),
    ("--space", "a", "--size", "8M"), ("extra",), ("--what",),
])
def test_used_wrongly(words):
    run = memspan("bench", *words)
    assert run.returncode == 2
    assert "usage: memspan bench" in run.stderr
    assert run.stdout == ""
