/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The start of a cluster on this machine: a coordinator and some nodes, each a
 * daemon, in one run directory.  It stands whole or not at all.
 */
#pragma once

#include "base/base.h"
#include "cli/cli.h"
#include "cli/cluster.h"
#include "cli/daemon.h"
#include "cli/http.h"

#define UP_NODES_MAX 16u

/* The coordinator takes the first free pair, nodes the first free ones. */
#define UP_PORT_FIRST      7070u
#define UP_PORT_LAST       7169u
#define UP_PAGE_PORT_FIRST 50051u
#define UP_PAGE_PORT_LAST  50100u

struct up_node {
	struct daemon daemon; /* its id is the coordinator's, once it joined */
	char name[24];        /* "node0" */
	char endpoint[32];    /* 127.0.0.1:PORT of its pages */
};

struct up {
	/* What is wanted: set by the caller, the rest zero. */
	struct cli cli;
	uint64_t n_nodes, memory_bytes, shards;
	uint64_t lease_ms; /* 0: the coordinator's default */
	uint16_t port;     /* of the coordinator, if port_named */
	bool port_named;

	/* What there is. */
	char run_dir[RUN_DIR_BYTES];
	int lock;
	char url[CLUSTER_URL_BYTES];
	struct http *http;
	uint16_t page_port; /* the next to try for a node */
	uint64_t epoch;
	struct daemon coordinator;
	struct up_node node[UP_NODES_MAX];
	size_t n_started; /* nodes */
};

/*
 * Start it, and wait until /health is ok, every node's lease is fresh and every
 * pair of nodes connected.  Returns CLI_OK; or another exit status with the
 * message printed, and nothing left running.
 */
int up_start(struct up *u);

/* Let go of descriptors; what was started runs on. */
void up_done(struct up *u);
