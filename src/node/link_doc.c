/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The JSON documents of the coordinator's link, as wire/control.h lists them.
 */

#include "node/link.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

static uint64_t sum_faults(const struct node *n, enum local_class class)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < n->cfg.shards; i++)
		sum += atomic_load_explicit(&n->counters[i].faults[class],
		                            memory_order_relaxed);
	return sum;
}

#define SUM(n, field)                                                          \
	({                                                                     \
		uint64_t sum_ = 0;                                             \
		for (unsigned i_ = 0; i_ < (n)->cfg.shards; i_++)              \
			sum_ += atomic_load_explicit(&(n)->counters[i_].field, \
			                             memory_order_relaxed);    \
		sum_;                                                          \
	})

/* A peer is connected if all lanes of all our shards to it are up. */
static json_t *peers_json(const struct node *n)
{
	json_t *a = json_array();

	for (unsigned w = 0; w < NODES_MAX / 64; w++) {
		uint64_t all = ~0ull;

		for (unsigned i = 0; i < n->cfg.shards; i++)
			all &= atomic_load_explicit(
				&n->counters[i].connected[w],
				memory_order_relaxed);
		for (; all != 0; all &= all - 1)
			json_array_append_new(
				a,
				json_pack("{s:i, s:b}", "id",
			                  (int)(w * 64) + __builtin_ctzll(all),
			                  "connected", 1));
	}
	return a;
}

static json_t *spaces_json(const struct link_spaces *sp)
{
	json_t *a = json_array();

	for (uint32_t i = 0; i < sp->n; i++) {
		const struct space *s = sp->v[i].space;

		json_array_append_new(
			a,
			json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "id",
		                  (json_int_t)s->id, "clients",
		                  (json_int_t)atomic_load(&s->n_clients),
		                  "written_pages",
		                  (json_int_t)atomic_load(&s->written),
		                  "evicted_pages",
		                  (json_int_t)atomic_load(&s->evicted),
		                  "under_replicated_pages",
		                  (json_int_t)atomic_load(&s->under_replicated),
		                  "lost_pages",
		                  (json_int_t)atomic_load(&s->lost)));
	}
	return a;
}

static json_t *faults_json(const struct node *n)
{
	uint64_t remote_write = sum_faults(n, LOCAL_REMOTE_WRITE) +
	                        sum_faults(n, LOCAL_FIRST_REMOTE);

	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "first_touch",
	                 (json_int_t)sum_faults(n, LOCAL_FIRST_TOUCH),
	                 "remote_read",
	                 (json_int_t)sum_faults(n, LOCAL_REMOTE_READ),
	                 "remote_write", (json_int_t)remote_write, "upgrade",
	                 (json_int_t)sum_faults(n, LOCAL_UPGRADE), "refault",
	                 (json_int_t)sum_faults(n, LOCAL_REFAULT), "prefetched",
	                 (json_int_t)SUM(n, prefetched));
}

/* The figures of memory, on the document's first level. */
static json_t *memory_json(const struct node *n, const struct link_spaces *sp)
{
	const struct memory *m = &n->memory;

	return json_pack(
		"{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
		"limit_bytes", (json_int_t)n->cfg.memory_bytes,
		"capacity_bytes", (json_int_t)(memory_high(m) * PAGE_BYTES),
		"resident_bytes", (json_int_t)link_resident(n, sp),
		"fixed_bytes",
		(json_int_t)(atomic_load(&m->fixed_pages) * PAGE_BYTES),
		"room_pages", (json_int_t)memory_room(m), "lent_bytes",
		(json_int_t)(atomic_load(&m->lent_pages) * PAGE_BYTES),
		"borrowed_bytes",
		(json_int_t)(atomic_load(&m->borrowed_pages) * PAGE_BYTES),
		"overhead_bytes", (json_int_t)link_overhead(n, sp), "waiting",
		(json_int_t)atomic_load(&m->waiting), "refused",
		(json_int_t)atomic_load(&m->refused));
}

json_t *link_lease_doc(const struct node *n, const struct link_spaces *sp)
{
	json_t *memory = memory_json(n, sp);
	json_t *doc =
		json_pack("{s:i, s:s, s:i, s:o, s:I, s:i, s:i, s:o, s:o}",
	                  "pid", (int)getpid(), "state", "alive", "shards",
	                  n->cfg.shards, "faults", faults_json(n), "wakeups",
	                  (json_int_t)SUM(n, wakeups), "threads",
	                  n->cfg.shards + 2, "clients",
	                  (int)atomic_load(&n->n_clients), "peers",
	                  peers_json(n), "spaces", spaces_json(sp));

	if (doc == NULL || memory == NULL ||
	    json_object_update(doc, memory) < 0) {
		json_decref(doc);
		doc = NULL;
	}
	json_decref(memory);
	return doc;
}

static json_t *parse(const void *payload, uint32_t bytes)
{
	json_t *doc = json_loadb(payload, bytes, JSON_REJECT_DUPLICATES, NULL);

	if (!json_is_object(doc)) {
		json_decref(doc);
		return NULL;
	}
	return doc;
}

int link_space_doc(const void *payload, uint32_t bytes, struct space_letter *l)
{
	json_t *doc = parse(payload, bytes);
	json_int_t id = 0, size = 0, replicas = 1;
	const char *name = "";
	int commit = 0, cancel = 0, r;

	r = json_unpack(doc, "{s:I, s?:s, s?:I, s?:I, s?:b, s?:b}", "id", &id,
	                "name", &name, "size_bytes", &size, "replicas",
	                &replicas, "commit", &commit, "cancel", &cancel);
	if (r == 0 && (id <= 0 || id > UINT32_MAX || strlen(name) > 63))
		r = -1;
	if (r == 0 && !l->drop &&
	    (name[0] == '\0' || size <= 0 || size % PAGE_BYTES != 0 ||
	     replicas < 1))
		r = -1;
	if (r == 0) {
		l->id = (space_id)id;
		l->bytes = (uint64_t)size;
		l->replicas = (uint32_t)replicas;
		l->commit = commit != 0;
		l->cancel = cancel != 0;
		snprintf(l->name, sizeof(l->name), "%s", name);
	}
	json_decref(doc);
	return r == 0 ? 0 : -EPROTO;
}

int link_query_doc(const void *payload, uint32_t bytes, struct query_letter *q)
{
	json_t *doc = parse(payload, bytes);
	json_int_t space = 0, from = 0, n = 0, page = 0;
	const char *op = "";
	int r;

	r = json_unpack(doc, "{s:s, s:I, s?:I, s?:I, s?:I}", "op", &op, "space",
	                &space, "from", &from, "n", &n, "gpn", &page);
	q->one_page = strcmp(op, "page") == 0;
	if (r == 0 && !q->one_page && strcmp(op, "map") != 0)
		r = -1;
	if (r == 0 && (space <= 0 || space > UINT32_MAX || from < 0 || n < 0 ||
	               from > UINT32_MAX || n > 65536 || page < 0))
		r = -1;
	q->space = (space_id)space;
	q->from = (uint32_t)from;
	q->n = (uint32_t)n;
	q->page = (gpn_t)page;
	json_decref(doc);
	return r == 0 ? 0 : -EPROTO;
}
