/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node for the tests of libmemspan: it speaks wire/local.h on a socket and
 * serves one space of its own with plain ioctls, in a process that a test can
 * stop, continue and kill.  It knows no other nodes and keeps no lease: the
 * test writes the lease page itself.
 *
 *	fake_start(&node, &(struct fake_options){ .bytes = 1 << 20 });
 *	... clients attach through node.path ...
 *	fake_stop(&node);
 *
 * Page g is born with every byte fake_byte(g), which is never 0: so whoever
 * reads a zero has read what nobody wrote.  After a DISCARD it is zeros.
 */
#pragma once

#include <stdatomic.h>
#include <sys/types.h>

#include "base/base.h"
#include "wire/local.h"

#define FAKE_SPACE "demo"
#define FAKE_NODE  7u
#define FAKE_ID    3u

enum fake_oddity {
	FAKE_SANE = 0,
	FAKE_MUTE_ATTACH,   /* never answers ATTACH */
	FAKE_MUTE_MAPPED,   /* never answers MAPPED */
	FAKE_MUTE_DETACH,   /* never answers DETACH */
	FAKE_REFUSE_MAPPED, /* -EBUSY and a sentence */
	FAKE_HANG_UP,       /* closes the connection at ATTACH */
	FAKE_OLD_VERSION,   /* answers ATTACH with version + 1 */
	FAKE_SHORT_PACKET,  /* answers ATTACH with half a packet */
	FAKE_NO_NOTES,      /* answers ATTACH with two descriptors */
	FAKE_ODD_SIZE,      /* SPACE names another size than the memfd's */
	FAKE_MANY_STRIPES,  /* SPACE names 65 stripes */
};

struct fake_options {
	uint64_t bytes; /* of the space; whole pages */
	bool markers;   /* LOCAL_MODE without MINOR, as before Linux 6.4 */
	enum fake_oddity oddity;
	int discard_error; /* what DISCARD is answered with */
};

/* What it did; shared with the test. */
struct fake_counts {
	_Atomic uint32_t attached, mapped, detached, hung_up;
	_Atomic uint32_t missing, minor, wp; /* faults, answered */
	_Atomic uint32_t held;               /* faults, never answered */
	_Atomic uint32_t
		wrong_stripe; /* faults on another stripe's descriptor */
	_Atomic uint32_t prefetches, discards;
	_Atomic uint64_t offset, bytes; /* of the last PREFETCH */
	/* Orders of the test. */
	_Atomic uint32_t hold; /* read faults, but never answer them */
	_Atomic uint32_t end;  /* send ENDED to everybody, once */
};

struct fake_node {
	pid_t pid;
	char dir[64], path[96];
	int memory; /* the space's memfd */
	uint64_t bytes;
	struct local_lease *lease; /* writable here */
	struct local_notes *notes; /* writable here */
	struct fake_counts *counts;
};

static inline uint8_t fake_byte(gpn_t page)
{
	return (uint8_t)(page % 255 + 1);
}

/* The stripe of a page, by the rule of design and wire/local.h. */
uint32_t fake_stripe(uint64_t bytes, gpn_t page);
uint32_t fake_stripes(uint64_t bytes);

void fake_start(struct fake_node *n, const struct fake_options *opt);
/* Kill it if it lives, and remove its files.  Safe to call twice. */
void fake_stop(struct fake_node *n);
void fake_kill(struct fake_node *n); /* SIGKILL, and wait until it is gone */

/*
 * Can the kernel map what the memfd has read-only (Linux 6.4)?  Without it
 * there is no sharing and no resuming in the mode with MINOR, and nodes use
 * markers.
 */
bool fake_can_minor(void);

/* The lease ends `ns` from now. */
void fake_lease(struct fake_node *n, uint64_t ns);
/* Memory of the space that exists. */
uint64_t fake_resident(const struct fake_node *n);
