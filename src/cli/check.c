/* SPDX-License-Identifier: Apache-2.0 */

#include "cli/check.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

/* What an adder writes to when there is no memory for a real one. */
static struct check nowhere;

void checks_done(struct checks *c)
{
	free(c->v);
	c->v = NULL;
	c->n = c->room = 0;
}

struct check *check_add(struct checks *c, const char *name, const char *fmt,
                        ...)
{
	struct check *k = &nowhere;
	va_list args;

	if (c->n == c->room) {
		size_t room = c->room ? 2 * c->room : 32;
		struct check *v = reallocarray(c->v, room, sizeof(*v));

		if (v) {
			c->v = v;
			c->room = room;
		}
	}
	if (c->n < c->room)
		k = &c->v[c->n++];
	else
		c->lost = true;
	memset(k, 0, sizeof(*k));
	k->limit = -1;
	snprintf(k->name, sizeof(k->name), "%s", name);
	va_start(args, fmt);
	vsnprintf(k->detail, sizeof(k->detail), fmt, args);
	va_end(args);
	return k;
}

void check_fail(struct check *k, const char *remedy)
{
	k->result = CHECK_FAILED;
	snprintf(k->remedy, sizeof(k->remedy), "%s", remedy);
}

void check_skip(struct check *k)
{
	k->result = CHECK_SKIPPED;
}

void check_measure(struct check *k, double value, double limit,
                   const char *unit)
{
	k->measured = true;
	k->value = value;
	k->limit = limit;
	k->unit = unit;
}

bool checks_ok(const struct checks *c)
{
	for (size_t i = 0; i < c->n; i++)
		if (c->v[i].result == CHECK_FAILED && !c->v[i].optional)
			return false;
	return !c->lost;
}

size_t checks_count(const struct checks *c, enum check_result result)
{
	size_t n = 0;

	for (size_t i = 0; i < c->n; i++)
		n += c->v[i].result == result;
	return n;
}

/* --- printing ------------------------------------------------------------ */

static const char *result_name(enum check_result r)
{
	switch (r) {
	case CHECK_OK:
		return "ok";
	case CHECK_FAILED:
		return "failed";
	case CHECK_SKIPPED:
		return "skipped";
	}
	return "failed";
}

/* What people see: the failures stand out, the dispensable ones do not. */
static const char *result_word(const struct check *k)
{
	if (k->result == CHECK_FAILED)
		return k->optional ? "missing" : "FAILED";
	return result_name(k->result);
}

static json_t *text_or_null(const char *text)
{
	return text[0] != '\0' ? json_string(text) : json_null();
}

/* Counts and bytes as integers, which doubles hold exactly up to 2^53. */
static json_t *number(bool there, double d)
{
	if (!there)
		return json_null();
	if (d >= 0 && d < 9e15 && (double)(json_int_t)d == d)
		return json_integer((json_int_t)d);
	return json_real(d);
}

static json_t *check_json(const struct check *k)
{
	json_t *value = number(k->measured, k->value);
	json_t *limit = number(k->measured && k->limit >= 0, k->limit);

	return json_pack("{s:s, s:s, s:b, s:o, s:o, s:o, s:o, s:o}", "name",
	                 k->name, "result", result_name(k->result), "needed",
	                 !k->optional, "detail", text_or_null(k->detail),
	                 "value", value, "limit", limit, "unit",
	                 k->measured ? json_string(k->unit) : json_null(),
	                 "remedy", text_or_null(k->remedy));
}

static json_t *checks_json(const struct checks *c, const char *name)
{
	json_t *list = json_array();
	char schema[64];

	snprintf(schema, sizeof(schema), "memspan.%s/1", name);
	for (size_t i = 0; i < c->n; i++)
		if (json_array_append_new(list, check_json(&c->v[i])) < 0) {
			json_decref(list);
			return NULL;
		}
	return json_pack("{s:s, s:b, s:o}", "schema", schema, "ok",
	                 checks_ok(c), "checks", list);
}

static void print_text(const struct checks *c, const struct cli *cli)
{
	int width = 0;

	for (size_t i = 0; i < c->n; i++)
		width = (int)max_u64((uint64_t)width, strlen(c->v[i].name));
	for (size_t i = 0; i < c->n; i++) {
		const struct check *k = &c->v[i];

		printf("%-7s  %-*s  %s\n", result_word(k), width, k->name,
		       k->detail);
		if (k->result == CHECK_FAILED && k->remedy[0] != '\0')
			printf("%-7s  %*s  -> %s\n", "", width, "", k->remedy);
	}
	printf("%s: %s; %zu checks: %zu ok, %zu failed, %zu skipped\n",
	       cli->name, checks_ok(c) ? "ok" : "FAILED", c->n,
	       checks_count(c, CHECK_OK), checks_count(c, CHECK_FAILED),
	       checks_count(c, CHECK_SKIPPED));
}

int checks_print(const struct checks *c, const struct cli *cli)
{
	int status = checks_ok(c) ? CLI_OK : CLI_FAILED;
	int r;

	if (c->lost)
		return cli_fail(cli, "out of memory; nothing can be said");
	if (cli->json) {
		r = cli_print_json(cli, checks_json(c, cli->name));
		return r != CLI_OK ? r : status;
	}
	print_text(c, cli);
	return cli_finish(cli, status);
}
