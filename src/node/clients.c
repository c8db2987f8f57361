/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The clients' sockets (wire/local.h): attach, discard, prefetch, detach.
 *
 * One connection is one mapping of a space, or a part of it.  Its life:
 *
 *	NEW      --ATTACH-->   OFFERED   --MAPPED-->   JOINING (the shards take
 *	its userfaultfds) -->  SERVED  --DETACH, or the socket closes-->
 *	LEAVING (the shards let go) -->  gone
 *
 * or of somebody who has others map it:
 *
 *	NEW      --OPEN-->     OPENED   --the socket closes-->  gone
 *
 * The node closes every userfaultfd before it answers DETACH: the kernel does
 * not check whose mapping an ioctl hits, and the client may map something else
 * there next [A10].  A packet that makes no sense ends the connection, nothing
 * else.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/log.h"
#include "node/control.h"

enum conn_state {
	CONN_NEW,
	CONN_OPENED,
	CONN_OFFERED,
	CONN_JOINING,
	CONN_SERVED,
	CONN_LEAVING
};

struct conn {
	struct loop_io io;
	struct control *control;
	struct conn *next;
	enum conn_state state;
	struct client *client; /* from OFFERED on */
	struct space *opened;  /* in OPENED */
	int notes_fd;
	unsigned letters; /* of join or leave, not answered yet */
	unsigned jobs;    /* discards and prefetches under way */
	int join_result;
	bool gone;     /* the socket is closed */
	bool say_done; /* DETACH wants its DONE */
	struct shard_letter letter[SHARDS_MAX];
};

#define FDS_MAX STRIPES_MAX
/* Out of descriptors: new clients wait so long before we look again. */
#define LISTEN_PAUSE_NS (100 * NSEC_PER_MSEC)

/* --- packets ----------------------------------------------------------- */

static void tell(struct conn *k, struct local_msg *m, const int *fds,
                 unsigned n_fds)
{
	char room[CMSG_SPACE(4 * sizeof(int))];
	struct iovec iov = { .iov_base = m, .iov_len = sizeof(*m) };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };

	m->magic = LOCAL_MAGIC;
	m->version = LOCAL_VERSION;
	if (n_fds > 0) {
		struct cmsghdr *c;

		memset(room, 0, sizeof(room));
		h.msg_control = room;
		h.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		c = CMSG_FIRSTHDR(&h);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
	}
	/* A client that does not read misses its answers, nobody else's. */
	(void)sendmsg(k->io.fd, &h, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void refuse(struct conn *k, int error, const char *text)
{
	struct local_msg m = { .type = LOCAL_REFUSED, .error = error };

	snprintf(m.text, sizeof(m.text), "%s", text);
	tell(k, &m, NULL, 0);
}

/* --- end of a connection ----------------------------------------------- */

static void conn_free(struct conn *k)
{
	struct control *c = k->control;
	struct conn **p = &c->conns;

	while (*p != k)
		p = &(*p)->next;
	*p = k->next;
	c->n_conns--;
	free(k);
}

static void client_free(struct conn *k)
{
	struct client *cl = k->client;

	if (cl == NULL)
		return;
	for (unsigned i = 0; i < STRIPES_MAX; i++)
		uffd_free(cl->stripe[i]); /* those that no shard took */
	if (cl->notes != NULL)
		munmap(cl->notes, sizeof(*cl->notes));
	if (k->notes_fd >= 0)
		close(k->notes_fd);
	atomic_fetch_sub(&cl->space->n_clients, 1);
	atomic_fetch_sub(&k->control->node->n_clients, 1);
	free(cl);
	k->client = NULL;
	k->notes_fd = -1;
}

static void conn_maybe_free(struct conn *k)
{
	if (k->gone && k->letters == 0 && k->jobs == 0) {
		client_free(k);
		if (k->opened != NULL)
			k->opened->n_opened--;
		conn_free(k);
	}
}

static void left(struct shard_letter *l)
{
	struct conn *k = l->owner;
	struct local_msg m = { .type = LOCAL_DONE };

	if (--k->letters > 0)
		return;
	if (k->jobs == 0)
		client_free(k);
	if (!k->gone) {
		/* Told only now: who hears it unmaps what was mapped. */
		if (k->join_result < 0)
			refuse(k, k->join_result,
			       "the node cannot take the mapping: no memory or "
			       "descriptors; raise its limits");
		k->state = CONN_NEW;
		k->join_result = 0;
		if (k->say_done)
			tell(k, &m, NULL, 0);
		k->say_done = false;
	}
	conn_maybe_free(k);
}

static void ask_shards(struct conn *k, void (*done)(struct shard_letter *),
                       void (*send)(struct shard *, struct shard_letter *))
{
	struct node *n = k->control->node;

	k->letters = n->cfg.shards;
	for (unsigned i = 0; i < n->cfg.shards; i++) {
		k->letter[i] =
			(struct shard_letter){ .owner = k,
			                       .node = n,
			                       .client = k->client,
			                       .space = k->client->space,
			                       .done = done,
			                       .reply_to = k->control->loop };
		send(n->shard[i], &k->letter[i]);
	}
}

static void leave(struct conn *k)
{
	k->state = CONN_LEAVING;
	ask_shards(k, left, shard_detach);
}

static void conn_close(struct conn *k)
{
	if (k->gone)
		return;
	loop_remove(k->control->loop, &k->io);
	close(k->io.fd);
	k->io.fd = -1;
	k->gone = true;
	if (k->state == CONN_SERVED)
		leave(k);
	/* JOINING: joined() sees `gone` and leaves. */
	conn_maybe_free(k);
}

/* --- attach ------------------------------------------------------------ */

/* A page of ours that the client may map, but not change. */
static int make_notes(struct client *cl, int *ret_fd)
{
	AUTO_CLOSE int fd =
		memfd_create("memspan-notes", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	void *p;

	if (fd < 0 || ftruncate(fd, sizeof(struct local_notes)) < 0)
		return -errno;
	p = mmap(NULL, sizeof(struct local_notes), PROT_READ | PROT_WRITE,
	         MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	cl->notes = p;
	if (fcntl(fd, F_ADD_SEALS,
	          F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE |
	                  F_SEAL_SEAL) < 0)
		return -errno;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* A slot of the space that no client of it has, or CLIENTS_PER_SPACE. */
static unsigned free_slot(struct control *c, const struct space *sp)
{
	uint64_t used = 0;
	unsigned slot = 0;

	for (struct conn *k = c->conns; k != NULL; k = k->next)
		if (k->client != NULL && k->client->space == sp)
			used |= 1ull << k->client->slot;
	while (slot < CLIENTS_PER_SPACE && (used >> slot & 1) != 0)
		slot++;
	return slot;
}

/* The space that a client names, or NULL: it has been told. */
static struct space *named_space(struct conn *k, const char *name)
{
	struct space *sp = control_find(k->control, name);

	if (sp != NULL && !sp->dropping)
		return sp;
	refuse(k, -ENOENT,
	       "there is no space of this name; make it with `memspan space "
	       "create`");
	return NULL;
}

static void on_open(struct conn *k, const struct local_msg *in)
{
	struct space *sp = named_space(k, in->text);
	struct local_msg m = { .type = LOCAL_OPENED };

	if (sp == NULL)
		return;
	m.size_bytes = sp->bytes;
	m.node = k->control->node->id;
	m.space = sp->id;
	k->opened = sp;
	sp->n_opened++;
	k->state = CONN_OPENED;
	tell(k, &m, &sp->mem.fd, 1);
}

static void on_attach(struct conn *k, const struct local_msg *in)
{
	struct control *c = k->control;
	struct node *n = c->node;
	struct space *sp = named_space(k, in->text);
	struct local_msg m = { .type = LOCAL_SPACE };
	struct client *cl;
	int fds[3];
	unsigned slot;

	if (sp == NULL)
		return;
	slot = free_slot(c, sp);
	cl = slot < CLIENTS_PER_SPACE ? calloc(1, sizeof(*cl)) : NULL;
	if (cl == NULL) {
		refuse(k, -ENOMEM,
		       "this node serves no more clients of this space (64 at "
		       "once); detach one, or attach on another node");
		return;
	}
	*cl = (struct client){ .number = ++c->clients_made,
		               .space = sp,
		               .slot = (uint8_t)slot };
	k->client = cl;
	atomic_fetch_add(&sp->n_clients, 1);
	atomic_fetch_add(&n->n_clients, 1);
	if (make_notes(cl, &k->notes_fd) < 0) {
		client_free(k);
		refuse(k, -ENOMEM, "the node has no memory for a client");
		return;
	}
	m.size_bytes = sp->bytes;
	m.lease_ns = n->lease_ns;
	m.stripes = sp->cut.stripes;
	m.mode = n->features.minor_wp ? LOCAL_MODE_MINOR : 0;
	m.node = n->id;
	m.space = sp->id;
	fds[0] = sp->mem.fd;
	fds[1] = n->lease_fd;
	fds[2] = k->notes_fd;
	k->state = CONN_OFFERED;
	tell(k, &m, fds, 3);
}

static void joined(struct shard_letter *l)
{
	struct conn *k = l->owner;
	struct local_msg m = { .type = LOCAL_READY };

	if (l->result < 0)
		k->join_result = l->result;
	if (--k->letters > 0)
		return;
	if (k->join_result < 0 || k->gone) {
		leave(k);
		return;
	}
	k->state = CONN_SERVED;
	tell(k, &m, NULL, 0);
}

/*
 * A userfaultfd that reports events makes our ioctls fail while one is unread,
 * for as long as its client likes, and write-protecting must not fail; and it
 * gives us a descriptor with every fork [B6].  Without /proc we do not know.
 */
static bool reports_events(int fd)
{
	const unsigned events =
		UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP |
		UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP;
	unsigned features, all = 0;
	char line[128];
	FILE *f;

	snprintf(line, sizeof(line), "/proc/self/fdinfo/%d", fd);
	f = fopen(line, "re");
	if (f == NULL)
		return false;
	while (fgets(line, sizeof(line), f) != NULL)
		if (sscanf(line, "API: %*x:%x", &features) == 1)
			all |= features;
	fclose(f);
	return (all & events) != 0;
}

/* Is what MAPPED names a part of the space, in whole pages? */
static bool is_part(const struct local_msg *in, const struct space *sp)
{
	return (in->base | in->offset | in->bytes) % PAGE_BYTES == 0 &&
	       in->bytes > 0 && in->offset < sp->bytes &&
	       in->bytes <= sp->bytes - in->offset;
}

/* Take the client's userfaultfds, one per stripe that it maps, in order. */
static int take_stripes(struct conn *k, const struct local_msg *in, int *fds,
                        unsigned n_fds)
{
	struct node *n = k->control->node;
	struct client *cl = k->client;
	const struct cut *cut = &cl->space->cut;
	gpn_t from = in->offset / PAGE_BYTES;
	gpn_t to = from + in->bytes / PAGE_BYTES;
	uint32_t first;

	if (!is_part(in, cl->space))
		return -EINVAL;
	first = cut_stripe_of_page(cut, from);
	if (n_fds != cut_stripe_of_page(cut, to - 1) - first + 1)
		return -EINVAL;
	for (uint32_t i = first; i < first + n_fds; i++) {
		gpn_t page = max_u64(cut_stripe_first(cut, i), from);
		struct uffd_config uc = {
			.fd = TAKE_FD(fds[i - first]),
			.base = in->base + (page - from) * PAGE_BYTES,
			.first = page,
			.pages = min_u64(cut_stripe_end(cut, i), to) - page,
			.features = n->features,
		};
		int r = reports_events(uc.fd) ? -EINVAL : 0;

		if (r < 0)
			close(uc.fd);
		else
			r = uffd_adopt(&uc, &cl->stripe[i], NULL);
		if (r < 0)
			return r;
	}
	return 0;
}

static void on_mapped(struct conn *k, const struct local_msg *in, int *fds,
                      unsigned n_fds)
{
	int r = take_stripes(k, in, fds, n_fds);

	if (r < 0) {
		refuse(k, r,
		       "the mapping does not fit the space, or a descriptor is "
		       "no userfaultfd, or one that reports events: is the "
		       "library of another release?");
		client_free(k);
		k->state = CONN_NEW;
		return;
	}
	k->state = CONN_JOINING;
	k->join_result = 0;
	ask_shards(k, joined, shard_attach);
}

/* --- ranges ------------------------------------------------------------ */

struct job {
	struct conn *conn;
	struct local_msg answer;
	bool answers;
	unsigned left;
	struct shard_letter letter[SHARDS_MAX];
};

static void job_done(struct shard_letter *l)
{
	struct job *j = l->owner;
	struct conn *k = j->conn;

	if (l->result < 0)
		j->answer.error = l->result;
	if (--j->left > 0)
		return;
	if (j->answers && !k->gone)
		tell(k, &j->answer, NULL, 0);
	k->jobs--;
	free(j);
	if (k->jobs == 0 && k->letters == 0 && k->state == CONN_NEW)
		client_free(k); /* it detached meanwhile */
	conn_maybe_free(k);
}

static void on_range(struct conn *k, const struct local_msg *in)
{
	bool discard = in->type == LOCAL_DISCARD;
	struct node *n = k->control->node;
	struct space *sp = k->client->space;
	struct local_msg bad = { .type = LOCAL_DONE,
		                 .error = -EINVAL,
		                 .cookie = in->cookie };
	gpn_t first = in->offset / PAGE_BYTES;
	struct job *j;

	if (in->offset > sp->bytes || in->bytes > sp->bytes - in->offset ||
	    (discard &&
	     (in->offset % PAGE_BYTES != 0 || in->bytes % PAGE_BYTES != 0))) {
		if (discard)
			tell(k, &bad, NULL, 0);
		return;
	}
	j = calloc(1, sizeof(*j));
	if (j == NULL)
		return;
	j->conn = k;
	j->answers = discard;
	j->left = n->cfg.shards;
	j->answer =
		(struct local_msg){ .type = LOCAL_DONE, .cookie = in->cookie };
	k->jobs++;
	for (unsigned i = 0; i < n->cfg.shards; i++) {
		j->letter[i] = (struct shard_letter){
			.owner = j,
			.node = n,
			.client = k->client,
			.space = sp,
			.done = job_done,
			.reply_to = k->control->loop,
			.first = first,
			.pages = (in->offset + in->bytes + PAGE_BYTES - 1) /
			                 PAGE_BYTES -
			         first,
		};
		if (discard)
			shard_discard(n->shard[i], &j->letter[i]);
		else
			shard_prefetch(n->shard[i], &j->letter[i]);
	}
}

/* --- receiving --------------------------------------------------------- */

static bool sane(const struct local_msg *m)
{
	return m->magic == LOCAL_MAGIC && m->reserved[0] == 0 &&
	       m->reserved[1] == 0 &&
	       memchr(m->text, '\0', sizeof(m->text)) != NULL;
}

/* True: it was legal now. */
static bool on_packet(struct conn *k, const struct local_msg *m, int *fds,
                      unsigned n_fds)
{
	switch (k->state) {
	case CONN_NEW:
		if (k->jobs > 0)
			return false;
		if (m->type == LOCAL_ATTACH)
			on_attach(k, m);
		else if (m->type == LOCAL_OPEN)
			on_open(k, m);
		return m->type == LOCAL_ATTACH || m->type == LOCAL_OPEN;
	case CONN_OFFERED:
		if (m->type != LOCAL_MAPPED)
			return false;
		on_mapped(k, m, fds, n_fds);
		return true;
	case CONN_SERVED:
		if (m->type == LOCAL_PREFETCH || m->type == LOCAL_DISCARD) {
			on_range(k, m);
			return true;
		}
		if (m->type != LOCAL_DETACH)
			return false;
		k->say_done = true;
		leave(k);
		return true;
	case CONN_OPENED:
	case CONN_JOINING:
	case CONN_LEAVING:
		return false;
	}
	return false;
}

static unsigned take_fds(struct msghdr *h, int fds[FDS_MAX])
{
	unsigned n = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c != NULL;
	     c = CMSG_NXTHDR(h, c)) {
		unsigned here;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		here = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		for (unsigned i = 0; i < here; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (n < FDS_MAX)
				fds[n++] = fd;
			else
				close(fd);
		}
	}
	return n;
}

static void on_readable(struct loop_io *io, uint32_t events)
{
	struct conn *k = container_of(io, struct conn, io);
	char room[CMSG_SPACE(FDS_MAX * sizeof(int))];
	struct local_msg m;
	struct iovec iov = { .iov_base = &m, .iov_len = sizeof(m) };
	struct msghdr h = { .msg_iov = &iov,
		            .msg_iovlen = 1,
		            .msg_control = room,
		            .msg_controllen = sizeof(room) };
	ssize_t n = recvmsg(io->fd, &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	int fds[FDS_MAX];
	unsigned n_fds;
	bool good;

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		conn_close(k);
		return;
	}
	n_fds = take_fds(&h, fds);
	good = n == (ssize_t)sizeof(m) && (h.msg_flags & MSG_TRUNC) == 0 &&
	       sane(&m);
	if (good && m.version != LOCAL_VERSION) {
		refuse(k, -EPROTONOSUPPORT,
		       "memspan-node speaks another version of the client "
		       "protocol than this library: install both from the same "
		       "release");
		good = false;
	} else if (good && (h.msg_flags & MSG_CTRUNC) != 0) {
		refuse(k, -EMFILE,
		       "memspan-node has too few descriptors for this mapping: "
		       "start it with a higher limit (ulimit -n, or "
		       "LimitNOFILE)");
		good = false;
	} else if (good) {
		good = on_packet(k, &m, fds, n_fds);
	}
	for (unsigned i = 0; i < n_fds; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	if (!good)
		conn_close(k);
}

static void listen_later(struct control *c)
{
	timer_start(c->loop, &c->listen_again,
	            loop_now(c->loop) + LISTEN_PAUSE_NS);
}

static void listen_again(struct loop_timer *t)
{
	struct control *c = container_of(t, struct control, listen_again);

	if (loop_add(c->loop, &c->listener, EPOLLIN) < 0)
		listen_later(c);
}

static void on_connection(struct loop_io *io, uint32_t events)
{
	struct control *c = container_of(io, struct control, listener);
	int fd = accept4(io->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct conn *k;

	(void)events;
	if (fd < 0) {
		/* The connection stays there, and epoll would say so again at
		 * once and for ever. */
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM ||
		    errno == ENOBUFS) {
			loop_remove(c->loop, io);
			listen_later(c);
		}
		return;
	}
	k = c->n_conns < CONNS_MAX ? calloc(1, sizeof(*k)) : NULL;
	if (k == NULL) {
		close(fd);
		return;
	}
	k->control = c;
	k->io.fd = fd;
	k->io.ready = on_readable;
	k->notes_fd = -1;
	k->next = c->conns;
	c->conns = k;
	c->n_conns++;
	if (loop_add(c->loop, &k->io, EPOLLIN) < 0)
		conn_close(k);
}

/* --- letters, life ----------------------------------------------------- */

struct end_client_letter {
	struct mail mail;
	uint64_t client;
	char why[LOCAL_TEXT_BYTES];
};

static void end_client(struct mail *mail, void *arg)
{
	struct end_client_letter *e =
		container_of(mail, struct end_client_letter, mail);
	struct control *c = arg;

	for (struct conn *k = c->conns; k != NULL; k = k->next) {
		struct local_msg m = { .type = LOCAL_ENDED };

		if (k->gone || k->client == NULL ||
		    k->client->number != e->client)
			continue;
		snprintf(m.text, sizeof(m.text), "%s", e->why);
		tell(k, &m, NULL, 0);
		log_err("a client was ended", "client=%llu why=\"%s\"",
		        (unsigned long long)e->client, e->why);
	}
	free(e);
}

void control_end_client(struct control *c, struct client *client,
                        const char *why)
{
	struct end_client_letter *e;

	if (atomic_exchange(&client->ended, true))
		return;
	e = calloc(1, sizeof(*e));
	if (e == NULL)
		abort();
	e->client = client->number;
	snprintf(e->why, sizeof(e->why), "%s", why);
	e->mail.deliver = end_client;
	mbox_post(c->loop, &e->mail);
}

void clients_end_all(struct control *c, const char *why)
{
	for (struct conn *k = c->conns; k != NULL; k = k->next) {
		struct local_msg m = { .type = LOCAL_ENDED };

		if (k->gone || k->state != CONN_SERVED)
			continue;
		snprintf(m.text, sizeof(m.text), "%s", why);
		tell(k, &m, NULL, 0);
	}
}

void clients_close(struct control *c)
{
	/* The loop runs no more and the shards have stopped: only memory. */
	while (c->conns != NULL) {
		struct conn *k = c->conns;

		if (!k->gone)
			close(k->io.fd);
		client_free(k);
		c->conns = k->next;
		free(k);
	}
	if (c->listener.fd >= 0)
		close(c->listener.fd);
	c->listener.fd = -1;
}

static int socket_bind(const char *path, struct errmsg *em)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct stat st;
	AUTO_CLOSE int fd = socket(
		AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return errmsg_set(em, -errno, "cannot make a socket");
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
		return errmsg_say(em, -EADDRINUSE,
		                  "another memspan-node serves %s; stop it, or "
		                  "give this one its own --socket or --run-dir",
		                  path);
	/* A socket where nobody answers is what is left of a dead node.  Of a
	 * file that is no socket connect() says the same: that is not ours. */
	if (errno == ECONNREFUSED && lstat(path, &st) == 0 &&
	    S_ISSOCK(st.st_mode))
		(void)unlink(path);
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 ||
	    chmod(path, 0660) < 0 || listen(fd, 64) < 0)
		return errmsg_set(em, -errno, "cannot serve clients at %s",
		                  path);
	return TAKE_FD(fd);
}

int clients_listen(struct control *c, struct errmsg *em)
{
	int fd = socket_bind(c->socket_path, em);

	if (fd < 0)
		return fd;
	c->have_socket = true;
	c->listener.fd = fd;
	c->listener.ready = on_connection;
	c->listen_again.due = listen_again;
	return loop_add(c->loop, &c->listener, EPOLLIN);
}
