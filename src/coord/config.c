/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options.  Each one is a row of a table, with the name that it has on the
 * command line and, with underscores, in the file's section [coordinator]:
 *
 *	[coordinator]
 *	listen = 127.0.0.1:7070
 *	lease = 2000
 *	security = none
 *
 * The file is read first and the command line after it, so that the latter has
 * the last word.
 */

#include "coord/config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <ini.h>
#include <stdio.h>
#include <string.h>

static const char usage_text[] =
	"usage: memspan-coordinator [--listen ADDR:PORT] [--node-listen ADDR:PORT]\n"
	"           [--store FILE] [--lease MS] [--missing-grace MS]\n"
	"           [--link-patience MS] [--run-dir DIR] [--log-format text|json]\n"
	"           [--config FILE] [--insecure]\n"
	"\n"
	"Keep a cluster's membership, its spaces and the homes of their pages.\n"
	"\n"
	"  --listen ADDR:PORT       HTTP for people and programs (127.0.0.1:7070)\n"
	"  --node-listen ADDR:PORT  messages of nodes (127.0.0.1:7071);\n"
	"                           port 0 is any free one, for both\n"
	"  --store FILE             what outlives this process\n"
	"                           (coordinator.db in the run directory)\n"
	"  --lease MS               how long a node acts without us (2000)\n"
	"  --missing-grace MS       how long pages of a dead node are missing\n"
	"                           before they are lost (10000)\n"
	"  --link-patience MS       how long two living nodes may be cut off from\n"
	"                           each other (30000)\n"
	"  --run-dir DIR            coordinator.url, .pid and .db go there\n"
	"                           (/run/memspan; $XDG_RUNTIME_DIR/memspan)\n"
	"  --log-format FORMAT      text, or json: one object a line (text)\n"
	"  --config FILE            these options from a file, section\n"
	"                           [coordinator]; the command line comes first\n"
	"  --insecure               listen beyond loopback, though nobody has to\n"
	"                           say who he is\n"
	"  --help, --version        show this, or the version\n";

struct reading {
	struct config *cfg;
	struct errmsg em;
};

/* --- values -------------------------------------------------------------- */

static int read_ms(const char *text, uint64_t min, uint64_t max, uint64_t *ret,
                   struct errmsg *em)
{
	char *end;
	unsigned long long v;

	errno = 0;
	v = strtoull(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 ||
	    v < min || v > max)
		return errmsg_say(em, -EINVAL,
		                  "'%s' is not a number of milliseconds from "
		                  "%llu to %llu",
		                  text, (unsigned long long)min,
		                  (unsigned long long)max);
	*ret = v;
	return 0;
}

static bool address_ok(const char *host)
{
	uint8_t bytes[sizeof(struct in6_addr)];

	return inet_pton(AF_INET, host, bytes) == 1 ||
	       inet_pton(AF_INET6, host, bytes) == 1;
}

/* "ADDR:PORT", where ADDR is numeric; of version 6 in brackets. */
static int read_address(const char *text, struct address *ret,
                        struct errmsg *em)
{
	const char *colon = strrchr(text, ':'), *host = text;
	struct address a = { .host = "" };
	size_t n = colon ? (size_t)(colon - text) : 0;
	unsigned long port = 65536;
	char *end = NULL;

	if (n >= 2 && text[0] == '[' && text[n - 1] == ']') {
		host++;
		n -= 2;
	}
	if (n > 0 && n < sizeof(a.host)) {
		memcpy(a.host, host, n);
		if (colon[1] >= '0' && colon[1] <= '9')
			port = strtoul(colon + 1, &end, 10);
	}
	if (port > 65535 || *end != '\0' || !address_ok(a.host))
		return errmsg_say(em, -EINVAL,
		                  "'%s' is not ADDR:PORT with a numeric "
		                  "address, such as 127.0.0.1:7070 or "
		                  "[::1]:7070",
		                  text);
	a.port = (uint16_t)port;
	*ret = a;
	return 0;
}

static int read_path(const char *text, char *ret, size_t bytes,
                     struct errmsg *em)
{
	if (text[0] == '\0' || strlen(text) >= bytes)
		return errmsg_say(em, -EINVAL, "'%s' is no path", text);
	memcpy(ret, text, strlen(text) + 1);
	return 0;
}

static int read_one_of(const char *text, const char *no, const char *yes,
                       bool *ret, struct errmsg *em)
{
	if (strcmp(text, yes) == 0)
		*ret = true;
	else if (strcmp(text, no) == 0)
		*ret = false;
	else
		return errmsg_say(em, -EINVAL, "'%s' is neither %s nor %s",
		                  text, no, yes);
	return 0;
}

enum { OPT_CONFIG = 256, OPT_INSECURE, OPT_HELP, OPT_VERSION };

enum setting {
	SET_LISTEN,
	SET_NODE_LISTEN,
	SET_STORE,
	SET_LEASE,
	SET_MISSING_GRACE,
	SET_LINK_PATIENCE,
	SET_RUN_DIR,
	SET_LOG_FORMAT,
	SET_END,
};

static const struct option options[] = {
	{ "listen", required_argument, NULL, SET_LISTEN },
	{ "node-listen", required_argument, NULL, SET_NODE_LISTEN },
	{ "store", required_argument, NULL, SET_STORE },
	{ "lease", required_argument, NULL, SET_LEASE },
	{ "missing-grace", required_argument, NULL, SET_MISSING_GRACE },
	{ "link-patience", required_argument, NULL, SET_LINK_PATIENCE },
	{ "run-dir", required_argument, NULL, SET_RUN_DIR },
	{ "log-format", required_argument, NULL, SET_LOG_FORMAT },
	/* From here on: not settings of the file. */
	{ "config", required_argument, NULL, OPT_CONFIG },
	{ "insecure", no_argument, NULL, OPT_INSECURE },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ 0 },
};

static int set(struct config *cfg, enum setting setting, const char *value,
               struct errmsg *em)
{
	switch (setting) {
	case SET_LISTEN:
		return read_address(value, &cfg->listen, em);
	case SET_NODE_LISTEN:
		return read_address(value, &cfg->node_listen, em);
	case SET_STORE:
		return read_path(value, cfg->store, sizeof(cfg->store), em);
	case SET_LEASE:
		return read_ms(value, LEASE_MS_MIN, LEASE_MS_MAX,
		               &cfg->lease_ms, em);
	case SET_MISSING_GRACE:
		return read_ms(value, 0, LEASE_MS_MAX, &cfg->missing_grace_ms,
		               em);
	case SET_LINK_PATIENCE:
		return read_ms(value, 0, LEASE_MS_MAX, &cfg->link_patience_ms,
		               em);
	case SET_RUN_DIR:
		return read_path(value, cfg->run_dir, sizeof(cfg->run_dir), em);
	case SET_LOG_FORMAT:
		return read_one_of(value, "text", "json", &cfg->log_json, em);
	case SET_END:
		break;
	}
	return -EINVAL;
}

/* --- the file ------------------------------------------------------------ */

/* Is `key` of the file, with underscores, `name` of the command line? */
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
	if (strcmp(section, "coordinator") != 0)
		return 1;
	if (strcmp(key, "security") == 0)
		/* "tls" has a meaning once nodes authenticate one another. */
		return read_one_of(value, "loopback", "none",
		                   &rd->cfg->insecure, &rd->em) == 0;
	for (unsigned i = 0; i < SET_END; i++)
		if (same_name(key, options[i].name))
			return set(rd->cfg, (enum setting)i, value, &rd->em) ==
			       0;
	return errmsg_say(&rd->em, 0, "there is no setting '%s'", key);
}

static int read_file(struct config *cfg, const char *path)
{
	struct reading rd = { .cfg = cfg };
	int r = ini_parse(path, file_line, &rd);

	if (r == 0)
		return CONFIG_RUN;
	if (r < 0)
		fprintf(stderr, "memspan-coordinator: cannot read %s: %s\n",
		        path, strerror(errno));
	else
		fprintf(stderr, "memspan-coordinator: %s, line %d: %s\n", path,
		        r,
		        rd.em.text[0] != '\0' ? rd.em.text :
		                                "is no 'name = value'");
	return CONFIG_USAGE;
}

/* --- the command line ---------------------------------------------------- */

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

static int wrong(const char *option, const struct errmsg *em)
{
	fprintf(stderr, "memspan-coordinator: --%s: %s\n", option, em->text);
	return CONFIG_USAGE;
}

static int read_command(struct config *cfg, int argc, char **argv)
{
	struct errmsg em;
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
			puts("memspan-coordinator " MEMSPAN_VERSION);
			return CONFIG_DONE;
		case '?': /* getopt_long() has said what is wrong */
			fputs(usage_text, stderr);
			return CONFIG_USAGE;
		default:
			if (set(cfg, (enum setting)opt, optarg, &em) < 0)
				return wrong(options[opt].name, &em);
		}
	}
	if (optind < argc) {
		fprintf(stderr, "memspan-coordinator: '%s' is too much\n",
		        argv[optind]);
		fputs(usage_text, stderr);
		return CONFIG_USAGE;
	}
	return CONFIG_RUN;
}

/* --- defaults ------------------------------------------------------------ */

static bool loopback(const char *host)
{
	return strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0;
}

static int settle(struct config *cfg)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	const char *beyond = NULL;

	if (!loopback(cfg->listen.host))
		beyond = "--listen";
	else if (!loopback(cfg->node_listen.host))
		beyond = "--node-listen";
	if (beyond && !cfg->insecure) {
		fprintf(stderr,
		        "memspan-coordinator: %s is beyond loopback, where "
		        "anybody could command the cluster and read its "
		        "memory: nodes do not authenticate one another yet; "
		        "on a network that you trust say --insecure\n",
		        beyond);
		return CONFIG_USAGE;
	}
	if (cfg->run_dir[0] == '\0' && geteuid() == 0) {
		strcpy(cfg->run_dir, "/run/memspan");
	} else if (cfg->run_dir[0] == '\0') {
		if (!runtime || runtime[0] != '/' ||
		    strlen(runtime) + 16 > sizeof(cfg->run_dir)) {
			fprintf(stderr, "memspan-coordinator: XDG_RUNTIME_DIR "
			                "is not set; say --run-dir\n");
			return CONFIG_USAGE;
		}
		snprintf(cfg->run_dir, sizeof(cfg->run_dir), "%s/memspan",
		         runtime);
	}
	if (cfg->store[0] == '\0')
		snprintf(cfg->store, sizeof(cfg->store), "%s/coordinator.db",
		         cfg->run_dir);
	return CONFIG_RUN;
}

int config_read(struct config *cfg, int argc, char **argv)
{
	const char *file;
	int r = CONFIG_RUN;

	*cfg = (struct config){
		.listen = { "127.0.0.1", 7070 },
		.node_listen = { "127.0.0.1", 7071 },
		.missing_grace_ms = 10000,
		.link_patience_ms = 30000,
	};
	file = find_file(argc, argv);
	if (file)
		r = read_file(cfg, file);
	if (r == CONFIG_RUN)
		r = read_command(cfg, argc, argv);
	if (r == CONFIG_RUN)
		r = settle(cfg);
	return r;
}
