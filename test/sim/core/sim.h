/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Simulator: whole clusters around the real core, in virtual time, from a seed.
 *
 * A simulated node does what src/node does (touch.c, home.c, holder.c, peer.c),
 * with core/dir, core/page and core/place as they are, but its memory is an
 * array, its clients are state machines and its sessions are queues.  All that
 * happens comes out of one heap of events ordered by time, and every choice out
 * of one generator: so a seed says everything, and a failure can be replayed.
 *
 *	sim.c         options, one run, what is printed about it
 *	sim_clock.c   the heap of events
 *	sim_net.c     sessions: in order each, delayed and reordered among them
 *	sim_coord.c   the coordinator: epochs, claims; slow, crashing
 *	sim_fault.c   what goes wrong, and when
 *	sim_node.c    a node: requests of its clients, its messages
 *	sim_home.c    ... the home side
 *	sim_holder.c  ... the holder side
 *	sim_evict.c   ... its limit, and what it wants to get rid of
 *	sim_store.c   ... what it holds for others that evict it
 *	sim_mem.c     ... its memory and its clients' mappings
 *	sim_thread.c  threads of clients
 *	work_*.c      what the threads do
 *	check_*.c     what must hold, whatever they do
 *
 * The checkers look at memory and time, never at the state of the core: that is
 * what they are to judge.  A page's 4096 bytes are one number here.
 */
#pragma once

#include "base/base.h"
#include "base/prng.h"
#include "core/dir.h"
#include "core/page.h"
#include "core/place.h"

#define SIM_NODES_MAX 64u
#define THREADS_MAX   8u /* of a node */
#define CLIENTS_MAX   2u /* of a node; thread i belongs to client i % clients */
#define FRAMES_MAX    256u
#define STAGING_MAX   32u /* pages staged at once, of a node */
#define AGAIN_NS      (500 * NSEC_PER_USEC)

struct sim;
struct node;
struct thread;

/* --- the clock --------------------------------------------------------- */

enum event_kind {
	EV_DELIVER, /* node: the next message of `other` arrives */
	EV_ACKED,   /* node: `other` has applied its messages up to `arg` */
	EV_FAULT, /* node: reads the fault of thread `other`, if still `arg` */
	EV_DEFER, /* node: an order that waited is due */
	EV_LATER, /* node: whoever was told AGAIN asks again */
	EV_EVICT, /* node: looks at its limit, and at what is staged */
	EV_EXTENTS, /* node: the coordinator answers */
	EV_MEMBERS, /* node: the membership */
	EV_RUN,     /* thread `other` of the node runs */
	EV_CLAIM,   /* coordinator: a claim arrives */
	EV_CLAIMED, /* coordinator: a claim is durable, answer it */
	EV_UP,      /* coordinator: starts again */
	EV_JOIN,    /* coordinator: the node joins */
	EV_DEAD,    /* coordinator: the node's lease is over */
	EV_MISHAP,  /* sim_fault.c: something goes wrong */
	EV_REVIVE,  /* a client that died is followed by another */
	EV_WATCH,   /* check_live.c looks */
};

struct event {
	nsec_t at;
	uint64_t n; /* in order of clock_put() among those of one time */
	enum event_kind kind;
	node_id node, other;
	uint64_t arg;
	void *p; /* owned by whoever handles it: free() */
};

struct clock {
	struct event *heap;
	size_t n, room;
	uint64_t count;
};

void clock_put(struct sim *s, nsec_t in_ns, struct event e);
bool clock_take(struct sim *s, struct event *ret);
void clock_free(struct clock *c);

/* --- messages ---------------------------------------------------------- */

enum kind {
	M_GET_S,
	M_GET_X,
	M_DISCARD,
	M_GRANT_S,
	M_GRANT_X,
	M_GRANT_ZERO,
	M_UPGRADE,
	M_GRANT_LOST,
	M_DISCARDED,
	M_MOVED,
	M_AGAIN,
	M_RECALL_S,
	M_RECALL_X,
	M_INVAL,
	M_ACK,
	M_ACK_DATA,
	M_NOT_HELD,
	M_FORGET,
	M_EVICT,   /* to home: may these go? */
	M_DROP,    /* mask: they may; arg: they must stay */
	M_STORE,   /* to a peer: please hold these */
	M_STORED,  /* mask: it does; arg: it does not */
	M_APPLIED, /* to itself alone: what a session's number says of others */
};
extern const char *const kind_name[];

struct message {
	struct message *next;
	enum kind kind;
	node_id from;
	bool discard;  /* MOVED, AGAIN: of a DISCARD */
	bool store;    /* GET_S: for somebody who evicts it */
	bool more;     /* GRANT_S: UPGRADE follows */
	gpn_t page;    /* with mask: the pages that it is about */
	uint64_t mask; /* bit i: page + i */
	uint64_t arg;  /* frame number; version of MOVED; refused of a GRANT or
	                  of STORED; what must stay of DROP */
	uint64_t seq;  /* in its session */
	uint64_t bytes[RUN_PAGES]; /* contents, by bit */
};

struct queue {
	struct message *head, *tail;
};
void queue_put(struct queue *q, const struct message *m);
bool queue_take(struct queue *q, struct message *ret);
void queue_free(struct queue *q);

struct session { /* one direction between two nodes */
	struct queue q;
	uint64_t sent;       /* number of the last message */
	nsec_t last;         /* when that arrives */
	nsec_t ack_last;     /* when the last acknowledgement arrives */
	nsec_t cut_until;    /* partitioned */
	nsec_t slow_ns;      /* one way, and as much again at random */
	uint32_t pages_open; /* asked for and not answered */
};

struct net {
	struct session *session; /* [from * nodes + to] */
	uint64_t messages, local;
	nsec_t base_ns, jitter_ns;
};

void net_init(struct sim *s);
void net_free(struct sim *s);
/* False: no such peer (any more). */
bool net_send(struct node *from, node_id to, struct message *m, uint64_t *seq);
void net_deliver(struct node *to, node_id from);
/* What `to` has not applied of the dead `from` is dropped. */
void net_close(struct node *to, node_id from);
void net_cut(struct sim *s, node_id a, node_id b, nsec_t for_ns);
struct session *net_session(struct sim *s, node_id from, node_id to);

/* --- the coordinator --------------------------------------------------- */

struct claim { /* on its way to the coordinator, and back */
	node_id node;
	struct place_claim what;
	uint64_t life; /* of the coordinator, when it was taken */
	bool failed;
	struct extent info[CLAIM_RUN_MAX];
};

struct members { /* a membership, on its way to a node */
	uint32_t epoch;
	uint8_t state[SIM_NODES_MAX];
};
enum member { MEMBER_NOT_YET, MEMBER_UP, MEMBER_DEAD };

struct coord {
	struct extent *extent; /* durable */
	uint32_t epoch;        /* durable */
	uint8_t member[SIM_NODES_MAX];
	uint64_t life; /* grows at each crash */
	bool down;
	nsec_t slow_ns;
};

void coord_init(struct sim *s);
void coord_free(struct sim *s);
void coord_event(struct sim *s, struct event *e);
void coord_claim(struct node *n, const struct place_claim *c);
void coord_crash(struct sim *s, nsec_t for_ns);

/* --- nodes ------------------------------------------------------------- */

enum rights { RIGHTS_NONE, RIGHTS_READ, RIGHTS_WRITE };

struct memory {
	uint64_t *bytes;  /* of the memfd */
	uint64_t *before; /* what was there before the last write */
	bool *present;
	uint32_t pages; /* present */
	bool *poisoned;
	uint8_t *map[CLIENTS_MAX]; /* enum rights */
};

enum thread_state {
	THREAD_OFF,     /* its node has not joined, or its client is dead */
	THREAD_READY,   /* will run */
	THREAD_FAULTED, /* the kernel has queued its fault */
	THREAD_WAITS,   /* the node has read it */
	THREAD_DISCARDS,
	THREAD_DONE,
};
enum parked { PARKED_NOT, PARKED_UNKNOWN, PARKED_LATER };

enum op_kind { OP_READ, OP_WRITE, OP_ADD, OP_DISCARD };
struct op {
	enum op_kind kind;
	uint8_t n; /* pages that it needs at once: 1 or 2 */
	gpn_t page[2];
	uint32_t pages; /* DISCARD: from page[0] on */
	const struct work *work;
};

struct thread {
	struct node *node;
	uint8_t index, client;
	enum thread_state state;
	enum parked parked;
	uint16_t hash;
	uint64_t faults; /* number of the fault it waits for */
	gpn_t page;      /* ... and its page */
	bool write;
	struct op op;
	bool waiting;
	nsec_t since; /* waiting: since when */
	uint32_t left;
	uint64_t writes; /* for values that nobody else writes */
	gpn_t scan;
};

struct granted { /* what a peer has not said yet that it has applied */
	struct granted *next;
	uint64_t seq, number;
	node_id giver; /* keeps frame `number` until then, or NODE_NONE */
	bool more;     /* then the directory hears DIR_APPLIED */
	gpn_t page;
};

enum staged_phase {
	STAGED_NEW,      /* somebody is to be asked */
	STAGED_STORING,  /* peer `at` was asked to hold it */
	STAGED_EVICTING, /* home was asked if it may go */
	STAGED_KEPT,     /* it must stay, for now or for good */
};

struct staged {
	gpn_t page;
	enum staged_phase phase;
	node_id at;       /* STORING */
	bool light;       /* it goes only if others hold it already */
	bool ask_home;    /* before any (other) peer */
	uint8_t stored;   /* peers that hold it for us */
	uint8_t verdicts; /* how often home said STAY */
	uint64_t tried;   /* peers, one bit each */
	nsec_t again;     /* NEW: not before; KEPT: NEW from then on */
};

struct held { /* what a peer wants us to hold */
	struct held *next;
	node_id from;
	gpn_t base;
	uint64_t left, ok, refused;
};

/* How far one may go: for what can be done without; for who waits. */
enum mark { MARK_HIGH, MARK_LIMIT };

struct answers { /* what one GET gathers */
	bool on;
	node_id to;
	gpn_t base;
	uint64_t s, zero, refused;
	uint64_t bytes[RUN_PAGES];
};

struct hints { /* threads that need two pages, as in node/holder.c */
	uint32_t waits, us, wants_us;
	uint64_t taken;
};

struct discard {
	bool on, sent;
	uint8_t thread;
	gpn_t base;
	uint64_t mask, left, again; /* asked for, not answered, heard AGAIN */
	node_id home;
};

struct node {
	struct sim *sim;
	node_id id;
	bool dead;
	nsec_t paused_until;
	uint32_t epoch;
	uint8_t member[SIM_NODES_MAX];

	struct dir *dir;
	void *dir_memory;
	struct dir_entry *entry;
	struct page_entry *page;
	struct place place;
	struct memory mem;

	uint64_t frame[FRAMES_MAX + 1]; /* from 1 */
	gpn_t frame_page[FRAMES_MAX + 1];
	/* Frozen: its home.  NODE_STAGED; NODE_NONE: free. */
	node_id frame_home[FRAMES_MAX + 1];
	uint32_t frames, frames_free;

	struct queue local;
	bool draining;
	struct answers answers;
	struct granted *granted[SIM_NODES_MAX]; /* by requester, by seq */
	struct discard discard;
	bool later;

	struct hints *hints; /* PAGE_THREADS */
	gpn_t scan_next[CLIENTS_MAX];
	uint32_t window[CLIENTS_MAX];
	uint32_t credits;
	struct thread thread[THREADS_MAX];
	uint32_t threads, clients;

	uint32_t limit, high, low; /* pages of the memfd */
	uint32_t used;             /* in it, or promised to a request */
	uint32_t forced;           /* ... beyond the limit, or lost */
	bool over;                 /* evicting, until it is down to low */
	bool evict_due;
	uint32_t squeezed;    /* pages that we had to refuse to store */
	nsec_t no_room_until; /* nobody has room: what a peer said */
	struct staged staging[STAGING_MAX];
	uint32_t staged, staging_max;
	gpn_t hand; /* of the clock that looks for victims */
	bool fifo;
	struct held *held;
};
#define NODE_STAGED ((node_id)(NODE_NONE - 1))

void node_init(struct sim *s, node_id id);
void node_free(struct node *n);
void node_event(struct node *n, struct event *e);
void node_send(struct node *n, node_id to, struct message *m, uint64_t *seq);
void node_dispatch(struct node *n, node_id from, const struct message *m);
void node_drain(struct node *n);
void node_touch(struct node *n, struct thread *t);
void node_touch_page(struct node *n, gpn_t page);
void node_later(struct node *n);
void node_discard(struct node *n);
bool node_alive(const struct node *n, node_id peer);
void node_acked(struct node *n, node_id peer, uint64_t seq);
/* A step of core/page, and what it means for `used`. */
int node_step(struct node *n, gpn_t page, const struct page_event *ev,
              struct page_actions *out);
uint32_t now_us(const struct sim *s);

void home_request(struct node *n, node_id from, const struct message *m);
void home_answer(struct node *n, node_id from, const struct message *m);
void home_flush(struct node *n);
void home_gone(struct node *n, node_id peer);
/* The giver's frame may go: now, or once `to` has applied message `seq`. */
void home_forget(struct node *n, gpn_t page, node_id giver, uint64_t number);
void home_evict(struct node *n, node_id from, const struct message *m);
void home_applied(struct node *n, node_id from, gpn_t page);

void holder_grant(struct node *n, const struct message *m);
void holder_recall(struct node *n, node_id home, const struct message *m,
                   bool deferred);
void holder_keep(struct node *n, gpn_t page, uint64_t bytes);
/* A thread faults: it may want back what was taken from it. */
void holder_wants(struct node *n, gpn_t page, uint16_t hash);
bool holder_ready(struct node *n, gpn_t page);
void holder_forget(struct node *n, uint64_t number);
void holder_unreachable(struct node *n, node_id home);
void holder_unreachable_page(struct node *n, gpn_t page);
/* False: not now. */
bool holder_stage(struct node *n, gpn_t page);
/* A touch of a staged page, by thread `t` or on nobody's behalf (NULL). */
void holder_touch_staged(struct node *n, gpn_t page, struct thread *t);
void holder_evict(struct node *n, gpn_t page);
void holder_verdict(struct node *n, const struct message *m);

/* After the nodes: what each may have. */
void evict_init(struct sim *s);
bool evict_room(const struct node *n, enum mark mark);
void evict_soon(struct node *n);
void evict_run(struct node *n);
/* It left its frame, whatever for. */
void evict_left(struct node *n, gpn_t page);
void evict_stay(struct node *n, gpn_t page);
void evict_stored(struct node *n, node_id from, const struct message *m);
void evict_peer_gone(struct node *n, node_id peer);

void store_asked(struct node *n, node_id from, const struct message *m);
/* A request of ours was answered: was it for somebody? */
void store_settled(struct node *n, gpn_t page);
void store_free(struct node *n);

void mem_init(struct node *n);
void mem_free(struct node *n);
uint64_t mem_alias(struct node *n, gpn_t page);
/* Of the alias, or of the frame that the page is staged in. */
uint64_t mem_bytes(struct node *n, gpn_t page);
void mem_install(struct node *n, gpn_t page, uint64_t bytes, enum rights r);
void mem_keep(struct node *n, gpn_t page, uint64_t bytes);
void mem_map(struct node *n, gpn_t page, unsigned client);
void mem_protect(struct node *n, gpn_t page);
void mem_unprotect(struct node *n, gpn_t page);
void mem_punch(struct node *n, gpn_t page);
void mem_poison(struct node *n, gpn_t page);
/* What any client of the node may do with a page. */
enum rights mem_rights(const struct node *n, gpn_t page);

void thread_init(struct node *n, unsigned i);
void thread_start(struct thread *t);
void thread_run(struct thread *t);
void thread_fault(struct thread *t, uint64_t number);
/* Those that wait for a page run again.  Returns the set of their clients. */
unsigned thread_wake(struct node *n, gpn_t page);
struct thread *thread_first(struct node *n, gpn_t page);
void thread_discarded(struct node *n, unsigned i);
/* Threads that could run now do, between two actions of the node. */
void thread_race(struct node *n, gpn_t page);
void thread_client_dies(struct node *n, unsigned client);
void thread_client_revives(struct node *n, unsigned client);
/* There is no memory for what it wants: it ends. */
void thread_starves(struct thread *t);

/* --- what goes wrong --------------------------------------------------- */

void fault_init(struct sim *s);
void fault_mishap(struct sim *s);

/* --- workloads --------------------------------------------------------- */

struct work {
	const char *name;
	void (*next)(struct sim *s, struct thread *t, struct op *op);
	/* How many pages all its threads together may touch. */
	uint64_t (*pages)(const struct sim *s);
};
#define SCAN_FIRST 192u /* of an extent, sim.scan_pages of them */
extern const struct work work_random, work_counter, work_pair, work_scan,
	work_discard;

/* --- checkers ---------------------------------------------------------- */

struct truth { /* check_value.c: of a page */
	uint64_t value, adds;
	bool added_only;
	bool maybe_zeros; /* a node died that had asked for a discard */
	bool safe;        /* a node died, and this is no reason to lose it */
};

void check_swmr(struct sim *s, gpn_t page);
void check_swmr_end(struct sim *s);
void check_value_read(struct thread *t, gpn_t page, uint64_t value);
void check_value_write(struct thread *t, gpn_t page, uint64_t value, bool add);
void check_value_zeroed(struct sim *s, gpn_t page);
void check_value_died(struct node *n);
void check_value_lost(struct thread *t, gpn_t page);
void check_value_end(struct sim *s);
void check_live(struct sim *s);
void check_live_end(struct sim *s);
void check_live_waited(struct thread *t);
void check_frames_end(struct sim *s);
void check_limit(struct node *n);
void check_limit_end(struct sim *s);
bool check_limit_suffices(struct sim *s);
void check_limit_say(const struct sim *s);
void check_copies_drop(struct node *home, gpn_t page, node_id evictor);
void check_copies_released(struct node *n, gpn_t page);
void check_copies_died(struct node *n);
void check_copies_lost(struct node *n, gpn_t page);
void check_epoch_adopt(struct node *n, uint32_t old, uint32_t epoch);
void check_epoch_coord(struct sim *s, uint32_t old, uint32_t epoch);
void check_epoch_home(struct node *n, uint32_t extent);

/* --- one run ----------------------------------------------------------- */

enum plant { /* what the shell does wrong, to see a checker find it */
	     PLANT_NONE,
	     PLANT_TWO_WRITERS,
	     PLANT_LOST_WRITE,
	     PLANT_ZEROS,
	     PLANT_LEAK,
	     PLANT_LOST_WAKE,
	     PLANT_EPOCH_BACK,
	     PLANT_OVERTAKE,
	     PLANT_LATE_HINT,
	     PLANT_UNCONFIRMED,
	     PLANT_ONE_COPY,
	     PLANT_SOLE_COPY,
	     PLANT_CARELESS,
	     PLANT_STAGED_WRITABLE,
	     PLANT_UNCOUNTED,
	     PLANT_LEAK_STAGED,
	     PLANT_NO_ROOM,
};

struct options {
	uint64_t seed;
	uint32_t nodes, steps; /* 0: the seed says */
	uint64_t messages;     /* go on until so many were sent */
	enum plant plant;
	const struct work *only; /* NULL: the seed says */
	uint32_t delay_us;       /* one way, exact; 0: the seed says */
	/* Memory of all nodes, in percent of what their pages need; 0: no
	 * limits; -1: the seed says. */
	int32_t limit_percent;
	int32_t replicas; /* -1: the seed says */
	bool verbose;
};

struct sim {
	struct options opt;
	struct prng random;
	nsec_t now;
	uint32_t us_base; /* of CLOCK_MONOTONIC, so that it wraps */
	struct clock clock;
	struct net net;
	struct coord coord;
	struct cut cut;
	struct node *node[SIM_NODES_MAX];
	uint32_t nodes, steps;
	struct truth *truth;
	const struct work *work[8]; /* one is drawn for each step */
	uint32_t works;

	nsec_t heal_at; /* nothing goes wrong from then on */
	bool mishaps, deaths;
	uint32_t dead;
	uint32_t plant_done;

	bool limited;
	uint32_t copies; /* that must remain where one is evicted */
	uint32_t scan_pages;
	bool at_work; /* there are threads that have not done all they shall */
	uint32_t starved;
	uint64_t evictions, refusals, put_back;

	uint64_t hash, ops, lost_seen;
	nsec_t wait_max;
	char failed_by[32]; /* the checker that found something, or "" */
	char why[256];
};

/* A checker's verdict; the run ends.  The first counts. */
void sim_fail(struct sim *s, const char *checker, const char *fmt, ...)
	PRINTF_LIKE(3, 4);
void sim_trace(struct sim *s, uint64_t a, uint64_t b, uint64_t c, uint64_t d);
uint64_t sim_below(struct sim *s, uint64_t n);
/* One in `n`. */
bool sim_one_in(struct sim *s, uint64_t n);
void *sim_alloc(size_t n, size_t size);
/* Is it time for the planted fault?  Rare, so that a run gets going first. */
bool sim_plant(struct sim *s, enum plant p, uint64_t one_in);
