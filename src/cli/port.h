/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP ports of this machine's loopback address: which are free, who has one.
 */
#pragma once

#include "base/base.h"

/* Could a daemon listen on 127.0.0.1:`port` at this moment? */
bool port_free(uint16_t port);

#define PORT_OWNER_BYTES 64u

/*
 * Who listens on `port`, as "memspan-node, pid 4711"; "another process" if
 * that cannot be seen, because it is somebody else's.
 */
char *port_owner(uint16_t port, char buf[PORT_OWNER_BYTES]);
