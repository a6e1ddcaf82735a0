/* SPDX-License-Identifier: Apache-2.0 */
/* What operators and their tools read over HTTP: /health (alive), /ready (can do
 * its work).  /status is in status.c, /metrics is an exporter's. */
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "node/node.h"
#include "node/status.h"

static const struct pd_http_header text_type[] = {
    { { "content-type", 12 }, { "text/plain; charset=utf-8", 25 } },
};

static void on_health(struct pd_http_req *req, void *arg)
{
    (void)arg;
    pd_http_respond(req, 200, text_type, 1, PD_STR("ok\n"));
}

static void on_ready(struct pd_http_req *req, void *arg)
{
    struct pd_node *node = arg;
    const struct pd_node_part *part = NULL;
    char text[200];
    if (pd_node_is_ready(node, &part) && !node->is_draining) {
        pd_http_respond(req, 200, text_type, 1, PD_STR("ready\n"));
        return;
    }
    int n = snprintf(text, sizeof text, "not ready: %s%s%s\n", part != NULL ? part->name : "the node",
                     part != NULL ? ": " : "", part != NULL ? part->reason : " is starting or draining");
    pd_http_respond(req, 503, text_type, 1, (struct pd_str){ text, (size_t)n });
}

pd_status pd_node_admin_routes(struct pd_node *node)
{
    const struct pd_http_route routes[] = {
        { .path = "/health", .methods = 1u << PD_HTTP_GET, .flags = PD_HTTP_ROUTE_ALWAYS,
          .on_request = on_health, .arg = node },
        { .path = "/ready", .methods = 1u << PD_HTTP_GET, .flags = PD_HTTP_ROUTE_ALWAYS,
          .on_request = on_ready, .arg = node },
    };
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        pd_status status = pd_http_server_route(node->net.admin, &routes[i]);
        if (status != PD_OK)
            return status;
    }
    return pd_node_status_routes(node);
}
