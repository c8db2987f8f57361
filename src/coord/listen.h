/* SPDX-License-Identifier: Apache-2.0 */
/* Listening sockets, with refusals that say who is in the way. */
#pragma once

#include <sys/types.h>

#include "coord/config.h"

/*
 * Listen at `at` (port 0: any free one).  Sets *ret, which the caller closes,
 * and *port to the port.  Returns 0, or -errno with `em` set: for -EADDRINUSE
 * it names the port and, where /proc shows it, the process that has it.
 */
int listen_at(const struct address *at, int *ret, uint16_t *port,
              struct errmsg *em);

/*
 * Which process listens at this TCP port?  Returns its pid, with its command's
 * name in `name`, or 0 if that is not known: it is another user's, or gone.
 */
pid_t listen_owner(uint16_t port, char name[64]);

/* Write "HOST:PORT", with brackets around an address of version 6. */
void address_text(const char *host, uint16_t port, char *buf, size_t bytes);
