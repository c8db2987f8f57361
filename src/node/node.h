/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memspan-node: what its threads share.
 *
 *	main thread    control.c: clients' sockets, spaces, start and stop
 *	link thread    link.c: the coordinator, the lease
 *	shard threads  shard.c and what it lists: all that happens to pages
 *
 * They talk by letters (loop/loop.h).  Whatever is not a letter and is used by
 * more than one thread is named here, with who writes it.
 */
#pragma once

#include <stdatomic.h>

#include "base/base.h"
#include "core/dir.h"
#include "core/page.h"
#include "core/place.h"
#include "fault/frame.h"
#include "fault/uffd.h"
#include "loop/loop.h"
#include "net/transport.h"
#include "node/memory.h"
#include "wire/control.h"
#include "wire/local.h"

struct shard;
struct control;
struct link;

#define CLIENTS_PER_SPACE 64u
#define NODE_MEMORY_MIN   (64ull << 20)

struct node_config {
	char coordinator[128]; /* HOST:PORT of its HTTP */
	char name[64];
	uint64_t memory_bytes;
	char listen[64];  /* HOST:PORT of pages */
	char socket[108]; /* "": node-ID.sock in run_dir */
	char run_dir[108];
	uint8_t shards;
	nsec_t busy_poll_ns;
	bool log_json;
	bool insecure;
};

/* --- a space on this node ---------------------------------------------- */

/*
 * Made by the main thread when the coordinator announces the space, given to
 * every shard, freed by the main thread when every shard has let go of it.  The
 * arrays are indexed by page or extent; each shard touches only those of its
 * own stripes, so they need no lock.  They are mapped, not allocated: entries
 * of extents that nobody uses cost nothing.
 */
struct space {
	space_id id;
	char name[64];
	uint64_t bytes;
	uint32_t replicas;
	struct cut cut;
	struct space_mem mem;
	struct page_entry *pages;   /* cut.pages */
	struct dir_entry *dir;      /* cut.pages; used for extents homed here */
	struct place place;         /* extents: per stripe, so per shard */
	bool dropping;              /* control: no new clients */
	uint32_t n_opened;          /* control: who has others map it */
	_Atomic uint32_t n_clients; /* control writes, link reads */
	/* Pages homed here that exist, and that are lost: any shard adds. */
	_Atomic uint64_t written, lost;
	/* Pages homed here with fewer holders than `replicas`, and no
	 * writer. */
	_Atomic uint64_t under_replicated;
	/* Pages that this node has evicted and not taken back: any shard. */
	_Atomic uint64_t evicted;
	/* Pages that node.memory counts: given back when the memory goes. */
	_Atomic uint64_t counted;
	uint32_t shards_left; /* control: not 0 while it is being dropped */
	struct space *next;   /* control's list */
};

/* --- clients ----------------------------------------------------------- */

/*
 * One attachment of a client, as the shards see it: made by the main thread,
 * freed by it when every shard has let go.
 */
struct client {
	uint64_t number; /* for logs; never used again */
	struct space *space;
	uint8_t slot; /* which of the space's CLIENTS_PER_SPACE */
	struct local_notes *notes;
	struct uffd *stripe[STRIPES_MAX]; /* each used by its shard alone */
	uint32_t pid;
	/* A shard found that this client must end; the main thread does it. */
	_Atomic bool ended;
};

/* --- the node ---------------------------------------------------------- */

/* Counters of a shard: written by it, read by the link thread, relaxed. */
struct shard_counters {
	_Atomic uint64_t faults[16]; /* by enum local_class */
	_Atomic uint64_t prefetched; /* pages granted ahead of need */
	_Atomic uint64_t pending;    /* faults that wait now */
	_Atomic uint64_t wakeups;
	_Atomic uint64_t lost_pages;
	_Atomic uint64_t breaches;
	_Atomic uint64_t nomem; /* a client's cgroup was full */
	_Atomic uint64_t overhead_bytes;
	_Atomic uint64_t frozen_frames;
	_Atomic uint64_t evicted;                   /* pages */
	_Atomic uint64_t connected[NODES_MAX / 64]; /* lanes up, by peer */
};

struct node {
	struct node_config cfg;
	struct uffd_features features;
	node_id id;
	uint64_t incarnation;
	uint8_t cluster[16];
	_Atomic nsec_t lease_ns; /* link thread writes, main thread reads */
	char endpoint[64];       /* where pages are served, as bound */
	int listen_fd;           /* until shard 0 has it */

	struct loop *control_loop, *link_loop;
	struct control *control;
	struct link *link;
	struct shard *shard[SHARDS_MAX];
	struct shard_counters counters[SHARDS_MAX];

	/* The page that clients map: written by the link thread. */
	struct local_lease *lease;
	int lease_fd;
	_Atomic bool stopping; /* main thread */
	struct memory memory;  /* what --memory counts */
	/* Pages that each node takes for its peers, as the coordinator told the
	 * link thread; a shard that was refused sets 0 until it hears more. */
	_Atomic uint32_t peer_room[NODES_MAX];

	/*
	 * What each thread of the clients waits for, by hash of its tid: how
	 * many faults of it are unresolved, and when it last got a page (us).
	 * Written by any shard: the two halves of one instruction may lie in
	 * stripes of two shards.  Relaxed: a stale value moves a page 50 us too
	 * early or late, and nothing is wrong then.
	 */
	_Atomic uint32_t thread_waits[PAGE_THREADS];
	_Atomic uint32_t thread_us[PAGE_THREADS];
	/*
	 * The page that was last taken from a thread while it waited for
	 * another, and how many others it got since (hash << 8 | count); and
	 * when it wanted a page back that way: then it is a thread whose
	 * instruction needs two pages, and holding on to them is worth it.
	 */
	_Atomic uint64_t thread_taken[PAGE_THREADS];
	_Atomic uint32_t thread_wants_us[PAGE_THREADS];

	_Atomic uint32_t n_clients;
	_Atomic uint64_t fixed_bytes; /* arenas: what --memory does not count */
};

/* CLOCK_BOOTTIME in ns: what leases run on. */
nsec_t boot_now(void);
/* Has the lease of this node ended? */
static inline bool lease_over(const struct node *n)
{
	return boot_now() >=
	       atomic_load_explicit(&n->lease->end_ns, memory_order_acquire);
}

/* --- letters ----------------------------------------------------------- */

/* To a shard; answered by posting `done` to its loop, in the same letter. */
struct shard_letter {
	struct mail mail;
	struct shard *shard;
	struct node *node;
	struct space *space;
	struct client *client;
	void *owner;                          /* the sender's */
	void (*done)(struct shard_letter *l); /* on the sender's thread */
	struct loop *reply_to;
	/* discard, prefetch */
	gpn_t first;
	uint64_t pages;
	int result;
	struct shard_letter *next; /* the shard's queue of discards */
};

/* Main thread -> shard.  Each takes the letter until `done`. */
void shard_add_space(struct shard *s, struct shard_letter *l);
void shard_drop_space(struct shard *s, struct shard_letter *l);
void shard_attach(struct shard *s, struct shard_letter *l);
void shard_detach(struct shard *s, struct shard_letter *l);
void shard_discard(struct shard *s, struct shard_letter *l);
void shard_prefetch(struct shard *s, struct shard_letter *l);

/* Link thread -> shard: malloc'ed by the sender, freed by the receiver. */
struct members_letter {
	struct mail mail;
	struct shard *shard;
	uint32_t epoch, n;
	struct member v[];
};
void shard_members(struct shard *s, struct members_letter *l);

struct extents_letter { /* the coordinator's answer to a claim */
	struct mail mail;
	struct shard *shard;
	space_id space;
	uint32_t first, n;
	bool failed; /* not answered: may be asked anew */
	struct extent_info v[CLAIM_EXTENTS_MAX];
};
void shard_extents(struct shard *s, struct extents_letter *l);

/* A question about pages, answered by each shard with its part. */
struct query_letter {
	struct mail mail;
	struct node *node;
	struct shard *shard;
	uint64_t number; /* of the coordinator's question */
	space_id space;
	bool one_page;
	uint32_t from, n; /* extents */
	gpn_t page;
	void *answer; /* json_t: array of extents, or one page's object */
};
void shard_query(struct shard *s, struct query_letter *l);

/* Shard -> link. */
struct claim_letter {
	struct mail mail;
	struct node *node;
	struct shard *shard;
	space_id space;
	struct place_claim claim;
	struct claim_letter *next; /* the link's list of unanswered ones */
};
void link_claim(struct link *l, struct claim_letter *c);
void link_query_answer(struct link *l, struct query_letter *q);

/* A PROMISE to send (link -> shard 0), or one that came (shard 0 -> link). */
struct promise_letter {
	struct mail mail;
	struct node *node;
	node_id peer;
	bool reply;
	uint32_t epoch; /* of the peer that asks */
	uint64_t round;
};
void shard_promise(struct shard *s, struct promise_letter *p);
void link_promise(struct link *l, struct promise_letter *p);

/* A peer broke a rule, says a shard: the coordinator is told. */
struct breach_letter {
	struct mail mail;
	struct node *node;
	node_id peer;
	char text[160];
};
void link_breach(struct link *l, struct breach_letter *b);

/* Link -> main: spaces come and go, the node must end. */
struct space_letter {
	struct mail mail;
	struct node *node;
	uint64_t number; /* of the coordinator's message, for the answer */
	bool drop, commit, cancel;
	space_id id;
	char name[64];
	uint64_t bytes;
	uint32_t replicas;
	int result; /* answer */
	/* Answer to add: for the link's counters; to drop: nobody but the link
	 * still has it. */
	struct space *space;
	uint32_t clients; /* answer to drop */
	char why[256];
};
void control_space(struct control *c, struct space_letter *l);
/* The link has forgotten l->space too: free both. */
void control_bury(struct control *c, struct space_letter *l);
void link_space_answer(struct link *l, struct space_letter *a);
/* Any thread: end the node; every client is told `why`. */
void control_end(struct control *c, int status, const char *why);
/* Any shard: this client must end, with this sentence. */
void control_end_client(struct control *c, struct client *client,
                        const char *why);

/* --- life of the parts ------------------------------------------------- */

int shard_new(struct node *n, uint8_t index, struct shard **ret,
              struct errmsg *em);
struct loop *shard_loop(struct shard *s);
int shard_listen(struct shard *s, int fd, struct errmsg *em); /* takes fd */
int shard_start(struct shard *s, struct errmsg *em);
void shard_stop(struct shard *s); /* joins its thread */
struct shard *shard_free(struct shard *s);
DEFINE_AUTO(struct shard, shard_free)
/* Another shard accepted a connection that is ours.  Any thread. */
void shard_adopt(struct shard *s, int fd, const struct hello *h);

/*
 * Register with the coordinator over HTTP (POST /v1/nodes): fills id,
 * incarnation, lease and the address of the node port in `node_port`.
 */
int link_register(struct node *n, char node_port[64], struct errmsg *em);
int link_new(struct node *n, const char *node_port, struct link **ret,
             struct errmsg *em);
int link_start(struct link *l, struct errmsg *em);
/* Tell the coordinator that we leave, wait a moment, join the thread. */
void link_stop(struct link *l);
struct link *link_free(struct link *l);
DEFINE_AUTO(struct link, link_free)

int control_new(struct node *n, struct control **ret, struct errmsg *em);
/* Write the pid file and open the clients' socket: the node is ready. */
int control_open(struct control *c, struct errmsg *em);
/* Serve until SIGTERM or the end; returns the exit status. */
int control_run(struct control *c);
struct control *control_free(struct control *c);
DEFINE_AUTO(struct control, control_free)
