/* SPDX-License-Identifier: Apache-2.0 */
/*
 * World: one page and every node that has to do with it.
 *
 * The real core/dir.c and core/page.c decide; around them this models what they
 * rely on, as small as it can be and still go wrong in every way that the real
 * thing can:
 *
 *	memory    of each node one page of the memfd, what its clients map of
 *	          it (nothing, read-only, writable), and a few frames
 *	clients   of each node any number of threads that run, and one that
 *	          waits
 *	sessions  a queue each way between the home and each node; the home's
 *	          own two are drained before it looks at anything else
 *	shards    take one event at a time, and carry its actions out one by
 *	          one, while everybody else goes on
 *
 * A page's contents are one of three: zeros, the last value written, or an
 * older one.  Node 0 is the home.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/dir.h"
#include "core/page.h"

enum { NOBODY = 0xff };
enum { WORLD_NODES = 4, QUEUE_MAX = 7, ACTS_MAX = 8, FRAMES = 3 };

enum value { ABSENT, ZEROS, LAST, OLD };
enum mapping { UNMAPPED, READ_ONLY, WRITABLE, POISONED };
enum { NOBODY_DIED, DIED, DIED_HOLDING };
enum waiting { RUNS, WAITS_TO_READ, WAITS_TO_WRITE };

/* What a search is about: see search.c for those that are run. */
enum {
	WITH_PREFETCH = 1,  /* pages are asked for ahead of need */
	WITH_DISCARD = 2,   /* pages are made zeros */
	WITH_RESIDENCY = 4, /* recalls may come too early, and wait */
	WITH_KEEP = 8,      /* home keeps bytes that pass by, or not */
	WITH_AGAIN = 16,    /* home may be out of transactions */
	WITH_DEATH = 32,    /* one node, but not the home, dies and rejoins */
	WITH_SLOW_FORGET =
		64,          /* acknowledgements and FORGETs take their time */
	WITH_EVICT = 128,    /* pages are staged, stored elsewhere, evicted */
	WITH_REPLICAS = 256, /* two copies stay, and writers are careful */
};

struct setup {
	const char *name;
	uint8_t nodes;
	uint8_t sets;     /* of the directory's pool: 0 or 1 */
	uint8_t discards; /* that may be under way at once */
	unsigned with;
};

enum message_kind {
	M_GET_S = 1, /* to home; flag: FLAG_* */
	M_GET_X,
	M_DISCARD,
	M_ACK,
	M_ACK_DATA, /* number: of the frozen frame */
	M_NOT_HELD,
	M_EVICT,
	M_APPLIED, /* the grant whose bytes have that number was applied;
	              number 0: the GRANT_S that an UPGRADE follows */
	M_GRANT_S, /* from home; flag: an UPGRADE follows */
	M_GRANT_X, /* number: to be acknowledged with APPLIED */
	M_GRANT_ZERO,
	M_UPGRADE,
	M_LOST,
	M_REFUSED,
	M_AGAIN, /* flag: of a discard */
	M_DISCARDED,
	M_RECALL_S,
	M_RECALL_X,
	M_INVAL,
	M_FORGET,
	M_DROP,
	M_STAY,
	M_KINDS,
};
enum { FLAG_PREFETCH = 1, FLAG_STORE = 2 };
extern const char *const message_name[M_KINDS];
extern const char *const value_name[]; /* by enum value */

struct message {
	uint8_t kind;   /* enum message_kind */
	uint8_t value;  /* enum value of the bytes it carries */
	uint8_t number; /* 0..FRAMES */
	uint8_t flag;
};

struct queue {
	uint8_t n;
	struct message v[QUEUE_MAX];
};

struct member {
	struct page_entry page;
	uint8_t memory;   /* enum value */
	uint8_t staged;   /* enum value: in frame page.frame */
	uint8_t mapping;  /* enum mapping */
	uint8_t waits;    /* enum waiting */
	uint8_t discards; /* waits for DISCARDED */
	uint8_t frames;   /* bit i: frame i + 1 is in use */
	uint8_t deferred; /* enum message_kind of the recall that is put off */
	/* The step that is being carried out. */
	uint8_t n_acts;
	uint8_t act[ACTS_MAX]; /* enum page_action_kind, the next one first */
	uint8_t bytes;         /* enum value: the event's, or what FREEZE saw */
	uint8_t number;        /* of the frame that FREEZE filled, or that was
	                          the staged page's */
	uint8_t applied;       /* number to acknowledge when it is done */
	uint8_t ahead;         /* ... or that a read was granted to a writer */
};

/* The directory of one page, without pointers: see world_dir.c. */
struct packed_dir {
	uint8_t flags, n, v[3];
	uint8_t set;                        /* members of the pooled set */
	uint8_t holders, awaiting, wait[3]; /* from here on: if busy */
	uint8_t req, served, giver, reader; /* or NOBODY */
	uint8_t kind, asked, owned, store;
};

struct world {
	struct packed_dir dir;
	struct member node[WORLD_NODES];
	struct queue up[WORLD_NODES], down[WORLD_NODES];
	/* A grant whose giver keeps frame `number` until it is applied;
	 * NOBODY if it has died. */
	uint8_t grantee, giver, number;
	uint8_t written; /* the last value is not zeros */
	uint8_t died;    /* somebody has: DIED, DIED_HOLDING */
};

/* --- moves ------------------------------------------------------------- */

enum move_kind {
	MOVE_READ = 1,   /* an access faults */
	MOVE_WRITE,      /* ... to write */
	MOVE_STORE,      /* an access that does not fault writes */
	MOVE_PREFETCH_S, /* ask ahead of need */
	MOVE_PREFETCH_X,
	MOVE_DISCARD,
	MOVE_ACT,   /* carry the next action out */
	MOVE_HEAR,  /* the node takes the oldest message from home */
	MOVE_HOME,  /* home takes the node's oldest message */
	MOVE_DUE,   /* the recall that was put off comes again */
	MOVE_STAGE, /* take the page from the clients */
	MOVE_EVICT, /* ask if the staged page may go */
	MOVE_HOLD,  /* ask for a copy, for one who evicts it */
	MOVE_DIE,
};

/* The ways in which one move can go. */
enum {
	WAY_YOUNG = 1,   /* it comes within a residency */
	WAY_KEEP = 2,    /* home has a frame to spare */
	WAY_READY = 4,   /* home's copy may be recalled for a prefetch */
	WAY_NO_ROOM = 8, /* home has no transaction to spare */
	WAYS = 16,
};

/* The ways in which node `i` may move like this now: bit `way`, for each. */
unsigned world_ways(const struct setup *s, const struct world *w,
                    enum move_kind kind, unsigned i);
/* Move; it must be one of them. */
void world_move(const struct setup *s, struct world *w, enum move_kind kind,
                unsigned i, unsigned way);
extern const char *const move_name[];
/* Say on stderr what a move does while it does it. */
extern bool world_says;

/* --- properties -------------------------------------------------------- */

/*
 * Something is wrong with the world: `what` names the property.  Does not
 * return (search.c).
 */
_Noreturn void violated(const char *what);

/* Check every property that can be seen in a world. */
void world_check(const struct setup *s, const struct world *w);

/* --- keys -------------------------------------------------------------- */

#define KEY_BYTES_MAX 96u

/* A world as bytes: equal if and only if the worlds are.  Returns how many. */
unsigned world_key(const struct setup *s, const struct world *w,
                   uint8_t key[KEY_BYTES_MAX]);
void world_of_key(const struct setup *s, const uint8_t *key, unsigned n,
                  struct world *w);

/* --- the directory ----------------------------------------------------- */

/* dir_handle() on the packed form.  `no_room`: its pools are empty. */
int packed_dir_handle(const struct setup *s, struct packed_dir *p, bool no_room,
                      const struct dir_event *ev, struct dir_actions *out);
bool packed_dir_holds(const struct setup *s, const struct packed_dir *p,
                      node_id node);
bool packed_dir_busy(const struct packed_dir *p);
/* Holders are being told to give up for a discard. */
bool packed_dir_discards(const struct packed_dir *p);
bool packed_dir_migratory(const struct packed_dir *p);
/* The one whom home serves writing, or NOBODY. */
uint8_t packed_dir_writer(const struct packed_dir *p);
/* Aborts if the directory's pools have lost something. */
void packed_dir_check(const struct setup *s, const struct packed_dir *p);
