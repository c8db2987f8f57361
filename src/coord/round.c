/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rounds stand in a list, newest first: there are as many as requests that wait
 * for nodes, a handful.  `waiting` has a bit for each node that has still to
 * answer, so an answer that comes twice, late, or from somebody who was not
 * asked is seen as such and ignored.
 *
 * done() may free the round or start it anew, so nothing here looks at a round
 * after it was finished.
 */

#include "coord/round.h"

#include <string.h>

#include "base/log.h"
#include "coord/coord.h"

static bool waits_for(const struct round *r, node_id id)
{
	return (r->waiting[id / 64] >> (id % 64) & 1) != 0;
}

static void finish(struct round *r)
{
	struct round **at = &r->coord->rounds;

	assert(r->answer && r->done);
	while (*at != r)
		at = &(*at)->next;
	*at = r->next;
	timer_stop(r->coord->loop, &r->timer);
	r->done(r);
}

/* `n` has answered, or never will.  True: that was the last; r may be gone. */
static bool settle(struct round *r, const struct node *n, const json_t *doc)
{
	assert(waits_for(r, n->id));
	r->waiting[n->id / 64] &= ~(1ull << (n->id % 64));
	assert(r->n_waiting > 0);
	r->n_waiting--;
	r->answer(r, n, doc);
	if (r->n_waiting > 0)
		return false;
	finish(r);
	return true;
}

/* Whoever has not answered will not any more. */
static void expire(struct round *r)
{
	for (uint32_t id = 0; id < NODES_MAX; id++) {
		struct node *n = members_at(&r->coord->members, id);

		if (waits_for(r, (node_id)id) && n) {
			log_warn("a node did not answer in time",
			         "node=%u question=%llu", id,
			         (unsigned long long)r->number);
			if (settle(r, n, NULL))
				return;
		}
	}
	/* Who was deleted meanwhile lost its link before, and was settled. */
	assert(false);
}

static void time_is_over(struct loop_timer *t)
{
	expire(container_of(t, struct round, timer));
}

void round_start(struct round *r, struct coord *c)
{
	r->coord = c;
	r->number = ++c->last_question;
	r->n_waiting = 0;
	memset(r->waiting, 0, sizeof(r->waiting));
	r->timer = (struct loop_timer){ .due = time_is_over };
	r->next = c->rounds;
	c->rounds = r;
}

void round_ask(struct round *r, struct node *n, enum msg_type type,
               space_id space, const json_t *doc)
{
	assert(n->link);
	assert(!waits_for(r, n->id));
	r->waiting[n->id / 64] |= 1ull << (n->id % 64);
	r->n_waiting++;
	port_send(
		r->coord, n->link,
		&(struct msg){ .type = type, .space = space, .arg = r->number },
		doc);
}

void round_run(struct round *r, nsec_t ns)
{
	if (r->n_waiting == 0)
		finish(r);
	else
		timer_start(r->coord->loop, &r->timer,
		            loop_now(r->coord->loop) + ns);
}

void rounds_answer(struct coord *c, const struct node *n, const struct msg *m,
                   const void *payload)
{
	struct round *r = c->rounds;
	json_t *doc = NULL;

	while (r && r->number != m->arg)
		r = r->next;
	/* Late, or to what was told without waiting for an answer. */
	if (!r || !waits_for(r, n->id))
		return;
	if (m->flags & MSG_F_ERROR)
		log_warn("a node refused", "node=%u what=%s answer=%.*s", n->id,
		         msg_name(m->type), (int)min_u64(m->payload_bytes, 500),
		         (const char *)payload);
	else if (m->payload_bytes > 0)
		doc = json_loadb(payload, m->payload_bytes, 0, NULL);
	else
		doc = json_object(); /* "I have it" needs no words */
	(void)settle(r, n, json_is_object(doc) ? doc : NULL);
	json_decref(doc);
}

void rounds_gone(struct coord *c, const struct node *n)
{
	struct round *r = c->rounds;

	while (r) {
		struct round *next = r->next;

		if (waits_for(r, n->id)) {
			(void)settle(r, n, NULL);
			/* What it did may have changed the list. */
			next = c->rounds;
		}
		r = next;
	}
}

void rounds_end(struct coord *c)
{
	while (c->rounds)
		expire(c->rounds);
}
