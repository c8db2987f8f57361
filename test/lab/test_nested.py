# SPDX-License-Identifier: Apache-2.0
"""
A guest that KVM runs.

There need be no KVM on this machine: QEMU emulates an AMD processor that has
it, and in that guest, a Debian 6.1, a whole cluster runs and `memspan vm` with
-accel kvm.  So pages come to, and are taken away from, a guest whose faults the
kernel's KVM has, on the oldest kernel that memspan is for.
"""

import pathlib
import re
import shutil

import pytest

from conftest import BUILD
from guests import guest, kernel  # noqa: F401

RAM_MIB = 128

PROGRAMS = {
    "/usr/bin/memspan": "memspan",
    "/usr/bin/memspan-node": "memspan-node",
    "/usr/bin/memspan-coordinator": "memspan-coordinator",
    "/usr/bin/libmemspan-preload.so": "libmemspan-preload.so",
    "/usr/bin/stir": "test/cluster/stir",
    "/usr/lib/libmemspan.so.0": "libmemspan.so.0",
}

# What QEMU reads to boot a kernel.
FIRMWARE = ["/usr/share/seabios/bios-256k.bin",
            "/usr/share/qemu/kvmvapic.bin",
            "/usr/share/qemu/linuxboot_dma.bin"]

# The inner guest's memory has its home on the other node, and from when its
# script begins pages of it are taken away.  Not all of them all the time: to
# take one from a guest of KVM's takes milliseconds here.
PASSES_MAX, PAGES = 10, 400
SCRIPT = f"""
export LD_LIBRARY_PATH=/usr/lib
memspan up --nodes 2 --memory 256M --lease 60000 || exit 9
memspan space create ram --size {RAM_MIB}M --bind 1
mkfifo /tmp/orders
stir /run/memspan/node-1.sock ram 5 </tmp/orders >/tmp/stirred &
exec 3>/tmp/orders
(
    memspan vm --node 0 --space ram -- -accel kvm -cpu host,svm=off -smp 1 \\
        -m {RAM_MIB} -nodefaults -display none -no-reboot \\
        -serial file:/tmp/console -serial file:/tmp/output \\
        -kernel /vmlinuz -initrd /inner \\
        -append "console=ttyS0 quiet panic=-1"
    echo $? >/tmp/status
) &
passes=0
until [ -e /tmp/status ]; do
    if [ -s /tmp/output ] && [ $passes -lt {PASSES_MAX} ]; then
        echo pass {PAGES} >&3
        passes=$((passes + 1))
        until [ "$(grep -c passed /tmp/stirred)" = $passes ]; do
            sleep 0.1
        done
    else
        sleep 0.1
    fi
done
cat /tmp/console /tmp/output
echo "passes $passes"
memspan status --json >/tmp/json
echo "remote $(sed -n 's/.*"remote_[a-z]*": \\([0-9]*\\).*/\\1/p' /tmp/json |
    awk '{{ n += $1 }} END {{ print n }}')"
uname -r
memspan down
exit "$(cat /tmp/status)"
"""


@pytest.fixture
def inner(kernel, tmp_path):
    """What the guest within the guest boots."""
    return guest.make_initrd(
        kernel, {"/usr/bin/memory-check": BUILD / "test/vm/memory-check"},
        "memory-check 11 8", tmp_path)


def test_a_guest_under_kvm_whose_pages_are_taken_away(kernel, inner):
    missing = [p for p in PROGRAMS.values() if not (BUILD / p).exists()]
    assert not missing, f"build them first: {missing}"
    files = {dest: BUILD / source for dest, source in PROGRAMS.items()}
    files |= {path: pathlib.Path(path).resolve() for path in FIRMWARE}
    files |= {"/usr/bin/" + guest.QEMU: shutil.which(guest.QEMU),
              "/vmlinuz": sorted(kernel.glob("boot/vmlinuz-*"))[-1],
              "/inner": inner}
    result = guest.run_guest(kernel, files, SCRIPT, modules=["kvm-amd"],
                             memory_mb=2048, seconds_max=1200)
    assert result.status == 0, result.text()
    m = re.search(r"^memory-check ok pages=(\d+) errors=0$", result.output,
                  re.M)
    assert m and int(m.group(1)) * 4096 > RAM_MIB // 3 << 20, result.text()
    assert re.search(r"^6\.1\.0-\d+-cloud-amd64$", result.output, re.M)
    # They really went to and fro.
    passes = int(re.search(r"^passes (\d+)$", result.output, re.M)[1])
    remote = int(re.search(r"^remote (\d+)$", result.output, re.M)[1])
    assert passes >= 2 and remote >= passes * PAGES, result.text()
