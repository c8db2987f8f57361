/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making and dropping spaces, in which the nodes take part.
 *
 * Making: the space is in the store; the nodes alive are told; when all have
 * said that they have it, or time is over, 201.  So whoever got the answer can
 * attach at any node that is well.
 *
 * Dropping: all nodes that live are asked for clients, and take no new ones
 * from then on.  Any client, or a node that does not answer: all are told to go
 * on, and 409 or 503.  Else the space goes from the store, the nodes are told
 * to forget it, and 204.
 */

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/size.h"
#include "coord/api.h"
#include "coord/body.h"
#include "coord/render.h"

void api_spaces_list(struct coord *c, struct request *rq, const char *name)
{
	struct text t = { 0 };

	(void)name;
	render_spaces(&t, c);
	request_answer_text(rq, 200, text_take(&t));
}

void api_space_show(struct coord *c, struct request *rq, const char *name)
{
	struct space *sp = api_space(c, rq, name);
	struct text t = { 0 };

	if (!sp)
		return;
	render_space(&t, c, sp);
	request_answer_text(rq, 200, text_take(&t));
}

/* --- bind ---------------------------------------------------------------- */

/* What a body says of a bind, and why it cannot be. */
struct wish {
	struct coord *c;
	struct body *b;
	struct space_request rq;
	struct bind_range *ranges;    /* owned */
	const struct node *not_alive; /* somebody it names */
};

/* The node that `v` names, by number or name; NULL: `wrong` was said. */
static const struct node *bind_node(struct wish *w, const json_t *v)
{
	const struct node *n = NULL;

	if (json_is_string(v))
		n = members_find(&w->c->members, json_string_value(v));
	else if (json_is_integer(v) && json_integer_value(v) >= 0 &&
	         json_integer_value(v) < (json_int_t)NODES_MAX)
		n = members_at(&w->c->members, (uint32_t)json_integer_value(v));
	if (!n)
		body_wrong(w->b, "bind", "names a node that is not there");
	else if (n->state != MEMBER_ALIVE && !w->not_alive)
		w->not_alive = n;
	return n;
}

static bool whole_extents(uint64_t bytes, uint64_t size_bytes)
{
	return bytes % EXTENT_BYTES == 0 || bytes == size_bytes;
}

/* Read [first, end) in bytes and the node: false if it is no such object. */
static bool range_object(struct wish *w, json_t *v, uint64_t *from,
                         uint64_t *to, const json_t **node)
{
	json_int_t first, last;
	json_error_t error;

	if (json_unpack_ex(v, &error, JSON_STRICT, "{s:I, s:I, s:o}",
	                   "first_bytes", &first, "last_bytes", &last, "node",
	                   node) < 0) {
		body_wrong(w->b, "bind",
		           "is a list of {\"first_bytes\", "
		           "\"last_bytes\", \"node\"}: %s",
		           error.text);
		return false;
	}
	*from = (uint64_t)first;
	*to = (uint64_t)last;
	return first >= 0 && last >= 0;
}

/* The same of [first_extent, n_extents, node], which is shorter. */
static bool range_triple(struct wish *w, json_t *v, uint64_t *from,
                         uint64_t *to, const json_t **node)
{
	json_int_t first, n;

	if (json_unpack_ex(v, NULL, JSON_STRICT, "[I, I, o]", &first, &n,
	                   node) < 0 ||
	    first < 0 || n < 0 || first > UINT32_MAX || n > UINT32_MAX) {
		body_wrong(w->b, "bind",
		           "is a list of [FIRST_EXTENT, "
		           "N_EXTENTS, NODE]");
		return false;
	}
	*from = (uint64_t)first * EXTENT_BYTES;
	*to = min_u64(w->rq.size_bytes, (uint64_t)(first + n) * EXTENT_BYTES);
	return (uint64_t)(first + n) * EXTENT_BYTES <
	       w->rq.size_bytes + EXTENT_BYTES;
}

/* One range of a bind; where it ends is not in it. */
static bool bind_one(struct wish *w, const json_t *v, struct bind_range *ret)
{
	json_t *mutable = (json_t *)(uintptr_t)v; /* unpacking only reads */
	uint64_t size = w->rq.size_bytes, from = 0, to = 0;
	const struct node *n;
	const json_t *node;
	bool good = json_is_array(v) ?
	                    range_triple(w, mutable, &from, &to, &node) :
	                    range_object(w, mutable, &from, &to, &node);

	if (w->b->wrong[0] != '\0')
		return false;
	if (!good || from >= to || to > size || !whole_extents(from, size) ||
	    !whole_extents(to, size)) {
		body_wrong(w->b, "bind",
		           "has a range that is empty, not in the space, or "
		           "not of whole extents of 2 MiB");
		return false;
	}
	n = bind_node(w, node);
	if (!n)
		return false;
	ret->first = (uint32_t)(from / EXTENT_BYTES);
	ret->n =
		(uint32_t)((to + EXTENT_BYTES - 1) / EXTENT_BYTES) - ret->first;
	ret->node = n->id;
	return true;
}

static int by_first(const void *a, const void *b)
{
	const struct bind_range *x = a, *y = b;

	return x->first < y->first ? -1 : x->first > y->first;
}

static void bind_list(struct wish *w, const json_t *list)
{
	size_t n = json_array_size(list);

	if (n == 0 || n > BIND_RANGES_MAX) {
		body_wrong(w->b, "bind", "must have 1 to %u ranges",
		           BIND_RANGES_MAX);
		return;
	}
	w->ranges = calloc(n, sizeof(w->ranges[0]));
	if (!w->ranges)
		return;
	for (size_t i = 0; i < n; i++)
		if (!bind_one(w, json_array_get(list, i), &w->ranges[i]))
			return;
	qsort(w->ranges, n, sizeof(w->ranges[0]), by_first);
	for (size_t i = 1; i < n; i++) {
		const struct bind_range *before = &w->ranges[i - 1];

		if (before->first + before->n > w->ranges[i].first) {
			body_wrong(w->b, "bind", "has ranges that overlap");
			return;
		}
	}
	w->rq.bind = BIND_RANGES;
	w->rq.n_ranges = (uint32_t)n;
}

/* All nodes that are alive now, in turn. */
static void bind_interleave(struct wish *w)
{
	const struct members *m = &w->c->members;

	w->ranges = calloc(m->next_id + 1u, sizeof(w->ranges[0]));
	w->rq.bind = BIND_INTERLEAVE;
	for (uint32_t i = 0; w->ranges && i < m->next_id; i++)
		if (m->node[i] && m->node[i]->state == MEMBER_ALIVE)
			w->ranges[w->rq.n_ranges++].node = m->node[i]->id;
}

static void bind_whole(struct wish *w, const json_t *v)
{
	const struct node *n = bind_node(w, v);

	w->ranges = calloc(1, sizeof(w->ranges[0]));
	if (!n || !w->ranges)
		return;
	w->rq.bind = BIND_RANGES;
	w->rq.n_ranges = 1;
	w->ranges[0].n = (uint32_t)((w->rq.size_bytes + EXTENT_BYTES - 1) /
	                            EXTENT_BYTES);
	w->ranges[0].node = n->id;
}

static void read_bind(struct wish *w, const json_t *bind)
{
	if (!bind || json_is_null(bind) || w->b->wrong[0] != '\0')
		return;
	if (json_is_array(bind))
		bind_list(w, bind);
	else if (json_is_string(bind) &&
	         strcmp(json_string_value(bind), "interleave") == 0)
		bind_interleave(w);
	else if (json_is_string(bind) || json_is_integer(bind))
		bind_whole(w, bind);
	else
		body_wrong(w->b, "bind",
		           "must be null, \"interleave\", a node, or a list of "
		           "ranges");
	w->rq.ranges = w->ranges;
}

/* --- making -------------------------------------------------------------- */

struct making {
	struct round round;
	struct request *rq;
	struct space *space;
};

static void made_answer(struct round *r, const struct node *n,
                        const json_t *doc)
{
	/* Whoever did not take it says so in the log of rounds. */
	(void)r;
	(void)n;
	(void)doc;
}

static void answer_made(struct coord *c, struct request *rq, struct space *sp)
{
	char location[96] = "/v1/spaces/";
	struct text t = { 0 };

	render_space(&t, c, sp);
	strcat(location, sp->name);
	request_created(rq, location, text_take(&t));
}

static void made_done(struct round *r)
{
	struct making *mk = container_of(r, struct making, round);

	mk->space->state = SPACE_READY;
	answer_made(r->coord, mk->rq, mk->space);
	free(mk);
}

static void tell_nodes(struct coord *c, struct request *rq, struct space *sp)
{
	struct making *mk = calloc(1, sizeof(*mk));
	json_t *doc = space_document(sp);

	if (!mk || !doc) {
		/* It is made; port_spaces() tells it to the nodes. */
		free(mk);
		json_decref(doc);
		answer_made(c, rq, sp);
		return;
	}
	*mk = (struct making){ .rq = rq, .space = sp };
	mk->round.answer = made_answer;
	mk->round.done = made_done;
	sp->state = SPACE_MAKING;
	round_start(&mk->round, c);
	for (uint32_t i = 0; i < c->members.next_id; i++) {
		struct node *n = c->members.node[i];

		/* A link that lags behind hears of it in its turn. */
		if (!n || n->state != MEMBER_ALIVE || !n->link ||
		    spaces_after(&c->spaces, n->link->told) != sp)
			continue;
		n->link->told = sp->id;
		round_ask(&mk->round, n, MSG_SPACE_ADD, sp->id, doc);
	}
	json_decref(doc);
	round_run(&mk->round, NODES_ANSWER_NS);
}

static void refuse_replicas(struct request *rq, const struct space_request *w,
                            const struct admission *a)
{
	request_problem(rq, 507,
	                "'%s' asks for %u copies of each evicted page on other "
	                "nodes than the one that evicts it: that takes %u "
	                "nodes, and %u are alive; start more nodes, ask for "
	                "fewer replicas, or insist with overcommit",
	                w->name, w->replicas, w->replicas + 1, a->n_nodes);
}

static void refuse_size(struct request *rq, const struct space_request *w,
                        const struct admission *a)
{
	uint64_t left = a->total_bytes > a->taken_bytes ?
	                        a->total_bytes - a->taken_bytes :
	                        0;
	char asked[SIZE_TEXT_BYTES], total[SIZE_TEXT_BYTES],
		taken[SIZE_TEXT_BYTES], free_text[SIZE_TEXT_BYTES];

	request_problem_with(
		rq, 507,
		json_pack("{s:I, s:I, s:I}", "asked_bytes",
	                  (json_int_t)a->asked_bytes, "taken_bytes",
	                  (json_int_t)a->taken_bytes, "total_bytes",
	                  (json_int_t)a->total_bytes),
		"'%s' needs %s (size x replicas); the %u nodes alive have %s "
		"for spaces, of which %s are taken and %s are left; add a "
		"node, delete a space, or insist with overcommit",
		w->name, size_text(a->asked_bytes, asked), a->n_nodes,
		size_text(a->total_bytes, total),
		size_text(a->taken_bytes, taken), size_text(left, free_text));
}

/* Is there memory for it, or does who wishes it insist? */
static bool fits(struct wish *w)
{
	struct request *rq = w->b->rq;
	struct admission a;
	enum admit_outcome out = spaces_admit(&w->c->spaces, w->rq.size_bytes,
	                                      w->rq.replicas, &a);

	if (out == ADMIT_FITS || w->rq.overcommit)
		return true;
	if (out == ADMIT_NO_ROOM)
		refuse_size(rq, &w->rq, &a);
	else
		refuse_replicas(rq, &w->rq, &a);
	return false;
}

/* The body is fine; is the wish?  True: the space may be made. */
static bool admit(struct wish *w)
{
	struct request *rq = w->b->rq;

	if (spaces_find(&w->c->spaces, w->rq.name)) {
		request_problem(rq, 409,
		                "a space called '%s' exists; choose another "
		                "name, or delete it first",
		                w->rq.name);
		return false;
	}
	if (w->not_alive) {
		request_problem(rq, 409,
		                "node %u (%s) is %s; bind to nodes that are "
		                "alive",
		                w->not_alive->id, w->not_alive->name,
		                member_state_name(w->not_alive->state));
		return false;
	}
	if (!fits(w))
		return false;
	if (w->rq.bind != BIND_NONE && w->rq.n_ranges == 0) {
		request_problem(rq, 503,
		                "no node is alive to interleave over; start "
		                "one");
		return false;
	}
	return true;
}

static void create(struct wish *w)
{
	struct errmsg em = { "" };
	struct coord *c = w->c;
	struct space *sp;
	int r;

	if (!admit(w))
		return;
	r = spaces_create(&c->spaces, &w->rq, &sp, &em);
	if (r == -ENOBUFS) {
		request_problem(w->b->rq, 507, "%s; delete one first", em.text);
		return;
	}
	if (!api_store_ok(c, w->b->rq, r, &em))
		return;
	log_info("a space was made",
	         "space=%s id=%u size_bytes=%llu replicas=%u", sp->name, sp->id,
	         (unsigned long long)sp->size_bytes, sp->replicas);
	tell_nodes(c, w->b->rq, sp);
}

void api_space_create(struct coord *c, struct request *rq, const char *name)
{
	struct wish w = { .c = c };
	const json_t *bind;
	struct body b;

	(void)name;
	w.b = &b;
	body_read(&b, rq);
	w.rq.name = body_text(&b, "name", BODY_NEEDED);
	w.rq.size_bytes = body_number(&b, "size_bytes", BODY_NEEDED, PAGE_BYTES,
	                              SPACE_BYTES_MAX);
	w.rq.replicas = (uint32_t)body_number(&b, "replicas", BODY_MAY, 1,
	                                      REPLICAS_MAX);
	w.rq.overcommit = body_bool(&b, "overcommit");
	bind = body_value(&b, "bind");
	if (w.rq.name && !space_name_ok(w.rq.name))
		body_wrong(&b, "name",
		           "must be 1 to 63 of a-z 0-9 . _ -, beginning with "
		           "a letter or digit");
	if (w.rq.size_bytes == 0 || w.rq.size_bytes % PAGE_BYTES != 0)
		body_wrong(&b, "size_bytes",
		           "must be a multiple of 4096, from 4096 on");
	if (w.rq.replicas == 0)
		body_wrong(&b, "replicas", "must be from 1 to %u",
		           REPLICAS_MAX);
	read_bind(&w, bind);
	if (body_done(&b)) {
		create(&w);
		body_free(&b);
	}
	free(w.ranges);
}

/* --- dropping ------------------------------------------------------------ */

struct dropping {
	struct round round;
	struct request *rq;
	struct space *space; /* NULL once it is gone */
	uint64_t clients;
	node_id busy, silent; /* a node with clients; one without answer */
};

static void tell_all(struct coord *c, space_id id, const json_t *doc)
{
	for (uint32_t i = 0; i < c->members.next_id; i++) {
		struct node *n = c->members.node[i];

		if (n && n->link && n->link->told >= id)
			port_send(c, n->link,
			          &(struct msg){ .type = MSG_SPACE_DROP,
			                         .space = id },
			          doc);
	}
}

/* It stays: let the nodes take clients again. */
static void keep(struct dropping *d)
{
	struct coord *c = d->round.coord;
	json_t *doc = json_pack("{s:I, s:b}", "id", (json_int_t)d->space->id,
	                        "cancel", 1);

	d->space->state = SPACE_READY;
	tell_all(c, d->space->id, doc);
	json_decref(doc);
}

static void ask_all(struct dropping *d, space_id id, bool commit)
{
	struct coord *c = d->round.coord;
	json_t *doc = json_pack("{s:I, s:b}", "id", (json_int_t)id, "commit",
	                        (int)commit);

	for (uint32_t i = 0; i < c->members.next_id; i++) {
		struct node *n = c->members.node[i];

		if (n && n->link && n->link->told >= id)
			round_ask(&d->round, n, MSG_SPACE_DROP, id, doc);
	}
	json_decref(doc);
	round_run(&d->round, NODES_ANSWER_NS);
}

static void gone_answer(struct round *r, const struct node *n,
                        const json_t *doc)
{
	(void)r;
	(void)n;
	(void)doc;
}

static void gone_done(struct round *r)
{
	struct dropping *d = container_of(r, struct dropping, round);

	request_answer(d->rq, 204, NULL);
	free(d);
}

static void drop_answer(struct round *r, const struct node *n,
                        const json_t *doc)
{
	struct dropping *d = container_of(r, struct dropping, round);
	const json_t *clients = json_object_get(doc, "clients");

	if (!json_is_integer(clients)) {
		/* Whoever died meanwhile has no clients that matter. */
		if (node_lives(n))
			d->silent = n->id;
	} else if (json_integer_value(clients) > 0) {
		d->clients += (uint64_t)json_integer_value(clients);
		d->busy = n->id;
	}
}

static void drop_done(struct round *r)
{
	struct dropping *d = container_of(r, struct dropping, round);
	struct coord *c = r->coord;
	struct errmsg em = { "" };
	space_id id = d->space->id;
	int dropped;

	if (d->clients > 0 || d->silent != NODE_NONE) {
		keep(d);
		if (d->clients > 0)
			request_problem(d->rq, 409,
			                "%llu clients have the space attached, "
			                "at node %u among others; end them "
			                "first",
			                (unsigned long long)d->clients,
			                d->busy);
		else
			request_problem(d->rq, 503,
			                "node %u does not answer, and may have "
			                "clients of the space; try again when "
			                "it answers or is dead",
			                d->silent);
		free(d);
		return;
	}
	dropped = spaces_drop(&c->spaces, d->space, &em);
	if (dropped < 0) {
		keep(d);
		(void)api_store_ok(c, d->rq, dropped, &em);
		free(d);
		return;
	}
	(void)coord_store_ok(c, 0, NULL);
	log_info("a space was deleted", "id=%u", id);
	d->space = NULL;
	/* When the nodes have let go of it, its memory is there for others. */
	d->round.answer = gone_answer;
	d->round.done = gone_done;
	round_start(&d->round, c);
	ask_all(d, id, true);
}

void api_space_delete(struct coord *c, struct request *rq, const char *name)
{
	struct space *sp = api_space(c, rq, name);
	struct dropping *d;

	if (!sp)
		return;
	if (sp->state != SPACE_READY) {
		request_problem(rq, 409,
		                "the space is just being %s; try again",
		                sp->state == SPACE_MAKING ? "made" : "deleted");
		return;
	}
	for (uint32_t i = 0; i < c->members.next_id; i++) {
		const struct node *n = c->members.node[i];

		if (n && node_lives(n) && !n->link) {
			request_problem(rq, 503,
			                "node %u (%s) lives but has no link, "
			                "and may have clients of the space; "
			                "try again when it is back or dead",
			                n->id, n->name);
			return;
		}
	}
	d = calloc(1, sizeof(*d));
	if (!d) {
		request_problem(rq, 503, "out of memory; try again");
		return;
	}
	*d = (struct dropping){
		.rq = rq, .space = sp, .busy = NODE_NONE, .silent = NODE_NONE
	};
	d->round.answer = drop_answer;
	d->round.done = drop_done;
	sp->state = SPACE_DROPPING;
	round_start(&d->round, c);
	ask_all(d, sp->id, false);
}
