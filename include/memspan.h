/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libmemspan: a space of memspan as ordinary memory of this process.
 *
 * memspan_attach() maps a space; loads and stores to it, by this process and by
 * every other one on any node that attached the same space, are sequentially
 * consistent, as if all ran on one machine.  The first touch of a page that is
 * elsewhere takes a network round trip; nothing else tells the difference.
 *
 * What it promises
 *
 *   no zeros   A page that was written is never read as zeros: when the node is
 *              gone, or it may no longer act (its lease is over), accesses
 *              wait, and then the process ends by SIGBUS with a line on stderr.
 *   threads    Every function may be called by any thread at any time, except
 *              that memspan_detach() must be the last call for its space, and
 *              nobody may touch the memory from then on.  No function is
 *              async-signal-safe.  None is a cancellation point.
 *   failure    Functions return 0, or -errno with nothing changed.
 *   one space, several times
 *              A process may attach several spaces, and one space twice; each
 *              attachment stands alone.
 *
 * What it expects (memspan(3) has the whole list, with reasons)
 *
 *   futex      FUTEX_WAKE does not cross nodes: between nodes use atomics and
 *              bounded spinning, not pthread_mutex_t, sem_t or the like.
 *   pins       No O_DIRECT, io_uring fixed buffers, RDMA registration,
 *              process_vm_writev(2) or debugger writes into a space: what is
 *              written through a pinned page can be lost.
 *   mapping    No mremap(2) and no second mmap(2) over the space.
 *   fork       After fork(2) only the parent has the memory; a child's touch is
 *              SIGSEGV, and it may call memspan_detach() at most.
 *
 * What it keeps in the process: one thread ("memspan-fence") for each attached
 * space, with all signals blocked, that watches the node and its lease; one
 * socket and one userfaultfd for each 4 MiB (at most 64), at high descriptor
 * numbers, closed on exec.  A program that closes them all the same, with
 * closefrom(3) say, loses prefetch and discard, not its protection: the
 * thread has copies of its own.
 *
 * Offsets and sizes are in bytes.  A page has 4096.
 */
#ifndef MEMSPAN_H
#define MEMSPAN_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define MEMSPAN_API __attribute__((visibility("default")))
#else
#define MEMSPAN_API
#endif

/* One attachment of a space.  Made by memspan_attach(). */
struct memspan;

/*
 * Attach the space named `space` through the node that listens on the Unix
 * socket `node_socket`, and map it read-write.  With NULL the socket is
 * $MEMSPAN_NODE, or else the only node-*.sock in the default run directory:
 * /run/memspan for root, $XDG_RUNTIME_DIR/memspan for others.
 *
 * `flags` must be 0.  Takes milliseconds; gives up after 10 seconds.
 *
 * Returns 0 and stores the attachment in *ret (end it with memspan_detach()).
 * On failure returns one of these, with *ret untouched and, if `why` is not
 * NULL, one sentence of at most `why_bytes` bytes, NUL included, that says what
 * to do:
 *
 *   -EINVAL           flags not 0; no name, or one that is too long; no socket
 *                     named and several to choose from: `why` lists them
 *   -ENOENT           the node knows no space of that name
 *   -ECONNREFUSED     no node answers at that socket, or the file is missing
 *   -EACCES           the socket is not ours to open, or this process may not
 *                     make a userfaultfd
 *   -ENOSYS           the kernel lacks what is needed (Linux 6.1 has it)
 *   -EPROTONOSUPPORT  node and library do not speak the same version
 *   -ENOMEM           no memory, or no thread, in this process or at the node
 *   -EMFILE           RLIMIT_NOFILE leaves too few descriptors
 *   -ETIMEDOUT        the node did not answer within 10 seconds
 *
 * or what else the node refuses with, and then `why` is the node's sentence.
 */
MEMSPAN_API int memspan_attach(const char *node_socket, const char *space,
                               unsigned flags, struct memspan **ret, char *why,
                               size_t why_bytes);

/* The address of the space's first byte: page-aligned, constant. */
MEMSPAN_API void *memspan_addr(const struct memspan *m);

/* The size of the space: a multiple of a page, constant. */
MEMSPAN_API size_t memspan_bytes(const struct memspan *m);

/*
 * Advise the node that [offset, offset + bytes) will be read soon.  Returns at
 * once; the pages arrive in the background, or not.
 *
 * Returns 0; -EINVAL if the range is not inside the space; -EAGAIN if the queue
 * to the node is full; -ENOTCONN when the node is gone, or in a forked child.
 */
MEMSPAN_API int memspan_prefetch(struct memspan *m, size_t offset,
                                 size_t bytes);

/*
 * Make the contents of [offset, offset + bytes) zeros, for everybody, before it
 * returns.  An access that runs at the same time comes before or after it, page
 * by page.
 *
 * Returns 0; -EINVAL unless both are multiples of a page and inside the space;
 * -ENOTCONN when the node is gone, or in a forked child: then pages of the
 * range may be zeros already or not; or what the node answered.
 */
MEMSPAN_API int memspan_discard(struct memspan *m, size_t offset, size_t bytes);

/*
 * End the attachment: the addresses are unmapped, the contents stay in the
 * space.  Waits until the node has let go of them; if it does not within some
 * 10 seconds, the addresses stay reserved, without memory, until the process
 * ends.  Takes NULL.
 */
MEMSPAN_API void memspan_detach(struct memspan *m);

#ifdef __cplusplus
}
#endif

#endif
