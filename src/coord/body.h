/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bodies of requests: one JSON object, of which every field is known, given
 * once, and of its type.
 *
 *	struct body b;
 *
 *	body_read(&b, rq);
 *	name = body_text(&b, "name", BODY_NEEDED);
 *	size = body_number(&b, "size_bytes", BODY_NEEDED, 1, max);
 *	if (!body_done(&b))
 *		return;                  (400 was answered)
 *	...
 *	body_free(&b);
 *
 * The first thing that is wrong is what the answer tells, with its line and
 * column; after it the getters return nothing, so one check at the end will do.
 */
#pragma once

#include "coord/http.h"

#define BODY_FIELDS_MAX 12u

enum body_need { BODY_MAY, BODY_NEEDED };

struct body {
	struct request *rq;
	json_t *doc;
	const char *asked[BODY_FIELDS_MAX];
	unsigned n_asked;
	char wrong[512]; /* "": nothing so far */
};

void body_read(struct body *b, struct request *rq);

/* NULL if it is not there. */
const char *body_text(struct body *b, const char *key, enum body_need need);
/* `missing` if it may be missing and is. */
uint64_t body_number(struct body *b, const char *key, enum body_need need,
                     uint64_t missing, uint64_t max);
bool body_bool(struct body *b, const char *key);
/* Any value, for whoever checks it himself; NULL if not there. */
const json_t *body_value(struct body *b, const char *key);

/* Say that field `key` is wrong: "<key> <fmt>, at line ...". */
void body_wrong(struct body *b, const char *key, const char *fmt, ...)
	PRINTF_LIKE(3, 4);

/* Nothing else may be in it.  Returns true if all was well. */
bool body_check(struct body *b);
/* As that; else the request is answered, and the body freed. */
bool body_done(struct body *b);
void body_free(struct body *b);
