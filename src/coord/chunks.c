/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The homes of extents.
 *
 * Every change goes through extent_set(), which keeps the figures: how many
 * extents of the space have a home or are lost, how many pages a node is home
 * of, how many extents it has opened.
 *
 * A batch remembers each chunk that was changed, as it was before.  When the
 * store refuses the batch, it is put back from there, by extent_set() again, so
 * the figures follow.
 */

#include "coord/chunks.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define KEY_EXTENT "extent/"

struct before {
	struct space *space;
	uint32_t chunk;
	bool absent;
	struct chunk was;
};

struct batch {
	struct before *v;
	size_t n, room;
};

struct batch *batch_new(void)
{
	return calloc(1, sizeof(struct batch));
}

struct batch *batch_free(struct batch *b)
{
	if (b)
		free(b->v);
	free(b);
	return NULL;
}

/* --- reading ------------------------------------------------------------- */

/* What holds for an extent that nobody has claimed. */
static struct extent_info by_bind(const struct space *sp, uint32_t extent)
{
	uint32_t low = 0, high = sp->n_ranges;

	switch (sp->bind) {
	case BIND_NONE:
		break;
	case BIND_INTERLEAVE:
		return (struct extent_info){
			sp->ranges[extent % sp->n_ranges].node, false, 1
		};
	case BIND_RANGES:
		while (low < high) {
			uint32_t middle = (low + high) / 2;
			const struct bind_range *b = &sp->ranges[middle];

			if (extent < b->first)
				high = middle;
			else if (extent - b->first >= b->n)
				low = middle + 1;
			else
				return (struct extent_info){ b->node, false,
					                     1 };
		}
		break;
	}
	return (struct extent_info){ NODE_NONE, false, 0 };
}

struct extent_info space_extent(const struct space *sp, uint32_t extent)
{
	const struct chunk *c = sp->chunk[extent / CHUNK_EXTENTS];

	assert(extent < sp->n_extents);
	return c ? c->extent[extent % CHUNK_EXTENTS] : by_bind(sp, extent);
}

uint32_t space_extent_pages(const struct space *sp, uint32_t extent)
{
	uint64_t pages = sp->size_bytes / PAGE_BYTES;
	uint64_t first = (uint64_t)extent * EXTENT_PAGES;

	assert(first < pages);
	return (uint32_t)min_u64(pages - first, EXTENT_PAGES);
}

/*
 * May nobody answer for what is at home there?  JOINING does not count: its
 * node is about to begin a life, in which it is home of what was never opened.
 */
static bool home_is_gone(const struct members *m, node_id home)
{
	const struct node *n = members_at(m, home);

	return !n || n->state == MEMBER_DEAD || n->state == MEMBER_DRAINED;
}

uint64_t space_missing_pages(const struct spaces *s, const struct space *sp)
{
	uint64_t pages = 0;

	for (uint32_t i = 0; i < sp->n_extents; i++) {
		struct extent_info e;

		if (!sp->chunk[i / CHUNK_EXTENTS]) {
			i |= CHUNK_EXTENTS - 1; /* none of these is opened */
			continue;
		}
		e = space_extent(sp, i);
		if (e.opened && e.home != HOME_LOST &&
		    home_is_gone(s->members, e.home))
			pages += space_extent_pages(sp, i);
	}
	return pages;
}

uint64_t space_lost_pages(const struct space *sp)
{
	return (uint64_t)sp->n_lost * EXTENT_PAGES;
}

/* --- changing ------------------------------------------------------------ */

/* Count, or no longer count, that `extent` is as `e` says. */
static void count(struct spaces *s, struct space *sp, uint32_t extent,
                  const struct extent_info *e, bool on)
{
	uint64_t pages = space_extent_pages(sp, extent);
	struct node *n;

	if (e->home == NODE_NONE)
		return;
	sp->n_homed += on ? 1u : -1u;
	if (e->home == HOME_LOST) {
		sp->n_lost += on ? 1u : -1u;
		s->n_lost += on ? 1u : -1u;
		return;
	}
	n = members_at(s->members, e->home);
	if (!n)
		return;
	n->homed_pages += on ? pages : -pages;
	if (e->opened)
		n->opened_extents += on ? 1u : -1ull;
}

static void extent_set(struct spaces *s, struct space *sp, uint32_t extent,
                       struct extent_info e)
{
	struct chunk *c = sp->chunk[extent / CHUNK_EXTENTS];
	struct extent_info *at = &c->extent[extent % CHUNK_EXTENTS];

	assert(extent < sp->n_extents);
	/* Nobody may believe what he knew of another home [A1]. */
	assert(e.home == at->home || e.version != at->version);
	count(s, sp, extent, at, false);
	*at = e;
	count(s, sp, extent, at, true);
}

/*
 * Pages of the space that belong to extents first, first + step, ...: by
 * arithmetic, for a space of 16 TiB has 8 million of them.
 */
static uint64_t pages_every(const struct space *sp, uint32_t first,
                            uint32_t step)
{
	uint32_t last = sp->n_extents - 1;
	uint64_t n;

	assert(step > 0);
	if (first > last)
		return 0;
	n = (last - first) / step + 1;
	if ((last - first) % step != 0)
		return n * EXTENT_PAGES;
	return (n - 1) * EXTENT_PAGES + space_extent_pages(sp, last);
}

static void count_range(struct spaces *s, struct space *sp, node_id node,
                        uint64_t pages, uint64_t extents, int by)
{
	struct node *n = members_at(s->members, node);

	sp->n_homed += (uint32_t)((int64_t)extents * by);
	if (n)
		n->homed_pages += (uint64_t)((int64_t)pages * by);
}

void chunks_count_bind(struct spaces *s, struct space *sp, int by)
{
	for (uint32_t i = 0; i < sp->n_ranges; i++) {
		const struct bind_range *b = &sp->ranges[i];
		uint64_t pages;

		if (sp->bind == BIND_INTERLEAVE)
			pages = pages_every(sp, i, sp->n_ranges);
		else
			pages = (uint64_t)(b->n - 1) * EXTENT_PAGES +
			        space_extent_pages(sp, b->first + b->n - 1);
		count_range(s, sp, b->node, pages,
		            (pages + EXTENT_PAGES - 1) / EXTENT_PAGES, by);
	}
}

/* Make chunk `at` be there, as the bind says: the figures stay as they are. */
static int materialize(struct space *sp, uint32_t at)
{
	struct chunk *c = calloc(1, sizeof(*c));

	assert(!sp->chunk[at]);
	if (!c)
		return -ENOMEM;
	/* Those behind the space's end are never looked at. */
	for (uint32_t i = 0; i < CHUNK_EXTENTS; i++)
		c->extent[i] = by_bind(sp, at * CHUNK_EXTENTS + i);
	sp->chunk[at] = c;
	return 0;
}

/* The last chunk may be short. */
static uint32_t chunk_extents(const struct space *sp, uint32_t at)
{
	assert(at < sp->n_chunks);
	return (uint32_t)min_u64(CHUNK_EXTENTS,
	                         sp->n_extents - at * CHUNK_EXTENTS);
}

/*
 * Set all extents of chunk `at` as `was` says: to load one, to undo a change,
 * and to clear it, so that the figures are kept in one place.
 */
static void chunk_restore(struct spaces *s, struct space *sp, uint32_t at,
                          const struct chunk *was)
{
	for (uint32_t i = 0; i < chunk_extents(sp, at); i++)
		extent_set(s, sp, at * CHUNK_EXTENTS + i, was->extent[i]);
}

/* Take chunk `at` away, so that the bind alone says what holds. */
static void dematerialize(struct spaces *s, struct space *sp, uint32_t at)
{
	struct chunk was;

	for (uint32_t i = 0; i < CHUNK_EXTENTS; i++)
		was.extent[i] = by_bind(sp, at * CHUNK_EXTENTS + i);
	chunk_restore(s, sp, at, &was);
	free(sp->chunk[at]);
	sp->chunk[at] = NULL;
}

void chunks_clear(struct spaces *s, struct space *sp)
{
	for (uint32_t i = 0; i < sp->n_chunks; i++)
		if (sp->chunk[i])
			dematerialize(s, sp, i);
}

/* --- batches ------------------------------------------------------------- */

/* Remember chunk `at` as it is, and make it one that may be changed. */
static int remember(struct spaces *s, struct space *sp, uint32_t at)
{
	struct batch *b = s->batch;
	struct before *was;

	if (b->n == b->room) {
		size_t room = b->room == 0 ? 16 : b->room * 2;
		void *v = reallocarray(b->v, room, sizeof(b->v[0]));

		if (!v)
			return -ENOMEM;
		b->v = v;
		b->room = room;
	}
	was = &b->v[b->n];
	was->space = sp;
	was->chunk = at;
	was->absent = sp->chunk[at] == NULL;
	if (was->absent && materialize(sp, at) < 0)
		return -ENOMEM;
	was->was = *sp->chunk[at];
	b->n++;
	return 0;
}

/* The same, unless the batch has it: a turn's claims are few, and near. */
static int touch(struct spaces *s, struct space *sp, uint32_t at)
{
	const struct batch *b = s->batch;

	for (size_t i = b->n; i-- > 0;)
		if (b->v[i].space == sp && b->v[i].chunk == at)
			return 0;
	return remember(s, sp, at);
}

bool spaces_dirty(const struct spaces *s)
{
	return s->batch->n > 0;
}

void spaces_undo(struct spaces *s)
{
	struct batch *b = s->batch;

	/* Backwards: what was remembered last was changed last. */
	for (size_t i = b->n; i-- > 0;) {
		struct before *was = &b->v[i];

		chunk_restore(s, was->space, was->chunk, &was->was);
		if (was->absent)
			dematerialize(s, was->space, was->chunk);
	}
	b->n = 0;
}

void chunks_prefix(space_id id, char prefix[DRAFT_KEY_BYTES])
{
	snprintf(prefix, DRAFT_KEY_BYTES, KEY_EXTENT "%08x/", id);
}

/* A chunk on its way to the store. */
struct written {
	char key[DRAFT_KEY_BYTES];
	struct wire_extent value[CHUNK_EXTENTS];
};

static void write_chunk(const struct before *b, struct written *w,
                        struct store_op *op)
{
	const struct chunk *c = b->space->chunk[b->chunk];
	uint32_t n = chunk_extents(b->space, b->chunk);

	snprintf(w->key, sizeof(w->key), KEY_EXTENT "%08x/%06x", b->space->id,
	         b->chunk);
	for (uint32_t i = 0; i < n; i++)
		extent_encode(&c->extent[i], &w->value[i]);
	*op = (struct store_op){ STORE_PUT, w->key, w->value,
		                 n * sizeof(w->value[0]) };
}

int spaces_commit(struct spaces *s, struct errmsg *em)
{
	struct batch *b = s->batch;
	AUTO_FREE struct written *w = calloc(b->n, sizeof(*w));
	AUTO_FREE struct store_op *ops = calloc(b->n, sizeof(*ops));
	struct store_txn txn = { .ops = ops, .n_ops = b->n };
	int r;

	if (b->n == 0)
		return 0;
	if (w && ops) {
		for (size_t i = 0; i < b->n; i++)
			write_chunk(&b->v[i], &w[i], &ops[i]);
		r = store_txn(s->store, &txn, em);
	} else {
		r = errmsg_set(em, -ENOMEM, "cannot write claims");
	}
	if (r < 0)
		spaces_undo(s);
	b->n = 0;
	return r;
}

/* --- loading ------------------------------------------------------------- */

/* In the order of keys: spaces ascending, and chunks in each. */
static int load_chunk(const struct store_kv *kv, void *arg)
{
	const struct wire_extent *records = kv->value;
	struct spaces *s = arg;
	struct space *sp;
	struct chunk was;
	uint32_t id, at, n;

	if (sscanf(kv->key, KEY_EXTENT "%8x/%6x", &id, &at) != 2)
		return -EBADMSG;
	sp = spaces_at(s, id);
	if (!sp || at >= sp->n_chunks)
		return -EBADMSG;
	n = chunk_extents(sp, at);
	if (kv->bytes != n * sizeof(records[0]))
		return -EBADMSG;
	if (materialize(sp, at) < 0)
		return -ENOMEM;
	was = *sp->chunk[at];
	for (uint32_t i = 0; i < n; i++)
		if (extent_decode(&records[i], &was.extent[i]) < 0)
			return -EBADMSG;
	chunk_restore(s, sp, at, &was);
	return 0;
}

int chunks_load(struct spaces *s, struct errmsg *em)
{
	return store_range(s->store, KEY_EXTENT, load_chunk, s, em);
}

/* --- claims -------------------------------------------------------------- */

/* May be negative: where spaces are overcommitted, homes are too. */
static int64_t room_pages(const struct node *n)
{
	return (int64_t)node_capacity_pages(n) - (int64_t)n->homed_pages;
}

/*
 * Who is to be home of `pages` more pages that `claimant` touches: itself as
 * long as its homed pages fit its memory, then the node with most room for
 * more, so that nobody's memory is promised twice while another's is idle.
 *
 * Room is counted by what was promised, not by what a node has free at the
 * moment: figures are a third of a lease old, in which a run of claims promises
 * 128 MiB; and a home need not hold its pages, for it evicts them, so that its
 * memory is full of what it uses and not of what it answers for.
 */
static const struct node *
choose_home(const struct spaces *s, const struct node *claimant, uint32_t pages)
{
	const struct node *best = claimant;

	if (room_pages(claimant) >= (int64_t)pages)
		return claimant;
	for (uint32_t i = 0; i < s->members->next_id; i++) {
		const struct node *n = s->members->node[i];

		if (n && n->state == MEMBER_ALIVE &&
		    room_pages(n) > room_pages(best))
			best = n;
	}
	return best;
}

/*
 * What `extent` becomes when `n` touches it and may open *n_open more extents
 * of its own.
 */
static struct extent_info claimed(const struct spaces *s, const struct node *n,
                                  const struct space *sp, uint32_t extent,
                                  uint32_t *n_open)
{
	struct extent_info e = space_extent(sp, extent);

	/*
	 * Nobody's, or claimed by a node that is gone and never opened it: no
	 * page of it was ever touched, so it is zeros for whoever comes [C3].
	 */
	if (e.home == NODE_NONE ||
	    (!e.opened && home_is_gone(s->members, e.home))) {
		e.home = choose_home(s, n, space_extent_pages(sp, extent))->id;
		e.version++;
		assert(e.home < HOME_LOST);
	}
	if (e.home == n->id && *n_open > 0) {
		e.opened = true;
		(*n_open)--;
	}
	return e;
}

/* Is what `n` asks for so already?  Then no disk is needed to answer. */
static bool settled(const struct spaces *s, const struct node *n,
                    const struct space *sp, uint32_t first,
                    const struct claim *c)
{
	uint32_t n_open = c->n_open;

	for (uint32_t i = first; i < first + c->n_extents; i++) {
		struct extent_info now = space_extent(sp, i);
		struct extent_info e = claimed(s, n, sp, i, &n_open);

		if (e.home != now.home || e.opened != now.opened)
			return false;
	}
	return true;
}

int spaces_claim(struct spaces *s, const struct node *n, struct space *sp,
                 uint32_t first, const struct claim *c, struct extent_info *out)
{
	uint32_t n_open = c->n_open, end = first + c->n_extents;

	assert(n->state == MEMBER_ALIVE);
	if (first >= sp->n_extents || c->n_extents > sp->n_extents - first)
		return -ERANGE;
	if (!c->ask && !settled(s, n, sp, first, c)) {
		for (uint32_t at = first / CHUNK_EXTENTS;
		     at <= (end - 1) / CHUNK_EXTENTS; at++)
			if (touch(s, sp, at) < 0)
				return -ENOMEM;
		for (uint32_t i = first; i < end; i++)
			extent_set(s, sp, i, claimed(s, n, sp, i, &n_open));
	}
	for (uint32_t i = 0; i < c->n_extents; i++)
		out[i] = space_extent(sp, first + i);
	return 0;
}

/* --- a life is over ------------------------------------------------------ */

/* Returns how many extents were forgotten, or -ENOMEM. */
static int64_t forget_in_chunk(struct spaces *s, struct space *sp, uint32_t at,
                               node_id id)
{
	int64_t lost = 0;

	for (uint32_t i = 0; i < chunk_extents(sp, at); i++) {
		uint32_t extent = at * CHUNK_EXTENTS + i;
		struct extent_info e = space_extent(sp, extent);

		if (e.home != id || !e.opened)
			continue;
		if (lost == 0 && remember(s, sp, at) < 0)
			return -ENOMEM;
		e.home = HOME_LOST;
		e.version++;
		extent_set(s, sp, extent, e);
		lost++;
	}
	return lost;
}

int64_t spaces_forget_home(struct spaces *s, node_id id, struct errmsg *em)
{
	const struct node *n = members_at(s->members, id);
	int64_t lost = 0;
	int r;

	/* Claims of others in the same batch would be undone with ours. */
	assert(!spaces_dirty(s));
	if (!n || n->opened_extents == 0)
		return 0;
	for (uint32_t i = 0; i < s->n; i++) {
		struct space *sp = s->space[i];

		for (uint32_t at = 0; at < sp->n_chunks; at++) {
			int64_t more = 0;

			if (sp->chunk[at])
				more = forget_in_chunk(s, sp, at, id);
			if (more < 0) {
				spaces_undo(s);
				return errmsg_set(em, (int)more,
				                  "cannot write claims");
			}
			lost += more;
		}
	}
	r = spaces_commit(s, em);
	return r < 0 ? r : lost;
}
