/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node's memfd and its clients' mappings, as the kernel has them: a page is
 * mapped only if the memfd has it, punching unmaps it everywhere, and whoever
 * holds the alias reads what is there.
 */
#include <string.h>

#include "sim.h"

void mem_init(struct node *n)
{
	struct memory *m = &n->mem;
	size_t pages = n->sim->cut.pages;

	m->bytes = sim_alloc(pages, sizeof(m->bytes[0]));
	m->before = sim_alloc(pages, sizeof(m->before[0]));
	m->present = sim_alloc(pages, sizeof(m->present[0]));
	m->poisoned = sim_alloc(pages, sizeof(m->poisoned[0]));
	for (unsigned c = 0; c < CLIENTS_MAX; c++)
		m->map[c] = sim_alloc(pages, 1);
}

void mem_free(struct node *n)
{
	free(n->mem.bytes);
	free(n->mem.before);
	free(n->mem.present);
	free(n->mem.poisoned);
	for (unsigned c = 0; c < CLIENTS_MAX; c++)
		free(n->mem.map[c]);
}

enum rights mem_rights(const struct node *n, gpn_t page)
{
	uint8_t r = RIGHTS_NONE;

	for (unsigned c = 0; c < n->clients; c++)
		if (n->mem.map[c][page] > r)
			r = n->mem.map[c][page];
	return (enum rights)r;
}

uint64_t mem_alias(struct node *n, gpn_t page)
{
	if (!n->mem.present[page])
		sim_fail(n->sim, "check_value",
		         "node %u reads its alias of page %llu, which it does "
		         "not have: that makes zeros",
		         n->id, (unsigned long long)page);
	return n->mem.bytes[page];
}

uint64_t mem_bytes(struct node *n, gpn_t page)
{
	const struct page_entry *p = &n->page[page];

	return page_staged(p) ? n->frame[p->frame] : mem_alias(n, page);
}

static void put_bytes(struct node *n, gpn_t page, uint64_t bytes)
{
	if (n->mem.present[page])
		sim_fail(n->sim, "check_value",
		         "node %u installs page %llu over the one it has",
		         n->id, (unsigned long long)page);
	n->mem.present[page] = true;
	n->mem.pages++;
	n->mem.poisoned[page] = false;
	n->mem.bytes[page] = n->mem.before[page] = bytes;
	check_limit(n);
}

static void map(struct node *n, gpn_t page, unsigned client, enum rights r)
{
	n->mem.map[client][page] = (uint8_t)r;
	check_swmr(n->sim, page);
}

void mem_keep(struct node *n, gpn_t page, uint64_t bytes)
{
	put_bytes(n, page, bytes);
}

void mem_install(struct node *n, gpn_t page, uint64_t bytes, enum rights r)
{
	struct thread *t = thread_first(n, page);
	unsigned client = t == NULL ? 0 : t->client;
	unsigned others;

	if (bytes != 0 && sim_plant(n->sim, PLANT_ZEROS, 64))
		bytes = 0;
	put_bytes(n, page, bytes);
	map(n, page, client, r);
	others = thread_wake(n, page) & ~(1u << client);
	for (unsigned c = 0; c < n->clients; c++)
		if ((others >> c & 1) != 0)
			map(n, page, c, r);
}

void mem_map(struct node *n, gpn_t page, unsigned client)
{
	(void)mem_alias(n, page);
	map(n, page, client,
	    n->page[page].state == PAGE_M ? RIGHTS_WRITE : RIGHTS_READ);
}

void mem_protect(struct node *n, gpn_t page)
{
	if (sim_plant(n->sim, PLANT_TWO_WRITERS, 16))
		return;
	for (unsigned c = 0; c < n->clients; c++)
		if (n->mem.map[c][page] == RIGHTS_WRITE)
			n->mem.map[c][page] = RIGHTS_READ;
}

void mem_unprotect(struct node *n, gpn_t page)
{
	(void)thread_wake(n, page);
	for (unsigned c = 0; c < n->clients; c++)
		if (n->mem.map[c][page] == RIGHTS_READ)
			map(n, page, c, RIGHTS_WRITE);
}

void mem_punch(struct node *n, gpn_t page)
{
	n->mem.pages -= n->mem.present[page];
	n->mem.present[page] = false;
	for (unsigned c = 0; c < n->clients; c++)
		n->mem.map[c][page] = RIGHTS_NONE;
}

void mem_poison(struct node *n, gpn_t page)
{
	n->mem.poisoned[page] = true;
	(void)thread_wake(n, page);
}
