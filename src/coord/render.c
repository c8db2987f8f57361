/* SPDX-License-Identifier: Apache-2.0 */

#include "coord/render.h"

#include <stdio.h>

static json_t *number(uint64_t v)
{
	return json_integer((json_int_t)v);
}

/* --- nodes --------------------------------------------------------------- */

static json_t *peers(const struct figures *f)
{
	json_t *list = json_array();

	for (size_t i = 0; list && i < f->n_peers; i++)
		(void)json_array_append_new(
			list,
			json_pack("{s:i, s:b}", "id", (int)f->peers[i].id,
		                  "connected", (int)f->peers[i].connected));
	return list;
}

static json_t *memory(const struct node *n)
{
	const struct figures *f = &n->figures;

	return json_pack("{s:o, s:o, s:o, s:o, s:o}", "limit_bytes",
	                 number(n->limit_bytes), "resident_bytes",
	                 number(f->resident_bytes), "lent_bytes",
	                 number(f->lent_bytes), "borrowed_bytes",
	                 number(f->borrowed_bytes), "overhead_bytes",
	                 number(f->overhead_bytes));
}

static json_t *faults(const struct figures *f)
{
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "first_touch",
	                 number(f->faults.first_touch), "remote_read",
	                 number(f->faults.remote_read), "remote_write",
	                 number(f->faults.remote_write), "upgrade",
	                 number(f->faults.upgrade), "refault",
	                 number(f->faults.refault), "prefetched",
	                 number(f->faults.prefetched));
}

json_t *render_node(const struct coord *c, const struct node *n)
{
	const struct figures *f = &n->figures;
	nsec_t age = loop_now(c->loop) - n->renewed_at;

	/* s? and o? make null of what is not known (yet). */
	return json_pack(
		"{s:i, s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:s?, s:o, s:o, s:o, "
		"s:o, s:o, s:o}",
		"id", (int)n->id, "name", n->name, "state",
		member_state_name(n->state), "endpoint", n->endpoint,
		"incarnation", number(n->incarnation), "epoch",
		number(n->epoch), "lease_age_ms",
		n->renewed_at == 0 ? json_null() : number(age / NSEC_PER_MSEC),
		"pid", f->pid == 0 ? json_null() : number(f->pid),
		"metrics_url", f->metrics_url[0] ? f->metrics_url : NULL,
		"memory", memory(n), "faults", faults(f), "clients",
		number(f->clients), "wakeups", number(f->wakeups), "threads",
		number(f->threads), "peers", peers(f));
}

json_t *render_nodes(const struct coord *c)
{
	json_t *list = json_array();

	for (uint32_t i = 0; list && i < c->members.next_id; i++)
		if (c->members.node[i])
			(void)json_array_append_new(
				list, render_node(c, c->members.node[i]));
	return list;
}

/* --- spaces -------------------------------------------------------------- */

json_t *render_home(node_id home)
{
	return home < HOME_LOST ? json_integer(home) : json_null();
}

/* The bind as it would be given to POST /spaces. */
static json_t *bind(const struct space *sp)
{
	json_t *list;

	if (sp->bind == BIND_NONE)
		return json_null();
	if (sp->bind == BIND_INTERLEAVE)
		return json_string("interleave");
	list = json_array();
	for (uint32_t i = 0; list && i < sp->n_ranges; i++) {
		const struct bind_range *b = &sp->ranges[i];
		uint64_t last = (b->first + (uint64_t)b->n) * EXTENT_BYTES;

		(void)json_array_append_new(
			list,
			json_pack("{s:o, s:o, s:i}", "first_bytes",
		                  number(b->first * EXTENT_BYTES), "last_bytes",
		                  number(min_u64(last, sp->size_bytes)), "node",
		                  (int)b->node));
	}
	return list;
}

/* What the nodes that live say of a space, together. */
static struct space_figure sum(const struct coord *c, space_id id)
{
	struct space_figure total = { .id = id };

	for (uint32_t i = 0; i < c->members.next_id; i++) {
		const struct node *n = c->members.node[i];

		if (!n || !node_lives(n))
			continue;
		for (size_t k = 0; k < n->figures.n_spaces; k++) {
			const struct space_figure *f = &n->figures.spaces[k];

			if (f->id != id)
				continue;
			total.clients += f->clients;
			total.written_pages += f->written_pages;
			total.evicted_pages += f->evicted_pages;
			total.under_replicated_pages +=
				f->under_replicated_pages;
			total.missing_pages += f->missing_pages;
			total.lost_pages += f->lost_pages;
		}
	}
	return total;
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

json_t *render_space(const struct coord *c, const struct space *sp)
{
	struct space_figure f = sum(c, sp->id);

	if (somebody_is_missed(c))
		f.missing_pages += space_missing_pages(&c->spaces, sp);
	f.lost_pages += space_lost_pages(sp);
	return json_pack("{s:o, s:s, s:o, s:i, s:b, s:o, s:s, s:{s:o, s:o}, "
	                 "s:{s:o, s:o, s:o, s:o, s:o}, s:o}",
	                 "id", number(sp->id), "name", sp->name, "size_bytes",
	                 number(sp->size_bytes), "replicas", (int)sp->replicas,
	                 "overcommit", (int)sp->overcommit, "bind", bind(sp),
	                 "path", "/proc/self/fd/200", "extents", "homed",
	                 number(sp->n_homed), "total", number(sp->n_extents),
	                 "pages", "written", number(f.written_pages), "evicted",
	                 number(f.evicted_pages), "under_replicated",
	                 number(f.under_replicated_pages), "missing",
	                 number(f.missing_pages), "lost", number(f.lost_pages),
	                 "clients", number(f.clients));
}

json_t *render_spaces(const struct coord *c)
{
	json_t *list = json_array();

	for (uint32_t i = 0; list && i < c->spaces.n; i++)
		(void)json_array_append_new(
			list, render_space(c, c->spaces.space[i]));
	return list;
}

/* --- cluster ------------------------------------------------------------- */

void render_uuid(const uint8_t id[16], char text[37])
{
	char *p = text;

	for (unsigned i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*p++ = '-';
		p += snprintf(p, 3, "%02x", id[i]);
	}
}

json_t *render_cluster(const struct coord *c)
{
	char id[37];

	render_uuid(c->members.cluster_id, id);
	return json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:o}", "schema",
	                 "memspan.cluster/1", "id", id, "name",
	                 c->members.cluster_name, "epoch",
	                 number(c->members.epoch), "lease_ms",
	                 number(c->members.lease_ms), "nodes", render_nodes(c),
	                 "spaces", render_spaces(c));
}
