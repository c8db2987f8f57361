/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options.  Each is a row of a table, with the name that it has on the command
 * line and, with underscores, in the file's section [node].  The file is read
 * first, so that the command line has the last word.
 */

#include "node/config.h"

#include <errno.h>
#include <getopt.h>
#include <ini.h>
#include <stdio.h>
#include <string.h>

#include "base/size.h"

static const char usage_text[] =
	"usage: memspan-node --coordinator HOST[:PORT] [--name NAME]\n"
	"           [--memory SIZE] [--listen ADDR[:PORT]] [--socket PATH]\n"
	"           [--run-dir DIR] [--shards N] [--busy-poll MICROSECONDS]\n"
	"           [--log-format text|json] [--config FILE] [--insecure]\n"
	"\n"
	"Lend this host's memory to a cluster, and serve its clients.\n"
	"\n"
	"  --coordinator HOST[:PORT]  the coordinator's HTTP (port 7070)\n"
	"  --name NAME                how people call this node (the host name)\n"
	"  --memory SIZE              what it keeps for spaces at most (1G;\n"
	"                             at least 64M)\n"
	"  --listen ADDR[:PORT]       where peers fetch pages (127.0.0.1, a free\n"
	"                             port of 50051-50100)\n"
	"  --socket PATH              where clients attach (node-ID.sock in the\n"
	"                             run directory)\n"
	"  --run-dir DIR              /run/memspan, or $XDG_RUNTIME_DIR/memspan\n"
	"  --shards N                 threads that serve pages, 1 to 16 (1)\n"
	"  --busy-poll MICROSECONDS   keep polling so long after work, for those\n"
	"                             who have a core to spare (0: never)\n"
	"  --log-format FORMAT        text, or json: one object a line (text)\n"
	"  --config FILE              these options from a file, section [node];\n"
	"                             the command line comes first\n"
	"  --insecure                 listen beyond loopback, though nodes do\n"
	"                             not authenticate one another yet\n"
	"  --help, --version          show this, or the version\n";

enum setting {
	SET_COORDINATOR,
	SET_NAME,
	SET_MEMORY,
	SET_LISTEN,
	SET_SOCKET,
	SET_RUN_DIR,
	SET_SHARDS,
	SET_BUSY_POLL,
	SET_LOG_FORMAT,
	SET_END,
};

enum { OPT_CONFIG = 256, OPT_INSECURE, OPT_HELP, OPT_VERSION };

static const struct option options[] = {
	{ "coordinator", required_argument, NULL, SET_COORDINATOR },
	{ "name", required_argument, NULL, SET_NAME },
	{ "memory", required_argument, NULL, SET_MEMORY },
	{ "listen", required_argument, NULL, SET_LISTEN },
	{ "socket", required_argument, NULL, SET_SOCKET },
	{ "run-dir", required_argument, NULL, SET_RUN_DIR },
	{ "shards", required_argument, NULL, SET_SHARDS },
	{ "busy-poll", required_argument, NULL, SET_BUSY_POLL },
	{ "log-format", required_argument, NULL, SET_LOG_FORMAT },
	/* From here on: not settings of the file. */
	{ "config", required_argument, NULL, OPT_CONFIG },
	{ "insecure", no_argument, NULL, OPT_INSECURE },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ 0 },
};

/* --- values ------------------------------------------------------------ */

static int read_text(const char *text, char *ret, size_t bytes,
                     struct errmsg *em)
{
	if (text[0] == '\0' || strlen(text) >= bytes)
		return errmsg_say(em, -EINVAL,
		                  "'%s' is empty or longer than %zu characters",
		                  text, bytes - 1);
	memcpy(ret, text, strlen(text) + 1);
	return 0;
}

static int read_number(const char *text, unsigned long min, unsigned long max,
                       unsigned long *ret, struct errmsg *em)
{
	char *end;
	unsigned long v;

	errno = 0;
	v = strtoul(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 ||
	    v < min || v > max)
		return errmsg_say(em, -EINVAL,
		                  "'%s' is not a number from %lu to %lu", text,
		                  min, max);
	*ret = v;
	return 0;
}

/* HOST[:PORT], or a URL of it, as `memspan up` writes into its file. */
static int read_coordinator(const char *text, struct node_config *cfg,
                            struct errmsg *em)
{
	char host[sizeof(cfg->coordinator)];
	size_t n;
	int r;

	if (strncmp(text, "http://", 7) == 0)
		text += 7;
	r = read_text(text, host, sizeof(host) - 6, em);
	if (r < 0)
		return r;
	n = strlen(host);
	while (n > 0 && host[n - 1] == '/')
		host[--n] = '\0';
	if (strpbrk(host, "/ \t") != NULL || n == 0)
		return errmsg_say(em, -EINVAL, "'%s' is not HOST[:PORT]", text);
	snprintf(cfg->coordinator, sizeof(cfg->coordinator), "%s%s", host,
	         strrchr(host, ':') == NULL ? ":7070" : "");
	return 0;
}

static int read_memory(const char *text, struct node_config *cfg,
                       struct errmsg *em)
{
	uint64_t bytes;
	int r = size_parse(text, &bytes, em);

	if (r < 0)
		return r;
	if (bytes < NODE_MEMORY_MIN)
		return errmsg_say(
			em, -EINVAL,
			"'%s' is too little: a node needs at least 64M "
			"for pages",
			text);
	cfg->memory_bytes = bytes / PAGE_BYTES * PAGE_BYTES;
	return 0;
}

static int read_log_format(const char *text, bool *json, struct errmsg *em)
{
	if (strcmp(text, "text") != 0 && strcmp(text, "json") != 0)
		return errmsg_say(em, -EINVAL, "'%s' is neither text nor json",
		                  text);
	*json = strcmp(text, "json") == 0;
	return 0;
}

static int set(struct node_config *cfg, enum setting setting, const char *value,
               struct errmsg *em)
{
	unsigned long v = 0;
	int r = 0;

	switch (setting) {
	case SET_COORDINATOR:
		return read_coordinator(value, cfg, em);
	case SET_NAME:
		return read_text(value, cfg->name, sizeof(cfg->name), em);
	case SET_MEMORY:
		return read_memory(value, cfg, em);
	case SET_LISTEN:
		return read_text(value, cfg->listen, sizeof(cfg->listen), em);
	case SET_SOCKET:
		return read_text(value, cfg->socket, sizeof(cfg->socket), em);
	case SET_RUN_DIR:
		return read_text(value, cfg->run_dir, sizeof(cfg->run_dir), em);
	case SET_SHARDS:
		r = read_number(value, 1, SHARDS_MAX, &v, em);
		cfg->shards = r < 0 ? cfg->shards : (uint8_t)v;
		return r;
	case SET_BUSY_POLL:
		r = read_number(value, 0, 1000000, &v, em);
		cfg->busy_poll_ns = v * NSEC_PER_USEC;
		return r;
	case SET_LOG_FORMAT:
		return read_log_format(value, &cfg->log_json, em);
	case SET_END:
		break;
	}
	return -EINVAL;
}

/* --- the file ---------------------------------------------------------- */

struct reading {
	struct node_config *cfg;
	struct errmsg em;
};

static bool same_name(const char *key, const char *name)
{
	for (; *key != '\0' && *name != '\0'; key++, name++)
		if (*key != *name && !(*key == '_' && *name == '-'))
			return false;
	return *key == *name;
}

/* inih's callback: 1 if the line is good. */
static int file_line(void *arg, const char *section, const char *key,
                     const char *value)
{
	struct reading *rd = arg;

	/* A file may serve several programs; theirs is not ours to judge. */
	if (strcmp(section, "node") != 0)
		return 1;
	if (strcmp(key, "security") == 0) {
		rd->cfg->insecure = strcmp(value, "none") == 0;
		return rd->cfg->insecure || strcmp(value, "loopback") == 0;
	}
	for (unsigned i = 0; i < SET_END; i++)
		if (same_name(key, options[i].name))
			return set(rd->cfg, (enum setting)i, value, &rd->em) ==
			       0;
	return errmsg_say(&rd->em, 0, "there is no setting '%s'", key);
}

static enum config_outcome read_file(struct node_config *cfg, const char *path)
{
	struct reading rd = { .cfg = cfg };
	int r = ini_parse(path, file_line, &rd);

	if (r == 0)
		return CONFIG_RUN;
	if (r < 0)
		fprintf(stderr, "memspan-node: cannot read %s: %s\n", path,
		        strerror(errno));
	else
		fprintf(stderr, "memspan-node: %s, line %d: %s\n", path, r,
		        rd.em.text[0] != '\0' ? rd.em.text :
		                                "is no 'name = value'");
	return CONFIG_USAGE;
}

/* --config wherever it stands, for it must be read before the others. */
static const char *find_file(int argc, char **argv)
{
	const char *path = NULL;
	int opt;

	opterr = 0;
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1)
		if (opt == OPT_CONFIG)
			path = optarg;
	opterr = 1;
	optind = 0; /* GNU: begin anew */
	return path;
}

/* --- the command line -------------------------------------------------- */

static enum config_outcome read_command(struct node_config *cfg, int argc,
                                        char **argv)
{
	struct errmsg em = { "" };
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case OPT_CONFIG:
			break;
		case OPT_INSECURE:
			cfg->insecure = true;
			break;
		case OPT_HELP:
			fputs(usage_text, stdout);
			return CONFIG_DONE;
		case OPT_VERSION:
			puts("memspan-node " MEMSPAN_VERSION);
			return CONFIG_DONE;
		case '?': /* getopt_long() has said what is wrong */
			fputs(usage_text, stderr);
			return CONFIG_USAGE;
		default:
			if (set(cfg, (enum setting)opt, optarg, &em) == 0)
				break;
			fprintf(stderr, "memspan-node: --%s: %s\n",
			        options[opt].name, em.text);
			return CONFIG_USAGE;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "memspan-node: '%s' is too much\n",
		        argv[optind]);
		fputs(usage_text, stderr);
		return CONFIG_USAGE;
	}
	return CONFIG_RUN;
}

static bool loopback(const char *host)
{
	return strncmp(host, "127.", 4) == 0 || strncmp(host, "[::1]", 5) == 0;
}

/* Fill in what was not said, and refuse what cannot be. */
static enum config_outcome settle(struct node_config *cfg)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");

	if (cfg->coordinator[0] == '\0') {
		fputs("memspan-node: no coordinator: say where it is with "
		      "--coordinator HOST[:PORT]\n",
		      stderr);
		return CONFIG_USAGE;
	}
	if (!loopback(cfg->listen) && !cfg->insecure) {
		fprintf(stderr,
		        "memspan-node: --listen %s is beyond loopback, where "
		        "anybody could read and write the cluster's memory: "
		        "nodes do not authenticate one another yet; on a "
		        "network that you trust say --insecure\n",
		        cfg->listen);
		return CONFIG_USAGE;
	}
	if (cfg->name[0] == '\0')
		(void)gethostname(cfg->name, sizeof(cfg->name) - 1);
	if (cfg->run_dir[0] == '\0') {
		if (geteuid() != 0 && runtime == NULL) {
			fputs("memspan-node: no run directory: set "
			      "$XDG_RUNTIME_DIR, or give --run-dir\n",
			      stderr);
			return CONFIG_USAGE;
		}
		snprintf(cfg->run_dir, sizeof(cfg->run_dir), "%s/memspan",
		         geteuid() == 0 ? "/run" : runtime);
	}
	return CONFIG_RUN;
}

enum config_outcome config_read(struct node_config *cfg, int argc, char **argv)
{
	const char *path = find_file(argc, argv);
	enum config_outcome r = CONFIG_RUN;

	*cfg = (struct node_config){ .memory_bytes = 1ull << 30,
		                     .listen = "127.0.0.1",
		                     .shards = 1 };
	if (path != NULL)
		r = read_file(cfg, path);
	if (r == CONFIG_RUN)
		r = read_command(cfg, argc, argv);
	if (r == CONFIG_RUN)
		r = settle(cfg);
	return r;
}
