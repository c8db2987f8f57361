# SPDX-License-Identifier: Apache-2.0
"""Guests for tests: a kernel of Debian, an initramfs of ours, a script to run.

    result = run_guest(kernel, files={'/usr/bin/x': build / 'x'}, script='x -v')
    assert result.status == 0, result.text()

They run under QEMU without KVM, so on any machine, and ten to fifty times
slower: a timed assertion means nothing in them.
"""

import dataclasses
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
QEMU = 'qemu-system-x86_64'

# For two hosts in one guest (net.sh).
MODULES = ['veth']

# Some 3 s on an idle machine.
BOOT_SECONDS_MAX = 240


class NoPackage(Exception):
    """A package is not in the cache and cannot be fetched."""


class NoKernel(NoPackage):
    """The kernel is not in the cache and cannot be fetched."""


@dataclasses.dataclass
class Result:
    status: int       # of the script; None: it never ended
    output: str       # what the script printed
    console: str      # what the kernel said
    seconds: float    # from the start of QEMU to its end
    ready: float      # kernel's uptime when the script began, by its clock
    exit_status: int  # of QEMU, or of what ran it

    def text(self):
        """All of it, for a failed assertion."""
        return 'status %s after %.0f s\n%s\n--- console ---\n%s' % (
            self.status, self.seconds, self.output, self.console)


# --- packages of Debian, unpacked and not installed ---------------------------

def read_lists():
    """The package lists may never have been read on this machine."""
    subprocess.run(['apt-get', 'update', '-q'], stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def fetch_package(package, into):
    """Download and unpack a package into a directory that is there as a whole,
    or not at all."""
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into.parent) as tmp:
        fetched = subprocess.run(
            ['apt-get', 'download', '-q', '-o', 'APT::Sandbox::User=root',
             package], cwd=tmp, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        debs = list(pathlib.Path(tmp).glob('*.deb'))
        if fetched.returncode != 0 or len(debs) != 1:
            raise NoPackage('apt-get download %s: %s'
                            % (package, fetched.stdout.strip()))
        unpacked = pathlib.Path(tmp) / 'unpacked'
        subprocess.run(['dpkg', '-x', debs[0], unpacked], check=True)
        for modules in unpacked.glob('lib/modules/*'):
            subprocess.run(['depmod', '-b', unpacked, modules.name],
                           check=True)
        try:
            unpacked.rename(into)
        except OSError:
            if not into.is_dir():  # else somebody else was faster
                raise


def kernel_package(series):
    """The name of the newest cloud kernel of a series (as "6.1")."""
    out = subprocess.run(
        ['apt-cache', 'search', '--names-only',
         r'^linux-image-%s\.[0-9]+-[0-9]+-cloud-amd64$' % re.escape(series)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    names = [line.split()[0] for line in out.splitlines()]
    return max(names, key=lambda n: [int(d) for d in re.findall(r'\d+', n)],
               default=None)


def fetch_kernel(series, into):
    package = kernel_package(series)
    if package is None:
        read_lists()
        package = kernel_package(series)
    if package is None:
        raise NoKernel('apt knows no cloud kernel of Linux %s' % series)
    fetch_package(package, into)


def cached_kernel(series):
    """The directory of an unpacked kernel, fetched the first time."""
    into = ROOT / 'build' / ('kernel-' + series)
    if not into.is_dir():
        try:
            fetch_kernel(series, into)
        except (NoPackage, OSError, subprocess.CalledProcessError) as e:
            raise NoKernel(
                'there is no Linux %s to test with: it is not in %s, and could '
                'not be fetched (%s). Give this machine a network once, or '
                'unpack a linux-image-%s.0-*-cloud-amd64 package there.'
                % (series, into, e, series)) from e
    return into


def cached_memtest():
    """memtest86+, which QEMU boots like a kernel.  Its package, if installed,
    would enter itself into this machine's boot menu."""
    into = ROOT / 'build' / 'memtest86+'
    if not into.is_dir():
        try:
            try:
                fetch_package('memtest86+', into)
            except NoPackage:
                read_lists()
                fetch_package('memtest86+', into)
        except (NoPackage, OSError, subprocess.CalledProcessError) as e:
            raise NoPackage(
                'there is no memtest86+ to test with: it is not in %s, and '
                'could not be fetched (%s). Give this machine a network once, '
                'or unpack the package memtest86+ there.' % (into, e)) from e
    return into / 'boot' / 'memtest86+x64.bin'


# --- guests -------------------------------------------------------------------

def make_initrd(kernel, files, script, directory, modules=()):
    """An initramfs that runs `script`, in `directory`."""
    (directory / 'script').write_text(
        'echo "guest: ready $(cut -d" " -f1 /proc/uptime)"\n' + script)
    every = dict(files)
    every.update({'/script': directory / 'script',
                  '/net.sh': HERE / 'net.sh',
                  '/sbin/ip': shutil.which('ip') or '/sbin/ip'})
    command = [str(ROOT / 'tools' / 'mkinitrd'), '--kernel', str(kernel),
               '--init', str(HERE / 'init'),
               '--output', str(directory / 'initrd')]
    for module in [*MODULES, *modules]:
        command += ['--module', module]
    command += ['%s:%s' % (source, dest) for dest, source in every.items()]
    subprocess.run(command, check=True)
    return directory / 'initrd'


def qemu_arguments(kernel, initrd, directory, memory_mb, cpus, append='',
                   accel=('-accel', 'tcg,thread=multi', '-cpu', 'max')):
    """What QEMU boots a guest with, but for the program's own name."""
    image = sorted(kernel.glob('boot/vmlinuz-*'))[-1]
    return [
        *accel, '-smp', str(cpus), '-m', '%dM' % memory_mb,
        '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot',
        '-serial', 'file:%s/console' % directory,
        '-serial', 'file:%s/output' % directory,
        '-kernel', str(image), '-initrd', str(initrd),
        # Without "quiet" the serial line of the boot takes seconds.
        '-append', ('console=ttyS0 quiet panic=-1 ' + append).strip(),
    ]


def read_result(directory, seconds, exit_status):
    def read(name):
        path = directory / name
        return path.read_text(errors='replace') if path.exists() else ''

    output = read('output').replace('\r\n', '\n')
    end = re.search(r'^guest: status (\d+)\n?\Z', output, re.M)
    begin = re.match(r'guest: ready ([\d.]+)\n', output)
    return Result(
        status=int(end.group(1)) if end else None,
        output=output[begin.end() if begin else 0:
                      end.start() if end else len(output)],
        console=read('console') + read('qemu'), seconds=seconds,
        ready=float(begin.group(1)) if begin else 0.0,
        exit_status=exit_status)


def children(pid):
    """Of a process that we started, and so is ours to look at."""
    try:
        with open('/proc/%d/task/%d/children' % (pid, pid)) as f:
            return [int(word) for word in f.read().split()]
    except OSError:
        return []


class Running:
    """
    A guest that runs, started by `command`: all of QEMU's command line, or of
    a program that runs it.  Its serial lines go to files in `directory`, as
    qemu_arguments() says.  wait() or end() it.
    """

    def __init__(self, command, directory, **kwargs):
        self.directory = directory
        self.began = time.monotonic()
        with open(directory / 'qemu', 'w') as said:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=said,
                stderr=subprocess.STDOUT, **kwargs)
        self.pid = self.process.pid

    def said(self):
        """What it has printed so far."""
        path = self.directory / 'output'
        return path.read_text(errors='replace') if path.exists() else ''

    def wait(self, seconds_max=300):
        """Until the guest turns itself off, or its time is over: that of the
        script begins when the script does."""
        end = time.monotonic() + BOOT_SECONDS_MAX
        ready = False
        while time.monotonic() < end:
            if not ready and self.said():
                ready = True
                end = time.monotonic() + seconds_max
            try:
                self.process.wait(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                pass
        return self.end()

    def end(self):
        """Now, if it has not ended.  Its exit status is then -9."""
        if self.process.poll() is None:
            # Not a program that waits for QEMU alone: QEMU would run on.
            for pid in children(self.pid):
                os.kill(pid, signal.SIGKILL)
            self.process.kill()
        self.process.wait()
        return read_result(self.directory, time.monotonic() - self.began,
                           self.process.returncode)


def run_guest(kernel, files, script, modules=(), memory_mb=512, cpus=2,
              seconds_max=300):
    """Boot `kernel` with `files` (DEST in the guest: path here) and run the
    shell script `script` in it as root.  Also there: busybox, /sbin/ip, /net.sh.
    A guest whose script has not ended after `seconds_max` is ended, and its
    status is None."""
    with tempfile.TemporaryDirectory(prefix='memspan-guest-') as tmp:
        directory = pathlib.Path(tmp)
        initrd = make_initrd(kernel, files, script, directory, modules)
        running = Running(
            [QEMU, *qemu_arguments(kernel, initrd, directory, memory_mb,
                                   cpus)], directory)
        try:
            return running.wait(seconds_max)
        finally:
            running.end()


def possible():
    """Why guests cannot run here, or None."""
    if shutil.which(QEMU) is None:
        return 'needs qemu (qemu-system-x86)'
    if os.uname().machine != 'x86_64':
        return 'needs an x86-64 machine'
    return None
