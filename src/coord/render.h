/* SPDX-License-Identifier: Apache-2.0 */
/* The documents that HTTP shows: docs/openapi.yaml has their schemas. */
#pragma once

#include "coord/coord.h"
#include "coord/text.h"

void render_cluster(struct text *t, const struct coord *c);
void render_node(struct text *t, const struct coord *c, const struct node *n);
void render_nodes(struct text *t, const struct coord *c);
void render_space(struct text *t, const struct coord *c, struct space *sp);
void render_spaces(struct text *t, const struct coord *c);
