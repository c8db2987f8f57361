/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fence: the thread that takes a space away from this process when its node
 * may no longer vouch for it [A2].
 *
 * A node that is stopped, or cut off, cannot unmap pages from its clients, and
 * the rest of the cluster goes on without it once its lease is over.  So the
 * clients do it themselves: the node publishes the end of its lease in a page
 * that we read.
 *
 *	lease runs        sleep until its end, as published when we looked last
 *	prolonged         at that time: sleep again
 *	over              drop the mapping's entries, again every 10 ms (the
 *	                  node may install one any moment): accesses wait
 *	newer lease       stop dropping; who waits is served by the node
 *	over for 1 s, socket closed, or ENDED by the node
 *	                  say why on stderr and end the process by SIGBUS
 *
 * That second counts from when we saw the end, not from the end: after a
 * suspend of the machine all leases have long been over, and a moment later
 * they are prolonged.
 *
 * One thread for each attachment.  It needs descriptors that nobody can close,
 * and gets them by being born: it unshares the table (see client.h), keeps what
 * belongs to its attachment and closes the rest.  A thread for several would
 * have to be sent each new one's descriptors, and to wait with one space for
 * the other's page tables.
 *
 * It must not be late, so its stack and the struct are locked where allowed, it
 * allocates nothing after its start, takes no lock, and runs above the ordinary
 * priority where allowed.
 */

#include "client/client.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>

#define DROP_EVERY_NS  (10 * NSEC_PER_MSEC)
#define LAPSE_MAX_NS   NSEC_PER_SEC
#define LOOK_EVERY_NS  NSEC_PER_SEC /* however long the lease */
#define DETACH_MAX_NS  CLIENT_TIMEOUT_NS
#define PACKETS_MAX    64 /* received in one turn of the loop */
#define FENCE_NICE     (-10)
#define STDERR_WAIT_MS 100

void client_futex_wait(_Atomic uint32_t *at, uint32_t while_value)
{
	(void)syscall(SYS_futex, at, FUTEX_WAIT_PRIVATE, while_value, NULL,
	              NULL, 0); /* callers look again, whatever it says */
}

void client_futex_wake(_Atomic uint32_t *at, uint32_t n)
{
	(void)syscall(SYS_futex, at, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

static void set_state(struct client_fence *f, enum fence_state state)
{
	atomic_store(&f->state, state);
	client_futex_wake(&f->state, INT_MAX);
}

static uint32_t wait_state_past(struct client_fence *f, enum fence_state past)
{
	uint32_t s;

	while ((s = atomic_load(&f->state)) == (uint32_t)past)
		client_futex_wait(&f->state, past);
	return s;
}

/* --- the end of the process ---------------------------------------------- */

static void fail_waits(struct memspan *m, int error)
{
	for (unsigned i = 0; i < CLIENT_WAITS; i++) {
		struct client_wait *w = &m->waits[i];

		if (atomic_load(&w->state) != WAIT_SENT)
			continue;
		w->error = error;
		atomic_store(&w->state, WAIT_DONE);
		client_futex_wake(&w->state, 1);
	}
}

/*
 * Write to the descriptor 2 that the program has now.  Ours would be the one it
 * had when it attached; and holding that would keep a pipe open which the
 * program has closed since, so that its reader never saw the end.
 */
static void say_on_stderr(const char *line, size_t bytes)
{
	int self = pidfd_open(getpid(), 0);
	int fd = self < 0 ? -1 : pidfd_getfd(self, 2, 0);
	struct pollfd p = { .fd = fd, .events = POLLOUT };

	/* A pipe that nobody reads must not hold up what comes next. */
	if (fd >= 0 && poll(&p, 1, STDERR_WAIT_MS) == 1 &&
	    write(fd, line, bytes) < 0)
		return; /* nobody is left to be told */
}

/*
 * SIGBUS by a real bus error, raised while the signal is blocked here: then the
 * kernel sets the default action and kills the process in one step, whatever
 * handler the program has or is just setting, and even if it is the init of a
 * container, which ignores signals that are merely sent.
 *
 * No thread reads a zero on the way: the node's copies of the userfaultfds may
 * be gone, but ours stay open until the kernel has stopped every thread.
 */
static void end_process(struct memspan *m)
{
	char line[sizeof(m->fence.ended) + LOCAL_NAME_BYTES + 256];
	int n;

	n = snprintf(line, sizeof(line),
	             "memspan: space %s: %s; its pages can no longer be "
	             "trusted, so this process ends by SIGBUS; see 'memspan "
	             "status', then start it again\n",
	             m->name, m->fence.ended);
	fail_waits(m, -ENOTCONN);
	say_on_stderr(line, n > 0 ? (size_t)n : 0);
	if (m->fence.trap)
		(void)*m->fence.trap;
	for (;;) /* not reached; but never go on without a fence */
		(void)kill(getpid(), SIGKILL);
}

static void end_because(struct client_fence *f, const char *why)
{
	if (f->ended[0] == '\0')
		snprintf(f->ended, sizeof(f->ended), "%s", why);
}

/* --- what the node says -------------------------------------------------- */

static void on_done(struct memspan *m, const struct local_msg *msg)
{
	struct client_wait *w = &m->waits[msg->cookie % CLIENT_WAITS];
	uint32_t sent = DETACH_SENT;

	if (msg->cookie == 0) {
		atomic_compare_exchange_strong(&m->fence.detach, &sent,
		                               DETACH_DONE);
		return;
	}
	if (atomic_load(&w->state) != WAIT_SENT || w->cookie != msg->cookie)
		return; /* an answer to nothing: harmless */
	w->error = msg->error;
	atomic_store(&w->state, WAIT_DONE);
	client_futex_wake(&w->state, 1);
}

static void on_packet(struct memspan *m, const struct local_msg *msg)
{
	switch ((enum local_type)msg->type) {
	case LOCAL_DONE:
		on_done(m, msg);
		break;
	case LOCAL_ENDED:
		end_because(&m->fence, msg->text[0] != '\0' ?
		                               msg->text :
		                               "its node ended this client");
		break;
	case LOCAL_ATTACH:
	case LOCAL_SPACE:
	case LOCAL_MAPPED:
	case LOCAL_READY:
	case LOCAL_PREFETCH:
	case LOCAL_DISCARD:
	case LOCAL_DETACH:
	case LOCAL_REFUSED:
	case LOCAL_OPEN:
	case LOCAL_OPENED:
	default: /* not the time for it: as if the node had lost its mind */
		end_because(&m->fence,
		            "its node sent what has no meaning here");
		break;
	}
}

static void take_packets(struct memspan *m)
{
	struct local_msg msg;

	for (int i = 0; i < PACKETS_MAX; i++) {
		int r = talk_recv(m->sock, &msg, 0, NULL, 0, 0);

		if (r == -EAGAIN)
			return;
		if (r == -ENOTCONN) {
			end_because(&m->fence, "its node is gone (it closed "
			                       "the connection, or died)");
			return;
		}
		if (r < 0) {
			end_because(&m->fence, "its node sent what this "
			                       "library cannot read");
			return;
		}
		on_packet(m, &msg);
	}
}

/* --- the lease ----------------------------------------------------------- */

static void check(struct client_fence *f, int r, const char *what)
{
	if (r < 0 && f->ended[0] == '\0')
		snprintf(f->ended, sizeof(f->ended), "%s failed (%s)", what,
		         strerrordesc_np(-r));
}

/* The lease is over.  Returns when to look again. */
static uint64_t lapse(struct memspan *m, uint64_t now)
{
	struct client_fence *f = &m->fence;

	if (!f->lapsed) {
		f->lapsed = true;
		f->lapsed_ns = now;
		check(f, watch_fence(m), "fencing its mapping");
	}
	check(f, watch_drop(m), "taking its mapping away");
	if (now - f->lapsed_ns >= LAPSE_MAX_NS)
		end_because(f, "its node's lease has been over for a second "
		               "(the node is stopped, or cut off from the "
		               "cluster)");
	return now + DROP_EVERY_NS;
}

/*
 * Act on the lease as it is now.  Returns when to look again, in ns of
 * CLOCK_BOOTTIME.
 *
 * The node publishes a newer lease only after it has taken every page back from
 * every client, so what is mapped after that is of the newer one.
 */
static uint64_t look_at_lease(struct memspan *m)
{
	uint64_t now = talk_now(CLOCK_BOOTTIME);
	uint64_t end = atomic_load(&m->lease->end_ns);

	if (end <= now)
		return lapse(m, now);
	m->fence.lapsed = false;
	/* No lease yet: nobody tells us when there is one, so look before the
	 * shortest could end. */
	if (end == UINT64_MAX)
		return now + min_u64(LOOK_EVERY_NS,
		                     max_u64(m->lease_ns / 2, DROP_EVERY_NS));
	return min_u64(end, now + LOOK_EVERY_NS);
}

/*
 * While a detach is under way nobody touches the space, so what would end the
 * process only means that the node will not answer any more.
 */
static void look_at_detach(struct memspan *m)
{
	struct client_fence *f = &m->fence;
	const struct local_msg bye = talk_msg(LOCAL_DETACH);
	uint32_t state = atomic_load(&f->detach);
	uint64_t now = talk_now(CLOCK_MONOTONIC);

	if (state == DETACH_NO || state == DETACH_DONE)
		return;
	if (f->detach_ns == 0)
		f->detach_ns = now;
	if (state == DETACH_ASKED && talk_send(m->sock, &bye, NULL, 0, 0) == 0)
		atomic_store(&f->detach, DETACH_SENT);
	if (f->ended[0] != '\0' || now - f->detach_ns >= DETACH_MAX_NS)
		atomic_store(&f->detach, DETACH_GIVEN_UP);
}

static bool detach_over(struct client_fence *f)
{
	uint32_t state = atomic_load(&f->detach);

	return state == DETACH_DONE || state == DETACH_GIVEN_UP;
}

static void watch(struct memspan *m)
{
	struct client_fence *f = &m->fence;
	struct pollfd p[2] = { { .fd = m->sock, .events = POLLIN },
		               { .fd = f->timer, .events = POLLIN } };

	for (;;) {
		struct itimerspec at = { 0 };
		uint64_t next;

		take_packets(m);
		next = look_at_lease(m);
		look_at_detach(m);
		if (detach_over(f))
			return;
		if (f->ended[0] != '\0')
			end_process(m);
		/* Absolute, and in the clock of the lease, so that it is due
		 * at once when the machine wakes from a suspend. */
		at.it_value.tv_sec = (time_t)(next / NSEC_PER_SEC);
		at.it_value.tv_nsec = (long)(next % NSEC_PER_SEC);
		(void)timerfd_settime(f->timer, TFD_TIMER_ABSTIME, &at, NULL);
		(void)poll(p, ARRAY_SIZE(p), -1); /* then look at everything */
	}
}

/* --- start and stop ------------------------------------------------------ */

static void sort(unsigned *v, unsigned n)
{
	for (unsigned i = 1; i < n; i++)
		for (unsigned j = i; j > 0 && v[j - 1] > v[j]; j--) {
			unsigned t = v[j];

			v[j] = v[j - 1];
			v[j - 1] = t;
		}
}

/*
 * A table of our own with nothing but the attachment's descriptors: any other
 * would keep a pipe or a socket of the program open that it believes closed.
 */
static int own_descriptors(const struct memspan *m)
{
	unsigned keep[STRIPES_MAX + 1], n = 0, from = 0;

	keep[n++] = (unsigned)m->sock;
	for (uint32_t i = 0; i < m->stripes; i++)
		keep[n++] = (unsigned)m->uffd[i];
	sort(keep, n);
	/* The first call copies what it does not close. */
	if (close_range(keep[n - 1] + 1, UINT_MAX, CLOSE_RANGE_UNSHARE) < 0)
		return -errno;
	for (unsigned i = 0; i < n; i++) {
		if (keep[i] > from && close_range(from, keep[i] - 1, 0) < 0)
			return -errno;
		from = keep[i] + 1;
	}
	return 0;
}

/* A page of a file that has none: every access is a bus error. */
static volatile uint8_t *map_trap(void)
{
	AUTO_CLOSE int fd = memfd_create("memspan-end", MFD_CLOEXEC);
	void *p;

	if (fd < 0)
		return NULL;
	p = mmap(NULL, PAGE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
	return p == MAP_FAILED ? NULL : p;
}

static int prepare(struct memspan *m)
{
	struct client_fence *f = &m->fence;
	int r;

	(void)prctl(PR_SET_NAME, "memspan-fence");
	/* This thread alone, as Linux has it.  Needs CAP_SYS_NICE. */
	(void)setpriority(PRIO_PROCESS, 0, FENCE_NICE);
	r = own_descriptors(m);
	if (r < 0)
		return r;
	f->timer = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	if (f->timer < 0)
		return -errno;
	f->trap = map_trap();
	return f->trap ? 0 : -ENOMEM;
}

static void *fence_main(void *arg)
{
	struct memspan *m = arg;
	struct client_fence *f = &m->fence;
	int r;

	r = prepare(m);
	if (r < 0) {
		f->error = r;
		set_state(f, FENCE_FAILED);
	} else {
		set_state(f, FENCE_READY);
		if (wait_state_past(f, FENCE_READY) == FENCE_WATCH)
			watch(m);
	}
	if (f->trap)
		munmap((void *)(uintptr_t)f->trap, PAGE_BYTES);
	f->trap = NULL;
	return NULL; /* the last of our table: closes its descriptors */
}

static int create_thread(struct memspan *m)
{
	pthread_attr_t attr;
	sigset_t all, old;
	int r;

	r = pthread_attr_init(&attr);
	if (r != 0)
		return -r;
	r = pthread_attr_setstack(&attr, client_stack(m), CLIENT_STACK_BYTES);
	/* The thread inherits the mask.  glibc keeps its own two signals, for
	 * setuid(2) of all threads, out of it. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	if (r == 0)
		r = pthread_create(&m->fence.thread, &attr, fence_main, m);
	if (r == EINVAL) /* the program's thread-local variables need more */
		r = pthread_create(&m->fence.thread, NULL, fence_main, m);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	return -r;
}

int fence_start(struct memspan *m, struct errmsg *em)
{
	struct client_fence *f = &m->fence;
	int r;

	r = create_thread(m);
	if (r < 0)
		return errmsg_say(em, -ENOMEM,
		                  "cannot start the thread that watches the "
		                  "node (%s); see ulimit -u",
		                  strerrordesc_np(-r));
	f->started = true;
	if (wait_state_past(f, FENCE_STARTING) != FENCE_FAILED)
		return 0;
	r = f->error;
	if (r == -ENOSYS || r == -EPERM)
		return errmsg_say(
			em, -ENOSYS,
			"close_range(2) is forbidden or missing here, "
			"and the library cannot guard its descriptors "
			"without; allow it in the seccomp filter");
	return errmsg_set(em, r == -EMFILE || r == -ENFILE ? -EMFILE : -ENOMEM,
	                  "cannot prepare the thread that watches the node");
}

void fence_watch(struct memspan *m)
{
	set_state(&m->fence, FENCE_WATCH);
}

void fence_stop(struct memspan *m)
{
	struct client_fence *f = &m->fence;
	uint32_t ready = FENCE_READY;

	if (!f->started)
		return;
	if (atomic_compare_exchange_strong(&f->state, &ready, FENCE_QUIT))
		client_futex_wake(&f->state, INT_MAX);
	pthread_join(f->thread, NULL);
	f->started = false;
}
