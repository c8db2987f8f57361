/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between a client (libmemspan, the shim) and its memspan-node: one Unix
 * SOCK_SEQPACKET connection per mapping of a space, host byte order (one
 * machine).  Each message is one packet: a fixed struct, with descriptors where
 * said.
 *
 *	client                              node
 *	ATTACH (space name)           ->
 *	                              <-    SPACE (size, stripes, mode; fds: the
 *	                                    memfd, the lease page, the notes)
 *	   mmap PROT_NONE, DONTFORK, DONTDUMP, NOHUGEPAGE, one userfaultfd per
 *	   stripe, registered as `mode` says
 *	MAPPED (base; offset, bytes: the part of the space that is mapped there;
 *	        fds: one per stripe that the part touches, in order) ->
 *	                              <-    READY
 *	   mprotect to read-write; then any of
 *	PREFETCH (offset, bytes)      ->    (no answer)
 *	DISCARD (offset, bytes, cookie) ->
 *	                              <-    DONE (cookie, error)
 *	DETACH                        ->
 *	                              <-    DONE (node holds nothing any more)
 *	   munmap; close
 *	At any time                   <-    ENDED (text): the node ends this
 *	                                    client; it must die with that text
 *	Instead of SPACE or READY     <-    REFUSED (error, text)
 *
 * Closing the connection without DETACH is the death of the client.
 *
 * A connection of another kind is for whoever passes a space on to programs
 * that map it later, each by a connection as above:
 *
 *	OPEN (space name)             ->
 *	                              <-    OPENED (size; fd: the memfd)
 *
 * While it is open the space is in use and cannot be deleted.  Nothing more is
 * said on it, except that the node may end it.
 */
#pragma once

#include "base/base.h"

#define LOCAL_MAGIC      0x6d73706cu /* "lpsm" in memory */
#define LOCAL_VERSION    2u
#define LOCAL_NAME_BYTES 64u
#define LOCAL_TEXT_BYTES 256u

enum local_type {
	LOCAL_ATTACH = 1,
	LOCAL_SPACE = 2,
	LOCAL_MAPPED = 3,
	LOCAL_READY = 4,
	LOCAL_PREFETCH = 5,
	LOCAL_DISCARD = 6,
	LOCAL_DETACH = 7,
	LOCAL_DONE = 8,
	LOCAL_ENDED = 9,
	LOCAL_REFUSED = 10,
	LOCAL_OPEN = 11,
	LOCAL_OPENED = 12,
};

/* How the client registers its userfaultfds (LOCAL_SPACE.mode). */
enum {
	LOCAL_MODE_MINOR = 1, /* MISSING|MINOR|WP; without: MISSING|WP, and the
	                         node keeps markers [A3]; the fence thread then
	                         registers anew with MINOR before it drops.  The
	                         kernel cannot take that back, so after a lapse
	                         MINOR faults come: M: CONTINUE; S: take the
	                         bytes, punch, COPY with MODE_WP */
};

struct local_msg { /* every packet, both ways: 384 bytes */
	uint32_t magic, version;
	uint32_t type;        /* enum local_type */
	int32_t error;        /* DONE, REFUSED: 0 or -errno */
	uint64_t size_bytes;  /* SPACE, OPENED: of the space */
	uint64_t offset;      /* PREFETCH, DISCARD, MAPPED: in the space */
	uint64_t bytes;       /* PREFETCH, DISCARD, MAPPED: length; of MAPPED
	                         both are whole pages, and not empty */
	uint64_t base;        /* MAPPED: address in the client */
	uint64_t cookie;      /* DISCARD -> DONE */
	uint64_t lease_ns;    /* SPACE: length of a lease */
	uint32_t stripes;     /* SPACE: of the whole space */
	uint32_t mode;        /* SPACE: LOCAL_MODE_* */
	uint32_t node;        /* SPACE, OPENED: the node's id */
	uint32_t space;       /* SPACE, OPENED: the space's id */
	uint32_t reserved[2]; /* zero, checked */
	char text[296];       /* ATTACH, OPEN: space name; ENDED, REFUSED: a
	                         sentence; NUL-terminated */
};
static_assert(sizeof(struct local_msg) == 384, "one size for all packets");

/* --- pages shared with the node, read-only in the client --------------- */

/* The lease page: one for all clients of a node. */
struct local_lease {
	uint32_t magic, version;
	/* CLOCK_BOOTTIME ns at which the lease ends; ~0: never ends (no lease
	 * is in force yet: the client waits).  Written by the link thread. */
	_Atomic uint64_t end_ns;
	_Atomic uint64_t generation; /* grows when a lapsed lease is renewed and
	                                all pages were taken from all clients */
};

/*
 * The notes: what the node did for each thread of this client.  A thread's slot
 * is tid % LOCAL_NOTES.  The node stores before it wakes the thread, so a
 * thread that reads its slot before and after an access knows if and how it
 * faulted. value = number of faults resolved << 4 | enum local_class of the
 * last one.
 */
#define LOCAL_NOTES 16384u

enum local_class {
	LOCAL_FIRST_TOUCH = 1,  /* zeros, homed here, no message sent */
	LOCAL_REMOTE_READ = 2,  /* bytes came from another node */
	LOCAL_REMOTE_WRITE = 3, /* granted by another node, or after one gave up
	                            its copy: bytes or rights crossed the net */
	LOCAL_UPGRADE = 4,      /* write permission only, without the net */
	LOCAL_REFAULT = 5,      /* the node held the page: mapped anew */
	LOCAL_PREFETCHED = 6,   /* was on its way already when it was touched */
	LOCAL_FIRST_REMOTE = 7, /* zeros, but home is another node */
};

struct local_notes {
	_Atomic uint32_t slot[LOCAL_NOTES];
	/* Totals for this client, one writer per shard: [shard][class]. */
	_Atomic uint64_t total[SHARDS_MAX][16];
	/* [shard]: pages installed before anybody waited for them. */
	_Atomic uint64_t prefetched_pages[SHARDS_MAX];
	/* [shard]: faults (messages) answered with pages_installed. */
	_Atomic uint64_t faults[SHARDS_MAX];
	_Atomic uint64_t pages_installed[SHARDS_MAX];
};
