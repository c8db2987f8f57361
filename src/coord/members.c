/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Membership, kept in the store under these keys:
 *
 *	cluster       {"id","name","lease_ms"}
 *	epoch         number
 *	incarnation   number: the last that was given
 *	node-next     number: the lowest id that was never given
 *	node/00007    {"name","endpoint","memory_bytes","incarnation","state"}
 *
 * where "state" is what must outlive us: joining, alive (a member), dead or
 * drained.  Leases are not kept: a coordinator that starts assumes that the one
 * before prolonged every member's a moment ago.  FENCED is a matter of time
 * alone, so it is not kept either.
 *
 * Each change goes to the store first and into memory after: what a caller, or
 * a node, can see has happened for good.
 */

#include "coord/members.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "coord/draft.h"
#include "coord/text.h"

#define KEY_CLUSTER     "cluster"
#define KEY_EPOCH       "epoch"
#define KEY_INCARNATION "incarnation"
#define KEY_NODE_NEXT   "node-next"
#define KEY_NODE        "node/"

static const char *const state_name[] = {
	[MEMBER_JOINING] = "joining", [MEMBER_ALIVE] = "alive",
	[MEMBER_FENCED] = "fenced",   [MEMBER_DEAD] = "dead",
	[MEMBER_DRAINED] = "drained",
};

const char *member_state_name(enum member_state state)
{
	return state_name[state];
}

nsec_t members_lease_ns(const struct members *m)
{
	return m->lease_ms * NSEC_PER_MSEC;
}

nsec_t members_margin_ns(const struct members *m)
{
	return members_lease_ns(m) / 4;
}

bool node_lives(const struct node *n)
{
	return n->state == MEMBER_ALIVE || n->state == MEMBER_FENCED;
}

uint64_t node_capacity_pages(const struct node *n)
{
	uint64_t pages = n->limit_bytes / PAGE_BYTES;
	/* The exchange reserve, without which full nodes could not swap. */
	uint64_t reserve = max_u64(pages / 64, 256);

	if (n->figures.has_capacity)
		return n->figures.capacity_bytes / PAGE_BYTES;
	return pages > reserve ? pages - reserve : 0;
}

uint64_t node_room_pages(const struct node *n)
{
	uint64_t used = n->figures.resident_bytes;

	if (n->figures.has_capacity)
		return n->figures.room_pages;
	return n->limit_bytes > used ? (n->limit_bytes - used) / PAGE_BYTES : 0;
}

char *members_room(const struct members *m)
{
	struct text t = { 0 };

	text_add(&t, "{\"room\":[");
	for (unsigned i = 0; i < m->next_id; i++) {
		const struct node *n = m->node[i];

		if (!n || n->state != MEMBER_ALIVE)
			continue;
		if (n->renewed_at == 0)
			t.failed = true; /* text_take() gives NULL */
		if (!n->figures.has_capacity || n->figures.room_pages == 0)
			continue;
		text_comma(&t);
		text_add(&t, "[%u,%llu]", n->id,
		         (unsigned long long)n->figures.room_pages);
	}
	text_add(&t, "]}");
	return text_take(&t);
}

static struct node *node_free(struct node *n)
{
	if (n)
		figures_done(&n->figures);
	free(n);
	return NULL;
}
DEFINE_AUTO(struct node, node_free)

/* --- names --------------------------------------------------------------- */

bool node_name_ok(const char *name)
{
	bool letter = false;

	if (!isalnum((unsigned char)name[0]) || strlen(name) > NODE_NAME_MAX)
		return false;
	for (const char *p = name; *p != '\0'; p++) {
		if (!isalnum((unsigned char)*p) && !strchr("._-", *p))
			return false;
		letter = letter || !isdigit((unsigned char)*p);
	}
	/* Commands take a name or a number, so no name may look like one. */
	return letter;
}

bool endpoint_ok(const char *endpoint)
{
	const char *colon = strrchr(endpoint, ':');
	size_t host = colon ? (size_t)(colon - endpoint) : 0;
	char *end;
	unsigned long port;

	if (host == 0 || strlen(endpoint) > 63 ||
	    !isdigit((unsigned char)colon[1]))
		return false;
	port = strtoul(colon + 1, &end, 10);
	if (*end != '\0' || port == 0 || port > 65535)
		return false;
	/* An address of version 6 stands in brackets. */
	if (endpoint[0] == '[')
		return host > 2 && endpoint[host - 1] == ']' &&
		       strspn(endpoint + 1, "0123456789abcdefABCDEF:.%") ==
		               host - 2;
	for (size_t i = 0; i < host; i++)
		if (!isalnum((unsigned char)endpoint[i]) &&
		    !strchr("._-", endpoint[i]))
			return false;
	return true;
}

/* --- records ------------------------------------------------------------- */

static void node_key(node_id id, char key[DRAFT_KEY_BYTES])
{
	snprintf(key, DRAFT_KEY_BYTES, KEY_NODE "%05u", id);
}

/* Put `n` into the draft, as if it were in `state`. */
static void put_node(struct draft *d, const struct node *n,
                     enum member_state state)
{
	char key[DRAFT_KEY_BYTES];

	node_key(n->id, key);
	draft_put_json(d, key,
	               json_pack("{s:s, s:s, s:I, s:I, s:s}", "name", n->name,
	                         "endpoint", n->endpoint, "memory_bytes",
	                         (json_int_t)n->limit_bytes, "incarnation",
	                         (json_int_t)n->incarnation, "state",
	                         state_name[state]));
}

static json_t *cluster_json(const uint8_t id[16], const char *name,
                            uint64_t lease_ms)
{
	char hex[33];

	for (unsigned i = 0; i < 16; i++)
		snprintf(hex + 2 * i, 3, "%02x", id[i]);
	return json_pack("{s:s, s:s, s:I}", "id", hex, "name", name, "lease_ms",
	                 (json_int_t)lease_ms);
}

/* --- loading ------------------------------------------------------------- */

static int load_cluster(struct members *m, const struct store_kv *kv)
{
	json_t *doc = kv_json(kv);
	const char *id, *name;
	json_int_t lease_ms;
	int r = -EBADMSG;

	if (doc &&
	    json_unpack(doc, "{s:s, s:s, s:I}", "id", &id, "name", &name,
	                "lease_ms", &lease_ms) == 0 &&
	    strlen(id) == 32 && strlen(name) <= NODE_NAME_MAX && lease_ms > 0) {
		r = 0;
		for (unsigned i = 0; i < 16; i++)
			if (sscanf(id + 2 * i, "%2hhx", &m->cluster_id[i]) != 1)
				r = -EBADMSG;
		memcpy(m->cluster_name, name, strlen(name) + 1);
		m->lease_ms = (uint64_t)lease_ms;
		m->has_cluster = true;
	}
	json_decref(doc);
	return r;
}

/* The state of that name, as it stands in the store. */
static int state_from(const char *name, enum member_state *ret)
{
	for (unsigned i = 0; i < ARRAY_SIZE(state_name); i++) {
		if (strcmp(name, state_name[i]) == 0) {
			*ret = (enum member_state)i;
			return 0;
		}
	}
	return -EBADMSG;
}

static int load_node(struct members *m, const struct store_kv *kv)
{
	AUTO(node_free) struct node *n = calloc(1, sizeof(*n));
	unsigned long id = strtoul(kv->key + strlen(KEY_NODE), NULL, 10);
	json_int_t memory, incarnation;
	const char *name, *endpoint, *state;
	json_t *doc;
	int r = -EBADMSG;

	if (!n)
		return -ENOMEM;
	doc = kv_json(kv);
	if (doc && id < HOME_LOST &&
	    json_unpack(doc, "{s:s, s:s, s:I, s:I, s:s}", "name", &name,
	                "endpoint", &endpoint, "memory_bytes", &memory,
	                "incarnation", &incarnation, "state", &state) == 0 &&
	    strlen(name) <= NODE_NAME_MAX &&
	    strlen(endpoint) < sizeof(n->endpoint)) {
		n->id = (node_id)id;
		memcpy(n->name, name, strlen(name) + 1);
		memcpy(n->endpoint, endpoint, strlen(endpoint) + 1);
		n->limit_bytes = (uint64_t)memory;
		n->incarnation = (uint64_t)incarnation;
		r = state_from(state, &n->state);
	}
	json_decref(doc);
	if (r == 0) {
		assert(!m->node[id]); /* keys are there once */
		m->node[id] = TAKE_PTR(n);
	}
	return r;
}

static int load_one(const struct store_kv *kv, void *arg)
{
	struct members *m = arg;
	uint64_t number;
	int r;

	if (strcmp(kv->key, KEY_CLUSTER) == 0)
		return load_cluster(m, kv);
	if (strncmp(kv->key, KEY_NODE, strlen(KEY_NODE)) == 0)
		return load_node(m, kv);
	r = kv_number(kv, &number);
	if (r < 0)
		return r;
	if (strcmp(kv->key, KEY_EPOCH) == 0)
		m->epoch = (uint32_t)number;
	else if (strcmp(kv->key, KEY_INCARNATION) == 0)
		m->incarnation = number;
	else if (strcmp(kv->key, KEY_NODE_NEXT) == 0)
		m->next_id = (uint32_t)number;
	return 0;
}

int members_load(struct members *m, struct store *store, nsec_t now,
                 struct errmsg *em)
{
	static const char *const prefix[] = { KEY_CLUSTER, KEY_EPOCH,
		                              KEY_INCARNATION, KEY_NODE_NEXT,
		                              KEY_NODE };
	struct errmsg why = { "" };

	*m = (struct members){ .store = store };
	for (unsigned i = 0; i < ARRAY_SIZE(prefix); i++) {
		int r = store_range(store, prefix[i], load_one, m, &why);

		if (r < 0) {
			members_done(m);
			if (why.text[0] != '\0')
				return errmsg_say(em, r, "%s", why.text);
			return errmsg_set(em, r,
			                  "cannot read '%s' in the store",
			                  prefix[i]);
		}
	}
	members_excuse(m, now);
	return 0;
}

void members_done(struct members *m)
{
	for (unsigned i = 0; i < NODES_MAX; i++)
		m->node[i] = node_free(m->node[i]);
}

/* --- cluster ------------------------------------------------------------- */

int members_make_cluster(struct members *m, const char *name, uint64_t lease_ms,
                         struct errmsg *em)
{
	AUTO_DRAFT struct draft d = { 0 };
	uint8_t id[16];
	int r;

	assert(!m->has_cluster);
	assert(lease_ms > 0);
	assert(strlen(name) <= NODE_NAME_MAX);
	if (getrandom(id, sizeof(id), 0) != (ssize_t)sizeof(id))
		return errmsg_set(em, -EIO, "cannot draw a cluster id");
	id[6] = (id[6] & 0x0f) | 0x40; /* RFC 4122: random, */
	id[8] = (id[8] & 0x3f) | 0x80; /* of the usual variant */

	draft_expect_absent(&d, KEY_CLUSTER);
	draft_put_json(&d, KEY_CLUSTER, cluster_json(id, name, lease_ms));
	draft_put_number(&d, KEY_EPOCH, 1);
	draft_put_number(&d, KEY_NODE_NEXT, 0);
	r = draft_commit(&d, m->store, em);
	if (r < 0)
		return r;
	/* No other process can have made one: the store is locked. */
	assert(r == STORE_DONE);
	m->has_cluster = true;
	memcpy(m->cluster_name, name, strlen(name) + 1);
	memcpy(m->cluster_id, id, sizeof(id));
	m->lease_ms = lease_ms;
	m->epoch = 1;
	m->next_id = 0;
	return 0;
}

int members_drop_cluster(struct members *m, struct errmsg *em)
{
	AUTO_DRAFT struct draft d = { 0 };
	int r;

	/*
	 * The counter of incarnations stays, so that a process of the old
	 * cluster can never pass for a node of the next.
	 */
	draft_delete(&d, KEY_CLUSTER);
	draft_delete(&d, KEY_EPOCH);
	draft_delete(&d, KEY_NODE_NEXT);
	draft_delete_prefix(&d, KEY_NODE);
	r = draft_commit(&d, m->store, em);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < NODES_MAX; i++) {
		assert(!m->node[i] || !node_lives(m->node[i]));
		m->node[i] = node_free(m->node[i]);
	}
	m->has_cluster = false;
	m->epoch = 0;
	m->next_id = 0;
	return 0;
}

int members_set_lease(struct members *m, uint64_t lease_ms, nsec_t now,
                      struct errmsg *em)
{
	AUTO_DRAFT struct draft d = { 0 };
	uint64_t old_ms = m->lease_ms;
	int r;

	draft_put_json(&d, KEY_CLUSTER,
	               cluster_json(m->cluster_id, m->cluster_name, lease_ms));
	r = draft_commit(&d, m->store, em);
	if (r < 0)
		return r;
	m->lease_ms = max_u64(old_ms, lease_ms);
	members_excuse(m, now);
	m->lease_ms = lease_ms;
	return 0;
}

/* --- looking ------------------------------------------------------------- */

struct node *members_at(const struct members *m, uint32_t id)
{
	return id < NODES_MAX ? m->node[id] : NULL;
}

/* At most 1,023 names, and asked at registrations: a walk will do. */
static struct node *by_name(const struct members *m, const char *name)
{
	for (unsigned i = 0; i < m->next_id; i++)
		if (m->node[i] && strcmp(m->node[i]->name, name) == 0)
			return m->node[i];
	return NULL;
}

struct node *members_find(const struct members *m, const char *text)
{
	size_t digits = strspn(text, "0123456789");

	if (digits > 0 && text[digits] == '\0')
		return digits <= 5 ? members_at(m, (uint32_t)strtoul(text, NULL,
		                                                     10)) :
		                     NULL;
	return by_name(m, text);
}

uint32_t members_encode(const struct members *m, struct wire_member *out)
{
	uint32_t n = 0;

	for (unsigned i = 0; i < m->next_id; i++) {
		const struct node *from = m->node[i];
		struct member rec;

		if (!from)
			continue;
		rec = (struct member){
			.id = from->id,
			.state = from->state,
			.shards = from->shards,
			.incarnation = from->incarnation,
			.limit_bytes = from->limit_bytes,
			.free_bytes = node_room_pages(from) * PAGE_BYTES,
		};
		memcpy(rec.endpoint, from->endpoint, sizeof(rec.endpoint));
		member_encode(&rec, &out[n++]);
	}
	return n;
}

/* --- joining and leaving ------------------------------------------------- */

int members_register(struct members *m, const struct registration *reg,
                     nsec_t now, struct node **ret, struct errmsg *em)
{
	AUTO_DRAFT struct draft d = { 0 };
	AUTO(node_free) struct node *new = NULL;
	struct node *old = by_name(m, reg->name);
	node_id id = old ? old->id : (node_id)m->next_id;
	int r;

	assert(node_name_ok(reg->name) && endpoint_ok(reg->endpoint));
	/*
	 * Who is registered but has neither a lease nor a link may have missed
	 * our answer and ask again.  With a link somebody is there.
	 */
	if (old && (node_lives(old) || old->link)) {
		*ret = old;
		return REGISTER_LIVES;
	}
	if (id >= HOME_LOST)
		return REGISTER_FULL;

	new = calloc(1, sizeof(*new));
	if (!new)
		return errmsg_set(em, -ENOMEM, "cannot register a node");
	new->id = id;
	memcpy(new->name, reg->name, strlen(reg->name) + 1);
	memcpy(new->endpoint, reg->endpoint, strlen(reg->endpoint) + 1);
	new->limit_bytes = reg->memory_bytes;
	new->incarnation = m->incarnation + 1;
	new->state = MEMBER_JOINING;
	new->dies_at = now + members_lease_ns(m) + members_margin_ns(m);
	if (old) {
		new->homed_pages = old->homed_pages;
		new->opened_extents = old->opened_extents;
	}

	put_node(&d, new, MEMBER_JOINING);
	draft_put_number(&d, KEY_INCARNATION, new->incarnation);
	if (!old)
		draft_put_number(&d, KEY_NODE_NEXT, m->next_id + 1u);
	r = draft_commit(&d, m->store, em);
	if (r < 0)
		return r;
	assert(r == STORE_DONE);
	m->incarnation = new->incarnation;
	if (!old)
		m->next_id++;
	(void)node_free(old);
	m->node[id] = *ret = TAKE_PTR(new);
	return REGISTER_DONE;
}

/* Write `n` as it will be in `state`, with the epoch grown by `by`. */
static int commit_state(struct members *m, struct node *n,
                        enum member_state state, uint32_t by, struct errmsg *em)
{
	AUTO_DRAFT struct draft d = { 0 };
	int r;

	assert(m->node[n->id] == n);
	assert(m->epoch + by >= m->epoch);
	put_node(&d, n, state);
	if (by > 0)
		draft_put_number(&d, KEY_EPOCH, m->epoch + by);
	r = draft_commit(&d, m->store, em);
	if (r < 0)
		return r;
	m->epoch += by;
	n->state = state;
	return 0;
}

int members_renew(struct members *m, struct node *n, nsec_t now,
                  struct errmsg *em)
{
	int outcome = RENEW_DONE, r;

	switch (n->state) {
	case MEMBER_DEAD:
	case MEMBER_DRAINED:
		return RENEW_DEAD;
	case MEMBER_JOINING:
		r = commit_state(m, n, MEMBER_ALIVE, 1, em);
		if (r < 0)
			return r;
		outcome = RENEW_JOINED;
		break;
	case MEMBER_FENCED:
		n->state = MEMBER_ALIVE;
		outcome = RENEW_UNFENCED;
		break;
	case MEMBER_ALIVE:
		break;
	}
	assert(n->state == MEMBER_ALIVE);
	n->renewed_at = now;
	n->lease_ends = now + members_lease_ns(m);
	n->dies_at = n->lease_ends + members_margin_ns(m);
	return outcome;
}

void members_heard(struct node *n, struct figures *f, nsec_t now)
{
	/* Of what we hear first nobody knows when it was. */
	if (n->renewed_at != 0 && f->refused > n->figures.refused)
		n->refused_at = now;
	figures_done(&n->figures);
	n->figures = *f;
	*f = (struct figures){ 0 };
}

int members_leave(struct members *m, struct node *n, struct errmsg *em)
{
	/*
	 * Only who held nothing left in order: pages that are gone with their
	 * node are not made good by its manners.
	 */
	bool empty = n->opened_extents == 0 &&
	             n->figures.resident_bytes <= n->figures.fixed_bytes;

	if (n->state == MEMBER_DEAD || n->state == MEMBER_DRAINED)
		return 0;
	return commit_state(m, n, empty ? MEMBER_DRAINED : MEMBER_DEAD,
	                    node_lives(n) ? 1 : 0, em);
}

int members_set_endpoint(struct members *m, struct node *n,
                         const char *endpoint, struct errmsg *em)
{
	AUTO_DRAFT struct draft d = { 0 };
	struct node as = *n;
	int r;

	assert(endpoint_ok(endpoint));
	memcpy(as.endpoint, endpoint, strlen(endpoint) + 1);
	put_node(&d, &as, n->state == MEMBER_FENCED ? MEMBER_ALIVE : n->state);
	r = draft_commit(&d, m->store, em);
	if (r == 0)
		memcpy(n->endpoint, as.endpoint, sizeof(n->endpoint));
	return r;
}

int members_delete(struct members *m, struct node *n, struct errmsg *em)
{
	AUTO_DRAFT struct draft d = { 0 };
	char key[DRAFT_KEY_BYTES];
	int r;

	assert(!node_lives(n));
	assert(!n->link);
	node_key(n->id, key);
	draft_delete(&d, key);
	r = draft_commit(&d, m->store, em);
	if (r < 0)
		return r;
	m->node[n->id] = NULL;
	(void)node_free(n);
	return 0;
}

/* --- time ---------------------------------------------------------------- */

/* Has it a death before it? */
static bool mortal(const struct node *n)
{
	return n->state == MEMBER_JOINING || node_lives(n);
}

struct node *members_due(struct members *m, nsec_t now, bool *changed)
{
	struct node *due = NULL;

	*changed = false;
	for (unsigned i = 0; i < m->next_id; i++) {
		struct node *n = m->node[i];

		if (!n || !mortal(n))
			continue;
		if (n->state == MEMBER_ALIVE && now >= n->lease_ends) {
			n->state = MEMBER_FENCED;
			*changed = true;
		}
		if (now >= n->dies_at && !due)
			due = n;
	}
	return due;
}

int members_bury(struct members *m, struct node *n, struct errmsg *em)
{
	assert(mortal(n));
	return commit_state(m, n, MEMBER_DEAD, node_lives(n) ? 1 : 0, em);
}

nsec_t members_deadline(const struct members *m)
{
	nsec_t first = UINT64_MAX;

	for (unsigned i = 0; i < m->next_id; i++) {
		const struct node *n = m->node[i];

		if (!n || !mortal(n))
			continue;
		first = min_u64(first, n->state == MEMBER_ALIVE ?
		                               n->lease_ends :
		                               n->dies_at);
	}
	return first;
}

void members_excuse(struct members *m, nsec_t now)
{
	for (unsigned i = 0; i < m->next_id; i++) {
		struct node *n = m->node[i];
		nsec_t ends = now + members_lease_ns(m);

		if (!n || !mortal(n))
			continue;
		n->lease_ends = max_u64(n->lease_ends, ends);
		n->dies_at = max_u64(n->dies_at, ends + members_margin_ns(m));
	}
}
