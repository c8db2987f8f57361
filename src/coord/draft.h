/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Draft: a small transaction while it is being put together.
 *
 * It owns its keys and values, so that a record may be written from the stack.
 * A value that cannot be made for want of memory is remembered, and told by
 * draft_commit(): the calls between need no checks.
 *
 *	AUTO_DRAFT struct draft d = { 0 };
 *	draft_put_json(&d, "cluster", json_pack(...));
 *	draft_put_number(&d, "epoch", 4);
 *	r = draft_commit(&d, store, em);
 */
#pragma once

#include <jansson.h>

#include "coord/store.h"

#define DRAFT_OPS_MAX   8u
#define DRAFT_KEY_BYTES 64u

struct draft {
	struct store_op op[DRAFT_OPS_MAX];
	char key[DRAFT_OPS_MAX][DRAFT_KEY_BYTES];
	char *value[DRAFT_OPS_MAX];
	size_t n;
	struct store_cmp
		absent; /* .key: NULL or a key that must not be there */
	char absent_key[DRAFT_KEY_BYTES];
	bool no_memory;
};
#define AUTO_DRAFT __attribute__((cleanup(draft_done)))

void draft_done(struct draft *d);

/* Takes `value`, which may be NULL: then memory ran out. */
void draft_put_json(struct draft *d, const char *key, json_t *value);
void draft_put_number(struct draft *d, const char *key, uint64_t value);
void draft_delete(struct draft *d, const char *key);
void draft_delete_prefix(struct draft *d, const char *prefix);
/* The transaction happens only if `key` is not there; at most one a draft. */
void draft_expect_absent(struct draft *d, const char *key);

/* As store_txn(); -ENOMEM if a value could not be made. */
int draft_commit(struct draft *d, struct store *s, struct errmsg *em);

/* --- reading such values back -------------------------------------------- */

/* Returns a new reference, or NULL if the value is no JSON object. */
json_t *kv_json(const struct store_kv *kv);
/* Returns 0, or -EBADMSG if the value is no number. */
int kv_number(const struct store_kv *kv, uint64_t *ret);
