/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Spaces, kept in the store under these keys:
 *
 *	space-next              number: the id of the next space
 *	space/00000003          {"name","size_bytes","replicas","overcommit",
 *	                         "bind"}, bind: null, {"interleave":[node...]}
 *	                         or [[first,n,node]...] in extents
 *	extent/00000003/00000a  64 extents as they are on the wire
 *
 * Ids are hexadecimal there, so that their order is that of the bytes.
 *
 * An extent that was never claimed is not written: its home is what the bind
 * says, with version 1, or nobody, with version 0.  So a space of 16 TiB is
 * made in one small transaction, and grows in the store as it is used, 8 bytes
 * for each 2 MiB.
 */

#include "coord/spaces.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "coord/chunks.h"
#include "coord/draft.h"

#define KEY_SPACE      "space/"
#define KEY_SPACE_NEXT "space-next"

bool space_name_ok(const char *name)
{
	size_t n = strlen(name);

	return n > 0 && n <= SPACE_NAME_MAX &&
	       (islower((unsigned char)name[0]) ||
	        isdigit((unsigned char)name[0])) &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789._-") == n;
}

/* --- documents ----------------------------------------------------------- */

/* [[first,n,node]...] */
static json_t *ranges_json(const struct space *sp)
{
	json_t *list = json_array();

	for (uint32_t i = 0; list && i < sp->n_ranges; i++) {
		const struct bind_range *b = &sp->ranges[i];

		if (json_array_append_new(
			    list, json_pack("[i, i, i]", (int)b->first,
		                            (int)b->n, (int)b->node)) < 0) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

/* {"interleave":[node...]} */
static json_t *interleave_json(const struct space *sp)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < sp->n_ranges; i++)
		(void)json_array_append_new(list,
		                            json_integer(sp->ranges[i].node));
	return json_pack("{s:o}", "interleave", list);
}

static json_t *bind_json(const struct space *sp)
{
	switch (sp->bind) {
	case BIND_NONE:
		return json_null();
	case BIND_INTERLEAVE:
		return interleave_json(sp);
	case BIND_RANGES:
		return ranges_json(sp);
	}
	return NULL;
}

/* The record in the store, with `bind` in whichever form; takes `bind`. */
static json_t *record(const struct space *sp, json_t *bind)
{
	return json_pack("{s:s, s:I, s:i, s:b, s:o}", "name", sp->name,
	                 "size_bytes", (json_int_t)sp->size_bytes, "replicas",
	                 (int)sp->replicas, "overcommit", (int)sp->overcommit,
	                 "bind", bind);
}

json_t *space_document(const struct space *sp)
{
	json_t *doc = record(sp, sp->bind == BIND_INTERLEAVE ?
	                                 json_string("interleave") :
	                                 bind_json(sp));

	if (doc && json_object_set_new(doc, "id", json_integer(sp->id)) < 0) {
		json_decref(doc);
		return NULL;
	}
	return doc;
}

/* Read [first,n,node], or a node alone where extents are interleaved. */
static int range_from(struct bind_range *b, const json_t *v, bool interleave)
{
	json_int_t first = 0, n = 0, node;
	int r;

	if (interleave)
		r = json_unpack(json_incref((json_t *)(uintptr_t)v), "I",
		                &node);
	else
		r = json_unpack(json_incref((json_t *)(uintptr_t)v),
		                "[I, I, I]", &first, &n, &node);
	json_decref((json_t *)(uintptr_t)v);
	if (r < 0 || node < 0 || node >= (json_int_t)NODES_MAX || first < 0 ||
	    n < 0 || first + n > UINT32_MAX)
		return -EBADMSG;
	*b = (struct bind_range){ (uint32_t)first, (uint32_t)n, (node_id)node };
	return 0;
}

/* Read what bind_json() wrote. */
static int bind_from(struct space *sp, const json_t *bind)
{
	const json_t *list = bind;
	size_t n;

	if (json_is_null(bind)) {
		sp->bind = BIND_NONE;
		return 0;
	}
	sp->bind = BIND_RANGES;
	if (json_is_object(bind)) {
		sp->bind = BIND_INTERLEAVE;
		list = json_object_get(bind, "interleave");
	}
	n = json_array_size(list);
	if (n == 0 || n > BIND_RANGES_MAX)
		return -EBADMSG;
	sp->ranges = calloc(n, sizeof(sp->ranges[0]));
	if (!sp->ranges)
		return -ENOMEM;
	sp->n_ranges = (uint32_t)n;
	for (size_t i = 0; i < n; i++)
		if (range_from(&sp->ranges[i], json_array_get(list, i),
		               sp->bind == BIND_INTERLEAVE) < 0)
			return -EBADMSG;
	return 0;
}

/* --- life ---------------------------------------------------------------- */

static struct space *space_free(struct space *sp)
{
	if (!sp)
		return NULL;
	for (uint32_t i = 0; sp->chunk && i < sp->n_chunks; i++)
		free(sp->chunk[i]);
	free(sp->chunk);
	free(sp->ranges);
	free(sp);
	return NULL;
}
DEFINE_AUTO(struct space, space_free)

/* What follows from the size.  No chunk is there until it is needed. */
static int space_settle(struct space *sp)
{
	sp->n_extents =
		(uint32_t)((sp->size_bytes + EXTENT_BYTES - 1) / EXTENT_BYTES);
	sp->n_chunks = (sp->n_extents + CHUNK_EXTENTS - 1) / CHUNK_EXTENTS;
	assert(sp->n_chunks <= SPACE_BYTES_MAX / EXTENT_BYTES / CHUNK_EXTENTS);
	sp->chunk = calloc(sp->n_chunks, sizeof(sp->chunk[0]));
	return sp->chunk ? 0 : -ENOMEM;
}

static void add(struct spaces *s, struct space *sp)
{
	assert(s->n < SPACES_MAX);
	assert(s->n == 0 || s->space[s->n - 1]->id < sp->id);
	s->space[s->n++] = sp;
	chunks_count_bind(s, sp, 1);
}

static int load_space(const struct store_kv *kv, void *arg)
{
	AUTO(space_free) struct space *sp = calloc(1, sizeof(*sp));
	struct spaces *s = arg;
	json_int_t size, replicas;
	const char *name;
	int overcommit, r = -EBADMSG;
	json_t *doc, *bind;

	if (!sp)
		return -ENOMEM;
	doc = kv_json(kv);
	if (s->n < SPACES_MAX && doc &&
	    json_unpack(doc, "{s:s, s:I, s:I, s:b, s:o}", "name", &name,
	                "size_bytes", &size, "replicas", &replicas,
	                "overcommit", &overcommit, "bind", &bind) == 0 &&
	    space_name_ok(name) && size > 0 &&
	    (uint64_t)size <= SPACE_BYTES_MAX) {
		sp->id = (space_id)strtoul(kv->key + strlen(KEY_SPACE), NULL,
		                           16);
		memcpy(sp->name, name, strlen(name) + 1);
		sp->size_bytes = (uint64_t)size;
		sp->replicas = (uint32_t)replicas;
		sp->overcommit = overcommit != 0;
		r = bind_from(sp, bind);
		if (r == 0)
			r = space_settle(sp);
	}
	json_decref(doc);
	if (r == 0)
		add(s, TAKE_PTR(sp));
	return r;
}

static int load_next(const struct store_kv *kv, void *arg)
{
	struct spaces *s = arg;
	uint64_t id;
	int r = kv_number(kv, &id);

	if (r == 0)
		s->next_id = (space_id)id;
	return r;
}

int spaces_load(struct spaces *s, struct store *store, struct members *members,
                struct errmsg *em)
{
	struct errmsg why = { "" };
	int r;

	*s = (struct spaces){ .store = store,
		              .members = members,
		              .next_id = 1 };
	s->batch = batch_new();
	if (!s->batch)
		return errmsg_set(em, -ENOMEM, "cannot load the spaces");
	r = store_range(store, KEY_SPACE_NEXT, load_next, s, &why);
	if (r == 0)
		r = store_range(store, KEY_SPACE, load_space, s, &why);
	if (r == 0)
		r = chunks_load(s, &why);
	if (r == 0)
		return 0;
	spaces_done(s);
	if (why.text[0] != '\0')
		return errmsg_say(em, r, "%s", why.text);
	return errmsg_set(em, r, "cannot read the spaces in the store");
}

void spaces_done(struct spaces *s)
{
	for (uint32_t i = 0; i < s->n; i++)
		s->space[i] = space_free(s->space[i]);
	s->n = 0;
	s->batch = batch_free(s->batch);
}

/* --- looking ------------------------------------------------------------- */

struct space *spaces_find(const struct spaces *s, const char *name)
{
	for (uint32_t i = 0; i < s->n; i++)
		if (strcmp(s->space[i]->name, name) == 0)
			return s->space[i];
	return NULL;
}

struct space *spaces_after(const struct spaces *s, space_id id)
{
	uint32_t low = 0, high = s->n;

	while (low < high) {
		uint32_t middle = (low + high) / 2;

		if (s->space[middle]->id > id)
			high = middle;
		else
			low = middle + 1;
	}
	return low < s->n ? s->space[low] : NULL;
}

struct space *spaces_at(const struct spaces *s, space_id id)
{
	struct space *sp = id > 0 ? spaces_after(s, id - 1) : NULL;

	return sp && sp->id == id ? sp : NULL;
}

/* --- making and dropping ------------------------------------------------- */

enum admit_outcome spaces_admit(const struct spaces *s, uint64_t size_bytes,
                                uint32_t replicas, struct admission *ret)
{
	struct admission a = { .asked_bytes = size_bytes * replicas };

	/* At most 4,096 x 2^44 x 8 bytes: no sum here can overflow. */
	static_assert(SPACES_MAX * SPACE_BYTES_MAX <= UINT64_MAX / REPLICAS_MAX,
	              "the sum of all spaces fits 64 bits");
	for (uint32_t i = 0; i < s->n; i++)
		a.taken_bytes +=
			s->space[i]->size_bytes * s->space[i]->replicas;
	for (uint32_t i = 0; i < s->members->next_id; i++) {
		const struct node *n = s->members->node[i];

		if (!n || n->state != MEMBER_ALIVE)
			continue;
		a.n_nodes++;
		a.total_bytes += node_capacity_pages(n) * PAGE_BYTES;
	}
	*ret = a;
	if (a.asked_bytes + a.taken_bytes > a.total_bytes)
		return ADMIT_NO_ROOM;
	return replicas > 1 && a.n_nodes <= replicas ? ADMIT_TOO_FEW_NODES :
	                                               ADMIT_FITS;
}

static void space_key(space_id id, char key[DRAFT_KEY_BYTES])
{
	snprintf(key, DRAFT_KEY_BYTES, KEY_SPACE "%08x", id);
}

static int ranges_copy(struct space *sp, const struct space_request *rq)
{
	if (rq->n_ranges == 0)
		return 0;
	sp->ranges = calloc(rq->n_ranges, sizeof(sp->ranges[0]));
	if (!sp->ranges)
		return -ENOMEM;
	memcpy(sp->ranges, rq->ranges, rq->n_ranges * sizeof(sp->ranges[0]));
	sp->n_ranges = rq->n_ranges;
	return 0;
}

int spaces_create(struct spaces *s, const struct space_request *rq,
                  struct space **ret, struct errmsg *em)
{
	AUTO(space_free) struct space *sp = calloc(1, sizeof(*sp));
	AUTO_DRAFT struct draft d = { 0 };
	char key[DRAFT_KEY_BYTES];
	int r;

	assert(space_name_ok(rq->name) && rq->size_bytes <= SPACE_BYTES_MAX);
	assert((rq->bind == BIND_NONE) == (rq->n_ranges == 0));
	assert(rq->size_bytes > 0 && rq->size_bytes % PAGE_BYTES == 0);
	if (s->n == SPACES_MAX || s->next_id == UINT32_MAX)
		return errmsg_say(em, -ENOBUFS, "there are %u spaces already",
		                  SPACES_MAX);
	if (!sp)
		return errmsg_set(em, -ENOMEM, "cannot make a space");
	sp->id = s->next_id;
	memcpy(sp->name, rq->name, strlen(rq->name) + 1);
	sp->size_bytes = rq->size_bytes;
	sp->replicas = rq->replicas;
	sp->overcommit = rq->overcommit;
	sp->bind = rq->bind;
	if (ranges_copy(sp, rq) < 0 || space_settle(sp) < 0)
		return errmsg_set(em, -ENOMEM, "cannot make a space");

	space_key(sp->id, key);
	draft_expect_absent(&d, key);
	draft_put_json(&d, key, record(sp, bind_json(sp)));
	draft_put_number(&d, KEY_SPACE_NEXT, s->next_id + 1u);
	r = draft_commit(&d, s->store, em);
	if (r < 0)
		return r;
	assert(r == STORE_DONE); /* ids are not given twice */
	s->next_id++;
	*ret = sp;
	add(s, TAKE_PTR(sp));
	return 0;
}

int spaces_drop(struct spaces *s, struct space *sp, struct errmsg *em)
{
	AUTO_DRAFT struct draft d = { 0 };
	char key[DRAFT_KEY_BYTES], prefix[DRAFT_KEY_BYTES];
	uint32_t at = 0;
	int r;

	assert(!spaces_dirty(s)); /* it may remember chunks of this one */
	assert(spaces_at(s, sp->id) == sp);
	space_key(sp->id, key);
	chunks_prefix(sp->id, prefix);
	draft_delete(&d, key);
	draft_delete_prefix(&d, prefix);
	r = draft_commit(&d, s->store, em);
	if (r < 0)
		return r;

	while (s->space[at] != sp)
		at++;
	assert(at < s->n);
	s->n--;
	memmove(&s->space[at], &s->space[at + 1],
	        (s->n - at) * sizeof(s->space[0]));
	chunks_clear(s, sp);
	chunks_count_bind(s, sp, -1);
	(void)space_free(sp);
	return 0;
}
