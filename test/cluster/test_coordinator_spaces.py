# SPDX-License-Identifier: Apache-2.0
"""
Spaces and maps over HTTP, with nodes of Python behind the coordinator.
"""

import threading
import time

import pytest

import wire
from conftest import GIB, MIB, wait_for

REGISTRATION = {"name": "a", "memory_bytes": GIB,
                "endpoint": "127.0.0.1:50051", "protocol": 1}


@pytest.fixture
def coordinator(coordinators):
    """A lease that a busy machine does not let run out by itself."""
    return coordinators("--lease", "20000")


def detail(problem):
    return problem["detail"]


# --- spaces --------------------------------------------------------------------


def test_a_space_is_made_told_shown_and_deleted(coordinator):
    node = coordinator.fake("a")
    coordinator.fake("b")
    coordinator.fake("c")
    r = coordinator.request("POST", "/v1/spaces", 201, json={
        "name": "x", "size_bytes": 5 * MIB, "replicas": 2, "bind": None,
        "overcommit": False})
    assert r.headers["Location"] == "/v1/spaces/x"
    made = r.json()
    assert made["extents"] == {"homed": 0, "total": 3}
    assert made["path"] == "/proc/self/fd/200" and made["replicas"] == 2
    # The answer came after the node knew it.
    assert node.spaces[1] == {"id": 1, "name": "x", "size_bytes": 5 * MIB,
                              "replicas": 2, "overcommit": False, "bind": None}
    assert coordinator.get("/v1/spaces/x") == made
    assert coordinator.get("/v1/spaces") == [made]
    assert coordinator.get("/v1/cluster")["spaces"] == [made]
    coordinator.delete("/v1/spaces/x")
    assert node.spaces == {}
    coordinator.get("/v1/spaces/x", 404)
    coordinator.delete("/v1/spaces/x", 404)
    # Numbers are not given again: a late message cannot mean the new one.
    assert coordinator.space("x")["id"] == 2


def test_a_node_that_comes_later_is_told_all_spaces(coordinator):
    coordinator.fake("a")
    for i in range(20):
        coordinator.space(f"s{i}", size=4096)
    late = coordinator.fake("b")
    wait_for(lambda: len(late.spaces) == 20)


def test_a_node_that_does_not_answer_delays_a_space_by_two_seconds(coordinator):
    node = coordinator.fake("a")
    node.silent.add(wire.SPACE_ADD)
    began = time.monotonic()
    coordinator.space("x")
    assert time.monotonic() - began > 1.9
    assert "did not answer in time" in coordinator.log()


@pytest.mark.parametrize("change,why", [
    ({"name": ""}, "name"), ({"name": "X"}, "a-z"), ({"name": ".x"}, "name"),
    ({"name": "x" * 64}, "name"), ({"name": "a/b"}, "name"),
    ({"size_bytes": 0}, "4096"), ({"size_bytes": 4097}, "multiple of 4096"),
    ({"size_bytes": (1 << 44) + 4096}, "from 0 to"),
    ({"replicas": 0}, "from 1 to 3"), ({"replicas": 4}, "from 0 to 3"),
    ({"replicas": 1.5}, "integer"), ({"bind": "nobody"}, "not there"),
    ({"bind": 7}, "not there"), ({"bind": True}, "must be null"),
    ({"bind": []}, "1 to 8192"), ({"bind": {}}, "must be null"),
    ({"bind": [{"first_bytes": 0, "last_bytes": 2 * MIB}]}, "node"),
    ({"bind": [{"first_bytes": 0, "last_bytes": 2 * MIB, "node": 0, "x": 1}]},
     "bind"),
    ({"bind": [{"first_bytes": 0, "last_bytes": 1, "node": 0}]}, "2 MiB"),
    ({"bind": [{"first_bytes": 1, "last_bytes": 2 * MIB, "node": 0}]}, "2 MiB"),
    ({"bind": [{"first_bytes": 0, "last_bytes": 0, "node": 0}]}, "empty"),
    ({"bind": [{"first_bytes": -1, "last_bytes": 2 * MIB, "node": 0}]}, "2 MiB"),
    ({"bind": [{"first_bytes": 0, "last_bytes": 66 * MIB, "node": 0}]},
     "not in the space"),
    ({"bind": [{"first_bytes": 0, "last_bytes": 4 * MIB, "node": 0},
               {"first_bytes": 2 * MIB, "last_bytes": 6 * MIB, "node": 0}]},
     "overlap"),
    ({"bind": [[0, 33, 0]]}, "not in the space"), ({"bind": [[0, 0, 0]]}, "empty"),
    ({"bind": [[0, 1]]}, "N_EXTENTS"), ({"bind": [[0, 1, 9]]}, "not there"),
    ({"bind": [7]}, "bind"),
])
def test_bad_spaces_are_refused(coordinator, change, why):
    coordinator.fake("a")
    problem = coordinator.post(
        "/v1/spaces", {"name": "x", "size_bytes": 64 * MIB, **change}, 400)
    assert why in detail(problem)
    assert coordinator.get("/v1/spaces") == []


def test_names_of_spaces_are_taken_once(coordinator):
    coordinator.fake("a")
    coordinator.space("x")
    assert "exists" in detail(coordinator.space("x", expect=409))


def test_spaces_are_admitted_while_they_fit(coordinator):
    problem = coordinator.space("x", expect=507)
    assert "0 nodes alive" in detail(problem)
    coordinator.fake("a", memory=256 * MIB)
    coordinator.fake("b", memory=32 * MIB)
    coordinator.fake("d", memory=4096)  # has nothing, but is the third
    room = 256 * MIB * 63 // 64 + 31 * MIB  # a reserve is at least 1 MiB
    coordinator.space("x", size=room // 2 // 4096 * 4096, replicas=2)
    problem = coordinator.space("y", size=2 * MIB, expect=507)
    assert problem["total_bytes"] == room
    assert problem["asked_bytes"] == 2 * MIB
    assert "overcommit" in detail(problem)
    assert coordinator.space("y", size=2 * MIB, overcommit=True)["overcommit"]
    # Who is not alive lends nothing.
    coordinator.post("/v1/nodes", {**REGISTRATION, "name": "c"})
    coordinator.space("z", size=4096, expect=507)
    coordinator.delete("/v1/spaces/x")
    coordinator.space("z", size=4096)


def test_what_nodes_can_hold_is_what_they_say(coordinator):
    a = coordinator.fake("a", memory=256 * MIB)
    a.figures["capacity_bytes"] = 100 * MIB
    a.send_lease()
    wait_for(lambda: coordinator.get("/v1/nodes/a")["memory"][
        "capacity_bytes"] == 100 * MIB)
    problem = coordinator.space("x", size=102 * MIB, expect=507)
    assert problem["total_bytes"] == 100 * MIB
    coordinator.space("x", size=100 * MIB)
    # To the byte.
    coordinator.space("y", size=4096, expect=507)


def test_replicas_need_that_many_other_nodes(coordinator):
    coordinator.fake("a")
    # One copy is the default; who is alone evicts nothing.
    coordinator.space("one", size=2 * MIB)
    problem = coordinator.space("x", size=2 * MIB, replicas=2, expect=507)
    assert "takes 3 nodes, and 1 are alive" in detail(problem)
    assert "asked_bytes" not in problem
    coordinator.fake("b")
    coordinator.space("x", size=2 * MIB, replicas=2, expect=507)
    coordinator.space("y", size=2 * MIB, replicas=2, overcommit=True)
    coordinator.post("/v1/nodes", {**REGISTRATION, "name": "c"})
    coordinator.space("x", size=2 * MIB, replicas=2, expect=507)
    coordinator.fake("d")
    coordinator.space("x", size=2 * MIB, replicas=2)
    coordinator.space("z", size=2 * MIB, replicas=3, expect=507)


def test_a_huge_space_is_made_at_once(coordinator):
    a = coordinator.fake("a")
    coordinator.space("x", size=1 << 44, overcommit=True, bind="interleave")
    made = coordinator.get("/v1/spaces/x")
    assert made["extents"] == {"homed": 1 << 23, "total": 1 << 23}
    assert a.claim(1, (1 << 23) - 1, 1) == [(0, True, 1)]
    coordinator.delete("/v1/spaces/x")


def test_bound_extents_have_their_home_from_the_beginning(coordinator):
    a, b = coordinator.fake("a"), coordinator.fake("b")
    made = coordinator.space("one", bind="b")
    assert made["bind"] == [
        {"first_bytes": 0, "last_bytes": 64 * MIB, "node": 1}]
    assert made["extents"] == {"homed": 32, "total": 32}
    assert a.claim(1, 0, 2) == [(1, False, 1)] * 2
    assert coordinator.space("two", bind=0)["bind"][0]["node"] == 0

    made = coordinator.space("three", bind="interleave")
    assert made["bind"] == "interleave"
    assert [e[0] for e in a.claim(3, 0, 4)] == [0, 1, 0, 1]
    assert a.spaces[3]["bind"] == "interleave"

    made = coordinator.space("four", size=9 * MIB, bind=[
        {"first_bytes": 4 * MIB, "last_bytes": 9 * MIB, "node": "b"},
        {"first_bytes": 0, "last_bytes": 2 * MIB, "node": "0"}])
    assert made["extents"] == {"homed": 4, "total": 5}
    assert a.spaces[4]["bind"] == [[0, 1, 0], [2, 3, 1]]
    assert b.claim(4, 0, 5, ask=True) == [
        (0, False, 1), (None, False, 0), (1, False, 1), (1, False, 1),
        (1, False, 1)]
    made = coordinator.space("five", size=9 * MIB, bind=[[2, 3, 1], [0, 1, "a"]])
    assert made["bind"] == coordinator.get("/v1/spaces/four")["bind"]


def test_nobody_is_bound_to_who_is_not_alive(coordinator):
    coordinator.fake("a")
    coordinator.post("/v1/nodes", {**REGISTRATION, "name": "b"})
    problem = coordinator.space("x", bind="b", expect=409)
    assert "node 1 (b) is joining" in detail(problem)


def test_a_space_with_clients_is_not_deleted_and_goes_on(coordinator):
    a, b = coordinator.fake("a"), coordinator.fake("b")
    coordinator.space("x")
    b.clients[1] = 3
    problem = coordinator.delete("/v1/spaces/x", 409)
    assert "3 clients" in detail(problem) and "node 1" in detail(problem)
    wait_for(lambda: not a.dropping and not b.dropping)
    assert 1 in a.spaces and 1 in b.spaces
    b.clients[1] = 0
    coordinator.delete("/v1/spaces/x")
    assert a.spaces == {} and b.spaces == {}


def test_a_space_stays_while_a_node_that_lives_does_not_answer(coordinators):
    coordinator = coordinators("--lease", "4000")
    a, b = coordinator.fake("a"), coordinator.fake("b")
    coordinator.space("x")
    b.silent.add(wire.SPACE_DROP)
    problem = coordinator.delete("/v1/spaces/x", 503)
    assert "node 1 does not answer" in detail(problem)
    wait_for(lambda: not a.dropping)
    b.renewing = False
    b.break_link()
    assert "has no link" in detail(coordinator.delete("/v1/spaces/x", 503))
    coordinator.wait_state("b", "dead")
    coordinator.delete("/v1/spaces/x")


def test_a_space_is_not_deleted_twice_at_once(coordinator):
    a = coordinator.fake("a")
    coordinator.space("x")
    a.silent.add(wire.SPACE_DROP)
    first = threading.Thread(target=coordinator.delete,
                             args=("/v1/spaces/x", 503))
    first.start()
    wait_for(lambda: "just being deleted" in
             coordinator.request("DELETE", "/v1/spaces/x").text)
    coordinator.space("x", expect=409)
    # Who comes now is not told of it until it is sure to stay.
    b = coordinator.fake("b")
    assert b.hello_done() and b.spaces == {}
    first.join(10)
    wait_for(lambda: 1 in b.spaces)


def test_a_node_that_missed_the_end_of_a_space_is_told_again(coordinator):
    a = coordinator.fake("a")
    coordinator.space("x")
    coordinator.delete("/v1/spaces/x")
    a.spaces[1] = {"stale": True}
    a.figures["spaces"] = [{"id": 1, "clients": 0, "written_pages": 0,
                            "lost_pages": 0}]
    wait_for(lambda: a.spaces == {})


def test_figures_of_nodes_are_summed(coordinator):
    a, b = coordinator.fake("a"), coordinator.fake("b")
    coordinator.space("x")
    for node, clients, pages in ((a, 1, 10), (b, 2, 20)):
        node.figures["spaces"] = [{"id": 1, "clients": clients,
                                   "written_pages": pages,
                                   "evicted_pages": pages - 4,
                                   "under_replicated_pages": clients + 1,
                                   "lost_pages": 1}]
        node.send_lease()
    wait_for(lambda: coordinator.get("/v1/spaces/x")["clients"] == 3)
    pages = coordinator.get("/v1/spaces/x")["pages"]
    assert pages == {"written": 30, "evicted": 22, "under_replicated": 5,
                     "missing": 0, "lost": 2}


def test_memory_is_shown_as_its_node_says(coordinator):
    a = coordinator.fake("a", memory=256 * MIB)
    # Until it has said more: the limit, less the reserve.
    assert coordinator.get("/v1/nodes/a")["memory"] == {
        "limit_bytes": 256 * MIB, "capacity_bytes": 252 * MIB,
        "resident_bytes": 0, "room_bytes": 256 * MIB, "lent_bytes": 0,
        "borrowed_bytes": 0, "overhead_bytes": 0, "waiting": 0, "refused": 0,
        "refused_age_ms": None}
    a.figures.update(capacity_bytes=240 * MIB, resident_bytes=50 * MIB,
                     room_pages=100, lent_bytes=4096, borrowed_bytes=8192,
                     overhead_bytes=5 * MIB, fixed_bytes=MIB, waiting=3,
                     refused=0)
    a.send_lease()
    wait_for(lambda: coordinator.get("/v1/nodes/a")["memory"]["waiting"] == 3)
    memory = coordinator.get("/v1/nodes/a")["memory"]
    assert memory == {
        "limit_bytes": 256 * MIB, "capacity_bytes": 240 * MIB,
        "resident_bytes": 50 * MIB, "room_bytes": 100 * 4096,
        "lent_bytes": 4096, "borrowed_bytes": 8192,
        "overhead_bytes": 5 * MIB, "waiting": 3, "refused": 0,
        "refused_age_ms": None}
    a.figures["refused"] = 2
    a.send_lease()
    wait_for(lambda: coordinator.get("/v1/nodes/a")["memory"][
        "refused_age_ms"] is not None)
    assert coordinator.get("/v1/nodes/a")["memory"]["refused"] == 2


# --- maps ----------------------------------------------------------------------


def answer_map(node, space_home):
    def answer(doc):
        if doc["op"] == "page":
            return {"state": "owned", "holders": [node.id], "heat": 3}
        return {"extents": [
            {"extent": e, "pages": {"held": 7, "stored": 0, "missing": 0,
                                    "lost": 0}, "holders": [node.id]}
            for e in space_home if doc["from"] <= e < doc["from"] + doc["n"]]}

    node.on_query = answer


def test_a_map_is_put_together_from_its_homes(coordinator):
    a, b = coordinator.fake("a"), coordinator.fake("b")
    coordinator.space("x", size=2 * 10 * MIB)
    a.claim(1, 0, 2)
    b.claim(1, 5, 1)
    answer_map(a, [0, 1, 5])  # 5 is not its to say
    answer_map(b, [5])
    got = coordinator.get("/v1/spaces/x/map")
    assert got["next"] is None
    assert [e["extent"] for e in got["extents"]] == list(range(10))
    assert [e["home"] for e in got["extents"][:6]] == [0, 0, None, None, None, 1]
    assert got["extents"][5]["holders"] == [1]
    assert got["extents"][1]["pages"]["held"] == 7
    assert got["extents"][2]["pages"] == {"held": 0, "stored": 0, "missing": 0,
                                          "lost": 0}
    got = coordinator.get("/v1/spaces/x/map?from=4&n=3")
    assert [e["extent"] for e in got["extents"]] == [4, 5, 6]
    assert got["next"] == 7
    assert coordinator.get("/v1/spaces/x/map?from=10")["extents"] == []
    assert coordinator.get("/v1/spaces/x/map?n=0")["next"] == 0


@pytest.mark.parametrize("query", [
    "from=11", "from=-1", "from=x", "n=1025", "n=", "from=1e3", "size=3",
    "from=99999999999999999999"])
def test_bad_maps_are_refused(coordinator, query):
    coordinator.fake("a")
    coordinator.space("x", size=2 * 10 * MIB)
    coordinator.get("/v1/spaces/x/map?" + query, 400)
    coordinator.get("/v1/spaces/y/map", 404)


def test_a_page_is_shown_as_its_home_sees_it(coordinator):
    a = coordinator.fake("a")
    coordinator.space("x", size=4 * MIB)
    untouched = {"gpn": 5, "home": None, "state": "untouched", "holders": [],
                 "heat": 0}
    assert coordinator.get("/v1/spaces/x/pages/5") == untouched
    a.claim(1, 0, 1)
    answer_map(a, [])
    assert coordinator.get("/v1/spaces/x/pages/5") == {
        "gpn": 5, "home": 0, "state": "owned", "holders": [0], "heat": 3}
    coordinator.get("/v1/spaces/x/pages/1024", 404)
    coordinator.get("/v1/spaces/x/pages/x", 400)
    coordinator.get("/v1/spaces/x/pages/-1", 400)
    coordinator.get("/v1/spaces/y/pages/0", 404)


def test_a_home_that_does_not_answer_is_said(coordinator):
    a = coordinator.fake("a")
    coordinator.space("x", size=4 * MIB)
    a.claim(1, 0, 1)
    began = time.monotonic()
    assert "node 0" in detail(coordinator.get("/v1/spaces/x/map", 503))
    assert "node 0" in detail(coordinator.get("/v1/spaces/x/pages/0", 503))
    assert time.monotonic() - began > 3.8
    a.on_query = lambda doc: {"nonsense": 1}
    coordinator.get("/v1/spaces/x/map", 503)
    coordinator.get("/v1/spaces/x/pages/0", 503)


def test_pages_of_a_dead_home_are_missing_and_then_lost(coordinators):
    c = coordinators("--lease", "1000")
    a = c.fake("a")
    c.fake("b")
    c.space("x", size=4 * MIB)
    a.claim(1, 0, 1)
    a.close()
    c.wait_state("a", "dead")
    assert c.get("/v1/spaces/x/pages/0")["state"] == "missing"
    assert c.get("/v1/spaces/x/map")["extents"][0]["pages"]["missing"] == 512
    a.register()
    page = c.get("/v1/spaces/x/pages/0")
    assert page["state"] == "lost" and page["home"] is None
    entry = c.get("/v1/spaces/x/map")["extents"][0]
    assert entry["pages"]["lost"] == 512 and entry["home"] is None
    assert c.get("/v1/spaces/x")["pages"]["lost"] == 512


# --- the document --------------------------------------------------------------


def test_every_request_of_the_document_was_asked(openapi):
    """Runs last: the others, and those of test_coordinator.py, have asked."""
    seen = {(m, t) for m, t, _ in openapi.seen}
    if ("POST", "/v1/cluster") not in seen:
        pytest.skip("run with test_coordinator.py")
    for template, item in openapi.doc["paths"].items():
        for method in item:
            if method in ("get", "post", "delete"):
                assert (method.upper(), template) in seen, (method, template)
