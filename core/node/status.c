/* SPDX-License-Identifier: Apache-2.0 */
/* Serves the status page and its data.  The page is constant; what it shows
 * comes from the same reports as pdctl, as JSON. */
#include "node/status.h"

#include "base/compiler.h"
#include "base/status.h"
#include "base/str.h"
#include "node/report.h"

#define JSON_MAX (8u << 20)
#define ROWS 100u

static const struct pd_http_header json_headers[] = {
    { { "content-type", 12 }, { "application/json", 16 } },
    { { "cache-control", 13 }, { "no-store", 8 } },
    { { "x-content-type-options", 22 }, { "nosniff", 7 } },
};

static void on_page(struct pd_http_req *req, void *arg)
{
    const struct pd_http_header headers[] = {
        { PD_STR("content-type"), PD_STR("text/html; charset=utf-8") },
        { PD_STR("cache-control"), PD_STR("no-store") },
        { PD_STR("content-security-policy"), pd_str_from(pd_node_status_page_csp) },
        { PD_STR("x-content-type-options"), PD_STR("nosniff") },
        { PD_STR("referrer-policy"), PD_STR("no-referrer") },
    };
    (void)arg;
    pd_http_respond(req, 200, headers, PD_ARRAY_LEN(headers),
                    pd_str_of(pd_node_status_page, pd_node_status_page_size));
}

static void respond(struct pd_http_req *req, pd_status status, struct pd_buf *out)
{
    if (status == PD_OK)
        pd_http_respond(req, 200, json_headers, PD_ARRAY_LEN(json_headers), pd_buf_str(out));
    else if (status == PD_ENOENT)
        pd_http_error(req, 404, NULL, "not_found", "no request with this id is remembered", "id");
    else
        pd_http_error(req, 503, NULL, "overloaded", "the answer does not fit into memory", NULL);
    pd_buf_fini(out);
}

static void on_data(struct pd_http_req *req, void *arg)
{
    struct pd_node *node = arg;
    struct pd_buf out;
    struct pd_view v;
    pd_buf_init(&out, JSON_MAX);
    pd_view_init(&v, PD_VIEW_JSON, &out);
    pd_report_status(node, &v);
    pd_report_engines(node, &v);
    pd_report_listen(node, &v);
    pd_report_nodes(node, &v);
    pd_report_endpoints(node, &v);
    pd_report_sources(node, &v);
    pd_status status = pd_report_requests(node, &v, ROWS, PD_REPORT_NEWEST);
    if (status == PD_OK)
        status = pd_report_transfers(node, &v, ROWS);
    if (status == PD_OK)
        status = pd_report_leases(node, &v, ROWS);
    pd_status written = pd_view_fini(&v);
    respond(req, status == PD_OK ? written : status, &out);
}

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 :
           c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The value of `id` in a query, percent-decoded; false when there is none or it
 * is longer than an id can be. */
static bool id_of(struct pd_str query, char out[PD_REQ_ID_MAX + 1])
{
    struct pd_str part;
    while (pd_str_split(&query, '&', &part)) {
        if (!pd_str_starts_with(part, PD_STR("id=")))
            continue;
        size_t n = 0;
        for (size_t i = 3; i < part.n && n < PD_REQ_ID_MAX; i++) {
            char c = part.p[i];
            if (c == '%') {
                if (i + 2 >= part.n || hex(part.p[i + 1]) < 0 || hex(part.p[i + 2]) < 0)
                    return false;
                c = (char)(hex(part.p[i + 1]) << 4 | hex(part.p[i + 2]));
                i += 2;
            }
            out[n++] = c;
        }
        out[n] = '\0';
        return n > 0;
    }
    return false;
}

static void on_explain(struct pd_http_req *req, void *arg)
{
    char id[PD_REQ_ID_MAX + 1];
    struct pd_buf out;
    struct pd_view v;
    pd_buf_init(&out, JSON_MAX);
    if (!id_of(pd_http_req_head(req)->query, id)) {
        pd_http_error(req, 400, NULL, "missing_id", "say which request: ?id=ID", "id");
        return;
    }
    pd_view_init(&v, PD_VIEW_JSON, &out);
    pd_status status = pd_report_explain(arg, &v, pd_str_from(id));
    pd_status written = pd_view_fini(&v);
    respond(req, status == PD_OK ? written : status, &out);
}

pd_status pd_node_status_routes(struct pd_node *node)
{
    const struct pd_http_route routes[] = {
        { .path = "/status", .methods = 1u << PD_HTTP_GET, .on_request = on_page, .arg = node },
        { .path = "/status.json", .methods = 1u << PD_HTTP_GET, .on_request = on_data, .arg = node },
        { .path = "/status/explain.json", .methods = 1u << PD_HTTP_GET, .on_request = on_explain, .arg = node },
    };
    for (size_t i = 0; i < PD_ARRAY_LEN(routes); i++) {
        pd_status status = pd_http_server_route(node->net.admin, &routes[i]);
        if (status != PD_OK)
            return status;
    }
    return PD_OK;
}
