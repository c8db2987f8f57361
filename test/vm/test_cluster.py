# SPDX-License-Identifier: Apache-2.0
"""A cluster on Linux 6.1: two hosts, in namespaces of a guest.

The litmus shapes and an exact counter, over real faults on the kernel of
Debian 12, where nodes keep markers instead of MINOR mappings.
"""

import re

import pytest

FILES = {
    '/usr/bin/memspan': 'memspan',
    '/usr/bin/memspan-node': 'memspan-node',
    '/usr/bin/memspan-coordinator': 'memspan-coordinator',
    '/usr/bin/example-counter': 'example-counter',
    '/usr/bin/litmus': 'test/cluster/litmus',
    '/usr/lib/libmemspan.so.0': 'libmemspan.so.0',
}

# Outcomes that sequential consistency of pages and x86-TSO forbid.
SHAPES = {
    'SB': (2, {'00'}),
    'MP': (2, {'10'}),
    'LB': (2, {'11'}),
    'CoRR': (2, {'10'}),
    'IRIW': (4, {'1010'}),
}

ITERATIONS = 300

SCRIPT = '''
. /net.sh
export HOME=/root LD_LIBRARY_PATH=/usr/lib
two_hosts
on a memspan-coordinator --run-dir /run/a --listen 10.9.0.1:7070 \\
    --node-listen 10.9.0.1:7071 --lease 20000 --insecure 2>/tmp/coord.log &
for h in a:10.9.0.1 b:10.9.0.2; do
    on ${h%%%%:*} memspan-node --coordinator 10.9.0.1 --name ${h%%%%:*} \\
        --listen ${h#*:} --run-dir /run/${h%%%%:*} --insecure \\
        2>/tmp/node-${h%%%%:*}.log &
    n=0
    until [ -S /run/a/node-0.sock ]; do
        n=$((n + 1)); [ $n -lt 600 ] || break; sleep 0.1
    done
done
n=0
until [ -S /run/b/node-1.sock ]; do
    n=$((n + 1)); [ $n -lt 600 ] || break; sleep 0.1
done
C='--coordinator http://10.9.0.1:7070'
on a memspan space create s --size 16M --bind 0-8M=0 --bind 8M-16M=1 $C
on a memspan space create demo --size 16M $C
%s
echo "== counter"
example-counter --node /run/a/node-0.sock --timeout 300 --increments 3000 \\
    --items 300 0 2 >/tmp/c0 &
example-counter --node /run/b/node-1.sock --timeout 300 --increments 3000 \\
    --items 300 1 2 >/tmp/c1
echo "status $?"
cat /tmp/c1
cat /tmp/*.log
uname -r
'''


def litmus(shape, roles, seed):
    """
    Roles in turn on the two nodes; x homed at one, y at the other.  What is
    stored grows with the seed, so each shape finds the last one's as old.
    """
    lines = ['echo "== %s"' % shape]
    for r in range(roles):
        last = r == roles - 1
        lines.append(
            'litmus /run/%s s %s %d %d /tmp/%s 10 2058 4 3 %d >/tmp/%s.%d%s' % (
                ['a/node-0.sock', 'b/node-1.sock'][r % 2], shape, r,
                ITERATIONS, shape, seed, shape, r, '' if last else ' &'))
    return '\n'.join(lines + ['wait_for_it %s' % shape,
                              'cat /tmp/%s.0' % shape])


WAIT = '''
wait_for_it() {
    n=0
    until [ -s /tmp/$1.0 ]; do
        n=$((n + 1)); [ $n -lt 100 ] || break; sleep 0.1
    done
}
'''


@pytest.fixture(scope='module')
def run(guest, built):
    missing = [p for p in FILES.values() if not (built / p).exists()]
    assert not missing, 'build them first: %s' % missing
    tests = '\n'.join(litmus(s, roles, k + 1)
                      for k, (s, (roles, _)) in enumerate(SHAPES.items()))
    return guest({k: built / v for k, v in FILES.items()},
                 WAIT + SCRIPT % tests, memory_mb=1024, seconds_max=600)


def test_the_guest_runs_what_it_says(run):
    assert run.status == 0, run.text()
    assert re.search(r'^6\.1\.0-\d+-cloud-amd64$', run.output, re.M)


def test_nodes_take_the_path_of_old_kernels(run):
    assert len(re.findall(r'minor_wp=0 poison=0', run.output)) == 2, run.text()


@pytest.mark.parametrize('shape', SHAPES)
def test_no_forbidden_outcome(run, shape):
    m = re.search(r'^== %s\n((?:[01]+=\d+ ?)+)$' % shape, run.output, re.M)
    assert m, run.text()
    seen = {k: int(n) for k, n in
            (word.split('=') for word in m.group(1).split())}
    assert sum(seen.values()) == ITERATIONS
    assert not SHAPES[shape][1] & set(seen), seen


def test_counter_and_queue_are_exact(run):
    m = re.search(r'^== counter\nstatus (\d+)\n(.*)$', run.output,
                  re.M | re.S)
    assert m and m.group(1) == '0', run.text()
    assert re.search(r'counter +6000 of 6000', m.group(2)), run.text()
