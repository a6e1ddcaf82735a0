/* SPDX-License-Identifier: Apache-2.0 */
/* The endpoint table.  Slots are small numbers that are used again; serials
 * are not, so a handle of an endpoint that went away never reaches the next
 * one in its slot.  In-flight counts change only through a struct pd_dispatch,
 * which belongs to one (slot, serial). */
#include "sched/endpoints.h"

#include "base/compiler.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/str.h"

#include <string.h>

#define MODEL_BYTES_MAX 255u

pd_status pd_endpoints_init(struct pd_endpoints *t, uint32_t max, uint32_t failures_max,
                            pd_time suspect_ns)
{
    memset(t, 0, sizeof *t);
    if (max == 0)
        return PD_EINVAL;
    pd_strmap_init(&t->by_key, max, 0);
    t->max = max;
    t->version = 1;
    t->failures_max = failures_max;
    t->suspect_ns = suspect_ns;
    t->slots = pd_calloc(max, sizeof *t->slots);
    t->spare = pd_calloc(max, sizeof *t->spare);
    if (t->slots == NULL || t->spare == NULL) {
        pd_endpoints_fini(t);
        return PD_ENOMEM;
    }
    return PD_OK;
}

static void endpoint_free(struct pd_endpoint *e)
{
    pd_free(e->models);
    pd_free(e->known);
    pd_free(e->key);
    pd_free(e);
}

void pd_endpoints_fini(struct pd_endpoints *t)
{
    for (uint32_t i = 0; t->slots != NULL && i < t->used; i++) {
        if (t->slots[i] != NULL)
            endpoint_free(t->slots[i]);
    }
    pd_free(t->slots);
    pd_free(t->spare);
    pd_strmap_fini(&t->by_key);
    memset(t, 0, sizeof *t);
}

uint64_t pd_endpoint_model_hash(struct pd_str model)
{
    return pd_hash64(model.p == NULL ? "" : model.p, model.n, 0);
}

static bool info_is_legal(const struct pd_endpoint_info *info)
{
    if (info->key.n == 0 || info->key.n > PD_ENDPOINT_KEY_MAX ||
        info->models_n > PD_ENDPOINT_MODELS_MAX || info->state > PD_ENDPOINT_DRAINING)
        return false;
    for (uint32_t i = 0; i < info->models_n; i++) {
        if (info->models[i].n == 0 || info->models[i].n > MODEL_BYTES_MAX)
            return false;
    }
    return true;
}

/* Pointers and texts of the models in one piece. */
static pd_status copy_models(const struct pd_endpoint_info *info, char ***models,
                             struct pd_endpoint_model **known)
{
    size_t bytes = ((size_t)info->models_n + 1) * sizeof(char *);

    for (uint32_t i = 0; i < info->models_n; i++)
        bytes += info->models[i].n + 1;
    *models = pd_alloc(bytes);
    *known = pd_calloc((size_t)info->models_n + 1, sizeof **known);
    if (*models == NULL || *known == NULL) {
        pd_free(*models);
        pd_free(*known);
        return PD_ENOMEM;
    }
    char *text = (char *)(*models + info->models_n + 1);
    for (uint32_t i = 0; i < info->models_n; i++) {
        (*models)[i] = text;
        memcpy(text, info->models[i].p, info->models[i].n);
        text[info->models[i].n] = '\0';
        text += info->models[i].n + 1;
        (*known)[i] = (struct pd_endpoint_model){ pd_endpoint_model_hash(info->models[i]),
                                                  info->models[i].n };
    }
    (*models)[info->models_n] = NULL;
    return PD_OK;
}

/* A new endpoint without models, in the table.  Serials begin at 1. */
static pd_status add(struct pd_endpoints *t, struct pd_str key, struct pd_endpoint **out)
{
    if (t->n == t->max)
        return PD_ELIMIT;
    struct pd_endpoint *e = pd_calloc(1, sizeof *e);
    if (e == NULL)
        return PD_ENOMEM;
    e->key = pd_str_dup(key);
    pd_status st = e->key == NULL ? PD_ENOMEM : pd_strmap_add(&t->by_key, key, e);
    if (st != PD_OK) {
        endpoint_free(e);
        return st;
    }
    e->view.slot = t->spare_n > 0 ? t->spare[--t->spare_n] : t->used++;
    e->view.serial = ++t->serial;
    e->view.size = sizeof e->view;
    e->view.name = e->name;
    e->view.state = PD_ENDPOINT_UP;
    e->reported = PD_TIME_NEVER;
    t->slots[e->view.slot] = e;
    t->n++;
    *out = e;
    return PD_OK;
}

pd_status pd_endpoints_put(struct pd_endpoints *t, const struct pd_endpoint_info *info,
                           struct pd_endpoint **out, bool *is_new)
{
    char **models = NULL;
    struct pd_endpoint_model *known = NULL;

    if (!info_is_legal(info))
        return PD_EINVAL;
    pd_status st = copy_models(info, &models, &known);
    if (st != PD_OK)
        return st;
    struct pd_endpoint *e = pd_strmap_get(&t->by_key, info->key);
    *is_new = e == NULL;
    if (e == NULL)
        st = add(t, info->key, &e);
    if (st != PD_OK) {
        pd_free(models);
        pd_free(known);
        return st;
    }
    t->version++;
    pd_free(e->models);
    pd_free(e->known);
    e->models = models;
    e->known = known;
    e->models_n = info->models_n;
    (void)pd_str_copy(info->name.n > 0 ? info->name : info->key, e->name, sizeof e->name);
    e->name_n = (uint32_t)strlen(e->name);
    e->view.roles = info->roles;
    e->view.weight = info->weight == 0 ? 100 : info->weight;
    if (e->is_leaving)
        e->view.state = e->state_before;
    e->is_leaving = false;
    if (info->state != 0)
        e->view.state = info->state;
    if (info->blocks_total != 0) {
        if (e->view.blocks_total == 0)
            e->view.blocks_free = info->blocks_total;
        e->view.blocks_total = info->blocks_total;
    }
    e->block_tokens = info->block_tokens;
    e->flags = info->flags;
    e->family = info->family;
    e->user = info->user;
    *out = e;
    return PD_OK;
}

void pd_endpoints_remove(struct pd_endpoints *t, struct pd_endpoint *e)
{
    t->version++;
    pd_strmap_remove(&t->by_key, pd_str_from(e->key));
    t->slots[e->view.slot] = NULL;
    t->spare[t->spare_n++] = e->view.slot;
    t->n--;
    endpoint_free(e);
}

void pd_endpoints_state(struct pd_endpoints *t, struct pd_endpoint *e, uint32_t state)
{
    t->version += state != e->view.state;
    e->view.state = state;
}

void pd_endpoints_leave(struct pd_endpoints *t, struct pd_endpoint *e)
{
    if (e->is_leaving)
        return;
    t->version++;
    e->is_leaving = true;
    e->state_before = e->view.state;
    e->view.state = PD_ENDPOINT_DRAINING;
    e->user = NULL;
}

struct pd_endpoint *pd_endpoints_find(const struct pd_endpoints *t, struct pd_str key)
{
    return pd_strmap_get(&t->by_key, key);
}

bool pd_endpoint_serves(const struct pd_endpoint *e, struct pd_str model, uint64_t model_hash)
{
    if (e->models_n == 0 || model.n == 0)
        return true;
    for (uint32_t i = 0; i < e->models_n; i++) {
        if (e->known[i].hash == model_hash && e->known[i].n == model.n &&
            memcmp(e->models[i], model.p, model.n) == 0)
            return true;
    }
    return false;
}

void pd_endpoint_view_at(const struct pd_endpoint *e, pd_time now, struct pd_endpoint_view *out)
{
    *out = e->view;
    out->report_age_ns = pd_endpoint_age(e, now);
    if (out->state == PD_ENDPOINT_UP && now < e->suspect_until)
        out->state = PD_ENDPOINT_SUSPECT;
}

static void changed(struct pd_endpoints *t, const struct pd_endpoint *e)
{
    t->changed[t->changes++ % PD_ENDPOINTS_CHANGES] = e->view.slot;
}

void pd_endpoints_report(struct pd_endpoints *t, struct pd_endpoint *e, const struct pd_endpoint_load *load,
                         pd_time stale_ns, pd_time now)
{
    pd_time age = pd_endpoint_age(e, now);

    t->version += age > stale_ns || age == PD_TIME_NEVER;
    changed(t, e);
    e->view.running = load->running;
    e->view.waiting = load->waiting;
    if (load->blocks_total != 0)
        e->view.blocks_total = load->blocks_total;
    e->view.blocks_free = load->blocks_free;
    e->view.dispatched = 0;
    e->report++;
    e->reported = now;
}

void pd_endpoints_dispatched(struct pd_endpoints *t, struct pd_endpoint *e, uint32_t role, uint64_t tokens,
                             struct pd_dispatch *out)
{
    changed(t, e);
    out->ref = pd_endpoint_ref_of(e);
    out->tokens = tokens;
    out->report = e->report;
    out->role = role;
    e->view.inflight++;
    e->view.dispatched++;
    e->view.inflight_tokens += tokens;
    e->dispatched_total++;
}

static void forget_tokens(struct pd_endpoint *e, struct pd_dispatch *d)
{
    e->view.inflight_tokens -= PD_MIN(d->tokens, e->view.inflight_tokens);
    d->tokens = 0;
}

void pd_endpoints_computed(struct pd_endpoints *t, struct pd_endpoint *e, struct pd_dispatch *d)
{
    if (d->tokens != 0)
        changed(t, e);
    forget_tokens(e, d);
}

static void suspect_until(struct pd_endpoints *t, struct pd_endpoint *e, pd_time until)
{
    t->version += e->suspect_until != until;
    e->suspect_until = until;
}

void pd_endpoints_ended(struct pd_endpoints *t, struct pd_endpoint *e, struct pd_dispatch *d,
                        uint32_t result, pd_time now)
{
    changed(t, e);
    forget_tokens(e, d);
    if (e->view.inflight > 0)
        e->view.inflight--;
    /* What was sent after the last report and has ended is not in the report
     * and is no load any more. */
    if (d->report == e->report && e->view.dispatched > 0)
        e->view.dispatched--;
    if (result == PD_DISPATCH_OK) {
        e->failures = 0;
        suspect_until(t, e, 0);
    } else if (result == PD_DISPATCH_FAILED) {
        e->failures++;
        e->failed_total++;
        if (t->failures_max != 0 && e->failures >= t->failures_max)
            suspect_until(t, e, now + t->suspect_ns);
    }
}
