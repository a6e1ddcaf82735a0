/* SPDX-License-Identifier: Apache-2.0 */
/* One decision, in this order: the decode profile chooses who decodes, the
 * decider says local or remote, and for remote the prefill profile chooses up
 * to three endpoints.  Where no prefill endpoint can take it the request runs
 * aggregated, so an empty or dead prefill pool never fails a request, unless all
 * that decode are paired: those compute no prompts.
 *
 * A decision counts nothing as sent; pd_dispatch does, and every open dispatch
 * is ended once.  All memory that a decision needs is there from the start. */
#include "sched/scheduler.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "sched/endpoints.h"
#include "sched/meter.h"

#include <stdio.h>
#include <string.h>

struct pd_sched {
    struct pd_endpoints endpoints;
    struct pd_prefix *prefix;
    struct pd_pipeline_scratch scratch;
    struct pd_endpoint_view *views; /* of the request at hand, before any filter */
    uint32_t views_n;
    /* Which slots serve the model that was asked for last. */
    uint8_t *serves;
    uint64_t serves_version;
    size_t serves_n;
    char serves_model[128];
    const struct pd_sched_pipeline *pipeline;
    pd_time load_stale;
    uint32_t explain_max;
    uint32_t block_tokens;
    uint64_t ticket;
    struct pd_sched_meter meter;
};

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
        st = pd_pipeline_scratch_init(&sched->scratch, (uint32_t)conf->endpoints,
                                      PD_PROFILE_SCORERS_MAX);
    if (st == PD_OK) {
        sched->views = pd_calloc((size_t)conf->endpoints, sizeof *sched->views);
        sched->serves = pd_calloc((size_t)conf->endpoints, 1);
        st = sched->views == NULL || sched->serves == NULL ? PD_ENOMEM : PD_OK;
    }
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
    pd_free(sched->views);
    pd_free(sched->serves);
    pd_free(sched);
}

void pd_sched_set_pipeline(struct pd_sched *sched, const struct pd_sched_conf *conf,
                           const struct pd_sched_pipeline *pipeline)
{
    sched->pipeline = pipeline;
    sched->load_stale = conf->load_stale;
    sched->explain_max = (uint32_t)conf->explain_candidates;
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
    pd_endpoint_leave(e);
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
    e->view.state = state;
    return PD_OK;
}

static pd_status endpoint_report(struct pd_sched *sched, struct pd_endpoint_ref ref,
                                 const struct pd_endpoint_load *load, pd_time now)
{
    struct pd_endpoint *e = pd_endpoints_at(&sched->endpoints, ref);

    if (e == NULL)
        return PD_ESTALE;
    uint32_t blocks = e->view.blocks_total;
    pd_endpoint_report(e, load, now);
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

static bool is_alive(const struct pd_endpoint_view *view)
{
    return view->state == PD_ENDPOINT_UP || view->state == PD_ENDPOINT_SUSPECT;
}

/* Whether prompts can be computed for what is paired in the family. */
static bool has_prefill(const struct pd_sched *sched, uint64_t family)
{
    for (uint32_t i = 0; i < sched->endpoints.used; i++) {
        const struct pd_endpoint *e = sched->endpoints.slots[i];
        if (e != NULL && (e->view.roles & PD_ROLE_PREFILL) != 0 && is_alive(&e->view) &&
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
        if (e == NULL || (roles_of(&e->view) & roles) == 0 || !is_alive(&e->view) ||
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

static bool model_known(const struct pd_sched *sched, struct pd_str model)
{
    uint64_t hash = pd_endpoint_model_hash(model);

    for (uint32_t i = 0; i < sched->endpoints.used; i++) {
        const struct pd_endpoint *e = sched->endpoints.slots[i];
        if (e != NULL && !e->is_leaving && pd_endpoint_serves(e, model, hash))
            return true;
    }
    return false;
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

/* ---- decisions ---- */

/* Marks the slots that serve the model, unless that is known already. */
static void mark_serving(struct pd_sched *sched, struct pd_str model)
{
    const struct pd_endpoints *t = &sched->endpoints;

    if (sched->serves_version == t->version && sched->serves_n == model.n && model.n > 0 &&
        memcmp(sched->serves_model, model.p, model.n) == 0)
        return;
    uint64_t hash = pd_endpoint_model_hash(model);
    for (uint32_t i = 0; i < t->used; i++)
        sched->serves[i] = t->slots[i] != NULL && pd_endpoint_serves(t->slots[i], model, hash);
    sched->serves_version = t->version;
    sched->serves_n = model.n <= sizeof sched->serves_model ? model.n : 0;
    if (sched->serves_n > 0)
        memcpy(sched->serves_model, model.p, model.n);
}

/* All endpoints that serve the model, as they are now. */
static void gather(struct pd_sched *sched, const struct pd_sched_ask *ask)
{
    const struct pd_endpoints *t = &sched->endpoints;
    uint32_t n = 0;

    mark_serving(sched, ask->model);
    for (uint32_t i = 0; i < t->used; i++) {
        const struct pd_endpoint *e = t->slots[i];
        if (e != NULL && !e->is_leaving && sched->serves[i] != 0)
            pd_endpoint_view_at(e, ask->now, &sched->views[n++]);
    }
    sched->views_n = n;
    if (ask->prompt != NULL && ask->prompt->n > 0)
        pd_prefix_match_all(sched->prefix, sched->views, n, ask->prompt->hashes, ask->prompt->n);
}

static void fill_request(const struct pd_sched *sched, const struct pd_sched_ask *ask,
                         struct pd_sched_request *request)
{
    memset(request, 0, sizeof *request);
    request->size = sizeof *request;
    request->model = ask->model;
    request->session = ask->session;
    request->prompt_bytes = ask->prompt_bytes;
    if (request->prompt_bytes == 0 && ask->prompt != NULL)
        request->prompt_bytes = ask->prompt->bytes;
    request->prompt_tokens = ask->prompt_tokens;
    request->tokens_exact = ask->prompt_tokens != 0 && ask->tokens_exact != 0;
    if (request->prompt_tokens == 0)
        request->prompt_tokens = (request->prompt_bytes + 3) / 4;
    request->max_output = ask->max_output;
    request->prompt_blocks = ask->prompt != NULL ? ask->prompt->n : 0;
    request->block_tokens = sched->block_tokens;
    request->random = ask->random;
}

static bool is_avoided(const struct pd_sched_ask *ask, const struct pd_endpoint_view *view)
{
    for (uint32_t i = 0; i < PD_MIN(ask->avoid_n, PD_SCHED_AVOID_MAX); i++) {
        if (ask->avoid[i].slot == view->slot && ask->avoid[i].serial == view->serial)
            return true;
    }
    return false;
}

static bool is_whole(const struct pd_sched *sched, const struct pd_endpoint_view *view)
{
    return (sched->endpoints.slots[view->slot]->flags & PD_ENDPOINT_WHOLE) != 0;
}

/* Whether the endpoint computes prompts for a decode endpoint of this family. */
static bool is_partner(const struct pd_sched *sched, const struct pd_endpoint_view *view, uint64_t family)
{
    return !is_whole(sched, view) && sched->endpoints.slots[view->slot]->family == family;
}

static bool is_paired(const struct pd_sched *sched, const struct pd_endpoint_view *view)
{
    return (sched->endpoints.slots[view->slot]->flags & PD_ENDPOINT_PAIRED) != 0;
}

/* Endpoints there are now that compute prompts for this one. */
static uint32_t prefill_nodes(const struct pd_sched *sched, const struct pd_endpoint_view *decode)
{
    uint64_t family = sched->endpoints.slots[decode->slot]->family;
    uint32_t n = 0;

    for (uint32_t i = 0; i < sched->views_n; i++) {
        const struct pd_endpoint_view *view = &sched->views[i];
        n += view->serial != decode->serial && (view->roles & PD_ROLE_PREFILL) != 0 && is_alive(view) &&
             is_partner(sched, view, family);
    }
    return n;
}

/* Whether it can take nothing: nobody computes prompts for it. */
static bool is_lonely(const struct pd_sched *sched, const struct pd_endpoint_view *view)
{
    return is_paired(sched, view) && prefill_nodes(sched, view) == 0;
}

/* Leaves out those that are paired in the family. */
static void drop_family(struct pd_sched *sched, uint64_t family)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < sched->views_n; i++) {
        const struct pd_endpoint_view *view = &sched->views[i];
        if (!is_paired(sched, view) || sched->endpoints.slots[view->slot]->family != family)
            sched->views[n++] = *view;
    }
    sched->views_n = n;
}

/* 0 when it is gone. */
static uint64_t family_of(const struct pd_sched *sched, struct pd_endpoint_ref ref)
{
    const struct pd_endpoint *e = pd_endpoints_at(&sched->endpoints, ref);
    return e != NULL ? e->family : 0;
}

/* Runs a profile over the gathered endpoints but `decode` and those to avoid,
 * or with these when with_avoided. */
static void run_profile(struct pd_sched *sched, const struct pd_sched_ask *ask,
                        struct pd_sched_request *request, struct pd_pipeline_run *run,
                        struct pd_endpoint_ref decode, bool with_avoided)
{
    uint64_t without = decode.serial;
    uint64_t family = request->roles == PD_ROLE_PREFILL ? family_of(sched, decode) : 0;
    const struct pd_profile *profile = run->profile;

    request->profile = pd_str_from(profile->name);
    run->request = request;
    run->candidates = 0;
    run->stale_ns = sched->load_stale;
    run->explain_max = sched->explain_max;
    run->explain = ask->explain;
    if (request->roles != PD_ROLE_PREFILL && without == 0 && (with_avoided || ask->avoid_n == 0)) {
        run->candidates = sched->views_n;
        memcpy(sched->scratch.views, sched->views, sched->views_n * sizeof sched->views[0]);
    }
    for (uint32_t i = run->candidates; i < sched->views_n; i++) {
        const struct pd_endpoint_view *view = &sched->views[i];
        if (request->roles == PD_ROLE_PREFILL && !is_partner(sched, view, family))
            continue;
        if (view->serial != without && (with_avoided || !is_avoided(ask, view)))
            sched->scratch.views[run->candidates++] = *view;
    }
    pd_pipeline_run(&sched->scratch, run);
}

/* What failed for this request already comes last: alone when nothing else is. */
static void choose(struct pd_sched *sched, const struct pd_sched_ask *ask,
                   struct pd_sched_request *request, struct pd_pipeline_run *run,
                   struct pd_endpoint_ref decode)
{
    run_profile(sched, ask, request, run, decode, false);
    if (run->picks == 0 && ask->avoid_n > 0)
        run_profile(sched, ask, request, run, decode, true);
}

static void fill_target(struct pd_sched *sched, uint32_t index, struct pd_sched_target *out)
{
    const struct pd_endpoint_view *view = &sched->scratch.views[index];
    const struct pd_endpoint *e = sched->endpoints.slots[view->slot];

    out->ref = pd_endpoint_ref_of(e);
    out->user = e->user;
    out->name = e->name;
    out->total = sched->scratch.total[index];
    out->match_blocks = view->match_blocks;
}

static void tell_picked(struct pd_sched *sched, const struct pd_profile *profile,
                        const struct pd_sched_request *request, uint32_t index)
{
    for (uint32_t k = 0; k < profile->scorers_n; k++) {
        if (profile->scorers[k].ops->picked != NULL)
            profile->scorers[k].ops->picked(profile->scorers[k].instance, request,
                                            &sched->scratch.views[index]);
    }
}

static void choose_prefill(struct pd_sched *sched, const struct pd_sched_ask *ask,
                           struct pd_sched_request *request, struct pd_sched_plan *plan)
{
    struct pd_pipeline_run run = {
        .profile = &sched->pipeline->prefill,
        .want = PD_MIN(ask->prefill_max, PD_SCHED_PREFILL_MAX),
    };

    request->roles = PD_ROLE_PREFILL;
    choose(sched, ask, request, &run, plan->decode.ref);
    plan->prefill_n = PD_MIN(run.picks, PD_SCHED_PREFILL_MAX);
    for (uint32_t i = 0; i < plan->prefill_n; i++)
        fill_target(sched, sched->scratch.index[i], &plan->prefill[i]);
    if (plan->prefill_n > 0)
        tell_picked(sched, run.profile, request, sched->scratch.index[0]);
    plan->stale |= run.stale;
}

static const char *mode_name(uint32_t mode)
{
    return mode == PD_DECIDE_REMOTE ? "remote" : mode == PD_DECIDE_EXACT ? "exact" : "local";
}

/* Nobody can count the tokens before they are sent, so an estimate decides. */
static void decide_by_estimate(const struct pd_sched *sched, const struct pd_sched_request *request,
                               const struct pd_endpoint_view *decode, struct pd_decision *out)
{
    uint64_t cached = (uint64_t)decode->match_blocks * sched->block_tokens;
    uint64_t uncached = cached < request->prompt_tokens ? request->prompt_tokens - cached : 0;

    out->mode = uncached >= out->min_tokens ? PD_DECIDE_REMOTE : PD_DECIDE_LOCAL;
    snprintf(out->reason, sizeof out->reason, "about %llu uncached tokens, remote from %llu",
             (unsigned long long)uncached, (unsigned long long)out->min_tokens);
}

static void decide(struct pd_sched *sched, const struct pd_sched_ask *ask,
                   const struct pd_sched_request *request,
                   const struct pd_endpoint_view *decode, struct pd_decision *out)
{
    const struct pd_sched_pipeline *pl = sched->pipeline;

    memset(out, 0, sizeof *out);
    out->size = sizeof *out;
    uint32_t flags = sched->endpoints.slots[decode->slot]->flags;
    bool is_asked = ask->prefill_max > 0 && (flags & (PD_ENDPOINT_WHOLE | PD_ENDPOINT_PAIRED)) == 0;
    if ((flags & PD_ENDPOINT_PAIRED) != 0) {
        out->mode = PD_DECIDE_REMOTE;
        (void)pd_str_copy(PD_STR("the decode server computes no prompts"), out->reason, sizeof out->reason);
    } else if (!is_asked) {
        out->mode = PD_DECIDE_LOCAL;
        (void)pd_str_copy(is_whole(sched, decode) ? PD_STR("the server computes the prompt itself")
                                                  : PD_STR("prefill elsewhere is not wanted"),
                          out->reason, sizeof out->reason);
    } else {
        pl->decider_ops->decide(pl->decider, request, decode, prefill_nodes(sched, decode), out);
        out->reason[sizeof out->reason - 1] = '\0';
        if (out->mode < PD_DECIDE_LOCAL || out->mode > PD_DECIDE_EXACT)
            out->mode = PD_DECIDE_LOCAL;
        if (out->mode == PD_DECIDE_EXACT && (flags & PD_ENDPOINT_ESTIMATE) != 0)
            decide_by_estimate(sched, request, decode, out);
    }
    pd_explain_emit(&ask->explain, PD_EXPLAIN_DECISION, mode_name(out->mode),
                    is_asked ? pl->decider_name : "", out->reason, 0, 0);
}

/* Index of the decode endpoint in the scratch; none when there are no picks. */
static uint32_t choose_decode(struct pd_sched *sched, const struct pd_sched_ask *ask,
                              struct pd_sched_request *request, struct pd_pipeline_run *run)
{
    for (;;) {
        choose(sched, ask, request, run, (struct pd_endpoint_ref){ 0 });
        if (run->picks == 0)
            return 0;
        const struct pd_endpoint_view *view = &sched->scratch.views[sched->scratch.index[0]];
        if (!is_lonely(sched, view))
            return sched->scratch.index[0];
        pd_explain_emit(&ask->explain, PD_EXPLAIN_NOTE, view->name, "",
                        "left out: no prefill endpoint is there for it", 0, 0);
        drop_family(sched, sched->endpoints.slots[view->slot]->family);
    }
}

static pd_status schedule(struct pd_sched *sched, const struct pd_sched_ask *ask,
                          struct pd_sched_plan *out)
{
    struct pd_sched_request request;
    struct pd_pipeline_run run = { .profile = &sched->pipeline->decode, .want = 1 };

    memset(out, 0, sizeof *out);
    out->size = sizeof *out;
    gather(sched, ask);
    if (sched->views_n == 0) {
        pd_sched_meter_none(&sched->meter, true);
        pd_explain_emit(&ask->explain, PD_EXPLAIN_NOTE, "", "", "no endpoint serves the model", 0,
                        0);
        return PD_ENOENT;
    }
    fill_request(sched, ask, &request);
    request.roles = PD_ROLE_DECODE;
    uint32_t chosen = choose_decode(sched, ask, &request, &run);
    if (run.picks == 0) {
        pd_sched_meter_none(&sched->meter, false);
        return PD_EAGAIN;
    }
    struct pd_endpoint_view decode = sched->scratch.views[chosen];
    fill_target(sched, chosen, &out->decode);
    tell_picked(sched, run.profile, &request, chosen);
    out->stale = run.stale;

    decide(sched, ask, &request, &decode, &out->decision);
    if (out->decision.mode != PD_DECIDE_LOCAL) {
        choose_prefill(sched, ask, &request, out);
        if (out->prefill_n == 0 && is_paired(sched, &decode)) {
            pd_sched_meter_none(&sched->meter, false);
            return PD_EAGAIN;
        }
        if (out->prefill_n == 0) {
            out->decision.mode = PD_DECIDE_LOCAL;
            snprintf(out->decision.reason, sizeof out->decision.reason,
                     "no prefill endpoint can take it");
            pd_explain_emit(&ask->explain, PD_EXPLAIN_DECISION, "local", "", out->decision.reason,
                            0, 0);
            pd_sched_meter_fallback(&sched->meter);
        }
    }
    pd_sched_meter_decision(&sched->meter, mode_name(out->decision.mode), out->stale != 0,
                            request.prompt_blocks, decode.match_blocks);
    return PD_OK;
}

static pd_status schedule_prefill(struct pd_sched *sched, const struct pd_sched_ask *ask,
                                  struct pd_sched_plan *out)
{
    struct pd_sched_request request;

    out->prefill_n = 0;
    gather(sched, ask);
    fill_request(sched, ask, &request);
    choose_prefill(sched, ask, &request, out);
    return out->prefill_n > 0 ? PD_OK : PD_EAGAIN;
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
    pd_endpoint_dispatched(e, role, tokens, out);
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
        pd_endpoint_computed(e, d);
    d->prompt = NULL;
}

static void end(struct pd_sched *sched, struct pd_dispatch *d, uint32_t result, pd_time now)
{
    struct pd_endpoint *e = d->ticket == 0 ? NULL : pd_endpoints_at(&sched->endpoints, d->ref);

    if (e != NULL) {
        if (result != PD_DISPATCH_OK && d->prompt != NULL)
            pd_prefix_rollback(sched->prefix, d->ref.slot, d->prompt->hashes, d->prompt->n,
                               (uint32_t)d->ticket);
        pd_endpoint_ended(&sched->endpoints, e, d, result, now);
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
        .schedule = schedule,
        .schedule_prefill = schedule_prefill,
        .dispatch = dispatch,
        .computed = computed,
        .end = end,
        .endpoint_drain = endpoint_drain,
    };
    return &api;
}
