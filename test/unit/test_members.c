/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Membership, story by story, in a time that the test makes up.  Each story is
 * also run with a store that fails at the nth change: then the call says so,
 * nothing has changed, and what is in the store is what was answered.
 */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "coord/members.h"

#define MS NSEC_PER_MSEC

static char path[64];
static struct store *store;
static struct members m;
static struct errmsg em;

static int set_up(void **state)
{
	(void)state;
	strcpy(path, "/tmp/memspan-members-XXXXXX");
	close(mkstemp(path));
	(void)unlink(path);
	if (store_open(path, &store, &em) < 0 ||
	    members_load(&m, store, 0, &em) < 0)
		return -1;
	return members_make_cluster(&m, "test", 1000, &em);
}

static int tear_down(void **state)
{
	char beside[80];

	(void)state;
	members_done(&m);
	store = store_free(store);
	(void)unlink(path);
	snprintf(beside, sizeof(beside), "%s-wal", path);
	(void)unlink(beside);
	return 0;
}

/* As a coordinator that starts anew at `now`. */
static void restart(nsec_t now)
{
	members_done(&m);
	store = store_free(store);
	assert_int_equal(store_open(path, &store, &em), 0);
	assert_int_equal(members_load(&m, store, now, &em), 0);
}

static int enter(const char *name, nsec_t now, struct node **ret)
{
	struct registration reg = { name, "127.0.0.1:50051", 1ull << 30 };

	return members_register(&m, &reg, now, ret, &em);
}

/* Register and take a lease. */
static struct node *join(const char *name, nsec_t now)
{
	struct node *n = NULL;

	assert_int_equal(enter(name, now, &n), REGISTER_DONE);
	assert_int_equal(members_renew(&m, n, now, &em), RENEW_JOINED);
	return n;
}

/* Let time pass to `now`: "name state, ..." of those declared dead. */
static const char *pass(nsec_t now)
{
	static char text[256];
	struct node *n;
	bool fenced;

	text[0] = '\0';
	while ((n = members_due(&m, now, &fenced)) != NULL) {
		assert_int_equal(members_bury(&m, n, &em), 0);
		strcat(text, text[0] != '\0' ? ", " : "");
		strcat(text, n->name);
	}
	return text;
}

static const char *state_of(const char *name)
{
	return member_state_name(members_find(&m, name)->state);
}

/* --- names ------------------------------------------------------------- */

static void names_are_host_names_and_no_numbers(void **state)
{
	static const char *const good[] = { "a", "Host-1.example", "0a",
		                            "a_b" };
	static const char *const bad[] = { "",   "0",   "42",  "-a",      ".a",
		                           "_a", "a b", "a/b", "\xc3\xa4" };
	char name[66];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		assert_true(node_name_ok(good[i]));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(node_name_ok(bad[i]));
	memset(name, 'x', sizeof(name));
	name[63] = '\0';
	assert_true(node_name_ok(name));
	name[63] = 'x';
	name[64] = '\0';
	assert_false(node_name_ok(name));
}

static void endpoints_are_host_and_port(void **state)
{
	static const char *const good[] = { "127.0.0.1:1", "[::1]:50051",
		                            "host.example:65535" };
	static const char *const bad[] = {
		"",      "x",      "x:",     ":1",      "x:0",   "x:65536",
		"x:1 ",  "x: 1",   "x:+1",   "::1:50",  "[]:50", "[::1]",
		"[x]:1", "x y:50", "[::1:5", "a\nb:50",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		assert_true(endpoint_ok(good[i]));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(endpoint_ok(bad[i]));
}

/* --- lives ------------------------------------------------------------- */

static void the_epoch_grows_at_the_first_lease_not_before(void **state)
{
	struct node *n;

	(void)state;
	assert_int_equal(m.epoch, 1);
	assert_int_equal(enter("a", 0, &n), REGISTER_DONE);
	assert_int_equal(m.epoch, 1);
	assert_string_equal(state_of("a"), "joining");
	assert_int_equal(members_renew(&m, n, 0, &em), RENEW_JOINED);
	assert_int_equal(m.epoch, 2);
	assert_int_equal(members_renew(&m, n, 300 * MS, &em), RENEW_DONE);
	assert_int_equal(m.epoch, 2);
}

static void a_lease_ends_in_a_fence_and_the_margin_in_death(void **state)
{
	struct node *n = join("a", 0);

	(void)state;
	assert_int_equal(members_deadline(&m), 1000 * MS);
	assert_string_equal(pass(999 * MS), "");
	assert_string_equal(state_of("a"), "alive");
	assert_string_equal(pass(1000 * MS), "");
	assert_string_equal(state_of("a"), "fenced");
	assert_int_equal(members_deadline(&m), 1250 * MS);
	assert_string_equal(pass(1249 * MS), "");
	assert_int_equal(m.epoch, 2);
	assert_string_equal(pass(1250 * MS), "a");
	assert_string_equal(state_of("a"), "dead");
	assert_int_equal(m.epoch, 3);
	assert_int_equal(members_deadline(&m), UINT64_MAX);
	assert_int_equal(members_renew(&m, n, 1250 * MS, &em), RENEW_DEAD);
}

static void a_renewal_within_the_margin_takes_the_fence_away(void **state)
{
	struct node *n = join("a", 0);

	(void)state;
	assert_string_equal(pass(1200 * MS), "");
	assert_int_equal(members_renew(&m, n, 1200 * MS, &em), RENEW_UNFENCED);
	assert_string_equal(state_of("a"), "alive");
	assert_int_equal(m.epoch, 2);
	assert_string_equal(pass(2200 * MS), "");
	assert_string_equal(state_of("a"), "fenced");
}

static void who_never_takes_a_lease_dies_without_an_epoch(void **state)
{
	struct node *n;

	(void)state;
	assert_int_equal(enter("a", 0, &n), REGISTER_DONE);
	assert_string_equal(pass(1250 * MS), "a");
	assert_string_equal(state_of("a"), "dead");
	assert_int_equal(m.epoch, 1);
}

static void who_left_with_nothing_is_drained(void **state)
{
	struct node *a = join("a", 0), *b = join("b", 0), *d;

	(void)state;
	assert_int_equal(members_leave(&m, a, &em), 0);
	assert_string_equal(state_of("a"), "drained");
	assert_int_equal(m.epoch, 4);
	b->opened_extents = 1;
	assert_int_equal(members_leave(&m, b, &em), 0);
	assert_string_equal(state_of("b"), "dead");
	assert_int_equal(m.epoch, 5);
	/* Leaving twice, or without having joined, is nothing new. */
	assert_int_equal(members_leave(&m, b, &em), 0);
	assert_int_equal(enter("d", 0, &d), REGISTER_DONE);
	assert_int_equal(members_leave(&m, d, &em), 0);
	assert_int_equal(m.epoch, 5);
}

static void a_name_keeps_its_id_and_each_life_is_new(void **state)
{
	struct node *a = join("a", 0), *b = join("b", 0), *again;
	uint64_t first = a->incarnation;

	(void)state;
	assert_int_equal(enter("a", 0, &again), REGISTER_LIVES);
	assert_ptr_equal(again, a);
	assert_int_equal(members_leave(&m, a, &em), 0);
	assert_int_equal(enter("a", 0, &again), REGISTER_DONE);
	assert_int_equal(again->id, 0);
	assert_true(again->incarnation > b->incarnation);
	assert_true(b->incarnation > first);
	/* Registered and not heard of: it may have missed our answer. */
	assert_int_equal(enter("a", 0, &again), REGISTER_DONE);
	again->link = (struct link *)&m; /* any: somebody is there */
	assert_int_equal(enter("a", 0, &again), REGISTER_LIVES);
	again->link = NULL;
}

static void ids_are_never_given_to_another_name(void **state)
{
	struct node *a = join("a", 0), *b;

	(void)state;
	assert_int_equal(members_leave(&m, a, &em), 0);
	assert_int_equal(members_delete(&m, a, &em), 0);
	assert_null(members_find(&m, "a"));
	assert_null(members_at(&m, 0));
	assert_int_equal(enter("b", 0, &b), REGISTER_DONE);
	assert_int_equal(b->id, 1);
	assert_ptr_equal(members_find(&m, "1"), b);
	assert_ptr_equal(members_find(&m, "b"), b);
	assert_null(members_find(&m, "2"));
	assert_null(members_find(&m, "99999999"));
}

static void there_is_an_end_to_ids(void **state)
{
	struct node *n;
	char name[16];

	(void)state;
	for (unsigned i = 0; i < HOME_LOST; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		assert_int_equal(enter(name, 0, &n), REGISTER_DONE);
		assert_int_equal(n->id, i);
	}
	assert_int_equal(enter("more", 0, &n), REGISTER_FULL);
	assert_int_equal(enter("n7", 0, &n), REGISTER_DONE);
}

/* --- restarts ---------------------------------------------------------- */

static void a_restart_gives_everybody_a_lease_and_the_margin(void **state)
{
	struct node *n;

	(void)state;
	(void)join("a", 0);
	assert_int_equal(enter("b", 0, &n), REGISTER_DONE);
	restart(5000 * MS);
	assert_int_equal(m.epoch, 2);
	assert_string_equal(state_of("a"), "alive");
	assert_string_equal(state_of("b"), "joining");
	assert_string_equal(pass(6249 * MS), "");
	assert_string_equal(state_of("a"), "fenced");
	assert_string_equal(pass(6250 * MS), "a, b");
	assert_int_equal(m.epoch, 3);
}

static void a_restart_remembers_all_that_was_said(void **state)
{
	struct node *a = join("a", 0), *b = join("b", 0), *n;
	uint64_t incarnation = a->incarnation;
	uint8_t id[16];

	(void)state;
	memcpy(id, m.cluster_id, sizeof(id));
	assert_int_equal(members_set_endpoint(&m, a, "h:7", &em), 0);
	assert_int_equal(members_leave(&m, b, &em), 0);
	restart(0);
	assert_memory_equal(m.cluster_id, id, sizeof(id));
	assert_string_equal(m.cluster_name, "test");
	assert_int_equal(m.lease_ms, 1000);
	assert_int_equal(m.epoch, 4);
	a = members_find(&m, "a");
	assert_string_equal(a->endpoint, "h:7");
	assert_int_equal(a->incarnation, incarnation);
	assert_int_equal(a->limit_bytes, 1ull << 30);
	assert_string_equal(state_of("b"), "drained");
	assert_int_equal(enter("d", 0, &n), REGISTER_DONE);
	assert_int_equal(n->id, 2);
	assert_int_equal(n->incarnation, incarnation + 2);
}

static void a_shorter_lease_does_not_shorten_those_given(void **state)
{
	(void)state;
	(void)join("a", 0);
	assert_int_equal(members_set_lease(&m, 100, 500 * MS, &em), 0);
	assert_int_equal(m.lease_ms, 100);
	assert_string_equal(pass(1499 * MS), "");
	assert_string_equal(state_of("a"), "alive");
	assert_string_equal(pass(1750 * MS), "a");
	restart(0);
	assert_int_equal(m.lease_ms, 100);
}

static void a_cluster_is_forgotten_with_its_nodes(void **state)
{
	struct node *a = join("a", 0), *n;
	uint64_t incarnation = a->incarnation;

	(void)state;
	assert_int_equal(members_leave(&m, a, &em), 0);
	assert_int_equal(members_drop_cluster(&m, &em), 0);
	assert_false(m.has_cluster);
	restart(0);
	assert_false(m.has_cluster);
	assert_int_equal(members_make_cluster(&m, "next", 500, &em), 0);
	assert_int_equal(m.epoch, 1);
	assert_int_equal(enter("b", 0, &n), REGISTER_DONE);
	assert_int_equal(n->id, 0);
	assert_int_equal(n->incarnation, incarnation + 1);
}

/* --- memory ------------------------------------------------------------ */

static void a_node_keeps_an_exchange_reserve(void **state)
{
	struct node n = { .limit_bytes = 1ull << 30 };

	(void)state;
	assert_int_equal(node_capacity_pages(&n), 262144 - 4096);
	n.limit_bytes = 32ull << 20; /* a 64th would be 128 pages */
	assert_int_equal(node_capacity_pages(&n), 8192 - 256);
	n.limit_bytes = 100 * PAGE_BYTES;
	assert_int_equal(node_capacity_pages(&n), 0);
	n.figures.resident_bytes = 1ull << 40;
	assert_int_equal(node_room_pages(&n), 0);
}

static void what_a_node_says_of_its_memory_counts(void **state)
{
	struct node n = { .limit_bytes = 1ull << 30 };

	(void)state;
	n.figures = (struct figures){ .resident_bytes = 7 * PAGE_BYTES,
		                      .has_capacity = true,
		                      .capacity_bytes = 100 * PAGE_BYTES,
		                      .room_pages = 93 };
	assert_int_equal(node_capacity_pages(&n), 100);
	assert_int_equal(node_room_pages(&n), 93);
	/* Nothing can be all that it has. */
	n.figures.capacity_bytes = n.figures.room_pages = 0;
	assert_int_equal(node_capacity_pages(&n), 0);
	assert_int_equal(node_room_pages(&n), 0);
}

/* `n` renews at `now` and says that it has room for so many pages. */
static void say_room(struct node *n, uint64_t pages, nsec_t now)
{
	struct figures f = { .has_capacity = true, .room_pages = pages };

	members_heard(n, &f, now);
	assert_true(members_renew(&m, n, now, &em) >= 0);
}

static void assert_room(const char *want)
{
	AUTO_FREE char *got = members_room(&m);

	assert_string_equal(got, want);
}

static void room_is_told_of_those_that_live(void **state)
{
	struct node *a = join("a", MS), *b = join("b", MS), *c = join("c", MS);
	struct node *joining = NULL;
	bool fenced;

	(void)state;
	/* Who does not say it takes nothing. */
	assert_room("{\"room\":[]}");
	say_room(b, 1ull << 38, MS);
	say_room(c, 7, MS);
	assert_room("{\"room\":[[1,274877906944],[2,7]]}");
	assert_int_equal(enter("d", MS, &joining), REGISTER_DONE);
	say_room(a, 0, 900 * MS);
	say_room(b, 5, 900 * MS);
	assert_room("{\"room\":[[1,5],[2,7]]}");
	/* Who has no lease serves nobody, so it stores for nobody. */
	(void)members_due(&m, 1100 * MS, &fenced);
	assert_true(fenced);
	assert_room("{\"room\":[[1,5]]}");
}

static void nothing_is_told_until_all_were_heard(void **state)
{
	struct node *b;

	(void)state;
	say_room(join("a", MS), 5, MS);
	b = join("b", MS);
	say_room(b, 6, MS);
	restart(0);
	assert_null(members_room(&m));
	say_room(members_at(&m, 0), 7, MS);
	/* That of b is not known: it may have what it had. */
	assert_null(members_room(&m));
	say_room(members_at(&m, 1), 8, MS);
	assert_room("{\"room\":[[0,7],[1,8]]}");
}

static void rooms_of_all_nodes_fit_a_message(void **state)
{
	char name[16], *room;

	(void)state;
	for (unsigned i = 0; i < HOME_LOST; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		say_room(join(name, MS), MEMORY_BYTES_MAX / PAGE_BYTES, MS);
	}
	room = members_room(&m);
	assert_true(strlen(room) <= MEMBERS_ROOM_BYTES_MAX);
	assert_true(strlen(room) > HOME_LOST * strlen("[1,274877906944],"));
	free(room);
}

static void the_last_refusal_is_dated(void **state)
{
	struct figures f = { .refused = 3 };
	struct node *n = NULL;

	(void)state;
	assert_int_equal(enter("a", 0, &n), REGISTER_DONE);
	/* What was before we heard of it has no date. */
	members_heard(n, &f, 5 * MS);
	assert_int_equal(members_renew(&m, n, 5 * MS, &em), RENEW_JOINED);
	assert_int_equal(n->refused_at, 0);
	f.refused = 3;
	members_heard(n, &f, 6 * MS);
	assert_int_equal(n->refused_at, 0);
	f.refused = 4;
	members_heard(n, &f, 7 * MS);
	assert_int_equal(n->refused_at, 7 * MS);
	f.refused = 4;
	members_heard(n, &f, 8 * MS);
	assert_int_equal(n->refused_at, 7 * MS);
	assert_int_equal(n->figures.refused, 4);
}

static void buffers_are_no_pages_to_leave_behind(void **state)
{
	struct figures f = { .resident_bytes = 8192, .fixed_bytes = 8192 };
	struct node *a = join("a", MS), *b = join("b", MS);

	(void)state;
	members_heard(a, &f, MS);
	assert_int_equal(members_leave(&m, a, &em), 0);
	assert_int_equal(a->state, MEMBER_DRAINED);
	f = (struct figures){ .resident_bytes = 8193, .fixed_bytes = 8192 };
	members_heard(b, &f, MS);
	assert_int_equal(members_leave(&m, b, &em), 0);
	assert_int_equal(b->state, MEMBER_DEAD);
}

static void the_record_has_everybody_in_order(void **state)
{
	static struct wire_member out[NODES_MAX];
	struct node *a = join("a", 0);
	struct member got;

	(void)state;
	(void)join("b", 0);
	assert_int_equal(members_leave(&m, a, &em), 0);
	assert_int_equal(members_encode(&m, out), 2);
	assert_int_equal(members_check(out, 2 * sizeof(out[0])), 2);
	assert_int_equal(member_decode(&out[0], &got), 0);
	assert_int_equal(got.state, MEMBER_DRAINED);
	assert_int_equal(got.incarnation, a->incarnation);
	assert_string_equal(got.endpoint, "127.0.0.1:50051");
}

/* --- a store that fails ------------------------------------------------ */

/* All that can be asked for, in order; returns the first failure. */
static int whole_story(void)
{
	struct node *a = NULL, *b = NULL;
	bool fenced;
	int r;

	r = enter("a", 0, &a);
	if (r == 0)
		r = members_renew(&m, a, 0, &em);
	if (r == RENEW_JOINED)
		r = enter("b", 0, &b);
	if (r == 0)
		r = members_renew(&m, b, 0, &em);
	if (r == RENEW_JOINED)
		r = members_set_endpoint(&m, b, "h:7", &em);
	if (r == 0)
		r = members_leave(&m, b, &em);
	if (r == 0)
		r = members_delete(&m, b, &em);
	if (r == 0 && members_due(&m, 9000 * MS, &fenced) == a)
		r = members_bury(&m, a, &em);
	if (r == 0)
		r = members_set_lease(&m, 300, 9000 * MS, &em);
	if (r == 0)
		r = members_drop_cluster(&m, &em);
	return r;
}

/* What is in memory, as text; leases apart. */
static const char *image(char text[1024])
{
	int at = snprintf(text, 1024, "%d %d %d %d %d", (int)m.has_cluster,
	                  (int)m.epoch, (int)m.next_id, (int)m.incarnation,
	                  m.has_cluster ? (int)m.lease_ms : 0);

	for (unsigned i = 0; i < m.next_id; i++) {
		const struct node *n = m.node[i];

		/* A fence is a matter of time, not of the store. */
		if (n)
			at += snprintf(text + at, 1024 - (size_t)at,
			               ", %s %s %d %s", n->name, n->endpoint,
			               (int)n->incarnation,
			               n->state == MEMBER_FENCED ?
			                       "alive" :
			                       member_state_name(n->state));
	}
	return text;
}

static void what_cannot_be_written_has_not_happened(void **state)
{
	char before[1024], after[1024];
	unsigned nth = 1;
	int r;

	for (;; nth++) {
		(void)tear_down(state);
		assert_int_equal(set_up(state), 0);
		store_fail_from(store, nth, -EIO);
		r = whole_story();
		store_fail_from(store, 0, 0);
		(void)image(before);
		restart(0);
		assert_string_equal(image(after), before);
		if (r == 0)
			break;
		assert_int_equal(r, -EIO);
		assert_true(em.text[0] != '\0');
	}
	assert_int_equal(nth, 11); /* ten changes, each failed once */
}

#define fact(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		fact(names_are_host_names_and_no_numbers),
		fact(endpoints_are_host_and_port),
		fact(the_epoch_grows_at_the_first_lease_not_before),
		fact(a_lease_ends_in_a_fence_and_the_margin_in_death),
		fact(a_renewal_within_the_margin_takes_the_fence_away),
		fact(who_never_takes_a_lease_dies_without_an_epoch),
		fact(who_left_with_nothing_is_drained),
		fact(a_name_keeps_its_id_and_each_life_is_new),
		fact(ids_are_never_given_to_another_name),
		fact(there_is_an_end_to_ids),
		fact(a_restart_gives_everybody_a_lease_and_the_margin),
		fact(a_restart_remembers_all_that_was_said),
		fact(a_shorter_lease_does_not_shorten_those_given),
		fact(a_cluster_is_forgotten_with_its_nodes),
		fact(a_node_keeps_an_exchange_reserve),
		fact(what_a_node_says_of_its_memory_counts),
		fact(room_is_told_of_those_that_live),
		fact(nothing_is_told_until_all_were_heard),
		fact(rooms_of_all_nodes_fit_a_message),
		fact(the_last_refusal_is_dated),
		fact(buffers_are_no_pages_to_leave_behind),
		fact(the_record_has_everybody_in_order),
		fact(what_cannot_be_written_has_not_happened),
	};

	return cmocka_run_group_tests_name("members", tests, NULL, NULL);
}
