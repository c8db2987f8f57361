/* SPDX-License-Identifier: Apache-2.0 */
/*
 * frame: memfds, one for each space and one for the pool.
 *
 * A memfd whose size can change is a weapon: one ftruncate() by a client, and
 * the node's next access to the alias is a SIGBUS.  So both kinds are sealed
 * before anybody else can have the descriptor.  Punching holes is still
 * allowed.
 *
 * The alias is mapped without MAP_POPULATE and marked
 *
 *	DONTFORK    a child that touched a hole would fill it with zeros
 *	DONTDUMP    a core dump would read, and so fill, each hole
 *	NOHUGEPAGE  a huge page would bring 511 pages that nobody granted
 *
 * The pool's free frames are a stack: the frame handed back last is the next to
 * be taken, while it is still in the cache.
 */

#include "fault/frame.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* --- memfds -------------------------------------------------------------- */

static int sealed_memfd(const char *name, uint64_t bytes, int *ret,
                        struct errmsg *em)
{
	AUTO_CLOSE int fd = -1;

	fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return errmsg_set(em, -errno, "cannot create the memory %s",
		                  name);
	if (ftruncate(fd, (off_t)bytes) < 0)
		return errmsg_set(em, -errno, "cannot make %s %llu bytes large",
		                  name, (unsigned long long)bytes);
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) <
	    0)
		return errmsg_set(em, -errno, "cannot seal the memory %s",
		                  name);
	*ret = TAKE_FD(fd);
	return 0;
}

static int map_quietly(int fd, uint64_t bytes, uint8_t **ret, struct errmsg *em)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
	                MAP_SHARED | MAP_NORESERVE, fd, 0);

	if (at == MAP_FAILED)
		return errmsg_set(em, -errno, "cannot map %llu bytes",
		                  (unsigned long long)bytes);
	/* A kernel without huge pages refuses the last, and needs it not. */
	if (madvise(at, bytes, MADV_DONTFORK) < 0 ||
	    madvise(at, bytes, MADV_DONTDUMP) < 0 ||
	    (madvise(at, bytes, MADV_NOHUGEPAGE) < 0 && errno != EINVAL)) {
		int r = errmsg_set(em, -errno, "cannot set up a mapping");

		(void)munmap(at, bytes);
		return r;
	}
	*ret = at;
	return 0;
}

/* --- a space's memory ---------------------------------------------------- */

int space_mem_init(const char *name, uint64_t bytes, struct space_mem *ret,
                   struct errmsg *em)
{
	AUTO_CLOSE int fd = -1;
	char full[96];
	uint8_t *alias;
	int r;

	if (bytes == 0 || bytes % PAGE_BYTES != 0 || bytes > INT64_MAX)
		return errmsg_say(em, -EINVAL,
		                  "the size of space %s is not in whole pages",
		                  name);
	(void)snprintf(full, sizeof(full), "memspan-%s", name);
	r = sealed_memfd(full, bytes, &fd, em);
	if (r < 0)
		return r;
	r = map_quietly(fd, bytes, &alias, em);
	if (r < 0)
		return r;
	*ret = (struct space_mem){
		.fd = TAKE_FD(fd),
		.alias = alias,
		.bytes = bytes,
	};
	return 0;
}

void space_mem_done(struct space_mem *m)
{
	if (m->alias == NULL)
		return;
	(void)munmap(m->alias, m->bytes);
	close(m->fd);
	*m = (struct space_mem){ .fd = -1 };
}

static void check_run(const struct space_mem *m, gpn_t first, uint32_t pages)
{
	assert(pages > 0);
	assert(first < m->bytes / PAGE_BYTES);
	assert(pages <= m->bytes / PAGE_BYTES - first);
}

/*
 * The kernel fills a page under its lock and shows it when it is whole, as long
 * as the source does not have to be paged in half-way: sources are on the
 * node's locked arena, page by page.
 */
int space_mem_write(const struct space_mem *m, gpn_t first, uint32_t pages,
                    const void *src)
{
	const uint64_t bytes = (uint64_t)pages * PAGE_BYTES;
	const uint8_t *from = src;
	uint64_t done = 0;

	check_run(m, first, pages);
	while (done < bytes) { /* each round writes something or ends it */
		ssize_t n = pwrite(m->fd, from + done, bytes - done,
		                   (off_t)(first * PAGE_BYTES + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		assert(n > 0);
		done += (uint64_t)n;
	}
	return 0;
}

int space_mem_punch(const struct space_mem *m, gpn_t first, uint32_t pages)
{
	check_run(m, first, pages);
	while (fallocate(m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
	                 (off_t)(first * PAGE_BYTES),
	                 (off_t)pages * PAGE_BYTES) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

uint64_t space_mem_resident(const struct space_mem *m)
{
	struct stat st;
	int r = fstat(m->fd, &st);

	assert(r == 0);
	return (uint64_t)st.st_blocks * 512u;
}

/* --- the pool ------------------------------------------------------------ */

/* What the pool knows of its frames; a mapping of its own, so that locking it
 * locks nothing else. */
struct frame_table {
	uint8_t *taken;       /* of frame f at f - 1 */
	uint32_t *free_stack; /* the first n_free entries are free frames */
	size_t bytes;         /* of the mapping, which starts at free_stack */
};

struct frame_pool {
	int fd;
	uint8_t *bytes; /* frame 1 is at offset 0 */
	uint32_t frames;
	uint32_t n_free;
	bool locked;
	struct frame_table table;
};

static int table_init(uint32_t frames, struct frame_table *ret)
{
	const size_t bytes = frames * (sizeof(uint32_t) + sizeof(uint8_t));
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
	                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		return -errno;
	*ret = (struct frame_table){
		.free_stack = at,
		.taken = (uint8_t *)at + frames * sizeof(uint32_t),
		.bytes = bytes,
	};
	for (uint32_t i = 0; i < frames; i++) {  /* touches all of it */
		ret->free_stack[i] = frames - i; /* frame 1 is taken first */
		ret->taken[i] = 0;
	}
	return 0;
}

int frame_pool_new(uint32_t frames, struct frame_pool **ret, struct errmsg *em)
{
	const uint64_t bytes = (uint64_t)frames * PAGE_BYTES;
	AUTO(frame_pool_free) struct frame_pool *p = NULL;
	int r;

	if (frames == 0)
		return errmsg_say(em, -EINVAL, "a pool of no frames");
	p = calloc(1, sizeof(*p));
	if (p == NULL)
		return errmsg_set(em, -ENOMEM, "no memory for a frame pool");
	*p = (struct frame_pool){ .fd = -1, .frames = frames };
	r = table_init(frames, &p->table);
	if (r < 0)
		return errmsg_set(em, r, "no memory for the list of %u frames",
		                  frames);
	r = sealed_memfd("memspan-frames", bytes, &p->fd, em);
	if (r < 0)
		return r;
	/* By fallocate(): where touching finds no memory it is a SIGBUS. */
	if (fallocate(p->fd, 0, 0, (off_t)bytes) < 0)
		return errmsg_set(em, -errno,
		                  "no memory for %u frames (%llu bytes)",
		                  frames, (unsigned long long)bytes);
	r = map_quietly(p->fd, bytes, &p->bytes, em);
	if (r < 0)
		return r;
	/* Fills our page table too, which saves faults later. */
	(void)madvise(p->bytes, bytes, MADV_POPULATE_WRITE);
	p->n_free = frames;
	/* Unlocked it works all the same, but may be swapped. */
	p->locked = mlock(p->bytes, bytes) == 0 &&
	            mlock(p->table.free_stack, p->table.bytes) == 0;
	*ret = TAKE_PTR(p);
	return 0;
}

struct frame_pool *frame_pool_free(struct frame_pool *p)
{
	if (p == NULL)
		return NULL;
	if (p->bytes != NULL)
		(void)munmap(p->bytes, (size_t)p->frames * PAGE_BYTES);
	if (p->table.free_stack != NULL)
		(void)munmap(p->table.free_stack, p->table.bytes);
	if (p->fd >= 0)
		close(p->fd);
	free(p);
	return NULL;
}

uint32_t frame_take(struct frame_pool *p)
{
	uint32_t frame;

	if (p->n_free == 0)
		return FRAME_NONE;
	frame = p->table.free_stack[--p->n_free];
	p->table.taken[frame - 1] = 1;
	return frame;
}

void frame_give(struct frame_pool *p, uint32_t frame)
{
	assert(frame >= 1 && frame <= p->frames);
	assert(p->table.taken[frame - 1]); /* and given back once */
	p->table.taken[frame - 1] = 0;
	p->table.free_stack[p->n_free++] = frame;
}

uint8_t *frame_bytes(const struct frame_pool *p, uint32_t frame)
{
	assert(frame >= 1 && frame <= p->frames);
	return p->bytes + (uint64_t)(frame - 1) * PAGE_BYTES;
}

uint32_t frame_free_count(const struct frame_pool *p)
{
	return p->n_free;
}

int frame_pool_fd(const struct frame_pool *p)
{
	return p->fd;
}

bool frame_pool_locked(const struct frame_pool *p)
{
	return p->locked;
}
