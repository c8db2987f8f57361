/* SPDX-License-Identifier: Apache-2.0 */

#include "net/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

/* A port in decimal, nothing before or behind it. */
static int parse_port(const char *text, uint16_t *ret)
{
	unsigned long port = 0;
	size_t n = 0;

	while (text[n] >= '0' && text[n] <= '9' && n < 6)
		port = port * 10 + (unsigned long)(text[n++] - '0');
	if (n == 0 || text[n] != '\0' || port > UINT16_MAX)
		return -EINVAL;
	*ret = (uint16_t)port;
	return 0;
}

int address_parse(const char *text, struct address *ret)
{
	const char *colon = strrchr(text, ':');
	char host[INET6_ADDRSTRLEN + 2];
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };
	struct sockaddr_in in = { .sin_family = AF_INET };
	uint16_t port;
	size_t n;

	if (!colon || parse_port(colon + 1, &port) < 0)
		return -EINVAL;
	n = (size_t)(colon - text);
	if (n == 0 || n >= sizeof(host))
		return -EINVAL;
	memcpy(host, text, n);
	host[n] = '\0';

	if (host[0] == '[' && host[n - 1] == ']') {
		host[n - 1] = '\0';
		in6.sin6_port = htons(port);
		if (inet_pton(AF_INET6, host + 1, &in6.sin6_addr) != 1)
			return -EINVAL;
		*ret = (struct address){ .bytes = sizeof(in6) };
		memcpy(&ret->sa, &in6, sizeof(in6));
		return 0;
	}
	in.sin_port = htons(port);
	if (inet_pton(AF_INET, host, &in.sin_addr) != 1)
		return -EINVAL;
	*ret = (struct address){ .bytes = sizeof(in) };
	memcpy(&ret->sa, &in, sizeof(in));
	return 0;
}

void address_print(const struct address *a, char *text)
{
	const struct sockaddr_in6 *in6 = (const void *)&a->sa;
	const struct sockaddr_in *in = (const void *)&a->sa;
	char host[INET6_ADDRSTRLEN] = "?";

	if (a->sa.ss_family == AF_INET6) {
		(void)inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
		snprintf(text, ADDRESS_TEXT_BYTES, "[%s]:%u", host,
		         ntohs(in6->sin6_port));
		return;
	}
	(void)inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
	snprintf(text, ADDRESS_TEXT_BYTES, "%s:%u", host, ntohs(in->sin_port));
}
