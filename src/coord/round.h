/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rounds: one question to several nodes, until all have answered, are gone, or
 * the time for it is over.
 *
 * A round is embedded in whatever waits for it.  Its number is the `arg` of the
 * messages, by which the answers find it.
 */
#pragma once

#include <jansson.h>

#include "loop/loop.h"
#include "wire/wire.h"

struct coord;
struct node;

struct round {
	/*
	 * A node answered; `doc` is borrowed.  NULL: it refused, its answer was
	 * no object, its link broke, or time is over.
	 */
	void (*answer)(struct round *r, const struct node *n,
	               const json_t *doc);
	/* No more answers will come.  The round is its owner's again. */
	void (*done)(struct round *r);

	/* Private. */
	struct coord *coord;
	struct round *next;
	uint64_t number;
	uint64_t waiting[NODES_MAX / 64]; /* bit: node id */
	unsigned n_waiting;
	struct loop_timer timer;
};

/* Begin one; .answer and .done are set.  Then ask, then run. */
void round_start(struct round *r, struct coord *c);
/* Ask `n`, who is linked, each node at most once.  `doc` is borrowed. */
void round_ask(struct round *r, struct node *n, enum msg_type type,
               space_id space, const json_t *doc);
/* All were asked: wait at most `ns`.  May call done at once. */
void round_run(struct round *r, nsec_t ns);

/* A node's answer came: m->arg says to which round. */
void rounds_answer(struct coord *c, const struct node *n, const struct msg *m,
                   const void *payload);
/* The node's link is over. */
void rounds_gone(struct coord *c, const struct node *n);
/* End all rounds now, as if their time were over. */
void rounds_end(struct coord *c);
