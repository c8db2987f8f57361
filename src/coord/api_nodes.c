/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nodes over HTTP: they register here, then speak to the node port (port.c).
 * The rest is for people.
 */

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "coord/api.h"
#include "coord/body.h"
#include "coord/listen.h"
#include "coord/render.h"

void api_nodes_list(struct coord *c, struct request *rq, const char *name)
{
	struct text t = { 0 };

	(void)name;
	render_nodes(&t, c);
	request_answer_text(rq, 200, text_take(&t));
}

void api_node_show(struct coord *c, struct request *rq, const char *name)
{
	struct node *n = api_node(c, rq, name);
	struct text t = { 0 };

	if (!n)
		return;
	render_node(&t, c, n);
	request_answer_text(rq, 200, text_take(&t));
}

/* --- registering --------------------------------------------------------- */

/* Where a node reaches the node port, as seen by whoever asked. */
static void node_port_text(const struct coord *c, const struct request *rq,
                           char *buf, size_t bytes)
{
	bool any = strcmp(c->node_host, "0.0.0.0") == 0 ||
	           strcmp(c->node_host, "::") == 0;

	/* Listening at every address, the one that he came by is good. */
	if (any && rq->host[0] != '\0')
		snprintf(buf, bytes, "%s:%u", rq->host, c->node_port);
	else
		address_text(c->node_host, c->node_port, buf, bytes);
}

/* The protocol comes first: what else another one says cannot be judged. */
static bool read_registration(struct body *b, struct request *rq,
                              struct registration *reg)
{
	const json_t *protocol;

	body_read(b, rq);
	protocol = b->doc ? json_object_get(b->doc, "protocol") : NULL;
	if (json_is_integer(protocol) && json_integer_value(protocol) != 1) {
		request_problem(rq, 409,
		                "this coordinator speaks protocol 1, the node "
		                "speaks %lld; run the same release on both",
		                (long long)json_integer_value(protocol));
		body_free(b);
		return false;
	}
	reg->name = body_text(b, "name", BODY_NEEDED);
	reg->memory_bytes = body_number(b, "memory_bytes", BODY_NEEDED, 0,
	                                MEMORY_BYTES_MAX);
	reg->endpoint = body_text(b, "endpoint", BODY_NEEDED);
	(void)body_number(b, "protocol", BODY_NEEDED, 0, 1);
	if (reg->name && !node_name_ok(reg->name))
		body_wrong(b, "name",
		           "must be 1 to 63 of A-Z a-z 0-9 . _ -, beginning "
		           "with a letter or digit and not a number");
	if (reg->memory_bytes == 0)
		body_wrong(b, "memory_bytes", "must be more than 0");
	if (reg->endpoint && !endpoint_ok(reg->endpoint))
		body_wrong(b, "endpoint",
		           "must be HOST:PORT, such as 127.0.0.1:50051");
	return body_done(b);
}

/* Say who has the name, and when it is free if he is gone. */
static void refuse_registration(struct coord *c, struct request *rq, int r,
                                const struct registration *reg,
                                const struct node *n)
{
	nsec_t now = loop_now(c->loop);
	nsec_t left = n && n->dies_at > now ? n->dies_at - now : 0;

	if (r == REGISTER_FULL)
		request_problem(rq, 507,
		                "all %u numbers of nodes were given; a cluster "
		                "has no more",
		                HOME_LOST);
	else
		request_problem(rq, 409,
		                "a node called '%s' is %s, as node %u; stop it "
		                "first, or choose another name (if it has "
		                "ended, its name is free in %llu ms)",
		                reg->name, member_state_name(n->state), n->id,
		                (unsigned long long)(left / NSEC_PER_MSEC + 1));
}

/* What the life before had opened is lost with it, before the next begins. */
static bool settle_last_life(struct coord *c, struct request *rq,
                             const struct node *n)
{
	struct errmsg em = { "" };
	int64_t lost;

	if (!n || node_lives(n) || n->link)
		return true;
	lost = spaces_forget_home(&c->spaces, n->id, &em);
	if (lost > 0) {
		log_warn("pages are lost with the last life of their home",
		         "node=%u name=%s extents=%lld", n->id, n->name,
		         (long long)lost);
		coord_members_changed(c);
	}
	return api_store_ok(c, rq, lost < 0 ? (int)lost : 0, &em);
}

static void register_node(struct coord *c, struct request *rq,
                          const struct registration *reg)
{
	struct errmsg em = { "" };
	struct node *n = NULL;
	char port[96];
	int r;

	if (!settle_last_life(c, rq, members_find(&c->members, reg->name)))
		return;
	r = members_register(&c->members, reg, loop_now(c->loop), &n, &em);
	if (r > 0) {
		refuse_registration(c, rq, r, reg, n);
		return;
	}
	if (!api_store_ok(c, rq, r, &em))
		return;
	log_info("a node registered",
	         "node=%u name=%s incarnation=%llu endpoint=%s", n->id, n->name,
	         (unsigned long long)n->incarnation, n->endpoint);
	node_port_text(c, rq, port, sizeof(port));
	request_answer(rq, 201,
	               json_pack("{s:i, s:I, s:I, s:s, s:I}", "id", (int)n->id,
	                         "incarnation", (json_int_t)n->incarnation,
	                         "epoch", (json_int_t)c->members.epoch,
	                         "node_port", port, "lease_ms",
	                         (json_int_t)c->members.lease_ms));
}

void api_node_register(struct coord *c, struct request *rq, const char *name)
{
	struct registration reg;
	struct body b;

	(void)name;
	if (!read_registration(&b, rq, &reg))
		return;
	register_node(c, rq, &reg);
	body_free(&b);
}

void api_node_delete(struct coord *c, struct request *rq, const char *name)
{
	struct node *n = api_node(c, rq, name);
	struct errmsg em = { "" };
	node_id id;

	if (!n)
		return;
	if (node_lives(n) || n->link) {
		request_problem(rq, 409, "node %u (%s) is %s; stop it first",
		                n->id, n->name, member_state_name(n->state));
		return;
	}
	if (!settle_last_life(c, rq, n))
		return;
	id = n->id;
	if (!api_store_ok(c, rq, members_delete(&c->members, n, &em), &em))
		return;
	log_info("a node was deleted", "node=%u", id);
	coord_members_changed(c);
	request_answer(rq, 204, NULL);
}

/* --- endpoints ----------------------------------------------------------- */

static json_t *endpoint(const struct node *n)
{
	return json_pack("{s:i, s:s, s:s}", "id", (int)n->id, "name", n->name,
	                 "tcp", n->endpoint);
}

void api_endpoint_show(struct coord *c, struct request *rq, const char *name)
{
	struct node *n = api_node(c, rq, name);

	if (n)
		request_answer(rq, 200, json_pack("{s:s}", "tcp", n->endpoint));
}

void api_endpoint_set(struct coord *c, struct request *rq, const char *name)
{
	struct node *n = api_node(c, rq, name);
	struct errmsg em = { "" };
	const char *tcp;
	struct body b;

	if (!n)
		return;
	body_read(&b, rq);
	tcp = body_text(&b, "tcp", BODY_NEEDED);
	if (tcp && !endpoint_ok(tcp))
		body_wrong(&b, "tcp",
		           "must be HOST:PORT, such as 127.0.0.1:50051");
	if (!body_done(&b))
		return;
	if (api_store_ok(c, rq, members_set_endpoint(&c->members, n, tcp, &em),
	                 &em)) {
		coord_members_changed(c);
		request_answer(rq, 200, json_pack("{s:s}", "tcp", n->endpoint));
	}
	body_free(&b);
}

void api_endpoints_list(struct coord *c, struct request *rq, const char *name)
{
	json_t *list = json_array();

	(void)name;
	for (uint32_t i = 0; list && i < c->members.next_id; i++)
		if (c->members.node[i])
			(void)json_array_append_new(
				list, endpoint(c->members.node[i]));
	request_answer(rq, 200, list);
}
