/* SPDX-License-Identifier: Apache-2.0 */

#include "cli/validate.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "cli/space.h"
#include "cli/witness.h"

#define PATIENCE_MS    5000u  /* for one page: it takes microseconds */
#define DELETE_MS      10000u /* nodes let go of clients in the end */
#define DELETE_REST_MS 50

struct stand { /* one member and its witness */
	const struct member_seen *member;
	struct witness witness;
	gpn_t page;  /* that it writes */
	bool barred; /* no witness: `why` says why */
	bool failed;
	struct errmsg why;
	unsigned reads; /* of its page, by others, that were right */
};

/* --- the space ----------------------------------------------------------- */

static int make_space(struct validate *v, const char *name, struct errmsg *em)
{
	AUTO(json_decref)
	json_t *body =
		json_pack("{s:s, s:I, s:i, s:b}", "name", name, "size_bytes",
	                  (json_int_t)(v->n * EXTENT_BYTES), "replicas", 1,
	                  /* A full cluster must be checked too. */
	                  "overcommit", true);
	struct http_answer a;
	int r;

	if (!body)
		return errmsg_say(em, -1, "out of memory");
	r = http_ask(v->http, "POST", "/v1/spaces", body, &a, em);
	if (r >= 0)
		json_decref(a.body);
	return r;
}

/* Returns 0, or the last refusal. */
static int delete_space(struct validate *v, const char *name, struct errmsg *em)
{
	nsec_t end = cli_now() + DELETE_MS * NSEC_PER_MSEC;
	char path[96];

	snprintf(path, sizeof(path), "/v1/spaces/%s", name);
	for (;;) {
		struct http_answer a;
		int r = http_ask(v->http, "DELETE", path, NULL, &a, em);
		if (r >= 0)
			json_decref(a.body);
		/* 409: a node has not noticed yet that its client is gone. */
		if (r != HTTP_REFUSED || a.status != 409 || cli_now() >= end)
			return r;
		(void)poll(NULL, 0, DELETE_REST_MS);
	}
}

/* --- witnesses ----------------------------------------------------------- */

static void stand_failed(struct stand *s, const char *what,
                         const struct errmsg *em)
{
	if (s->failed)
		return; /* the first thing that went wrong tells most */
	s->failed = true;
	(void)errmsg_say(&s->why, 0, "%s: %s", what, em->text);
}

static void call_witness(struct validate *v, struct stand *s, const char *space)
{
	char path[RUN_PATH_BYTES];
	struct errmsg em;

	if (!s->member->here) {
		s->barred = true;
		(void)errmsg_say(
			&s->why, 0,
			"its process is not one of %s: run validate on its "
			"host, with its --run-dir",
			v->cluster.run_dir);
		return;
	}
	run_path_node(v->cluster.run_dir, (unsigned)s->member->id, "sock",
	              path);
	switch (witness_start(&s->witness, path, space, PATIENCE_MS, &em)) {
	case WITNESS_OK:
		break;
	case WITNESS_BARRED:
		s->barred = true;
		s->why = em;
		break;
	case WITNESS_FAILED:
		stand_failed(s, "a client cannot attach", &em);
		break;
	}
}

/* `s` writes its page, then all others read it. */
static void pass_page(const struct validate *v, struct stand *stand,
                      struct stand *s, uint64_t seed)
{
	struct errmsg em;

	if (witness_write(&s->witness, s->page, seed, PATIENCE_MS, &em) !=
	    WITNESS_OK) {
		stand_failed(s, "it cannot be written", &em);
		return;
	}
	for (size_t i = 0; i < v->n && !validate_stop; i++) {
		struct stand *reader = &stand[i];
		char what[64];

		/* Alone, it reads what it wrote: that much can be checked. */
		if (reader->witness.pid == 0 || (reader == s && v->n > 1))
			continue;
		if (witness_read(&reader->witness, s->page, seed, PATIENCE_MS,
		                 &em) == WITNESS_OK) {
			s->reads++;
			continue;
		}
		snprintf(what, sizeof(what),
		         "on node %" PRIu64 " it reads wrong",
		         reader->member->id);
		stand_failed(s, what, &em);
	}
}

/* --- what came of it ----------------------------------------------------- */

static void report(struct validate *v, const struct stand *s, size_t barred)
{
	size_t readers = v->n > 1 ? v->n - 1 - barred : 1;
	char detail[sizeof(s->why.text)];
	struct check *k;

	if (s->barred || s->failed)
		strcpy(detail, s->why.text);
	else if (v->n == 1)
		snprintf(detail, sizeof(detail),
		         "written and read; there is no other node");
	else
		snprintf(detail, sizeof(detail),
		         "written here, read on %u of %zu other nodes%s",
		         s->reads, v->n - 1,
		         barred > 0 ? "; the rest are skipped" : "");
	k = validate_add(v, "pages", s->member, detail);
	if (s->barred) {
		check_skip(k);
		return;
	}
	check_measure(k, s->reads, (double)readers, "nodes");
	if (validate_stop)
		check_fail(k, "interrupted; run it again");
	else if (s->failed || s->reads < readers)
		check_fail(k, "see the logs of the nodes named");
}

void validate_pages(struct validate *v)
{
	struct stand *stand = calloc(v->n, sizeof(*stand));
	uint64_t seed = cli_now();
	struct errmsg em = { "out of memory" };
	size_t barred = 0;
	char space[64];

	snprintf(space, sizeof(space), "validate-%d", (int)getpid());
	if (!stand || make_space(v, space, &em) != HTTP_OK) {
		check_fail(check_add(&v->checks, "pages", "no space to try: %s",
		                     em.text),
		           "see 'memspan status'");
		free(stand);
		return;
	}
	for (size_t i = 0; i < v->n; i++) {
		stand[i] = (struct stand){
			.member = &v->member[i],
			.witness = WITNESS_NONE,
			.page = i * EXTENT_PAGES,
		};
		call_witness(v, &stand[i], space);
		barred += stand[i].barred;
	}
	for (size_t i = 0; i < v->n && !validate_stop; i++)
		if (stand[i].witness.pid != 0)
			pass_page(v, stand, &stand[i], seed);
	for (size_t i = 0; i < v->n; i++)
		witness_stop(&stand[i].witness);
	for (size_t i = 0; i < v->n; i++)
		report(v, &stand[i], barred);
	if (delete_space(v, space, &em) != HTTP_OK)
		check_fail(check_add(&v->checks, "space",
		                     "%s is left behind: %s", space, em.text),
		           "memspan space delete it later");
	free(stand);
}
