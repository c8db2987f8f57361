/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The documents of a renewal, of any bytes: after a '?' what a node says, as
 * the coordinator reads it; after anything else the answer, as a node does.
 * Refused with nothing changed, or what is remembered is within its bounds.
 */

#include <jansson.h>
#include <string.h>

#include "coord/figures.h"
#include "node/link.h"

#define ROOM_BEFORE 12345u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void question(const uint8_t *data, size_t size)
{
	struct figures f = { .room_pages = ROOM_BEFORE };
	json_t *peers;
	struct errmsg em;

	if (figures_read(&f, data, size, &em) < 0) {
		if (f.room_pages != ROOM_BEFORE || f.peers || f.spaces)
			abort();
		return;
	}
	peers = json_loads(f.peers, 0, NULL);
	if (!json_is_array(peers) || json_array_size(peers) > NODES_MAX ||
	    f.capacity_bytes > MEMORY_BYTES_MAX ||
	    f.room_pages > MEMORY_BYTES_MAX / PAGE_BYTES)
		abort();
	for (size_t i = 0; i < f.n_spaces; i++)
		if (f.spaces[i].id == 0)
			abort();
	json_decref(peers);
	figures_done(&f);
}

static void answer(const uint8_t *data, size_t size)
{
	static struct node n;
	int r;

	n.id = 1;
	for (unsigned i = 0; i < NODES_MAX; i++)
		atomic_store(&n.peer_room[i], ROOM_BEFORE);
	r = link_room_doc(data, (uint32_t)size, &n);
	if (r == 0 && atomic_load(&n.peer_room[n.id]) != 0)
		abort();
	for (unsigned i = 0; r < 0 && i < NODES_MAX; i++)
		if (atomic_load(&n.peer_room[i]) != ROOM_BEFORE)
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0 || size > UINT32_MAX)
		return 0;
	if (data[0] == '?')
		question(data + 1, size - 1);
	else
		answer(data + 1, size - 1);
	return 0;
}
