/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the two files of `memspan validate` share.
 */
#pragma once

#include <jansson.h>
#include <signal.h>

#include "base/base.h"
#include "cli/check.h"
#include "cli/cluster.h"
#include "cli/daemon.h"
#include "cli/http.h"

struct member_seen {
	uint64_t id;
	const json_t *json; /* the coordinator's node object; borrowed */
	bool here;          /* its process is the one in our run directory */
};

struct validate {
	struct cluster cluster;
	struct http *http;
	struct checks checks;
	json_t *cluster_json; /* GET /v1/cluster */
	uint64_t lease_ms;
	struct member_seen *member; /* n of them */
	size_t n;
	struct daemons daemons; /* of this cluster, in our run directory */
};

/* Set by SIGINT and SIGTERM: finish what must not be left half done. */
extern volatile sig_atomic_t validate_stop;

/* Add the check "WHAT-ID", which went well so far. */
struct check *validate_add(struct validate *v, const char *what,
                           const struct member_seen *m, const char *detail);

/*
 * Make a space, attach it through every node whose socket can be opened here,
 * write a page through each and read it through each other, delete the space.
 * One check "pages-ID" for each node.
 */
void validate_pages(struct validate *v);
