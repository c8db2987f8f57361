/* SPDX-License-Identifier: Apache-2.0 */
/*
 * steps: what the steps of a page fault cost on this machine, one by one.
 *
 *	steps        prints a table, in microseconds
 *
 * docs/performance.md adds them up to what a fault should cost; `memspan bench`
 * measures what it does cost.  A step is repeated until its share of the clock
 * is nothing, in ROUNDS rounds whose median is shown, since other work on the
 * machine makes some of them slow.
 *
 * near: both ends of a wake-up on one CPU.  far: on two.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "base/base.h"
#include "base/crc32c.h"

#define ROUNDS 9u
#define PAGES  4096u /* of the memory that the ioctls work on */
#define TRIPS  4000u /* of one round between two processes */

#ifndef USERFAULTFD_IOC_NEW /* headers of Linux 6.1 lack it */
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

static nsec_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (nsec_t)t.tv_sec * NSEC_PER_SEC + (nsec_t)t.tv_nsec;
}

static int smaller(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double median(double v[ROUNDS])
{
	qsort(v, ROUNDS, sizeof(*v), smaller);
	return v[ROUNDS / 2];
}

static void fail(const char *what)
{
	fprintf(stderr, "steps: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* --- what needs nobody else ---------------------------------------------- */

static uint8_t page[2][PAGE_BYTES] __attribute__((aligned(4096)));
static volatile uint64_t sink;

static void read_clock(void)
{
	sink += now();
}

static void copy_page(void)
{
	memcpy(page[1], page[0], PAGE_BYTES);
	/* Or the compiler would see that nobody looks. */
	__asm__ volatile("" : : "r"(page[1]) : "memory");
}

static void sum_page(void)
{
	sink += crc32c(page[0], PAGE_BYTES);
}

static void call_kernel(void)
{
	sink += (uint64_t)syscall(SYS_getppid);
}

static double alone(void (*step)(void))
{
	double v[ROUNDS];

	for (unsigned r = 0; r < ROUNDS; r++) {
		nsec_t from = now();

		for (unsigned i = 0; i < TRIPS; i++)
			step();
		v[r] = (double)(now() - from) / TRIPS / NSEC_PER_USEC;
	}
	return median(v);
}

/* --- userfaultfd's ioctls ------------------------------------------------ */

static int memfd, uffd;
static char *base;

static void open_memory(void)
{
	struct uffdio_api api = { .api = UFFD_API,
		                  .features = UFFD_FEATURE_MISSING_SHMEM |
		                              UFFD_FEATURE_MINOR_SHMEM |
		                              UFFD_FEATURE_WP_HUGETLBFS_SHMEM };
	struct uffdio_register reg = {
		.range = { .len = PAGES * PAGE_BYTES },
		.mode = UFFDIO_REGISTER_MODE_MISSING |
		        UFFDIO_REGISTER_MODE_MINOR | UFFDIO_REGISTER_MODE_WP,
	};
	int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);

	uffd = dev >= 0 ? ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC) :
	                  (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) < 0)
		fail("userfaultfd");
	memfd = memfd_create("steps", MFD_CLOEXEC);
	if (memfd < 0 || ftruncate(memfd, PAGES * PAGE_BYTES) < 0)
		fail("memfd");
	base = mmap(NULL, PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE,
	            MAP_SHARED, memfd, 0);
	if (base == MAP_FAILED)
		fail("mmap");
	(void)madvise(base, PAGES * PAGE_BYTES, MADV_NOHUGEPAGE);
	reg.range.start = (uintptr_t)base;
	if (ioctl(uffd, UFFDIO_REGISTER, &reg) < 0)
		fail("UFFDIO_REGISTER");
}

/* Each works on `pages` pages from page `at` on; returns as ioctl(2). */
static struct uffdio_range range(unsigned at, unsigned pages)
{
	return (struct uffdio_range){ (uintptr_t)base + at * PAGE_BYTES,
		                      pages * PAGE_BYTES };
}

static int op_zero(unsigned at, unsigned pages)
{
	struct uffdio_zeropage z = { .range = range(at, pages) };

	return ioctl(uffd, UFFDIO_ZEROPAGE, &z);
}

static int op_copy(unsigned at, unsigned pages)
{
	static char source[64 * PAGE_BYTES];
	struct uffdio_copy c = { .dst = range(at, pages).start,
		                 .src = (uintptr_t)source,
		                 .len = pages * PAGE_BYTES };

	return ioctl(uffd, UFFDIO_COPY, &c);
}

static int op_continue(unsigned at, unsigned pages)
{
	struct uffdio_continue c = { .range = range(at, pages) };

	return ioctl(uffd, UFFDIO_CONTINUE, &c);
}

static int op_protect(unsigned at, unsigned pages)
{
	struct uffdio_writeprotect w = { .range = range(at, pages),
		                         .mode = UFFDIO_WRITEPROTECT_MODE_WP };

	return ioctl(uffd, UFFDIO_WRITEPROTECT, &w);
}

static int op_unprotect(unsigned at, unsigned pages)
{
	struct uffdio_writeprotect w = { .range = range(at, pages) };

	return ioctl(uffd, UFFDIO_WRITEPROTECT, &w);
}

static int op_punch(unsigned at, unsigned pages)
{
	return fallocate(memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
	                 (off_t)at * PAGE_BYTES, (off_t)pages * PAGE_BYTES);
}

static int op_unmap(unsigned at, unsigned pages)
{
	return madvise(base + at * PAGE_BYTES, pages * PAGE_BYTES,
	               MADV_DONTNEED);
}

enum op { ZERO, COPY, CONTINUE, PROTECT, UNPROTECT, PUNCH, UNMAP, OPS };

static int (*const ops[OPS])(unsigned at, unsigned pages) = {
	[ZERO] = op_zero,           [COPY] = op_copy,
	[CONTINUE] = op_continue,   [PROTECT] = op_protect,
	[UNPROTECT] = op_unprotect, [PUNCH] = op_punch,
	[UNMAP] = op_unmap,
};

/* Over all pages, `batch` at a time.  Returns us a page. */
static double sweep(enum op op, unsigned batch)
{
	nsec_t from = now();

	for (unsigned at = 0; at < PAGES; at += batch)
		if (ops[op](at, batch) < 0)
			fail("an operation on the memory");
	return (double)(now() - from) / PAGES / NSEC_PER_USEC;
}

/* A page's life, so that each operation finds what it expects. */
static void sweep_all(unsigned batch, double out[OPS])
{
	static const enum op life[] = { ZERO,     PROTECT, UNPROTECT, UNMAP,
		                        CONTINUE, PUNCH,   COPY };
	double v[OPS][ROUNDS];

	for (unsigned r = 0; r < ROUNDS; r++) {
		for (unsigned i = 0; i < ARRAY_SIZE(life); i++)
			v[life[i]][r] = sweep(life[i], batch);
		(void)op_punch(0, PAGES);
	}
	for (unsigned op = 0; op < OPS; op++)
		out[op] = median(v[op]);
}

/* --- between two processes ----------------------------------------------- */

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((unsigned)cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		fail("sched_setaffinity");
}

static pid_t fork_on(int cpu)
{
	pid_t pid = fork();

	if (pid < 0)
		fail("fork");
	if (pid > 0)
		return pid;
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	pin(cpu);
	return 0;
}

static void end_child(pid_t pid)
{
	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, NULL, 0);
}

/* There and back by eventfd, the other side in epoll_wait(2) as a shard is. */
static double wake_up(int here, int there)
{
	int to = eventfd(0, EFD_CLOEXEC), back = eventfd(0, EFD_CLOEXEC);
	struct epoll_event ev = { .events = EPOLLIN };
	double v[ROUNDS];
	uint64_t n;
	pid_t pid;

	pid = fork_on(there);
	if (pid == 0) {
		int ep = epoll_create1(0);

		(void)epoll_ctl(ep, EPOLL_CTL_ADD, to, &ev);
		for (;;) {
			(void)epoll_wait(ep, &ev, 1, -1);
			if (read(to, &n, 8) != 8 || write(back, &n, 8) != 8)
				_exit(1);
		}
	}
	pin(here);
	for (unsigned r = 0; r < ROUNDS; r++) {
		nsec_t from = now();

		for (unsigned i = 0; i < TRIPS; i++) {
			n = 1;
			if (write(to, &n, 8) != 8 || read(back, &n, 8) != 8)
				fail("eventfd");
		}
		v[r] = (double)(now() - from) / TRIPS / 2 / NSEC_PER_USEC;
	}
	end_child(pid);
	close(to);
	close(back);
	return median(v);
}

static void tcp_pair(int fd[2])
{
	struct sockaddr_in a = { .sin_family = AF_INET,
		                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	socklen_t len = sizeof(a);

	fd[0] = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *)&a, len) < 0 ||
	    listen(listener, 1) < 0 ||
	    getsockname(listener, (struct sockaddr *)&a, &len) < 0 ||
	    connect(fd[0], (struct sockaddr *)&a, len) < 0)
		fail("TCP");
	fd[1] = accept(listener, NULL, NULL);
	close(listener);
	for (unsigned i = 0; i < 2; i++)
		(void)setsockopt(fd[i], IPPROTO_TCP, TCP_NODELAY, &one,
		                 sizeof(one));
}

/* 32 bytes there, 4,128 back, both sides blocking. */
static double tcp_trip(int here, int there)
{
	static char bytes[4128];
	double v[ROUNDS];
	int fd[2];
	pid_t pid;

	tcp_pair(fd);
	pid = fork_on(there);
	if (pid == 0) {
		while (recv(fd[1], bytes, 32, MSG_WAITALL) == 32)
			if (send(fd[1], bytes, sizeof(bytes), 0) < 0)
				_exit(1);
		_exit(0);
	}
	pin(here);
	for (unsigned r = 0; r < ROUNDS; r++) {
		nsec_t from = now();

		for (unsigned i = 0; i < TRIPS; i++)
			if (send(fd[0], bytes, 32, 0) != 32 ||
			    recv(fd[0], bytes, sizeof(bytes), MSG_WAITALL) !=
			            sizeof(bytes))
				fail("TCP");
		v[r] = (double)(now() - from) / TRIPS / NSEC_PER_USEC;
	}
	end_child(pid);
	close(fd[0]);
	close(fd[1]);
	return median(v);
}

/* --- the table ----------------------------------------------------------- */

static void print_alone(void)
{
	printf("%-40s %9s\n", "alone", "us");
	printf("%-40s %9.3f\n", "clock_gettime", alone(read_clock));
	printf("%-40s %9.3f\n", "a system call that does nothing",
	       alone(call_kernel));
	printf("%-40s %9.3f\n", "memcpy of a page, cached", alone(copy_page));
	printf("%-40s %9.3f\n", "crc32c of a page", alone(sum_page));
}

static void print_ops(void)
{
	static const struct {
		enum op op;
		const char *name;
	} rows[] = {
		{ ZERO, "UFFDIO_ZEROPAGE" },
		{ COPY, "UFFDIO_COPY" },
		{ CONTINUE, "UFFDIO_CONTINUE" },
		{ PROTECT, "UFFDIO_WRITEPROTECT" },
		{ UNPROTECT, "UFFDIO_WRITEPROTECT, off" },
		{ PUNCH, "fallocate, PUNCH_HOLE" },
	};
	double one[OPS], many[OPS];

	open_memory();
	sweep_all(1, one);
	sweep_all(64, many);
	printf("\n%-40s %9s %9s\n", "nobody waiting, us a page", "1 a call",
	       "64 a call");
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
		printf("%-40s %9.3f %9.3f\n", rows[i].name, one[rows[i].op],
		       many[rows[i].op]);
}

static void print_trips(const int cpu[2], int n)
{
	printf("\n%-40s %9s %9s\n", "between two processes, us", "near", "far");
	printf("%-40s %9.2f", "write, wake-up, epoll_wait, read",
	       wake_up(cpu[0], cpu[0]));
	if (n > 1)
		printf(" %9.2f", wake_up(cpu[0], cpu[1]));
	printf("\n%-40s %9.2f", "TCP on loopback, 32 to 4128 and back",
	       tcp_trip(cpu[0], cpu[0]));
	if (n > 1)
		printf(" %9.2f", tcp_trip(cpu[0], cpu[1]));
	putchar('\n');
}

int main(void)
{
	cpu_set_t mine;
	int cpu[2], n = 0;

	if (sched_getaffinity(0, sizeof(mine), &mine) < 0)
		fail("sched_getaffinity");
	for (int i = 0; i < CPU_SETSIZE && n < 2; i++)
		if (CPU_ISSET((unsigned)i, &mine))
			cpu[n++] = i;
	print_alone();
	print_ops();
	print_trips(cpu, n);
	return 0;
}
