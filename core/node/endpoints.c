/* SPDX-License-Identifier: Apache-2.0 */
/* The configured servers outside of pdplane: their URLs taken apart, one
 * adapter instance for each. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "node/node.h"

/* "http://HOST[:PORT][/]" or https://; fills host, authority and port. */
static pd_status url_read(const char *url, struct pd_node_endpoint *e, struct pd_err *err)
{
    struct pd_str rest = pd_str_from(url);
    struct pd_str scheme = PD_STR("http://");
    uint64_t port = 80;
    if (pd_str_starts_with(rest, PD_STR("https://"))) {
        scheme = PD_STR("https://");
        port = 443;
    }
    if (!pd_str_starts_with(rest, scheme))
        goto bad;
    rest = pd_str_sub(rest, scheme.n, rest.n);
    if (rest.n > 0 && rest.p[rest.n - 1] == '/')
        rest.n--;
    if (rest.n == 0 || rest.n > 255 || pd_str_find_char(rest, '/') != PD_STR_NPOS ||
        pd_str_find_char(rest, '@') != PD_STR_NPOS)
        goto bad;
    struct pd_str host = rest;
    if (rest.p[0] == '[') {
        size_t close = pd_str_find_char(rest, ']');
        if (close == PD_STR_NPOS)
            goto bad;
        host = pd_str_sub(rest, 1, close - 1);
        rest = pd_str_sub(rest, close + 1, rest.n);
        if (rest.n > 0 && rest.p[0] != ':')
            goto bad;
        rest = pd_str_sub(rest, 1, rest.n);
    } else {
        size_t colon = pd_str_find_char(rest, ':');
        host = pd_str_sub(rest, 0, colon);
        rest = colon == PD_STR_NPOS ? (struct pd_str){ "", 0 } : pd_str_sub(rest, colon + 1, rest.n);
    }
    if (host.n == 0 || (rest.n > 0 && (pd_str_parse_u64(rest, &port) != PD_OK || port == 0 || port > 65535)))
        goto bad;
    e->port = (uint16_t)port;
    e->host = pd_str_dup(host);
    char authority[300];
    snprintf(authority, sizeof authority, strchr(url, '[') != NULL ? "[%.*s]:%u" : "%.*s:%u",
             PD_STR_ARG(host), (unsigned)port);
    e->authority = pd_strdup(authority);
    return e->host != NULL && e->authority != NULL ? PD_OK : pd_err_set(err, PD_ENOMEM, "out of memory");
bad:
    pd_err_set(err, PD_EINVAL, "url \"%s\" is not understood", url);
    pd_err_hint(err, "write http://HOST:PORT or https://HOST:PORT");
    return PD_EINVAL;
}

static const char *const *models_copy(const struct pd_conf_strings *models)
{
    const char **out = pd_calloc((size_t)models->count + 1, sizeof *out);
    for (uint64_t i = 0; out != NULL && i < models->count; i++)
        out[i] = models->items[i];
    return (const char *const *)out;
}

pd_status pd_node_endpoints_build(struct pd_node *node, struct pd_err *err)
{
    const struct pd_conf_list *list = &node->root->endpoints;
    if (list->count == 0)
        return PD_OK;
    node->endpoints = pd_calloc((size_t)list->count, sizeof *node->endpoints);
    node->endpoint_logs = pd_calloc((size_t)list->count, sizeof *node->endpoint_logs);
    if (node->endpoints == NULL || node->endpoint_logs == NULL)
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    for (uint64_t i = 0; i < list->count; i++) {
        const struct pd_node_endpoint_conf *c = PD_CONF_ITEM(list, struct pd_node_endpoint_conf, i);
        struct pd_node_endpoint *e = &node->endpoints[i];
        const struct pd_mod_unit *unit = c->unit.unit;
        node->n_endpoints++;
        e->size = sizeof *e;
        e->roles = (uint32_t)c->roles;
        e->weight = (uint32_t)c->weight;
        e->name = c->name;
        e->ops = (const struct pd_adapter_ops *)(const void *)unit->ops;
        pd_status status = url_read(c->url, e, err);
        if (status == PD_OK)
            status = pd_node_tls_endpoint(node, c, e, err);
        if (status == PD_OK && c->models.count > 0 && (e->models = models_copy(&c->models)) == NULL)
            status = pd_err_set(err, PD_ENOMEM, "out of memory");
        if (status == PD_OK) {
            node->endpoint_logs[i] = pd_log_child(node->log, c->name);
            struct pd_instance_ctx ctx = {
                .size = sizeof ctx, .name = c->name, .loop = node->loop, .log = node->endpoint_logs[i],
                .metrics = node->metrics, .host = &node->host, .node = node->id,
            };
            status = e->ops->create(&ctx, c->unit.conf, &e->adapter, err);
        }
        if (status != PD_OK) {
            if (err->file[0] == '\0') {
                snprintf(err->file, sizeof err->file, "%s", c->place.file);
                err->line = c->place.line;
            }
            return status;
        }
    }
    return PD_OK;
}

void pd_node_endpoints_free(struct pd_node *node)
{
    for (uint32_t i = 0; i < node->n_endpoints; i++) {
        struct pd_node_endpoint *e = &node->endpoints[i];
        if (e->adapter != NULL)
            e->ops->destroy(e->adapter);
        pd_tls_destroy(e->tls);
        pd_log_child_free(node->endpoint_logs[i]);
        pd_free((void *)(uintptr_t)e->host);
        pd_free((void *)(uintptr_t)e->authority);
        pd_free((void *)(uintptr_t)e->models);
    }
    pd_free(node->endpoints);
    pd_free(node->endpoint_logs);
    node->endpoints = NULL;
    node->n_endpoints = 0;
}
