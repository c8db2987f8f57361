# SPDX-License-Identifier: Apache-2.0
"""
Nodes and clusters start, stop, start again; what is wrong is refused with a
sentence that says what to do; what idles sleeps; nothing is left behind.
"""

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import pytest

from cluster import (BUILD, EXTENT, MIB, PAGE, Puppet, rig,  # noqa: F401
                     threads, wait_for)

PAGES = EXTENT // PAGE


def memspan(*words, timeout=60, **kwargs):
    return subprocess.run([str(BUILD / "memspan"), *map(str, words)],
                          capture_output=True, text=True, timeout=timeout,
                          check=False, **kwargs)


def ended(node, status=1):
    assert node.process.popen.wait(30) == status, node.process.text()
    return node.process.text()


# --- spaces that cannot be ----------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 4095, PAGE + 1, (1 << 62) + 1, -4096])
def test_a_space_of_a_size_that_is_none(rig, size):
    c = rig(nodes=1)
    problem = c.space("s", size, expect=400)
    assert "size_bytes" in problem["detail"]
    assert c.puppet_refused(0, "s", "ENOENT")


def test_a_space_larger_than_the_cluster_is_refused_with_the_figures(rig):
    c = rig(nodes=2, memory="64M")
    problem = c.space("big", 1 << 40, expect=507)
    assert re.search(r"big|1 ?T|memory", problem["detail"])
    assert c.puppet_refused(0, "big", "ENOENT")
    # It may be had all the same by whoever insists.
    c.space("big", 1 << 40, overcommit=True)
    p, q = c.puppet(0, "big"), c.puppet(1, "big")
    last = (1 << 40) // PAGE - 1
    for page in (0, last, last // 2, last // 3):
        p.fill(page, 1, 5)
        q.check(page, 1, 5)
    for client in (p, q):
        assert client.end() == 0
    c.coordinator.delete("/v1/spaces/big")


def test_a_name_is_one_space_and_may_be_used_again(rig):
    c = rig()
    c.space("s", 4 * MIB)
    assert "exists" in c.space("s", 8 * MIB, expect=409)["detail"]
    p = c.puppet(0, "s")
    p.fill(0, 8, 1)
    problem = c.coordinator.delete("/v1/spaces/s", expect=409)
    assert "attached" in problem["detail"]
    p.check(0, 8, 1)
    assert p.end() == 0
    for k in range(5):
        wait_for(lambda: c.coordinator.request(
            "DELETE", "/v1/spaces/s").status_code == 204)
        assert c.puppet_refused(1, "s", "ENOENT")
        c.space("s", (4 + 4 * k) * MIB)
        # The same name, and nothing of what was there.
        for n in (0, 1):
            q = c.puppet(n, "s")
            q.check(16 * n, 16, 0)
            q.fill(16 * n, 4, k + 2)
            assert q.end() == 0


def test_a_client_of_an_unknown_space_or_node_is_told(rig, tmp_path):
    c = rig(nodes=1)
    assert "space create" in c.puppet_refused(0, "nope", "ENOENT")
    p = Puppet(folder=c.folder)
    c.clients.append(p)
    got = p.ask(f"attach {tmp_path}/none.sock s")
    assert got.startswith("ECONNREFUSED") and "none.sock" in got
    # A socket that nobody answers on.
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    dead.bind(str(tmp_path / "dead.sock"))
    dead.close()
    got = p.ask(f"attach {tmp_path}/dead.sock s")
    assert got.startswith("ECONNREFUSED")
    (tmp_path / "file").write_text("")
    assert p.ask(f"attach {tmp_path}/file s").startswith("ECONNREFUSED")


def test_a_node_that_stands_still_takes_no_client_for_ever(rig):
    c = rig(nodes=1, lease=60000)
    c.space("s")
    c.nodes[0].signal(signal.SIGSTOP)
    p = Puppet(folder=c.folder)
    c.clients.append(p)
    before = time.monotonic()
    got = p.ask(f"attach {c.nodes[0].socket} s", timeout=30)
    assert got.startswith("ETIMEDOUT"), got
    assert 9 < time.monotonic() - before < 20  # 10 s are promised
    c.nodes[0].signal(signal.SIGCONT)
    p.ok(f"attach {c.nodes[0].socket} s")
    p.check(0, 1, 0)


# --- nodes that cannot be -----------------------------------------------------------


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(rig):
    c = rig(nodes=1, lease=1000)
    sock = c.nodes[0].socket
    c.nodes[0].kill()
    assert sock.exists()
    c.coordinator.wait_state("n0", "dead")
    c.node("n0")
    assert c.nodes[1].socket == sock
    c.space("s", 4 * MIB)
    c.puppet(1, "s").check(0, 1, 0)
    # Another node that wants the same place.
    text = ended(c.node("other", args=("--socket", str(sock)), wait=False))
    assert "another memspan-node serves" in text
    p = c.puppet(1, "s")
    p.fill(0, 1, 1)
    # What is no socket is not removed.
    path = c.folder / "precious"
    path.write_text("x")
    text = ended(c.node("third", args=("--socket", str(path)), wait=False))
    assert str(path) in text
    assert path.read_text() == "x"
    p.check(0, 1, 1)


def test_a_port_that_is_taken_is_named(rig):
    c = rig(nodes=1)
    taken = c.nodes[0].show()["endpoint"]
    text = ended(c.node("b", args=("--listen", taken), wait=False))
    assert taken in text and "another process has that port" in text
    assert "--listen" in text
    c.node("c")
    c.connected()


def test_who_cannot_join_says_why_within_seconds(rig):
    """No coordinator there; a name that somebody has, who lives."""
    c = rig(nodes=1, lease=60000)
    free = socket.create_server(("127.0.0.1", 0))
    port = free.getsockname()[1]
    free.close()
    nobody = c.node("n", args=("--coordinator", f"127.0.0.1:{port}"),
                    wait=False)
    text = ended(c.node("n0", wait=False))
    assert "409" in text and "n0" in text
    text = ended(nobody)
    assert f"no coordinator answers at http://127.0.0.1:{port}" in text
    assert "memspan-coordinator" in text
    c.space("s", 4 * MIB)
    c.puppet(0, "s").fill(0, 4, 1)


def test_a_coordinator_that_is_none(rig):
    """Something else listens at that port, and says nothing, or nonsense."""
    c = rig(nodes=0)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        node = c.node("n", args=("--coordinator", "127.0.0.1:%d" %
                                 mute.getsockname()[1]), wait=False)
        k, _ = mute.accept()
        k.recv(10)
        k.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\n[1]")
        text = ended(node)
        assert "makes no sense" in text
        k.close()


def test_a_node_of_another_protocol_is_refused(coordinator):
    r = coordinator.request("POST", "/v1/nodes", json={
        "name": "x", "memory_bytes": 1 << 30, "endpoint": "127.0.0.1:1",
        "protocol": 2})
    assert r.status_code == 409
    assert "protocol" in r.json()["detail"]


@pytest.mark.parametrize("args,what", [
    (("--memory", "1M"), "64M"), (("--memory", "x"), "--memory"),
    (("--listen", "0.0.0.0"), "--insecure"),
    (("--listen", "10.0.0.1:70000", "--insecure"), "HOST:PORT"),
    (("--busy-poll", "-1"), "--busy-poll"), (("--nope",), "nope"),
    (("word",), "word"), (("--log-format", "xml"), "json"),
    (("--name", ""), "--name"), (("--config", "/none"), "/none"),
])
def test_wrong_options_of_a_node(rig, args, what):
    c = rig(nodes=0)
    node = c.node("n", args=args, wait=False)
    status = node.process.popen.wait(20)
    assert status in (1, 2)
    assert what in node.process.text()
    assert c.coordinator.get("/v1/nodes") == []


# --- spaces and coordinators that come and go --------------------------------------------


def test_a_deletion_that_the_coordinator_did_not_live_to_finish(rig):
    """Asked whether anybody is attached, nodes take no new client; that ends."""
    c = rig(nodes=1, lease=8000)
    c.space("s", 4 * MIB)
    fake = c.coordinator.fake("mute")
    fake.silent.add(84)  # SPACE_DROP: so the round never ends
    with pytest.raises(Exception):
        c.coordinator.session.delete(
            c.coordinator.url + "/v1/spaces/s", timeout=0.5)
    c.coordinator.restart(kill=True)
    c.coordinator.wait_state("n0", "alive")
    p = Puppet(folder=c.folder)
    c.clients.append(p)
    wait_for(lambda: p.ask(f"attach {c.nodes[0].socket} s") == "ok")
    p.check(0, 1, 0)


def test_nodes_join_and_leave_while_others_work(rig):
    c = rig(shards=2)
    c.space("s", 8 * MIB, bind="interleave")
    c.space("t", 8 * MIB)
    a = c.puppet(0, "t")
    a.fill(0, 512, 9)
    h = [c.hammer(n, "s", PAGES - 8, 16).go() for n in (0, 1)]
    for k in range(6):
        node = c.node(f"extra{k % 2}", shards=1 + k % 3)
        wait_for(lambda: len(node.connected()) >= 2)
        p = c.puppet(len(c.nodes) - 1, "t")
        p.check(16 * k, 16, 9)
        assert p.end() == 0
        for x in h:
            x.progress(20)
        assert node.stop() == 0
        c.nodes.remove(node)
    for x in h:
        x.progress(20)
        x.stop()
    c.exact(c.puppet(0, "s"), PAGES - 8)
    a.check(0, 512, 9)


def test_a_node_that_leaves_in_order_ends_its_clients_with_a_word(rig):
    c = rig()
    c.space("s", 4 * MIB)
    p = c.puppet(1, "s")
    p.check(0, 1, 0)
    assert c.nodes[1].stop() == 0
    assert p.wait() == -signal.SIGBUS
    assert re.search("memspan-node was stopped|its node is gone", p.errors())
    assert not c.nodes[1].socket.exists()
    assert c.coordinator.state("n1") in ("drained", "dead")


# --- at rest --------------------------------------------------------------------------


def test_who_has_nothing_to_do_sleeps(rig):
    """At most two wake-ups a second and thread, with clients and spaces."""
    c = rig(shards=2)
    for k in range(20):
        c.space(f"s{k}", 4 * MIB, bind="interleave")
    p = [c.puppet(n, f"s{k}") for n in (0, 1) for k in range(10)]
    for client in p:
        client.check(PAGES - 4, 8, 0)
    pids = {"n0": c.nodes[0].pid, "n1": c.nodes[1].pid,
            "client": p[0].pid,
            "coordinator": c.coordinator.process.pid}
    first = {k: threads(pid) for k, pid in pids.items()}
    start = time.monotonic()
    time.sleep(5)  # what is measured, not what is waited for
    seconds = time.monotonic() - start
    for k, pid in pids.items():
        now = threads(pid)
        woken = {f"{name} {tid}": switches - first[k].get(tid, (0, 0))[1]
                 for tid, (name, switches) in now.items()}
        assert sum(woken.values()) <= 2 * seconds * len(now), (k, woken)


# --- whole clusters ---------------------------------------------------------------------


def ours(run_dir):
    """Processes whose command line names the run directory."""
    out = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if str(run_dir).encode() in line:
            out.append((int(pid), line))
    return out


def test_up_and_down_again_and_again(tmp_path, root):
    run_dir = tmp_path / "run"
    for k in range(4):
        up = memspan("up", "--run-dir", run_dir, "--nodes", 1 + k % 3,
                     "--shards", 1 + k % 2)
        try:
            assert up.returncode == 0, up.stderr
            made = memspan("space", "create", "s", "--size", "4M",
                           "--run-dir", run_dir)
            assert made.returncode == 0, made.stderr
            p = Puppet(run_dir / "node-0.sock", "s", folder=tmp_path)
            p.fill(100 + k, 1, 1)
            assert p.end() == 0
        finally:
            down = memspan("down", "--run-dir", run_dir)
        assert down.returncode == 0, down.stderr
        assert ours(run_dir) == []
        assert not list(run_dir.glob("*.sock"))
        assert not list(run_dir.glob("*.pid"))
    assert memspan("down", "--run-dir", run_dir).returncode == 0


def test_a_node_needs_no_privilege(rig, tmp_path):
    """memspan-node as nobody, its client as root."""
    c = rig(nodes=1)
    theirs = pathlib.Path(tempfile.mkdtemp(prefix="memspan-test-"))
    os.chown(theirs, 65534, 65534)
    program = shutil.copy(BUILD / "memspan-node", theirs / "memspan-node")
    os.chmod(program, 0o755)

    def nobody():
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)

    log = open(theirs / "log", "wb")
    node = subprocess.Popen(
        [program, "--coordinator", c.coordinator.url, "--name", "nobody",
         "--memory", "128M", "--run-dir", str(theirs)],
        stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=nobody)
    try:
        wait_for(lambda: c.coordinator.request(
            "GET", "/v1/nodes/nobody").json().get("state") == "alive")
        c.space("s", 8 * MIB, bind="interleave")
        sock = theirs / f"node-{c.coordinator.get('/v1/nodes/nobody')['id']}.sock"
        wait_for(sock.exists)
        h = c.hammer(0, "s", PAGES - 8, 16).go()
        p = Puppet(sock, "s", folder=c.folder)
        c.clients.append(p)
        p.fill(0, 64, 1)
        a = c.puppet(0, "s")
        a.check(0, 64, 1)
        a.fill(PAGES + 64, 4, 2)
        p.check(PAGES + 64, 4, 2)
        for _ in range(20):
            p.ok(f"poke {PAGES - 9} 1")
            p.ask(f"peek {PAGES - 8}")
            h.progress(10)
        h.stop()
        c.exact(p, PAGES - 8)
        assert p.end() == 0
        node.terminate()
        assert node.wait(20) == 0, (theirs / "log").read_text()
    finally:
        node.kill()
        node.wait(10)
        log.close()
        shutil.rmtree(theirs)
