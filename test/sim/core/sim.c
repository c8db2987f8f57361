/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One run: a cluster from a seed, until its threads are done and all is at
 * rest. Prints a line for each run, and for a failure what replays it.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "sim.h"

#define EXTENTS    5u
#define STEPS      250u
#define EVENTS_MAX 200000000ull /* a run that never ends is a bug too */

static const char *const plant_name[] = {
	[PLANT_NONE] = "none",
	[PLANT_TWO_WRITERS] = "two-writers",
	[PLANT_LOST_WRITE] = "lost-write",
	[PLANT_ZEROS] = "zeros",
	[PLANT_LEAK] = "leak",
	[PLANT_LOST_WAKE] = "lost-wake",
	[PLANT_EPOCH_BACK] = "epoch-back",
	[PLANT_OVERTAKE] = "overtake",
	[PLANT_LATE_HINT] = "late-hint",
	[PLANT_UNCONFIRMED] = "unconfirmed",
	[PLANT_ONE_COPY] = "one-copy",
	[PLANT_SOLE_COPY] = "sole-copy",
	[PLANT_CARELESS] = "careless",
	[PLANT_STAGED_WRITABLE] = "staged-writable",
	[PLANT_UNCOUNTED] = "uncounted",
	[PLANT_LEAK_STAGED] = "leak-staged",
	[PLANT_NO_ROOM] = "no-room",
};

static const struct work *const all_work[] = { &work_random, &work_counter,
	                                       &work_pair, &work_scan,
	                                       &work_discard };

/* --- for all ----------------------------------------------------------- */

void *sim_alloc(size_t n, size_t size)
{
	void *p = calloc(n, size);

	if (p == NULL)
		abort();
	return p;
}

uint64_t sim_below(struct sim *s, uint64_t n)
{
	return prng_below(&s->random, n);
}

bool sim_one_in(struct sim *s, uint64_t n)
{
	return sim_below(s, n) == 0;
}

bool sim_plant(struct sim *s, enum plant p, uint64_t one_in)
{
	if (s->opt.plant != p || s->ops < 20 || !sim_one_in(s, one_in))
		return false;
	s->plant_done++;
	return true;
}

/* FNV-1a. */
void sim_trace(struct sim *s, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	const uint64_t v[] = { s->now, a, b, c, d };

	for (unsigned i = 0; i < ARRAY_SIZE(v); i++)
		for (unsigned k = 0; k < 64; k += 8)
			s->hash = (s->hash ^ (v[i] >> k & 0xff)) *
			          0x100000001b3ull;
}

void sim_fail(struct sim *s, const char *checker, const char *fmt, ...)
{
	va_list ap;

	if (s->failed_by[0] != '\0')
		return;
	snprintf(s->failed_by, sizeof(s->failed_by), "%s", checker);
	va_start(ap, fmt);
	vsnprintf(s->why, sizeof(s->why), fmt, ap);
	va_end(ap);
}

/* --- a failure can be replayed ----------------------------------------- */

static struct options running; /* for the handler of SIGABRT */

static int replay(char *buf, size_t n, const struct options *o)
{
	return snprintf(buf, n,
	                "replay: sim_core --seed %llu --nodes %u --steps %u "
	                "--messages %llu --delay %u --work %s --limit %d "
	                "--replicas %d --plant %s\n",
	                (unsigned long long)o->seed, o->nodes, o->steps,
	                (unsigned long long)o->messages, o->delay_us,
	                o->only == NULL ? "all" : o->only->name,
	                o->limit_percent, o->replicas, plant_name[o->plant]);
}

/* An assertion of the core failed: it ends us, but not without the seed. */
static void on_abort(int sig)
{
	char buf[256];
	int n = replay(buf, sizeof(buf), &running);

	(void)sig;
	if (write(STDOUT_FILENO, buf, (size_t)n) < 0)
		_exit(2);
}

/* --- one run ----------------------------------------------------------- */

static void choose(struct sim *s)
{
	const struct options *o = &s->opt;

	s->nodes = o->nodes != 0 ? o->nodes : 2 + (uint32_t)sim_below(s, 5);
	s->steps = o->steps != 0 ? o->steps : STEPS;
	s->us_base = sim_one_in(s, 2) ? UINT32_MAX - 50000u : 0;
	s->us_base += (uint32_t)sim_below(s, 100000);
	s->mishaps = o->delay_us == 0 && !sim_one_in(s, 4);
	s->deaths = s->mishaps && s->nodes > 2 && sim_one_in(s, 3);
	s->heal_at = (10 + sim_below(s, 90)) * NSEC_PER_MSEC;
	for (unsigned i = 0; i < ARRAY_SIZE(all_work); i++)
		if (o->only == all_work[i] ||
		    (o->only == NULL && !sim_one_in(s, 3)))
			s->work[s->works++] = all_work[i];
	if (s->works == 0)
		s->work[s->works++] = &work_random;
}

static void set_up(struct sim *s, const struct options *o)
{
	*s = (struct sim){ .opt = *o,
		           .hash = 0xcbf29ce484222325ull,
		           .at_work = true,
		           .scan_pages = 256 };
	prng_init(&s->random, o->seed);
	choose(s);
	/* The last extent is partial. */
	cut_init(&s->cut, (EXTENTS * EXTENT_PAGES - 7ull) * PAGE_BYTES);
	s->truth = sim_alloc(s->cut.pages, sizeof(s->truth[0]));
	net_init(s);
	coord_init(s);
	for (uint32_t i = 0; i < s->nodes; i++)
		node_init(s, (node_id)i);
	evict_init(s);
	fault_init(s);
	clock_put(s, 0, (struct event){ .kind = EV_WATCH });
}

static void tear_down(struct sim *s)
{
	for (uint32_t i = 0; i < s->nodes; i++)
		node_free(s->node[i]);
	net_free(s);
	coord_free(s);
	clock_free(&s->clock);
	free(s->truth);
}

static void revive(struct node *n)
{
	for (unsigned c = 0; c < n->clients; c++)
		thread_client_revives(n, c);
}

static void run_thread(struct node *n, const struct event *e)
{
	struct thread *t = &n->thread[e->other];

	if (!n->dead && t->state == THREAD_READY && t->faults == e->arg)
		thread_run(t);
}

static void handle(struct sim *s, struct event *e)
{
	struct node *n = s->node[e->node];

	switch (e->kind) {
	case EV_DELIVER:
	case EV_ACKED:
	case EV_FAULT:
	case EV_DEFER:
	case EV_LATER:
	case EV_EVICT:
	case EV_EXTENTS:
	case EV_MEMBERS:
		node_event(n, e);
		break;
	case EV_RUN:
		run_thread(n, e);
		break;
	case EV_CLAIM:
	case EV_CLAIMED:
	case EV_UP:
	case EV_JOIN:
	case EV_DEAD:
		coord_event(s, e);
		break;
	case EV_MISHAP:
		fault_mishap(s);
		break;
	case EV_REVIVE:
		revive(n);
		break;
	case EV_WATCH:
		check_live(s);
		break;
	}
	free(e->p);
}

static void run(struct sim *s, const struct options *o)
{
	uint64_t events = 0;
	struct event e;

	running = *o;
	set_up(s, o);
	while (s->failed_by[0] == '\0' && clock_take(s, &e)) {
		sim_trace(s, e.kind, e.node, e.other, e.arg);
		handle(s, &e);
		if (++events == EVENTS_MAX)
			sim_fail(s, "check_live", "the run never ends");
	}
	/* All is at rest: nothing is under way any more. */
	if (s->failed_by[0] == '\0') {
		check_live_end(s);
		check_swmr_end(s);
		check_value_end(s);
		check_frames_end(s);
		check_limit_end(s);
	}
	tear_down(s);
}

/* --- many runs --------------------------------------------------------- */

struct plan {
	struct options opt;
	uint64_t first, last;
	const char *seeds;  /* a file of seeds, or NULL */
	const char *expect; /* the checker that must find something */
	uint64_t wait_max_ms;
	bool twice;
};

static void say(const struct sim *s)
{
	printf("seed %llu: %u nodes, %llu steps, %llu messages, %llu local, "
	       "%.1f ms, longest wait %.1f ms%s",
	       (unsigned long long)s->opt.seed, s->nodes,
	       (unsigned long long)s->ops, (unsigned long long)s->net.messages,
	       (unsigned long long)s->net.local, (double)s->now / 1e6,
	       (double)s->wait_max / 1e6, s->dead > 0 ? ", a node died" : "");
	if (s->limited)
		printf(", %llu evicted, %llu refused, %llu put back",
		       (unsigned long long)s->evictions,
		       (unsigned long long)s->refusals,
		       (unsigned long long)s->put_back);
	if (s->starved > 0)
		printf(", %u threads had no memory", s->starved);
	printf(", hash %016llx\n", (unsigned long long)s->hash);
}

/* True: the run did what was expected of it. */
static bool one(const struct plan *p, uint64_t seed, bool *found)
{
	struct options o = p->opt;
	static struct sim s, again;
	char how[256];

	o.seed = seed;
	run(&s, &o);
	if (p->twice) {
		run(&again, &o);
		if (again.hash != s.hash) {
			printf("seed %llu: not the same run twice\n",
			       (unsigned long long)seed);
			return false;
		}
	}
	if (s.failed_by[0] != '\0') {
		*found = p->expect != NULL &&
		         strcmp(p->expect, s.failed_by) == 0;
		(void)replay(how, sizeof(how), &o);
		printf("%s: %s (at %.3f ms)\n%s", s.failed_by, s.why,
		       (double)s.now / 1e6, how);
		return *found;
	}
	say(&s);
	if (p->wait_max_ms == 0)
		return true;
	printf("one way %u us: longest wait %.1f ms, at most %llu ms\n",
	       o.delay_us, (double)s.wait_max / 1e6,
	       (unsigned long long)p->wait_max_ms);
	return s.wait_max <= p->wait_max_ms * NSEC_PER_MSEC;
}

static int run_file(const struct plan *p)
{
	FILE *f = fopen(p->seeds, "re");
	char line[128];
	bool found = false, ok = true;

	if (f == NULL)
		return 2;
	while (fgets(line, sizeof(line), f) != NULL) {
		struct plan q = *p;
		unsigned long long seed;
		unsigned nodes = 0, steps = 0;
		int limit = -1, replicas = -1;

		if (line[0] == '#' ||
		    sscanf(line, "%llu %u %u %d %d", &seed, &nodes, &steps,
		           &limit, &replicas) < 1)
			continue;
		q.opt.nodes = nodes;
		q.opt.steps = steps;
		q.opt.limit_percent = limit;
		q.opt.replicas = replicas;
		ok = one(&q, seed, &found) && ok;
	}
	fclose(f);
	return ok ? 0 : 1;
}

static int run_all(const struct plan *p)
{
	bool found = false;

	if (p->seeds != NULL)
		return run_file(p);
	for (uint64_t seed = p->first; seed <= p->last && !found; seed++)
		if (!one(p, seed, &found))
			return 1;
	if (p->expect == NULL || found)
		return 0;
	printf("%s found nothing\n", p->expect);
	return 1;
}

/* --- the command line -------------------------------------------------- */

static int usage(void)
{
	printf("usage: sim_core [--seed N | --seeds A-B | --file FILE] [--nodes N]\n"
	       "           [--steps N] [--messages N] [--work NAME] "
	       "[--delay US]\n"
	       "           [--limit PERCENT] [--replicas N]\n"
	       "           [--plant KIND] [--expect CHECKER] [--twice]\n"
	       "           [--wait-max MS] [--verbose]\n");
	return 2;
}

static bool plant_of(const char *name, enum plant *ret)
{
	for (unsigned i = 0; i < ARRAY_SIZE(plant_name); i++) {
		if (strcmp(name, plant_name[i]) != 0)
			continue;
		*ret = (enum plant)i;
		return true;
	}
	return false;
}

static bool work_of(const char *name, const struct work **ret)
{
	for (unsigned i = 0; i < ARRAY_SIZE(all_work); i++) {
		if (strcmp(name, all_work[i]->name) != 0)
			continue;
		*ret = all_work[i];
		return true;
	}
	return strcmp(name, "all") == 0;
}

static bool take_option(struct plan *p, int c)
{
	uint64_t n = strtoull(optarg == NULL ? "0" : optarg, NULL, 10);

	switch (c) {
	case 's':
		p->first = p->last = n;
		return true;
	case 'S':
		p->first = n;
		p->last = strchr(optarg, '-') == NULL ?
		                  n :
		                  strtoull(strchr(optarg, '-') + 1, NULL, 10);
		return true;
	case 'f':
		p->seeds = optarg;
		return true;
	case 'n':
		p->opt.nodes = (uint32_t)n;
		return n == 0 || (n >= 2 && n <= SIM_NODES_MAX);
	case 't':
		p->opt.steps = (uint32_t)n;
		return true;
	case 'm':
		p->opt.messages = n;
		return true;
	case 'w':
		return work_of(optarg, &p->opt.only);
	case 'd':
		p->opt.delay_us = (uint32_t)n;
		return true;
	case 'l':
		p->opt.limit_percent = (int32_t)n;
		return n == 0 || n >= 100;
	case 'r':
		p->opt.replicas = (int32_t)n;
		return n <= 2; /* three and the evictor need a pooled set */
	case 'p':
		return plant_of(optarg, &p->opt.plant);
	case 'e':
		p->expect = optarg;
		return true;
	case '2':
		p->twice = true;
		return true;
	case 'x':
		p->wait_max_ms = n;
		return true;
	case 'v':
		p->opt.verbose = true;
		return true;
	default:
		return false;
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seed", required_argument, NULL, 's' },
		{ "seeds", required_argument, NULL, 'S' },
		{ "file", required_argument, NULL, 'f' },
		{ "nodes", required_argument, NULL, 'n' },
		{ "steps", required_argument, NULL, 't' },
		{ "messages", required_argument, NULL, 'm' },
		{ "work", required_argument, NULL, 'w' },
		{ "delay", required_argument, NULL, 'd' },
		{ "limit", required_argument, NULL, 'l' },
		{ "replicas", required_argument, NULL, 'r' },
		{ "plant", required_argument, NULL, 'p' },
		{ "expect", required_argument, NULL, 'e' },
		{ "twice", no_argument, NULL, '2' },
		{ "wait-max", required_argument, NULL, 'x' },
		{ "verbose", no_argument, NULL, 'v' },
		{ 0 },
	};
	struct plan p = { .opt = { .limit_percent = -1, .replicas = -1 },
		          .first = 1,
		          .last = 1 };
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		if (!take_option(&p, c))
			return usage();
	signal(SIGABRT, on_abort);
	return run_all(&p);
}
