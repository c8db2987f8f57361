/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What memspan takes for granted of the kernel, as tests.
 *
 * Each test is a fact that a rule of docs/architecture.md rests on, by bare
 * ioctls: if a kernel differs, the test's name says what no longer holds.
 * Where kernels differ by design (Linux 6.1 has no CONTINUE with write
 * protection, and protects a split run not at all) the test demands one of the
 * two, whole.
 *
 * Some are facts of the unpleasant kind, the reason for a rule rather than its
 * support.  They are here too: should one become untrue, a rule may go.
 */

#include "client_process.h"

#include <linux/userfaultfd.h>
#include <sys/stat.h>
#include <sys/uio.h>

#define PAGES 64u

struct fixture {
	struct space_mem mem;
	struct client a, b;
	struct uffd_features features;
};

static const struct client_options minor = { .mode = UFFD_KERNEL_MODE_MINOR };
static const struct client_options markers = {
	.mode = UFFD_KERNEL_MODE_MARKERS,
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	probe_features(&f->features);
	assert_int_equal(
		space_mem_init("facts", PAGES * PAGE_BYTES, &f->mem, NULL), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	client_stop(&f->a);
	client_stop(&f->b);
	space_mem_done(&f->mem);
	free(f);
	return 0;
}

/* --- bare ioctls: 0 or the errno --------------------------------------- */

static struct uffdio_range range_of(const struct client *c, long page, long n)
{
	return (struct uffdio_range){
		.start = (uintptr_t)c->base + (uint64_t)page * PAGE_BYTES,
		.len = (uint64_t)n * PAGE_BYTES,
	};
}

/* Pages whose first words are `value`.  *did: how many bytes, or -errno. */
static int copy_some(const struct client *c, long page, long n, uint64_t mode,
                     uint64_t value, int64_t *did)
{
	static uint64_t bytes[16 * PAGE_BYTES / 8];
	struct uffdio_copy copy = { .dst = range_of(c, page, n).start,
		                    .src = (uintptr_t)bytes,
		                    .len = (uint64_t)n * PAGE_BYTES,
		                    .mode = mode };
	int e;

	assert_true(n <= 16);
	for (long i = 0; i < n; i++)
		bytes[i * (long)PAGE_BYTES / 8] = value;
	e = ioctl(c->uffd, UFFDIO_COPY, &copy) < 0 ? errno : 0;
	*did = copy.copy;
	return e;
}

static int copy(const struct client *c, long page, uint64_t mode,
                uint64_t value)
{
	int64_t did;

	return copy_some(c, page, 1, mode, value, &did);
}

static int zero(const struct client *c, long page)
{
	struct uffdio_zeropage z = { .range = range_of(c, page, 1) };

	return ioctl(c->uffd, UFFDIO_ZEROPAGE, &z) < 0 ? errno : 0;
}

static int cont(const struct client *c, long page, long n, uint64_t mode)
{
	struct uffdio_continue k = { .range = range_of(c, page, n),
		                     .mode = mode };

	return ioctl(c->uffd, UFFDIO_CONTINUE, &k) < 0 ? errno : 0;
}

static int protect(const struct client *c, long page, long n)
{
	struct uffdio_writeprotect w = { .range = range_of(c, page, n),
		                         .mode = UFFDIO_WRITEPROTECT_MODE_WP };

	return ioctl(c->uffd, UFFDIO_WRITEPROTECT, &w) < 0 ? errno : 0;
}

static int unprotect(const struct client *c, long page)
{
	struct uffdio_writeprotect w = { .range = range_of(c, page, 1) };

	return ioctl(c->uffd, UFFDIO_WRITEPROTECT, &w) < 0 ? errno : 0;
}

static int poison(const struct client *c, long page)
{
	struct uffd_poison_arg p = { .range = range_of(c, page, 1) };

	return ioctl(c->uffd, UFFD_KERNEL_POISON, &p) < 0 ? errno : 0;
}

static int wake(const struct client *c, long page, long n)
{
	struct uffdio_range r = range_of(c, page, n);

	return ioctl(c->uffd, UFFDIO_WAKE, &r) < 0 ? errno : 0;
}

static void punch(struct fixture *f, long page)
{
	assert_int_equal(space_mem_punch(&f->mem, (gpn_t)page, 1), 0);
}

static uint64_t resident_pages(const struct fixture *f)
{
	return space_mem_resident(&f->mem) / PAGE_BYTES;
}

/* --- what a worker's access leads to ----------------------------------- */

#define READ     0u
#define WRITE    UFFD_PAGEFAULT_FLAG_WRITE
#define WP       (UFFD_PAGEFAULT_FLAG_WP | UFFD_PAGEFAULT_FLAG_WRITE)
#define MINOR    UFFD_PAGEFAULT_FLAG_MINOR
#define MINOR_WR (UFFD_PAGEFAULT_FLAG_MINOR | UFFD_PAGEFAULT_FLAG_WRITE)
#define NOTHING  0xffffu /* there is no message */

static unsigned message(const struct client *c)
{
	struct uffd_msg m;

	if (read(c->uffd, &m, sizeof(m)) != (ssize_t)sizeof(m))
		return NOTHING;
	return m.event == UFFD_EVENT_PAGEFAULT ?
	               (unsigned)m.arg.pagefault.flags :
	               0x8000u | m.event;
}

static unsigned await_message(const struct client *c)
{
	client_await_fault(c);
	return message(c);
}

/* The worker must fault, with exactly these flags; it stays there. */
#define assert_faults(c, worker, fn, page, value, flags)     \
	do {                                                 \
		client_call(c, worker, fn, page, value);     \
		assert_int_equal(await_message(c), (flags)); \
	} while (0)

/* The worker must go through without any message. */
static long quietly(struct client *c, client_fn fn, long page, long value)
{
	long r = client_do(c, 7, fn, page, value);

	assert_int_equal(message(c), NOTHING);
	return r;
}

/* --- with MINOR registered --------------------------------------------- */

static void a_second_client_always_faults_as_minor(void **state)
{
	struct fixture *f = *state;

	client_start(&f->a, &f->mem, &minor);
	client_start(&f->b, &f->mem, &minor);
	assert_int_equal(copy(&f->a, 0, UFFDIO_COPY_MODE_WP, 7), 0);
	assert_faults(&f->b, 1, cl_read, 0, 0, MINOR);
	assert_int_equal(copy(&f->b, 0, UFFDIO_COPY_MODE_WP, 8), EEXIST);
	/* Even over a marker. */
	assert_int_equal(protect(&f->b, 1, 1), 0);
	assert_int_equal(copy(&f->a, 1, UFFDIO_COPY_MODE_WP, 7), 0);
	assert_faults(&f->b, 2, cl_write, 1, 9, MINOR_WR);
	assert_int_equal(space_mem_page(&f->mem, 1)[0], 7);
}

static void a_plain_continue_maps_writable_even_over_a_marker(void **state)
{
	struct fixture *f = *state;

	client_start(&f->a, &f->mem, &minor);
	client_start(&f->b, &f->mem, &minor);
	assert_int_equal(copy(&f->a, 0, UFFDIO_COPY_MODE_WP, 7), 0);
	assert_int_equal(protect(&f->b, 0, 1), 0);
	assert_int_equal(cont(&f->b, 0, 1, 0), 0);
	assert_int_equal(quietly(&f->b, cl_write, 0, 9), 0);
	assert_int_equal(quietly(&f->a, cl_read, 0, 0), 9);
}

static void continue_maps_protected_or_is_refused(void **state)
{
	struct fixture *f = *state;

	client_start(&f->a, &f->mem, &minor);
	client_start(&f->b, &f->mem, &minor);
	assert_int_equal(copy(&f->a, 0, UFFDIO_COPY_MODE_WP, 7), 0);
	if (!f->features.minor_wp) {
		assert_int_equal(cont(&f->b, 0, 1, UFFD_KERNEL_CONTINUE_WP),
		                 EINVAL);
		return;
	}
	assert_int_equal(cont(&f->b, 0, 1, UFFD_KERNEL_CONTINUE_WP), 0);
	assert_int_equal(quietly(&f->b, cl_read, 0, 0), 7);
	assert_faults(&f->b, 1, cl_write, 0, 9, WP);
	assert_int_equal(unprotect(&f->b, 0), 0);
	assert_int_equal(client_result(&f->b, 1), 0);
}

static void continue_invents_no_page(void **state)
{
	struct fixture *f = *state;

	client_start(&f->a, &f->mem, &minor);
	assert_int_equal(cont(&f->a, 0, 1, 0), EFAULT);
	assert_int_equal(resident_pages(f), 0);
}

static void a_taken_page_faults_as_missing_and_comes_back_writable(void **state)
{
	struct fixture *f = *state;

	client_start(&f->a, &f->mem, &minor);
	assert_int_equal(copy(&f->a, 0, 0, 5), 0);
	assert_int_equal(protect(&f->a, 0, 1), 0);
	punch(f, 0);
	assert_faults(&f->a, 1, cl_read, 0, 0, READ);
	assert_int_equal(copy(&f->a, 0, 0, 6), 0);
	assert_int_equal(client_result(&f->a, 1), 6);
	assert_int_equal(quietly(&f->a, cl_write, 0, 8), 0);
	/* By zeros as well, over the marker that was left. */
	assert_int_equal(protect(&f->a, 0, 1), 0);
	punch(f, 0);
	assert_int_equal(zero(&f->a, 0), 0);
	assert_int_equal(quietly(&f->a, cl_write, 0, 8), 0);
}

/* A writer waits; meanwhile its page goes, and comes back for readers only. */
static void a_wp_waiter_whose_page_went_faults_anew(void **state)
{
	struct fixture *f = *state;

	client_start(&f->a, &f->mem, &minor);
	assert_int_equal(copy(&f->a, 0, UFFDIO_COPY_MODE_WP, 5), 0);
	assert_faults(&f->a, 1, cl_write, 0, 9, WP);
	punch(f, 0);
	assert_int_equal(copy(&f->a, 0, UFFDIO_COPY_MODE_WP, 6), 0);
	assert_int_equal(await_message(&f->a), WP);
	assert_int_equal(unprotect(&f->a, 0), 0);
	assert_int_equal(client_result(&f->a, 1), 0);
	assert_int_equal(space_mem_page(&f->mem, 0)[0], 9);
}

/* Dropping entries inside the client takes its mapping away and no byte: what
 * the fence thread rests on. */
static void dontneed_fences_readers_and_writers(void **state)
{
	struct fixture *f = *state;

	client_start(&f->a, &f->mem, &minor);
	assert_int_equal(copy(&f->a, 0, UFFDIO_COPY_MODE_WP, 4), 0);
	assert_int_equal(copy(&f->a, 1, 0, 5), 0);
	assert_int_equal(quietly(&f->a, cl_dontneed, 0, 2), 0);
	assert_int_equal(resident_pages(f), 2);
	assert_faults(&f->a, 1, cl_read, 0, 0, MINOR);
	assert_faults(&f->a, 2, cl_write, 1, 9, MINOR_WR);
	assert_int_equal(cont(&f->a, 0, 2, 0), 0);
	assert_int_equal(client_result(&f->a, 1), 4);
	assert_int_equal(client_result(&f->a, 2), 0);
}

/* --- with markers in place of MINOR, the way before Linux 6.4 ---------- */

static void through_a_marker_pages_show_read_only(void **state)
{
	struct fixture *f = *state;

	client_start(&f->a, &f->mem, &markers);
	client_start(&f->b, &f->mem, &markers);
	assert_int_equal(protect(&f->a, 0, PAGES), 0);
	assert_int_equal(protect(&f->b, 0, PAGES), 0);
	assert_int_equal(resident_pages(f), 0);
	assert_int_equal(copy(&f->a, 0, UFFDIO_COPY_MODE_WP, 7), 0);
	assert_int_equal(quietly(&f->b, cl_read, 0, 0), 7);
	assert_faults(&f->b, 1, cl_write, 0, 9, WP);
	assert_int_equal(unprotect(&f->b, 0), 0);
	assert_int_equal(client_result(&f->b, 1), 0);
	/* A writer that is first, of a page that A may write. */
	assert_int_equal(copy(&f->a, 1, 0, 7), 0);
	assert_faults(&f->b, 2, cl_write, 1, 9, WP);
	/* And by write(2), for which there is no client at all. */
	assert_int_equal(pwrite(f->mem.fd, "\5", 1, 2 * PAGE_BYTES), 1);
	assert_int_equal(quietly(&f->a, cl_read, 2, 0), 5);
	assert_faults(&f->a, 2, cl_write, 2, 9, WP);
}

static void markers_outlive_punch_and_dontneed(void **state)
{
	struct fixture *f = *state;

	client_start(&f->a, &f->mem, &markers);
	client_start(&f->b, &f->mem, &markers);
	assert_int_equal(protect(&f->a, 0, PAGES), 0);
	assert_int_equal(protect(&f->b, 0, PAGES), 0);
	assert_int_equal(copy(&f->a, 0, UFFDIO_COPY_MODE_WP, 7), 0);
	assert_int_equal(quietly(&f->b, cl_read, 0, 0), 7);
	punch(f, 0);
	assert_faults(&f->b, 1, cl_read, 0, 0, READ);
	assert_int_equal(copy(&f->a, 0, UFFDIO_COPY_MODE_WP, 8), 0);
	assert_int_equal(wake(&f->b, 0, 1), 0);
	assert_int_equal(client_result(&f->b, 1), 8);
	assert_faults(&f->b, 1, cl_write, 0, 9, WP);
	/* The client drops a page that it has read. */
	assert_int_equal(copy(&f->a, 1, UFFDIO_COPY_MODE_WP, 7), 0);
	assert_int_equal(quietly(&f->b, cl_read, 1, 0), 7);
	assert_int_equal(quietly(&f->b, cl_dontneed, 1, 1), 0);
	assert_faults(&f->b, 2, cl_write, 1, 9, WP);
}

static long cl_register_minor(struct client *c, long a, long b)
{
	(void)a, (void)b;
	return client_register(c, UFFD_KERNEL_MODE_MINOR);
}

/* What the fence thread does before it drops the mappings, there. */
static void minor_can_be_registered_over_markers(void **state)
{
	struct fixture *f = *state;

	client_start(&f->a, &f->mem, &markers);
	assert_int_equal(protect(&f->a, 0, PAGES), 0);
	assert_int_equal(copy(&f->a, 0, UFFDIO_COPY_MODE_WP, 7), 0);
	assert_int_equal(client_do(&f->a, 1, cl_register_minor, 0, 0), 0);
	assert_int_equal(quietly(&f->a, cl_dontneed, 0, 1), 0);
	assert_faults(&f->a, 1, cl_read, 0, 0, MINOR);
	assert_int_equal(cont(&f->a, 0, 1, 0), 0);
	assert_int_equal(client_result(&f->a, 1), 7);
}

/* --- runs -------------------------------------------------------------- */

static void a_run_stops_at_a_page_that_is_there(void **state)
{
	struct fixture *f = *state;
	int64_t did;

	client_start(&f->a, &f->mem, &minor);
	assert_int_equal(copy(&f->a, 10, 0, 1), 0);
	assert_int_equal(copy_some(&f->a, 8, 4, 0, 2, &did), EAGAIN);
	assert_int_equal(did, 2 * PAGE_BYTES);
	assert_int_equal(copy_some(&f->a, 10, 2, 0, 2, &did), EEXIST);
	assert_int_equal(did, -EEXIST);
	assert_int_equal(resident_pages(f), 3);
}

static void a_run_over_a_split_mapping_is_done_whole_or_not_at_all(void **state)
{
	struct fixture *f = *state;
	int64_t did;
	int e;

	client_start(&f->a, &f->mem, &minor);
	assert_int_equal(copy_some(&f->a, 0, 16, 0, 1, &did), 0);
	assert_int_equal(client_do(&f->a, 1, cl_split, 4, 1), 0);
	e = protect(&f->a, 0, 16);
	assert_true(e == 0 || e == ENOENT);
	if (e == ENOENT) { /* Linux 6.1: nobody is stopped */
		assert_int_equal(quietly(&f->a, cl_write, 0, 3), 0);
		assert_int_equal(quietly(&f->a, cl_write, 8, 3), 0);
	} else {
		assert_faults(&f->a, 1, cl_write, 0, 3, WP);
		assert_faults(&f->a, 2, cl_write, 8, 3, WP);
	}
	assert_int_equal(client_do(&f->a, 3, cl_split, 40, 1), 0);
	assert_int_equal(copy_some(&f->a, 36, 8, 0, 1, &did), ENOENT);
	assert_true(did <= 0);
	assert_int_equal(cont(&f->a, 38, 4, 0), ENOENT);
	assert_int_equal(copy(&f->a, 40, 0, 1), 0);
}

/* --- messages ---------------------------------------------------------- */

/* A successor of a node that had read messages wakes everybody, once [A9]. */
static void a_message_read_is_gone_until_its_thread_is_woken(void **state)
{
	struct fixture *f = *state;

	client_start(&f->a, &f->mem, &minor);
	assert_faults(&f->a, 1, cl_read, 0, 0, READ);
	assert_int_equal(message(&f->a), NOTHING);
	assert_int_equal(wake(&f->a, 0, PAGES), 0);
	assert_int_equal(await_message(&f->a), READ);
	assert_int_equal(copy(&f->a, 0, 0, 3), 0);
	assert_int_equal(client_result(&f->a, 1), 3);
}

static void an_unread_remove_event_holds_everything_up(void **state)
{
	static const struct client_options events = {
		.mode = UFFD_KERNEL_MODE_MINOR,
		.features = UFFD_FEATURE_EVENT_REMOVE,
	};
	struct fixture *f = *state;

	client_start(&f->a, &f->mem, &events);
	assert_int_equal(copy(&f->a, 0, 0, 4), 0);
	client_call(&f->a, 1, cl_dontneed, 0, 1);
	client_await_fault(&f->a);
	/* The page is not dropped before the event is read: no fence. */
	assert_int_equal(client_do(&f->a, 2, cl_write, 0, 9), 0);
	assert_int_equal(copy(&f->a, 3, 0, 4), EAGAIN);
	assert_int_equal(message(&f->a), 0x8000u | UFFD_EVENT_REMOVE);
	assert_int_equal(client_result(&f->a, 1), 0);
	assert_int_equal(copy(&f->a, 3, 0, 4), 0);
	/* Of a hole punched through the descriptor nobody hears. */
	punch(f, 3);
	assert_int_equal(message(&f->a), NOTHING);
}

/* --- ways around us ---------------------------------------------------- */

static long cl_move(struct client *c, long a, long b)
{
	const size_t bytes = c->pages * PAGE_BYTES;

	(void)a, (void)b;
	c->base = mremap(c->base, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED,
	                 c->base + (1ul << 30));
	return c->base == MAP_FAILED ? -errno : 0;
}

static void a_moved_mapping_is_watched_no_more(void **state)
{
	struct fixture *f = *state;

	client_start(&f->a, &f->mem, &minor);
	assert_int_equal(client_do(&f->a, 1, cl_move, 0, 0), 0);
	assert_int_equal(quietly(&f->a, cl_read, 0, 0), 0);
	assert_int_equal(resident_pages(f), 1);
}

static long cl_fork_and_touch(struct client *c, long page, long advice)
{
	int status = 0;
	pid_t pid;

	if (madvise(c->base, c->pages * PAGE_BYTES, (int)advice) < 0)
		return -errno;
	pid = fork();
	if (pid == 0) {
		(void)signal(SIGSEGV, SIG_DFL);
		*cl_at(c, page) = 9;
		_exit(0);
	}
	(void)waitpid(pid, &status, 0);
	return WIFSIGNALED(status) ? CLIENT_SIGNAL(WTERMSIG(status)) : 0;
}

static void a_child_goes_around_us_unless_it_lacks_the_mapping(void **state)
{
	struct fixture *f = *state;

	client_start(&f->a, &f->mem, &minor);
	assert_int_equal(quietly(&f->a, cl_fork_and_touch, 0, MADV_DONTFORK),
	                 CLIENT_SIGNAL(SIGSEGV));
	assert_int_equal(resident_pages(f), 0);
	assert_int_equal(quietly(&f->a, cl_fork_and_touch, 0, MADV_DOFORK), 0);
	assert_int_equal(resident_pages(f), 1);
}

static void the_descriptor_reads_zeros_and_writes_pages(void **state)
{
	struct fixture *f = *state;
	char byte = 1;

	client_start(&f->a, &f->mem, &minor);
	assert_int_equal(pread(f->mem.fd, &byte, 1, 0), 1);
	assert_int_equal(byte, 0);
	assert_int_equal(resident_pages(f), 0);
	assert_int_equal(pwrite(f->mem.fd, "x", 1, PAGE_BYTES), 1);
	assert_int_equal(resident_pages(f), 1);
	assert_int_equal(message(&f->a), NOTHING);
}

static long cl_map_another(struct client *c, long a, long b)
{
	const size_t bytes = c->pages * PAGE_BYTES;
	int fd = memfd_create("another", MFD_CLOEXEC);
	int second = probe_open_userfaultfd(NULL);
	struct uffdio_api api = { .api = UFFD_API,
		                  .features = UFFD_KERNEL_FEATURES };

	(void)a, (void)b;
	if (ftruncate(fd, (off_t)bytes) < 0 ||
	    mmap(c->base, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
	         fd, 0) == MAP_FAILED ||
	    ioctl(second, UFFDIO_API, &api) < 0)
		return -errno;
	c->own_uffd = second;
	return client_register(c, UFFD_KERNEL_MODE_MINOR);
}

/* So a mapping ends at the node first, and at the client after that [A10]. */
static void an_old_userfaultfd_reaches_what_is_mapped_there_now(void **state)
{
	struct fixture *f = *state;

	client_start(&f->a, &f->mem, &minor);
	assert_int_equal(client_do(&f->a, 1, cl_map_another, 0, 0), 0);
	assert_int_equal(copy(&f->a, 0, 0, 77), 0);
	assert_int_equal(client_do(&f->a, 1, cl_read, 0, 0), 77);
	assert_int_equal(resident_pages(f), 0);
	assert_int_equal(protect(&f->a, 0, 1), 0);
	assert_int_equal(unprotect(&f->a, 0), 0);
}

/* A page that must be paged in, as the source of a write that holds another. */
static long cl_pinned_write(struct client *c, long page, long source)
{
	struct iovec from = { .iov_base = (void *)(uintptr_t)cl_at(c, source),
		              .iov_len = 8 };
	struct iovec to = { .iov_base = (void *)(uintptr_t)cl_at(c, page),
		            .iov_len = 8 };

	return process_vm_writev(getpid(), &from, 1, &to, 1, 0);
}

static void a_write_through_a_pin_is_lost_in_silence(void **state)
{
	struct fixture *f = *state;

	client_start(&f->a, &f->mem, &minor);
	assert_int_equal(copy(&f->a, 0, 0, 0x11), 0);
	/* The source faults while the destination is held. */
	assert_faults(&f->a, 1, cl_pinned_write, 0, 1, READ);
	assert_int_equal(protect(&f->a, 0, 1), 0);
	punch(f, 0);
	assert_int_equal(copy(&f->a, 1, 0, 0x22), 0);
	assert_int_equal(client_result(&f->a, 1), 8); /* it says */
	assert_int_equal(message(&f->a), NOTHING);
	assert_int_equal(copy(&f->a, 0, 0, 0x11), 0);
	assert_int_equal(quietly(&f->a, cl_read, 0, 0), 0x11);
}

/* --- attach ------------------------------------------------------------ */

static long cl_map_when_all_is_locked(struct client *c, long flags, long b)
{
	const size_t bytes = c->pages * PAGE_BYTES;
	const struct client_options o = { .mode = UFFD_KERNEL_MODE_MINOR };

	(void)b;
	if (flags != 0)
		return mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		            MAP_SHARED | (int)flags, c->memfd,
		            0) == MAP_FAILED ?
		               -errno :
		               0;
	if (mlockall(MCL_FUTURE) < 0)
		return -errno;
	return client_map(c, &o);
}

/* The order of an attach, where the program locks all that it maps [A12]. */
static void mapped_without_rights_nothing_is_filled(void **state)
{
	struct fixture *f = *state;

	client_start(&f->a, &f->mem, &minor);
	assert_int_equal(client_do(&f->a, 1, cl_map_when_all_is_locked, 0, 0),
	                 0);
	assert_int_equal(resident_pages(f), 0);
}

static void mapped_with_populate_all_is_filled(void **state)
{
	struct fixture *f = *state;

	client_start(&f->a, &f->mem, &minor);
	assert_int_equal(client_do(&f->a, 1, cl_map_when_all_is_locked,
	                           MAP_POPULATE, 0),
	                 0);
	assert_int_equal(resident_pages(f), PAGES);
}

/* --- the end of a userfaultfd ------------------------------------------ */

static long cl_close_uffd(struct client *c, long a, long b)
{
	(void)a, (void)b;
	return close(c->own_uffd);
}

static long cl_poll_uffd(struct client *c, long fd, long b)
{
	struct pollfd p = { .fd = c->own_uffd, .events = POLLIN };

	(void)b;
	/* Tell that we are about to poll. */
	if (write((int)fd, "x", 1) != 1)
		return -errno;
	return poll(&p, 1, CLIENT_WAIT_MS);
}

static void when_the_last_descriptor_closes_holes_read_as_zeros(void **state)
{
	struct fixture *f = *state;

	client_start(&f->a, &f->mem, &minor);
	assert_int_equal(client_do(&f->a, 1, cl_close_uffd, 0, 0), 0);
	close(f->a.uffd);
	f->a.uffd = -1;
	assert_int_equal(client_do(&f->a, 1, cl_read, 0, 0), 0);
	assert_int_equal(resident_pages(f), 1);
}

/* Is a thread of the client asleep in poll(2)? */
static bool asleep_in_poll(pid_t tid)
{
	char path[64], text[64] = "";
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/%d/syscall", tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		(void)!read(fd, text, sizeof(text) - 1);
		close(fd);
	}
	return atol(text) == SYS_poll && text[0] != 'r';
}

/* Which is why the fence thread sits in poll(2) on it [A13]. */
static void a_thread_in_poll_keeps_a_closed_userfaultfd_alive(void **state)
{
	struct fixture *f = *state;
	int pair[2];
	char byte;
	pid_t tid;

	assert_int_equal(pipe(pair), 0);
	client_start(&f->a, &f->mem, &minor);
	tid = (pid_t)client_do(&f->a, 1, cl_tid, 0, 0);
	client_call(&f->a, 1, cl_poll_uffd, pair[1], 0);
	assert_int_equal(read(pair[0], &byte, 1), 1);
	if (access("/proc/self/syscall", R_OK) != 0)
		skip(); /* no telling when it sleeps */
	while (!asleep_in_poll(tid))
		assert_false(client_through(&f->a, 1, 0));
	assert_int_equal(client_do(&f->a, 2, cl_close_uffd, 0, 0), 0);
	close(f->a.uffd);
	f->a.uffd = -1;
	/* A reader faults, which wakes the thread in poll; before that, and
	 * because of it, the page was still watched. */
	client_call(&f->a, 3, cl_read, 0, 0);
	assert_int_equal(client_result(&f->a, 1), 1);
	close(pair[0]);
	close(pair[1]);
}

/* --- poison ------------------------------------------------------------ */

static void poison_wants_an_empty_entry(void **state)
{
	struct fixture *f = *state;

	if (!f->features.poison)
		skip(); /* before Linux 6.6 */
	client_start(&f->a, &f->mem, &minor);
	assert_int_equal(copy(&f->a, 0, 0, 1), 0);
	assert_int_equal(poison(&f->a, 0), EEXIST);
	/* A marker, which each page has that was ever taken, is in its way. */
	assert_int_equal(protect(&f->a, 0, 1), 0);
	punch(f, 0);
	assert_int_equal(poison(&f->a, 0), EEXIST);
	assert_int_equal(unprotect(&f->a, 0), 0);
	assert_int_equal(poison(&f->a, 0), 0);
	assert_int_equal(quietly(&f->a, cl_read, 0, 0), CLIENT_SIGNAL(SIGBUS));
	/* Neither protecting nor punching lifts it; the client's DONTNEED and a
	 * COPY do. */
	assert_int_equal(protect(&f->a, 0, 1), 0);
	assert_int_equal(unprotect(&f->a, 0), 0);
	punch(f, 0);
	assert_int_equal(quietly(&f->a, cl_read, 0, 0), CLIENT_SIGNAL(SIGBUS));
	assert_int_equal(quietly(&f->a, cl_dontneed, 0, 1), 0);
	assert_faults(&f->a, 1, cl_read, 0, 0, READ);
	assert_int_equal(poison(&f->a, 0), 0);
	assert_int_equal(client_result(&f->a, 1), CLIENT_SIGNAL(SIGBUS));
	assert_int_equal(copy(&f->a, 0, 0, 5), 0);
	assert_int_equal(quietly(&f->a, cl_read, 0, 0), 5);
}

/* --- seals ------------------------------------------------------------- */

static void seals_forbid_resizing_and_allow_punching(void **state)
{
	struct fixture *f = *state;

	client_start(&f->a, &f->mem, &minor);
	assert_int_equal(copy(&f->a, 0, 0, 1), 0);
	assert_int_equal(ftruncate(f->mem.fd, 0), -1);
	assert_int_equal(errno, EPERM);
	punch(f, 0);
	assert_int_equal(resident_pages(f), 0);
}

static void a_page_is_four_kib_however_it_comes(void **state)
{
	struct fixture *f = *state;

	client_start(&f->a, &f->mem, &minor);
	assert_int_equal(copy(&f->a, 0, 0, 1), 0);
	assert_int_equal(zero(&f->a, 1), 0);
	assert_int_equal(pwrite(f->mem.fd, "x", 1, 2 * PAGE_BYTES), 1);
	assert_int_equal(resident_pages(f), 3);
}

#define FACT(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		FACT(a_second_client_always_faults_as_minor),
		FACT(a_plain_continue_maps_writable_even_over_a_marker),
		FACT(continue_maps_protected_or_is_refused),
		FACT(continue_invents_no_page),
		FACT(a_taken_page_faults_as_missing_and_comes_back_writable),
		FACT(a_wp_waiter_whose_page_went_faults_anew),
		FACT(dontneed_fences_readers_and_writers),
		FACT(through_a_marker_pages_show_read_only),
		FACT(markers_outlive_punch_and_dontneed),
		FACT(minor_can_be_registered_over_markers),
		FACT(a_run_stops_at_a_page_that_is_there),
		FACT(a_run_over_a_split_mapping_is_done_whole_or_not_at_all),
		FACT(a_message_read_is_gone_until_its_thread_is_woken),
		FACT(an_unread_remove_event_holds_everything_up),
		FACT(a_moved_mapping_is_watched_no_more),
		FACT(a_child_goes_around_us_unless_it_lacks_the_mapping),
		FACT(the_descriptor_reads_zeros_and_writes_pages),
		FACT(an_old_userfaultfd_reaches_what_is_mapped_there_now),
		FACT(a_write_through_a_pin_is_lost_in_silence),
		FACT(mapped_without_rights_nothing_is_filled),
		FACT(mapped_with_populate_all_is_filled),
		FACT(when_the_last_descriptor_closes_holes_read_as_zeros),
		FACT(a_thread_in_poll_keeps_a_closed_userfaultfd_alive),
		FACT(poison_wants_an_empty_entry),
		FACT(seals_forbid_resizing_and_allow_punching),
		FACT(a_page_is_four_kib_however_it_comes),
	};

	if (!client_possible()) {
		puts("1..0 # SKIP this user may not open a userfaultfd");
		return 0;
	}
	return cmocka_run_group_tests_name("kernel_facts", tests, NULL, NULL);
}
