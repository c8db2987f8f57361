/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Page: one page at a node that may hold it.  The holder side; see page.c for
 * the table, core/dir.h for the other side.
 *
 * Pure, like core/dir.h: the caller carries the actions out on userfaultfds,
 * memory and the transport, in order.
 */
#pragma once

#include "base/base.h"

/* All zeros: not held, nothing asked for. */
struct page_entry {
	uint8_t state : 2; /* enum page_state */
	/* Not held: it was evicted from here, and not taken back since.  Held:
	 * for others only; nobody here has touched it.  The caller's. */
	uint8_t away : 1;
	uint8_t mark : 5; /* core/evict's; the caller's */
	uint8_t flags;    /* PAGE_F_* */
	uint16_t thread;  /* whom it was installed for: hash << 4 | cap */
	union {
		uint32_t since_us; /* held: when it was installed, wrapping */
		uint32_t frame;    /* staged: the frame with its bytes */
		uint32_t stamp;    /* not held: core/evict's; the caller's */
	};
};
static_assert(sizeof(struct page_entry) == 8, "with core/dir.h 16 a page");

enum page_state {
	PAGE_I = 0, /* not held */
	PAGE_S,     /* held, read-only */
	PAGE_M,     /* held, writable, nobody else holds it */
	PAGE_LOST,  /* its contents are lost: poisoned */
};

enum {
	PAGE_F_WANT_S = 1, /* a GET_S is under way */
	PAGE_F_WANT_X = 2, /* a GET_X is under way */
	PAGE_F_PREFETCH =
		4, /* ... for which no thread waited when it was sent */
	PAGE_F_RECALLED = 8,  /* a RECALL or INVAL waits for the residency */
	PAGE_F_STAGED = 16,   /* its bytes are in a frame, no client maps it */
	PAGE_F_EVICTING = 32, /* an EVICT is under way */
	PAGE_F_STORING = 64,  /* a GET_S is under way for one who evicts it */
};

#define PAGE_THREADS 4096u /* values of the hash in page_entry.thread */

enum page_event_kind {
	PAGE_TOUCH,    /* a local access faulted (`write`) */
	PAGE_PREFETCH, /* ask for it ahead of need (`write`) */
	PAGE_GRANT_S,  /* answers of home ... */
	PAGE_GRANT_X,
	PAGE_GRANT_ZERO,
	PAGE_UPGRADE,
	PAGE_GRANT_LOST,
	PAGE_REFUSED,  /* a prefetch is not granted */
	PAGE_RETRY,    /* AGAIN or MOVED: the request is void */
	PAGE_RECALL_S, /* orders of home ... */
	PAGE_RECALL_X,
	PAGE_INVAL,
	PAGE_KEEP,        /* home: keep these bytes, as a reader */
	PAGE_STAGE,       /* take it from the clients into frame `frame` */
	PAGE_EVICT,       /* staged: ask home if it may go */
	PAGE_DROP,        /* home: it may, nobody counts on this copy */
	PAGE_STAY,        /* home: it must stay */
	PAGE_DISCARDED,   /* home made it zeros, everywhere */
	PAGE_UNREACHABLE, /* home is dead: what was asked will never come, and
	                     a recall that was deferred is void */
};

struct page_event {
	enum page_event_kind kind;
	bool write;    /* TOUCH, PREFETCH */
	bool store;    /* PREFETCH: to hold it for one who evicts it */
	bool more;     /* GRANT_S: what was asked to write; UPGRADE follows */
	bool deferred; /* a recall that was deferred, delivered again */
	bool thread_waits;  /* recalls, STAGE: the thread of page_entry.thread
	                       waits for another page */
	uint32_t thread_us; /* recalls, STAGE: when it last got a page */
	uint32_t now_us;    /* CLOCK_MONOTONIC in us, wrapping */
	uint32_t frame;     /* STAGE: an empty one */
	uint16_t thread;    /* grants, TOUCH: hash of the thread that waits,
	                       below PAGE_THREADS */
	uint8_t cap; /* the same: random, 0..15: 1.25 ms + cap * 0.25 ms */
};

enum page_action_kind {
	PAGE_SEND_GET_S, /* to home */
	PAGE_SEND_GET_X,
	PAGE_SEND_ACK,
	PAGE_SEND_ACK_DATA, /* with the bytes: of the frame that FREEZE filled
	                        if `frozen` is set; else of `frame`, or of the
	                        alias if that is 0 */
	PAGE_SEND_NOT_HELD,
	PAGE_SEND_EVICT,
	PAGE_INSTALL_S,    /* the event's bytes, read-only, waking */
	PAGE_INSTALL_M,    /* the event's bytes, writable, waking */
	PAGE_INSTALL_ZERO, /* zeros, writable, waking */
	PAGE_KEEP_BYTES,   /* the event's bytes into the memfd, unmapped */
	PAGE_UNPROTECT,    /* make it writable for all clients, waking */
	PAGE_MAP,          /* held already: map it as the state says, waking */
	PAGE_WAIT,         /* the thread waits: an answer is under way */
	PAGE_PROTECT,      /* write-protect it in every client */
	PAGE_FREEZE,       /* copy the alias into a frame */
	PAGE_PUNCH,        /* free its memory: nobody maps it any more */
	PAGE_DEFER,        /* deliver this recall again at `until_us` */
	PAGE_POISON,       /* accesses to it end in SIGBUS */
	PAGE_TOUCH_AGAIN,  /* whoever waits for it: deliver TOUCH again */
	PAGE_FILL,         /* copy the alias into `frame` */
	PAGE_INSTALL_BACK, /* the bytes of `frame`, as the state says, waking;
	                      then the frame is free */
	PAGE_FREEZE_FRAME, /* `frame` is frozen from now on */
	PAGE_RELEASE,      /* `frame` is free */
};

struct page_action {
	enum page_action_kind kind;
	bool frozen;       /* SEND_ACK_DATA */
	uint32_t until_us; /* DEFER */
	uint32_t frame;    /* of a page that is, or was, staged */
};

#define PAGE_ACTIONS_MAX 6u

struct page_actions {
	uint32_t n;
	struct page_action v[PAGE_ACTIONS_MAX];
};

/* The residency rule [B3], in microseconds. */
#define PAGE_RESIDENCY_US 50u
#define PAGE_CAP_MIN_US   1250u
#define PAGE_CAP_STEP_US  250u

/*
 * Take one event.  Fills `out` from the start; actions are to be carried out in
 * order, before the next event of this page.
 *
 * Returns 0, or -EPROTO if no correct home could have sent this: then the entry
 * is unchanged and `out` is empty.
 */
int page_handle(struct page_entry *p, const struct page_event *ev,
                struct page_actions *out);

/* Abort unless `p` satisfies the invariants of page.c. */
void page_check(const struct page_entry *p);

/* May the page be recalled at once?  (For prefetch from home's own copy.) */
bool page_ready(const struct page_entry *p, bool thread_waits,
                uint32_t thread_us, uint32_t now_us);

static inline bool page_held(const struct page_entry *p)
{
	return p->state == PAGE_S || p->state == PAGE_M;
}

/* Held, and in a frame that no client maps. */
static inline bool page_staged(const struct page_entry *p)
{
	return (p->flags & PAGE_F_STAGED) != 0;
}

static inline bool page_asked(const struct page_entry *p)
{
	return (p->flags & (PAGE_F_WANT_S | PAGE_F_WANT_X)) != 0;
}

/*
 * Does it need a frame of the space's memory: has it one, or was one promised
 * to the request that is under way?
 */
static inline bool page_counts(const struct page_entry *p)
{
	return (page_held(p) && !page_staged(p)) || page_asked(p);
}

static inline uint16_t page_thread(const struct page_entry *p)
{
	return p->thread >> 4;
}

/* May home keep bytes that pass by, if it has a frame (dir_event.may_keep)? */
static inline bool page_may_keep(const struct page_entry *p)
{
	return p->state == PAGE_I && !page_asked(p);
}
