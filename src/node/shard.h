/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A shard: one thread that does everything for its stripes.  Its parts, in the
 * order in which a fault passes them:
 *
 *	touch.c    reads userfaultfds, asks core/page, guesses what comes next,
 *	           and turns what must be asked for into GETs
 *	home.c     takes requests, asks core/dir, grants and recalls
 *	holder.c   takes grants and recalls, and carries core/page's actions out
 *	install.c  maps pages into clients
 *	frames.c   steps of core/page, and the frames that they need or free
 *	evict.c    takes pages from the clients when memory is short
 *	leave.c    has those that nobody touches then held by peers, and go
 *	store.c    holds copies for peers that are short of memory
 *	peer.c     sends and receives
 *	unacked.c  what was sent and is not applied yet: FORGETs, reads granted
 *	pend.c     the threads that wait
 *	job.c      discards, prefetches, questions, death of a peer
 *	shard.c    the thread, its letters, its memory
 *
 * Messages to this node itself go through a queue of the shard (peer.c), which
 * is drained before anything else is looked at: so the state of a page is never
 * seen between a local message's sending and its arrival.
 */
#pragma once

#include <pthread.h>

#include "base/prng.h"
#include "core/evict.h"
#include "node/node.h"

/* Threads that may wait in a shard at once: more stay in the kernel. */
#define PENDS_MAX    32768u
#define PEND_BUCKETS 16384u
/* Pages homed here that may be busy at once: more hear AGAIN. */
#define TXNS_MAX 2048u
#define SETS_MAX 8192u
/* Frames of the pool: half for pages given up whose bytes may still be needed
 * [A7], half for staged ones.  1/16 of the node's limit, within these. */
#define FRAMES_MIN 512u
#define FRAMES_MAX 2048u
/* STOREs of one peer that are not answered: each spends a page credit. */
#define STORES_MAX TP_PAGE_CREDITS
/* Messages with reads granted to one peer that it has not applied. */
#define GRANTED_MAX   TP_PAGE_CREDITS
#define GRANTED_SLOTS 1024u
/* Extents that a shard can tell apart: 16 TiB. */
#define SLOTS_MAX    (1u << 23)
#define REPLICAS_MAX 3u /* of the coordinator's, too */
#define LOCALS_MAX   8192u
#define FORGETS_MAX  8192u
#define STREAMS      4u /* scans that one client's stripe is watched for */
#define AGAIN_NS     (500 * NSEC_PER_USEC)
/* The same, for what the coordinator did not answer. */
#define CLAIM_AGAIN_NS (50 * NSEC_PER_MSEC)

/* --- threads that wait ------------------------------------------------- */

struct sspace;

struct pend {
	struct sspace *space;
	gpn_t page;
	uint32_t tid;
	uint32_t next;   /* same bucket, or free list; 0: end */
	uint32_t parked; /* next in its parking list; 0: end */
	uint8_t slot;    /* client */
	bool write;
	bool is_parked;
	bool ahead;    /* it came while a prefetch was under way */
	uint16_t hash; /* of the thread */
};

/* Threads whose fault waits for something else than their page's answer. */
struct parking {
	uint32_t head, tail, n;
};

/* --- spaces and clients of a shard ------------------------------------- */

/* A scan: where it will go on if it goes on. */
struct stream {
	gpn_t next;      /* the page behind what was asked for */
	gpn_t marker;    /* touched: order the next window; GPN_NONE */
	uint32_t window; /* pages asked for at once */
	uint32_t ahead;  /* windows in flight beyond the one being read */
	uint32_t used;   /* clock of use, for replacement */
	int32_t stride;  /* pages between touches: 1 or more */
};
#define GPN_NONE (~(gpn_t)0)

struct sstripe {
	struct loop_io io;
	struct shard *shard;
	struct sspace *space;
	struct client *client;
	struct uffd *uffd;
	uint32_t index;
	bool paused;   /* its faults are not read: no room for waiters */
	gpn_t last;    /* page requested last */
	int64_t delta; /* its distance from the one before */
	struct stream stream[STREAMS];
	uint32_t clock;
};

struct sclient {
	struct client *client;  /* NULL: free slot */
	struct sstripe *stripe; /* array of cut.stripes; unused: uffd NULL */
	bool minor; /* it sends MINOR faults, though told not to: install.c */
};

struct sspace {
	struct space *space;
	struct sclient client[CLIENTS_PER_SPACE];
	uint32_t n_clients;
	uint64_t slots;         /* bit per client in use */
	struct parking unknown; /* waits for the coordinator: whose extent? */
	struct shard_letter *discards; /* queue: the first is being done */
	uint64_t discard_mask;         /* pages of the first not answered yet */
	gpn_t discard_base;
	node_id discard_home; /* whom it was sent to */
	uint32_t discard_n;   /* pages of the window on its way */
	bool discard_sent;
	bool discard_again;    /* some page of the window was turned away */
	bool discard_asked;    /* the coordinator, whose its extent is */
	uint64_t discard_told; /* extent that it said is nobody's; GPN_NONE */
	uint32_t refused;      /* prefetches refused in a row */
	uint32_t guess_clock;
	uint32_t slot;  /* of extent 0 in keys of core/evict; see evict.c */
	uint64_t *used; /* bit per extent: some page of it was resident */
	/* The same: pages of it are here whose home died, and whoever is their
	 * home now knows nothing of them. */
	uint64_t *orphan;
	uint64_t counted;   /* pages that node.memory counts */
	uint64_t away_held; /* ... of them held for peers only */
	uint64_t away_gone; /* pages evicted from here, not taken back */
	struct sspace *next;
};

/* --- messages to ourselves --------------------------------------------- */

struct local_msg_entry {
	struct msg m;
	const uint8_t *page[RUN_PAGES]; /* bytes of each payload page, in order
	                                   of bits; valid until it is handled */
	bool net; /* the net was involved in what it answers */
};

/* --- peers ------------------------------------------------------------- */

/* Granted bytes that the giver keeps until the grant is applied. */
struct forget {
	uint64_t seq;    /* of the grant, in the requester's session */
	uint64_t number; /* of the giver's frame */
	node_id giver;
	uint8_t giver_shard;
	space_id space;
	gpn_t page;
	uint32_t next;
};

/* A recall that found no credit. */
struct backlog {
	enum msg_type type;
	node_id requester;
	space_id space;
	gpn_t page;
};

/* A read granted to a peer that has not applied it. */
struct granted {
	uint64_t seq;
	space_id space;
	gpn_t page;
	uint64_t mask;
	bool more; /* the directory waits for it */
};

/* A peer asked us to hold pages, and is not answered. */
struct store {
	space_id space; /* 0: free */
	gpn_t page;
	uint64_t mask;    /* all */
	uint64_t pending; /* asked for at their home */
	uint64_t held;
};

struct speer {     /* one lane to a peer */
	bool over; /* its session has ended for good, the peer lives on */
	uint8_t shard;
	struct parking credit; /* touches that found no page credit */
	uint32_t forget_head, forget_tail; /* grants not applied yet, by seq */
	uint32_t unsent_head, unsent_tail; /* FORGETs that found no room */
	struct backlog *backlog;           /* ring of TXNS_MAX */
	uint32_t backlog_first, backlog_n;
	struct granted *granted; /* ring of GRANTED_MAX, by seq */
	uint32_t granted_first, granted_n;
	/* Pages in it, by hash: 0 means that the peer has applied all. */
	uint16_t unapplied[GRANTED_SLOTS];
	struct store *store; /* STORES_MAX */
	uint32_t n_store;
};

struct smember {
	enum member_state state;
	uint64_t incarnation;
	uint8_t shards;
	struct speer *lane; /* one per shard of the peer; NULL: not a peer */
};

struct defer {
	nsec_t at;
	struct msg m;
	node_id home;
	struct sspace *space;
};

/* A frozen page; its bytes went to `home`; NODE_NONE: it is no such frame. */
struct frozen {
	node_id home;
	space_id space;
};

/* A staged page, by its frame. */
enum staged_phase {
	STAGED_NOT = 0, /* the frame is free, or frozen */
	STAGED_RESTS,   /* a touch brings it back */
	STAGED_LEAVES,  /* its turn has come: to be asked for */
	STAGED_STORING, /* a peer is asked to hold it */
	STAGED_ASKING,  /* EVICT is under way */
};

struct staged {
	struct sspace *space;
	gpn_t page;
	uint32_t stamp; /* core/evict's ghost, for when it has gone */
	uint8_t phase;
	bool queued;   /* this frame is in the ring of those that leave */
	bool shared;   /* home was asked before anybody stored it */
	bool trim;     /* it goes only if others hold it anyway */
	uint8_t tries; /* peers that refused, answers that were STAY */
	uint8_t n_at;  /* peers that hold it */
	node_id asked; /* STORING: whom */
	nsec_t after;  /* LEAVES: not before */
	node_id at[REPLICAS_MAX];
};

/* --- answers that a GET gathers ---------------------------------------- */

/*
 * While one GET of up to 64 pages is served, its grants gather here and leave
 * as one message per kind.
 */
struct answers {
	bool on;
	node_id to;
	uint8_t to_shard;
	struct sspace *space;
	gpn_t base;
	uint64_t s, zero, refused, drop, stay; /* masks relative to base */
	const uint8_t *page[RUN_PAGES];
	bool net;
};

/* --- the shard --------------------------------------------------------- */

struct shard {
	struct node *node;
	uint8_t index;
	struct loop *loop;
	struct loop_hook hook;
	struct transport *tp;
	pthread_t thread;
	bool running;
	_Atomic bool quit; /* main thread: stand still no longer, but end */
	struct shard_counters *counters;

	struct dir *dir;
	struct frame_pool *frames;
	uint32_t n_frames;
	struct frozen *frozen; /* of each frame */
	struct staged *staged; /* the same */
	uint32_t staged_max;   /* pages that may be staged */
	struct evict *policy;
	void *policy_mem;
	size_t policy_bytes;
	uint32_t taken;          /* frames of node.memory, not used yet */
	struct parking no_frame; /* faults that wait for one */
	uint32_t told_waiting;   /* of them, in node.memory.waiting */
	uint32_t *leaving; /* frames whose turn has come: ring of n_frames */
	uint32_t leaving_first, leaving_n;
	nsec_t tight_until; /* no peer had room: only shared pages may go */
	bool round_over;    /* all pages have been offered to be staged */
	bool looks_spent;   /* there are more to look at, in another turn */
	uint32_t trim;      /* shared pages to let go, for a peer's sake */
	nsec_t evict_after; /* nothing to be done before */
	nsec_t evict_wait;  /* the last time that was waited */
	uint64_t gone;      /* pages evicted since the start */
	uint32_t put_back;  /* ... that could not go, in this turn */
	bool stuck;         /* in this turn: nothing can be staged in place of
	                       what must come back */
	struct loop_timer evict_timer;
	nsec_t nudge_after;  /* others are not told again before */
	struct mail nudge;   /* from another shard: memory is short */
	_Atomic bool nudged; /* that is under way; any shard */
	struct prng random;

	struct pend *pend; /* from 1 */
	uint32_t *bucket;
	uint32_t free_pend, n_free_pend;
	struct parking later; /* to be touched again at AGAIN_NS */
	struct loop_timer later_timer;
	bool starved; /* some userfaultfd is paused */

	struct sspace *spaces;     /* list; few */
	struct sspace *last_space; /* the one looked up last */

	struct local_msg_entry *local; /* ring */
	uint32_t local_first, local_n;
	bool draining;
	struct answers answers;
	bool event_net; /* the event being handled came over the net */

	struct smember *member; /* NODES_MAX */
	node_id n_members;      /* one more than the highest that we heard of */
	uint32_t n_peers;       /* that live, as far as we have heard */
	uint32_t epoch;
	struct forget *forget; /* from 1 */
	uint32_t free_forget;

	/* Recalls that wait for a residency: a binary heap by `at`, with room
	 * for all that we and the peers can have sent. */
	struct defer *defer;
	uint32_t n_defer, defers_max;
	struct loop_timer defer_timer;

	uint8_t bounce[PAGE_BYTES]; /* install.c */

	uint32_t now_us;
	uint32_t n_fds; /* userfaultfds watched */
};

/* shard.c */
struct sspace *shard_space(struct shard *s, space_id id);
uint32_t shard_now_us(struct shard *s);
/* Wait here while the node has no lease: a fenced node does nothing. */
void shard_gate(struct shard *s);
void shard_claim(struct shard *s, struct sspace *sp,
                 const struct place_claim *c);
void shard_end_clients(struct shard *s, struct sspace *sp, const char *why);
void shard_count(_Atomic uint64_t *counter, uint64_t n);
/* The memory is all shards', and each takes out its own pages: so tell those
 * that have nothing else to do that it is short. */
void shard_nudge_others(struct shard *s);

/* pend.c */
int pend_init(struct shard *s, struct errmsg *em);
/* Returns its number, or 0 if there is none left. */
uint32_t pend_add(struct shard *s, struct sspace *sp, gpn_t page,
                  const struct uffd_fault *f, uint8_t slot);
/* The first of those who wait for a page, or 0; then pend_next(). */
uint32_t pend_first(struct shard *s, struct sspace *sp, gpn_t page);
uint32_t pend_next(struct shard *s, uint32_t i);
/* They got their page: note the class, count, and take them off.  Returns the
 * set of clients (slots) that waited. */
uint64_t pend_resolve(struct shard *s, struct sspace *sp, gpn_t page,
                      enum local_class class);
void pend_drop_client(struct shard *s, struct sspace *sp, uint8_t slot);
void park(struct shard *s, struct parking *p, uint32_t i);
/* Touch up to `most` of those that are parked there once more. */
void unpark_some(struct shard *s, struct parking *p, uint32_t most);
/* All of them. */
void unpark_all(struct shard *s, struct parking *p);
void park_later(struct shard *s, uint32_t i);

/* touch.c */
void touch_ready(struct loop_io *io, uint32_t events);
/* A thread waits (pend i): do what its page needs. */
void touch_pend(struct shard *s, uint32_t i);
/* Everybody who waits for the page. */
void touch_page(struct shard *s, struct sspace *sp, gpn_t page);
void touch_resume(struct shard *s);
/* Ask for pages ahead of need; returns how many were asked for. */
uint32_t touch_prefetch(struct shard *s, struct sspace *sp, gpn_t first,
                        uint32_t n, bool write);

/* frames.c */
/* Take `n` frames for requests to come.  False: nothing taken, no room. */
bool frames_take(struct shard *s, uint32_t n, enum memory_mark mark);
/* Give back what of them was not used. */
void frames_return(struct shard *s);
/*
 * page_handle(), with what follows for memory and for core/evict.  A step that
 * asks for a page, or brings one back, uses a frame that was taken before.
 */
int page_step(struct shard *s, struct sspace *sp, gpn_t page,
              const struct page_event *ev, struct page_actions *out);
/* Somebody here uses a page that was held for peers only. */
void frames_ours(struct shard *s, struct sspace *sp, struct page_entry *p);
/* The bytes of a held page: in the space's memory, or staged. */
const uint8_t *page_bytes(const struct shard *s, const struct sspace *sp,
                          gpn_t page);
int frames_add_space(struct shard *s, struct sspace *sp);
void frames_drop_space(struct shard *s, struct sspace *sp);

/* evict.c */
int evict_start(struct shard *s, struct errmsg *em);
void evict_stop(struct shard *s);
/* At the end of a turn: make room if memory is short. */
void evict_turn(struct shard *s);
/* A peer was refused for want of room: let shared pages go for it. */
void evict_trim(struct shard *s);
/*
 * Take a frame of the limit for a page that must come back; if there is none,
 * by staging another one.  False: there is none to be had.
 */
bool evict_for_back(struct shard *s);
/* Give the space's extents numbers; -ENOSPC. */
int evict_slots(struct shard *s, struct sspace *sp);
/* The key by which core/evict knows a page. */
uint32_t evict_key(const struct sspace *sp, gpn_t page);

/* leave.c */
/* The turn of the page in `frame` has come. */
void leave_add(struct shard *s, uint32_t frame);
/* Send what can be sent for those whose turn has come. */
void leave_turn(struct shard *s);
/*
 * Is it of no use to offer pages that nobody else holds?  Those that nobody
 * takes have to go back, and that over and over would keep a full cluster
 * awake.  But while somebody waits it is tried again and again: what the peers
 * have is known a moment late, and a page that rests in its frame has made
 * room, too.
 */
bool leave_tight(const struct shard *s);
/* Nobody has room: the operator is told. */
void leave_refused(struct shard *s);
/* DROP */
int leave_answer(struct shard *s, struct sspace *sp, const struct msg *m);
/* STORED */
int leave_stored(struct shard *s, node_id from, struct sspace *sp,
                 const struct msg *m);
/* A peer is gone: it will store nothing. */
void leave_peer_gone(struct shard *s, node_id peer);
/* The page was touched, recalled, or has gone: `frame` is free, or frozen. */
void leave_unstaged(struct shard *s, uint32_t frame);
/* How many others are to hold a page of the space before it goes. */
uint8_t leave_need(const struct sspace *sp);
/* Can the page's home be asked, and will it know of it? */
bool leave_home_knows(const struct shard *s, const struct sspace *sp,
                      gpn_t page);

/* store.c */
int store_request(struct shard *s, node_id from, uint8_t lane,
                  const struct msg *m);
/* A page that was asked for to be stored has come, or will not. */
void store_result(struct shard *s, struct sspace *sp, gpn_t page, bool held);
/* Stores of this space are refused. */
void store_dropped(struct shard *s, space_id id);

/* home.c */
int home_request(struct shard *s, node_id from, uint8_t lane,
                 const struct msg *m, bool net);
int home_answer(struct shard *s, node_id from, const struct msg *m,
                const uint8_t *const *page, bool net);
/* Send the grants that a GET has gathered. */
void home_flush(struct shard *s);
void home_gone(struct shard *s, node_id peer);
/* `from` has applied a GRANT_S that was marked MORE. */
void home_applied(struct shard *s, struct sspace *sp, gpn_t page, node_id from);
/* Give back what the directory keeps of a space that is dropped. */
void home_dropped(struct shard *s, struct sspace *sp);

/* holder.c */
int holder_grant(struct shard *s, struct sspace *sp, const struct msg *m,
                 const uint8_t *const *page, bool net);
int holder_recall(struct shard *s, node_id home, const struct msg *m,
                  bool deferred);
void holder_keep(struct shard *s, struct sspace *sp, gpn_t page,
                 const uint8_t *bytes);
void holder_forget(struct shard *s, uint64_t number);
void holder_defer_due(struct loop_timer *t);
void holder_unreachable(struct shard *s, node_id home);
/* The same for one page. */
void holder_unreachable_page(struct shard *s, struct sspace *sp, gpn_t page);
bool holder_ready(struct shard *s, const struct page_entry *p);
/* Fill in what the event says of the thread that the page is for. */
void holder_hint(struct shard *s, const struct page_entry *p,
                 struct page_event *ev);
/* Carry PAGE_INSTALL_BACK out, and free the frame. */
void holder_back(struct shard *s, struct sspace *sp, gpn_t page,
                 uint32_t frame);
/* Thread `t` (its hash) faults on `page`: was it taken from under it? */
void holder_touched(struct shard *s, struct sspace *sp, gpn_t page, uint16_t t);
/* Nobody needs anything of this space any more. */
void holder_dropped(struct shard *s, struct sspace *sp);
/* The orders that wait, of this space and of this home, are void. */
void holder_void(struct shard *s, struct sspace *sp, node_id home);
int holder_discarded(struct shard *s, struct sspace *sp, const struct msg *m);

/* install.c */
enum install { INSTALL_S, INSTALL_M, INSTALL_ZERO };
void install_run(struct shard *s, struct sspace *sp, gpn_t first, uint32_t n,
                 const uint8_t *const *page, enum install how,
                 enum local_class class);
void install_keep(struct shard *s, struct sspace *sp, gpn_t page,
                  const uint8_t *bytes);
/* Map a held page for the client that faulted, as its state says. */
void install_map(struct shard *s, uint32_t pend);
void install_unprotect(struct shard *s, struct sspace *sp, gpn_t page,
                       enum local_class class);
/* Returns when no client can write there any more. */
void install_protect(struct shard *s, struct sspace *sp, gpn_t first,
                     uint32_t n);
/* Free the page's memory: nobody can map it any more. */
void install_punch(struct sspace *sp, gpn_t first, uint32_t n);
void install_poison(struct shard *s, struct sspace *sp, gpn_t page);

/* peer.c */
int peer_init(struct shard *s, struct errmsg *em);
void peer_free(struct shard *s);
/* To a peer, or to ourselves.  `page` are the payload pages. */
enum tp_sent peer_send(struct shard *s, node_id to, struct sspace *sp,
                       struct msg *m, const uint8_t *const *page, bool net,
                       uint64_t *seq);
void peer_recall(struct shard *s, node_id to, struct sspace *sp, struct msg *m);
/* The lane to a peer, or NULL. */
struct speer *peer_lane_of(struct shard *s, node_id peer, uint8_t shard);
/* ... for a page. */
struct speer *peer_of_page(struct shard *s, const struct sspace *sp,
                           node_id peer, gpn_t page);
const struct tp_handlers *peer_handlers(void);

/* unacked.c */
int unacked_init(struct shard *s, struct errmsg *em);
int unacked_lane(struct speer *p);
void unacked_lane_done(struct speer *p);
/* The peer has applied what we sent up to `seq`. */
void unacked_acked(struct shard *s, struct speer *p, node_id peer,
                   uint64_t seq);
/* Try again to send FORGETs that found no room. */
void unacked_ready(struct shard *s, struct speer *p);
/* The peer's incarnation is over. */
void unacked_gone(struct shard *s, node_id peer);
void unacked_lane_gone(struct shard *s, struct speer *p);
/* Message seq grants `to` reads of the pages of `mask`. */
void unacked_granted(struct shard *s, node_id to, struct sspace *sp, gpn_t page,
                     uint64_t mask, uint64_t seq, bool more);
/* Take off `set` who has applied all reads of the page that it was granted. */
void unacked_only(struct shard *s, struct sspace *sp, gpn_t page,
                  struct nodeset *set);
/* Once `to` has applied message seq: giver's frame `number` may go. */
void unacked_forget_later(struct shard *s, node_id to, struct sspace *sp,
                          gpn_t page, uint64_t seq, node_id giver,
                          uint64_t number);
void unacked_forget(struct shard *s, struct sspace *sp, gpn_t page,
                    node_id giver, uint64_t number);
void peer_drain(struct shard *s);
/* Orders of this space that wait for credits need not be sent any more. */
void peer_dropped(struct shard *s, space_id id);
/* Page credits towards the home of `page`; ~0 for ourselves; 0 none. */
uint32_t peer_credits(struct shard *s, struct sspace *sp, node_id home,
                      gpn_t page, struct parking **wait);
bool peer_alive(const struct shard *s, node_id n);
/* It is dead, or left: what only it had will not come. */
bool peer_over(const struct shard *s, node_id n);
uint8_t peer_lane(const struct shard *s, const struct sspace *sp, node_id to,
                  gpn_t page);
void peer_members(struct shard *s, const struct members_letter *l);

/* job.c */
void job_discard(struct shard *s, struct sspace *sp);
void job_unreachable(struct shard *s, struct sspace *sp, node_id home);
