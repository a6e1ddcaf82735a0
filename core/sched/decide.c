/* SPDX-License-Identifier: Apache-2.0 */
/* One decision, in this order: the decode profile chooses who decodes, the
 * decider says local or remote, and for remote the prefill profile chooses up
 * to three endpoints.  Where no prefill endpoint can take it the request runs
 * aggregated, so an empty or dead prefill pool never fails a request, unless all
 * that decode are paired: those compute no prompts.
 *
 * Shortlists are kept from one decision to the next where their profile's filters
 * allow it; what asks for other candidates (a retry, a decode endpoint that could
 * prefill too) gets one of its own.  All memory that a decision needs is there from
 * the start; lists to keep take more, without which there are none. */
#include <stdio.h>
#include <string.h>

#include "base/compiler.h"
#include "base/str.h"
#include "sched/priv.h"

static void fill_request(const struct pd_sched *sched, const struct pd_sched_ask *ask,
                         struct pd_sched_request *request)
{
    const struct pd_prompt *prompt = ask->prompt;
    uint64_t bytes = ask->prompt_bytes == 0 && prompt != NULL ? prompt->bytes : ask->prompt_bytes;

    *request = (struct pd_sched_request){
        .size = sizeof *request, .model = ask->model, .session = ask->session, .prompt_bytes = bytes,
        .prompt_tokens = ask->prompt_tokens != 0 ? ask->prompt_tokens : (bytes + 3) / 4,
        .tokens_exact = ask->prompt_tokens != 0 && ask->tokens_exact != 0, .max_output = ask->max_output,
        .prompt_blocks = prompt != NULL ? prompt->n : 0, .block_tokens = sched->block_tokens,
        .random = ask->random,
    };
}

/* ---- candidates ---- */

/* What a profile chooses from. */
struct pool {
    const struct pd_profile *profile;
    bool is_prefill;
    uint64_t family;            /* of prefill: prompts for endpoints of this one */
    struct pd_endpoint_ref decode;  /* of prefill: chosen already */
    bool with_avoided;
    bool without_lonely;        /* of decode: not what nobody computes prompts for */
};

static bool is_avoided(const struct pd_sched_ask *ask, const struct pd_endpoint_view *view)
{
    for (uint32_t i = 0; i < PD_MIN(ask->avoid_n, PD_SCHED_AVOID_MAX); i++) {
        if (ask->avoid[i].slot == view->slot && ask->avoid[i].serial == view->serial)
            return true;
    }
    return false;
}

/* Whether the endpoint computes prompts for a decode endpoint of this family. */
static bool is_partner(const struct pd_endpoint *e, uint64_t family)
{
    return (e->flags & PD_ENDPOINT_WHOLE) == 0 && e->family == family;
}

static bool counts_as_partner(const struct pd_endpoint *e, uint64_t family)
{
    return (e->view.roles & PD_ROLE_PREFILL) != 0 && pd_sched_is_alive(&e->view) && is_partner(e, family);
}

/* Endpoints of the family that compute prompts now. */
static uint32_t count_partners(const struct pd_sched *sched, const struct pd_sched_ask *ask, uint64_t family)
{
    const struct pd_endpoints *t = &sched->endpoints;
    uint64_t hash = pd_endpoint_model_hash(ask->model);
    uint32_t n = 0;

    for (uint32_t i = 0; i < t->used; i++) {
        const struct pd_endpoint *e = t->slots[i];
        n += e != NULL && !e->is_leaving && counts_as_partner(e, family) &&
             pd_endpoint_serves(e, ask->model, hash);
    }
    return n;
}

/* Those that compute prompts for this one; counted once for a list and family. */
static uint32_t prefill_nodes(const struct pd_sched *sched, const struct pd_sched_ask *ask,
                              struct pd_shortlist *l, const struct pd_endpoint *decode)
{
    if (!l->has_partners || l->partners_family != decode->family) {
        l->partners = count_partners(sched, ask, decode->family);
        l->partners_family = decode->family;
        l->has_partners = true;
    }
    return l->partners - counts_as_partner(decode, decode->family);
}

/* Whether it can take nothing: nobody computes prompts for it. */
static bool is_lonely(const struct pd_sched *sched, const struct pd_sched_ask *ask, struct pd_shortlist *l,
                      const struct pd_endpoint *e)
{
    return (e->flags & PD_ENDPOINT_PAIRED) != 0 && prefill_nodes(sched, ask, l, e) == 0;
}

/* Endpoints that serve the model, as they are now; `is_whole`: whoever is chosen already
 * or to avoid as well. */
static void gather(struct pd_sched *sched, const struct pd_sched_ask *ask, const struct pool *pool,
                   bool is_whole, struct pd_shortlist *l)
{
    const struct pd_endpoints *t = &sched->endpoints;
    uint64_t hash = pd_endpoint_model_hash(ask->model);

    pd_shortlist_begin(l, pool->profile, t->used);
    l->serving = 0;
    for (uint32_t i = 0; i < t->used; i++) {
        const struct pd_endpoint *e = t->slots[i];
        if (e == NULL || e->is_leaving || !pd_endpoint_serves(e, ask->model, hash))
            continue;
        l->serving++;
        if (pool->is_prefill && !is_partner(e, pool->family))
            continue;
        if (pool->without_lonely && is_lonely(sched, ask, l, e))
            continue;
        if (is_whole || (e->view.serial != pool->decode.serial &&
                         (pool->with_avoided || !is_avoided(ask, &e->view))))
            pd_shortlist_add(l, e, ask->now);
    }
    l->seen = t->changes;
}

static bool is_of(const struct pd_sched *sched, const struct pd_shortlist *l, const struct pd_sched_ask *ask,
                  const struct pool *pool)
{
    return l->version == sched->endpoints.version && l->profile == pool->profile && ask->now < l->until &&
           l->family == pool->family && pd_str_eq_short(pd_str_of(l->model, l->model_n), ask->model);
}

/* The list of this pool without regard to what the request excludes; NULL when it
 * cannot be kept. */
static struct pd_shortlist *kept(struct pd_sched *sched, const struct pd_sched_ask *ask,
                                 const struct pd_sched_request *request, const struct pool *pool)
{
    const struct pd_endpoints *t = &sched->endpoints;
    struct pd_shortlist *l = &sched->lists[0];

    for (uint32_t i = 0; i < PD_SCHED_LISTS; i++) {
        struct pd_shortlist *other = &sched->lists[i];
        if (is_of(sched, other, ask, pool)) {
            pd_shortlist_refresh(other, t, request, ask->now);
            other->used = sched->decisions;
            return other;
        }
        if (other->used < l->used)
            l = other;
    }
    if (ask->model.n > PD_SHORTLIST_MODEL_MAX || !pd_shortlist_is_steady(pool->profile) ||
        pd_shortlist_reserve(l, t->n, pool->profile->scorers_n, t->max) != PD_OK)
        return NULL;
    gather(sched, ask, pool, true, l);
    pd_shortlist_filter(l, &sched->scratch, request, sched->load_stale, sched->explain_max + 1);
    l->until = pd_shortlist_until(l, t, sched->load_stale, ask->now);
    l->version = t->version;
    l->family = pool->family;
    l->model_n = ask->model.n;
    if (l->model_n > 0)
        memcpy(l->model, ask->model.p, l->model_n);
    l->used = sched->decisions;
    return l;
}

/* Whether the list would be the same had this endpoint not been there. */
static bool is_same_without(const struct pd_shortlist *l, struct pd_endpoint_ref ref)
{
    return ref.serial == 0 || l->at[ref.slot] == PD_SHORTLIST_NONE || l->at[ref.slot] == PD_SHORTLIST_ALONE;
}

static void run_profile(struct pd_sched *sched, const struct pd_sched_ask *ask,
                        const struct pd_sched_request *request, const struct pool *pool,
                        struct pd_pipeline_run *run)
{
    bool is_usual = (ask->avoid_n == 0 || pool->with_avoided) && !pool->without_lonely;
    struct pd_shortlist *l = is_usual ? kept(sched, ask, request, pool) : NULL;

    if (l != NULL && is_same_without(l, pool->decode)) {
        bool is_in = pool->decode.serial != 0 && l->at[pool->decode.slot] != PD_SHORTLIST_NONE;
        run->without = is_in ? (uint64_t)pool->decode.slot + 1 : 0;
        pd_pipeline_match(&sched->scratch, l);
    } else {
        l = &sched->once;
        gather(sched, ask, pool, false, l);
        pd_pipeline_match(&sched->scratch, l);
        pd_shortlist_filter(l, &sched->scratch, request, sched->load_stale, sched->explain_max);
        pd_pipeline_match(&sched->scratch, l);
        run->without = 0;
    }
    run->list = l;
    run->request = request;
    run->explain_max = sched->explain_max;
    run->explain = ask->explain;
    pd_pipeline_run(&sched->scratch, run);
}

/* What failed for this request already comes last: alone when nothing else is. */
static void choose(struct pd_sched *sched, const struct pd_sched_ask *ask, struct pd_sched_request *request,
                   struct pool *pool, struct pd_pipeline_run *run)
{
    request->roles = pool->is_prefill ? PD_ROLE_PREFILL : PD_ROLE_DECODE;
    request->profile = pool->is_prefill ? PD_STR("prefill") : PD_STR("decode");
    run_profile(sched, ask, request, pool, run);
    if (run->picks > 0 || ask->avoid_n == 0 || run->list->serving == 0)
        return;
    pool->with_avoided = true;
    run_profile(sched, ask, request, pool, run);
}

/* ---- what was chosen ---- */

static void fill_target(const struct pd_sched *sched, const struct pd_pipeline_run *run, uint32_t index,
                        struct pd_sched_target *out)
{
    const struct pd_endpoint_view *view = &run->list->views[index];
    const struct pd_endpoint *e = sched->endpoints.slots[view->slot];

    out->ref = pd_endpoint_ref_of(e);
    out->user = e->user;
    out->name = e->name;
    out->total = sched->scratch.total[index];
    out->match_blocks = view->match_blocks;
    out->name_n = e->name_n;
}

/* The view as it is now; until the next run. */
static const struct pd_endpoint_view *view_of(const struct pd_sched *sched, const struct pd_pipeline_run *run,
                                              uint32_t index, pd_time now)
{
    struct pd_endpoint_view *view = &run->list->views[index];

    view->report_age_ns = pd_endpoint_age(sched->endpoints.slots[view->slot], now);
    return view;
}

static void tell_picked(const struct pd_profile *profile, const struct pd_sched_request *request,
                        const struct pd_endpoint_view *view)
{
    for (uint32_t k = 0; k < profile->scorers_n && profile->has_picked; k++) {
        if (profile->scorers[k].ops->picked != NULL)
            profile->scorers[k].ops->picked(profile->scorers[k].instance, request, view);
    }
}

/* ---- prefill ---- */

/* The family of whom prompts are computed for; 0 when it is gone. */
static uint64_t family_of(const struct pd_sched *sched, struct pd_endpoint_ref ref)
{
    const struct pd_endpoint *e = pd_endpoints_at(&sched->endpoints, ref);
    return e != NULL ? e->family : 0;
}

static void choose_prefill(struct pd_sched *sched, const struct pd_sched_ask *ask,
                           struct pd_sched_request *request, struct pd_sched_plan *plan)
{
    struct pd_pipeline_run run = { .want = PD_MIN(ask->prefill_max, PD_SCHED_PREFILL_MAX) };
    struct pool pool = { .profile = &sched->pipeline->prefill, .is_prefill = true,
                         .family = family_of(sched, plan->decode.ref), .decode = plan->decode.ref };

    choose(sched, ask, request, &pool, &run);
    plan->prefill_n = PD_MIN(run.picks, PD_SCHED_PREFILL_MAX);
    for (uint32_t i = 0; i < plan->prefill_n; i++)
        fill_target(sched, &run, sched->scratch.index[i], &plan->prefill[i]);
    if (plan->prefill_n > 0)
        tell_picked(pool.profile, request, view_of(sched, &run, sched->scratch.index[0], ask->now));
    plan->stale |= run.list->is_stale;
}

/* ---- local or remote ---- */

static struct pd_str mode_name(uint32_t mode)
{
    return mode == PD_DECIDE_REMOTE ? PD_STR("remote") : mode == PD_DECIDE_EXACT ? PD_STR("exact") : PD_STR("local");
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

/* What stands for itself needs no decider; reason is shorter than its place. */
static inline void decide_plainly(struct pd_decision *out, uint32_t mode, struct pd_str reason)
{
    out->size = sizeof *out;
    out->mode = mode;
    out->min_tokens = 0;
    memcpy(out->reason, reason.p, reason.n);
    out->reason[reason.n] = '\0';
}

static void ask_decider(struct pd_sched *sched, const struct pd_sched_ask *ask,
                        const struct pd_sched_request *request, struct pd_shortlist *list,
                        const struct pd_endpoint_view *decode, struct pd_decision *out)
{
    const struct pd_sched_pipeline *pl = sched->pipeline;
    const struct pd_endpoint *e = sched->endpoints.slots[decode->slot];

    memset(out, 0, sizeof *out);
    out->size = sizeof *out;
    pl->decider_ops->decide(pl->decider, request, decode, prefill_nodes(sched, ask, list, e), out);
    out->reason[sizeof out->reason - 1] = '\0';
    if (out->mode < PD_DECIDE_LOCAL || out->mode > PD_DECIDE_EXACT)
        out->mode = PD_DECIDE_LOCAL;
    if (out->mode == PD_DECIDE_EXACT && (e->flags & PD_ENDPOINT_ESTIMATE) != 0)
        decide_by_estimate(sched, request, decode, out);
}

static void decide(struct pd_sched *sched, const struct pd_sched_ask *ask,
                   const struct pd_sched_request *request, struct pd_shortlist *list,
                   const struct pd_endpoint_view *decode, struct pd_decision *out)
{
    uint32_t flags = sched->endpoints.slots[decode->slot]->flags;
    struct pd_explain_line line = { .kind = PD_EXPLAIN_DECISION };

    if ((flags & PD_ENDPOINT_PAIRED) != 0) {
        line.text = PD_STR("the decode server computes no prompts");
        decide_plainly(out, PD_DECIDE_REMOTE, line.text);
    } else if ((flags & PD_ENDPOINT_WHOLE) != 0) {
        line.text = PD_STR("the server computes the prompt itself");
        decide_plainly(out, PD_DECIDE_LOCAL, line.text);
    } else if (ask->prefill_max == 0) {
        line.text = PD_STR("prefill elsewhere is not wanted");
        decide_plainly(out, PD_DECIDE_LOCAL, line.text);
    } else {
        ask_decider(sched, ask, request, list, decode, out);
        line.plugin = pd_str_from(sched->pipeline->decider_name);
        line.text = pd_str_from(out->reason);
    }
    line.subject = mode_name(out->mode);
    pd_explain_tell(&ask->explain, &line);
}

/* ---- decisions ---- */

static void look_up_prompt(struct pd_sched *sched, const struct pd_sched_ask *ask)
{
    struct pd_pipeline_scratch *s = &sched->scratch;

    sched->decisions++;
    s->holders_n = 0;
    if (ask->prompt != NULL && ask->prompt->n > 0)
        s->holders_n = pd_prefix_holders(sched->prefix, ask->prompt->hashes, ask->prompt->n, s->holders);
}

/* The index of the decode endpoint; none when there are no picks. */
static uint32_t choose_decode(struct pd_sched *sched, const struct pd_sched_ask *ask,
                              struct pd_sched_request *request, struct pd_pipeline_run *run)
{
    struct pool pool = { .profile = &sched->pipeline->decode };

    choose(sched, ask, request, &pool, run);
    if (run->picks == 0)
        return 0;
    const struct pd_endpoint_view *view = &run->list->views[sched->scratch.index[0]];
    if (is_lonely(sched, ask, run->list, sched->endpoints.slots[view->slot])) {
        pd_explain_emit(&ask->explain, PD_EXPLAIN_NOTE, view->name, "",
                        "left out: no prefill endpoint is there for it", 0, 0);
        pool.without_lonely = true;
        pool.with_avoided = false;
        choose(sched, ask, request, &pool, run);
    }
    return sched->scratch.index[0];
}

pd_status pd_sched_schedule(struct pd_sched *sched, const struct pd_sched_ask *ask, struct pd_sched_plan *out)
{
    struct pd_sched_request request;
    struct pd_pipeline_run run = { .want = 1 };

    out->size = sizeof *out;
    out->prefill_n = out->stale = out->reserved = 0;
    look_up_prompt(sched, ask);
    fill_request(sched, ask, &request);
    uint32_t chosen = choose_decode(sched, ask, &request, &run);
    if (run.list->serving == 0) {
        pd_sched_meter_none(&sched->meter, true);
        pd_explain_emit(&ask->explain, PD_EXPLAIN_NOTE, "", "", "no endpoint serves the model", 0, 0);
        return PD_ENOENT;
    }
    if (run.picks == 0) {
        pd_sched_meter_none(&sched->meter, false);
        return PD_EAGAIN;
    }
    const struct pd_endpoint_view *decode = view_of(sched, &run, chosen, ask->now);
    fill_target(sched, &run, chosen, &out->decode);
    tell_picked(run.list->profile, &request, decode);
    out->stale = run.list->is_stale;

    decide(sched, ask, &request, run.list, decode, &out->decision);
    if (out->decision.mode != PD_DECIDE_LOCAL) {
        choose_prefill(sched, ask, &request, out);
        if (out->prefill_n == 0 && (sched->endpoints.slots[out->decode.ref.slot]->flags & PD_ENDPOINT_PAIRED) != 0) {
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
    pd_sched_meter_decision(&sched->meter, out->decision.mode, out->stale != 0, request.prompt_blocks,
                            out->decode.match_blocks);
    return PD_OK;
}

pd_status pd_sched_schedule_prefill(struct pd_sched *sched, const struct pd_sched_ask *ask,
                                    struct pd_sched_plan *out)
{
    struct pd_sched_request request;

    out->prefill_n = 0;
    look_up_prompt(sched, ask);
    fill_request(sched, ask, &request);
    choose_prefill(sched, ask, &request, out);
    return out->prefill_n > 0 ? PD_OK : PD_EAGAIN;
}
