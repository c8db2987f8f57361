/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The documents of the coordinator's link, on the node's side: what a renewal
 * says of memory and of spaces, and what its answer may say of the peers.
 */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "node/link.h"

#define MIB   (1ull << 20)
#define PAGES (64 * EXTENT_PAGES) /* of the space */

static struct node node;

static int set_up(void **state)
{
	(void)state;
	memset(&node, 0, sizeof(node));
	node.id = 2;
	node.cfg.shards = 1;
	node.cfg.memory_bytes = 64 * MIB;
	memory_init(&node.memory, node.cfg.memory_bytes);
	return 0;
}

/* --- what the answer says ---------------------------------------------- */

static int room(const char *text)
{
	return link_room_doc(text, (uint32_t)strlen(text), &node);
}

static uint32_t room_of(node_id id)
{
	return atomic_load(&node.peer_room[id]);
}

static void an_answer_says_all_about_room(void **state)
{
	(void)state;
	assert_int_equal(room("{\"room\":[[0,7],[1,4096],[1022,1]]}"), 0);
	assert_int_equal(room_of(0), 7);
	assert_int_equal(room_of(1), 4096);
	assert_int_equal(room_of(1022), 1);
	/* Who is not named any more takes nothing. */
	assert_int_equal(room("{\"room\":[[1,5]]}"), 0);
	assert_int_equal(room_of(0), 0);
	assert_int_equal(room_of(1), 5);
	assert_int_equal(room_of(1022), 0);
	assert_int_equal(room("{\"room\":[],\"newer\":{}}"), 0);
	assert_int_equal(room_of(1), 0);
}

static void nobody_stores_with_himself(void **state)
{
	(void)state;
	assert_int_equal(room("{\"room\":[[2,7],[3,8]]}"), 0);
	assert_int_equal(room_of(2), 0);
	assert_int_equal(room_of(3), 8);
}

static void more_room_than_is_counted_is_a_lot(void **state)
{
	(void)state;
	assert_int_equal(room("{\"room\":[[0,274877906944]]}"), 0);
	assert_int_equal(room_of(0), UINT32_MAX);
}

static void a_malformed_answer_changes_nothing(void **state)
{
	static const char *const bad[] = {
		"",
		"nonsense",
		"[]",
		"{}",
		"{\"room\":7}",
		"{\"room\":[7]}",
		"{\"room\":[[0]]}",
		"{\"room\":[[0,1,2]]}",
		"{\"room\":[[0,-1]]}",
		"{\"room\":[[-1,1]]}",
		"{\"room\":[[1024,1]]}",
		"{\"room\":[[0,1.5]]}",
		"{\"room\":[[0,\"1\"]]}",
		"{\"room\":[[0,9],[0.5,1]]}",
		"{\"room\":[[0,1]],\"room\":[[0,2]]}",
		"{\"room\":[[0,99999999999999999999]]}",
	};

	(void)state;
	assert_int_equal(room("{\"room\":[[0,77]]}"), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(room(bad[i]), -EPROTO);
		assert_int_equal(room_of(0), 77);
	}
}

static void more_nodes_than_there_can_be_are_refused(void **state)
{
	AUTO_FREE char *text = malloc(16 * (NODES_MAX + 2));
	size_t at = (size_t)sprintf(text, "{\"room\":[");

	(void)state;
	for (unsigned i = 0; i <= NODES_MAX; i++)
		at += (size_t)sprintf(text + at, "%s[%u,1]", i > 0 ? "," : "",
		                      i % NODES_MAX);
	strcpy(text + at, "]}");
	assert_int_equal(room(text), -EPROTO);
	assert_int_equal(room_of(0), 0);
}

/* --- what a renewal says ----------------------------------------------- */

static void *array(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
	               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	return p;
}

static void make_space(struct space *s)
{
	struct errmsg em = { "" };

	memset(s, 0, sizeof(*s));
	s->id = 3;
	cut_init(&s->cut, PAGES * PAGE_BYTES);
	assert_int_equal(space_mem_init("x", PAGES * PAGE_BYTES, &s->mem, &em),
	                 0);
	s->pages = array(s->cut.pages * sizeof(*s->pages));
	s->dir = array(s->cut.pages * sizeof(*s->dir));
	s->place.extent = array(s->cut.extents * sizeof(*s->place.extent));
}

static void free_space(struct space *s)
{
	space_mem_done(&s->mem);
	munmap(s->pages, s->cut.pages * sizeof(*s->pages));
	munmap(s->dir, s->cut.pages * sizeof(*s->dir));
	munmap(s->place.extent, s->cut.extents * sizeof(*s->place.extent));
}

static uint64_t field(const json_t *doc, const char *key)
{
	const json_t *v = json_object_get(doc, key);

	assert_true(json_is_integer(v));
	return (uint64_t)json_integer_value(v);
}

static void a_renewal_says_what_memory_is_measured(void **state)
{
	struct link_space one = { 0 };
	struct link_spaces sp = { .v = &one, .n = 1 };
	struct space s;
	json_t *doc;

	(void)state;
	make_space(&s);
	one.space = &s;
	memory_fix(&node.memory, (int64_t)MIB);
	assert_true(memory_take(&node.memory, 100, MEMORY_HIGH));
	atomic_store(&node.memory.lent_pages, 5);
	atomic_store(&node.memory.borrowed_pages, 6);
	atomic_store(&node.memory.waiting, 7);
	atomic_store(&node.memory.refused, 8);
	/* Three are there, whatever was promised. */
	memset(s.mem.alias, 1, 3 * PAGE_BYTES);
	doc = link_lease_doc(&node, &sp);
	assert_int_equal(field(doc, "limit_bytes"), 64 * MIB);
	assert_int_equal(field(doc, "capacity_bytes"), 62 * MIB);
	assert_int_equal(field(doc, "resident_bytes"), MIB + 3 * PAGE_BYTES);
	assert_int_equal(field(doc, "fixed_bytes"), MIB);
	assert_int_equal(field(doc, "room_pages"), 62 * 256 - 100);
	assert_int_equal(field(doc, "lent_bytes"), 5 * PAGE_BYTES);
	assert_int_equal(field(doc, "borrowed_bytes"), 6 * PAGE_BYTES);
	assert_int_equal(field(doc, "waiting"), 7);
	assert_int_equal(field(doc, "refused"), 8);
	json_decref(doc);
	free_space(&s);
}

static void a_renewal_says_what_became_of_pages(void **state)
{
	struct link_space one = { 0 };
	struct link_spaces sp = { .v = &one, .n = 1 };
	const json_t *said;
	struct space s;
	json_t *doc;

	(void)state;
	make_space(&s);
	one.space = &s;
	atomic_store(&s.written, 10);
	atomic_store(&s.evicted, 4);
	atomic_store(&s.under_replicated, 2);
	atomic_store(&s.lost, 1);
	doc = link_lease_doc(&node, &sp);
	said = json_array_get(json_object_get(doc, "spaces"), 0);
	assert_int_equal(field(said, "id"), 3);
	assert_int_equal(field(said, "written_pages"), 10);
	assert_int_equal(field(said, "evicted_pages"), 4);
	assert_int_equal(field(said, "under_replicated_pages"), 2);
	assert_int_equal(field(said, "lost_pages"), 1);
	json_decref(doc);
	free_space(&s);
}

static void the_overhead_is_what_of_directories_is_there(void **state)
{
	struct link_space one = { 0 };
	struct link_spaces sp = { .v = &one, .n = 1 };
	struct space s;

	(void)state;
	make_space(&s);
	one.space = &s;
	atomic_store(&node.fixed_bytes, 1000);
	link_measure(&sp);
	assert_int_equal(link_overhead(&node, &sp), 1000);
	/* An extent's entries are one page in each array. */
	memset(&s.pages[5 * EXTENT_PAGES], 1, sizeof(s.pages[0]));
	memset(&s.dir[5 * EXTENT_PAGES], 1, sizeof(s.dir[0]));
	memset(&s.dir[63 * EXTENT_PAGES + 511], 1, sizeof(s.dir[0]));
	memset(&s.place.extent[5], 1, sizeof(s.place.extent[0]));
	assert_int_equal(link_overhead(&node, &sp), 1000);
	link_measure(&sp);
	assert_int_equal(link_overhead(&node, &sp), 1000 + 4 * PAGE_BYTES);
	link_measure(&sp);
	assert_int_equal(link_overhead(&node, &sp), 1000 + 4 * PAGE_BYTES);
	free_space(&s);
}

static void directories_beyond_a_look_are_seen_in_the_next(void **state)
{
	struct link_space two[2] = { 0 };
	struct link_spaces sp = { .v = two, .n = 2 };
	struct space small, huge = { .id = 9 };
	/* 2^30 pages: 4 TiB, whose directories take four looks and a bit. */
	uint64_t bytes = 1ull << 33;

	(void)state;
	make_space(&small);
	cut_init(&huge.cut, 1ull << 42);
	huge.pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
	                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	huge.dir = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
	                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_ptr_not_equal(huge.pages, MAP_FAILED);
	assert_ptr_not_equal(huge.dir, MAP_FAILED);
	huge.place.extent = array(huge.cut.extents * sizeof(struct extent));
	memset(&huge.dir[(1u << 30) - 1], 1, sizeof(huge.dir[0]));
	memset(&small.dir[0], 1, sizeof(small.dir[0]));
	two[0].space = &huge;
	two[1].space = &small;
	for (unsigned i = 0; i < 4; i++) {
		link_measure(&sp);
		assert_int_equal(link_overhead(&node, &sp), 0);
	}
	link_measure(&sp);
	assert_int_equal(link_overhead(&node, &sp), 2 * PAGE_BYTES);
	munmap(huge.pages, bytes);
	munmap(huge.dir, bytes);
	munmap(huge.place.extent, huge.cut.extents * sizeof(struct extent));
	free_space(&small);
}

#define fact(f) cmocka_unit_test_setup(f, set_up)

int main(void)
{
	const struct CMUnitTest tests[] = {
		fact(an_answer_says_all_about_room),
		fact(nobody_stores_with_himself),
		fact(more_room_than_is_counted_is_a_lot),
		fact(a_malformed_answer_changes_nothing),
		fact(more_nodes_than_there_can_be_are_refused),
		fact(a_renewal_says_what_memory_is_measured),
		fact(a_renewal_says_what_became_of_pages),
		fact(the_overhead_is_what_of_directories_is_there),
		fact(directories_beyond_a_look_are_seen_in_the_next),
	};

	return cmocka_run_group_tests_name("link_doc", tests, NULL, NULL);
}
