/* SPDX-License-Identifier: Apache-2.0 */
/*
 * "HOST:PORT" to a socket address and back.  HOST is numeric, since a look-up
 * may block: 127.0.0.1:50051 or [::1]:50051.
 */
#pragma once

#include <sys/socket.h>

#include "base/base.h"

#define ADDRESS_TEXT_BYTES 64u

struct address {
	struct sockaddr_storage sa;
	socklen_t bytes;
};

/* Returns 0, or -EINVAL with *ret untouched. */
int address_parse(const char *text, struct address *ret);

/* Write `a` into `text` of ADDRESS_TEXT_BYTES. */
void address_print(const struct address *a, char *text);
