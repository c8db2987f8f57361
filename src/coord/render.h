/* SPDX-License-Identifier: Apache-2.0 */
/* The documents that HTTP shows: docs/openapi.yaml has their schemas. */
#pragma once

#include <jansson.h>

#include "coord/coord.h"

/* Each returns a new reference, or NULL for want of memory. */
json_t *render_cluster(const struct coord *c);
json_t *render_node(const struct coord *c, const struct node *n);
json_t *render_nodes(const struct coord *c);
json_t *render_space(const struct coord *c, const struct space *sp);
json_t *render_spaces(const struct coord *c);

/* The id of a cluster as people write a UUID. */
void render_uuid(const uint8_t id[16], char text[37]);
/* The id, or null for "nobody" and for a home that is lost. */
json_t *render_home(node_id home);
