/* SPDX-License-Identifier: Apache-2.0 */
/* Exporters of a node: their instances, and their paths on the admin listeners. */
#include <pdplane/exporter.h>

#include <stdio.h>
#include <string.h>

#include "base/compiler.h"
#include "base/status.h"
#include "base/str.h"
#include "node/node.h"

#define ANSWER_MAX (16u << 20)

struct answer {
    struct pd_export_answer pub;
    struct pd_buf buf;
};

static pd_status answer_write(struct pd_export_answer *pub, const void *bytes, size_t n)
{
    struct answer *a = pd_container_of(pub, struct answer, pub);
    pd_buf_append(&a->buf, bytes, n);
    return a->buf.status;
}

static void on_request(struct pd_http_req *req, void *arg)
{
    static const struct pd_export_answer_ops ops = { .size = sizeof ops, .write = answer_write };
    struct pd_node_exporter *e = arg;
    struct pd_export_request request = { .size = sizeof request, .query = pd_http_req_head(req)->query,
                                         .accept = pd_http_req_header(req, "accept") };
    struct answer a = { .pub = { .ops = &ops, .type = "text/plain; charset=utf-8" } };
    pd_buf_init(&a.buf, ANSWER_MAX);
    pd_status status = e->ops->serve(e->exporter, &request, &a.pub);
    if (status == PD_OK)
        status = a.buf.status;
    if (status == PD_OK) {
        struct pd_http_header type = { PD_STR("content-type"), pd_str_from(a.pub.type) };
        pd_http_respond(req, 200, &type, 1, pd_buf_str(&a.buf));
    } else {
        pd_http_error(req, 503, "server_error", "overloaded", pd_status_text(status), NULL);
    }
    pd_buf_fini(&a.buf);
}

static pd_status route_add(struct pd_node *node, struct pd_node_exporter *e, struct pd_err *err)
{
    const char *path = e->ops->path != NULL && e->ops->serve != NULL ? e->ops->path(e->exporter) : NULL;
    if (path == NULL)
        return PD_OK;
    struct pd_http_route route = { .path = path, .methods = 1u << PD_HTTP_GET,
                                   .flags = PD_HTTP_ROUTE_ALWAYS, .on_request = on_request, .arg = e };
    pd_status status = path[0] == '/' ? pd_http_server_route(node->net.admin, &route) : PD_EINVAL;
    if (status != PD_OK)
        pd_err_set(err, status, "the path \"%s\" of exporter \"%s\" cannot be served: %s", path, e->name,
                   status == PD_EEXIST ? "it is served already" : pd_status_text(status));
    return status;
}

pd_status pd_node_exporters_build(struct pd_node *node, struct pd_err *err)
{
    const struct pd_conf_list *list = &node->root->exporters;
    for (uint64_t i = 0; i < list->count; i++) {
        const struct pd_conf_unit *u = PD_CONF_ITEM(list, struct pd_conf_unit, i);
        struct pd_node_exporter *e = &node->exporters[node->n_exporters];
        pd_status status = PD_ELIMIT;
        if (node->n_exporters == PD_NODE_EXPORTERS_MAX) {
            pd_err_set(err, status, "a node can have %u exporters", PD_NODE_EXPORTERS_MAX);
        } else {
            e->name = u->name;
            e->ops = (const struct pd_exporter_ops *)(const void *)((const struct pd_mod_unit *)u->unit)->ops;
            e->log = pd_log_child(node->log, u->name);
            const struct pd_instance_ctx ctx = { .size = sizeof ctx, .name = u->name, .loop = node->loop,
                                                 .log = e->log, .metrics = node->metrics,
                                                 .host = &node->host, .node = node->id };
            status = e->ops->create(&ctx, u->conf, &e->exporter, err);
            if (status == PD_OK) {
                node->n_exporters++;
                status = node->net.admin != NULL ? route_add(node, e, err) : PD_OK;
            }
        }
        if (status != PD_OK) {
            if (err->text[0] == '\0')
                pd_err_set(err, status, "exporter \"%s\": %s", u->name, pd_status_text(status));
            snprintf(err->file, sizeof err->file, "%s", u->place.file);
            err->line = u->place.line;
            return status;
        }
    }
    return PD_OK;
}

pd_status pd_node_exporters_route(struct pd_node *node, struct pd_err *err)
{
    pd_status status = PD_OK;
    for (uint32_t i = 0; i < node->n_exporters && status == PD_OK; i++)
        status = route_add(node, &node->exporters[i], err);
    return status;
}

pd_status pd_node_exporters_start(struct pd_node *node, struct pd_err *err)
{
    for (uint32_t i = 0; i < node->n_exporters; i++) {
        struct pd_node_exporter *e = &node->exporters[i];
        pd_status status = e->ops->start != NULL ? e->ops->start(e->exporter, err) : PD_OK;
        if (status != PD_OK)
            return status;
    }
    return PD_OK;
}

bool pd_node_exporter_close(struct pd_node *node, void (*closed)(void *arg), void *arg)
{
    if (node->n_exporters == 0)
        return false;
    struct pd_node_exporter *e = &node->exporters[--node->n_exporters];
    e->ops->destroy(e->exporter, closed, arg);
    return true;
}
