# SPDX-License-Identifier: Apache-2.0
"""The fault layer on Debian 12's own kernel, Linux 6.1.

There is no CONTINUE with write protection there and no poison, and a run over a
split mapping is not protected at all: what the unit tests do on newer kernels
only with features hidden happens here for real.  They run in one guest, as they
are, and their TAP is read.
"""

import re

import pytest

PROGRAMS = ['test_uffd', 'test_uffd_errno', 'test_take', 'test_frame',
            'test_probe', 'test_kernel_facts']

# What 6.1 lacks; anything else that is skipped is a failure.
SKIPPED = {
    'continue_maps_read_only',
    'poison_raises_sigbus_whatever_was_there',
    'poison_wants_an_empty_entry',
    'no_write_is_lost_when_pages_are_taken (minor)',
}

SCRIPT = '''
export CMOCKA_MESSAGE_OUTPUT=TAP MEMSPAN_TEST_TAKES=100
for t in %s; do
    echo "== $t"
    $t
    echo "== status $?"
done
echo "== always"
echo always >/sys/kernel/mm/transparent_hugepage/shmem_enabled
test_probe
echo "== status $?"
uname -r
''' % ' '.join(PROGRAMS)


@pytest.fixture(scope='module')
def run(guest, built):
    missing = [p for p in PROGRAMS if not (built / p).exists()]
    assert not missing, 'build them first: %s' % missing
    return guest({'/usr/bin/' + p: built / p for p in PROGRAMS}, SCRIPT)


def part(run, name):
    """What one program printed, and its status."""
    m = re.search(r'^== %s\n(.*?)^== status (\d+)$' % re.escape(name),
                  run.output, re.M | re.S)
    assert m, run.text()
    return m.group(1), int(m.group(2))


def test_the_guest_runs_what_it_says(run):
    assert run.status == 0, run.text()
    assert re.search(r'^6\.1\.0-\d+-cloud-amd64$', run.output, re.M)


@pytest.mark.parametrize('program', PROGRAMS)
def test_unit(run, program):
    text, status = part(run, program)
    plan = re.search(r'^1\.\.(\d+)$', text, re.M)
    assert plan and status == 0, text
    passed = re.findall(r'^ok \d+ - (.*)$', text, re.M)
    skipped = re.findall(r'^(?:not )?ok \d+ # SKIP (.*)$', text, re.M)
    assert len(passed) + len(skipped) == int(plan.group(1)), text
    assert set(skipped) <= SKIPPED, text
    assert passed, text


def test_nothing_that_6_1_lacks_was_run(run):
    assert set(re.findall(r'^(?:not )?ok \d+ # SKIP (.*)$', run.output,
                          re.M)) == SKIPPED


def test_probe_tells_what_6_1_lacks(run):
    text, _ = part(run, 'test_probe')
    assert '# uffd_continue_wp: failed: ' in text
    assert '# uffd_poison: failed: ' in text
    assert '# page_life: ok: ' in text


def test_probe_tells_of_large_pages(run):
    assert '# memfd_small_pages: ok: ' in part(run, 'test_probe')[0]
    text, _ = part(run, 'always')
    assert '# memfd_small_pages: failed: a page written to a memfd ' \
        'takes 2048 KiB' in text
