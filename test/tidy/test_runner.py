# SPDX-License-Identifier: Apache-2.0
"""tools/test counts what failed as failed, whatever form it comes in."""

import importlib.machinery
import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def runner(tmp_path):
    """tools/test as a module that logs elsewhere."""
    writes = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    loader = importlib.machinery.SourceFileLoader(
        'runner', str(ROOT / 'tools' / 'test'))
    module = importlib.util.module_from_spec(
        importlib.util.spec_from_loader('runner', loader))
    loader.exec_module(module)
    sys.dont_write_bytecode = writes
    module.LOGS = tmp_path / 'logs'
    return module


@pytest.fixture
def stage(runner):
    s = runner.Stage('planted')
    yield s
    s.log.close()


def counts(s):
    return s.counts.passed, s.counts.failed, s.counts.skipped


@pytest.mark.parametrize('text,status,expected', [
    ('1..2\nok 1 - a\nok 2 - b\n', 0, (2, 0, 0)),
    ('ok 1 - a\n1..1\n', 0, (1, 0, 0)),
    ('1..2\nok 1 - a\nnot ok 2 - b\n# why\n', 1, (1, 1, 0)),
    ('1..2\nok 1 - a\n', 0, (1, 1, 0)),           # ends before its plan does
    ('1..1\nok 1 - a\n', 134, (1, 1, 0)),         # dies behind its last test
    ('ok 1 - a\n', 0, (1, 1, 0)),                 # has no plan
    ('', 127, (0, 1, 0)),                         # is not there
    ('1..1\nok 1 - a # SKIP needs rdma\n', 0, (0, 0, 1)),
    ('1..1\nnot ok 1 # SKIP needs rdma\n', 0, (0, 0, 1)),
])
def test_tap_is_counted(runner, stage, text, status, expected):
    runner.NEEDS['rdma'] = lambda: False
    stage.count_tap('of', text, status)
    assert counts(stage) == expected


def test_a_skip_of_what_could_run_has_failed(runner, stage):
    for need in runner.NEEDS:
        runner.NEEDS[need] = lambda: True
    runner.NEEDS['kvm'] = lambda: False
    stage.skipped('a', 'needs KVM')
    assert counts(stage) == (0, 0, 1)
    stage.skipped('b', 'needs userfaultfd')
    stage.skipped('c', '')
    stage.skipped('d', 'not today')
    assert counts(stage) == (0, 3, 1)
    runner.NEEDS['userfaultfd'] = lambda: False
    stage.skipped('e', '')
    assert counts(stage) == (0, 3, 2)


def test_a_command_without_an_end_is_ended(stage):
    status, out = stage.run('sh', '-c', 'echo begun; sleep 1000', timeout=0.5)
    assert status == 124
    assert 'begun' in out
    assert 'without an end' in out


def test_what_is_left_running_is_found_and_ended(runner, stage):
    # In a session of its own, as a daemon is, and nobody's child but init's.
    status, out = stage.run(
        'sh', '-c', 'setsid sleep 1000 >/dev/null 2>&1 & echo $!')
    assert status == 0
    assert list(runner.ours_running()) == [int(out)]
    runner.LEFT_SECONDS_MAX = 0
    runner.end_what_is_left(stage)
    assert counts(stage) == (0, 1, 0)
    subprocess.run(['timeout', '10', 'tail', '--pid', out.strip(), '-f',
                    '/dev/null'], check=True)
    assert runner.ours_running() == {}


def test_junit_is_counted(runner, stage, tmp_path):
    runner.NEEDS['rdma'] = lambda: False
    path = tmp_path / 'x.xml'
    path.write_text(
        '<testsuites><testsuite>'
        '<testcase classname="m" name="a"/>'
        '<testcase classname="m" name="b"><failure>why</failure></testcase>'
        '<testcase classname="m" name="c"><error>why</error></testcase>'
        '<testcase classname="m" name="d"><skipped message="needs rdma"/>'
        '</testcase></testsuite></testsuites>')
    stage.count_junit(path, '', 1)
    assert counts(stage) == (1, 2, 1)


def test_pytest_that_collects_nothing_has_failed(stage, tmp_path):
    path = tmp_path / 'x.xml'
    path.write_text('<testsuites><testsuite/></testsuites>')
    stage.count_junit(path, '', 5)
    stage.count_junit(tmp_path / 'none.xml', '', 2)
    assert counts(stage) == (0, 2, 0)


def test_a_stage_that_breaks_has_failed(runner):
    def stage_broken(s):
        """breaks"""
        raise ValueError('planted')
    assert runner.run_stage(stage_broken).failed == 1


def test_an_unknown_stage_is_refused():
    out = subprocess.run([ROOT / 'tools' / 'test', 'nonsense'],
                         capture_output=True, text=True)
    assert out.returncode == 2
    assert 'nonsense' in out.stderr


def test_the_counts_go_where_they_are_asked_for(runner, monkeypatch, tmp_path,
                                                capsys):
    def stage_small(s):
        """one that passes"""
        s.passed('a')
    runner.STAGES[:] = [(stage_small, lambda: True, False)]
    assert runner.main([]) == 0
    assert capsys.readouterr().out.endswith(
        '\n1 passed, 0 failed, 0 skipped\n')
    monkeypatch.setitem(os.environ, 'MEMSPAN_TEST_COUNTS',
                        str(tmp_path / 'counts'))
    assert runner.main([]) == 0
    assert 'passed, 0 failed, 0 skipped\n' not in \
        capsys.readouterr().out.split('\n')[-2:]
    assert (tmp_path / 'counts').read_text() == \
        '1 passed, 0 failed, 0 skipped\n'
