/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A list of checks and how each came out: what `memspan validate` and
 * `memspan doctor` find, printed as text or as "checks" in their JSON.
 */
#pragma once

#include <jansson.h>

#include "base/base.h"
#include "cli/cli.h"

enum check_result { CHECK_OK, CHECK_FAILED, CHECK_SKIPPED };

struct check {
	char name[64]; /* stable, for programs: "lease-0" */
	enum check_result result;
	bool optional;    /* failed, yet nothing needs it */
	char detail[400]; /* what was found */
	char remedy[400]; /* what to do if it failed; "" if nothing */
	bool measured;    /* the three below say something */
	double value;
	double limit;     /* of `value`; negative: none */
	const char *unit; /* a literal */
};

struct checks {
	struct check *v; /* n of them, in the order of the adding */
	size_t n, room;
	bool lost; /* memory ran out for one: counts as a failure */
};

void checks_done(struct checks *c);

/*
 * Add a check of that name that went well; `fmt` is its detail.  The result is
 * valid until the next is added.
 */
struct check *check_add(struct checks *c, const char *name, const char *fmt,
                        ...) PRINTF_LIKE(3, 4);
/* Turn `k` into a failed one, with what to do about it, or a skipped one. */
void check_fail(struct check *k, const char *remedy);
void check_skip(struct check *k);
/* Put a figure on it.  `limit` is for people; it changes no result. */
void check_measure(struct check *k, double value, double limit,
                   const char *unit);

/* Has anything failed that is not optional? */
bool checks_ok(const struct checks *c);
size_t checks_count(const struct checks *c, enum check_result result);

/*
 * Print all of them and a last line, or with --json the object with "schema"
 * "memspan.NAME/1".  Returns the command's exit status.
 */
int checks_print(const struct checks *c, const struct cli *cli);
