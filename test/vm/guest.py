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


class NoKernel(Exception):
    """The kernel is not in the cache and cannot be fetched."""


@dataclasses.dataclass
class Result:
    status: int       # of the script; None: it never ended
    output: str       # what the script printed
    console: str      # what the kernel said
    seconds: float    # from the start of QEMU to its end
    ready: float      # kernel's uptime when the script began, by its clock

    def text(self):
        """All of it, for a failed assertion."""
        return 'status %s after %.0f s\n%s\n--- console ---\n%s' % (
            self.status, self.seconds, self.output, self.console)


# --- kernels ------------------------------------------------------------------

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
    """Download and unpack a kernel into a directory that is there as a whole,
    or not at all."""
    package = kernel_package(series)
    if package is None:
        # The lists may never have been read on this machine.
        subprocess.run(['apt-get', 'update', '-q'], stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        package = kernel_package(series)
    if package is None:
        raise NoKernel('apt knows no cloud kernel of Linux %s' % series)
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into.parent) as tmp:
        fetched = subprocess.run(
            ['apt-get', 'download', '-q', '-o', 'APT::Sandbox::User=root',
             package], cwd=tmp, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        debs = list(pathlib.Path(tmp).glob('*.deb'))
        if fetched.returncode != 0 or len(debs) != 1:
            raise NoKernel('apt-get download %s: %s'
                           % (package, fetched.stdout.strip()))
        unpacked = pathlib.Path(tmp) / 'unpacked'
        subprocess.run(['dpkg', '-x', debs[0], unpacked], check=True)
        version = package[len('linux-image-'):]
        subprocess.run(['depmod', '-b', unpacked, version], check=True)
        try:
            unpacked.rename(into)
        except OSError:
            if not into.is_dir():  # else somebody else was faster
                raise


def cached_kernel(series):
    """The directory of an unpacked kernel, fetched the first time."""
    into = ROOT / 'build' / ('kernel-' + series)
    if not into.is_dir():
        try:
            fetch_kernel(series, into)
        except (NoKernel, OSError, subprocess.CalledProcessError) as e:
            raise NoKernel(
                'there is no Linux %s to test with: it is not in %s, and could '
                'not be fetched (%s). Give this machine a network once, or '
                'unpack a linux-image-%s.0-*-cloud-amd64 package there.'
                % (series, into, e, series)) from e
    return into


# --- guests -------------------------------------------------------------------

def qemu_command(kernel, initrd, directory, memory_mb, cpus):
    image = sorted(kernel.glob('boot/vmlinuz-*'))[-1]
    return [
        QEMU, '-accel', 'tcg,thread=multi', '-cpu', 'max',
        '-smp', str(cpus), '-m', str(memory_mb),
        '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot',
        '-serial', 'file:%s/console' % directory,
        '-serial', 'file:%s/output' % directory,
        '-kernel', str(image), '-initrd', str(initrd),
        # Without "quiet" the serial line of the boot takes seconds.
        '-append', 'console=ttyS0 quiet panic=-1',
    ]


def read_result(directory, seconds):
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
        ready=float(begin.group(1)) if begin else 0.0)


def wait_for(qemu, directory, seconds_max):
    """Until the guest turns itself off, or its time is over: that of the script
    begins when the script does."""
    output = directory / 'output'
    end = time.monotonic() + BOOT_SECONDS_MAX
    ready = False
    while time.monotonic() < end:
        if not ready and output.exists() and output.stat().st_size > 0:
            ready = True
            end = time.monotonic() + seconds_max
        try:
            qemu.wait(timeout=0.2)
            return
        except subprocess.TimeoutExpired:
            pass


def run_guest(kernel, files, script, modules=(), memory_mb=512, cpus=2,
              seconds_max=300):
    """Boot `kernel` with `files` (DEST in the guest: path here) and run the
    shell script `script` in it as root.  Also there: busybox, /sbin/ip, /net.sh.
    A guest whose script has not ended after `seconds_max` is ended, and its
    status is None."""
    with tempfile.TemporaryDirectory(prefix='memspan-guest-') as tmp:
        directory = pathlib.Path(tmp)
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

        began = time.monotonic()
        with open(directory / 'qemu', 'w') as said:
            qemu = subprocess.Popen(
                qemu_command(kernel, directory / 'initrd', directory,
                             memory_mb, cpus),
                stdin=subprocess.DEVNULL, stdout=said,
                stderr=subprocess.STDOUT)
            try:
                wait_for(qemu, directory, seconds_max)
            finally:
                qemu.kill()  # nothing, if it has ended
                qemu.wait()
        return read_result(directory, time.monotonic() - began)


def possible():
    """Why guests cannot run here, or None."""
    if shutil.which(QEMU) is None:
        return 'needs qemu (qemu-system-x86)'
    if os.uname().machine != 'x86_64':
        return 'needs an x86-64 machine'
    return None
