/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Host and Origin headers: is it us whom the client means?
 *
 * A page of another site can make a browser send requests here, by naming our
 * address (then Origin tells) or by letting its own name resolve to it (then
 * Host tells).  An address cannot be made to resolve, so addresses are ours:
 * on loopback those of loopback, else all; and localhost; and, beyond loopback,
 * this host's name.
 */
#pragma once

#include "base/base.h"

#define HOST_BYTES 256u

/*
 * Is the Host header "HOST[:PORT]" ours?  Writes HOST into `ret`, as it is
 * written in URLs (brackets stay).
 */
bool host_ours(const char *header, bool anywhere, char ret[HOST_BYTES]);

/* Is the Origin header that of a page which came from this Host? */
bool origin_ours(const char *origin, const char *host_header);
