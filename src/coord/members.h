/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Members: the cluster, its nodes, their leases, and the epoch.
 *
 * What it promises
 *
 *   ids        A name has the same id for ever; an id is never given to
 *              another name, also not after the node was deleted.
 *   lives      Each registration is a new incarnation, from a counter that is
 *              kept: no two lives of any node share a number.
 *   epochs     The epoch grows by one at each join (the first lease), leave
 *              and death, and is in the store before anybody hears of it.
 *   no haste   Nobody is declared dead before his lease and the margin (a
 *              quarter of it) are over, counted from the latest moment at
 *              which this coordinator or one before it may have prolonged it.
 *
 * States: JOINING from the registration, ALIVE from the first lease, FENCED
 * when the lease is over (a renewal makes it ALIVE again), DEAD when it is
 * declared; DRAINED when it left in order and took nothing with it.  JOINING
 * without a lease becomes DEAD too, without a new epoch: it was no member.
 *
 * What it expects: one thread; times are CLOCK_MONOTONIC, passed in.  Whatever
 * returns -errno has changed nothing, and `em` says what the store said.
 */
#pragma once

#include "coord/figures.h"
#include "coord/store.h"
#include "wire/control.h"

struct link;

#define NODE_NAME_MAX 63u

struct node {
	node_id id;
	char name[NODE_NAME_MAX + 1];
	char endpoint[64]; /* "HOST:PORT" where its peers reach it */
	enum member_state state;
	uint8_t shards; /* 0 until it said HELLO */
	uint64_t incarnation;
	uint64_t limit_bytes;

	nsec_t renewed_at; /* 0: never since we started */
	nsec_t lease_ends; /* while ALIVE */
	nsec_t dies_at;    /* while JOINING, ALIVE or FENCED */
	uint32_t epoch;    /* what its last renewal showed */
	struct figures figures;
	/* When we heard that its evictions were refused anew; 0: never. */
	nsec_t refused_at;

	uint64_t homed_pages;    /* spaces.c keeps it */
	uint64_t opened_extents; /* of those homed here; spaces.c keeps it */
	struct link *link;       /* link's owner keeps it; NULL: none */
};

struct members {
	struct store *store; /* borrowed */
	struct node *node[NODES_MAX];
	uint32_t next_id;     /* the lowest that was never given */
	uint64_t incarnation; /* the last that was given */
	uint32_t epoch;

	bool has_cluster;
	char cluster_name[NODE_NAME_MAX + 1];
	uint8_t cluster_id[16];
	uint64_t lease_ms;
};

/* --- life ---------------------------------------------------------------- */

/*
 * Read everything from `store`, which is borrowed.  Members are taken to have
 * got a lease at `now`, or a moment before it from the coordinator that died.
 */
int members_load(struct members *m, struct store *store, nsec_t now,
                 struct errmsg *em);
void members_done(struct members *m);

nsec_t members_lease_ns(const struct members *m);
nsec_t members_margin_ns(const struct members *m);

/* Make a cluster where there is none (asserted). */
int members_make_cluster(struct members *m, const char *name, uint64_t lease_ms,
                         struct errmsg *em);
/* Forget the cluster and its nodes, of whom none may live (asserted). */
int members_drop_cluster(struct members *m, struct errmsg *em);
/*
 * Use another lease from now on.  Leases given before may be longer: `now` is
 * when the last of those may have been given.
 */
int members_set_lease(struct members *m, uint64_t lease_ms, nsec_t now,
                      struct errmsg *em);

/* --- looking ------------------------------------------------------------- */

/* By number; NULL for one that is not there. */
struct node *members_at(const struct members *m, uint32_t id);
/* By id or name, as people type it; NULL: neither. */
struct node *members_find(const struct members *m, const char *text);

/* ALIVE or FENCED: it may act, or have clients that wait for it to. */
bool node_lives(const struct node *n);
/*
 * Pages that it can hold for good: what it says, once it has said it; until
 * then its limit less the exchange reserve, which is a bit more.
 */
uint64_t node_capacity_pages(const struct node *n);
/* What it has left for its own and others' pages, by its last figures. */
uint64_t node_room_pages(const struct node *n);
const char *member_state_name(enum member_state state);

/* A name that a node may have: a host name's letters, and not only digits. */
bool node_name_ok(const char *name);
/* "HOST:PORT" with a port from 1 on, at most 63 bytes. */
bool endpoint_ok(const char *endpoint);

/*
 * What nodes that live take for their peers, as the answer to a LEASE says it:
 * {"room":[[id,pages],...]}, without those that take nothing.  The caller's to
 * free; at most MEMBERS_ROOM_BYTES_MAX bytes.  NULL: no memory, or a member has
 * not been heard since we started, and may well have room.
 */
char *members_room(const struct members *m);
#define MEMBERS_ROOM_BYTES_MAX (NODES_MAX * 24u + 16u)
static_assert(MEMBERS_ROOM_BYTES_MAX <= WIRE_CONTROL_BYTES_MAX,
              "figures of all nodes fit a message");

/* Records of all nodes, ascending; `out` has room for NODES_MAX. */
uint32_t members_encode(const struct members *m, struct wire_member *out);

/* --- changing ------------------------------------------------------------ */

struct registration {
	const char *name, *endpoint; /* checked by the caller */
	uint64_t memory_bytes;
};

enum register_outcome {
	REGISTER_DONE = 0,
	REGISTER_LIVES = 1, /* the name is taken; *ret is who has it */
	REGISTER_FULL = 2,  /* all ids were given */
};

/*
 * Register a node, or a new life of one that is dead.  What it was home of
 * must be settled before: see spaces_forget_home().  Returns an outcome, or
 * -errno.
 */
int members_register(struct members *m, const struct registration *reg,
                     nsec_t now, struct node **ret, struct errmsg *em);

enum renew_outcome {
	RENEW_DONE = 0,
	RENEW_JOINED = 1,   /* the first of its life: the epoch has grown */
	RENEW_UNFENCED = 2, /* it was late, but not too late */
	RENEW_DEAD = 3,     /* nothing was renewed */
};
int members_renew(struct members *m, struct node *n, nsec_t now,
                  struct errmsg *em);
/*
 * What `n` says with a renewal, before it is renewed.  Takes *f and leaves it
 * empty.
 */
void members_heard(struct node *n, struct figures *f, nsec_t now);

/* It stops in order; the epoch grows if it was a member. */
int members_leave(struct members *m, struct node *n, struct errmsg *em);

int members_set_endpoint(struct members *m, struct node *n,
                         const char *endpoint, struct errmsg *em);

/* Forget a node that does not live (asserted); `n` is freed. */
int members_delete(struct members *m, struct node *n, struct errmsg *em);

/*
 * Fence whose lease is over.  Returns the first node whose time to be declared
 * dead has come, or NULL; *changed tells whether any was fenced now.
 */
struct node *members_due(struct members *m, nsec_t now, bool *changed);
/* Declare `n` dead: the epoch grows if it was a member. */
int members_bury(struct members *m, struct node *n, struct errmsg *em);
/* When members_due() is to be called next; UINT64_MAX: never. */
nsec_t members_deadline(const struct members *m);
/*
 * This process did not run, or not hear, until `now`: give everybody a lease
 * and the margin from now on to be heard before he is declared dead.
 */
void members_excuse(struct members *m, nsec_t now);
