/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where pages are: homes are known here, holders only at the homes, who are
 * asked.  What nobody has touched needs no question.
 */

#include <stdio.h>
#include <string.h>

#include "coord/api.h"

#define MAP_EXTENTS_DEFAULT 256u
#define MAP_EXTENTS_MAX     1024u

struct mapping {
	struct round round;
	struct request *rq;
	space_id space;
	uint32_t from, n;
	node_id silent; /* a home that did not answer */
	json_t *said[]; /* n: what the home says of it, or NULL */
};

/* The id, or null for nobody and for a home that is lost. */
static json_t *render_home(node_id home)
{
	return home < HOME_LOST ? json_integer(home) : json_null();
}

/* --- the map ------------------------------------------------------------- */

/* Take those extents out of an answer that its node is home of. */
static void map_answer(struct round *r, const struct node *n, const json_t *doc)
{
	struct mapping *mp = container_of(r, struct mapping, round);
	const struct space *sp = spaces_at(&r->coord->spaces, mp->space);
	const json_t *list = json_object_get(doc, "extents");

	if (!json_is_array(list)) {
		mp->silent = n->id;
		return;
	}
	for (size_t i = 0; sp && i < json_array_size(list); i++) {
		json_t *v = json_array_get(list, i);
		json_int_t at =
			json_integer_value(json_object_get(v, "extent"));

		if (at < mp->from || at >= mp->from + (json_int_t)mp->n ||
		    space_extent(sp, (uint32_t)at).home != n->id)
			continue;
		json_decref(mp->said[at - mp->from]);
		mp->said[at - mp->from] = json_incref(v);
	}
}

static bool home_lives(const struct coord *c, node_id home)
{
	const struct node *n = members_at(&c->members, home);

	return n && node_lives(n);
}

/* An extent's "pages" when nobody can be asked for them. */
static json_t *pages_unasked(const struct coord *c, const struct space *sp,
                             uint32_t extent)
{
	struct extent_info e = space_extent(sp, extent);
	int pages = e.opened ? (int)space_extent_pages(sp, extent) : 0;
	int lost = e.home == HOME_LOST ? pages : 0;
	int missing = !home_lives(c, e.home) ? pages - lost : 0;

	return json_pack("{s:i, s:i, s:i, s:i}", "held", 0, "stored", 0,
	                 "missing", missing, "lost", lost);
}

static json_t *map_extent(const struct coord *c, const struct space *sp,
                          const struct mapping *mp, uint32_t i)
{
	uint32_t extent = mp->from + i;
	json_t *pages = json_object_get(mp->said[i], "pages");
	json_t *holders = json_object_get(mp->said[i], "holders");

	pages = pages ? json_incref(pages) : pages_unasked(c, sp, extent);
	holders = holders ? json_incref(holders) : json_array();
	return json_pack("{s:i, s:o, s:o, s:o}", "extent", (int)extent, "home",
	                 render_home(space_extent(sp, extent).home), "pages",
	                 pages, "holders", holders);
}

static void mapping_free(struct mapping *mp)
{
	for (uint32_t i = 0; i < mp->n; i++)
		json_decref(mp->said[i]);
	free(mp);
}

static void map_done(struct round *r)
{
	struct mapping *mp = container_of(r, struct mapping, round);
	struct coord *c = r->coord;
	const struct space *sp = spaces_at(&c->spaces, mp->space);
	uint32_t next = mp->from + mp->n;
	json_t *list;

	if (mp->silent != NODE_NONE) {
		request_problem(mp->rq, 503,
		                "node %u, home of some of these extents, does "
		                "not answer; try again",
		                mp->silent);
	} else if (!sp) {
		request_problem(mp->rq, 404, "the space was deleted meanwhile");
	} else {
		list = json_array();
		for (uint32_t i = 0; list && i < mp->n; i++)
			(void)json_array_append_new(list,
			                            map_extent(c, sp, mp, i));
		request_answer(mp->rq, 200,
		               json_pack("{s:o, s:o}", "extents", list, "next",
		                         next < sp->n_extents ?
		                                 json_integer(next) :
		                                 json_null()));
	}
	mapping_free(mp);
}

/* Ask each home that lives, once. */
static void ask_homes(struct coord *c, const struct space *sp,
                      struct mapping *mp)
{
	json_t *doc = json_pack("{s:s, s:I, s:I, s:I}", "op", "map", "space",
	                        (json_int_t)sp->id, "from",
	                        (json_int_t)mp->from, "n", (json_int_t)mp->n);
	uint64_t asked[NODES_MAX / 64] = { 0 };

	for (uint32_t i = 0; i < mp->n; i++) {
		struct extent_info e = space_extent(sp, mp->from + i);
		struct node *n = members_at(&c->members, e.home);

		if (!n || !node_lives(n) ||
		    (asked[e.home / 64] >> (e.home % 64) & 1) != 0)
			continue;
		asked[e.home / 64] |= 1ull << (e.home % 64);
		if (n->link)
			round_ask(&mp->round, n, MSG_QUERY, sp->id, doc);
		else
			mp->silent = e.home;
	}
	json_decref(doc);
}

/* The number of parameter `key`, or `missing`; false: 400 was answered. */
static bool number_arg(struct request *rq, const char *key, uint64_t missing,
                       uint64_t max, uint64_t *ret)
{
	*ret = missing;
	for (unsigned i = 0; i < rq->n_args; i++) {
		if (strcmp(rq->arg[i].key, key) != 0)
			continue;
		if (api_number(rq->arg[i].value, max, ret))
			continue;
		request_problem(rq, 400,
		                "parameter '%s' must be a number from 0 to "
		                "%llu",
		                key, (unsigned long long)max);
		return false;
	}
	return true;
}

static bool args_known(struct request *rq)
{
	for (unsigned i = 0; i < rq->n_args; i++) {
		if (strcmp(rq->arg[i].key, "from") == 0 ||
		    strcmp(rq->arg[i].key, "n") == 0)
			continue;
		request_problem(rq, 400,
		                "'%.64s' is no parameter of a map; it has "
		                "from and n",
		                rq->arg[i].key);
		return false;
	}
	return true;
}

void api_map_show(struct coord *c, struct request *rq, const char *name)
{
	struct space *sp = api_space(c, rq, name);
	struct mapping *mp;
	uint64_t from, n;

	if (!sp || !args_known(rq) ||
	    !number_arg(rq, "from", 0, sp->n_extents, &from) ||
	    !number_arg(rq, "n", MAP_EXTENTS_DEFAULT, MAP_EXTENTS_MAX, &n))
		return;
	n = min_u64(n, sp->n_extents - from);
	mp = calloc(1, sizeof(*mp) + n * sizeof(mp->said[0]));
	if (!mp) {
		request_problem(rq, 503, "out of memory; try again");
		return;
	}
	mp->rq = rq;
	mp->space = sp->id;
	mp->from = (uint32_t)from;
	mp->n = (uint32_t)n;
	mp->silent = NODE_NONE;
	mp->round.answer = map_answer;
	mp->round.done = map_done;
	round_start(&mp->round, c);
	ask_homes(c, sp, mp);
	round_run(&mp->round, NODES_ANSWER_NS);
}

/* --- one page ------------------------------------------------------------ */

struct looking {
	struct round round;
	struct request *rq;
	uint64_t gpn;
	node_id home;
	json_t *said; /* NULL: nothing */
};

static void page_answer(struct round *r, const struct node *n,
                        const json_t *doc)
{
	struct looking *lk = container_of(r, struct looking, round);

	(void)n;
	if (json_is_string(json_object_get(doc, "state")) &&
	    json_is_array(json_object_get(doc, "holders")))
		lk->said = json_incref((json_t *)(uintptr_t)doc);
}

static json_t *page_json(uint64_t gpn, node_id home, const char *state,
                         json_t *holders, uint64_t heat)
{
	return json_pack("{s:I, s:o, s:s, s:o, s:I}", "gpn", (json_int_t)gpn,
	                 "home", render_home(home), "state", state, "holders",
	                 holders, "heat", (json_int_t)heat);
}

static void page_done(struct round *r)
{
	struct looking *lk = container_of(r, struct looking, round);
	json_int_t heat = json_integer_value(json_object_get(lk->said, "heat"));

	if (lk->said)
		request_answer(lk->rq, 200,
		               page_json(lk->gpn, lk->home,
		                         json_string_value(json_object_get(
						 lk->said, "state")),
		                         json_incref(json_object_get(
						 lk->said, "holders")),
		                         heat > 0 ? (uint64_t)heat : 0));
	else
		request_problem(lk->rq, 503,
		                "node %u, home of page %llu, does not answer; "
		                "try again",
		                lk->home, (unsigned long long)lk->gpn);
	json_decref(lk->said);
	free(lk);
}

static void ask_page(struct coord *c, struct request *rq,
                     const struct space *sp, uint64_t gpn, struct node *home)
{
	struct looking *lk = calloc(1, sizeof(*lk));
	json_t *doc = json_pack("{s:s, s:I, s:I}", "op", "page", "space",
	                        (json_int_t)sp->id, "gpn", (json_int_t)gpn);

	if (!lk || !doc) {
		free(lk);
		json_decref(doc);
		request_problem(rq, 503, "out of memory; try again");
		return;
	}
	*lk = (struct looking){ .rq = rq, .gpn = gpn, .home = home->id };
	lk->round.answer = page_answer;
	lk->round.done = page_done;
	round_start(&lk->round, c);
	if (home->link)
		round_ask(&lk->round, home, MSG_QUERY, sp->id, doc);
	json_decref(doc);
	round_run(&lk->round, NODES_ANSWER_NS);
}

void api_page_show(struct coord *c, struct request *rq, const char *name,
                   const char *gpn_text)
{
	struct space *sp = api_space(c, rq, name);
	struct extent_info e;
	struct node *n;
	uint64_t gpn;

	if (!sp)
		return;
	if (!api_number(gpn_text, UINT64_MAX / 2, &gpn)) {
		request_problem(rq, 400, "'%.64s' is not the number of a page",
		                gpn_text);
		return;
	}
	if (gpn >= sp->size_bytes / PAGE_BYTES) {
		request_problem(
			rq, 404, "space '%s' has pages 0 to %llu only",
			sp->name,
			(unsigned long long)(sp->size_bytes / PAGE_BYTES - 1));
		return;
	}
	e = space_extent(sp, (uint32_t)(gpn / EXTENT_PAGES));
	n = members_at(&c->members, e.home);
	if (n && node_lives(n))
		ask_page(c, rq, sp, gpn, n);
	else
		request_answer(rq, 200,
		               page_json(gpn, e.home,
		                         !e.opened           ? "untouched" :
		                         e.home == HOME_LOST ? "lost" :
		                                               "missing",
		                         json_array(), 0));
}
