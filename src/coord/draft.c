/* SPDX-License-Identifier: Apache-2.0 */

#include "coord/draft.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void draft_done(struct draft *d)
{
	for (size_t i = 0; i < d->n; i++)
		free(d->value[i]);
	d->n = 0;
}

/* The next free change, for `key`. */
static struct store_op *next(struct draft *d, enum store_op_kind kind,
                             const char *key)
{
	struct store_op *op = &d->op[d->n];

	assert(d->n < DRAFT_OPS_MAX);
	assert(strlen(key) < DRAFT_KEY_BYTES);
	memcpy(d->key[d->n], key, strlen(key) + 1);
	d->value[d->n] = NULL;
	*op = (struct store_op){ .kind = kind, .key = d->key[d->n] };
	d->n++;
	return op;
}

/* Takes `text`; NULL: memory ran out, which draft_commit() will say. */
static void put_text(struct draft *d, const char *key, char *text)
{
	struct store_op *op = next(d, STORE_PUT, key);

	if (!text) {
		d->no_memory = true;
		return;
	}
	d->value[d->n - 1] = text;
	op->value = text;
	op->bytes = strlen(text);
}

void draft_put_json(struct draft *d, const char *key, json_t *value)
{
	put_text(d, key, value ? json_dumps(value, JSON_COMPACT) : NULL);
	json_decref(value);
}

void draft_put_number(struct draft *d, const char *key, uint64_t value)
{
	char *text = NULL;

	if (asprintf(&text, "%" PRIu64, value) < 0)
		text = NULL;
	put_text(d, key, text);
}

void draft_delete(struct draft *d, const char *key)
{
	(void)next(d, STORE_DELETE, key);
}

void draft_delete_prefix(struct draft *d, const char *prefix)
{
	(void)next(d, STORE_DELETE_PREFIX, prefix);
}

void draft_expect_absent(struct draft *d, const char *key)
{
	assert(!d->absent.key);
	assert(strlen(key) < DRAFT_KEY_BYTES);
	memcpy(d->absent_key, key, strlen(key) + 1);
	d->absent.key = d->absent_key;
}

int draft_commit(struct draft *d, struct store *s, struct errmsg *em)
{
	struct store_txn txn = {
		.cmps = &d->absent,
		.n_cmps = d->absent.key ? 1 : 0,
		.ops = d->op,
		.n_ops = d->n,
	};

	if (d->no_memory)
		return errmsg_set(em, -ENOMEM, "cannot write to the store");
	return store_txn(s, &txn, em);
}

json_t *kv_json(const struct store_kv *kv)
{
	json_t *doc = json_loadb(kv->value, kv->bytes, 0, NULL);

	if (!json_is_object(doc)) {
		json_decref(doc);
		return NULL;
	}
	return doc;
}

int kv_number(const struct store_kv *kv, uint64_t *ret)
{
	char text[24];
	char *end;

	if (kv->bytes == 0 || kv->bytes >= sizeof(text))
		return -EBADMSG;
	memcpy(text, kv->value, kv->bytes);
	text[kv->bytes] = '\0';
	errno = 0;
	*ret = strtoull(text, &end, 10);
	return errno == 0 && *end == '\0' ? 0 : -EBADMSG;
}
