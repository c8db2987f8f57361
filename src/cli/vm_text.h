/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The value of one option of QEMU as a flat list of keys and values.
 *
 * QEMU has three spellings for the same thing, and what is written in one can
 * be nested in another:
 *
 *	driver=qcow2,file.driver=file,file.filename=a,,b    "a,b"
 *	{"driver": "qcow2", "file": {"driver": "file", "filename": "a,b"}}
 *	file=json:{"driver": "file", "filename": "a,,b"}
 *
 * All become the same pairs: "driver" qcow2, "file.driver" file,
 * "file.filename" a,b.  Whoever checks options looks at pairs and cannot be
 * told one thing in one spelling and another in the next.
 *
 * Pure: no I/O.  What cannot be read is refused rather than guessed at.
 */
#pragma once

#include "base/base.h"

#define VM_PAIRS_MAX      256u /* of one option; more is refused */
#define VM_TEXT_DEPTH_MAX 16u  /* of JSON, and of json: within json: */

struct vm_pair {
	char *key;   /* "cache.direct"; objects and lists joined by '.' */
	char *value; /* "on" and "off" for JSON's true and false, "" for null */
};

struct vm_pairs {
	struct vm_pair v[VM_PAIRS_MAX];
	size_t n;
};

/* An empty list.  It is to be given to vm_pairs_free() in the end. */
struct vm_pairs *vm_pairs_new(void);                /* NULL: no memory */
struct vm_pairs *vm_pairs_free(struct vm_pairs *p); /* takes NULL */
DEFINE_AUTO(struct vm_pairs, vm_pairs_free)

/*
 * Append what `text` says.  If it begins with '{' it is JSON.  Else it is
 * KEY=VALUE,... where ",," in a value stands for a comma, a word alone is a
 * key that is "on", and the first word alone is the value of `implied` (unless
 * that is NULL).  A value "json:..." is read too, its keys below the key that
 * had it.
 *
 * Returns 0; -EINVAL if it is neither, or too large or deep, -ENOMEM; then em
 * (may be NULL) says why, and pairs read so far stay in the list.
 */
int vm_text_read(const char *text, const char *implied, struct vm_pairs *ret,
                 struct errmsg *em);

/*
 * Append one pair, and what its value holds if that is "json:...".  Returns as
 * vm_text_read().
 */
int vm_pairs_add(struct vm_pairs *p, const char *key, const char *value,
                 struct errmsg *em);

/* The value of the last pair with this very key, or NULL. */
const char *vm_pairs_get(const struct vm_pairs *p, const char *key);

/* Whether the last word of `key` is `word`: "direct" of "cache.direct". */
bool vm_key_ends(const char *key, const char *word);

/* Whether QEMU reads a value as false; what it reads as neither counts as
 * true, so that nothing is allowed by a slip. */
bool vm_value_off(const char *value);

/*
 * Read QEMU's number of bytes: an integer or a decimal fraction with B, K, M,
 * G, T, P or E in either case, MiB if there is none and `mib` is set.  Returns
 * 0, or -EINVAL with *ret untouched.
 */
int vm_bytes(const char *text, bool mib, uint64_t *ret);
