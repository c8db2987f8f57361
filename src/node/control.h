/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The main thread: control.c (start, stop, spaces) and clients.c (the clients'
 * sockets).  Everything here is the main thread's alone.
 */
#pragma once

#include "node/node.h"

#define CONNS_MAX 4096u

struct conn; /* clients.c */

struct control {
	struct node *node;
	struct loop *loop;
	struct loop_io signals;
	struct loop_io listener;
	struct loop_timer listen_again; /* while there are no descriptors */
	struct space *spaces;
	struct conn *conns;
	uint32_t n_conns;
	uint64_t clients_made; /* numbers clients */
	char socket_path[108];
	char pid_path[128];
	bool have_socket, have_pid;
	int status;
	char why[200];
};

struct space *control_find(struct control *c, const char *name);

/* Open the clients' socket: refuse a live one, remove a stale one. */
int clients_listen(struct control *c, struct errmsg *em);
/* Tell every client that it must end. */
void clients_end_all(struct control *c, const char *why);
void clients_close(struct control *c);
