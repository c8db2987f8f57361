/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads of clients.  A step needs one page, or two at once (one instruction
 * across a page boundary): it runs if the client's mappings allow all of it,
 * else the first page that is missing faults.
 */
#include "sim.h"

/* The kernel queues a fault, the node's loop wakes and reads it. */
#define FAULT_NS (1 * NSEC_PER_USEC)
/* A thread is woken; beside others it may wait for a CPU. */
#define WAKE_NS  (1 * NSEC_PER_USEC)
#define LONG_NS  (5 * NSEC_PER_MSEC)
#define THINK_NS (20 * NSEC_PER_USEC)

void thread_init(struct node *n, unsigned i)
{
	struct thread *t = &n->thread[i];

	*t = (struct thread){
		.node = n,
		.index = (uint8_t)i,
		.client = (uint8_t)(i % n->clients),
		.state = THREAD_OFF,
		.hash = (uint16_t)(1 + (n->id * 97u + i * 13u) %
		                               (PAGE_THREADS - 1)),
		.left = n->sim->steps,
	};
}

static nsec_t wake_time(struct sim *s)
{
	if (s->opt.delay_us == 0 && sim_one_in(s, 1000))
		return sim_below(s, LONG_NS);
	return WAKE_NS + sim_below(s, 4 * WAKE_NS);
}

static void ready(struct thread *t, nsec_t in_ns)
{
	t->state = THREAD_READY;
	clock_put(t->node->sim, in_ns,
	          (struct event){ .kind = EV_RUN,
	                          .node = t->node->id,
	                          .other = t->index,
	                          .arg = t->faults });
}

/* What it does next, or nothing. */
static bool next_op(struct thread *t)
{
	struct sim *s = t->node->sim;
	const struct work *w = s->work[sim_below(s, s->works)];

	t->waiting = false;
	if (t->left == 0 && s->net.messages >= s->opt.messages) {
		t->state = THREAD_DONE;
		return false;
	}
	t->left -= t->left > 0;
	t->op = (struct op){ .work = w, .n = 1 };
	w->next(s, t, &t->op);
	return true;
}

void thread_start(struct thread *t)
{
	if (t->state == THREAD_OFF && next_op(t))
		ready(t, sim_below(t->node->sim, THINK_NS));
}

/* Poisoned: the thread gets SIGBUS, and goes on without that step. */
static bool poisoned(struct thread *t)
{
	for (unsigned i = 0; i < t->op.n; i++) {
		if (!t->node->mem.poisoned[t->op.page[i]])
			continue;
		check_value_lost(t, t->op.page[i]);
		return true;
	}
	return false;
}

/* The first page of the step that is not mapped as it needs; NULL: none. */
static const gpn_t *missing(const struct thread *t)
{
	const uint8_t *map = t->node->mem.map[t->client];
	uint8_t need = t->op.kind == OP_READ ? RIGHTS_READ : RIGHTS_WRITE;

	for (unsigned i = 0; i < t->op.n; i++)
		if (map[t->op.page[i]] < need)
			return &t->op.page[i];
	return NULL;
}

static void store(struct thread *t, gpn_t page)
{
	struct memory *m = &t->node->mem;
	uint64_t old = m->bytes[page];
	uint64_t id = (uint64_t)t->node->id * THREADS_MAX + t->index + 1;

	if (t->op.kind == OP_ADD) {
		check_value_read(t, page, old);
		m->bytes[page] = old + 1;
	} else {
		m->bytes[page] = id << 32 | ++t->writes;
	}
	m->before[page] = old;
	check_value_write(t, page, m->bytes[page], t->op.kind == OP_ADD);
}

static void perform(struct thread *t)
{
	struct sim *s = t->node->sim;

	if (t->waiting)
		check_live_waited(t);
	for (unsigned i = 0; i < t->op.n; i++) {
		gpn_t page = t->op.page[i];

		check_swmr(s, page);
		if (t->op.kind == OP_READ)
			check_value_read(t, page, t->node->mem.bytes[page]);
		else
			store(t, page);
	}
	s->ops++;
	sim_trace(s, t->op.kind, t->node->id, t->index, t->op.page[0]);
}

static void discard(struct thread *t)
{
	struct node *n = t->node;
	struct discard *d = &n->discard;

	if (d->on) { /* one at a time */
		ready(t, 100 * NSEC_PER_USEC);
		return;
	}
	t->state = THREAD_DISCARDS;
	*d = (struct discard){ .on = true,
		               .thread = t->index,
		               .base = t->op.page[0],
		               .mask = (1ull << t->op.pages) - 1 };
	/* The daemon hears it over a socket, like anything that is due. */
	node_later(n);
}

void thread_discarded(struct node *n, unsigned i)
{
	struct thread *t = &n->thread[i];

	if (t->state != THREAD_DISCARDS)
		return; /* its client died meanwhile */
	check_live_waited(t);
	n->sim->ops++;
	if (next_op(t))
		ready(t, wake_time(n->sim));
}

static void wait_from_now(struct thread *t)
{
	if (!t->waiting)
		t->since = t->node->sim->now;
	t->waiting = true;
}

void thread_run(struct thread *t)
{
	struct sim *s = t->node->sim;
	const gpn_t *page;

	if (t->op.kind == OP_DISCARD) {
		wait_from_now(t);
		discard(t);
		return;
	}
	if (poisoned(t)) {
		if (next_op(t))
			ready(t, THINK_NS);
		return;
	}
	page = missing(t);
	if (page == NULL) {
		perform(t);
		if (next_op(t))
			ready(t, 1 + sim_below(s, THINK_NS));
		return;
	}
	wait_from_now(t);
	t->state = THREAD_FAULTED;
	t->page = *page;
	t->write = t->op.kind != OP_READ;
	t->faults++;
	clock_put(s, FAULT_NS + sim_below(s, 4 * FAULT_NS),
	          (struct event){ .kind = EV_FAULT,
	                          .node = t->node->id,
	                          .other = t->index,
	                          .arg = t->faults });
}

void thread_fault(struct thread *t, uint64_t number)
{
	/* What wakes a thread takes its message off the kernel's queue. */
	if (t->state != THREAD_FAULTED || t->faults != number)
		return;
	t->state = THREAD_WAITS;
	t->node->hints[t->hash].waits++;
	holder_wants(t->node, t->page, t->hash);
	node_touch(t->node, t);
}

struct thread *thread_first(struct node *n, gpn_t page)
{
	for (uint32_t i = 0; i < n->threads; i++)
		if (n->thread[i].state == THREAD_WAITS &&
		    n->thread[i].page == page)
			return &n->thread[i];
	return NULL;
}

unsigned thread_wake(struct node *n, gpn_t page)
{
	unsigned clients = 0;

	for (uint32_t i = 0; i < n->threads; i++) {
		struct thread *t = &n->thread[i];

		if ((t->state != THREAD_WAITS && t->state != THREAD_FAULTED) ||
		    t->page != page)
			continue;
		if (t->state == THREAD_WAITS) {
			clients |= 1u << t->client;
			n->hints[t->hash].waits--;
			n->hints[t->hash].us = now_us(n->sim);
		}
		t->parked = PARKED_NOT;
		t->faults++;
		t->state = THREAD_READY;
		if (!sim_plant(n->sim, PLANT_LOST_WAKE, 256))
			ready(t, wake_time(n->sim));
	}
	return clients;
}

void thread_race(struct node *n, gpn_t page)
{
	for (uint32_t i = 0; i < n->threads; i++) {
		struct thread *t = &n->thread[i];
		bool same = t->op.page[0] == page ||
		            (t->op.n == 2 && t->op.page[1] == page);

		if (t->state != THREAD_READY || t->op.kind == OP_DISCARD ||
		    !same || !sim_one_in(n->sim, 2) || poisoned(t) ||
		    missing(t) != NULL)
			continue;
		perform(t);
		(void)next_op(t); /* it is under way to its next step */
	}
}

void thread_starves(struct thread *t)
{
	if (t->state == THREAD_WAITS)
		t->node->hints[t->hash].waits--;
	t->state = THREAD_DONE;
	t->parked = PARKED_NOT;
	t->faults++;
	t->node->sim->starved++;
}

/* --- a client that dies, and its successor ----------------------------- */

void thread_client_dies(struct node *n, unsigned client)
{
	for (uint32_t i = 0; i < n->threads; i++) {
		struct thread *t = &n->thread[i];

		if (t->client != client || t->state == THREAD_DONE)
			continue;
		if (t->state == THREAD_WAITS)
			n->hints[t->hash].waits--;
		t->state = THREAD_OFF;
		t->parked = PARKED_NOT;
		t->waiting = false;
		t->faults++;
	}
	for (gpn_t p = 0; p < n->sim->cut.pages; p++)
		n->mem.map[client][p] = RIGHTS_NONE;
}

void thread_client_revives(struct node *n, unsigned client)
{
	for (uint32_t i = 0; i < n->threads; i++)
		if (n->thread[i].client == client && !n->dead)
			thread_start(&n->thread[i]);
}
