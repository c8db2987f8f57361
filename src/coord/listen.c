/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who has a port: /proc/net/tcp and tcp6 give the inode of the socket that
 * listens there; whichever process has it among /proc/PID/fd is the owner.
 * Other users' descriptors cannot be read without privilege: then the port
 * alone is named.
 */

#include "coord/listen.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define TCP_STATE_LISTEN 0x0a
#define BACKLOG          1024

/* The inode of the socket that listens at `port` by this table, or 0. */
static unsigned long socket_inode(const char *table, uint16_t port)
{
	FILE *f = fopen(table, "re");
	unsigned long inode = 0;
	char line[512];

	if (!f)
		return 0;
	while (inode == 0 && fgets(line, sizeof(line), f)) {
		unsigned local, state;
		unsigned long found;

		/* sl local:port remote:port state queues timer retr uid ... */
		if (sscanf(line,
		           " %*d: %*[0-9A-F]:%x %*[0-9A-F]:%*x %x %*s %*s %*s "
		           "%*u %*u %lu",
		           &local, &state, &found) == 3 &&
		    local == port && state == TCP_STATE_LISTEN)
			inode = found;
	}
	fclose(f);
	return inode;
}

/* Does process `pid` have the socket open? */
static bool has_socket(const char *pid, const char *socket)
{
	char path[300], target[64];
	bool found = false;
	struct dirent *e;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	dir = opendir(path);
	if (!dir)
		return false;
	while (!found && (e = readdir(dir)) != NULL) {
		ssize_t n = readlinkat(dirfd(dir), e->d_name, target,
		                       sizeof(target) - 1);

		if (n <= 0)
			continue;
		target[n] = '\0';
		found = strcmp(target, socket) == 0;
	}
	closedir(dir);
	return found;
}

/* What `ps` calls it. */
static void command_name(const char *pid, char name[64])
{
	char path[300];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%s/comm", pid);
	f = fopen(path, "re");
	if (!f || !fgets(name, 64, f))
		strcpy(name, "?");
	name[strcspn(name, "\n")] = '\0';
	if (f)
		fclose(f);
}

pid_t listen_owner(uint16_t port, char name[64])
{
	unsigned long inode = socket_inode("/proc/net/tcp", port);
	pid_t pid = 0;
	char socket[64];
	struct dirent *e;
	DIR *dir;

	if (inode == 0)
		inode = socket_inode("/proc/net/tcp6", port);
	if (inode == 0)
		return 0;
	snprintf(socket, sizeof(socket), "socket:[%lu]", inode);
	dir = opendir("/proc");
	if (!dir)
		return 0;
	while (pid == 0 && (e = readdir(dir)) != NULL) {
		if (!isdigit((unsigned char)e->d_name[0]) ||
		    !has_socket(e->d_name, socket))
			continue;
		pid = (pid_t)strtol(e->d_name, NULL, 10);
		command_name(e->d_name, name);
	}
	closedir(dir);
	return pid;
}

void address_text(const char *host, uint16_t port, char *buf, size_t bytes)
{
	snprintf(buf, bytes, strchr(host, ':') ? "[%s]:%u" : "%s:%u", host,
	         port);
}

/* config.c has seen to it that the host is numeric. */
static socklen_t to_sockaddr(const struct address *a,
                             struct sockaddr_storage *ret)
{
	struct sockaddr_in *in = (void *)ret;
	struct sockaddr_in6 *in6 = (void *)ret;

	memset(ret, 0, sizeof(*ret));
	if (inet_pton(AF_INET, a->host, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = htons(a->port);
		return sizeof(*in);
	}
	(void)inet_pton(AF_INET6, a->host, &in6->sin6_addr);
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons(a->port);
	return sizeof(*in6);
}

/* The refusal for a port that somebody has. */
static int taken(const struct address *at, const char *text, struct errmsg *em)
{
	char name[64];
	pid_t pid = listen_owner(at->port, name);

	if (pid > 0)
		return errmsg_say(em, -EADDRINUSE,
		                  "port %u (%s) is taken by process %d (%s); "
		                  "stop that one, or name another port",
		                  at->port, text, (int)pid, name);
	return errmsg_say(em, -EADDRINUSE,
	                  "port %u (%s) is taken by another process; stop "
	                  "that one, or name another port",
	                  at->port, text);
}

int listen_at(const struct address *at, int *ret, uint16_t *port,
              struct errmsg *em)
{
	struct sockaddr_storage a;
	socklen_t bytes = to_sockaddr(at, &a);
	AUTO_CLOSE int fd = socket(
		a.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	char text[80];
	int one = 1;

	address_text(at->host, at->port, text, sizeof(text));
	if (fd < 0)
		return errmsg_set(em, -errno, "cannot make a socket");
	/* A restart must not wait for the last connections to time out. */
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&a, bytes) < 0 ||
	    listen(fd, BACKLOG) < 0) {
		if (errno == EADDRINUSE)
			return taken(at, text, em);
		return errmsg_set(em, -errno, "cannot listen at %s", text);
	}
	bytes = sizeof(a);
	if (getsockname(fd, (struct sockaddr *)&a, &bytes) < 0)
		return errmsg_set(em, -errno, "cannot listen at %s", text);
	/* sin_port and sin6_port lie at the same place. */
	*port = ntohs(((struct sockaddr_in *)&a)->sin_port);
	*ret = TAKE_FD(fd);
	return 0;
}
