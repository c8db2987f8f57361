# SPDX-License-Identifier: Apache-2.0
"""
memspan vm as a command: what it makes of QEMU's arguments, what it refuses, and
how it ends.  A shell script stands for QEMU where the guest does not matter.
"""

import os
import pty
import re
import shutil
import signal
import subprocess
import termios

import pytest

from cli_tools import BUILD, memspan
from cluster import MIB, rig  # noqa: F401
from guests import guest, guests, kernel, vm_command  # noqa: F401

NO_CLUSTER = ["--run-dir", "/nonexistent"]


def printed(*arguments, options=("--memory", "64M")):
    return memspan("vm", *options, "--print", *NO_CLUSTER, "--", *arguments)


@pytest.fixture
def fake(tmp_path):
    """A program that is run for QEMU: fake(TEXT OF A SHELL SCRIPT)."""
    def make(text):
        path = tmp_path / "qemu"
        path.write_text("#!/bin/sh\n" + text)
        path.chmod(0o755)
        return str(path)

    return make


@pytest.fixture
def small(rig):
    return rig(nodes=1, memory="64M", lease=20000)


def run(cluster, *words, **kwargs):
    return subprocess.run(vm_command(cluster, *words),
                          stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=120, **kwargs)


def spaces(cluster):
    return [s["name"] for s in cluster.coordinator.get("/v1/spaces")]


# --- what is refused ------------------------------------------------------------------


@pytest.mark.parametrize("arguments, what, instead", [
    (["-device", "vfio-pci,host=01:00.0"], "-device vfio-pci", "virtio"),
    (["-device", '{"driver":"vhost-user-fs-pci"}'],
     "-device vhost-user-fs-pci", "-virtfs"),
    (["-drive", "file=x,cache=none"], "-drive cache=none",
     "cache=writeback"),
    (["-blockdev", '{"driver":"file","cache":{"direct":true}}'],
     "-blockdev cache.direct=on", "cache.direct=off"),
    (["-drive", "file=x,aio=native"], "-drive aio=native", "aio=threads"),
    (["-drive", "file=nvme://0000:01:00.0/1"],
     "-drive file=nvme://0000:01:00.0/1", "file or block device"),
    (["-device", "scsi-generic"], "-device scsi-generic", "scsi-hd"),
    (["-netdev", "vhost-vdpa,id=n"], "-netdev vhost-vdpa", "tap"),
    (["-mem-prealloc"], "-mem-prealloc", "left out"),
    (["-overcommit", "mem-lock=on"], "-overcommit mem-lock=on",
     "mem-lock=off"),
    (["-object", "memory-backend-ram,id=m,size=1G"],
     "-object memory-backend-ram", "--memory"),
    (["-readconfig", "x"], "-readconfig x", "written out"),
    (["-accel", "kvm", "-cpu", "Haswell,+vmx"], "-cpu vmx=on", "vmx=off"),
])
def test_refused_by_name_with_what_to_use(arguments, what, instead):
    run = printed(*arguments)
    assert run.returncode == 2 and run.stdout == ""
    m = re.fullmatch(r"memspan vm: (.*?): (.*); use (.*) \(--unsafe insists\)\n",
                     run.stderr)
    assert m, run.stderr
    assert m.group(1) == what
    assert instead in m.group(3)
    # Who insists is warned, and has it.
    run = printed(*arguments, options=("--memory", "64M", "--unsafe"))
    assert run.returncode == 0
    assert run.stderr == f"memspan vm: warning: {what}: {m.group(2)}; use " \
        f"{m.group(3)}\n"
    assert arguments[0] in run.stdout


def test_all_that_is_refused_is_named_at_once():
    run = printed("-daemonize", "-mem-prealloc", "-device", "vfio-pci")
    assert run.returncode == 2
    assert len(re.findall(r"^memspan vm: ", run.stderr, re.M)) == 3
    run = printed(*["-mem-prealloc"] * 20)
    assert "memspan vm: and 4 more\n" in run.stderr


def test_another_backend_cannot_be_insisted_on():
    run = printed("-machine", "q35,memory-backend=m",
                  options=("--memory", "64M", "--unsafe"))
    assert run.returncode == 2
    assert run.stderr == (
        "memspan vm: -machine memory-backend=m: the guest's memory is the "
        "space, and no other; use --memory or --space\n")


@pytest.mark.parametrize("words, why", [
    (["--memory", "64M", "--space", "s", "--"], "not both"),
    (["--memory", "64M", "--", "-m", "128"], "not the same"),
    (["--"], "how much memory?"),
    (["--memory", "64M", "--", "-kernel"], "-kernel: a value must follow"),
    (["--", "-m", "lots"], "-m: 'lots' is no size"),
    (["--memory", "64M", "--numa", "--", "-M", "pc-q35-7.2"],
     "--numa: machine type 'pc-q35-7.2'"),
    (["--space", "A"], "'A' is no name of a space"),
    (["-m", "64"], "invalid option"),
])
def test_used_wrongly(words, why):
    run = memspan("vm", *words)
    assert run.returncode == 2
    assert why in run.stderr, run.stderr


# --- this machine's QEMU ----------------------------------------------------------------


@pytest.fixture(scope="module")
def qemu():
    if guest.possible():
        pytest.skip(guest.possible())

    def ask(*words):
        return subprocess.run([guest.QEMU, *words], capture_output=True,
                              stdin=subprocess.DEVNULL, text=True,
                              timeout=60)
    return ask


def test_every_option_of_qemu_is_known(qemu):
    """Each that its help names; and whether a value follows is known rightly,
    or what stands behind it would be read wrongly."""
    names = set(re.findall(r"^--?([a-zA-Z][\w-]*)", qemu("-help").stdout,
                           re.M)) | {"M", "hdb", "hdd", "fdb", "help"}
    assert len(names) > 100
    wrong = {}
    for name in sorted(names):
        takes = "requires an argument" in qemu("-version", "-" + name).stderr
        run = printed("-" + name, "-mem-prealloc")
        swallowed = "-mem-prealloc: it fills" not in run.stderr
        known = not re.search(
            rf"^memspan vm: -{name}: it is not among", run.stderr, re.M)
        if takes != swallowed or not (known or name.startswith("xen-")):
            wrong[name] = (takes, swallowed, run.stderr)
    assert not wrong


def test_what_is_allowed_qemu_has_or_had(qemu):
    """A device on the list by a slip of the pen would never be found."""
    has = set(re.findall(r'^name "([^"]+)"|alias "([^"]+)"',
                         qemu("-device", "help").stdout, re.M))
    has = {name for pair in has for name in pair if name}
    refused = {n for n in has if printed("-device", n).returncode != 0}
    allowed = has - refused
    assert {"virtio-blk-pci", "virtio-net-pci", "e1000e", "qemu-xhci",
            "virtio-balloon-pci", "vhost-vsock-pci", "ide-hd"} <= allowed
    assert {"vfio-pci", "vhost-user-blk-pci", "vhost-scsi-pci", "pvrdma",
            "scsi-generic", "scsi-block", "nvdimm", "pc-dimm",
            "virtio-mem-pci", "ivshmem-plain"} <= refused


# --- what is printed --------------------------------------------------------------------


def test_what_is_printed_needs_no_cluster():
    run = printed("-kernel", "a b", "-append", "it's")
    assert run.returncode == 0, run.stderr
    make, start, delete = run.stdout.splitlines()
    name = re.match(r"memspan space create (vm-\d+) --size 67108864 "
                    r"--run-dir /nonexistent$", make).group(1)
    assert start == (
        f"memspan run --space {name} --run-dir /nonexistent -- "
        "qemu-system-x86_64 -no-user-config -object memory-backend-file,"
        "id=memspan,mem-path=/proc/self/fd/200,share=on,size=67108864,"
        "prealloc=off,merge=off,dump=off -machine memory-backend=memspan "
        "-m 67108864B -kernel 'a b' -append 'it'\\''s'")
    assert delete == f"memspan space delete {name} --run-dir /nonexistent"


def test_a_space_that_is_there_is_run_by_one_command(small):
    small.space("s", 16 * MIB)
    got = run(small, "--space", "s", "--print", "--qemu", "q", "--", "-S")
    assert got.returncode == 0, got.stderr
    assert re.fullmatch(r"memspan run --space s --node 0 --run-dir \S+ "
                        r"--coordinator \S+ -- q .*size=16777216,.* -S\n",
                        got.stdout)


def test_what_is_printed_does_the_same(rig, guests):
    c = rig(nodes=1, memory="256M", lease=20000)
    where = guests.place()
    initrd = guests.initrd(where, "echo hello")
    command = vm_command(
        c, "--print", "--", *guest.qemu_arguments(
            guests.kernel, initrd, where, 128, 1))
    text = subprocess.run(command, capture_output=True, text=True,
                          check=True).stdout
    env = dict(os.environ, PATH=f"{BUILD}:{os.environ['PATH']}")
    g = guests.start(["sh", "-ec", text], where, env=env)
    result = g.wait()
    assert result.status == 0 and result.exit_status == 0, result.text()
    assert result.output == "hello\n"
    assert spaces(c) == []


# --- how it ends ------------------------------------------------------------------------


def test_the_program_has_the_space_and_its_status_is_ours(small, fake):
    qemu = fake('[ "$(stat -L -c %s /proc/self/fd/200)" = 16777216 ] '
                '&& echo "$MEMSPAN_SPACES $*" && exit 7')
    got = run(small, "--memory", "16M", "--qemu", qemu, "--", "-S")
    assert got.returncode == 7, got.stderr
    m = re.fullmatch(r"(vm-\d+)=200 -no-user-config .* -S\n", got.stdout)
    assert m, got.stdout
    assert spaces(small) == []
    small.space("s", 16 * MIB)
    got = run(small, "--space", "s", "--qemu", qemu, "--", "-m", "8M")
    assert got.returncode == 7, got.stderr
    assert "size=8388608," in got.stdout
    assert spaces(small) == ["s"]


def test_qemu_may_be_named_in_the_environment(small, fake):
    got = run(small, "--memory", "16M", "--",
              env=dict(os.environ, MEMSPAN_QEMU=fake("exit 5")))
    assert got.returncode == 5, got.stderr


@pytest.mark.parametrize("script, status", [
    ("kill -9 $$", 137), ("kill -SEGV $$", 139)])
def test_a_signal_that_ends_qemu_is_128_more(small, fake, script, status):
    got = run(small, "--memory", "16M", "--qemu", fake(script), "--")
    assert got.returncode == status
    assert spaces(small) == []


def test_what_cannot_be_run_leaves_no_space(small, tmp_path):
    got = run(small, "--memory", "16M", "--qemu", str(tmp_path / "q"), "--")
    assert got.returncode == 127
    assert "there is no such program" in got.stderr
    (tmp_path / "q").write_text("")
    got = run(small, "--memory", "16M", "--qemu", str(tmp_path / "q"), "--")
    assert got.returncode == 126
    static = shutil.which("busybox")
    if static:
        got = run(small, "--memory", "16M", "--qemu", static, "--")
        assert got.returncode == 126
        assert "is linked statically" in got.stderr
    assert spaces(small) == []


def test_no_memory_no_space_and_too_small_a_space(small, fake):
    qemu = fake("exit 0")
    got = run(small, "--memory", "1G", "--qemu", qemu, "--")
    assert got.returncode == 1 and "1 GiB" in got.stderr, got.stderr
    got = run(small, "--space", "s", "--qemu", qemu, "--")
    assert got.returncode == 1 and "'s'" in got.stderr, got.stderr
    small.space("s", 16 * MIB)
    got = run(small, "--space", "s", "--qemu", qemu, "--", "-m", "17M")
    assert got.returncode == 1
    assert "space s has only 16 MiB" in got.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP,
                                    signal.SIGINT, signal.SIGQUIT])
def test_signals_are_passed_on(small, fake, number):
    # dash resets no handler that was ignored: they come as by default.
    qemu = fake("trap 'exit 40' TERM; trap 'exit 41' HUP; trap 'exit 42' INT\n"
                "trap 'exit 43' QUIT; echo ready\n"
                "while :; do sleep 0.1; done")
    p = subprocess.Popen(
        vm_command(small, "--memory", "16M", "--qemu", qemu, "--"),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        assert p.stdout.readline() == "ready\n"
        p.send_signal(number)
        assert p.wait(30) == {signal.SIGTERM: 40, signal.SIGHUP: 41,
                              signal.SIGINT: 42, signal.SIGQUIT: 43}[number]
    finally:
        p.kill()
        p.wait()
    assert spaces(small) == []


@pytest.fixture
def terminal(small):
    """terminal(QEMU) runs it in the foreground of a terminal of its own; what
    one types goes to terminal.leader."""
    leader, follower = pty.openpty()
    started = []

    def run_in(qemu):
        p = subprocess.Popen(
            vm_command(small, "--memory", "16M", "--qemu", qemu, "--"),
            stdin=follower, stdout=subprocess.PIPE, text=True,
            start_new_session=True,
            # The first terminal that a session opens is its own.
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)))
        started.append(p)
        return p

    run_in.leader, run_in.follower = leader, follower
    yield run_in
    for p in started:
        p.kill()
        p.wait()
        p.stdout.close()
    os.close(leader)
    os.close(follower)


def test_the_terminal_is_put_back(terminal, fake):
    """QEMU makes it raw for a guest's console, and is killed."""
    before = termios.tcgetattr(terminal.follower)
    p = terminal(fake("stty raw -echo; kill -9 $$"))
    assert p.wait(60) == 137
    assert termios.tcgetattr(terminal.follower) == before


def test_what_the_terminal_sends_comes_once(small, terminal, fake):
    """Ctrl-C goes to all of the foreground, QEMU among it."""
    p = terminal(fake("trap 'echo int' INT; trap 'exit 40' TERM; echo ready\n"
                      "while :; do sleep 0.1; done"))
    assert p.stdout.readline() == "ready\n"
    os.write(terminal.leader, b"\x03")
    assert p.stdout.readline() == "int\n"
    p.send_signal(signal.SIGTERM)
    assert p.wait(30) == 40
    assert p.stdout.read() == ""
    assert spaces(small) == []


def test_who_ignores_children_hears_of_their_end(small, fake):
    got = run(small, "--memory", "16M", "--qemu", fake("exit 3"), "--",
              preexec_fn=lambda: signal.signal(signal.SIGCHLD,
                                               signal.SIG_IGN))
    assert got.returncode == 3
