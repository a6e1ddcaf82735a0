/* SPDX-License-Identifier: Apache-2.0 */
/* Servers outside of pdplane: their URLs taken apart, one adapter instance for
 * each.  A change of several is made in two steps: first everything that can
 * fail, which can be taken back, then the rest. */
#include "node/endpoints.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "base/url.h"
#include "node/node.h"

/* Fills host, authority and port. */
static pd_status url_read(const char *url, struct pd_node_endpoint *e, struct pd_err *err)
{
    struct pd_url u;
    char authority[300];
    if (pd_url_parse(pd_str_from(url), &u) != PD_OK) {
        pd_err_set(err, PD_EINVAL, "url \"%s\" is not understood", url);
        pd_err_hint(err, "write http://HOST:PORT or https://HOST:PORT");
        return PD_EINVAL;
    }
    snprintf(authority, sizeof authority, u.is_v6 ? "[%.*s]:%u" : "%.*s:%u", PD_STR_ARG(u.host),
             (unsigned)u.port);
    e->port = u.port;
    e->host = pd_str_dup(u.host);
    e->authority = pd_strdup(authority);
    return e->host != NULL && e->authority != NULL ? PD_OK : pd_err_set(err, PD_ENOMEM, "out of memory");
}

/* One endpoint. */
struct pd_node_server {
    struct pd_node_endpoint e;          /* what roles see */
    struct pd_node_endpoint_conf conf;  /* what it was made from */
    struct pd_conf *from;               /* keeps the options that conf points to */
    const void *source;
    struct pd_log *log;
    char *name, *url;                   /* of conf */
    char **models;                      /* likewise, ended by NULL, one allocation with the texts */
    uint64_t round;                     /* of the last set that had it */
};

struct pd_node_endpoint_watch {
    struct pd_list link;
    const struct pd_node_endpoint_events *events;
    void *arg;
};

struct pd_node_endpoints_change {
    struct pd_node_server **added;
    uint32_t n_added;
    const void *source;
    uint64_t round;
};

/* ---- one server -------------------------------------------------------------------- */

static char **models_copy(const struct pd_conf_strings *models)
{
    size_t bytes = ((size_t)models->count + 1) * sizeof(char *);
    for (uint64_t i = 0; i < models->count; i++)
        bytes += strlen(models->items[i]) + 1;
    char **out = pd_calloc(1, bytes);
    char *text = out != NULL ? (char *)(out + models->count + 1) : NULL;
    for (uint64_t i = 0; out != NULL && i < models->count; i++) {
        size_t n = strlen(models->items[i]) + 1;
        out[i] = memcpy(text, models->items[i], n);
        text += n;
    }
    return out;
}

static void server_free(struct pd_node_server *s)
{
    if (s->e.adapter != NULL)
        s->e.ops->destroy(s->e.adapter);
    pd_tls_destroy(s->e.tls);
    pd_log_child_free(s->log);
    pd_free((void *)(uintptr_t)s->e.host);
    pd_free((void *)(uintptr_t)s->e.authority);
    pd_free(s->models);
    pd_free(s->name);
    pd_free(s->url);
    pd_conf_put(s->from);
    pd_free(s);
}

static bool strings_copy(struct pd_node_server *s, const struct pd_node_endpoint_conf *c)
{
    s->conf = *c;
    s->conf.name = s->e.name = s->name = pd_strdup(c->name);
    s->conf.url = s->url = pd_strdup(c->url);
    if (c->models.count > 0)
        s->models = models_copy(&c->models);
    s->conf.models.items = s->e.models = (const char *const *)s->models;
    return s->name != NULL && s->url != NULL && (c->models.count == 0 || s->models != NULL);
}

static pd_status server_fill(struct pd_node *node, struct pd_node_server *s, struct pd_err *err)
{
    const struct pd_node_endpoint_conf *c = &s->conf;
    struct pd_node_endpoint *e = &s->e;
    e->size = sizeof *e;
    e->roles = (uint32_t)c->roles;
    e->weight = (uint32_t)c->weight;
    e->epoch = c->epoch;
    e->ops = (const struct pd_adapter_ops *)(const void *)((const struct pd_mod_unit *)c->unit.unit)->ops;
    pd_status status = url_read(c->url, e, err);
    if (status == PD_OK)
        status = pd_node_tls_endpoint(node, c, e, err);
    if (status != PD_OK)
        return status;
    s->log = pd_log_child(node->log, c->name);
    if (s->log == NULL && node->log != NULL)
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    struct pd_instance_ctx ctx = {
        .size = sizeof ctx, .name = c->name, .loop = node->loop, .log = s->log,
        .metrics = node->metrics, .host = &node->host, .node = node->id,
    };
    return e->ops->create(&ctx, c->unit.conf, &e->adapter, err);
}

static pd_status server_make(struct pd_node *node, const struct pd_node_endpoint_conf *c,
                             struct pd_conf *conf, const void *source, struct pd_node_server **out,
                             struct pd_err *err)
{
    struct pd_node_server *s = pd_calloc(1, sizeof *s);
    if (s == NULL)
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    s->from = pd_conf_get(conf);
    s->source = source;
    pd_status status = strings_copy(s, c) ? server_fill(node, s, err)
                                          : pd_err_set(err, PD_ENOMEM, "out of memory");
    if (status != PD_OK) {
        if (err->file[0] == '\0' && c->place.file != NULL) {
            snprintf(err->file, sizeof err->file, "%s", c->place.file);
            err->line = c->place.line;
        }
        server_free(s);
        return status;
    }
    *out = s;
    return PD_OK;
}

/* ---- those who watch --------------------------------------------------------------- */

/* Tells the watches before `end` (NULL: all). */
pd_status pd_node_endpoint_check(struct pd_node *node, const struct pd_node_endpoint_conf *c,
                                 struct pd_err *err)
{
    struct pd_node_endpoint e = { .size = sizeof e };
    pd_status status = url_read(c->url, &e, err);
    if (status == PD_OK)
        status = pd_node_tls_endpoint(node, c, &e, err);
    pd_tls_destroy(e.tls);
    pd_free((void *)(uintptr_t)e.host);
    pd_free((void *)(uintptr_t)e.authority);
    if (status != PD_OK && err->file[0] == '\0') {
        snprintf(err->file, sizeof err->file, "%s", c->place.file);
        err->line = c->place.line;
    }
    return status;
}

static void tell_removed(struct pd_node *node, const struct pd_node_server *s, const struct pd_list *end)
{
    PD_LIST_EACH(&node->servers.watches, link) {
        struct pd_node_endpoint_watch *w = PD_LIST_ENTRY(link, struct pd_node_endpoint_watch, link);
        if (link == end)
            return;
        w->events->removed(&s->e, w->arg);
    }
}

/* All take it, or none has it. */
static pd_status tell_added(struct pd_node *node, const struct pd_node_server *s, struct pd_err *err)
{
    PD_LIST_EACH(&node->servers.watches, link) {
        struct pd_node_endpoint_watch *w = PD_LIST_ENTRY(link, struct pd_node_endpoint_watch, link);
        pd_status status = w->events->added(&s->e, w->arg);
        if (status == PD_OK)
            continue;
        tell_removed(node, s, link);
        pd_err_set(err, status, "endpoint \"%s\" cannot be added: %s", s->name,
                   status == PD_ELIMIT ? "the table of endpoints is full" : pd_status_text(status));
        if (status == PD_ELIMIT)
            pd_err_hint(err, "scheduler.endpoints says how many there can be");
        if (s->conf.place.file != NULL) {
            snprintf(err->file, sizeof err->file, "%s", s->conf.place.file);
            err->line = s->conf.place.line;
        }
        return status;
    }
    return PD_OK;
}

pd_status pd_node_endpoint_watch(struct pd_node *node, const struct pd_node_endpoint_events *events,
                                 void *arg, struct pd_node_endpoint_watch **out)
{
    struct pd_node_endpoint_watch *w = pd_calloc(1, sizeof *w);
    if (w == NULL)
        return PD_ENOMEM;
    w->events = events;
    w->arg = arg;
    pd_list_append(&node->servers.watches, &w->link);
    *out = w;
    return PD_OK;
}

void pd_node_endpoint_unwatch(struct pd_node_endpoint_watch *watch)
{
    pd_list_remove(&watch->link);
    pd_free(watch);
}

const struct pd_node_endpoint *pd_node_endpoint_at(struct pd_node *node, uint32_t index)
{
    return index < node->servers.n ? &node->servers.all[index]->e : NULL;
}

/* ---- the table ---------------------------------------------------------------------- */

void pd_node_endpoints_init(struct pd_node *node)
{
    pd_strmap_init(&node->servers.by_name, PD_NODE_ENDPOINTS_MAX, 0);
    pd_list_init(&node->servers.watches);
}

void pd_node_endpoints_free(struct pd_node *node)
{
    for (uint32_t i = 0; i < node->servers.n; i++)
        server_free(node->servers.all[i]);
    pd_free(node->servers.all);
    pd_strmap_fini(&node->servers.by_name);
    node->servers.all = NULL;
    node->servers.n = 0;
}

/* Room for so many more. */
static pd_status table_grow(struct pd_node *node, uint32_t more, struct pd_err *err)
{
    struct pd_node_servers *t = &node->servers;
    if (more > PD_NODE_ENDPOINTS_MAX - t->n)
        return pd_err_set(err, PD_ELIMIT, "a node can have %u endpoints", PD_NODE_ENDPOINTS_MAX);
    if (t->n + more <= t->cap)
        return PD_OK;
    uint32_t cap = t->n + more + t->n / 2;
    void *p = pd_realloc_array(t->all, cap, sizeof *t->all);
    if (p == NULL)
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    t->all = p;
    t->cap = cap;
    return PD_OK;
}

static pd_status name_is_taken(const struct pd_node_endpoint_conf *c, struct pd_err *err)
{
    pd_err_set(err, PD_EEXIST, "there is another endpoint \"%s\"", c->name);
    if (c->place.file != NULL) {
        snprintf(err->file, sizeof err->file, "%s", c->place.file);
        err->line = c->place.line;
    }
    return PD_EEXIST;
}

pd_status pd_node_endpoint_add(struct pd_node *node, const struct pd_node_endpoint_conf *c,
                               struct pd_conf *conf, const void *source, struct pd_err *err)
{
    struct pd_node_servers *t = &node->servers;
    struct pd_node_server *s = NULL;
    if (pd_strmap_get(&t->by_name, pd_str_from(c->name)) != NULL)
        return name_is_taken(c, err);
    pd_status status = table_grow(node, 1, err);
    if (status == PD_OK)
        status = server_make(node, c, conf, source, &s, err);
    if (status != PD_OK)
        return status;
    status = pd_strmap_add(&t->by_name, pd_str_from(c->name), s);
    if (status != PD_OK)
        pd_err_set(err, status, "endpoint \"%s\": %s", c->name, pd_status_text(status));
    else if ((status = tell_added(node, s, err)) != PD_OK)
        pd_strmap_remove(&t->by_name, pd_str_from(c->name));
    if (status != PD_OK) {
        server_free(s);
        return status;
    }
    t->all[t->n++] = s;
    return PD_OK;
}

pd_status pd_node_endpoint_remove(struct pd_node *node, struct pd_str name, const void *source)
{
    struct pd_node_servers *t = &node->servers;
    struct pd_node_server *s = pd_strmap_get(&t->by_name, name);
    uint32_t i = 0;
    if (s == NULL || s->source != source)
        return PD_ENOENT;
    while (t->all[i] != s)
        i++;
    memmove(&t->all[i], &t->all[i + 1], (t->n - i - 1) * sizeof *t->all);
    t->n--;
    pd_strmap_remove(&t->by_name, name);
    tell_removed(node, s, NULL);
    server_free(s);
    return PD_OK;
}

pd_status pd_node_endpoint_change(struct pd_node *node, const struct pd_node_endpoint_conf *c,
                                  struct pd_conf *conf, const void *source, struct pd_err *err)
{
    struct pd_node_servers *t = &node->servers;
    struct pd_node_server *old = pd_strmap_get(&t->by_name, pd_str_from(c->name)), *s = NULL;
    uint32_t i = 0;
    if (old == NULL || old->source != source)
        return pd_err_set(err, PD_ENOENT, "there is no endpoint \"%s\"", c->name);
    pd_status status = server_make(node, c, conf, source, &s, err);
    if (status != PD_OK)
        return status;
    status = pd_strmap_put(&t->by_name, pd_str_from(c->name), s, NULL);
    if (status != PD_OK)
        pd_err_set(err, status, "endpoint \"%s\": %s", c->name, pd_status_text(status));
    else if ((status = tell_added(node, s, err)) != PD_OK)
        (void)pd_strmap_put(&t->by_name, pd_str_from(c->name), old, NULL);
    if (status != PD_OK) {
        server_free(s);
        return status;
    }
    while (t->all[i] != old)
        i++;
    t->all[i] = s;
    tell_removed(node, old, NULL);
    server_free(old);
    return PD_OK;
}

pd_status pd_node_endpoint_rest(struct pd_node *node, struct pd_str name, const void *source,
                                bool is_resting)
{
    const struct pd_node_server *s = pd_strmap_get(&node->servers.by_name, name);
    if (s == NULL || s->source != source)
        return PD_ENOENT;
    PD_LIST_EACH(&node->servers.watches, link) {
        struct pd_node_endpoint_watch *w = PD_LIST_ENTRY(link, struct pd_node_endpoint_watch, link);
        if (w->events->rests != NULL)
            w->events->rests(&s->e, is_resting, w->arg);
    }
    return PD_OK;
}

void pd_node_endpoints_pass(struct pd_node *node, const void *from, const void *to)
{
    for (uint32_t i = 0; i < node->servers.n; i++) {
        if (node->servers.all[i]->source == from)
            node->servers.all[i]->source = to;
    }
}

/* ---- sets ----------------------------------------------------------------------------- */

static pd_status change_item(struct pd_node *node, struct pd_node_endpoints_change *change,
                             const struct pd_node_endpoint_conf *c, struct pd_conf *conf, struct pd_err *err)
{
    struct pd_node_servers *t = &node->servers;
    struct pd_node_server *old = pd_strmap_get(&t->by_name, pd_str_from(c->name)), *s;
    if (old != NULL && (old->source != change->source || old->round == change->round))
        return name_is_taken(c, err);
    if (old != NULL && pd_conf_equal(pd_node_endpoint_rows(), &old->conf, c)) {
        old->round = change->round;
        return PD_OK;
    }
    pd_status status = server_make(node, c, conf, change->source, &s, err);
    if (status != PD_OK)
        return status;
    s->round = change->round;
    /* The map has the new one from here on; an abort puts the old one back. */
    status = pd_strmap_put(&t->by_name, pd_str_from(c->name), s, NULL);
    if (status != PD_OK)
        pd_err_set(err, status, "endpoint \"%s\": %s", c->name, pd_status_text(status));
    else if ((status = tell_added(node, s, err)) == PD_OK)
        change->added[change->n_added++] = s;
    if (status != PD_OK) {
        if (old != NULL)
            (void)pd_strmap_put(&t->by_name, pd_str_from(c->name), old, NULL);
        else
            pd_strmap_remove(&t->by_name, pd_str_from(c->name));
        server_free(s);
    }
    return status;
}

pd_status pd_node_endpoints_prepare(struct pd_node *node, const struct pd_node_endpoint_conf *list,
                                    size_t n, struct pd_conf *conf, const void *source,
                                    struct pd_node_endpoints_change **out, struct pd_err *err)
{
    struct pd_node_endpoints_change *change = pd_calloc(1, sizeof *change);
    pd_status status = PD_OK;
    if (change != NULL)
        change->added = pd_calloc(n + 1, sizeof(struct pd_node_server *));
    if (change == NULL || change->added == NULL) {
        pd_free(change);
        return pd_err_set(err, PD_ENOMEM, "out of memory");
    }
    change->source = source;
    change->round = ++node->servers.round;
    for (size_t i = 0; i < n && status == PD_OK; i++)
        status = change_item(node, change, &list[i], conf, err);
    if (status == PD_OK)
        status = table_grow(node, change->n_added, err);
    if (status != PD_OK) {
        pd_node_endpoints_abort(node, change);
        return status;
    }
    *out = change;
    return PD_OK;
}

static void change_free(struct pd_node_endpoints_change *change)
{
    pd_free(change->added);
    pd_free(change);
}

/* New ones first, then those away that the set does not have. */
void pd_node_endpoints_commit(struct pd_node *node, struct pd_node_endpoints_change *change)
{
    struct pd_node_servers *t = &node->servers;
    uint32_t kept = 0, n = t->n + change->n_added;
    if (change->n_added > 0)
        memcpy(&t->all[t->n], change->added, change->n_added * sizeof *t->all);
    for (uint32_t i = 0; i < n; i++) {
        struct pd_node_server *s = t->all[i];
        if (s->source != change->source || s->round == change->round) {
            t->all[kept++] = s;
            continue;
        }
        if (pd_strmap_get(&t->by_name, pd_str_from(s->name)) == s)
            pd_strmap_remove(&t->by_name, pd_str_from(s->name));
        tell_removed(node, s, NULL);
        server_free(s);
    }
    t->n = kept;
    change_free(change);
}

void pd_node_endpoints_abort(struct pd_node *node, struct pd_node_endpoints_change *change)
{
    struct pd_node_servers *t = &node->servers;
    while (change->n_added > 0) {
        struct pd_node_server *s = change->added[--change->n_added];
        uint32_t i = 0;
        while (i < t->n && strcmp(t->all[i]->name, s->name) != 0)
            i++;
        /* Replacing what a name stands for needs no memory. */
        if (i < t->n)
            (void)pd_strmap_put(&t->by_name, pd_str_from(s->name), t->all[i], NULL);
        else
            pd_strmap_remove(&t->by_name, pd_str_from(s->name));
        tell_removed(node, s, NULL);
        server_free(s);
    }
    change_free(change);
}

pd_status pd_node_endpoints_set(struct pd_node *node, const struct pd_node_endpoint_conf *list, size_t n,
                                struct pd_conf *conf, const void *source, struct pd_err *err)
{
    struct pd_node_endpoints_change *change = NULL;
    pd_status status = pd_node_endpoints_prepare(node, list, n, conf, source, &change, err);
    if (status == PD_OK)
        pd_node_endpoints_commit(node, change);
    return status;
}
