# SPDX-License-Identifier: Apache-2.0
"""The guests themselves: what a script in one may count on."""

import pytest

import guest as guests

NETWORK = '''
. /net.sh
two_hosts || exit 2
on b sh -c 'nc -l -p 5555 >/tmp/heard' &
until on b netstat -ltn | grep -q ':5555 '; do sleep 0.1; done
echo hello | on a nc 10.9.0.2 5555
wait
cat /tmp/heard
on a ping -c 1 -W 5 10.9.0.2 >/dev/null || exit 3
# A cut cable is a cut cable.
on a /sbin/ip link set cable down
on a ping -c 1 -W 1 10.9.0.2 >/dev/null 2>&1 && exit 4
exit 7
'''


def test_two_hosts_in_one_guest(guest):
    result = guest({}, NETWORK)
    assert result.output == 'hello\n', result.text()
    assert result.status == 7, result.text()


def test_a_guest_that_hangs_is_ended(guest):
    result = guest({}, 'echo begun; sleep 1000', seconds_max=2, memory_mb=256)
    assert result.status is None
    assert result.output == 'begun\n', result.text()


def test_without_network_and_cache_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(guests, 'ROOT', tmp_path)
    monkeypatch.setenv('http_proxy', 'http://127.0.0.1:9')  # nobody listens
    with pytest.raises(guests.NoKernel) as e:
        guests.cached_kernel('6.1')
    assert 'not in %s/build/kernel-6.1' % tmp_path in str(e.value)
    assert 'Give this machine a network once' in str(e.value)
    assert not (tmp_path / 'build' / 'kernel-6.1').exists()
