# SPDX-License-Identifier: Apache-2.0
"""
Programs that know nothing of memspan, by `memspan run`: what they map is
served, what cannot be served is refused, and nothing is ever zeros that is not.
"""

import os
import shutil
import signal
import struct
import subprocess

import pytest

from cluster import (MIB, OLD_KERNEL, PAGE, rig, threads, tool,  # noqa: F401
                     wait_for)

PATH = "/proc/self/fd/200"
MADV_DONTNEED, MADV_REMOVE, MADV_DONTFORK, MADV_DOFORK = 4, 9, 10, 11
MADV_HUGEPAGE, MADV_DODUMP = 14, 17
LEASE = 20000  # a pause of this machine shall end no program here
SIZE = 16 * MIB
PAGES = SIZE // PAGE
KERNELS = pytest.mark.parametrize("env", [None, OLD_KERNEL],
                                  ids=["kernel", "old-kernel"])


def run(c, node, *command, spaces=("s",), **kwargs):
    kwargs.setdefault("timeout", 120)
    return subprocess.run([*c.run(node, *spaces), *command], check=False,
                          stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, **kwargs)


def clients(c, node):
    return c.nodes[node].show()["clients"]


@pytest.fixture
def pair(rig):
    c = rig(lease=LEASE)
    c.space("s", SIZE)
    return c


# --- a program of others -----------------------------------------------------------


@pytest.mark.parametrize("shards", [1, 2])
def test_fio_verifies_on_one_node_what_it_wrote_on_the_other(rig, shards):
    if not shutil.which("fio"):
        pytest.skip("there is no fio")
    c = rig(shards=shards, lease=LEASE)
    c.space("s", SIZE)

    def fio(node, seed, *more):
        r = run(c, node, "fio", "--name=a", "--thread", "--ioengine=mmap",
                f"--filename={PATH}", f"--size={SIZE}", "--rw=randwrite",
                "--bs=4k", "--verify=crc32c", f"--randseed={seed}",
                "--verify_fatal=1", *more)
        assert r.returncode == 0, r.stdout + r.stderr
        assert "verify: bad" not in r.stderr, r.stderr
        assert "memspan:" not in r.stderr, r.stderr

    fio(0, 1, "--do_verify=0")
    fio(1, 1, "--verify_only")
    fio(1, 2, "--do_verify=0")
    fio(0, 2, "--verify_only")
    # It can fail: these are the contents of another run.
    r = run(c, 1, "fio", "--name=a", "--thread", "--ioengine=mmap",
            f"--filename={PATH}", f"--size={SIZE}", "--rw=randwrite",
            "--bs=4k", "--verify=sha1", "--verify_fatal=1", "--verify_only")
    assert r.returncode != 0


# --- mapping -----------------------------------------------------------------------


@KERNELS
def test_what_one_program_writes_another_reads_on_the_other_node(rig, env):
    c = rig(env=env, lease=LEASE)
    c.space("s", SIZE)
    a, b = c.stranger(0, "s"), c.stranger(1, "s")
    pa, pb = a.map(SIZE), b.map(SIZE, fd=b.number(f"open {PATH} rw"))
    a.ok(f"fill {pa} {PAGES} 1 0")
    b.ok(f"check {pb} {PAGES} 1 0")
    b.ok(f"fill {pb} {PAGES} 2 0")
    a.ok(f"check {pa} {PAGES} 2 0")
    assert c.puppet(0, "s").check(0, PAGES, 2) is None


@KERNELS
def test_a_space_mapped_twice_and_in_parts_is_one_memory(rig, env):
    c = rig(env=env, shards=2, lease=LEASE)
    c.space("s", SIZE)
    a, b = c.stranger(0, "s"), c.stranger(1, "s")
    whole, again, other = a.map(SIZE), a.map(SIZE), b.map(SIZE)
    # From the middle of an extent, over the ends of stripes, to another's.
    first, n = 511, 2600
    part = a.map(n * PAGE, first * PAGE)
    a.ok(f"fill {whole} {PAGES} 3 0")
    a.ok(f"check {again} {PAGES} 3 0")
    a.ok(f"check {part} {n} 3 {first}")
    b.ok(f"check {other} {PAGES} 3 0")
    b.ok(f"fill {other} {PAGES} 4 0")
    a.ok(f"check {part} {n} 4 {first}")
    a.ok(f"fill {part} {n} 5 {first}")
    a.ok(f"check {whole + first * PAGE} {n} 5 {first}")
    b.ok(f"check {other + first * PAGE} {n} 5 {first}")
    wait_for(lambda: clients(c, 0) == 3)
    a.ok(f"unmap {whole} {SIZE}")
    wait_for(lambda: clients(c, 0) == 2)
    a.ok(f"check {again + first * PAGE} {n} 5 {first}")
    assert a.ask(f"touch {whole}") == "SEGV"


def test_several_spaces_have_descriptors_of_their_own(pair):
    pair.space("t", 4 * MIB)
    a, b = pair.stranger(0, "s", "t"), pair.stranger(1, "t")
    s, t = a.map(SIZE), a.map(4 * MIB, fd=201)
    a.ok(f"fill {s} 100 1 0")
    a.ok(f"fill {t} 100 2 0")
    a.ok(f"check {s} 100 1 0")
    b.ok(f"check {b.map(4 * MIB)} 100 2 0")


def test_a_part_that_is_unmapped_is_gone_and_the_rest_stays(pair):
    a, b = pair.stranger(0, "s"), pair.stranger(1, "s")
    p, other = a.map(SIZE), b.map(SIZE)
    a.ok(f"fill {p} {PAGES} 1 0")
    a.ok(f"unmap {p + 100 * PAGE} {50 * PAGE}")
    assert a.ask(f"touch {p + 100 * PAGE}") == "SEGV"
    assert a.ask(f"touch {p + 149 * PAGE}") == "SEGV"
    b.ok(f"fill {other} {PAGES} 2 0")
    a.ok(f"check {p} 100 2 0")
    a.ok(f"check {p + 150 * PAGE} {PAGES - 150} 2 150")
    # Nothing else may come to lie there while the node may write there.
    a.refused(f"anon {4 * PAGE} rwpf {p + 90 * PAGE}", "EOPNOTSUPP",
              "over a part of its mapping is refused")
    a.ok(f"check {p + 90 * PAGE} 4 2 90")
    wait_for(lambda: clients(pair, 0) == 1)
    a.ok(f"unmap {p} {100 * PAGE}")
    wait_for(lambda: clients(pair, 0) == 1)
    # With what is left, and memory of others around it.
    a.ok(f"unmap {p + 120 * PAGE} {SIZE - 120 * PAGE}")
    wait_for(lambda: clients(pair, 0) == 0)
    assert a.number(f"anon {SIZE} rwpn {p}") == p


@pytest.mark.parametrize("shards", [1, 4])
def test_threads_that_map_and_unmap_at_once_lose_nothing(rig, shards):
    c = rig(shards=shards, lease=LEASE)
    c.space("s", 64 * MIB, bind="n1")
    a = c.stranger(0, "s")
    have = a.descriptors(), len(threads(a.pid))
    # 700 pages each: their ends cut extents and stripes.
    assert a.number("storm 200 8 25 700", 120) == 0
    wait_for(lambda: clients(c, 0) == 0)
    assert (a.descriptors(), len(threads(a.pid))) == have
    b = c.stranger(1, "s")
    p = b.map(64 * MIB)
    assert b.number(f"peek {p + 5599 * PAGE}") == 25
    assert b.number(f"peek {p + 5600 * PAGE}") == 0


def test_mapping_over_a_space_ends_it_at_the_node_first(pair):
    a, b = pair.stranger(0, "s"), pair.stranger(1, "s")
    pair.space("t", SIZE)
    t = pair.stranger(0, "t", "s")
    p = a.map(SIZE)
    a.ok(f"fill {p} {PAGES} 1 0")
    assert a.number(f"anon {SIZE} rwpf {p}") == p
    wait_for(lambda: clients(pair, 0) == 0)
    a.ok(f"check {p} 16 0 0")
    a.ok(f"fill {p} 16 9 0")
    other = b.map(SIZE)
    b.ok(f"check {other} {PAGES} 1 0")
    # A space over a space, and over memory that was set aside, as QEMU does.
    p = t.number(f"anon {SIZE + MIB} p 0")
    assert t.map(SIZE, how="rwsf", at=p) == p
    t.ok(f"fill {p} {PAGES} 2 0")
    assert t.map(SIZE, how="rwsf", at=p, fd=201) == p
    t.ok(f"check {p} {PAGES} 1 0")
    b.ok(f"check {other} {PAGES} 1 0")
    assert t.ask(f"map 200 0 {SIZE} rwsn {p}") == "EEXIST"
    assert t.map(SIZE) != p


def test_read_only_mappings_and_descriptors_stay_so(pair):
    a = pair.stranger(0, "s")
    p = a.map(SIZE)
    a.ok(f"fill {p} 4 1 0")
    r = a.number(f"open {PATH} r")
    ro = a.map(SIZE, how="rs", fd=r)
    a.ok(f"check {ro} 4 1 0")
    assert a.ask(f"map {r} 0 {PAGE} rws 0") == "EACCES"
    assert a.ask(f"map {a.number(f'open {PATH} w')} 0 {PAGE} ws 0") == "EACCES"
    a.ok(f"protect {ro} {PAGE} rw")
    a.ok(f"fill {ro} 1 2 0")
    a.ok(f"check {p} 1 2 0")
    # MAP_POPULATE would fill the space with zeros before the node serves it.
    a.ok(f"check {a.map(SIZE, how='rwsP')} 1 2 0")


def test_mappings_that_make_no_sense_fail_as_the_kernel_has_them(pair):
    a = pair.stranger(0, "s")
    assert a.ask("map 200 0 0 rws 0") == "EINVAL"
    assert a.ask(f"map 200 100 {PAGE} rws 0") == "EINVAL"
    assert a.ask(f"map 200 0 {PAGE} rwsf 12345") == "EINVAL"
    a.refused(f"map 200 {PAGE} {SIZE} rws 0", "EINVAL", "reach beyond")
    a.refused(f"map 200 {1 << 40} {PAGE} rws 0", "EINVAL", "reach beyond")


# --- what is refused ---------------------------------------------------------------


def test_what_cannot_be_served_is_refused_with_a_message(pair):
    a = pair.stranger(0, "s")
    a.refused(f"map 200 0 {PAGE} rwp 0", "EOPNOTSUPP", "MAP_PRIVATE .*refused")
    p = a.map(SIZE)
    a.ok(f"fill {p} 4 1 0")
    a.refused(f"remap {p} {SIZE} {2 * SIZE}", "EOPNOTSUPP", r"mremap\(2\)")
    assert a.ask(f"remap {p} 0 {SIZE}") == "EOPNOTSUPP"
    a.refused(f"over {p} {PAGE}", "EOPNOTSUPP", r"mremap\(2\)")
    a.refused(f"advise {p} {SIZE} {MADV_DOFORK}", "EOPNOTSUPP", r"madvise\(2\)")
    a.refused("fork", "EOPNOTSUPP", "fork.*--thread")
    a.refused("read 200", "EOPNOTSUPP", r"read\(2\) on space s is refused")
    for order in ("pread", "readv", "write", "sendfile"):
        assert a.ask(f"{order} 200") == "EOPNOTSUPP"
    a.refused(f"stdio {PATH}", "EOPNOTSUPP", r"fopen\(3\) of space s")
    a.refused(f"allocate 200 {PAGE}", "EOPNOTSUPP", r"fallocate\(2\)")
    a.ok(f"check {p} 4 1 0")
    # Each kind once.
    lines = a.errors().splitlines()
    assert len(lines) == len(set(lines)) == 7, lines
    # Neither other memory nor other files are concerned.
    other = a.number(f"anon {4 * PAGE} rwp 0")
    assert a.number(f"remap {other} {4 * PAGE} {8 * PAGE}") > 0
    assert a.number(f"read {a.number('open /dev/zero r')}") == 64
    a.ok("stdio /dev/null")
    a.ok(f"unmap {p} {SIZE}")
    a.ok("fork")


def test_starting_programs_is_no_fork(pair):
    a = pair.stranger(0, "s")
    p = a.map(SIZE)
    a.ok(f"fill {p} 64 1 0")
    assert a.ask("spawn") == "0 7"
    a.ok(f"check {p} 64 1 0")
    # What it starts has the space too.
    r = run(pair, 1, "sh", "-c", f"{tool('stranger')} <<END\n"
            f"map 200 0 {SIZE} rws 0\nEND\n")
    assert r.returncode == 0 and r.stdout.split()[1].isdecimal(), r


def test_programs_that_cannot_be_served_do_not_start(pair, tmp_path):
    copy = shutil.copy(tool("stranger"), tmp_path / "setuid")
    os.chmod(copy, 0o4755)
    capable = shutil.copy(tool("stranger"), tmp_path / "capable")
    # CAP_NET_RAW, permitted and effective: vfs_cap_data of version 2.
    os.setxattr(capable, "security.capability",
                struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0))
    script = tmp_path / "script"
    script.write_text(f"#! {tool('static')}\n")
    script.chmod(0o755)
    text = tmp_path / "text"
    text.write_text("nothing\n")
    small = tmp_path / "small"
    head = bytearray(open(tool("stranger"), "rb").read(4096))
    head[4] = 1  # ELFCLASS32
    small.write_bytes(head)
    small.chmod(0o755)
    for command, status, says in (
            (tool("static"), 126, "linked statically"),
            (script, 126, "static is linked statically"),
            (copy, 126, "has a setuid or setgid bit"),
            (capable, 126, "has file capabilities"),
            (small, 126, "another kind of machine"),
            (text, 126, "may not be executed"),
            (tmp_path, 126, "may not be executed"),
            ("no-such-program", 127, "no such program"),
            (tmp_path / "nothing", 127, "no such program")):
        r = run(pair, 0, str(command))
        assert r.returncode == status, (command, r)
        assert f"memspan run: {command}: " in r.stderr, r
        assert says in r.stderr, (command, r.stderr)
    text.chmod(0o755)
    assert run(pair, 0, str(text)).returncode == 126


# --- contents that are given up ------------------------------------------------------


@KERNELS
def test_a_hole_is_zeros_on_the_other_node_too(rig, env):
    c = rig(env=env, lease=LEASE)
    c.space("s", SIZE, bind="interleave")
    a, b = c.stranger(0, "s"), c.stranger(1, "s")
    # Not mapped: by an attachment of its own.
    b_at = b.map(SIZE)
    b.ok(f"fill {b_at} {PAGES} 1 0")
    a.ok(f"punch 200 {10 * PAGE} {1200 * PAGE}")
    b.ok(f"check {b_at} 10 1 0")
    b.ok(f"check {b_at + 10 * PAGE} 1200 0 10")
    b.ok(f"check {b_at + 1210 * PAGE} {PAGES - 1210} 1 1210")
    # Mapped, from page 1000 on.
    p = a.map(SIZE - 1000 * PAGE, 1000 * PAGE)
    a.ok(f"fill {p} 1000 2 1000")
    a.ok(f"advise {p + 50 * PAGE} {100 * PAGE} {MADV_REMOVE}")
    a.ok(f"check {p + 50 * PAGE} 100 0 1050")
    b.ok(f"check {b_at + 1000 * PAGE} 50 2 1000")
    b.ok(f"check {b_at + 1050 * PAGE} 100 0 1050")
    b.ok(f"fill {b_at} {PAGES} 3 0")
    a.ok(f"punch 200 {2000 * PAGE} {SIZE}")  # to the end
    b.ok(f"check {b_at + 2000 * PAGE} {PAGES - 2000} 0 2000")
    b.ok(f"check {b_at} 2000 3 0")
    assert a.ask("punch 200 100 100") == "EINVAL"
    assert a.ask(f"advise {p - PAGE} {2 * PAGE} {MADV_REMOVE}") == "EINVAL"


@KERNELS
def test_other_advice_changes_no_contents(rig, env):
    c = rig(env=env, lease=LEASE)
    c.space("s", SIZE)
    a, b = c.stranger(0, "s"), c.stranger(1, "s")
    p, other = a.map(SIZE), b.map(SIZE)
    a.ok(f"fill {p} {PAGES} 1 0")
    b.ok(f"check {other} 1000 1 0")
    for advice in (MADV_DONTNEED, MADV_DONTFORK, MADV_HUGEPAGE, MADV_DODUMP):
        a.ok(f"advise {p} {SIZE} {advice}")
    a.ok(f"check {p} {PAGES} 1 0")
    a.ok(f"fill {p} {PAGES} 2 0")
    b.ok(f"check {other} {PAGES} 2 0")
    flags = vm_flags(a.pid, p)
    assert {"dc", "dd", "nh"} <= flags and "hg" not in flags, flags


def vm_flags(pid, address):
    """Of the mapping that begins there: VmFlags in smaps(5)."""
    here = False
    with open(f"/proc/{pid}/smaps", encoding="utf-8") as smaps:
        for line in smaps:
            word = line.split()
            if not word[0].endswith(":"):
                here = int(word[0].split("-")[0], 16) == address
            elif here and word[0] == "VmFlags:":
                return set(word[1:])
    return set()


# --- memory by name ------------------------------------------------------------------


def test_a_memfd_of_the_name_is_the_space(pair):
    a, b = pair.stranger(0, "s"), pair.stranger(1, "s")
    fd = a.number(f"memfd memory-backend-memfd {SIZE}")
    p = a.map(SIZE, fd=fd)
    a.ok(f"fill {p} {PAGES} 1 0")
    b.ok(f"check {b.map(SIZE)} {PAGES} 1 0")
    assert a.ask(f"size {fd} {SIZE // 2}") == "EPERM"
    other = a.number(f"memfd other {SIZE}")
    a.ok(f"check {a.map(SIZE, fd=other)} 1 0 0")
    a.ok("close-all")
    a.refused(f"memfd memory-backend-memfd {SIZE}", "EBADF",
              "descriptor 200 of space s was closed")
    named = pair.stranger(0, "s", env={**os.environ, "MEMSPAN_MEMFD": "ram"})
    fd = named.number(f"memfd ram {SIZE}")
    named.ok(f"check {named.map(SIZE, fd=fd)} {PAGES} 1 0")


# --- the node ------------------------------------------------------------------------


def test_a_space_is_in_use_while_a_program_has_it(pair):
    a = pair.stranger(0, "s")  # has mapped nothing
    refused = pair.coordinator.delete("/v1/spaces/s", 409)
    assert "end them first" in refused["detail"]
    a.ok("close-all")
    wait_for(lambda: pair.coordinator.request(
        "DELETE", "/v1/spaces/s").status_code == 204)
    b = pair.stranger(0, *made_anew(pair))
    assert b.map(SIZE) > 0


def made_anew(c):
    c.space("s", SIZE)
    return ("s",)


@pytest.mark.parametrize("close", [False, True])
def test_a_program_ends_with_a_message_when_its_node_dies(pair, close):
    a, b = pair.stranger(0, "s"), pair.stranger(1, "s")
    p, other = a.map(SIZE), b.map(SIZE)
    b.ok(f"fill {other} {PAGES} 1 0")
    if close:
        a.ok("close-all")  # the descriptors of memspan too
    a.ok(f"check {p} {PAGES} 1 0")
    pair.nodes[0].kill()
    assert a.wait() == -signal.SIGBUS
    assert "its node is gone" in a.errors()
    assert "SIGBUS" in a.errors()


def test_memory_of_a_node_that_is_gone_cannot_be_mapped_by_the_next(rig):
    c = rig(nodes=1, lease=500)
    c.space("s", SIZE)
    a = c.stranger(0, "s")  # has mapped nothing, so it lives on
    c.nodes[0].kill()
    c.coordinator.wait_state("n0", "dead")
    c.node("n0")
    b = c.stranger(0, "s")
    assert b.map(SIZE) > 0
    a.refused(f"map 200 0 {SIZE} rws 0", "ESTALE", "made anew")


def test_a_node_without_the_space_is_refused_with_its_words(pair):
    r = run(pair, 0, "true", spaces=("none",))
    assert r.returncode == 1
    assert "memspan run: there is no space of this name" in r.stderr


def test_which_node_is_meant(pair):
    memspan, run_dir = pair.run(0, "s")[0], str(pair.coordinator.run_dir)

    def ask(*args, **env):
        return subprocess.run(
            [memspan, "run", *args], check=False, capture_output=True,
            text=True, stdin=subprocess.DEVNULL, timeout=60,
            env={**os.environ, **env})

    here = ("--run-dir", run_dir, "--space", "s")
    r = ask(*here, "true")
    assert r.returncode == 1 and "choose one with --node: 0, 1" in r.stderr
    r = ask(*here, "--node", "n1", "sh", "-c", "echo $MEMSPAN_NODE")
    assert r.stdout.strip() == str(pair.nodes[1].socket)
    r = ask(*here, "--node", "nobody", "true")
    assert r.returncode == 1 and "no node 'nobody'" in r.stderr
    r = ask("--space", "s", "sh", "-c", "echo $MEMSPAN_SPACES",
            MEMSPAN_NODE=str(pair.nodes[0].socket))
    assert r.stdout.strip() == "s=200"
    r = ask("--coordinator", pair.coordinator.url, "--run-dir",
            run_dir + "/elsewhere", "--space", "s", "--node", "n0", "true")
    assert r.returncode == 1 and "run on its own host, 127.0.0.1" in r.stderr
    assert ask("true").returncode == 2
    assert ask(*here, "--node", "0").returncode == 2
    assert ask("--space", "No!", "true").returncode == 2
    assert ask(*here, *here, "--node", "0", "true").returncode == 1


# --- the program's own affairs -------------------------------------------------------


def test_exit_status_arguments_and_signals_are_the_programs(pair):
    assert run(pair, 0, "sh", "-c", "exit 42").returncode == 42
    r = run(pair, 0, "printf", "%s.", "--json", "-h", "a b")
    assert r.stdout == "--json.-h.a b."
    assert run(pair, 0, "sh", "-c", "kill -TERM $$").returncode == -15
    # SIGPIPE is as it was for our caller, not as memspan has it for itself.
    r = run(pair, 0, "sh", "-c", "grep SigIgn /proc/self/status")
    ignored = int(r.stdout.split()[1], 16)
    assert not ignored >> (signal.SIGPIPE - 1) & 1
    r = run(pair, 0, "sh", "-c", "echo $LD_PRELOAD",
            env={**os.environ, "LD_PRELOAD": "libc.so.6"})
    assert r.stdout.strip().endswith("/libmemspan-preload.so:libc.so.6")


@pytest.mark.parametrize("variable,value,says", [
    ("MEMSPAN_SPACES", "s", "'s' is not NAME=DESCRIPTOR"),
    ("MEMSPAN_SPACES", "s=0", "descriptor 0, named for space s"),
    ("MEMSPAN_NODE", "", "MEMSPAN_NODE is not set"),
    ("MEMSPAN_NODE", "here", "no absolute path"),
])
def test_an_environment_without_sense_starts_no_program(pair, variable, value,
                                                        says):
    r = run(pair, 0, "env", f"{variable}={value}", "echo", "started")
    assert r.returncode == 127, r
    assert says in r.stderr and "started" not in r.stdout, r


def test_a_program_without_the_descriptors_runs_without_the_space(pair):
    r = run(pair, 0, "bash", "-c", "exec 200>&- 216>&-; exec echo started")
    assert (r.returncode, r.stdout, r.stderr) == (0, "started\n", "")
