/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The floor: the least that a page fault served by another process costs on
 * this machine, against which memspan's own figures are held.
 *
 *	client process      handler process            peer process
 *	touches a page  ->  epoll_wait, read(uffd)
 *	                    local: UFFDIO_ZEROPAGE
 *	                    remote: send 32 bytes  ->  recv
 *	                            recv 4,128     <-  send header and page
 *	                            UFFDIO_COPY
 *	goes on         <-  (the ioctl wakes it)
 *
 * It has what memspan cannot do without: a memfd mapped MAP_SHARED, registered
 * MISSING|MINOR|WP; another process that serves it from one thread, with one
 * ioctl a page; loopback TCP to a third.  It has nothing else: no table, no
 * checksums, no sessions, nobody to ask whose page it is.
 *
 * To be the least it blocks where it can: with one thread in the client the
 * handler waits for the answer in recv(2), which saves an epoll_wait(2).  With
 * many (`overlap`) it keeps up to FLOOR_WINDOW requests under way, and sends
 * all that a turn has read at once.
 *
 * A benchmark runs as many copies (client, handler, peer) as nodes.  Handler
 * and peer are forked from the benchmark; the client's part is linked into the
 * same process that measures memspan, so that both are measured by one thread.
 */
#pragma once

#include <stdatomic.h>

#include "base/base.h"

/* The peer has this many pages of its own; others are these again. */
#define FLOOR_PAGES 4096u
/* Pages of one request at most: those of an extent. */
#define FLOOR_BATCH_MAX EXTENT_PAGES
static_assert(FLOOR_PAGES % FLOOR_BATCH_MAX == 0, "a batch does not wrap");
/* Requests under way with `overlap`: their 8 KiB fit any socket buffer, so
 * that the handler never blocks in send() while its peer does. */
#define FLOOR_WINDOW 256u
/* What peers fill their pages with is of this version (bench_page.h). */
#define FLOOR_VERSION 0xf100full

enum floor_kind { FLOOR_LOCAL, FLOOR_REMOTE };

/*
 * What the handler does, in memory that it shares with whoever sets it: between
 * two measurements, when nobody faults.
 */
struct floor_mode {
	_Atomic uint32_t kind;    /* enum floor_kind */
	_Atomic uint32_t batch;   /* remote: pages a request, a power of two */
	_Atomic uint32_t overlap; /* remote: more than one thread faults */
};

struct floor_config {
	int control; /* handler: Unix socket to the client; its end ends us */
	int sock;    /* TCP, connected: handler to peer */
	const struct floor_mode *mode;
	uint64_t seed;
	nsec_t busy_poll_ns; /* as the nodes do; 0: never */
};

/* The processes: return an exit status when their socket is closed. */
int floor_handler(const struct floor_config *cfg);
int floor_peer(const struct floor_config *cfg);

/* A connected pair of TCP sockets on loopback, without Nagle's delay. */
int floor_tcp_pair(int ret[2], struct errmsg *em);

/* --- the client's side --------------------------------------------------- */

struct floor_map;

/*
 * Map `pages` fresh pages, cut alike into `uffds` (1..STRIPES_MAX) parts with a
 * userfaultfd each, and hand these to the handler at the other end of
 * `control`, which forgets what it had before.  Returns 0, or -errno with the
 * reason in em.
 */
int floor_map_new(int control, uint64_t pages, unsigned uffds,
                  struct floor_map **ret, struct errmsg *em);
struct floor_map *floor_map_free(struct floor_map *m); /* takes NULL */
DEFINE_AUTO(struct floor_map, floor_map_free)

void *floor_map_addr(const struct floor_map *m);
uint64_t floor_map_pages(const struct floor_map *m);
/* Make all pages untouched again.  Returns 0 or -errno. */
int floor_map_clear(struct floor_map *m);
