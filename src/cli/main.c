/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memspan - the tool people type: memspan COMMAND ...  Manual: memspan(1).
 */

#include <curl/curl.h>
#include <signal.h>
#include <string.h>

#include "cli/cli.h"

/* In the order in which someone meets them. */
static const struct command commands[] = {
	{ "doctor", cmd_doctor, "can this machine run memspan?" },
	{ "up", cmd_up, "start a cluster on this machine" },
	{ "status", cmd_status, "health, nodes, memory, faults, spaces" },
	{ "validate", cmd_validate, "check a running cluster end to end" },
	{ "space", cmd_space, "create, list, show or delete spaces" },
	{ "map", cmd_map, "who is home of a space's pages, who holds them" },
	{ "bench", cmd_bench, "measure page faults against their floor" },
	{ "run", cmd_run, "run a program with the memory of spaces" },
	{ "vm", cmd_vm, "run a guest of QEMU whose memory is a space" },
	{ "down", cmd_down, "stop the cluster that 'up' started" },
};

static const char usage_head[] =
	"usage: memspan COMMAND [OPTION]... [ARGUMENT]...\n"
	"       memspan help COMMAND\n"
	"       memspan --version\n"
	"\n"
	"One memory across many Linux machines.\n"
	"\n";

static const char usage_foot[] =
	"\n"
	"Every command takes --help, --run-dir DIR and --coordinator URL.\n"
	"Exit status: 0 done, 1 failed, 2 used wrongly.\n";

static void print_usage(FILE *f)
{
	fputs(usage_head, f);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		fprintf(f, "  %-9s  %s\n", commands[i].name, commands[i].help);
	fprintf(f, "  %-9s  %s\n", "help", "show what a command takes");
	fputs(usage_foot, f);
}

static int unknown(const char *word)
{
	const char *meant = cli_suggest(word, commands, ARRAY_SIZE(commands));

	fprintf(stderr, "memspan: there is no command '%s'", word);
	if (meant)
		fprintf(stderr, "; did you mean '%s'?", meant);
	fputs("\nmore: memspan help\n", stderr);
	return CLI_USAGE;
}

static int run(const char *word, int argc, char **argv)
{
	char title[32];

	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (strcmp(word, commands[i].name) != 0)
			continue;
		/* getopt_long() puts this in front of what it says. */
		snprintf(title, sizeof(title), "memspan %s", word);
		argv[0] = title;
		return commands[i].run(argc, argv);
	}
	return unknown(word);
}

/* memspan help [COMMAND] */
static int help(int argc, char **argv)
{
	char option[] = "--help";
	char *ask[] = { NULL, option, NULL };

	if (argc > 2) {
		fprintf(stderr,
		        "memspan help: unexpected argument '%s'\n"
		        "usage: memspan help [COMMAND]\n",
		        argv[2]);
		return CLI_USAGE;
	}
	if (argc == 2 && argv[1][0] != '-' && strcmp(argv[1], "help") != 0)
		return run(argv[1], 2, ask);
	print_usage(stdout);
	return fflush(stdout) == 0 ? CLI_OK : CLI_FAILED;
}

int main(int argc, char **argv)
{
	int status;

	/* A pipe that closes shows as a failed write, not as a death. */
	signal(SIGPIPE, SIG_IGN);
	if (argc < 2) {
		print_usage(stderr);
		return CLI_USAGE;
	}
	if (strcmp(argv[1], "--version") == 0) {
		puts("memspan " MEMSPAN_VERSION);
		return fflush(stdout) == 0 ? CLI_OK : CLI_FAILED;
	}
	if (strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0 ||
	    strcmp(argv[1], "-h") == 0)
		return help(argc - 1, argv + 1);
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != 0) {
		fputs("memspan: libcurl does not start; is it damaged?\n",
		      stderr);
		return CLI_FAILED;
	}
	status = run(argv[1], argc - 1, argv + 1);
	curl_global_cleanup();
	return status;
}
