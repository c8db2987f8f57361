/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Spaces and homes.  After each story the figures that are kept (homed extents,
 * pages of each node) are counted anew and compared, and the store is read into
 * a second copy that must be the same.
 */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/prng.h"
#include "coord/spaces.h"

#define MIB (1ull << 20)
#define GIB (1ull << 30)

static char path[64];
static struct store *store;
static struct members m;
static struct spaces s;
static struct errmsg em;
static struct node *node[4]; /* n0..n3 of 64, 128, 256, 512 MiB */

static int set_up(void **state)
{
	(void)state;
	strcpy(path, "/tmp/memspan-spaces-XXXXXX");
	close(mkstemp(path));
	(void)unlink(path);
	if (store_open(path, &store, &em) < 0 ||
	    members_load(&m, store, 0, &em) < 0 ||
	    members_make_cluster(&m, "test", 1000, &em) < 0 ||
	    spaces_load(&s, store, &m, &em) < 0)
		return -1;
	for (unsigned i = 0; i < 4; i++) {
		char name[] = { 'n', (char)('0' + i), '\0' };
		struct registration reg = { name, "h:1", (64 * MIB) << i };

		if (members_register(&m, &reg, 0, &node[i], &em) != 0 ||
		    members_renew(&m, node[i], 0, &em) != RENEW_JOINED)
			return -1;
	}
	return 0;
}

static void close_all(void)
{
	spaces_done(&s);
	members_done(&m);
	store = store_free(store);
}

static int tear_down(void **state)
{
	char beside[80];

	(void)state;
	close_all();
	(void)unlink(path);
	snprintf(beside, sizeof(beside), "%s-wal", path);
	(void)unlink(beside);
	return 0;
}

static void restart(void)
{
	close_all();
	assert_int_equal(store_open(path, &store, &em), 0);
	assert_int_equal(members_load(&m, store, 0, &em), 0);
	assert_int_equal(spaces_load(&s, store, &m, &em), 0);
	for (unsigned i = 0; i < 4; i++)
		node[i] = members_at(&m, i);
}

static struct space *make(const char *name, uint64_t bytes, enum bind_kind bind,
                          struct bind_range *ranges, uint32_t n)
{
	struct space_request rq = { .name = name,
		                    .size_bytes = bytes,
		                    .replicas = 1,
		                    .bind = bind,
		                    .ranges = ranges,
		                    .n_ranges = n };
	struct space *sp = NULL;

	assert_int_equal(spaces_create(&s, &rq, &sp, &em), 0);
	return sp;
}

/* "0" home, "o" if opened, version: "1o1 2-1 --0" of n extents. */
static const char *show(const struct extent_info *e, uint32_t n)
{
	static char text[2048];
	size_t at = 0;

	for (uint32_t i = 0; i < n; i++) {
		char home[8] = "-";

		if (e[i].home != NODE_NONE)
			snprintf(home, sizeof(home), "%u", e[i].home);
		at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%s%c%u",
		                       i > 0 ? " " : "", home,
		                       e[i].opened ? 'o' : '-', e[i].version);
	}
	return text;
}

static const char *ask(const struct node *n, struct space *sp, uint32_t first,
                       struct claim c)
{
	struct extent_info out[CLAIM_EXTENTS_MAX];

	assert_int_equal(spaces_claim(&s, n, sp, first, &c, out), 0);
	return show(out, c.n_extents);
}

static const char *claim(const struct node *n, struct space *sp, uint32_t first,
                         struct claim c)
{
	const char *text = ask(n, sp, first, c);

	assert_int_equal(spaces_commit(&s, &em), 0);
	return text;
}

/* What all of it is, in a number. */
static uint64_t fingerprint(void)
{
	uint64_t h = 1469598103934665603u;

	for (uint32_t i = 0; i < s.n; i++)
		for (uint32_t k = 0; k < s.space[i]->n_extents; k++) {
			struct extent_info e = space_extent(s.space[i], k);

			h = (h ^ e.home) * 1099511628211u;
			h = (h ^ e.opened) * 1099511628211u;
			h = (h ^ e.version) * 1099511628211u;
		}
	return h;
}

/* Count all figures anew. */
static void check_figures(void)
{
	uint64_t pages[NODES_MAX] = { 0 }, opened[NODES_MAX] = { 0 };
	uint32_t all_lost = 0;

	for (uint32_t i = 0; i < s.n; i++) {
		const struct space *sp = s.space[i];
		uint32_t homed = 0, lost = 0;

		for (uint32_t k = 0; k < sp->n_extents; k++) {
			struct extent_info e = space_extent(sp, k);

			if (e.home == NODE_NONE)
				continue;
			homed++;
			lost += e.home == HOME_LOST;
			pages[e.home] += space_extent_pages(sp, k);
			opened[e.home] += e.opened;
		}
		assert_int_equal(sp->n_homed, homed);
		assert_int_equal(sp->n_lost, lost);
		all_lost += lost;
	}
	assert_int_equal(s.n_lost, all_lost);
	for (unsigned i = 0; i < m.next_id; i++) {
		if (!m.node[i])
			continue;
		assert_int_equal(m.node[i]->homed_pages, pages[i]);
		assert_int_equal(m.node[i]->opened_extents, opened[i]);
	}
}

/* The figures are right, and the store has it all. */
static void check(void)
{
	uint64_t before = fingerprint();
	uint32_t n = s.n;

	check_figures();
	restart();
	check_figures();
	assert_int_equal(s.n, n);
	assert_int_equal(fingerprint(), before);
}

/* --- claims ------------------------------------------------------------ */

static void the_first_to_claim_is_home(void **state)
{
	struct space *sp = make("x", 16 * MIB, BIND_NONE, NULL, 0);

	(void)state;
	assert_string_equal(claim(node[0], sp, 0, (struct claim){ 3, 0, true }),
	                    "--0 --0 --0");
	assert_string_equal(claim(node[0], sp, 1,
	                          (struct claim){ 3, 2, false }),
	                    "0o1 0o1 0-1");
	assert_string_equal(claim(node[1], sp, 0,
	                          (struct claim){ 5, 5, false }),
	                    "1o1 0o1 0o1 0-1 1o1");
	assert_int_equal(sp->n_homed, 5);
	check();
}

static void a_claim_again_changes_nothing_and_needs_no_disk(void **state)
{
	struct space *sp = make("x", 16 * MIB, BIND_NONE, NULL, 0);
	struct claim c = { 4, 3, false };
	char first[256];
	uint64_t revision;

	(void)state;
	strcpy(first, claim(node[0], sp, 0, c));
	revision = store_revision(store);
	assert_string_equal(ask(node[0], sp, 0, c), first);
	assert_false(spaces_dirty(&s));
	assert_string_equal(ask(node[1], sp, 0, (struct claim){ 4, 4, false }),
	                    first);
	assert_false(spaces_dirty(&s));
	assert_int_equal(store_revision(store), revision);
	check();
}

static void to_open_is_for_the_first_of_ones_own(void **state)
{
	struct space *sp = make("x", 16 * MIB, BIND_NONE, NULL, 0);

	(void)state;
	(void)claim(node[0], sp, 1, (struct claim){ 1, 0, false });
	assert_string_equal(claim(node[1], sp, 0,
	                          (struct claim){ 4, 2, false }),
	                    "1o1 0-1 1o1 1-1");
	/* Those that are opened count: the claim is idempotent. */
	assert_string_equal(claim(node[1], sp, 0,
	                          (struct claim){ 4, 2, false }),
	                    "1o1 0-1 1o1 1-1");
	assert_string_equal(claim(node[0], sp, 0,
	                          (struct claim){ 4, 1, false }),
	                    "1o1 0o1 1o1 1-1");
	check();
}

static void a_run_must_be_in_the_space(void **state)
{
	struct space *sp = make("x", 5 * MIB, BIND_NONE, NULL, 0);
	struct extent_info out[CLAIM_EXTENTS_MAX];
	struct claim c = { 3, 3, false };

	(void)state;
	assert_int_equal(sp->n_extents, 3);
	assert_int_equal(spaces_claim(&s, node[0], sp, 1, &c, out), -ERANGE);
	assert_int_equal(spaces_claim(&s, node[0], sp, 3, &c, out), -ERANGE);
	assert_int_equal(spaces_claim(&s, node[0], sp, UINT32_MAX, &c, out),
	                 -ERANGE);
	assert_false(spaces_dirty(&s));
	assert_int_equal(spaces_claim(&s, node[0], sp, 0, &c, out), 0);
	assert_int_equal(spaces_commit(&s, &em), 0);
	/* The last extent has half a MiB less than it could. */
	assert_int_equal(node[0]->homed_pages, 5 * MIB / PAGE_BYTES);
	check();
}

static void a_full_node_is_home_of_no_more(void **state)
{
	struct space *sp = make("x", GIB, BIND_NONE, NULL, 0);
	struct extent_info out[CLAIM_EXTENTS_MAX];
	struct claim c = { 64, 64, false };

	(void)state;
	/* 64 MiB less the reserve of 1 MiB hold 31 extents. */
	assert_int_equal(spaces_claim(&s, node[0], sp, 0, &c, out), 0);
	for (uint32_t i = 0; i < 64; i++) {
		assert_int_equal(out[i].home, i < 31 ? 0 : 3);
		/* What went elsewhere is not the claimant's to open. */
		assert_int_equal(out[i].opened, i < 31);
	}
	assert_int_equal(spaces_commit(&s, &em), 0);
	/* 512 MiB less 8 are 252 extents, 256 less 4 are 126. */
	for (uint32_t first = 64; first < 448; first += 64)
		assert_int_equal(spaces_claim(&s, node[0], sp, first, &c, out),
		                 0);
	assert_int_equal(spaces_commit(&s, &em), 0);
	for (unsigned i = 0; i < 4; i++)
		assert_in_range(node[i]->homed_pages, 0,
		                node_capacity_pages(node[i]));
	check();
}

static void where_all_are_full_the_least_full_goes_on(void **state)
{
	struct space *sp = make("x", 4 * GIB, BIND_NONE, NULL, 0);
	struct extent_info out[CLAIM_EXTENTS_MAX];
	struct claim c = { 64, 0, false };
	int64_t least = INT64_MAX, most = INT64_MIN;

	(void)state;
	for (uint32_t first = 0; first < 2048; first += 64) {
		assert_int_equal(spaces_claim(&s, node[0], sp, first, &c, out),
		                 0);
		assert_int_equal(spaces_commit(&s, &em), 0);
	}
	for (unsigned i = 0; i < 4; i++) {
		int64_t over = (int64_t)node[i]->homed_pages -
		               (int64_t)node_capacity_pages(node[i]);

		least = over < least ? over : least;
		most = over > most ? over : most;
	}
	assert_in_range(most - least, 0, 2 * EXTENT_PAGES);
	check();
}

/* --- binds ------------------------------------------------------------- */

static void a_bind_is_the_home_of_what_nobody_claimed(void **state)
{
	struct bind_range two[] = { { 1, 2, 3 }, { 4, 1, 2 } };
	struct bind_range turn[] = { { 0, 0, 0 }, { 0, 0, 2 }, { 0, 0, 3 } };
	struct space *a = make("a", 9 * MIB, BIND_RANGES, two, 2);
	struct space *b = make("b", 15 * MIB, BIND_INTERLEAVE, turn, 3);

	(void)state;
	assert_string_equal(ask(node[0], a, 0, (struct claim){ 5, 0, true }),
	                    "--0 3-1 3-1 --0 2-1");
	assert_int_equal(a->n_homed, 3);
	assert_string_equal(ask(node[0], b, 0, (struct claim){ 8, 0, true }),
	                    "0-1 2-1 3-1 0-1 2-1 3-1 0-1 2-1");
	assert_int_equal(b->n_homed, 8);
	check_figures();
	assert_string_equal(claim(node[0], spaces_find(&s, "a"), 0,
	                          (struct claim){ 5, 5, false }),
	                    "0o1 3-1 3-1 0o1 2-1");
	assert_string_equal(claim(node[3], spaces_find(&s, "a"), 0,
	                          (struct claim){ 5, 1, false }),
	                    "0o1 3o1 3-1 0o1 2-1");
	check();
}

static void a_huge_space_costs_nothing_until_it_is_used(void **state)
{
	struct bind_range turn[] = { { 0, 0, 0 }, { 0, 0, 1 } };
	struct space *sp =
		make("huge", SPACE_BYTES_MAX, BIND_INTERLEAVE, turn, 2);

	(void)state;
	assert_int_equal(sp->n_extents, 1u << 23);
	assert_int_equal(sp->n_homed, 1u << 23);
	assert_int_equal(node[0]->homed_pages, 1ull << 31);
	assert_string_equal(claim(node[1], sp, (1u << 23) - 2,
	                          (struct claim){ 2, 2, false }),
	                    "0-1 1o1");
	restart();
	assert_string_equal(ask(node[1], spaces_find(&s, "huge"),
	                        (1u << 23) - 2, (struct claim){ 2, 0, true }),
	                    "0-1 1o1");
	assert_int_equal(spaces_drop(&s, spaces_find(&s, "huge"), &em), 0);
	assert_int_equal(node[0]->homed_pages, 0);
	assert_int_equal(node[1]->opened_extents, 0);
	check();
}

/* --- making and dropping ----------------------------------------------- */

static void names_and_numbers_find_spaces(void **state)
{
	struct space *a = make("a", MIB, BIND_NONE, NULL, 0);
	struct space *b = make("b", MIB, BIND_NONE, NULL, 0);
	struct space *d = make("d", MIB, BIND_NONE, NULL, 0);

	(void)state;
	assert_int_equal(spaces_drop(&s, b, &em), 0);
	assert_ptr_equal(spaces_find(&s, "d"), d);
	assert_null(spaces_find(&s, "b"));
	assert_ptr_equal(spaces_at(&s, 1), a);
	assert_null(spaces_at(&s, 2));
	assert_null(spaces_at(&s, 0));
	assert_ptr_equal(spaces_after(&s, 0), a);
	assert_ptr_equal(spaces_after(&s, 1), d);
	assert_null(spaces_after(&s, 3));
	/* The number of a space that is gone is not given again. */
	assert_int_equal(make("b", MIB, BIND_NONE, NULL, 0)->id, 4);
	check();
	assert_int_equal(s.next_id, 5);
}

static void good_names_are_short_and_low(void **state)
{
	char name[66];

	(void)state;
	assert_true(space_name_ok("a"));
	assert_true(space_name_ok("0"));
	assert_true(space_name_ok("vm-123_x.y"));
	assert_false(space_name_ok(""));
	assert_false(space_name_ok("A"));
	assert_false(space_name_ok("-a"));
	assert_false(space_name_ok("a/b"));
	assert_false(space_name_ok("a\n"));
	memset(name, 'x', sizeof(name));
	name[63] = '\0';
	assert_true(space_name_ok(name));
	name[63] = 'x';
	name[64] = '\0';
	assert_false(space_name_ok(name));
}

static void spaces_are_admitted_to_the_byte(void **state)
{
	uint64_t total = 63 * MIB + 126 * MIB + 252 * MIB + 504 * MIB;
	struct admission a;

	(void)state;
	assert_int_equal(spaces_admit(&s, total, 1, &a), ADMIT_FITS);
	assert_int_equal(a.total_bytes, total);
	assert_int_equal(a.n_nodes, 4);
	assert_int_equal(spaces_admit(&s, total + PAGE_BYTES, 1, &a),
	                 ADMIT_NO_ROOM);
	assert_int_equal(spaces_admit(&s, total / 2, 2, &a), ADMIT_FITS);
	assert_int_equal(spaces_admit(&s, total / 2 + PAGE_BYTES, 2, &a),
	                 ADMIT_NO_ROOM);
	(void)make("x", 100 * MIB, BIND_NONE, NULL, 0);
	assert_int_equal(spaces_admit(&s, total - 100 * MIB, 1, &a),
	                 ADMIT_FITS);
	assert_int_equal(spaces_admit(&s, total - 99 * MIB, 1, &a),
	                 ADMIT_NO_ROOM);
	assert_int_equal(a.taken_bytes, 100 * MIB);
	assert_int_equal(members_bury(&m, node[3], &em), 0);
	assert_int_equal(spaces_admit(&s, total - 100 * MIB, 1, &a),
	                 ADMIT_NO_ROOM);
	assert_int_equal(a.total_bytes, total - 504 * MIB);
}

/* `n` says that it can hold so much for good. */
static void say_capacity(struct node *n, uint64_t bytes)
{
	struct figures f = { .has_capacity = true, .capacity_bytes = bytes };

	members_heard(n, &f, 0);
}

static void what_nodes_can_hold_is_what_they_say(void **state)
{
	uint64_t total = 63 * MIB + 126 * MIB + 240 * MIB + 480 * MIB;
	struct admission a;
	struct space *sp;

	(void)state;
	say_capacity(node[2], 240 * MIB);
	say_capacity(node[3], 480 * MIB);
	assert_int_equal(spaces_admit(&s, total, 1, &a), ADMIT_FITS);
	assert_int_equal(a.total_bytes, total);
	assert_int_equal(spaces_admit(&s, total + PAGE_BYTES, 1, &a),
	                 ADMIT_NO_ROOM);
	/* Homes follow: 6 MiB hold three extents, the rest goes elsewhere. */
	say_capacity(node[0], 6 * MIB);
	say_capacity(node[3], 0);
	sp = make("x", 64 * MIB, BIND_NONE, NULL, 0);
	assert_string_equal(claim(node[0], sp, 0,
	                          (struct claim){ 5, 0, false }),
	                    "0-1 0-1 0-1 2-1 2-1");
	check_figures();
}

static void replicas_need_as_many_nodes_and_one_more(void **state)
{
	struct admission a;

	(void)state;
	assert_int_equal(spaces_admit(&s, MIB, 3, &a), ADMIT_FITS);
	assert_int_equal(spaces_admit(&s, MIB, 4, &a), ADMIT_TOO_FEW_NODES);
	assert_int_equal(a.n_nodes, 4);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(members_bury(&m, node[i], &em), 0);
	assert_int_equal(spaces_admit(&s, MIB, 2, &a), ADMIT_TOO_FEW_NODES);
	/* One node has nobody to evict to, and needs nobody. */
	assert_int_equal(spaces_admit(&s, MIB, 1, &a), ADMIT_FITS);
}

/* --- ends of lives ----------------------------------------------------- */

static void what_the_dead_never_opened_is_there_for_all(void **state)
{
	struct bind_range all = { 0, 8, 0 };
	struct space *sp = make("x", 16 * MIB, BIND_RANGES, &all, 1);

	(void)state;
	(void)claim(node[0], sp, 0, (struct claim){ 4, 2, false });
	assert_int_equal(members_bury(&m, node[0], &em), 0);
	assert_string_equal(claim(node[1], sp, 0,
	                          (struct claim){ 5, 5, false }),
	                    "0o1 0o1 1o2 1o2 1o2");
	assert_int_equal(space_missing_pages(&s, sp), 2 * EXTENT_PAGES);
	assert_int_equal(space_lost_pages(sp), 0);
	check();
}

static void what_the_dead_had_opened_is_nobodys_for_good(void **state)
{
	struct space *sp = make("x", 16 * MIB, BIND_NONE, NULL, 0);

	(void)state;
	(void)claim(node[0], sp, 0, (struct claim){ 4, 2, false });
	assert_int_equal(members_bury(&m, node[0], &em), 0);
	assert_int_equal(spaces_forget_home(&s, 0, &em), 2);
	assert_int_equal(spaces_forget_home(&s, 0, &em), 0);
	assert_int_equal(space_missing_pages(&s, sp), 0);
	assert_int_equal(space_lost_pages(sp), 2 * EXTENT_PAGES);
	assert_string_equal(claim(node[1], sp, 0,
	                          (struct claim){ 4, 4, false }),
	                    "1023o2 1023o2 1o2 1o2");
	check();
	assert_int_equal(members_delete(&m, node[0], &em), 0);
	check_figures();
	assert_int_equal(spaces_drop(&s, spaces_find(&s, "x"), &em), 0);
	assert_int_equal(s.n_lost, 0);
}

/* --- a store that fails ------------------------------------------------ */

static void a_batch_that_cannot_be_written_has_not_happened(void **state)
{
	struct bind_range some = { 100, 10, 2 };
	struct space *sp = make("x", GIB, BIND_RANGES, &some, 1);
	uint64_t before;

	(void)state;
	(void)claim(node[1], sp, 60, (struct claim){ 8, 2, false });
	before = fingerprint();
	store_fail_from(store, 1, -ENOSPC);
	(void)ask(node[0], sp, 0, (struct claim){ 64, 64, false });
	(void)ask(node[1], sp, 50, (struct claim){ 64, 64, false });
	(void)ask(node[2], sp, 90, (struct claim){ 30, 30, false });
	assert_true(spaces_dirty(&s));
	assert_int_equal(spaces_commit(&s, &em), -ENOSPC);
	assert_false(spaces_dirty(&s));
	assert_int_equal(fingerprint(), before);
	check_figures();
	/* What was so before can still be said. */
	assert_string_equal(ask(node[1], sp, 60, (struct claim){ 3, 2, false }),
	                    "1o1 1o1 1-1");
	assert_false(spaces_dirty(&s));
	assert_int_equal(members_bury(&m, node[3], &em), -ENOSPC);
	assert_int_equal(spaces_drop(&s, sp, &em), -ENOSPC);
	store_fail_from(store, 0, 0);
	check();
	assert_string_equal(claim(node[0], spaces_find(&s, "x"), 0,
	                          (struct claim){ 2, 1, false }),
	                    "0o1 0-1");
	check();
}

static void a_life_that_cannot_be_ended_goes_on(void **state)
{
	struct space *sp = make("x", GIB, BIND_NONE, NULL, 0);
	uint64_t before;

	(void)state;
	(void)claim(node[3], sp, 0, (struct claim){ 64, 40, false });
	(void)claim(node[3], sp, 100, (struct claim){ 64, 40, false });
	assert_int_equal(members_bury(&m, node[3], &em), 0);
	before = fingerprint();
	store_fail_from(store, 1, -EIO);
	assert_int_equal(spaces_forget_home(&s, 3, &em), -EIO);
	store_fail_from(store, 0, 0);
	assert_int_equal(fingerprint(), before);
	check();
	assert_int_equal(spaces_forget_home(&s, 3, &em), 80);
	check();
}

/* --- at random --------------------------------------------------------- */

static void random_step(struct prng *rng)
{
	struct extent_info out[CLAIM_EXTENTS_MAX];
	struct space *sp = s.n > 0 ? s.space[prng_below(rng, s.n)] : NULL;
	struct bind_range two[] = { { 3, 5, 0 }, { 20, 70, 2 } };
	struct claim c;
	char name[16];
	bool bound;

	switch (prng_below(rng, 12)) {
	case 0:
		snprintf(name, sizeof(name), "s%u", s.next_id);
		bound = prng_below(rng, 2) == 1;
		if (s.n < 6)
			(void)make(name, (200 + prng_below(rng, 300)) * MIB,
			           bound ? BIND_RANGES : BIND_NONE, two,
			           bound ? 2 : 0);
		break;
	case 1:
		if (sp && !spaces_dirty(&s) && prng_below(rng, 4) == 0)
			assert_int_equal(spaces_drop(&s, sp, &em), 0);
		break;
	case 2:
		assert_int_equal(spaces_commit(&s, &em), 0);
		break;
	case 3:
		store_fail_from(store, 1, -EIO);
		(void)spaces_commit(&s, &em);
		store_fail_from(store, 0, 0);
		break;
	default:
		if (!sp)
			break;
		c.n_extents = 1 + (uint32_t)prng_below(rng, 64);
		c.n_open = (uint32_t)prng_below(rng, c.n_extents + 1u);
		c.ask = false;
		assert_int_equal(
			spaces_claim(&s, node[prng_below(rng, 4)], sp,
		                     (uint32_t)prng_below(
					     rng,
					     sp->n_extents - c.n_extents + 1u),
		                     &c, out),
			0);
		break;
	}
}

static void the_figures_are_right_whatever_happens(void **state)
{
	struct prng rng;

	(void)state;
	for (uint64_t seed = 0; seed < 20; seed++) {
		prng_init(&rng, seed);
		for (unsigned i = 0; i < 200; i++)
			random_step(&rng);
		assert_int_equal(spaces_commit(&s, &em), 0);
		check();
	}
}

#define fact(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		fact(the_first_to_claim_is_home),
		fact(a_claim_again_changes_nothing_and_needs_no_disk),
		fact(to_open_is_for_the_first_of_ones_own),
		fact(a_run_must_be_in_the_space),
		fact(a_full_node_is_home_of_no_more),
		fact(where_all_are_full_the_least_full_goes_on),
		fact(a_bind_is_the_home_of_what_nobody_claimed),
		fact(a_huge_space_costs_nothing_until_it_is_used),
		fact(names_and_numbers_find_spaces),
		fact(good_names_are_short_and_low),
		fact(spaces_are_admitted_to_the_byte),
		fact(what_nodes_can_hold_is_what_they_say),
		fact(replicas_need_as_many_nodes_and_one_more),
		fact(what_the_dead_never_opened_is_there_for_all),
		fact(what_the_dead_had_opened_is_nobodys_for_good),
		fact(a_batch_that_cannot_be_written_has_not_happened),
		fact(a_life_that_cannot_be_ended_goes_on),
		fact(the_figures_are_right_whatever_happens),
	};

	return cmocka_run_group_tests_name("spaces", tests, NULL, NULL);
}
