/* SPDX-License-Identifier: Apache-2.0 */
/* What operators and their tools read over HTTP: /metrics, /health (alive),
 * /ready (can do its work).  /status is in status.c. */
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "node/node.h"
#include "node/status.h"

#define METRICS_MAX (16u << 20)

static const struct pd_http_header text_type[] = {
    { { "content-type", 12 }, { "text/plain; charset=utf-8", 25 } },
};

static void on_metrics(struct pd_http_req *req, void *arg)
{
    struct pd_node *node = arg;
    struct pd_str accept = pd_http_req_header(req, "accept");
    bool is_open = accept.p != NULL &&
                   pd_str_find(accept, PD_STR("application/openmetrics-text")) != PD_STR_NPOS;
    enum pd_metric_format format = is_open ? PD_METRIC_OPENMETRICS : PD_METRIC_PROMETHEUS;
    struct pd_buf out;
    pd_buf_init(&out, METRICS_MAX);
    pd_node_metrics_refresh(node);
    if (pd_metrics_expose(node->metrics, format, &out) == PD_OK) {
        struct pd_http_header type = { PD_STR("content-type"),
                                       pd_str_from(pd_metric_content_type(format)) };
        pd_http_respond(req, 200, &type, 1, pd_buf_str(&out));
    } else {
        pd_http_error(req, 503, "server_error", "overloaded", "out of memory", NULL);
    }
    pd_buf_fini(&out);
}

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
        { .path = "/metrics", .methods = 1u << PD_HTTP_GET, .flags = PD_HTTP_ROUTE_ALWAYS,
          .on_request = on_metrics, .arg = node },
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
