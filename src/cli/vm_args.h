/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QEMU's command line, as far as `memspan vm` must understand it: what it asks
 * of the guest's memory, and what in it would reach that memory around the
 * node (vm_allow.h has the lists and the reason).
 *
 * Pure: nothing is opened, run or printed; facts of this host come in.
 */
#pragma once

#include "base/base.h"

#define VM_REFUSALS_MAX  16u   /* shown; more are counted */
#define VM_MACHINE_BYTES 64u   /* of a machine type's name */
#define VM_CPUS_MAX      1024u /* -smp beyond that is not understood */

/* What of this host decides. */
struct vm_host {
	bool vmx_nested; /* KVM offers guests VMX */
	bool svm_nested; /* KVM offers guests SVM */
};

/* One argument that a guest on a space should not have. */
struct vm_refusal {
	char what[128];      /* "-device vfio-pci" */
	char why[256];       /* a clause */
	const char *instead; /* what to use; NULL if there is nothing */
	bool always;         /* there is no insisting on it */
};

struct vm_args {
	uint64_t ram_bytes;             /* of -m; 0 without */
	unsigned cpus;                  /* that the guest may come to have */
	bool kvm;                       /* KVM is asked for */
	bool numa;                      /* it has -numa options of its own */
	char machine[VM_MACHINE_BYTES]; /* type of -machine; "" without */
	struct vm_refusal refusal[VM_REFUSALS_MAX];
	size_t n_refusals; /* found; may be more than there is room for */
};

/*
 * Read the `n` arguments at `v`, the program's name not among them.  Returns 0
 * with *ret filled in, refusals included; -EINVAL if it is no command line of
 * QEMU's (a value is missing, -m is no size), -ENOMEM; then em says why.
 */
int vm_args_read(int n, char *const *v, const struct vm_host *host,
                 struct vm_args *ret, struct errmsg *em);

/*
 * Name the i-th option of QEMU that is known here, for tests that compare the
 * list with a QEMU: its name without '-', and whether a value follows it.
 * Returns NULL behind the last.
 */
const char *vm_args_option(size_t i, bool *takes_value);
