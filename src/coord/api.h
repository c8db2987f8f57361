/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The HTTP interface: docs/openapi.yaml says what each request means; here is
 * who answers it.
 */
#pragma once

#include "coord/coord.h"
#include "coord/http.h"

/* http.h's handler; arg: struct coord. */
void api_handle(struct request *rq, void *arg);

/* `name`: the part of the path that the pattern leaves open, or NULL. */
typedef void api_handler(struct coord *c, struct request *rq, const char *name);

/* api_nodes.c */
api_handler api_nodes_list, api_node_register, api_node_show, api_node_delete;
api_handler api_endpoint_show, api_endpoint_set, api_endpoints_list;

/* api_spaces.c */
api_handler api_spaces_list, api_space_create, api_space_show, api_space_delete;

/* api_map.c; `gpn` is the last part of the path. */
api_handler api_map_show;
void api_page_show(struct coord *c, struct request *rq, const char *name,
                   const char *gpn);

/*
 * Helpers of the handlers.  Each answers the request itself where it says so.
 */
/* The node that `name` means, or NULL: 404 was answered. */
struct node *api_node(struct coord *c, struct request *rq, const char *name);
/* The space, or NULL: 404 was answered. */
struct space *api_space(struct coord *c, struct request *rq, const char *name);
/* True if the store took a change; else 503 or 507 was answered. */
bool api_store_ok(struct coord *c, struct request *rq, int r,
                  const struct errmsg *em);
/* A number in the URL: false if it is none up to `max`. */
bool api_number(const char *text, uint64_t max, uint64_t *ret);
