/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The spaces that patterns run in: bench-PID-PATTERN, made fresh, bound where a
 * pattern needs homes at certain nodes, and deleted whatever happens.
 */

#include "cli/bench.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/size.h"
#include "cli/space.h"

/* --- homes --------------------------------------------------------------- */

/* What the coordinator takes at once. */
#define RANGES_MAX 1024u

uint64_t bench_grain(uint64_t extents_each, unsigned nodes)
{
	/* As many for each; so a share that is rounded up to whole grains does
	 * not need a larger grain again. */
	uint64_t room = RANGES_MAX / nodes * nodes;

	return max_u64(1, (extents_each * nodes + room - 1) / room);
}

/* Extents [first, first + n) have their home at `node`. */
static int add_range(json_t *list, uint64_t first, uint64_t n,
                     const struct bench_node *node)
{
	return json_array_append_new(
		list,
		json_pack("{s:I, s:I, s:I}", "first_bytes",
	                  (json_int_t)(first * EXTENT_BYTES), "last_bytes",
	                  (json_int_t)((first + n) * EXTENT_BYTES), "node",
	                  (json_int_t)node->id));
}

/* What POST /v1/spaces takes as "bind", for shares of `each` extents. */
static json_t *homes_json(const struct bench_run *run, enum bench_homes homes,
                          uint64_t each)
{
	uint64_t grain = bench_grain(each, run->n);
	bool free = homes == BENCH_FIRST_TOUCH || homes == BENCH_ALONE;
	json_t *list = free ? json_null() : json_array();
	int r = 0;

	switch (homes) {
	case BENCH_FIRST_TOUCH:
	case BENCH_ALONE:
		break;
	case BENCH_BLOCKS:
		for (unsigned i = 0; i < run->n && r == 0; i++)
			r = add_range(list, i * each, each, &run->node[i]);
		break;
	case BENCH_DEALT:
		for (uint64_t i = 0; i < each / grain * run->n && r == 0; i++)
			r = add_range(list, i * grain, grain,
			              &run->node[i % run->n]);
		break;
	case BENCH_AT_FIRST:
		r = add_range(list, 0, each, &run->node[0]);
		break;
	}
	if (r == 0)
		return list;
	json_decref(list);
	return NULL;
}

/* Is the space one share, which belongs to no node in particular? */
static bool undivided(enum bench_homes homes)
{
	return homes == BENCH_AT_FIRST || homes == BENCH_ALONE;
}

/* --- making and deleting ------------------------------------------------- */

static int make(struct bench_run *run, uint64_t each, enum bench_homes homes,
                struct errmsg *em)
{
	uint64_t bytes = each * EXTENT_BYTES * (undivided(homes) ? 1 : run->n);
	AUTO(json_decref) json_t *body = NULL;
	struct http_answer answer;
	struct errmsg why = { "" };
	char size[SIZE_TEXT_BYTES], name[LOCAL_NAME_BYTES];
	int r;

	snprintf(name, sizeof(name), "bench-%d-%s", (int)getpid(),
	         bench_pattern_name[run->now]);
	body = json_pack("{s:s, s:I, s:i, s:o}", "name", name, "size_bytes",
	                 (json_int_t)bytes, "replicas", 1, "bind",
	                 homes_json(run, homes, each));
	if (!body)
		return errmsg_set(em, -ENOMEM, "a space's description");
	r = http_ask(run->http, "POST", "/v1/spaces", body, &answer, &why);
	if (r < 0)
		return errmsg_say(em, r, "%s", why.text);
	/* Only what we made is ours to delete. */
	if (r == HTTP_OK)
		snprintf(run->made, sizeof(run->made), "%s", name);
	json_decref(answer.body);
	if (r == HTTP_OK) {
		run->to->size_bytes = bytes;
		return 0;
	}
	if (answer.status == 507)
		return errmsg_say(em, -ENOSPC,
		                  "it needs a space of %s: %s; or choose a "
		                  "smaller --size or fewer --threads",
		                  size_text(bytes, size), why.text);
	return errmsg_say(em, -EIO, "%s", why.text);
}

static int delete (struct bench_run *run, struct errmsg *em)
{
	int r;

	if (run->made[0] == '\0')
		return 0;
	r = space_delete_left(run->http, run->made, em);
	if (r == 0)
		run->made[0] = '\0';
	return r;
}

/* --- opening and closing ------------------------------------------------- */

static int attach(struct bench_run *run, uint64_t who, struct errmsg *em)
{
	const char *name = run->space ? run->space : run->made;

	for (unsigned i = 0; i < run->n; i++)
		if (who >> i & 1)
			snprintf(bench_crew_order(&run->crew, i, BENCH_ATTACH)
			                 ->space,
			         LOCAL_NAME_BYTES, "%s", name);
	return bench_prepare(run, who, em);
}

int bench_space_open(struct bench_run *run, uint64_t pages,
                     enum bench_homes homes, uint64_t *ret_pages,
                     struct errmsg *em)
{
	uint64_t each = pages / EXTENT_PAGES;
	int r = 0;

	if (run->space) {
		each = run->size_bytes / EXTENT_BYTES /
		       (undivided(homes) ? 1 : run->n);
		run->to->size_bytes = run->size_bytes;
		if (each == 0)
			return errmsg_say(em, -ENOSPC,
			                  "space %s is too small: %u nodes "
			                  "need at least %u times 2 MiB",
			                  run->space, run->n, run->n);
	} else {
		r = make(run, each, homes, em);
	}
	if (r == 0)
		r = attach(run, homes == BENCH_ALONE ? 1 : bench_everybody(run),
		           em);
	if (r < 0)
		return r;
	run->share = each * EXTENT_PAGES;
	run->grain = bench_grain(each, run->n) * EXTENT_PAGES;
	*ret_pages = run->share;
	return 0;
}

int bench_space_close(struct bench_run *run, struct errmsg *em)
{
	int r;

	for (unsigned i = 0; i < run->n; i++)
		(void)bench_crew_order(&run->crew, i, BENCH_DETACH);
	r = bench_prepare(run, bench_everybody(run), em);
	return r < 0 ? r : delete (run, em);
}

void bench_space_abandon(struct bench_run *run)
{
	struct errmsg em = { "" };

	/* Clients first, or the space would be in use. */
	bench_crew_end(&run->crew);
	if (delete (run, &em) < 0)
		(void)cli_fail(run->cli, "%s", em.text);
}
