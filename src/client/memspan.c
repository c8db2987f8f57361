/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The public functions of an attachment that stands; attach.c makes it.
 *
 * Callers may be many at once.  Each packet is one sendmsg(2), and who waits
 * for an answer does so on a slot of its own, so they need no lock among them.
 */

#include "client/client.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define DETACH_SEND_NS NSEC_PER_SEC

void *memspan_addr(const struct memspan *m)
{
	return m->addr;
}

size_t memspan_bytes(const struct memspan *m)
{
	return m->bytes;
}

const struct local_notes *memspan_notes(const struct memspan *m)
{
	return m->notes;
}

const struct local_lease *memspan_lease(const struct memspan *m)
{
	return m->lease;
}

node_id memspan_node(const struct memspan *m)
{
	return (node_id)m->node;
}

space_id memspan_space(const struct memspan *m)
{
	return m->space;
}

uint32_t memspan_note(const struct memspan *m)
{
	return atomic_load(&m->notes->slot[(uint32_t)gettid() % LOCAL_NOTES]);
}

/* The whole space is meant: the library maps no less, the shim names any. */
static bool inside(const struct memspan *m, uint64_t offset, uint64_t bytes)
{
	return offset <= m->space_bytes && bytes <= m->space_bytes - offset;
}

/*
 * May we send?  Not from a forked child, which shares the socket; and not if
 * the program closed the number and it is something else's by now.
 */
static bool socket_is_ours(const struct memspan *m)
{
	struct stat st;

	return m->pid == getpid() && fstat(m->sock, &st) == 0 &&
	       st.st_dev == m->sock_dev && st.st_ino == m->sock_ino;
}

int memspan_prefetch(struct memspan *m, size_t offset, size_t bytes)
{
	struct local_msg msg = talk_msg(LOCAL_PREFETCH);

	if (!inside(m, offset, bytes))
		return -EINVAL;
	if (bytes == 0)
		return 0;
	if (!socket_is_ours(m))
		return -ENOTCONN;
	/* Whole pages, so that the node need not round.  The space ends with
	 * one, so this stays inside. */
	msg.offset = offset / PAGE_BYTES * PAGE_BYTES;
	msg.bytes =
		(offset + bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES -
		msg.offset;
	return talk_send(m->sock, &msg, NULL, 0, 0);
}

/* --- discard ------------------------------------------------------------- */

static struct client_wait *wait_take(struct memspan *m)
{
	for (;;) {
		uint32_t freed = atomic_load(&m->wait_freed);

		for (unsigned i = 0; i < CLIENT_WAITS; i++) {
			struct client_wait *w = &m->waits[i];
			uint32_t free_ = WAIT_FREE;

			if (!atomic_compare_exchange_strong(&w->state, &free_,
			                                    WAIT_TAKEN))
				continue;
			w->cookie =
				i +
				CLIENT_WAITS * (1 + atomic_fetch_add(
							    &m->wait_count, 1));
			return w;
		}
		/* Returns at once if one was freed since we looked. */
		client_futex_wait(&m->wait_freed, freed);
	}
}

static void wait_give(struct memspan *m, struct client_wait *w)
{
	atomic_store(&w->state, WAIT_FREE);
	atomic_fetch_add(&m->wait_freed, 1);
	client_futex_wake(&m->wait_freed, 1);
}

static int discard(struct memspan *m, uint64_t offset, uint64_t bytes)
{
	struct client_wait *w = wait_take(m);
	struct local_msg msg = talk_msg(LOCAL_DISCARD);
	int r;

	msg.offset = offset;
	msg.bytes = bytes;
	msg.cookie = w->cookie;
	/* Before it is sent: the answer may overtake us. */
	atomic_store(&w->state, WAIT_SENT);
	r = talk_send(m->sock, &msg, NULL, 0, UINT64_MAX);
	if (r == 0) {
		while (atomic_load(&w->state) == WAIT_SENT)
			client_futex_wait(&w->state, WAIT_SENT);
		r = w->error;
	}
	wait_give(m, w);
	return r > 0 ? -EPROTO : r;
}

int client_discard(struct memspan *m, uint64_t offset, uint64_t bytes)
{
	int cancel, r;

	if (offset % PAGE_BYTES != 0 || bytes % PAGE_BYTES != 0 ||
	    !inside(m, offset, bytes))
		return -EINVAL;
	if (bytes == 0)
		return 0;
	if (!socket_is_ours(m))
		return -ENOTCONN;
	/* A thread that is cancelled here would take its slot with it. */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	r = discard(m, offset, bytes);
	pthread_setcancelstate(cancel, NULL);
	return r;
}

int memspan_discard(struct memspan *m, size_t offset, size_t bytes)
{
	return client_discard(m, offset, bytes);
}

/* --- detach -------------------------------------------------------------- */

void client_leave(struct memspan *m)
{
	const struct local_msg bye = talk_msg(LOCAL_DETACH);

	if (m->pid != getpid())
		return;
	/* Before it is sent, as with discard.  If we cannot send, the fence
	 * does when it next wakes. */
	atomic_store(&m->fence.detach, DETACH_SENT);
	if (!socket_is_ours(m) ||
	    talk_send(m->sock, &bye, NULL, 0,
	              talk_now(CLOCK_MONOTONIC) + DETACH_SEND_NS) < 0)
		atomic_store(&m->fence.detach, DETACH_ASKED);
	fence_stop(m);
	if (atomic_load(&m->fence.detach) == DETACH_DONE)
		m->handed = false;
}

void memspan_detach(struct memspan *m)
{
	int cancel;

	if (!m)
		return;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	client_leave(m);
	client_free(m);
	pthread_setcancelstate(cancel, NULL);
}
