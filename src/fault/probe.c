/* SPDX-License-Identifier: Apache-2.0 */
/*
 * probe: each thing memspan needs of the kernel, done once on a small space.
 *
 * The rig is what a client and its node are together: a sealed memfd with our
 * alias (fault/frame.h), and a second mapping of it, watched by a userfaultfd
 * as a client's is.  Ioctls on the watched mapping are tried one by one, each
 * on pages that no other touches; at the end one page goes through its whole
 * life with a real thread waiting for it.  That thread is the only one of ours
 * that ever touches watched memory; whatever goes wrong, the range is
 * unregistered before it is joined, which lets it go on.
 *
 * Each check is a sentence for an operator: what was tried and what came back,
 * and, if that is not enough, what to change.
 */

#include "fault/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "fault/frame.h"
#include "fault/uffd_kernel.h"

#define DEVICE "/dev/userfaultfd"

/* A page for each thing that is tried. */
enum rig_page {
	PAGE_COPY,
	PAGE_COPY_WP,
	PAGE_ZERO,
	PAGE_PROTECT,
	PAGE_CONTINUE,
	PAGE_CONTINUE_WP,
	PAGE_POISON,
	PAGE_LIFE,
	RIG_PAGES = 512, /* one huge page, should the kernel want to make one */
};

/* A thread waits at most so long for the kernel's message. */
#define LIFE_WAIT_MS 5000

/* Userfaultfds of a client, and of how many clients a node should have room. */
#define NOFILE_NEEDED  256u
#define NOFILE_WANTED  4096u
#define MEMLOCK_WANTED (64u << 20)

struct rig {
	int fd; /* userfaultfd, -1: none */
	struct space_mem mem;
	uint8_t *watched; /* NULL: not mapped */
};

static const char remedy_userfaultfd[] =
	"one of: sysctl vm.unprivileged_userfaultfd=1; a udev rule "
	"KERNEL==\"userfaultfd\", GROUP=\"memspan\", MODE=\"0660\"; "
	"setcap cap_sys_ptrace+ep PROGRAM; run as root";
static const char remedy_kernel[] = "run Linux 5.19 or later, built with "
				    "CONFIG_USERFAULTFD";
static const char remedy_old_kernel[] =
	"none needed: memspan does without; Linux %s has it";

/* --- userfaultfds -------------------------------------------------------- */

/* Is `what` named in $MEMSPAN_MASK_FEATURES? */
static bool masked(const char *what)
{
	const char *list = getenv("MEMSPAN_MASK_FEATURES");
	const size_t n = strlen(what);

	while (list != NULL && *list != '\0') {
		const size_t word = strcspn(list, ",");

		if (word == n && strncmp(list, what, n) == 0)
			return true;
		list += word;
		list += *list == ',';
	}
	return false;
}

static int open_by_device(void)
{
	AUTO_CLOSE int dev = -1;
	int fd;

	if (masked("dev"))
		return -ENODEV;
	dev = open(DEVICE, O_RDWR | O_CLOEXEC);
	if (dev < 0)
		return -errno;
	fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

static int open_by_call(int flags)
{
	long fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags);

	return fd < 0 ? -errno : (int)fd;
}

/*
 * Never with UFFD_USER_MODE_ONLY: the kernel touches a space too, for KVM and
 * in read(2), and those faults must wait for us as well.
 */
int probe_open_userfaultfd(struct errmsg *em)
{
	int fd = open_by_device();

	if (fd < 0)
		fd = open_by_call(0);
	if (fd == -ENOSYS)
		return errmsg_set(em, fd, "cannot open a userfaultfd (%s)",
		                  remedy_kernel);
	if (fd < 0)
		return errmsg_set(em, fd, "cannot open a userfaultfd (%s)",
		                  remedy_userfaultfd);
	return fd;
}

static int api(int fd, uint64_t features, uint64_t *ret)
{
	struct uffdio_api a = { .api = UFFD_API, .features = features };

	if (ioctl(fd, UFFDIO_API, &a) < 0)
		return -errno;
	if (ret != NULL)
		*ret = a.features;
	return 0;
}

/* --- the rig ------------------------------------------------------------- */

static void rig_done(struct rig *g)
{
	if (g->watched != NULL)
		(void)munmap(g->watched, RIG_PAGES * PAGE_BYTES);
	if (g->fd >= 0)
		close(g->fd);
	space_mem_done(&g->mem);
}

static struct uffdio_range rig_range(const struct rig *g, unsigned page)
{
	return (struct uffdio_range){
		.start = (uintptr_t)g->watched + page * PAGE_BYTES,
		.len = PAGE_BYTES,
	};
}

/* In a client's order: nothing can be touched before it is watched [A12]. */
static int rig_watch(struct rig *g)
{
	const size_t bytes = RIG_PAGES * PAGE_BYTES;
	struct uffdio_register reg = { .mode = UFFD_KERNEL_MODE_MINOR };
	void *at = mmap(NULL, bytes, PROT_NONE, MAP_SHARED, g->mem.fd, 0);

	if (at == MAP_FAILED)
		return -errno;
	g->watched = at;
	(void)madvise(at, bytes, MADV_NOHUGEPAGE);
	(void)madvise(at, bytes, MADV_DONTFORK);
	reg.range =
		(struct uffdio_range){ .start = (uintptr_t)at, .len = bytes };
	if (ioctl(g->fd, UFFDIO_REGISTER, &reg) < 0)
		return -errno;
	if (mprotect(at, bytes, PROT_READ | PROT_WRITE) < 0)
		return -errno;
	return 0;
}

static int try_copy(const struct rig *g, unsigned page, uint8_t fill,
                    uint64_t mode)
{
	uint8_t bytes[PAGE_BYTES];
	struct uffdio_copy copy = {
		.dst = rig_range(g, page).start,
		.src = (uintptr_t)bytes,
		.len = PAGE_BYTES,
		.mode = mode,
	};

	memset(bytes, fill, sizeof(bytes));
	return ioctl(g->fd, UFFDIO_COPY, &copy) < 0 ? -errno : 0;
}

static int try_zero(const struct rig *g, unsigned page)
{
	struct uffdio_zeropage zero = { .range = rig_range(g, page) };

	return ioctl(g->fd, UFFDIO_ZEROPAGE, &zero) < 0 ? -errno : 0;
}

static int try_protect(const struct rig *g, unsigned page, uint64_t mode)
{
	struct uffdio_writeprotect wp = { .range = rig_range(g, page),
		                          .mode = mode };

	return ioctl(g->fd, UFFDIO_WRITEPROTECT, &wp) < 0 ? -errno : 0;
}

/* Put a page into the memfd, and map it from there. */
static int try_continue(const struct rig *g, unsigned page, uint64_t mode)
{
	static const uint8_t bytes[PAGE_BYTES] = { 1 };
	struct uffdio_continue cont = { .range = rig_range(g, page),
		                        .mode = mode };
	int r = space_mem_write(&g->mem, page, 1, bytes);

	if (r < 0)
		return r;
	return ioctl(g->fd, UFFDIO_CONTINUE, &cont) < 0 ? -errno : 0;
}

static int try_poison(const struct rig *g, unsigned page)
{
	struct uffd_poison_arg poison = { .range = rig_range(g, page) };

	return ioctl(g->fd, UFFD_KERNEL_POISON, &poison) < 0 ? -errno : 0;
}

static int try_continue_wp(const struct rig *g)
{
	if (masked("minor_wp"))
		return -EOPNOTSUPP;
	return try_continue(g, PAGE_CONTINUE_WP, UFFD_KERNEL_CONTINUE_WP);
}

static int try_poison_unless_masked(const struct rig *g)
{
	return masked("poison") ? -EOPNOTSUPP : try_poison(g, PAGE_POISON);
}

void probe_features(struct uffd_features *ret)
{
	struct rig g = { .fd = -1, .mem = { .fd = -1 } };

	/* Without a userfaultfd: the ways that work on every kernel. */
	*ret = (struct uffd_features){ .minor_wp = false };

	g.fd = probe_open_userfaultfd(NULL);
	if (g.fd < 0)
		g.fd = open_by_call(UFFD_USER_MODE_ONLY);
	if (g.fd >= 0 && api(g.fd, UFFD_KERNEL_FEATURES, NULL) == 0 &&
	    space_mem_init("probe", RIG_PAGES * PAGE_BYTES, &g.mem, NULL) ==
	            0 &&
	    rig_watch(&g) == 0) {
		ret->minor_wp = try_continue_wp(&g) == 0;
		ret->poison = try_poison_unless_masked(&g) == 0;
	}
	rig_done(&g);
}

/* --- a page's life ------------------------------------------------------- */

/* What the thread does: read a page that is away, then write to it. */
struct life {
	volatile uint8_t *at;
	uint8_t seen;
};

static void *life_thread(void *arg)
{
	struct life *l = arg;

	l->seen = *l->at;
	*l->at = 3;
	return NULL;
}

/* Wait for one fault message.  Returns its flags, or -errno. */
static int64_t life_message(const struct rig *g, unsigned page)
{
	struct pollfd pfd = { .fd = g->fd, .events = POLLIN };
	struct uffd_msg m;
	int n = poll(&pfd, 1, LIFE_WAIT_MS);

	if (n <= 0)
		return n < 0 ? -errno : -ETIMEDOUT;
	if (read(g->fd, &m, sizeof(m)) != (ssize_t)sizeof(m))
		return -EIO;
	if (m.event != UFFD_EVENT_PAGEFAULT ||
	    m.arg.pagefault.address != rig_range(g, page).start)
		return -EBADMSG;
	return (int64_t)m.arg.pagefault.flags;
}

static const char *life_serve(const struct rig *g)
{
	int64_t flags = life_message(g, PAGE_LIFE);

	if (flags < 0)
		return "no message of a read of the punched page";
	if (flags & (UFFD_PAGEFAULT_FLAG_WP | UFFD_PAGEFAULT_FLAG_MINOR))
		return "a punched page still counts as present";
	if (try_copy(g, PAGE_LIFE, 2, UFFDIO_COPY_MODE_WP) < 0)
		return "UFFDIO_COPY of the page failed";
	flags = life_message(g, PAGE_LIFE);
	if (flags < 0)
		return "no message of a write to the protected page";
	if (!(flags & UFFD_PAGEFAULT_FLAG_WP))
		return "the write did not arrive as a write-protect fault";
	if (try_protect(g, PAGE_LIFE, 0) < 0)
		return "removing the write protection failed";
	return NULL;
}

/* Install, protect, punch; then a thread comes.  NULL, or what went wrong. */
static const char *life_run(const struct rig *g)
{
	struct life l = { .at = g->watched + PAGE_LIFE * PAGE_BYTES };
	struct uffdio_range all = { .start = (uintptr_t)g->watched,
		                    .len = RIG_PAGES * PAGE_BYTES };
	const char *why;
	pthread_t thread;

	if (try_copy(g, PAGE_LIFE, 1, 0) < 0 ||
	    try_protect(g, PAGE_LIFE, UFFDIO_WRITEPROTECT_MODE_WP) < 0)
		return "cannot install a page and protect it";
	if (space_mem_page(&g->mem, PAGE_LIFE)[0] != 1)
		return "the installed bytes do not show in the memfd";
	if (space_mem_punch(&g->mem, PAGE_LIFE, 1) < 0)
		return "fallocate(PUNCH_HOLE) on the memfd failed";
	if (pthread_create(&thread, NULL, life_thread, &l) != 0)
		return "cannot start a thread";
	why = life_serve(g);
	(void)ioctl(g->fd, UFFDIO_UNREGISTER, &all);
	(void)pthread_join(thread, NULL);
	if (why == NULL && (l.seen != 2 || *l.at != 3))
		return "the thread did not see what was installed";
	return why;
}

/* --- checks -------------------------------------------------------------- */

/* Add a check; `fmt` makes its detail.  `remedy` is dropped if it is ok. */
static void PRINTF_LIKE(6, 7)
	check_add(struct probe *p, const char *name, bool needed, bool ok,
                  const char *remedy, const char *fmt, ...)
{
	struct probe_check *c = &p->v[p->n++];
	va_list args;

	assert(p->n <= PROBE_CHECKS_MAX);
	*c = (struct probe_check){ .name = name, .needed = needed, .ok = ok };
	va_start(args, fmt);
	(void)vsnprintf(c->detail, sizeof(c->detail), fmt, args);
	va_end(args);
	if (!ok)
		(void)snprintf(c->remedy, sizeof(c->remedy), "%s", remedy);
}

/* A check that is one call: `what` was tried and answered `r`. */
static void check_call(struct probe *p, const char *name, int r,
                       const char *what)
{
	check_add(p, name, true, r == 0, remedy_kernel, "%s: %s", what,
	          r == 0 ? "works" : strerror(-r));
}

/* A check of something that only newer kernels have. */
static bool check_newer(struct probe *p, const char *name, int r,
                        const char *what, const char *since)
{
	char remedy[sizeof(p->v[0].remedy)];

	(void)snprintf(remedy, sizeof(remedy), remedy_old_kernel, since);
	check_add(p, name, false, r == 0, remedy, "%s: %s", what,
	          r == 0           ? "works" :
	          r == -EOPNOTSUPP ? "hidden by $MEMSPAN_MASK_FEATURES" :
	                             strerror(-r));
	return r == 0;
}

/*
 * Can programs run by this user be clients?  Returns a userfaultfd for the
 * further checks, be it one for user mode only; or -1.
 */
static int check_userfaultfd(struct probe *p)
{
	int by_device = open_by_device();
	int by_call = open_by_call(0);
	int fd = by_device >= 0 ? by_device : by_call;

	if (by_device >= 0)
		check_add(p, "userfaultfd", true, true, "", "opened by %s%s",
		          DEVICE, by_call >= 0 ? ", and by the call too" : "");
	else if (by_call >= 0)
		check_add(p, "userfaultfd", true, true, "",
		          "opened by userfaultfd(2) (%s: %s)", DEVICE,
		          strerror(-by_device));
	else
		check_add(p, "userfaultfd", true, false,
		          by_call == -ENOSYS ? remedy_kernel :
		                               remedy_userfaultfd,
		          "%s: %s; userfaultfd(2): %s", DEVICE,
		          strerror(-by_device), strerror(-by_call));
	if (by_device >= 0 && by_call >= 0)
		close(by_call);
	if (fd < 0)
		fd = open_by_call(UFFD_USER_MODE_ONLY);
	return fd < 0 ? -1 : fd;
}

/* Asking for nothing is answered with all there is; it uses the fd up. */
static uint64_t all_features(void)
{
	AUTO_CLOSE int fd = open_by_call(UFFD_USER_MODE_ONLY);
	uint64_t features = 0;

	if (fd >= 0)
		(void)api(fd, 0, &features);
	return features;
}

static bool check_api(struct probe *p, int fd)
{
	uint64_t features = 0;
	int r = api(fd, UFFD_KERNEL_FEATURES, &features);

	if (r == 0) {
		check_add(p, "uffd_features", true, true, "",
		          "the kernel offers 0x%llx, all that is needed",
		          (unsigned long long)features);
	} else {
		features = all_features();
		check_add(p, "uffd_features", true, false, remedy_kernel,
		          "%s: needed 0x%llx, offered 0x%llx", strerror(-r),
		          (unsigned long long)UFFD_KERNEL_FEATURES,
		          (unsigned long long)features);
	}
	return r == 0;
}

static bool check_memfd(struct probe *p, struct rig *g)
{
	struct errmsg em = { .text = "" };
	int r = space_mem_init("probe", RIG_PAGES * PAGE_BYTES, &g->mem, &em);
	bool ok = r == 0;

	if (ok && ftruncate(g->mem.fd, 0) == 0) {
		ok = false;
		(void)errmsg_say(&em, 0, "a sealed memfd could be truncated");
	}
	check_add(p, "memfd_seals", true, ok, remedy_kernel, "%s",
	          ok ? "a memfd was made, sealed and mapped" : em.text);
	return ok;
}

static void check_ioctls(struct probe *p, struct rig *g)
{
	const uint64_t wp = UFFDIO_WRITEPROTECT_MODE_WP;
	const char *why;
	int r = rig_watch(g);

	check_call(p, "uffd_register", r,
	           "registering a memfd for MISSING, MINOR and WP");
	if (r < 0)
		return;
	r = try_protect(g, PAGE_PROTECT, wp);
	if (r == 0)
		r = try_protect(g, PAGE_PROTECT, 0);
	check_call(p, "wp_shmem", r, "write-protecting a page not there yet");
	check_call(p, "uffd_copy", try_copy(g, PAGE_COPY, 1, 0), "UFFDIO_COPY");
	check_call(p, "uffd_copy_wp",
	           try_copy(g, PAGE_COPY_WP, 1, UFFDIO_COPY_MODE_WP),
	           "UFFDIO_COPY, write-protected");
	check_call(p, "uffd_zeropage", try_zero(g, PAGE_ZERO),
	           "UFFDIO_ZEROPAGE");
	check_call(p, "uffd_continue", try_continue(g, PAGE_CONTINUE, 0),
	           "UFFDIO_CONTINUE");
	p->features.minor_wp =
		check_newer(p, "uffd_continue_wp", try_continue_wp(g),
	                    "UFFDIO_CONTINUE, write-protected", "6.4");
	p->features.poison =
		check_newer(p, "uffd_poison", try_poison_unless_masked(g),
	                    "UFFDIO_POISON", "6.6");
	why = life_run(g);
	check_add(p, "page_life", true, why == NULL, remedy_kernel,
	          "a page installed, taken and given back to a thread: %s",
	          why == NULL ? "works" : why);
}

/*
 * A host may ask for large pages in memfds.  Then a page that we install brings
 * its neighbours, as zeros, which clients would map unasked.
 */
static void check_small_pages(struct probe *p)
{
	static const uint8_t bytes[PAGE_BYTES] = { 1 };
	struct space_mem m = { .fd = -1 };
	uint64_t resident = 0;
	int r = space_mem_init("probe", RIG_PAGES * PAGE_BYTES, &m, NULL);

	if (r == 0)
		r = space_mem_write(&m, 0, 1, bytes);
	if (r == 0)
		resident = space_mem_resident(&m);
	space_mem_done(&m);
	if (r < 0) {
		check_add(p, "memfd_small_pages", true, false,
		          "give this machine or control group more memory",
		          "cannot write a page into a memfd: %s", strerror(-r));
		return;
	}
	check_add(p, "memfd_small_pages", true, resident == PAGE_BYTES,
	          "echo never (or advise) into shmem_enabled in "
	          "/sys/kernel/mm/transparent_hugepage, and in its "
	          "hugepages-*kB if there",
	          "a page written to a memfd takes %llu KiB",
	          (unsigned long long)resident / 1024);
}

/* Pages of a memfd go to swap, and the node then waits for a disk. */
static void check_swap(struct probe *p)
{
	char line[512];
	unsigned areas = 0;
	FILE *f = fopen("/proc/swaps", "re");

	if (f != NULL) {
		while (fgets(line, sizeof(line), f) != NULL)
			areas += line[0] == '/';
		(void)fclose(f);
	}
	if (areas == 0)
		check_add(p, "swap", false, true, "", "no swap is on");
	else
		check_add(p, "swap", false, false,
		          "swapoff -a, or MemorySwapMax=0 for memspan-node and "
		          "for the services that use spaces",
		          "swap is on (%u areas): pages of spaces may be "
		          "swapped out, and a fault then waits for the disk",
		          areas);
}

static void check_nofile(struct probe *p)
{
	struct rlimit lim = { 0, 0 };

	(void)getrlimit(RLIMIT_NOFILE, &lim);
	check_add(p, "nofile", lim.rlim_max < NOFILE_NEEDED,
	          lim.rlim_max >= NOFILE_WANTED,
	          "LimitNOFILE=65536 in the unit, or ulimit -Hn 65536 "
	          "(/etc/security/limits.conf)",
	          "at most %llu open files: a client takes up to %u for each "
	          "space it attaches, its node as many",
	          (unsigned long long)lim.rlim_max, STRIPES_MAX);
}

/* By locking address space alone: ONFAULT allocates nothing. */
static void check_memlock(struct probe *p)
{
	struct rlimit lim = { 0, 0 };
	bool ok = false;
	void *at = mmap(NULL, MEMLOCK_WANTED, PROT_READ | PROT_WRITE,
	                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	(void)getrlimit(RLIMIT_MEMLOCK, &lim);
	if (at != MAP_FAILED) {
		ok = mlock2(at, MEMLOCK_WANTED, MLOCK_ONFAULT) == 0;
		(void)munmap(at, MEMLOCK_WANTED);
	}
	check_add(p, "memlock", false, ok,
	          "LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited, "
	          "or setcap cap_ipc_lock+ep memspan-node",
	          "%u MiB %s be locked, so that a node's memory of the fault "
	          "path %s; the limit is %llu KiB",
	          MEMLOCK_WANTED >> 20, ok ? "can" : "cannot",
	          ok ? "stays" : "may be swapped",
	          (unsigned long long)lim.rlim_cur / 1024);
}

void probe_run(struct probe *ret)
{
	struct rig g = { .fd = -1, .mem = { .fd = -1 } };

	*ret = (struct probe){ .n = 0 };
	g.fd = check_userfaultfd(ret);
	/* What depends on something that failed is left out: one cause, one
	 * failed check. */
	if (g.fd >= 0 && check_api(ret, g.fd) && check_memfd(ret, &g))
		check_ioctls(ret, &g);
	rig_done(&g);
	check_small_pages(ret);
	check_swap(ret);
	check_nofile(ret);
	check_memlock(ret);
}
