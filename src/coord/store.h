/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Store: what the coordinator has promised, kept over its own death.
 *
 * What it promises
 *
 *   revisions   As in etcd: a store is a map from keys to values with one
 *               revision, which grows by one with each transaction; a key
 *               remembers the revisions that made and last changed it.
 *   all or none A transaction is a list of compares and a list of changes.  It
 *               happens wholly or not at all, also across SIGKILL and power
 *               loss, and is on the disk when store_txn() returns.
 *   one owner   A store that is open belongs to one process; another one that
 *               opens it is refused, and told who has it.
 *   checked     Each value is kept with a checksum, and a value that does not
 *               match is an error, never data.
 *
 * What it expects
 *
 *   one thread  Every call comes from the thread that opened it.  A call may
 *               block for as long as the disk takes to sync.
 *   keys        Texts of 1 to STORE_KEY_MAX bytes, such as "node/00007".
 */
#pragma once

#include "base/base.h"

#define STORE_KEY_MAX 255u

struct store;

/*
 * Open the store in the file `path`, and make it if it is not there.  Returns 0
 * or -errno with a sentence in `em`: -EBUSY if another process has it,
 * -EBADMSG if the file is something else or damaged, -EPROTONOSUPPORT if a
 * newer version made it.
 */
int store_open(const char *path, struct store **ret, struct errmsg *em);
struct store *store_free(struct store *s); /* takes NULL; returns NULL */
DEFINE_AUTO(struct store, store_free)

/* --- reading ------------------------------------------------------------- */

struct store_kv {
	const char *key; /* borrowed, as `value`, until the callback returns */
	const void *value;
	size_t bytes;
	uint64_t create_revision, mod_revision;
};

/*
 * Call fn for each key that begins with `prefix`, in order of their bytes.  A
 * negative answer ends the walk.  fn must not change the store.  Returns 0,
 * what fn said, or -errno (-EBADMSG: a value is damaged) with `em` set.
 */
int store_range(struct store *s, const char *prefix,
                int (*fn)(const struct store_kv *kv, void *arg), void *arg,
                struct errmsg *em);

uint64_t store_revision(const struct store *s);

/* --- changing ------------------------------------------------------------ */

struct store_cmp {
	const char *key;
	uint64_t mod_revision; /* must be the key's; 0: must not be there */
};

enum store_op_kind { STORE_PUT, STORE_DELETE, STORE_DELETE_PREFIX };

struct store_op {
	enum store_op_kind kind;
	const char *key; /* or the prefix */
	const void *value;
	size_t bytes;
};

/* Everything in it is borrowed for the call. */
struct store_txn {
	const struct store_cmp *cmps;
	size_t n_cmps;
	const struct store_op *ops;
	size_t n_ops;
};

enum store_outcome {
	STORE_DONE = 0,
	STORE_CHANGED = 1, /* a compare does not hold: nothing was done */
};

/*
 * Returns an outcome, or -errno with nothing changed and `em` set: -ENOSPC for
 * a full disk (or quota, or file size limit), -EIO for a disk that fails, ...
 * The store stays usable, and a later try may work.
 */
int store_txn(struct store *s, const struct store_txn *txn, struct errmsg *em);

/* For one change and no compare. */
int store_put(struct store *s, const char *key, const void *value, size_t bytes,
              struct errmsg *em);

/*
 * For tests: the nth transaction from now (1: the next one) and all that
 * follow fail with `error`, a negative errno, until this is called with 0.
 */
void store_fail_from(struct store *s, unsigned nth, int error);
