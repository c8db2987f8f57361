/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jansson tells where a text stops being JSON, but not where a value stood that
 * is of the wrong type.  So when something is wrong we look for its name in the
 * text once more: the body is short, and this is not the ordinary case.
 */

#include "coord/body.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* --- where --------------------------------------------------------------- */

/* The end of the JSON string that begins at `p`: behind its closing quote. */
static const char *string_end(const char *p, const char *end)
{
	for (p++; p < end && *p != '"'; p++)
		if (*p == '\\')
			p++;
	return p < end ? p + 1 : end;
}

static const char *blank_end(const char *p, const char *end)
{
	while (p < end && strchr(" \t\r\n", *p))
		p++;
	return p;
}

/*
 * The first place where `key` stands as a name in the text, which parses; its
 * beginning if it is written with escapes, so that we miss it.
 */
static const char *find_key(const char *text, const char *end, const char *key)
{
	size_t n = strlen(key);
	const char *p = text;

	while (p < end) {
		const char *after;

		if (*p != '"') {
			p++;
			continue;
		}
		after = string_end(p, end);
		if ((size_t)(after - p) == n + 2 &&
		    memcmp(p + 1, key, n) == 0) {
			const char *colon = blank_end(after, end);

			if (colon < end && *colon == ':')
				return p;
		}
		p = after;
	}
	return text;
}

void body_wrong(struct body *b, const char *key, const char *fmt, ...)
{
	const char *text = b->rq->body, *end = text + b->rq->body_bytes;
	const char *at = find_key(text, end, key);
	unsigned line = 1, column = 1;
	char what[256];
	va_list args;

	if (b->wrong[0] != '\0')
		return;
	va_start(args, fmt);
	vsnprintf(what, sizeof(what), fmt, args);
	va_end(args);
	for (const char *p = text; p < at; p++) {
		column++;
		if (*p == '\n') {
			line++;
			column = 1;
		}
	}
	snprintf(b->wrong, sizeof(b->wrong),
	         "'%.64s' %s, at line %u, column %u of the body", key, what,
	         line, column);
}

/* --- fields -------------------------------------------------------------- */

void body_read(struct body *b, struct request *rq)
{
	json_error_t error;

	*b = (struct body){ .rq = rq };
	b->doc = json_loadb(rq->body, rq->body_bytes, JSON_REJECT_DUPLICATES,
	                    &error);
	if (!b->doc && rq->body_bytes == 0)
		snprintf(b->wrong, sizeof(b->wrong),
		         "the body is empty; it must be a JSON object");
	else if (!b->doc)
		snprintf(b->wrong, sizeof(b->wrong),
		         "the body is not JSON: %s, at line %d, column %d",
		         error.text, error.line, error.column);
	else if (!json_is_object(b->doc))
		snprintf(b->wrong, sizeof(b->wrong),
		         "the body must be a JSON object");
}

static const json_t *get(struct body *b, const char *key, enum body_need need)
{
	const json_t *v;

	if (b->wrong[0] != '\0')
		return NULL;
	assert(b->n_asked < BODY_FIELDS_MAX);
	b->asked[b->n_asked++] = key;
	v = json_object_get(b->doc, key);
	if (!v && need == BODY_NEEDED)
		snprintf(b->wrong, sizeof(b->wrong),
		         "'%s' is missing in the body", key);
	return v;
}

const char *body_text(struct body *b, const char *key, enum body_need need)
{
	const json_t *v = get(b, key, need);

	if (v && !json_is_string(v))
		body_wrong(b, key, "must be a string");
	return json_string_value(v);
}

uint64_t body_number(struct body *b, const char *key, enum body_need need,
                     uint64_t missing, uint64_t max)
{
	const json_t *v = get(b, key, need);

	if (!v)
		return missing;
	if (!json_is_integer(v)) {
		body_wrong(b, key, "must be an integer");
	} else if (json_integer_value(v) < 0 ||
	           (uint64_t)json_integer_value(v) > max) {
		body_wrong(b, key, "must be from 0 to %" PRIu64, max);
	} else {
		return (uint64_t)json_integer_value(v);
	}
	return missing;
}

bool body_bool(struct body *b, const char *key)
{
	const json_t *v = get(b, key, BODY_MAY);

	if (v && !json_is_boolean(v))
		body_wrong(b, key, "must be true or false");
	return json_is_true(v);
}

const json_t *body_value(struct body *b, const char *key)
{
	return get(b, key, BODY_MAY);
}

/* --- the end ------------------------------------------------------------- */

static bool was_asked(const struct body *b, const char *key)
{
	for (unsigned i = 0; i < b->n_asked; i++)
		if (strcmp(b->asked[i], key) == 0)
			return true;
	return false;
}

bool body_check(struct body *b)
{
	const char *key;
	json_t *value;

	if (b->wrong[0] == '\0') {
		json_object_foreach(b->doc, key, value) if (!was_asked(b, key))
			body_wrong(b, key, "is not a field of this request");
	}
	return b->wrong[0] == '\0';
}

bool body_done(struct body *b)
{
	if (body_check(b))
		return true;
	request_problem(b->rq, 400, "%s", b->wrong);
	body_free(b);
	return false;
}

void body_free(struct body *b)
{
	json_decref(b->doc);
	b->doc = NULL;
}
