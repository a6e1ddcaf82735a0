/* SPDX-License-Identifier: Apache-2.0 */
/* The scheduler's table of functions: endpoints, prompts and dispatches.  A decision
 * (decide.c) counts nothing as sent; pd_dispatch does, and every open dispatch is ended
 * once. */
#include "sched/scheduler.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "sched/priv.h"

#include <stdio.h>
#include <string.h>

pd_status pd_sched_create(const struct pd_sched_conf *conf,
                          const struct pd_sched_pipeline *pipeline, struct pd_metrics *metrics,
                          struct pd_err *err, struct pd_sched **out)
{
    const struct pd_prefix_conf prefix = {
        .slots = (uint32_t)conf->endpoints,
        .entries = (uint32_t)conf->prefix.blocks,
        .per_slot = (uint32_t)conf->prefix.blocks_per_endpoint,
        .max_blocks = (uint32_t)conf->prefix.max_match_blocks,
        .block_bytes = (uint32_t)conf->prefix.block_tokens * 4,
    };
    struct pd_sched *sched = pd_calloc(1, sizeof *sched);
    if (sched == NULL)
        return pd_err_set(err, PD_ENOMEM, "no memory for the scheduler");
    pd_sched_set_pipeline(sched, conf, pipeline);
    sched->block_tokens = (uint32_t)conf->prefix.block_tokens;
    pd_status st = pd_endpoints_init(&sched->endpoints, (uint32_t)conf->endpoints,
                                     (uint32_t)conf->failures, conf->failure_pause);
    if (st == PD_OK)
        st = pd_prefix_create(&prefix, &sched->prefix);
    if (st == PD_OK)
        st = pd_pipeline_scratch_init(&sched->scratch, (uint32_t)conf->endpoints);
    if (st == PD_OK)
        st = pd_shortlist_reserve(&sched->once, (uint32_t)conf->endpoints, PD_PROFILE_SCORERS_MAX,
                                  (uint32_t)conf->endpoints);
    if (st != PD_OK)
        (void)pd_err_set(err, st, "cannot set up the scheduler: %s", pd_status_text(st));
    else
        st = pd_sched_meter_init(&sched->meter, metrics, err);
    if (st != PD_OK) {
        pd_sched_destroy(sched);
        return st;
    }
    *out = sched;
    return PD_OK;
}

void pd_sched_destroy(struct pd_sched *sched)
{
    if (sched == NULL)
        return;
    for (uint32_t i = 0; sched->endpoints.slots != NULL && i < sched->endpoints.used; i++) {
        if (sched->endpoints.slots[i] != NULL)
            pd_sched_meter_gone(&sched->meter, sched->endpoints.slots[i]->name);
    }
    pd_endpoints_fini(&sched->endpoints);
    pd_prefix_destroy(sched->prefix);
    pd_pipeline_scratch_fini(&sched->scratch);
    pd_shortlist_fini(&sched->once);
    for (uint32_t i = 0; i < PD_SCHED_LISTS; i++)
        pd_shortlist_fini(&sched->lists[i]);
    pd_free(sched);
}

void pd_sched_set_pipeline(struct pd_sched *sched, const struct pd_sched_conf *conf,
                           const struct pd_sched_pipeline *pipeline)
{
    sched->pipeline = pipeline;
    sched->load_stale = conf->load_stale;
    sched->explain_max = (uint32_t)conf->explain_candidates;
    sched->endpoints.version++;     /* lists are of the profiles before */
}

void pd_sched_prefix_stats(const struct pd_sched *sched, struct pd_prefix_stats *out)
{
    pd_prefix_stats(sched->prefix, out);
}

/* ---- endpoints ---- */

/* The index must not believe in more than the endpoint's cache can hold. */
static void limit_index(struct pd_sched *sched, const struct pd_endpoint *e)
{
    uint64_t tokens = (uint64_t)e->view.blocks_total * e->block_tokens;
    uint64_t blocks = tokens / sched->block_tokens;

    if (tokens != 0)
        blocks = PD_MAX(PD_MIN(blocks, (uint64_t)UINT32_MAX), 1u);
    pd_prefix_slot_limit(sched->prefix, e->view.slot, (uint32_t)blocks);
}

static pd_status endpoint_put(struct pd_sched *sched, const struct pd_endpoint_info *info,
                              struct pd_endpoint_ref *out)
{
    struct pd_endpoint *e = NULL;
    bool is_new = false;
    char before[PD_ENDPOINT_NAME_MAX + 1] = "";

    if ((e = pd_endpoints_find(&sched->endpoints, info->key)) != NULL)
        snprintf(before, sizeof before, "%s", e->name);
    pd_status st = pd_endpoints_put(&sched->endpoints, info, &e, &is_new);
    if (st != PD_OK)
        return st;
    limit_index(sched, e);
    if (strcmp(before, e->name) != 0)
        e->seat.version = 0;
    if (!is_new && strcmp(before, e->name) != 0)
        pd_sched_meter_gone(&sched->meter, before);
    pd_sched_meter_endpoints(&sched->meter, sched->endpoints.n);
    pd_sched_meter_inflight(&sched->meter, e->name, &e->seat, e->view.inflight);
    *out = pd_endpoint_ref_of(e);
    return PD_OK;
}

static void remove_now(struct pd_sched *sched, struct pd_endpoint *e)
{
    pd_prefix_clear(sched->prefix, e->view.slot);
    pd_sched_meter_gone(&sched->meter, e->name);
    pd_endpoints_remove(&sched->endpoints, e);
    pd_sched_meter_endpoints(&sched->meter, sched->endpoints.n);
}

static pd_status endpoint_remove(struct pd_sched *sched, struct pd_endpoint_ref ref)
{
    struct pd_endpoint *e = pd_endpoints_at(&sched->endpoints, ref);

    if (e == NULL)
        return PD_ESTALE;
    remove_now(sched, e);
    return PD_OK;
}

static pd_status endpoint_drain(struct pd_sched *sched, struct pd_endpoint_ref ref)
{
    struct pd_endpoint *e = pd_endpoints_at(&sched->endpoints, ref);

    if (e == NULL)
        return PD_ESTALE;
    pd_endpoints_leave(&sched->endpoints, e);
    if (e->view.inflight == 0)
        remove_now(sched, e);
    return PD_OK;
}

static pd_status endpoint_find(const struct pd_sched *sched, struct pd_str key,
                               struct pd_endpoint_ref *out)
{
    const struct pd_endpoint *e = pd_endpoints_find(&sched->endpoints, key);

    if (e == NULL)
        return PD_ENOENT;
    *out = pd_endpoint_ref_of(e);
    return PD_OK;
}

static pd_status endpoint_state(struct pd_sched *sched, struct pd_endpoint_ref ref, uint32_t state)
{
    struct pd_endpoint *e = pd_endpoints_at(&sched->endpoints, ref);

    if (e == NULL || e->is_leaving)
        return PD_ESTALE;
    if (state < PD_ENDPOINT_UP || state > PD_ENDPOINT_DRAINING)
        return PD_EINVAL;
    pd_endpoints_state(&sched->endpoints, e, state);
    return PD_OK;
}

static pd_status endpoint_report(struct pd_sched *sched, struct pd_endpoint_ref ref,
                                 const struct pd_endpoint_load *load, pd_time now)
{
    struct pd_endpoint *e = pd_endpoints_at(&sched->endpoints, ref);

    if (e == NULL)
        return PD_ESTALE;
    uint32_t blocks = e->view.blocks_total;
    pd_endpoints_report(&sched->endpoints, e, load, sched->load_stale, now);
    if (blocks != e->view.blocks_total)
        limit_index(sched, e);
    return PD_OK;
}

static pd_status endpoint_forget(struct pd_sched *sched, struct pd_endpoint_ref ref)
{
    if (pd_endpoints_at(&sched->endpoints, ref) == NULL)
        return PD_ESTALE;
    pd_prefix_clear(sched->prefix, ref.slot);
    return PD_OK;
}

static void status_of(const struct pd_sched *sched, const struct pd_endpoint *e, pd_time now,
                      struct pd_endpoint_status *out)
{
    memset(out, 0, sizeof *out);
    out->size = sizeof *out;
    out->failures = e->failures;
    out->ref = pd_endpoint_ref_of(e);
    pd_endpoint_view_at(e, now, &out->view);
    out->key = e->key;
    out->models = (const char *const *)e->models;
    out->dispatched_total = e->dispatched_total;
    out->failed_total = e->failed_total;
    out->index_blocks = pd_prefix_slot_entries(sched->prefix, e->view.slot);
    out->user = e->user;
}

static pd_status endpoint_get(const struct pd_sched *sched, struct pd_endpoint_ref ref, pd_time now,
                              struct pd_endpoint_status *out)
{
    const struct pd_endpoint *e = pd_endpoints_at(&sched->endpoints, ref);

    if (e == NULL)
        return PD_ESTALE;
    status_of(sched, e, now, out);
    return PD_OK;
}

static bool endpoint_next(const struct pd_sched *sched, uint32_t *cursor, pd_time now,
                          struct pd_endpoint_status *out)
{
    while (*cursor < sched->endpoints.used) {
        const struct pd_endpoint *e = sched->endpoints.slots[(*cursor)++];
        if (e != NULL) {
            status_of(sched, e, now, out);
            return true;
        }
    }
    return false;
}

static uint32_t roles_of(const struct pd_endpoint_view *view)
{
    return view->roles == 0 ? PD_ROLE_DECODE : view->roles;
}

/* Whether prompts can be computed for what is paired in the family. */
static bool has_prefill(const struct pd_sched *sched, uint64_t family)
{
    for (uint32_t i = 0; i < sched->endpoints.used; i++) {
        const struct pd_endpoint *e = sched->endpoints.slots[i];
        if (e != NULL && (e->view.roles & PD_ROLE_PREFILL) != 0 && pd_sched_is_alive(&e->view) &&
            (e->flags & PD_ENDPOINT_WHOLE) == 0 && e->family == family)
            return true;
    }
    return false;
}

static uint32_t endpoint_count(const struct pd_sched *sched, uint32_t roles, struct pd_str model)
{
    uint64_t hash = pd_endpoint_model_hash(model), family = 0;
    bool is_useful = false;
    uint32_t n = 0;

    for (uint32_t i = 0; i < sched->endpoints.used; i++) {
        const struct pd_endpoint *e = sched->endpoints.slots[i];
        if (e == NULL || (roles_of(&e->view) & roles) == 0 || !pd_sched_is_alive(&e->view) ||
            !pd_endpoint_serves(e, model, hash))
            continue;
        if ((e->flags & PD_ENDPOINT_PAIRED) != 0 && e->family != family) {
            family = e->family;
            is_useful = has_prefill(sched, family);
        }
        n += (e->flags & PD_ENDPOINT_PAIRED) == 0 || is_useful;
    }
    return n;
}

static __attribute__((noinline)) bool is_served(const struct pd_sched *sched, struct pd_str model)
{
    uint64_t hash = pd_endpoint_model_hash(model);

    for (uint32_t i = 0; i < sched->endpoints.used; i++) {
        const struct pd_endpoint *e = sched->endpoints.slots[i];
        if (e != NULL && !e->is_leaving && pd_endpoint_serves(e, model, hash))
            return true;
    }
    return false;
}

static bool model_known(const struct pd_sched *sched, struct pd_str model)
{
    for (uint32_t i = 0; i < PD_SCHED_LISTS; i++) {
        const struct pd_shortlist *l = &sched->lists[i];
        if (l->version == sched->endpoints.version && l->serving > 0 && pd_str_eq_short(model, pd_str_of(l->model, l->model_n)))
            return true;
    }
    return is_served(sched, model);
}

/* ---- prompts ---- */

static uint32_t prompt_room(const struct pd_sched *sched, uint64_t bytes)
{
    return pd_prefix_room(sched->prefix, bytes);
}

static void prompt_hash(const struct pd_sched *sched, struct pd_prompt *prompt, struct pd_str model,
                        struct pd_str salt, const void *bytes, size_t n, uint64_t *hashes,
                        uint32_t room)
{
    pd_prefix_prompt(sched->prefix, prompt, model, salt, bytes, n, hashes, room);
}

/* ---- dispatches ---- */

static pd_status dispatch(struct pd_sched *sched, struct pd_endpoint_ref ref, uint32_t role,
                          const struct pd_prompt *prompt, uint64_t tokens, pd_time now,
                          struct pd_dispatch *out)
{
    struct pd_endpoint *e = pd_endpoints_at(&sched->endpoints, ref);

    (void)now;
    memset(out, 0, sizeof *out);
    if (e == NULL)
        return PD_ESTALE;
    pd_endpoints_dispatched(&sched->endpoints, e, role, tokens, out);
    /* The index keeps the low 32 bits, where 0 has a meaning of its own. */
    if ((uint32_t)++sched->ticket == 0)
        sched->ticket++;
    out->ticket = sched->ticket;
    out->prompt = prompt;
    if (prompt != NULL)
        pd_prefix_insert(sched->prefix, ref.slot, prompt->hashes, prompt->n, (uint32_t)out->ticket);
    pd_sched_meter_inflight(&sched->meter, e->name, &e->seat, e->view.inflight);
    return PD_OK;
}

static void computed(struct pd_sched *sched, struct pd_dispatch *d)
{
    struct pd_endpoint *e = d->ticket == 0 ? NULL : pd_endpoints_at(&sched->endpoints, d->ref);

    if (e != NULL)
        pd_endpoints_computed(&sched->endpoints, e, d);
    d->prompt = NULL;
}

static void end(struct pd_sched *sched, struct pd_dispatch *d, uint32_t result, pd_time now)
{
    if (d->ticket == 0)
        return;
    struct pd_endpoint *e = pd_endpoints_at(&sched->endpoints, d->ref);

    if (e != NULL) {
        if (result != PD_DISPATCH_OK && d->prompt != NULL)
            pd_prefix_rollback(sched->prefix, d->ref.slot, d->prompt->hashes, d->prompt->n,
                               (uint32_t)d->ticket);
        pd_endpoints_ended(&sched->endpoints, e, d, result, now);
        pd_sched_meter_inflight(&sched->meter, e->name, &e->seat, e->view.inflight);
        if (result == PD_DISPATCH_FAILED)
            pd_sched_meter_failed(&sched->meter, d->role);
        if (e->is_leaving && e->view.inflight == 0)
            remove_now(sched, e);
    }
    d->ticket = 0;
    d->prompt = NULL;
}

const struct pd_sched_api *pd_sched_api(void)
{
    static const struct pd_sched_api api = {
        .size = sizeof api,
        .version = PD_SCHED_VERSION,
        .endpoint_put = endpoint_put,
        .endpoint_remove = endpoint_remove,
        .endpoint_find = endpoint_find,
        .endpoint_state = endpoint_state,
        .endpoint_report = endpoint_report,
        .endpoint_forget = endpoint_forget,
        .endpoint_get = endpoint_get,
        .endpoint_next = endpoint_next,
        .endpoint_count = endpoint_count,
        .model_known = model_known,
        .prompt_room = prompt_room,
        .prompt_hash = prompt_hash,
        .schedule = pd_sched_schedule,
        .schedule_prefill = pd_sched_schedule_prefill,
        .dispatch = dispatch,
        .computed = computed,
        .end = end,
        .endpoint_drain = endpoint_drain,
    };
    return &api;
}
