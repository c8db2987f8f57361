# SPDX-License-Identifier: Apache-2.0
"""Guests under QEMU.

    def test_it(guest, built):
        result = guest(files={'/usr/bin/memspan': built / 'memspan'},
                       script='memspan doctor')

The kernel is fetched from Debian's archive once and kept in build/kernel-6.1.
"""

import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import guest as guests  # noqa: E402  (the path is set above)


@pytest.fixture(scope='session')
def built():
    """Where the programs are."""
    return pathlib.Path(os.environ.get('MEMSPAN_BUILD')
                        or guests.ROOT / 'build').resolve()


@pytest.fixture(scope='session')
def kernel():
    """Linux 6.1 of Debian 12, the oldest that memspan runs on."""
    reason = guests.possible()
    if reason:
        pytest.skip(reason)
    try:
        return guests.cached_kernel('6.1')
    except guests.NoKernel as e:
        pytest.fail(str(e), pytrace=False)


@pytest.fixture(scope='session')
def guest(kernel):
    """Run a script in a guest; guest.run_guest() says how."""
    def run(files, script, **options):
        return guests.run_guest(kernel, files, script, **options)
    return run
