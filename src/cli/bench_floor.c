/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The floor's two other processes.
 */

#include "cli/bench_floor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/userfaultfd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

#include "cli/bench_floor_wire.h"
#include "cli/bench_page.h"

#define BATCH 64u /* faults read at once, as memspan-node does */

/* One thread waits for one page, so no more can be queued than threads. */
#define QUEUE (1u << 15)

/* Say what errno means; returns it, negative. */
static int complain(const char *who, const char *what)
{
	int r = errno > 0 ? -errno : -EIO;

	fprintf(stderr, "memspan bench: floor's %s: %s: %s\n", who, what,
	        strerror(-r));
	return r;
}

static nsec_t clock_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (nsec_t)t.tv_sec * NSEC_PER_SEC + (nsec_t)t.tv_nsec;
}

/*
 * recv(2) that waits, at first by asking again and again where the nodes do so
 * too.  Returns bytes, 0 at the end of the stream, or -1.
 */
static ssize_t receive(int sock, void *buf, size_t bytes, nsec_t busy_ns)
{
	nsec_t until = busy_ns ? clock_now() + busy_ns : 0;

	while (busy_ns && clock_now() < until) {
		ssize_t r = recv(sock, buf, bytes, MSG_DONTWAIT);

		if (r >= 0 || errno != EAGAIN)
			return r;
	}
	return recv(sock, buf, bytes, 0);
}

/* --- peer ---------------------------------------------------------------- */

#define PEER_REQUESTS 128u /* answered by one sendmsg(2) */

/* Send all of iov.  Returns 0, or -errno if nobody is at the other end. */
static int send_all(int sock, struct iovec *iov, size_t n)
{
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = n };

	while (msg.msg_iovlen > 0) {
		ssize_t r = sendmsg(sock, &msg, MSG_NOSIGNAL);

		if (r < 0)
			return -errno;
		for (; msg.msg_iovlen > 0 && (size_t)r >= msg.msg_iov->iov_len;
		     msg.msg_iov++, msg.msg_iovlen--)
			r -= (ssize_t)msg.msg_iov->iov_len;
		if (msg.msg_iovlen > 0) {
			msg.msg_iov->iov_base =
				(char *)msg.msg_iov->iov_base + r;
			msg.msg_iov->iov_len -= (size_t)r;
		}
	}
	return 0;
}

static int peer_answer(int sock, struct floor_request *req, size_t n,
                       char *source)
{
	struct iovec iov[2 * PEER_REQUESTS];

	for (size_t i = 0; i < n; i++) {
		gpn_t page = req[i].page % FLOOR_PAGES;

		assert(page + req[i].pages <= FLOOR_PAGES);
		iov[2 * i].iov_base = &req[i];
		iov[2 * i].iov_len = sizeof(req[i]);
		iov[2 * i + 1].iov_base = source + page * PAGE_BYTES;
		iov[2 * i + 1].iov_len = (size_t)req[i].pages * PAGE_BYTES;
	}
	return send_all(sock, iov, 2 * n);
}

int floor_peer(const struct floor_config *cfg)
{
	struct floor_request req[PEER_REQUESTS];
	size_t have = 0; /* bytes of req[] */
	char *source;

	source = mmap(NULL, FLOOR_PAGES * (size_t)PAGE_BYTES,
	              PROT_READ | PROT_WRITE,
	              MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (source == MAP_FAILED)
		return complain("peer", "mmap") != 0;
	for (gpn_t p = 0; p < FLOOR_PAGES; p++)
		bench_fill(source + p * PAGE_BYTES,
		           &(struct bench_stamp){ cfg->seed, p,
		                                  FLOOR_VERSION });
	for (;;) {
		ssize_t r = receive(cfg->sock, (char *)req + have,
		                    sizeof(req) - have, cfg->busy_poll_ns);
		size_t n;

		if (r <= 0)
			return 0;
		have += (size_t)r;
		n = have / sizeof(req[0]);
		if (n > 0 && peer_answer(cfg->sock, req, n, source) < 0)
			return 0;
		have -= n * sizeof(req[0]);
		memmove(req, req + n, have);
	}
}

/* --- handler ------------------------------------------------------------- */

struct handler {
	const struct floor_config *cfg;
	int epoll;
	struct floor_watch watch;
	int uffd[STRIPES_MAX];
	bool overlapping; /* cfg->sock is in the epoll set */

	/* Requests not yet sent: queue[head % QUEUE] is the next. */
	struct floor_request *queue;
	uint32_t head, tail;
	uint32_t under_way; /* requests sent, not yet answered */

	/* What came from the peer: bytes [0, have) of in[]. */
	char *in;
	size_t have;
};

/* Room for the largest answer, or for many small ones. */
#define IN_BYTES \
	(sizeof(struct floor_request) + FLOOR_BATCH_MAX * (size_t)PAGE_BYTES)

/* Ids of epoll: 0 .. STRIPES_MAX - 1 are userfaultfds. */
enum { ID_CONTROL = STRIPES_MAX, ID_SOCK };

static int watch_fd(struct handler *h, int fd, uint32_t id)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u32 = id };

	return epoll_ctl(h->epoll, EPOLL_CTL_ADD, fd, &ev);
}

/* Somebody else was first: the page is there, and the thread still sleeps. */
static void wake(int uffd, uint64_t address, uint64_t bytes)
{
	struct uffdio_range range = { address, bytes };

	(void)ioctl(uffd, UFFDIO_WAKE, &range);
}

static int install_zero(int uffd, uint64_t address)
{
	struct uffdio_zeropage z = { .range = { address, PAGE_BYTES } };

	if (ioctl(uffd, UFFDIO_ZEROPAGE, &z) == 0)
		return 0;
	if (errno != EEXIST)
		return complain("handler", "UFFDIO_ZEROPAGE");
	wake(uffd, address, PAGE_BYTES);
	return 0;
}

static int install(struct handler *h, const struct floor_request *r,
                   const char *bytes)
{
	struct uffdio_copy c = { .dst = r->address,
		                 .src = (uintptr_t)bytes,
		                 .len = (uint64_t)r->pages * PAGE_BYTES };

	if (ioctl(h->uffd[r->uffd], UFFDIO_COPY, &c) == 0)
		return 0;
	if (errno != EEXIST)
		return complain("handler", "UFFDIO_COPY");
	wake(h->uffd[r->uffd], r->address, c.len);
	return 0;
}

/* Send what is queued, as far as the window goes, in one piece. */
static int send_requests(struct handler *h)
{
	uint32_t n = h->tail - h->head;
	struct iovec iov[2];

	if (n > FLOOR_WINDOW - h->under_way)
		n = FLOOR_WINDOW - h->under_way;
	if (n == 0)
		return 0;
	/* The ring may wrap once within the n. */
	iov[0].iov_base = &h->queue[h->head % QUEUE];
	iov[0].iov_len = n;
	iov[1].iov_base = h->queue;
	if (iov[0].iov_len > QUEUE - h->head % QUEUE)
		iov[0].iov_len = QUEUE - h->head % QUEUE;
	iov[1].iov_len = (n - iov[0].iov_len) * sizeof(h->queue[0]);
	iov[0].iov_len *= sizeof(h->queue[0]);
	h->head += n;
	h->under_way += n;
	return send_all(h->cfg->sock, iov, iov[1].iov_len > 0 ? 2 : 1);
}

/* Install what is whole in h->in. */
static int take_answers(struct handler *h)
{
	size_t at = 0;

	for (;;) {
		struct floor_request r;
		size_t bytes;
		int e;

		if (h->have - at < sizeof(r))
			break;
		memcpy(&r, h->in + at, sizeof(r));
		bytes = sizeof(r) + (size_t)r.pages * PAGE_BYTES;
		if (h->have - at < bytes)
			break;
		e = install(h, &r, h->in + at + sizeof(r));
		if (e < 0)
			return e;
		at += bytes;
		h->under_way--;
	}
	h->have -= at;
	memmove(h->in, h->in + at, h->have);
	return 0;
}

/* One recv(2) from the peer, and what follows.  -EPIPE: it is gone. */
static int from_peer(struct handler *h)
{
	ssize_t r = receive(h->cfg->sock, h->in + h->have, IN_BYTES - h->have,
	                    h->cfg->busy_poll_ns);

	if (r <= 0)
		return -EPIPE;
	h->have += (size_t)r;
	return take_answers(h);
}

static int fault(struct handler *h, uint32_t id, uint64_t address)
{
	uint64_t at = address & ~(uint64_t)(PAGE_BYTES - 1);
	struct floor_request *r = &h->queue[h->tail % QUEUE];

	if (atomic_load_explicit(&h->cfg->mode->kind, memory_order_relaxed) ==
	    FLOOR_LOCAL)
		return install_zero(h->uffd[id], at);
	assert(h->tail - h->head < QUEUE);
	r->address = at;
	r->uffd = id;
	r->pages = atomic_load_explicit(&h->cfg->mode->batch,
	                                memory_order_relaxed);
	r->page = h->watch.first[id] + (at - h->watch.base[id]) / PAGE_BYTES;
	h->tail++;
	return 0;
}

static int from_client(struct handler *h, uint32_t id)
{
	struct uffd_msg m[BATCH];
	ssize_t r = read(h->uffd[id], m, sizeof(m));

	if (r < 0)
		return errno == EAGAIN ? 0 : complain("handler", "read");
	for (size_t i = 0; i < (size_t)r / sizeof(m[0]); i++) {
		int e = 0;

		if (m[i].event == UFFD_EVENT_PAGEFAULT)
			e = fault(h, id, m[i].arg.pagefault.address);
		if (e < 0)
			return e;
	}
	return 0;
}

/* The client's new memory.  -EPIPE: it is gone. */
static int from_control(struct handler *h)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * STRIPES_MAX)];
	} ctl;
	uint32_t old = h->watch.n;
	struct iovec iov = { &h->watch, sizeof(h->watch) };
	struct msghdr msg = { .msg_iov = &iov,
		              .msg_iovlen = 1,
		              .msg_control = &ctl,
		              .msg_controllen = sizeof(ctl) };
	struct cmsghdr *c;

	if (recvmsg(h->cfg->control, &msg, MSG_CMSG_CLOEXEC) <= 0)
		return -EPIPE;
	c = CMSG_FIRSTHDR(&msg);
	if (!c || c->cmsg_len != CMSG_LEN(sizeof(int) * h->watch.n))
		return complain("handler", "hand-over");
	/* Closing takes them out of the epoll set as well; the client's own
	 * descriptors may keep the old ones alive, so it is said twice. */
	for (uint32_t i = 0; i < old; i++) {
		(void)epoll_ctl(h->epoll, EPOLL_CTL_DEL, h->uffd[i], NULL);
		close(h->uffd[i]);
	}
	memcpy(h->uffd, CMSG_DATA(c), sizeof(int) * h->watch.n);
	for (uint32_t i = 0; i < h->watch.n; i++)
		if (watch_fd(h, h->uffd[i], i) < 0)
			return complain("handler", "epoll_ctl");
	return send(h->cfg->control, "k", 1, MSG_NOSIGNAL) == 1 ? 0 : -EPIPE;
}

/* With one thread there is nothing to overlap: wait for it in recv(2). */
static int wait_for_peer(struct handler *h)
{
	bool overlap = atomic_load_explicit(&h->cfg->mode->overlap,
	                                    memory_order_relaxed);
	int r = 0;

	if (overlap != h->overlapping) {
		if (overlap && watch_fd(h, h->cfg->sock, ID_SOCK) < 0)
			return complain("handler", "epoll_ctl");
		if (!overlap)
			(void)epoll_ctl(h->epoll, EPOLL_CTL_DEL, h->cfg->sock,
			                NULL);
		h->overlapping = overlap;
	}
	while (r == 0 && !overlap && h->under_way > 0) {
		r = from_peer(h);
		if (r == 0)
			r = send_requests(h);
	}
	return r;
}

/* epoll_wait(2), busily for a while after there was something. */
static int next_events(struct handler *h, struct epoll_event *ev, int room)
{
	nsec_t busy = h->cfg->busy_poll_ns;
	nsec_t until = busy ? clock_now() + busy : 0;

	while (busy && clock_now() < until) {
		int n = epoll_wait(h->epoll, ev, room, 0);

		if (n != 0)
			return n;
	}
	return epoll_wait(h->epoll, ev, room, -1);
}

/* Serve until the client or the peer is gone, -EPIPE. */
static int serve(struct handler *h)
{
	struct epoll_event ev[STRIPES_MAX + 2];

	for (;;) {
		int r = 0, n = next_events(h, ev, ARRAY_SIZE(ev));

		if (n < 0 && errno != EINTR)
			return complain("handler", "epoll_wait");
		for (int i = 0; i < n && r == 0; i++) {
			if (ev[i].data.u32 == ID_CONTROL) {
				r = from_control(h);
				break; /* later ids may be of old ones */
			}
			r = ev[i].data.u32 == ID_SOCK ?
			            from_peer(h) :
			            from_client(h, ev[i].data.u32);
		}
		if (r == 0)
			r = send_requests(h);
		if (r == 0)
			r = wait_for_peer(h);
		if (r < 0)
			return r;
	}
}

int floor_handler(const struct floor_config *cfg)
{
	struct handler h = { .cfg = cfg,
		             .epoll = epoll_create1(EPOLL_CLOEXEC) };
	size_t bytes = IN_BYTES + PAGE_BYTES;
	char *in;

	in = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
	          MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	h.queue = calloc(QUEUE, sizeof(h.queue[0]));
	if (h.epoll < 0 || in == MAP_FAILED || !h.queue)
		return complain("handler", "set-up") != 0;
	/* So that the page behind the header of an answer is aligned. */
	h.in = in + PAGE_BYTES - sizeof(struct floor_request);
	if (watch_fd(&h, cfg->control, ID_CONTROL) < 0)
		return complain("handler", "epoll_ctl") != 0;
	return serve(&h) == -EPIPE ? 0 : 1;
}

int floor_tcp_pair(int ret[2], struct errmsg *em)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
		                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	AUTO_CLOSE int listener =
		socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	AUTO_CLOSE int here = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	AUTO_CLOSE int there = -1;
	socklen_t len = sizeof(a);
	int one = 1;

	if (listener < 0 || here < 0 ||
	    bind(listener, (struct sockaddr *)&a, sizeof(a)) < 0 ||
	    listen(listener, 1) < 0 ||
	    getsockname(listener, (struct sockaddr *)&a, &len) < 0 ||
	    connect(here, (struct sockaddr *)&a, sizeof(a)) < 0)
		return errmsg_set(em, -errno, "TCP on loopback");
	there = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (there < 0)
		return errmsg_set(em, -errno, "TCP on loopback: accept");
	(void)setsockopt(here, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	(void)setsockopt(there, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	ret[0] = TAKE_FD(here);
	ret[1] = TAKE_FD(there);
	return 0;
}
