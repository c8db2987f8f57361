/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line that QEMU is started with: ours around the user's.
 */
#pragma once

#include <stdio.h>

#include "base/base.h"
#include "cli/vm_numa.h"

/* The descriptor of the first space of `memspan run`. */
#define VM_SPACE_PATH "/proc/self/fd/200"
/* What the backend is called in QEMU, for who asks its monitor. */
#define VM_BACKEND "memspan"

struct vm_plan {
	const char *qemu; /* the program */
	uint64_t ram_bytes;
	bool says_memory;             /* the user's arguments have -m */
	const struct vm_nodes *nodes; /* NULL without --numa */
	unsigned cpus;                /* for nodes */
	const char *machine;          /* to use after all; NULL: the user's */
};

/*
 * The arguments for execvp(3), made of the `n` at `v`.  The caller frees it;
 * NULL if memory is out.
 */
char **vm_line_new(const struct vm_plan *plan, int n, char *const *v);
char **vm_line_free(char **line); /* takes NULL; returns NULL */
DEFINE_AUTO(char *, vm_line_free)

/* Print one argument so that a shell reads it as it is. */
void vm_line_quote(const char *argument, FILE *f);
