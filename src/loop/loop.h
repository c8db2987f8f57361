/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loop: one thread's epoll, its timers, and its mailbox.
 *
 * What it promises
 *
 *   level      Descriptors are level-triggered: what a callback leaves unread
 *              calls it again, after everybody else had a turn.
 *   one time   loop_now() is CLOCK_MONOTONIC read once per wake-up.
 *   quiet      A loop with no event, no timer due and no mail sleeps in
 *              epoll_pwait2() without end; it never polls, unless busy-poll
 *              was asked for.
 *   no malloc  After loop_new() nothing here allocates: io, timers and mail are
 *              embedded in their owners.
 *
 * What it expects
 *
 *   one thread Every call but mbox_post() and loop_stop() is made on the thread
 *              that runs loop_run().
 */
#pragma once

#include "base/base.h"

struct loop;

/* --- descriptors --------------------------------------------------------- */

struct loop_io {
	int fd; /* the owner opens and closes it */
	/* `events` are EPOLL* bits.  May remove and free this or any io. */
	void (*ready)(struct loop_io *io, uint32_t events);
};

/*
 * Watch io->fd for `events` (EPOLLIN, EPOLLOUT).  `io` is borrowed until
 * loop_remove().  Returns 0 or -errno of epoll_ctl(2).
 */
int loop_add(struct loop *loop, struct loop_io *io, uint32_t events);
int loop_modify(struct loop *loop, struct loop_io *io, uint32_t events);
/* Does nothing for an fd that is -1 or was never added. */
void loop_remove(struct loop *loop, struct loop_io *io);

/* --- timers -------------------------------------------------------------- */

struct loop_timer {
	void (*due)(struct loop_timer *t);
	nsec_t at;      /* CLOCK_MONOTONIC; set by timer_start() */
	uint32_t index; /* place in the heap + 1; 0: not started */
};

#define LOOP_TIMERS_MAX 4096u /* started at once; more is a bug (assert) */

/* Start, or move, a one-shot timer.  Runs as soon as loop_now() >= at. */
void timer_start(struct loop *loop, struct loop_timer *t, nsec_t at);
void timer_stop(struct loop *loop, struct loop_timer *t); /* idempotent */

/* --- end of a turn ------------------------------------------------------- */

/*
 * Hooks run after all callbacks of a wake-up, in the order they were added,
 * before the loop sleeps: here a transport sends what the turn has gathered.
 */
struct loop_hook {
	void (*turn_end)(struct loop_hook *h);
	struct loop_hook *next;
};
void loop_hook_add(struct loop *loop, struct loop_hook *h);

/* --- mailbox: the only way from one thread to another -------------------- */

/*
 * A letter is embedded in its owner's struct, and is the receiver's from
 * mbox_post() until `deliver` is called on the receiver's thread, where it may
 * be freed or posted on.
 */
struct mail {
	struct mail *next;
	void (*deliver)(struct mail *m, void *arg);
};

/* Any thread.  Letters of one sender are delivered in order.  Never blocks. */
void mbox_post(struct loop *to, struct mail *m);

/* --- life ---------------------------------------------------------------- */

struct loop_config {
	nsec_t busy_poll_ns; /* keep polling so long after work; 0: never */
	void *mail_arg;      /* passed to mail.deliver as `arg` */
};

int loop_new(const struct loop_config *cfg, struct loop **ret,
             struct errmsg *em);
struct loop *loop_free(struct loop *loop); /* takes NULL; returns NULL */
DEFINE_AUTO(struct loop, loop_free)

/* Run until loop_stop().  Returns 0, or -errno if epoll itself failed. */
int loop_run(struct loop *loop);
/* Make loop_run() return after this turn.  Any thread, any time. */
void loop_stop(struct loop *loop);

nsec_t loop_now(const struct loop *loop);
/* Read the clock anew, and return it: after something that took long. */
nsec_t loop_now_fresh(struct loop *loop);
/* Wake-ups so far (relaxed atomic; any thread may read). */
uint64_t loop_wakeups(const struct loop *loop);
