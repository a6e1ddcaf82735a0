/* SPDX-License-Identifier: Apache-2.0 */
/* What a node tells about itself, for pdctl and for the status page: each
 * function adds one part to a view (base/view.h), which makes it a table for
 * people or JSON for programs.  Nothing here changes the node or blocks.  Loop
 * thread. */
#ifndef PD_NODE_REPORT_H
#define PD_NODE_REPORT_H

#include "base/view.h"
#include "node/node.h"

/* Rows that a list shows when nobody says how many. */
#define PD_REPORT_ROWS 50u
#define PD_REPORT_ROWS_MAX 4096u

/* Who the node is, its state, its parts, its books and loop: object "node",
 * "requests_total", "loop", table "parts". */
void pd_report_status(struct pd_node *node, struct pd_view *v);
/* Tables "engines", "listen", "nodes", "endpoints", "modules". */
void pd_report_engines(struct pd_node *node, struct pd_view *v);
void pd_report_listen(struct pd_node *node, struct pd_view *v);
void pd_report_nodes(struct pd_node *node, struct pd_view *v);
void pd_report_endpoints(struct pd_node *node, struct pd_view *v);
void pd_report_modules(struct pd_node *node, struct pd_view *v);
/* Tables "sources" and "entries" of discovery. */
void pd_report_sources(struct pd_node *node, struct pd_view *v);
void pd_report_entries(struct pd_node *node, struct pd_view *v);
/* Table "generations", object "reloads". */
void pd_report_generations(struct pd_node *node, struct pd_view *v);
enum pd_report_order { PD_REPORT_NEWEST = 0, PD_REPORT_SLOWEST = 1 };
/* Table "requests", at most max rows: live ones, then finished ones from the
 * newest on, or all from the slowest on.  PD_OK, PD_ENOMEM. */
pd_status pd_report_requests(struct pd_node *node, struct pd_view *v, uint32_t max,
                             enum pd_report_order order);
/* Tables "transfers" and "leases", at most max rows each; PD_OK, PD_ENOMEM. */
pd_status pd_report_transfers(struct pd_node *node, struct pd_view *v, uint32_t max);
pd_status pd_report_leases(struct pd_node *node, struct pd_view *v, uint32_t max);
/* Object "request", table "stages" (where its time went) and list "steps" (why it
 * went where it went).  PD_OK,
 * PD_ENOENT: no record has this id. */
pd_status pd_report_explain(struct pd_node *node, struct pd_view *v, struct pd_str id);

#endif
