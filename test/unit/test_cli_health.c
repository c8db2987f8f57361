/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a coordinator's answer gives reason to say: one test for each code, each
 * with the answer that just has it and, in a_sound_cluster, one that has none.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "cli/health.h"
#include "cli/http.h"

/* Judge a cluster; `nodes` and `spaces` are JSON lists with ' for ". */
static struct health_report judge(const char *nodes, const char *spaces)
{
	struct health_report r = { .worst = HEALTH_OK };
	AUTO(json_decref) json_t *cluster = NULL;
	char text[2000];

	snprintf(text, sizeof(text), "{'lease_ms':2000,'nodes':%s,'spaces':%s}",
	         nodes, spaces);
	for (char *p = text; *p != '\0'; p++)
		if (*p == '\'')
			*p = '"';
	cluster = json_loads(text, 0, NULL);
	assert_non_null(cluster);
	health_judge(&r, cluster);
	return r;
}

/* It has just one reason, this one. */
static void assert_reason(const char *nodes, const char *spaces,
                          enum health level, const char *code, const char *text)
{
	struct health_report r = judge(nodes, spaces);

	assert_int_equal(r.n, 1);
	assert_string_equal(r.v[0].code, code);
	assert_non_null(strstr(r.v[0].text, text));
	assert_int_equal(r.worst, level);
}

#define MEMORY "'memory':{'limit_bytes':100,'resident_bytes':100}"
#define ALIVE(id, peer, connected)                          \
	"{'id':" id ",'state':'alive','lease_age_ms':2000," \
	"'peers':[{'id':" peer ",'connected':" connected "}]," MEMORY "}"

static void a_sound_cluster_has_no_reason(void **state)
{
	struct health_report r = judge(
		"[" ALIVE("0", "1", "true") "," ALIVE("1", "0", "true") "]",
		"[{'name':'a','pages':{'lost':0,'written':7}}]");

	(void)state;
	assert_int_equal(r.n, 0);
	assert_string_equal(health_name(r.worst), "HEALTH_OK");
}

static void nobody_lends_memory(void **state)
{
	(void)state;
	assert_reason("[]", "[]", HEALTH_WARN, "NO_NODES", "no node");
}

static void states_of_nodes_are_named(void **state)
{
	(void)state;
	assert_reason("[{'id':7,'state':'dead'}]", "[]", HEALTH_ERR,
	              "NODE_DEAD", "1 of 1 nodes");
	assert_reason("[{'id':7,'state':'fenced'}]", "[]", HEALTH_ERR,
	              "NODE_FENCED", "node 7");
	assert_reason("[{'id':7,'state':'joining'}]", "[]", HEALTH_WARN,
	              "NODE_JOINING", "node 7");
}

static void who_left_in_order_is_no_trouble(void **state)
{
	struct health_report r = judge(
		"[{'id':7,'state':'drained'}," ALIVE("0", "7", "false") "]",
		"[]");

	(void)state;
	assert_int_equal(r.n, 0);
}

static void a_lease_is_late_when_it_is_over(void **state)
{
	(void)state;
	assert_reason("[{'id':0,'state':'alive','lease_age_ms':2001}]", "[]",
	              HEALTH_WARN, "LEASE_LATE", "node 0");
}

static void peers_are_apart_if_one_side_says_so(void **state)
{
	(void)state;
	assert_reason("[" ALIVE("0", "1", "false") "," ALIVE("1", "0",
	                                                     "true") "]",
	              "[]", HEALTH_WARN, "PEERS_APART", "1 of 2 nodes");
	assert_reason("[" ALIVE("0", "1", "true") "," ALIVE("1", "9",
	                                                    "true") "]",
	              "[]", HEALTH_WARN, "PEERS_APART", "node 1");
}

static void memory_is_over_its_limit(void **state)
{
	(void)state;
	assert_reason("[{'id':0,'state':'alive','memory':{'limit_bytes':1,"
	              "'resident_bytes':2}}]",
	              "[]", HEALTH_WARN, "MEMORY_OVER_LIMIT", "node 0");
}

#define FULL(figures)                                         \
	"[{'id':4,'state':'alive','memory':{'limit_bytes':2," \
	"'resident_bytes':2," figures "}},{'id':5,'state':'drained'}]"

static void who_waits_for_memory_is_named(void **state)
{
	(void)state;
	assert_reason(FULL("'waiting':1"), "[]", HEALTH_WARN, "MEMORY_FULL",
	              "1 of 2 nodes full");
	assert_reason(FULL("'waiting':1"), "[]", HEALTH_WARN, "MEMORY_FULL",
	              "node 4; add a node");
	/* Nobody waits, but soon somebody will: a refusal is a moment ago. */
	assert_reason(FULL("'waiting':0,'refused':1,'refused_age_ms':10000"),
	              "[]", HEALTH_WARN, "MEMORY_FULL", "node 4");
}

static void what_was_refused_long_ago_is_over(void **state)
{
	struct health_report r = judge(
		FULL("'waiting':0,'refused':9,'refused_age_ms':10001"), "[]");

	(void)state;
	assert_int_equal(r.n, 0);
	r = judge(FULL("'waiting':0,'refused':9,'refused_age_ms':null"), "[]");
	assert_int_equal(r.n, 0);
	r = judge("[{'id':4,'state':'drained','memory':{'waiting':1}}]", "[]");
	assert_int_equal(r.n, 0);
}

#define HOLDS(id, state_, bytes)                                           \
	"{'id':" id ",'state':'" state_ "','memory':{'limit_bytes':" bytes \
	",'resident_bytes':0,'capacity_bytes':" bytes "}}"

static void memory_that_died_is_to_be_added(void **state)
{
	const char *spaces = "[{'name':'a','size_bytes':1048576,'replicas':2},"
			     "{'name':'b','size_bytes':4096,'replicas':1},"
			     "{'name':'c','size_bytes':9999999,'replicas':8,"
			     "'overcommit':true}]";
	struct health_report r;

	(void)state;
	/* To the byte it is enough, and a fenced node may come back. */
	r = judge("[" HOLDS("0", "alive", "2101248") "]", spaces);
	assert_int_equal(r.n, 0);
	assert_reason("[" HOLDS("0", "alive", "2101247") "]", spaces,
	              HEALTH_ERR, "CAPACITY_SHORT", "add at least 1 MiB");
	r = judge("[" HOLDS("0", "fenced", "2101248") "]", spaces);
	assert_int_equal(r.n, 1);
	assert_string_equal(r.v[0].code, "NODE_FENCED");
	r = judge("[" HOLDS("0", "dead", "2101248") "," HOLDS("1", "alive",
	                                                      "4096") "]",
	          spaces);
	assert_int_equal(r.n, 2);
	assert_string_equal(r.v[0].code, "NODE_DEAD");
	assert_string_equal(r.v[1].code, "CAPACITY_SHORT");
	assert_non_null(strstr(r.v[1].text, "can hold 4 KiB"));
	assert_non_null(strstr(r.v[1].text, "need 2.0 MiB"));
	assert_int_equal(r.worst, HEALTH_ERR);
}

static void a_coordinator_that_knows_no_capacity_is_not_judged(void **state)
{
	struct health_report r = judge(
		"[" HOLDS(
			"0", "alive",
			"1") ","
			     "{'id':1,'state':'alive','memory':{'limit_bytes':7}}]",
		"[{'name':'a','size_bytes':4096,'replicas':1}]");

	(void)state;
	for (unsigned i = 0; i < r.n; i++)
		assert_string_not_equal(r.v[i].code, "CAPACITY_SHORT");
}

static void pages_are_counted_over_all_spaces(void **state)
{
	const char *one = "[" ALIVE("0", "0", "true") "]";

	(void)state;
	assert_reason(one, "[{'name':'a','pages':{'lost':3}}]", HEALTH_ERR,
	              "PAGES_LOST", "3 pages of space a");
	assert_reason(one,
	              "[{'name':'a','pages':{'missing':3}},"
	              "{'name':'b','pages':{'missing':4}}]",
	              HEALTH_WARN, "PAGES_MISSING", "7 pages of 2 spaces");
	assert_reason(one, "[{'name':'a','pages':{'under_replicated':1}}]",
	              HEALTH_WARN, "UNDER_REPLICATED", "1 pages");
}

static void many_nodes_fit_in_one_reason(void **state)
{
	struct health_report r = { .worst = HEALTH_OK };
	AUTO(json_decref) json_t *cluster = json_object();
	json_t *nodes = json_array();

	(void)state;
	for (int i = 0; i < 1024; i++)
		json_array_append_new(nodes, json_pack("{s:i, s:s}", "id", i,
		                                       "state", "dead"));
	json_object_set_new(cluster, "nodes", nodes);
	health_judge(&r, cluster);
	assert_int_equal(r.n, 1);
	assert_non_null(strstr(r.v[0].text, "1024 of 1024 nodes"));
}

static void an_answer_of_the_wrong_shape_is_survived(void **state)
{
	struct health_report r = judge("[7,null,{'state':3,'peers':9}]",
	                               "[1,{'pages':{'lost':'x'}}]");

	(void)state;
	assert_int_equal(r.worst, HEALTH_OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_sound_cluster_has_no_reason),
		cmocka_unit_test(nobody_lends_memory),
		cmocka_unit_test(states_of_nodes_are_named),
		cmocka_unit_test(who_left_in_order_is_no_trouble),
		cmocka_unit_test(a_lease_is_late_when_it_is_over),
		cmocka_unit_test(peers_are_apart_if_one_side_says_so),
		cmocka_unit_test(memory_is_over_its_limit),
		cmocka_unit_test(who_waits_for_memory_is_named),
		cmocka_unit_test(what_was_refused_long_ago_is_over),
		cmocka_unit_test(memory_that_died_is_to_be_added),
		cmocka_unit_test(
			a_coordinator_that_knows_no_capacity_is_not_judged),
		cmocka_unit_test(pages_are_counted_over_all_spaces),
		cmocka_unit_test(many_nodes_fit_in_one_reason),
		cmocka_unit_test(an_answer_of_the_wrong_shape_is_survived),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
