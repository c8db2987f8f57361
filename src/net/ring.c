/* SPDX-License-Identifier: Apache-2.0 */

#include "net/ring.h"

#include <errno.h>
#include <sys/mman.h>

int ring_init(struct ring *ret, size_t bytes)
{
	int prot = PROT_READ | PROT_WRITE;
	AUTO_CLOSE int fd = -1;
	uint8_t *base;
	int r;

	assert(bytes >= PAGE_BYTES && (bytes & (bytes - 1)) == 0);
	fd = memfd_create("memspan-ring", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)bytes) < 0)
		return -errno;

	/* The addresses first, then the same bytes into both halves. */
	base = mmap(NULL, 2 * bytes, PROT_NONE,
	            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (base == MAP_FAILED)
		return -errno;
	for (unsigned half = 0; half < 2; half++) {
		if (mmap(base + half * bytes, bytes, prot,
		         MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
			r = -errno;
			(void)munmap(base, 2 * bytes);
			return r;
		}
	}
	*ret = (struct ring){ .base = base, .bytes = bytes };
	return 0;
}

void ring_done(struct ring *ring)
{
	if (ring->base)
		(void)munmap(ring->base, 2 * ring->bytes);
	*ring = (struct ring){ 0 };
}
