/* SPDX-License-Identifier: Apache-2.0 */
/* The status page of the admin listener: /status, /status.json and
 * /status/explain.json.  Reads only.  Loop thread. */
#ifndef PD_NODE_STATUS_H
#define PD_NODE_STATUS_H

#include <stddef.h>

#include "node/node.h"

/* status.html as built into the program, and the policy that fits it. */
extern const char pd_node_status_page[];
extern const size_t pd_node_status_page_size;
extern const char pd_node_status_page_csp[];

/* Adds the routes; returns what pd_http_server_route gave. */
pd_status pd_node_status_routes(struct pd_node *node);

#endif
