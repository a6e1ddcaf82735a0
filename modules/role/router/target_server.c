/* SPDX-License-Identifier: Apache-2.0 */
/* Servers behind adapters, as the configuration and the sources name them.
 *
 * After a reload a server may be there in two forms until nothing uses the earlier one: the
 * newer target points to the one that it replaces, and the scheduler's endpoint to the
 * newest.  When that goes first, the form before is put again. */
#include <stdio.h>
#include <string.h>

#include "targets_int.h"

/* The key of a server in the scheduler's table; 0: too long. */
static size_t server_key(const struct pd_node_endpoint *e, char out[PD_ENDPOINT_KEY_MAX + 1])
{
    int n = snprintf(out, PD_ENDPOINT_KEY_MAX + 1, e->epoch != 0 ? "%s %s%s %llx" : "%s %s%s", e->name,
                     e->authority, e->tls != NULL ? " tls" : "", (unsigned long long)e->epoch);
    return n > 0 && n <= (int)PD_ENDPOINT_KEY_MAX ? (size_t)n : 0;
}

/* The target that the scheduler has for a server now; NULL: none. */
static struct target *server_known(struct router *r, const struct pd_node_endpoint *e)
{
    char key[PD_ENDPOINT_KEY_MAX + 1];
    struct pd_str text = { key, server_key(e, key) };
    struct pd_endpoint_status known = { .size = sizeof known };
    struct pd_endpoint_ref ref;
    if (text.n == 0 || r->sched->endpoint_find(r->scheds, text, &ref) != PD_OK ||
        r->sched->endpoint_get(r->scheds, ref, pd_loop_now(r->loop), &known) != PD_OK)
        return NULL;
    return known.user;
}

/* Whether it shares requests with other servers, and with which. */
static void server_kind(struct target *t, struct pd_endpoint_info *put)
{
    const struct pd_node_endpoint *e = t->endpoint;
    struct pd_adapter_split split = { .size = sizeof split };
    bool has_both = (e->roles & PD_ROLE_PREFILL) != 0 && (e->roles & PD_ROLE_DECODE) != 0;
    t->shares = e->ops->split != NULL && e->ops->split(e->adapter, &split) == PD_OK &&
                ((split.flags & (PD_ADAPTER_PAIR | PD_ADAPTER_APART)) == 0 || !has_both);
    put->flags = !t->shares ? PD_ENDPOINT_WHOLE
                 : (split.flags & PD_ADAPTER_PAIR) != 0 ? PD_ENDPOINT_PAIRED : PD_ENDPOINT_ESTIMATE;
    if (!t->shares)
        return;
    put->family = 14695981039346656037u;
    for (size_t i = 0; i < split.protocol.n; i++)
        put->family = (put->family ^ (unsigned char)split.protocol.p[i]) * 1099511628211u;
}

pd_status target_server_put(struct target *t, const struct pd_str *models, uint32_t n)
{
    struct router *r = t->router;
    const struct pd_node_endpoint *e = t->endpoint;
    char key[PD_ENDPOINT_KEY_MAX + 1];
    struct pd_endpoint_info put = {
        .size = sizeof put, .roles = e->roles, .name = str_of(e->name), .models = models, .models_n = n,
        .weight = e->weight, .user = t,
    };
    server_kind(t, &put);
    put.key = (struct pd_str){ key, server_key(e, key) };
    if (put.key.n == 0)
        return PD_EINVAL;
    struct pd_endpoint_status known = { .size = sizeof known };
    struct pd_endpoint_ref ref;
    struct pd_str before[ROUTER_MODELS_MAX];
    if (r->sched->endpoint_find(r->scheds, put.key, &ref) != PD_OK ||
        r->sched->endpoint_get(r->scheds, ref, pd_loop_now(r->loop), &known) != PD_OK) {
        put.state = PD_ENDPOINT_DOWN;
    } else if (n == 0) {
        /* What the server said it has still holds. */
        while (known.models[put.models_n] != NULL && put.models_n < ROUTER_MODELS_MAX) {
            before[put.models_n] = str_of(known.models[put.models_n]);
            put.models_n++;
        }
        put.models = before;
    }
    pd_status status = r->sched->endpoint_put(r->scheds, &put, &t->ref);
    for (uint32_t i = 0; i < n && status == PD_OK; i++)
        router_model_add(r, models[i]);
    return status;
}

static uint32_t configured_models(const struct pd_node_endpoint *e, struct pd_str *out, uint32_t cap)
{
    uint32_t n = 0;
    while (e->models != NULL && e->models[n] != NULL && n < cap) {
        out[n] = str_of(e->models[n]);
        n++;
    }
    return n;
}

static pd_status server_put_configured(struct target *t)
{
    struct pd_str models[ROUTER_MODELS_MAX];
    return target_server_put(t, models, configured_models(t->endpoint, models, ROUTER_MODELS_MAX));
}

/* A reload may change many servers at a time; those that are known to be up are in
 * use as before, so their probes need not come together. */
static pd_time first_probe_delay(const struct target *t)
{
    struct router *r = t->router;
    pd_time most = r->conf->probe_interval < PD_SEC ? r->conf->probe_interval : PD_SEC;
    if (t->replaces == NULL || t->probed != PD_ENDPOINT_UP || most == 0)
        return 0;
    return pd_loop_random_u64(r->loop) % most;
}

pd_status target_server_add(struct router *r, const struct pd_node_endpoint *e)
{
    struct target *t = target_add(r);
    if (t == NULL)
        return PD_ENOMEM;
    t->endpoint = e;
    t->replaces = server_known(r, e);
    pd_timer_init(&t->probe_timer, r->loop, "router probe", target_probe, t);
    pd_status status = server_put_configured(t);
    if (status != PD_OK) {
        target_free(t);
        return status;
    }
    if (t->replaces != NULL) {
        t->probed = t->replaces->probed;
        t->is_resting = t->replaces->is_resting;
        t->is_suspect = t->replaces->is_suspect;
        t->addr = t->replaces->addr;
        t->is_resolved = t->replaces->is_resolved;
    } else {
        /* One that comes back is looked up and probed again. */
        t->probed = PD_ENDPOINT_DOWN;
        r->sched->endpoint_state(r->scheds, t->ref, PD_ENDPOINT_DOWN);
    }
    pd_timer_start(&t->probe_timer, first_probe_delay(t));
    return PD_OK;
}

void target_server_stop(struct target *t)
{
    struct router *r = t->router;
    pd_timer_stop(&t->probe_timer);
    if (t->is_resolving)
        pd_resolve_cancel(r->loop, &t->resolve);
    if (t->probe != NULL)
        r->net->call_cancel(t->probe);
}

void target_server_remove(struct target *t)
{
    struct router *r = t->router;
    struct target *known = server_known(r, t->endpoint);
    target_server_stop(t);
    if (known == t && t->replaces != NULL) {
        /* Its form before is there again. */
        (void)server_put_configured(t->replaces);
    } else if (known == t) {
        r->sched->endpoint_drain(r->scheds, t->ref);
    } else {
        while (known != NULL && known->replaces != t)
            known = known->replaces;
        if (known != NULL)
            known->replaces = t->replaces;
    }
    target_free(t);
}

struct target *target_server_find(struct router *r, const struct pd_node_endpoint *e)
{
    struct target *t = server_known(r, e);
    while (t != NULL && t->endpoint != e)
        t = t->replaces;
    return t;
}
