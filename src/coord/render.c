/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each object is written in the order of docs/openapi.yaml, in pieces that end
 * with an object or a list.
 */

#include "coord/render.h"

#include <inttypes.h>
#include <stdio.h>

/* --- nodes --------------------------------------------------------------- */

/* "key":value, or "key":null. */
static void maybe(struct text *t, const char *key, bool known, uint64_t value)
{
	if (known)
		text_add(t, ",\"%s\":%" PRIu64, key, value);
	else
		text_add(t, ",\"%s\":null", key);
}

static void memory(struct text *t, const struct coord *c, const struct node *n)
{
	const struct figures *f = &n->figures;
	nsec_t now = loop_now(c->loop);

	text_add(t,
	         "{\"limit_bytes\":%" PRIu64 ",\"capacity_bytes\":%" PRIu64
	         ",\"resident_bytes\":%" PRIu64 ",\"room_bytes\":%" PRIu64
	         ",\"lent_bytes\":%" PRIu64 ",\"borrowed_bytes\":%" PRIu64
	         ",\"overhead_bytes\":%" PRIu64 ",\"waiting\":%" PRIu64
	         ",\"refused\":%" PRIu64,
	         n->limit_bytes, node_capacity_pages(n) * PAGE_BYTES,
	         f->resident_bytes, node_room_pages(n) * PAGE_BYTES,
	         f->lent_bytes, f->borrowed_bytes, f->overhead_bytes,
	         f->waiting, f->refused);
	maybe(t, "refused_age_ms", n->refused_at != 0,
	      now > n->refused_at ? (now - n->refused_at) / NSEC_PER_MSEC : 0);
	text_add(t, "}");
}

static void faults(struct text *t, const struct figures *f)
{
	text_add(t,
	         "{\"first_touch\":%" PRIu64 ",\"remote_read\":%" PRIu64
	         ",\"remote_write\":%" PRIu64 ",\"upgrade\":%" PRIu64
	         ",\"refault\":%" PRIu64 ",\"prefetched\":%" PRIu64 "}",
	         f->faults.first_touch, f->faults.remote_read,
	         f->faults.remote_write, f->faults.upgrade, f->faults.refault,
	         f->faults.prefetched);
}

void render_node(struct text *t, const struct coord *c, const struct node *n)
{
	const struct figures *f = &n->figures;
	nsec_t age = loop_now(c->loop) - n->renewed_at;

	/* Names and endpoints have no letter that must be escaped. */
	text_add(t,
	         "{\"id\":%u,\"name\":\"%s\",\"state\":\"%s\","
	         "\"endpoint\":\"%s\",\"incarnation\":%" PRIu64
	         ",\"epoch\":%" PRIu32,
	         n->id, n->name, member_state_name(n->state), n->endpoint,
	         n->incarnation, n->epoch);
	maybe(t, "lease_age_ms", n->renewed_at != 0, age / NSEC_PER_MSEC);
	maybe(t, "pid", f->pid != 0, f->pid);
	text_add(t, ",\"metrics_url\":");
	text_quote(t, f->metrics_url[0] != '\0' ? f->metrics_url : NULL);
	text_add(t, ",\"memory\":");
	memory(t, c, n);
	text_add(t, ",\"faults\":");
	faults(t, f);
	text_add(t,
	         ",\"clients\":%" PRIu64 ",\"wakeups\":%" PRIu64
	         ",\"threads\":%" PRIu64 ",\"peers\":%s}",
	         f->clients, f->wakeups, f->threads,
	         f->peers ? f->peers : "[]");
}

void render_nodes(struct text *t, const struct coord *c)
{
	text_add(t, "[");
	for (uint32_t i = 0; i < c->members.next_id; i++) {
		if (!c->members.node[i])
			continue;
		text_comma(t);
		render_node(t, c, c->members.node[i]);
	}
	text_add(t, "]");
}

/* --- spaces -------------------------------------------------------------- */

/* The bind as it would be given to POST /spaces. */
static void bind(struct text *t, const struct space *sp)
{
	if (sp->bind == BIND_NONE) {
		text_add(t, "null");
		return;
	}
	if (sp->bind == BIND_INTERLEAVE) {
		text_add(t, "\"interleave\"");
		return;
	}
	text_add(t, "[");
	for (uint32_t i = 0; i < sp->n_ranges; i++) {
		const struct bind_range *b = &sp->ranges[i];
		uint64_t last = (b->first + (uint64_t)b->n) * EXTENT_BYTES;

		text_comma(t);
		text_add(t,
		         "{\"first_bytes\":%" PRIu64 ",\"last_bytes\":%" PRIu64
		         ",\"node\":%u}",
		         b->first * EXTENT_BYTES, min_u64(last, sp->size_bytes),
		         b->node);
	}
	text_add(t, "]");
}

static void sum_up(struct space_figure *total, const struct space_figure *f)
{
	total->clients += f->clients;
	total->written_pages += f->written_pages;
	total->evicted_pages += f->evicted_pages;
	total->under_replicated_pages += f->under_replicated_pages;
	total->missing_pages += f->missing_pages;
	total->lost_pages += f->lost_pages;
}

/*
 * What the nodes that live say of the `n` spaces from `sp` on, together: one
 * pass over what they said, however many spaces there are.  `total` is zeros.
 */
static void sum(const struct coord *c, struct space *const *sp, uint32_t n,
                struct space_figure *total)
{
	for (uint32_t i = 0; i < c->members.next_id; i++) {
		const struct node *from = c->members.node[i];

		if (!from || !node_lives(from))
			continue;
		for (size_t k = 0; k < from->figures.n_spaces; k++) {
			const struct space_figure *f = &from->figures.spaces[k];
			uint32_t low = 0, high = n;

			while (low < high) {
				uint32_t middle = (low + high) / 2;

				if (sp[middle]->id < f->id)
					low = middle + 1;
				else
					high = middle;
			}
			if (low < n && sp[low]->id == f->id)
				sum_up(&total[low], f);
		}
	}
}

/* Has any node died with pages and not come back? */
static bool somebody_is_missed(const struct coord *c)
{
	for (uint32_t i = 0; i < c->members.next_id; i++) {
		const struct node *n = c->members.node[i];

		if (n && !node_lives(n) && n->opened_extents > 0)
			return true;
	}
	return false;
}

/* `f`: what the nodes say of it; `missed`: somebody_is_missed(). */
static void space(struct text *t, const struct coord *c, const struct space *sp,
                  struct space_figure f, bool missed)
{
	if (missed)
		f.missing_pages += space_missing_pages(&c->spaces, sp);
	f.lost_pages += space_lost_pages(sp);
	text_add(t,
	         "{\"id\":%u,\"name\":\"%s\",\"size_bytes\":%" PRIu64
	         ",\"replicas\":%u,\"overcommit\":%s,\"bind\":",
	         sp->id, sp->name, sp->size_bytes, sp->replicas,
	         sp->overcommit ? "true" : "false");
	bind(t, sp);
	text_add(t,
	         ",\"path\":\"/proc/self/fd/200\",\"extents\":{\"homed\":%u,"
	         "\"total\":%u},\"pages\":{\"written\":%" PRIu64
	         ",\"evicted\":%" PRIu64 ",\"under_replicated\":%" PRIu64
	         ",\"missing\":%" PRIu64 ",\"lost\":%" PRIu64
	         "},\"clients\":%" PRIu64 "}",
	         sp->n_homed, sp->n_extents, f.written_pages, f.evicted_pages,
	         f.under_replicated_pages, f.missing_pages, f.lost_pages,
	         f.clients);
}

void render_space(struct text *t, const struct coord *c, struct space *sp)
{
	struct space_figure f = { 0 };

	sum(c, &sp, 1, &f);
	space(t, c, sp, f, somebody_is_missed(c));
}

void render_spaces(struct text *t, const struct coord *c)
{
	AUTO_FREE struct space_figure *f =
		calloc(c->spaces.n + 1u, sizeof(f[0]));
	bool missed = somebody_is_missed(c);

	if (!f) {
		t->failed = true;
		return;
	}
	sum(c, c->spaces.space, c->spaces.n, f);
	text_add(t, "[");
	for (uint32_t i = 0; i < c->spaces.n; i++) {
		text_comma(t);
		space(t, c, c->spaces.space[i], f[i], missed);
	}
	text_add(t, "]");
}

/* --- cluster ------------------------------------------------------------- */

/* As people write a UUID. */
static void uuid(const uint8_t id[16], char buf[37])
{
	for (unsigned i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*buf++ = '-';
		buf += snprintf(buf, 3, "%02x", id[i]);
	}
}

void render_cluster(struct text *t, const struct coord *c)
{
	char id[37];

	uuid(c->members.cluster_id, id);
	text_add(t,
	         "{\"schema\":\"memspan.cluster/1\",\"id\":\"%s\","
	         "\"name\":\"%s\",\"epoch\":%" PRIu32 ",\"lease_ms\":%" PRIu64
	         ",\"nodes\":",
	         id, c->members.cluster_name, c->members.epoch,
	         c->members.lease_ms);
	render_nodes(t, c);
	text_add(t, ",\"spaces\":");
	render_spaces(t, c);
	text_add(t, "}");
}
