/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any arguments, one a line, are read twice alike; and what follows cannot hide
 * a device that is refused, nor what stands before it, if it was read at all.
 */

#include <string.h>

#include "cli/vm_args.h"

#define ARGUMENTS_MAX 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Cut `text` into lines. */
static int cut(char *text, char *v[ARGUMENTS_MAX])
{
	char *save = NULL;
	int n = 0;

	for (char *t = strtok_r(text, "\n", &save); t && n < ARGUMENTS_MAX;
	     t = strtok_r(NULL, "\n", &save))
		v[n++] = t;
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct vm_args once, twice;
	static char device[] = "-device", vfio[] = "{\"driver\":\"vfio-pci\"}";
	const struct vm_host host = { .vmx_nested = true };
	char *v[ARGUMENTS_MAX + 4] = { device, vfio };
	char *text = strndup((const char *)data, size);
	struct errmsg em;
	int n, r;

	if (!text)
		return 0;
	n = cut(text, v + 2);
	r = vm_args_read(n, v + 2, &host, &once, &em);
	if (r != vm_args_read(n, v + 2, &host, &twice, &em) ||
	    (r == 0 && memcmp(&once, &twice, sizeof(once)) != 0))
		abort();
	if (r == 0 && (vm_args_read(n + 2, v, &host, &twice, &em) != 0 ||
	               twice.n_refusals != once.n_refusals + 1))
		abort();
	/* Behind an option that lacks its value it would be that value. */
	v[n + 2] = device;
	v[n + 3] = vfio;
	if (r == 0 && (vm_args_read(n + 2, v + 2, &host, &twice, &em) != 0 ||
	               twice.n_refusals != once.n_refusals + 1))
		abort();
	free(text);
	return 0;
}
