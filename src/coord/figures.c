/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LEASE documents, read.  Their sender is a node of this cluster, but may be of
 * another release: unknown fields are passed over, wrong ones end its link.
 */

#include "coord/figures.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "coord/text.h"

/* Spaces that one document may name; as many as a cluster has at most. */
#define SPACES_IN_DOC_MAX 4096u

void figures_done(struct figures *f)
{
	free(f->peers);
	free(f->spaces);
	*f = (struct figures){ 0 };
}

/*
 * The number `key` of `from`: 0 if it is not there or null; *ok becomes false
 * if it is there and is not a number from 0 on.
 */
static uint64_t number(const json_t *from, const char *key, bool *ok)
{
	const json_t *v = json_object_get(from, key);

	if (!v || json_is_null(v))
		return 0;
	if (!json_is_integer(v) || json_integer_value(v) < 0) {
		*ok = false;
		return 0;
	}
	return (uint64_t)json_integer_value(v);
}

/*
 * The list is kept as it will be shown: 64 nodes have 4,096 of these, and GET
 * /cluster has 5 ms for all of its work.
 */
static int read_peers(struct figures *f, const json_t *list)
{
	size_t n = json_array_size(list);
	struct text t = { 0 };
	bool ok = n <= NODES_MAX;

	text_add(&t, "[");
	for (size_t i = 0; i < n && ok; i++) {
		const json_t *v = json_array_get(list, i);
		uint64_t id = number(v, "id", &ok);

		ok = ok && json_is_object(v) && id < NODES_MAX;
		text_comma(&t);
		text_add(&t, "{\"id\":%u,\"connected\":%s}", (unsigned)id,
		         json_is_true(json_object_get(v, "connected")) ?
		                 "true" :
		                 "false");
	}
	text_add(&t, "]");
	f->peers = text_take(&t);
	if (!ok)
		return -EPROTO;
	return f->peers ? 0 : -ENOMEM;
}

static int read_spaces(struct figures *f, const json_t *list)
{
	size_t n = json_array_size(list);
	bool ok = true;

	if (n > SPACES_IN_DOC_MAX)
		return -EPROTO;
	if (n == 0)
		return 0;
	f->spaces = calloc(n, sizeof(f->spaces[0]));
	if (!f->spaces)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		const json_t *v = json_array_get(list, i);
		struct space_figure *s = &f->spaces[i];
		uint64_t id = number(v, "id", &ok);

		s->clients = number(v, "clients", &ok);
		s->written_pages = number(v, "written_pages", &ok);
		s->evicted_pages = number(v, "evicted_pages", &ok);
		s->under_replicated_pages =
			number(v, "under_replicated_pages", &ok);
		s->missing_pages = number(v, "missing_pages", &ok);
		s->lost_pages = number(v, "lost_pages", &ok);
		if (!ok || !json_is_object(v) || id == 0 || id > UINT32_MAX)
			return -EPROTO;
		s->id = (space_id)id;
	}
	f->n_spaces = n;
	return 0;
}

static void read_memory(struct figures *f, const json_t *doc, bool *ok)
{
	f->resident_bytes = number(doc, "resident_bytes", ok);
	f->fixed_bytes = number(doc, "fixed_bytes", ok);
	f->lent_bytes = number(doc, "lent_bytes", ok);
	f->borrowed_bytes = number(doc, "borrowed_bytes", ok);
	f->overhead_bytes = number(doc, "overhead_bytes", ok);
	f->has_capacity =
		json_is_integer(json_object_get(doc, "capacity_bytes"));
	f->capacity_bytes = number(doc, "capacity_bytes", ok);
	f->room_pages = number(doc, "room_pages", ok);
	f->waiting = number(doc, "waiting", ok);
	f->refused = number(doc, "refused", ok);
	/* Sums over all nodes must not overflow. */
	if (f->capacity_bytes > MEMORY_BYTES_MAX ||
	    f->room_pages > MEMORY_BYTES_MAX / PAGE_BYTES)
		*ok = false;
}

/* Fill the empty *f; what it has got by then is freed by the caller. */
static int read_doc(struct figures *f, const json_t *doc)
{
	const json_t *faults = json_object_get(doc, "faults");
	const char *url =
		json_string_value(json_object_get(doc, "metrics_url"));
	bool ok = true;
	int r;

	f->pid = number(doc, "pid", &ok);
	read_memory(f, doc, &ok);
	f->faults.first_touch = number(faults, "first_touch", &ok);
	f->faults.remote_read = number(faults, "remote_read", &ok);
	f->faults.remote_write = number(faults, "remote_write", &ok);
	f->faults.upgrade = number(faults, "upgrade", &ok);
	f->faults.refault = number(faults, "refault", &ok);
	f->faults.prefetched = number(faults, "prefetched", &ok);
	f->wakeups = number(doc, "wakeups", &ok);
	f->threads = number(doc, "threads", &ok);
	f->clients = number(doc, "clients", &ok);
	if (url && strlen(url) < sizeof(f->metrics_url))
		memcpy(f->metrics_url, url, strlen(url) + 1);
	if (!ok)
		return -EPROTO;
	r = read_peers(f, json_object_get(doc, "peers"));
	if (r == 0)
		r = read_spaces(f, json_object_get(doc, "spaces"));
	return r;
}

int figures_read(struct figures *f, const void *text, size_t bytes,
                 struct errmsg *em)
{
	struct figures new = { 0 };
	json_error_t error;
	json_t *doc = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
	int r = -EPROTO;

	if (!doc)
		return errmsg_say(em, -EPROTO, "its LEASE is no JSON: %s",
		                  error.text);
	if (json_is_object(doc))
		r = read_doc(&new, doc);
	json_decref(doc);
	if (r < 0) {
		figures_done(&new);
		return errmsg_set(em, r,
		                  "a field of its LEASE is out of range");
	}
	figures_done(f);
	*f = new;
	return 0;
}
