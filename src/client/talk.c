/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node's socket: finding it, connecting, packets with descriptors.
 *
 * The descriptor is nonblocking and every wait has a deadline, because a node
 * may be stopped at any moment, and a connect to a stopped one whose backlog is
 * full would wait without end.
 */

#include "client/client.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#define CONNECT_RETRY_NS (10 * NSEC_PER_MSEC)
#define LISTED_MAX       8u /* sockets named in an error */

uint64_t talk_now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

/* --- which socket -------------------------------------------------------- */

static int default_run_dir(char *dir, size_t dir_bytes, struct errmsg *em)
{
	const char *runtime = secure_getenv("XDG_RUNTIME_DIR");

	if (geteuid() == 0) {
		snprintf(dir, dir_bytes, "/run/memspan");
		return 0;
	}
	if (!runtime || runtime[0] != '/')
		return errmsg_say(
			em, -ECONNREFUSED,
			"no node to attach to: neither MEMSPAN_NODE "
			"nor XDG_RUNTIME_DIR is set; set "
			"MEMSPAN_NODE to the path of a node's socket");
	if ((size_t)snprintf(dir, dir_bytes, "%s/memspan", runtime) >=
	    dir_bytes)
		return errmsg_say(
			em, -ECONNREFUSED,
			"XDG_RUNTIME_DIR is too long; set MEMSPAN_NODE "
			"to the path of a node's socket");
	return 0;
}

static int is_node_socket(const struct dirent *e)
{
	size_t n = strlen(e->d_name);

	return n > strlen("node-.sock") &&
	       strncmp(e->d_name, "node-", 5) == 0 &&
	       strcmp(e->d_name + n - 5, ".sock") == 0;
}

static int say_several(const char *dir, struct dirent **v, unsigned n,
                       struct errmsg *em)
{
	char names[256] = "";
	size_t at = 0;

	for (unsigned i = 0; i < n && i < LISTED_MAX; i++) {
		int k = snprintf(names + at, sizeof(names) - at, "%s%s",
		                 i > 0 ? ", " : "", v[i]->d_name);

		if (k < 0 || (size_t)k >= sizeof(names) - at)
			break;
		at += (size_t)k;
	}
	return errmsg_say(em, -EINVAL,
	                  "%u nodes listen in %s (%s%s); choose one with "
	                  "MEMSPAN_NODE=%s/%s",
	                  n, dir, names, n > LISTED_MAX ? ", ..." : "", dir,
	                  v[0]->d_name);
}

int talk_default_socket(char *path, size_t path_bytes, struct errmsg *em)
{
	const char *env = secure_getenv("MEMSPAN_NODE");
	char dir[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	struct dirent **v = NULL;
	int n, r = 0;

	if (env && env[0] != '\0') {
		if ((size_t)snprintf(path, path_bytes, "%s", env) >= path_bytes)
			return errmsg_say(
				em, -EINVAL,
				"MEMSPAN_NODE is too long for the path "
				"of a socket (107 bytes)");
		return 0;
	}
	r = default_run_dir(dir, sizeof(dir), em);
	if (r < 0)
		return r;
	n = scandir(dir, &v, is_node_socket, versionsort);
	if (n == 1) {
		if ((size_t)snprintf(path, path_bytes, "%s/%s", dir,
		                     v[0]->d_name) >= path_bytes)
			r = errmsg_say(em, -EINVAL,
			               "the path %s/%s is too long", dir,
			               v[0]->d_name);
	} else if (n > 1) {
		r = say_several(dir, v, (unsigned)n, em);
	} else {
		r = errmsg_say(em, -ECONNREFUSED,
		               "no node listens in %s; start a cluster with "
		               "'memspan up', or set MEMSPAN_NODE to the path "
		               "of a node's socket",
		               dir);
	}
	for (int i = 0; i < n; i++)
		free(v[i]);
	free(v);
	return r;
}

/* --- connecting ---------------------------------------------------------- */

/*
 * Numbers just below what the limit allows, but below 4,096: the kernel's table
 * is as long as the highest number, and each fork copies it.
 */
void talk_raise(int *fd)
{
	struct rlimit limit = { .rlim_cur = 1024 };
	uint64_t base;

	(void)getrlimit(RLIMIT_NOFILE, &limit); /* cannot fail */
	base = min_u64(limit.rlim_cur, 4096);
	base = base > 512 ? base - 256 : base / 2;
	for (; base > 2; base /= 2) {
		int high = fcntl(*fd, F_DUPFD_CLOEXEC, (int)base);

		if (high < 0)
			continue;
		if (high > *fd) {
			close(*fd);
			*fd = high;
		} else {
			close(high); /* no room above: stay where we are */
		}
		return;
	}
}

static int connect_failed(const char *path, int error, struct errmsg *em)
{
	switch (error) {
	case EACCES:
	case EPERM:
		return errmsg_say(em, -EACCES,
		                  "not allowed to open the node's socket %s: "
		                  "run as a user or group that may write to it",
		                  path);
	case EMFILE:
	case ENFILE:
		return errmsg_set(em, -EMFILE,
		                  "no descriptor left to connect to %s; raise "
		                  "ulimit -n",
		                  path);
	case ENOMEM:
	case ENOBUFS:
		return errmsg_set(em, -ENOMEM, "cannot connect to %s", path);
	default: /* ENOENT, ECONNREFUSED, ENOTDIR, EPROTOTYPE, ELOOP ... */
		return errmsg_say(em, -ECONNREFUSED,
		                  "no memspan-node answers at %s (%s); start "
		                  "one, or see 'memspan status' for those that "
		                  "run",
		                  path, strerrordesc_np(error));
	}
}

int talk_connect(const char *path, uint64_t deadline_ns, struct errmsg *em)
{
	const struct timespec pause = { .tv_nsec = CONNECT_RETRY_NS };
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	AUTO_CLOSE int fd = -1;

	if (strlen(path) >= sizeof(to.sun_path))
		return errmsg_say(
			em, -EINVAL,
			"the path of the node's socket is longer than "
			"%zu bytes: %s",
			sizeof(to.sun_path) - 1, path);
	memcpy(to.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return connect_failed(path, errno, em);
	talk_raise(&fd);
	/* EAGAIN: the node's backlog is full.  A Unix socket cannot be polled
	 * for that. */
	while (connect(fd, (const struct sockaddr *)&to, sizeof(to)) < 0) {
		if (errno != EAGAIN && errno != EINTR)
			return connect_failed(path, errno, em);
		if (talk_now(CLOCK_MONOTONIC) >= deadline_ns)
			return errmsg_say(
				em, -ETIMEDOUT,
				"the node at %s takes no connection; "
				"it may be stopped or overloaded: see "
				"its log",
				path);
		nanosleep(&pause, NULL);
	}
	return TAKE_FD(fd);
}

/* --- packets ------------------------------------------------------------- */

struct local_msg talk_msg(enum local_type type)
{
	return (struct local_msg){
		.magic = LOCAL_MAGIC,
		.version = LOCAL_VERSION,
		.type = type,
	};
}

/* Wait until the socket can; returns 0, -EAGAIN or -ETIMEDOUT. */
static int wait_for(int sock, short events, uint64_t deadline_ns)
{
	struct pollfd p = { .fd = sock, .events = events };
	uint64_t now, left_ms;

	if (deadline_ns == 0)
		return -EAGAIN;
	now = talk_now(CLOCK_MONOTONIC);
	if (now >= deadline_ns)
		return -ETIMEDOUT;
	/* A second at most, as nothing tells of a number that was closed. */
	left_ms = min_u64((deadline_ns - now) / NSEC_PER_MSEC + 1, 1000);
	(void)poll(&p, 1, (int)left_ms); /* what it says, the next call says */
	return 0;
}

union fds_buf {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(TALK_FDS_MAX * sizeof(int))];
};

static int send_once(int sock, const struct local_msg *msg, const int *fds,
                     unsigned n)
{
	struct local_msg copy = *msg; /* iov_base is not const */
	struct iovec iov = { .iov_base = &copy, .iov_len = sizeof(copy) };
	union fds_buf buf = { 0 };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };

	assert(n <= TALK_FDS_MAX);
	if (n > 0) {
		struct cmsghdr *c;

		h.msg_control = buf.bytes;
		h.msg_controllen = CMSG_SPACE(n * sizeof(int));
		c = CMSG_FIRSTHDR(&h);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n * sizeof(int));
	}
	if (sendmsg(sock, &h, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
		return 0;
	switch (errno) {
	case EAGAIN:
	case EINTR:
	case ENOBUFS:
	case ENOMEM:
		return -EAGAIN;
	case ETOOMANYREFS: /* more in flight than RLIMIT_NOFILE */
		return -EMFILE;
	default: /* EPIPE, ECONNRESET; EBADF: the program closed it */
		return -ENOTCONN;
	}
}

int talk_send(int sock, const struct local_msg *msg, const int *fds, unsigned n,
              uint64_t deadline_ns)
{
	for (;;) {
		int r = send_once(sock, msg, fds, n);

		if (r != -EAGAIN)
			return r;
		r = wait_for(sock, POLLOUT, deadline_ns);
		if (r < 0)
			return r;
	}
}

/* Take the descriptors out of a received packet; returns their number. */
static unsigned take_fds(struct msghdr *h, int *fds)
{
	unsigned n = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		/* The kernel makes one such header, as long as our buffer at
		 * most. */
		n = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(c), n * sizeof(int));
	}
	return n;
}

static bool well_formed(const struct local_msg *msg)
{
	return msg->magic == LOCAL_MAGIC && msg->version == LOCAL_VERSION &&
	       msg->reserved[0] == 0 && msg->reserved[1] == 0 &&
	       memchr(msg->text, '\0', sizeof(msg->text));
}

/* One packet; its descriptors to `got`, their number to *n_got. */
static int recv_once(int sock, struct local_msg *msg, int got[TALK_FDS_MAX],
                     unsigned *n_got)
{
	struct iovec iov = { .iov_base = msg, .iov_len = sizeof(*msg) };
	union fds_buf buf;
	struct msghdr h = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = buf.bytes,
		.msg_controllen = sizeof(buf.bytes),
	};
	ssize_t n;

	*n_got = 0;
	n = recvmsg(sock, &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? -EAGAIN : -ENOTCONN;
	if (n == 0)
		return -ENOTCONN;
	*n_got = take_fds(&h, got);
	if (h.msg_flags & MSG_CTRUNC)
		return -EMFILE;
	if ((size_t)n != sizeof(*msg) || (h.msg_flags & MSG_TRUNC) ||
	    !well_formed(msg))
		return -EPROTONOSUPPORT;
	return 0;
}

int talk_recv(int sock, struct local_msg *msg, enum local_type with_fds,
              int *fds, unsigned n, uint64_t deadline_ns)
{
	int got[TALK_FDS_MAX];
	unsigned n_got, wanted;
	int r;

	for (;;) {
		r = recv_once(sock, msg, got, &n_got);
		if (r != -EAGAIN)
			break;
		r = wait_for(sock, POLLIN, deadline_ns);
		if (r < 0)
			return r;
	}
	wanted = r == 0 && msg->type == (uint32_t)with_fds ? n : 0;
	if (r == 0 && n_got != wanted)
		r = -EPROTONOSUPPORT;
	if (r == 0 && wanted > 0) {
		memcpy(fds, got, wanted * sizeof(int));
		return 0;
	}
	for (unsigned i = 0; i < n_got; i++)
		close(got[i]);
	return r;
}
