/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node port: what nodes say, and what they are told.  The messages and
 * their flow are in wire/control.h.
 *
 * A node's link counts for its lease only while it works: a link that breaks
 * changes nothing, the lease runs on, and a new link is told everything anew.
 */

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "coord/coord.h"

/* Spaces are told while less than this is queued; the rest as it drains. */
#define TELL_QUEUE_BYTES (256u << 10)

/* --- telling ------------------------------------------------------------- */

void port_send(struct coord *c, struct link *l, const struct msg *m,
               const json_t *doc)
{
	AUTO_FREE char *text = doc ? json_dumps(doc, JSON_COMPACT) : NULL;
	struct msg out = *m;

	if (doc && (!text || strlen(text) > WIRE_CONTROL_BYTES_MAX)) {
		link_drop(l, "a document for it cannot be made");
		return;
	}
	out.epoch = c->members.epoch;
	out.payload_bytes = text ? (uint32_t)strlen(text) : 0;
	link_send(l, &out, text);
}

/* What an answer to `m` repeats of it. */
static struct msg reply_to(const struct msg *m)
{
	assert(!(m->flags & MSG_F_REPLY));
	return (struct msg){
		.type = m->type,
		.flags = MSG_F_REPLY,
		.space = m->space,
		.page = m->page,
		.arg = m->arg,
	};
}

void port_refuse(struct coord *c, struct link *l, const struct msg *m,
                 int status, const char *fmt, ...)
{
	struct msg out = reply_to(m);
	char detail[512];
	va_list args;
	json_t *doc;

	va_start(args, fmt);
	vsnprintf(detail, sizeof(detail), fmt, args);
	va_end(args);
	out.flags |= MSG_F_ERROR;
	doc = json_pack("{s:i, s:s}", "status", status, "detail", detail);
	port_send(c, l, &out, doc);
	json_decref(doc);
}

void port_members(struct coord *c, struct link *l)
{
	static struct wire_member records[NODES_MAX]; /* the main thread's */
	uint32_t n = members_encode(&c->members, records);

	/*
	 * Extents whose contents are lost are "at home" at a node that never
	 * lives (wire/control.h): everybody knows it as a dead member.
	 */
	if (c->spaces.n_lost > 0) {
		struct member lost = { .id = HOME_LOST,
			               .state = MEMBER_DEAD,
			               .endpoint = "127.0.0.1:1" };

		member_encode(&lost, &records[n++]);
	}
	link_send(l,
	          &(struct msg){ .type = MSG_MEMBERS,
	                         .epoch = c->members.epoch,
	                         .payload_bytes =
	                                 (uint32_t)(n * sizeof(records[0])) },
	          records);
}

void port_spaces(struct coord *c, struct link *l)
{
	struct space *sp;

	while (!l->ending && link_queued(l) < TELL_QUEUE_BYTES &&
	       (sp = spaces_after(&c->spaces, l->told)) != NULL) {
		json_t *doc;

		/* It may be gone in a moment; told then, or never. */
		if (sp->state == SPACE_DROPPING)
			return;
		doc = space_document(sp);
		l->told = sp->id;
		port_send(c, l,
		          &(struct msg){ .type = MSG_SPACE_ADD,
		                         .space = sp->id },
		          doc);
		json_decref(doc);
	}
}

/* --- hello --------------------------------------------------------------- */

/* The last word to a node that may not join like this. */
static void turn_away(struct coord *c, struct link *l, int status,
                      const char *why)
{
	port_refuse(c, l, &(struct msg){ .type = MSG_LEAVE }, status, "%s",
	            why);
	link_end(l, why);
}

static void say_hello(struct coord *c, struct link *l, const struct hello *to,
                      enum hello_refusal refusal)
{
	struct hello h = {
		.version_min = WIRE_VERSION,
		.version_max = WIRE_VERSION,
		.node = NODE_NONE,
		.to_node = to->node,
		.refusal = refusal,
		.to_incarnation = to->incarnation,
	};
	struct wire_hello wire;

	memcpy(h.cluster, c->members.cluster_id, sizeof(h.cluster));
	hello_encode(&h, &wire);
	link_send(l,
	          &(struct msg){ .type = MSG_HELLO,
	                         .epoch = c->members.epoch,
	                         .payload_bytes = sizeof(wire) },
	          &wire);
}

/* Why a node that says this is turned away; NULL if it is welcome. */
static const char *not_welcome(struct coord *c, const struct hello *h,
                               struct node **ret, int *status)
{
	static const uint8_t none[16];
	struct node *n = members_at(&c->members, h->node);

	*status = 409;
	/* The answer to POST does not name the cluster, so zeros will do. */
	if (!c->members.has_cluster ||
	    (memcmp(h->cluster, none, sizeof(none)) != 0 &&
	     memcmp(h->cluster, c->members.cluster_id, sizeof(none)) != 0))
		return "you belong to another cluster than this coordinator";
	if (!n) {
		*status = 404;
		return "no such node is registered; POST /v1/nodes first";
	}
	if (n->incarnation != h->incarnation)
		return "your incarnation is not the newest of your name";
	if (n->state == MEMBER_DEAD || n->state == MEMBER_DRAINED)
		return "your incarnation was declared dead; register anew";
	*ret = n;
	return NULL;
}

static void hello(struct coord *c, struct link *l, const void *payload)
{
	struct hello ours = { .version_min = WIRE_VERSION,
		              .version_max = WIRE_VERSION };
	struct errmsg em;
	struct node *n;
	struct hello h;
	const char *why;
	int status;

	if (hello_decode(payload, &h) < 0 || h.refusal != HELLO_WELCOME ||
	    h.node == NODE_NONE || h.to_node != NODE_NONE) {
		link_drop(l, "its hello is out of range");
		return;
	}
	link_greet(l);
	if (hello_agree(&ours, &h, &em) < 0) {
		log_warn("refused a node", "peer=%s why=%s", l->peer, em.text);
		say_hello(c, l, &h, HELLO_VERSION);
		link_end(l, "no common version of the protocol");
		return;
	}
	why = not_welcome(c, &h, &n, &status);
	if (why) {
		log_warn("refused a node", "peer=%s node=%u why=%s", l->peer,
		         h.node, why);
		turn_away(c, l, status, why);
		return;
	}
	/* It would not dial anew if the old one were any good. */
	if (n->link)
		link_drop(n->link, "a newer connection of the same node");
	assert(!n->link); /* ended() has seen to it */
	n->link = l;
	n->shards = h.shards;
	l->node = n;
	say_hello(c, l, &h, HELLO_WELCOME);
	port_members(c, l);
	port_spaces(c, l);
	log_debug("a node said hello", "node=%u peer=%s", n->id, l->peer);
}

/* --- lease and leave ----------------------------------------------------- */

/*
 * A link may break between the end of a space and a node's hearing of it.  What
 * a node says it has, and is no more, it is told to forget, again and again.
 */
static void drop_stale(struct coord *c, struct link *l)
{
	const struct figures *f = &l->node->figures;

	for (size_t i = 0; i < f->n_spaces && !l->ending; i++) {
		space_id id = f->spaces[i].id;
		json_t *doc;

		if (spaces_at(&c->spaces, id))
			continue;
		doc = json_pack("{s:I, s:b}", "id", (json_int_t)id, "commit",
		                1);
		port_send(c, l,
		          &(struct msg){ .type = MSG_SPACE_DROP, .space = id },
		          doc);
		json_decref(doc);
	}
}

/* How long from the question on; and where there is room for pages. */
static void answer_lease(struct coord *c, struct link *l, const struct msg *m)
{
	const char *room = coord_room(c);
	struct msg out = reply_to(m);

	out.epoch = c->members.epoch;
	out.arg = members_lease_ns(&c->members);
	out.payload_bytes = room ? (uint32_t)strlen(room) : 0;
	link_send(l, &out, room);
}

/*
 * A renewal.  The answer must not be late: the lease runs from the moment the
 * node sent the question.
 */
static void lease(struct coord *c, struct link *l, const struct msg *m,
                  const void *payload)
{
	struct figures f = { 0 };
	struct node *n = l->node;
	struct errmsg em;
	nsec_t now;
	int r;

	r = figures_read(&f, payload, m->payload_bytes, &em);
	if (r < 0) {
		link_drop(l, em.text);
		return;
	}
	/*
	 * Read the clock anew: the message may have been sent after this turn
	 * began, and its sender counts from then.
	 */
	now = loop_now_fresh(c->loop);
	members_heard(n, &f, now);
	r = members_renew(&c->members, n, now, &em);
	if (r < 0) {
		/*
		 * It cannot join now.  Without an answer it has no lease, and
		 * asks again: that is all that would be told.
		 */
		(void)coord_store_ok(c, r, &em);
		return;
	}
	switch ((enum renew_outcome)r) {
	case RENEW_JOINED:
		(void)coord_store_ok(c, 0, NULL);
		log_info("a node joined",
		         "node=%u name=%s endpoint=%s epoch=%u", n->id, n->name,
		         n->endpoint, c->members.epoch);
		coord_members_changed(c);
		break;
	case RENEW_UNFENCED:
		log_warn("a node renewed its lease late", "node=%u name=%s",
		         n->id, n->name);
		coord_members_changed(c);
		break;
	case RENEW_DEAD:
		coord_send_off(c, n, 409,
		               "you were declared dead; register anew");
		return;
	case RENEW_DONE:
		coord_figures_changed(c, n);
		break;
	}
	n->epoch = m->epoch;
	answer_lease(c, l, m);
	drop_stale(c, l);
}

/* It stops in order.  The answer is the last that it hears. */
static void leave(struct coord *c, struct link *l, const struct msg *m)
{
	struct msg out = reply_to(m);
	struct node *n = l->node;
	struct errmsg em;
	int r = members_leave(&c->members, n, &em);

	if (!coord_store_ok(c, r, &em)) {
		port_refuse(c, l, m, coord_store_status(r),
		            "your leave cannot be written down: %s", em.text);
		return;
	}
	if (n->state == MEMBER_DRAINED)
		log_info("a node left", "node=%u name=%s epoch=%u", n->id,
		         n->name, c->members.epoch);
	else
		log_warn("a node left with pages in its memory",
		         "node=%u name=%s epoch=%u opened_extents=%llu", n->id,
		         n->name, c->members.epoch,
		         (unsigned long long)n->opened_extents);
	coord_members_changed(c);
	port_send(c, l, &out, NULL);
	link_end(l, "it left");
}

/* --- handlers ------------------------------------------------------------ */

static void message(struct link *l, const struct msg *m, const void *payload,
                    void *arg)
{
	struct coord *c = arg;
	bool reply = (m->flags & MSG_F_REPLY) != 0;

	/* What a node may say is few enough for a list, not a table. */
	if (m->type == MSG_HELLO)
		hello(c, l, payload);
	else if (!l->node)
		link_drop(l, "it went on after it was turned away");
	else if (m->flags & MSG_F_TRACE)
		link_drop(l, "it traced a message of the node port");
	else if (m->type == MSG_LEASE && !reply)
		lease(c, l, m, payload);
	else if (m->type == MSG_CLAIM && !reply)
		coord_claim(c, l, m);
	else if (m->type == MSG_LEAVE && !reply)
		leave(c, l, m);
	else if (reply && (m->type == MSG_SPACE_ADD ||
	                   m->type == MSG_SPACE_DROP || m->type == MSG_QUERY))
		rounds_answer(c, l->node, m, payload);
	else
		link_drop(l, "it sent a message that nodes do not send");
}

static void ended(struct link *l, const char *why, void *arg)
{
	struct coord *c = arg;
	struct node *n = l->node;

	if (!n) {
		log_warn("dropped a connection to the node port",
		         "peer=%s why=%s", l->peer, why);
		return;
	}
	/* Leaving and dying have lines of their own. */
	if (node_lives(n) || n->state == MEMBER_JOINING)
		log_warn("the link of a node ended",
		         "node=%u name=%s peer=%s why=%s", n->id, n->name,
		         l->peer, why);
	l->node = NULL;
	if (n->link != l)
		return;
	n->link = NULL;
	rounds_gone(c, n);
}

const struct links_handlers port_handlers = {
	.message = message,
	.ended = ended,
};
