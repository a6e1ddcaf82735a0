/* SPDX-License-Identifier: Apache-2.0 */
/* Exporters of a node: their instances, and their paths on the admin listeners. */
#include <pdplane/exporter.h>

#include <string.h>

#include "base/compiler.h"
#include "base/mem.h"
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

static const char *path_of(const struct pd_node_exporter *e)
{
    return e->ops->path != NULL && e->ops->serve != NULL ? e->ops->path(e->exporter) : NULL;
}

static pd_status path_refuse(const struct pd_node_exporter *e, pd_status status, struct pd_err *err)
{
    pd_err_set(err, status, "the path \"%s\" of exporter \"%s\" cannot be served: %s", path_of(e), e->name,
               status == PD_EEXIST ? "it is served already" : pd_status_text(status));
    pd_err_hint(err, "give it another path, beginning with /");
    return status;
}

static pd_status route_add(struct pd_node *node, struct pd_node_exporter *e, struct pd_err *err)
{
    const char *path = path_of(e);
    if (path == NULL || node->net.admin == NULL)
        return PD_OK;
    struct pd_http_route route = { .path = path, .methods = 1u << PD_HTTP_GET,
                                   .flags = PD_HTTP_ROUTE_ALWAYS, .on_request = on_request, .arg = e };
    pd_status status = path[0] == '/' ? pd_http_server_route(node->net.admin, &route) : PD_EINVAL;
    return status == PD_OK ? PD_OK : path_refuse(e, status, err);
}

/* ---- one of them ------------------------------------------------------------------------- */

static void exporter_free(struct pd_node_exporter *e)
{
    pd_log_child_free(e->log);
    pd_conf_put(e->from);
    pd_free(e);
}

static void exporter_ended(void *arg)
{
    struct pd_node_exporter *e = arg;
    struct pd_node *node = e->node;
    exporter_free(e);
    if (--node->n_exporters_ending > 0 || !node->waits_for_exporters)
        return;
    node->waits_for_exporters = false;
    pd_loop_defer(node->loop, &node->close_task);
}

static void exporter_end(struct pd_node_exporter *e)
{
    e->node->n_exporters_ending++;
    e->ops->destroy(e->exporter, exporter_ended, e);
}

static pd_status exporter_make(struct pd_node *node, const struct pd_conf_unit *u, struct pd_conf *conf,
                               struct pd_node_exporter **out, struct pd_err *err)
{
    struct pd_node_exporter *e = pd_calloc(1, sizeof *e);
    if (e == NULL)
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    e->node = node;
    e->name = u->name;
    e->unit = u->unit;
    e->ops = (const struct pd_exporter_ops *)(const void *)e->unit->ops;
    e->conf = u->conf;
    e->from = pd_conf_get(conf);
    e->log = pd_log_child(node->log, u->name);
    const struct pd_instance_ctx ctx = { .size = sizeof ctx, .name = u->name, .loop = node->loop, .log = e->log,
                                         .metrics = node->metrics, .host = &node->host, .node = node->id };
    pd_status status = e->ops->create(&ctx, u->conf, &e->exporter, err);
    if (status == PD_OK) {
        *out = e;
        return PD_OK;
    }
    exporter_free(e);
    return err->text[0] != '\0' ? status
                                : pd_err_set(err, status, "exporter \"%s\": %s", u->name, pd_status_text(status));
}

static pd_status exporter_start(struct pd_node_exporter *e, struct pd_err *err)
{
    return e->ops->start != NULL ? e->ops->start(e->exporter, err) : PD_OK;
}

/* ---- all of them ------------------------------------------------------------------------- */

pd_status pd_node_exporters_build(struct pd_node *node, struct pd_err *err)
{
    const struct pd_conf_list *list = &node->root->exporters;
    pd_status status = PD_OK;
    if (list->count > PD_NODE_EXPORTERS_MAX)
        return pd_err_set(err, PD_ELIMIT, "a node can have %u exporters", PD_NODE_EXPORTERS_MAX);
    for (uint64_t i = 0; i < list->count && status == PD_OK; i++) {
        const struct pd_conf_unit *u = PD_CONF_ITEM(list, struct pd_conf_unit, i);
        struct pd_node_exporter **e = &node->exporters[node->n_exporters];
        status = exporter_make(node, u, node->generation->conf, e, err);
        if (status == PD_OK) {
            node->n_exporters++;
            status = route_add(node, *e, err);
        }
        status = pd_node_at_place(err, &u->place, status);
    }
    return status;
}

pd_status pd_node_exporters_route(struct pd_node *node, struct pd_err *err)
{
    pd_status status = PD_OK;
    for (uint32_t i = 0; i < node->n_exporters && status == PD_OK; i++)
        status = route_add(node, node->exporters[i], err);
    return status;
}

pd_status pd_node_exporters_start(struct pd_node *node, struct pd_err *err)
{
    pd_status status = PD_OK;
    for (uint32_t i = 0; i < node->n_exporters && status == PD_OK; i++)
        status = exporter_start(node->exporters[i], err);
    return status;
}

bool pd_node_exporters_close(struct pd_node *node)
{
    while (node->n_exporters > 0)
        exporter_end(node->exporters[--node->n_exporters]);
    node->waits_for_exporters = node->n_exporters_ending > 0;
    return node->waits_for_exporters;
}

/* ---- others ------------------------------------------------------------------------------ */

struct pd_node_exporters_change {
    struct pd_node_exporter *all[PD_NODE_EXPORTERS_MAX];
    bool is_new[PD_NODE_EXPORTERS_MAX];
    uint32_t n;
};

static bool has(struct pd_node_exporter *const *list, uint32_t n, const void *e)
{
    for (uint32_t i = 0; i < n; i++) {
        if (list[i] == e)
            return true;
    }
    return false;
}

/* Paths are switched at the commit, where nothing may fail: this finds out before. */
static pd_status path_check(const struct pd_node *node, const struct pd_node_exporters_change *change,
                            const struct pd_node_exporter *e, struct pd_err *err)
{
    const char *path = path_of(e);
    if (path == NULL)
        return PD_OK;
    if (path[0] != '/')
        return path_refuse(e, PD_EINVAL, err);
    for (uint32_t i = 0; i < change->n; i++) {
        const char *other = change->all[i] == e ? NULL : path_of(change->all[i]);
        if (other != NULL && strcmp(other, path) == 0)
            return path_refuse(e, PD_EEXIST, err);
    }
    const struct pd_http_route *r =
        node->net.admin == NULL ? NULL : pd_http_server_routed(node->net.admin, path);
    bool is_free = r == NULL || (r->on_request == on_request && !has(change->all, change->n, r->arg));
    return is_free || r->arg == e ? PD_OK : path_refuse(e, PD_EEXIST, err);
}

static pd_status change_add(struct pd_node *node, struct pd_node_exporters_change *change,
                            const struct pd_conf_unit *u, struct pd_conf *conf, struct pd_err *err)
{
    struct pd_node_exporter **e = &change->all[change->n];
    for (uint32_t i = 0; i < node->n_exporters; i++) {
        struct pd_node_exporter *old = node->exporters[i];
        if (old->unit == u->unit && pd_conf_equal(u->rows, old->conf, u->conf)) {
            *e = old;
            change->n++;
            return PD_OK;
        }
    }
    pd_status status = exporter_make(node, u, conf, e, err);
    if (status != PD_OK)
        return status;
    change->is_new[change->n++] = true;
    return exporter_start(*e, err);
}

pd_status pd_node_exporters_prepare(struct pd_node *node, const struct pd_node_conf *root, struct pd_conf *conf,
                                    struct pd_node_exporters_change **out, struct pd_err *err)
{
    const struct pd_conf_list *list = &root->exporters;
    struct pd_node_exporters_change *change = pd_calloc(1, sizeof *change);
    pd_status status = PD_OK;
    if (change == NULL)
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    if (list->count > PD_NODE_EXPORTERS_MAX)
        status = pd_err_set(err, PD_ELIMIT, "a node can have %u exporters", PD_NODE_EXPORTERS_MAX);
    for (uint64_t i = 0; i < list->count && status == PD_OK; i++) {
        const struct pd_conf_unit *u = PD_CONF_ITEM(list, struct pd_conf_unit, i);
        status = pd_node_at_place(err, &u->place, change_add(node, change, u, conf, err));
    }
    for (uint32_t i = 0; i < change->n && status == PD_OK; i++) {
        const struct pd_conf_unit *u = PD_CONF_ITEM(list, struct pd_conf_unit, i);
        status = pd_node_at_place(err, &u->place, path_check(node, change, change->all[i], err));
    }
    if (status != PD_OK) {
        pd_node_exporters_abort(change);
        return status;
    }
    *out = change;
    return PD_OK;
}

void pd_node_exporters_abort(struct pd_node_exporters_change *change)
{
    for (uint32_t i = 0; change != NULL && i < change->n; i++) {
        if (change->is_new[i])
            exporter_end(change->all[i]);
    }
    pd_free(change);
}

void pd_node_exporters_commit(struct pd_node *node, struct pd_node_exporters_change *change)
{
    struct pd_err err = { 0 };
    for (uint32_t i = 0; i < node->n_exporters; i++) {
        struct pd_node_exporter *old = node->exporters[i];
        if (has(change->all, change->n, old))
            continue;
        if (path_of(old) != NULL && node->net.admin != NULL)
            (void)pd_http_server_unroute(node->net.admin, path_of(old));
        exporter_end(old);
    }
    for (uint32_t i = 0; i < change->n; i++) {
        if (change->is_new[i] && route_add(node, change->all[i], &err) != PD_OK)
            pd_log_error(node->log, "%s", err.text);
    }
    memcpy(node->exporters, change->all, sizeof node->exporters);
    node->n_exporters = change->n;
    pd_free(change);
}
