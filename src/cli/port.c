/* SPDX-License-Identifier: Apache-2.0 */

#include "cli/port.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "cli/proc.h"

bool port_free(uint16_t port)
{
	struct sockaddr_in at = {
		.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	AUTO_CLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int on = 1;

	if (fd < 0)
		return false;
	/* As the daemons do: what still lingers in TIME_WAIT is no obstacle. */
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
		return false;
	return bind(fd, (struct sockaddr *)&at, sizeof(at)) == 0 &&
	       listen(fd, 1) == 0;
}

/*
 * The inode of the socket that listens on `port`, by /proc/net/`table`; 0 if
 * there is none.  A line: "0: 0100007F:1B9E 00000000:0000 0A ... inode ...".
 */
static uint64_t listener(const char *table, uint16_t port)
{
	char path[32], line[512];
	uint64_t found = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/net/%s", table);
	f = fopen(path, "re");
	if (!f)
		return 0;
	while (found == 0 && fgets(line, sizeof(line), f)) {
		unsigned p, state;
		uint64_t inode;

		if (sscanf(line,
		           "%*s %*[0-9A-Fa-f]:%x %*s %x %*s %*s %*s %*s %*s "
		           "%" SCNu64,
		           &p, &state, &inode) == 3 &&
		    p == port && state == 0x0a)
			found = inode;
	}
	fclose(f);
	return found;
}

/* Has process `pid` a descriptor of the socket with that inode? */
static bool has_socket(const char *pid, uint64_t inode)
{
	char path[64], want[64], link[64];
	struct dirent *e;
	bool has = false;
	DIR *d;

	snprintf(want, sizeof(want), "socket:[%" PRIu64 "]", inode);
	snprintf(path, sizeof(path), "/proc/%.16s/fd", pid);
	d = opendir(path);
	if (!d)
		return false;
	while (!has && (e = readdir(d))) {
		ssize_t n =
			readlinkat(dirfd(d), e->d_name, link, sizeof(link) - 1);

		if (n <= 0)
			continue;
		link[n] = '\0';
		has = strcmp(link, want) == 0;
	}
	closedir(d);
	return has;
}

char *port_owner(uint16_t port, char buf[PORT_OWNER_BYTES])
{
	uint64_t inode = listener("tcp", port);
	struct dirent *e;
	DIR *d;

	snprintf(buf, PORT_OWNER_BYTES, "another process");
	if (inode == 0)
		inode = listener("tcp6", port);
	d = inode != 0 ? opendir("/proc") : NULL;
	if (!d)
		return buf;
	while ((e = readdir(d))) {
		char name[PROC_NAME_BYTES];

		if (e->d_name[0] < '1' || e->d_name[0] > '9' ||
		    !has_socket(e->d_name, inode))
			continue;
		snprintf(buf, PORT_OWNER_BYTES, "%s, pid %.16s",
		         proc_name((pid_t)atol(e->d_name), name), e->d_name);
		break;
	}
	closedir(d);
	return buf;
}
