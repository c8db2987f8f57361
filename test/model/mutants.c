/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mutants: would the model find these bugs?
 *
 *	mutants DIR
 *
 * Each number is one line of the core (or of the model's shell) that is wrong
 * on purpose in a build with -DMUTANT=number (core/mutant.h).  Runs the search
 * of each, DIR/model_mutant_NUMBER, and prints which property was violated
 * after how many states.  One that is not found fails the test.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

static const struct mutant {
	unsigned number;
	const char *setup; /* of search.c: the smallest that finds it */
	const char *bug;
} mutants[] = {
	{ 1, "three", "a writer is let in before the readers gave up" },
	{ 2, "three", "prefetch is granted from a page in M" },
	{ 3, "three", "home does not wait for every acknowledgement" },
	{ 4, "three", "GRANT_S makes a writer" },
	{ 5, "three", "an upgrade is applied after a crossing INVAL" },
	{ 6, "three", "residency is ignored" },
	{ 7, "three", "a page is sent without being write-protected" },
	{ 8, "three", "RECALL_S leaves the writer in M" },
	{ 9, "three", "the acknowledgement goes before the punch" },
	{ 10, "three", "the hole is punched before the copy" },
	{ 11, "three-death", "the dead are awaited" },
	{ 12, "three-death", "a page without holders is zeros, not lost" },
	{ 13, "three", "who waited for a prefetch is not touched again" },
	{ 14, "three", "who lost its copy meanwhile is upgraded" },
	{ 15, "three", "readers that wait are forgotten" },
	{ 16, "three", "home forgets that it kept a copy" },
	{ 17, "three-death", "nobody says FORGET for a dead asker" },
	{ 18, "three", "a discard does not wait for the holders" },
	{ 19, "three-death", "messages of a dead incarnation are applied" },
	{ 20, "three", "a grant is applied and FORGET is not sent" },
	{ 21, "four-trim", "sharers that find no room are forgotten" },
	{ 22, "three", "a recall that was put off is a second one" },
	{ 23, "three", "home grants reads without having a copy" },
	{ 24, "three", "a GET_X that crosses an INVAL is a lie" },
	{ 25, "three-death", "bytes for a dead asker are dropped" },
	{ 26, "three-evict", "home does not count who is left" },
	{ 27, "three-evict-death", "a copy on its way counts" },
	{ 28, "three-evict", "a busy page may go" },
	{ 29, "three-replicas", "a writer is granted what the last gives up" },
	{ 30, "three-evict", "a touch brings back what home may have let go" },
	{ 31, "three-evict", "a staged page stays writable after RECALL_S" },
	{ 32, "three-evict", "a page is staged without being write-protected" },
};

/* Run it; true if it says that something is violated. */
static bool found(const char *dir, const struct mutant *m)
{
	char command[4096], line[256];
	bool ret = false;
	FILE *out;

	snprintf(command, sizeof(command), "'%s/model_mutant_%u' %s 2>&1", dir,
	         m->number, m->setup);
	out = popen(command, "re");
	if (out == NULL) {
		perror("mutants: popen");
		exit(2);
	}
	while (fgets(line, sizeof(line), out) != NULL) {
		const char *after = strstr(line, ": violated after ");

		if (after == NULL || ret)
			continue;
		ret = true;
		printf("%2u  %-48s  %s", m->number, m->bug,
		       after + strlen(": violated after "));
		fflush(stdout);
	}
	pclose(out);
	if (!ret)
		printf("%2u  %-48s  NOT FOUND\n", m->number, m->bug);
	return ret;
}

int main(int argc, char **argv)
{
	unsigned missed = 0;

	if (argc != 2) {
		fprintf(stderr, "usage: mutants DIR\n");
		return 2;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(mutants); i++)
		missed += !found(argv[1], &mutants[i]);
	printf("%zu mutants, %u not found\n", ARRAY_SIZE(mutants), missed);
	return missed > 0;
}
