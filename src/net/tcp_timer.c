/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When a transport has to do something though nothing came: acknowledge, send
 * what waited for company (nudge), dial, give up, notice silence (chores).
 *
 * All of it is far off when it is planned, and mostly overtaken by events: in a
 * run of remote faults each acknowledgement finds company.  A timer of the loop
 * would let it sleep with a time limit each time, which costs 0.4 us a sleep;
 * so there is one timerfd for everything, set for the earliest deadline and
 * left alone when that passes out of need.  Then it rings for nothing, at most
 * once in ack_delay.
 *
 * For the same reason a session that owes stays in the list `owing` when it has
 * been flushed, and is looked at when the alarm rings.
 */

#include <errno.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

#include "net/tcp.h"

#define NEVER UINT64_MAX

/* Setting it also takes back a ring that nobody has answered. */
static void alarm_set(struct tcp_alarm *a, nsec_t at)
{
	struct itimerspec it = { .it_value = { 0 } };

	if (at != NEVER) {
		/* Zero would turn it off. */
		at = max_u64(at, 1);
		it.it_value.tv_sec = (time_t)(at / NSEC_PER_SEC);
		it.it_value.tv_nsec = (long)(at % NSEC_PER_SEC);
	}
	a->at = at;
	/* Can only fail for what is no timerfd. */
	(void)timerfd_settime(a->io.fd, TFD_TIMER_ABSTIME, &it, NULL);
}

static void alarm_by(struct tcp_alarm *a, nsec_t at)
{
	if (at < a->at)
		alarm_set(a, at);
}

static void list_owing(struct tcp_session *s)
{
	s->owing_listed = true;
	s->next_owing = s->tp->owing;
	s->tp->owing = s;
}

void tcp_owe(struct tcp_session *s)
{
	struct transport *tp = s->tp;
	struct tcp_alarm *a = &tp->alarm;

	if (s->owing)
		return;
	s->owing = true;
	s->owing_since = loop_now(tp->loop);
	if (s->owing_listed)
		return;
	list_owing(s);
	a->nudge = min_u64(a->nudge, s->owing_since + tp->cfg.ack_delay);
	alarm_by(a, a->nudge);
}

void tcp_chores_by(struct transport *tp, nsec_t at)
{
	struct tcp_alarm *a = &tp->alarm;

	a->chores = min_u64(a->chores, at);
	alarm_by(a, a->chores);
}

/* Flush who has waited long enough. */
static void nudge(struct transport *tp, nsec_t now)
{
	struct tcp_session *s = tp->owing, *next;

	tp->owing = NULL;
	tp->alarm.nudge = NEVER;
	for (; s; s = next) {
		nsec_t at = s->owing_since + tp->cfg.ack_delay;

		next = s->next_owing;
		s->owing_listed = false;
		if (!s->owing)
			continue;
		if (at <= now) {
			tcp_mark_dirty(s);
		} else {
			/* It was flushed meanwhile, and owes again. */
			list_owing(s);
			tp->alarm.nudge = min_u64(tp->alarm.nudge, at);
		}
	}
}

static void chores(struct transport *tp, nsec_t now)
{
	nsec_t at;

	tp->alarm.chores = NEVER;
	at = tcp_accept_chores(tp, now);
	/* A session that a handler forgets stays linked to the next one. */
	for (struct tcp_session *s = tp->sessions; s; s = s->next)
		at = min_u64(at, tcp_conn_chores(s, now));
	/* A handler may have brought it forward. */
	tp->alarm.chores = min_u64(tp->alarm.chores, at);
}

static void alarm_rings(struct loop_io *io, uint32_t events)
{
	struct transport *tp = container_of(io, struct transport, alarm.io);
	struct tcp_alarm *a = &tp->alarm;
	nsec_t now = loop_now(tp->loop);

	(void)events;
	tcp_turn(tp);
	if (a->nudge <= now)
		nudge(tp, now);
	if (a->chores <= now)
		chores(tp, now);
	alarm_set(a, min_u64(a->nudge, a->chores));
}

int tcp_alarm_init(struct transport *tp)
{
	struct tcp_alarm *a = &tp->alarm;
	int r;

	*a = (struct tcp_alarm){
		.io = { .fd = timerfd_create(CLOCK_MONOTONIC,
		                             TFD_NONBLOCK | TFD_CLOEXEC),
		        .ready = alarm_rings },
		.at = NEVER,
		.nudge = NEVER,
		.chores = NEVER,
	};
	if (a->io.fd < 0)
		return -errno;
	r = loop_add(tp->loop, &a->io, EPOLLIN);
	if (r < 0)
		close(TAKE_FD(a->io.fd));
	return r;
}

void tcp_alarm_done(struct transport *tp)
{
	loop_remove(tp->loop, &tp->alarm.io);
	close(TAKE_FD(tp->alarm.io.fd));
}
