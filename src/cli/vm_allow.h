/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a guest on a space may use: tables, and nothing else.
 *
 * The pages of a space move between nodes under the guest.  Whoever reaches
 * guest memory through QEMU's own mapping is served like the guest itself:
 * QEMU's emulated devices, its threads that read(2) and write(2), vhost-net in
 * the kernel, which uses QEMU's address space.  Whoever else holds a page by
 * reference (a pin), or maps the memory into another process, is not seen: what
 * a pin writes into a page that has moved is lost without a word.
 *
 * Nothing in user space tells that a page is pinned, so these are lists of what
 * is known to be safe.  What is on none is refused too.
 */
#pragma once

#include "base/base.h"

/* What a name is a name of. */
enum vm_family {
	VM_DEVICE,   /* -device */
	VM_OBJECT,   /* -object */
	VM_NETDEV,   /* -netdev, -nic, -net */
	VM_BLOCK,    /* a driver of -blockdev and -drive, at any depth */
	VM_PROTOCOL, /* of a file's name, without its colon */
	VM_CACHE,    /* cache= of -drive */
	VM_AIO,      /* aio= of -drive and -blockdev */
	VM_ACCEL,    /* -accel */
	VM_MACHINE,  /* the type of -machine */
};

struct vm_rule {
	const char *name;    /* a pattern of fnmatch(3) */
	const char *why;     /* it is refused; NULL: it is allowed */
	const char *instead; /* to use; NULL if there is nothing */
};

/*
 * The rule for `name`; never NULL.  Of a rule that refuses, `name` is the
 * pattern that matched, or "*" if the name is on no list.
 */
const struct vm_rule *vm_allow(enum vm_family family, const char *name);

/*
 * The rule for a device's property that is switched on, whatever the device;
 * NULL if there is none.
 */
const struct vm_rule *vm_allow_property(const char *key);

/* Reasons that options share with the tables. */
extern const char vm_why_pin[];
extern const char vm_why_map[];
extern const char vm_why_ram[];
extern const char vm_why_fill[];
extern const char vm_why_unseen[];
extern const char vm_why_unknown[];
