# SPDX-License-Identifier: Apache-2.0
"""
The command line without a cluster: words, wrong arguments, help, manual,
completion; and what commands make of a coordinator's answers, with one whose
answers are chosen here.  Real clusters: test_cli_up.py.
"""

import json
import re
import shutil
import socket
import subprocess

import pytest

import cli_tools
from cli_tools import (BUILD, COMMANDS, ROOT, Coordinator, cluster, extent,
                       memspan, node, options_of, problem, space, usage)

NOBODY = "http://127.0.0.1:9"  # the discard port: nothing listens there


# --- words ------------------------------------------------------------------------

def test_no_word_shows_what_there_is():
    run = memspan()
    assert run.returncode == 2
    assert run.stdout == ""
    for c in COMMANDS:
        assert re.search(rf"^  {c} ", run.stderr, re.M)


def test_help_shows_what_there_is():
    for words in (["help"], ["--help"], ["-h"]):
        run = memspan(*words)
        assert run.returncode == 0
        listed = re.findall(r"^  ([a-z]+)  ", run.stdout, re.M)
        assert listed == COMMANDS + ["help"]
        assert run.stderr == ""


def test_version_is_that_of_the_project():
    version = re.search(r"version: '([^']+)'",
                        (ROOT / "meson.build").read_text()).group(1)
    run = memspan("--version")
    assert (run.returncode, run.stdout) == (0, f"memspan {version}\n")


def test_an_unknown_word_is_refused_with_a_suggestion():
    run = memspan("statsu")
    assert run.returncode == 2
    assert "did you mean 'status'?" in run.stderr
    run = memspan("frobnicate")
    assert run.returncode == 2
    assert "did you mean" not in run.stderr
    assert memspan("help", "frobnicate").returncode == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(command):
    long = memspan(command, "--help")
    assert long.returncode == 0 and long.stderr == ""
    assert long.stdout.startswith(f"usage: memspan {command}")
    assert long.stdout == usage(command)
    assert {"--help", "--run-dir", "--coordinator"} <= options_of(long.stdout)
    # These print nothing of their own that a program would read.
    assert ("--json" in long.stdout) == (command not in ("down", "run", "vm"))


# --- wrong arguments --------------------------------------------------------------

WRONG = {
    "up": [["x"], ["--nodes", "0"], ["--nodes", "17"], ["--nodes", "two"],
           ["--nodes", "-1"], ["--nodes"], ["--memory", "1"],
           ["--memory", "63M"], ["--memory", "1Q"], ["--shards", "0"],
           ["--shards", "17"], ["--lease", "1"], ["--lease", "2s"],
           ["--coordinator", "http://example.org:7070"],
           ["--coordinator", "http://127.0.0.1"],
           ["--coordinator", "http://127.0.0.1:0"],
           ["--coordinator", "http://127.0.0.1:99999"]],
    "down": [["x"], ["--json"]],
    "status": [["x"], ["--coordinator", "not a url"],
               ["--coordinator", ""], ["--coordinator", "ftp://x"]],
    "validate": [["x"]],
    "doctor": [["x"]],
    "space": [[], ["make", "x"], ["create"], ["create", "x"],
              ["create", "x", "--size"], ["create", "x", "--size", "0"],
              ["create", "x", "--size", "4095"],
              ["create", "x", "--size", "5000"],
              ["create", "x", "--size", "17T"],
              ["create", "X", "--size", "4K"],
              ["create", "x", "y", "--size", "4K"],
              ["create", "a/b", "--size", "4K"],
              ["create", "x" * 64, "--size", "4K"],
              ["create", "x", "--size", "4M", "--replicas", "0"],
              ["create", "x", "--size", "4M", "--replicas", "4"],
              ["create", "x", "--size", "4M", "--bind", ""],
              ["create", "x", "--size", "4M", "--bind", "1M-2M=0"],
              ["create", "x", "--size", "4M", "--bind", "2M=0"],
              ["create", "x", "--size", "4M", "--bind", "0-2M="],
              ["list", "x"], ["list", "--size", "4K"], ["show"],
              ["show", "x", "--overcommit"], ["delete"],
              ["delete", "x", "--bind", "0"]],
    "map": [[], ["X"], ["a", "b"]],
    "bench": [["x"], ["--size", "x"], ["--pattern", "x"], ["--threads", "0"]],
    "run": [[], ["true"], ["--space", "a"], ["--space", "A", "true"],
            ["--space"], ["--node"], ["--space", "a"] * 17],
    "vm": [[], ["--space", "X"], ["--memory", "0"], ["--memory", "4097"],
           ["--memory", "17T"], ["--memory", "4M", "--space", "x"]],
}


@pytest.mark.parametrize("command, words", [
    (c, w) for c in COMMANDS
    for w in WRONG[c] + [["--frobnicate"], ["--run-dir"], ["--run-dir", ""],
                         ["--coordinator"]]])
def test_wrong_arguments_are_refused_with_the_synopsis(command, words):
    if "--coordinator" not in words:
        words = words + ["--coordinator", "http://127.0.0.1:9"]
    run = memspan(command, *words)
    assert run.returncode == 2, run.stderr
    assert run.stdout == ""
    assert run.stderr.startswith(f"memspan {command}: ")
    assert f"\nusage: memspan {command}" in run.stderr


def test_too_much_after_help_is_refused():
    run = memspan("help", "up", "down")
    assert run.returncode == 2 and "usage: memspan help" in run.stderr


# --- the manual -------------------------------------------------------------------

@pytest.mark.parametrize("command", COMMANDS)
def test_help_and_manual_name_the_same_options(command):
    page = ROOT / f"docs/man/memspan-{command}.1.scd"
    text = page.read_text()
    section = re.search(r"^# OPTIONS\n(.*?)^# ", text, re.S | re.M).group(1)
    # An entry begins at the margin; what it says may name others.
    entries = "\n".join(line for line in section.split("\n")
                        if line.startswith("*-"))
    assert options_of(entries) == options_of(usage(command))


@pytest.mark.parametrize("page", ["memspan.1"] + [
    f"memspan-{c}.1" for c in COMMANDS])
def test_manual_has_its_sections(page):
    heads = re.findall(r"^# (.*)$", (ROOT / f"docs/man/{page}.scd").read_text(),
                       re.M)
    for wanted in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES",
                   "EXIT STATUS", "FILES", "ENVIRONMENT", "SEE ALSO"):
        assert wanted in heads


@pytest.mark.parametrize("page", sorted(
    p.name[:-4] for p in (ROOT / "docs/man").glob("*.scd")))
def test_manual_is_clean(page, tmp_path):
    made = subprocess.run(
        [ROOT / "tools/man", "scdoc", ROOT / f"docs/man/{page}.scd"],
        capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    (tmp_path / page).write_text(made.stdout)
    lint = subprocess.run(["mandoc", "-T", "lint", tmp_path / page],
                          capture_output=True, text=True)
    assert (lint.returncode, lint.stdout) == (0, "")


def test_manual_lists_all_commands():
    text = (ROOT / "docs/man/memspan.1.scd").read_text()
    section = re.search(r"^# COMMANDS\n(.*?)^# ", text, re.S | re.M).group(1)
    assert re.findall(r"^\*([a-z]+)\*", section, re.M) == COMMANDS + ["help"]


def test_manual_lists_all_codes_of_status():
    codes = set(re.findall(r'"([A-Z]+(?:_[A-Z]+)+)"',
                           (ROOT / "src/cli/health.c").read_text() +
                           (ROOT / "src/cli/cmd_status.c").read_text()))
    codes -= {"HEALTH_OK", "HEALTH_WARN", "HEALTH_ERR"}
    text = (ROOT / "docs/man/memspan-status.1.scd").read_text()
    assert codes == set(re.findall(r"^\*([A-Z_]+)\* \(", text, re.M))


# --- completion -------------------------------------------------------------------

def complete(*words):
    """What bash offers behind these words; the last is being typed."""
    script = (
        f"source {ROOT}/dist/completion/memspan.bash\n"
        'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()\n'
        '_memspan memspan "${COMP_WORDS[COMP_CWORD]}" '
        '"${COMP_WORDS[COMP_CWORD - 1]}"\n'
        'printf "%s\\n" "${COMPREPLY[@]}"\n')
    run = subprocess.run(["bash", "-c", script, "bash", "memspan", *words],
                         capture_output=True, text=True)
    assert run.returncode == 0 and run.stderr == "", run.stderr
    return set(run.stdout.split())


def test_completion_offers_the_commands():
    assert complete("") == set(COMMANDS) | {"help", "--help", "--version"}
    assert complete("sp") == {"space"}
    assert complete("help", "") == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_completion_offers_the_options_of_a_command(command):
    assert complete(command, "--") == options_of(usage(command))


def test_completion_offers_what_space_can_do():
    assert complete("space", "") == {"create", "list", "show", "delete"}


# --- which cluster ----------------------------------------------------------------

def test_a_coordinator_that_is_not_there_is_an_error_that_helps():
    for words in (["status"], ["validate"], ["map", "x"], ["space", "list"]):
        run = memspan(*words, "--coordinator", NOBODY)
        assert run.returncode == 1
        assert "memspan up" in run.stderr + run.stdout
        assert NOBODY in run.stderr + run.stdout


def test_status_says_so_in_json_too():
    run = memspan("status", "--json", "--coordinator", NOBODY)
    assert run.returncode == 1
    told = json.loads(run.stdout)
    assert told["health"] == "HEALTH_ERR"
    assert [r["code"] for r in told["reasons"]] == ["COORDINATOR_DOWN"]
    assert told["coordinator"] == {"url": NOBODY, "ok": False, "ms": None}
    assert told["nodes"] == told["spaces"] == []


def test_the_first_that_names_a_cluster_wins(tmp_path):
    with Coordinator() as a, Coordinator() as b:
        (tmp_path / "coordinator.url").write_text(b.url + "\n")
        env = {"MEMSPAN_COORDINATOR": "http://127.0.0.1:9"}

        def url(*words):
            run = memspan("status", "--json", *words, env=env)
            return json.loads(run.stdout)["coordinator"]["url"]

        assert url("--run-dir", tmp_path, "--coordinator", a.url) == a.url
        assert url("--run-dir", tmp_path) == b.url
        assert url() == "http://127.0.0.1:9"
        assert url("--run-dir", tmp_path / "none") == "http://127.0.0.1:9"


def test_users_have_a_run_directory_of_their_own(tmp_path):
    if not shutil.which("setpriv"):
        pytest.skip("setpriv is not installed")
    own = tmp_path / "memspan"
    own.mkdir()
    program = tmp_path / "program"
    program.write_bytes((BUILD / "memspan").read_bytes())
    program.chmod(0o755)
    # The directories of pytest are closed to others.
    for up in [tmp_path, *tmp_path.parents][:3]:
        if up != up.parent and str(up).startswith("/tmp/"):
            up.chmod(up.stat().st_mode | 0o011)
    with Coordinator() as c:
        (own / "coordinator.url").write_text(c.url + "\n")
        run = subprocess.run(
            ["setpriv", "--reuid", "65534", "--clear-groups", program,
             "status", "--json"], capture_output=True, text=True,
            env={"XDG_RUNTIME_DIR": str(tmp_path)})
        assert json.loads(run.stdout)["coordinator"]["url"] == c.url
        run = subprocess.run(
            ["setpriv", "--reuid", "65534", "--clear-groups", program, "down"],
            capture_output=True, text=True, env={})
        assert run.returncode == 1
        assert "--run-dir" in run.stderr


def test_what_is_no_coordinator_is_told_apart():
    with Coordinator() as c:
        c.answers["GET /health"] = (200, "<html>hello</html>")
        c.answers["GET /v1/cluster"] = (200, "<html>hello</html>")
        run = c.run("status")
        assert run.returncode == 1
        assert "not as a coordinator" in run.stderr


def test_one_that_never_answers_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as s:
        url = "http://127.0.0.1:%d" % s.getsockname()[1]
        run = memspan("status", "--coordinator", url)
        assert run.returncode == 1
        assert "did not answer" in run.stderr


# --- status -----------------------------------------------------------------------

def test_status_has_a_line_for_each_node_and_space():
    pages = {"written": 3, "evicted": 2, "under_replicated": 4, "missing": 5,
             "lost": 6}
    with Coordinator(spaces=[space("demo"), space("bad", pages=pages)]) as c:
        run = c.run("status")
        assert run.returncode == 0 and run.stderr == ""
        lines = run.stdout.split("\n")
        assert lines[0] == "HEALTH_ERR"  # of "bad"
        assert any("epoch 3" in line and c.url in line for line in lines)
        row, memory = [line.split() for line in lines if " node0 " in line]
        assert row == ["0", "node0", "alive", "127.0.0.1:50051", "120", "ms",
                       "0", "54321"]
        assert memory == ["0", "node0", "1", "GiB", "8", "MiB", "4", "KiB",
                          "8", "KiB", "992", "MiB", "5", "MiB", "0"]
        row = [line.split() for line in lines if " demo " in line][0]
        assert row == ["demo", "8", "MiB", "1", "2/4", "12", "KiB", "0", "B",
                       "0", "0", "0", "0"]
        row = [line.split() for line in lines if "  bad " in line][0]
        assert row[6:] == ["KiB", "8", "KiB", "4", "5", "6", "0"]


def test_status_of_a_sound_cluster():
    with Coordinator(spaces=[space("demo")]) as c:
        run = c.run("status")
        assert run.returncode == 0 and run.stderr == ""
        assert run.stdout.startswith("HEALTH_OK\n")


def test_memory_is_told_of_those_that_live():
    nodes = [node(0), node(1, state="dead"), node(2, state="drained")]
    with Coordinator(nodes=nodes) as c:
        text = c.run("status").stdout.split("\nmemory\n")[1]
        assert " node0 " in text
        assert " node1 " not in text and " node2 " not in text


def test_status_in_json_passes_the_coordinators_words_on():
    with Coordinator(spaces=[space("demo")]) as c:
        told = c.json("status")
        assert told["schema"] == "memspan.status/1"
        assert told["health"] == "HEALTH_OK" and told["reasons"] == []
        assert told["coordinator"]["ok"] and told["coordinator"]["ms"] > 0
        assert told["epoch"] == 3
        assert told["nodes"] == cluster()["nodes"]
        assert told["spaces"] == [space("demo")]


def test_status_has_a_reason_for_what_is_wrong():
    nodes = [node(0, [1]), node(1, [0], state="dead")]
    lost = space("demo", pages={"lost": 5})
    with Coordinator(nodes=nodes, spaces=[lost]) as c:
        told = c.json("status")
        assert told["health"] == "HEALTH_ERR"
        assert [r["code"] for r in told["reasons"]] == ["NODE_DEAD",
                                                        "PAGES_LOST"]
        text = c.run("status").stdout
        assert text.startswith("HEALTH_ERR\n  NODE_DEAD: 1 of 2 nodes")


def test_status_says_that_memory_is_full_or_too_small():
    nodes = [node(0, [1]), node(1, [0])]
    nodes[1]["memory"].update(waiting=3)
    big = space("big", size_bytes=2001 << 20)
    with Coordinator(nodes=nodes, spaces=[big]) as c:
        told = c.json("status")
        assert told["health"] == "HEALTH_ERR"
        reasons = {r["code"]: r["text"] for r in told["reasons"]}
        assert set(reasons) == {"MEMORY_FULL", "CAPACITY_SHORT"}
        assert "node 1" in reasons["MEMORY_FULL"]
        assert "add at least 1 MiB" in reasons["CAPACITY_SHORT"]
        assert told["nodes"][1]["memory"]["waiting"] == 3


def test_status_tells_why_a_coordinator_is_not_ready():
    with Coordinator() as c:
        c.answers["GET /health"] = (503, {
            "title": "x", "status": 503, "detail": "its store fails",
            "reasons": [{"code": "STORE_FAILS", "text": "the disk is full"}]})
        told = c.json("status")
        assert told["health"] == "HEALTH_WARN"
        assert told["reasons"] == [{"code": "COORDINATOR_NOT_READY",
                                    "text": "the disk is full"}]


def test_names_of_others_do_not_command_the_terminal():
    with Coordinator(nodes=[node(0, name="\x1b[2Jx")]) as c:
        assert "\x1b" not in c.run("status").stdout


# --- spaces -----------------------------------------------------------------------

def test_create_sends_what_was_asked_for():
    with Coordinator() as c:
        c.answers["POST /v1/spaces"] = lambda b: (201, space(b["name"]))
        run = c.run("space", "create", "demo", "--size", "8M")
        assert run.stdout == "space demo   8 MiB   created\n"
        assert c.asked[-1] == ("POST /v1/spaces", {
            "name": "demo", "size_bytes": 8 << 20, "replicas": 1,
            "bind": None, "overcommit": False})
        told = c.json("space", "create", "demo", "--size", "8M",
                      "--overcommit", "--replicas", "2", "--bind", "interleave")
        assert told == {"schema": "memspan.space/1", **space("demo")}
        assert c.asked[-1][1]["bind"] == "interleave"
        assert c.asked[-1][1]["overcommit"] is True
        assert c.asked[-1][1]["replicas"] == 2


def test_create_binds_to_nodes_by_name_or_number():
    with Coordinator() as c:
        c.answers["POST /v1/spaces"] = (201, space("demo"))
        run = c.run("space", "create", "demo", "--size", "8M",
                    "--bind", "4M-8M=node1", "--bind", "0-4M=0")
        assert run.returncode == 0, run.stderr
        assert c.asked[-1][1]["bind"] == [
            {"first_bytes": 0, "last_bytes": 4 << 20, "node": 0},
            {"first_bytes": 4 << 20, "last_bytes": 8 << 20, "node": 1}]
        run = c.run("space", "create", "demo", "--size", "8M", "--bind", "7")
        assert run.returncode == 1
        assert "no node is called '7'" in run.stderr


def test_what_the_coordinator_refuses_is_told_in_its_words():
    with Coordinator() as c:
        c.answers["POST /v1/spaces"] = problem(
            507, "8 MiB do not fit the cluster's 2 MiB; add a node")
        run = c.run("space", "create", "demo", "--size", "8M")
        assert run.returncode == 1 and run.stdout == ""
        assert run.stderr == ("memspan space: 8 MiB do not fit the cluster's "
                              "2 MiB; add a node\n")


def test_list_show_and_delete():
    with Coordinator() as c:
        c.answers["GET /v1/spaces"] = (200, [space("demo")])
        c.answers["GET /v1/spaces/demo"] = (200, space(
            "demo", bind=[{"first_bytes": 0, "last_bytes": 4 << 20,
                           "node": 1}]))
        c.answers["DELETE /v1/spaces/demo"] = (204, None)
        head, row = c.run("space", "list").stdout.strip().split("\n")
        assert head.split() == ["NAME", "SIZE", "REPLICAS", "HOMED", "WRITTEN",
                                "CLIENTS"]
        assert row.split() == ["demo", "8", "MiB", "1", "2/4", "12", "KiB", "0"]
        assert c.json("space", "list") == {"schema": "memspan.space/1",
                                           "spaces": [space("demo")]}
        shown = c.run("space", "show", "demo").stdout
        assert "0 B - 4 MiB on node 1" in shown
        assert "/proc/self/fd/200" in shown
        assert c.json("space", "show", "demo")["name"] == "demo"
        assert c.run("space", "delete", "demo").stdout == (
            "space demo   deleted\n")
        assert c.json("space", "delete", "demo")["deleted"] == "demo"
        assert c.run("space", "show", "none").returncode == 1
        assert c.run("space", "delete", "none").returncode == 1


# --- map --------------------------------------------------------------------------

EXTENTS = [extent(0, 0, [0], held=512), extent(1, 0, [0], held=100),
           extent(2, 1, [0, 1], held=7), extent(3, None, []),
           extent(4, None, []), extent(5, 0, [0], lost=3)]


def asks_for_map(first, n=1024):
    return f"GET /v1/spaces/demo/map?from={first}&n={n}"


def test_map_folds_what_is_alike():
    with Coordinator() as c:
        c.answers[asks_for_map(0)] = (200, {"extents": EXTENTS, "next": None})
        rows = [line.split("  ") for line in
                c.run("map", "demo").stdout.strip().split("\n")]
        rows = [[cell.strip() for cell in row if cell.strip()] for row in rows]
        assert rows[0] == ["space demo: 6 extents of 2 MiB"]
        assert rows[2:] == [
            ["0-1", "0 B - 4 MiB", "node 0", "612", "0", "0", "0", "0"],
            ["2-2", "4 MiB - 6 MiB", "node 1", "7", "0", "0", "0", "0 1"],
            ["3-4", "6 MiB - 10 MiB", "untouched", "0", "0", "0", "0", "-"],
            ["5-5", "10 MiB - 12 MiB", "node 0", "0", "0", "0", "3", "0"]]


def test_map_asks_until_there_is_no_next():
    with Coordinator() as c:
        c.answers[asks_for_map(0)] = (200, {"extents": EXTENTS[:2], "next": 2})
        c.answers[asks_for_map(2)] = (200, {"extents": EXTENTS[2:]})
        told = c.json("map", "demo")
        assert told["schema"] == "memspan.map/1"
        assert told["space"] == "demo" and told["extent_bytes"] == 2 << 20
        assert told["extents"] == EXTENTS


def test_a_map_that_does_not_end_is_given_up():
    with Coordinator() as c:
        c.answers[asks_for_map(0)] = (200, {"extents": EXTENTS, "next": 0})
        run = c.run("map", "demo")
        assert run.returncode == 1 and "does not end" in run.stderr


def test_a_space_that_is_not_there_has_no_map():
    with Coordinator() as c:
        c.answers[asks_for_map(0)] = problem(404, "no space is called 'demo'")
        run = c.run("map", "demo")
        assert run.returncode == 1
        assert run.stderr == "memspan map: no space is called 'demo'\n"


# --- validate and doctor ----------------------------------------------------------

CHECK = {"name", "result", "needed", "detail", "value", "limit", "unit",
         "remedy"}


def assert_checks(told):
    assert told["checks"]
    for check in told["checks"]:
        assert set(check) == CHECK
        assert check["result"] in ("ok", "failed", "skipped")
        if check["result"] == "failed":
            assert check["remedy"], check
    bad = [c for c in told["checks"]
           if c["result"] == "failed" and c["needed"]]
    assert told["ok"] == (not bad)
    return {c["name"]: c for c in told["checks"]}


def test_validate_judges_what_the_coordinator_says(tmp_path):
    nodes = [node(0, [1], lease_age_ms=2001), node(1),
             node(2, state="drained")]
    nodes[0]["memory"]["overhead_bytes"] = 1 << 30
    with Coordinator(nodes=nodes) as c:
        c.answers["POST /v1/spaces"] = lambda b: (201, space(b["name"]))
        told = c.json("validate", "--run-dir", tmp_path, status=1)
        checks = assert_checks(told)
        assert told["schema"] == "memspan.validate/1" and not told["ok"]
        assert checks["coordinator"]["result"] == "ok"
        assert checks["nodes"]["value"] == 2
        assert checks["lease-0"]["result"] == "failed"
        assert checks["lease-0"]["value"] == 2001
        assert checks["lease-0"]["limit"] == 2000
        assert checks["lease-1"]["result"] == "ok"
        assert checks["peers-0"]["result"] == "failed"
        assert checks["peers-1"]["result"] == "failed"
        assert checks["memory-0"]["result"] == "failed"
        assert checks["memory-1"]["result"] == "ok"
        # None of these nodes is a process of this machine.
        assert checks["idle-cpu"]["result"] == "skipped"
        for name in ("pages-0", "pages-1"):
            assert checks[name]["result"] == "skipped"
            assert "on its host" in checks[name]["detail"]
        # What was made for it was asked to be deleted.
        made = [b["name"] for w, b in c.asked if w == "POST /v1/spaces"]
        assert len(made) == 1 and made[0].startswith("validate-")
        assert ("DELETE /v1/spaces/" + made[0], None) in c.asked


def test_validate_fails_with_a_reason_on_one_line(tmp_path):
    with Coordinator(nodes=[]) as c:
        run = c.run("validate", "--run-dir", tmp_path)
        assert run.returncode == 1
        assert re.search(r"^FAILED +nodes +0 registered$", run.stdout, re.M)
        assert run.stdout.strip().split("\n")[-1].startswith(
            "validate: FAILED")


def test_validate_without_a_coordinator_skips_the_rest():
    run = memspan("validate", "--json", "--coordinator", NOBODY)
    assert run.returncode == 1
    checks = assert_checks(json.loads(run.stdout))
    assert checks.pop("coordinator")["result"] == "failed"
    assert {c["result"] for c in checks.values()} == {"skipped"}


def test_doctor_has_a_remedy_for_everything(tmp_path):
    run = memspan("doctor", "--json", "--run-dir", tmp_path)
    told = json.loads(run.stdout)
    checks = assert_checks(told)
    assert told["schema"] == "memspan.doctor/1"
    assert run.returncode == (0 if told["ok"] else 1)
    for name in ("kernel", "page_size", "userfaultfd", "memspan-node",
                 "memspan-coordinator", "run_dir", "ports", "cgroup", "swap",
                 "memlock"):
        assert name in checks
    assert "the cgroup of that program" in checks["cgroup"]["detail"]
    assert memspan("doctor", "--run-dir", tmp_path).returncode == \
        run.returncode


def test_doctor_misses_what_is_hidden(tmp_path):
    env = {"MEMSPAN_MASK_FEATURES": "minor_wp,poison"}
    told = json.loads(memspan("doctor", "--json", "--run-dir", tmp_path,
                              env=env).stdout)
    checks = assert_checks(told)
    for name in ("uffd_continue_wp", "uffd_poison"):
        assert checks[name]["result"] == "failed"
        assert not checks[name]["needed"]


def test_doctor_sees_that_programs_are_missing(tmp_path):
    alone = tmp_path / "memspan"
    shutil.copy(BUILD / "memspan", alone)
    run = memspan("doctor", "--json", "--run-dir", tmp_path, program=alone)
    assert run.returncode == 1
    checks = assert_checks(json.loads(run.stdout))
    assert checks["memspan-node"]["result"] == "failed"
    assert checks["memspan-coordinator"]["result"] == "failed"


def test_doctor_sees_a_run_directory_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    run = memspan("doctor", "--run-dir", tmp_path / "file")
    assert run.returncode == 1
    assert re.search(r"^FAILED +run_dir", run.stdout, re.M)
    run = memspan("doctor", "--run-dir", tmp_path / "none" / "deeper")
    assert run.returncode == 1
    assert re.search(r"^FAILED +run_dir", run.stdout, re.M)


def test_what_cannot_be_printed_is_a_failure():
    with open("/dev/full", "w") as full:
        for words in (["--version"], ["help"], ["up", "--help"]):
            run = subprocess.run([str(BUILD / "memspan"), *words],
                                 stdout=full, stderr=subprocess.DEVNULL)
            assert run.returncode == 1


def test_the_table_here_is_the_programs():
    listed = re.search(r"commands\[\] = \{(.*?)\n\};",
                       (ROOT / "src/cli/main.c").read_text(), re.S).group(1)
    assert re.findall(r'\{ "(\w+)"', listed) == cli_tools.COMMANDS
