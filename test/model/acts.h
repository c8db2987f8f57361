/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a shard does about what the core decides; see acts.c.  Each may find
 * that something is wrong, and then does not return: violated().
 */
#pragma once

#include "world.h"

#define SAY(...)                                      \
	do {                                          \
		if (world_says)                       \
			fprintf(stderr, __VA_ARGS__); \
	} while (0)

/* Pages are installed long before the events that are not young. */
enum { INSTALLED_US = 1000, LATE_US = 1000000 };

/* Queue a message of node `node`, to home or from it. */
void act_put(struct queue *q, unsigned node, bool up, struct message m);

/* Give core/page an event; its actions follow what is under way. */
void act_step(const struct setup *s, struct world *w, unsigned i,
              const struct page_event *ev);
void act_touch(const struct setup *s, struct world *w, unsigned i, bool write);
void act_recalled(const struct setup *s, struct world *w, unsigned i,
                  uint8_t kind, bool deferred, bool young);
/* Carry one action out that is seen, and what follows it unseen. */
void act_go_on(const struct setup *s, struct world *w, unsigned i);
/* The number of a frame that is not in use. */
uint8_t act_free_frame(const struct member *m);
/* Does the shard of node `i` look for the next event? */
bool act_idle(const struct world *w, unsigned i);

/* Give core/dir an event whose bytes are `value`, and do what it says. */
void act_home(const struct setup *s, struct world *w, bool no_room,
              const struct dir_event *ev, uint8_t value);
/* Node `i` has applied the grant that was made of its giver's frame. */
void act_applied(const struct setup *s, struct world *w, unsigned i);
/* Frame `number` of node `i` is not needed any more. */
void act_forget(const struct setup *s, struct world *w, unsigned i,
                unsigned number);
/* All copies of the last value are old ones now. */
void act_age(struct world *w);
