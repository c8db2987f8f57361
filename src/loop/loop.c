/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One turn of the loop:
 *
 *	wait    epoll_pwait2(), until a descriptor is ready, the first timer
 *	        is due, or mail comes (an eventfd among the descriptors)
 *	ready   each descriptor's callback; mail is delivered here too
 *	timers  each timer that is due
 *	hooks   each turn_end
 *
 * Removal during a turn.  A callback may free any struct loop_io, and the batch
 * that epoll_pwait2() returned may still name it.  loop_remove() therefore
 * crosses it out of what is left of the batch: at most EVENTS_MAX entries, and
 * only while a batch is being worked through.  A generation count in each io
 * would not do, as the count would be in the freed memory.
 *
 * The mailbox is a stack that senders push onto with one compare-and-swap, and
 * that the receiver takes whole with one exchange and turns round; so letters
 * of one sender come out in the order in which they were posted, and nobody
 * ever meets a half-made list.  There is no ABA: a sender that compared against
 * an old top which came back meanwhile pushes onto the top that is there, and
 * nobody but the receiver, who takes all, pops.
 *
 * Only the sender that found the box empty writes the eventfd.  No wake-up is
 * lost: the receiver reads the eventfd first and takes the letters second, so a
 * letter pushed before the taking is taken, and one pushed after it found the
 * box empty, and its sender writes.  The other way round an eventfd may be
 * readable with nothing in the box, which costs one turn.
 */

#include "loop/loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>

#include "loop/heap.h"

#define EVENTS_MAX 64 /* of one epoll_pwait2(): one cache-warm batch */

struct loop {
	int epoll;
	nsec_t now;
	nsec_t busy_poll_ns;
	nsec_t busy_until; /* do not sleep before */
	struct loop_hook *hooks;
	struct loop_hook **hooks_end;

	struct loop_io bell; /* the eventfd: mail, or stop */
	void *mail_arg;
	struct mail *_Atomic box;  /* newest first; any thread pushes */
	atomic_bool stopping;      /* any thread sets, loop_run() clears */
	_Atomic(uint64_t) wakeups; /* the loop's thread writes */
	pthread_t thread;          /* valid while running */
	bool running;

	int n_events, next_event; /* the batch being worked through */
	struct epoll_event events[EVENTS_MAX];
	struct timer_heap timers;
};

/* Until loop_run() whoever sets things up may call; then that thread alone. */
static bool on_my_thread(const struct loop *loop)
{
	return !loop->running || pthread_equal(loop->thread, pthread_self());
}

/* --- descriptors --------------------------------------------------------- */

static int control(struct loop *loop, int op, struct loop_io *io,
                   uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = io };

	assert(on_my_thread(loop));
	assert(!(events & (uint32_t)EPOLLET)); /* the contract says level */
	return epoll_ctl(loop->epoll, op, io->fd, &ev) < 0 ? -errno : 0;
}

int loop_add(struct loop *loop, struct loop_io *io, uint32_t events)
{
	assert(io->ready != NULL);
	return control(loop, EPOLL_CTL_ADD, io, events);
}

int loop_modify(struct loop *loop, struct loop_io *io, uint32_t events)
{
	return control(loop, EPOLL_CTL_MOD, io, events);
}

void loop_remove(struct loop *loop, struct loop_io *io)
{
	assert(on_my_thread(loop));
	/* Fails only for what was never added (ENOENT, EBADF, EPERM). */
	(void)epoll_ctl(loop->epoll, EPOLL_CTL_DEL, io->fd, NULL);
	for (int i = loop->next_event; i < loop->n_events; i++)
		if (loop->events[i].data.ptr == io)
			loop->events[i].data.ptr = NULL;
}

/* --- timers -------------------------------------------------------------- */

void timer_start(struct loop *loop, struct loop_timer *t, nsec_t at)
{
	assert(on_my_thread(loop));
	assert(t->due != NULL);
	timer_stop(loop, t);
	t->at = at;
	heap_put(&loop->timers, t);
}

void timer_stop(struct loop *loop, struct loop_timer *t)
{
	assert(on_my_thread(loop));
	if (t->index > 0)
		heap_take(&loop->timers, t);
}

/*
 * As many calls as there were timers at the start: one that starts itself anew
 * for a time that has passed cannot keep the descriptors waiting for ever.
 */
static bool run_timers(struct loop *loop)
{
	uint32_t budget = loop->timers.n;
	bool any = false;

	for (; budget > 0; budget--) {
		struct loop_timer *t = heap_first(&loop->timers);

		if (!t || t->at > loop->now)
			break;
		/* First out of the heap: the callback may free it. */
		heap_take(&loop->timers, t);
		t->due(t);
		any = true;
	}
	return any;
}

/* --- end of a turn ------------------------------------------------------- */

void loop_hook_add(struct loop *loop, struct loop_hook *h)
{
	assert(on_my_thread(loop));
	assert(h->turn_end != NULL);
	h->next = NULL;
	*loop->hooks_end = h;
	loop->hooks_end = &h->next;
}

/* --- mailbox ------------------------------------------------------------- */

/* An eventfd takes 2^64 - 2 such rings unread, so this cannot fail or block. */
static void ring(struct loop *loop)
{
	(void)eventfd_write(loop->bell.fd, 1);
}

void mbox_post(struct loop *to, struct mail *m)
{
	struct mail *top = atomic_load_explicit(&to->box, memory_order_relaxed);

	assert(m->deliver != NULL);
	do {
		m->next = top;
		/* Release: who takes the letter sees what is in it. */
	} while (!atomic_compare_exchange_weak_explicit(
		&to->box, &top, m, memory_order_release, memory_order_relaxed));
	if (!top)
		ring(to);
}

static void deliver_mail(struct loop *loop)
{
	struct mail *m = atomic_exchange_explicit(&loop->box, NULL,
	                                          memory_order_acquire);
	struct mail *in_order = NULL;

	while (m) {
		struct mail *next = m->next;

		m->next = in_order;
		in_order = m;
		m = next;
	}
	while (in_order) {
		m = in_order;
		/* First off the list: `deliver` may free it or post it on. */
		in_order = m->next;
		m->deliver(m, loop->mail_arg);
	}
}

static void bell_ready(struct loop_io *io, uint32_t events)
{
	struct loop *loop = container_of(io, struct loop, bell);
	eventfd_t rings;

	(void)events;
	(void)eventfd_read(io->fd, &rings); /* how often does not matter */
	deliver_mail(loop);
}

/* --- life ---------------------------------------------------------------- */

static nsec_t read_clock(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (nsec_t)t.tv_sec * NSEC_PER_SEC + (nsec_t)t.tv_nsec;
}

int loop_new(const struct loop_config *cfg, struct loop **ret,
             struct errmsg *em)
{
	AUTO(loop_free) struct loop *loop = calloc(1, sizeof(*loop));
	int r;

	if (!loop)
		return errmsg_set(em, -ENOMEM, "no memory for an event loop");
	loop->hooks_end = &loop->hooks;
	loop->busy_poll_ns = cfg->busy_poll_ns;
	loop->mail_arg = cfg->mail_arg;
	loop->bell = (struct loop_io){ .fd = -1, .ready = bell_ready };
	loop->now = read_clock();
	loop->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll < 0)
		return errmsg_set(em, -errno, "cannot make an epoll");
	loop->bell.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (loop->bell.fd < 0)
		return errmsg_set(em, -errno, "cannot make an eventfd");
	r = loop_add(loop, &loop->bell, EPOLLIN);
	if (r < 0)
		return errmsg_set(em, r, "cannot watch an eventfd");
	*ret = TAKE_PTR(loop);
	return 0;
}

struct loop *loop_free(struct loop *loop)
{
	if (!loop)
		return NULL;
	assert(!loop->running);
	if (loop->bell.fd >= 0)
		close(loop->bell.fd);
	if (loop->epoll >= 0)
		close(loop->epoll);
	free(loop);
	return NULL;
}

/*
 * How long the loop may sleep: 0 not at all, UINT64_MAX for ever.  The clock is
 * read anew, or a timer would be late by the length of this turn.
 */
static nsec_t sleep_max(struct loop *loop)
{
	const struct loop_timer *t = heap_first(&loop->timers);
	nsec_t now;

	if (!t && loop->busy_until == 0)
		return UINT64_MAX;
	now = loop_now_fresh(loop);
	if (now < loop->busy_until)
		return 0;
	loop->busy_until = 0;
	if (!t)
		return UINT64_MAX;
	return t->at > now ? t->at - now : 0;
}

/* Fill the batch.  Returns how many are ready, or -errno. */
static int wait_for_events(struct loop *loop)
{
	nsec_t ns = sleep_max(loop);
	struct timespec ts = { .tv_sec = (time_t)(ns / NSEC_PER_SEC),
		               .tv_nsec = (long)(ns % NSEC_PER_SEC) };
	int n = epoll_pwait2(loop->epoll, loop->events, EVENTS_MAX,
	                     ns == UINT64_MAX ? NULL : &ts, NULL);

	if (n < 0 && errno != EINTR)
		return -errno;
	loop->now = read_clock();
	/* A poll that was not to sleep wakes nobody. */
	if (ns > 0)
		atomic_fetch_add_explicit(&loop->wakeups, 1,
		                          memory_order_relaxed);
	return n < 0 ? 0 : n;
}

static void run_batch(struct loop *loop, int n)
{
	loop->n_events = n;
	loop->next_event = 0;
	while (loop->next_event < loop->n_events) {
		struct epoll_event *e = &loop->events[loop->next_event++];
		struct loop_io *io = e->data.ptr;

		if (io)
			io->ready(io, e->events);
	}
	loop->n_events = 0;
}

/* One turn.  Returns 0, or -errno if epoll failed; *stop: it was the last. */
static int turn(struct loop *loop, bool *stop)
{
	int n = wait_for_events(loop);
	bool worked;

	if (n < 0)
		return n;
	run_batch(loop, n);
	worked = run_timers(loop) || n > 0;
	/*
	 * Who posts and then stops us means the letter to arrive, and both may
	 * have happened since the batch was filled.
	 */
	if (atomic_load_explicit(&loop->stopping, memory_order_acquire)) {
		*stop = true;
		deliver_mail(loop);
	}
	if (!worked && !*stop)
		return 0;
	for (struct loop_hook *h = loop->hooks; h; h = h->next)
		h->turn_end(h);
	if (loop->busy_poll_ns > 0)
		loop->busy_until = loop->now + loop->busy_poll_ns;
	return 0;
}

int loop_run(struct loop *loop)
{
	bool stop = false;
	int r = 0;

	assert(!loop->running);
	loop->thread = pthread_self();
	loop->running = true;
	while (r == 0 && !stop)
		r = turn(loop, &stop);
	loop->running = false;
	atomic_store_explicit(&loop->stopping, false, memory_order_relaxed);
	return r;
}

void loop_stop(struct loop *loop)
{
	atomic_store_explicit(&loop->stopping, true, memory_order_release);
	ring(loop);
}

nsec_t loop_now(const struct loop *loop)
{
	return loop->now;
}

nsec_t loop_now_fresh(struct loop *loop)
{
	assert(on_my_thread(loop));
	loop->now = read_clock();
	return loop->now;
}

uint64_t loop_wakeups(const struct loop *loop)
{
	return atomic_load_explicit(&loop->wakeups, memory_order_relaxed);
}
