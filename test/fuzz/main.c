/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fuzz target as a plain test: its corpus, then fixed mutations of that.
 *
 * usage: fuzz_NAME CORPUS-DIRECTORY|FILE ...
 *
 * libFuzzer needs clang and time; this needs neither, and so runs with each
 * compiler and sanitizer.  The mutations come from a fixed seed: a failure is
 * repeated by running the test again.  Prints TAP, one test an argument.
 */

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/prng.h"

#define INPUT_MAX     65536u
#define MUTATIONS     2000u /* of each input */
#define CORPUS_MAX    4096u /* files; more would make the test slow */
#define EDITS_MAX     8u
#define RANDOM_INPUTS 2000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/*
 * The target sees a buffer of exactly its size, so that a read beyond the end
 * is one that ASan notices.
 */
static int try_input(const uint8_t *data, size_t n)
{
	AUTO_FREE uint8_t *exact = malloc(n > 0 ? n : 1);

	if (!exact)
		return -ENOMEM;
	memcpy(exact, data, n);
	(void)LLVMFuzzerTestOneInput(exact, n);
	return 0;
}

/* One small edit: flip a bit, set a byte, cut the end off, double a part. */
static size_t edit(struct prng *r, uint8_t *data, size_t n)
{
	static const uint8_t odd[] = { 0, 1, 0x7f, 0x80, 0xff };
	size_t at = n > 0 ? (size_t)prng_below(r, n) : 0;
	size_t part;

	switch (n > 0 ? prng_below(r, 5) : 3) {
	case 0:
		data[at] ^= (uint8_t)(1u << prng_below(r, 8));
		return n;
	case 1:
		data[at] = odd[prng_below(r, sizeof(odd))];
		return n;
	case 2:
		return at;
	case 3:
		if (n < INPUT_MAX)
			data[n++] = (uint8_t)prng_below(r, 256);
		return n;
	default:
		part = n - at;
		if (part > INPUT_MAX - n)
			part = INPUT_MAX - n;
		memmove(data + at + part, data + at, n - at);
		return n + part;
	}
}

static int try_mutations(const uint8_t *data, size_t n, uint64_t seed)
{
	AUTO_FREE uint8_t *m = malloc(INPUT_MAX);
	struct prng r;

	if (!m)
		return -ENOMEM;
	prng_init(&r, seed);
	for (unsigned i = 0; i < MUTATIONS; i++) {
		size_t len = n;
		uint64_t edits = 1 + prng_below(&r, EDITS_MAX);
		int e;

		memcpy(m, data, n);
		for (uint64_t k = 0; k < edits; k++)
			len = edit(&r, m, len);
		e = try_input(m, len);
		if (e < 0)
			return e;
	}
	return 0;
}

static int try_file(const char *path, uint64_t seed)
{
	AUTO_FREE uint8_t *data = malloc(INPUT_MAX);
	FILE *f = fopen(path, "re");
	size_t n;
	int r;

	if (!f || !data) {
		if (f)
			(void)fclose(f);
		return -ENOENT;
	}
	n = fread(data, 1, INPUT_MAX, f);
	(void)fclose(f); /* read only: nothing to lose */
	r = try_input(data, n);
	return r < 0 ? r : try_mutations(data, n, seed);
}

static int try_directory(const char *path)
{
	struct dirent **list;
	int n = scandir(path, &list, NULL, alphasort);
	int r = 0;

	if (n < 0)
		return -errno;
	for (int i = 0; i < n; i++) {
		char file[4096];

		snprintf(file, sizeof(file), "%s/%s", path, list[i]->d_name);
		if (list[i]->d_name[0] != '.' && i < (int)CORPUS_MAX && r == 0)
			r = try_file(file, (uint64_t)i);
		free(list[i]);
	}
	free(list);
	return r;
}

/* Without a corpus too, the target meets bytes of each length. */
static int try_random(void)
{
	uint8_t data[512];
	struct prng r;

	prng_init(&r, 1);
	for (unsigned i = 0; i < RANDOM_INPUTS; i++) {
		size_t n = (size_t)prng_below(&r, sizeof(data) + 1);
		int e;

		for (size_t k = 0; k < n; k++)
			data[k] = (uint8_t)prng_below(&r, 256);
		e = try_input(data, n);
		if (e < 0)
			return e;
	}
	return 0;
}

static int report(int r, int number, const char *what)
{
	printf("%sok %d - %s\n", r < 0 ? "not " : "", number, what);
	if (r < 0)
		printf("# %s\n", strerror(-r));
	return r < 0 ? 1 : 0;
}

int main(int argc, char **argv)
{
	int failed = 0;

	printf("1..%d\n", argc);
	failed |= report(try_random(), 1, "random_bytes");
	for (int i = 1; i < argc; i++) {
		struct stat st;
		int r;

		if (stat(argv[i], &st) < 0)
			r = -errno;
		else if (S_ISDIR(st.st_mode))
			r = try_directory(argv[i]);
		else
			r = try_file(argv[i], 1);
		failed |= report(r, i + 1, argv[i]);
	}
	return failed;
}
