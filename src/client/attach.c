/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attaching a space, in an order that is a promise [A12]:
 *
 *	1  ATTACH, and the node's SPACE with memfd, lease page and notes
 *	2  map the memfd without access; DONTFORK, DONTDUMP, NOHUGEPAGE
 *	3  one userfaultfd for each stripe, registered
 *	4  the fence thread starts, with copies of all descriptors
 *	5  MAPPED with the userfaultfds; wait for READY
 *	6  the fence watches; only now the mapping gives access
 *
 * From step 5 on the node may have our userfaultfds, and the addresses may be
 * used for something else only after it said that it let go: see client_free().
 */

#include "client/client.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/un.h>

enum { FD_MEMORY, FD_LEASE, FD_NOTES, N_FDS }; /* with SPACE, in this order */

/* --- memory of an attachment --------------------------------------------- */

/*
 * One block: a page without access, the fence thread's stack, the struct.  So
 * all that the thread needs is locked by one call.
 */
#define STRUCT_BYTES \
	((sizeof(struct memspan) + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES)
#define BLOCK_BYTES (PAGE_BYTES + CLIENT_STACK_BYTES + STRUCT_BYTES)

static uint8_t *block_of(struct memspan *m)
{
	return (uint8_t *)m - CLIENT_STACK_BYTES - PAGE_BYTES;
}

void *client_stack(struct memspan *m)
{
	return block_of(m) + PAGE_BYTES;
}

static struct memspan *client_new(const char *name)
{
	uint8_t *block;
	struct memspan *m;

	block = mmap(NULL, BLOCK_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
	             -1, 0);
	if (block == MAP_FAILED)
		return NULL;
	if (mprotect(block + PAGE_BYTES, BLOCK_BYTES - PAGE_BYTES,
	             PROT_READ | PROT_WRITE) < 0) {
		munmap(block, BLOCK_BYTES);
		return NULL;
	}
	/* Where RLIMIT_MEMLOCK forbids it, the fence may be late by the time
	 * that swapping its stack in takes. */
	(void)mlock(block + PAGE_BYTES, BLOCK_BYTES - PAGE_BYTES);
	m = (struct memspan *)(void *)(block + PAGE_BYTES + CLIENT_STACK_BYTES);
	m->pid = getpid();
	m->sock = -1;
	for (uint32_t i = 0; i < STRIPES_MAX; i++)
		m->uffd[i] = -1;
	m->fence.timer = -1;
	snprintf(m->name, sizeof(m->name), "%s", name);
	return m;
}

/*
 * Close a number of ours unless the program has closed it, against the rules,
 * and it is something else's by now.
 */
static void close_userfaultfd(int fd)
{
	char path[40], is[40];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, is, sizeof(is) - 1);
	/* Without /proc we cannot know, and are most likely right. */
	if (n < 0 ? access("/proc/self/fd", F_OK) < 0 :
	            n == (ssize_t)strlen("anon_inode:[userfaultfd]") &&
	                    memcmp(is, "anon_inode:[userfaultfd]", (size_t)n) ==
	                            0)
		close(fd);
}

static void close_socket(const struct memspan *m)
{
	struct stat st;

	if (fstat(m->sock, &st) == 0 && st.st_dev == m->sock_dev &&
	    st.st_ino == m->sock_ino)
		close(m->sock);
}

struct memspan *client_free(struct memspan *m)
{
	if (!m)
		return NULL;
	if (m->pid == getpid()) {
		fence_stop(m);
		watch_unmap(m);
	} /* else a child, which has neither the thread nor the mapping */
	for (uint32_t i = 0; i < STRIPES_MAX; i++)
		if (m->uffd[i] >= 0)
			close_userfaultfd(m->uffd[i]);
	if (m->sock >= 0)
		close_socket(m);
	if (m->lease)
		munmap((void *)(uintptr_t)m->lease, sizeof(*m->lease));
	if (m->notes)
		munmap((void *)(uintptr_t)m->notes, sizeof(*m->notes));
	munmap(block_of(m), BLOCK_BYTES);
	return NULL;
}

/* --- the node's answers -------------------------------------------------- */

static int no_answer(int r, const char *path, const char *when,
                     struct errmsg *em)
{
	switch (r) {
	case -ETIMEDOUT:
		return errmsg_say(em, r,
		                  "the node at %s does not answer (%s); it may "
		                  "be stopped or cut off: see 'memspan status' "
		                  "and its log",
		                  path, when);
	case -ENOTCONN:
		return errmsg_say(em, -ECONNREFUSED,
		                  "the node at %s closed the connection (%s); "
		                  "see its log",
		                  path, when);
	case -EMFILE:
		return errmsg_say(em, r,
		                  "RLIMIT_NOFILE leaves too few descriptors to "
		                  "talk to the node at %s; raise ulimit -n",
		                  path);
	case -EPROTONOSUPPORT:
		return errmsg_say(em, r,
		                  "the node at %s and this libmemspan (%s) do "
		                  "not speak the same version; install both "
		                  "from one release",
		                  path, MEMSPAN_VERSION);
	default:
		return errmsg_set(em, r, "cannot talk to the node at %s (%s)",
		                  path, when);
	}
}

/* Wait for a packet of type `want`. */
static int expect(struct memspan *m, enum local_type want, const char *path,
                  const char *when, struct local_msg *msg, int *fds, unsigned n,
                  uint64_t deadline_ns, struct errmsg *em)
{
	int r;

	r = talk_recv(m->sock, msg, n > 0 ? want : 0, fds, n, deadline_ns);
	if (r < 0)
		return no_answer(r, path, when, em);
	if (msg->type == (uint32_t)want)
		return 0;
	if (msg->type != LOCAL_REFUSED && msg->type != LOCAL_ENDED)
		return no_answer(-EPROTONOSUPPORT, path, when, em);
	m->handed = false; /* refusing, it keeps nothing */
	r = msg->error < 0 && msg->error > -4096 ? msg->error : -ECONNREFUSED;
	if (msg->text[0] != '\0')
		return errmsg_say(em, r, "%s", msg->text);
	return errmsg_set(em, r, "the node at %s refuses space %s", path,
	                  m->name);
}

/* Map `bytes` of a page that the node shares; NULL if it is too short. */
static const void *map_shared(int fd, size_t bytes)
{
	struct stat st;
	void *p;

	if (fstat(fd, &st) < 0 || (uint64_t)st.st_size < bytes)
		return NULL;
	p = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
	return p == MAP_FAILED ? NULL : p;
}

/* Is the memory, and the part of it, what the caller of mmap(2) means? */
static int take_part(struct memspan *m, const struct client_part *part,
                     const struct stat *memory, struct errmsg *em)
{
	m->offset = part ? part->offset : 0;
	m->bytes = part ? part->bytes : m->space_bytes;
	if (part &&
	    (memory->st_dev != part->dev || memory->st_ino != part->ino))
		return errmsg_say(em, -ESTALE,
		                  "space %s was deleted and made anew, or its "
		                  "node was, since this program was given its "
		                  "descriptor; start the program again",
		                  m->name);
	if (m->offset > m->space_bytes || m->bytes > m->space_bytes - m->offset)
		return errmsg_say(em, -EINVAL,
		                  "the mapping reaches beyond the end of space "
		                  "%s, which has %llu bytes",
		                  m->name, (unsigned long long)m->space_bytes);
	watch_cut(m);
	return 0;
}

/* Take over what SPACE says, or refuse it whole: the node may be anything. */
static int take_space(struct memspan *m, const struct local_msg *msg,
                      const int fds[N_FDS], const struct client_part *part,
                      const char *path, struct errmsg *em)
{
	uint64_t extents =
		msg->size_bytes / ((uint64_t)EXTENT_PAGES * PAGE_BYTES);
	struct stat st;

	if (msg->size_bytes == 0 || msg->size_bytes % PAGE_BYTES != 0 ||
	    msg->stripes == 0 || msg->stripes > STRIPES_MAX ||
	    msg->stripes > max_u64(extents, 1) ||
	    (msg->mode & ~(uint32_t)LOCAL_MODE_MINOR) != 0 ||
	    fstat(fds[FD_MEMORY], &st) < 0 ||
	    (uint64_t)st.st_size != msg->size_bytes)
		return no_answer(-EPROTONOSUPPORT, path, "SPACE", em);
	m->space_bytes = msg->size_bytes;
	m->cut = msg->stripes;
	m->mode = msg->mode;
	m->node = msg->node;
	m->space = msg->space;
	m->lease_ns = msg->lease_ns;
	m->lease = map_shared(fds[FD_LEASE], sizeof(*m->lease));
	m->notes = map_shared(fds[FD_NOTES], sizeof(*m->notes));
	if (!m->lease || !m->notes)
		return errmsg_say(em, -ENOMEM,
		                  "cannot map the pages that the node at %s "
		                  "shares",
		                  path);
	if (m->lease->magic != LOCAL_MAGIC ||
	    m->lease->version != LOCAL_VERSION)
		return no_answer(-EPROTONOSUPPORT, path, "lease page", em);
	(void)mlock(m->lease, sizeof(*m->lease)); /* the fence reads it */
	return take_part(m, part, &st, em);
}

/* --- the steps ----------------------------------------------------------- */

static int connect_to(struct memspan *m, const char *path, uint64_t deadline_ns,
                      struct errmsg *em)
{
	struct stat st;
	int r;

	r = talk_connect(path, deadline_ns, em);
	if (r < 0)
		return r;
	m->sock = r;
	if (fstat(m->sock, &st) < 0)
		return errmsg_set(em, -errno, "cannot look at a socket");
	m->sock_dev = st.st_dev;
	m->sock_ino = st.st_ino;
	return 0;
}

/* Steps 1 and 2. */
static int ask(struct memspan *m, const struct client_part *part,
               const char *path, uint64_t deadline_ns, struct errmsg *em)
{
	struct local_msg msg = talk_msg(LOCAL_ATTACH);
	int fds[N_FDS];
	int r;

	snprintf(msg.text, sizeof(msg.text), "%s", m->name);
	r = talk_send(m->sock, &msg, NULL, 0, deadline_ns);
	if (r < 0)
		return no_answer(r, path, "ATTACH", em);
	r = expect(m, LOCAL_SPACE, path, "ATTACH", &msg, fds, N_FDS,
	           deadline_ns, em);
	if (r < 0)
		return r;
	r = take_space(m, &msg, fds, part, path, em);
	if (r == 0)
		r = watch_map(m, fds[FD_MEMORY], part ? part->addr : NULL,
		              part ? part->flags : 0, em);
	for (unsigned i = 0; i < N_FDS; i++)
		close(fds[i]); /* the mappings keep them */
	return r;
}

/* Step 5. */
static int hand_over(struct memspan *m, const char *path, uint64_t deadline_ns,
                     struct errmsg *em)
{
	struct local_msg msg = talk_msg(LOCAL_MAPPED);
	int r;

	msg.base = (uintptr_t)m->addr;
	msg.offset = m->offset;
	msg.bytes = m->bytes;
	m->handed = true;
	r = talk_send(m->sock, &msg, m->uffd, m->stripes, deadline_ns);
	if (r < 0) {
		m->handed = false; /* all of a packet or nothing */
		return no_answer(r, path, "MAPPED", em);
	}
	return expect(m, LOCAL_READY, path, "MAPPED", &msg, NULL, 0,
	              deadline_ns, em);
}

static int steps(struct memspan *m, const struct client_part *part,
                 const char *path, uint64_t deadline_ns, struct errmsg *em)
{
	int r;

	r = connect_to(m, path, deadline_ns, em);
	if (r == 0)
		r = ask(m, part, path, deadline_ns, em);
	if (r == 0)
		r = watch_register(m, em);
	if (r == 0)
		r = fence_start(m, em);
	if (r == 0)
		r = hand_over(m, path, deadline_ns, em);
	return r;
}

/* Check the name, and make what an attachment of it needs. */
static int new_named(const char *space, struct memspan **ret, struct errmsg *em)
{
	if (!space || space[0] == '\0')
		return errmsg_say(em, -EINVAL, "the space has no name");
	if (strlen(space) >= LOCAL_NAME_BYTES)
		return errmsg_say(
			em, -EINVAL,
			"the name of a space has at most %u bytes: %s",
			LOCAL_NAME_BYTES - 1, space);
	*ret = client_new(space);
	if (!*ret)
		return errmsg_set(em, -ENOMEM, "cannot attach space %s", space);
	return 0;
}

int client_attach(const struct client_options *opt, struct memspan **ret,
                  struct errmsg *em)
{
	uint64_t deadline_ns =
		talk_now(CLOCK_MONOTONIC) +
		(opt->timeout_ns > 0 ? opt->timeout_ns : CLIENT_TIMEOUT_NS);
	char found[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	const char *path = opt->node_socket;
	AUTO(client_free) struct memspan *m = NULL;
	int r;

	r = new_named(opt->space, &m, em);
	if (r == 0 && !path) {
		r = talk_default_socket(found, sizeof(found), em);
		path = found;
	}
	if (r == 0)
		r = steps(m, opt->part, path, deadline_ns, em);
	if (r < 0)
		return r;
	fence_watch(m);
	r = watch_open(m, opt->part ? opt->part->prot : PROT_READ | PROT_WRITE,
	               em);
	if (r < 0) {
		memspan_detach(TAKE_PTR(m)); /* the node is told first */
		return r;
	}
	*ret = TAKE_PTR(m);
	return 0;
}

int client_open(const char *path, const char *space, struct client_opened *ret,
                struct errmsg *em)
{
	uint64_t deadline_ns = talk_now(CLOCK_MONOTONIC) + CLIENT_TIMEOUT_NS;
	struct local_msg msg = talk_msg(LOCAL_OPEN);
	AUTO(client_free) struct memspan *m = NULL;
	AUTO_CLOSE int memory = -1;
	int r;

	r = new_named(space, &m, em);
	if (r == 0)
		r = connect_to(m, path, deadline_ns, em);
	if (r < 0)
		return r;
	snprintf(msg.text, sizeof(msg.text), "%s", m->name);
	r = talk_send(m->sock, &msg, NULL, 0, deadline_ns);
	if (r < 0)
		return no_answer(r, path, "OPEN", em);
	r = expect(m, LOCAL_OPENED, path, "OPEN", &msg, &memory, 1, deadline_ns,
	           em);
	if (r < 0)
		return r;
	*ret = (struct client_opened){ .memory = TAKE_FD(memory),
		                       .sock = TAKE_FD(m->sock),
		                       .bytes = msg.size_bytes };
	return 0;
}

int memspan_attach(const char *node_socket, const char *space, unsigned flags,
                   struct memspan **ret, char *why, size_t why_bytes)
{
	const struct client_options opt = { .node_socket = node_socket,
		                            .space = space };
	struct errmsg em = { "" };
	int cancel, r;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	if (flags != 0 || !ret)
		r = errmsg_say(&em, -EINVAL,
		               "memspan_attach() takes no flags yet, and needs "
		               "a place for its result");
	else
		r = client_attach(&opt, ret, &em);
	pthread_setcancelstate(cancel, NULL);
	if (r < 0 && why && why_bytes > 0)
		snprintf(why, why_bytes, "%s", em.text);
	return r;
}
