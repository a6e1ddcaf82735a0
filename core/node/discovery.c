/* SPDX-License-Identifier: Apache-2.0 */
/* What sources name becomes endpoints and peers of this node: servers get the
 * options that the source's section has for their adapter, nodes are dialled. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "node/node.h"

/* A source's section and what belongs to it. */
struct source {
    struct pd_node *node;
    const struct pd_node_discovery_conf *conf;
    struct pd_conf *from;               /* keeps conf and the options behind it */
    struct pd_network *networks;
};

struct pd_node_discovery {
    struct pd_sources *sources;
    struct pd_log *log;
    struct source *all[PD_SOURCES_MAX]; /* as in sources, which ends them */
    uint32_t n;
    void (*closed)(void *arg);
    void *arg;
};

struct pd_node_discovery_change {
    struct source *all[PD_SOURCES_MAX];
    struct pd_source *sources[PD_SOURCES_MAX];
    bool is_new[PD_SOURCES_MAX];
    uint32_t n;
};

/* ---- servers ----------------------------------------------------------------------------- */

/* The section's options for the adapter of this type. */
static const struct pd_node_endpoint_conf *template_of(const struct source *s, const struct pd_entry *e,
                                                       struct pd_err *err)
{
    const struct pd_conf_list *list = &s->conf->endpoint;
    if (list->count == 0) {
        pd_err_set(err, PD_ENOENT, "the source \"%s\" has no group \"endpoint\" that says what servers are",
                   s->conf->name);
        return NULL;
    }
    if (e->type[0] == '\0')
        return PD_CONF_ITEM(list, struct pd_node_endpoint_conf, 0);
    for (uint64_t i = 0; i < list->count; i++) {
        const struct pd_node_endpoint_conf *t = PD_CONF_ITEM(list, struct pd_node_endpoint_conf, i);
        if (strcmp(t->unit.name, e->type) == 0)
            return t;
    }
    pd_err_set(err, PD_ENOENT, "no group \"endpoint\" of the source \"%s\" has type \"%s\"", s->conf->name,
               e->type);
    return NULL;
}

static pd_status server_conf(const struct source *s, const struct pd_entry *e,
                             struct pd_node_endpoint_conf *out, struct pd_err *err)
{
    const struct pd_node_endpoint_conf *t = template_of(s, e, err);
    if (t == NULL)
        return PD_ENOENT;
    *out = *t;
    out->name = e->name;
    out->url = e->address;
    out->epoch = e->epoch;
    if (e->roles != 0)
        out->roles = e->roles;
    if (e->weight != 0)
        out->weight = e->weight;
    if (e->n_models > 0)
        out->models = (struct pd_conf_strings){ .items = e->models, .count = e->n_models };
    return PD_OK;
}

static bool is_configured(const struct pd_node *node, const char *url)
{
    const struct pd_conf_list *list = &node->root->endpoints;
    for (uint64_t i = 0; i < list->count; i++) {
        if (strcmp(PD_CONF_ITEM(list, struct pd_node_endpoint_conf, i)->url, url) == 0)
            return true;
    }
    return false;
}

/* ---- events of sources --------------------------------------------------------------------- */

static pd_status on_add(const struct pd_entry *e, const void *user, struct pd_err *err, void *arg)
{
    const struct source *s = user;
    struct pd_node *node = arg;
    struct pd_node_endpoint_conf conf;
    pd_status status;
    if (e->what == PD_DISCOVERY_PEER) {
        status = pd_peers_dial(node->peers, pd_str_from(e->address));
        if (status == PD_OK)
            return PD_OK;
        return pd_err_set(err, status, status == PD_EEXIST ? "its address is that of another peer"
                                       : "its address cannot be used: %s", pd_status_text(status));
    }
    if (is_configured(node, e->address))
        return pd_err_set(err, PD_EEXIST, "its address is that of an endpoint of the configuration");
    status = server_conf(s, e, &conf, err);
    return status == PD_OK ? pd_node_endpoint_add(node, &conf, s->from, s, err) : status;
}

static pd_status on_change(const struct pd_entry *before, const struct pd_entry *e, const void *user,
                           struct pd_err *err, void *arg)
{
    const struct source *s = user;
    struct pd_node *node = arg;
    struct pd_node_endpoint_conf conf;
    (void)before;
    if (e->what == PD_DISCOVERY_PEER)
        return PD_OK;           /* what may change of it is not used */
    pd_status status = server_conf(s, e, &conf, err);
    if (status == PD_OK)
        status = pd_node_endpoint_change(node, &conf, s->from, s, err);
    if (status != PD_OK)
        pd_node_endpoint_remove(node, pd_str_from(e->name), s);
    return status;
}

static void on_leave(const struct pd_entry *e, const void *user, bool is_leaving, void *arg)
{
    struct pd_node *node = arg;
    if (e->what == PD_DISCOVERY_PEER)
        (void)pd_peers_rest(node->peers, pd_str_from(e->address), is_leaving);
    else
        (void)pd_node_endpoint_rest(node, pd_str_from(e->name), user, is_leaving);
}

static void on_remove(const struct pd_entry *e, const void *user, void *arg)
{
    struct pd_node *node = arg;
    if (e->what == PD_DISCOVERY_PEER)
        (void)pd_peers_undial(node->peers, pd_str_from(e->address));
    else
        (void)pd_node_endpoint_remove(node, pd_str_from(e->name), user);
}

static const struct pd_sources_events events = {
    .add = on_add, .change = on_change, .leave = on_leave, .remove = on_remove,
};

/* ---- life -------------------------------------------------------------------------------------- */

static void source_free(void *arg)
{
    struct source *s = arg;
    pd_free(s->networks);
    pd_conf_put(s->from);
    pd_free(s);
}

static pd_status networks_read(struct source *s, struct pd_err *err)
{
    const struct pd_conf_strings *list = &s->conf->networks;
    s->networks = pd_calloc((size_t)list->count + 1, sizeof *s->networks);
    if (s->networks == NULL)
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    for (uint64_t i = 0; i < list->count; i++) {
        if (pd_network_parse(pd_str_from(list->items[i]), &s->networks[i]) != PD_OK) {
            pd_err_set(err, PD_EINVAL, "\"%s\" is no network", list->items[i]);
            pd_err_hint(err, "write 10.0.0.0/8 or fd00::/8");
            return PD_EINVAL;
        }
    }
    return PD_OK;
}

/* A source's section as core/discovery wants it, which frees it. */
static pd_status source_read(struct pd_node *node, const struct pd_node_discovery_conf *c, struct pd_conf *conf,
                             struct source **made, struct pd_source_conf *out, struct pd_err *err)
{
    const struct pd_mod_unit *unit = c->unit.unit;
    struct source *s = pd_calloc(1, sizeof *s);
    if (s == NULL)
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    s->node = node;
    s->conf = c;
    s->from = pd_conf_get(conf);
    pd_status status = networks_read(s, err);
    if (status != PD_OK) {
        source_free(s);
        return status;
    }
    *out = (struct pd_source_conf){
        .name = c->name, .unit = c->unit.name, .conf = c->unit.conf,
        .ops = (const struct pd_discovery_ops *)(const void *)unit->ops,
        .rules = { .role_label = c->role_label != NULL && c->role_label[0] != '\0' ? c->role_label : NULL,
                   .model_label = c->model_label, .networks = s->networks,
                   .n_networks = (uint32_t)c->networks.count },
        .stale_ok = c->stale_ok, .linger = c->linger, .max = (uint32_t)c->max, .user = s,
        .gone = source_free,
    };
    *made = s;
    return PD_OK;
}

static pd_status source_build(struct pd_node *node, const struct pd_node_discovery_conf *c, struct pd_err *err)
{
    struct pd_node_discovery *d = node->discovery;
    struct pd_source_conf conf;
    struct source *s;
    pd_status status = source_read(node, c, node->generation->conf, &s, &conf, err);
    if (status == PD_OK)
        status = pd_sources_add(d->sources, &conf, err);
    if (status == PD_OK)
        d->all[d->n++] = s;
    return pd_node_at_place(err, &c->place, status);
}

/* Also without sources: a reload may bring some. */
pd_status pd_node_discovery_build(struct pd_node *node, struct pd_err *err)
{
    const struct pd_conf_list *list = &node->root->discovery;
    struct pd_node_discovery *d = pd_calloc(1, sizeof *d);
    pd_status status = PD_OK;
    if (d == NULL)
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    node->discovery = d;
    d->log = pd_log_child(node->log, "discovery");
    struct pd_sources_params params = { .loop = node->loop, .log = d->log, .metrics = node->metrics,
                                        .host = &node->host, .node = node->id, .events = &events, .arg = node };
    if (pd_sources_create(&params, &d->sources) != PD_OK)
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    for (uint64_t i = 0; i < list->count && status == PD_OK; i++)
        status = source_build(node, PD_CONF_ITEM(list, struct pd_node_discovery_conf, i), err);
    return status;
}

pd_status pd_node_discovery_start(struct pd_node *node, struct pd_err *err)
{
    return pd_sources_start(node->discovery->sources, err);
}

/* ---- another set ------------------------------------------------------------------------------- */

static uint32_t source_find(const struct pd_node_discovery *d, const char *name)
{
    uint32_t i = 0;
    while (i < d->n && strcmp(d->all[i]->conf->name, name) != 0)
        i++;
    return i;
}

static pd_status change_add(struct pd_node *node, struct pd_node_discovery_change *change,
                            const struct pd_node_discovery_conf *c, struct pd_conf *conf, struct pd_err *err)
{
    struct pd_node_discovery *d = node->discovery;
    uint32_t at = source_find(d, c->name), n = change->n;
    struct pd_source_conf made;
    if (at < d->n && pd_conf_equal(pd_node_discovery_rows(), d->all[at]->conf, c)) {
        change->all[n] = d->all[at];
        change->sources[n] = pd_sources_at(d->sources, at);
        change->n++;
        return PD_OK;
    }
    pd_status status = source_read(node, c, conf, &change->all[n], &made, err);
    if (status != PD_OK)
        return status;
    status = pd_source_begin(d->sources, &made, &change->sources[n], err);
    if (status != PD_OK)
        return status;
    change->is_new[n] = true;
    change->n++;
    return PD_OK;
}

pd_status pd_node_discovery_prepare(struct pd_node *node, const struct pd_node_conf *root, struct pd_conf *conf,
                                    struct pd_node_discovery_change **out, struct pd_err *err)
{
    const struct pd_conf_list *list = &root->discovery;
    struct pd_node_discovery_change *change = pd_calloc(1, sizeof *change);
    pd_status status = PD_OK;
    if (change == NULL)
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    for (uint64_t i = 0; i < list->count && status == PD_OK; i++) {
        const struct pd_node_discovery_conf *c = PD_CONF_ITEM(list, struct pd_node_discovery_conf, i);
        status = pd_node_at_place(err, &c->place, change_add(node, change, c, conf, err));
    }
    if (status != PD_OK) {
        pd_node_discovery_abort(change);
        return status;
    }
    *out = change;
    return PD_OK;
}

void pd_node_discovery_abort(struct pd_node_discovery_change *change)
{
    for (uint32_t i = 0; change != NULL && i < change->n; i++) {
        if (change->is_new[i])
            pd_source_end(change->sources[i]);
    }
    pd_free(change);
}

void pd_node_discovery_commit(struct pd_node *node, struct pd_node_discovery_change *change)
{
    struct pd_node_discovery *d = node->discovery;
    for (uint32_t i = 0; i < change->n; i++) {
        uint32_t at = source_find(d, change->all[i]->conf->name);
        if (change->is_new[i] && at < d->n)
            pd_node_endpoints_pass(node, d->all[at], change->all[i]);
    }
    pd_sources_commit(d->sources, change->sources, change->n);
    memcpy(d->all, change->all, sizeof d->all);
    d->n = change->n;
    pd_free(change);
}

/* ---- the end ------------------------------------------------------------------------------------- */

static void on_closed(void *arg)
{
    struct pd_node *node = arg;
    struct pd_node_discovery *d = node->discovery;
    void (*closed)(void *) = d->closed;
    void *closed_arg = d->arg;
    pd_log_child_free(d->log);
    pd_free(d);
    node->discovery = NULL;
    closed(closed_arg);
}

void pd_node_discovery_close(struct pd_node *node, void (*closed)(void *arg), void *arg)
{
    struct pd_node_discovery *d = node->discovery;
    d->closed = closed;
    d->arg = arg;
    if (d->sources != NULL)
        pd_sources_destroy(d->sources, on_closed, node);
    else
        on_closed(node);
}

struct pd_sources *pd_node_sources(const struct pd_node *node)
{
    return node->discovery != NULL ? node->discovery->sources : NULL;
}
