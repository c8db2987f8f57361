/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client process of a benchmark: carries out one order after the other.
 */

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "cli/bench_crew.h"
#include "cli/bench_pool.h"
#include "client/client.h"
#include "memspan.h"

struct client {
	const struct bench_client_config *cfg;
	struct bench_seat *seat;
	struct memspan *space;   /* NULL: none attached */
	struct floor_map *floor; /* NULL: none mapped yet */
	void *plain;             /* NULL: none mapped */
	uint64_t plain_pages;
	uint64_t *page;         /* cfg->room of them: what the lanes visit */
	struct bench_pool pool; /* n == 0: none */
	struct bench_lane lane; /* the main thread's */
	uint64_t count[BENCH_SHARED_PAGES]; /* all lanes' of one COUNT */
	uint64_t *counts; /* one such array a lane, while there is a COUNT */
};

static int fail(struct client *c, int r, const char *what)
{
	return errmsg_set(&c->seat->answer.em, r, "%s", what);
}

/* --- attaching, threads, memory of the floor ----------------------------- */

static int attach(struct client *c)
{
	struct bench_answer *a = &c->seat->answer;

	if (c->space)
		return fail(c, -EBUSY, "a space is attached already");
	return memspan_attach(c->cfg->node_socket, c->seat->order.space, 0,
	                      &c->space, a->em.text, sizeof(a->em.text));
}

static void detach(struct client *c)
{
	memspan_detach(c->space);
	c->space = NULL;
}

static int map_floor(struct client *c)
{
	const struct bench_order *o = &c->seat->order;

	c->floor = floor_map_free(c->floor);
	return floor_map_new(c->cfg->control, o->floor_pages, o->floor_uffds,
	                     &c->floor, &c->seat->answer.em);
}

/* Anonymous memory of our own, for the same accesses without memspan. */
static int map_plain(struct client *c)
{
	uint64_t pages = c->seat->order.plain_pages;

	if (c->plain)
		(void)munmap(c->plain, c->plain_pages * PAGE_BYTES);
	c->plain = NULL;
	if (pages == 0)
		return 0;
	c->plain = mmap(NULL, pages * PAGE_BYTES, PROT_READ | PROT_WRITE,
	                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (c->plain == MAP_FAILED) {
		c->plain = NULL;
		return fail(c, -errno, "plain memory");
	}
	c->plain_pages = pages;
	return 0;
}

static int make_pool(struct client *c)
{
	bench_pool_stop(&c->pool);
	if (c->seat->order.threads == 0)
		return 0;
	return bench_pool_start(&c->pool, c->seat->order.threads,
	                        &c->seat->answer.em);
}

/* --- lanes --------------------------------------------------------------- */

static bool is_lanes(enum bench_verb verb)
{
	return verb == BENCH_WRITE || verb == BENCH_READ ||
	       verb == BENCH_VERIFY || verb == BENCH_SPOT ||
	       verb == BENCH_FILL || verb == BENCH_COUNT;
}

static struct bench_lane *lane_of(struct client *c, unsigned i)
{
	return c->seat->order.pool > 0 ? &c->pool.lane[i] : &c->lane;
}

static unsigned lanes(const struct client *c)
{
	return c->seat->order.pool > 0 ? c->seat->order.pool : 1;
}

/* The memory that the order is about; NULL: it is not mapped. */
static char *base_of(const struct client *c)
{
	if (c->seat->order.floor)
		return c->floor ? floor_map_addr(c->floor) : NULL;
	if (c->seat->order.plain)
		return c->plain;
	return c->space ? memspan_addr(c->space) : NULL;
}

static uint64_t pages_of(const struct client *c)
{
	if (c->seat->order.floor)
		return floor_map_pages(c->floor);
	if (c->seat->order.plain)
		return c->plain_pages;
	return memspan_bytes(c->space) / PAGE_BYTES;
}

/* Deal the list and the room for samples to the lanes. */
static void prepare_lanes(struct client *c)
{
	const struct bench_order *o = &c->seat->order;
	unsigned n = lanes(c);
	uint64_t room = (o->verb == BENCH_COUNT ? c->cfg->room : o->n) / n;

	for (unsigned i = 0; i < n; i++) {
		*lane_of(c, i) = (struct bench_lane){
			.base = base_of(c),
			.page = c->page + i * (o->n / n),
			.n = o->n / n,
			.seed = o->seed + (o->verb == BENCH_COUNT ? i : 0),
			.version = o->version,
			.alike = o->alike,
			.wrongs = &c->seat->answer.wrongs,
			.sample = c->cfg->sample + i * room,
			.room = room,
			.count = c->counts ?
			                 c->counts + i * BENCH_SHARED_PAGES :
			                 NULL,
		};
	}
}

/* All that a run of lanes needs, so that nothing is allocated in it. */
static int prepare(struct client *c)
{
	const struct bench_order *o = &c->seat->order;
	uint64_t pages;

	if (!is_lanes(o->verb))
		return 0;
	if (!base_of(c))
		return fail(c, -EINVAL, "nothing is mapped");
	if (o->n > c->cfg->room || o->pool > c->pool.n ||
	    (o->pool > 0 && o->pool != c->pool.n))
		return fail(c, -EINVAL, "an order that is too large");
	if (o->floor && o->clear && floor_map_clear(c->floor) < 0)
		return fail(c, -errno, "cannot clear the floor's memory");
	pages = pages_of(c);
	for (uint64_t i = 0; i < o->n; i++) {
		c->page[i] = bench_walk_page(&o->walk, o->from + i);
		if (c->page[i] >= pages)
			return fail(c, -EINVAL, "a page outside of the space");
	}
	if (o->verb == BENCH_COUNT) {
		c->counts = calloc(lanes(c) * (size_t)BENCH_SHARED_PAGES,
		                   sizeof(*c->counts));
		if (!c->counts)
			return fail(c, -ENOMEM, "counters");
	}
	prepare_lanes(c);
	return 0;
}

struct totals {
	uint64_t faults, installed, prefetched;
};

static struct totals totals(const struct client *c)
{
	const struct local_notes *n = c->space ? memspan_notes(c->space) : NULL;
	struct totals t = { 0 };

	for (unsigned s = 0; n && s < SHARDS_MAX; s++) {
		t.faults += atomic_load(&n->faults[s]);
		t.installed += atomic_load(&n->pages_installed[s]);
		t.prefetched += atomic_load(&n->prefetched_pages[s]);
	}
	return t;
}

static void collect(struct client *c, const struct totals *before)
{
	struct bench_answer *a = &c->seat->answer;
	struct totals after = totals(c);

	a->node_faults = after.faults - before->faults;
	a->installed_pages = after.installed - before->installed;
	a->prefetched_pages = after.prefetched - before->prefetched;
	for (unsigned i = 0; i < lanes(c); i++) {
		const struct bench_lane *l = lane_of(c, i);

		a->accesses += l->accesses;
		for (unsigned k = 0; k < BENCH_CLASSES; k++)
			a->faulted[k] += l->faulted[k];
		for (unsigned p = 0; l->count && p < BENCH_SHARED_PAGES; p++)
			a->count[p] += l->count[p];
		/* Close the gaps between the lanes' samples. */
		memmove(c->cfg->sample + a->n_samples, l->sample,
		        l->n_samples * sizeof(*l->sample));
		a->n_samples += l->n_samples;
		a->end = max_u64(a->end, l->end);
	}
	free(c->counts);
	c->counts = NULL;
}

static int run_lanes(struct client *c)
{
	static void (*const loops[])(struct bench_lane * l) = {
		[BENCH_WRITE] = bench_lane_write,
		[BENCH_READ] = bench_lane_read,
		[BENCH_VERIFY] = bench_lane_verify,
		[BENCH_SPOT] = bench_lane_spot,
		[BENCH_FILL] = bench_lane_fill,
		[BENCH_COUNT] = bench_lane_count,
	};
	const struct bench_order *o = &c->seat->order;
	const struct local_notes *notes =
		o->floor || o->plain ? NULL : memspan_notes(c->space);
	struct totals before = totals(c);

	c->seat->answer.start = bench_now();
	for (unsigned i = 0; i < lanes(c); i++)
		lane_of(c, i)->until = c->seat->answer.start + o->duration;
	if (o->pool > 0) {
		bench_pool_run(&c->pool, notes, loops[o->verb]);
	} else {
		c->lane.note = notes ? bench_note(notes) : NULL;
		loops[o->verb](&c->lane);
	}
	collect(c, &before);
	return 0;
}

/* --- shared counters ----------------------------------------------------- */

static _Atomic uint64_t *counter(struct client *c, unsigned page, unsigned i)
{
	char *p = (char *)memspan_addr(c->space) + page * PAGE_BYTES;

	return (_Atomic uint64_t *)(void *)p + i;
}

static int clear_counters(struct client *c)
{
	for (unsigned p = 0; p < BENCH_SHARED_PAGES; p++)
		for (unsigned i = 0; i < BENCH_SHARED_COUNTERS; i++)
			atomic_store(counter(c, p, i), 0);
	return 0;
}

/* Nothing of what all have added may be missing, and nothing be there twice. */
static int sum_counters(struct client *c)
{
	for (unsigned p = 0; p < BENCH_SHARED_PAGES; p++) {
		struct bench_wrong w = { .page = p,
			                 .want = c->seat->order.expected[p] };

		for (unsigned i = 0; i < BENCH_SHARED_COUNTERS; i++)
			w.got += atomic_load(counter(c, p, i));
		if (w.got != w.want)
			bench_wrong_add(&c->seat->answer.wrongs, &w);
	}
	return 0;
}

/* --- orders -------------------------------------------------------------- */

static int carry_out(struct client *c)
{
	switch (c->seat->order.verb) {
	case BENCH_ATTACH:
		return attach(c);
	case BENCH_DETACH:
		detach(c);
		return 0;
	case BENCH_FLOOR_MAP:
		return map_floor(c);
	case BENCH_PLAIN_MAP:
		return map_plain(c);
	case BENCH_POOL:
		return make_pool(c);
	case BENCH_WRITE:
	case BENCH_READ:
	case BENCH_VERIFY:
	case BENCH_SPOT:
	case BENCH_FILL:
	case BENCH_COUNT:
		return run_lanes(c);
	case BENCH_CLEAR:
		return c->space ? clear_counters(c) : -EINVAL;
	case BENCH_SUM:
		return c->space ? sum_counters(c) : -EINVAL;
	}
	return -EINVAL;
}

/* Returns -EPIPE when the conductor is gone. */
static int one_order(struct client *c)
{
	_Atomic uint32_t *go = &c->cfg->board->go;
	uint32_t now;
	int r;

	memset(&c->seat->answer, 0, sizeof(c->seat->answer));
	r = prepare(c);
	if (send(c->cfg->sock, "r", 1, MSG_NOSIGNAL) != 1)
		return -EPIPE;
	while ((now = atomic_load(go)) != c->seat->round)
		bench_futex_wait(go, now);
	if (r == 0)
		r = carry_out(c);
	c->seat->answer.error = r;
	return send(c->cfg->sock, "d", 1, MSG_NOSIGNAL) == 1 ? 0 : -EPIPE;
}

int bench_client(const struct bench_client_config *cfg)
{
	struct client c = { .cfg = cfg, .seat = &cfg->board->seat[cfg->index] };
	char order;

	/* Touched now, so that the lists cost no fault later. */
	c.page = mmap(NULL, cfg->room * sizeof(*c.page), PROT_READ | PROT_WRITE,
	              MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (c.page == MAP_FAILED)
		return 1;
	memset(cfg->sample, 0, cfg->room * sizeof(*cfg->sample));
	while (recv(cfg->sock, &order, 1, 0) == 1 && one_order(&c) == 0)
		;
	bench_pool_stop(&c.pool);
	floor_map_free(c.floor);
	detach(&c);
	return 0;
}
