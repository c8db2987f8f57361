# SPDX-License-Identifier: Apache-2.0
"""
The command line with real daemons: clusters that `memspan up` starts, that are
looked at, broken, and stopped; and starts that must fail and leave nothing.
"""

import glob
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import pytest

from cli_tools import BUILD, memspan

TAIL = "next: memspan bench; memspan status; memspan down\n"


class RunDir:
    """A run directory; its name is short, since sockets must fit in it."""

    def __init__(self, path):
        self.path = pathlib.Path(path)

    def run(self, *words, **more):
        return memspan(*words, "--run-dir", self.path, **more)

    def json(self, *words, status=0):
        run = self.run(*words, "--json")
        assert run.returncode == status, run.stderr + run.stdout
        return json.loads(run.stdout)

    def pids(self):
        """The processes that pid files name, by file."""
        return {p.stem: int(p.read_text().split()[0])
                for p in self.path.glob("*.pid")}

    def logs(self):
        return "".join(f"--- {p.name}\n{p.read_text(errors='replace')}"
                       for p in sorted(self.path.glob("*.log")))


@pytest.fixture
def run_dir(request):
    for name in ("memspan-node", "memspan-coordinator"):
        assert (BUILD / name).exists(), f"build {name} first"
    r = RunDir(tempfile.mkdtemp(prefix="memspan-test-", dir="/tmp"))
    yield r
    stopped = r.run("down")
    if getattr(request.node, "failed", True):
        print(r.logs())
    left = r.pids()
    shutil.rmtree(r.path)
    assert stopped.returncode == 0, stopped.stderr
    assert not left


def running(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def wait_for(what, seconds=30):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


# --- a cluster's whole life -------------------------------------------------------

def test_up_prints_what_there_is(run_dir):
    run = run_dir.run("up", "--memory", "128M")
    assert run.returncode == 0 and run.stderr == "", run.stderr
    lines = run.stdout.split("\n")
    port = re.fullmatch(
        rf"cluster  {run_dir.path}   http://127\.0\.0\.1:(\d+)   epoch 3",
        lines[0]).group(1)
    assert 7070 <= int(port) <= 7168 and int(port) % 2 == 0
    pids = run_dir.pids()
    for i in (0, 1):
        m = re.fullmatch(
            rf"node {i}   127\.0\.0\.1:(\d+)   128 MiB   "
            rf"{run_dir.path}/node-{i}\.sock   pid (\d+)", lines[1 + i])
        assert 50051 <= int(m.group(1)) <= 50100
        assert int(m.group(2)) == pids[f"node-{i}"]
    assert run.stdout.endswith(TAIL)
    assert (run_dir.path / "coordinator.url").read_text().strip() == \
        f"http://127.0.0.1:{port}"
    for name in ("coordinator", "node-0", "node-1"):
        assert (run_dir.path / f"{name}.log").stat().st_size > 0
    assert not list(run_dir.path.glob("starting-*"))


def test_daemons_stand_on_their_own(run_dir):
    run_dir.run("up", "--memory", "64M")
    for name, pid in run_dir.pids().items():
        assert os.getsid(pid) == pid
        assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
        for fd in (1, 2):
            assert os.readlink(f"/proc/{pid}/fd/{fd}") == \
                str(run_dir.path / f"{name}.log")
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        with open(f"/proc/{pid}/status", encoding="ascii") as f:
            ignored = re.search(r"^SigIgn:\s*(\w+)", f.read(), re.M).group(1)
        # Ours is ignored; a daemon decides that for itself.
        assert int(ignored, 16) & 1 << signal.SIGHUP - 1 == 0


def test_up_in_json(run_dir):
    told = run_dir.json("up", "--nodes", "3", "--memory", "64M", "--shards",
                        "2", "--lease", "1500")
    assert told["schema"] == "memspan.up/1"
    assert told["run_dir"] == str(run_dir.path)
    assert told["epoch"] == 4
    pids = run_dir.pids()
    assert told["coordinator"]["pid"] == pids["coordinator"]
    assert [n["id"] for n in told["nodes"]] == [0, 1, 2]
    for n in told["nodes"]:
        assert n["name"] == f"node{n['id']}"
        assert n["memory_bytes"] == 64 << 20
        assert n["pid"] == pids[f"node-{n['id']}"]
        assert pathlib.Path(n["socket"]).is_socket()


def test_up_returns_when_all_is_well(run_dir):
    run_dir.run("up", "--nodes", "3", "--memory", "64M")
    told = run_dir.json("status")
    assert told["health"] == "HEALTH_OK" and told["reasons"] == []
    assert told["schema"] == "memspan.status/1"
    for n in told["nodes"]:
        assert n["state"] == "alive"
        assert {p["id"] for p in n["peers"] if p["connected"]} == \
            {0, 1, 2} - {n["id"]}


@pytest.mark.parametrize("nodes", [1, 2, 3])
def test_validate_finds_a_sound_cluster_sound(run_dir, nodes):
    run_dir.run("up", "--nodes", str(nodes), "--memory", "64M")
    told = run_dir.json("validate")
    assert told["ok"]
    checks = {c["name"]: c for c in told["checks"]}
    assert {c["result"] for c in checks.values()} == {"ok"}
    for i in range(nodes):
        assert checks[f"pages-{i}"]["value"] == max(1, nodes - 1)
        for what in ("lease", "peers", "memory", "idle-cpu"):
            assert f"{what}-{i}" in checks
    assert "idle-cpu-coordinator" in checks
    # The space it made is gone.
    assert run_dir.json("space", "list")["spaces"] == []


def test_status_and_validate_in_text(run_dir):
    run_dir.run("up", "--memory", "64M")
    status = run_dir.run("status")
    assert status.returncode == 0
    assert status.stdout.startswith("HEALTH_OK\n")
    assert len(status.stdout.split("\n")) <= 24  # one screen
    validate = run_dir.run("validate")
    assert validate.returncode == 0
    assert validate.stdout.strip().split("\n")[-1].startswith("validate: ok")


# What a client does: attach, write one byte of each page named, stay a while.
CLIENT = """
import ctypes, sys
lib = ctypes.CDLL(sys.argv[1])
lib.memspan_addr.restype = ctypes.c_void_p
m, why = ctypes.c_void_p(), ctypes.create_string_buffer(256)
r = lib.memspan_attach(sys.argv[2].encode(), b"demo", 0, ctypes.byref(m), why,
                       256)
assert r == 0, why.value
for page in sys.argv[3:]:
    ctypes.memset(lib.memspan_addr(m) + int(page) * 4096, 1, 1)
print("ready", flush=True)
sys.stdin.read()
lib.memspan_detach(m)
"""


def test_spaces_from_create_to_delete(run_dir):
    run_dir.run("up", "--memory", "64M")
    made = run_dir.json("space", "create", "demo", "--size", "8M",
                        "--bind", "0-4M=1", "--bind", "4M-8M=node0")
    assert made["schema"] == "memspan.space/1"
    assert made["size_bytes"] == 8 << 20
    assert run_dir.run("space", "create", "demo", "--size",
                       "8M").returncode == 1
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, BUILD / "libmemspan.so",
         run_dir.path / "node-0.sock", "0", "1", "1024"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert client.stdout.readline() == "ready\n"
        extents = run_dir.json("map", "demo")["extents"]
        assert [e["home"] for e in extents] == [1, 1, 0, 0]
        assert extents[0]["pages"]["held"] >= 2
        assert 0 in extents[0]["holders"]
        assert extents[3]["pages"]["held"] == 0
        text = run_dir.run("map", "demo").stdout
        assert re.search(r"^  0-0 .* node 1 ", text, re.M)
        assert "demo" in run_dir.run("space", "list").stdout
        refused = run_dir.run("space", "delete", "demo")
        assert refused.returncode == 1 and refused.stderr
        client.communicate("", timeout=30)
        assert client.returncode == 0
    finally:
        if client.poll() is None:
            client.kill()
            client.wait()
    # The node lets go of the client before memspan_detach() returns.
    assert run_dir.run("space", "delete", "demo").returncode == 0
    assert run_dir.run("map", "demo").returncode == 1


def test_a_space_too_large_is_refused_unless_insisted(run_dir):
    run_dir.run("up", "--memory", "64M")
    run = run_dir.run("space", "create", "demo", "--size", "1G")
    assert run.returncode == 1 and "memspan space: " in run.stderr
    run = run_dir.run("space", "create", "demo", "--size", "1G",
                      "--overcommit")
    assert run.returncode == 0, run.stderr


def test_down_stops_all_and_leaves_logs(run_dir):
    run_dir.run("up", "--memory", "64M")
    pids = run_dir.pids()
    run = run_dir.run("down")
    assert run.returncode == 0
    assert run.stdout == "".join(
        f"stopped {name} (pid {pids[file]})\n" for name, file in
        (("node 0", "node-0"), ("node 1", "node-1"),
         ("coordinator", "coordinator")))
    assert not any(running(p) for p in pids.values())
    left = {p.name for p in run_dir.path.iterdir()}
    assert not {n for n in left if n.endswith((".pid", ".sock", ".url"))}
    assert {"coordinator.log", "node-0.log", "node-1.log"} <= left
    again = run_dir.run("down")
    assert again.returncode == 0
    assert again.stdout == f"nothing runs in {run_dir.path}\n"


def test_down_where_nothing_ever_was(tmp_path):
    run = memspan("down", "--run-dir", tmp_path / "none")
    assert run.returncode == 0
    assert list(tmp_path.iterdir()) == []


# --- two clusters -----------------------------------------------------------------

def test_a_second_cluster_needs_another_run_directory(run_dir):
    run_dir.run("up", "--memory", "64M")
    before = run_dir.pids()
    run = run_dir.run("up", "--memory", "64M")
    assert run.returncode == 1
    assert "runs in" in run.stderr and "memspan down" in run.stderr
    assert run_dir.pids() == before
    assert run_dir.json("status")["health"] == "HEALTH_OK"

    other = RunDir(tempfile.mkdtemp(prefix="memspan-test-", dir="/tmp"))
    try:
        run = other.run("up", "--memory", "64M")
        assert run.returncode == 0, run.stderr
        assert other.json("status")["coordinator"]["url"] != \
            run_dir.json("status")["coordinator"]["url"]
        # One cluster's nodes are no concern of the other's coordinator.
        url = other.json("status")["coordinator"]["url"]
        checks = json.loads(memspan("validate", "--json", "--coordinator", url,
                                    "--run-dir", run_dir.path).stdout)
        skipped = {c["name"] for c in checks["checks"]
                   if c["result"] == "skipped"}
        assert {"pages-0", "pages-1"} <= skipped
    finally:
        assert other.run("down").returncode == 0
        shutil.rmtree(other.path)


def test_a_port_asked_for_by_name_is_used_or_refused(run_dir):
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
        run = run_dir.run("up", "--memory", "64M", "--coordinator",
                          f"http://127.0.0.1:{port}")
        assert run.returncode == 1
        assert f"port {port} is taken by" in run.stderr
        assert f"pid {os.getpid()}" in run.stderr
        assert run_dir.pids() == {}
    run = run_dir.run("up", "--memory", "64M", "--coordinator",
                      f"http://127.0.0.1:{port}")
    assert run.returncode == 0, run.stderr
    assert run_dir.json("status")["coordinator"]["url"] == \
        f"http://127.0.0.1:{port}"


# --- clusters that break ----------------------------------------------------------

def test_a_node_that_died_is_seen(run_dir):
    run_dir.run("up", "--memory", "64M", "--lease", "1000")
    os.kill(run_dir.pids()["node-1"], signal.SIGKILL)
    wait_for(lambda: any(r["code"] == "NODE_DEAD"
                         for r in run_dir.json("status")["reasons"]))
    assert run_dir.json("status")["health"] == "HEALTH_ERR"
    told = run_dir.json("validate", status=1)
    checks = {c["name"]: c for c in told["checks"]}
    assert checks["lease-1"]["result"] == "failed"
    assert checks["lease-1"]["remedy"]
    assert checks["lease-0"]["result"] == "ok"
    assert checks["pages-1"]["result"] == "skipped"
    run = run_dir.run("validate")
    assert run.returncode == 1 and "FAILED" in run.stdout
    # The space that was made for it is gone all the same.
    assert run_dir.json("space", "list")["spaces"] == []


def test_a_node_that_stands_still_fails_validate(run_dir):
    # Its lease is long, so it is still a member when it is tried.
    run_dir.run("up", "--memory", "64M", "--lease", "20000")
    pid = run_dir.pids()["node-1"]
    os.kill(pid, signal.SIGSTOP)
    try:
        told = run_dir.json("validate", status=1)
    finally:
        os.kill(pid, signal.SIGCONT)
    checks = {c["name"]: c for c in told["checks"]}
    assert checks["lease-1"]["result"] == "ok"
    assert checks["pages-1"]["result"] == "failed"
    assert checks["pages-0"]["result"] == "failed"
    assert checks["pages-0"]["value"] == 0 and checks["pages-0"]["limit"] == 1


def test_a_coordinator_that_died_is_seen_and_nodes_are_stopped(run_dir):
    run_dir.run("up", "--memory", "64M")
    pids = run_dir.pids()
    os.kill(pids["coordinator"], signal.SIGKILL)
    wait_for(lambda: not running(pids["coordinator"]))
    status = run_dir.run("status")
    assert status.returncode == 1
    assert status.stdout.startswith("HEALTH_ERR\n")
    assert run_dir.run("validate").returncode == 1
    # Nodes run there, so it is not free for another cluster.
    assert run_dir.run("up").returncode == 1
    assert run_dir.run("down").returncode == 0
    assert not any(running(p) for p in pids.values())


def test_up_starts_afresh_where_all_died(run_dir):
    run_dir.run("up", "--memory", "64M")
    run_dir.run("space", "create", "demo", "--size", "4M")
    pids = run_dir.pids()
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not any(running(p) for p in pids.values()))
    assert (run_dir.path / "node-0.sock").exists()
    run = run_dir.run("up", "--nodes", "1", "--memory", "64M")
    assert run.returncode == 0, run.stderr
    told = run_dir.json("status")
    assert told["health"] == "HEALTH_OK"
    # What its spaces held died with the nodes; so they are not shown as whole.
    assert len(told["nodes"]) == 1 and told["spaces"] == []
    assert not (run_dir.path / "node-1.sock").exists()
    assert (run_dir.path / "coordinator.db.old").exists()


def test_down_kills_what_does_not_stop(run_dir):
    run_dir.run("up", "--nodes", "1", "--memory", "64M")
    pid = run_dir.pids()["node-0"]
    os.kill(pid, signal.SIGSTOP)
    run = run_dir.run("down")
    assert run.returncode == 0
    assert f"node 0 (pid {pid}) does not stop: killing it" in run.stderr
    assert not running(pid)


def test_down_never_signals_a_stranger(run_dir):
    # A process with the number, but not the start time, that the file names.
    child = subprocess.Popen(["sleep", "600"])
    try:
        (run_dir.path / "node-7.pid").write_text(f"{child.pid} 1\n")
        (run_dir.path / "coordinator.pid").write_text("nonsense\n")
        run = run_dir.run("down")
        assert run.returncode == 0
        assert run.stdout.startswith("nothing runs")
        assert child.poll() is None
        assert not (run_dir.path / "node-7.pid").exists()
    finally:
        child.kill()
        child.wait()
        (run_dir.path / "coordinator.pid").unlink()


# --- starts that fail ---------------------------------------------------------------

@pytest.fixture
def folder(tmp_path):
    """A folder with a copy of `memspan`, the real coordinator, and a node that
    a test writes."""
    shutil.copy(BUILD / "memspan", tmp_path / "memspan")
    (tmp_path / "memspan-coordinator").symlink_to(
        BUILD / "memspan-coordinator")

    def program(name, text):
        (tmp_path / name).unlink(missing_ok=True)
        (tmp_path / name).write_text("#!/bin/sh\n" + text)
        (tmp_path / name).chmod(0o755)

    program.path = tmp_path
    program.memspan = tmp_path / "memspan"
    return program


def test_up_shows_the_log_of_a_node_that_ends(run_dir, folder):
    folder("memspan-node", "echo no memory for frames >&2; exit 3\n")
    run = run_dir.run("up", program=folder.memspan)
    assert run.returncode == 1 and run.stdout == ""
    assert "node0 did not start: exit status 3" in run.stderr
    assert "  no memory for frames\n" in run.stderr
    assert run_dir.pids() == {}
    assert not (run_dir.path / "coordinator.url").exists()


def test_up_gives_up_on_a_node_that_does_nothing(run_dir, folder):
    folder("memspan-node", "echo thinking; exec sleep 600\n")
    run = run_dir.run("up", program=folder.memspan)
    assert run.returncode == 1
    assert "node0 does not register" in run.stderr
    assert "  thinking\n" in run.stderr
    assert run_dir.pids() == {}
    assert nobody_runs(folder)


def test_up_shows_the_log_of_a_coordinator_that_ends(run_dir, folder):
    folder("memspan-node", "exit 0\n")
    folder("memspan-coordinator", "echo the disk is full; exit 1\n")
    run = run_dir.run("up", program=folder.memspan)
    assert run.returncode == 1
    assert "the coordinator did not start: exit status 1" in run.stderr
    assert "  the disk is full\n" in run.stderr


def test_up_needs_its_programs(run_dir, folder):
    run = run_dir.run("up", program=folder.memspan)
    assert run.returncode == 1
    assert "memspan-node is neither in" in run.stderr
    assert run_dir.pids() == {}


def test_up_passes_its_options_on(run_dir, folder):
    folder("memspan-node", 'echo "$@"; exit 1\n')
    run_dir.run("up", "--memory", "65M", "--shards", "3",
                program=folder.memspan)
    log = (run_dir.path / "starting-node0.log").read_text()
    for words in ("--name node0", f"--run-dir {run_dir.path}",
                  f"--memory {65 << 20}", "--shards 3",
                  "--listen 127.0.0.1:500"):
        assert words in log


def test_up_that_is_interrupted_leaves_nothing(run_dir, folder):
    folder("memspan-node", "exec sleep 600\n")
    up = subprocess.Popen([folder.memspan, "up", "--run-dir", run_dir.path],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True)
    wait_for(lambda: glob.glob(f"{run_dir.path}/starting-node0.log"))
    up.send_signal(signal.SIGINT)
    _, err = up.communicate(timeout=60)
    assert up.returncode == 1
    assert "interrupted" in err
    assert run_dir.pids() == {}
    assert nobody_runs(folder)


def nobody_runs(folder):
    """Nothing that was started from that folder, nor any of its shells."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            log = os.readlink(f"/proc/{entry}/fd/1")
        except OSError:
            continue
        if "starting-node" in log or str(folder.path) in log:
            return False
    return True


def test_up_makes_its_run_directory_but_not_what_is_above(tmp_path):
    run = memspan("up", "--run-dir", "/tmp/memspan-test-none/deeper")
    assert run.returncode == 1
    assert "cannot make the run directory" in run.stderr
    assert not os.path.exists("/tmp/memspan-test-none")
    run = memspan("up", "--run-dir", "/tmp/" + "x" * 100)
    assert run.returncode == 1
    assert "sockets must fit" in run.stderr
