/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a guest is told of where its memory lives, and the command line that
 * tells it.
 */

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "cli/http.h"
#include "cli/vm_line.h"
#include "cli/vm_numa.h"

#define MIB ((uint64_t)1 << 20)

static struct vm_nodes nodes;

/* The guest's nodes as "MiB@node ...", '*' behind the processors' one. */
static const char *told(const char *bind, uint64_t ram_mib, unsigned here)
{
	static char result[1024];
	AUTO(json_decref)
	json_t *json = json_loads(bind, JSON_DECODE_ANY, NULL);
	size_t at = 0;

	assert_non_null(json);
	if (vm_numa_read(json, ram_mib * MIB, here, &nodes, NULL) < 0)
		return "EINVAL";
	for (size_t i = 0; i < nodes.n; i++)
		at += (size_t)snprintf(result + at, sizeof(result) - at,
		                       "%s%" PRIu64 "@%u%s", i > 0 ? " " : "",
		                       nodes.v[i].bytes / MIB, nodes.v[i].node,
		                       i == nodes.cpus ? "*" : "");
	return result;
}

/* A binding as the coordinator shows it; FIRST-LAST are in MiB here. */
static const char *ranges(const char *text)
{
	static char json[1024];
	uint64_t first, last;
	unsigned node;
	size_t at = 0;
	int n;

	at += (size_t)snprintf(json, sizeof(json), "[");
	while (sscanf(text, "%" SCNu64 "-%" SCNu64 "=%u%n", &first, &last,
	              &node, &n) == 3) {
		at += (size_t)snprintf(json + at, sizeof(json) - at,
		                       "%s{\"first_bytes\":%" PRIu64
		                       ",\"last_bytes\":%" PRIu64
		                       ",\"node\":%u}",
		                       at > 1 ? "," : "", first * MIB,
		                       last * MIB, node);
		text += n;
	}
	snprintf(json + at, sizeof(json) - at, "]");
	return json;
}

static void what_is_unbound_or_interleaved_is_one_node(void **state)
{
	(void)state;
	assert_string_equal(told("null", 64, 3), "64@3*");
	assert_string_equal(told("\"interleave\"", 64, 3), "64@3*");
	assert_string_equal(told("[]", 64, 3), "64@3*");
}

static void each_run_is_a_node_of_the_guest(void **state)
{
	(void)state;
	assert_string_equal(told(ranges("0-32=0 32-64=1"), 64, 0),
	                    "32@0* 32@1");
	assert_string_equal(told(ranges("0-32=0 32-64=1"), 64, 1),
	                    "32@0 32@1*");
	assert_string_equal(told(ranges("0-8=2 8-16=1 16-64=2"), 64, 1),
	                    "8@2 8@1* 48@2");
	/* Neighbours of one node are one run. */
	assert_string_equal(told(ranges("0-8=2 8-16=2 16-64=1"), 64, 1),
	                    "16@2 48@1*");
}

static void what_is_bound_nowhere_counts_as_here(void **state)
{
	(void)state;
	assert_string_equal(told(ranges("0-8=1"), 64, 0), "8@1 56@0*");
	assert_string_equal(told(ranges("16-32=1"), 64, 0), "16@0* 16@1 32@0");
}

static void processors_may_be_without_memory(void **state)
{
	(void)state;
	assert_string_equal(told(ranges("0-64=1"), 64, 0), "64@1 0@0*");
	assert_false(vm_numa_has_hmat(&nodes));
	assert_string_equal(told(ranges("0-64=0"), 64, 0), "64@0*");
	assert_false(vm_numa_has_hmat(&nodes));
	assert_string_equal(told(ranges("0-32=0"), 64, 0), "64@0*");
	assert_string_equal(told(ranges("0-32=1"), 64, 0), "32@1 32@0*");
	assert_true(vm_numa_has_hmat(&nodes));
}

static void a_guest_smaller_than_its_space_sees_its_part(void **state)
{
	(void)state;
	assert_string_equal(told(ranges("0-32=0 32-64=1"), 48, 0),
	                    "32@0* 16@1");
	assert_string_equal(told(ranges("0-32=0 32-64=1"), 32, 0), "32@0*");
}

static void too_many_or_overlapping_runs_are_refused(void **state)
{
	AUTO(json_decref) json_t *list = json_array();

	(void)state;
	assert_string_equal(told(ranges("0-32=0 16-64=1"), 64, 0), "EINVAL");
	for (unsigned i = 0; i < VM_NODES_MAX; i++)
		assert_int_equal(json_array_append_new(
					 list,
					 json_pack("{s:i, s:i, s:i}",
		                                   "first_bytes",
		                                   (int)(i * MIB), "last_bytes",
		                                   (int)((i + 1) * MIB), "node",
		                                   (int)(i % 2))),
		                 0);
	assert_int_equal(vm_numa_read(list, VM_NODES_MAX * MIB, 0, &nodes,
	                              NULL),
	                 -EINVAL);
	assert_int_equal(vm_numa_read(list, (VM_NODES_MAX - 1) * MIB, 0, &nodes,
	                              NULL),
	                 0);
	assert_int_equal(nodes.n, VM_NODES_MAX - 1);
}

static void machines_that_can_divide_a_backend(void **state)
{
	const char *machine = "untouched";

	(void)state;
	assert_int_equal(vm_numa_machine("", &machine, NULL), 0);
	assert_string_equal(machine, "pc-i440fx-5.0");
	assert_int_equal(vm_numa_machine("q35", &machine, NULL), 0);
	assert_string_equal(machine, "pc-q35-5.0");
	assert_int_equal(vm_numa_machine("pc-q35-4.2", &machine, NULL), 0);
	assert_null(machine);
	assert_int_equal(vm_numa_machine("pc-i440fx-5.0", &machine, NULL), 0);
	machine = "untouched";
	assert_int_equal(vm_numa_machine("pc-q35-5.1", &machine, NULL),
	                 -EINVAL);
	assert_int_equal(vm_numa_machine("pc-q35-7.2", &machine, NULL),
	                 -EINVAL);
	assert_int_equal(vm_numa_machine("pc-q35-5.0x", &machine, NULL),
	                 -EINVAL);
	assert_int_equal(vm_numa_machine("microvm", &machine, NULL), -EINVAL);
	assert_string_equal(machine, "untouched");
}

/* The line of a plan, its arguments divided by blanks and quoted. */
static char *line(const struct vm_plan *plan, int n, char *const *v)
{
	AUTO(vm_line_free) char **argv = vm_line_new(plan, n, v);
	char *text = NULL;
	size_t bytes;
	FILE *f = open_memstream(&text, &bytes);

	assert_non_null(argv);
	for (size_t i = 0; argv[i]; i++) {
		if (i > 0)
			fputc(' ', f);
		vm_line_quote(argv[i], f);
	}
	fclose(f);
	return text;
}

static void the_line_has_one_backend_on_the_space(void **state)
{
	char a[] = "-append", b[] = "it's quiet";
	char *const v[] = { a, b };
	const struct vm_plan plan = { .qemu = "qemu", .ram_bytes = 64 * MIB };
	AUTO_FREE char *text = line(&plan, 2, v);

	(void)state;
	assert_string_equal(text,
	                    "qemu -no-user-config -object memory-backend-file,"
	                    "id=memspan,mem-path=/proc/self/fd/200,share=on,"
	                    "size=67108864,prealloc=off,merge=off,dump=off "
	                    "-machine memory-backend=memspan -m 67108864B "
	                    "-append 'it'\\''s quiet'");
}

static void the_users_own_size_is_not_said_twice(void **state)
{
	const struct vm_plan plan = { .qemu = "qemu",
		                      .ram_bytes = 64 * MIB,
		                      .says_memory = true };
	AUTO_FREE char *text = line(&plan, 0, NULL);

	(void)state;
	assert_null(strstr(text, " -m "));
}

static void the_line_tells_nodes_distances_and_speeds(void **state)
{
	struct vm_plan plan = { .qemu = "qemu",
		                .ram_bytes = 64 * MIB,
		                .cpus = 4,
		                .nodes = &nodes,
		                .machine = "pc-q35-5.0" };
	AUTO_FREE char *text = NULL;

	(void)state;
	told(ranges("0-32=0 32-48=1"), 64, 0);
	text = line(&plan, 0, NULL);
	assert_non_null(strstr(text, "memory-backend=memspan,hmat=on"));
	assert_non_null(strstr(text, "-numa node,nodeid=0,mem=33554432B,"
	                             "cpus=0-3,initiator=0 "));
	assert_non_null(
		strstr(text, "-numa node,nodeid=1,mem=16777216B,initiator=0 "));
	assert_non_null(strstr(text, "-numa dist,src=0,dst=1,val=40 "));
	/* The third is the rest, on the first one's node. */
	assert_non_null(strstr(text, "-numa dist,src=2,dst=0,val=11 "));
	assert_non_null(strstr(text, "initiator=0,target=1,hierarchy=memory,"
	                             "data-type=access-latency,"
	                             "latency=60000 "));
	assert_non_null(strstr(text, "target=0,hierarchy=memory,"
	                             "data-type=access-bandwidth,"
	                             "bandwidth=10G "));
	assert_string_equal(text + strlen(text) - 19, "-machine pc-q35-5.0");
}

static void speeds_are_left_out_where_linux_drops_them(void **state)
{
	struct vm_plan plan = { .qemu = "qemu",
		                .ram_bytes = 64 * MIB,
		                .cpus = 1,
		                .nodes = &nodes };
	AUTO_FREE char *text = NULL;

	(void)state;
	told(ranges("0-64=1"), 64, 0);
	text = line(&plan, 0, NULL);
	assert_null(strstr(text, "hmat"));
	assert_null(strstr(text, "initiator"));
	assert_non_null(strstr(text, "-numa node,nodeid=1,mem=0B,cpus=0-0 "));
}

static void the_largest_plan_has_room(void **state)
{
	struct vm_plan plan = { .qemu = "qemu", .cpus = 1, .nodes = &nodes };
	AUTO_FREE char *text = NULL;

	(void)state;
	nodes.n = VM_NODES_MAX;
	nodes.cpus = 0;
	for (size_t i = 0; i < nodes.n; i++)
		nodes.v[i] = (struct vm_node){ MIB, (unsigned)i };
	text = line(&plan, 0, NULL);
	assert_non_null(strstr(text, "-numa dist,src=64,dst=63,val=40"));
}

static void a_shell_reads_back_what_was_quoted(void **state)
{
	static const char *const words[] = { "",   "a b",           "a'b", "$x",
		                             "a*", "plain-1.2,x=y", "\"" };
	char got[64];
	FILE *f;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		char *text = NULL, command[128];
		size_t bytes;

		f = open_memstream(&text, &bytes);
		vm_line_quote(words[i], f);
		fclose(f);
		snprintf(command, sizeof(command), "printf '<%%s>' %s", text);
		free(text);
		f = popen(command, "re");
		assert_non_null(f);
		got[fread(got, 1, sizeof(got) - 1, f)] = '\0';
		assert_int_equal(pclose(f), 0);
		got[strlen(got) - 1] = '\0';
		assert_string_equal(got + 1, words[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_unbound_or_interleaved_is_one_node),
		cmocka_unit_test(each_run_is_a_node_of_the_guest),
		cmocka_unit_test(what_is_bound_nowhere_counts_as_here),
		cmocka_unit_test(processors_may_be_without_memory),
		cmocka_unit_test(a_guest_smaller_than_its_space_sees_its_part),
		cmocka_unit_test(too_many_or_overlapping_runs_are_refused),
		cmocka_unit_test(machines_that_can_divide_a_backend),
		cmocka_unit_test(the_line_has_one_backend_on_the_space),
		cmocka_unit_test(the_users_own_size_is_not_said_twice),
		cmocka_unit_test(the_line_tells_nodes_distances_and_speeds),
		cmocka_unit_test(speeds_are_left_out_where_linux_drops_them),
		cmocka_unit_test(the_largest_plan_has_room),
		cmocka_unit_test(a_shell_reads_back_what_was_quoted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
