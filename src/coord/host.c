/* SPDX-License-Identifier: Apache-2.0 */

#include "coord/host.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

/* Split "HOST[:PORT]" or "[V6][:PORT]"; false if it is neither. */
static bool split(const char *header, char host[HOST_BYTES])
{
	size_t n = header[0] == '[' ? strcspn(header, "]") + 1 :
	                              strcspn(header, ":");
	const char *port = header + n;

	if (n == 0 || n > strlen(header) || n >= HOST_BYTES)
		return false;
	memcpy(host, header, n);
	host[n] = '\0';
	if (*port == '\0')
		return true;
	return port[0] == ':' &&
	       strspn(port + 1, "0123456789") == strlen(port + 1);
}

/* An address of loopback, or any address if `anywhere`. */
static bool address_ours(const char *host, bool anywhere)
{
	char bare[HOST_BYTES];
	struct in6_addr v6;
	struct in_addr v4;
	size_t n = strlen(host);

	if (inet_pton(AF_INET, host, &v4) == 1)
		return anywhere || (ntohl(v4.s_addr) >> 24) == 127;
	if (host[0] != '[' || n < 2)
		return false;
	memcpy(bare, host + 1, n - 2);
	bare[n - 2] = '\0';
	if (inet_pton(AF_INET6, bare, &v6) != 1)
		return false;
	return anywhere || IN6_IS_ADDR_LOOPBACK(&v6);
}

bool host_ours(const char *header, bool anywhere, char ret[HOST_BYTES])
{
	char name[HOST_BYTES] = "";

	if (!split(header, ret))
		return false;
	if (address_ours(ret, anywhere) || strcasecmp(ret, "localhost") == 0)
		return true;
	return anywhere && gethostname(name, sizeof(name) - 1) == 0 &&
	       strncasecmp(ret, name, sizeof(name) - 1) == 0;
}

bool origin_ours(const char *origin, const char *host_header)
{
	if (!host_header)
		return false;
	if (strncasecmp(origin, "http://", 7) == 0)
		origin += 7;
	else if (strncasecmp(origin, "https://", 8) == 0)
		origin += 8;
	else
		return false; /* "null" too: a file, or a sandbox */
	return strcasecmp(origin, host_header) == 0;
}
