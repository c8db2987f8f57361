/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libmemspan from within: one attachment of a space, and what `memspan bench`,
 * `memspan run` and the shim may ask beyond include/memspan.h.  Nothing here is
 * exported.  The shim's own parts are in client/preload.h.
 *
 *	attach.c  the attach sequence, step by step
 *	talk.c    the node's socket: finding it, packets with descriptors
 *	watch.c   the mapping and its userfaultfds
 *	fence.c   the thread that takes the mapping away in time
 *	memspan.c the public functions
 *
 * Threads.  The fence thread alone receives from the socket once the attachment
 * stands; any thread sends (a packet is sent whole or not at all).  Callers
 * that wait for an answer do so on a slot of `waits`, a futex each; there is no
 * mutex, so a caller that is stopped anywhere cannot hold up the fence.
 *
 * Descriptors.  The fence thread runs on a descriptor table of its own, a copy
 * made when it starts [A13].  So the program may close any number it likes: the
 * userfaultfds stay open until that thread ends, and a poll that has to start
 * anew does not look their numbers up in the program's table.  The program's
 * table has them all the same, and this is needed too: when the process dies,
 * the kernel closes a table that threads share after the last of them has
 * stopped, but the fence thread's own one as soon as that thread is gone, when
 * others may still run for a moment.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "base/base.h"
#include "memspan.h"
#include "wire/local.h"

#define CLIENT_TIMEOUT_NS (10 * NSEC_PER_SEC)
/* The fence's stack: it uses 4 KiB, the rest is for the thread-local variables
 * of large programs, which lie on it too. */
#define CLIENT_STACK_BYTES 262144u
#define CLIENT_WAITS       64u /* discards under way at once; more take turns */

/* --- one answer that a caller waits for ---------------------------------- */

enum wait_state { WAIT_FREE = 0, WAIT_TAKEN, WAIT_SENT, WAIT_DONE };

struct client_wait {
	_Atomic uint32_t state; /* enum wait_state, a futex.  The caller takes,
	                           fills in, sends and frees; the fence thread
	                           makes SENT to DONE */
	int32_t error;          /* valid when DONE; written by the fence */
	uint64_t cookie;        /* slot number + CLIENT_WAITS * a count > 0, so
	                           never 0, which is DETACH's; by the caller */
};

/* --- the fence thread ---------------------------------------------------- */

enum fence_state {
	FENCE_STARTING = 0,
	FENCE_READY,  /* has its own descriptors; waits for one of the next */
	FENCE_WATCH,  /* the attachment stands */
	FENCE_QUIT,   /* it will not: end */
	FENCE_FAILED, /* could not start; fence.error says why */
};

enum detach_state {
	DETACH_NO = 0,
	DETACH_ASKED, /* the caller cannot send: the fence shall */
	DETACH_SENT,
	DETACH_DONE,     /* the node holds nothing any more */
	DETACH_GIVEN_UP, /* the node may still hold userfaultfds */
};

struct client_fence {
	pthread_t thread;
	bool started;            /* `thread` is to be joined; by the caller */
	_Atomic uint32_t state;  /* enum fence_state, a futex */
	_Atomic uint32_t detach; /* enum detach_state */
	int error;               /* of FENCE_FAILED: -errno */
	/* The rest is the fence thread's own. */
	int timer;              /* timerfd of CLOCK_BOOTTIME */
	volatile uint8_t *trap; /* a page whose every access is SIGBUS */
	bool lapsed;            /* the lease is over, the entries are dropped */
	uint64_t lapsed_ns;     /* when we saw that; CLOCK_BOOTTIME */
	uint64_t detach_ns;     /* when we first saw a detach; 0: none yet */
	/* Why to end the process; "" while there is no reason. */
	char ended[sizeof(((struct local_msg *)NULL)->text)];
};

/* --- one attachment ------------------------------------------------------ */

struct memspan {
	/* Set by attach, constant while the attachment stands. */
	uint8_t *addr;                /* NULL: not mapped yet */
	uint64_t bytes;               /* of the mapping */
	uint64_t offset, space_bytes; /* its place in the space, whose size */
	uint32_t cut;                 /* stripes of the whole space */
	uint32_t first, stripes;      /* those that the mapping touches */
	uint32_t mode;                /* LOCAL_MODE_* */
	uint32_t node, space;
	uint64_t lease_ns;
	const struct local_lease *lease; /* the node's; read-only */
	const struct local_notes *notes; /* the node's; read-only */
	char name[LOCAL_NAME_BYTES];
	pid_t pid;   /* of the process that attached: a child is another */
	bool handed; /* the node may have our userfaultfds */

	int sock; /* numbers in the program's table, which may have */
	int uffd[STRIPES_MAX]; /* closed them since; -1: none.  uffd[i] is
	                          stripe first + i's */
	dev_t sock_dev; /* so sends look first whether sock is still this one */
	ino_t sock_ino;

	_Atomic uint64_t wait_count; /* makes cookies unique */
	_Atomic uint32_t wait_freed; /* a futex: counts slots given back */
	struct client_wait waits[CLIENT_WAITS];

	struct client_fence fence;
};

/* A part of a space, mapped as the caller of mmap(2) wants it. */
struct client_part {
	uint64_t offset, bytes; /* whole pages of the space, bytes > 0 */
	void *addr;             /* as mmap(2) has these three; `flags` are added
	                           to MAP_SHARED, and must not populate */
	int flags;
	int prot;
	dev_t dev; /* the memory that is meant: another one that the node has */
	ino_t ino; /* by that name is refused (-ESTALE) */
};

struct client_options {
	const char *node_socket; /* NULL: see memspan_attach() */
	const char *space;
	uint64_t timeout_ns; /* for the whole of it; 0: CLIENT_TIMEOUT_NS */
	const struct client_part *part; /* NULL: all of it, anywhere, to read
	                                   and write */
};

/*
 * memspan_attach() with options.  Returns what it returns; the sentence is in
 * `em`.
 */
int client_attach(const struct client_options *opt, struct memspan **ret,
                  struct errmsg *em);

/* What somebody holds who has others map a space (LOCAL_OPEN). */
struct client_opened {
	int memory; /* the space's memfd, closed on exec */
	int sock;   /* while it is open the space is not deleted; as above */
	uint64_t bytes;
};

/*
 * Get a space's memory from the node at `path`, for programs that will map it
 * by an attachment of their own.  Waits 10 s at most.  Returns 0, or -errno as
 * memspan_attach() with *ret untouched.
 */
int client_open(const char *path, const char *space, struct client_opened *ret,
                struct errmsg *em);

/*
 * The first half of memspan_detach(): the node is told, and this returns when
 * it has let go, or will not answer (m->handed says which), and the fence has
 * ended.  The mapping is still there, but nothing guards it.
 */
void client_leave(struct memspan *m);

/* As memspan_discard(), wherever in the space. */
int client_discard(struct memspan *m, uint64_t offset, uint64_t bytes);

/*
 * Release everything of a whole or half-built attachment.  Tells the node
 * nothing: memspan_detach() does.  When the node may still hold userfaultfds,
 * the addresses stay reserved [A10].  Takes NULL; returns NULL.
 */
struct memspan *client_free(struct memspan *m);
DEFINE_AUTO(struct memspan, client_free)

/* The lowest address of the CLIENT_STACK_BYTES for the fence thread. */
void *client_stack(struct memspan *m);

/* --- for the benchmark --------------------------------------------------- */

/* What the node did for each thread; valid until memspan_detach(). */
const struct local_notes *memspan_notes(const struct memspan *m);
const struct local_lease *memspan_lease(const struct memspan *m);
/* The coordinator's numbers of the node that serves us, and of the space. */
node_id memspan_node(const struct memspan *m);
space_id memspan_space(const struct memspan *m);
/* The slot of the calling thread in memspan_notes(): its present value. */
uint32_t memspan_note(const struct memspan *m);

/* --- talk.c -------------------------------------------------------------- */

#define TALK_FDS_MAX STRIPES_MAX

/*
 * The socket that NULL stands for.  Returns 0 with the path in `path`, -EINVAL
 * if there are several (listed in `em`), -ECONNREFUSED if there is none.
 */
int talk_default_socket(char *path, size_t path_bytes, struct errmsg *em);

/*
 * Connect, before `deadline_ns` (CLOCK_MONOTONIC).  Returns a nonblocking
 * descriptor with a high number, or -errno as memspan_attach() has it.
 */
int talk_connect(const char *path, uint64_t deadline_ns, struct errmsg *em);

/* A packet of that type, all else zero. */
struct local_msg talk_msg(enum local_type type);

/*
 * Send one packet with `n` descriptors.  Waits until `deadline_ns`; 0: returns
 * -EAGAIN instead of waiting, UINT64_MAX: no end.  Returns 0, -EAGAIN,
 * -ETIMEDOUT, or -ENOTCONN when the node is gone.
 */
int talk_send(int sock, const struct local_msg *msg, const int *fds, unsigned n,
              uint64_t deadline_ns);

/*
 * Receive one packet, and exactly `n` descriptors with it if it is of type
 * `with_fds` (0: with none).  Waiting as talk_send().  Returns 0; -ENOTCONN
 * when the node is gone; -EPROTONOSUPPORT for what is no packet of our version;
 * -EMFILE if the descriptors could not be received; -EAGAIN, -ETIMEDOUT.
 */
int talk_recv(int sock, struct local_msg *msg, enum local_type with_fds,
              int *fds, unsigned n, uint64_t deadline_ns);

/* Move *fd to a high number, out of the program's way.  Stays if it cannot. */
void talk_raise(int *fd);

uint64_t talk_now(clockid_t clock);

/* --- watch.c ------------------------------------------------------------- */

/*
 * Map m->bytes of the memfd from m->offset on without access, set apart from
 * fork, dumps and huge pages.  `addr` and `flags` as mmap(2) has them.
 */
int watch_map(struct memspan *m, int memfd, void *addr, int flags,
              struct errmsg *em);
/* Work out which stripes the mapping touches.  After m->offset, m->bytes. */
void watch_cut(struct memspan *m);
/* One userfaultfd per stripe that is mapped, registered as the mode says. */
int watch_register(struct memspan *m, struct errmsg *em);
/* Let the program in, as `prot` says.  After the node said READY. */
int watch_open(struct memspan *m, int prot, struct errmsg *em);

/*
 * What the fence does when the lease is over, by its thread alone; allocates
 * nothing.  watch_fence() is called once each time, watch_drop() then and again
 * and again.  Dropped entries leave the bytes in the memfd, and every access
 * waits as a MINOR fault.
 *
 * Where the mode has no MINOR, watch_fence() registers it [A3], and for good:
 * registering with less changes nothing (the kernel skips a range that has what
 * is asked for), and to unregister first would leave the mapping unwatched for
 * a moment.  The node sees MINOR faults from then on.
 *
 * Return 0 or -errno; after a failure the mapping may still give access.
 */
int watch_fence(struct memspan *m);
int watch_drop(struct memspan *m);

/*
 * Give the mapping up: unmap it, or, while the node may still hold userfaultfds
 * of it, leave the addresses reserved without memory.
 */
void watch_unmap(struct memspan *m);

/* --- fence.c ------------------------------------------------------------- */

/*
 * Start the thread; it has taken copies of m's descriptors when this returns.
 * Returns 0 or -errno (-ENOMEM, -ENOSYS, -EMFILE).
 */
int fence_start(struct memspan *m, struct errmsg *em);
/* From now on the process ends when the node does. */
void fence_watch(struct memspan *m);
/* End the thread, if it never watched or a detach came to its end. */
void fence_stop(struct memspan *m);

/* --- futexes, within this process ---------------------------------------- */

void client_futex_wait(_Atomic uint32_t *at, uint32_t while_value);
void client_futex_wake(_Atomic uint32_t *at, uint32_t n);
