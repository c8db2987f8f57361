# SPDX-License-Identifier: Apache-2.0
"""tools/tidy finds each violation planted here, and nothing in a clean tree."""

import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
LICENCE = '/* SPDX-License-Identifier: Apache-2.0 */\n'
HASH = '# SPDX-License-Identifier: Apache-2.0\n'

CLEAN = {
    '.clang-format': (ROOT / '.clang-format').read_text(),
    'meson.build': HASH + """layers = [
  ['base', [], []],
  ['core', ['base'], []],
  ['cli', ['base', 'core'], []],
]
names = ['src/core/dir.c', 'src/cli/main.c', 'src/cli/cmd_up.c']
unit_tests = [['dir', 'core']]
""",
    'src/base/base.h': LICENCE + '#pragma once\n\n#include <stdbool.h>\n',
    'src/core/dir.h': LICENCE + """#pragma once

struct dir_config {
\tvoid (*tell)(int n);
};

int dir_get(int n);
""",
    'src/core/dir.c': LICENCE + """
#include "core/dir.h"

#include <string.h>

#include "base/base.h"

int dir_get(int n)
{
\tchar c[8];

\tmemset(c, 0, sizeof(c));
\treturn n + c[0];
}
""",
    'src/cli/main.c': LICENCE + """
static const struct command commands[] = {
\t{ "up", cmd_up, "start" },
};
""",
    'src/cli/cmd_up.c': LICENCE + """
static const struct option options[] = {
\t{ "nodes", required_argument, NULL, 'n' },
};
""",
    'test/unit/test_dir.c': LICENCE,
    'docs/man/memspan.1.scd': '; SPDX-License-Identifier: Apache-2.0\n',
    'docs/man/memspan-up.1.scd':
        '; SPDX-License-Identifier: Apache-2.0\n*--nodes* N\n',
    'docs/a.md': '# The Title\n\n[b](b.md) and [here](#the-title) and'
                 ' `src/core/dir.c`\n',
    'docs/b.md': '# B\n',
    'tools/run': '#!/bin/sh\n' + HASH + 'echo "$1"\n',
}


def run(tree):
    out = subprocess.run([ROOT / 'tools' / 'tidy', tree], capture_output=True,
                         text=True, timeout=60)
    assert out.stderr == ''
    return out.returncode, out.stdout


@pytest.fixture
def tree(tmp_path):
    for name, text in CLEAN.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def body(*lines, head='int dir_more(int n);\nint dir_more(int n)'):
    return LICENCE + '\n' + head + '\n{\n' + ''.join(
        '\t%s\n' % line for line in lines) + '}\n'


LONG = body(*['n++;'] * 69, 'return n;')

# rule, file, what it then holds, the finding (FILE: line is found by its start)
PLANTED = [
    ('licence_line_comes_first', 'src/core/dir.h', '#pragma once\n', 1),
    ('licence_line_comes_first', 'tools/run', '#!/bin/sh\necho\n', 1),
    ('no_work_is_left_for_later', 'docs/b.md', '# B\n\nTO' 'DO: more\n', 3),
    ('the_tree_speaks_of_itself_alone', 'docs/b.md', '# Assis' 'tant\n', 1),
    ('the_tree_speaks_of_itself_alone', 'README.md', '# In this ses' 'sion\n',
     1),
    ('text_ends_and_lines_end_clean', 'docs/b.md', '# B', 1),
    ('text_ends_and_lines_end_clean', 'docs/b.md', '# B\n \n', 2),
    ('root_has_only_what_belongs_there', 'STATUS.md', '# Status\n', 1),
    ('root_has_only_what_belongs_there', 'docs/b.md.bak', '# B\n', 1),
    ('functions_fit_a_screen_or_two', 'src/core/dir.c', LONG, 5),
    ('files_stay_readable', 'src/core/dir.c',
     LICENCE + '\n' * 799 + 'int x;\n', 801),
    ('lines_fit_eighty_columns', 'src/core/dir.c',
     LICENCE + '/* ' + 'x' * 80 + ' */\n', 2),
    ('lines_fit_eighty_columns', 'tools/run',
     '#!/bin/sh\n' + HASH + '# ' + 'x' * 80 + '\n', 3),
    ('code_is_formatted', 'src/core/dir.c', LICENCE + 'int  x;\n', 2),
    ('scripts_pass_shellcheck', 'tools/run',
     '#!/bin/sh\n' + HASH + 'echo $1\n', 3),
    ('layers_include_downwards_only', 'src/base/base.h',
     LICENCE + '#pragma once\n#include "core/dir.h"\n', 3),
    ('layers_include_downwards_only', 'src/cli/main.c',
     LICENCE + '#include "core/dir.h"\n', 2),
    ('layers_include_downwards_only', 'src/new/new.c', LICENCE, 1),
    ('core_calls_no_operating_system', 'src/core/dir.c',
     LICENCE + '#include <time.h>\n', 2),
    ('core_calls_no_operating_system', 'src/core/dir.c',
     body('return (int)time(0) + n;'), 6),
    ('core_calls_no_operating_system', 'src/core/dir.c',
     body('return malloc(3) == 0;'), 6),
    ('goto_goes_forward', 'src/core/dir.c',
     LICENCE + '\nint dir_more(int n)\n{\nagain:\n\tn++;\n\tgoto again;\n}\n',
     7),
    ('errors_are_errno_values', 'src/core/dir.c', body('return -1;'), 6),
    ('errors_are_errno_values', 'src/core/dir.c',
     body('return -EINVAL;', head='bool dir_x(void)'), 5),
    ('errors_are_errno_values', 'src/core/dir.c',
     body('die("no");', 'return 0;'), 6),
    ('tests_wait_for_events', 'test/unit/test_dir.c',
     body('usleep(1000);'), 6),
    ('mutexes_are_accounted_for', 'src/core/dir.c',
     LICENCE + 'static pthread_mutex_t lock;\n', 2),
    ('headers_compile_alone', 'src/core/dir.h',
     LICENCE + '#pragma once\n\nuint32_t dir_get(void);\n', 1),
    ('headers_compile_alone', 'src/core/dir.h', LICENCE + 'int x;\n', 1),
    ('every_file_is_built', 'src/core/page.c', LICENCE, 1),
    ('every_file_is_built', 'test/unit/test_page.c', LICENCE, 1),
    ('every_file_is_built', 'src/core/meson.build',
     HASH + "unit_tests += [\n  ['none', 'core'],\n]\n", 3),
    ('programs_have_their_manual', 'src/cli/main.c',
     LICENCE + 'x commands[] = {\n\t{ "down", cmd_down, "stop" },\n};\n', 1),
    ('programs_have_their_manual', 'docs/man/memspan-up.1.scd',
     '; SPDX-License-Identifier: Apache-2.0\n', 1),
    ('links_of_documents_resolve', 'docs/a.md', '[c](c.md)\n', 1),
    ('links_of_documents_resolve', 'docs/a.md', '[b](b.md#none)\n', 1),
    ('links_of_documents_resolve', 'docs/a.md', '\n`src/core/none.c`\n', 2),
]


def test_a_clean_tree_passes_every_rule(tree):
    status, out = run(tree)
    assert 'not ok' not in out, out
    assert status == 0


def test_every_rule_has_a_planted_violation():
    out = subprocess.run([ROOT / 'tools' / 'tidy', '--list'],
                         capture_output=True, text=True, check=True).stdout
    names = {line.split()[0] for line in out.splitlines()}
    assert names == {rule for rule, *_ in PLANTED}


@pytest.mark.parametrize(
    'rule,name,text,line', PLANTED,
    ids=['%s-%d' % (p[0], n) for n, p in enumerate(PLANTED)])
def test_a_planted_violation_is_found(tree, rule, name, text, line):
    path = tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    status, out = run(tree)
    assert status == 1
    lines = out.splitlines()
    at = [n for n, x in enumerate(lines) if x.startswith('not ok')
          and x.endswith(' - ' + rule)]
    assert at, out
    found = []
    for x in lines[at[0] + 1:]:
        if not x.startswith('# '):
            break
        found.append(x)
    if rule == 'programs_have_their_manual':
        assert any('docs/man/' in x for x in found), found
    else:
        assert any(x.startswith('# %s:%d: ' % (name, line))
                   for x in found), found


def test_it_finds_and_holds_this_tree():
    """The rules see the real code, not an empty list of files."""
    out = subprocess.run(
        ['/usr/bin/python3', '-c',
         'import importlib.machinery, importlib.util, sys\n'
         'l = importlib.machinery.SourceFileLoader("tidy", sys.argv[1])\n'
         's = importlib.util.spec_from_loader("tidy", l)\n'
         'sys.dont_write_bytecode = True\n'
         'm = importlib.util.module_from_spec(s)\n'
         'l.exec_module(m)\n'
         't = m.Tree(sys.argv[2])\n'
         'print(len(list(t.c_files())), sum(len(f.functions)'
         ' for f in t.c_files()), len(m.layers(t)))',
         ROOT / 'tools' / 'tidy', ROOT],
        capture_output=True, text=True, check=True).stdout
    files, found, layers = map(int, out.split())
    assert files > 20
    assert found > 100
    assert layers == 10
