/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See fake_node.h.  One thread, one poll, no state but what each page is: not
 * here, readable (S) or writable (M).
 */

#include "fake_node.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#ifndef UFFDIO_CONTINUE_MODE_WP
#define UFFDIO_CONTINUE_MODE_WP ((uint64_t)1 << 1) /* Linux 6.4 */
#endif

#define FAKE_CLIENTS 8u
#define FAKE_LOOK_MS 5 /* how often it looks at the test's orders */

enum page_state { PAGE_AWAY = 0, PAGE_S, PAGE_M };

struct fake_client {
	int sock; /* -1: free */
	int uffd[STRIPES_MAX];
	uint32_t n_uffd; /* 0: not mapped yet */
	uint64_t base;   /* where page 0 of the space would be mapped */
};

struct fake {
	const struct fake_node *node;
	const struct fake_options *opt;
	int listen, lease, notes;
	uint8_t *state; /* enum page_state, for each page */
	uint8_t *zero;  /* discarded: born as zeros */
	struct fake_client client[FAKE_CLIENTS];
};

/* A call of the fake itself failed: the test cannot go on. */
static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "fake node: %s: %s\n", what, strerror(errno));
	_exit(70);
}

uint32_t fake_stripes(uint64_t bytes)
{
	return (uint32_t)min_u64(max_u64(bytes / (4u << 20), 1), STRIPES_MAX);
}

uint32_t fake_stripe(uint64_t bytes, gpn_t page)
{
	uint64_t pages = bytes / PAGE_BYTES;
	uint64_t extents = (pages + EXTENT_PAGES - 1) / EXTENT_PAGES;
	uint64_t stripes = fake_stripes(bytes);
	uint32_t i = 0;

	while ((i + 1) * extents / stripes <= page / EXTENT_PAGES)
		i++;
	return i;
}

/* --- pages ------------------------------------------------------------- */

static void fill(const struct fake *f, gpn_t page, uint8_t out[PAGE_BYTES])
{
	memset(out, f->zero[page] ? 0 : fake_byte(page), PAGE_BYTES);
}

static void wake(int uffd, uint64_t addr)
{
	struct uffdio_range r = { .start = addr, .len = PAGE_BYTES };

	(void)ioctl(uffd, UFFDIO_WAKE, &r);
}

static int protect(int uffd, uint64_t addr, uint64_t bytes, bool on)
{
	struct uffdio_writeprotect p = {
		.range = { .start = addr, .len = bytes },
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	return ioctl(uffd, UFFDIO_WRITEPROTECT, &p) < 0 ? -errno : 0;
}

static void protect_everywhere(struct fake *f, gpn_t page, bool on)
{
	uint32_t stripe = fake_stripe(f->node->bytes, page);

	for (unsigned i = 0; i < FAKE_CLIENTS; i++) {
		struct fake_client *c = &f->client[i];

		if (c->sock >= 0 && c->n_uffd > 0)
			(void)protect(c->uffd[stripe],
			              c->base + page * PAGE_BYTES, PAGE_BYTES,
			              on);
	}
}

static void punch(struct fake *f, gpn_t page)
{
	must(fallocate(f->node->memory,
	               FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
	               (off_t)(page * PAGE_BYTES), PAGE_BYTES) == 0,
	     "punch a hole");
}

static void install(struct fake *f, int uffd, uint64_t addr, gpn_t page)
{
	uint8_t bytes[PAGE_BYTES];
	struct uffdio_copy copy = {
		.dst = addr,
		.src = (uintptr_t)bytes,
		.len = PAGE_BYTES,
		.mode = f->state[page] == PAGE_S ? UFFDIO_COPY_MODE_WP : 0,
	};

	fill(f, page, bytes);
	if (ioctl(uffd, UFFDIO_COPY, &copy) < 0)
		wake(uffd, addr);
}

/*
 * Before Linux 6.4 a page that is in the memfd cannot be mapped read-only: so
 * it leaves, and comes back by COPY.
 */
static void map_anew(struct fake *f, int uffd, uint64_t addr, gpn_t page)
{
	uint8_t bytes[PAGE_BYTES];
	struct uffdio_copy copy = { .dst = addr,
		                    .src = (uintptr_t)bytes,
		                    .len = PAGE_BYTES,
		                    .mode = UFFDIO_COPY_MODE_WP };
	off_t at = (off_t)(page * PAGE_BYTES);

	protect_everywhere(f, page, true);
	must(pread(f->node->memory, bytes, PAGE_BYTES, at) == PAGE_BYTES,
	     "read a page");
	punch(f, page);
	if (ioctl(uffd, UFFDIO_COPY, &copy) < 0)
		wake(uffd, addr);
}

static void map_present(struct fake *f, int uffd, uint64_t addr, gpn_t page)
{
	struct uffdio_continue cont = {
		.range = { .start = addr, .len = PAGE_BYTES },
		.mode = f->state[page] == PAGE_S ? UFFDIO_CONTINUE_MODE_WP : 0,
	};

	if (f->opt->markers && f->state[page] == PAGE_S)
		map_anew(f, uffd, addr, page);
	else if (ioctl(uffd, UFFDIO_CONTINUE, &cont) < 0)
		wake(uffd, addr);
}

static void on_fault(struct fake *f, struct fake_client *c, uint32_t stripe,
                     const struct uffd_msg *m)
{
	uint64_t addr = m->arg.pagefault.address & ~(uint64_t)(PAGE_BYTES - 1);
	uint64_t flags = m->arg.pagefault.flags;
	gpn_t page = (addr - c->base) / PAGE_BYTES;
	int uffd = c->uffd[stripe];

	if (page * PAGE_BYTES >= f->node->bytes ||
	    fake_stripe(f->node->bytes, page) != stripe) {
		f->node->counts->wrong_stripe++;
		return;
	}
	if (flags & UFFD_PAGEFAULT_FLAG_WP) {
		f->node->counts->wp++;
		f->state[page] = PAGE_M;
		protect_everywhere(f, page, false);
	} else if (flags & UFFD_PAGEFAULT_FLAG_MINOR) {
		f->node->counts->minor++;
		map_present(f, uffd, addr, page);
	} else {
		f->node->counts->missing++;
		if (f->state[page] == PAGE_AWAY)
			f->state[page] = flags & UFFD_PAGEFAULT_FLAG_WRITE ?
			                         PAGE_M :
			                         PAGE_S;
		install(f, uffd, addr, page);
	}
}

static void read_faults(struct fake *f, struct fake_client *c, uint32_t stripe)
{
	struct uffd_msg m[16];
	ssize_t n = read(c->uffd[stripe], m, sizeof(m));

	for (ssize_t i = 0; i < n / (ssize_t)sizeof(m[0]); i++)
		if (f->node->counts->hold)
			f->node->counts->held++;
		else
			on_fault(f, c, stripe, &m[i]);
}

/* --- packets ----------------------------------------------------------- */

static struct local_msg packet(enum local_type type)
{
	return (struct local_msg){ .magic = LOCAL_MAGIC,
		                   .version = LOCAL_VERSION,
		                   .type = type };
}

static void say(int sock, struct local_msg *msg, size_t bytes, const int *fds,
                unsigned n)
{
	struct iovec iov = { .iov_base = msg, .iov_len = bytes };
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(3 * sizeof(int))];
	} buf = { 0 };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (n > 0) {
		h.msg_control = buf.room;
		h.msg_controllen = CMSG_SPACE(n * sizeof(int));
		*CMSG_FIRSTHDR(&h) = (struct cmsghdr){
			.cmsg_level = SOL_SOCKET,
			.cmsg_type = SCM_RIGHTS,
			.cmsg_len = CMSG_LEN(n * sizeof(int)),
		};
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&h)), fds, n * sizeof(int));
	}
	(void)sendmsg(sock, &h, MSG_NOSIGNAL); /* it may be dead */
}

static void drop_client(struct fake_client *c)
{
	for (uint32_t i = 0; i < c->n_uffd; i++)
		close(c->uffd[i]);
	close(c->sock);
	*c = (struct fake_client){ .sock = -1 };
}

static void on_attach(struct fake *f, struct fake_client *c,
                      const struct local_msg *ask)
{
	const int fds[] = { f->node->memory, f->lease, f->notes };
	struct local_msg msg = packet(LOCAL_SPACE);
	enum fake_oddity odd = f->opt->oddity;
	size_t bytes = sizeof(msg);

	f->node->counts->attached++;
	if (odd == FAKE_MUTE_ATTACH)
		return;
	if (odd == FAKE_HANG_UP) {
		drop_client(c);
		return;
	}
	if (strcmp(ask->text, FAKE_SPACE) != 0) {
		msg = packet(LOCAL_REFUSED);
		msg.error = -ENOENT;
		snprintf(msg.text, sizeof(msg.text),
		         "no space named %.60s; see 'memspan space list'",
		         ask->text);
		say(c->sock, &msg, sizeof(msg), NULL, 0);
		return;
	}
	msg.size_bytes = f->node->bytes;
	msg.stripes = fake_stripes(f->node->bytes);
	msg.mode = f->opt->markers ? 0 : LOCAL_MODE_MINOR;
	msg.lease_ns = 2 * NSEC_PER_SEC;
	msg.node = FAKE_NODE;
	msg.space = FAKE_ID;
	if (odd == FAKE_OLD_VERSION)
		msg.version++;
	if (odd == FAKE_SHORT_PACKET)
		bytes /= 2;
	if (odd == FAKE_ODD_SIZE)
		msg.size_bytes += PAGE_BYTES;
	if (odd == FAKE_MANY_STRIPES)
		msg.stripes = STRIPES_MAX + 1;
	say(c->sock, &msg, bytes, fds, odd == FAKE_NO_NOTES ? 2 : 3);
}

static void on_open(struct fake *f, struct fake_client *c,
                    const struct local_msg *ask)
{
	struct local_msg msg = packet(LOCAL_OPENED);

	must(strcmp(ask->text, FAKE_SPACE) == 0, "name of the space");
	msg.size_bytes = f->node->bytes;
	msg.node = FAKE_NODE;
	msg.space = FAKE_ID;
	say(c->sock, &msg, sizeof(msg), &f->node->memory, 1);
}

/* Have uffd[stripe] be what its name says; none, -1, below the first. */
static void place_stripes(struct fake_client *c, uint32_t first, uint32_t last)
{
	must(c->n_uffd == last - first + 1, "number of stripes");
	memmove(c->uffd + first, c->uffd, c->n_uffd * sizeof(c->uffd[0]));
	for (uint32_t i = 0; i < first; i++)
		c->uffd[i] = -1;
	c->n_uffd += first;
}

static void on_mapped(struct fake *f, struct fake_client *c,
                      const struct local_msg *msg)
{
	struct local_msg answer = packet(LOCAL_READY);
	gpn_t from = msg->offset / PAGE_BYTES;
	gpn_t to = from + msg->bytes / PAGE_BYTES;

	must(msg->bytes > 0 && msg->offset < f->node->bytes &&
	             msg->bytes <= f->node->bytes - msg->offset,
	     "part of the space");
	place_stripes(c, fake_stripe(f->node->bytes, from),
	              fake_stripe(f->node->bytes, to - 1));
	c->base = msg->base - msg->offset;
	if (f->opt->oddity == FAKE_MUTE_MAPPED)
		return;
	if (f->opt->oddity == FAKE_REFUSE_MAPPED) {
		answer = packet(LOCAL_REFUSED);
		answer.error = -EBUSY;
		snprintf(answer.text, sizeof(answer.text), "not today");
	}
	/* A marker on every entry: the kernel then maps what the memfd has
	 * read-only [A3]. */
	for (gpn_t p = from; f->opt->markers && p < to; p++)
		must(protect(c->uffd[fake_stripe(f->node->bytes, p)],
		             c->base + p * PAGE_BYTES, PAGE_BYTES, true) == 0,
		     "lay a marker");
	f->node->counts->mapped++;
	say(c->sock, &answer, sizeof(answer), NULL, 0);
}

static void on_discard(struct fake *f, struct fake_client *c,
                       const struct local_msg *msg)
{
	struct local_msg done = packet(LOCAL_DONE);

	done.cookie = msg->cookie;
	done.error = f->opt->discard_error;
	f->node->counts->discards++;
	for (uint64_t at = msg->offset; at < msg->offset + msg->bytes;
	     at += PAGE_BYTES) {
		gpn_t page = at / PAGE_BYTES;

		protect_everywhere(f, page, true);
		punch(f, page);
		f->state[page] = PAGE_AWAY;
		f->zero[page] = 1;
	}
	say(c->sock, &done, sizeof(done), NULL, 0);
}

static void on_detach(struct fake *f, struct fake_client *c)
{
	struct local_msg done = packet(LOCAL_DONE);

	f->node->counts->detached++;
	if (f->opt->oddity == FAKE_MUTE_DETACH)
		return;
	for (uint32_t i = 0; i < c->n_uffd; i++)
		close(c->uffd[i]);
	c->n_uffd = 0; /* before it says so [A10] */
	say(c->sock, &done, sizeof(done), NULL, 0);
}

static void on_packet(struct fake *f, struct fake_client *c,
                      const struct local_msg *msg)
{
	switch ((enum local_type)msg->type) {
	case LOCAL_ATTACH:
		on_attach(f, c, msg);
		break;
	case LOCAL_MAPPED:
		on_mapped(f, c, msg);
		break;
	case LOCAL_OPEN:
		on_open(f, c, msg);
		break;
	case LOCAL_PREFETCH:
		f->node->counts->offset = msg->offset;
		f->node->counts->bytes = msg->bytes;
		f->node->counts->prefetches++;
		break;
	case LOCAL_DISCARD:
		on_discard(f, c, msg);
		break;
	case LOCAL_DETACH:
		on_detach(f, c);
		break;
	case LOCAL_SPACE:
	case LOCAL_READY:
	case LOCAL_DONE:
	case LOCAL_ENDED:
	case LOCAL_REFUSED:
	case LOCAL_OPENED:
	default:
		must(false, "a client sent what only nodes send");
	}
}

static void read_packet(struct fake *f, struct fake_client *c)
{
	struct local_msg msg;
	struct iovec iov = { .iov_base = &msg, .iov_len = sizeof(msg) };
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(STRIPES_MAX * sizeof(int))];
	} buf;
	struct msghdr h = { .msg_iov = &iov,
		            .msg_iovlen = 1,
		            .msg_control = buf.room,
		            .msg_controllen = sizeof(buf.room) };
	ssize_t n = recvmsg(c->sock, &h, MSG_CMSG_CLOEXEC);
	struct cmsghdr *cm;

	if (n <= 0) {
		f->node->counts->hung_up++;
		drop_client(c);
		return;
	}
	must(n == sizeof(msg) && msg.magic == LOCAL_MAGIC &&
	             msg.version == LOCAL_VERSION && msg.reserved[0] == 0 &&
	             msg.reserved[1] == 0,
	     "form of a packet");
	cm = CMSG_FIRSTHDR(&h);
	if (cm) {
		c->n_uffd =
			(uint32_t)((cm->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(c->uffd, CMSG_DATA(cm), c->n_uffd * sizeof(int));
	}
	on_packet(f, c, &msg);
}

/* --- the loop ---------------------------------------------------------- */

static void take_client(struct fake *f)
{
	int sock = accept4(f->listen, NULL, NULL, SOCK_CLOEXEC);

	for (unsigned i = 0; i < FAKE_CLIENTS; i++)
		if (f->client[i].sock < 0) {
			f->client[i].sock = sock;
			return;
		}
	must(false, "too many clients");
}

static void obey(struct fake *f)
{
	struct local_msg msg = packet(LOCAL_ENDED);

	if (atomic_exchange(&f->node->counts->end, 0) == 0)
		return;
	snprintf(msg.text, sizeof(msg.text), "the moon is in the wrong phase");
	for (unsigned i = 0; i < FAKE_CLIENTS; i++)
		if (f->client[i].sock >= 0)
			say(f->client[i].sock, &msg, sizeof(msg), NULL, 0);
}

static void serve(struct fake *f, struct fake_client *c)
{
	struct pollfd p[1 + STRIPES_MAX] = { { .fd = c->sock,
		                               .events = POLLIN } };

	for (uint32_t i = 0; i < c->n_uffd; i++)
		p[1 + i] =
			(struct pollfd){ .fd = c->uffd[i], .events = POLLIN };
	(void)poll(p, 1 + c->n_uffd, 0);
	for (uint32_t i = 0; i < c->n_uffd; i++)
		if (p[1 + i].revents & POLLIN)
			read_faults(f, c, i);
	if (p[0].revents)
		read_packet(f, c);
}

/* Wait for a client to connect, to speak or to fault, or for an order. */
static void wait_for_work(struct fake *f)
{
	struct pollfd p[1 + FAKE_CLIENTS * (1 + STRIPES_MAX)] = {
		{ .fd = f->listen, .events = POLLIN }
	};
	nfds_t n = 1;

	for (unsigned i = 0; i < FAKE_CLIENTS; i++) {
		const struct fake_client *c = &f->client[i];

		if (c->sock < 0)
			continue;
		p[n++] = (struct pollfd){ .fd = c->sock, .events = POLLIN };
		for (uint32_t k = 0; k < c->n_uffd; k++)
			p[n++] = (struct pollfd){ .fd = c->uffd[k],
				                  .events = POLLIN };
	}
	(void)poll(p, n, FAKE_LOOK_MS);
	if (p[0].revents)
		take_client(f);
}

static void fake_main(struct fake *f)
{
	uint64_t pages = f->node->bytes / PAGE_BYTES;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	f->state = calloc(pages, 1);
	f->zero = calloc(pages, 1);
	must(f->state && f->zero, "memory");
	for (unsigned i = 0; i < FAKE_CLIENTS; i++)
		f->client[i].sock = -1;
	for (;;) {
		wait_for_work(f);
		obey(f);
		for (unsigned i = 0; i < FAKE_CLIENTS; i++)
			if (f->client[i].sock >= 0)
				serve(f, &f->client[i]);
	}
}

/* --- for the test ------------------------------------------------------ */

static void *shared_page(int *ret_fd, size_t bytes)
{
	int fd = memfd_create("fake", MFD_CLOEXEC);
	void *p;

	must(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0, "memfd");
	p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(p != MAP_FAILED, "mmap");
	*ret_fd = fd;
	return p;
}

static int listen_at(struct fake_node *n)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(n->dir, sizeof(n->dir), "/tmp/memspan-test-XXXXXX");
	must(mkdtemp(n->dir) != NULL, "mkdtemp");
	snprintf(n->path, sizeof(n->path), "%s/node-%u.sock", n->dir,
	         FAKE_NODE);
	snprintf(at.sun_path, sizeof(at.sun_path), "%s", n->path);
	must(fd >= 0 &&
	             bind(fd, (const struct sockaddr *)&at, sizeof(at)) == 0 &&
	             listen(fd, 8) == 0,
	     "listen");
	return fd;
}

void fake_start(struct fake_node *n, const struct fake_options *opt)
{
	struct fake f = { .node = n, .opt = opt };

	*n = (struct fake_node){ .bytes = opt->bytes };
	n->memory = memfd_create("space", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	must(n->memory >= 0 && ftruncate(n->memory, (off_t)opt->bytes) == 0 &&
	             fcntl(n->memory, F_ADD_SEALS,
	                   F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0,
	     "memfd of the space");
	n->lease = shared_page(&f.lease, PAGE_BYTES);
	n->notes = shared_page(&f.notes, sizeof(*n->notes));
	n->counts = mmap(NULL, sizeof(*n->counts), PROT_READ | PROT_WRITE,
	                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(n->counts != MAP_FAILED, "mmap");
	n->lease->magic = LOCAL_MAGIC;
	n->lease->version = LOCAL_VERSION;
	fake_lease(n, 3600 * NSEC_PER_SEC);
	f.listen = listen_at(n);
	n->pid = fork();
	must(n->pid >= 0, "fork");
	if (n->pid == 0)
		fake_main(&f);
	close(f.listen);
	close(f.lease);
	close(f.notes);
}

void fake_kill(struct fake_node *n)
{
	if (n->pid > 0) {
		kill(n->pid, SIGKILL);
		waitpid(n->pid, NULL, 0);
	}
	n->pid = 0;
}

void fake_stop(struct fake_node *n)
{
	int status;

	if (n->counts == NULL)
		return;
	/* If it has ended by itself, it has said why. */
	if (n->pid > 0 && waitpid(n->pid, &status, WNOHANG) == n->pid) {
		n->pid = 0;
		must(false, "the fake node did not survive the test");
	}
	fake_kill(n);
	unlink(n->path);
	rmdir(n->dir);
	close(n->memory);
	munmap(n->lease, PAGE_BYTES);
	munmap(n->notes, sizeof(*n->notes));
	munmap(n->counts, sizeof(*n->counts));
	n->counts = NULL;
}

void fake_lease(struct fake_node *n, uint64_t ns)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	n->lease->end_ns =
		(uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec + ns;
}

uint64_t fake_resident(const struct fake_node *n)
{
	struct stat st = { 0 };

	must(fstat(n->memory, &st) == 0, "fstat");
	return (uint64_t)st.st_blocks * 512;
}

bool fake_can_minor(void)
{
	struct uffdio_api api = { .api = UFFD_API,
		                  .features = UFFD_FEATURE_MINOR_SHMEM };
	struct uffdio_register reg = {
		.range = { .len = PAGE_BYTES },
		.mode = UFFDIO_REGISTER_MODE_MINOR | UFFDIO_REGISTER_MODE_WP,
	};
	struct uffdio_continue cont = { .range = { .len = PAGE_BYTES },
		                        .mode = UFFDIO_CONTINUE_MODE_WP };
	int memory, uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	void *p = shared_page(&memory, PAGE_BYTES);
	int error;

	reg.range.start = cont.range.start = (uintptr_t)p;
	must(uffd >= 0 && ioctl(uffd, UFFDIO_API, &api) == 0 &&
	             ioctl(uffd, UFFDIO_REGISTER, &reg) == 0,
	     "userfaultfd");
	/* EFAULT: there is no page; EINVAL: it does not know the mode. */
	(void)ioctl(uffd, UFFDIO_CONTINUE, &cont);
	error = errno;
	close(uffd);
	close(memory);
	munmap(p, PAGE_BYTES);
	return error != EINVAL;
}
