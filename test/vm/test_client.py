# SPDX-License-Identifier: Apache-2.0
"""libmemspan on Debian 12's own kernel, Linux 6.1.

Nodes keep markers there instead of MINOR mappings, and the fence registers
MINOR only when the lease is over.  The unit tests run in one guest, as they
are, and their TAP is read.
"""

import re

import pytest

PROGRAMS = ['test_attach', 'test_client', 'test_fence']

# They need CONTINUE with write protection, of Linux 6.4.
SKIPPED = {
    'a_space_attached_twice_is_one_memory',
    'a_renewed_lease_goes_on_with_the_old_bytes',
    'a_locked_mapping_is_fenced_too',  # after its half with markers
}

SCRIPT = '''
export CMOCKA_MESSAGE_OUTPUT=TAP MEMSPAN_TEST_SLOW=1
for t in %s; do
    echo "== $t"
    $t
    echo "== status $?"
done
uname -r
''' % ' '.join(PROGRAMS)


@pytest.fixture(scope='module')
def run(guest, built):
    missing = [p for p in PROGRAMS if not (built / p).exists()]
    assert not missing, 'build them first: %s' % missing
    return guest({'/usr/bin/' + p: built / p for p in PROGRAMS}, SCRIPT,
                 memory_mb=1024, seconds_max=600)


def test_the_guest_runs_what_it_says(run):
    assert run.status == 0, run.text()
    assert re.search(r'^6\.1\.0-\d+-cloud-amd64$', run.output, re.M)


@pytest.mark.parametrize('program', PROGRAMS)
def test_unit(run, program):
    m = re.search(r'^== %s\n(.*?)^== status (\d+)$' % program,
                  run.output, re.M | re.S)
    assert m and m.group(2) == '0', run.text()
    plan = re.search(r'^1\.\.(\d+)$', m.group(1), re.M)
    assert plan, m.group(1)
    passed = re.findall(r'^ok \d+ - (.*)$', m.group(1), re.M)
    skipped = re.findall(r'^(?:not )?ok \d+ # SKIP (.*)$', m.group(1), re.M)
    assert len(passed) + len(skipped) == int(plan.group(1)), m.group(1)
    assert set(skipped) <= SKIPPED, m.group(1)


def test_nothing_that_6_1_lacks_was_run(run):
    assert set(re.findall(r'^(?:not )?ok \d+ # SKIP (.*)$', run.output,
                          re.M)) == SKIPPED
